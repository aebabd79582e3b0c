"""The names of users and groups, as bytes; remembered for one archive."""

from __future__ import annotations

import grp
import os
import pwd
from functools import lru_cache


class OwnerNames:
    """Looks up the names of users and groups; b"" for an id without a name.

    For one archive only: in a long-lived process the names may change.
    """

    def __init__(self) -> None:
        self.user = lru_cache(maxsize=4096)(_user_name)
        self.group = lru_cache(maxsize=4096)(_group_name)
        self.texts = lru_cache(maxsize=4096)(self._texts)
        """Returns the names of a user and a group as an index has them."""

    def _texts(self, uid: int, gid: int) -> tuple[str, str]:
        # Not os.fsdecode, which decodes as the locale says: an index means the same on each host.
        return (
            self.user(uid).decode("utf-8", "surrogateescape"),
            self.group(gid).decode("utf-8", "surrogateescape"),
        )


def _user_name(uid: int) -> bytes:
    try:
        return os.fsencode(pwd.getpwuid(uid).pw_name)
    except (KeyError, OverflowError):
        return b""


def _group_name(gid: int) -> bytes:
    try:
        return os.fsencode(grp.getgrgid(gid).gr_name)
    except (KeyError, OverflowError):
        return b""
