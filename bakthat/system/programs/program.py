"""What a program is, and the shell for a line of a user."""

from __future__ import annotations

import errno
import functools
import logging
import os
import re
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field

from bakthat.errors import UsageError

log = logging.getLogger("bakthat.programs")

SECRET_FILE = "{secret-file}"
"""In the arguments and the environment of a program, the path of its secret file."""


@dataclass(frozen=True, slots=True)
class Program:
    """A program to run."""

    name: str
    """For messages: "pg_dump", "the command"."""
    arguments: tuple[str, ...]
    """Its command line; the program is looked up on PATH."""
    environment: Mapping[str, str] = field(default_factory=dict)
    """What is added to the environment of this process."""
    secret: str = field(default="", repr=False)
    """The content of a file that only the program can read: :data:`SECRET_FILE` is its path."""
    private_errors: re.Pattern[bytes] | None = None
    """Matches the beginning of what its standard error has of a user's data: those lines, up to the
    next one that begins with :attr:`name` and a colon, are neither logged nor kept."""
    level: int = logging.INFO
    """On which each line of its standard error is logged."""


def find_program(*names: str) -> str | None:
    """Return the first of *names* that is on PATH, None for none."""
    return next((name for name in names if shutil.which(name)), None)


def shell_program(line: str) -> Program:
    """Return the program that runs *line* in a shell, as :manpage:`sh(1)` describes it.

    A pipe fails when any of its programs fails; a line that begins with ``set +o pipefail;`` has it
    otherwise. Where no shell knows that, a warning is logged for a line with a pipe. Raises
    UsageError when the line is a list of words.
    """
    if not isinstance(line, str):
        raise UsageError(
            "--command is text, one line for the shell",
            hint="make it of a list of words: shlex.join(words)",
        )
    shell = _shell()
    if "pipefail" not in shell and "|" in line.replace("||", ""):
        log.warning(
            "no shell here has pipefail: only the last program of a pipe is checked; install bash"
        )
    return Program("the command", (*shell, "-c", line))


@functools.cache
def _shell() -> tuple[str, ...]:
    """Return the shell and its options; with pipefail, if there is such a shell."""
    bash = shutil.which("bash")
    shells = [("/bin/sh",)] if bash is None else [("/bin/sh",), (bash, "--posix")]
    for shell in shells:
        # Not the exit status, which is unknown in a program that ignores SIGCHLD.
        done = subprocess.run(
            [*shell, "-o", "pipefail", "-c", "echo known"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=False,
        )
        if done.stdout == b"known\n":
            return (*shell, "-o", "pipefail")
    return ("/bin/sh",)


def command_line(program: Program, secret: int) -> tuple[list[bytes], dict[bytes, bytes]]:
    """Return the words and the environment of *program*; its secret is in descriptor *secret*.

    Raises OSError when they have no bytes that the system takes.
    """

    def native(text: str) -> bytes:
        if secret >= 0:
            text = text.replace(SECRET_FILE, f"/dev/fd/{secret}")
        if "\0" in text:
            raise OSError(errno.EINVAL, "its command line or environment has a NUL character")
        try:
            return os.fsencode(text)
        except UnicodeEncodeError:  # not "from" this one, which has the text
            raise OSError(
                errno.EILSEQ, "its command line or environment has a character beyond the locale"
            ) from None

    environment = dict(os.environb)
    for password in (b"BAKTHAT_PASSWORD", b"BAKTHAT_DATABASE_PASSWORD"):
        environment.pop(password, None)
    for name, value in program.environment.items():
        environment[native(name)] = native(value)
    return [native(each) for each in program.arguments], environment
