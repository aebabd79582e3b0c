"""The tar format: header fields, headers, the reader, sparse maps."""
