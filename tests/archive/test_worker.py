"""Scanning and making a tree in a process of its own: the same results, and nothing left of it."""

from __future__ import annotations

import contextlib
import gzip
import io
import os
import random
import signal
import stat
import subprocess
import sys
import tarfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bakthat.archive.create import source
from bakthat.archive.create import worker as create_worker
from bakthat.archive.create.walk import Scan, WalkOptions
from bakthat.archive.create.worker import archiving
from bakthat.archive.extract import worker as extract_worker
from bakthat.archive.extract.unpack import extract
from bakthat.archive.extract.worker import TreeProcess, tree_process
from bakthat.archive.gzip.writer import GzipWriter
from bakthat.archive.report import KEPT_WARNINGS, ArchiveReport
from bakthat.archive.worker.process import Forked, may_fork
from bakthat.errors import ArchiveError, BakthatError, DestinationError, SourceError, StorageError
from tests.archive.test_extract_hostile import BROKEN, UNSAFE
from tests.support.archives import Collector, members, store
from tests.support.tar_bytes import (
    END,
    NOBODY,
    Pieces,
    header,
    member,
    pax,
    reachable_directory,
    snapshot,
)
from tests.support.trees import make_every_kind

# The children use none of the threads that pytest may have, and never return.
pytestmark = pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")

ROOT = os.geteuid() == 0
STARTED = time.time_ns()


def children() -> set[int]:
    """The processes that this one started and has not waited for, those that ended included."""
    found = set()
    for entry in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):  # it was waited for meanwhile
            parent = entry.read_text().rpartition(")")[2].split()[1]
            if int(parent) == os.getpid():
                found.add(int(entry.parent.name))
    return found


@pytest.fixture(autouse=True)
def no_child_stays() -> Iterator[None]:
    """Other tests' servers may be children of this process, too, for as long as it runs."""
    before = children()
    yield
    assert not children() - before


@pytest.fixture
def shared() -> Iterator[Path]:
    with reachable_directory(NOBODY if ROOT else 0) as path:
        yield path


def outcome(archive: bytes, destination: Path, process: TreeProcess | None = None) -> Any:
    """What restoring *archive* comes to: everything that is there then, or the error."""
    report = ArchiveReport()
    try:
        extract(Pieces(archive, 100_000), destination, report=report, process=process)
    except BakthatError as exc:
        assert not destination.exists()
        return type(exc), str(exc).replace(destination.name, "out"), exc.hint
    assert not list(destination.glob(".bakthat-restore-*"))
    found = snapshot(destination)
    for name, (mode, mtime_ns, *rest) in list(found.items()):
        # Directories that are no members got the time of the restore.
        found[name] = (
            mode,
            "now" if isinstance(mtime_ns, int) and mtime_ns > STARTED else mtime_ns,
            *rest,
        )
    return found, report


def assert_same(archive: bytes, parent: Path) -> Any:
    expected = outcome(archive, parent / "inline")
    with TreeProcess() as process:
        assert outcome(archive, parent / "beside", process) == expected
    return expected


def test_a_tree_of_every_kind_is_the_same(tmp_path: Path) -> None:
    data, _ = store(make_every_kind(tmp_path / "every kind"))
    _, report = assert_same(data, tmp_path)
    assert report.files > 20
    assert not report.warning_count


@pytest.mark.parametrize("name", UNSAFE)
def test_what_would_lead_out_is_refused_in_the_same_words(name: str, shared: Path) -> None:
    kind, *_ = assert_same(UNSAFE[name](os.fsencode(shared)) + END, shared)
    assert issubclass(kind, BakthatError)
    assert not (shared / "canary").exists()


@pytest.mark.parametrize("name", BROKEN)
def test_what_no_tar_writes_is_refused_in_the_same_words(name: str, shared: Path) -> None:
    kind, *_ = assert_same(BROKEN[name] + END, shared)
    assert issubclass(kind, BakthatError)


_name = st.sampled_from([b"a", b"b", b"a/b", b"a/b/c", b"d/", b"a/", b"./b", b"a//b", b"d/b"])
_content = st.sampled_from([b"", b"x", b"y" * 3000])
_members = st.one_of(
    st.builds(member, _name, _content),
    st.builds(lambda name, mode: header(name, b"5", mode=mode), _name, st.sampled_from([0o755, 0])),
    st.builds(lambda name, to: header(name, b"1", linkname=to), _name, _name),
    st.builds(lambda name, to: header(name, b"2", linkname=to), _name, _name),
    st.builds(lambda name: header(name, b"6"), _name),
)


