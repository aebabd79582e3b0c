"""Make the catalog agree with the storage."""
