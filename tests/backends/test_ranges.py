"""Parts of stored objects, on every storage."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from bakthat.backends.glacier.backend import GlacierBackend
from bakthat.backends.ranges import EndsAtOnce, ObjectRanges
from bakthat.errors import NotFoundError, StorageError
from tests.support.fault_proxy import Cut, FaultProxy, Stall
from tests.support.profiles import Conf
from tests.support.ranges import Bytes
from tests.support.servers import STORAGES, TWO_PARTS, Storage, put, s3_backend

CONTENT = bytes(range(256)) * 1000


@pytest.fixture(params=STORAGES)
def storage(request: pytest.FixtureRequest) -> Storage:
    made = STORAGES[request.param](request)
    put(made.backend, "set.tgz", CONTENT)
    if isinstance(made.backend, GlacierBackend):
        made.backend.thaw("set.tgz", tier="standard", days=1)
    return made


def test_any_part_of_an_object_is_read(storage: Storage) -> None:
    ranges = ObjectRanges(storage.backend, "set.tgz", len(CONTENT))
    assert ranges.read_at(0, 0) == b""
    for start, end in ((0, 1), (0, len(CONTENT)), (255, 70_000), (len(CONTENT) - 1, len(CONTENT))):
        assert ranges.read_at(start, end - start) == CONTENT[start:end]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda at: ranges.read_at(at, 100), range(0, 40_000, 1000)))
    assert found == [CONTENT[at : at + 100] for at in range(0, 40_000, 1000)]


def test_a_part_outside_is_refused(storage: Storage) -> None:
    ranges = ObjectRanges(storage.backend, "set.tgz", len(CONTENT))
    for offset, size in ((-1, 1), (0, len(CONTENT) + 1), (len(CONTENT), 1), (5, -1)):
        with pytest.raises(ValueError, match="are not in"):
            ranges.read_at(offset, size)


def test_an_object_that_is_shorter_or_missing_is_an_error(storage: Storage) -> None:
    longer = ObjectRanges(storage.backend, "set.tgz", len(CONTENT) + 100)
    with pytest.raises(StorageError, match="fewer than"):
        longer.read_at(len(CONTENT) - 5, 10)
    with pytest.raises(NotFoundError):
        ObjectRanges(storage.backend, "missing.tgz", 100).read_at(0, 10)


def test_nothing_is_read_after_a_cancel(storage: Storage) -> None:
    ranges = ObjectRanges(storage.backend, "set.tgz", len(CONTENT))
    ranges.cancel()
    with pytest.raises(StorageError, match=r"the download of 'set\.tgz' was closed"):
        ranges.read_at(0, 10)


def test_each_end_of_an_object_is_read_once() -> None:
    source = Bytes(CONTENT)
    ranges = EndsAtOnce(source, head=1000, tail=2000)
    size = len(CONTENT)
    assert ranges.size == size
    for start, end in (
        (0, 10),
        (990, 1000),
        (0, 1000),
        (990, 1010),
        (size - 2000, size - 1999),
        (size - 1, size),
        (size - 2001, size),
        (5, 5),
    ):
        assert ranges.read_at(start, end - start) == CONTENT[start:end]
    assert sorted(source.calls) == [
        (0, 1000),
        (5, 0),
        (990, 20),
        (size - 2001, 2001),
        (size - 2000, 2000),
    ]


@pytest.mark.parametrize(("head", "tail"), [(10, 10**6), (10**6, 10), (10**6, 10**6)])
def test_ends_that_overlap_are_those_of_the_object(head: int, tail: int) -> None:
    ranges = EndsAtOnce(Bytes(CONTENT), head=head, tail=tail)
    assert ranges.read_at(0, len(CONTENT)) == CONTENT
    assert ranges.read_at(5, 5) == CONTENT[5:10]
    assert ranges.read_at(len(CONTENT) - 5, 5) == CONTENT[-5:]


def test_a_request_that_is_not_answered_can_be_cancelled(
    moto_proxy: FaultProxy, proxied_conf: Conf
) -> None:
    backend = s3_backend(proxied_conf)
    backend.create_container()
    put(backend, "set.tgz", TWO_PARTS)
    stall = Stall()
    moto_proxy.on("GET", "set.tgz", Cut(after=100_000), times=1)
    moto_proxy.on("GET", "set.tgz", stall)
    ranges = ObjectRanges(backend, "set.tgz", len(TWO_PARTS))
    with ThreadPoolExecutor(1) as pool:
        reading = pool.submit(ranges.read_at, 0, 300_000)
        assert stall.reached.wait(60)
        ranges.cancel()
        moto_proxy.ended.set()
        with pytest.raises(StorageError):
            reading.result(60)
    assert moto_proxy.seen("GET", "set.tgz") == 2  # it was not asked for again
    with pytest.raises(StorageError, match="closed"):
        ranges.read_at(0, 10)
