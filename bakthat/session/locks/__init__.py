"""The locks of stored backups: their retention, and holds."""
