"""Try everything that a backup needs."""
