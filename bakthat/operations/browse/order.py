"""Sort the entries of an archive whose order is another one than that of this version."""

from __future__ import annotations

import heapq
import marshal
import tempfile
from collections.abc import Iterable, Iterator
from typing import IO, Any

from bakthat.errors import ArchiveError
from bakthat.format.entry import Entry, EntryType
from bakthat.format.index.values import sort_key
from bakthat.system.files import temporary_place
from bakthat.system.text import reason_of

RUN_ENTRIES = 50_000
"""How many entries are sorted in memory at once; of more, each sorted run goes to a file."""

_Keyed = tuple[bytes, Entry]


def in_order(entries: Iterable[Entry], *, run_entries: int = RUN_ENTRIES) -> Iterator[Entry]:
    """Yield *entries* sorted by their paths, component by component in the order of the bytes.

    Of several entries with one path the last one counts, as when an archive is extracted. Beyond
    *run_entries* the runs are in unnamed temporary files, which close with the iterator. Raises
    ArchiveError when they cannot be written.
    """
    files: list[IO[bytes]] = []
    try:
        run: list[_Keyed] = []
        for entry in entries:
            run.append((sort_key(entry.path), entry))
            if len(run) == run_entries:
                files.append(_write(_sorted(run)))
                run = []
        # Of equal keys merge yields that of the earlier run first.
        runs = [*map(_read, files), iter(_sorted(run))]
        last: _Keyed | None = None
        for keyed in heapq.merge(*runs, key=_by_key):
            if last is not None and last[0] != keyed[0]:
                yield last[1]
            last = keyed
        if last is not None:
            yield last[1]
    finally:
        for file in files:
            file.close()


def _by_key(keyed: _Keyed) -> bytes:
    return keyed[0]


def _sorted(run: list[_Keyed]) -> list[_Keyed]:
    return sorted(run, key=_by_key)


def _write(run: Iterable[_Keyed]) -> IO[bytes]:
    try:
        return _written(run)
    except OSError as exc:
        raise ArchiveError(
            f"cannot sort the entries in {temporary_place()}: {reason_of(exc)}",
            hint="it takes some 200 bytes for each file; TMPDIR names another directory",
        ) from exc


def _written(run: Iterable[_Keyed]) -> IO[bytes]:
    file = tempfile.TemporaryFile()  # noqa: SIM115  # in_order closes it
    try:
        for _, entry in run:
            values: list[Any] = list(entry)
            values[1] = entry.type.value
            marshal.dump(values, file)
        file.seek(0)
    except BaseException:
        file.close()
        raise
    return file


def _read(file: IO[bytes]) -> Iterator[_Keyed]:
    while True:
        try:
            path, kind, *rest = marshal.load(file)
        except EOFError:
            return
        entry = Entry(path, EntryType(kind), *rest)
        yield sort_key(entry.path), entry
