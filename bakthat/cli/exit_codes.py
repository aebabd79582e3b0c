"""The exit codes."""

from __future__ import annotations

import enum
import signal


class ExitCode(enum.IntEnum):
    """The exit code of a command. Scripts depend on these numbers."""

    DONE = 0
    FAILED = 1
    DIFFERENT = 1
    """The trees that ``diff --exit-code`` compared differ."""
    USAGE = 2
    INCOMPLETE = 3
    """Done, but not all of it: files could not be stored or restored as they were."""
    NOT_READY = 4
    """The backup or the list is in cold storage and not ready yet."""
    LOCKED = 5
    """Another run is still going; what it does was not done twice."""
    HUNG_UP = 128 + signal.SIGHUP
    INTERRUPTED = 128 + signal.SIGINT
    TERMINATED = 128 + signal.SIGTERM


EXIT_CODES = {
    ExitCode.DONE: "done",
    ExitCode.FAILED: "failed",
    ExitCode.USAGE: "wrong usage: nothing was done",
    ExitCode.INCOMPLETE: "backed up or restored, but not all of it",
    ExitCode.NOT_READY: "not ready yet (cold storage)",
    ExitCode.LOCKED: "another run is still going",
    ExitCode.HUNG_UP: "hung up",
    ExitCode.INTERRUPTED: "interrupted",
    ExitCode.TERMINATED: "terminated",
}
"""What they mean, whatever the command."""
