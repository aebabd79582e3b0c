"""Restoring with the index of a backup: parts, checks, and indexes that are wrong or missing."""

from __future__ import annotations

import hashlib
import logging
import os
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import bakthat
from bakthat.errors import CorruptArchiveError, NoMatchError
from bakthat.pipeline import parts
from tests.crypto.test_age import IDENTITY, RECIPIENT
from tests.support.changed_indexes import (
    Contents,
    change_index,
    index_path,
    replaced,
)
from tests.support.indexes import forget_cache
from tests.support.legacy import PASSWORD, beefish, tarball
from tests.support.profiles import Conf
from tests.support.trees import fingerprint, make_every_kind

MIB = 1024 * 1024


@pytest.fixture
def stored(local: Conf, tmp_path: Path) -> str:
    """Back up a tree that is stored in some megabytes, and return its stored filename."""
    tree = tmp_path / "mydir"
    (tree / "etc").mkdir(parents=True)
    noise = random.Random(1)
    for number in range(6):
        (tree / f"large{number}").write_bytes(noise.randbytes(MIB))
    for name in ("etc/hosts", "etc/hosts.bak", "z"):
        (tree / name).write_text(name)
    os.link(tree / "etc/hosts", tree / "linked")
    return str(bakthat.backup(tree, conf=local, password="").stored_filename)


@pytest.fixture
def downloads(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int, int | None]]:
    """Collect the key, the start and the end of each download from the local store."""
    from bakthat.backends.local.backend import LocalBackend

    calls: list[tuple[str, int, int | None]] = []
    real = LocalBackend.download

    def download(self: LocalBackend, key: str, *, start: int = 0, end: int | None = None) -> Any:
        calls.append((key, start, end))
        return real(self, key, start=start, end=end)

    monkeypatch.setattr(LocalBackend, "download", download)
    return calls


def restored(directory: Path) -> set[str]:
    return {str(each.relative_to(directory)) for each in directory.rglob("*") if not each.is_dir()}


def test_only_the_wanted_parts_are_read(
    stored: str, local: Conf, tmp_path: Path, downloads: list[tuple[str, int, int | None]]
) -> None:
    seen: list[tuple[int, int]] = []
    bakthat.restore(
        stored,
        conf=local,
        output=tmp_path / "out",
        only=["linked", "large3", "host*.bak"],
        progress=lambda done, total: seen.append((done, total)),
    )
    assert restored(tmp_path / "out") == {
        "mydir/linked",
        "mydir/large3",
        "mydir/etc/hosts.bak",
    }
    assert (tmp_path / "out/mydir/linked").read_text() == "etc/hosts"
    ranges = [(start, end) for key, start, end in downloads if key == stored]
    assert all(end is not None for _, end in ranges)
    assert sum(end - start for start, end in ranges if end) < 3 * MIB
    assert seen[-1][0] == seen[-1][1]


