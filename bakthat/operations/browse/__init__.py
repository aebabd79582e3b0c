"""Look into backups without restoring them: list, search, compare, read one file."""
