"""Cold storage: list thaws; show, copy and restore the inventory of a vault."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from bakthat.backends.base import ThawStatus
from bakthat.backends.glacier.inventory import VaultArchive
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
    """Write this machine's inventory to the profile's bucket; return the copy's new content.

    Archives in the copy that this machine does not know, such as another machine's, stay in it.
    Raises StorageError, and CorruptArchiveError when the copy cannot be read.
    """
    return VaultInventory(Session(profile, config, conf)).save_to_bucket(make_bucket=True)


def restore_glacier_inventory(
    profile: str = DEFAULT_PROFILE,
    config: PathLike | None = None,
    *,
    conf: Mapping[str, Any] | None = None,
) -> dict[str, str]:
    """Add the entries of the bucket's copy to this machine's inventory; return the added ones.

    This machine's own entries stay as they are. Raises NotFoundError when the bucket has no copy,
    and CorruptArchiveError when the copy cannot be read.
    """
    return VaultInventory(Session(profile, config, conf)).load_from_bucket()


def show_glacier_inventory(
    profile: str = DEFAULT_PROFILE,
    config: PathLike | None = None,
    *,
    conf: Mapping[str, Any] | None = None,
    wait: cold.Wait = False,
) -> list[VaultArchive] | None:
    """Return the vault's own list of its archives; None until the vault has made it.

    A vault lists its archives once a day and takes hours to return the list. The first call
    requests the list, and further calls return None until it is ready. With *wait* True the call
    waits instead; a function is called with the seconds to wait. Unknown archives are added to this
    machine's inventory, unless this machine deleted them. Raises StorageError.
    """
    inventory = VaultInventory(Session(profile, config, conf))
    listing = inventory.listing(wait=wait, command="show_glacier_inventory")
    if listing is None:
        return None
    inventory.add_listed(listing.archives)
    return listing.archives


@dataclass(frozen=True, slots=True)
class Thaw:
    """An object that is thawing or thawed."""

    backend: str
    container: str
    status: ThawStatus

    def as_dict(self) -> dict[str, Any]:
        """Return the fields as plain values, times in epoch seconds UTC."""
        return {"backend": self.backend, "container": self.container, **self.status.as_dict()}


def thaws(
    destination: str | None = None,
    profile: str = DEFAULT_PROFILE,
    config: PathLike | None = None,
    *,
    conf: Mapping[str, Any] | None = None,
) -> list[Thaw]:
    """Return the objects in the profile's bucket and vault that are thawing or thawed.

    Thaws that another machine requested are included. *destination* restricts the list to "s3"
    or "glacier". No thaw is requested. Raises StorageError.
    """
    session = Session(profile, config, conf, destination)
    named = session.named_destination
    found: list[Thaw] = []
    for each in (named,) if named else COLD_DESTINATIONS:
        if named or session.containers(each):
            found += _thaws_of(session, each)
    return sorted(found, key=lambda thaw: (thaw.status.requested_at or 0, thaw.status.key))


def _thaws_of(session: Session, destination: str) -> Iterator[Thaw]:
    container = session.backend(destination).container
    try:
        for status in cold.current_thaws(session, destination):
            yield Thaw(destination, container, status)
    except ContainerNotFoundError:
        if session.named_destination:
            raise
        log.debug("%s does not exist yet", container)
