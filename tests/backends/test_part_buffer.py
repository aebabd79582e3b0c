"""The bytes of one part: in memory, or in an unnamed file when it is large."""

from __future__ import annotations

import logging
import os
import resource
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from bakthat.backends.aws.part_buffer import PIECE, PartBuffer
from bakthat.backends.s3.backend import S3Backend
from bakthat.errors import ResourceError, StorageError
from tests.support.fault_proxy import Answer, FaultProxy, LoseAnswer, Reset, refusal
from tests.support.profiles import Conf
from tests.support.servers import S3_PART, TWO_PARTS, get, parts_under_way, put, s3_backend

SIZE = 2 * PIECE + 17
DATA = bytes(range(256)) * (SIZE // 256 + 1)


@pytest.fixture
def small_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bakthat.backends.aws.part_buffer.MEMORY_PART", PIECE)


@contextmanager
def largest_file(size: int) -> Iterator[None]:
    """Let this process write files of up to *size* bytes, as on a disk that is full."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def fill(buffer: PartBuffer, size: int, *, step: int = 100_000) -> bytes:
    """Write *size* bytes, *step* at a time; return them."""
    for start in range(0, size, step):
        buffer.write(memoryview(DATA)[start : min(start + step, size)])
    return DATA[:size]


def content(buffer: PartBuffer) -> bytes:
    """Return what a request would send, and check that the checksums are of the same bytes."""
    pieces = [bytes(piece) for piece in buffer.pieces()]
    assert all(len(piece) == PIECE for piece in pieces[:-1])
    body = buffer.body()
    sent = bytes(body) if isinstance(body, bytearray) else body.read()
    assert b"".join(pieces) == sent
    return sent


@pytest.mark.parametrize("size", [0, 1, PIECE - 1, PIECE, PIECE + 1, SIZE - 1, SIZE])
def test_a_part_is_what_was_written(small_memory: None, size: int) -> None:
    buffer = PartBuffer(SIZE)
    written = fill(buffer, size)
    assert content(buffer) == written
    assert isinstance(buffer.body(), bytearray) is (size <= PIECE)
    buffer.close()


@pytest.mark.parametrize("size", [PIECE, SIZE], ids=["memory", "file"])
def test_a_full_buffer_is_used_again(small_memory: None, size: int) -> None:
    buffer = PartBuffer(size)
    fill(buffer, size)
    first = buffer.body()
    assert buffer.empty()
    fill(buffer, size, step=333_333)
    assert content(buffer) == DATA[:size]
    assert buffer.body() is first
    buffer.close()


def test_a_buffer_that_was_shortened_is_not_used_again() -> None:
    buffer = PartBuffer(SIZE)
    fill(buffer, SIZE - 1)
    buffer.body()
    assert not buffer.empty()


def test_a_part_stays_in_memory_where_there_is_no_directory_for_its_file(
    small_memory: None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "missing"))
    buffer = PartBuffer(SIZE)
    written = fill(buffer, SIZE)
    assert isinstance(buffer.body(), bytearray)
    assert content(buffer) == written
    assert caplog.record_tuples == [
        (
            "bakthat.backends.aws.part_buffer",
            logging.WARNING,
            "no temporary file for a part of 2 MiB, which takes memory instead: "
            "no such file or directory; TMPDIR names another directory",
        )
    ]


@pytest.mark.skipif(not hasattr(os, "posix_fallocate"), reason="this system cannot reserve room")
def test_a_part_stays_in_memory_where_its_file_has_no_room(
    small_memory: None, caplog: pytest.LogCaptureFixture
) -> None:
    buffer = PartBuffer(SIZE)
    with largest_file(SIZE - 1):
        written = fill(buffer, SIZE)
    assert isinstance(buffer.body(), bytearray)
    assert content(buffer) == written
    assert "takes memory instead: file too large" in caplog.text


def test_a_file_that_cannot_be_written_any_longer_is_an_error_with_a_hint(
    small_memory: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(os, "posix_fallocate", raising=False)  # as on macOS
    buffer = PartBuffer(SIZE)
    words = "file for a part of 2 MiB: file too large"
    with largest_file(PIECE + 1), pytest.raises(ResourceError, match=words) as caught:
        fill(buffer, SIZE)
    assert "TMPDIR" in caught.value.hint
    buffer.close()


# Requests


@pytest.fixture
def backend(small_memory: None, proxied_conf: Conf) -> S3Backend:
    return s3_backend(proxied_conf)


@pytest.mark.parametrize(
    "fault",
    [Reset(), LoseAnswer(), Answer(503), refusal(400, "RequestTimeout")],
    ids=["reset", "lost answer", "busy", "idle for too long"],
)
@pytest.mark.parametrize("data", [TWO_PARTS[: 2 * PIECE], TWO_PARTS], ids=["one request", "parts"])
@pytest.mark.slow
def test_a_request_from_a_file_is_repeated_whole(
    backend: S3Backend, moto_proxy: FaultProxy, data: bytes, fault: Reset | LoseAnswer | Answer
) -> None:
    moto_proxy.on("PUT", "set.tgz", fault, times=1)
    put(backend, "set.tgz", data)
    assert get(backend, "set.tgz") == data
    assert moto_proxy.seen("PUT", "set.tgz") == (3 if len(data) > S3_PART else 2)


@pytest.mark.parametrize("data", [TWO_PARTS[: 2 * PIECE], TWO_PARTS], ids=["one request", "parts"])
@pytest.mark.slow
def test_a_request_from_a_file_is_repeated_without_a_refused_header(
    backend: S3Backend, moto_proxy: FaultProxy, data: bytes
) -> None:
    moto_proxy.on("PUT", "tgz", refusal(501, "NotImplemented"), header="x-amz-checksum-crc32")
    put(backend, "set.tgz", data)
    assert get(backend, "set.tgz") == data


@pytest.mark.slow
def test_a_storage_that_wants_an_md5_gets_that_of_a_file(
    backend: S3Backend, moto_proxy: FaultProxy
) -> None:
    answer = refusal(400, "InvalidRequest", "Content-MD5 HTTP header is required")
    moto_proxy.on("PUT", "set.tgz", answer, without="content-md5")
    put(backend, "set.tgz", TWO_PARTS)
    assert get(backend, "set.tgz") == TWO_PARTS


@pytest.mark.slow
def test_a_storage_that_wants_an_md5_of_a_request_without_a_body_fails_it(
    backend: S3Backend, moto_proxy: FaultProxy
) -> None:
    answer = refusal(400, "InvalidRequest", "Content-MD5 HTTP header is required")
    moto_proxy.on("POST", "uploads", answer)
    upload = backend.upload("set.tgz", metadata={})
    with pytest.raises(StorageError, match="Content-MD5"):
        upload.write(TWO_PARTS)
    upload.abort()


@pytest.mark.slow
def test_a_file_that_cannot_be_written_fails_the_upload_and_leaves_nothing(
    backend: S3Backend, proxied_conf: Conf, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(os, "posix_fallocate", raising=False)  # as on macOS
    upload = backend.upload("set.tgz", metadata={})
    upload.write(TWO_PARTS)
    with largest_file(2 * PIECE):
        with pytest.raises(ResourceError, match="temporary file"):
            upload.write(TWO_PARTS)
        with pytest.raises(ResourceError, match="temporary file"):
            upload.commit()
    upload.abort()
    assert list(backend.ls()) == []
    assert parts_under_way(proxied_conf) == []


# Memory

STREAM = """
import sys
from tests.support.servers import s3_backend
endpoint_url, access_key, secret_key, bucket, part_size, mebibytes = sys.argv[1:]
conf = {"endpoint_url": endpoint_url, "access_key": access_key, "secret_key": secret_key,
        "s3_bucket": bucket}
backend = s3_backend(conf, part_size=int(part_size) or None)
upload = backend.upload("stream", metadata={})
piece = bytes(range(256)) * 4096
for number in range(int(mebibytes)):
    upload.write(piece)
print(upload.commit().size)
"""


@pytest.mark.heavy
@pytest.mark.parametrize(
    ("part_size", "mebibytes", "limit"),
    [(0, 1024, 160), (200 * PIECE, 1000, 220)],
    ids=["nothing is known of 1 GiB", "parts of 200 MiB"],
)
def test_a_stream_takes_little_memory_whatever_the_size_of_its_parts(
    rclone_conf: Conf, tmp_path: Path, part_size: int, mebibytes: int, limit: int
) -> None:
    s3_backend(rclone_conf).create_container()
    names = ("endpoint_url", "access_key", "secret_key", "s3_bucket")
    launcher = Path(__file__).parents[1] / "support" / "peak_memory.py"
    report = tmp_path / "peak"
    done = subprocess.run(
        [sys.executable, str(launcher), str(report), sys.executable, "-c", STREAM]
        + [str(rclone_conf[name]) for name in names]
        + [str(part_size), str(mebibytes)],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.stdout, done.stderr) == (f"{mebibytes * PIECE}\n", "")
    assert int(report.read_text()) < limit * PIECE
