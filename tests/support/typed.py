"""Commands that a user types in a shell on a terminal."""

from __future__ import annotations

import os
import pty
import select
import signal
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.support.commandline import PATIENCE

BASH = ("bash", "-eo", "pipefail", "-c")


def typed(
    command: str,
    directory: Path,
    passphrase: str,
    *,
    shell: Sequence[str] = BASH,
    env: Mapping[str, str] | None = None,
) -> tuple[int, str]:
    """Type *command* in *directory*, and the passphrase each time that it is asked for.

    Return the exit code and what the terminal showed.
    """
    pid, screen = pty.fork()
    if pid == 0:
        os.chdir(directory)
        os.execvpe(shell[0], [*shell, command], {**os.environ, **(env or {})})
    seen, answered, ended = b"", 0, False
    while select.select([screen], [], [], PATIENCE)[0]:
        try:
            piece = os.read(screen, 65536)
        except OSError:  # the other end is closed
            piece = b""
        if not piece:
            ended = True
            break
        seen += piece
        if seen.count(b"assphrase") > answered:
            answered += 1
            os.write(screen, passphrase.encode() + b"\n")
    if not ended:
        os.kill(pid, signal.SIGKILL)
    # In this order: closing a terminal hangs up whoever still ends on it.
    _, status = os.waitpid(pid, 0)
    os.close(screen)
    return os.waitstatus_to_exitcode(status), seen.decode(errors="replace")
