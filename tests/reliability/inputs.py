"""Mutations of small valid inputs for every reader of foreign bytes."""

from __future__ import annotations

import random
import traceback

from tests.fuzz.targets import TARGETS


def attempt(number: int, rng: random.Random) -> tuple[int, list[str]]:
    """Try *number* inputs; return how many were, and what raised something foreign."""
    tried, problems = 0, []
    names = sorted(set(TARGETS) - {"beefish"})  # which takes a tenth of a second each
    for _ in range(number):
        name = names[tried % len(names)]
        function, seeds = TARGETS[name]
        data = _mutated(rng.choice(seeds), rng)
        tried += 1
        try:
            function(data)
        except Exception:  # noqa: BLE001  # whatever it is, it is a find
            problems.append(f"{name} of {data!r}: {traceback.format_exc()}")
    return tried, problems


def _mutated(data: bytes, rng: random.Random) -> bytes:
    for _ in range(rng.randint(1, 4)):
        start = rng.randint(0, len(data))
        end = min(len(data), start + rng.choice((0, 0, 1, 1, 4, 40)))
        piece = rng.choice(
            (
                rng.randbytes(rng.randint(0, 8)),
                bytes([rng.choice((0, 1, 127, 128, 255))]) * rng.randint(1, 12),
                data[rng.randint(0, len(data)) :][:60],
                rng.choice((b"{", b"[", b'"', b"-1", b"9" * 25, b"\n", b"1e999", b"&a", b"*a")),
            )
        )
        data = data[:start] + piece + data[end:]
    return data
