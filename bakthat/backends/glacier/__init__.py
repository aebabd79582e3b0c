"""The backend for vaults of Amazon Glacier."""
