"""Databases as sources: what a URL means, how its dump is made, and how that is loaded again."""
