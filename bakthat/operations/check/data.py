"""Read backups to their end, or a share of them, and write nothing."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace

from bakthat import models
from bakthat.archive.index.reader import IndexReader
from bakthat.backends.base import Backend
from bakthat.backends.ranges import ObjectRanges
from bakthat.crypto.age import FileKeys
from bakthat.errors import (
    AgeFormatError,
    ArchiveError,
    BakthatError,
    ConfigError,
    ContainerNotFoundError,
    CorruptIndexError,
    CryptoError,
    DecryptionError,
    KeyFormatError,
    NotFoundError,
    NotReadyError,
    PasswordError,
    StorageError,
    UsageError,
    WrongKeyError,
)
from bakthat.format.entry import Entry
from bakthat.operations.check.needed import NeededArchives
from bakthat.operations.check.result import CheckResult, Verdict, should_have_index
from bakthat.operations.check.stored import NO_INDEX, REMEDY
from bakthat.passwords import DecryptionKeys
from bakthat.pipeline import read
from bakthat.pipeline.damage import damaged_entries
from bakthat.pipeline.sample import verify_share
from bakthat.session import cold
from bakthat.session.indexes.opening import check_stored_index, open_index
from bakthat.session.reading import KeyFinder, byte_counter, expected_of, refresh_entry
from bakthat.session.session import Session
from bakthat.system.streams import ByteCounter, Progress
from bakthat.system.text import counted, printable

log = logging.getLogger("bakthat")

_MOST_NAMED = 20
"""The most files that are named."""
_MOST_LOST = 1000
"""The most files that are looked for in a damaged archive: each costs some requests."""
_DIFFER = "differs from the SHA-256 in the index", "differ from the SHA-256 in the index"
_LOST = "cannot be restored", "cannot be restored"
_BAD_INDEX = f"its index cannot be used; {REMEDY}"


def read_all(
    session: Session,
    found: Sequence[CheckResult],
    needed: NeededArchives,
    keys: KeyFinder,
    share: float | None,
    progress: Progress | None,
) -> Iterator[CheckResult]:
    """Yield *found*, with the finding about the data of each good one.

    *share* of it is read; None means all. *progress* is called with the bytes read and to read.
    """
    total = sum(max(each.backup.size, 0) for each in found if each.is_good)
    count = byte_counter(progress, round(total * (share or 1)))
    for each in found:
        if not each.is_good:
            yield each
            continue
        log.info("Reading %s", printable(each.backup.stored_filename))
        checked = _read(session, each, needed, keys, share or 1, count)
        if not checked.is_good:
            log.warning("%s: %s", printable(each.backup.stored_filename), checked.detail)
        yield checked


def _read(
    session: Session,
    stored: CheckResult,
    needed: NeededArchives,
    keys: KeyFinder,
    share: float,
    count: ByteCounter,
) -> CheckResult:
    """Return *stored* with the finding about its data, of which *share* is read."""
    try:
        return _read_readable(session, stored, needed, keys, share, count)
    except (PasswordError, WrongKeyError, KeyFormatError, ConfigError) as exc:
        return replace(stored, verdict=Verdict.NO_KEY, detail=str(exc))
    except NotFoundError as exc:
        return replace(stored, verdict=Verdict.MISSING, detail=str(exc))
    except CorruptIndexError as exc:
        problem = stored.index_problem or _BAD_INDEX
        return replace(stored, verdict=Verdict.STORED, detail=str(exc), index_problem=problem)
    except (StorageError, UsageError) as exc:
        return replace(stored, verdict=Verdict.UNKNOWN, detail=str(exc))
    except BakthatError as exc:
        return replace(stored, verdict=Verdict.DAMAGED, detail=str(exc))


def _read_readable(
    session: Session,
    stored: CheckResult,
    needed: NeededArchives,
    keys: KeyFinder,
    share: float,
    count: ByteCounter,
) -> CheckResult:
    """Do what :func:`_read` does. Raises what reading raises, where no files can be named."""
    backup = stored.backup
    backend = session.backend(backup.backend)
    if stored.verdict is Verdict.COLD:
        state = cold.thaw_status(session, backup)
        if not state.is_readable:
            return replace(stored, detail=cold.describe(state))
    refresh_entry(session, backup)
    expected = expected_of(backup, any_size=True)
    data = _Data(backend, backup, expected, keys.of(backend, backup, expected), keys.file_keys)
    if share == 1:
        stored = _with_index_read(session, stored, keys)
    with _usable_index(session, stored, keys) as index:
        if index is None and should_have_index(backup):
            stored = replace(stored, index_problem=stored.index_problem or _BAD_INDEX)
        proved = stored if index is None else needed.proved_by(index.header.needs, stored)
        if proved is not stored:
            return proved
        parts_index = index if data.has_parts(index) else None
        if share == 1:
            named = data.read(index, parts_index, count)
        elif parts_index is None:
            detail = "without an index, no part of it can be read alone"
            return replace(stored, verdict=Verdict.STORED, detail=detail)
        else:
            named = data.read_share(parts_index, share, count)
    if named:
        return replace(stored, verdict=Verdict.DAMAGED, detail=named)
    if share == 1:
        return replace(stored, verdict=Verdict.READ, detail="")
    return replace(stored, verdict=Verdict.SAMPLED, detail=f"{share * 100:.3g} % of it was read")


@dataclass(frozen=True, slots=True)
class _Data:
    """The stored data of a backup, and what opens it."""

    backend: Backend
    backup: models.Backups
    expected: read.Expected
    keys: DecryptionKeys
    file_keys: FileKeys

    def has_parts(self, index: IndexReader | None) -> bool:
        """Return whether a part of it can be read alone, by *index*."""
        if index is None or (self.expected.encrypted and self.expected.is_legacy):
            return False
        return not self.expected.compressed or index.members() is not None

    def read(
        self, index: IndexReader | None, parts_index: IndexReader | None, count: ByteCounter
    ) -> str:
        """Read all of it; return which files are damaged, "" for none.

        *parts_index* is *index* where parts can be read alone. Raises what reading raises, where no
        files can be named.
        """
        differences = _Named()
        try:
            read.verify_object(
                self.backend.download(self.backup.stored_filename),
                self.expected,
                keys=self.keys,
                on_bytes=count,
                index=index,
                on_difference=differences.add,
                file_keys=self.file_keys,
            )
        except (ArchiveError, AgeFormatError, DecryptionError) as exc:
            if isinstance(exc, CorruptIndexError) or parts_index is None:
                raise
            if not self.expected.is_archive:
                raise
            return f"{exc}; {self._lost(parts_index, count)}"
        return differences.describe(_DIFFER)

    def read_share(self, index: IndexReader, share: float, count: ByteCounter) -> str:
        """Read *share* of it; return which files are damaged, "" for none.

        Raises what reading raises.
        """
        differences = _Named()
        verify_share(
            self._ranges(),
            self.expected,
            index=index,
            share=share,
            keys=self.keys,
            file_keys=self.file_keys,
            on_bytes=count,
            on_difference=differences.add,
        )
        return differences.describe(_DIFFER)

    def _lost(self, index: IndexReader, count: ByteCounter) -> str:
        """Return which files are lost of an archive that cannot be read to its end."""
        name = printable(self.backup.stored_filename)
        log.info("Looking for the files that %s has lost", name)
        lost = _Named()
        stored = self._ranges()
        entries = damaged_entries(
            stored,
            self.expected,
            index=index,
            keys=self.keys,
            file_keys=self.file_keys,
            on_bytes=count,
            cancel=stored.cancel,
        )
        try:
            with closing(entries):
                for entry in itertools.islice(entries, _MOST_LOST):
                    lost.add(entry)
        except (ArchiveError, CryptoError):
            return "no part of it can be read alone"
        except StorageError as exc:
            found = lost.describe(_LOST)
            return f"{found}{'; ' if found else ''}what else is lost could not be found out: {exc}"
        return lost.describe(_LOST, most=_MOST_LOST) or "each of its files can be read alone"

    def _ranges(self) -> ObjectRanges:
        return ObjectRanges(self.backend, self.backup.stored_filename, self.backup.size)


def _with_index_read(session: Session, stored: CheckResult, keys: KeyFinder) -> CheckResult:
    """Return *stored* with the problem of its index, which is read to its end as it is stored.

    Raises StorageError, WrongKeyError.
    """
    if stored.index_problem or not should_have_index(stored.backup):
        return stored
    try:
        check_stored_index(session, stored.backup, keys)
    except (NotFoundError, ContainerNotFoundError):
        return replace(stored, index_problem=NO_INDEX)
    except (CorruptIndexError, DecryptionError, AgeFormatError) as exc:
        log.warning("the index of %s: %s", printable(stored.backup.stored_filename), exc)
        return replace(stored, index_problem=_BAD_INDEX)
    except NotReadyError as exc:
        log.warning("the index of %s: %s", printable(stored.backup.stored_filename), exc)
    return stored


@contextmanager
def _usable_index(
    session: Session, stored: CheckResult, keys: KeyFinder
) -> Iterator[IndexReader | None]:
    """Open the index of a backup; yield None for one that has none, or a bad one."""
    if stored.index_problem and stored.index_problem != NO_INDEX:
        yield None
        return
    with open_index(
        session, stored.backup, keys, whole=True, may_read_archive=False, is_quiet=True
    ) as index:
        yield index


class _Named:
    """The files with a problem: how many, and the paths of some."""

    def __init__(self) -> None:
        self.count = 0
        self._paths: list[str] = []

    def add(self, entry: Entry) -> None:
        self.count += 1
        if len(self._paths) < _MOST_NAMED:
            self._paths.append(printable(entry.path))

    def describe(self, problem: tuple[str, str], *, most: int | None = None) -> str:
        """Return the files and their *problem*, in the singular and the plural; "" for none.

        No more than *most* files were looked for.
        """
        if not self.count:
            return ""
        paths = ", ".join(self._paths)
        if self.count == most:
            return f"{most} files or more {problem[1]}: {paths} and more"
        more = f" and {self.count - len(self._paths)} more" if self.count > _MOST_NAMED else ""
        return f"{counted(self.count, 'file')} {problem[self.count != 1]}: {paths}{more}"
