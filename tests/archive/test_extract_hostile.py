"""Archives that try to leave their destination, and damage of every kind; no file may remain."""

from __future__ import annotations

import contextlib
import errno
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from bakthat.archive.extract import publish, staging, tree
from bakthat.archive.extract.unpack import extract, restore_file
from bakthat.archive.report import ArchiveReport
from bakthat.errors import BakthatError, CorruptArchiveError, DestinationError, UnsafeMemberError
from tests.support.needs import as_root, mounted
from tests.support.tar_bytes import (
    END,
    NOBODY,
    Pieces,
    as_nobody,
    header,
    member,
    pax,
    reachable_directory,
    snapshot,
)

pytestmark = pytest.mark.permissions

ROOT = os.geteuid() == 0

UNSAFE = {
    "absolute": lambda out: member(b"%s/canary" % out, b"evil"),
    "absolute directory": lambda out: header(b"%s/new/" % out, b"5"),
    "dots": lambda out: member(b"../canary", b"evil"),
    "dots inside": lambda out: member(b"a/../../canary", b"evil"),
    "dots that stay inside": lambda out: member(b"a/../b", b"evil"),
    "dots of a directory": lambda out: header(b"..", b"5", mode=0o777),
    "dots in a pax name": lambda out: pax([(b"path", b"../canary")]) + member(b"a", b"evil"),
    "dots in a GNU name": lambda out: member(b"L", b"../canary\0", b"L") + member(b"a", b"evil"),
    "through a link": lambda out: header(b"l", b"2", linkname=out) + member(b"l/canary", b"evil"),
    "through a chain": lambda out: (
        header(b"d", b"5")
        + header(b"d/up", b"2", linkname=b"..")
        + header(b"x", b"2", linkname=b"d/up/../canary-dir")
        + member(b"x/canary", b"evil")
    ),
    "directory through a link": lambda out: (
        header(b"l", b"2", linkname=out) + header(b"l/new", b"5", mode=0o777)
    ),
    "fifo through a link": lambda out: (
        header(b"l", b"2", linkname=out) + header(b"l/fifo", b"6", mode=0o777)
    ),
    "hard link to outside": lambda out: header(b"h", b"1", linkname=b"%s/canary" % out),
    "hard link up": lambda out: header(b"h", b"1", linkname=b"../canary"),
    "hard link through a link": lambda out: (
        header(b"l", b"2", linkname=out)
        + header(b"h", b"1", linkname=b"l/canary")
        + member(b"h", b"evil")
    ),
}
BROKEN = {
    "hard link to what is not there": header(b"h", b"1", linkname=b"canary"),
    "hard link to a missing directory": header(b"h", b"1", linkname=b"a/b/c"),
    "hard link to itself": member(b"h", b"1") + header(b"h", b"1", linkname=b"./h"),
    "hard link to the root": header(b"h", b"1", linkname=b"."),
    "hard link to a directory": header(b"d", b"5") + header(b"h", b"1", linkname=b"d"),
    "file over a full directory": member(b"d/in") + member(b"d"),
    "file as a directory": member(b"f") + member(b"f/in"),
    "root that is a file": member(b"."),
    "root that is a link": header(b".", b"2", linkname=b"/"),
}


@pytest.fixture
def place() -> Iterator[Path]:
    """A directory with a canary outside of the destination, which has a file of its own."""
    with reachable_directory(NOBODY if ROOT else 0) as path:
        (path / "outside").mkdir()
        (path / "outside/canary").write_bytes(b"alive")
        (path / "destination/there").mkdir(parents=True)
        (path / "destination/there/canary").write_bytes(b"alive")
        for one in [path, *path.rglob("*")]:
            os.utime(one, ns=(0, 10**18))
            if ROOT:
                os.chown(one, NOBODY, NOBODY)
        yield path


def attempt(archive: bytes, destination: Path, piece: int = 1 << 20) -> None:
    extract(Pieces(archive, piece), destination, report=ArchiveReport())


