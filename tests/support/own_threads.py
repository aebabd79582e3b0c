"""The threads of bakthat that still run, among those of pytest, servers and libraries."""

from __future__ import annotations

import threading


def own_threads() -> list[str]:
    """Return the names of the running threads that bakthat started, which all name it."""
    return [each.name for each in threading.enumerate() if each.name.startswith("bakthat-")]