@settings(max_examples=150, deadline=None)
@given(members=st.lists(_members, max_size=8))
def test_any_order_of_members_comes_to_the_same(members: list[bytes]) -> None:
    with reachable_directory() as parent:
        assert_same(b"".join(members) + END, parent)


def test_large_files_many_empty_ones_and_long_names_come_through(tmp_path: Path) -> None:
    large = os.urandom(1024) * (10 * 1024 + 1)
    names = [b"%d/" % number + b"n" * 200 + b"/" + b"m" * 200 for number in range(40)]
    parts = [member(b"%04d" % number) for number in range(2000)]
    parts += [pax([(b"path", name), (b"SCHILY.xattr.user.long", b"v" * 3000)]) for name in names]
    archive = b"".join(
        [*parts[:2000], *(part + member(b"x", b"1") for part in parts[2000:])]
    ) + member(b"large", large)
    found, report = assert_same(archive + member(b"last", b"2") + END, tmp_path)
    assert found["large"][3] == large
    assert report.files == 2042


def test_every_warning_is_told_and_the_first_are_kept(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    odd = pax([(b"SCHILY.xattr.nowhere.colour", b"blue")])
    parts = [odd + member(b"%04d" % number) for number in range(3000)]
    report = ArchiveReport()
    with TreeProcess() as process:
        source = Pieces(b"".join(parts) + END)
        extract(source, tmp_path / "out", report=report, process=process)
    assert report.warning_count == 3000
    assert "'0000'" in report.warnings[0]
    assert len(caplog.records) == 3000
    assert len(report.warnings) == KEPT_WARNINGS


def test_a_name_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    parts = [member(b"good %d" % number, b"1") for number in range(700)]
    parts[5] = pax([(b"path", b"n" * 300)]) + member(b"x", b"2")
    kind, text, _ = assert_same(b"".join(parts) + END, tmp_path)
    assert kind is DestinationError
    assert "name too long" in text


def test_a_process_that_is_killed_is_an_error_and_leaves_nothing(tmp_path: Path) -> None:
    with TreeProcess() as process:
        archive = member(b"a", b"1") + member(b"b", os.urandom(8 << 20)) + END
        os.kill(process._process._process, signal.SIGKILL)
        with pytest.raises(DestinationError, match="the process that makes the files ended"):
            extract(Pieces(archive), tmp_path / "out", report=ArchiveReport(), process=process)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("failure", [KeyboardInterrupt(), OSError("gone"), MemoryError()])
def test_a_source_that_fails_leaves_nothing(tmp_path: Path, failure: BaseException) -> None:
    archive = b"".join(member(b"%d" % number, b"x" * 9000) for number in range(1000))
    source = Pieces(archive, failure=failure)
    with TreeProcess() as process, pytest.raises(type(failure)):
        extract(source, tmp_path / "out", report=ArchiveReport(), process=process)
    assert not (tmp_path / "out").exists()


def test_a_process_with_nothing_to_make_just_ends() -> None:
    with TreeProcess():
        pass


def test_a_process_pays_for_many_small_files_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(extract_worker, "may_fork", lambda: True)
    assert tree_process(10, 1000) is None
    assert tree_process(1000, 1 << 30) is None
    process = tree_process(1000, 1 << 20)
    assert process is not None
    process.end()


def test_where_there_can_be_no_process_there_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse() -> int:
        raise BlockingIOError("too many processes")

    monkeypatch.setattr(extract_worker, "may_fork", lambda: True)
    monkeypatch.setattr("bakthat.archive.worker.process.os.fork", refuse)
    assert tree_process(1000, 1 << 20) is None


def test_a_process_with_threads_may_not_fork() -> None:
    end = threading.Event()
    thread = threading.Thread(target=end.wait)
    thread.start()
    assert not may_fork()
    end.set()
    thread.join()


@pytest.mark.parametrize("umask", [0, 0o022, 0o027, 0o077])
def test_every_umask_comes_to_the_same_modes(tmp_path: Path, umask: int) -> None:
    modes = (0o644, 0o600, 0o444, 0, 0o666, 0o777, 0o4755, 0o2644, 0o1777)
    parts = [header(b"%o" % mode, mode=mode) for mode in modes]
    parts += [header(b"d%o/" % mode, b"5", mode=mode) for mode in (0o755, 0o700, 0o555, 0o2775)]
    parts += [member(b"implicit/directory/file")]
    before = os.umask(umask)
    try:
        assert_same(b"".join(parts) + END, tmp_path)
    finally:
        os.umask(before)
    for mode in modes:
        assert stat.S_IMODE((tmp_path / "beside" / f"{mode:o}").stat().st_mode) == mode
    implicit = (tmp_path / "beside" / "implicit").stat().st_mode
    assert stat.S_IMODE(implicit) == 0o777 & ~umask


@pytest.mark.parametrize("mode", [0o755, 0o700, 0o600, 0o444])
def test_modes_are_the_same_beside_attributes(tmp_path: Path, mode: int) -> None:
    """Attributes are set on what may be written, and may be ACLs, which hold a mode too."""
    attributes = (
        {b"SCHILY.xattr.user.k": b"v"},
        {b"SCHILY.acl.access": b"user::rwx,user:1234:r-x,group::r-x,mask::r-x,other::---"},
        {b"SCHILY.acl.default": b"user::rwx,group::r-x,other::---"},
    )
    parts = []
    for number, records in enumerate(attributes):
        for kind in (b"0", b"5"):
            if kind == b"0" and b"SCHILY.acl.default" in records:
                continue  # only directories have one
            name = b"%s%d" % (b"file" if kind == b"0" else b"directory", number)
            own = mode | 0o700 if kind == b"5" else mode
            parts.append(pax(list(records.items())) + header(name, kind, mode=own))
            if kind == b"5":
                parts.append(member(name + b"/in it"))
    # And one that comes again, with another mode.
    parts += [header(b"twice", b"5", mode=0o755), member(b"twice/x"), member(b"between")]
    parts += [header(b"twice", b"5", mode=mode | 0o700), member(b"twice/y")]
    assert_same(b"".join(parts) + END, tmp_path)
    found = [(tmp_path / "beside" / name).stat() for name in ("file0", "directory0", "twice")]
    assert [stat.S_IMODE(each.st_mode) for each in found] == [mode, mode | 0o700, mode | 0o700]


# The other way: an archive that is made aside.


@pytest.fixture
def aside(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(create_worker, "may_fork", lambda: True)


def archived(
    root: Path, sink: Any, options: WalkOptions | None = None
) -> tuple[Scan, ArchiveReport, int]:
    report = ArchiveReport()
    told: list[int] = []
    with archiving(root, "set", options or WalkOptions()) as archive:
        counted = archive.counted()
        archive.write(sink, identity="this one", report=report, on_bytes=told.append)
    return counted, report, sum(told)


def assert_archived_alike(root: Path, options: WalkOptions | None = None) -> ArchiveReport:
    here, beside, packed = Collector(), Collector(), Collector()
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(create_worker, "may_fork", lambda: False)
        expected = archived(root, here, options)
        patched.setattr(create_worker, "may_fork", lambda: True)
        assert archived(root, beside, options) == expected
        with GzipWriter(packed, level=1) as writer:
            assert archived(root, writer, options) == expected
    assert beside.data == here.data
    assert gzip.decompress(packed.data) == here.data
    return expected[1]


def test_an_archive_of_every_kind_is_the_same(tmp_path: Path) -> None:
    report = assert_archived_alike(make_every_kind(tmp_path / "every kind"))
    assert report.files > 20


def test_warnings_come_over_in_their_order(tmp_path: Path) -> None:
    for number in range(50):
        os.mknod(tmp_path / f"{number:02}", stat.S_IFSOCK)
    report = assert_archived_alike(tmp_path)
    assert report.warning_count == 50
    assert "/00: is a socket" in report.warnings[0]


@pytest.mark.parametrize("threads", [1, 2, 8, 30])
def test_more_than_the_memory_holds_comes_through(
    tmp_path: Path, aside: None, threads: int
) -> None:
    content = random.Random(1).randbytes(1 << 20)
    for number in range(3):
        (tmp_path / f"{number}").write_bytes(content * 14 + b"x" * number)
    sink = Collector()
    with GzipWriter(sink, level=1, threads=threads) as writer:
        archived(tmp_path, writer)
    with tarfile.open(fileobj=io.BytesIO(gzip.decompress(sink.data))) as tar:
        assert [m.size for m in tar if m.isfile()] == [14 << 20, (14 << 20) + 1, (14 << 20) + 2]


def test_an_archive_whose_process_is_killed_is_an_error(
    tmp_path: Path, aside: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(source, "write_tree", lambda *_, **__: os.kill(os.getpid(), 9))
    with pytest.raises(ArchiveError, match="the process that makes the archive ended"):
        archived(tmp_path, Collector())


def test_one_killed_when_it_had_counted_is_an_error(tmp_path: Path, aside: None) -> None:
    before = children()
    with archiving(tmp_path, "set", WalkOptions()) as archive:
        archive.counted()
        [process] = children() - before
        os.kill(process, signal.SIGKILL)
        with pytest.raises(ArchiveError, match="the process that makes the archive ended"):
            archive.write(Collector(), identity="", report=ArchiveReport(), on_bytes=lambda _: None)


def test_what_fails_in_the_other_process_is_raised_here(
    tmp_path: Path, aside: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(error: Exception) -> Any:
        def raising(*_: object, **__: object) -> None:
            raise error

        return raising

    monkeypatch.setattr(source, "write_tree", fail(SourceError("gone", hint="look")))
    with pytest.raises(SourceError, match="gone") as caught:
        archived(tmp_path, Collector())
    assert caught.value.hint == "look"
    monkeypatch.setattr(source, "scan", fail(ZeroDivisionError("a defect")))
    with pytest.raises(RuntimeError, match="ZeroDivisionError: a defect"):
        archived(tmp_path, Collector())


@pytest.mark.parametrize("failure", [KeyboardInterrupt, OSError, StorageError])
def test_a_sink_that_fails_ends_the_process(
    tmp_path: Path, aside: None, failure: type[BaseException]
) -> None:
    class Failing:
        def write(self, data: object, /) -> None:
            raise failure("down")

    (tmp_path / "a").write_bytes(bytes(40 << 20))
    with pytest.raises(failure):
        archived(tmp_path, Failing())
    with pytest.raises(failure), GzipWriter(Failing(), level=1) as writer:
        archived(tmp_path, writer)


def test_an_archive_that_nobody_waits_for_ends(tmp_path: Path, aside: None) -> None:
    with pytest.raises(ZeroDivisionError), archiving(tmp_path, "set", WalkOptions()):
        raise ZeroDivisionError


def test_a_root_that_is_missing_is_told_before_anything(tmp_path: Path) -> None:
    with (
        pytest.raises(SourceError),
        archiving(tmp_path / "missing", "set", WalkOptions()),
    ):
        pytest.fail("the block must not begin")


def test_what_changed_since_it_was_counted_is_looked_at_again(tmp_path: Path) -> None:
    """What a scan remembers of a directory holds only as long as nothing changes in it."""
    for name in ("same", "more", "less"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "old").write_text(name)
    sink, report = Collector(), ArchiveReport()
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(create_worker, "may_fork", lambda: False)
        with archiving(tmp_path, "set", WalkOptions()) as archive:
            assert archive.counted().files == 3
            (tmp_path / "more" / "new").touch()
            (tmp_path / "less" / "old").unlink()
            archive.write(sink, identity="", report=report, on_bytes=lambda _: None)
    assert not report.warning_count
    names = set(members(sink.data))
    assert {"set/same/old", "set/more/old", "set/more/new"} <= names
    assert "set/less/old" not in names


def test_an_orphan_ends_by_itself() -> None:
    """A process whose parent was killed must not work on, with the parent's files open."""
    script = (
        "import os, signal\n"
        "from bakthat.archive.worker.process import Forked\n"
        "forked = Forked(lambda: [signal.pause() for _ in range(1000)])\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    # Its output ends when the last process that has it open is gone.
    done = subprocess.run(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, timeout=60, check=False
    )
    assert done.returncode == -signal.SIGKILL


def test_work_that_raises_ends_the_process_too() -> None:
    readable, writable = os.pipe()

    def work() -> None:
        os.write(writable, b"x")
        raise ZeroDivisionError

    forked = Forked(work)
    os.close(writable)
    assert os.read(readable, 10) == b"x"
    assert os.read(readable, 10) == b""
    forked.end()
    os.close(readable)


def test_the_command_line_uses_both(tmp_path: Path) -> None:
    """In a process with one thread, and nothing differs from what was backed up."""
    source = tmp_path / "home" / "source"
    source.mkdir(parents=True)
    for number in range(600):
        (source / f"{number}").write_text(str(number))
    script = (
        "import os, sys\n"
        "os.register_at_fork(after_in_parent=lambda: print('forked', flush=True))\n"
        "from bakthat.__main__ import main\n"
        "sys.exit(main(sys.argv[1:]))\n"
    )

    def run(*arguments: str) -> str:
        return subprocess.run(
            [sys.executable, "-c", script, *arguments],
            env={**os.environ, "HOME": str(tmp_path / "home")},
            cwd=tmp_path,
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        ).stdout

    assert run("backup", "--prompt", "no", str(source)).count("forked") == 1
    assert run("restore", "source", "-o", str(tmp_path / "out")).count("forked") == 1
    assert snapshot(tmp_path / "out" / "source") == snapshot(source)
