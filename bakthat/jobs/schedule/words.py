"""Words as the files of systemd and cron take them: names of units, quoted paths, commands."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence

from bakthat.errors import ScheduleError
from bakthat.system.text import is_text, printable

_PLAIN = re.compile(r"[\w@%+=:,./$-]+", re.ASCII)
"""What a unit needs no quotes for."""
_PLAIN_PROGRAM = re.compile(r"/[^\\'\"]*")
"""The program of a command that systemd accepts, whatever the quotes around it."""
_LONGEST_NAME = 255 - len(".service")


def unit_name(job: str) -> str:
    r"""Return the name of the units of a job, without their types: ``bakthat-nightly``.

    What a name of a unit cannot have is written as :manpage:`systemd-escape(1)` does, as ``\xc3``;
    a hyphen stays as it is. Two jobs never have one name. Raises ScheduleError.
    """
    escaped = "".join(
        chr(byte) if re.match(rb"[\w:.-]", bytes([byte]), re.ASCII) else f"\\x{byte:02x}"
        for byte in job.encode("utf-8", "surrogateescape")
    )
    name = f"bakthat-{escaped}"
    if len(name) > _LONGEST_NAME:
        raise ScheduleError(
            f"the name of the job '{printable(job)}' is too long for systemd and cron",
            hint="give it a shorter name: its unit would have "
            f"{len(name)} characters of {_LONGEST_NAME}",
        )
    return name


def job_of_unit(name: str) -> str:
    """Return the job whose units :func:`unit_name` calls *name*."""
    escaped = name.removeprefix("bakthat-").encode("utf-8", "surrogateescape")
    found = re.sub(rb"\\x([0-9a-f]{2})", lambda each: bytes.fromhex(each[1].decode()), escaped)
    return found.decode("utf-8", "surrogateescape")


def unit_text(text: str) -> str:
    """Return *text* as a value of a unit that has no words: a description, a credential's path.

    Raises ScheduleError.
    """
    _check(text)
    return text.replace("%", "%%")


def unit_word(text: str) -> str:
    """Return *text* as one word of a unit, such as a path or an assignment of Environment.

    Raises ScheduleError.
    """
    word = unit_text(text)
    if _PLAIN.fullmatch(word):
        return word
    escaped = word.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def exec_line(words: Sequence[str]) -> str:
    """Return the words of a command, the program first, for ExecStart. Raises ScheduleError."""
    program, *arguments = words
    # systemd refuses a program with quotes or a backslash in its path, but no argument with them.
    start = [] if _PLAIN_PROGRAM.fullmatch(program) else ["/usr/bin/env"]
    if start:
        arguments = [program, *arguments]
    else:
        start = [unit_word(program)]  # it has no variables
    return " ".join([*start, *(unit_word(each.replace("$", "$$")) for each in arguments)])


def cron_command(words: Sequence[str], environment: Sequence[tuple[str, str]] = ()) -> str:
    """Return a command for a line of a crontab, with variables for it alone.

    cron ends the command at a ``%`` without a backslash, and removes that backslash. Raises
    ScheduleError.
    """
    for each in (*words, *(value for _, value in environment)):
        _check(each)
    assignments = [f"{name}={shlex.quote(value)}" for name, value in environment]
    # The empty quotes keep a backslash that stands before the percent sign away from it: cron
    # reads two backslashes as none that belongs to the sign.
    return re.sub(
        r"(\\?)%",
        lambda found: f"{found[1]}''\\%" if found[1] else "\\%",
        " ".join([*assignments, shlex.join(words)]),
    )


def _check(text: str) -> None:
    """Raise ScheduleError where *text* has what no file of systemd or cron can hold."""
    if not is_text(text) or re.search(r"[\x00-\x1f\x7f]", text):
        raise ScheduleError(
            f"systemd and cron take no control character and only UTF-8: '{printable(text)}'",
            hint="make a symbolic link with a plain name, and use that",
        )
