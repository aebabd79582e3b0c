"""The cache of indexes on this machine: decrypted, bounded, and checked by hash.

Nothing is lost with it but time: an index that is not in it is fetched, or made again. What cannot
be written to it goes into an unnamed temporary file.

The name of a file is a hash of the container and the key of the archive. A file is the index, and
the SHA-256 of the index after it. It is written under a temporary name, and renamed.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import stat
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from bakthat import models
from bakthat.errors import CorruptIndexError, DestinationError
from bakthat.system.files import write_all
from bakthat.system.paths import cache_directory
from bakthat.system.streams import Buffer, Sink
from bakthat.system.text import reason_of

log = logging.getLogger("bakthat")

MAX_BYTES = 512 * 1024 * 1024
"""The most bytes of all files together; those that were not used for the longest time go first."""

_EXTENSION = ".index"
_TEMPORARY = ".tmp"
_TEMPORARY_SECONDS = 24 * 3600
"""The age at which a temporary file counts as that of a killed process."""
_DIGEST_BYTES = hashlib.sha256().digest_size
_HASHED_AT_ONCE = 1024 * 1024

Fill = Callable[[Sink], object]
"""Writes a whole index to the sink; may be called twice."""


class IndexFile:
    """An index in an open file: a random source. The one who gets it closes it."""

    def __init__(self, descriptor: int, size: int) -> None:
        self._descriptor = descriptor
        self.size = size

    def __enter__(self) -> IndexFile:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def read_at(self, offset: int, size: int, /) -> bytes:
        """Return exactly *size* bytes from *offset* on. Raises CorruptIndexError."""
        data = os.pread(self._descriptor, size, offset)
        if len(data) < size:  # a signal, or a file of more than 2 GiB
            pieces = [data]
            while (missing := size - sum(map(len, pieces))) and pieces[-1]:
                pieces.append(os.pread(self._descriptor, missing, offset + size - missing))
            data = b"".join(pieces)
        if len(data) < size:
            raise CorruptIndexError("the index in the cache is truncated")
        return data

    def close(self) -> None:
        """Close the file. May be called again."""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)


class IndexCache:
    """The indexes on this machine, by the containers and the keys of their archives."""

    def __init__(self, directory: str | os.PathLike[str] | None = None) -> None:
        """*directory* is by default that of the user; it is made when something is written."""
        self._directory = cache_directory() if directory is None else Path(directory)

    def open(self, backup: models.Backups) -> IndexFile | None:
        """Return the index of *backup*; None when it is not there, or was altered."""
        if self._directory is None:
            return None
        path = self._path(self._directory, backup)
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except OSError:
            return None
        try:
            facts = os.fstat(descriptor)
            size = facts.st_size - _DIGEST_BYTES
            # Another user may have put a file there, with a hash that fits.
            is_own = stat.S_ISREG(facts.st_mode) and facts.st_uid == os.geteuid()
            if not (is_own and size >= 0 and _has_its_digest(descriptor, size)):
                log.debug("ignoring %s, which was altered", path)
                os.close(descriptor)
                return None
            with contextlib.suppress(OSError):
                os.utime(descriptor)
        except OSError as exc:
            log.debug("cannot read %s: %s", path, reason_of(exc))
            os.close(descriptor)
            return None
        return IndexFile(descriptor, size)

    def keep(self, backup: models.Backups, fill: Fill) -> IndexFile:
        """Put an index, which *fill* writes, into the cache; return it.

        Where the cache cannot be written, or has no room for it, the index is in an unnamed
        temporary file, and *fill* is called again if need be. Raises what *fill* raises, and
        DestinationError when there is no room for a temporary file either.
        """
        if self._directory is not None:
            try:
                return self._write(self._directory, self._path(self._directory, backup), fill)
            except _WriteError as exc:
                log.debug("the cache of indexes cannot be written: %s", exc)
        try:
            with tempfile.TemporaryFile(prefix="bakthat-index-") as stream:
                _Written(stream.fileno()).run(fill)
                return IndexFile(os.dup(stream.fileno()), os.fstat(stream.fileno()).st_size)
        except (_WriteError, OSError) as exc:
            raise DestinationError(
                f"cannot write a temporary file for an index: {exc}",
                hint="TMPDIR names another directory for it",
            ) from exc

    def remember(self, backup: models.Backups, fill: Fill) -> None:
        """Put an index, which *fill* writes, into the cache, if it can be written.

        Raises what *fill* raises.
        """
        if self._directory is None:
            return
        try:
            self._write(self._directory, self._path(self._directory, backup), fill).close()
        except _WriteError as exc:
            log.debug("the cache of indexes cannot be written: %s", exc)

    def forget(self, backups: Iterable[models.Backups]) -> None:
        """Remove the indexes of *backups* from the cache, where they are in it."""
        if self._directory is None:
            return
        for each in backups:
            with contextlib.suppress(OSError):
                os.unlink(self._path(self._directory, each))

    def _path(self, directory: Path, backup: models.Backups) -> Path:
        place = f"{backup.backend}\0{backup.backend_hash}\0{backup.stored_filename}"
        digest = hashlib.sha256(place.encode("utf-8", "surrogateescape")).hexdigest()
        return directory / f"{digest[:40]}{_EXTENSION}"

    def _write(self, directory: Path, path: Path, fill: Fill) -> IndexFile:
        """Write *path* as a whole, and return it open. Raises _WriteError."""
        with _write_errors():
            _make_private(directory)
            descriptor, temporary = tempfile.mkstemp(suffix=_TEMPORARY, dir=directory)
        try:
            written = _Written(descriptor, limit=MAX_BYTES - _DIGEST_BYTES)
            written.run(fill)
            with _write_errors():
                write_all(descriptor, written.digest())
                os.replace(temporary, path)
        except BaseException:
            os.close(descriptor)
            with contextlib.suppress(OSError):
                os.unlink(temporary)
            raise
        _make_room(directory, path)
        return IndexFile(descriptor, written.size)


def remember_index(backup: models.Backups, fill: Fill) -> None:
    """Put the index of a backup that was just made into the cache; *fill* writes it, not encrypted.

    Where the cache cannot be written, nothing happens. Raises what *fill* raises.
    """
    IndexCache().remember(backup, fill)


def forget_index(backups: Iterable[models.Backups]) -> None:
    """Remove the indexes of backups that were deleted from the cache."""
    IndexCache().forget(backups)


class _WriteError(Exception):
    """The cache cannot be written."""


@contextlib.contextmanager
def _write_errors() -> Iterator[None]:
    try:
        yield
    except OSError as exc:
        raise _WriteError(reason_of(exc)) from exc


class _Written:
    """A sink that writes to a file and hashes what it writes."""

    def __init__(self, descriptor: int, *, limit: int | None = None) -> None:
        self._descriptor = descriptor
        self._limit = limit
        self._hash = hashlib.sha256()
        self._buffer = bytearray()
        self.size = 0

    def write(self, data: Buffer, /) -> None:
        self._buffer += data
        if len(self._buffer) >= _HASHED_AT_ONCE:
            self._flush()

    def run(self, fill: Fill) -> None:
        """Let *fill* write. Raises what it raises, and _WriteError."""
        fill(self)
        self._flush()

    def digest(self) -> bytes:
        return self._hash.digest()

    def _flush(self) -> None:
        self.size += len(self._buffer)
        if self._limit is not None and self.size > self._limit:
            raise _WriteError("the index is larger than the cache")
        self._hash.update(self._buffer)
        with _write_errors():
            write_all(self._descriptor, self._buffer)
        self._buffer = bytearray()


def _make_private(directory: Path) -> None:
    """Make *directory* and its parents, for this user only, and mark it as a cache.

    So tools that leave caches out, bakthat with ``--exclude-caches`` too, do not back it up.
    """
    # Imported here, so that listing what a backup holds does not load it.
    from bakthat.archive.create.walk import CACHE_SIGNATURE, CACHE_TAG

    tag = directory / CACHE_TAG
    if tag.exists():
        return
    directory.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    directory.mkdir(mode=0o700, exist_ok=True)
    with open(tag, "wb", opener=lambda path, flags: os.open(path, flags, 0o600)) as stream:
        stream.write(CACHE_SIGNATURE + b"\n")


def _has_its_digest(descriptor: int, size: int) -> bool:
    digest = hashlib.sha256()
    at = 0
    while at < size:
        piece = os.pread(descriptor, min(_HASHED_AT_ONCE, size - at), at)
        if not piece:
            return False
        digest.update(piece)
        at += len(piece)
    return os.pread(descriptor, _DIGEST_BYTES, size) == digest.digest()


def _make_room(directory: Path, newest: Path) -> None:
    """Remove what was not used for the longest time, and what killed processes left behind."""
    now = time.time()
    found: list[tuple[float, int, str]] = []
    with contextlib.suppress(OSError), os.scandir(directory) as entries:
        for entry in entries:
            with contextlib.suppress(OSError):
                facts = entry.stat(follow_symlinks=False)
                if entry.name.endswith(_TEMPORARY):
                    if abs(now - facts.st_mtime) > _TEMPORARY_SECONDS:
                        os.unlink(entry.path)
                elif entry.name.endswith(_EXTENSION) and entry.name != newest.name:
                    found.append((facts.st_mtime, facts.st_size, entry.path))
    with contextlib.suppress(OSError):
        room = MAX_BYTES - newest.stat().st_size
        for _, size, path in sorted(found, reverse=True):
            room -= size
            if room < 0:
                with contextlib.suppress(OSError):
                    os.unlink(path)
