"""Read one file of a backup: as a file that can seek, or written out to its end."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, closing
from dataclasses import dataclass
from typing import Any, BinaryIO

from bakthat import models
from bakthat.archive.extract.selection import Selection
from bakthat.archive.index.reader import IndexReader
from bakthat.archive.index.state import State
from bakthat.backends.base import Backend
from bakthat.backends.ranges import EndsAtOnce, ObjectRanges
from bakthat.conf import DEFAULT_PROFILE
from bakthat.errors import CorruptIndexError, UsageError
from bakthat.format.entry import Entry, EntryType
from bakthat.passwords import may_ask
from bakthat.pipeline import one_file, read
from bakthat.pipeline.ranges import TarRanges, plain_ranges, tar_ranges
from bakthat.session.chains import needed_backup
from bakthat.session.indexes.opening import open_state
from bakthat.session.reading import KeyFinder, expected_of, find_to_restore
from bakthat.session.session import Session
from bakthat.system.paths import PathLike
from bakthat.system.streams import Sink, Source
from bakthat.system.text import from_native, printable

CHECKED_BYTES = 64 * 1024 * 1024
"""A file of up to so many bytes is checked before its first byte is written."""

_SMALL_BYTES = 1024 * 1024
"""An archive of up to so many bytes is fetched by one request."""
_ZEROS = bytes(1024 * 1024)
_MAX_LINKS = 40
"""The most hard links from one to the next; bakthat writes one."""


def open_file(
    filename: str,
    path: str,
    destination: str | None = None,
    profile: str = DEFAULT_PROFILE,
    config: PathLike | None = None,
    *,
    conf: Mapping[str, Any] | None = None,
    password: str | None = None,
    host: str | None = None,
    source: PathLike | None = None,
    identity_file: PathLike | None = None,
    prompt: str | bool = "yes",
) -> BinaryIO:
    """Open one file of a backup, and read only the parts of the archive that are needed.

    *filename*, *host*, *source*, *password*, *identity_file* and *prompt* are as for
    :func:`bakthat.restore`. *path* is a path in the backup, with or without the directory at its
    top, or a pattern as in .gitignore that one file matches. A hard link has the content of the
    file that it is a name of.

    The returned file is binary, buffered and seekable. The caller closes it, which ends its
    downloads. What it reads is authenticated where the backup is encrypted; when all of it is read
    in order, the last read compares its SHA-256 with that in the index. A backup that
    cannot be read in parts, such as one of bakthat 0.6.0, is read from its beginning, and the file
    is then a temporary one.

    Raises NoMatchError and AmbiguousNameError for the names, UsageError for what is no file,
    NotReadyError for a backup that must be thawed first, PasswordError and WrongKeyError for the
    keys, CorruptArchiveError, StorageError, or another BakthatError; reading raises the last ones.
    """
    session = Session(profile, config, conf, destination)
    with ExitStack() as stages:
        keys = KeyFinder(session, password, identity_file, may_ask(prompt))
        found = _find(stages, session, find_to_restore(session, filename, host, source), path, keys)
        if found.tar is None:
            with found.naming():
                return one_file.temporary_copy(found.source(stages), found.content)
        return one_file.seekable(
            found.tar, found.content, stages.pop_all().close, naming=found.naming
        )


def cat(
    filename: str,
    path: str | None,
    output: Sink,
    destination: str | None = None,
    profile: str = DEFAULT_PROFILE,
    config: PathLike | None = None,
    *,
    conf: Mapping[str, Any] | None = None,
    password: str | None = None,
    host: str | None = None,
    source: PathLike | None = None,
    identity_file: PathLike | None = None,
    prompt: str | bool = "yes",
) -> Entry:
    """Write the content of one file of a backup to *output*; return its entry.

    The arguments are those of :func:`open_file`, which also says what is raised. *path* None is the
    whole of a stream, or of a file that is stored as it is. A file of up to
    CHECKED_BYTES is written only after its SHA-256 was compared with that in the index. A larger
    one is written as it is read, but its last piece only after that, so that what was altered is
    never complete.
    """
    session = Session(profile, config, conf, destination)
    with ExitStack() as stages:
        keys = KeyFinder(session, password, identity_file, may_ask(prompt))
        found = _find(stages, session, find_to_restore(session, filename, host, source), path, keys)
        with found.naming():
            content = one_file.content_of(found.source(stages), found.content)
            if found.content.size <= CHECKED_BYTES:
                _write_checked(content, found.content.size, output)
            else:
                _write_as_read(content, found.content.size, output)
        return found.entry


@dataclass(frozen=True, slots=True)
class _Found:
    """A file of a backup, and how to read it."""

    entry: Entry
    content: Entry
    """The entry that has the content: another one for a hard link."""
    tar: TarRanges | None
    """None when the object can be read only from its beginning."""
    backend: Backend
    key: str
    expected: read.Expected
    keys: KeyFinder
    backup: models.Backups

    def naming(self) -> AbstractContextManager[None]:
        """Name the archive in errors, and say what to try."""
        return read.naming(self.key, needs_index=True, damage_hint=read.CHECK_HINT)

    def source(self, stages: ExitStack) -> Source:
        """Return what the tar has of the content, with its headers; *stages* close it."""
        start, end = self.content.position, self.content.end
        if not self.content.header_bytes:
            end = start + self.content.size
        if self.tar is not None:
            pieces: Iterator[bytes] = self.tar.pieces([(start, end)])
        else:
            stream = stages.enter_context(closing(self.backend.download(self.key)))
            keys = self.keys.of(self.backend, self.backup, self.expected)
            opened = read.open_stages(stages, stream, self.expected, keys)
            pieces = one_file.parts_of_stream(opened, start, end)
        return one_file.PieceSource(pieces)


def _find(
    stages: ExitStack, session: Session, backup: models.Backups, path: str | None, keys: KeyFinder
) -> _Found:
    name = printable(backup.stored_filename)
    if path is None:
        if expected_of(backup).is_archive:
            raise UsageError(
                f"{name} is an archive of files",
                hint="name one of them; bakthat contents lists them",
            )
        path = from_native(expected_of(backup).name)
    if backup.is_key_value:
        raise UsageError(
            f"{name} is a value, which has no files", hint=f"bakthat restore {name} restores it"
        )
    selection = Selection([path])
    # A pattern needs all of the index, a path one part of it.
    whole = not selection.looks_like_paths
    state = stages.enter_context(open_state(session, backup, keys, whole=whole))
    assert state is not None  # where there is no index, one is made by reading the archive
    entry = _one_entry(state, selection, path)
    content = _content_entry(state, entry)
    needs = state.header.needs
    if content.archive < len(needs):
        backup = needed_backup(session, backup, needs[content.archive])
    backend = session.backend(backup.backend)
    expected = expected_of(backup)
    return _Found(
        entry=entry,
        content=content,
        tar=_tar_ranges(stages, backend, backup, expected, state.indexes[content.archive], keys),
        backend=backend,
        key=backup.stored_filename,
        expected=expected,
        keys=keys,
        backup=backup,
    )


def _tar_ranges(
    stages: ExitStack,
    backend: Backend,
    backup: models.Backups,
    expected: read.Expected,
    index: IndexReader,
    keys: KeyFinder,
) -> TarRanges | None:
    """Return the tar of which parts can be read; None for one that has no such parts."""
    key = backup.stored_filename
    if expected.encrypted and expected.is_legacy:
        return None
    if expected.compressed and index.members() is None:
        return None
    size = backup.size if backup.size >= 0 else backend.stat(key).size
    if size < 0:
        return None  # of some archives in vaults, it is known only when the inventory arrives
    stored = ObjectRanges(backend, key, size)
    ends = EndsAtOnce(stored, head=size if size <= _SMALL_BYTES else 0, tail=0)
    plain = plain_ranges(ends, expected, keys.of(backend, backup, expected), keys.file_keys)
    return stages.enter_context(tar_ranges(plain, index, cancel=stored.cancel))


def _one_entry(state: State, selection: Selection, text: str) -> Entry:
    """Return the entry that *selection*, that of *text*, means: one path, or the one match.

    Raises NoMatchError without a match, UsageError for several and for a directory.
    """
    selection.resolve(state)
    paths = selection.literal_paths()
    if paths is None:
        return _one_match(state, selection, text)
    found = selection.found
    if not state.header.is_sorted:  # of several entries of one path, the last counts
        found = {entry.path: entry for entry in state.entries(paths) if entry.path in paths}
    for path in paths:
        if path in found and found[path].type is not EntryType.DIRECTORY:
            return found[path]
    raise UsageError(
        f"'{printable(text)}' is a directory in the backup",
        hint="name one file in it; bakthat restore --only restores a directory",
    )


def _one_match(state: State, selection: Selection, text: str) -> Entry:
    found: dict[str, Entry] = {}
    for entry in selection.entries(state):
        if entry.type is not EntryType.DIRECTORY:
            found[entry.path] = entry
        if len(found) > 1:
            first, second = (f"'{printable(each)}'" for each in found)
            raise UsageError(
                f"'{printable(text)}' matches more than one file, such as {first} and {second}",
                hint="name one of them; bakthat contents lists them",
            )
    selection.check()
    if not found:
        raise UsageError(f"'{printable(text)}' matches directories only", hint="name a file")
    return next(iter(found.values()))


def _content_entry(state: State, entry: Entry) -> Entry:
    """Return the entry with the content of *entry*: itself, unless it is a hard link."""
    for _ in range(_MAX_LINKS):
        if entry.type is EntryType.FILE:
            return entry
        name = f"'{printable(entry.path)}'"
        if entry.type is EntryType.SYMLINK:
            raise UsageError(
                f"{name} is a symbolic link to '{printable(entry.target)}' in the backup",
                hint="name the file that it leads to",
            )
        if entry.type is not EntryType.HARDLINK:
            is_device = entry.type in (EntryType.CHARACTER, EntryType.BLOCK)
            kind = f"{entry.type.value} device" if is_device else entry.type.value
            raise UsageError(
                f"{name} is a {kind} in the backup, which has no content",
                hint="name a file; bakthat contents lists them",
            )
        before = [
            each
            for each in state.entries([entry.target])
            if each.path == entry.target
            and (each.archive, each.position) < (entry.archive, entry.position)
        ]
        if not before:
            raise CorruptIndexError(
                f"{name} is a hard link to '{printable(entry.target)}', "
                "which is not before it in the backup"
            )
        entry = before[-1]
    raise CorruptIndexError(f"'{printable(entry.path)}' is a hard link through too many others")


def _write_checked(content: Iterator[tuple[int, memoryview]], size: int, output: Sink) -> None:
    data = memoryview(bytearray(size))
    for offset, piece in content:
        data[offset : offset + len(piece)] = piece
    output.write(data)


def _write_as_read(content: Iterator[tuple[int, memoryview]], size: int, output: Sink) -> None:
    at, held = 0, b""
    for offset, piece in content:
        output.write(held)
        _write_zeros(offset - at, output)
        at, held = offset + len(piece), bytes(piece)
    output.write(held)
    _write_zeros(size - at, output)


def _write_zeros(count: int, output: Sink) -> None:
    while count > 0:
        output.write(_ZEROS[:count])
        count -= len(_ZEROS)
