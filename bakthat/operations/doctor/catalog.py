"""Look at the catalog: whether it can be read and written, and whether it is whole."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from bakthat import models
from bakthat.database.address import DatabaseAddress
from bakthat.database.sqlite import damage_of
from bakthat.errors import CatalogError
from bakthat.policy.finding import Finding, advice, failed, good, problem
from bakthat.session.session import Session
from bakthat.system import disks
from bakthat.system.text import counted, printable

TOPIC = "catalog"


def catalog_findings(session: Session) -> list[Finding]:
    """Open the catalog to write it, as a backup does, and check that it is whole."""
    path, patience = session.catalog, int(session.profile.timeout) or 1
    if not isinstance(path, Path):
        return [_about_server(path, patience)]
    shown = printable(path)
    if not os.path.lexists(path):
        return [_about_missing(path)]
    findings = []
    try:
        damage = damage_of(path, patience)
        if damage:
            return [
                problem(
                    TOPIC,
                    f"the catalog {shown} is damaged: {printable(damage)}",
                    "move it away; bakthat sync rebuilds it from the storage",
                )
            ]
        with models.catalog(path, write=True, patience=patience):
            count = models.Backups.select().where(~models.Backups.is_deleted).count()
    except CatalogError as exc:
        return [failed(TOPIC, exc)]
    found = disks.problem_of_directory(path.parent)
    if found is not None:
        return [problem(TOPIC, f"cannot write beside {shown}: {found.reason}", found.hint)]
    findings.append(good(TOPIC, f"{shown} is whole and lists {counted(count, 'backup')}"))
    mode = stat.S_IMODE(os.stat(path).st_mode)
    if mode & 0o077:
        findings.append(
            advice(TOPIC, f"others can read {shown} (mode {mode:04o})", f"chmod 600 {shown}")
        )
    return findings


def _about_server(address: DatabaseAddress, patience: int) -> Finding:
    shown = printable(str(address))
    try:
        with models.catalog(address, write=True, patience=patience):
            models.check_may_write()
            count = models.Backups.select().where(~models.Backups.is_deleted).count()
    except CatalogError as exc:
        return failed(TOPIC, exc)
    return good(TOPIC, f"{shown} can be written and lists {counted(count, 'backup')}")


def _about_missing(path: Path) -> Finding:
    parent = path.parent
    while not os.path.lexists(parent):
        parent = parent.parent
    found = disks.problem_of_directory(parent)
    if found is None:
        return good(TOPIC, f"there is none yet; {printable(path)} can be made")
    return problem(TOPIC, f"{printable(path)} cannot be made: {found.reason}", found.hint)
