"""Entries are listed as GNU tar lists them."""

from __future__ import annotations

import io
import subprocess
import tarfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from bakthat.archive.index.scan import TarScan
from bakthat.cli.commands.tar_listing import TarListing
from tests.support.archives import store
from tests.support.tar_bytes import END, member, pax
from tests.support.trees import make_every_kind

pytestmark = pytest.mark.needs("GNU tar")


@pytest.fixture(params=["UTC", "Europe/Berlin", "America/St_Johns", "Asia/Kathmandu"])
def time_zone(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with monkeypatch.context() as patch:
        patch.setenv("TZ", request.param)
        time.tzset()
        yield
    time.tzset()


def of_tar(archive: bytes) -> list[bytes]:
    done = subprocess.run(
        ["tar", "-t", "-v", "--quoting-style=literal", "-f", "-"],
        input=archive,
        capture_output=True,
        check=True,
    )
    return done.stdout.split(b"\n")


def own(archive: bytes) -> list[bytes]:
    entries = list(TarScan(io.BytesIO(archive)))
    listing = TarListing()
    lines = listing.lines(entries[:3]) + listing.lines(entries[3:])
    return "\n".join([*lines, ""]).encode("utf-8", "surrogateescape").split(b"\n")


def test_every_kind_of_entry(tmp_path: Path, time_zone: None) -> None:
    archive, _ = store(make_every_kind(tmp_path / "tree"))
    assert own(archive) == of_tar(archive)


@pytest.mark.parametrize("format_", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_what_only_root_can_make(format_: int, time_zone: None) -> None:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=format_) as archive:
        for kind in (tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE):
            for mode in (0, 0o7777, 0o1600, 0o4640, 0o2070):
                info = tarfile.TarInfo(f"node {mode:o}")
                info.type, info.mode, info.mtime = kind, mode, 1234567890
                info.devmajor, info.devminor = 226, 128
                archive.addfile(info)
        owners = ["", "root", "a-user-of-a-long-name", "ü" * 8, "\udcff" * 12, "www-data"]
        for number, owner in enumerate(owners):
            info = tarfile.TarInfo(f"file of {number}")
            info.uname, info.gname, info.uid, info.gid = owner, owner[::-1], 1000, 2097151
            archive.addfile(info)
    assert own(stream.getvalue()) == of_tar(stream.getvalue())


def test_moments_before_1970_and_after_9999(time_zone: None) -> None:
    times = ["-1.5", "-0.5", "0", "-86400", "-86399.999", "253402300799", "253402300800"]
    times += ["99999999999999", "-99999999999999", "1000000000.999999999", "9223372036854775807"]
    archive = b"".join(
        pax([(b"mtime", moment.encode())]) + member(f"file of {moment}".encode())
        for moment in [*times, "5"]
    )
    assert own(archive + END) == of_tar(archive + END)


def test_a_wide_line_makes_the_next_ones_wide() -> None:
    archive = b"".join(
        pax([(b"size", b"0"), (b"uname", name)]) + member(b"x")
        for name in (b"a", b"b" * 40, b"c" * 20, b"")
    )
    assert own(archive + END) == of_tar(archive + END)
