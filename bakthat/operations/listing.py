"""List the backups in the catalog."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from bakthat import models
from bakthat.conf import DEFAULT_PROFILE
from bakthat.format.description import join_tags
from bakthat.session.container import recognize_moved
from bakthat.session.session import Session
from bakthat.session.sets import divide, newest_first
from bakthat.system import terminal, text
from bakthat.system.paths import PathLike


def ls(
    query: str = "",
    destination: str | None = "",
    tags: str | Sequence[str] = "",
    profile: str = DEFAULT_PROFILE,
    config: PathLike | None = None,
    *,
    conf: Mapping[str, Any] | None = None,
    host: str | None = None,
) -> list[models.Backups]:
    """Return the backups of the profile's containers that the catalog lists, the newest first.

    *query* is any part of a set's name or of a stored filename. *destination* restricts the list to
    one container, *tags* to backups with at least one of the tags, and *host* to one host. A backup
    dated in the future comes last.
    """
    session = Session(profile, config, conf, destination)
    named = [session.named_destination] if session.named_destination else []
    recognize_moved(session)
    with models.catalog(session.catalog_path):
        if not text.is_text(query):
            return []  # no name has such bytes, and SQLite refuses the query
        found = models.Backups.search(query, session.containers(*named), join_tags(tags).split())
    return newest_first(each for each in found if host is None or each.host == host)


def show(
    query: str = "",
    destination: str | None = "",
    tags: str | Sequence[str] = "",
    profile: str = DEFAULT_PROFILE,
    config: PathLike | None = None,
    *,
    conf: Mapping[str, Any] | None = None,
    host: str | None = None,
) -> None:
    """Print what :func:`ls` returns, as a table on standard output.

    The table has a column with the sources when a name has several.
    """
    found = ls(query, destination, tags, profile, config, conf=conf, host=host)
    sets = divide(found)
    has_sources = len({(each.name, each.host, each.backend) for each in sets}) < len(sets)
    rows = [
        (
            text.utc_time(each.date),
            each.backend,
            each.host,
            text.human_size(each.size),
            each.stored_filename,
            *((each.set_source,) if has_sources else ()),
            each.tags,
        )
        for each in found
    ]
    source = ("SOURCE",) if has_sources else ()
    header = ("DATE (UTC)", "WHERE", "HOST", "SIZE", "NAME", *source, "TAGS")
    terminal.print_table(header, rows, right=frozenset({3}))
