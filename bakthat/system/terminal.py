"""The terminal: questions and output.

Besides the log, only this module writes to the user's screen, so that the library and the command
line ask for a password in the same way.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import TextIO

from bakthat.errors import PasswordError, UsageError
from bakthat.system.streams import Buffer
from bakthat.system.text import is_text, printable, reason_of


def is_interactive() -> bool:
    """Return whether a question can be asked: standard input and error are terminals."""
    return is_terminal(sys.stdin) and is_terminal(sys.stderr)


def is_terminal(stream: TextIO | None) -> bool:
    """Return whether *stream* is open, and is a terminal."""
    return stream is not None and not stream.closed and stream.isatty()


def ask_new_password() -> str:
    """Ask for a password to encrypt with, twice; "" when the first answer is blank.

    Raises PasswordError when the two differ, or when the input ends.
    """
    password = _ask_password("Password (blank to disable encryption): ")
    if password and _ask_password("Password confirmation: ") != password:
        raise PasswordError("the password and its confirmation differ", hint="run it again")
    return password


def ask_password() -> str:
    """Ask for the password of an encrypted backup. Raises PasswordError when the input ends."""
    return _ask_password("Password: ")


def ask_secret(question: str) -> str:
    """Ask a question whose answer does not show on the screen. Raises as :func:`ask` does."""
    return _text((ask_hidden if is_terminal(sys.stdin) else ask)(question)).strip()


def ask(question: str) -> str:
    """Ask a question and return the answer without white space around it.

    Raises EOFError when the input ends or is closed, UsageError when the answer is not text.
    """
    if sys.stdin is None:  # as after <&- in a shell
        raise EOFError
    try:
        _wait_for_answer(lambda: _show(question))
        line = sys.stdin.readline()
    except KeyboardInterrupt:
        if sys.stdin.isatty():
            print(file=sys.stderr)  # noqa: T201  # see above  # the message gets its own line
        raise
    except UnicodeDecodeError:
        raise UsageError(_NOT_TEXT, hint=_TYPE_UTF_8) from None
    if not line:
        raise EOFError
    return _text(line).strip()


def say(text: str) -> None:
    """Print lines to standard error, where the questions are.

    Characters that are not printable are escaped.
    """
    with suppress(OSError):
        print("\n".join(map(printable, text.split("\n"))), file=sys.stderr)  # noqa: T201  # see above


def ask_hidden(question: str) -> str:
    """Ask a question at the terminal; return the answer, which does not show on the screen.

    Its bytes are decoded as UTF-8 whatever the locale; those that are not UTF-8 become surrogates.
    getpass would fail at them, and print them. Raises EOFError when the input ends.
    """
    import termios  # only a question needs it

    descriptor = sys.stdin.fileno()
    before = termios.tcgetattr(descriptor)
    hidden = [*before[:3], before[3] & ~termios.ECHO, *before[4:]]

    def show() -> None:
        # A shell that continues a stopped command has shown what is typed in the meantime.
        termios.tcsetattr(descriptor, termios.TCSAFLUSH, hidden)
        _show(question)

    try:
        _wait_for_answer(show)
        line = sys.stdin.buffer.readline()
    finally:
        termios.tcsetattr(descriptor, termios.TCSAFLUSH, before)
        print(file=sys.stderr)  # noqa: T201  # see above  # the answer's own line end is hidden
    if not line:
        raise EOFError
    return line.removesuffix(b"\n").decode("utf-8", "surrogateescape")


def _show(question: str) -> None:
    print(question, end="", file=sys.stderr, flush=True)  # noqa: T201  # see above


def _wait_for_answer(show: Callable[[], None]) -> None:
    """Call *show*, which asks, and return when the terminal has a line.

    *show* is called again whenever the process is continued after a stop. The handlers of signals
    run as soon as one arrives: a signal right before a read begins would be noticed only after that
    read. Here it makes a pipe readable.
    """
    if not (sys.stdin.isatty() and threading.current_thread() is threading.main_thread()):
        show()
        return
    import select  # only a question needs it

    with _continued() as continued, _wakeup() as woken:
        poll = select.poll()
        poll.register(sys.stdin, select.POLLIN)
        poll.register(woken, select.POLLIN)
        show()
        while woken in {descriptor for descriptor, _ in poll.poll()}:
            with suppress(BlockingIOError):
                os.read(woken, 1024)
            if continued:
                continued.clear()
                show()


@contextmanager
def _continued() -> Iterator[list[int]]:
    """Yield a list that gets an item whenever the process is continued.

    The handler does no more: it may interrupt anything, a print too.
    """
    continued: list[int] = []
    before = signal.signal(signal.SIGCONT, lambda number, _: continued.append(number))
    try:
        yield continued
    finally:
        signal.signal(signal.SIGCONT, before)


@contextmanager
def _wakeup() -> Iterator[int]:
    """Yield a descriptor that becomes readable whenever a signal arrives."""
    readable, writable = os.pipe()
    try:
        os.set_blocking(readable, False)
        os.set_blocking(writable, False)
        before = signal.set_wakeup_fd(writable, warn_on_full_buffer=False)
        try:
            yield readable
        finally:
            signal.set_wakeup_fd(before)
    finally:
        os.close(readable)
        os.close(writable)


_NOT_TEXT = "the answer is not UTF-8 text"
_TYPE_UTF_8 = "let the terminal send UTF-8, or choose ASCII characters"


def _text(answer: str) -> str:
    """Return *answer*. Raises UsageError when its bytes were not UTF-8."""
    if not is_text(answer):
        raise UsageError(_NOT_TEXT, hint=_TYPE_UTF_8)
    return answer


def _ask_password(question: str) -> str:
    try:
        return ask_hidden(question)
    except EOFError as exc:
        raise PasswordError(
            "the input ended before a password was given",
            hint="set BAKTHAT_PASSWORD, or password_file in the profile, where nobody can answer",
        ) from exc


_COLORS = {"bold": 1, "red": 31, "green": 32, "yellow": 33, "cyan": 36}
"""Numbers of ECMA-48, which every terminal shows in colors that suit its background."""


def has_colors(stream: TextIO | None) -> bool:
    """Return whether *stream* is a terminal with colors, and they are wanted.

    An environment variable NO_COLOR that is not empty says that they are not, as
    https://no-color.org has it.
    """
    return (
        stream is not None
        and not stream.closed
        and stream.isatty()
        and os.environ.get("TERM", "dumb") != "dumb"
        and not os.environ.get("NO_COLOR")
    )


def styled(stream: TextIO | None, text: str, style: str) -> str:
    """Return *text* in a color or in bold where *stream* shows that, else as it is.

    *text* must be safe to show: nothing in it is escaped.
    """
    return f"\x1b[{_COLORS[style]}m{text}\x1b[0m" if has_colors(stream) else text


def print_table(
    header: Sequence[str],
    rows: Sequence[Sequence[str]],
    right: frozenset[int],
    red: frozenset[int] = frozenset(),
) -> None:
    """Print columns to standard output, those in *right* aligned to the right.

    The rows with the numbers in *red*, from 0 on, are red where the output shows colors.

    Cells are made printable first: they may come from file names and from storage. On a terminal,
    columns without any text are left out, and those that are too wide for it are in a second line
    below each first. Nothing is cut off. Raises OutputError.
    """
    cells = [tuple(printable(cell) for cell in row) for row in (header, *rows)]
    is_shown = sys.stdout.isatty()
    columns = [
        _column(cells, index, index in right)
        for index in range(len(header))
        if not (is_shown and rows and not any(row[index] for row in cells[1:]))
    ]
    first = _fitting(columns, output_width()) if is_shown else len(columns)
    styles = {0: "bold"} | dict.fromkeys((number + 1 for number in red), "red")
    with _output():
        for number in range(len(cells)):
            lines = ["  ".join(column[number] for column in columns[:first]).rstrip()]
            below = "  ".join(column[number] for column in columns[first:]).rstrip()
            lines += [f"    {below}"] if below else []
            for line in lines:
                _print(styled(sys.stdout, line, styles[number]) if number in styles else line)


def output_width() -> int:
    """Return the width of the terminal in characters: COLUMNS, or what the system says, or 80."""
    import shutil  # only a terminal needs it

    return shutil.get_terminal_size().columns


def _column(cells: Sequence[Sequence[str]], index: int, is_right: bool) -> list[str]:
    width = max(len(row[index]) for row in cells)
    align = str.rjust if is_right else str.ljust
    return [align(row[index], width) for row in cells]


def _fitting(columns: Sequence[Sequence[str]], width: int) -> int:
    """Return how many *columns* stand in the first line of a terminal of *width*, at least one."""
    taken = 0
    for number, column in enumerate(columns):
        taken += len(column[0]) + 2
        if taken - 2 > width:
            return max(number, 1)
    return len(columns)


class OutputError(Exception):
    """Standard output cannot be written to; raised ``from`` the reason."""


def print_line(text: str) -> None:
    """Print *text*, of one or more lines, to standard output. Raises OutputError.

    Characters that are not printable are escaped.
    """
    with _output():
        _print("\n".join(map(printable, text.split("\n"))))


def _print(line: str) -> None:
    print(line)  # noqa: T201  # see above


def write_bytes(data: Buffer) -> None:
    """Write *data* to standard output as it is. Raises OutputError.

    Where that is a terminal, it must be safe to show.
    """
    with _output():
        binary = getattr(sys.stdout, "buffer", None)
        if binary is None:  # a stream of text in its place
            sys.stdout.write(bytes(data).decode("utf-8", "backslashreplace"))
        else:
            sys.stdout.flush()  # text that was printed before
            binary.write(data)


def shows_output() -> bool:
    """Return whether standard output is a terminal."""
    return sys.stdout.isatty()


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
