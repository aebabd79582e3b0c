"""What a user can do, one module for each; they do not know each other."""
