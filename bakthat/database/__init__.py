"""The database of the catalog: a file of SQLite, or a server that several hosts share."""
