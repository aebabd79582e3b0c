"""The operations, one module for each group of commands; they do not know each other."""
