"""Restoring increments: the state of a backup, from all archives that it needs."""

from __future__ import annotations

import os
import random
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import bakthat
from bakthat import models
from bakthat.backends.local.backend import LocalBackend
from bakthat.errors import (
    ArchiveError,
    BakthatError,
    CorruptArchiveError,
    CorruptIndexError,
    DecryptionError,
    NoMatchError,
    NotFoundError,
    UsageError,
)
from bakthat.pipeline import parts
from bakthat.session.indexes.opening import open_state
from bakthat.session.reading import KeyFinder
from bakthat.session.session import Session
from tests.crypto.test_age import IDENTITY, RECIPIENT
from tests.support.changed_indexes import Contents, replaced
from tests.support.commandline import CommandLine
from tests.support.examples import rest_slow
from tests.support.increments import Chain
from tests.support.indexes import forget_cache, lose_indexes
from tests.support.profiles import Conf, write_config
from tests.support.trees import fingerprint, make_every_kind

MIB = 1024 * 1024
Download = tuple[str, int, int | None]
"""A key, and the first byte and the end of what was asked for."""


@pytest.fixture
def downloads(monkeypatch: pytest.MonkeyPatch) -> list[Download]:
    """Collect what is read of archives in the local store."""
    calls: list[Download] = []
    real = LocalBackend.download

    def download(self: LocalBackend, key: str, *, start: int = 0, end: int | None = None) -> Any:
        if not key.endswith(".index"):
            calls.append((key, start, end))
        return real(self, key, start=start, end=end)

    monkeypatch.setattr(LocalBackend, "download", download)
    return calls


@pytest.fixture
def chain(local: Conf, tmp_path: Path) -> Chain:
    """Store a tree of some megabytes, and two increments; the second one removes something."""
    tree = tmp_path / "mydir"
    (tree / "d").mkdir(parents=True)
    noise = random.Random(1)
    for number in range(6):
        (tree / f"large{number}").write_bytes(noise.randbytes(MIB))
    (tree / "d/a").write_text("a")
    (tree / "d/b").write_text("b")
    (tree / "d/gone").write_text("gone")
    chain = Chain(tree, local)
    chain.full()
    (tree / "d/b").write_text("changed")
    (tree / "large1").write_bytes(noise.randbytes(MIB))
    os.link(tree / "d/a", tree / "d/link")
    chain.increment()
    (tree / "d/gone").unlink()
    (tree / "d/new").write_text("new")
    chain.increment()
    return chain


def restored(directory: Path) -> set[str]:
    return {str(each.relative_to(directory)) for each in directory.rglob("*") if not each.is_dir()}


def object_path(chain: Chain, number: int) -> Path:
    return Path(chain.conf["local_path"], chain.names[number])


def restore(chain: Chain, out: Path, **options: Any) -> models.Backups:
    found = bakthat.restore(chain.names[-1], conf=chain.conf, output=out, password="", **options)
    assert found is not None
    return found


def test_the_state_of_each_increment_is_restored_exactly(local: Conf, tmp_path: Path) -> None:
    tree = make_every_kind(tmp_path / "mydir")
    chain = Chain(tree, local)
    chain.full()
    states = [fingerprint(tree)]
    changes = [change_files, change_directories, change_links]
    for change in changes:
        change(tree)
        chain.increment()
        states.append(fingerprint(tree))
    for number, name in enumerate(chain.names):
        for cached in (True, False):
            if not cached:
                forget_cache()
            out = tmp_path / f"out {number} {cached}"
            restored = bakthat.restore(name, conf=local, output=out, password="")
            assert restored is not None
            assert restored.is_complete
            assert fingerprint(out / "mydir") == states[number]


def change_files(tree: Path) -> None:
    (tree / "text").write_text("other")
    (tree / "new").write_bytes(b"new")
    (tree / "random").unlink()
    (tree / "link").unlink()
    (tree / "link").mkdir()
    (tree / "link" / "in what was a link").write_text("x")
    (tree / "executable").chmod(0o755)


