"""Encrypt and decrypt: the age format, and the format of bakthat 0.6.0 for reading."""
