"""Tar headers, written and read by bakthat, Python's tarfile and GNU tar."""
