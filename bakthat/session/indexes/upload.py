"""Store the index of a new archive, right before the archive itself."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from bakthat import models
from bakthat.archive.index.writer import IndexSpool
from bakthat.backends.base import Backend, Upload
from bakthat.backends.lock import Lock
from bakthat.crypto.age import SharedHeader
from bakthat.errors import (
    ArchiveError,
    BakthatError,
    ContainerNotFoundError,
    KeyExistsError,
    LockedObjectError,
    NotFoundError,
    StorageError,
    UsageError,
)
from bakthat.format.index.layout import IndexHeader
from bakthat.passwords import EncryptionKeys
from bakthat.pipeline.write import write_index
from bakthat.session.indexes.cache import remember_index
from bakthat.session.indexes.home import home_of_index
from bakthat.session.session import Session
from bakthat.system.streams import Sink
from bakthat.system.text import printable

log = logging.getLogger("bakthat")


class NewIndex:
    """The index of an archive that is being stored: collected, uploaded, kept or removed again.

    The index is committed before its archive: what is killed in between leaves an index without an
    archive, which is no backup, and which ``cleanup`` removes. The caller calls :meth:`abort`
    unless it was stopped, and :meth:`close`.
    """

    def __init__(self, session: Session, backend: Backend, key: str) -> None:
        """*key* is that of the archive in *backend*. Raises ConfigError."""
        self._archive = (backend, key)
        self._home, self._key = home_of_index(session, backend, key)
        self._upload: Upload | None = None
        self._is_committed = False
        self._content: Callable[[Sink], object] | None = None
        self.spool = IndexSpool()
        self.size: int | None = None
        """In bytes, as stored; None when the index is not stored."""
        self.lock: Lock | None = None
        """Its lock; None when it has none, or that cannot be seen."""

    def close(self) -> None:
        """Discard what was collected."""
        self.spool.close()

    def send(
        self,
        description: Mapping[str, Any],
        header: IndexHeader,
        *,
        tar_bytes: int,
        keys: EncryptionKeys,
        shared: SharedHeader | None = None,
        lock: Lock | None = None,
    ) -> None:
        """Send the index as :func:`~bakthat.pipeline.write.write_index` writes it.

        *description* is its self-description; *lock* is that of its archive, if it has one. May be
        interrupted. A vault's index is in another storage; when that fails, the index is left out
        with a warning, since the archive may have taken days. So it is where its key is too long,
        though that of the archive fits. Raises StorageError.
        """
        self._content = partial(self.spool.write_to, header=header, tar_bytes=tar_bytes)
        with _Lenient(self._is_apart, self._key) as step:
            try:
                self._upload = self._begin(description, lock)
            except UsageError as exc:
                log.warning(
                    "the backup has no index: %s; a shorter name leaves room for one (--name)", exc
                )
                return
            write_index(
                self._upload, self.spool, header, tar_bytes=tar_bytes, keys=keys, shared=shared
            )
            self._upload.flush()
        if step.has_failed:
            self._discard()

    def commit(self) -> None:
        """Publish the index. Raises KeyExistsError and other StorageErrors."""
        if self._upload is None:
            return
        with _Lenient(self._is_apart, self._key) as step:
            stored = self._upload.commit()
            self.size, self.lock = stored.size, stored.lock
            self._is_committed = True
        if step.has_failed:
            self._discard()
        elif self._is_apart and self._home.name == "local":
            log.info(
                "The index is in %s: it is lost with this machine", printable(self._home.container)
            )

    def keep(self) -> None:
        """Let the index stay: its archive is stored."""
        self._is_committed = False

    def remember(self, backup: models.Backups) -> None:
        """Put the index into the cache of this machine, as that of *backup*, if that works."""
        if self._content is None:
            return
        try:
            remember_index(backup, self._content)
        except ArchiveError as exc:  # the backup is stored, and the index too
            log.debug("the index of %s is not cached: %s", printable(self._key), exc)

    def abort(self) -> None:
        """Discard what was sent, and remove an index that was committed and whose archive is not
        stored. May be called again; never raises what the storage raises.
        """
        self._discard()
        if not self._is_committed:
            return
        self._is_committed = False
        backend, key = self._archive
        try:
            # An archive whose answer was lost may be stored; then its index must stay.
            backend.stat(key)
        except NotFoundError:
            self.withdraw()
        except BakthatError as exc:
            self._warn(exc)

    def withdraw(self) -> None:
        """Remove the index, which was committed; a failure is a warning."""
        self._is_committed = False
        try:
            self._home.delete(self._key)
        except BakthatError as exc:
            self._warn(exc)

    @property
    def _is_apart(self) -> bool:
        return self._home is not self._archive[0]

    def _begin(self, description: Mapping[str, Any], lock: Lock | None) -> Upload:
        if self._is_apart:
            # Only the first parts of an upload would tell that the container is missing.
            try:
                self._home.check_container()
            except ContainerNotFoundError:
                self._home.create_container()
            except StorageError as exc:
                log.debug("%s cannot be looked up: %s", printable(self._home.container), exc)
        return self._home.upload(self._key, metadata=description, lock=lock)

    def _discard(self) -> None:
        upload, self._upload = self._upload, None
        if upload is not None:
            upload.abort()

    def _warn(self, error: BakthatError) -> None:
        is_locked = isinstance(error, LockedObjectError)
        log.warning(
            "%s may remain without an archive: %s; bakthat cleanup removes it after %s",
            printable(self._key),
            error,
            "that" if is_locked else "a day",
        )


class _Lenient:
    """A block in which a storage that fails is only a warning, if *is_lenient*."""

    def __init__(self, is_lenient: bool, key: str) -> None:
        self._is_lenient = is_lenient
        self._key = key
        self.has_failed = False

    def __enter__(self) -> _Lenient:
        return self

    def __exit__(self, _: object, error: BaseException | None, __: object) -> bool:
        if (
            not self._is_lenient
            or not isinstance(error, StorageError)
            or isinstance(error, KeyExistsError)
        ):
            return False
        self.has_failed = True
        log.warning(
            "the index %s could not be stored: %s; bakthat sync --indexes makes it again",
            printable(self._key),
            error,
        )
        return True
