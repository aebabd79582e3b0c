"""The stored format of docs/format.rst: names of objects and their self-descriptions."""
