"""See through deletions and overwriting, by the versions that a bucket keeps."""
