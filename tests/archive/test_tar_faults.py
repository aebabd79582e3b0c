"""The tar writer on files that change, vanish or cannot be read, and on sinks that fail."""

from __future__ import annotations

import errno
import os
import tarfile
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest

from bakthat.archive.create import digest, writer
from bakthat.archive.create.content import PlainFile
from bakthat.archive.create.walk import WalkOptions
from bakthat.archive.create.writer import write_tree
from bakthat.archive.report import ArchiveReport
from bakthat.errors import SourceError, StorageError
from tests.support.archives import MIB, Collector, content, grow, members, store
from tests.support.needs import as_root

pytestmark = pytest.mark.permissions


@pytest.mark.parametrize("size", [10 * MIB, 3 * MIB + 1, 3 * MIB])
def test_a_file_that_shrinks_is_padded_with_zeros(tmp_path: Path, size: int) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"x" * size)
    (tmp_path / "b").write_bytes(b"next")

    def shrink(_count: int) -> None:
        os.truncate(path, 1000)

    data, report = store(tmp_path, on_bytes=shrink)
    stored = content(data, "set/a")
    assert len(stored) == size
    assert stored.lstrip(b"x") == bytes(size - len(stored.rstrip(b"\0")))
    assert content(data, "set/b") == b"next"
    assert len(report.warnings) == 1
    start = len(stored.rstrip(b"\0"))
    assert report.warnings[0] == (
        f"{path}: shrank while it was read; {size - start} bytes from {start} on "
        "are stored as zeros"
    )


def test_a_file_that_grows_is_cut_to_what_was_announced(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"x" * 3 * MIB)

    def lengthen(_count: int) -> None:
        with path.open("ab") as file:
            file.write(b"more")

    data, report = store(tmp_path, on_bytes=lengthen)
    assert content(data, "set/a") == b"x" * 3 * MIB
    assert report.warnings == [
        f"{path}: grew while it was read; its first {3 * MIB} bytes are stored"
    ]


def test_a_file_that_changes_while_it_is_read_is_a_warning(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"x" * 3 * MIB)

    def touch(_count: int) -> None:
        os.utime(path, ns=(0, 0))

    data, report = store(tmp_path, on_bytes=touch)
    assert len(content(data, "set/a")) == 3 * MIB
    assert report.warning_count == 1
    assert "a: changed while it was read" in report.warnings[0]


def opening(monkeypatch: pytest.MonkeyPatch, path: Path, before: Callable[[], object]) -> None:
    """Call *before* just before *path* is opened for reading."""
    real = digest.open_file

    def hooked(found: str) -> int:
        if found == str(path):
            before()
        return real(found)

    monkeypatch.setattr(writer, "open_file", hooked)


def test_a_file_that_vanishes_is_a_warning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a"
    path.touch()
    (tmp_path / "b").touch()
    opening(monkeypatch, path, path.unlink)
    data, report = store(tmp_path)
    assert list(members(data)) == ["set", "set/b"]
    assert report.warnings == [f"{path}: vanished before it was read; it is not stored"]
    assert report.files == 1


@pytest.mark.parametrize("kind", ["fifo", "link", "directory"])
def test_a_file_that_is_swapped_is_neither_waited_for_nor_followed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    root = tmp_path / "set"
    root.mkdir()
    (tmp_path / "secret").write_bytes(b"the secret")
    path = root / "a"
    path.touch()

    def swap() -> None:
        path.unlink()
        if kind == "fifo":
            os.mkfifo(path)
        elif kind == "link":
            path.symlink_to(tmp_path / "secret")
        else:
            path.mkdir()

    opening(monkeypatch, path, swap)
    data, report = store(root)
    assert b"the secret" not in data
    if kind == "directory":  # its contents would be missing
        assert list(members(data)) == ["set"]
        assert report.warning_count == 1
        assert report.warnings[0].startswith(f"{path}: ")
        assert report.warnings[0].endswith("; it is not stored")
    else:
        assert list(members(data)) == ["set", "set/a"]
        stored = members(data)["set/a"]
        assert (stored.isfifo(), stored.issym()) == (kind == "fifo", kind == "link")
        assert not report.warning_count


def test_a_file_that_is_replaced_by_another_is_stored_as_what_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"old")

    def replace() -> None:
        path.unlink()
        path.write_bytes(b"new and longer")

    opening(monkeypatch, path, replace)
    data, report = store(tmp_path)
    assert content(data, "set/a") == b"new and longer"
    assert report.warnings == []


