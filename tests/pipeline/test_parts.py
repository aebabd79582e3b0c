"""Restoring a part of an archive by its index, compared with restoring all of it."""

from __future__ import annotations

import errno
import functools
import io
import os
import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from bakthat.archive.extract.selection import Selection
from bakthat.archive.report import ArchiveReport
from bakthat.crypto.age import EncryptWriter, FileKeys
from bakthat.errors import BakthatError, CorruptArchiveError, CorruptIndexError, NoMatchError
from bakthat.format.entry import Entry, EntryType
from bakthat.passwords import DecryptionKeys
from bakthat.pipeline import parts
from bakthat.pipeline.parts import find_parts, read_parts
from bakthat.pipeline.read import Expected, SizeLimit, read_object
from tests.archive.test_extract_keep_going import refused_names
from tests.crypto.test_age import IDENTITY, RECIPIENT
from tests.crypto.test_age import Pieces as Sink
from tests.pipeline.test_ranges import Table, compressed
from tests.support.archives import store
from tests.support.entries import EntryList, entries_of
from tests.support.examples import rest_slow
from tests.support.ranges import Bytes
from tests.support.trees import fingerprint, make_every_kind

pytestmark = pytest.mark.usefixtures("no_thread_stays")

MIB = 1024 * 1024
KEYS = DecryptionKeys(identities=(IDENTITY,))


@dataclass
class Footer:
    tar_bytes: int
    stored_bytes: int


class Index(EntryList):
    """An index in memory."""

    def __init__(self, entries: list[Entry], footer: Footer, table: Table | None) -> None:
        super().__init__(entries)
        self.footer = footer
        self.table = table

    def members(self) -> Table | None:
        return self.table


class Stored:
    """A stored archive of *tar*, and its index."""

    def __init__(self, tar: bytes, kind: str = ".tgz.age") -> None:
        plain, table = compressed(tar) if ".tgz" in kind else (tar, None)
        self.entries = entries_of(tar)
        self.index = Index(self.entries, Footer(len(tar), len(plain)), table)
        if ".age" in kind:
            sink = Sink()
            with EncryptWriter(sink, recipients=[RECIPIENT]) as writer:
                writer.write(plain)
            plain = sink.getvalue()
        self.object = Bytes(plain)
        self.expected = expected(compressed=".tgz" in kind, encrypted=".age" in kind)

    def restore(self, out: Path, *only: str, **options: Any) -> ArchiveReport:
        report = ArchiveReport()
        selection = Selection(only)
        spans = find_parts(self.index, selection, self.expected)
        assert spans is not None
        read_parts(
            self.object,
            self.expected,
            out,
            index=self.index,
            selection=selection,
            spans=spans,
            keys=KEYS,
            file_keys=FileKeys(),
            report=report,
            on_bytes=lambda _: None,
            **options,
        )
        return report


def expected(*, compressed: bool = True, encrypted: bool = True, limit: int = 0) -> Expected:
    return Expected(
        is_archive=True,
        compressed=compressed,
        encrypted=encrypted,
        name="",
        check_identity=None,
        sha256="",
        mode=None,
        mtime_ns=None,
        limit=SizeLimit(limit, "known", "") if limit else None,
    )


@pytest.fixture(autouse=True)
def always_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Read archives by their parts although they are small."""
    monkeypatch.setattr(parts, "SMALL_BYTES", 0)
    monkeypatch.setattr(parts, "MAX_SHARE", 1)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Make a tree with every kind of entry, and with links and sparse files of some more kinds."""
    root = make_every_kind(tmp_path / "tree")
    noise = random.Random(1)
    (root / "large").write_bytes(noise.randbytes(3 * MIB))
    (root / "z").mkdir()
    for name in ("large", "text", "link", "sparse"):
        os.link(root / name, root / "z" / name, follow_symlinks=False)
    with (root / "holes").open("wb") as stream:
        for number in range(40):  # a map of more than one block
            stream.seek(number * 128 * 1024)
            stream.write(b"data")
        stream.truncate(6 * MIB)
    (root / "z/after").write_text("after")
    return root


