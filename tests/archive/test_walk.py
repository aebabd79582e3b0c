"""The walk over a tree: its entries, the excluded ones, and its warnings."""

from __future__ import annotations

import errno
import os
import stat
import time
from pathlib import Path
from typing import Any

import pytest

from bakthat.archive.create import walk as walk_module
from bakthat.archive.create.excludes import find_rules
from bakthat.archive.create.walk import (
    CACHE_SIGNATURE,
    DirectoryCache,
    Entry,
    Scan,
    WalkOptions,
    scan,
    walk,
)
from bakthat.archive.report import KEPT_WARNINGS, ArchiveReport
from bakthat.errors import SourceError
from bakthat.system.text import printable

pytestmark = pytest.mark.permissions


def grow(root: Path, *names: str) -> Path:
    """Make the files *names* below *root*, directories where a name ends in a slash."""
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if name.endswith("/"):
            path.mkdir(exist_ok=True)
        else:
            path.write_bytes(b"x" * 10)
    return root


def names(root: Path, options: WalkOptions | None = None) -> list[str]:
    report = ArchiveReport()
    found = [entry.name for entry in walk(root, options or WalkOptions(), report)]
    assert report.warnings == []
    return found


def test_a_directory_comes_before_its_contents_sorted_by_bytes(tmp_path: Path) -> None:
    grow(tmp_path, "b/x", "a-", "a/z", "a/b/c", "é", "\udcff", "\U0001f600", "Z")
    found = names(tmp_path)
    assert found == ["", "Z", "a", "a/b", "a/b/c", "a/z", "a-", "b", "b/x", "é", "😀", "\udcff"]


def test_entries_carry_their_path_and_status(tmp_path: Path) -> None:
    grow(tmp_path, "d/file")
    (tmp_path / "d/link").symlink_to("file")
    by_name = {e.name: e for e in walk(tmp_path, WalkOptions(), ArchiveReport())}
    assert by_name["d/file"].path == str(tmp_path / "d/file")
    assert by_name["d/file"].stat is None  # a regular file: not looked at before it is opened
    link = by_name["d/link"].stat
    assert link is not None
    assert stat.S_ISLNK(link.st_mode)


def test_links_below_the_root_are_not_followed(tmp_path: Path) -> None:
    outside = grow(tmp_path / "outside", "secret")
    root = grow(tmp_path / "root", "file")
    (root / "link").symlink_to(outside)
    (root / "loop").symlink_to(".")
    assert names(root) == ["", "file", "link", "loop"]


def test_a_root_that_is_a_link_is_followed(tmp_path: Path) -> None:
    root = grow(tmp_path / "root", "file")
    (tmp_path / "link").symlink_to(root)
    (tmp_path / "link to file").symlink_to(root / "file")
    assert names(tmp_path / "link") == ["", "file"]
    (only,) = walk(tmp_path / "link to file", WalkOptions(), ArchiveReport())
    assert only.stat is not None
    assert (only.name, only.stat.st_size) == ("", 10)


def test_a_tree_deeper_than_the_interpreters_stack_is_walked(tmp_path: Path) -> None:
    below = ["/d" * depth for depth in range(1, 1501)]
    for path in below:
        os.mkdir(f"{tmp_path}{path}")
    try:
        assert len(names(tmp_path)) == 1501
    finally:
        # Not left to shutil.rmtree, which does recurse.
        for path in reversed(below):
            os.rmdir(f"{tmp_path}{path}")


