"""Encryption: the age format, written and read."""