def change_directories(tree: Path) -> None:
    (tree / "read-only").chmod(0o755)
    (tree / "read-only" / "more").write_text("more")
    (tree / "read-only").chmod(0o500)
    os.utime(tree / "read-only", ns=(1, 1_000_000_000_000_000_001))
    (tree / "empty directory").rmdir()
    (tree / "empty directory").write_text("a file now")
    (tree / "link" / "in what was a link").unlink()
    (tree / "link").rmdir()


def change_links(tree: Path) -> None:
    os.link(tree / "secret", tree / "another name")
    (tree / "hard link").unlink()
    os.link(tree / "new", tree / "hard link")


@pytest.mark.parametrize("kind", rest_slow(["passphrase", "recipients", "not compressed"], 2))
@pytest.mark.usefixtures("cheap_passphrases")
def test_increments_are_restored_whatever_their_kind(kind: str, conf: Conf, tmp_path: Path) -> None:
    tree = tmp_path / "mydir"
    tree.mkdir()
    noise = random.Random(1)
    for number in range(6):
        (tree / f"large{number}").write_bytes(noise.randbytes(MIB))
    (tmp_path / "key.txt").write_text(IDENTITY)
    options: dict[str, Any] = {"password": "secret" if kind == "passphrase" else ""}
    if kind == "recipients":
        conf = {**conf, "recipients": [RECIPIENT], "identity_file": str(tmp_path / "key.txt")}
        options = {}
    elif kind == "not compressed":
        conf = {**conf, "compress": False}
    chain = Chain(tree, conf, options.get("password", ""))
    chain.full()
    for number in (1, 2, 3, 4):
        (tree / f"large{number}").write_bytes(noise.randbytes(MIB))
    chain.increment()
    for number, name in enumerate(chain.names):
        forget_cache()
        out = tmp_path / f"out{number}"
        assert bakthat.restore(name, conf=conf, output=out, **options) is not None
    assert fingerprint(tmp_path / "out1/mydir") == fingerprint(tree)
    forget_cache()
    only = tmp_path / "only"
    bakthat.restore(chain.names[-1], conf=conf, output=only, only=["large0", "large4"], **options)
    assert restored(only) == {"mydir/large0", "mydir/large4"}
    for name in restored(only):
        assert (only / name).read_bytes() == (tmp_path / name).read_bytes()


def test_of_each_archive_only_what_is_still_there_is_read(
    chain: Chain, out: Path, downloads: list[Download]
) -> None:
    noise = random.Random(2)
    for number in (0, 2, 3, 4):
        (chain.tree / f"large{number}").write_bytes(noise.randbytes(MIB))
    chain.increment()
    seen: list[tuple[int, int]] = []
    downloads.clear()
    restore(chain, out, progress=lambda done, total: seen.append((done, total)))
    assert fingerprint(out / "mydir") == fingerprint(chain.tree)
    by_key = {
        name: [(start, end) for key, start, end in downloads if key == name] for name in chain.names
    }
    # Of the full, a sixth is there yet; the others are small, or most of them is.
    assert all(end is not None for _, end in by_key[chain.names[0]])
    assert sum(end - start for start, end in by_key[chain.names[0]] if end) < 3 * MIB
    for name in chain.names[1:]:
        assert by_key[name] == [(0, None)]
    order = [chain.names.index(key) for key, _, _ in downloads]
    assert order == sorted(order)
    assert seen[-1][0] == seen[-1][1]


def test_an_archive_of_which_nothing_is_wanted_is_not_touched(
    chain: Chain, out: Path, downloads: list[Download]
) -> None:
    downloads.clear()
    restore(chain, out, only=["large1", "d/b"])
    assert restored(out) == {"mydir/large1", "mydir/d/b"}
    assert {key for key, _, _ in downloads} == {chain.names[1]}


