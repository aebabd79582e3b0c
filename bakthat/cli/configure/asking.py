"""Questions, which a person answers at the terminal, or a script on standard input."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from bakthat.errors import BakthatError, ConfigError
from bakthat.system import terminal
from bakthat.system.text import printable

REMOVE = "-"
"""The answer that removes a value. An empty answer keeps it."""

Value = TypeVar("Value")
Parse = Callable[[str], Value]
"""Makes a value of an answer. Raises BakthatError for an invalid one."""


def ask(
    question: str, default: Value | None, parse: Parse[Value], *, hidden: bool = False
) -> Value | None:
    """Ask for a value. An empty answer keeps *default*, and ``-`` means None.

    A *hidden* answer does not show on the screen, nor does its default. On a terminal, the question
    is asked again after an invalid answer. Without one, raises what *parse* raises. Raises EOFError
    when the input ends.
    """
    shown = "" if default is None else f" ({'unchanged' if hidden else default})"
    return ask_until_valid(f"{question}{shown}: ", keeping(default, parse), hidden=hidden)


def keeping(default: Value | None, parse: Parse[Value]) -> Parse[Value | None]:
    """Return *parse* for an answer that may be empty, to keep *default*, or ``-``, for None."""

    def parse_answer(answer: str) -> Value | None:
        if not answer or answer == REMOVE:
            return None if answer else default
        return parse(answer)

    return parse_answer


def ask_until_valid(question: str, parse: Parse[Value], *, hidden: bool = False) -> Value:
    """Ask a question as it is, and return what *parse* makes of the answer, which may be empty."""
    while True:
        answer = (terminal.ask_secret if hidden else terminal.ask)(printable(question))
        try:
            return parse(answer)
        except BakthatError as exc:
            if not terminal.is_interactive():
                raise
            terminal.say(f"{exc}\nhint: {exc.hint}" if exc.hint else str(exc))


@contextmanager
def all_or_nothing() -> Iterator[None]:
    """Make ConfigError of the end of the input in the block, which asks and changes nothing."""
    try:
        yield
    except EOFError as exc:
        raise ConfigError(
            "the input ended before the last answer; nothing was changed",
            hint="bakthat configure --help lists an option for each answer",
        ) from exc