@pytest.mark.permissions
@pytest.mark.parametrize("kind", [".tar", ".tgz", ".tgz.age"])
def test_each_single_entry_is_as_in_the_tree(kind: str, tree: Path, tmp_path: Path) -> None:
    tar, _ = store(tree)
    stored = Stored(tar, kind)
    wanted = fingerprint(tree)
    assert len(stored.entries) == len(wanted)
    for number, entry in enumerate(stored.entries):
        out = tmp_path / f"out{number}"
        report = stored.restore(out, entry.path)
        assert not report.warnings
        found = fingerprint(out / "set")
        path = os.fsencode(os.path.relpath(entry.path, "set"))
        below = {name: state for name, state in wanted.items() if is_below(name, path)}
        restored = {name: state for name, state in found.items() if is_below(name, path)}
        if path != b".":  # the other names of a file are elsewhere
            below = {name: state[:7] for name, state in below.items()}
            restored = {name: state[:7] for name, state in restored.items()}
        assert restored == below, entry.path
        others = found.keys() - restored.keys()
        assert all(is_below(path, name) for name in others), entry.path


def is_below(name: bytes, path: bytes) -> bool:
    return path in (b".", name) or name.startswith(path + b"/")


@pytest.mark.permissions
def test_links_that_were_selected_together_are_one_file(tree: Path, tmp_path: Path) -> None:
    stored = Stored(store(tree)[0])
    stored.restore(tmp_path / "out", "z/text", "text")
    out = tmp_path / "out/set"
    assert (out / "z/text").samefile(out / "text")
    assert not (out / "hard link").exists()
    assert (out / "z/text").read_text() == (tree / "text").read_text()


def test_a_link_has_the_content_of_a_name_that_the_file_system_cannot_hold(
    tree: Path, tmp_path: Path
) -> None:
    stored = Stored(store(tree)[0])
    with refused_names("open", {b"hard link"}, errno.EILSEQ):
        report = stored.restore(tmp_path / "out", "hard link", "z/text", keep_going=True)
    assert (tmp_path / "out/set/z/text").read_text() == (tree / "text").read_text()
    assert report.warning_count == 1
    assert "left out the file 'set/hard link'" in report.warnings[0]


def test_little_is_read_for_a_little(tmp_path: Path) -> None:
    root = tmp_path / "tree"
    root.mkdir()
    noise = random.Random(2)
    for number in range(20):
        (root / f"{number:02}").write_bytes(noise.randbytes(MIB))
    (root / "small").write_text("small")
    stored = Stored(store(root)[0])
    stored.restore(tmp_path / "out", "small")
    assert sum(stored.object.sizes) < MIB
    stored.object.sizes.clear()
    stored.restore(tmp_path / "out", "05", "1[56]", "small")
    assert sum(stored.object.sizes) < 7 * MIB
    assert (tmp_path / "out/set/16").read_bytes() == (root / "16").read_bytes()


def test_most_of_an_archive_is_read_front_to_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parts, "MAX_SHARE", 0.5)
    root = tmp_path / "tree"
    root.mkdir()
    for number in range(8):
        (root / f"{number}").write_bytes(random.Random(number).randbytes(2 * MIB))
    stored = Stored(store(root)[0])

    def is_whole(*only: str) -> bool:
        return find_parts(stored.index, Selection(only), stored.expected) is None

    assert not is_whole("1")
    assert not is_whole("[0-3]")
    assert is_whole("[0-4]")
    assert is_whole("!7")
    stored.index.table = None
    assert is_whole("1")  # of which gzip knows no member's place
    monkeypatch.setattr(parts, "SMALL_BYTES", 100 * MIB)
    assert is_whole("1")


def test_a_text_without_a_match_is_an_error_before_anything_is_read(
    tree: Path, tmp_path: Path
) -> None:
    stored = Stored(store(tree)[0])
    with pytest.raises(NoMatchError, match="the backup holds no 'nothing'"):
        stored.restore(tmp_path / "out", "text", "nothing")
    assert not stored.object.calls
    assert not (tmp_path / "out").exists()


def shifted(stored: Stored) -> None:
    replace(stored, lambda entry: entry._replace(position=entry.position + 512))


def replace(stored: Stored, change: Callable[[Entry], Entry], path: str = "set/hard link") -> None:
    stored.index.all = [
        change(entry) if entry.path == path else entry for entry in stored.index.all
    ]


def lengths_of(stored: Stored) -> list[int]:
    """Return the lengths of the gzip members in the index, to be altered."""
    assert stored.index.table is not None
    return stored.index.table.lengths


