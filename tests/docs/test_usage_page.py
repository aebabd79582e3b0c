"""The sessions of docs/reference/usage.rst and README.rst that look into backups."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.docs.sessions import DOCS, README, Reader, sessions_of
from tests.support.commandline import CommandLine


@pytest.mark.slow
@pytest.mark.parametrize(
    "page", [DOCS / "reference" / "usage.rst", README], ids=["usage", "README"]
)
def test_the_session_is_what_happens(isolated_environment: Path, page: Path) -> None:
    sessions = sessions_of(page, "Look into backups")
    text = "".join(session.text for session in sessions)
    assert all(f"$ bakthat {command} " in text for command in ("diff", "cat", "restore"))
    Reader(CommandLine(isolated_environment, isolated_environment)).follow(sessions)
