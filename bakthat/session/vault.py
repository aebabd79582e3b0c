"""The inventory of a vault: which archive is which backup, kept here, in the bucket and there.

In the bucket it is one JSON text under the key that 0.6.0 used: a list of mappings with
``filename`` and ``archive_id``. 0.6.0's documentation spoke of one mapping from filenames to
archive ids; that is read too.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable

from bakthat.backends.base import Backend, ThawState, ThawStatus
from bakthat.backends.glacier.backend import GlacierBackend, VaultArchive, VaultInventory
from bakthat.errors import (
    BakthatError,
    ContainerNotFoundError,
    CorruptArchiveError,
    NotFoundError,
    StorageError,
)
from bakthat.format.names import parse_stored_name, parse_undotted_name
from bakthat.session import cold
from bakthat.session.records import vault_records
from bakthat.session.session import Session
from bakthat.system.text import printable

log = logging.getLogger("bakthat")

INVENTORY_KEY = "bakthat_glacier_inventory"
"""0.6.0's, without any prefix."""

SMALLEST, LARGEST = 3, 5
"""Hours that a vault usually takes for its inventory, by
https://docs.aws.amazon.com/amazonglacier/latest/dev/vault-inventory.html."""


def vault_list(
    session: Session, *, wait: cold.Wait = False, ask: bool = True, command: str
) -> VaultInventory | None:
    """Return what the vault lists of itself; None while that is under way.

    *command* is the one to run again, for the log. Without *ask*, a list that nobody has asked for
    is not asked for now. Raises StorageError.
    """
    backend = session.backend("glacier")
    assert isinstance(backend, GlacierBackend)
    state = backend.inventory_status()
    if state.state is ThawState.FROZEN and not ask:
        log.info(
            "Vault %s has not been asked for its inventory, and a dry run does not: bakthat "
            "show_glacier_inventory does",
            printable(backend.container),
        )
        return None
    if state.state is ThawState.FROZEN:
        state = backend.ask_inventory()
        log.info(
            "Asked vault %s for its inventory: it takes %d to %d hours",
            printable(backend.container),
            SMALLEST,
            LARGEST,
        )
        log.info("When it is ready, run bakthat %s again", command)
    elif not state.is_readable:
        _tell_waiting(backend, state)
    while wait and not state.is_readable:
        cold.pause(wait, cold.LONG_PAUSE)
        state = cold.look_again(backend.inventory_status, state)
        if state.state is ThawState.FROZEN:
            raise StorageError(
                "the vault's inventory ended without a result", hint="ask for it again"
            )
    return backend.read_inventory(state.job_id) if state.is_readable else None


def save_after_change(session: Session, *, make_bucket: bool = False) -> None:
    """Write the inventory to the profile's bucket, if it has one, after a vault has changed.

    With *make_bucket*, for a backup, a missing bucket is made. A failure is a warning: the archive
    that was stored or deleted is what matters.
    """
    if session.profile.s3_bucket is None:
        return
    try:
        _save(session, make_bucket=make_bucket)
    except BakthatError as exc:
        log.warning(
            "the inventory of the vault could not be backed up to bucket %s: %s (%s)",
            printable(session.profile.s3_bucket),
            exc,
            exc.hint
            if isinstance(exc, CorruptArchiveError)
            else "bakthat backup_glacier_inventory tries again",
        )


def parse_inventory(content: bytes, container: str) -> dict[str, str]:
    """Return the archive id of each stored filename that *content*, of a bucket, holds.

    Raises CorruptArchiveError when it has neither of the two shapes.
    """
    return dict(_pairs_of(content, container))


def _pairs_of(content: bytes, container: str) -> list[tuple[str, str]]:
    """Return stored filename and archive id of each entry, in their order.

    A filename may come twice: a vault has no names, and two machines may take one in one second.
    """
    try:
        said = json.loads(content)
        if isinstance(said, dict):
            pairs = list(said.items())
        else:
            pairs = [(each["filename"], each["archive_id"]) for each in said]
        if not all(isinstance(text, str) and text for pair in pairs for text in pair):
            raise TypeError("a name or an id is no text")
    except (ValueError, TypeError, KeyError, RecursionError) as exc:
        raise CorruptArchiveError(
            f"{INVENTORY_KEY!r} in bucket {container!r} is damaged: {exc}",
            hint="move it away; bakthat backup_glacier_inventory writes it anew from this "
            "machine's, bakthat show_glacier_inventory asks the vault for its own",
        ) from exc
    return pairs