def refuse(
    error: type[BaseException], archive: bytes, root: Path, *, unprivileged: bool = False
) -> BaseException:
    """Restore into an existing and into a new directory; both times nothing may remain."""
    before = snapshot(root)
    for name in ("destination", "new/er"):

        def action(destination: Path = root / name) -> None:
            attempt(archive, destination)

        with pytest.raises(error) as caught:
            as_nobody(action) if unprivileged else action()
        assert snapshot(root) == before
    return caught.value


@pytest.mark.parametrize("unprivileged", [False, pytest.param(True, marks=as_root)])
@pytest.mark.parametrize("name", UNSAFE)
def test_no_member_leaves_the_destination(name: str, unprivileged: bool, place: Path) -> None:
    out = os.fsencode(place / "outside")
    for content in (b"", member(b"good", b"good"), header(b"sub", b"5", mode=0o500)):
        archive = content + UNSAFE[name](out) + END
        error = refuse(UnsafeMemberError, archive, place, unprivileged=unprivileged)
        assert str(error).isprintable()


@pytest.mark.parametrize("unprivileged", [False, pytest.param(True, marks=as_root)])
@pytest.mark.parametrize("name", BROKEN)
def test_members_that_no_tar_writes_are_refused(name: str, unprivileged: bool, place: Path) -> None:
    refuse(CorruptArchiveError, BROKEN[name] + END, place, unprivileged=unprivileged)


def test_a_link_over_a_directory_that_exists_does_not_lead_out(place: Path) -> None:
    (place / "destination/d").symlink_to(place / "outside")
    attempt(
        header(b"d", b"5", mode=0o700) + member(b"d/canary", b"new") + END, place / "destination"
    )
    assert (place / "outside/canary").read_bytes() == b"alive"
    assert (place / "destination/d/canary").read_bytes() == b"new"
    assert not (place / "destination/d").is_symlink()


def test_a_planted_link_is_replaced_by_a_later_file_and_not_followed(place: Path) -> None:
    target = os.fsencode(place / "outside/canary")
    archive = b"".join(
        (
            header(b"l", b"2", linkname=target),
            member(b"l", b"evil", mode=0o777),
            header(b"k", b"2", linkname=target),
            header(b"k2", b"1", linkname=b"k"),
            member(b"k2", b"evil", mode=0o777),
            header(b"m", b"2", linkname=os.fsencode(place / "outside")),
            header(b"m", b"5", mode=0o777),
            member(b"m/canary", b"evil"),
            END,
        )
    )
    before = snapshot(place / "outside")
    attempt(archive, place / "destination")
    assert snapshot(place / "outside") == before
    assert (place / "destination/l").read_bytes() == b"evil"


def test_targets_of_links_are_restored_as_they_are(tmp_path: Path) -> None:
    targets = {b"a": b"/etc/passwd", b"b": b"../../..", b"c": b"gone", b"d": b"\xff\n"}
    archive = b"".join(header(k, b"2", linkname=v) for k, v in targets.items()) + END
    attempt(archive, tmp_path)
    assert {os.fsencode(p.name): os.fsencode(os.readlink(p)) for p in tmp_path.iterdir()} == targets


CONFLICTS = {
    "file over a full directory": member(b"there", b"x"),
    "link over a full directory": header(b"there", b"2", linkname=b"x"),
    "directory over a file": member(b"there/canary/x", b"x"),
}


@pytest.mark.parametrize("name", CONFLICTS)
def test_a_conflict_is_found_before_any_change(name: str, place: Path) -> None:
    archive = member(b"a", b"1") + CONFLICTS[name] + member(b"z", b"2") + END
    before = snapshot(place)
    with pytest.raises(DestinationError, match="there") as caught:
        attempt(archive, place / "destination")
    assert caught.value.hint
    assert snapshot(place) == before


