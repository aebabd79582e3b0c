"""The gzip format in independent members, written and read by several threads."""
