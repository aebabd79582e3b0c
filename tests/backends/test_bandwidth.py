"""The bandwidth of a profile: every byte of an object is counted, on real servers."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import pytest

from bakthat.backends.aws.limited_body import LimitedBody
from bakthat.backends.aws.session import READ_AHEAD, UPLOAD_WORKERS
from bakthat.backends.glacier.backend import GlacierBackend
from bakthat.backends.s3.backend import S3Backend
from bakthat.system.bandwidth import Bandwidth
from tests.support.fault_proxy import Cut, FaultProxy, refusal
from tests.support.glacier_server import GlacierServer
from tests.support.own_threads import own_threads
from tests.support.profiles import Conf
from tests.support.servers import (
    GLACIER_PART,
    S3_PART,
    TWO_PARTS,
    get,
    glacier_backend,
    parts_under_way,
    put,
    s3_backend,
)

FAST = 10**9
"""Bytes per second that no test waits for."""
SLOW = 10_000


class Counted(Bandwidth):
    """A limit that notes what it is asked for."""

    def __init__(self, rate: int) -> None:
        super().__init__(rate)
        self.counts: list[int] = []
        self.asked = threading.Event()

    def wait(self, count: int, cancelled: threading.Event | None = None) -> None:
        self.counts.append(count)
        self.asked.set()
        super().wait(count, cancelled)


def counted(backend: S3Backend | GlacierBackend, rate: int = FAST) -> tuple[Counted, Counted]:
    """Put counters in the place of the limits that the backend has; return them."""
    client = backend._client
    assert isinstance(client.uploads, Bandwidth)
    assert isinstance(client.downloads, Bandwidth)
    client.uploads, client.downloads = uploads, downloads = Counted(rate), Counted(rate)
    return uploads, downloads


@pytest.fixture(autouse=True)
def no_threads_left() -> Iterator[None]:
    yield
    assert own_threads() == []


@pytest.fixture
def limited(proxied_conf: Conf) -> S3Backend:
    return s3_backend({**proxied_conf, "bandwidth": "1GB/s"})


@pytest.mark.slow
def test_every_byte_to_and_from_s3_is_counted_in_small_pieces(limited: S3Backend) -> None:
    uploads, downloads = counted(limited, 800_000_000)
    uploads.piece = downloads.piece = 10_001
    put(limited, "set.tgz", TWO_PARTS)
    more = sum(uploads.counts) - len(TWO_PARTS)
    assert 0 < more < 1000  # the list of the parts, which ends the upload
    assert get(limited, "set.tgz") == TWO_PARTS
    assert sum(downloads.counts) == len(TWO_PARTS)
    assert max(uploads.counts + downloads.counts) <= 10_001


def test_every_byte_to_and_from_a_vault_is_counted(glacier: GlacierServer) -> None:
    glacier.instant = True
    backend = glacier_backend({**glacier.conf(), "bandwidth": "1GB/s"})
    backend.create_container()
    uploads, downloads = counted(backend)
    data = bytes(range(256)) * (GLACIER_PART // 256) * 3 + b"more"
    upload = backend.upload("set.tgz", metadata={}, size_hint=len(data))
    upload.write(data)
    upload.commit()
    assert sum(uploads.counts) == len(data)
    backend.thaw("set.tgz", tier="standard", days=1)
    assert get(backend, "set.tgz") == data
    assert sum(downloads.counts) == len(data)


@pytest.mark.parametrize("memory", [S3_PART, 1])
def test_a_part_that_is_sent_again_counts_again_and_is_whole(
    limited: S3Backend, moto_proxy: FaultProxy, monkeypatch: pytest.MonkeyPatch, memory: int
) -> None:
    # With one byte of memory, the parts are in files.
    monkeypatch.setattr("bakthat.backends.aws.part_buffer.MEMORY_PART", memory)
    uploads, _ = counted(limited)
    moto_proxy.on("PUT", "partNumber=1", refusal(503, "SlowDown"), times=1)
    put(limited, "set.tgz", TWO_PARTS)
    assert 0 < sum(uploads.counts) - len(TWO_PARTS) - S3_PART < 1000
    assert get(limited, "set.tgz") == TWO_PARTS


@pytest.mark.slow
def test_a_range_that_was_cut_counts_once_for_each_byte(
    limited: S3Backend, moto_proxy: FaultProxy
) -> None:
    put(limited, "set.tgz", TWO_PARTS)
    _, downloads = counted(limited)
    moto_proxy.on("GET", "set.tgz", Cut(100_000), times=1)
    assert get(limited, "set.tgz") == TWO_PARTS
    assert sum(downloads.counts) == len(TWO_PARTS)


def test_an_aborted_upload_does_not_wait_for_its_bandwidth(
    limited: S3Backend, proxied_conf: Conf, moto_proxy: FaultProxy
) -> None:
    uploads, _ = counted(limited, SLOW)
    upload = limited.upload("set.tgz", metadata={})
    upload.write(TWO_PARTS)
    assert uploads.asked.wait(60)
    upload.abort()  # the part would take nine minutes
    assert sum(uploads.counts) < S3_PART / 2
    assert moto_proxy.seen("PUT", "partNumber=") <= 1
    assert parts_under_way(proxied_conf) == []


def test_a_closed_download_does_not_wait_for_its_bandwidth(limited: S3Backend) -> None:
    put(limited, "set.tgz", TWO_PARTS)
    _, downloads = counted(limited, SLOW)
    source = limited.download("set.tgz")
    assert downloads.asked.wait(60)
    source.close()
    assert sum(downloads.counts) < S3_PART / 2


@pytest.mark.slow
@pytest.mark.parametrize("end", [b"", b"to a second part"])
def test_a_transfer_may_take_longer_than_the_timeout(proxied_conf: Conf, end: bytes) -> None:
    backend = s3_backend(
        {**proxied_conf, "bandwidth": "2MB/s"}, read_timeout=1, connect_timeout=1, max_attempts=1
    )
    data = bytes(S3_PART) + end  # 2.6 seconds in each direction
    put(backend, "set.tgz", data)
    assert get(backend, "set.tgz") == data


def test_without_a_limit_bodies_are_sent_as_they_are(proxied_conf: Conf) -> None:
    bodies: dict[bool, list[type]] = {}
    for is_limited in (False, True):
        more = {"bandwidth": "1GB/s"} if is_limited else {}
        backend = s3_backend({**proxied_conf, **more})
        assert isinstance(backend._client.uploads, Bandwidth) is is_limited
        assert isinstance(backend._client.downloads, Bandwidth) is is_limited
        found: list[type] = bodies.setdefault(is_limited, [])

        def look(request: Any, found: list[type] = found, **_: Any) -> None:
            if request.method == "PUT":
                found.append(type(request.body))

        backend._client._client().meta.events.register_last("before-send.s3", look)
        put(backend, f"{is_limited}.tgz", b"data")
    assert bodies == {False: [bytearray], True: [LimitedBody]}


@pytest.mark.parametrize(
    ("bandwidth", "connections"),
    [("10kB/s", 1), ("1MiB/s", 1), ("5MiB/s", 2), ("6MiB/s", 3), ("1GB/s", 9), (None, 9)],
)
def test_a_low_limit_is_shared_by_few_connections(bandwidth: str | None, connections: int) -> None:
    """So that a part ends soon, and the next one makes progress."""
    conf = {"s3_bucket": "bucket", "glacier_vault": "vault", "bandwidth": bandwidth}
    backends: list[type[S3Backend | GlacierBackend]] = [S3Backend, GlacierBackend]
    for backend in backends:
        made = backend.settings_of(conf)
        assert made.upload_workers == min(UPLOAD_WORKERS, connections)
        assert made.read_ahead == min(READ_AHEAD, connections)
