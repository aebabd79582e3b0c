"""Restore backups: those that are one object, and increments with all that they need."""
