"""Write and read archives: tar streams, compressed as gzip members."""
