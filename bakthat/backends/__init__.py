"""The storages that bakthat writes to, a package each; base.py has their contract."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import TYPE_CHECKING, Any

from bakthat.errors import UsageError
from bakthat.policy.defaults import DESTINATIONS

if TYPE_CHECKING:
    from bakthat.backends.base import Backend, BakthatBackend, Prober
    from bakthat.backends.glacier.backend import GlacierBackend
    from bakthat.backends.glacier.inventory import VaultRecords
    from bakthat.backends.local.backend import LocalBackend
    from bakthat.backends.s3.backend import S3Backend

__all__ = [
    "BakthatBackend",
    "GlacierBackend",
    "LocalBackend",
    "S3Backend",
    "make_backend",
    "make_prober",
]

_MODULES = {
    "BakthatBackend": "bakthat.backends.base",
    "GlacierBackend": "bakthat.backends.glacier.backend",
    "LocalBackend": "bakthat.backends.local.backend",
    "S3Backend": "bakthat.backends.s3.backend",
}


def make_backend(
    name: str, conf: Mapping[str, Any], records: VaultRecords | None = None
) -> Backend:
    """Return the backend called *name*, made from the flat profile *conf*.

    *records* are those of a Glacier vault; the other backends need none. Only the module of this
    backend is imported, and no connection is made. Raises UsageError when there is no such
    backend, ConfigError when the profile lacks a key that it needs.
    """
    if name == "s3":
        from bakthat.backends.s3.backend import S3Backend

        return S3Backend(conf)
    if name == "glacier":
        from bakthat.backends.glacier.backend import GlacierBackend

        return GlacierBackend(conf, records)
    if name == "local":
        from bakthat.backends.local.backend import LocalBackend

        return LocalBackend(conf)
    raise UsageError(
        f"there is no destination {name!r}", hint=f"use one of: {', '.join(DESTINATIONS)}"
    )


def make_prober(name: str, conf: Mapping[str, Any]) -> Prober:
    """Return what tries the container of the flat profile *conf* on the storage called *name*.

    Raises ConfigError when the profile lacks a key that the storage needs.
    """
    if name == "s3":
        from bakthat.backends.s3.probes import S3Prober

        return S3Prober(conf)
    if name == "glacier":
        from bakthat.backends.glacier.probes import GlacierProber

        return GlacierProber(conf)
    from bakthat.backends.local.probes import LocalProber

    return LocalProber(conf)


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module 'bakthat.backends' has no attribute '{name}'")
    return getattr(import_module(_MODULES[name]), name)


def __dir__() -> list[str]:
    return __all__
