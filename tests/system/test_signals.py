"""Signals that are held back while something must not be left half-done."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator

import pytest

from bakthat.system.signals import held_back
from tests.support.commandline import unmeasured


@pytest.fixture(params=[signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def number(request: pytest.FixtureRequest) -> Iterator[int]:
    """Give a signal a handler that raises KeyboardInterrupt for the test."""
    sent: int = request.param

    def stop(_number: int, _frame: object) -> None:
        raise KeyboardInterrupt(_number)

    before = signal.signal(sent, stop)
    yield sent
    signal.signal(sent, before)


def test_a_signal_is_held_back_and_then_handled(number: int) -> None:
    steps: list[str] = []

    def work() -> None:
        with held_back():
            os.kill(os.getpid(), number)
            steps.append("went on")
        steps.append("not reached")

    with pytest.raises(KeyboardInterrupt):
        work()
    assert steps == ["went on"]


def test_check_handles_a_signal_inside_the_block(number: int) -> None:
    steps: list[str] = []

    def work() -> None:
        with held_back() as held:
            os.kill(os.getpid(), number)
            steps.append("went on")
            held.check()
            steps.append("not reached")

    with pytest.raises(KeyboardInterrupt):
        work()
    assert steps == ["went on"]


def test_nested_blocks_hold_back_until_the_outermost_ends(number: int) -> None:
    steps: list[str] = []

    def work() -> None:
        with held_back():
            with held_back():
                os.kill(os.getpid(), number)
            steps.append("still going on")

    with pytest.raises(KeyboardInterrupt):
        work()
    assert steps == ["still going on"]


def test_an_ignored_signal_stays_ignored() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with held_back():
            os.kill(os.getpid(), signal.SIGHUP)
        assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


def test_other_threads_hold_nothing_back() -> None:
    handlers: list[object] = []

    def look() -> None:
        with held_back():
            handlers.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=look)
    thread.start()
    thread.join()
    assert handlers == [signal.getsignal(signal.SIGINT)]


STOPPED_WHILE_IMPORTING = """
import signal, sys, threading
from bakthat.cli import signals

def deliver(frame, event, argument):
    # As Python does when a signal comes while the import machinery holds its lock.
    if event == "c_call" and argument.__name__ == "release_lock":
        sys.setprofile(None)
        signal.getsignal(signal.SIGTERM)(signal.SIGTERM, frame)

def work():
    signals.handle_signals()
    try:
        sys.setprofile(deliver)
        import xml.dom.minidom
        signal.pause()
    except signals.Stopped as exc:
        other = threading.Thread(target=__import__, args=("colorsys",), daemon=True)
        other.start()
        other.join(20)
        sys.exit(128 + exc.number if not other.is_alive() else 99)

work()
"""

STOPPED_WHERE_IT_IS_SWALLOWED = """
import os, signal, sys
from bakthat.cli import signals

class Closing:
    def __del__(self):
        os.kill(os.getpid(), signal.SIGTERM)
        len("")  # a moment at which Python looks for signals

signals.handle_signals()
try:
    Closing()
    signal.pause()
except signals.Stopped as exc:
    sys.exit(128 + exc.number)
"""


@pytest.mark.parametrize("script", [STOPPED_WHILE_IMPORTING, STOPPED_WHERE_IT_IS_SWALLOWED])
def test_a_signal_stops_the_command_wherever_it_comes(script: str) -> None:
    # An interpreter of its own: what went wrong was a lock of the import machinery, held for ever.
    done = subprocess.run(
        [sys.executable, "-c", script],
        timeout=30,
        capture_output=True,
        text=True,
        check=False,
        env=unmeasured(),  # coverage hooks into the interpreter as the scripts do
    )
    assert (done.returncode, done.stderr) == (128 + signal.SIGTERM, "")