@as_root
def test_a_directory_that_a_user_may_not_write_is_found_before_any_change(
    place: Path,
) -> None:
    os.chown(place / "destination/there", 0, 0)

    def action() -> None:
        attempt(member(b"a", b"1") + member(b"there/b", b"2") + END, place / "destination")

    with pytest.raises(DestinationError, match="there': permission denied"):
        as_nobody(action)
    assert os.listdir(place / "destination") == ["there"]


@as_root
def test_another_file_system_inside_the_destination_is_refused(place: Path) -> None:
    with small_disk(place / "destination/there"):
        with pytest.raises(DestinationError, match="on another file system"):
            attempt(member(b"a") + member(b"there/b") + END, place / "destination")
        assert os.listdir(place / "destination") == ["there"]


@pytest.mark.parametrize("destination", ["outside/canary", "outside/canary/in", "dangling"])
def test_an_invalid_destination_is_named(place: Path, destination: str) -> None:
    (place / "dangling").symlink_to("gone")
    before = sorted(place.rglob("*"))
    with pytest.raises(DestinationError, match=destination):
        attempt(member(b"a") + END, place / destination)
    assert sorted(place.rglob("*")) == before


SMALL = (
    header(b"closed", b"5", mode=0o500)
    + member(b"closed/a", b"1" * 700)
    + pax([(b"path", b"there/new"), (b"mtime", b"1.5")])
    + member(b"b", b"2" * 100)
    + header(b"there", b"5", mode=0o711)
    + member(b"there/canary", b"replaced")
    + header(b"h", b"1", linkname=b"closed/a")
    + END
)


@pytest.mark.parametrize("unprivileged", [False, pytest.param(True, marks=as_root)])
def test_an_archive_cut_at_any_block_leaves_nothing(place: Path, unprivileged: bool) -> None:
    for length in range(0, len(SMALL), 512):
        refuse(CorruptArchiveError, SMALL[:length], place, unprivileged=unprivileged)


