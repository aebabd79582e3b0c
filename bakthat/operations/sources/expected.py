"""Which sets the sources of a job make."""

from __future__ import annotations

import os
from dataclasses import replace

from bakthat.conf import JobSource
from bakthat.errors import BakthatError
from bakthat.format.description import source_id
from bakthat.operations.sources.databases.base import Access, Database
from bakthat.operations.sources.databases.url import parse, parts
from bakthat.session.sets import BackupSet
from bakthat.system.text import from_native


def set_name(source: JobSource) -> str | None:
    """Return the name of the set that a source makes; None for a server with several databases.

    Raises UsageError, DatabaseError for a URL that cannot be read.
    """
    if source.is_url:
        database = _database(source)
        return None if database is None else source.name or database.name.replace("/", "_")
    return source.name or from_native(os.path.basename(source.path))


def fits(source: JobSource, found: BackupSet) -> bool:
    """Return whether the backups of a set are those of a source of a job."""
    if found.is_value:
        return False
    if source.is_url:
        try:
            return _is_of_url(source, found)
        except BakthatError:  # the URL is wrong, which the job's run says
            return False
    if found.name != set_name(source):
        return False
    return not found.source_id if source.name else found.fits(source_id(source.path))


def _is_of_url(source: JobSource, found: BackupSet) -> bool:
    database = _database(source)
    if database is None:
        server = replace(parts(source.path), name=None).shown
        urls = {
            each.source
            for each in found.backups
            if each.source == server or each.source.startswith(f"{server}/")
        }
        if source.name:
            is_named = found.name.startswith(f"{source.name}-") and not found.source_id
            return is_named and bool(urls)
        return any(found.source_id == source_id(_origin(source, each)) for each in urls)
    if found.name != set_name(source):
        return False
    if source.name:
        return not found.source_id
    return found.fits(source_id(_origin(source, database.url)))


def _origin(source: JobSource, url: str) -> str:
    """Return what the id of a database's set is made from: two containers may have one URL."""
    return f"{source.via} {url}" if source.via else url


def _database(source: JobSource) -> Database | None:
    """Return the only database of a URL; None for each of a server. Nothing is connected to."""
    server, name = parse(source.path, Access())
    if name is not None:
        return server.database(name)
    return server.databases()[0] if parts(source.path).kind.startswith("redis") else None
