"""Fixtures: a guarded bucket on each server that keeps versions."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.profiles import Conf
from tests.support.roles import Guarded, guarded_bucket


@pytest.fixture(params=["moto", "seaweedfs"])
def versioned_conf(request: pytest.FixtureRequest, local: Conf) -> Conf:
    """Return a flat profile of each server that keeps versions."""
    conf: Conf = request.getfixturevalue(f"{request.param}_conf")
    return {**conf, "database": local["database"], "default_destination": "s3", "password": ""}


@pytest.fixture
def guarded(versioned_conf: Conf) -> Iterator[Guarded]:
    """Guard a bucket in which each host has a prefix of its own."""
    with guarded_bucket(versioned_conf, prefix="backups/{host}/", host="web1") as found:
        yield found
