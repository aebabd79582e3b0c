"""Threads that fail to start when memory is short, instead of leaving their starter waiting."""

from __future__ import annotations

import mmap
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
Result = TypeVar("Result")

_DEFAULT_STACK = 8 * 1024 * 1024
"""Bytes of a thread's stack where the program sets none, as most systems have it."""
_BEGINNING = 4 * 1024 * 1024
"""Bytes that a thread may need until it runs Python code, with room for what others take."""


def check_room_for_thread() -> None:
    """Raise MemoryError unless there is address space for one more thread.

    Python waits for ever for a thread that ran out of memory before it said that it had started
    (https://github.com/python/cpython/issues/140746), so this is asked first.
    """
    size = (threading.stack_size() or _DEFAULT_STACK) + _BEGINNING
    try:
        mmap.mmap(-1, size).close()
    except OSError as exc:
        raise MemoryError(f"no {size} bytes for a thread") from exc


class ThreadPool(ThreadPoolExecutor):
    """A pool whose :meth:`submit` raises MemoryError where a thread would not have begun."""

    def submit(
        self, fn: Callable[P, Result], /, *args: P.args, **kwargs: P.kwargs
    ) -> Future[Result]:
        """Run *fn* in a thread. Raises MemoryError, and RuntimeError where none can be started."""
        check_room_for_thread()
        return super().submit(fn, *args, **kwargs)
