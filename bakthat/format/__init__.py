"""The format of docs/explanation/format.rst: names of objects and their self-descriptions."""
