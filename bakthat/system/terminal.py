"""The terminal: questions and output.

Besides the log, only this module writes to the user's screen, so that the library and the command
line ask for a password in the same way.
"""

from __future__ import annotations

import getpass
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from bakthat.errors import PasswordError
from bakthat.system.text import printable, reason_of


def is_interactive() -> bool:
    """Return whether a question can be asked: standard input and error are terminals."""
    return all(
        stream is not None and not stream.closed and stream.isatty()
        for stream in (sys.stdin, sys.stderr)
    )


def ask_new_password() -> str:
    """Ask for a password to encrypt with, twice; "" when the first answer is blank.

    Raises PasswordError when the two differ, or when the input ends.
    """
    password = _ask_hidden("Password (blank to disable encryption): ")
    if password and _ask_hidden("Password confirmation: ") != password:
        raise PasswordError("the password and its confirmation differ")
    return password


def ask_password() -> str:
    """Ask for the password of an encrypted backup. Raises PasswordError when the input ends."""
    return _ask_hidden("Password: ")


def ask_secret(question: str) -> str:
    """Ask a question whose answer does not show on the screen. Raises EOFError."""
    if not sys.stdin.isatty():
        return ask(question)
    with _interrupt_ends_line():
        return getpass.getpass(question).strip()


def ask(question: str) -> str:
    """Ask a question and return the answer without white space around it.

    Raises EOFError when the input ends.
    """
    print(question, end="", file=sys.stderr, flush=True)  # noqa: T201  # see above
    with _interrupt_ends_line():
        line = sys.stdin.readline()
    if not line:
        raise EOFError
    return line.strip()


def _ask_hidden(question: str) -> str:
    try:
        with _interrupt_ends_line():
            return getpass.getpass(question)
    except EOFError as exc:
        raise PasswordError("the input ended before a password was given") from exc


@contextmanager
def _interrupt_ends_line() -> Iterator[None]:
    """End the line of the question after an interrupt, so that its message has its own line."""
    try:
        yield
    except KeyboardInterrupt:
        if sys.stdin.isatty():
            print(file=sys.stderr)  # noqa: T201  # see above
        raise


def print_table(
    header: Sequence[str], rows: Sequence[Sequence[str]], right: frozenset[int]
) -> None:
    """Print columns to standard output, those in *right* aligned to the right.

    Cells are made printable first: they may come from file names and from storage. Raises
    OutputError.
    """
    cells = [tuple(printable(cell) for cell in row) for row in (header, *rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    for row in cells:
        line = "  ".join(
            cell.rjust(width) if index in right else cell.ljust(width)
            for index, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        print_line(line.rstrip())


class OutputError(Exception):
    """Standard output cannot be written to; raised ``from`` the reason."""


def print_line(text: str) -> None:
    """Print *text*, of one or more lines, to standard output. Raises OutputError.

    Characters that are not printable are escaped.
    """
    with _output():
        print("\n".join(map(printable, text.split("\n"))))  # noqa: T201  # see above


def flush() -> None:
    """Write out what was printed. Raises OutputError."""
    with _output():
        sys.stdout.flush()


@contextmanager
def _output() -> Iterator[None]:
    try:
        yield
    except OSError as exc:
        raise OutputError(f"cannot write the output: {reason_of(exc)}") from exc
