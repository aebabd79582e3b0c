"""The effect of Ctrl-C, SIGTERM and SIGHUP on a command."""

from __future__ import annotations

import signal
import sys
import time
from types import FrameType

from bakthat.system.signals import REPEAT_SECONDS, SIGNALS

RETRY_SECONDS = 0.01
"""Seconds until a signal that arrived where no exception may be raised is sent again."""


class Stopped(KeyboardInterrupt):
    """A signal arrived. Like Ctrl-C it unwinds the stack, so that everything is cleaned up."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.number = number
        self.word = _SIGNAL_WORDS[number]


_SIGNAL_WORDS: dict[int, str] = {
    signal.SIGHUP: "hung up",
    signal.SIGINT: "interrupted",
    signal.SIGTERM: "terminated",
}


def handle_signals() -> None:
    """Let SIGINT, SIGTERM and SIGHUP stop the command, and a second one its cleanup."""
    stopper = _Stopper()
    for number in SIGNALS:
        if signal.getsignal(number) != signal.SIG_IGN:  # as nohup sets it
            signal.signal(number, stopper.stop)
    # A parent may have ignored it. Then the system keeps no exit status of our own children.
    if signal.getsignal(signal.SIGCHLD) == signal.SIG_IGN:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.signal(signal.SIGALRM, stopper.repeat)
    sys.unraisablehook = stopper.on_unraisable


def end_by_signals() -> None:
    """Let the next signal end the process at once: nothing is left to clean up."""
    for number in SIGNALS:
        if signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, signal.SIG_DFL)


class _Stopper:
    """Turns a signal into an exception, at once or as soon as one can be raised."""

    def __init__(self) -> None:
        self._last = -REPEAT_SECONDS
        self._delayed: int | None = None

    def stop(self, number: int, frame: FrameType | None) -> None:
        """Raise Stopped, unless another signal has just done so."""
        if time.monotonic() - self._last < REPEAT_SECONDS:
            return
        if _is_importing(frame):
            self._delay(number)
            return
        self._last = time.monotonic()
        raise Stopped(number)

    def repeat(self, _number: int, frame: FrameType | None) -> None:
        """Send the delayed signal again, to its present handler, or delay it once more."""
        number, self._delayed = self._delayed, None
        if number is None:
            return
        if _is_importing(frame):
            self._delay(number)
        else:
            signal.raise_signal(number)

    def on_unraisable(self, unraisable: sys.UnraisableHookArgs, /) -> None:
        """Send the signal again when Python dropped Stopped, as it does in ``__del__``."""
        if isinstance(unraisable.exc_value, Stopped):
            self._last = -REPEAT_SECONDS
            self._delay(unraisable.exc_value.number)
        else:
            sys.__unraisablehook__(unraisable)

    def _delay(self, number: int) -> None:
        self._delayed = number
        signal.setitimer(signal.ITIMER_REAL, RETRY_SECONDS)


def _is_importing(frame: FrameType | None) -> bool:
    """Return whether a signal has interrupted the import system, or a handler that did.

    An exception there may leave its lock held, and every other thread that imports would wait for
    ever.
    """
    while frame is not None and frame.f_code.co_filename == __file__:
        frame = frame.f_back
    return frame is not None and frame.f_code.co_filename.startswith("<frozen importlib")