def test_what_is_excluded_is_neither_opened_nor_looked_at(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A mount whose server is gone may be among it, or below it: every call for one hangs.
    grow(tmp_path, "keep/a", "out/b", "out/c/d", "mount/e", "f.log", ".gitignore")
    (tmp_path / "dead").symlink_to("mount")
    (tmp_path / ".gitignore").write_text("out/\n!out/b\n/mount\n*.log\ndead\n")
    rules = find_rules(tmp_path)
    used: list[str] = []
    for module, call in ((walk_module, "_open_directory"), (os, "lstat"), (os, "stat")):
        real = getattr(module, call)

        def noted(path: Any, *args: Any, real: Any = real, **options: Any) -> Any:
            used.append(os.path.relpath(path, tmp_path) if isinstance(path, str) else "")
            return real(path, *args, **options)

        monkeypatch.setattr(module, call, noted)
    report = ArchiveReport()
    found = [entry.name for entry in walk(tmp_path, WalkOptions(rules=rules), report)]
    counted = scan(tmp_path, WalkOptions(rules=rules))
    monkeypatch.undo()
    assert found == ["", ".gitignore", "keep", "keep/a"]
    assert counted == Scan(files=2, directories=2, bytes=10 + 30)
    assert (report.excluded_files, report.excluded_directories) == (2, 2)
    assert "keep" in used
    assert not {path.partition("/")[0] for path in used} & {"out", "mount", "dead", "f.log"}


def test_an_entry_that_has_become_a_directory_since_it_was_listed_is_excluded_as_one(
    tmp_path: Path,
) -> None:
    grow(tmp_path, "a", "z/kept", ".gitignore")
    (tmp_path / "out").symlink_to("z")
    (tmp_path / ".gitignore").write_text("out/\n")
    report = ArchiveReport()
    entries = walk(tmp_path, WalkOptions(rules=find_rules(tmp_path)), report)
    found = [next(entries).name for _ in range(3)]
    (tmp_path / "out").unlink()
    grow(tmp_path, "out/secret")
    assert [*found, *(entry.name for entry in entries)] == ["", ".gitignore", "a", "z", "z/kept"]
    assert report.excluded_directories == 1


def test_only_the_tag_of_a_tagged_cache_is_kept(tmp_path: Path) -> None:
    grow(tmp_path, "cache/a", "cache/d/b", "other/c", "cache/CACHEDIR.TAG", "other/CACHEDIR.TAG")
    (tmp_path / "cache/CACHEDIR.TAG").write_bytes(CACHE_SIGNATURE + b"\n# why\n")
    kept = ["", "cache", "cache/CACHEDIR.TAG", "other", "other/CACHEDIR.TAG", "other/c"]
    assert names(tmp_path, WalkOptions(skip_caches=True)) == kept
    assert len(names(tmp_path)) == 9
    report = ArchiveReport()
    assert [entry.name for entry in walk(tmp_path, WalkOptions(skip_caches=True), report)] == kept
    assert (report.excluded_files, report.excluded_directories) == (1, 1)


@pytest.mark.parametrize("kind", ["fifo", "link", "directory", "short"])
def test_a_directory_with_an_invalid_tag_is_no_cache(tmp_path: Path, kind: str) -> None:
    grow(tmp_path, "data/precious")
    tag = tmp_path / "data/CACHEDIR.TAG"
    if kind == "fifo":
        os.mkfifo(tag)
    elif kind == "link":
        (tmp_path / "tag").write_bytes(CACHE_SIGNATURE)
        tag.symlink_to(tmp_path / "tag")
    elif kind == "directory":
        tag.mkdir()
    else:
        tag.write_bytes(CACHE_SIGNATURE[:-1])
    assert "data/precious" in names(tmp_path, WalkOptions(skip_caches=True))


def test_another_file_system_is_kept_as_an_empty_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    grow(tmp_path, "mount/file", "plain/file")
    mount = str(tmp_path / "mount")
    real = os.lstat

    def lstat(path: str) -> os.stat_result:
        status = real(path)
        if not path.startswith(mount):
            return status
        fields = list(status)
        fields[stat.ST_DEV] += 1
        return os.stat_result(fields)

    # No longer than needed: the removal of tmp_path uses it too.
    with monkeypatch.context() as patched:
        patched.setattr("bakthat.archive.create.walk.os.lstat", lstat)
        assert names(tmp_path, WalkOptions(one_file_system=True)) == [
            "", "mount", "plain", "plain/file",
        ]  # fmt: skip
        assert "mount/file" in names(tmp_path)


def test_scan_counts_what_will_be_stored(tmp_path: Path) -> None:
    grow(tmp_path, "a", "d/b", "out/c", "out/d/e", "f.log", ".gitignore")
    (tmp_path / ".gitignore").write_text("out\n*.log\n")
    os.link(tmp_path / "a", tmp_path / "d/again")
    (tmp_path / "d/link").symlink_to("b")
    with (tmp_path / "sparse").open("wb") as file:
        file.truncate(1 << 40)
        file.write(bytes(4096))
    assert scan(tmp_path, WalkOptions(rules=find_rules(tmp_path))) == Scan(
        files=6, directories=2, bytes=10 + 10 + 10 + 4096
    )


@pytest.mark.parametrize("excluded", ["cache", "zz"])
def test_content_whose_other_name_is_excluded_is_counted_where_it_is_stored(
    tmp_path: Path, excluded: str
) -> None:
    grow(tmp_path, f"{excluded}/a", "data/", ".gitignore")
    os.link(tmp_path / excluded / "a", tmp_path / "data/big")
    (tmp_path / ".gitignore").write_text(f"/{excluded}/\n")
    counted = scan(tmp_path, WalkOptions(rules=find_rules(tmp_path)))
    assert counted == Scan(files=2, directories=2, bytes=10 + len(excluded) + 3)


def test_scan_of_a_file_counts_that_file(tmp_path: Path) -> None:
    grow(tmp_path, "a")
    assert scan(tmp_path / "a", WalkOptions()) == Scan(files=1, bytes=10)


@pytest.mark.parametrize("seconds_ago", [0, 1, 3600])
def test_a_listing_is_kept_only_where_a_later_change_would_show(
    tmp_path: Path, seconds_ago: int
) -> None:
    # File systems count time in steps: within one, a directory changes without another time.
    now = time.time_ns()
    status = os.stat(tmp_path)
    times = {"st_mtime_ns": now - seconds_ago * 10**9, "st_ctime_ns": now - seconds_ago * 10**9}
    cache = DirectoryCache()
    cache.keep(status_with_times := os.stat_result(tuple(status), times), ["a"], {})
    assert (cache.take(status_with_times) is not None) == (seconds_ago == 3600)


def test_scan_does_not_warn_about_unreadable_entries(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    grow(tmp_path, "a", "locked/b")
    refuse_directory(monkeypatch, tmp_path / "locked")
    assert scan(tmp_path, WalkOptions()) == Scan(files=1, directories=2, bytes=10)
    assert caplog.records == []


def refuse_directory(monkeypatch: pytest.MonkeyPatch, refused: Path) -> None:
    # The tests may run as root, whom no permission stops.
    real = walk_module._open_directory

    def open_directory(path: str) -> int:
        if path == str(refused):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), path)
        return real(path)

    monkeypatch.setattr(walk_module, "_open_directory", open_directory)


