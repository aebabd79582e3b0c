"""Check that backups are stored, and that they can be read."""
