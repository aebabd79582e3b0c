"""How backups are divided into sets, for any mix of names, hosts, sources and dates."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bakthat import models
from bakthat.format.description import NAMED, source_id
from bakthat.policy.newest import newest_key
from bakthat.session.sets import divide, newest_first, parse_source

NOW = int(time.time())


def backup(number: int, name: str, host: str, source: str, age: int) -> models.Backups:
    return models.Backups(
        backend="s3",
        backend_hash="",
        backup_date=NOW - age,
        filename=name,
        metadata={"format": 1, "client": host, "source_id": source},
        size=1,
        stored_filename=f"{name}.{number}",
        last_updated=NOW,
    )


drawn_backups = st.lists(
    st.tuples(
        st.sampled_from(["my", "mysql"]),
        st.sampled_from(["box", ""]),
        st.sampled_from(["", NAMED, "0" * 16, "1" * 16]),
        st.integers(-(10**6), 10**6),
    )
).map(lambda rows: [backup(number, *row) for number, row in enumerate(rows)])


@given(drawn_backups)
def test_each_backup_is_in_one_set_and_no_set_mixes_sources(drawn: list[models.Backups]) -> None:
    sets = divide(drawn)
    divided = [each.stored_filename for one in sets for each in one.backups]
    assert sorted(divided) == sorted(each.stored_filename for each in drawn)
    for one in sets:
        assert {(each.filename, each.host) for each in one.backups} == {(one.name, one.host)}
        known = {each.source_id for each in one.backups} - {""}
        assert known <= {one.source_id or NAMED}
    assert len({(each.name, each.host, each.source_id) for each in sets}) == len(sets)


@given(drawn_backups)
def test_the_order_is_that_of_the_newest(drawn: list[models.Backups]) -> None:
    keys = [newest_key(each.date, time.time()) for each in newest_first(drawn)]
    assert keys == sorted(keys, reverse=True)
    for one in divide(drawn):
        assert list(one.backups) == newest_first(one.backups)


def test_a_source_is_a_path_or_an_id(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    expected = source_id(tmp_path / "my")
    for given_source in ("my", "./my/", "~/my", tmp_path / "my", f"/{tmp_path}/my", expected):
        assert parse_source(given_source) == expected
    assert parse_source(os.fsdecode(b"/\xff")) == source_id(os.fsdecode(b"/\xff"))
    assert parse_source("") == ""
    assert parse_source(None) is None
