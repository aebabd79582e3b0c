"""Hold signals back while a step must not be interrupted.

Ctrl-C and SIGTERM raise exceptions, which may arrive between any two instructions: also between the
publication of an object and its record, or during a cleanup. Only such a step is held back, never
the sending of data before it. The first signal is then handled after the step. A step that waits
for a storage or another process has a name: the first signal logs what is being finished, and a
second one stops it at once.
"""

from __future__ import annotations

import logging
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, Self

log = logging.getLogger("bakthat")

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
"""The signals that stop a command."""

REPEAT_SECONDS = 1.0
"""Signals within this many seconds after the first are the same request: Ctrl-C is often pressed
twice, and timeout(1) signals the process and then its group."""

Handler = Callable[[int, FrameType | None], Any]

# The handlers of the process cannot be replaced in one step, and a signal may arrive between any
# two. So what is installed does nothing of its own: outside of every block it passes the signal on.
# Blocks begin and end with one change of this list. Only the main thread changes these variables,
# since only there Python handles signals.
_blocks: list[HeldBack] = []
"""The blocks that hold signals back, the outermost first."""
_previous: dict[int, Handler] = {}
"""The handlers that :func:`_handle` replaces."""
_arrived: list[int] = []
"""The signals to handle after the outermost block."""


class HeldBack:
    """A block that holds SIGINT, SIGTERM and SIGHUP back; see :func:`held_back`."""

    def __init__(self, step: str, mend: str) -> None:
        self.step = step
        self.mend = mend
        self.is_stopped = False
        """Whether a second signal stopped the block."""
        self.is_reported = False
        self.asked_at: float | None = None
        """When a signal asked to stop, by :func:`time.monotonic`; None: it did not."""
        self._in_main_thread = False

    def __enter__(self) -> Self:
        if threading.current_thread() is not threading.main_thread():
            return self
        self._in_main_thread = True
        if isinstance(sys.exc_info()[1], KeyboardInterrupt | SystemExit):
            self.asked_at = time.monotonic()  # this is the cleanup after a signal
        try:
            _install()
            _blocks.append(self)
        except BaseException:
            _leave(self)
            raise
        return self

    def __exit__(self, *_: object) -> None:
        if self._in_main_thread:
            try:
                _leave(self)
            finally:
                if not _blocks:
                    _restore()  # a signal may have interrupted that
                    _call_handlers()

    def check(self) -> None:
        """Handle the signals that arrived; call this where a stop is safe."""
        if self._in_main_thread:
            _call_handlers()


def held_back(step: str = "", *, mend: str = "") -> HeldBack:
    """Return a block that holds SIGINT, SIGTERM and SIGHUP back, and then handles the first.

    A block without *step* must be short, and is never interrupted. *step* says what a longer one is
    doing ("finishing the upload of x"): the first signal logs it, and a second one interrupts the
    block at once. *mend* says what to do about what is then left behind. In the cleanup after a
    signal, the next one is the second.

    Only signals with a handler in Python are held back, and only in the main thread, where Python
    handles them. May be nested; a block without *step* is not interrupted inside another one.
    """
    return HeldBack(step, mend)


def report_wait() -> None:
    """Log what is being finished if a signal has asked to stop; call this before a long wait."""
    if threading.current_thread() is threading.main_thread() and _asked_at() is not None:
        _report()


@contextmanager
def child_status() -> Iterator[None]:
    """Let the exit status of child processes be known, also in a program that ignores SIGCHLD.

    There, the system keeps no status, and :mod:`subprocess` takes every command for a success.
    Raises ValueError in such a program outside of its main thread, where this cannot be changed.
    """
    if signal.getsignal(signal.SIGCHLD) != signal.SIG_IGN:
        yield
        return
    if threading.current_thread() is not threading.main_thread():
        raise ValueError(
            "this program ignores SIGCHLD, so the exit status would not be known; "
            "call bakthat from its main thread"
        )
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    try:
        yield
    finally:
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)


def _install() -> None:
    for number in SIGNALS:
        handler = signal.getsignal(number)
        # Neither the default action nor an ignored signal.
        if callable(handler) and handler is not _handle:
            _previous[number] = handler
            signal.signal(number, _handle)


def _restore() -> None:
    for number, handler in list(_previous.items()):
        if signal.getsignal(number) is _handle:
            signal.signal(number, handler)


def _leave(block: HeldBack) -> None:
    if block in _blocks:  # a second signal has ended all blocks
        _blocks.remove(block)
    if not _blocks:
        _restore()


def _handle(number: int, frame: FrameType | None) -> None:
    handler = _previous[number]
    asked_at = _asked_at()
    now = time.monotonic()
    if not _blocks:
        _restore()
        handler(number, frame)
    elif asked_at is None:
        _arrived.append(number)
        _blocks[0].asked_at = now
        _report()
    elif now - asked_at >= REPEAT_SECONDS and all(block.step for block in _blocks):
        for block in _blocks:
            block.is_stopped = True
        _arrived.clear()
        _blocks.clear()
        _restore()
        handler(number, frame)
    elif number not in _arrived:
        _arrived.append(number)


def _asked_at() -> float | None:
    return next((block.asked_at for block in _blocks if block.asked_at is not None), None)


def _report() -> None:
    named = next((block for block in reversed(_blocks) if block.step), None)
    if named is not None and not named.is_reported:
        named.is_reported = True
        log.warning(
            "%s; press Ctrl-C or send the signal again to stop now%s",
            named.step,
            f" ({named.mend})" if named.mend else "",
        )


def _call_handlers() -> None:
    while _arrived:
        number = _arrived.pop(0)
        try:
            _previous[number](number, None)
        except BaseException:
            _arrived.clear()
            raise
