"""Signals that are held back while something must not be left half-done."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator

import pytest

from bakthat.system import signals
from bakthat.system.signals import held_back, report_wait
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


AT_EVERY_INSTRUCTION = """
import logging, signal, sys, threading
from bakthat.system import signals
from bakthat.system.signals import held_back

ALL = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
seen = []

def stop(number, frame):
    seen.append(number)
    raise KeyboardInterrupt

def note(number, frame):
    seen.append(number)

def work():
    with held_back():
        with held_back("finishing the test"):
            len("")
    with held_back("finishing the test"):
        with held_back():
            len("")
        with held_back():
            len("")

def deliver(number, point):
    # Return whether the work has as many instructions.
    left = [point]
    def trace(frame, event, argument):
        if frame.f_code.co_filename != signals.__file__:
            return None
        frame.f_trace_opcodes = True
        if event == "opcode":
            left[0] -= 1
            if left[0] == 0:
                signal.raise_signal(number)
        return trace
    sys.settrace(trace)
    try:
        work()
    except KeyboardInterrupt:
        pass
    finally:
        sys.settrace(None)
    return left[0] <= 0

def sweep(number, handler):
    for each in ALL:
        signal.signal(each, handler)
    point = 1
    while deliver(number, point):
        where = f"signal {number} at instruction {point}"
        assert seen == [number], f"{where}: seen {seen}"
        seen.clear()
        for each in ALL:
            assert signal.getsignal(each) is handler, f"{where}: {signal.getsignal(each)}"
            try:
                signal.raise_signal(each)
            except KeyboardInterrupt:
                pass
        assert seen == list(ALL), f"{where}: a signal is muted"
        seen.clear()
        point += 1
    return point

logging.disable()
ended = threading.Event()

def hold():
    while not ended.wait(0.001):
        with held_back():
            pass

threads = [threading.Thread(target=hold) for _ in range(int(sys.argv[1]))]
for thread in threads:
    thread.start()
try:
    count = sum(sweep(number, handler) for number in ALL for handler in (stop, note))
finally:
    ended.set()
print(count)
"""


@pytest.mark.parametrize("threads", [0, 2])
@pytest.mark.slow
def test_a_signal_between_any_two_instructions_is_seen_once_and_mutes_nothing(threads: int) -> None:
    done = subprocess.run(
        [sys.executable, "-c", AT_EVERY_INSTRUCTION, str(threads)],
        timeout=300,
        capture_output=True,
        text=True,
        check=False,
        env=unmeasured(),  # coverage traces too
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert int(done.stdout) > 600


class Clock:
    """A clock that stands still until the test moves it."""

    now = 100.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(signals, "time", clock)
    return clock


def test_a_second_signal_interrupts_a_step_with_a_name(
    number: int, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    block = held_back("finishing the upload of x", mend="bakthat sync lists it")

    def work() -> None:
        with block, held_back("recording it"):
            os.kill(os.getpid(), number)
            os.kill(os.getpid(), number)  # pressed twice
            assert not block.is_stopped
            clock.now += signals.REPEAT_SECONDS
            os.kill(os.getpid(), number)
            pytest.fail("the second signal must interrupt")

    with pytest.raises(KeyboardInterrupt):
        work()
    assert block.is_stopped
    [line] = [record.message for record in caplog.records]
    assert line == "recording it; press Ctrl-C or send the signal again to stop now"
    with pytest.raises(KeyboardInterrupt):  # the handler is there again
        os.kill(os.getpid(), number)


def test_no_signal_interrupts_a_step_without_a_name(number: int, clock: Clock) -> None:
    steps: list[str] = []

    def work() -> None:
        with held_back("finishing the upload of x"):
            with held_back():
                for _ in range(3):
                    os.kill(os.getpid(), number)
                    clock.now += signals.REPEAT_SECONDS
                steps.append("went on")
            steps.append("still going on")

    with pytest.raises(KeyboardInterrupt):
        work()
    assert steps == ["went on", "still going on"]


def test_a_signal_interrupts_the_cleanup_after_another(
    number: int, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    steps: list[str] = []

    def work() -> None:
        try:
            os.kill(os.getpid(), number)
        finally:
            with held_back("removing the parts", mend="bakthat cleanup removes them"):
                report_wait()
                os.kill(os.getpid(), number)  # pressed twice
                steps.append("cleaning up")
                clock.now += signals.REPEAT_SECONDS
                os.kill(os.getpid(), number)
                steps.append("not reached")

    with pytest.raises(KeyboardInterrupt):
        work()
    assert steps == ["cleaning up"]
    assert [record.message for record in caplog.records] == [
        "removing the parts; press Ctrl-C or send the signal again to stop now "
        "(bakthat cleanup removes them)"
    ]


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

STOPPED_WHILE_IMPORTING_AGAIN = STOPPED_WHILE_IMPORTING.replace(
    """        sys.setprofile(None)
        signal.getsignal(signal.SIGTERM)(signal.SIGTERM, frame)
""",
    """        arrived.append(event)
        number = signal.SIGTERM if len(arrived) == 1 else signal.SIGALRM
        if len(arrived) == 2:
            sys.setprofile(None)
        signal.getsignal(number)(number, frame)
""",
).replace("def deliver", "arrived = []\n\ndef deliver")

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


@pytest.mark.parametrize(
    "script",
    [STOPPED_WHILE_IMPORTING, STOPPED_WHILE_IMPORTING_AGAIN, STOPPED_WHERE_IT_IS_SWALLOWED],
    ids=["importing", "importing again", "swallowed"],
)
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
