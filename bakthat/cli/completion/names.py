"""Names for the completion of a shell, quick enough for somebody who is typing.

Names come from the catalog, and so from storage that others may write to. Shells expand and split
what a completion offers, each in its own way. So only names of characters that mean nothing to any
shell are offered; others are typed.
"""

from __future__ import annotations

import contextlib
import logging
import re
import sqlite3
from collections.abc import Iterator
from urllib.parse import quote

from bakthat.conf import load_profile
from bakthat.errors import BakthatError
from bakthat.system.paths import expanded

NAMES = ("sets", "backups")
"""What the scripts ask for by ``bakthat completion --names``."""

_PLAIN = re.compile(r"[\w.+@%/=-]+")
_QUERIES = {
    "sets": "SELECT DISTINCT filename FROM backups WHERE NOT is_deleted",
    "backups": "SELECT stored_filename FROM backups WHERE NOT is_deleted "
    "UNION SELECT filename FROM backups WHERE NOT is_deleted",
}
_MAX_NAMES = 1000
"""More are of no use in a list to choose from, and take time to read."""
_BUSY_SECONDS = 0.05


def names(kind: str) -> Iterator[str]:
    """Yield the names of *kind*, one of :data:`NAMES`, that the default profile's catalog lists.

    Nothing is made, locked or asked for, and whatever fails yields no names: somebody is typing.
    """
    if kind not in _QUERIES:
        return
    logging.disable()  # warnings would stand in the middle of a command
    with contextlib.suppress(BakthatError, OSError, sqlite3.Error):
        path = expanded(load_profile().profile.database)
        address = f"file:{quote(str(path))}?mode=ro"
        with contextlib.closing(
            sqlite3.connect(address, uri=True, timeout=_BUSY_SECONDS)
        ) as catalog:
            query = f"{_QUERIES[kind]} ORDER BY 1 DESC LIMIT {_MAX_NAMES}"
            for (name,) in catalog.execute(query):
                if isinstance(name, str) and _PLAIN.fullmatch(name):
                    yield name
