"""The versions that a bucket keeps: list them, delete them, and bring one back."""
