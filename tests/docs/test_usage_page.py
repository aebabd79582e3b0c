"""The sessions of docs/reference/usage.rst and README.rst."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.docs.sessions import DOCS, README, Reader, sessions_of


@pytest.mark.slow
@pytest.mark.parametrize(
    ("page", "section", "named"),
    [
        (DOCS / "reference" / "usage.rst", "Look into backups", ("diff", "cat", "restore")),
        (README, "The first backup", ("diff",)),
    ],
    ids=["usage", "README"],
)
def test_the_session_is_what_happens(
    tmp_path: Path, page: Path, section: str, named: tuple[str, ...]
) -> None:
    sessions = sessions_of(page, section)
    text = "".join(session.text for session in sessions)
    assert all(f"$ bakthat {command} " in text for command in named)
    Reader(tmp_path).follow(sessions)