def test_a_directory_that_cannot_be_listed_is_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    grow(tmp_path, "a", "locked/b", "z")
    refuse_directory(monkeypatch, tmp_path / "locked")
    report = ArchiveReport()
    found = [entry.name for entry in walk(tmp_path, WalkOptions(), report)]
    assert found == ["", "a", "locked", "z"]
    assert report.warnings == [
        f"{tmp_path}/locked: cannot list this directory: permission denied; "
        "its contents are not stored"
    ]


def test_a_directory_that_vanishes_is_a_warning(tmp_path: Path) -> None:
    grow(tmp_path, "a", "c")
    (tmp_path / "b").mkdir()
    report = ArchiveReport()
    entries = walk(tmp_path, WalkOptions(), report)
    found = [next(entries).name, next(entries).name]
    (tmp_path / "b").rmdir()
    assert [*found, *(entry.name for entry in entries)] == ["", "a", "c"]
    assert report.warnings == [f"{tmp_path}/b: vanished before it was read; it is not stored"]


def test_a_directory_that_becomes_a_link_is_not_followed(tmp_path: Path) -> None:
    secret = grow(tmp_path / "outside", "secret")
    root = grow(tmp_path / "root", "d/file")
    report = ArchiveReport()
    entries = walk(root, WalkOptions(), report)
    seen: list[Entry] = [next(entries), next(entries)]
    (root / "d/file").unlink()
    (root / "d").rmdir()
    (root / "d").symlink_to(secret)
    seen.extend(entries)
    assert [entry.name for entry in seen] == ["", "d"]
    assert report.warning_count == 1
    assert "cannot list this directory: not a directory" in report.warnings[0]


@pytest.mark.parametrize("name", ["missing", "dangling", "loop", "fifo"])
def test_a_root_that_cannot_be_backed_up_is_an_error(tmp_path: Path, name: str) -> None:
    (tmp_path / "dangling").symlink_to("nowhere")
    (tmp_path / "loop").symlink_to("loop")
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(SourceError) as caught:
        list(walk(tmp_path / name, WalkOptions(), ArchiveReport()))
    assert str(tmp_path / name) in str(caught.value)
    assert caught.value.hint
    with pytest.raises(SourceError):
        scan(tmp_path / name, WalkOptions())


def test_a_root_that_cannot_be_read_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    grow(tmp_path, "a")
    refuse_directory(monkeypatch, tmp_path)
    with pytest.raises(SourceError, match="permission denied"):
        list(walk(tmp_path, WalkOptions(), ArchiveReport()))


def test_a_report_keeps_a_bounded_number_of_warnings(caplog: pytest.LogCaptureFixture) -> None:
    report = ArchiveReport()
    for number in range(KEPT_WARNINGS + 5):
        report.warn(f"warning {number}")
    assert report.warning_count == KEPT_WARNINGS + 5
    assert report.warnings == [f"warning {number}" for number in range(KEPT_WARNINGS)]
    assert len(caplog.records) == KEPT_WARNINGS + 5
    assert {record.name for record in caplog.records} == {"bakthat.archive"}


def test_names_are_shown_in_one_line_that_can_be_encoded() -> None:
    assert printable("/a/é b") == "/a/é b"
    assert printable("/a/\udcff\n\x1b[31m") == r"/a/\xff\n\x1b[31m"
