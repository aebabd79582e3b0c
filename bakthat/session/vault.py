"""The inventory of a vault: which archive holds which backup.

It is in three places: this machine's catalog, a copy in the profile's bucket, and the vault, which
lists its archives once a day.

The copy is JSON text under the key that 0.6.0 used: a list of mappings with ``filename`` and
``archive_id``. The documentation of 0.6.0 described a mapping from filenames to archive ids, which
is read too.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable

from bakthat.backends.base import Backend, ThawState, ThawStatus
from bakthat.backends.glacier.backend import GlacierBackend
from bakthat.backends.glacier.inventory import VaultArchive, VaultListing
from bakthat.backends.s3.backend import S3Backend
from bakthat.errors import (
    BakthatError,
    ContainerNotFoundError,
    CorruptArchiveError,
    KeyExistsError,
    NotFoundError,
    StorageError,
)
from bakthat.format.names import parse_any_name
from bakthat.session import cold
from bakthat.session.records import vault_records
from bakthat.session.session import Session
from bakthat.system.text import printable, shown_minute

log = logging.getLogger("bakthat")

INVENTORY_KEY = "bakthat_glacier_inventory"
"""The key of the copy in the bucket, the same as in 0.6.0. It has no prefix."""

MAX_ROUNDS = 10
"""How many times the copy is merged and written when other machines write it at the same time."""

MIN_LISTING_HOURS, MAX_LISTING_HOURS = 3, 5
"""How long a vault usually takes to list its archives, according to
https://docs.aws.amazon.com/amazonglacier/latest/dev/vault-inventory.html."""


