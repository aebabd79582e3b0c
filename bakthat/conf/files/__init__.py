"""The configuration files: find, read, parse and edit them."""