def test_a_symbolic_link_that_vanishes_is_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a").symlink_to("x")
    real = os.readlink

    def readlink(path: str) -> str:
        os.unlink(path)
        return real(path)

    monkeypatch.setattr("bakthat.archive.create.writer.os.readlink", readlink)
    data, report = store(tmp_path)
    assert list(members(data)) == ["set"]
    assert report.warnings == [f"{tmp_path}/a: vanished before it was read; it is not stored"]


def test_a_read_error_half_way_leaves_a_valid_archive(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a").write_bytes(b"x" * 4 * MIB)
    (tmp_path / "b").write_bytes(b"next")
    real = os.preadv

    def preadv(fd: int, buffers: list[memoryview], offset: int) -> int:
        if offset > MIB:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return real(fd, buffers, offset)

    monkeypatch.setattr("bakthat.archive.create.writer.os.preadv", preadv)
    data, report = store(tmp_path)
    stored = content(data, "set/a")
    read = len(stored.rstrip(b"\0"))
    assert MIB < read < 3 * MIB
    assert stored == b"x" * read + bytes(4 * MIB - read)
    assert content(data, "set/b") == b"next"
    assert report.bytes == read + 4
    assert report.warnings == [
        f"{tmp_path}/a: could not be read whole: input/output error; "
        f"{4 * MIB - read} bytes from {read} on are stored as zeros"
    ]


def test_a_file_without_permission_is_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse() -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    (tmp_path / "a").touch()
    (tmp_path / "b").touch()
    os.link(tmp_path / "a", tmp_path / "c")
    opening(monkeypatch, tmp_path / "a", refuse)
    data, report = store(tmp_path)
    # The other link of the file that was not stored is stored as a file, not as a link to it.
    assert {name: member.type for name, member in members(data).items()} == {
        "set": tarfile.DIRTYPE, "set/b": tarfile.REGTYPE, "set/c": tarfile.REGTYPE,
    }  # fmt: skip
    assert report.warnings == [f"{tmp_path}/a: permission denied; it is not stored"]


def test_a_root_file_that_cannot_be_opened_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a").touch()
    opening(monkeypatch, tmp_path / "a", (tmp_path / "a").unlink)
    sink = Collector()
    with pytest.raises(SourceError, match="no such file"):
        write_tree(tmp_path / "a", "set", sink, WalkOptions(), report=ArchiveReport())
    assert sink.parts == []


def test_a_file_that_vanished_before_it_was_opened_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"cannot read '.*/gone': no such file") as caught:
        PlainFile(tmp_path / "gone", "gone")
    assert caught.value.hint


@as_root
def test_an_unprivileged_user_gets_what_it_may_read(tmp_path: Path) -> None:
    # Not in pytest's directories, which are closed to other users.
    with tempfile.TemporaryDirectory() as directory:
        root = Path(directory)
        root.chmod(0o755)
        (root / "mine").write_bytes(b"mine")
        (root / "locked").write_bytes(b"locked")
        (root / "locked").chmod(0)
        (root / "closed").mkdir(mode=0o700)
        (root / "closed/inside").touch()
        os.seteuid(65534)
        try:
            data, report = store(root)
        finally:
            os.seteuid(0)
    assert list(members(data)) == ["set", "set/closed", "set/mine"]
    assert report.warnings == [
        f"{root}/closed: cannot list this directory: permission denied; "
        "its contents are not stored",
        f"{root}/locked: permission denied; it is not stored",
    ]


@pytest.mark.parametrize("error", [StorageError("full"), OSError(errno.EIO, "no storage")])
@pytest.mark.parametrize("fail_at", range(5))
def test_an_error_of_the_sink_is_raised_and_nothing_is_finished(
    tmp_path: Path, fail_at: int, error: Exception
) -> None:
    (tmp_path / "a").write_bytes(b"x" * (3 * MIB + MIB // 2))
    (tmp_path / "b").write_bytes(b"x" * MIB)
    sink = Collector(fail_at, error)
    report = ArchiveReport()
    with pytest.raises(type(error)) as caught:
        write_tree(tmp_path, "set", sink, WalkOptions(), report=report)
    assert caught.value is error
    assert len(sink.parts) == fail_at
    assert report.warnings == []


def test_an_error_of_the_callback_is_raised(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"x")

    def cancel(_count: int) -> None:
        raise OSError(errno.EIO, "cancelled")

    with pytest.raises(OSError, match="cancelled"):
        store(tmp_path, on_bytes=cancel)


def test_nothing_is_left_open(tmp_path: Path) -> None:
    grow(tmp_path / "set")
    before = os.listdir("/proc/self/fd")
    store(tmp_path / "set")
    sink = Collector(2, StorageError("full"))
    with pytest.raises(StorageError):
        write_tree(tmp_path / "set", "set", sink, WalkOptions(), report=ArchiveReport())
    assert os.listdir("/proc/self/fd") == before
