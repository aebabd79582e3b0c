"""A short run of the disasters in tests/reliability; ``tox -e reliability`` runs all of them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

PROJECT = Path(__file__).parent.parent
FEW = ["--kills=4", "--steps-every=15", "--disk-every=150", "--network-every=110", "--inputs=500"]


@pytest.mark.slow
@pytest.mark.needs("gcc")
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="forks, and reads Linux's /proc")
def test_nothing_is_lost_in_a_few_disasters() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.reliability", *FEW],
        cwd=PROJECT,
        env=os.environ,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "0  backups lost" in done.stdout
