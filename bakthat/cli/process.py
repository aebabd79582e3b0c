"""Settings of the process of the command line. A program that imports bakthat keeps its own."""

from __future__ import annotations

import contextlib
import gc
import os
import sys
import threading

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
"""Constants of the GNU C library's malloc.h."""
_MIB = 1024 * 1024


def use_utf8() -> None:
    """Start the command again in Python's UTF-8 mode, unless its locale is a UTF-8 one.

    Arguments, environment variables, names of files and what is typed are bytes, which Python
    decodes as the locale says. What is stored must not depend on that.

    Does nothing where another program calls bakthat with arguments of its own, or contains it.
    """
    is_own = sys.orig_argv[len(sys.orig_argv) - len(sys.argv) + 1 :] == sys.argv[1:]
    if not is_own or getattr(sys, "frozen", False):
        return
    if sys.getfilesystemencoding() == "utf-8" or "utf8" in sys._xoptions:
        return
    with contextlib.suppress(OSError):
        os.execv(sys.executable, [sys.executable, "-X", "utf8", *sys.orig_argv[1:]])


def collect_rarely() -> None:
    """Collect garbage rarely; loading modules would otherwise trigger it every few hundred objects.

    Together with :func:`skip_final_collection` it saves a tenth of a second, a third of the time
    that a command with botocore takes to start and to end. bakthat makes hardly any cycles, so this
    takes no more memory.
    """
    gc.set_threshold(250_000, 20, 20)


def skip_final_collection() -> None:
    """Skip the garbage collection at exit, which frees everything anyway."""
    gc.freeze()


_OWN_THREADS = "bakthat-"
"""What the names of threads in bakthat's pools begin with."""


def end_without_threads(code: int) -> None:
    """End the process with *code* if threads of bakthat still run; else return.

    At exit, Python waits for each thread of a pool, and so for a request that may take a minute.
    After a second signal nobody wants to wait.
    """
    if not any(thread.name.startswith(_OWN_THREADS) for thread in threading.enumerate()):
        return
    plugin = sys.modules.get("bakthat.plugin")  # as at exit: its plugins are deactivated
    if plugin is not None:
        plugin.deactivate_plugins()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    os._exit(code)


def keep_freed_memory() -> None:
    """Let malloc keep freed memory for the next use, instead of returning it to the system.

    The members of an archive take megabytes, allocated and freed hundreds of times a second.
    Getting fresh pages each time takes a tenth of the time of a restore. Does nothing with another
    C library than GNU's.
    """
    import ctypes  # only a backup and a restore need it

    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError):
        return
    mallopt(_M_MMAP_THRESHOLD, 32 * _MIB)
    mallopt(_M_TRIM_THRESHOLD, 64 * _MIB)
