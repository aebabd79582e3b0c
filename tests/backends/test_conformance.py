"""The conformance suite: the contract of every backend."""

from __future__ import annotations

import contextlib
import os
import random
import threading
import tracemalloc
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import BinaryIO

import pytest

from bakthat.backends.base import Backend, ColdStorage, StoredObject
from bakthat.errors import (
    ContainerNotFoundError,
    KeyExistsError,
    NotFoundError,
    StorageError,
    UsageError,
)
from tests.support.servers import STORAGES, Storage

METADATA = {"set": "mydir", "tags": ["a", "b"], "date": 1370373055}


@pytest.fixture(params=sorted(STORAGES))
def storage(request: pytest.FixtureRequest) -> Storage:
    return STORAGES[request.param](request)


def content(size: int) -> bytes:
    return random.Random(size).randbytes(size)


def put(
    backend: Backend, key: str, data: bytes = b"", *, piece: int = 100_000, replace: bool = False
) -> StoredObject:
    upload = backend.upload(key, metadata=METADATA, size_hint=len(data), replace=replace)
    try:
        for start in range(0, len(data), piece):
            upload.write(data[start : start + piece])
        return upload.commit()
    finally:
        upload.abort()


def get(backend: Backend, key: str, *, start: int = 0, end: int | None = None) -> bytes:
    with opened(backend, key, start=start, end=end) as source:
        return source.read()


def opened(backend: Backend, key: str, *, start: int = 0, end: int | None = None) -> BinaryIO:
    """Open a download, after a thaw where the storage is a cold one."""
    if isinstance(backend, ColdStorage):
        backend.thaw(key, tier="standard", days=1)
    return backend.download(key, start=start, end=end)


def keys(backend: Backend, prefix: str = "") -> list[str]:
    return sorted(found.key for found in backend.ls(prefix))


def test_an_object_of_any_size_round_trips(storage: Storage) -> None:
    part = storage.part_size
    reader = storage.another()
    for size in (0, 1, part - 1, part, part + 1, 3 * part + 1):
        data = content(size)
        stored = put(storage.backend, f"set.{size}.tgz", data)
        assert stored.size == size
        assert get(reader, f"set.{size}.tgz") == data
    assert storage.leftovers() == []


