"""What operations share: the profile, backends, catalog, lookup of backups, and cold storage."""