def _save(session: Session, *, make_bucket: bool) -> dict[str, str]:
    backend = _bucket(session)
    try:
        content = _read(backend)
    except ContainerNotFoundError:
        if not make_bucket:
            raise
        backend.create_container()
        content = None
    others = _pairs_of(content, backend.container) if content is not None else []
    records = vault_records(session.catalog_path)
    archives = dict(records.archives.items())
    deleted = {each for each, facts in archives.items() if "deleted" in facts}
    # A catalog may serve several vaults; where one is unknown, the archive is told everywhere.
    own = {
        name: archive_id
        for name, archive_id in records.inventory.items()
        if archives.get(archive_id, {}).get("vault") in (None, session.profile.glacier_vault)
    }
    merged = sorted(pair for pair in {*others, *own.items()} if pair[1] not in deleted)
    entries = [{"filename": name, "archive_id": archive_id} for name, archive_id in merged]
    upload = backend.upload(
        INVENTORY_KEY, metadata={}, replace=True, content_type="application/json"
    )
    try:
        upload.write(json.dumps(entries, indent=1).encode())
        upload.commit()
    finally:
        upload.abort()
    return {name: own.get(name, archive_id) for name, archive_id in merged}


def _bucket(session: Session) -> Backend:
    # It must be readable at once, whatever class the backups are stored in.
    return session.backend("s3", storage_class=None)


def _read(backend: Backend) -> bytes | None:
    try:
        with backend.download(INVENTORY_KEY) as stream:
            return stream.read()
    except NotFoundError:
        return None


def _add(session: Session, found: Iterable[tuple[str, str]]) -> dict[str, str]:
    records = vault_records(session.catalog_path)
    archives, known = dict(records.archives.items()), dict(records.inventory.items())
    added: dict[str, str] = {}
    for name, archive_id in found:
        if "deleted" in archives.get(archive_id, {}):
            continue
        if name not in known:
            known[name] = added[name] = records.inventory.setdefault(name, archive_id)
        if known[name] != archive_id:
            log.warning(
                "%s is another archive here than there; this machine's stays: %s (not %s)",
                printable(name),
                known[name],
                printable(archive_id),
            )
    return added


def learn(
    session: Session, archives: list[VaultArchive], *, dry_run: bool = False
) -> dict[str, VaultArchive]:
    """Add archives of the vault's own list to this machine's inventory.

    Returns those that are bakthat's, by their keys, without those that were deleted from here;
    of several of one key the one that is known here, or else the newest. With *dry_run*, nothing
    is added.
    """
    records = vault_records(session.catalog_path)
    recorded = dict(records.archives.items())
    known = dict(records.inventory.items())
    named: dict[str, VaultArchive] = {}
    pairs: list[tuple[str, str]] = []
    # The newest first: of two archives with one name it is taken, and the other one warned of.
    for each in sorted(archives, key=lambda archive: archive.date or 0, reverse=True):
        stored = recorded.get(each.archive_id, {})
        # What others put into the vault has descriptions of another kind.
        base = each.key.rpartition("/")[2]
        parsed = parse_stored_name(base) or parse_undotted_name(base)
        if "deleted" in stored or parsed is None:
            continue
        pairs.append((each.key, each.archive_id))
        if each.key not in named or known.get(each.key) == each.archive_id:
            named[each.key] = each
        if "size" not in stored and not dry_run:
            vault = session.profile.glacier_vault
            records.archives[each.archive_id] = {**each.facts(), "vault": vault}
    added = _add(session, pairs) if not dry_run else {}
    if added:
        log.info("%d archives of the vault were not known here", len(added))
    return named


def _tell_waiting(backend: GlacierBackend, state: ThawStatus) -> None:
    log.info(
        "the inventory of vault %s is not ready yet: asked for at %s, it takes %d to %d hours",
        printable(backend.container),
        cold.show_moment(state.requested_at),
        SMALLEST,
        LARGEST,
    )
