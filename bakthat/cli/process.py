"""Settings of a process that is bakthat's own; one that imports bakthat is left as it is."""

from __future__ import annotations

import gc

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
"""A constant from malloc.h in the GNU C library."""
_MIB = 1024 * 1024


def collect_rarely() -> None:
    """Collect garbage seldom: loading modules would else start it every few hundred objects.

    With :func:`leave_uncollected` it saves a tenth of a second, a third of what a command that
    needs botocore takes to start and to end. bakthat makes hardly any cycles, so that it needs no
    more memory.
    """
    gc.set_threshold(250_000, 20, 20)


def leave_uncollected() -> None:
    """Collect no garbage at the exit, which frees everything anyway."""
    gc.freeze()


def keep_memory() -> None:
    """Let malloc keep freed memory for the next use, instead of returning it to the system.

    The members of an archive are megabytes that are allocated and freed hundreds of times a
    second. Fresh pages each time take a tenth of the time of a restore. Does nothing where the C
    library is not GNU's.
    """
    import ctypes  # only a backup and a restore need it

    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError):
        return
    mallopt(_M_MMAP_THRESHOLD, 32 * _MIB)
    mallopt(_M_TRIM_THRESHOLD, 64 * _MIB)