def test_parts_too_large_for_memory_round_trip_and_leave_no_file(
    storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bakthat.backends.aws.part_buffer.MEMORY_PART", 700_001)
    before = open_files()
    part = storage.part_size
    for size in (part - 1, part, part + 1, 4 * part + 800_000):
        data = content(size)
        assert put(storage.backend, f"set.{size}.tgz", data).size == size
        assert get(storage.another(), f"set.{size}.tgz") == data
        assert open_files() == before
    upload = storage.backend.upload("aborted.tgz", metadata={}, size_hint=3 * part)
    upload.write(content(2 * part + 1))
    upload.abort()
    assert open_files() == before
    assert storage.leftovers() == []


def open_files() -> list[str]:
    """Return the unnamed files of parts that this process has open, where the system tells."""
    found = []
    for descriptor in Path("/proc/self/fd").glob("*"):
        with contextlib.suppress(OSError):  # that of the listing itself
            found.append(os.readlink(descriptor))
    return [name for name in found if "bakthat-part-" in name]


def test_the_size_of_the_writes_makes_no_difference(storage: Storage) -> None:
    data = content(2 * storage.part_size + 3)
    put(storage.backend, "in-one.tgz", data, piece=len(data))
    put(storage.backend, "in-odd-pieces.tgz", data, piece=storage.part_size // 3 + 1)
    assert get(storage.backend, "in-one.tgz") == data
    assert get(storage.backend, "in-odd-pieces.tgz") == data


def test_a_hint_that_is_missing_or_too_low_harms_nothing(storage: Storage) -> None:
    data = content(2 * storage.part_size)
    for hint in (None, 0, 1):
        upload = storage.backend.upload(f"set.{hint}.tgz", metadata={}, size_hint=hint)
        upload.write(data)
        assert upload.commit().size == len(data)
        assert get(storage.backend, f"set.{hint}.tgz") == data


def test_the_writer_may_reuse_its_buffer(storage: Storage) -> None:
    buffer = bytearray(b"first ")
    upload = storage.backend.upload("set.tgz", metadata={})
    upload.write(buffer)
    buffer[:] = b"second"
    upload.write(memoryview(buffer))
    upload.write(b"")
    upload.commit()
    assert get(storage.backend, "set.tgz") == b"first second"


def test_nobody_sees_an_object_before_its_commit(storage: Storage) -> None:
    upload = storage.backend.upload("set.tgz", metadata={}, size_hint=3 * storage.part_size)
    upload.write(content(2 * storage.part_size + 1))
    other = storage.another()
    try:
        assert keys(other) == []
        with pytest.raises(NotFoundError, match=r"set\.tgz"):
            other.stat("set.tgz")
        with pytest.raises(NotFoundError, match=r"set\.tgz"):
            other.download("set.tgz")
        upload.commit()
    finally:
        upload.abort()
    assert keys(other) == ["set.tgz"]


@pytest.mark.parametrize("parts", [0, 3])
def test_an_aborted_upload_leaves_nothing(storage: Storage, parts: int) -> None:
    upload = storage.backend.upload("below/set.tgz", metadata=METADATA)
    upload.write(content(parts * storage.part_size + 1))
    upload.abort()
    upload.abort()
    assert keys(storage.backend) == []
    assert storage.leftovers() == []
    with pytest.raises(StorageError, match="has ended already"):
        upload.write(b"more")
    with pytest.raises(StorageError, match="has ended already"):
        upload.commit()
    put(storage.backend, "below/set.tgz", b"another try")
    assert get(storage.backend, "below/set.tgz") == b"another try"


def test_abort_after_commit_does_nothing(storage: Storage) -> None:
    data = content(storage.part_size + 1)
    upload = storage.backend.upload("set.tgz", metadata={})
    upload.write(data)
    upload.commit()
    upload.abort()
    assert get(storage.backend, "set.tgz") == data
    with pytest.raises(StorageError, match="has ended already"):
        upload.commit()


@pytest.mark.parametrize("parts", [0, 2])
def test_a_taken_key_is_refused_at_the_latest_when_it_is_published(
    storage: Storage, parts: int
) -> None:
    put(storage.backend, "set.tgz", b"the first")
    with pytest.raises(KeyExistsError, match=r"set\.tgz"):
        put(storage.another(), "set.tgz", content(parts * storage.part_size + 1))
    assert get(storage.backend, "set.tgz") == b"the first"
    assert storage.leftovers() == []


@pytest.mark.parametrize("parts", [0, 2])
def test_a_key_taken_during_the_upload_is_left_as_it_is(storage: Storage, parts: int) -> None:
    data = content(parts * storage.part_size + 1)
    first = storage.backend.upload("set.tgz", metadata={"who": "first"})
    second = storage.another().upload("set.tgz", metadata={"who": "second"})
    first.write(data)
    second.write(b"!" * len(data))
    first.commit()
    with pytest.raises(KeyExistsError, match=r"set\.tgz"):
        second.commit()
    second.abort()
    assert get(storage.backend, "set.tgz") == data
    assert storage.backend.stat("set.tgz").metadata == {"who": "first"}
    assert storage.leftovers() == []


def test_of_many_writers_of_one_key_exactly_one_wins(storage: Storage) -> None:
    if not storage.refuses_racing_writers:
        pytest.skip("this storage ignores If-None-Match, so the last of racing writers wins")
    count = 8
    uploads = [storage.another().upload("set.tgz", metadata={"who": n}) for n in range(count)]
    together = threading.Barrier(count)

    def race(number: int) -> bool:
        uploads[number].write(f"writer {number}".encode())
        together.wait(60)
        try:
            uploads[number].commit()
        except KeyExistsError:
            return False
        finally:
            uploads[number].abort()
        return True

    with ThreadPoolExecutor(count) as pool:
        winners = [number for number, won in enumerate(pool.map(race, range(count))) if won]
    assert len(winners) == 1
    assert get(storage.backend, "set.tgz") == f"writer {winners[0]}".encode()
    assert storage.backend.stat("set.tgz").metadata == {"who": winners[0]}
    assert storage.leftovers() == []


@pytest.mark.parametrize("parts", [0, 1])
def test_an_upload_with_replace_replaces_the_object(storage: Storage, parts: int) -> None:
    data = content(parts * storage.part_size + 7)
    put(storage.backend, "state", b"old and much longer than the new one")
    upload = storage.backend.upload("state", metadata={"version": 2}, replace=True)
    upload.write(data)
    assert get(storage.backend, "state").startswith(b"old")
    upload.commit()
    assert get(storage.backend, "state") == data
    assert storage.backend.stat("state").metadata == {"version": 2}
    assert keys(storage.backend) == ["state"]


def test_a_download_returns_the_requested_range(storage: Storage) -> None:
    size = 2 * storage.part_size + 10
    data = content(size)
    put(storage.backend, "set.tgz", data)
    part = storage.part_size
    ranges: list[tuple[int, int | None]] = [
        (0, None),
        (0, 0),
        (0, 1),
        (0, part),
        (part - 1, part + 1),
        (part, None),
        (5, size - 5),
        (size - 1, None),
        (size - 1, size + 100),
        (size, None),
        (size + 5, None),
        (7, 3),
    ]
    for start, end in ranges:
        assert get(storage.backend, "set.tgz", start=start, end=end) == data[start:end], (
            start,
            end,
        )
    with pytest.raises(UsageError, match="-1"):
        storage.backend.download("set.tgz", start=-1)


def test_small_reads_return_the_whole_object(storage: Storage) -> None:
    data = content(storage.part_size + 1000)
    put(storage.backend, "set.tgz", data)
    pieces = []
    with opened(storage.backend, "set.tgz") as source:
        while piece := source.read(99_991):
            pieces.append(piece)
        assert source.read(1) == b""
    assert b"".join(pieces) == data


def test_a_download_closed_in_the_middle_leaves_no_thread(storage: Storage) -> None:
    put(storage.backend, "set.tgz", content(3 * storage.part_size))
    before = {thread for thread in threading.enumerate() if "bakthat" in thread.name}
    source = opened(storage.backend, "set.tgz")
    assert len(source.read(10)) == 10
    source.close()
    source.close()
    after = {thread for thread in threading.enumerate() if "bakthat" in thread.name}
    assert after == before == set()
    with pytest.raises(ValueError, match="closed"):
        source.read(1)


def test_a_missing_key_is_named(storage: Storage) -> None:
    with pytest.raises(NotFoundError, match=r"no\.such\.tgz"):
        storage.backend.download("no.such.tgz")
    with pytest.raises(NotFoundError, match=r"no\.such\.tgz"):
        storage.backend.download("no.such.tgz", start=3, end=3)
    with pytest.raises(NotFoundError, match=r"below/no\.such\.tgz"):
        storage.backend.stat("below/no.such.tgz")


def test_a_deleted_object_is_gone_and_deleting_it_again_is_no_error(storage: Storage) -> None:
    put(storage.backend, "one.tgz", b"1")
    put(storage.backend, "two.tgz", b"2")
    storage.backend.delete("one.tgz")
    storage.backend.delete("one.tgz")
    storage.backend.delete("never/was.tgz")
    assert keys(storage.backend) == ["two.tgz"]
    assert storage.leftovers() == []
    put(storage.backend, "one.tgz", b"again")
    assert get(storage.backend, "one.tgz") == b"again"


def test_a_listing_goes_over_all_pages(storage: Storage) -> None:
    names = [f"set.{number:03}.tgz" for number in range(23)]
    for name in names:
        put(storage.backend, name, b"x")
    assert keys(storage.backend) == names
    assert keys(storage.backend, "set.01") == names[10:20]


ODD_KEYS = [
    "100%/a.tgz",
    "100x/a.tgz",
    "a_b.tgz",
    "axb.tgz",
    "with space.tgz",
    "with+plus.tgz",
    "naïve/日本語.tgz",
    "quo'te\".tgz",
    "am&per<sand>.tgz",
    "hash#query?.tgz",
    "percent%20.tgz",
    "~tilde.tgz",
    "smile😀.tgz",
]


def test_odd_characters_in_keys_stand_for_themselves(storage: Storage) -> None:
    for key in ODD_KEYS:
        put(storage.backend, key, key.encode())
    assert keys(storage.backend) == sorted(ODD_KEYS)
    for key in ODD_KEYS:
        assert get(storage.backend, key) == key.encode()
        assert storage.backend.stat(key).key == key
        prefix = key[:-5]
        expected = sorted(other for other in ODD_KEYS if other.startswith(prefix))
        assert keys(storage.backend, prefix) == expected
    for key in ODD_KEYS:
        storage.backend.delete(key)
    assert keys(storage.backend) == []


def test_a_prefix_need_not_end_at_a_slash(storage: Storage) -> None:
    for key in ("host/my.tgz", "host/mysql.tgz", "hosts/my.tgz"):
        put(storage.backend, key, b"x")
    assert keys(storage.backend, "host/my") == ["host/my.tgz", "host/mysql.tgz"]
    assert keys(storage.backend, "host") == ["host/my.tgz", "host/mysql.tgz", "hosts/my.tgz"]
    assert keys(storage.backend, "host/my.tgz") == ["host/my.tgz"]
    assert keys(storage.backend, "nothing") == []


def test_a_self_description_round_trips(storage: Storage) -> None:
    metadata = {
        "set": "Ünïcödé 日本語 😀",
        "tags": ["two  spaces", "tab\tand\nline", 'quote"back\\slash', "\x7f", ""],
        "size": 2**60,
        "nothing": None,
        "nested": {"a": [1, 2.5, True]},
    }
    upload = storage.backend.upload("set.tgz", metadata=metadata)
    upload.write(b"x")
    committed = upload.commit()
    assert committed.metadata == metadata
    assert storage.backend.stat("set.tgz") == committed
    put(storage.backend, "large.tgz", content(storage.part_size + 1))
    assert storage.backend.stat("large.tgz").metadata == METADATA


def test_a_self_description_that_does_not_fit_is_refused_before_anything_is_sent(
    storage: Storage,
) -> None:
    with pytest.raises(StorageError, match="bytes") as caught:
        storage.backend.upload("set.tgz", metadata={"tags": "x" * 100_000})
    assert caught.value.hint
    with pytest.raises(UsageError, match="JSON"):
        storage.backend.upload("set.tgz", metadata={"tags": {1, 2}})
    assert keys(storage.backend) == []
    assert storage.leftovers() == []


def test_a_listing_has_size_and_time(storage: Storage) -> None:
    put(storage.backend, "set.tgz", b"12345")
    (found,) = storage.backend.ls()
    described = storage.backend.stat("set.tgz")
    assert (found.size, described.size) == (5, 5)
    assert found.last_modified is not None
    assert described.last_modified is not None
    # HTTP's dates have no fraction.
    assert abs(found.last_modified - described.last_modified) < 1


def test_creating_the_container_twice_is_no_error(storage: Storage) -> None:
    put(storage.backend, "set.tgz", b"x")
    storage.another().create_container()
    assert keys(storage.backend) == ["set.tgz"]


def test_a_missing_container_is_named_and_not_created(storage: Storage) -> None:
    backend = storage.without_container()
    uploads: list[Callable[[], object]] = [
        lambda: put(backend, "set.tgz", b"x"),
        lambda: put(backend, "set.tgz", b"x", replace=True),
    ]
    for operation in (
        *(() if storage.uploads_make_containers else uploads),
        lambda: get(backend, "set.tgz"),
        lambda: get(backend, "set.tgz", start=1, end=1),
        lambda: backend.stat("set.tgz"),
        lambda: list(backend.ls()),
        lambda: backend.delete("set.tgz"),
        lambda: backend.delete_many(["set.tgz", "other.tgz"]),
        # Once more, since nothing above may have created it.
        lambda: list(backend.ls()),
    ):
        with pytest.raises(ContainerNotFoundError) as caught:
            operation()
        assert backend.container in str(caught.value)
        assert caught.value.hint


def test_a_large_upload_into_a_missing_container_names_it(storage: Storage) -> None:
    if storage.uploads_make_containers:
        pytest.skip("the storage makes the container")
    with pytest.raises(ContainerNotFoundError):
        put(storage.without_container(), "set.tgz", content(2 * storage.part_size))


def test_many_keys_are_removed_at_once_and_no_others(storage: Storage) -> None:
    kept = ["my", "mysql.1", "below/my.1 ", "my.10"]
    gone = ["my.1", "my.2", "below/my.1", "my .1", "m&y<'\">.1", "ünï.1", "my%2E1"]
    for key in (*kept, *gone):
        put(storage.backend, key, b"x")
    assert storage.another().delete_many(gone) == {}
    assert keys(storage.backend) == sorted(kept)
    assert storage.leftovers() == []
    for key in gone:
        with pytest.raises(NotFoundError):
            storage.backend.stat(key)


def test_removing_missing_keys_or_none_is_no_error(storage: Storage) -> None:
    put(storage.backend, "my.1", b"x")
    assert storage.backend.delete_many([]) == {}
    assert storage.backend.delete_many(["my.1", "never.there", "nor/here/either"]) == {}
    assert storage.backend.delete_many(["my.1"]) == {}
    assert keys(storage.backend) == []


def test_more_keys_are_removed_than_fit_into_one_request(
    storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(type(storage.backend), "batch_size", 3)
    names = [f"my.{n}" for n in range(10)]
    for key in names:
        put(storage.backend, key, b"x")
    assert storage.backend.delete_many(names[1:]) == {}
    assert keys(storage.backend) == names[:1]


def test_a_key_that_cannot_be_removed_stops_no_other(storage: Storage) -> None:
    for key in ("my.1", "my.2"):
        put(storage.backend, key, b"x")
    failures = storage.backend.delete_many(["my.1", "a//b", "nul\0", "my.2"])
    assert list(failures) == ["a//b", "nul\0"]
    assert all("cannot be a key" in str(failure) for failure in failures.values())
    assert keys(storage.backend) == []


NO_KEYS = ["", "/absolute", "a/../b", "..", ".", "a//b", "trailing/", "./a", "nul\0", "\udc80"]


def test_a_key_that_cannot_be_a_path_is_refused_by_every_method(storage: Storage) -> None:
    backend = storage.backend
    for key in NO_KEYS:
        for refused in (
            lambda key: backend.upload(key, metadata={}),
            backend.download,
            backend.stat,
            backend.delete,
        ):
            with pytest.raises(UsageError, match="cannot be a key"):
                refused(key)


@pytest.mark.slow
def test_memory_does_not_grow_with_the_object(storage: Storage) -> None:
    part = content(storage.part_size)
    count = 20
    tracemalloc.start()
    try:
        upload = storage.backend.upload("set.tgz", metadata={}, size_hint=count * len(part))
        for _ in range(count):
            upload.write(part)
        upload.commit()
        with opened(storage.backend, "set.tgz") as source:
            received = 0
            while piece := source.read(1 << 16):
                received += len(piece)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert received == count * len(part)
    # Five parts sent or queued and one being filled; growing buffers overshoot by an eighth.
    # The proxy of the tests holds each request under way once more.
    assert peak < 13 * storage.part_size + 4 * 1024 * 1024


def test_indexes_are_listed_on_request_only(storage: Storage) -> None:
    archives = ["my.20261126010203.tgz", "host/my.20261126010203.tgz.age", "plain.20261126010203"]
    if storage.backend.name == "glacier":
        pytest.skip("an index of an archive in a vault is in a bucket or beside the catalog")
    others = ["notes.index", "set.index.20261126010203.tgz"]
    for key in (*archives, *others):
        put(storage.backend, key, b"x")
    for key in archives:
        put(storage.backend, f"{key}.index", b"x")
    assert keys(storage.backend) == sorted([*archives, *others])
    listed = [found.key for found in storage.backend.ls(indexes=True)]
    assert sorted(listed) == sorted(f"{key}.index" for key in archives)
    assert [found.key for found in storage.backend.ls("my", indexes=True)] == [
        "my.20261126010203.tgz.index"
    ]
