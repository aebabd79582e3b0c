"""The pictures of the documentation show what is true, and everybody can read them."""

from __future__ import annotations

import re
from datetime import date
from pathlib import Path
from xml.etree import ElementTree

import pytest

from tests.docs.pictures import DIRECTORY, DRAWN, retention, sessions
from tests.docs.pictures.terminal import changeless
from tests.support.commandline import PROJECT

SVG = "{http://www.w3.org/2000/svg}"
PICTURES = sorted(each for each in (PROJECT / "docs").rglob("*.svg") if "_build" not in each.parts)
PAGES = [PROJECT / "README.rst", *(PROJECT / "docs").rglob("*.rst")]


@pytest.mark.parametrize("name", DRAWN)
def test_a_drawn_picture_is_up_to_date(name: str) -> None:
    drawn = (DIRECTORY / f"{name}.svg").read_text()
    assert drawn == DRAWN[name](), "run python -m tests.docs.pictures"


@pytest.mark.parametrize("picture", PICTURES, ids=lambda each: each.stem)
def test_a_picture_is_shown_and_has_words_and_colours_for_everybody(picture: Path) -> None:
    assert [page for page in PAGES if picture.name in page.read_text()], "no page shows it"
    text = picture.read_text()
    root = ElementTree.fromstring(text)
    for name in ("title", "desc"):
        (element,) = root.iter(f"{SVG}{name}")
        assert element.text
        assert element.get("id", "") in root.get("aria-labelledby", "").split()
    assert "@media (prefers-color-scheme: dark)" in text
    assert not re.search(r"href=|url\((?!#)|@import", text), "it loads something"


def test_the_calendar_shows_what_the_rotation_keeps() -> None:
    kept = {day for day, decision in retention.decisions().items() if decision.keep}
    days = {date(2026, 12, each) for each in range(10, 17)}
    weeks = {date(2026, 11, 21), date(2026, 11, 28), date(2026, 12, 5), date(2026, 12, 12)}
    months = {date(2026, month, 1) for month in range(7, 13)}
    assert kept == days | weeks | months
    page = (PROJECT / "docs" / "reference" / "retention.rst").read_text()
    assert "rotation: {days: 7, weeks: 4, months: 6}" in page
    assert f"{len(kept)} of {len(retention.decisions())} backups" in page
    root = ElementTree.fromstring((DIRECTORY / "retention.svg").read_text())
    shown = [box.get("class") for box in root.iter(f"{SVG}rect")]
    in_key = 1
    assert {kind: shown.count(kind) - in_key for kind in retention.KEY} == {
        "daily": 7,
        "weekly": 3,  # the first of a fourth week is one of the seven days
        "monthly": 6,
        "deleted": len(retention.decisions()) - len(kept),
    }


@pytest.mark.slow
@pytest.mark.parametrize("name", sessions.SESSIONS)
def test_a_terminal_shows_what_happens(name: str) -> None:
    shown = (DIRECTORY / f"{name}.svg").read_text()
    drawn = sessions.draw(sessions.SESSIONS[name])
    assert changeless(shown) == changeless(drawn), "run python -m tests.docs.pictures"
