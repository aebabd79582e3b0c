"""Scanning and making a tree in a process of its own: the same results, and nothing left of it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bakthat.archive import scan_aside as scan_aside_module
from bakthat.archive import tree_aside
from bakthat.archive.extract import extract
from bakthat.archive.forked import Forked, may_fork
from bakthat.archive.report import ArchiveReport
from bakthat.archive.scan_aside import scan_aside
from bakthat.archive.tree_aside import TreeProcess, tree_process
from bakthat.archive.walk import WalkOptions, scan
from bakthat.errors import BakthatError, DestinationError, SourceError
from tests.tar_making import END, NOBODY, Pieces, header, member, pax, reachable_directory, snapshot
from tests.tar_storing import store
from tests.test_archive_extract_hostile import BROKEN, UNSAFE
from tests.trees import make_every_kind

# The children use none of the threads that pytest may have, and never return.
pytestmark = pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")

ROOT = os.geteuid() == 0
STARTED = time.time_ns()


@pytest.fixture(autouse=True)
def no_child_stays() -> Iterator[None]:
    yield
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)


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


def test_every_warning_is_counted_and_the_first_are_told(
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
    assert len(caplog.records) == len(report.warnings) > 100


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
    monkeypatch.setattr(tree_aside, "may_fork", lambda: True)
    assert tree_process(10, 1000) is None
    assert tree_process(1000, 1 << 30) is None
    process = tree_process(1000, 1 << 20)
    assert process is not None
    process.end()


def test_where_there_can_be_no_process_there_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse() -> int:
        raise BlockingIOError("too many processes")

    monkeypatch.setattr(tree_aside, "may_fork", lambda: True)
    monkeypatch.setattr("bakthat.archive.forked.os.fork", refuse)
    assert tree_process(1000, 1 << 20) is None


def test_a_process_with_threads_may_not_fork() -> None:
    end = threading.Event()
    thread = threading.Thread(target=end.wait)
    thread.start()
    assert not may_fork()
    end.set()
    thread.join()


def test_a_scan_aside_counts_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = make_every_kind(tmp_path / "every kind")
    monkeypatch.setattr(scan_aside_module, "may_fork", lambda: True)
    with scan_aside(root, WalkOptions()) as scanned:
        assert scanned() == scan(root, WalkOptions())


def test_a_scan_whose_process_is_killed_is_made_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a").touch()
    monkeypatch.setattr(scan_aside_module, "may_fork", lambda: True)
    monkeypatch.setattr(scan_aside_module, "_report", lambda *_: os.kill(os.getpid(), 9))
    with scan_aside(tmp_path, WalkOptions()) as scanned:
        assert scanned().files == 1


def test_a_scan_that_nobody_waits_for_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scan_aside_module, "may_fork", lambda: True)
    monkeypatch.setattr(scan_aside_module, "_report", lambda *_: signal.pause())
    with pytest.raises(ZeroDivisionError), scan_aside(tmp_path, WalkOptions()):
        raise ZeroDivisionError


def test_a_root_that_is_missing_is_told_before_anything(tmp_path: Path) -> None:
    with pytest.raises(SourceError), scan_aside(tmp_path / "missing", WalkOptions()):
        pytest.fail("the block must not begin")


def test_an_orphan_ends_by_itself() -> None:
    """A process whose parent was killed must not work on, with the parent's files open."""
    script = (
        "import os, signal\n"
        "from bakthat.archive.forked import Forked\n"
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
