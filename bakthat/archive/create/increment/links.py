"""Hard links that the walk meets before the name that holds their content."""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence
from pathlib import Path

from bakthat.archive.create.increment.plan import FileKey, file_key
from bakthat.archive.create.increment.rule import ChangeRule, metadata_change
from bakthat.archive.index.state import State
from bakthat.format.entry import EntryType
from bakthat.format.index.values import sort_key
from bakthat.system.text import to_native


def is_link_to_later(
    path: str,
    target: str,
    key: FileKey,
    root: Path,
    state: State,
    rule: ChangeRule,
    racy_ns: Sequence[int],
) -> bool:
    """Return whether *path* still is a link to *target*, which comes later in the walk, unchanged.

    Both are paths in the archive; *key* is the :func:`.file_key` of *path*, and *racy_ns* has
    the :attr:`.IndexHeader.racy_ns` of each index of *state*. Where only reading *target* would
    tell, it is no such link.
    """
    if sort_key(target) < sort_key(path):
        return False
    below = to_native(target.partition("/")[2])
    try:
        status = os.lstat(os.path.join(os.path.realpath(root), below))
    except OSError:
        return False
    if file_key(status) != key:
        return False
    return any(
        entry.path == target
        and entry.type is not EntryType.HARDLINK
        and (not stat.S_ISREG(status.st_mode) or entry.size == status.st_size)
        and not metadata_change(status, entry)
        and rule.has_same_times(status, entry)
        and not rule.is_racy(status, racy_ns[entry.read])
        and not (entry.is_volatile or entry.is_stale)
        and not rule.must_read(below, status.st_dev)
        for entry in state.entries([target])
    )
