"""Fixtures of the tests of the operations."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

import bakthat
from bakthat.hooks import EVENT_NAMES
from tests.support.profiles import Conf
from tests.support.shops import Shop, mariadb_shop, postgresql_shop


@pytest.fixture(params=["local", "moto", "rclone", "seaweedfs"])
def conf(request: pytest.FixtureRequest, local: Conf) -> Conf:
    """Return a flat profile for each storage in turn; the catalog is the same for all."""
    if request.param == "local":
        return local
    return {**request.getfixturevalue(f"{request.param}_conf"), "database": local["database"]}


@pytest.fixture(scope="module", params=["postgresql", "mariadb"])
def shop(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Shop]:
    """Run a database server of each kind in turn, for the tests of a module."""
    running = (
        postgresql_shop()
        if request.param == "postgresql"
        else mariadb_shop(tmp_path_factory.mktemp("mariadb"))
    )
    with running as shop:
        yield shop


@pytest.fixture
def fired() -> Iterator[list[tuple[Any, ...]]]:
    """Collect the events that fire: the name of each, then its arguments."""
    calls: list[tuple[Any, ...]] = []

    def listener(event: str) -> Callable[..., None]:
        return lambda *arguments: calls.append((event, *arguments))

    hooked = [(getattr(bakthat.events, event), listener(event)) for event in EVENT_NAMES]
    for slot, callback in hooked:
        slot += callback
    yield calls
    for slot, callback in hooked:
        slot -= callback
