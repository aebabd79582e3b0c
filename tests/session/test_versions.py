"""Which version of a key is the one that bakthat wrote."""

from __future__ import annotations

from typing import Any

import pytest

from bakthat.backends.base import StoredObject
from bakthat.backends.protection import Version, fits_key
from bakthat.format.description import ARCHIVE, INDEX, describe
from bakthat.session.versions.choice import (
    MAX_LOOKED_AT,
    State,
    agrees,
    candidates,
    judged,
    was_stored,
)

DATE = 1767225600  # 2026-01-01
KEY = "p/etc.20260101000000.tgz"


def version(name: str, time: float, *, content: str = "", is_marker: bool = False) -> Version:
    content = content or name
    return Version(KEY, name, len(content), time, False, is_marker, "" if is_marker else content)


def marker(name: str, time: float) -> Version:
    return version(name, time, is_marker=True)


def stored(key: str = KEY, *, size: int = 9, kind: str = ARCHIVE, **other: Any) -> StoredObject:
    options: dict[str, Any] = {"encryption": "none", "compressed": True, "archive_id": "0" * 16}
    more = {"stored": other.pop("stored")} if "stored" in other else {}
    set_name, date = other.pop("set_name", "etc"), other.pop("date", DATE)
    described = describe(kind, set_name, date, "host", **{**options, **other})
    return StoredObject(key, size, metadata={**described, **more})


def names(versions: list[Version]) -> list[str]:
    return [each.version_id for each in versions]


def test_first_version_is_looked_at_first() -> None:
    versions = [version("c", 30), marker("m", 25), version("b", 20), version("a", 10)]
    assert names(candidates(versions, None)) == ["a", "b", "c"]


def test_version_of_a_time_is_looked_at_before_the_first() -> None:
    versions = [version("c", 30), version("b", 20), marker("m", 15), version("a", 10)]
    assert names(candidates(versions, 29.9)) == ["b", "a"]
    assert names(candidates(versions, 30)) == ["c", "a", "b"]
    assert candidates(versions, 9.9) == []


def test_only_some_of_many_are_looked_at_and_each_content_once() -> None:
    versions = [version(f"{number}", number) for number in range(1000, 0, -1)]
    assert len(candidates(versions, None)) == MAX_LOOKED_AT
    same = [version(f"{number}", number, content="x") for number in range(1000, 0, -1)]
    assert names(candidates(same, None)) == ["1"]
    assert names(candidates(same, 1000)) == ["1000", "1"]


@pytest.mark.parametrize(
    ("time", "expected"), [(None, True), (5, False), (10, True), (20, False), (30, True)]
)
def test_marker_hides_what_is_before_it(time: float | None, expected: bool) -> None:
    versions = [version("b", 30), marker("m", 20), version("a", 10)]
    assert was_stored(versions, time) is expected


@pytest.mark.parametrize(
    ("above", "state", "changed_at", "nearest", "is_only_hidden"),
    [
        ([], State.INTACT, None, "a", True),
        ([marker("m", 20)], State.DELETED, 20, "a", True),
        ([marker("n", 30), marker("m", 20)], State.DELETED, 20, "a", True),
        ([version("b", 20)], State.OVERWRITTEN, 20, "a", False),
        ([marker("m", 30), version("b", 20)], State.DELETED, 20, "a", False),
        ([version("b", 30), marker("m", 20)], State.OVERWRITTEN, 20, "a", False),
        ([version("d", 30, content="a"), version("b", 20)], State.INTACT, None, "d", True),
        ([marker("m", 40), version("d", 30, content="a")], State.DELETED, 40, "d", True),
        ([version("known", 30), version("b", 20)], State.INTACT, None, "known", True),
    ],
)
def test_what_became_of_it(
    above: list[Version],
    state: State,
    changed_at: float | None,
    nearest: str,
    is_only_hidden: bool,
) -> None:
    right = version("a", 10)
    found = judged([*above, right, marker("o", 5)], right, None, {"known"})
    assert (found.state, found.changed_at) == (state, changed_at)
    assert found.version is not None
    assert found.version.version_id == nearest
    assert found.is_only_hidden is is_only_hidden


@pytest.mark.parametrize(
    ("found", "fits"),
    [
        (stored(), True),
        (stored(set_name="etc.tgz"), True),
        (stored(set_name="www"), False),
        (stored(date=DATE + 1), False),
        (stored(encryption="recipients"), False),
        (stored(needs=[1], level=1), False),
        (stored(kind=INDEX), False),
        (stored(f"{KEY}.index", kind=INDEX), True),
        (stored(f"{KEY}.index"), False),
        (stored("p/etc.20260101000000.tgz.age", encryption="passphrase"), True),
        (stored("p/etc.20260101000000.inc.tgz", needs=[1], level=1), True),
        (StoredObject(KEY, 9, metadata={}), None),
    ],
)
def test_self_description_must_fit_the_key(found: StoredObject, fits: bool | None) -> None:
    assert fits_key(found) is fits


@pytest.mark.parametrize(
    ("archive", "index", "expected"),
    [
        (stored(), stored(kind=INDEX, stored=9), True),
        (stored(), stored(kind=INDEX), True),
        (stored(), stored(kind=INDEX, stored=8), False),
        (stored(), stored(kind=INDEX, stored=9, archive_id="1" * 16), False),
        (stored(), stored(kind=INDEX, stored=9, needs=[1]), False),
        (StoredObject(KEY, 9, metadata={}), stored(kind=INDEX, stored=9), True),
        (StoredObject(KEY, 9, metadata={}), stored(kind=INDEX, stored=8), False),
    ],
)
def test_index_must_be_that_of_the_archive(
    archive: StoredObject, index: StoredObject, expected: bool
) -> None:
    assert agrees(archive, index) is expected