class VaultInventory:
    """The inventory of the profile's vault, in all three places."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._records = vault_records(session.catalog)

    # In the catalog

    def known(self) -> dict[str, str]:
        """Return the archive id of each stored filename, as the catalog has it."""
        return dict(sorted(self._records.inventory.items()))

    def _add(self, found: Iterable[tuple[str, str]]) -> dict[str, str]:
        """Add pairs of stored filename and archive id to the catalog; return the added ones."""
        archives, known = dict(self._records.archives.items()), self.known()
        added: dict[str, str] = {}
        for name, archive_id in found:
            if "deleted" in archives.get(archive_id, {}):
                continue
            if name not in known:
                known[name] = added[name] = self._records.inventory.setdefault(name, archive_id)
            if known[name] != archive_id:
                log.warning(
                    "%s has two archive ids; keeping this machine's %s, not %s",
                    printable(name),
                    known[name],
                    printable(archive_id),
                )
        return added

    # In the bucket

    def save_to_bucket(self, *, make_bucket: bool = False) -> dict[str, str]:
        """Write the catalog's inventory to the bucket; return the new content of the copy.

        Archives that only the copy has stay in it, unless this machine deleted them. With
        *make_bucket*, a missing bucket is made. Raises StorageError, and CorruptArchiveError when
        the copy cannot be read.
        """
        backend = self._bucket()
        for _ in range(MAX_ROUNDS):
            try:
                return self._merge_into(backend)
            except KeyExistsError as exc:
                log.debug("%s: merging again", exc)  # another machine has written it
            except ContainerNotFoundError:
                if not make_bucket:
                    raise
                backend.create_container()
        raise StorageError(
            f"{INVENTORY_KEY!r} in bucket {backend.container!r} was changed {MAX_ROUNDS} times "
            "while it was written",
            hint="try again",
        )

    def _merge_into(self, backend: S3Backend) -> dict[str, str]:
        """Add the catalog's inventory to the copy; return the copy's new content.

        Raises KeyExistsError when another machine changed the copy meanwhile.
        """
        etag, content = _read_with_etag(backend)
        others = _parse_pairs(content, backend.container) if content is not None else []
        archives = dict(self._records.archives.items())
        deleted = {each for each, facts in archives.items() if "deleted" in facts}
        # A catalog may serve several vaults. An archive without a recorded vault may be in any of
        # them, so each bucket gets it.
        own = {
            name: archive_id
            for name, archive_id in self._records.inventory.items()
            if archives.get(archive_id, {}).get("vault")
            in (None, self._session.profile.glacier_vault)
        }
        merged = sorted(pair for pair in {*others, *own.items()} if pair[1] not in deleted)
        _write(backend, merged, etag)
        return {name: own.get(name, archive_id) for name, archive_id in merged}

    def save_after_change(self, *, make_bucket: bool = False) -> None:
        """Write the inventory to the profile's bucket, if there is one, after the vault changed.

        With *make_bucket*, as after a backup, a missing bucket is made. A failure is only a
        warning, since the archive itself was stored or deleted.
        """
        if self._session.profile.s3_bucket is None:
            return
        try:
            self.save_to_bucket(make_bucket=make_bucket)
        except BakthatError as exc:
            log.warning(
                "the inventory of the vault could not be backed up to bucket %s: %s (%s)",
                printable(self._session.profile.s3_bucket),
                exc,
                exc.hint
                if isinstance(exc, CorruptArchiveError)
                else "bakthat backup_glacier_inventory tries again",
            )

    def load_from_bucket(self) -> dict[str, str]:
        """Add the entries of the bucket's copy to the catalog; return the added ones.

        The catalog's own entries stay as they are. Raises NotFoundError when the bucket has no
        copy, and CorruptArchiveError when the copy cannot be read.
        """
        backend = self._bucket()
        content = _read(backend)
        if content is None:
            raise NotFoundError(
                f"bucket {backend.container!r} has no {INVENTORY_KEY!r}",
                hint="bakthat show_glacier_inventory asks the vault for its own inventory",
            )
        return self._add(_parse_pairs(content, backend.container))

    def _bucket(self) -> S3Backend:
        # The copy must be readable at once, whatever the storage class of the backups is.
        backend = self._session.backend("s3", storage_class=None)
        assert isinstance(backend, S3Backend)
        return backend

    # In the vault

    def listing(
        self, *, wait: cold.Wait = False, request: bool = True, command: str
    ) -> VaultListing | None:
        """Return the vault's own list of its archives; None until the vault has made it.

        Requests the list unless it is requested already or *request* is false. *wait* is as for a
        restore. *command* is the command that the log says to run again. Raises StorageError.
        """
        backend = self._session.backend("glacier")
        assert isinstance(backend, GlacierBackend)
        status = backend.inventory_status()
        if status.state is ThawState.FROZEN and not request:
            log.info(
                "The inventory of vault %s was not requested yet, and a dry run does not request "
                "it: run bakthat show_glacier_inventory",
                printable(backend.container),
            )
            return None
        if status.state is ThawState.FROZEN:
            status = backend.request_inventory()
            log.info(
                "Requested the inventory of vault %s: it takes %d to %d hours",
                printable(backend.container),
                MIN_LISTING_HOURS,
                MAX_LISTING_HOURS,
            )
            log.info("When it is ready, run bakthat %s again", command)
        elif not status.is_readable:
            _log_waiting(backend, status)
        polling = cold.Polling(wait, backend.inventory_status)
        while wait and not status.is_readable:
            status = polling.next_status(status, cold.LONG_PAUSE)
            if status.state is ThawState.FROZEN:
                raise StorageError(
                    f"the inventory job of vault {backend.container!r} failed or expired",
                    hint=f"bakthat {command} requests it again",
                )
        return backend.read_inventory(status.job_id) if status.is_readable else None

    def add_listed(
        self, archives: list[VaultArchive], *, dry_run: bool = False
    ) -> dict[str, VaultArchive]:
        """Add archives that the vault lists to the catalog's inventory.

        Returns the archives that are bakthat's by their keys, without those that this machine
        deleted. Of several archives with the same key it returns the one in the catalog, or else
        the newest. With *dry_run*, nothing is added.
        """
        recorded = dict(self._records.archives.items())
        known = self.known()
        named: dict[str, VaultArchive] = {}
        pairs: list[tuple[str, str]] = []
        # The newest first: of two archives with the same name the newest is added, and a warning
        # names the other.
        for each in sorted(archives, key=lambda archive: archive.date or 0, reverse=True):
            stored = recorded.get(each.archive_id, {})
            if "deleted" in stored or not _is_backup(each):
                continue
            pairs.append((each.key, each.archive_id))
            if each.key not in named or known.get(each.key) == each.archive_id:
                named[each.key] = each
            if "size" not in stored and not dry_run:
                vault = self._session.profile.glacier_vault
                self._records.archives[each.archive_id] = {**each.facts(), "vault": vault}
        added = self._add(pairs) if not dry_run else {}
        if added:
            log.info("%d archives of the vault were not known here", len(added))
        return named


def parse_inventory(content: bytes, container: str) -> dict[str, str]:
    """Return the archive id of each stored filename in *content*, the copy in bucket *container*.

    Raises CorruptArchiveError when the copy has neither of the two forms.
    """
    return dict(_parse_pairs(content, container))


def _parse_pairs(content: bytes, container: str) -> list[tuple[str, str]]:
    """Return the stored filename and archive id of each entry, in their order.

    A filename may occur twice, since a vault has no unique names: two machines may use the same
    name in the same second.
    """
    try:
        entries = json.loads(content)
        if isinstance(entries, dict):
            pairs = list(entries.items())
        else:
            pairs = [(each["filename"], each["archive_id"]) for each in entries]
        if not all(isinstance(text, str) and text for pair in pairs for text in pair):
            raise TypeError("a name or an id is not text")
    except (ValueError, TypeError, KeyError, RecursionError) as exc:
        raise CorruptArchiveError(
            f"{INVENTORY_KEY!r} in bucket {container!r} is damaged: {exc}",
            hint="move it away; bakthat backup_glacier_inventory writes it anew from this "
            "machine's, bakthat show_glacier_inventory asks the vault for its own",
        ) from exc
    return pairs


def _read(backend: Backend) -> bytes | None:
    try:
        with backend.download(INVENTORY_KEY) as stream:
            return stream.read()
    except NotFoundError:
        return None


def _read_with_etag(backend: S3Backend) -> tuple[str | None, bytes | None]:
    """Return the ETag and the content of the copy; twice None when there is none."""
    try:
        # The ETag first: if the copy is replaced before it is read, it is not written over.
        etag = backend.stat(INVENTORY_KEY).extra["etag"]
    except NotFoundError:
        return None, None
    return etag, _read(backend)


def _write(backend: S3Backend, pairs: list[tuple[str, str]], replaces: str | None) -> None:
    """Write the copy in the place of the one with the ETag *replaces*, or of none."""
    entries = [{"filename": name, "archive_id": archive_id} for name, archive_id in pairs]
    upload = backend.upload(
        INVENTORY_KEY,
        metadata={},
        replace=replaces is not None,
        replaces=replaces,
        content_type="application/json",
    )
    try:
        upload.write(json.dumps(entries, indent=1).encode())
        upload.commit()
    finally:
        upload.abort()


def _is_backup(archive: VaultArchive) -> bool:
    # Archives of other programs in the vault have descriptions of another kind.
    base = archive.key.rpartition("/")[2]
    return parse_any_name(base) is not None


def _log_waiting(backend: GlacierBackend, status: ThawStatus) -> None:
    log.info(
        "the inventory of vault %s is not ready yet: requested at %s, it takes %d to %d hours",
        printable(backend.container),
        shown_minute(status.requested_at),
        MIN_LISTING_HOURS,
        MAX_LISTING_HOURS,
    )
