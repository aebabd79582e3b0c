"""The storage in a local directory."""
