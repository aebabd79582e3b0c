"""What an increment removes, from its archive and the state that it was made from."""

from __future__ import annotations

from collections.abc import Iterable

import pytest

from bakthat.archive.index import removed
from bakthat.archive.index.removed import IncrementScan
from bakthat.archive.index.scan import TarScan
from bakthat.archive.tar import header
from bakthat.errors import ArchiveError, CorruptArchiveError
from bakthat.format.entry import Entry, EntryType
from tests.support.tar_bytes import Pieces

Listed = dict[str, str] | bytes | None


def archive(*members: tuple[str, Listed]) -> bytes:
    """Return a tar archive; a name with a slash at its end is a directory, with its list."""
    made = b""
    for name, listed in members:
        records: tuple[tuple[bytes, bytes], ...] = ()
        if isinstance(listed, dict):
            names = "".join(f"{letter}{each}\0" for each, letter in listed.items())
            listed = names.encode() + b"\0"
        if listed is not None:
            records = ((b"GNU.dumpdir", listed),)
        kind = header.DIRECTORY if name.endswith("/") else header.REGULAR
        made += header.pack_member_header(
            header.MemberHeader(name.encode(), kind, 0o644, 0, 0, 0, size=0, records=records)
        )
    return made + bytes(1024)


def state(*names: str) -> list[Entry]:
    """Return the entries of a state; a name with a slash at its end is a directory."""
    return [
        Entry(
            name.rstrip("/"),
            EntryType.DIRECTORY if name.endswith("/") else EntryType.FILE,
            0,
            0,
            0,
            0,
        )
        for name in names
    ]


def found(data: bytes, before: Iterable[Entry]) -> list[str]:
    """Return the paths in the index; those that are removed with a minus before."""
    entries = list(IncrementScan(TarScan(Pieces(data)), before))
    ends = [each.end for each in entries]
    assert ends == sorted(ends)
    return [f"{'-' * (not each.type.is_member)}{each.path}" for each in entries]


def test_what_the_list_of_a_directory_lacks_is_removed() -> None:
    before = state("d/", "d/a", "d/b/", "d/b/c", "d/b/d", "d/e", "f")
    data = archive(("d/", {"e": "N", "g": "Y"}), ("d/g", None))
    assert found(data, before) == ["d", "-d/a", "-d/b", "d/g"]


def test_directories_that_the_archive_does_not_have_are_as_they_were() -> None:
    before = state("d/", "d/b/", "d/b/c", "d/e/", "d/e/f")
    data = archive(("d/", {"b": "D", "e": "D"}), ("d/e/", {"g": "Y"}), ("d/e/g", None))
    assert found(data, before) == ["d", "d/e", "-d/e/f", "d/e/g"]


def test_a_member_of_another_kind_takes_the_place_of_what_was_there() -> None:
    before = state("d/", "d/a/", "d/a/x", "d/b", "d/c")
    data = archive(
        ("d/", {"a": "Y", "b": "D", "c": "N"}), ("d/a", None), ("d/b/", {"y": "Y"}), ("d/b/y", None)
    )
    assert found(data, before) == ["d", "d/a", "d/b", "d/b/y"]


def test_what_is_listed_as_another_kind_and_was_not_stored_is_removed() -> None:
    """It vanished or could not be read while the archive was written; tar removes it too."""
    before = state("d/", "d/a/", "d/a/x", "d/b", "d/c")
    assert found(archive(("d/", {"a": "Y", "b": "D", "c": "Y"})), before) == ["d", "-d/a", "-d/b"]


def test_names_are_compared_component_by_component() -> None:
    before = state("d/", "d/a/", "d/a/x", "d/a-b", "d/a.b")
    data = archive(("d/", {"a-b": "N", "a.c": "Y"}), ("d/a.c", None))
    assert found(data, before) == ["d", "-d/a", "-d/a.b", "d/a.c"]


def test_a_new_directory_needs_no_list() -> None:
    data = archive(("d/", {"new": "D"}), ("d/new/", None), ("d/new/file", None))
    assert found(data, state("d/")) == ["d", "d/new", "d/new/file"]


def test_a_directory_that_was_there_needs_one() -> None:
    with pytest.raises(ArchiveError, match="does not say what was removed from d/a") as caught:
        found(archive(("d/", {"a": "D"}), ("d/a/", None)), state("d/", "d/a/", "d/a/x"))
    assert "tar" in caught.value.hint


@pytest.mark.parametrize(
    "listing",
    [b"", b"\0\0", b"Ya", b"Ya\0", b"Ya\0\0\0", b"Y\0\0", b"Y..\0\0", b"Ra\0Tb\0\0", b"a\0\0"],
)
def test_an_invalid_list_is_refused(listing: bytes) -> None:
    with pytest.raises(CorruptArchiveError, match="the list of a directory"):
        found(archive(("d/", listing)), state("d/", "d/a"))


def test_members_that_are_not_in_order_are_refused() -> None:
    with pytest.raises(CorruptArchiveError, match="not in order"):
        found(archive(("d/", {}), ("b", None)), state("d/"))


def test_lists_that_would_fill_the_memory_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(removed, "MAX_LISTING_BYTES", 20)
    beside = archive(*((f"{name}/", {"abcdefgh": "N"}) for name in "abcd"))
    assert found(beside, []) == list("abcd")
    nested = archive(*(("a/" * depth, {"abcdefgh": "N"}) for depth in range(1, 5)))
    with pytest.raises(CorruptArchiveError, match="too long"):
        found(nested, [])


def test_a_list_counts_only_for_a_directory() -> None:
    assert found(archive(("d", {"a": "Y"})), state("d/", "d/x")) == ["d"]
