"""The operations: back up, restore, list, delete.

Each takes the profile by *profile* and *config* (the path of a configuration file) or as a flat
dict, *conf*; *destination* is "s3", "glacier" or "local", by default the profile's. What goes
wrong raises a subclass of :class:`~bakthat.errors.BakthatError`. The events of
:data:`bakthat.events` fire around what is done.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from bakthat.conf import DEFAULT_PROFILE
from bakthat.format.description import join_tags
from bakthat.session.session import Session
from bakthat.system import terminal, text
from bakthat.system.paths import PathLike
from bakthat.system.text import is_text

# Each operation loads what it alone needs, and a backup what it needs only while another process
# counts the tree. So annotations are for those who read them as text, type checkers for one.
if TYPE_CHECKING:
    from bakthat import models


log = logging.getLogger("bakthat")


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

    *query* is any part of a set's name or of a stored filename. *destination* keeps to one of
    them, *tags* to backups that carry at least one of these, *host* to one host's.
    """
    from bakthat import models

    session = Session(profile, config, conf, destination)
    named = [session.named_destination] if session.named_destination else []
    with models.catalog(session.catalog_path):
        if not is_text(query):
            return []  # no name can hold it, and SQLite cannot be asked
        found = models.Backups.search(query, session.containers(*named), join_tags(tags).split())
    return [each for each in found if host is None or each.host == host]


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
    """Print what :func:`ls` returns, as a table on standard output."""
    found = ls(query, destination, tags, profile, config, conf=conf, host=host)
    print_backups(found)


def print_backups(backups: Sequence[models.Backups]) -> None:
    """Print backups as a table on standard output."""
    rows = [
        (
            time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(each.backup_date)),
            each.backend,
            each.host,
            text.human_size(each.size),
            each.stored_filename,
            each.tags,
        )
        for each in backups
    ]
    terminal.print_table(
        ("DATE (UTC)", "WHERE", "HOST", "SIZE", "NAME", "TAGS"), rows, right=frozenset({3})
    )
