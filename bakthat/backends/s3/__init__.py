"""The storage S3, and others with the API of S3."""
