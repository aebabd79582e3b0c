"""What Ctrl-C, SIGTERM and SIGHUP do to a command."""

from __future__ import annotations

import signal
import sys
import time
from types import FrameType

CLEANING_SECONDS = 2.0
"""For how long after a signal another one is not heard: Ctrl-C is often pressed twice, and what
the first one stopped is being cleaned up."""

RETRY_SECONDS = 0.01
"""When a signal that came where no exception can pass is tried again."""


class Stopped(KeyboardInterrupt):
    """A signal arrived; unwinds like Ctrl-C, so that nothing half-made stays behind."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.number = number
        self.exit_code = 128 + number
        self.word = _SIGNAL_WORDS[number]


_SIGNAL_WORDS: dict[int, str] = {
    signal.SIGHUP: "hung up",
    signal.SIGINT: "interrupted",
    signal.SIGTERM: "terminated",
}


def hear_signals() -> None:
    """Let SIGINT, SIGTERM and SIGHUP stop the command, and none of them its cleaning up."""
    stopper = _Stopper()
    for number in _SIGNAL_WORDS:
        if signal.getsignal(number) != signal.SIG_IGN:  # as nohup sets it
            signal.signal(number, stopper.stop)
    signal.signal(signal.SIGALRM, stopper.repeat)
    sys.unraisablehook = stopper.hear_swallowed


class _Stopper:
    """Turns a signal into an exception where one can pass, and tries again where none can."""

    def __init__(self) -> None:
        self._last = -CLEANING_SECONDS
        self._waiting: int | None = None

    def stop(self, number: int, frame: FrameType | None) -> None:
        """Raise Stopped, unless another signal has just done so."""
        if time.monotonic() - self._last < CLEANING_SECONDS:
            return
        if frame is not None and frame.f_code.co_filename.startswith("<frozen importlib"):
            # Inside of the import machinery an exception may leave its lock held for ever, on
            # which every other thread that imports then waits.
            self._wait(number)
            return
        self._last = time.monotonic()
        raise Stopped(number)

    def repeat(self, _number: int, _frame: FrameType | None) -> None:
        """Send again the signal that could not do its work, to whoever hears it now."""
        number, self._waiting = self._waiting, None
        if number is not None:
            signal.raise_signal(number)

    def hear_swallowed(self, unraisable: sys.UnraisableHookArgs, /) -> None:
        """Try again when Stopped was raised where Python drops exceptions, as in ``__del__``."""
        if isinstance(unraisable.exc_value, Stopped):
            self._last = -CLEANING_SECONDS
            self._wait(unraisable.exc_value.number)
        else:
            sys.__unraisablehook__(unraisable)

    def _wait(self, number: int) -> None:
        self._waiting = number
        signal.setitimer(signal.ITIMER_REAL, RETRY_SECONDS)
