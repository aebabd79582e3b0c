"""The listing of sets with increments: kinds, what needs what, and what a deletion would free."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import bakthat
from bakthat.operations.listing import Relations, relations
from tests.support.commandline import CommandLine
from tests.support.filled_catalog import DAY, HOST, NOW, FilledCatalog, using_catalog
from tests.support.profiles import write_config

DATES = [NOW - days * DAY for days in range(4, 0, -1)]


@pytest.fixture
def filled(tmp_path: Path) -> Iterator[FilledCatalog]:
    made = FilledCatalog(tmp_path / "catalog.sqlite")
    with using_catalog(made):
        yield made


@pytest.fixture
def chain(filled: FilledCatalog) -> list[str]:
    """Add a full and three increments, each of which needs all before it."""
    full = filled.add(DATES[0], size=5000, tags="first")
    return [full, *(filled.add_increment(DATES[n], DATES[:n], size=100) for n in range(1, 4))]


def found(filled: FilledCatalog, query: str = "", tags: str = "") -> dict[str, Relations]:
    backups = bakthat.ls(query, tags=tags, conf=filled.conf)
    related = relations(backups, conf=filled.conf)
    return {each.stored_filename: one for each, one in zip(backups, related, strict=True)}


def test_each_backup_says_what_it_needs_and_what_needs_it(
    filled: FilledCatalog, chain: list[str]
) -> None:
    full, first, second, third = chain
    assert found(filled) == {
        full: Relations((), (third, second, first), 0),
        first: Relations((full,), (third, second), 0),
        second: Relations((full, first), (third,), 0),
        third: Relations((full, first, second), (), 100),
    }


def test_a_query_hides_no_dependents(filled: FilledCatalog, chain: list[str]) -> None:
    full, first, second, third = chain
    assert found(filled, tags="first") == {full: Relations((), (third, second, first), 0)}
    assert found(filled, third)[third].needs == (full, first, second)


def test_what_is_needed_and_not_listed_is_named_by_its_date(filled: FilledCatalog) -> None:
    increment = filled.add_increment(DATES[1], DATES[:1])
    date = time.strftime("%Y%m%d%H%M%S", time.gmtime(DATES[0]))
    assert found(filled)[increment].needs == (date,)


def test_an_increment_whose_description_was_lost_needs_all_that_are_older(
    filled: FilledCatalog,
) -> None:
    full, newer = filled.add(DATES[0]), filled.add(DATES[2])
    lost = filled.add_increment(DATES[1], [])
    related = found(filled)
    assert related[full] == Relations((), (lost,), 0)
    assert related[newer] == Relations((), (), 10)


def test_other_hosts_and_sources_need_nothing_here(filled: FilledCatalog) -> None:
    full = filled.add(DATES[0], metadata={"client": HOST, "source_id": "0" * 16})
    for source, host in (("1" * 16, HOST), ("0" * 16, "elsewhere")):
        metadata = {"client": host, "source_id": source, "format": 2, "needs": [DATES[0]]}
        filled.add_increment(DATES[1] + len(host), [], metadata=metadata)
    assert found(filled)[full] == Relations((), (), 10)


def test_the_table_has_columns_for_increments(
    filled: FilledCatalog, chain: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    filled.add_increment(DATES[3] + 1, [])
    filled.add(DATES[3] + 2, "key", metadata={"kind": "keyvalue", "client": HOST})
    bakthat.show(conf=filled.conf)
    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert rows[0][4:9] == ["SIZE", "KIND", "NEEDS", "FREES", "NAME"]
    assert [" ".join(row[6:-1]) for row in rows[1:]] == [
        "value 10 B",
        "increment ? 10 B",
        "increment 3 0 B (1 needs it)",
        "increment 2 0 B (2 need it)",
        "increment 1 0 B (3 need it)",
        "full 0 0 B (4 need it) my.20261212120000.tgz",
    ]


def test_a_table_without_increments_is_as_ever(
    filled: FilledCatalog, chain: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    bakthat.show(tags="first", conf=filled.conf)
    assert capsys.readouterr().out.split("\n")[0].split() == (
        ["DATE", "(UTC)", "WHERE", "HOST", "SIZE", "NAME", "TAGS"]
    )


def test_json_has_the_same(
    filled: FilledCatalog, chain: list[str], tmp_path: Path, user: CommandLine
) -> None:
    config = write_config(tmp_path / "config.yml", default=filled.conf)
    done = user.run("ls", "--json", "-c", config)
    assert done.code == 0
    listed = done.lines("backup")
    shown = {each["stored_filename"]: each for each in listed}
    full, first, second, third = chain
    keys = ("increment", "needs", "needed_by", "frees")
    assert [shown[full][key] for key in keys] == [False, [], [third, second, first], 0]
    assert [shown[third][key] for key in keys] == [True, [full, first, second], [], 100]
