"""Sorting entries that come in another order."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bakthat.errors import ArchiveError
from bakthat.format.entry import Entry, EntryType
from bakthat.operations.browse.order import in_order

NAMES = st.sampled_from(["a", "b", "a.b", "a-", "é", "\udcff", "\U0001f600"])
PATHS = st.lists(NAMES, min_size=1, max_size=3).map("/".join)


@given(st.lists(PATHS), st.integers(1, 5))
def test_entries_come_component_by_component_and_the_last_of_one_path_counts(
    paths: list[str], run_entries: int
) -> None:
    entries = [Entry(path, EntryType.FILE, number, 0, 0, 0) for number, path in enumerate(paths)]
    last = {each.path: each for each in entries}
    found = list(in_order(entries, run_entries=run_entries))
    assert found == sorted(last.values(), key=lambda each: parts(each.path))


def parts(path: str) -> list[bytes]:
    return path.encode("utf-8", "surrogateescape").split(b"/")


def test_runs_in_files_keep_every_value() -> None:
    entries = [
        Entry("b", EntryType.FILE, 0o644, 1, 2, 3, 4, 5, 2**40, b"d" * 32, "o", "g"),
        Entry("a", EntryType.BLOCK, 0o600, 1, 2, 3, None, None, device=(8, 1), attributes="ff"),
        Entry("\udcff", EntryType.SYMLINK, 0o777, 1, 2, -3, target="\udcfe", is_volatile=True),
    ]
    found = list(in_order(entries, run_entries=1))
    assert found == [entries[1], entries[0], entries[2]]
    assert [type(each.type) for each in found] == [EntryType] * 3


def test_the_files_close_with_the_iterator(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[Any] = []
    real = tempfile.TemporaryFile

    def remembered() -> Any:
        made.append(real())
        return made[-1]

    monkeypatch.setattr("tempfile.TemporaryFile", remembered)
    entries = [Entry(f"{number}", EntryType.FILE, 0, 0, 0, 0) for number in range(9)]
    iterator = in_order(entries, run_entries=2)
    next(iterator)
    assert len(made) == 4
    assert not any(each.closed for each in made)
    iterator.close()  # type: ignore[attr-defined]  # a generator
    assert all(each.closed for each in made)


def test_a_file_that_cannot_be_written_is_an_error_that_names_its_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "gone"))
    entries = [Entry(f"{number}", EntryType.FILE, 0, 0, 0, 0) for number in range(3)]
    with pytest.raises(ArchiveError, match=r"cannot sort the entries in .*/gone: no such file"):
        list(in_order(entries, run_entries=2))
