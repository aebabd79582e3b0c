"""Many objects are looked up by one listing, and in batches."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from bakthat.backends.base import StoredObject
from bakthat.backends.local.backend import LocalBackend
from bakthat.session import stat


def test_one_listing_finds_those_of_the_keys_that_are_stored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    backend = LocalBackend({"local_path": str(tmp_path / "store")})
    backend.create_container()
    for key in ("host/a1", "host/a2", "host/other", "away"):
        upload = backend.upload(key, metadata={})
        upload.write(b"x")
        upload.commit()
    prefixes: list[str] = []
    list_all = backend.ls

    def ls(prefix: str) -> Iterator[StoredObject]:
        prefixes.append(prefix)
        return list_all(prefix)

    monkeypatch.setattr(backend, "ls", ls)
    found = stat.stat_by_listing(backend, ["host/a1", "host/a2", "host/a3"])
    assert sorted(found) == ["host/a1", "host/a2"]
    assert prefixes == ["host/a"]


def test_batches_contain_each_item_once_in_order() -> None:
    items = range(2 * stat.BATCH + 1)
    found = list(stat.batches(items))
    assert [len(each) for each in found] == [stat.BATCH, stat.BATCH, 1]
    assert [each for batch in found for each in batch] == list(items)
    assert list(stat.batches([])) == []
