"""Signals that arrive while a question waits for its answer, or right before."""

from __future__ import annotations

import os
import pty
import select
import signal
import subprocess
import sys
import termios
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import NamedTuple

import pytest

from tests.support.commandline import CommandLine, unmeasured

ASKING = """
import os, signal, sys, threading
from bakthat.cli import signals
from bakthat.system import terminal

def send():
    # In this thread, the signal interrupts no system call of the one that waits for the answer. So
    # it is with one that arrives right before that call.
    os.read(int(sys.argv[2]), 1)
    signal.pthread_kill(threading.get_ident(), int(sys.argv[3]))

threading.Thread(target=send, daemon=True).start()
signals.handle_signals()
try:
    getattr(terminal, sys.argv[1])("What is it? ")
except signals.Stopped as exc:
    sys.exit(128 + exc.number)
"""


def seen_on(screen: int, text: bytes) -> bytes:
    """Read *screen* until *text* is on it; fail when nothing more comes."""
    seen = b""
    while text not in seen:
        assert select.select([screen], [], [], 30)[0], seen.decode(errors="replace")
        seen += os.read(screen, 1000)
    return seen


@pytest.mark.parametrize("question", ["ask", "ask_secret"])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_a_question_also_when_it_interrupts_no_read(
    question: str, number: int
) -> None:
    screen, terminal = pty.openpty()
    readable, writable = os.pipe()
    process = subprocess.Popen(
        [sys.executable, "-c", ASKING, question, str(readable), str(int(number))],
        stdin=terminal,
        stderr=terminal,
        pass_fds=[readable],
        start_new_session=True,
        env=unmeasured(),
    )
    try:
        os.close(terminal)
        os.close(readable)
        seen_on(screen, b"What is it? ")
        os.write(writable, b"x")
        assert process.wait(30) == 128 + number
    finally:
        process.kill()
        process.wait()
        os.close(writable)
        os.close(screen)


class Asking(NamedTuple):
    """A process that asks at a terminal."""

    process: subprocess.Popen[str]
    screen: int
    """What a person sees and types on."""
    terminal: int


@contextmanager
def asking(*arguments: str) -> Iterator[Asking]:
    """Run Python with *arguments* at a terminal until the block ends."""
    screen, terminal = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-c", *arguments],
        stdin=terminal,
        stderr=terminal,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env=unmeasured(),
    )
    try:
        yield Asking(process, screen, terminal)
    finally:
        process.kill()
        process.communicate()
        os.close(terminal)
        os.close(screen)


def test_an_answer_stays_hidden_after_the_command_was_stopped_and_continued() -> None:
    code = "from bakthat.system import terminal; print(terminal.ask_hidden('What is it? '))"
    with asking(code) as (process, screen, terminal):
        seen = seen_on(screen, b"What is it? ")
        # What a shell does before it continues a command.
        shown = termios.tcgetattr(terminal)
        shown[3] |= termios.ECHO
        termios.tcsetattr(terminal, termios.TCSANOW, shown)
        os.kill(process.pid, signal.SIGCONT)
        seen += seen_on(screen, b"What is it? ")
        os.write(screen, b"secret\n")
        assert process.communicate(timeout=30)[0] == "secret\n"
        os.set_blocking(screen, False)
        with suppress(BlockingIOError):  # all of it was read
            while True:
                seen += os.read(screen, 1000)
        assert b"secret" not in seen


CONTINUED_DURING_PRINT = """
import io, os, signal, sys
from bakthat.system import terminal

class Screen(io.FileIO):
    prints = 0

    def write(self, data):
        self.prints += 1
        if self.prints == 1:
            os.kill(os.getpid(), signal.SIGCONT)
        return super().write(data)

sys.stderr = io.TextIOWrapper(io.BufferedWriter(Screen(2, "w")))
print(getattr(terminal, sys.argv[1])("What is it? "))
"""


@pytest.mark.parametrize("question", ["ask", "ask_secret"])
def test_a_command_may_be_continued_while_it_prints_the_question(question: str) -> None:
    with asking(CONTINUED_DURING_PRINT, question) as (process, screen, _):
        seen_on(screen, b"What is it? What is it? ")
        os.write(screen, b"secret\n")
        assert process.communicate(timeout=30)[0] == "secret\n"


@pytest.mark.parametrize("errors", ["strict", "surrogateescape"])
def test_an_answer_that_is_no_text_ends_the_questions(user: CommandLine, errors: str) -> None:
    answers = [("AWS Access Key: ", "\udcff\n")]
    env = {"PYTHONIOENCODING": f"utf-8:{errors}"}
    code, screen = user.converse("configure", answers=answers, env=env)
    assert code == 2
    assert "error: the answer is not UTF-8 text\r\nbakthat: hint: let the terminal send" in screen


def test_the_end_of_the_input_is_no_password(user: CommandLine) -> None:
    (user.directory / "file").write_text("text")
    answers = [("Password (blank to disable encryption): ", "\x04")]
    code, screen = user.converse("backup", "file", answers=answers)
    assert code == 1
    assert "the input ended before a password was given" in screen
    assert "hint: set BAKTHAT_PASSWORD" in screen
