"""Fixtures of the tests of jobs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import bakthat
from bakthat.models import Backups
from tests.support.nights import Night
from tests.support.profiles import Conf


@pytest.fixture
def night(isolated_environment: Path, tmp_path: Path, local: Conf) -> Night:
    """Return a user whose jobs store locally."""
    return Night(isolated_environment, tmp_path, local)


@pytest.fixture
def told() -> Iterator[list[tuple[str, str]]]:
    """Note what the events ``on_backup`` and ``on_error`` tell: the name, and of what."""
    found: list[tuple[str, str]] = []

    def on_backup(_session_id: str, backup: Backups) -> None:
        found.append(("on_backup", backup.filename))

    def on_error(_session_id: str, operation: str, exc: BaseException) -> None:
        found.append(("on_error", f"{operation}: {exc}"))

    callbacks: list[tuple[str, Callable[..., None]]] = [
        ("on_backup", on_backup),
        ("on_error", on_error),
    ]
    for event, callback in callbacks:
        slot = getattr(bakthat.events, event)
        slot += callback
    yield found
    for event, callback in callbacks:
        slot = getattr(bakthat.events, event)
        slot -= callback