@pytest.mark.usefixtures("cheap_passphrases")
@pytest.mark.parametrize("kind", ["plain", "passphrase", "recipients", "not compressed"])
def test_a_part_comes_back_from_every_storage(kind: str, conf: Conf, tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    (tree / "sub").mkdir(parents=True)
    noise = random.Random(5)
    for number in range(5):
        (tree / f"large{number}").write_bytes(noise.randbytes(MIB + number))
    (tree / "sub/small").write_text("small")
    os.link(tree / "sub/small", tree / "a link")
    (tmp_path / "key.txt").write_text(IDENTITY)
    password = "secret" if kind == "passphrase" else ""
    if kind == "recipients":
        conf = {**conf, "recipients": [RECIPIENT], "identity_file": str(tmp_path / "key.txt")}
    elif kind == "not compressed":
        conf = {**conf, "compress": False}
    options: dict[str, Any] = {"conf": conf}
    options |= {} if kind == "recipients" else {"password": password}
    name = bakthat.backup(tree, **options).stored_filename
    for number, is_cached in enumerate((True, False)):
        if not is_cached:
            forget_cache()
        out = tmp_path / f"out{number}"
        bakthat.restore(name, output=out, only=["sub", "large3"], **options)
        assert restored(out) == {"tree/sub/small", "tree/large3"}
        assert (out / "tree/large3").read_bytes() == (tree / "large3").read_bytes()
        assert (out / "tree/sub/small").read_text() == "small"
        assert (out / "tree/sub").stat().st_mtime_ns == (tree / "sub").stat().st_mtime_ns
        bakthat.restore(name, output=tmp_path / f"all{number}", **options)
        assert fingerprint(tmp_path / f"all{number}/tree") == fingerprint(tree)


def test_all_of_it_is_read_where_most_is_wanted(
    stored: str, local: Conf, tmp_path: Path, downloads: list[tuple[str, int, int | None]]
) -> None:
    bakthat.restore(stored, conf=local, output=tmp_path / "out", only=["!*.bak"])
    assert [call for call in downloads if call[0] == stored] == [(stored, 0, None)]
    assert len(restored(tmp_path / "out")) == 9


def test_an_archive_without_an_index_is_read_front_to_back(
    stored: str,
    local: Conf,
    tmp_path: Path,
    downloads: list[tuple[str, int, int | None]],
    caplog: pytest.LogCaptureFixture,
) -> None:
    index_path(local, stored).unlink()
    forget_cache()
    with caplog.at_level(logging.INFO, "bakthat"):
        bakthat.restore(stored, conf=local, output=tmp_path / "out", only=["etc/host*", "z"])
    assert restored(tmp_path / "out") == {"mydir/etc/hosts", "mydir/etc/hosts.bak", "mydir/z"}
    assert [call for call in downloads if call[0] == stored] == [(stored, 0, None)]
    assert caplog.text.count("has no index") == 1
    assert "bakthat sync --indexes makes one" in caplog.text


def test_a_full_restore_does_not_ask_for_an_index_that_is_not_there(
    stored: str, local: Conf, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    index_path(local, stored).unlink()
    forget_cache()
    with caplog.at_level(logging.INFO, "bakthat"):
        bakthat.restore(stored, conf=local, output=tmp_path / "out")
    assert len(restored(tmp_path / "out")) == 10
    assert "index" not in caplog.text


def damaged(change: Callable[[bytes], bytes]) -> Callable[[Path], object]:
    return lambda path: path.write_bytes(change(path.read_bytes()))


DAMAGE: dict[str, Callable[[Path], object]] = {
    "empty": damaged(lambda data: b""),
    "cut off": damaged(lambda data: data[:-100]),
    "front missing": damaged(lambda data: data[100:]),
    "segment altered": damaged(lambda data: data[:700] + bytes(40) + data[740:]),
    "footer altered": damaged(lambda data: data[:-90] + bytes(20) + data[-70:]),
    "noise": damaged(lambda data: random.Random(3).randbytes(len(data))),
}


@pytest.mark.parametrize("what", DAMAGE)
@pytest.mark.parametrize("only", [[], ["etc"], ["*.bak"]])
def test_a_damaged_index_is_a_warning_and_not_used(
    what: str,
    only: list[str],
    stored: str,
    local: Conf,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    DAMAGE[what](index_path(local, stored))
    forget_cache()
    with caplog.at_level(logging.INFO, "bakthat"):
        found = bakthat.restore(stored, conf=local, output=tmp_path / "out", only=only)
    assert found is not None
    assert found.is_complete
    wanted = {"mydir/etc/hosts", "mydir/etc/hosts.bak"}
    if only:
        assert restored(tmp_path / "out") == (wanted if only == ["etc"] else wanted - {min(wanted)})
    else:
        assert len(restored(tmp_path / "out")) == 10
    warnings = [each.getMessage() for each in caplog.records if each.levelname == "WARNING"]
    assert len(warnings) == 1
    assert warnings[0].startswith(f"the index of {stored} ")


@pytest.mark.slow
def test_an_encrypted_index_that_is_damaged_where_it_is_read_is_not_used(
    local: Conf, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    tree = tmp_path / "mydir"
    tree.mkdir()
    noise = random.Random(4)
    for _ in range(2000):
        (tree / noise.randbytes(120).hex()).touch()
    stored = bakthat.backup(tree, conf=local, recipients=[RECIPIENT]).stored_filename
    path = index_path(local, stored)
    data = bytearray(path.read_bytes())
    assert len(data) > 4 * 65536
    data[100_000] ^= 1  # not in the chunks with its header and its footer
    path.write_bytes(data)
    forget_cache()
    monkeypatch.setattr("bakthat.session.indexes.opening.WHOLE_BYTES", 0)
    (tmp_path / "key").write_text(IDENTITY)
    found = bakthat.restore(
        stored,
        conf=local,
        output=tmp_path / "out",
        only=[each.name for each in tree.iterdir()],
        identity_file=tmp_path / "key",
    )
    assert found is not None
    assert len(restored(tmp_path / "out")) == 2000
    assert f"the index of {stored} is damaged: the age file is altered" in caplog.text
    assert "so it is not used" in caplog.text


def change_entry(which: str, **fields: Any) -> Callable[[Contents], object]:
    def change(contents: Contents) -> None:
        contents.entries = replaced(contents.entries, which, **fields)

    return change


def drop_entry(path: str) -> Callable[[Contents], object]:
    def change(contents: Contents) -> None:
        contents.entries = [entry for entry in contents.entries if entry.path != path]

    return change


def add_entry(contents: Contents) -> None:
    last = contents.entries[-1]
    added = last._replace(path="mydir/zz", position=last.end)
    contents.entries.append(added)
    contents.tar_bytes = max(contents.tar_bytes, added.end + 1024)


def shift(contents: Contents) -> None:
    contents.entries = [each._replace(position=each.position + 512) for each in contents.entries]
    contents.tar_bytes += 512


HOSTILE: dict[str, Callable[[Contents], object]] = {
    "content": change_entry("mydir/z", digest=hashlib.sha256(b"other").digest()),
    "mode": change_entry("mydir/z", mode=0o4755),
    "owner": change_entry("mydir/z", uid=12345),
    "time": change_entry("mydir/z", mtime_ns=1),
    "path": change_entry("mydir/z", path="mydir/y"),
    "missing": drop_entry("mydir/etc/hosts"),
    "additional": add_entry,
    "shifted": shift,
}


@pytest.mark.parametrize("what", HOSTILE)
def test_an_index_that_disagrees_with_the_archive_is_an_error(
    what: str, stored: str, local: Conf, tmp_path: Path
) -> None:
    change_index(local, stored, HOSTILE[what])
    with pytest.raises(CorruptArchiveError) as caught:
        bakthat.restore(stored, conf=local, output=tmp_path / "out")
    assert "--no-index" in caught.value.hint
    assert not (tmp_path / "out").exists()
    bakthat.restore(stored, conf=local, output=tmp_path / "out", use_index=False)
    assert len(restored(tmp_path / "out")) == 10


@pytest.mark.parametrize("what", ["content", "mode", "owner", "time", "path", "shifted"])
def test_a_part_that_disagrees_with_its_index_is_an_error(
    what: str, stored: str, local: Conf, tmp_path: Path
) -> None:
    change_index(local, stored, HOSTILE[what])
    name = "y" if what == "path" else "z"
    with pytest.raises(CorruptArchiveError) as caught:
        bakthat.restore(stored, conf=local, output=tmp_path / "out", only=["large1", name])
    assert "--no-index" in caught.value.hint
    assert not (tmp_path / "out").exists()
    bakthat.restore(stored, conf=local, output=tmp_path / "out", only=["z"], use_index=False)
    assert restored(tmp_path / "out") == {"mydir/z"}


def test_a_file_stored_as_it_is_that_disagrees_with_its_index_is_an_error(
    local: Conf, tmp_path: Path
) -> None:
    conf = {**local, "compress": False}
    (tmp_path / "file").write_text("text")
    name = bakthat.backup(tmp_path / "file", conf=conf, password="").stored_filename

    def alter(contents: Contents) -> None:
        contents.entries = replaced(contents.entries, "file", digest=b"x" * 32)

    change_index(conf, name, alter)
    with pytest.raises(CorruptArchiveError, match=f"{name} is damaged: the SHA-256") as caught:
        bakthat.restore(name, conf=conf, output=tmp_path / "out")
    assert "--no-index" in caught.value.hint
    assert not (tmp_path / "out").exists()


def test_an_altered_file_in_an_archive_that_is_not_compressed_is_found(
    local: Conf, tmp_path: Path
) -> None:
    conf = {**local, "compress": False}
    tree = tmp_path / "mydir"
    tree.mkdir()
    (tree / "text").write_text("the original text")
    name = bakthat.backup(tree, conf=conf, password="").stored_filename
    path = Path(conf["local_path"], name)
    path.write_bytes(path.read_bytes().replace(b"original", b"replaced"))
    for only in ([], ["text"]):
        with pytest.raises(CorruptArchiveError, match="'mydir/text' differs from its SHA-256"):
            bakthat.restore(name, conf=conf, output=tmp_path / "out", only=only)
        assert not (tmp_path / "out").exists()
    bakthat.restore(name, conf=conf, output=tmp_path / "out", use_index=False)
    assert (tmp_path / "out/mydir/text").read_text() == "the replaced text"


def test_a_text_that_matches_nothing_costs_no_download(
    stored: str, local: Conf, tmp_path: Path, downloads: list[tuple[str, int, int | None]]
) -> None:
    with pytest.raises(NoMatchError, match="the backup holds no 'nothing'"):
        bakthat.restore(stored, conf=local, output=tmp_path / "out", only=["z", "nothing"])
    assert not [call for call in downloads if call[0] == stored]


@pytest.mark.permissions
def test_each_entry_of_every_kind_is_restored_alone(
    local: Conf, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parts, "SMALL_BYTES", 0)
    monkeypatch.setattr(parts, "MAX_SHARE", 1)
    tree = make_every_kind(tmp_path / "tree")
    name = bakthat.backup(tree, conf=local, password="").stored_filename
    contents = [entry.path for entry in bakthat.contents(name, conf=local)]
    bakthat.restore(name, conf=local, output=tmp_path / "full")
    wanted = fingerprint(tmp_path / "full/tree")
    assert {path: state[:7] for path, state in wanted.items()} == {
        path: state[:7] for path, state in fingerprint(tree).items()
    }
    assert len(contents) == len(wanted)
    for number, only in enumerate(contents):
        out = tmp_path / str(number)
        bakthat.restore(name, conf=local, output=out, only=only)
        path = os.fsencode(os.path.relpath(only, "tree"))
        found = fingerprint(out / "tree")
        assert found[path][:7] == wanted[path][:7], only


@pytest.mark.parametrize("password", ["", PASSWORD])
@pytest.mark.parametrize("is_indexed", [False, True])
def test_an_archive_of_060_is_restored_in_part(
    password: str, is_indexed: bool, local: Conf, tmp_path: Path
) -> None:
    name = "old.20130604200000.tgz" + (".enc" if password else "")
    files = {"a/x": b"1", "a/y.txt": b"2", "b.txt": b"3", "x": b"4"}
    data = tarball("old", files)
    Path(local["local_path"]).mkdir()
    Path(local["local_path"], name).write_bytes(beefish(data, password) if password else data)
    if is_indexed:  # made by reading it, and kept in the cache
        paths = [each.path for each in bakthat.contents(name, conf=local, password=password)]
        assert paths == ["old", *(f"old/{path}" for path in files)]
    wanted = {"a": {"a/x", "a/y.txt"}, "*.txt": {"a/y.txt", "b.txt"}, "x": {"x"}, "/a/?": {"a/x"}}
    for number, (only, expected) in enumerate(wanted.items()):
        out = tmp_path / str(number)
        bakthat.restore(name, conf=local, password=password, output=out, only=only)
        assert restored(out) == {f"old/{path}" for path in expected}
    with pytest.raises(NoMatchError):
        bakthat.restore(name, conf=local, password=password, output=tmp_path / "n", only="a/z")
