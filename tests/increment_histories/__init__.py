"""Random histories of a tree and its backups: whatever happened, each kept backup is exact."""
