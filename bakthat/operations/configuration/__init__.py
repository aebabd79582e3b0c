"""Check the whole configuration, and show what is in force."""
