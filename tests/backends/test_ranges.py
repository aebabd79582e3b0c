"""Parts of stored objects, on every storage."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from bakthat.backends.glacier.backend import GlacierBackend
from bakthat.backends.ranges import ObjectRanges
from bakthat.errors import NotFoundError, StorageError
from tests.support.servers import STORAGES, Storage, put

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
