"""Make the index of a backup by reading it."""

from __future__ import annotations

from collections.abc import Sequence

from bakthat import models
from bakthat.archive.index.state import State
from bakthat.format.index.layout import ARCHIVE, FILE, IndexHeader, NeededArchive
from bakthat.pipeline.scan import ScannedIndex, scan_object
from bakthat.session.reading import KeyFinder, byte_counter, expected_of
from bakthat.session.session import Session
from bakthat.system.streams import Progress


def scan_backup(
    session: Session,
    backup: models.Backups,
    keys: KeyFinder,
    *,
    progress: Progress | None = None,
    needed: Sequence[models.Backups] = (),
    before: State | None = None,
) -> ScannedIndex:
    """Read *backup* to its end, and return its index, which the caller closes.

    An increment needs the archives *needed*, and was made from the state *before*. *progress* is
    called with the bytes read and the size of the stored object. Raises ArchiveError, CryptoError,
    and StorageError; NotReadyError for one in cold storage.
    """
    backend = session.backend(backup.backend)
    expected = expected_of(backup, any_size=True)  # nothing of its content is written
    header = IndexHeader(
        key=backup.stored_filename,
        set_name=backup.filename,
        host=backup.host,
        source=backup.source,
        source_id=backup.source_id,
        date=backup.date,
        kind=ARCHIVE if expected.is_archive else FILE,
        archive_id=backup.archive_id,
        needs=tuple(
            NeededArchive(each.stored_filename, each.date, each.size, each.archive_id)
            for each in needed
        ),
        level=backup.level,
    )
    return scan_object(
        backend.download(backup.stored_filename),
        expected,
        header,
        keys=keys.of(backend, backup, expected),
        file_keys=keys.file_keys,
        on_bytes=byte_counter(progress, backup.size),
        before=before.entries() if before is not None else (),
    )
