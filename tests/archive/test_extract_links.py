"""Hard links that are restored without their first name, and links that become copies."""

from __future__ import annotations

import errno
import os
import subprocess
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bakthat.archive.extract import links
from bakthat.archive.extract.selection import Selection
from bakthat.archive.extract.unpack import Reading, extract
from bakthat.archive.report import ArchiveReport
from bakthat.errors import CorruptArchiveError, NoMatchError
from tests.support.tar_bytes import END, Pieces, header, member, snapshot


def restore_only(archive: bytes, out: Path, *paths: str, again: bytes | None = None) -> list[bool]:
    """Restore *paths*; *again* is what a second reading finds. Return whether each was read."""
    drained = []

    @contextmanager
    def read_again(_: Collection[bytes]) -> Iterator[Reading]:
        source = Pieces(archive if again is None else again)
        yield Reading(source)
        drained.append(source.drained)

    extract(
        Pieces(archive),
        out,
        report=ArchiveReport(),
        selection=Selection(paths),
        read_again=read_again,
    )
    return drained


def link(name: bytes, target: bytes) -> bytes:
    return header(name, b"1", linkname=target)


def files(root: Path) -> dict[str, str]:
    return {
        str(path.relative_to(root)): path.read_text() for path in root.rglob("*") if path.is_file()
    }


@pytest.mark.needs("GNU tar")
@pytest.mark.parametrize("form", ["v7", "gnu", "posix"])
def test_the_content_comes_back_under_the_chosen_name(form: str, tmp_path: Path) -> None:
    tree = tmp_path / "d"
    (tree / "a").mkdir(parents=True)
    (tree / "b").mkdir()
    (tree / "a/first").write_text("content")
    for name in ("b/second", "b/third"):
        os.link(tree / "a/first", tree / name)
    (tree / "b").chmod(0o750)
    command = ["tar", f"--format={form}", "--sort=name", "-C", str(tmp_path), "-cf", "-", "d"]
    archive = subprocess.run(command, capture_output=True, check=True).stdout
    assert restore_only(archive, tmp_path / "out", "b") == [True]
    found, wanted = snapshot(tmp_path / "out/d/b"), snapshot(tree / "b")
    if form != "posix":  # times in seconds
        found, wanted = ({k: v[:1] + v[2:] for k, v in each.items()} for each in (found, wanted))
    assert found == wanted


def test_the_archive_is_not_read_again_where_no_link_needs_it(tmp_path: Path) -> None:
    archive = member(b"a", b"text") + link(b"b", b"a") + END
    assert restore_only(archive, tmp_path / "out", "a") == []
    assert restore_only(archive, tmp_path / "out", "a", "b") == []


def test_the_content_is_that_of_the_last_member_before_the_link(tmp_path: Path) -> None:
    archive = member(b"a", b"old") + member(b"a", b"now") + link(b"b", b"a")
    archive += member(b"a", b"later") + END
    restore_only(archive, tmp_path / "out", "b")
    assert files(tmp_path / "out") == {"b": "now"}


def test_a_later_member_takes_the_place_of_the_link(tmp_path: Path) -> None:
    archive = member(b"a", b"old") + link(b"d/b", b"a") + link(b"d/c", b"d/b")
    archive += member(b"d/b", b"later") + END
    restore_only(archive, tmp_path / "out", "d")
    assert files(tmp_path / "out") == {"d/b": "later", "d/c": "old"}


@st.composite
def archives(draw: st.DrawFn) -> list[tuple[str, str]]:
    """Members that are files with a content, and links to earlier names."""
    found: list[tuple[str, str]] = []
    for number in range(draw(st.integers(1, 8))):
        name = f"{draw(st.sampled_from('pq'))}/{draw(st.sampled_from('abc'))}"
        earlier = sorted({each for each, _ in found} - {name})
        target = draw(st.sampled_from(["", *earlier]))
        found.append((name, target or f"content {number}"))
    return found


