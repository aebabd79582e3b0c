"""How a program ended, and how a message says it."""

from __future__ import annotations

import signal
from typing import NamedTuple

from bakthat.system.text import counted

_SHOWN_LINES, _SHOWN_CHARACTERS = 5, 500
"""How much of the end of a program's standard error a message shows."""


class Ended(NamedTuple):
    """How a program ended. Without exit code, signal and time limit, that is not known."""

    exit_code: int | None
    signal: int | None
    timed_out: bool
    """Whether it, or one that still held its standard output, was ended by the time limit."""
    seconds: float
    """How long it ran; the time limit if that has ended it."""
    stderr: str
    """The end of its standard error in printable lines, at most 2 KiB in UTF-8."""

    @property
    def succeeded(self) -> bool:
        """Whether it ended by itself, with exit code 0."""
        return self.exit_code == 0 and not self.timed_out

    def how(self) -> str:
        """Return the end of a sentence that begins with the program: ``ended with exit code 3``."""
        if self.timed_out:
            return f"did not end within {_limit_text(self.seconds)}"
        if self.exit_code is not None:
            return f"ended with exit code {self.exit_code}{_shell_signal(self.exit_code)}"
        if self.signal is None:
            return "ended in an unknown way: the process that watched it was killed"
        return f"was ended by signal {_signal_name(self.signal)}"

    def problem(self) -> str:
        """Return :meth:`how`, and the last lines of the standard error, as one line."""
        lines = [line.strip() for line in self.stderr.splitlines() if line.strip()]
        end = "; ".join(lines[-_SHOWN_LINES:])
        if len(end) > _SHOWN_CHARACTERS:
            end = f"…{end[-_SHOWN_CHARACTERS:]}"
        return f"{self.how()}: {end}" if end else self.how()


def _shell_signal(exit_code: int) -> str:
    """Return what a shell means by *exit_code* when a signal has ended what it ran."""
    ends = (signal.SIGPIPE, signal.SIGKILL, signal.SIGTERM, signal.SIGSEGV)
    name = next((each.name for each in ends if exit_code == 128 + each), "")
    return f" (of a shell: {name})" if name else ""


def _limit_text(seconds: float) -> str:
    for unit, noun in ((3600, "hour"), (60, "minute"), (1, "second")):
        if seconds >= unit and seconds % unit == 0:
            return counted(int(seconds / unit), noun)
    return f"{seconds:g} seconds"


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:  # a real-time signal
        return str(number)