HOSTILE: dict[str, Callable[[Stored], object]] = {
    "hash": lambda s: replace(s, lambda e: e._replace(digest=bytes(32))),
    "no hash": lambda s: replace(s, lambda e: e._replace(digest=b"")),
    "mode": lambda s: replace(s, lambda e: e._replace(mode=0o4777)),
    "size": lambda s: replace(s, lambda e: e._replace(size=1)),
    "type": lambda s: replace(s, lambda e: e._replace(type=EntryType.FIFO)),
    "another member": lambda s: replace(s, lambda e: s.entries[-1]._replace(path=e.path)),
    "shifted": shifted,
    "shifted back": lambda s: replace(s, lambda e: e._replace(position=e.position - 512)),
    "content as a header": lambda s: replace(
        s, lambda e: e._replace(position=e.content_position, header_bytes=512)
    ),
    "longer": lambda s: replace(s, lambda e: e._replace(stored_bytes=e.stored_bytes + 512)),
    "shorter": lambda s: replace(s, lambda e: e._replace(stored_bytes=e.stored_bytes - 512)),
    "outside": lambda s: replace(s, lambda e: e._replace(position=2**40)),
    "nothing": lambda s: replace(s, lambda e: e._replace(header_bytes=0, stored_bytes=0)),
    "negative": lambda s: replace(s, lambda e: e._replace(position=-512)),
    "longer archive": lambda s: setattr(s.index.footer, "stored_bytes", 2**40),
    "shorter tar": lambda s: setattr(s.index.footer, "tar_bytes", 1024),
    "members elsewhere": lambda s: lengths_of(s).insert(0, 100),
    "members outside": lambda s: lengths_of(s).insert(0, 2**40),
    "no members": lambda s: lengths_of(s).clear(),
}


@pytest.mark.parametrize("what", HOSTILE)
@pytest.mark.parametrize("only", rest_slow([["hard link", "large"], ["hard link"], ["text"]]))
def test_an_index_that_disagrees_is_an_error(
    what: str, only: list[str], tree: Path, tmp_path: Path
) -> None:
    stored = Stored(store(tree)[0])
    HOSTILE[what](stored)
    with pytest.raises(BakthatError) as caught:
        stored.restore(tmp_path / "out", *only)
    assert isinstance(caught.value, CorruptArchiveError | CorruptIndexError)
    assert not (tmp_path / "out").exists()


def test_altered_content_is_found_where_nothing_is_encrypted(tmp_path: Path) -> None:
    root = tmp_path / "tree"
    root.mkdir()
    (root / "file").write_bytes(b"before " * 1000)
    (root / "other").write_bytes(b"other")
    tar = store(root)[0]
    stored = Stored(tar, ".tar")
    stored.object = Bytes(tar.replace(b"before before", b"before behind"))
    with pytest.raises(CorruptArchiveError, match="content of 'set/file' differs"):
        stored.restore(tmp_path / "out", "file")
    assert not (tmp_path / "out").exists()
    stored.restore(tmp_path / "out", "other")


def test_a_failing_storage_leaves_nothing(tree: Path, tmp_path: Path) -> None:
    stored = Stored(store(tree)[0])
    data = stored.object.read_at(0, stored.object.size)
    for calls in range(3):
        stored.object = Bytes(data, fail_after=calls)
        with pytest.raises(OSError, match="broken"):
            stored.restore(tmp_path / "out", "large", "z/after")
        assert not (tmp_path / "out").exists()


def test_what_is_read_is_limited(tree: Path, tmp_path: Path) -> None:
    stored = Stored(store(tree)[0])
    stored.expected = expected(limit=MIB)
    with pytest.raises(BakthatError, match="unpacks to more than"):
        stored.restore(tmp_path / "out", "large")
    stored.restore(tmp_path / "out", "text")


@pytest.mark.permissions
def test_reading_front_to_back_gives_the_same(tree: Path, tmp_path: Path) -> None:
    stored = Stored(store(tree)[0])
    for number, only in enumerate((["z"], ["hard link"], ["*o*", "!z"], ["deep", "sparse"])):
        here, there = tmp_path / f"here{number}", tmp_path / f"there{number}"
        stored.restore(here, *only)
        selection = Selection(only)
        selection.resolve(stored.index)
        data = stored.object.read_at(0, stored.object.size)
        read_object(
            io.BytesIO(data),
            stored.expected,
            there,
            keys=KEYS,
            report=ArchiveReport(),
            on_bytes=lambda _: None,
            selection=selection,
            reopen=functools.partial(io.BytesIO, data),
            index=stored.index,
        )
        ignored = b"."  # the directory that was made for them has the time of the restore
        found, same = fingerprint(here / "set"), fingerprint(there / "set")
        found.pop(ignored), same.pop(ignored)
        assert found == same
