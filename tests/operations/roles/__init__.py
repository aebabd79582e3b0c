"""Backups with the access keys of the roles, whose printed policies a proxy enforces."""
