"""Settings of a process that is bakthat's own; one that imports bakthat is left as it is."""

from __future__ import annotations

import gc

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
"""Of malloc.h in the GNU C library."""
_MIB = 1024 * 1024


def collect_rarely() -> None:
    """Let modules come in without a search for cycles every few hundred objects.

    With :func:`leave_uncollected` it saves a tenth of a second, a third of what a command that
    needs boto3 takes to start and to end. What bakthat itself does makes hardly any cycles, so
    that memory stays as it was.
    """
    gc.set_threshold(250_000, 20, 20)


def leave_uncollected() -> None:
    """Search for no cycles at the end, when everything goes anyway."""
    gc.freeze()


def keep_memory() -> None:
    """Let memory that was freed serve again, instead of going back to the system at once.

    Members of an archive are megabytes that come and go hundreds of times in a second; for new
    pages each time, the system takes a tenth of the time of a restore. Nothing happens where
    the C library is not GNU's.
    """
    import ctypes

    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError):
        return
    mallopt(_M_MMAP_THRESHOLD, 32 * _MIB)
    mallopt(_M_TRIM_THRESHOLD, 64 * _MIB)
