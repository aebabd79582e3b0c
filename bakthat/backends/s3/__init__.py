"""The storage S3, and everything that speaks S3."""
