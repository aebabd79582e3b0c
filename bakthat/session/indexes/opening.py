"""Open the index of a backup: from the cache, from the storage, or by reading the archive."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from functools import partial
from typing import TYPE_CHECKING

from bakthat import models
from bakthat.archive.index.reader import IndexReader
from bakthat.archive.index.state import State
from bakthat.backends.base import Backend
from bakthat.errors import (
    AgeFormatError,
    ContainerNotFoundError,
    CorruptIndexError,
    CredentialsError,
    DecryptionError,
    NotFoundError,
    NotReadyError,
    StorageError,
    UnreachableError,
    UsageError,
)
from bakthat.format.index.layout import NeededArchive
from bakthat.session.chains import NeededObject, needed_backup, needed_backups
from bakthat.session.indexes import cache
from bakthat.session.indexes.cache import IndexCache
from bakthat.session.indexes.home import home_of_index
from bakthat.session.session import Session
from bakthat.system.streams import Progress, RandomSource, Sink
from bakthat.system.text import printable

if TYPE_CHECKING:
    from bakthat.passwords import DecryptionKeys
    from bakthat.pipeline.read import Expected
    from bakthat.pipeline.scan import ScannedIndex
    from bakthat.session.reading import KeyFinder

log = logging.getLogger("bakthat")

FindNeeded = Callable[[Sequence[NeededArchive]], Sequence[NeededObject]]
"""Looks up the archives that a backup needs."""

WHOLE_BYTES = 512 * 1024
"""An index of up to this size is always fetched whole: that is one request, and it is kept."""
_COPY_BYTES = 1024 * 1024
_HEAD_BYTES = 72 * 1024
"""One request: the header of age and that of the index, which is in the first chunk of age."""
_TAIL_BYTES = 130 * 1024
"""Another one: the last two chunks of age, with the footer and the table of the members."""
_LOCATED_BYTES = 16 * 1024**3
"""Bytes of an archive whose gzip members are looked up at once."""

_REMEDY = "bakthat sync --indexes makes it again"


@contextmanager
def open_cached_index(backup: models.Backups) -> Iterator[IndexReader | None]:
    """Open the index of a backup if it is in the cache of this machine, else yield None.

    It needs neither a request nor a key. Raises CorruptIndexError while it is read.
    """
    with ExitStack() as stack, _forgetting(backup):
        yield _from_cache(stack, backup)


@contextmanager
def open_index(
    session: Session,
    backup: models.Backups,
    keys: KeyFinder,
    *,
    whole: bool,
    may_read_archive: bool = True,
    is_quiet: bool = False,
    progress: Progress | None = None,
    before: State | None = None,
) -> Iterator[IndexReader | None]:
    """Open the index of a backup; yield None where it has none.

    It comes from the cache, or else from the storage. With *whole* all of it is fetched, and kept
    in the cache; else only the parts that are read. Where it is missing or damaged, that is said,
    and with *may_read_archive* it is made in the cache by reading the archive; *progress* is then
    called with the bytes read and the size of the archive. *before* is the state that an increment
    was made from, where the caller has it open already. With *is_quiet*, it is not said that an
    index is missing. A value of KeyValue has none.

    Raises StorageError, CryptoError and ArchiveError; CorruptIndexError also while it is read.
    """
    with ExitStack() as stack, _forgetting(backup):
        index = _from_cache(stack, backup)
        if index is None and not backup.is_key_value:
            from bakthat.pipeline.read import naming  # it takes time to load

            with naming(backup.stored_filename):
                index = _from_storage_or_log(stack, session, backup, keys, whole, is_quiet)
                if index is None and may_read_archive:
                    index = _by_reading(stack, session, backup, keys, progress, before)
        yield index


@contextmanager
def open_state(
    session: Session,
    backup: models.Backups,
    keys: KeyFinder,
    *,
    whole: bool,
    may_read_archive: bool = True,
    is_quiet: bool = False,
    progress: Progress | None = None,
    find_needed: FindNeeded | None = None,
) -> Iterator[State | None]:
    """Open the state of a backup: its index, and those of all archives that it needs.

    The arguments are those of :func:`open_index`, which also says what is raised; yield None where
    the backup has no index. Of an increment, each index must be there: NotFoundError is raised for
    a needed archive that is not stored, CorruptArchiveError for one that was replaced, and
    CorruptIndexError for one that has no index. *find_needed* looks the needed archives up in
    another way; the archive of one with a problem is not read.
    """
    with ExitStack() as stack:

        def opened(
            each: models.Backups, problem: str = "", before: State | None = None
        ) -> IndexReader | None:
            return stack.enter_context(
                open_index(
                    session,
                    each,
                    keys,
                    whole=whole,
                    may_read_archive=may_read_archive and not problem,
                    is_quiet=is_quiet or bool(problem),
                    progress=progress,
                    before=before,
                )
            )

        own = opened(backup)
        if own is None:
            yield None
            return
        needs = own.header.needs
        _check_needs(backup, needs)
        objects = (
            [NeededObject(needed_backup(session, backup, needed)) for needed in needs]
            if find_needed is None
            else find_needed(needs)
        )
        indexes: list[IndexReader] = []
        for needed, found in zip(needs, objects, strict=True):
            index = opened(found.backup, found.problem, State(indexes) if indexes else None)
            if index is None:
                raise CorruptIndexError(
                    f"{printable(needed.key)}, which {printable(backup.stored_filename)} needs, "
                    "has no index",
                    hint=_REMEDY,
                )
            indexes.append(index)
        yield State([*indexes, own])


@contextmanager
def open_cached_state(session: Session, backup: models.Backups) -> Iterator[State | None]:
    """Open the state of a backup if all of its indexes are in the cache, else yield None.

    It needs neither a key nor, if the catalog lists all, a request.
    """
    with ExitStack() as stack, _forgetting(backup):
        own = _from_cache(stack, backup)
        indexes = []
        if own is not None:
            _check_needs(backup, own.header.needs)
            for needed in own.header.needs:
                each = needed_backup(session, backup, needed)
                stack.enter_context(_forgetting(each))
                indexes.append(_from_cache(stack, each))
        found = [each for each in (*indexes, own) if each is not None]
        yield State(found) if len(found) == len(indexes) + 1 else None


def _check_needs(backup: models.Backups, needs: Sequence[NeededArchive]) -> None:
    """Raise CorruptIndexError unless *needs* of the index are what the backup is said to need."""
    dates = tuple(each.date for each in needs)
    if bool(needs) == backup.is_increment and backup.needs in ((), dates):
        return
    raise CorruptIndexError(
        f"the index of {printable(backup.stored_filename)} does not say which archives it needs",
        hint="bakthat sync --indexes makes it again: another object was put in its place",
    )


def check_stored_index(session: Session, backup: models.Backups, keys: KeyFinder) -> int:
    """Read the stored index of a backup to its end, whatever the cache has; return its size.

    Raises NotFoundError when there is none, CorruptIndexError and DecryptionError for one that is
    damaged, and what :func:`open_index` raises.
    """
    backend = session.backend(backup.backend)
    stored = _StoredIndex(session, backend, backup, keys)
    with ExitStack() as stack, _forgetting(backup):
        size = stored.stat_size()
        index = stored.open(stack, size, whole=True)
        _check_needs(backup, index.header.needs)
        for _ in index.segments():
            pass
        members = index.members()
        if members is not None:
            for start in range(0, index.footer.tar_bytes, _LOCATED_BYTES):
                members.locate(start, min(start + _LOCATED_BYTES, index.footer.tar_bytes))
    return size


@contextmanager
def _forgetting(backup: models.Backups) -> Iterator[None]:
    """Remove an index that turns out to be damaged from the cache."""
    try:
        yield
    except CorruptIndexError as exc:
        IndexCache().forget([backup])
        exc.hint = exc.hint or _REMEDY
        raise


def _from_cache(stack: ExitStack, backup: models.Backups) -> IndexReader | None:
    kept = IndexCache().open(backup)
    if kept is None:
        return None
    stack.enter_context(kept)
    try:
        return IndexReader(kept, key=backup.stored_filename)
    except CorruptIndexError as exc:
        log.debug("the index in the cache is damaged: %s", exc)
        return None


def _from_storage_or_log(
    stack: ExitStack,
    session: Session,
    backup: models.Backups,
    keys: KeyFinder,
    whole: bool,
    is_quiet: bool,
) -> IndexReader | None:
    """Open the stored index; return None, and say why, where there is none that can be used."""
    name = printable(backup.stored_filename)
    try:
        return _from_storage(stack, session, backup, keys, whole=whole)
    except (NotFoundError, ContainerNotFoundError):
        if not is_quiet:
            log.info(
                "%s has no index, so all of it is read; bakthat sync --indexes makes one", name
            )
        return None
    except NotReadyError:
        problem = "is in cold storage, where a rule of the bucket moved it"
    except (CorruptIndexError, DecryptionError, AgeFormatError) as exc:
        problem = f"cannot be used: {exc}; {_REMEDY}"
    log.warning("the index of %s %s", name, problem)
    return None


def _from_storage(
    stack: ExitStack, session: Session, backup: models.Backups, keys: KeyFinder, *, whole: bool
) -> IndexReader:
    backend = session.backend(backup.backend)
    stored = _StoredIndex(session, backend, backup, keys)
    size = backup.metadata.get("index_size")
    if isinstance(size, int) and not isinstance(size, bool) and size > 0:
        try:
            return stored.open(stack, size, whole=whole)
        except (NotFoundError, NotReadyError, UnreachableError, CredentialsError):
            raise
        except (CorruptIndexError, DecryptionError, StorageError):
            present = stored.stat_size()  # another machine may have made it again
            if present == size:
                raise
            size = present
    else:
        size = stored.stat_size()
    return stored.open(stack, size, whole=whole)


class _StoredIndex:
    """The index of a backup as it is stored."""

    def __init__(
        self, session: Session, backend: Backend, backup: models.Backups, keys: KeyFinder
    ) -> None:
        self._backend = backend
        self._backup = backup
        self._keys = keys
        self._home, self._key = home_of_index(session, backend, backup.stored_filename)

    def stat_size(self) -> int:
        """Return its size as stored, in bytes. Raises NotFoundError."""
        try:
            return self._home.stat(self._key).size
        except UsageError as exc:  # the key of the archive leaves no room for it
            raise NotFoundError(str(exc)) from exc

    def open(self, stack: ExitStack, size: int, *, whole: bool) -> IndexReader:
        """Open the index, which has *size* bytes as stored.

        One that is larger than the cache is never fetched whole, whoever made it.
        """
        if size <= WHOLE_BYTES or (whole and size < cache.MAX_BYTES):
            kept = stack.enter_context(IndexCache().keep(self._backup, partial(self._fetch, size)))
            return self._read(kept)
        return self._read(self._ranges(size))

    def _read(self, source: RandomSource) -> IndexReader:
        with _forgetting(self._backup):
            return IndexReader(source, key=self._backup.stored_filename)

    def _ranges(self, size: int) -> RandomSource:
        from bakthat.backends.ranges import EndsAtOnce, ObjectRanges
        from bakthat.pipeline.ranges import plain_ranges

        stored = ObjectRanges(self._home, self._key, size)
        ranges = EndsAtOnce(stored, head=_HEAD_BYTES, tail=_TAIL_BYTES)
        expected = self._expected()
        keys = self._decryption_keys(expected)
        return plain_ranges(ranges, _how_to_read(expected), keys, file_keys=self._keys.file_keys)

    def _fetch(self, size: int, sink: Sink) -> None:
        from bakthat.pipeline.read import open_stages

        with ExitStack() as stages:
            stream = stages.enter_context(closing(self._home.download(self._key)))
            expected = self._expected()
            keys = self._decryption_keys(expected)
            source = open_stages(
                stages, stream, _how_to_read(expected), keys, file_keys=self._keys.file_keys
            )
            while piece := source.read(_COPY_BYTES):
                size -= len(piece)
                if size < 0:  # whoever replaced it could fill the disk
                    raise CorruptIndexError("the stored index is longer than it was")
                sink.write(piece)

    def _expected(self) -> Expected:
        from bakthat.session.reading import expected_of

        return expected_of(self._backup, any_size=True)

    def _decryption_keys(self, expected: Expected) -> DecryptionKeys:
        """Return the keys of the backup; where nothing says which it has, its index does.

        The archive may be frozen. Raises PasswordError and StorageError.
        """
        from bakthat.session.reading import peek_at_encryption

        if (
            expected.encrypted
            and not expected.is_legacy
            and "encryption" not in self._backup.metadata
        ):
            found = peek_at_encryption(self._home, self._key)
            self._backup.metadata = {**self._backup.metadata, "encryption": found}
        return self._keys.of(self._backend, self._backup, expected)


def _how_to_read(expected: Expected) -> Expected:
    """Return how to read the index of an archive that is *expected*: 0.6.0 made none."""
    return dataclasses.replace(expected, is_archive=False, compressed=False, is_legacy=False)


@contextmanager
def scanned_index(
    session: Session,
    backup: models.Backups,
    keys: KeyFinder,
    *,
    progress: Progress | None = None,
    before: State | None = None,
) -> Iterator[ScannedIndex]:
    """Read a backup to its end, and yield its index.

    The state that an increment was made from says what it removed; *before* is that, where the
    caller has it open already. Raises what :func:`open_index` raises.
    """
    from bakthat.session.indexes.scanning import scan_backup

    with ExitStack() as stack:
        needed = needed_backups(session, backup)
        indexes: list[IndexReader] = []
        for each in needed if before is None else ():
            index = stack.enter_context(
                open_index(
                    session,
                    each,
                    keys,
                    whole=True,
                    before=State(indexes) if indexes else None,
                )
            )
            assert index is not None
            indexes.append(index)
        if indexes:
            before = State(indexes)
        yield stack.enter_context(
            scan_backup(session, backup, keys, progress=progress, needed=needed, before=before)
        )


def _by_reading(
    stack: ExitStack,
    session: Session,
    backup: models.Backups,
    keys: KeyFinder,
    progress: Progress | None,
    before: State | None,
) -> IndexReader:
    with scanned_index(session, backup, keys, progress=progress, before=before) as scanned:
        kept = stack.enter_context(IndexCache().keep(backup, scanned.write_to))
    return IndexReader(kept, key=backup.stored_filename)
