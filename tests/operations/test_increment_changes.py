"""What counts as a change: nothing that changed is missed, and little is stored again."""

from __future__ import annotations

import mmap
import os
import shutil
import socket
import subprocess
import tarfile
from collections.abc import Callable, Iterator
from itertools import chain
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import bakthat
from bakthat.archive.create import digest, writer
from bakthat.archive.create.increment import compare, decision
from bakthat.archive.create.walk import walk
from bakthat.system import linux
from tests.support.incremental import BALLAST, Tracked, long_after, noting_what_is_read
from tests.support.profiles import Conf
from tests.support.trees import fingerprint

pytestmark = pytest.mark.filterwarnings("ignore:This process .* is multi-threaded")


@pytest.fixture
def tracked(tree: Path, local: Conf) -> Tracked:
    return Tracked(tree, local)


@pytest.fixture
def trusted_times() -> Iterator[None]:
    with long_after():
        yield


def keeping_times(path: Path, content: bytes) -> None:
    """Write a file as if it had not been: its size may stay, and its mtime does."""
    status = path.stat()
    path.write_bytes(content)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


# Changes that hide.


def write_twice_by_mapping(path: Path, between: Callable[[], object]) -> bool:
    """Change a page that is mapped before and after *between*.

    Return whether the second change moved no time, as on most file systems.
    """
    path.write_bytes(bytes(4096))
    with path.open("r+b") as stream, mmap.mmap(stream.fileno(), 4096) as page:
        page[:6] = b"first "
        between()
        before = path.stat()
        page[:6] = b"second"
        after = path.stat()
    return (before.st_mtime_ns, before.st_ctime_ns) == (after.st_mtime_ns, after.st_ctime_ns)


def test_a_second_write_to_a_mapped_page_is_found_though_no_time_moves(tracked: Tracked) -> None:
    path = tracked.tree / "mapped"
    tracked.back_up()
    write_twice_by_mapping(path, tracked.back_up)
    made = tracked.back_up()
    assert made.is_increment
    assert tracked.content(made, "mapped") == b"second" + bytes(4090)


@pytest.mark.usefixtures("trusted_times")
def test_such_a_write_would_be_missed_if_times_were_always_trusted(tracked: Tracked) -> None:
    path = tracked.tree / "mapped"
    if not write_twice_by_mapping(path, tracked.back_up):
        pytest.skip("on this file system, each write to a mapped page moves the time")
    made = tracked.back_up()
    assert tracked.content(made, "mapped") == b"first " + bytes(4090)
    read = tracked.back_up(detect="hash")
    assert tracked.content(read, "mapped") == b"second" + bytes(4090)


@pytest.mark.parametrize("is_racy", [True, False])
def test_an_edit_of_the_same_size_whose_mtime_is_set_back_is_found(
    is_racy: bool, tracked: Tracked
) -> None:
    with noting_what_is_read() if is_racy else long_after():
        tracked.back_up()
        keeping_times(tracked.tree / "a.txt", b"HELLO")
        made = tracked.back_up()
    assert set(tracked.members(made)) == {"a.txt"}
    assert tracked.content(made, "a.txt") == b"HELLO"


@pytest.mark.usefixtures("trusted_times")
def test_a_file_that_another_one_with_its_size_and_times_replaces_is_found(
    tracked: Tracked,
) -> None:
    """As by rsync -t, or by an archive that is unpacked over the tree."""
    tracked.back_up()
    path = tracked.tree / "a.txt"
    new = tracked.tree / "new"
    new.write_bytes(b"HELLO")
    status = path.stat()
    os.utime(new, ns=(status.st_atime_ns, status.st_mtime_ns))
    new.rename(path)
    made = tracked.back_up()
    assert set(tracked.members(made)) == {"a.txt"}
    assert tracked.content(made, "a.txt") == b"HELLO"


@pytest.mark.usefixtures("trusted_times")
@pytest.mark.parametrize("detect", ["ctime", "mtime", "hash"])
def test_a_symlink_that_another_one_with_its_time_replaces_is_found(
    detect: str, tracked: Tracked
) -> None:
    path = tracked.tree / "link"
    path.symlink_to("one")
    tracked.back_up()
    status = path.lstat()
    path.unlink()
    path.symlink_to("two")
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns), follow_symlinks=False)
    os.utime(tracked.tree, ns=(status.st_atime_ns, status.st_mtime_ns))
    made = tracked.back_up(detect=detect)
    assert tracked.state(made) == fingerprint(tracked.tree)


