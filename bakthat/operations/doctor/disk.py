"""Look at the disks of this machine: room, and whether a store is beside what it protects."""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

from bakthat import models
from bakthat.errors import CatalogError
from bakthat.policy.finding import Finding, advice, good, problem
from bakthat.session.session import Session
from bakthat.system import disks
from bakthat.system.paths import cache_directory, expanded
from bakthat.system.text import human_size, printable

LITTLE_ROOM = 100_000_000
"""Bytes: less than this is little for a catalog, indexes and temporary files."""
_LOOKED_AT = 20
"""How many of the newest backups of a store are looked at."""


def disk_findings(session: Session) -> list[Finding]:
    """Return the findings about the room for the catalog, temporary files, and a local store."""
    findings = list(_about_room(session))
    if session.destination == "local":
        findings += _about_store(session)
    if not findings:
        free = human_size(_free(_existing(session.catalog_directory)))
        findings.append(good("disk", f"{free} free for the catalog and temporary files"))
    return findings


def cache_findings() -> list[Finding]:
    """Return the findings about the cache of indexes, without which commands are slow only."""
    topic, directory = "index cache", cache_directory()
    if directory is None:
        detail = "there is no home directory for it: indexes are fetched each time"
        return [advice(topic, detail, "set XDG_CACHE_HOME to a directory")]
    shown = printable(directory)
    try:
        found = directory.stat()
    except FileNotFoundError:
        is_link = directory.is_symlink()  # one that leads nowhere is in the way
        wrong = disks.problem_of_directory(directory if is_link else _existing(directory))
        if wrong is None:
            return [good(topic, f"there is none yet; {shown} can be made")]
        return [advice(topic, f"{shown} cannot be made: {wrong.reason}", wrong.hint)]
    except OSError as exc:
        return [advice(topic, f"{shown} cannot be used: {exc.strerror}", disks.hint_of(exc))]
    wrong = disks.problem_of_directory(directory)
    if wrong is not None:
        return [advice(topic, f"{shown} cannot be written: {wrong.reason}", wrong.hint)]
    mode = stat.S_IMODE(found.st_mode)
    if mode & 0o077:
        return [advice(topic, f"others can read {shown} (mode {mode:04o})", f"chmod 700 {shown}")]
    return [good(topic, f"{shown} can be written")]


def _about_room(session: Session) -> Iterator[Finding]:
    places = {"temporary files": _temporary_directory(), "the catalog": session.catalog_directory}
    for what, place in places.items():
        if place is None:
            yield problem(
                "disk",
                "no directory for temporary files can be written",
                "set TMPDIR to a directory with room",
            )
            continue
        directory = _existing(place)
        free = _free(directory)
        if free < LITTLE_ROOM:
            detail = f"only {human_size(free)} free for {what} in {printable(directory)}"
            yield advice("disk", detail, "free some space there")


def _temporary_directory() -> Path | None:
    """Return where temporary files go; None where none can be written."""
    try:
        return Path(tempfile.gettempdir())
    except FileNotFoundError:
        return None


def _about_store(session: Session) -> list[Finding]:
    store = _existing(expanded(session.profile.local_path))
    newest = _newest(session)
    free, shown = _free(store), printable(store)
    findings = []
    if newest and free < newest[0].size:
        size = human_size(newest[0].size)
        findings.append(
            problem(
                "disk",
                f"{human_size(free)} free in {shown}, but the last backup there took {size}",
                "make room with bakthat rotate_backups, or set another local_path",
            )
        )
    elif free:
        findings.append(good("disk", f"{human_size(free)} free in {shown}"))
    elif shutil.disk_usage(store).total:  # a file system that is none of a disk says 0 of 0
        hint = "make room with bakthat rotate_backups, or set another local_path"
        findings.append(problem("disk", f"no room is left in {shown}", hint))
    same = _same_disk(store, {each.source for each in newest})
    if same:
        findings.append(
            advice(
                "disk",
                f"the store is on the same file system as {printable(same)}, which it has backups "
                "of: a broken disk takes both",
                "set local_path to another disk, or keep backups on s3 too",
            )
        )
    return findings


def _newest(session: Session) -> list[models.Backups]:
    """Return the newest backups of the store; none where the catalog, or it, does not exist."""
    if not session.may_have_catalog:
        return []
    try:
        with models.catalog(session.catalog):
            rows = models.Backups.not_deleted(session.containers("local"))
            return list(rows.order_by(models.Backups.backup_date.desc()).limit(_LOOKED_AT))
    except CatalogError:  # which is said elsewhere
        return []


def _same_disk(store: Path, sources: set[str]) -> str:
    """Return the first of *sources* that is on the file system of *store*; "" for none."""
    for source in sorted(filter(None, sources)):
        with contextlib.suppress(OSError):
            if os.stat(source).st_dev == store.stat().st_dev:
                return source
    return ""


def _existing(path: Path) -> Path:
    """Return *path*, or the nearest directory above it that exists.

    A symbolic link that leads nowhere does not.
    """
    while not os.path.exists(path):
        path = path.parent
    return path


def _free(directory: Path) -> int:
    return shutil.disk_usage(directory).free
