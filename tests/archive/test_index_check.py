"""Archives that are read beside their index, and differences between the two."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from bakthat.archive.extract.index_check import IndexCheck
from bakthat.archive.extract.unpack import extract, verify
from bakthat.archive.report import ArchiveReport
from bakthat.errors import CorruptArchiveError
from bakthat.format.entry import Entry, EntryType
from tests.support.entries import entries_of
from tests.support.tar_bytes import END, Pieces, header, member, pax

pytestmark = pytest.mark.usefixtures("no_thread_stays")

LARGE = os.urandom(3 * 1024 * 1024)
ARCHIVE = b"".join(
    (
        pax([(b"comment", b"who made it")], b"g"),
        member(b"d/", kind=b"5", mode=0o755),
        member(b"d/a", b"some text"),
        member(b"d/empty"),
        member(b"d/large", LARGE),
        header(b"d/link", b"2", linkname=b"a"),
        header(b"d/other", b"1", linkname=b"d/a"),
        header(b"d/device", b"3"),
        pax([(b"mtime", b"1234567890.123456789"), (b"SCHILY.xattr.user.x", b"1")]),
        member(b"d/z", b"the end"),
        END,
    )
)
ENTRIES = entries_of(ARCHIVE)


def restore(out: Path, entries: list[Entry], archive: bytes = ARCHIVE, piece: int = 1 << 20) -> int:
    report = ArchiveReport()
    with IndexCheck(entries) as check:
        extract(Pieces(archive, piece), out, report=report, check=check)
    return report.files


def changed(which: str, **fields: Any) -> list[Entry]:
    found = [entry._replace(**fields) if entry.path == which else entry for entry in ENTRIES]
    assert found != ENTRIES
    return found


@pytest.mark.parametrize("piece", [100, 4096, 1 << 20])
def test_an_archive_that_is_as_its_index_says_is_restored(piece: int, tmp_path: Path) -> None:
    assert restore(tmp_path / "out", ENTRIES, piece=piece) == 7 - (os.geteuid() != 0)
    assert (tmp_path / "out/d/large").read_bytes() == LARGE


@pytest.mark.parametrize(
    ("path", "fields", "message"),
    [
        ("d", {"mode": 0o700}, "'d' has another mode"),
        ("d", {"path": "e"}, "'d/' is 'e' in the index"),
        ("d/a", {"size": 10}, "'d/a' has another size"),
        ("d/a", {"path": "d/b"}, "'d/a' is 'd/b'"),
        ("d/a", {"uid": 1}, "'d/a' has another owner"),
        ("d/a", {"gid": 1}, "'d/a' has another owner"),
        ("d/a", {"position": 512}, "'d/a' has another length"),
        ("d/a", {"header_bytes": 1024}, "'d/a' has another length"),
        ("d/a", {"stored_bytes": 1024}, "'d/a' has another length"),
        ("d/large", {"type": EntryType.FIFO}, "'d/large' has another type"),
        ("d/link", {"target": "b"}, "'d/link' has another target"),
        ("d/other", {"target": "d/empty"}, "'d/other' has another target"),
        ("d/device", {"device": (1, 4)}, "'d/device' has another device"),
        ("d/device", {"device": None}, "'d/device' has another device"),
        ("d/z", {"attributes": ""}, "'d/z' has other attributes"),
        ("d/a", {"attributes": "0" * 16}, "'d/a' has other attributes"),
        ("d/z", {"mtime_ns": 1_234_567_890_123_456_788}, "'d/z' has another time"),
    ],
)
def test_a_header_that_differs_is_an_error(
    path: str, fields: dict[str, Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises(CorruptArchiveError, match="the archive and its index disagree") as caught:
        restore(tmp_path / "out", changed(path, **fields))
    assert message in str(caught.value)
    assert "--no-index" in caught.value.hint
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("path", ["d/a", "d/empty", "d/large", "d/z"])
@pytest.mark.parametrize("digest", [b"", bytes(32)])
def test_content_with_another_hash_is_an_error(path: str, digest: bytes, tmp_path: Path) -> None:
    entries = changed(path, digest=digest)
    if path == "d/empty" and not digest:  # nothing can differ
        assert restore(tmp_path / "out", entries)
        return
    with pytest.raises(CorruptArchiveError, match=f"content of '{path}' differs") as caught:
        restore(tmp_path / "out", entries)
    assert "--no-index" in caught.value.hint
    assert not (tmp_path / "out").exists()


def test_altered_content_is_found(tmp_path: Path) -> None:
    for original, changed in ((b"the end", b"the eNd"), (LARGE[-100:], bytes(100))):
        with pytest.raises(CorruptArchiveError, match="differs from its SHA-256 in the index"):
            restore(tmp_path / "out", ENTRIES, ARCHIVE.replace(original, changed))
    assert not (tmp_path / "out").exists()


def test_missing_and_additional_entries_are_found(tmp_path: Path) -> None:
    extra = ENTRIES[-1]._replace(path="d/zz", position=ENTRIES[-1].end)
    for entries, message in (
        (ENTRIES[:-1], "'d/z' is not in the index"),
        ([], "'d/' is not in the index"),
        (ENTRIES[1:], "'d/' is 'd/a' in the index"),
        ([*ENTRIES, extra], "'d/zz' is in the index, but not in the archive"),
    ):
        with pytest.raises(CorruptArchiveError, match="disagree") as caught:
            restore(tmp_path / "out", entries)
        assert message in str(caught.value)
        assert not (tmp_path / "out").exists()


def test_a_directory_without_a_name_is_passed_over(tmp_path: Path) -> None:
    top = member(b"./", kind=b"5")
    archive = top + member(b"./a", b"1") + top + header(b"b", b"1", linkname=b"./a") + END
    entries = entries_of(archive)
    assert [entry.path for entry in entries] == ["a", "b"]
    assert restore(tmp_path / "out", entries, archive) == 2
    with pytest.raises(CorruptArchiveError, match="disagree"):
        restore(tmp_path / "other", entries[:1], archive)


def test_a_stream_of_parts_is_compared_by_the_lengths_of_its_members(tmp_path: Path) -> None:
    chosen = [entry for entry in ENTRIES if entry.path in ("d/a", "d/link", "d/z")]
    stream = b"".join(ARCHIVE[entry.position : entry.end] for entry in chosen) + END
    with IndexCheck(chosen, parts=True) as check:
        extract(Pieces(stream), tmp_path / "out", report=ArchiveReport(), check=check)
    assert (tmp_path / "out/d/z").read_bytes() == b"the end"
    longer = [chosen[0]._replace(header_bytes=1024), *chosen[1:]]
    with (
        IndexCheck(longer, parts=True) as check,
        pytest.raises(CorruptArchiveError, match="'d/a' has another length"),
    ):
        extract(Pieces(stream), tmp_path / "other", report=ArchiveReport(), check=check)


def test_differences_are_collected_where_the_caller_asks() -> None:
    differing: list[str] = []
    archive = ARCHIVE.replace(b"the end", b"the eNd").replace(LARGE[:50], bytes(50))
    with IndexCheck(ENTRIES, on_difference=lambda entry: differing.append(entry.path)) as check:
        verify(Pieces(archive), check=check)
    assert sorted(differing) == ["d/large", "d/z"]
