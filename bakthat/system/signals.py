"""Hold signals back while a step must not be interrupted.

Ctrl-C and SIGTERM raise exceptions, which may arrive between any two instructions: also between the
publication of an object and its record, or during a cleanup.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
"""The signals that stop a command."""


class HeldBack:
    """The signals that arrived while they were held back."""

    def __init__(self) -> None:
        self._handlers: dict[int, Callable[[int, FrameType | None], Any]] = {}
        self._arrived: list[int] = []

    def check(self) -> None:
        """Call the handler of the first signal that arrived; call this where a stop is safe."""
        if self._arrived:
            number = self._arrived[0]
            self._arrived.clear()
            self._handlers[number](number, None)

    def _hold(self) -> None:
        for number in SIGNALS:
            handler = signal.getsignal(number)
            if callable(handler):  # neither the default action nor an ignored signal
                self._handlers[number] = handler
                signal.signal(number, self._note)

    def _note(self, number: int, _frame: FrameType | None) -> None:
        self._arrived.append(number)

    def _restore(self) -> None:
        for number, handler in self._handlers.items():
            signal.signal(number, handler)


@contextmanager
def held_back() -> Iterator[HeldBack]:
    """Hold SIGINT, SIGTERM and SIGHUP back during the block; then handle the first that arrived.

    Only signals with a handler in Python are held back, and only in the main thread, where Python
    handles them. May be nested.
    """
    held = HeldBack()
    if threading.current_thread() is not threading.main_thread():
        yield held
        return
    held._hold()
    try:
        yield held
    finally:
        held._restore()
        held.check()
