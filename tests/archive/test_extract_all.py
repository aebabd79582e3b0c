"""Several archives unpacked into one tree, which is published once."""

from __future__ import annotations

import os
import stat
from collections.abc import Collection, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path

import pytest

from bakthat.archive.extract.selection import Selection
from bakthat.archive.extract.unpack import Reading, extract_all
from bakthat.archive.report import ArchiveReport
from bakthat.errors import CorruptArchiveError, NoMatchError
from tests.support.entries import EntryList, entries_of
from tests.support.needs import as_root
from tests.support.tar_bytes import END, Pieces, as_nobody, header, member, pax, reachable_directory

pytestmark = pytest.mark.permissions

ACL = b"\2\0\0\0\1\0\7\0\xff\xff\xff\xff\4\0\5\0\xff\xff\xff\xff \0\5\0\xff\xff\xff\xff"
DEFAULT_ACL = "system.posix_acl_default"
CLOSED = (
    pax([(b"mtime", b"5.5"), (b"SCHILY.xattr.system.posix_acl_default", ACL)])
    + header(b"top/closed", b"5", mode=0)
    + pax([(b"mtime", b"6.25")])
    + header(b"top/closed/inner", b"5", mode=0o500)
    + member(b"top/closed/inner/one", b"1")
    + END
)
"""A directory that nobody may enter, and one in it that nobody may change."""


def readings(*archives: bytes) -> Iterator[AbstractContextManager[Reading]]:
    before = 0
    for archive in archives:
        yield nullcontext(Reading(Pieces(archive), before=before))
        before += len(archive)


def restore(destination: Path, *archives: bytes) -> ArchiveReport:
    report = ArchiveReport()
    extract_all(readings(*archives), destination, report=report)
    assert not list(destination.glob(".bakthat-restore-*"))
    return report


def check_closed(destination: Path) -> None:
    closed = destination / "top" / "closed"
    assert (stat.S_IMODE(closed.stat().st_mode), closed.stat().st_mtime_ns) == (0, 5_500_000_000)
    closed.chmod(0o700)
    assert os.listxattr(closed) == [DEFAULT_ACL]
    inner = (closed / "inner").stat()
    assert (stat.S_IMODE(inner.st_mode), inner.st_mtime_ns) == (0o500, 6_250_000_000)
    assert os.listxattr(closed / "inner") == []
    for name, content in (("one", "1"), ("two", "2")):
        assert (closed / "inner" / name).read_text() == content
        assert os.listxattr(closed / "inner" / name) == []
    assert (closed / "three").read_text() == "3"
    assert os.listxattr(closed / "three") == []


LATER = member(b"top/closed/inner/two", b"2") + END, member(b"top/closed/three", b"3") + END


def test_a_finished_directory_keeps_its_metadata_when_a_later_archive_fills_it(
    tmp_path: Path,
) -> None:
    report = restore(tmp_path, CLOSED, *LATER)
    check_closed(tmp_path)
    assert (report.files, report.directories, report.bytes) == (3, 2, 3)


@as_root
def test_a_user_restores_closed_directories_from_several_archives() -> None:
    with reachable_directory(65534) as shared:

        def restored() -> list[str]:
            warnings = restore(shared, CLOSED, *LATER).warnings
            check_closed(shared)
            return warnings

        assert as_nobody(restored) == []


def test_a_directory_gets_its_metadata_from_a_later_archive_than_what_is_in_it(
    tmp_path: Path,
) -> None:
    """The full has the files, and an increment the directory, whose listing changed."""
    files = member(b"d/e/old", b"1") + END
    directories = (
        pax([(b"mtime", b"7.5")])
        + header(b"d", b"5", mode=0o750)
        + header(b"d/e", b"5", mode=0o500, mtime=8)
        + END
    )
    restore(tmp_path, files, directories, member(b"d/e/new", b"2") + END)
    d, e = (tmp_path / "d").stat(), (tmp_path / "d/e").stat()
    assert (d.st_mtime_ns, e.st_mtime_ns) == (7_500_000_000, 8_000_000_000)
    assert (stat.S_IMODE(d.st_mode), stat.S_IMODE(e.st_mode)) == (0o750, 0o500)
    assert sorted(os.listdir(tmp_path / "d/e")) == ["new", "old"]


def test_directories_that_are_there_get_the_metadata_of_any_of_the_archives(tmp_path: Path) -> None:
    (tmp_path / "d").mkdir(mode=0o700)
    restore(tmp_path, member(b"d/old", b"1") + END, header(b"d", b"5", mode=0o750, mtime=8) + END)
    assert stat.S_IMODE((tmp_path / "d").stat().st_mode) == 0o750
    assert (tmp_path / "d").stat().st_mtime == 8


def test_a_hard_link_is_to_what_an_earlier_archive_has(tmp_path: Path) -> None:
    link = header(b"b", b"1", linkname=b"a/file") + END
    restore(tmp_path, member(b"a/file", b"content") + END, link)
    assert (tmp_path / "b").samefile(tmp_path / "a/file")


def test_nothing_appears_when_a_later_archive_is_damaged(tmp_path: Path) -> None:
    with pytest.raises(CorruptArchiveError):
        restore(tmp_path, member(b"a", b"1") + END, member(b"b", b"2"))
    assert list(tmp_path.iterdir()) == []


def test_each_archive_is_opened_when_the_one_before_it_was_read(tmp_path: Path) -> None:
    opened: list[str] = []

    @contextmanager
    def watched(name: str, archive: bytes) -> Iterator[Reading]:
        opened.append(f"open {name}")
        source = Pieces(archive)
        yield Reading(source)
        assert source.drained
        opened.append(f"close {name}")

    both = [watched("a", member(b"a", b"1") + END), watched("b", member(b"b", b"2") + END)]
    extract_all(both, tmp_path, report=ArchiveReport())
    assert opened == ["open a", "close a", "open b", "close b"]


def test_the_content_of_a_link_to_what_was_not_chosen_comes_from_its_archive(
    tmp_path: Path,
) -> None:
    first = member(b"top/a", b"of the first") + member(b"top/b", b"other") + END
    second = (
        header(b"top/c", b"1", linkname=b"top/a") + header(b"top/d", b"1", linkname=b"top/a") + END
    )
    asked: list[Collection[bytes]] = []

    def again(paths: Collection[bytes]) -> Iterator[AbstractContextManager[Reading]]:
        asked.append(paths)
        return readings(first)

    selection = Selection(["c", "d"])
    found = EntryList([*entries_of(first), *entries_of(second)])
    assert [each.path for each in selection.entries(found)] == ["top/c", "top/d"]
    extract_all(
        readings(first, second),
        tmp_path,
        report=ArchiveReport(),
        selection=selection,
        read_again=again,
    )
    assert asked == [[b"top/a"]]
    assert sorted(os.listdir(tmp_path / "top")) == ["c", "d"]
    assert (tmp_path / "top/c").read_text() == "of the first"
    assert (tmp_path / "top/c").samefile(tmp_path / "top/d")


def test_without_another_reading_such_a_link_is_an_error(tmp_path: Path) -> None:
    first = member(b"top/a", b"1") + END
    second = header(b"top/c", b"1", linkname=b"top/a") + END
    selection = Selection(["c"])
    list(selection.entries(EntryList([*entries_of(first), *entries_of(second)])))
    with pytest.raises(NoMatchError, match="another name of 'top/a'"):
        extract_all(readings(first, second), tmp_path, report=ArchiveReport(), selection=selection)
