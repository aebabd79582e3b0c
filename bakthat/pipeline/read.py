"""The chain of stages that reads an object: download, age, gunzip, extraction.

Each stage pulls from the one before it. When one fails, nothing appears in the destination.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from bakthat.archive.extract.index_check import NO_INDEX_HINT, IndexCheck
from bakthat.archive.extract.selection import EntrySource, Selection
from bakthat.archive.extract.unpack import Reading, extract, restore_file, verify
from bakthat.archive.gzip.reader import GzipReader, OnMember
from bakthat.archive.report import ArchiveReport
from bakthat.archive.tar.fields import BLOCK_BYTES
from bakthat.archive.tar.member import Owner
from bakthat.crypto.age import DecryptReader, FileKeys
from bakthat.crypto.beefish import BeefishReader
from bakthat.errors import (
    AgeFormatError,
    ArchiveError,
    CorruptArchiveError,
    CryptoError,
    DecryptionError,
    KeyFormatError,
)
from bakthat.format.entry import Entry
from bakthat.passwords import DecryptionKeys
from bakthat.pipeline.legacy import (
    GZIP_HEADER_BYTES,
    RecognisedSource,
    begins_gzip,
    begins_tar,
    wrong_password_error,
)
from bakthat.system.streams import ByteCounter, CountedSource, Sink, Source
from bakthat.system.text import human_size, printable

DAMAGE = (CorruptArchiveError, AgeFormatError, DecryptionError)
"""The errors of an object that was truncated, altered or replaced."""
CHECK_HINT = "bakthat check --read-data tells which backups are whole"
DAMAGE_HINT = f"--only restores what is not damaged; {CHECK_HINT}"
_READ_BYTES = 1024 * 1024


@dataclass(frozen=True, slots=True)
class SizeLimit:
    """The most bytes that an object may have once it is decrypted and decompressed."""

    bytes: int
    known: str
    """What is known of its size, for the end of a message."""
    hint: str
    """What may be wrong, and what to try."""


@dataclass(frozen=True, slots=True)
class Expected:
    """How to read an object, and the expected content."""

    is_archive: bool
    compressed: bool
    encrypted: bool
    name: str
    """The base name of a plain file, an object that is no archive."""
    check_identity: Callable[[bytes], None] | None
    """Called with the identity in the archive; raises when it is that of another archive."""
    sha256: str
    """The SHA-256 of a plain file in hex; "" when it is not known."""
    mode: int | None
    """The permission bits of a plain file; None when they are not known."""
    mtime_ns: int | None
    """The time of a plain file in nanoseconds since 1970 UTC."""
    owner: Owner | None = None
    is_legacy: bool = False
    """Whether bakthat 0.6.0 encrypted the backup, or stored the value, without authentication."""
    is_value: bool = False
    """Whether KeyValue stored the object, as JSON."""
    limit: SizeLimit | None = None
    """None for no limit."""


@contextmanager
def naming(
    key: str, *, needs_index: bool = False, damage_hint: str = DAMAGE_HINT
) -> Iterator[None]:
    """Name the object *key* in an error about its content or its encryption, and say what to try.

    With *needs_index*, no hint says to read it without its index. *damage_hint* is for damage of
    the object that has no hint of its own.
    """
    name = printable(key)
    try:
        yield
    except KeyFormatError:
        raise  # it is about a file of the user
    except (ArchiveError, CryptoError) as exc:
        is_damage = isinstance(exc, DAMAGE)
        hint = "" if needs_index and exc.hint == NO_INDEX_HINT else exc.hint
        if is_damage:
            hint = hint or damage_hint
        if exc.is_named or name in str(exc):
            exc.hint = hint
            raise
        what = f"{name} is damaged" if is_damage else name
        error = type(exc)(f"{what}: {exc}", hint=hint)
        error.is_named = True
        raise error from exc


def read_object(
    stream: BinaryIO,
    expected: Expected,
    destination: Path,
    *,
    keys: DecryptionKeys,
    report: ArchiveReport,
    on_bytes: ByteCounter,
    selection: Selection | None = None,
    keep_going: bool = False,
    reopen: Callable[[], BinaryIO] | None = None,
    index: EntrySource | None = None,
    file_keys: FileKeys | None = None,
) -> list[Path]:
    """Pull an object through the chain into *destination*; all of it appears, or nothing.

    With *selection*, only the members of an archive that it includes are restored; with
    *keep_going*, all that the file system can hold. *reopen* opens the object again from its
    beginning; it is called where the content of a hard link was left out under its first name.
    With *index*, each member must be as it says, and each file's content have its SHA-256.
    *file_keys* is as for :func:`open_stages`.
    *stream* is always closed. *on_bytes* is called with the number of bytes read from it. Returns
    the restored paths at the top of *destination*. Raises ArchiveError, CryptoError,
    DestinationError, NoMatchError for a *selection* without a match, and StorageError.
    """

    @contextmanager
    def read_again(reopen: Callable[[], BinaryIO]) -> Iterator[Reading]:
        with ExitStack() as stages:
            stored = stages.enter_context(closing(reopen()))
            source = open_stages(stages, stored, expected, keys, file_keys=file_keys)
            yield Reading(source, _index_check(stages, index))

    with ExitStack() as stages:
        stages.enter_context(closing(stream))
        counted = CountedSource(stream, on_bytes)
        source = open_stages(stages, counted, expected, keys, file_keys=file_keys)
        if expected.is_value:
            source = io.BytesIO(_read_json(source, expected))
        if expected.is_archive:
            return extract(
                source,
                destination,
                report=report,
                check_comment=expected.check_identity,
                selection=selection,
                keep_going=keep_going,
                read_again=(lambda _: read_again(reopen)) if reopen is not None else None,
                check=_index_check(stages, index),
            )
        hashed = _Hashed(source, expected, index)
        return [
            restore_file(
                hashed,
                destination,
                expected.name,
                mode=expected.mode,
                mtime_ns=expected.mtime_ns,
                owner=expected.owner,
                report=report,
            )
        ]


def read_stream(
    stream: BinaryIO,
    expected: Expected,
    sink: Sink,
    *,
    keys: DecryptionKeys,
    report: ArchiveReport,
    on_bytes: ByteCounter,
    index: EntrySource | None = None,
    file_keys: FileKeys | None = None,
) -> None:
    """Pull a plain file through the chain into *sink*.

    The last piece is written only when all of the file is as it was stored, so that nobody takes
    an altered one for complete. The other arguments, and what is raised, are as for
    :func:`read_object`; so is what *sink* raises.
    """
    with ExitStack() as stages:
        stages.enter_context(closing(stream))
        counted = CountedSource(stream, on_bytes)
        source = _Hashed(
            open_stages(stages, counted, expected, keys, file_keys=file_keys), expected, index
        )
        report.files = 1
        held = b""
        while piece := source.read(_READ_BYTES):
            sink.write(held)
            report.bytes += len(held)
            held = piece
        sink.write(held)
        report.bytes += len(held)


def verify_object(
    stream: BinaryIO,
    expected: Expected,
    *,
    keys: DecryptionKeys,
    on_bytes: ByteCounter,
    index: EntrySource | None = None,
    on_difference: Callable[[Entry], None] | None = None,
    file_keys: FileKeys | None = None,
) -> None:
    """Pull an object through the chain to its end, and write nothing.

    *stream* is always closed. *on_bytes* is called with the number of bytes read from it. With
    *index*, each member of an archive must be as it says. *on_difference* is called with the entry
    of each file that has another SHA-256; without it, that is an error. *file_keys* is as for
    :func:`open_stages`. Raises the errors of :func:`read_object`, except those of writing files.
    """
    with ExitStack() as stages:
        stages.enter_context(closing(stream))
        counted = CountedSource(stream, on_bytes)
        source = open_stages(stages, counted, expected, keys, file_keys=file_keys)
        if expected.is_value:
            _read_json(source, expected)
        elif expected.is_archive:
            check = _index_check(stages, index, on_difference)
            verify(source, check_comment=expected.check_identity, check=check)
        else:
            hashed = _Hashed(source, expected, index, on_difference)
            while hashed.read(_READ_BYTES):
                pass


def read_value(stream: BinaryIO, expected: Expected, *, keys: DecryptionKeys) -> bytes:
    """Pull an object of KeyValue through the chain, and return its text, which is valid JSON.

    *stream* is always closed. Raises ArchiveError, CryptoError and StorageError.
    """
    with ExitStack() as stages:
        stages.enter_context(closing(stream))
        return _read_json(open_stages(stages, stream, expected, keys), expected)


def open_stages(
    stages: ExitStack,
    source: Source,
    expected: Expected,
    keys: DecryptionKeys,
    *,
    file_keys: FileKeys | None = None,
    on_member: OnMember | None = None,
) -> Source:
    """Put the stages that read an object on top of *source*; *stages* closes them.

    *file_keys* remembers the key of the object. *on_member* is as for :class:`GzipReader`, and is
    not called where the object is not compressed. Raises PasswordError.
    """
    if expected.encrypted and expected.is_legacy:
        assert keys.passphrase is not None  # bakthat 0.6.0 knew no other keys
        source = BeefishReader(source, password=keys.passphrase)
        if expected.compressed:
            source = RecognisedSource(source, GZIP_HEADER_BYTES, begins_gzip)
    elif expected.encrypted:
        source = stages.enter_context(
            DecryptReader(
                source,
                passphrase=keys.passphrase,
                identities=keys.identities,
                file_keys=file_keys,
            )
        )
    if expected.compressed:
        source = stages.enter_context(GzipReader(source, on_member=on_member))
    source = bounded(source, expected)
    if expected.is_archive and expected.encrypted and expected.is_legacy:
        source = RecognisedSource(source, BLOCK_BYTES, begins_tar)
    return source


def bounded(source: Source, expected: Expected) -> Source:
    """Return *source*, which refuses to return more than an object may unpack to."""
    return source if expected.limit is None else _Bounded(source, expected.limit)


def _index_check(
    stages: ExitStack,
    index: EntrySource | None,
    on_difference: Callable[[Entry], None] | None = None,
) -> IndexCheck | None:
    if index is None:
        return None
    return stages.enter_context(IndexCheck(index.entries(), on_difference=on_difference))


def _read_json(source: Source, expected: Expected) -> bytes:
    text = b"".join(iter(lambda: source.read(_READ_BYTES), b""))
    try:
        json.loads(text)
    except (ValueError, RecursionError) as exc:
        if expected.is_legacy and expected.encrypted:
            raise wrong_password_error() from exc
        raise CorruptArchiveError("the stored value is not JSON") from exc
    return text


class _Bounded:
    """A source that refuses to return more bytes than *limit* allows.

    A gzip file can unpack to a thousand times its size, and fill a disk.
    """

    def __init__(self, source: Source, limit: SizeLimit) -> None:
        self._source = source
        self._limit = limit
        self._left = limit.bytes

    def read(self, size: int, /) -> bytes:
        data = self._source.read(size)
        self._left -= len(data)
        if self._left < 0:
            limit = self._limit
            raise ArchiveError(
                f"the object unpacks to more than {human_size(limit.bytes)}: {limit.known}",
                hint=limit.hint,
            )
        return data


class _Hashed:
    """A source of a plain file that checks the SHA-256 of all its bytes when it ends.

    It must be the recorded one, and that of the entry in *index*.
    """

    def __init__(
        self,
        source: Source,
        expected: Expected,
        index: EntrySource | None,
        on_difference: Callable[[Entry], None] | None = None,
    ) -> None:
        self._source = source
        self._recorded = expected.sha256
        self._entry = next(iter(index.entries()), None) if index is not None else None
        self._on_difference = on_difference
        self._digest = hashlib.sha256()

    def read(self, size: int, /) -> bytes:
        data = self._source.read(size)
        self._digest.update(data)
        if not data:
            self._check()
        return data

    def _check(self) -> None:
        found, entry = self._digest.hexdigest(), self._entry
        if entry is not None and self._on_difference is not None:
            if found != (entry.sha256 or found):
                self._on_difference(entry)
        elif self._recorded and found != self._recorded:
            raise CorruptArchiveError(
                "the SHA-256 of the stored file differs from the recorded one"
            )
        elif entry is not None and found != (entry.sha256 or found):
            raise CorruptArchiveError(
                "the SHA-256 of the stored file differs from that in the index", hint=NO_INDEX_HINT
            )
