"""Cold storage: list what is thawing, and show, copy and bring back the inventory of a vault."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from bakthat.backends.base import ColdStorage, ThawState, ThawStatus
from bakthat.backends.glacier.backend import VaultArchive
from bakthat.conf import DEFAULT_PROFILE
from bakthat.errors import ContainerNotFoundError, NotFoundError
from bakthat.policy.defaults import COLD_DESTINATIONS
from bakthat.session import cold
from bakthat.session.cold import _look_again, _Memory
from bakthat.session.records import vault_records
from bakthat.session.session import Session
from bakthat.session.vault import (
    INVENTORY_KEY,
    _add,
    _bucket,
    _pairs_of,
    _read,
    _save,
    learn,
    vault_list,
)
from bakthat.system.paths import PathLike


def show_local_glacier_inventory(
    profile: str = DEFAULT_PROFILE,
    config: PathLike | None = None,
    *,
    conf: Mapping[str, Any] | None = None,
) -> dict[str, str]:
    """Return the archive id of each stored filename, as this machine's catalog has it."""
    session = Session(profile, config, conf)
    return dict(sorted(vault_records(session.catalog_path).inventory.items()))


def backup_glacier_inventory(
    profile: str = DEFAULT_PROFILE,
    config: PathLike | None = None,
    *,
    conf: Mapping[str, Any] | None = None,
) -> dict[str, str]:
    """Write this machine's inventory to the profile's bucket; return what stands there now.

    Archives that the bucket's copy has and this machine does not know, those of other machines,
    stay in it. Raises StorageError, and CorruptArchiveError when that copy cannot be read.
    """
    session = Session(profile, config, conf)
    return _save(session, make_bucket=True)


def restore_glacier_inventory(
    profile: str = DEFAULT_PROFILE,
    config: PathLike | None = None,
    *,
    conf: Mapping[str, Any] | None = None,
) -> dict[str, str]:
    """Add to this machine's inventory what the bucket's copy has; return what was added.

    What is known here stays as it is. Raises NotFoundError when the bucket has no copy, and
    CorruptArchiveError when that cannot be read.
    """
    session = Session(profile, config, conf)
    backend = _bucket(session)
    content = _read(backend)
    if content is None:
        raise NotFoundError(
            f"bucket {backend.container!r} has no {INVENTORY_KEY!r}",
            hint="bakthat show_glacier_inventory asks the vault for its own inventory",
        )
    return _add(session, _pairs_of(content, backend.container))


def show_glacier_inventory(
    profile: str = DEFAULT_PROFILE,
    config: PathLike | None = None,
    *,
    conf: Mapping[str, Any] | None = None,
    wait: cold.Wait = False,
) -> list[VaultArchive] | None:
    """Return the archives that the vault itself lists; None while that is under way.

    The vault makes its inventory up once a day and takes hours to hand it out: the first call
    asks for it, and calls until it is there say so. Archives that are not known here are added
    to this machine's inventory, unless they were deleted from here. Raises StorageError.
    """
    session = Session(profile, config, conf)
    listed = vault_list(session, wait=wait, command="show_glacier_inventory")
    if listed is None:
        return None
    learn(session, listed.archives)
    return listed.archives


log = logging.getLogger("bakthat")


@dataclass(frozen=True, slots=True)
class ThawJob:
    """An object that is being thawed, or that is thawed for a while."""

    backend: str
    container: str
    thaw: ThawStatus

    def as_dict(self) -> dict[str, Any]:
        """Return the fields as plain values, times in epoch seconds UTC."""
        fields = dataclasses.asdict(self.thaw)
        return {
            "backend": self.backend,
            "container": self.container,
            "stored_filename": fields.pop("key"),
            **fields,
            "state": self.thaw.state.value,
        }


def jobs(
    destination: str | None = None,
    profile: str = DEFAULT_PROFILE,
    config: PathLike | None = None,
    *,
    conf: Mapping[str, Any] | None = None,
) -> list[ThawJob]:
    """Return what is being thawed or is thawed, in the profile's bucket and vault.

    Also what another machine asked for. *destination* keeps to "s3" or "glacier". Asks for no
    thaw. Raises StorageError.
    """
    session = Session(profile, config, conf, destination)
    named = session.named_destination
    found: list[ThawJob] = []
    for each in (named,) if named else COLD_DESTINATIONS:
        if named or session.containers(each):
            found += _jobs_of(session, each)
    return sorted(found, key=lambda job: (job.thaw.requested_at or 0, job.thaw.key))


def _jobs_of(session: Session, destination: str) -> Iterator[ThawJob]:
    backend = session.backend(destination)
    if not isinstance(backend, ColdStorage):
        return
    memory = _Memory(session, destination)
    seen: set[str] = set()
    try:
        for thaw in backend.thaws(session.shared_prefix):
            seen.add(thaw.key)
            yield ThawJob(destination, backend.container, memory.complete(thaw))
        for key in memory.names() - seen:
            thaw = memory.complete(_look_again(backend, key))
            if thaw.state in (ThawState.ASKED, ThawState.READY):
                yield ThawJob(destination, backend.container, thaw)
    except ContainerNotFoundError:
        if session.named_destination:
            raise
        log.debug("%s does not exist yet", backend.container)
