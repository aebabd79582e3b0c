"""What docs/format.rst says, in code: names of objects and what they say of themselves."""
