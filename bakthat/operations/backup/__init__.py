"""Back up a file or a directory: choose full or increment, store it, record it."""
