"""Profiles for buckets with object lock."""

from __future__ import annotations

import pytest

from tests.support.profiles import Conf

LOCKED = {"object_lock": {"mode": "governance", "days": 30}}


@pytest.fixture(params=["moto", "seaweedfs"])
def locking_conf(request: pytest.FixtureRequest) -> Conf:
    """Return a flat profile of each server that knows locks, with locks; the bucket is missing."""
    conf: Conf = request.getfixturevalue(f"{request.param}_conf")
    return {**conf, **LOCKED, "password": "", "prefix": "p/"}
