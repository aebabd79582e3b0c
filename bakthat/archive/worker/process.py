"""A forked process that does one thing beside this one, and never outlives it."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections.abc import Callable

from bakthat.system.signals import SIGNALS, held_back

_ORPHAN_SECONDS = 1.0
"""How often the process looks whether anybody still waits for it."""


def may_fork() -> bool:
    """Tell whether this process has a single thread.

    Only then it may: a fork takes along whatever lock another thread holds, and for ever.
    """
    try:
        # All threads, those of libraries too, which Python does not know.
        return sys.platform == "linux" and len(os.listdir("/proc/self/task")) == 1
    except OSError:
        return False


class Forked:
    """A process that runs *work* and ends, whatever *work* raises.

    It shares this process's files and what memory :mod:`mmap` shares, and dies by the signals
    that stop a command. :meth:`end` must be called. Raises OSError where there can be none.
    """

    def __init__(self, work: Callable[[], None]) -> None:
        parent = os.getpid()
        self._process = 0
        try:
            with held_back():
                self._process = os.fork()
                if not self._process:
                    try:
                        _live_alone(parent)
                        work()
                    finally:
                        os._exit(0)  # never back into what was forked
        except BaseException:
            if self._process:  # an interrupt came meanwhile
                self.end()
            raise

    def end(self) -> None:
        """End it, whether or not it is done; return when it is gone."""
        with held_back():
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._process, signal.SIGKILL)
            # Somebody else may wait for all children of this process.
            with contextlib.suppress(ChildProcessError):
                os.waitpid(self._process, 0)


def _live_alone(parent: int) -> None:
    """Let a signal end this process, and the end of its *parent* too."""
    for number in SIGNALS:
        if signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, signal.SIG_DFL)

    def look(*_: object) -> None:
        if os.getppid() != parent:
            os._exit(1)

    signal.signal(signal.SIGALRM, look)
    signal.setitimer(signal.ITIMER_REAL, _ORPHAN_SECONDS, _ORPHAN_SECONDS)
