"""The log of files: each path that is stored, restored or left out, and why."""

from __future__ import annotations

import errno
import os
import socket
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import bakthat
from bakthat.archive.create import worker
from bakthat.archive.create.walk import CACHE_SIGNATURE, CACHE_TAG
from bakthat.archive.extract.unpack import extract
from bakthat.archive.report import ArchiveReport
from bakthat.archive.worker.messages import receive
from tests.support.commandline import CommandLine
from tests.support.profiles import Conf
from tests.support.tar_bytes import (
    END,
    NOBODY,
    Pieces,
    as_nobody,
    header,
    member,
    reachable_directory,
)

pytestmark = pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")

Said = Callable[[], list[str]]
"""Returns the lines since the last call."""


@pytest.fixture
def said(caplog: pytest.LogCaptureFixture) -> Said:
    caplog.set_level("INFO", "bakthat.files")

    def lines() -> list[str]:
        found = [each.getMessage() for each in caplog.records if each.name == "bakthat.files"]
        caplog.clear()
        return found

    return lines


@pytest.fixture(params=[False, True], ids=["in this process", "in a worker"])
def forks(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Say whether a worker process makes the archives."""
    monkeypatch.setattr(worker, "may_fork", lambda: request.param)
    return bool(request.param)


def back_up(conf: Conf, tree: Path, **options: Any) -> bakthat.models.Backups:
    return bakthat.backup(tree, conf=conf, password="", **options)


def preview(conf: Conf, tree: Path, **options: Any) -> None:
    list(bakthat.preview_backup(tree, conf=conf, password="", **options))


# What is stored.


def test_a_backup_names_each_path_that_it_stores(
    local: Conf, tree: Path, said: Said, forks: bool
) -> None:
    (tree / "sub").mkdir()
    (tree / "sub" / "b\n").write_text("b")
    (tree / "link").symlink_to("a.txt")
    os.link(tree / "a.txt", tree / "z")
    os.mkfifo(tree / "pipe")
    back_up(local, tree)
    assert said() == [
        "stored mydir",
        "stored mydir/a.txt",
        "stored mydir/link",
        "stored mydir/pipe",
        "stored mydir/sub",
        r"stored mydir/sub/b\n",
        "stored mydir/z",
    ]


def test_many_names_arrive_in_order(local: Conf, tree: Path, said: Said, forks: bool) -> None:
    for number in range(2500):
        (tree / f"{number:04}").touch()
    back_up(local, tree)
    assert said() == [
        "stored mydir",
        *(f"stored mydir/{number:04}" for number in range(2500)),
        "stored mydir/a.txt",
    ]


def test_an_increment_names_what_is_new_changed_or_gone(
    local: Conf, tree: Path, said: Said, forks: bool
) -> None:
    for name in ("gone", "kept", "touched"):
        (tree / name).write_text(name)
    (tree / "directory").mkdir()
    (tree / "big").write_bytes(os.urandom(100_000))
    back_up(local, tree, incremental=True)
    assert "stored mydir/kept" in said()
    (tree / "a.txt").write_text("hello again")
    (tree / "directory" / "new").touch()
    (tree / "gone").unlink()
    os.utime(tree / "touched", ns=(1, 1))
    back_up(local, tree, incremental=True)
    assert said() == [
        "changed mydir: its time changed",
        "changed mydir/a.txt: its size changed",
        "changed mydir/directory: its time changed",
        "new mydir/directory/new",
        "removed mydir/gone",
        "changed mydir/touched: its time changed",
    ]


def test_a_file_that_is_stored_as_it_is_is_named(local: Conf, tmp_path: Path, said: Said) -> None:
    (tmp_path / "dump.tgz").write_bytes(b"x")
    back_up(local, tmp_path / "dump.tgz")
    assert said() == ["stored dump.tgz"]


# What is left out.


def patterns(tree: Path) -> dict[str, str]:
    (tree / "node_modules" / "x").mkdir(parents=True)
    (tree / "sub").mkdir()
    for name in ("a.o", "keep.o", "sub/b.o", "sub/only"):
        (tree / name).touch()
    (tree / ".bakthatexclude").write_text(
        "# objects\n\n*.o\n!keep.o\nnode_modules/\n/sub/on[kl]y\n"
    )
    return {
        "mydir/a.o": ".bakthatexclude:3: *.o",
        "mydir/node_modules": ".bakthatexclude:5: node_modules/",
        "mydir/sub/b.o": ".bakthatexclude:3: *.o",
        "mydir/sub/only": ".bakthatexclude:6: /sub/on[kl]y",
    }


def gitignored(tree: Path) -> dict[str, str]:
    (tree / ".gitignore").write_bytes(b"\xff*\r\n")
    Path(os.fsdecode(os.fsencode(tree) + b"/\xff1")).touch()
    return {r"mydir/\xff1": r".gitignore:1: \xff*"}


def cached(tree: Path) -> dict[str, str]:
    (tree / "cache" / "deep").mkdir(parents=True)
    (tree / "cache" / CACHE_TAG).write_bytes(CACHE_SIGNATURE)
    (tree / "empty").mkdir()
    (tree / "empty" / CACHE_TAG).write_bytes(CACHE_SIGNATURE)
    return {"mydir/cache/*": "its CACHEDIR.TAG says that it is a cache"}


def with_socket(tree: Path) -> dict[str, str]:
    here = os.open(tree, os.O_PATH)
    try:
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(f"/proc/self/fd/{here}/socket")
    finally:
        os.close(here)
    return {"mydir/socket": "a socket"}


REASONS = {
    "patterns": patterns,
    "gitignore": gitignored,
    "cache": cached,
    "socket": with_socket,
}


@pytest.mark.parametrize("make", REASONS.values(), ids=REASONS)
def test_what_is_left_out_has_its_reason(
    local: Conf,
    tree: Path,
    said: Said,
    forks: bool,
    make: Callable[[Path], dict[str, str]],
) -> None:
    expected = [f"left out {path}: {why}" for path, why in make(tree).items()]
    (tree / "big").write_bytes(os.urandom(100_000))

    def left_out() -> list[str]:
        return [line for line in said() if line.startswith("left out ")]

    preview(local, tree, exclude_caches=True)
    assert left_out() == expected
    back_up(local, tree, exclude_caches=True)
    assert left_out() == expected
    back_up(local, tree, exclude_caches=True, incremental=True)
    assert left_out() == expected, "a full of increments"
    (tree / "new").touch()
    preview(local, tree, exclude_caches=True, incremental=True)
    assert said() == expected
    made = back_up(local, tree, exclude_caches=True, incremental=True)
    assert made.is_increment
    assert left_out() == expected


def test_an_exclude_file_is_named_as_it_was_given(
    local: Conf, tree: Path, said: Said, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tree.parent)
    Path("patterns").write_text("a*\n")
    back_up(local, tree, exclude_file="patterns", allow_empty=True)
    assert said() == ["stored mydir", "left out mydir/a.txt: patterns:1: a*"]


def test_another_file_system_is_named_once(
    local: Conf, tree: Path, said: Said, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tree / "mount" / "deep").mkdir(parents=True)
    mount, real = str(tree / "mount"), os.lstat

    def lstat(path: Any, **options: Any) -> os.stat_result:
        status = real(path, **options)
        if str(path) != mount:
            return status
        fields = list(status)
        fields[stat.ST_DEV] += 1
        times = {"st_mtime_ns": status.st_mtime_ns, "st_ctime_ns": status.st_ctime_ns}
        return os.stat_result(fields, times)

    with monkeypatch.context() as patched:
        patched.setattr("bakthat.archive.create.walk.os.lstat", lstat)
        back_up(local, tree, one_file_system=True)
    assert said() == [
        "stored mydir",
        "stored mydir/a.txt",
        "stored mydir/mount",
        "left out mydir/mount/*: another file system",
    ]


def test_the_store_and_bakthats_own_cache_are_named(
    local: Conf, tree: Path, said: Said, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tree / "cache"))
    inside = {**local, "local_path": str(tree / "store")}
    back_up(inside, tree)
    said()
    back_up(inside, tree)
    assert said() == [
        "stored mydir",
        "stored mydir/a.txt",
        "stored mydir/cache",
        "stored mydir/cache/bakthat",
        "left out mydir/cache/bakthat/*: bakthat's own cache",
        "stored mydir/store",
        "left out mydir/store/*: the store itself",
    ]


@pytest.fixture
def place() -> Iterator[Path]:
    with reachable_directory(NOBODY if os.geteuid() == 0 else 0) as path:
        yield path


@pytest.mark.permissions
@pytest.mark.parametrize("incremental", [False, True])
def test_what_cannot_be_read_is_named(place: Path, tmp_path: Path, incremental: bool) -> None:
    def act() -> list[str]:
        os.environ["HOME"] = str(place)
        tree = place / "mydir"
        (tree / "closed").mkdir(parents=True)
        (tree / "secret").touch()
        (tree / "big").write_bytes(os.urandom(100_000))
        conf = {
            "default_destination": "local",
            "local_path": str(place / "store"),
            "database": str(place / "catalog"),
            "incremental": incremental,
        }
        lines = listening()
        if incremental:
            back_up(conf, tree)
            lines.clear()
        (tree / "secret").write_text("more")
        (tree / "secret").chmod(0)
        (tree / "closed").chmod(0)
        back_up(conf, tree)
        return [line for line in lines if line.startswith("left out")]

    back_up({"default_destination": "local", "local_path": str(tmp_path / "store")}, place)  # loads
    lines = as_nobody(act) if os.geteuid() == 0 else act()
    assert lines == [
        "left out mydir/closed/*: cannot list this directory: permission denied",
        "left out mydir/secret: permission denied",
    ]


def listening() -> list[str]:
    """Return the lines, as they come; for a process that ends soon."""
    import logging

    lines: list[str] = []

    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            lines.append(record.getMessage())

    log = logging.getLogger("bakthat.files")
    log.setLevel("INFO")
    log.addHandler(Handler())
    return lines


def test_what_vanishes_is_named(
    local: Conf, tree: Path, said: Said, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tree / "big").write_bytes(bytes(3_000_000))
    (tree / "gone").touch()

    def vanish(done: int, _total: int) -> None:
        if done:  # the directory was listed
            (tree / "gone").unlink(missing_ok=True)

    monkeypatch.setattr(worker, "may_fork", lambda: False)
    back_up(local, tree, progress=vanish)
    assert said()[-1] == "left out mydir/gone: vanished before it was read"


# Nobody listens.


@pytest.mark.parametrize("level", [None, "DEBUG"])
def test_without_a_level_of_its_own_nothing_is_named_nor_sent(
    local: Conf,
    tree: Path,
    out: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    level: str | None,
) -> None:
    if level is not None:
        caplog.set_level(level)
        caplog.set_level(level, "bakthat")
    (tree / ".bakthatexclude").write_text("*.o\n")
    (tree / "x.o").touch()
    (tree / "big").write_bytes(os.urandom(3_000_000))
    messages: list[tuple[str, Any]] = []
    real = receive

    def recording(connection: socket.socket) -> tuple[str, Any]:
        messages.append(real(connection))
        return messages[-1]

    monkeypatch.setattr(worker, "may_fork", lambda: True)
    monkeypatch.setattr(worker, "receive", recording)
    for incremental in (False, True, True):
        (tree / "a.txt").write_text(f"changed {len(messages)}")
        back_up(local, tree, incremental=incremental)
    bakthat.restore("mydir", conf=local, output=out)
    kinds = {kind for kind, _ in messages}
    assert kinds == {"count", "filled", "read", "segment", "result"}
    assert {path for kind, (_, path) in [m for m in messages if m[0] == "read"]} == {""}
    assert "bakthat.files" not in {each.name for each in caplog.records}


# Restores.


def test_a_restore_names_each_path(local: Conf, tree: Path, out: Path, said: Said) -> None:
    (tree / "sub").mkdir()
    (tree / "sub" / "b\x1b[31m").write_text("b")
    os.link(tree / "a.txt", tree / "z")
    back_up(local, tree)
    said()
    bakthat.restore("mydir", conf=local, output=out)
    assert said() == [
        "unpacked mydir",
        "unpacked mydir/a.txt",
        "unpacked mydir/sub",
        r"unpacked mydir/sub/b\x1b[31m",
        "unpacked mydir/z",
    ]
    bakthat.restore("mydir", conf=local, output=out, only="z")
    assert said() == ["unpacked mydir/z"], "its content comes from a second reading"


def test_a_restored_file_is_named(local: Conf, tmp_path: Path, out: Path, said: Said) -> None:
    (tmp_path / "dump.tgz").write_bytes(b"x")
    back_up(local, tmp_path / "dump.tgz")
    said()
    bakthat.restore("dump", conf=local, output=out)
    assert said() == ["unpacked dump.tgz"]


def test_what_a_restore_leaves_out_has_its_reason(
    tmp_path: Path, said: Said, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    def is_unknown(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSYS, "Function not implemented")

    monkeypatch.setattr(os, "mknod", refuse)
    monkeypatch.setattr(os, "symlink", is_unknown)
    device, kept = header(b"d/device", b"3"), member(b"d/kept", b"2")
    link = header(b"d/again", b"1", linkname=b"d/device")
    extract(Pieces(device + link + kept + END), tmp_path / "one", report=ArchiveReport())
    assert said() == [
        "left out d/device: operation not permitted",
        "left out d/again: 'd/device', which it links to, was left out",
        "unpacked d/kept",
    ]
    symlink = header(b"d/symlink", b"2", linkname=b"kept")
    report = ArchiveReport()
    extract(Pieces(symlink + kept + END), tmp_path / "two", report=report, keep_going=True)
    assert said() == ["left out d/symlink: function not implemented", "unpacked d/kept"]


# The command line.


def test_verbose_names_files_also_when_quiet(user: CommandLine, tree: Path) -> None:
    (tree / ".bakthatexclude").write_text("*.o\n")
    (tree / "x.o").touch()
    expected = [
        "stored mydir",
        "stored mydir/.bakthatexclude",
        "stored mydir/a.txt",
        "left out mydir/x.o: .bakthatexclude:1: *.o",
    ]
    usual = user.run("backup", "mydir", "--prompt", "no")
    assert not set(expected) & set(usual.stderr.splitlines())
    verbose = user.run("-v", "backup", "mydir", "--prompt", "no")
    assert verbose.stdout == ""
    lines = verbose.stderr.splitlines()
    begin = lines.index("stored mydir")
    assert lines[begin : begin + 4] == expected
    quiet = user.run("backup", "mydir", "--prompt", "no", "--quiet", "--verbose")
    assert quiet.stderr.splitlines() == expected
    dry = user.run("backup", "mydir", "--prompt", "no", "--dry-run", "-v")
    assert dry.stderr.splitlines()[-1:] == expected[-1:]
    assert len(dry.stdout.splitlines()) == 1
    restored = user.run("restore", "mydir", "-o", "out", "-v", "--quiet")
    assert restored.stderr.splitlines() == [
        "unpacked mydir",
        "unpacked mydir/.bakthatexclude",
        "unpacked mydir/a.txt",
    ]
