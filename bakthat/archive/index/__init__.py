"""The index of an archive: what is in it, and where."""