def test_a_flipped_bit_in_a_header_leaves_nothing(place: Path) -> None:
    for at in range(0, 512 * 8, 37):
        if 148 <= at // 8 < 156:
            continue  # the checksum's own padding
        altered = bytearray(SMALL)
        altered[at // 8] ^= 1 << at % 8
        refuse(BakthatError, bytes(altered), place)


@pytest.mark.parametrize("failure", [KeyboardInterrupt(), OSError("gone"), MemoryError()])
@pytest.mark.parametrize("length", [0, 600, 1536, len(SMALL) - 1024, len(SMALL)])
def test_a_source_that_fails_anywhere_leaves_nothing(
    place: Path, failure: BaseException, length: int
) -> None:
    before = sorted(place.rglob("*"))
    for action in (
        lambda s: extract(s, place / "destination", report=ArchiveReport()),
        lambda s: extract(s, place / "new/er", report=ArchiveReport()),
        lambda s: restore_file(s, place / "destination", "f", report=ArchiveReport()),
    ):
        with pytest.raises(type(failure)) as caught:
            action(Pieces(SMALL[:length], 512, failure))
        assert caught.value is failure
        assert sorted(place.rglob("*")) == before


class Trap:
    """Stands in for os in one module, and fails at the *fuse*-th call of one of *names*."""

    def __init__(self, names: set[str], failure: BaseException, fuse: int) -> None:
        self._names = names
        self._failure = failure
        self.fuse = fuse

    def __getattr__(self, name: str) -> object:
        real = getattr(os, name)
        return self.around(real) if name in self._names else real

    def around(self, real: Callable[..., object]) -> Callable[..., object]:
        """Return *real*, whose calls count too."""

        def trapped(*arguments: object, **options: object) -> object:
            self.fuse -= 1
            if self.fuse == 0:
                raise self._failure
            return real(*arguments, **options)

        return trapped


@pytest.mark.parametrize("unprivileged", [False, pytest.param(True, marks=as_root)])
@pytest.mark.parametrize("failure", [OSError(errno.EIO, "Input/output error"), KeyboardInterrupt()])
def test_a_failure_at_any_move_is_undone(
    place: Path, failure: BaseException, unprivileged: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = place / "destination/there"
    (there / "gone").symlink_to("canary")
    (there / "empty").mkdir()
    os.setxattr(there, "user.kept", b"1")
    there.chmod(0o500)
    for one in (place / "destination").rglob("*"):
        if ROOT:
            os.chown(one, NOBODY, NOBODY, follow_symlinks=False)
        os.utime(one, ns=(0, 10**18 + 1), follow_symlinks=False)
    attributes = [(b"SCHILY.xattr.user.kept", b"2"), (b"SCHILY.xattr.user.more", b"3")]
    more = pax(attributes) + header(b"there", b"5", mode=0o750) + header(b"there/gone", b"5")
    archive = SMALL[:-1024] + more + member(b"there/empty") + END
    names = {"rename", "link", "fchmod", "open", "mkdir", "stat", "fchown", "utime"}

    def fails_when(fuse: int) -> bool:
        destination = place / f"copy{fuse}"
        subprocess.run(["cp", "-a", str(place / "destination"), str(destination)], check=True)
        before, own = snapshot(destination), destination.stat().st_mtime_ns
        trap = Trap(names, failure, fuse)
        try:
            with monkeypatch.context() as patched:
                patched.setattr(publish, "os", trap)
                for function in (staging.exists, staging.is_directory):
                    patched.setattr(publish, function.__name__, trap.around(function))
                attempt(archive, destination)
        except (DestinationError, KeyboardInterrupt):
            assert snapshot(destination) == before
            assert destination.stat().st_mtime_ns == own
            return True
        assert (destination / "there/canary").read_bytes() == b"replaced"
        assert sorted(os.listdir(destination)) == ["closed", "h", "there"]
        return trap.fuse <= 0  # what failed was not needed

    def count_failures() -> int:
        return next(fuse for fuse in range(1, 500) if not fails_when(fuse))

    calls = as_nobody(count_failures) if unprivileged else count_failures()
    assert isinstance(calls, int)
    assert calls > 20


@contextlib.contextmanager
def small_disk(path: Path) -> Iterator[None]:
    with mounted(path, "-t", "tmpfs", "-o", "size=512k,mode=755", "tmpfs"):
        yield


@as_root
def test_a_full_disk_is_named_and_nothing_is_left_on_it(tmp_path: Path) -> None:
    content = os.urandom(700_000)
    archive = member(b"first", b"1") + member(b"big", content) + END
    with small_disk(tmp_path):
        with pytest.raises(DestinationError, match=r"big.*no space left on device"):
            attempt(archive, tmp_path / "new")
        with pytest.raises(DestinationError, match=r"big.*no space left on device"):
            restore_file(Pieces(content), tmp_path / "new", "big", report=ArchiveReport())
        assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("name", [b"n" * 300, b"d/" + b"n" * 300 + b"/x"])
def test_a_name_that_the_file_system_cannot_hold_is_named(place: Path, name: bytes) -> None:
    archive = pax([(b"path", name)]) + member(b"x") + END
    error = refuse(DestinationError, archive, place)
    assert "nnn" in str(error)


class FoldingOs:
    """Stands in for os; names that differ only in case are the same file, as on vfat."""

    def __init__(self) -> None:
        self._spellings: dict[tuple[int, str], Any] = {}

    def _spell(self, name: Any, directory: int | None) -> Any:
        if directory is None:
            return name
        key = (os.fstat(directory).st_ino, os.fsdecode(name).casefold())
        known = self._spellings.get(key, name)
        if os.path.lexists(f"/proc/self/fd/{directory}/{os.fsdecode(known)}"):
            return known
        self._spellings[key] = name
        return name

    def __getattr__(self, name: str) -> object:
        real: Callable[..., object] = getattr(os, name)
        if name in ("open", "mkdir", "stat", "unlink", "rmdir", "mkfifo", "utime", "chown"):

            def first(path: Any, *arguments: Any, dir_fd: int | None = None, **rest: Any) -> Any:
                extra = {} if dir_fd is None else {"dir_fd": dir_fd}
                return real(self._spell(path, dir_fd), *arguments, **extra, **rest)

            return first
        if name == "symlink":
            return lambda target, path, *, dir_fd: os.symlink(
                target, self._spell(path, dir_fd), dir_fd=dir_fd
            )
        return real


@pytest.mark.parametrize(
    ("archive", "error"),
    [
        (member(b"README", b"1") + member(b"readme", b"2"), DestinationError),
        (header(b"D", b"5") + member(b"D/a") + header(b"d", b"5"), DestinationError),
        (member(b"D/a") + member(b"d/b"), DestinationError),
        (header(b"L", b"2", linkname=b"/") + member(b"l/etc/x", b"evil"), BakthatError),
        (header(b"L", b"2", linkname=b"x") + member(b"l", b"evil"), DestinationError),
        (member(b"A") + header(b"a", b"2", linkname=b"x"), DestinationError),
    ],
    ids=["files", "directories", "implied", "through a link", "file over link", "link over file"],
)
def test_names_that_a_file_system_does_not_keep_apart_are_refused(
    place: Path, archive: bytes, error: type[BakthatError], monkeypatch: pytest.MonkeyPatch
) -> None:
    folding = FoldingOs()
    monkeypatch.setattr(tree, "os", folding)
    monkeypatch.setattr(staging, "os", folding)
    refuse(error, archive + END, place)


def test_on_a_folding_file_system_the_same_name_may_still_come_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folding = FoldingOs()
    monkeypatch.setattr(tree, "os", folding)
    monkeypatch.setattr(staging, "os", folding)
    attempt(member(b"D/a", b"1") + member(b"b") + member(b"D/a", b"2") + END, tmp_path)
    assert (tmp_path / "D/a").read_bytes() == b"2"


def test_two_spellings_are_not_merged_into_a_directory_that_folds_them(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(publish, "folds_names", lambda directory: True)
    for one, two in ((b"A", b"a"), ("é".encode(), "e\N{COMBINING ACUTE ACCENT}".encode())):
        archive = member(b"there/" + one) + member(b"there/" + two) + END
        with pytest.raises(DestinationError, match="differ only in case"):
            attempt(archive, place / "destination")
        assert os.listdir(place / "destination") == ["there"]
    monkeypatch.undo()
    attempt(member(b"there/A") + member(b"there/a") + END, place / "destination")
    assert len(os.listdir(place / "destination/there")) == 3


def test_a_directory_that_another_program_moves_away_ends_the_restore(tmp_path: Path) -> None:
    # Others can do that where the file system keeps no modes; ".." then leads to another place.
    path = b"/".join([b"d"] * 70)
    first = pax([(b"path", path + b"/file")]) + member(b"file", b"text")
    last = member(b"other", b"text") + END
    (tmp_path / "elsewhere").mkdir()

    class Moving(Pieces):
        moved = False

        def read(self, size: int, /) -> bytes:
            found = sorted((tmp_path / "out").glob(".bakthat-restore-*/tree/" + "d/" * 70))
            if found and not self.moved:
                self.moved = True
                inner = found[0]
                for _ in range(63):
                    inner = inner.parent
                inner.rename(tmp_path / "elsewhere/d")
            return super().read(size)

    source = Moving(first + last, 512)
    with pytest.raises(DestinationError, match="another program moved the directory 'd'"):
        extract(source, tmp_path / "out", report=ArchiveReport(), keep_going=True)
    assert source.moved
    assert not (tmp_path / "out").exists()
    assert os.listdir(tmp_path / "elsewhere") == ["d"]
