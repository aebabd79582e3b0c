"""Many objects are looked up by one listing, and in batches."""

from __future__ import annotations

import bisect
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bakthat.backends.base import Backend, BakthatBackend, StoredObject
from bakthat.backends.local.backend import LocalBackend
from bakthat.errors import NotFoundError
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


class PagedStorage(BakthatBackend):
    """Lists keys in their order, a page in each request, and counts the requests."""

    page_size = 10

    def __init__(self, keys: Sequence[str]) -> None:
        super().__init__({})
        self.keys = sorted(keys)
        self.lists = 0
        self.looks = 0

    def ls(self, prefix: str = "") -> Iterator[StoredObject]:
        self.lists += 1
        start = bisect.bisect_left(self.keys, prefix)
        for number, key in enumerate(self.keys[start:]):
            if not key.startswith(prefix):
                return
            if number and number % self.page_size == 0:
                self.lists += 1
            yield StoredObject(key, 1)

    def stat(self, key: str) -> StoredObject:
        self.looks += 1
        if key not in self.keys:
            raise NotFoundError(key)
        return StoredObject(key, 1)

    def delete(self, key: str) -> None:
        raise NotImplementedError


def _found(storage: PagedStorage, keys: Sequence[str]) -> set[str]:
    return set(stat.stat_by_listing(cast("Backend", storage), keys))


def _backups(name: str, count: int) -> list[str]:
    return [f"{name}.201306041910{second:02}.tgz" for second in range(count)]


def test_sets_without_a_common_beginning_do_not_list_a_whole_shared_bucket() -> None:
    backups = [key for name in ("alpha", "mike", "zulu") for key in _backups(name, 9)]
    others = [f"logs/{number}" for number in range(100_000)]
    storage = PagedStorage([*backups, *others])
    assert _found(storage, backups) == set(backups)
    assert storage.lists <= 3 + 2 + 3
    assert storage.looks == 0


def test_a_bucket_of_nothing_else_is_listed_once() -> None:
    backups = [key for name in ("alpha", "mike", "zulu") for key in _backups(name, 9)]
    storage = PagedStorage(backups)
    assert _found(storage, backups) == set(backups)
    assert (storage.lists, storage.looks) == (3, 0)


def test_a_set_among_many_other_objects_of_its_beginning_is_requested_one_by_one() -> None:
    backups = ["my.20130604191055.tgz", "my.20140604191055.tgz"]
    others = [f"my.2013{number:06}" for number in range(100_000)]
    storage = PagedStorage([*backups, *others])
    assert _found(storage, backups) == set(backups)
    assert storage.lists <= 4
    assert storage.looks <= 2


@given(
    sets=st.dictionaries(st.text("ab/", min_size=1, max_size=3), st.integers(1, 9), max_size=6),
    others=st.lists(st.text("ab/.2013", max_size=12), max_size=300),
    gone=st.integers(0, 3),
)
def test_the_requests_are_bounded_by_what_is_looked_for(
    sets: dict[str, int], others: list[str], gone: int
) -> None:
    wanted = [key for name, count in sets.items() for key in _backups(name, count)]
    stored = wanted[gone:]
    storage = PagedStorage([*stored, *(other + "x" for other in others)])
    assert _found(storage, wanted) == set(stored)
    assert storage.lists + storage.looks <= 4 * len(wanted) + 1
