"""Make the catalog agree with what is stored."""