@pytest.mark.usefixtures("trusted_times")
def test_a_file_that_changes_while_it_is_stored_is_read_again_the_next_time(
    tracked: Tracked, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tracked.tree / "a.txt"
    tracked.back_up()
    real = linux.read_at

    def read_at(fd: int, buffer: memoryview, offset: int) -> int:
        count = real(fd, buffer, offset)
        if bytes(buffer[:5]) == b"first":
            keeping_times(path, b"later")
        return count

    path.write_bytes(b"first")
    with monkeypatch.context() as patch:
        patch.setattr(writer, "read_at", read_at)
        made = tracked.back_up()
    assert not made.is_complete
    assert made.metadata["warnings"] == [
        f"{path}: changed while it was read; what is stored may mix old and new"
    ]
    after = tracked.back_up()
    assert after.is_complete
    assert tracked.content(after, "a.txt") == b"later"
    assert set(tracked.members(tracked.back_up())) == set()


@pytest.mark.usefixtures("trusted_times")
def test_a_file_that_changes_while_it_is_compared_is_stored(
    tracked: Tracked, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tracked.tree / "a.txt"
    tracked.back_up()
    real = digest.content_digest

    def content_digest(fd: int, status: os.stat_result) -> bytes:
        digest = real(fd, status)
        if status.st_size == 5:
            keeping_times(path, b"later")
        return digest

    path.chmod(0o600)
    path.chmod(0o644)
    monkeypatch.setattr(decision, "content_digest", content_digest)
    made = tracked.back_up()
    assert made.is_complete
    assert tracked.content(made, "a.txt") == b"later"


def test_a_file_that_vanishes_before_it_is_stored_keeps_its_earlier_content_once(
    tracked: Tracked, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tracked.tree / "a.txt"
    tracked.back_up()
    real = digest.open_file

    def open_file(name: str) -> int:
        if name == str(path):
            path.unlink(missing_ok=True)
        return real(name)

    path.write_bytes(b"new content")
    with monkeypatch.context() as patch:
        patch.setattr(writer, "open_file", open_file)
        made = tracked.back_up()
    assert not made.is_complete
    assert tracked.content(made, "a.txt") == b"hello"
    after = tracked.back_up()
    assert after.is_complete
    assert tracked.state(after) == fingerprint(tracked.tree)


# What is read, and what is not.


@pytest.mark.usefixtures("trusted_times")
@pytest.mark.parametrize(
    ("options", "read"),
    [
        ({}, []),
        ({"detect": "mtime"}, []),
        ({"detect": "hash"}, ["a.txt", BALLAST, "c.log"]),
        ({"always_read": "*.log"}, ["c.log"]),
        ({"always_read": ["a.*", "*.log"]}, ["a.txt", "c.log"]),
        ({"recheck": 100}, ["a.txt", BALLAST, "c.log"]),
        ({"ignore_inode": True}, []),
    ],
)
def test_which_unchanged_files_are_read(
    options: dict[str, Any], read: list[str], tracked: Tracked
) -> None:
    (tracked.tree / "c.log").write_text("log")
    tracked.back_up()
    with noting_what_is_read() as found:
        made = tracked.back_up(**options)
    assert found == read
    assert tracked.members(made) == {}


@pytest.mark.usefixtures("trusted_times")
def test_a_recheck_reads_each_file_once_in_so_many_runs(tracked: Tracked) -> None:
    names = [f"file {number}" for number in range(60)]
    for name in names:
        (tracked.tree / name).write_text(name)
    tracked.back_up()
    runs = []
    for _ in range(4):
        with noting_what_is_read() as found:
            tracked.back_up(recheck=25)
        runs.append(found)
    assert sorted(chain.from_iterable(runs)) == sorted([*names, "a.txt", BALLAST])
    assert all(runs)


@pytest.mark.usefixtures("trusted_times")
def test_each_destination_has_its_own_turns_of_a_recheck(tracked: Tracked, tmp_path: Path) -> None:
    names = [f"file {number}" for number in range(60)]
    for name in names:
        (tracked.tree / name).write_text(name)
    confs = [tracked.conf, {**tracked.conf, "local_path": str(tmp_path / "other")}]
    runs: list[list[str]] = [[], []]
    for number in range(5):
        for conf, read in zip(confs, runs, strict=True):
            tracked.conf = conf
            with noting_what_is_read() as found:
                tracked.back_up(**({"recheck": 25} if number else {}))
            read += found
    for read in runs:
        assert sorted(read) == sorted([*names, "a.txt", BALLAST])


def test_files_that_changed_just_before_the_backup_are_read_the_next_time(
    tracked: Tracked,
) -> None:
    os.utime(tracked.tree / BALLAST, ns=(0, 0))  # its ctime is new all the same
    tracked.back_up()
    with noting_what_is_read() as read:
        made = tracked.back_up()
    assert read == ["a.txt", BALLAST]
    assert tracked.members(made) == {}


def chmod_back_and_forth(path: Path) -> None:
    path.chmod(0o600)
    path.chmod(0o644)


def link_and_unlink(path: Path) -> None:
    other = path.with_name("other")
    os.link(path, other)
    other.unlink()


@pytest.mark.usefixtures("trusted_times")
@pytest.mark.parametrize("move_ctime", [chmod_back_and_forth, link_and_unlink])
def test_a_file_of_which_only_the_ctime_moved_is_read_once_and_not_stored(
    move_ctime: Callable[[Path], None], tracked: Tracked
) -> None:
    tracked.back_up()
    move_ctime(tracked.tree / "a.txt")
    for expected in (["a.txt"], []):
        with noting_what_is_read() as read:
            made = tracked.back_up()
        assert read == expected
        assert tracked.members(made) == {}
        assert tracked.state(made) == fingerprint(tracked.tree)


@pytest.mark.usefixtures("trusted_times")
def test_with_detect_mtime_only_time_size_mode_and_owner_count(tracked: Tracked) -> None:
    (tracked.tree / "b.txt").write_text("hello")
    tracked.back_up()
    keeping_times(tracked.tree / "a.txt", b"HELLO")
    (tracked.tree / "b.txt").chmod(0o600)
    with noting_what_is_read() as read:
        made = tracked.back_up(detect="mtime")
    assert read == []
    assert set(tracked.members(made)) == {"b.txt"}
    assert tracked.content(made, "a.txt") == b"hello"  # what this option accepts


@pytest.mark.usefixtures("trusted_times")
@pytest.mark.parametrize("ignore_inode", [False, True])
def test_other_inode_numbers_are_looked_at_or_ignored(
    ignore_inode: bool, tracked: Tracked, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As after another mount of a file system that makes them up."""
    tracked.back_up()
    real = os.lstat

    def lstat(path: Any, **options: Any) -> Any:
        status = real(path, **options)
        fields = {name: getattr(status, name) for name in dir(status) if name.startswith("st_")}
        return SimpleNamespace(**fields | {"st_ino": status.st_ino + 1_000_000})

    monkeypatch.setattr(os, "lstat", lstat)
    with noting_what_is_read() as read:
        made = tracked.back_up(ignore_inode=ignore_inode)
    assert read == ([] if ignore_inode else ["a.txt", BALLAST])
    assert tracked.members(made) == {}


@pytest.mark.usefixtures("trusted_times")
def test_a_tree_that_was_copied_and_moved_back_is_read_and_not_stored(tracked: Tracked) -> None:
    (tracked.tree / "directory").mkdir()
    (tracked.tree / "directory" / "file").write_text("content")
    tracked.back_up()
    copy = tracked.tree.with_name("copy")
    subprocess.run(["cp", "-a", tracked.tree, copy], check=True)
    shutil.rmtree(tracked.tree)
    copy.rename(tracked.tree)
    for expected in (["a.txt", BALLAST, "file"], []):
        with noting_what_is_read() as read:
            made = tracked.back_up()
        assert read == expected
        assert tracked.members(made) == {}
        assert tracked.state(made) == fingerprint(tracked.tree)


@pytest.mark.parametrize("is_racy", [True, False])
def test_a_backup_is_skipped_when_nothing_has_changed_and_that_is_wished(
    is_racy: bool, tracked: Tracked
) -> None:
    with noting_what_is_read() if is_racy else long_after():
        full = tracked.back_up()
        made = tracked.back_up(skip_unchanged=True)
        assert made.is_skipped
        assert made.stored_filename == full.stored_filename
        assert len(bakthat.ls(conf=tracked.conf)) == 1
        (tracked.tree / "a.txt").chmod(0o600)
        assert not tracked.back_up(skip_unchanged=True).is_skipped
        assert not tracked.back_up().is_skipped


@pytest.mark.usefixtures("trusted_times")
def test_a_link_that_sorts_before_what_it_is_a_link_to_is_no_change_for_ever(
    tracked: Tracked,
) -> None:
    (tracked.tree / "z").write_text("content")
    tracked.back_up()
    os.link(tracked.tree / "z", tracked.tree / "b")
    made = tracked.back_up()
    assert {name: each.type for name, each in tracked.members(made).items()} == {
        "b": tarfile.LNKTYPE
    }
    assert tracked.state(made) == fingerprint(tracked.tree)
    again = tracked.back_up(skip_unchanged=True)
    assert again.is_skipped


# What is stored.


@pytest.mark.usefixtures("trusted_times")
def test_a_file_of_which_only_the_mode_changed_is_stored_again(tracked: Tracked) -> None:
    """So that tar alone restores the mode."""
    tracked.back_up()
    (tracked.tree / "a.txt").chmod(0o755)
    made = tracked.back_up()
    (member,) = tracked.members(made).values()
    assert (member.name, member.mode, member.size) == ("mydir/a.txt", 0o755, 5)


@pytest.mark.usefixtures("trusted_times")
def test_a_link_costs_no_content_and_a_broken_one_only_its_own(tracked: Tracked) -> None:
    tree = tracked.tree
    tracked.back_up()
    os.link(tree / "a.txt", tree / "b.txt")
    added = tracked.back_up()
    assert [each.type for each in tracked.members(added).values()] == [tarfile.LNKTYPE]
    assert tracked.state(added) == fingerprint(tree)
    (tree / "b.txt").unlink()
    shutil.copy2(tree / "a.txt", tree / "b.txt")
    broken = tracked.back_up()
    assert [each.name for each in tracked.members(broken).values()] == ["mydir/b.txt"]
    assert tracked.state(broken) == fingerprint(tree)
    (tree / "a.txt").unlink()
    removed = tracked.back_up()
    assert tracked.members(removed) == {}
    assert tracked.state(removed) == fingerprint(tree)


@pytest.mark.usefixtures("trusted_times")
def test_directories_become_files_and_files_directories(tracked: Tracked) -> None:
    tree = tracked.tree
    (tree / "directory" / "deep").mkdir(parents=True)
    (tree / "directory" / "deep" / "file").write_text("deep")
    tracked.back_up()
    shutil.rmtree(tree / "directory")
    (tree / "directory").write_text("a file now")
    (tree / "a.txt").unlink()
    (tree / "a.txt").mkdir()
    (tree / "a.txt" / "in it").write_text("in it")
    made = tracked.back_up()
    assert tracked.state(made) == fingerprint(tree)
    shutil.rmtree(tree / "a.txt")
    (tree / "a.txt").symlink_to("directory")
    (tree / "directory").unlink()
    (tree / "directory").mkdir()
    assert tracked.state(tracked.back_up()) == fingerprint(tree)


@pytest.mark.parametrize("before", ["file", "directory"])
def test_what_a_socket_replaces_is_gone(
    before: str, tracked: Tracked, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tracked.tree / "socket"
    if before == "file":
        path.write_text("a file")
    else:
        path.mkdir()
        (path / "in it").write_text("in it")
    tracked.back_up()
    shutil.rmtree(path) if before == "directory" else path.unlink()
    monkeypatch.chdir(tracked.tree)  # the address of a socket is short
    with socket.socket(socket.AF_UNIX) as made_here:
        made_here.bind("socket")
    made = tracked.back_up()
    assert made.metadata["warnings"] == [f"{path}: is a socket; it is not stored"]
    expected = fingerprint(tracked.tree)
    del expected[b"socket"]
    assert tracked.state(made) == expected


def test_a_pattern_that_is_added_later_removes_what_it_matches(tracked: Tracked) -> None:
    (tracked.tree / "cache").mkdir()
    (tracked.tree / "cache" / "file").write_text("cached")
    (tracked.tree / "b.log").write_text("log")
    tracked.back_up()
    (tracked.tree / ".bakthatexclude").write_text("*.log\ncache/\n")
    made = tracked.back_up()
    assert made.is_increment
    assert set(tracked.state(made)) == {b".", b".bakthatexclude", b"a.txt", b"ballast"}
    (tracked.tree / ".bakthatexclude").unlink()
    assert tracked.state(tracked.back_up()) == fingerprint(tracked.tree)


def test_a_full_is_made_when_the_directory_has_another_name(
    tracked: Tracked, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "bakthat")
    full = tracked.back_up(custom_filename="my")
    tracked.tree = tracked.tree.rename(tracked.tree.with_name("renamed"))
    made = tracked.back_up(custom_filename="my")
    assert not made.is_increment
    reason = f"{full.stored_filename} has another directory at its top"
    assert f"Making a full backup: {reason}" in caplog.messages
    assert tracked.state(made) == fingerprint(tracked.tree)


def test_increments_continue_where_the_name_in_the_archive_stays(tracked: Tracked) -> None:
    """As with a snapshot that is mounted under another name each time."""
    full = tracked.back_up(custom_filename="my", root_name="root")
    tracked.tree = tracked.tree.rename(tracked.tree.with_name("renamed"))
    (tracked.tree / "a.txt").write_text("changed")
    made = tracked.back_up(custom_filename="my", root_name="root")
    assert made.needs == (full.date,)
    assert set(tracked.members(made)) == {"a.txt"}
    assert tracked.state(made) == fingerprint(tracked.tree)


@pytest.mark.usefixtures("trusted_times")
def test_sparse_files_are_compared_and_stored_without_their_holes(tracked: Tracked) -> None:
    path = tracked.tree / "sparse"
    size = 64 * 1024 * 1024
    with path.open("wb") as stream:
        stream.truncate(size)
        stream.seek(size // 2)
        stream.write(b"first")
    tracked.back_up()
    chmod_back_and_forth(path)
    assert tracked.members(tracked.back_up()) == {}
    with path.open("r+b") as stream:
        stream.seek(size // 2)
        stream.write(b"other")
    made = tracked.back_up()
    assert set(tracked.members(made)) == {"sparse"}
    assert made.size < 50_000
    assert tracked.state(made) == fingerprint(tracked.tree)


@pytest.mark.usefixtures("trusted_times")
@pytest.mark.parametrize(
    ("change", "name", "reason"),
    [
        (Path.unlink, "b", "it has only one name now"),
        (lambda path: os.link(path, path.with_name("c")), "c", "new"),
        (lambda path: path.chmod(0o600), "b", "its mode changed"),
    ],
)
def test_what_is_said_of_a_name_of_a_file_with_several_is_done(
    change: Callable[[Path], object], name: str, reason: str, tracked: Tracked
) -> None:
    path = tracked.tree / "a"
    path.write_text("content")
    os.link(path, tracked.tree / "b")
    full = tracked.back_up()
    said = f"it is not stored: it is unchanged since {full.stored_filename}"
    assert tracked.explanation("b") == said
    change(path)
    assert tracked.explanation(name) == f"it is stored: {reason}"
    made = tracked.back_up()
    assert name in tracked.members(made)
    assert tracked.state(made) == fingerprint(tracked.tree)


@pytest.mark.usefixtures("trusted_times")
def test_a_name_is_no_link_to_what_its_inode_had_earlier(
    tracked: Tracked, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As when a file is removed during the walk, and a new one gets its inode number."""
    names = [tracked.tree / name for name in ("first", "second", "third")]
    names[0].write_text("earlier")
    for name in names[1:]:
        os.link(names[0], name)
    tracked.back_up()

    def changing(*arguments: Any, **options: Any) -> Iterator[Any]:
        for entry in walk(*arguments, **options):
            yield entry
            if entry.name == "first":
                names[0].unlink()
                names[1].write_text("later content")

    monkeypatch.setattr(compare, "walk", changing)
    with noting_what_is_read():
        made = tracked.back_up()
    assert tracked.content(made, "first") == b"earlier"
    for below in ("second", "third"):
        assert tracked.content(made, below) == b"later content"
    monkeypatch.setattr(compare, "walk", walk)
    assert tracked.state(tracked.back_up()) == fingerprint(tracked.tree)


def test_a_path_that_is_gone_is_said_to_be_removed(tracked: Tracked) -> None:
    full = tracked.back_up()
    (tracked.tree / "a.txt").unlink()
    said = f"it is recorded as removed: {full.stored_filename} has it"
    assert tracked.explanation("a.txt") == said


@pytest.mark.usefixtures("trusted_times")
def test_a_single_file_is_stored_whole(
    tree: Path, local: Conf, caplog: pytest.LogCaptureFixture
) -> None:
    """An increment of an unchanged one would have no member, which tarfile takes for damage."""
    caplog.set_level("INFO", "bakthat")
    path = tree / "a.txt"
    made = [
        bakthat.backup(path, conf={**local, "incremental": True}, password="") for _ in range(2)
    ]
    assert not made[1].is_increment
    assert "Making a full backup: a single file is stored whole" in caplog.messages
    for entry in made:
        with tarfile.open(Path(local["local_path"], entry.stored_filename)) as archive:
            assert archive.getnames() == ["a.txt"]
    conf = {**local, "incremental": True, "skip_unchanged": True}
    assert bakthat.backup(path, conf=conf, password="").is_skipped
