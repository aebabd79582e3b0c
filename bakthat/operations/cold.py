"""Cold storage: list thaws, and show, copy and bring back the inventory of a vault."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from bakthat.backends.base import ThawStatus
from bakthat.backends.glacier.backend import VaultArchive
from bakthat.conf import DEFAULT_PROFILE
from bakthat.errors import ContainerNotFoundError
from bakthat.policy.defaults import COLD_DESTINATIONS
from bakthat.session import cold
from bakthat.session.session import Session
from bakthat.session.vault import VaultInventory
from bakthat.system.paths import PathLike

log = logging.getLogger("bakthat")


def show_local_glacier_inventory(
    profile: str = DEFAULT_PROFILE,
    config: PathLike | None = None,
    *,
    conf: Mapping[str, Any] | None = None,
) -> dict[str, str]:
    """Return the archive id of each stored filename, as this machine's catalog has it."""
    return VaultInventory(Session(profile, config, conf)).known()


def backup_glacier_inventory(
    profile: str = DEFAULT_PROFILE,
    config: PathLike | None = None,
    *,
    conf: Mapping[str, Any] | None = None,
) -> dict[str, str]:
    """Write this machine's inventory to the profile's bucket; return what the copy holds now.

    Archives of the copy that this machine does not know, those of other machines, stay in it.
    Raises StorageError, and CorruptArchiveError when the copy cannot be read.
    """
    return VaultInventory(Session(profile, config, conf)).save_to_bucket(make_bucket=True)


def restore_glacier_inventory(
    profile: str = DEFAULT_PROFILE,
    config: PathLike | None = None,
    *,
    conf: Mapping[str, Any] | None = None,
) -> dict[str, str]:
    """Add the entries of the bucket's copy to this machine's inventory; return those added.

    What this machine knows stays as it is. Raises NotFoundError when the bucket has no copy, and
    CorruptArchiveError when the copy cannot be read.
    """
    return VaultInventory(Session(profile, config, conf)).load_from_bucket()


def show_glacier_inventory(
    profile: str = DEFAULT_PROFILE,
    config: PathLike | None = None,
    *,
    conf: Mapping[str, Any] | None = None,
    wait: cold.Wait = False,
) -> list[VaultArchive] | None:
    """Return the archives that the vault itself lists; None while it still makes its list.

    A vault lists its archives once a day and takes hours to return the list: the first call
    requests it, and later calls return None until it is there. Archives that are not known here
    are added to this machine's inventory, unless they were deleted from here. Raises StorageError.
    """
    inventory = VaultInventory(Session(profile, config, conf))
    listing = inventory.listing(wait=wait, command="show_glacier_inventory")
    if listing is None:
        return None
    inventory.add_listed(listing.archives)
    return listing.archives


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
    """Return the objects that are being thawed or are thawed, in the profile's bucket and vault.

    Thaws that another machine requested are listed too. *destination* restricts the list to "s3"
    or "glacier". No thaw is requested. Raises StorageError.
    """
    session = Session(profile, config, conf, destination)
    named = session.named_destination
    found: list[ThawJob] = []
    for each in (named,) if named else COLD_DESTINATIONS:
        if named or session.containers(each):
            found += _jobs_of(session, each)
    return sorted(found, key=lambda job: (job.thaw.requested_at or 0, job.thaw.key))


def _jobs_of(session: Session, destination: str) -> Iterator[ThawJob]:
    container = session.backend(destination).container
    try:
        for thaw in cold.current_thaws(session, destination):
            yield ThawJob(destination, container, thaw)
    except ContainerNotFoundError:
        if session.named_destination:
            raise
        log.debug("%s does not exist yet", container)
