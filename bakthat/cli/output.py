"""What a command prints: its result, its summary, its errors; for people, or as JSON lines.

For people, results go to standard output, and the summary and errors to standard error. With
``--json`` standard output has one JSON object a line, each with a ``message_type``, and standard
error stays as it is. :mod:`bakthat.cli.messages` says what the objects hold.
"""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from bakthat.cli.messages import JSON_VERSION
from bakthat.system import terminal
from bakthat.system.text import counted, human_rate, human_seconds, human_size, printable

if TYPE_CHECKING:
    from bakthat.models import Backups

Line = tuple[str, Mapping[str, Any]]
"""A line of JSON: its message type, and what else it holds."""


class _Mode(NamedTuple):
    command: str = ""
    is_json: bool = False
    is_quiet: bool = False


_mode = _Mode()
_MIN_BYTES = 1_000_000
"""A ratio and a rate say something from here on, not about headers and the first millisecond."""


def start(command: str = "", *, json: bool = False, quiet: bool = False) -> None:
    """Say which command runs, and how it prints. To be called again when the options are known."""
    global _mode
    _mode = _Mode(command, json, quiet)


def is_json() -> bool:
    """Return whether standard output is for programs."""
    return _mode.is_json


def is_quiet() -> bool:
    """Return whether only warnings and errors go to standard error."""
    return _mode.is_quiet


def print_error(message: str, *hints: str, kind: str = "") -> None:
    """Print an error, and the hints that are not empty, to standard error.

    *kind* is the name of its exception; it is only part of the JSON.
    """
    given = [hint for hint in hints if hint]
    styled = terminal.styled(sys.stderr, "error:", "red")
    lines = [f"bakthat: {styled} {printable(message)}"]
    lines += [f"bakthat: hint: {printable(hint)}" for hint in given]
    _write("\n".join(lines))
    if _mode.is_json:
        line = {"message": message, "hint": "; ".join(given), "type": kind}
        with contextlib.suppress(terminal.OutputError):  # standard error has it
            print_lines("error", [line])


def print_incomplete(done: str, warnings: int, problem: str) -> None:
    """Print why the exit code is 3: *done*, with warnings that say which files have a *problem*."""
    print_error(f"{done} with {counted(warnings, 'warning')}; some files are missing or {problem}")


class Summary(NamedTuple):
    """What a command did. A count that is None is not mentioned.

    It is no dataclass, since ``bakthat --help`` would then take a tenth longer.
    """

    done: str
    """What was done, and to what: "Stored as mydir.20130604191055.tgz"."""
    seconds: float
    stored: int | None = None
    """Bytes on the storage; -1 when they are not known."""
    files: int | None = None
    bytes: int = 0
    """The content of the files."""
    unchanged: int | None = None
    """Files of an increment that earlier archives have."""
    where: str = ""
    """The destination and its container, with a preposition: "on s3 mybucket"."""
    into: str = ""
    """The directory that was restored into."""
    warnings: int = 0
    next_step: str = ""
    """A line of its own for people: what may be typed next."""
    facts: Mapping[str, Any] = {}
    """What else the JSON has."""

    def line(self) -> str:
        """Return one line for people."""
        done = self.done
        is_large = self.bytes >= _MIN_BYTES
        if self.stored is not None and self.stored >= 0:
            ratio = f", {round(100 * self.stored / self.bytes)} %" if is_large else ""
            done += f" ({human_size(self.stored)}{ratio})"
        if self.files is not None:
            done += f": {counted(self.files, 'file')} ({human_size(self.bytes)})"
        if self.unchanged is not None:
            done += f", {self.unchanged} unchanged"
        if self.where:
            done += f" {self.where}"
        if self.into:
            done += f" into {self.into}"
        done += f", {human_seconds(self.seconds)}"
        if is_large and self.files is not None:
            done += f", {human_rate(self.bytes, self.seconds)}"
        if self.warnings:
            done += f", {counted(self.warnings, 'warning')}"
        return printable(done)

    def as_dict(self) -> dict[str, Any]:
        """Return what the JSON has: the counts that are known, and the facts."""
        counts: dict[str, Any] = {}
        if self.files is not None:
            counts = {"files": self.files, "bytes": self.bytes}
        if self.unchanged is not None:
            counts["unchanged"] = self.unchanged
        if self.stored is not None:
            counts["stored"] = self.stored
        return {
            "json_version": JSON_VERSION,
            "command": _mode.command,
            "seconds": round(self.seconds, 3),
            "warnings": self.warnings,
            **counts,
            **self.facts,
        }


def summary_of_backup(done: str, entry: Backups) -> Summary:
    """Return the summary of a backup that was stored; *done* says that."""
    return Summary(
        done,
        entry.metadata["seconds"],
        files=entry.metadata["files"],
        bytes=entry.metadata["bytes"],
        unchanged=entry.metadata.get("unchanged"),
        stored=entry.size,
        where=f"on {entry.where}",
        warnings=entry.warning_count,
    )


def print_lines(message_type: str, values: Iterable[Mapping[str, Any]]) -> None:
    """Print each of *values* to standard output as a line of JSON, with its *message_type*.

    They are written all at once. Raises OutputError.
    """
    _check_output()
    lines = [json.dumps({"message_type": message_type, **value}) for value in values]
    text = "".join(f"{line}\n" for line in lines)
    # It is ASCII; of DEL, which JSON does not escape, a terminal might make something.
    terminal.write_bytes(text.replace("\x7f", "\\u007f").encode())


def print_result(
    summary: Summary,
    text: Callable[[], None] | None = None,
    lines: Iterable[Line] = (),
    *,
    is_last: bool = True,
) -> None:
    """Print the result to standard output, and end with the summary.

    *text* prints the result for people; *lines* are the same as JSON. Unless it *is_last*, the JSON
    has no summary yet. When the output cannot be written, only the summary says what was done, so
    ``--quiet`` does not silence it then. Raises OutputError.
    """
    try:
        _print_both(text, lines, summary if is_last else None)
    except terminal.OutputError:
        _write(summary.line())
        raise
    if not _mode.is_quiet:
        _write("\n".join(filter(None, (summary.line(), printable(summary.next_step)))))


def print_listing(
    text: Callable[[], None] | None, lines: Iterable[Line], seconds: float = 0, **facts: Any
) -> None:
    """Print what a command lists, which needs no summary for people. Raises OutputError."""
    _print_both(text, lines, Summary("", seconds, facts=facts))


def print_text(text: str) -> None:
    """Print *text*, which ends with a line end, to standard output. Raises OutputError."""
    _check_output()
    terminal.write_bytes(text.encode())


def _print_both(
    text: Callable[[], None] | None, lines: Iterable[Line], summary: Summary | None
) -> None:
    if _mode.is_json:
        for message_type, value in lines:
            print_lines(message_type, [value])
        if summary is not None:
            print_lines("summary", [summary.as_dict()])
    elif text is not None:
        text()
    terminal.flush()  # before the summary, also where both go to one file


def _check_output() -> None:
    """Raise OutputError if standard output was closed: JSON and scripts are missed."""
    if sys.__stdout__ is None:
        raise terminal.OutputError("cannot write the output: standard output is closed")


def _write(text: str) -> None:
    with contextlib.suppress(OSError):
        sys.stderr.write(f"{text}\n")
