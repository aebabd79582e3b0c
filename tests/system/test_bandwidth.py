"""A bandwidth: how it is written, and how many bytes pass while a clock of the test goes on."""

from __future__ import annotations

import threading

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bakthat.system.bandwidth import LOWEST, Bandwidth, bytes_per_second


class Clock:
    """A clock that moves when the test says so."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.mark.parametrize(
    ("text", "rate"),
    [
        ("5MiB/s", 5 * 1024**2),
        ("1MB/s", 1_000_000),
        ("500kB/s", 500_000),
        ("64KiB/s", 65_536),
        ("1.5MB/s", 1_500_000),
        ("0.1GiB/s", 107_374_182),
        ("2GB/s", 2 * 10**9),
    ],
)
def test_a_bandwidth_has_a_decimal_or_a_binary_unit(text: str, rate: int) -> None:
    assert bytes_per_second(text) == rate


@pytest.mark.parametrize(
    "text",
    [
        *("", "5", "5M", "5MB", "5MiB", "5 MiB/s", "5mb/s", "5Mb/s", "8Mbit/s", "5kiB/s", "5KB/s"),
        *("5TB/s", "5B/s", "-5MB/s", "+5MB/s", "1e3MB/s", ".5MB/s", "5.MB/s", "1.2.3MB/s"),
        *("5MB/s\n", "5MB/h", "\u0665MB/s", "1_000kB/s", "9" * 10 + "MB/s"),
    ],
)
def test_anything_else_is_no_bandwidth(text: str) -> None:
    with pytest.raises(ValueError, match="not a bandwidth"):
        bytes_per_second(text)


STEPS = st.lists(st.tuples(st.floats(0, 60), st.floats(0, 1), st.booleans()), min_size=1)
"""For each piece: how long nothing is sent before it, its share of the largest, and whether the
sender then waits as long as it is told to."""


@settings(deadline=None)  # on a busy machine
@given(rate=st.integers(1, 10**10), steps=STEPS)
def test_never_more_than_the_rate_and_one_piece_passes(
    rate: int, steps: list[tuple[float, float, bool]]
) -> None:
    clock = Clock()
    limit = Bandwidth(rate, clock=clock)
    passed, begun = 0, clock.now
    for pause, share, waits in steps:
        clock.now += pause
        count = max(1, int(share * limit.piece))
        seconds = limit.take(count)
        passed += count
        allowed = rate * (clock.now + seconds - begun) + limit.piece
        assert passed <= allowed * (1 + 1e-9) + 1
        if waits:
            clock.now += seconds


@settings(deadline=None)
@given(rate=st.integers(LOWEST, 10**10), late=st.floats(0, 0.12), pieces=st.integers(1, 500))
def test_the_rate_is_reached_though_each_sleep_ends_a_little_late(
    rate: int, late: float, pieces: int
) -> None:
    clock = Clock()
    limit = Bandwidth(rate, clock=clock)
    begun = clock.now
    for _ in range(pieces):
        seconds = limit.take(limit.piece)
        if seconds:
            clock.now += seconds + late
    assert clock.now - begun <= pieces * limit.piece / rate + late + 1e-6


def test_what_was_not_used_for_an_hour_passes_as_one_piece_and_not_at_once() -> None:
    clock = Clock()
    limit = Bandwidth(8000, clock=clock)
    limit.take(limit.piece)
    clock.now += 3600
    waits = [limit.take(limit.piece) for _ in range(4)]
    assert waits == pytest.approx([0, 0.125, 0.25, 0.375])


def test_threads_share_the_rate() -> None:
    limit = Bandwidth(8000, clock=Clock())
    waits: list[float] = []

    def send() -> None:
        waits.extend(limit.take(100) for _ in range(200))

    threads = [threading.Thread(target=send) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert max(waits) == pytest.approx(8 * 200 * 100 / 8000 - 0.125)
    assert len(set(waits)) == pytest.approx(1600, abs=10)  # the first ten wait for nothing


def test_a_wait_ends_when_the_transfer_is_cancelled() -> None:
    limit = Bandwidth(8, clock=Clock())
    for _ in range(10**6):
        limit.take(1)
    cancelled = threading.Event()
    waiting = threading.Thread(target=limit.wait, args=(1, cancelled), daemon=True)
    waiting.start()
    cancelled.set()
    waiting.join(60)  # it would be a day
    assert not waiting.is_alive()
