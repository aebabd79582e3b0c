"""The cache of indexes on this machine."""

from __future__ import annotations

import os
import stat
import tempfile
import time
from pathlib import Path

import pytest

from bakthat import models
from bakthat.errors import CorruptIndexError, DestinationError
from bakthat.session.indexes import cache
from bakthat.session.indexes.cache import IndexCache, forget_index, remember_index
from bakthat.system.streams import Sink

CONTENT = bytes(range(256)) * 5000


def entry(name: str = "mydir.20260901030000.tgz", container: str = "/store") -> models.Backups:
    return models.Backups(
        backend="local", backend_hash=models.backend_hash(container), stored_filename=name
    )


def fill(sink: Sink, content: bytes = CONTENT) -> None:
    for start in range(0, len(content), 1000):
        sink.write(content[start : start + 1000])


def content_of(of: IndexCache, backup: models.Backups) -> bytes | None:
    found = of.open(backup)
    if found is None:
        return None
    with found:
        return found.read_at(0, found.size)


def files_in(directory: Path) -> list[Path]:
    """Return the files of the cache, without the mark that it is one."""
    return [each for each in directory.iterdir() if each.name != "CACHEDIR.TAG"]


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "cache" / "bakthat"


def test_the_directory_is_marked_as_a_cache(directory: Path) -> None:
    IndexCache(directory).keep(entry(), fill).close()
    tag = (directory / "CACHEDIR.TAG").read_text()
    assert tag == "Signature: 8a477f597d28d172789f06886806bc55\n"


def test_an_index_is_kept_for_its_archive_alone(directory: Path) -> None:
    of = IndexCache(directory)
    assert of.open(entry()) is None
    with of.keep(entry(), fill) as kept:
        assert kept.read_at(0, kept.size) == CONTENT
        assert kept.read_at(77, 3) == CONTENT[77:80]
    assert content_of(of, entry()) == CONTENT
    assert of.open(entry(container="/other")) is None
    assert of.open(entry("mydir.20260902030000.tgz")) is None
    of.remember(entry(), lambda sink: fill(sink, b"another"))
    assert content_of(of, entry()) == b"another"
    of.forget([entry(), entry("never")])
    assert of.open(entry()) is None
    assert files_in(directory) == []


def test_only_the_user_can_read_it(directory: Path) -> None:
    of = IndexCache(directory)
    of.remember(entry(), fill)
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700
    assert [stat.S_IMODE(each.stat().st_mode) for each in files_in(directory)] == [0o600]


@pytest.mark.parametrize("at", [0, 999_999, -1])
def test_an_altered_file_is_not_used(directory: Path, at: int) -> None:
    of = IndexCache(directory)
    of.remember(entry(), fill)
    (path,) = files_in(directory)
    content = bytearray(path.read_bytes())
    content[at] ^= 1
    path.write_bytes(content)
    assert of.open(entry()) is None
    path.write_bytes(content[:20])
    assert of.open(entry()) is None
    path.write_bytes(b"")
    assert of.open(entry()) is None


def test_a_file_that_is_truncated_while_it_is_read_is_damaged(directory: Path) -> None:
    with IndexCache(directory).keep(entry(), fill) as kept:
        (path,) = files_in(directory)
        os.truncate(path, 100)
        with pytest.raises(CorruptIndexError, match="the index in the cache is truncated"):
            kept.read_at(0, kept.size)


def test_a_file_of_somebody_else_is_not_used(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    of = IndexCache(directory)
    of.remember(entry(), fill)
    monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)
    assert of.open(entry()) is None


def test_a_link_is_not_followed(directory: Path, tmp_path: Path) -> None:
    of = IndexCache(directory)
    of.remember(entry(), fill)
    (path,) = files_in(directory)
    path.rename(tmp_path / "moved")
    path.symlink_to(tmp_path / "moved")
    assert of.open(entry()) is None


def test_what_was_not_used_for_the_longest_time_goes_first(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cache, "MAX_BYTES", 3 * len(CONTENT))
    of = IndexCache(directory)
    for name in "abc":
        of.remember(entry(name), fill)
        if name == "b":
            assert content_of(of, entry("a")) == CONTENT  # two fit, with their hashes
        for path in files_in(directory):  # as if a day had passed
            before = path.stat().st_mtime
            os.utime(path, (before - 86400, before - 86400))
        if name == "b":
            assert content_of(of, entry("a")) == CONTENT
    assert [content_of(of, entry(name)) for name in "abc"] == [CONTENT, None, CONTENT]


def test_what_a_killed_process_left_behind_goes_after_a_day(directory: Path) -> None:
    directory.mkdir(parents=True)
    for name, age in (("old.tmp", 2 * 86400), ("new.tmp", 60)):
        (directory / name).touch()
        os.utime(directory / name, (time.time() - age,) * 2)
    of = IndexCache(directory)
    of.remember(entry(), fill)
    assert sorted(path.suffix for path in files_in(directory)) == [".index", ".tmp"]


def test_without_a_cache_the_index_is_in_a_temporary_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()
    (tmp_path / "file").touch()
    of = IndexCache(tmp_path / "file" / "bakthat")
    of.remember(entry(), fill)
    with of.keep(entry(), fill) as kept:
        assert kept.read_at(0, kept.size) == CONTENT
    assert of.open(entry()) is None
    assert os.listdir(tmp_path / "temporary") == []
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "missing"))
    with pytest.raises(DestinationError, match="cannot write a temporary file for an index"):
        of.keep(entry(), fill)


def test_an_index_that_is_larger_than_the_cache_is_not_kept(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cache, "MAX_BYTES", 1000)
    of = IndexCache(directory)
    with of.keep(entry(), fill) as kept:
        assert kept.read_at(0, kept.size) == CONTENT
    assert files_in(directory) == []


def test_an_error_of_the_one_who_writes_leaves_nothing(directory: Path) -> None:
    def fail(sink: Sink) -> None:
        sink.write(b"half of it")
        raise OSError("the storage failed")

    of = IndexCache(directory)
    for put in (of.keep, of.remember):
        with pytest.raises(OSError, match="the storage failed"):
            put(entry(), fail)
    assert files_in(directory) == []


def test_the_user_may_choose_where_it_is(
    isolated_environment: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    remember_index(entry(), fill)
    assert len(files_in(isolated_environment / ".cache" / "bakthat")) == 1
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "mine"))
    remember_index(entry(), fill)
    assert len(files_in(tmp_path / "mine" / "bakthat")) == 1
    forget_index([entry()])
    assert files_in(tmp_path / "mine" / "bakthat") == []
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")  # which the specification says to ignore
    assert content_of(IndexCache(), entry()) == CONTENT


def test_without_a_home_directory_there_is_no_cache(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(os.path, "expanduser", lambda path: path)
    remember_index(entry(), fill)
    assert IndexCache().open(entry()) is None
    assert os.listdir(tmp_path) == []