@settings(max_examples=200, deadline=None)
@given(archives())
@pytest.mark.slow
def test_a_part_holds_what_the_whole_holds_there(
    tmp_path_factory: pytest.TempPathFactory, described: list[tuple[str, str]]
) -> None:
    whole, part = tmp_path_factory.mktemp("whole"), tmp_path_factory.mktemp("part")
    # Only links to files, as every known tar writes them.
    linked = {name for name, text in described if not text.startswith("content")}
    described = [pair for pair in described if pair[1] not in linked]
    archive = END
    blocks = [
        member(name.encode(), text.encode())
        if text.startswith("content")
        else link(name.encode(), text.encode())
        for name, text in described
    ]
    archive = b"".join(blocks) + END
    extract(Pieces(archive), whole, report=ArchiveReport())
    if not any(name.startswith("p/") for name, _ in described):
        return
    restore_only(archive, part, "p")
    assert files(part) == {k: v for k, v in files(whole).items() if k.startswith("p/")}


@pytest.mark.parametrize(
    ("archive", "error", "message"),
    [
        (link(b"b", b"a"), CorruptArchiveError, "'b' needs 'a', which the archive does not hold"),
        (link(b"b", b"a") + member(b"a"), CorruptArchiveError, "does not hold before it"),
        (member(b"a/") + link(b"b", b"a"), CorruptArchiveError, "'b' is to the directory 'a/'"),
        (
            member(b"z") + link(b"a", b"z") + link(b"b", b"a"),
            NoMatchError,
            "'b' is another name of 'a', which is another name of 'z'",
        ),
    ],
)
def test_a_link_without_content_is_an_error(
    archive: bytes, error: type[Exception], message: str, tmp_path: Path
) -> None:
    with pytest.raises(error, match=message):
        restore_only(archive + END, tmp_path / "out", "b")
    assert not (tmp_path / "out").exists()


def test_a_second_reading_that_is_damaged_restores_nothing(tmp_path: Path) -> None:
    archive = member(b"a", b"text") + link(b"b", b"a")
    for damaged in (archive, member(b"other") + END):
        with pytest.raises(CorruptArchiveError):
            restore_only(archive + END, tmp_path / "out", "b", again=damaged)
        assert not (tmp_path / "out").exists()


def test_without_a_second_reading_the_error_names_the_first_name(tmp_path: Path) -> None:
    archive = member(b"a", b"text") + link(b"b", b"a") + END
    with pytest.raises(NoMatchError, match="'b' is another name of 'a', which was not chosen"):
        extract(
            Pieces(archive), tmp_path / "out", report=ArchiveReport(), selection=Selection(["b"])
        )


def test_links_that_wait_are_limited(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(links, "MAX_DEFERRED", 2)
    archive = member(b"a") + b"".join(link(b"d/%d" % number, b"a") for number in range(3)) + END
    with pytest.raises(NoMatchError, match="more than 2 chosen hard links"):
        restore_only(archive, tmp_path / "out", "d")


@pytest.mark.parametrize("code", [errno.EPERM, errno.ENOTSUP, errno.EMLINK, errno.ENOSYS])
def test_links_that_cannot_be_made_become_copies(
    code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = tmp_path / "source"
    source.mkdir()
    with (source / "a").open("wb") as stream:
        stream.seek(5 << 20)
        stream.write(b"middle")
        stream.truncate(20 << 20)
    os.setxattr(source / "a", "user.note", b"kept")
    (source / "a").chmod(0o004)
    os.symlink("nowhere", source / "s")
    os.mkfifo(source / "f", 0o620)
    for name in "asf":
        os.utime(source / name, ns=(1, 1_600_000_000_123_456_789), follow_symlinks=False)
        for copy in (f"{name}1", f"d/{name}2"):
            (source / "d").mkdir(exist_ok=True)
            os.link(source / name, source / copy, follow_symlinks=False)
    command = ["tar", "--format=posix", "--xattrs", "--sparse", "--sort=name", "-cf", "-", "."]
    archive = subprocess.run(command, cwd=source, capture_output=True, check=True).stdout

    def refuse(*_arguments: object, **_keywords: object) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "link", refuse)
    report = ArchiveReport()
    extract(Pieces(archive), tmp_path / "out", report=report)
    found, wanted = snapshot(tmp_path / "out"), snapshot(source)
    del found["d"], wanted["d"]
    assert {k: v[:-1] for k, v in found.items()} == {k: v[:-1] for k, v in wanted.items()}
    assert (tmp_path / "out/d/a2").stat().st_blocks * 512 < 2 << 20
    [warning] = report.warnings
    assert "not a hard link: " in warning
    assert warning.endswith(", and 3 more")
    assert report.files == 9
