"""A short run of the disasters in tests/reliability; ``tox -e reliability`` runs all of them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

PROJECT = Path(__file__).parent.parent
FEW = ["--kills=4", "--steps-every=15", "--disk-every=150", "--network-every=110", "--inputs=500"]
NONE = ["--kills=0", "--steps-every=0", "--disk-every=0", "--network-every=0", "--inputs=0"]

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not sys.platform.startswith("linux"), reason="forks, and reads Linux's /proc"
    ),
]


@pytest.mark.needs("gcc")
def test_nothing_is_lost_in_a_few_disasters() -> None:
    nothing_is_lost(*FEW, "--dumps=0")


@pytest.mark.needs("postgres", "mariadbd")
def test_a_few_dumps_that_are_cut_leave_no_backup() -> None:
    nothing_is_lost(*NONE, "--dumps=2")


def nothing_is_lost(*arguments: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.reliability", *arguments],
        cwd=PROJECT,
        env=os.environ,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "0  backups lost" in done.stdout
