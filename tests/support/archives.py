"""Helpers of the tests of the tar writer: a sink, a tree, and ways to read an archive back."""

from __future__ import annotations

import io
import os
import subprocess
import tarfile
from collections.abc import Callable
from pathlib import Path

from bakthat.archive.create.walk import WalkOptions
from bakthat.archive.create.writer import write_tree
from bakthat.archive.report import ArchiveReport
from bakthat.system.streams import Buffer

MIB = 1024 * 1024


class Collector:
    """A sink that keeps a copy, and may fail at its n-th write."""

    def __init__(self, fail_at: int | None = None, error: Exception | None = None) -> None:
        self.parts: list[bytes] = []
        self.fail_at = fail_at
        self.error = error

    def write(self, data: Buffer, /) -> None:
        if self.error is not None and self.fail_at == len(self.parts):
            raise self.error
        self.parts.append(bytes(data))

    @property
    def data(self) -> bytes:
        return b"".join(self.parts)


def store(
    root: Path,
    options: WalkOptions | None = None,
    on_bytes: Callable[[int], None] | None = None,
) -> tuple[bytes, ArchiveReport]:
    sink = Collector()
    report = ArchiveReport()
    write_tree(root, "set", sink, options or WalkOptions(), report=report, on_bytes=on_bytes)
    assert len(sink.data) % 10_240 == 0
    assert sink.data.endswith(bytes(1024))
    return sink.data, report


def members(data: bytes) -> dict[str, tarfile.TarInfo]:
    with tarfile.open(fileobj=io.BytesIO(data), mode="r:") as tar:
        return {member.name: member for member in tar}


def unrestorable(path: Path) -> None:
    """Write a ``.tgz`` of ``mydir/a.txt`` with an attribute that no file system accepts."""
    with tarfile.open(path, "w:gz", format=tarfile.PAX_FORMAT) as tar:
        directory = tarfile.TarInfo("mydir")
        directory.type, directory.mode = tarfile.DIRTYPE, 0o755
        tar.addfile(directory)
        file = tarfile.TarInfo("mydir/a.txt")
        file.size, file.pax_headers = 5, {"SCHILY.xattr.nonsense.name": "x"}
        tar.addfile(file, io.BytesIO(b"hello"))


def extract_all(tar: tarfile.TarFile, destination: Path) -> None:
    """Extract everything as it is, also with Python before 3.11.4, which knows no filters."""
    if hasattr(tarfile, "fully_trusted_filter"):
        tar.extraction_filter = tarfile.fully_trusted_filter
    tar.extractall(destination)


def content(data: bytes, name: str) -> bytes:
    with tarfile.open(fileobj=io.BytesIO(data), mode="r:") as tar:
        file = tar.extractfile(name)
        assert file is not None
        return file.read()


def gnu_tar(data: bytes, *arguments: str | Path) -> None:
    done = subprocess.run(["tar", *arguments, "-f", "-"], input=data, capture_output=True)
    assert (done.returncode, done.stderr, done.stdout) == (0, b"", b"")


def extract(data: bytes, target: Path, *options: str) -> Path:
    target.mkdir()
    gnu_tar(data, "-x", "-p", "--warning=no-timestamp", "-C", target, *options)
    return target / "set"


def grow(root: Path) -> Path:
    """Make a tree with one of each kind of entry that any user may make."""
    (root / "d/e").mkdir(parents=True)
    (root / "empty").mkdir(mode=0o1711)
    (root / "empty file").touch()
    (root / "d/small").write_bytes(b"small")
    (root / "d/large").write_bytes(os.urandom(3 * MIB + 77))
    (root / "d/tool").write_bytes(b"#!/bin/sh\n")
    (root / "d/tool").chmod(0o4755)
    (root / "d/e" / os.fsdecode(b"caf\xe9\xff")).write_bytes(b"latin")
    (root / "d/e/é \n\t'\\").write_bytes(b"odd")
    (root / "d/link").symlink_to("../empty file")
    (root / "d/dangling").symlink_to(os.fsdecode(b"no\xffwhere" * 30))
    os.link(root / "d/small", root / "d/same")
    os.link(root / "d/small", root / "z")
    os.mkfifo(root / "fifo", 0o640)
    long = root / ("n" * 200) / ("m" * 200)
    long.mkdir(parents=True)
    (long / ("o" * 255)).write_bytes(b"long")
    os.utime(root / "d/small", ns=(1, -2_000_000_000))
    os.utime(root / "d/tool", ns=(1, 1_700_000_000_123_456_789))
    return root
