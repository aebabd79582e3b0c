"""Fuzz one target with atheris, guided by coverage: ``python -m tests.fuzz tar``.

Without a target, each gets 30 seconds in turn. Options of libFuzzer may follow the name
(``-max_total_time=60``). A find is an exception that is none of bakthat's; its input goes to
tests/test_fuzz.py, to stay.
"""

from __future__ import annotations

import importlib
import subprocess
import sys
import tempfile
from pathlib import Path

SECONDS_EACH = 30


def main(arguments: list[str]) -> int:
    """Fuzz the target that is named first, or all of them one after the other."""
    if not arguments or arguments[0].startswith("-"):
        from tests.fuzz.targets import TARGETS

        bounds = arguments or [f"-max_total_time={SECONDS_EACH}"]
        codes = [
            subprocess.run(
                [sys.executable, "-m", "tests.fuzz", name, *bounds], check=False
            ).returncode
            for name in TARGETS
        ]
        return max(codes)
    atheris = importlib.import_module("atheris")  # installed by tox -e fuzz only
    with atheris.instrument_imports(include=["bakthat"]):
        from tests.fuzz.targets import TARGETS
    target, seeds = TARGETS[arguments[0]]
    with tempfile.TemporaryDirectory() as corpus:
        for number, seed in enumerate(seeds):
            (Path(corpus) / str(number)).write_bytes(seed)
        atheris.Setup([sys.argv[0], *arguments[1:], "-max_len=65536", corpus], target)
        atheris.Fuzz()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
