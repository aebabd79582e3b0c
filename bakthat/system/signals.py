"""Holding signals back while something must not be left half-done.

Ctrl-C and SIGTERM unwind the program as exceptions, which may arrive between any two steps: also
between the publishing of an object and its record, or in the middle of cleaning up.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
"""Those that stop a command."""


class HeldBack:
    """The signals that came while they were held back."""

    def __init__(self) -> None:
        self._handlers: dict[int, Callable[[int, FrameType | None], Any]] = {}
        self._came: list[int] = []

    def check(self) -> None:
        """Let the first signal that came do its work now, where the caller can be stopped."""
        if self._came:
            number = self._came[0]
            self._came.clear()
            self._handlers[number](number, None)

    def _hold(self) -> None:
        for number in SIGNALS:
            handler = signal.getsignal(number)
            if callable(handler):  # not what the system does by itself, nor an ignored one
                self._handlers[number] = handler
                signal.signal(number, self._note)

    def _note(self, number: int, _frame: FrameType | None) -> None:
        self._came.append(number)

    def _let_go(self) -> None:
        for number, handler in self._handlers.items():
            signal.signal(number, handler)


@contextmanager
def held_back() -> Iterator[HeldBack]:
    """Hold SIGINT, SIGTERM and SIGHUP back during the block; afterwards the first does its work.

    Only signals with a handler in Python are held back, and only in the main thread, which alone
    gets them. May be nested.
    """
    held = HeldBack()
    if threading.current_thread() is not threading.main_thread():
        yield held
        return
    held._hold()
    try:
        yield held
    finally:
        held._let_go()
        held.check()