@pytest.mark.parametrize(
    ("only", "expected"),
    [
        (["d"], {"mydir/d/a", "mydir/d/b", "mydir/d/link", "mydir/d/new"}),
        (["d/link"], {"mydir/d/link"}),
        (["d/link", "d/a"], {"mydir/d/link", "mydir/d/a"}),
        (["!large*"], {"mydir/d/a", "mydir/d/b", "mydir/d/link", "mydir/d/new"}),
        (["n*", "b"], {"mydir/d/new", "mydir/d/b"}),
    ],
)
@pytest.mark.parametrize("is_small", [True, False])
def test_a_part_of_a_state_is_restored(
    only: list[str],
    expected: set[str],
    is_small: bool,
    chain: Chain,
    out: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if not is_small:
        monkeypatch.setattr(parts, "SMALL_BYTES", 0)
        monkeypatch.setattr(parts, "MAX_SHARE", 1.1)
    restore(chain, out, only=only)
    assert restored(out) == expected
    for name in expected:
        assert (out / name).read_bytes() == (chain.tree.parent / name).read_bytes()
    d, there = (out / "mydir/d").stat(), (chain.tree / "d").stat()
    if only in (["d"], ["!large*"]):
        assert (d.st_mode, d.st_mtime_ns) == (there.st_mode, there.st_mtime_ns)
        assert (out / "mydir/d/link").samefile(out / "mydir/d/a")


def test_what_an_increment_removed_is_not_there(chain: Chain, out: Path) -> None:
    with pytest.raises(NoMatchError, match="the backup holds no 'd/gone'"):
        restore(chain, out, only=["d/gone"])
    bakthat.restore(chain.names[1], conf=chain.conf, output=out, only=["d/gone"])
    assert restored(out) == {"mydir/d/gone"}


def test_an_increment_cannot_be_restored_without_its_index(chain: Chain, out: Path) -> None:
    with pytest.raises(UsageError, match="is an increment: only its index says") as caught:
        restore(chain, out, use_index=False)
    assert "tar xzGf" in caught.value.hint


def test_a_needed_index_that_is_lost_is_made_again_by_reading_its_archive(
    chain: Chain, out: Path, downloads: list[Download]
) -> None:
    lose_indexes(chain.conf, chain.names[0])
    downloads.clear()
    restore(chain, out, only=["large2"])
    assert (out / "mydir/large2").read_bytes() == (chain.tree / "large2").read_bytes()
    assert downloads[0] == (chain.names[0], 0, None)
    downloads.clear()
    restore(chain, out, only=["large2"])
    assert (chain.names[0], 0, None) not in downloads


# What is missing


def lose(chain: Chain, number: int, how: str) -> str:
    """Damage an archive of the chain on the storage; return what is said of it."""
    path = object_path(chain, number)
    size = path.stat().st_size
    if how == "truncated":
        os.truncate(path, size - 7)
        return f"has {size - 7} bytes, and had {size}"
    if how == "replaced":
        described = path.with_name(f"{path.name}.bakthat.json")
        text = described.read_text()
        described.write_text(re.sub(r'"id": ?"[0-9a-f]{16}"', '"id":"0123456789abcdef"', text))
        assert described.read_text() != text
        return "is another archive than it was"
    path.unlink()
    if how == "missing and not listed":
        with models.catalog(chain.conf["database"], write=True):
            models.Backups.delete().where(models.Backups.stored_filename == path.name).execute()
    return "is not stored any more"


def test_an_increment_that_may_need_either_of_two_archives_is_refused(
    chain: Chain, out: Path
) -> None:
    path = object_path(chain, 1)
    for end in ("", ".bakthat.json"):
        copy = path.with_name(f"{path.name}.age{end}")
        copy.write_bytes(path.with_name(f"{path.name}{end}").read_bytes())
    bakthat.sync(conf=chain.conf)
    lose_indexes(chain.conf, chain.names[2])
    with pytest.raises(CorruptArchiveError, match="needs one of several archives of 20") as caught:
        restore(chain, out)
    assert "--by-hand" in caught.value.hint
    assert not out.exists()


LOSSES = ["missing", "missing and not listed", "truncated", "replaced"]


@pytest.mark.parametrize("how", LOSSES)
def test_without_a_needed_archive_nothing_is_read(
    how: str, chain: Chain, out: Path, downloads: list[Download]
) -> None:
    problem = lose(chain, 1, how)
    downloads.clear()
    with pytest.raises(BakthatError) as caught:
        restore(chain, out)
    expected = NotFoundError if how.startswith("missing") else CorruptArchiveError
    assert type(caught.value) is expected
    assert f"{chain.names[-1]} needs other archives: {chain.names[1]} {problem}" in str(
        caught.value
    )
    assert "3 files cannot be restored, such as 'mydir/d/b', 'mydir/d/link'" in str(caught.value)
    assert "--partial" in caught.value.hint
    assert downloads == []
    assert not out.exists()


def test_metadata_of_directories_that_is_lost_is_told(local: Conf, tmp_path: Path) -> None:
    tree = tmp_path / "mydir"
    for name in ("one", "two"):
        (tree / name).mkdir(parents=True)
    (tree / "one/a").write_text("a")
    chain = Chain(tree, local)
    chain.full()
    (tree / "one").chmod(0o700)
    (tree / "two").chmod(0o700)
    (tree / "one/a").write_text("changed")
    chain.increment()
    (tree / "new").write_text("new")
    chain.increment()
    lose(chain, 1, "missing")
    with pytest.raises(NotFoundError) as caught:
        restore(chain, tmp_path / "out")
    assert "1 file and the metadata of 2 directories cannot be restored" in str(caught.value)
    found = restore(chain, tmp_path / "out", partial=True)
    assert found.warning_count == 1
    assert restored(tmp_path / "out") == {"mydir/new"}


@pytest.mark.parametrize("how", LOSSES)
def test_partial_restores_what_is_left_and_warns(
    how: str, chain: Chain, out: Path, caplog: pytest.LogCaptureFixture
) -> None:
    problem = lose(chain, 1, how)
    found = restore(chain, out, partial=True)
    assert not found.is_complete
    assert found.warning_count == 1
    assert restored(out) == {
        "mydir/d/a",
        "mydir/d/new",
        *(f"mydir/large{number}" for number in (0, 2, 3, 4, 5)),
    }
    assert f"{chain.names[1]} {problem}: 3 files cannot be restored" in caplog.text


def test_each_lost_file_is_named_to_those_who_listen(
    chain: Chain, out: Path, caplog: pytest.LogCaptureFixture
) -> None:
    problem = lose(chain, 0, "missing")
    caplog.set_level("INFO", "bakthat.files")
    restore(chain, out, partial=True)
    lines = [each.getMessage() for each in caplog.records if each.name == "bakthat.files"]
    lost = [line.split(":")[0] for line in lines if line.endswith(f": {chain.names[0]} {problem}")]
    assert len(lost) > 3, "more than the warning names"
    assert {"left out mydir/d/a", "left out mydir/d/link", "left out mydir/large0"} <= set(lost)


def test_links_to_what_is_missing_are_lost_with_it(chain: Chain, out: Path) -> None:
    lose(chain, 0, "missing")
    with pytest.raises(NotFoundError, match="such as 'mydir/d/link'"):
        restore(chain, out, only=["d/link"])
    with pytest.raises(NotFoundError, match="such as 'mydir/d/a', 'mydir/d/link', 'mydir/large0'"):
        restore(chain, out)
    restore(chain, out, partial=True)
    assert restored(out) == {"mydir/d/b", "mydir/d/new", "mydir/large1"}


def test_a_missing_archive_of_which_nothing_is_wanted_stops_nothing(
    chain: Chain, out: Path, caplog: pytest.LogCaptureFixture
) -> None:
    lose(chain, 1, "missing")
    assert restore(chain, out, only=["d/new", "large0"]).is_complete
    assert restored(out) == {"mydir/d/new", "mydir/large0"}
    assert f"{chain.names[1]} is not stored any more, but nothing of it is wanted" in caplog.text


def test_several_missing_archives_are_all_named(chain: Chain, out: Path) -> None:
    lose(chain, 0, "missing")
    problem = lose(chain, 1, "truncated")
    with pytest.raises(NotFoundError) as caught:
        restore(chain, out)
    assert (
        f"{chain.names[0]} is not stored any more, and {chain.names[1]} {problem}; "
        "9 files cannot be restored"
    ) in str(caught.value)


@pytest.mark.parametrize("partial", [False, True])
def test_what_an_archive_without_its_index_held_cannot_be_known(
    partial: bool, chain: Chain, out: Path
) -> None:
    lose(chain, 1, "missing")
    lose_indexes(chain.conf, chain.names[1])
    with pytest.raises(NotFoundError, match="not stored any more; what it held is not known"):
        restore(chain, out, partial=partial)
    assert not out.exists()


def test_the_index_of_the_archive_that_replaced_another_one_is_not_used(
    chain: Chain, out: Path
) -> None:
    tree = chain.tree.parent / "other"
    tree.mkdir()
    (tree / "f").write_text("f")
    other = bakthat.backup(tree, conf=chain.conf, password="")
    full = object_path(chain, 0)
    shutil.copy(full.with_name(other.stored_filename), full)
    lose_indexes(chain.conf, chain.names[0])
    with pytest.raises(CorruptArchiveError, match="what it held is not known"):
        restore(chain, out, partial=True)


def test_an_index_that_may_be_of_what_replaced_the_archive_is_not_used(
    chain: Chain, out: Path
) -> None:
    """The archives of earlier versions have no id, so only the size tells them apart."""

    def without_id(contents: Contents) -> None:
        contents.header = replace(contents.header, archive_id="")

    def without_its_id(contents: Contents) -> None:
        full, second = contents.header.needs
        needs = full, second._replace(archive_id="")
        contents.header = replace(contents.header, needs=needs)

    change_own_index(chain, 1, without_id)
    change_own_index(chain, 2, without_its_id)
    restore(chain, out)
    shutil.rmtree(out)
    lose(chain, 1, "truncated")
    with pytest.raises(CorruptArchiveError, match="what it held is not known"):
        restore(chain, out, partial=True)


def test_the_command_says_that_a_partial_restore_is_incomplete(
    user: CommandLine, chain: Chain, out: Path
) -> None:
    write_config(user.home / ".bakthat.yml", default=chain.conf)
    lose(chain, 1, "missing")
    refused = user.run("restore", chain.names[-1], "-o", str(out))
    assert refused.code == 1
    assert "3 files cannot be restored" in refused.stderr
    done = user.run("restore", chain.names[-1], "-o", str(out), "--partial")
    assert done.code == 3
    assert (out / "mydir/d/new").read_text() == "new"


# Damage


def damage(chain: Chain, number: int, path: str) -> None:
    """Destroy what an archive has of a file: bytes in the middle of its gzip member."""
    name = chain.names[number]
    session = Session("default", None, chain.conf)
    backup = chain.backups[number]
    with open_state(session, backup, KeyFinder(session, ""), whole=True) as state:
        assert state is not None
        index = state.indexes[number]
        (entry,) = (each for each in index.entries([path]) if each.path == path)
        members = index.members()
        assert members is not None
        at = entry.content_position + entry.size // 2
        (member,) = members.locate(at, at + 1)
    with Path(chain.conf["local_path"], name).open("r+b") as stream:
        stream.seek((member.stored_start + member.stored_end) // 2)
        stream.write(b"damaged damaged damaged")


def test_damage_is_named_with_its_archive_and_nothing_appears(chain: Chain, out: Path) -> None:
    damage(chain, 0, "mydir/large4")
    with pytest.raises(CorruptArchiveError, match=f"^{chain.names[0]} is damaged: ") as caught:
        restore(chain, out)
    assert "--no-index" not in caught.value.hint
    assert not out.exists()


def test_damage_in_what_is_not_there_any_more_does_no_harm(
    chain: Chain, out: Path, caplog: pytest.LogCaptureFixture
) -> None:
    damage(chain, 0, "mydir/large1")
    restore(chain, out)
    assert fingerprint(out / "mydir") == fingerprint(chain.tree)
    assert f"{chain.names[0]} is damaged" in caplog.text
    assert "only the parts of it are read that hold what is wanted" in caplog.text


def test_what_is_not_damaged_can_be_chosen(chain: Chain, out: Path) -> None:
    damage(chain, 0, "mydir/large4")
    restore(chain, out, only=["!large4", "!large5"])  # which are in one gzip member
    assert "mydir/large3" in restored(out)
    assert "mydir/large4" not in restored(out)


@pytest.mark.usefixtures("cheap_passphrases")
def test_the_end_of_an_encrypted_archive_is_authenticated(
    local: Conf, tmp_path: Path, out: Path
) -> None:
    tree = tmp_path / "mydir"
    tree.mkdir()
    (tree / "a").write_text("a")
    (tree / "b").write_text("b")
    chain = Chain(tree, local, "secret")
    chain.full()
    (tree / "b").write_text("changed")
    chain.increment()
    path = object_path(chain, 0)
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(DecryptionError, match=f"^{chain.names[0]} is damaged: "):
        bakthat.restore(chain.names[-1], conf=local, output=out, password="secret")
    assert not out.exists()


def test_the_archive_of_another_set_is_not_taken_for_a_needed_one(
    chain: Chain, tmp_path: Path, out: Path
) -> None:
    """It has the same size, and the description of the needed one stayed beside it."""
    conf = {**chain.conf, "compress": False}
    tree = tmp_path / "othe1"
    shutil.copytree(chain.tree, tree)
    other = bakthat.backup(tree, conf=conf, password="")
    full = Chain(tmp_path / "othe2", conf)
    shutil.copytree(chain.tree, full.tree)
    full.full()
    (full.tree / "d/new").write_text("newer")
    full.increment()
    assert full.backups[0].size == other.size
    path = object_path(full, 0)
    shutil.copy(path.with_name(other.stored_filename), path)
    with pytest.raises(CorruptArchiveError, match=r"the archive says that it is .* set=othe1"):
        restore(full, out)
    assert not out.exists()


def test_a_bomb_in_the_place_of_a_needed_archive_is_refused(
    local: Conf, tmp_path: Path, out: Path
) -> None:
    tree = tmp_path / "mydir"
    tree.mkdir()
    (tree / "zeros").write_bytes(bytes(80 * MIB))
    chain = Chain(tree, local)
    full = chain.full()
    (tree / "new").write_text("new")
    chain.increment()
    full.metadata = {**full.metadata, "bytes": 10, "files": 1, "directories": 1, "tar_bytes": 10}
    with models.catalog(local["database"], write=True):
        full.save()
    with pytest.raises(ArchiveError, match=f"{full.stored_filename}: the object unpacks to more"):
        restore(chain, out)
    restore(chain, out, any_size=True)


def test_an_object_of_a_later_format_is_refused(chain: Chain, tmp_path: Path, out: Path) -> None:
    for number in (0, 2):
        row = chain.backups[number]
        before = dict(row.metadata)
        row.metadata = {**before, "format": 3}
        with models.catalog(chain.conf["database"], write=True):
            row.save()
        with pytest.raises(
            ArchiveError, match="has format 3, and this version of bakthat"
        ) as found:
            restore(chain, out)
        assert found.value.hint == "upgrade bakthat"
        row.metadata = before
        with models.catalog(chain.conf["database"], write=True):
            row.save()
    assert not out.exists()


# Indexes of others


def change_own_index(chain: Chain, number: int, change: Callable[[Contents], object]) -> None:
    """Change the stored index of one archive, which describes that archive alone."""
    path = object_path(chain, number).with_name(f"{chain.names[number]}.index")
    contents = Contents.of(path.read_bytes(), chain.names[number])
    change(contents)
    path.write_bytes(contents.packed())
    with models.catalog(chain.conf["database"], write=True):
        row = chain.backups[number]
        row.metadata = {**row.metadata, "index_size": path.stat().st_size}
        row.save()
    forget_cache()


def without_needs(contents: Contents) -> None:
    contents.header = replace(contents.header, needs=())


def with_other_needs(contents: Contents) -> None:
    contents.header = replace(contents.header, needs=contents.header.needs[:1])


def with_key(key: str) -> Callable[[Contents], None]:
    def change(contents: Contents) -> None:
        first, *rest = contents.header.needs
        contents.header = replace(contents.header, needs=(first._replace(key=key), *rest))

    return change


LONG = f"{'x' * 240}.20200101000000.tgz"
"""A stored filename that is too long for a file."""


@pytest.mark.parametrize(
    "change",
    [without_needs, with_other_needs, with_key("other.20200101000000.tgz"), with_key(LONG)],
    ids=["no needs", "other needs", "another key", "a long key"],
)
def test_an_index_that_needs_something_else_is_refused(
    change: Callable[[Contents], object], chain: Chain, out: Path
) -> None:
    change_own_index(chain, 2, change)
    with pytest.raises((CorruptIndexError, NotFoundError)):
        restore(chain, out)
    assert not out.exists()


def test_an_index_that_needs_what_is_no_stored_filename_is_made_again(
    chain: Chain, out: Path, caplog: pytest.LogCaptureFixture
) -> None:
    change_own_index(chain, 2, with_key("../my.20200101000000.tgz"))
    assert restore(chain, out).is_complete
    assert (
        f"the index of {chain.names[2]} cannot be used: the index needs an archive" in caplog.text
    )


def test_an_index_that_needs_what_cannot_be_stored_stops_neither_check_nor_find(
    chain: Chain, out: Path
) -> None:
    change_own_index(chain, 2, with_key(LONG))
    for _ in range(2):  # from the storage, and from the cache
        assert {each.entry.path for each in bakthat.find("a", conf=chain.conf)} == {"mydir/d/a"}
        verdicts = {
            each.backup.stored_filename: each.verdict.value
            for each in bakthat.check(conf=chain.conf)
        }
        assert verdicts[chain.names[2]] != "stored"
        assert [verdicts[name] for name in chain.names[:2]] == ["stored", "stored"]


def test_an_index_that_is_not_that_of_its_archive_is_found_out(chain: Chain, out: Path) -> None:
    """An increment's index gives a file another mode than its archive does."""

    def change(contents: Contents) -> None:
        contents.entries = replaced(contents.entries, "mydir/d/b", mode=0o777)

    change_own_index(chain, 1, change)
    with pytest.raises(CorruptArchiveError, match="another mode than in the index") as caught:
        restore(chain, out)
    assert str(caught.value).startswith(f"{chain.names[1]} is damaged: ")
    assert not out.exists()


def test_a_link_to_what_the_state_does_not_have_is_refused(chain: Chain, out: Path) -> None:
    def change(contents: Contents) -> None:
        contents.entries = [
            each._replace(target="mydir/nowhere") if each.path == "mydir/d/link" else each
            for each in contents.entries
        ]

    change_own_index(chain, 1, change)
    with pytest.raises(CorruptArchiveError):
        restore(chain, out)
    with pytest.raises(CorruptArchiveError):
        restore(chain, out, only=["d/link"])
    assert not out.exists()
