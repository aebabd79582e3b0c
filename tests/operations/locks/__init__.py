"""Locks, holds and versions of a bucket, as operations use them."""
