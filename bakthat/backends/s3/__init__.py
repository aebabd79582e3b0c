"""The backend for Amazon S3 and for storages with its API."""
