"""The destinations, and the defaults of settings and options that are left out."""

from __future__ import annotations

DESTINATIONS = ("s3", "glacier", "local")
COLD_DESTINATIONS = ("s3", "glacier")
"""The destinations that may hold objects which must be thawed before they can be read."""

DEFAULT_DESTINATION = "s3"
DEFAULT_REGION = "us-east-1"
DEFAULT_ATTEMPTS = 8
"""The most times that a request is sent, with pauses that grow to 20 seconds."""
DEFAULT_TIMEOUT = 60
"""Seconds without a byte from the storage after which an attempt has failed."""
DETECT = ("ctime", "mtime", "hash")
"""How an increment detects changes: by all times and the inode, without ctime and inode, or by
reading each file."""
DELETE_VERSIONS, KEEP_VERSIONS = VERSIONS = ("delete", "keep")
"""What a deletion does in a bucket that keeps versions: remove them, or hide them."""
KMS = ("aws:kms", "aws:kms:dsse")
AES256 = "AES256"
SSE = (AES256, *KMS)
"""How S3 can encrypt what it stores: with keys of its own, or with one of KMS."""
MAX_NEEDED = 64
"""The most archives that ``max_archives`` may allow for a restore."""
DEFAULT_LOCAL_PATH = "~/.bakthat_store"
DEFAULT_LEFTOVER_AGE = "1D"
"""The interval after which cleanup removes a leftover. No part takes that long to upload, and most
uploads end within hours."""
