"""What follows a change of a storage: a vault's inventory is copied to the bucket."""

from __future__ import annotations

from bakthat.session.session import Session


def after_change(session: Session, destination: str, *, make_bucket: bool = False) -> None:
    """Do what must follow once backups were stored on *destination* or deleted from it.

    With *make_bucket*, as after a backup, a missing bucket for the inventory is made. A failure is
    only a warning.
    """
    if destination == "glacier":
        # Imported here, so that a change of another storage does not load it.
        from bakthat.session.vault import VaultInventory

        VaultInventory(session).save_after_change(make_bucket=make_bucket)
