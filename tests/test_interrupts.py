"""Signals that are held back while something must not be left half-done."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator

import pytest

from bakthat.interrupts import held_back


@pytest.fixture(params=[signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def number(request: pytest.FixtureRequest) -> Iterator[int]:
    """Give a signal a handler that raises KeyboardInterrupt for the test."""
    sent: int = request.param

    def stop(_number: int, _frame: object) -> None:
        raise KeyboardInterrupt(_number)

    before = signal.signal(sent, stop)
    yield sent
    signal.signal(sent, before)


def test_a_signal_is_held_back_and_then_does_its_work(number: int) -> None:
    steps: list[str] = []

    def work() -> None:
        with held_back():
            os.kill(os.getpid(), number)
            steps.append("went on")
        steps.append("not reached")

    with pytest.raises(KeyboardInterrupt):
        work()
    assert steps == ["went on"]


def test_a_signal_may_be_let_through_where_it_can_be_stopped(number: int) -> None:
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
