"""The storage Amazon Glacier: vaults."""
