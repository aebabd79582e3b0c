"""Two short nights of jobs; ``tox -e nights`` runs many."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from tests.reliability.nights import Nights
from tests.support.needs import as_root
from tests.support.profiles import Conf


@as_root
@pytest.mark.slow
@pytest.mark.needs("cron", "unshare")
def test_of_twenty_jobs_at_once_nothing_is_lost_and_what_was_killed_needs_no_hand(
    tmp_path: Path, moto_conf: Conf, seaweedfs_conf: Conf
) -> None:
    profiles = {
        name: {**conf, "default_destination": "s3"}
        for name, conf in (("moto", moto_conf), ("seaweedfs", seaweedfs_conf))
    }
    seed = random.SystemRandom().randrange(2**32)
    nights = Nights.make(tmp_path / "user", profiles, random.Random(seed), jobs=20, sources=2)
    codes = nights.run(kills=10)
    assert 137 in codes, (seed, nights.logs())
    nights.examine(was_killed=True)
    codes = nights.run()
    assert codes == [0] * 20, (seed, nights.logs())
    assert nights.examine(was_killed=False) == 40
    assert nights.problems == [], seed
