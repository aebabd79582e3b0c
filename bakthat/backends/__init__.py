"""The storages that bakthat writes to, one module each, over the contract in base.py."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bakthat.backends._glacier_records import VaultRecords
from bakthat.backends.base import Backend
from bakthat.errors import UsageError

__all__ = ["KNOWN", "VaultRecords", "make_backend"]

KNOWN = ("s3", "glacier", "local")
"""The names that :func:`make_backend` takes."""


def make_backend(
    name: str, conf: Mapping[str, Any], records: VaultRecords | None = None
) -> Backend:
    """Return the backend called *name*, made from the flat profile *conf*.

    *records* is what must be kept of a vault outside of it; the other storages need none. Only
    its own module is imported, and nothing is connected to. Raises UsageError when there
    is no such backend, ConfigError when the profile lacks what it needs.
    """
    if name == "s3":
        from bakthat.backends.s3 import S3Backend

        return S3Backend(conf)
    if name == "glacier":
        from bakthat.backends.glacier import GlacierBackend

        return GlacierBackend(conf, records)
    if name == "local":
        from bakthat.backends.local import LocalBackend

        return LocalBackend(conf)
    raise UsageError(f"there is no destination {name!r}", hint=f"use one of: {', '.join(KNOWN)}")
