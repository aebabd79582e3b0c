"""How long backups are locked in a bucket with object lock."""
