"""Threads that fail to start when memory is short, instead of leaving their starter waiting."""

from __future__ import annotations

import mmap
import resource
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
Result = TypeVar("Result")

_STACK_LIMIT = resource.getrlimit(resource.RLIMIT_STACK)[0]
"""As the process began with it: the C library takes it for the size of a thread's stack."""
_DEFAULT_STACK = 8 * 1024 * 1024
"""Bytes of a thread's stack where nothing limits it, or less."""
_BEGINNING = 4 * 1024 * 1024
"""Bytes that a thread may need until it runs Python code, with room for what others take."""


def check_room_for_thread() -> None:
    """Raise MemoryError unless there is address space for one more thread.

    Python waits for ever for a thread that ran out of memory before it said that it had started
    (https://github.com/python/cpython/issues/140746), so this is asked first.
    """
    limit = _DEFAULT_STACK if _STACK_LIMIT == resource.RLIM_INFINITY else _STACK_LIMIT
    size = (threading.stack_size() or limit) + _BEGINNING
    try:
        mmap.mmap(-1, size).close()
    except OSError as exc:
        raise MemoryError(f"no {size} bytes for a thread") from exc


class ThreadPool(ThreadPoolExecutor):
    """A pool of threads; :meth:`submit` raises MemoryError while one more might not begin."""

    def __init__(self, workers: int, *, thread_name_prefix: str = "") -> None:
        self._missing = [None] * workers
        """One for each thread that has not begun; which task begins one is not known."""
        super().__init__(workers, thread_name_prefix, initializer=self._missing.pop)

    def submit(
        self, fn: Callable[P, Result], /, *args: P.args, **kwargs: P.kwargs
    ) -> Future[Result]:
        """Run *fn* in a thread. Raises MemoryError, and RuntimeError where none can be started."""
        if self._missing:
            check_room_for_thread()
        return super().submit(fn, *args, **kwargs)
