"""A directory of the tree while its entries are compared."""

from __future__ import annotations

import os


class ComparedDirectory:
    """A directory whose entries are being compared."""

    __slots__ = (
        "changed",
        "directories",
        "is_complete",
        "is_seen",
        "name",
        "names",
        "number",
        "reason",
        "status",
        "stored",
    )

    def __init__(self, name: str, status: os.stat_result, number: int) -> None:
        self.name = name
        self.status = status
        self.number = number
        self.names: list[str] = []
        """The names in it that are stored now or were before, in order."""
        self.stored: set[str] = set()
        """Those of the names that this increment stores."""
        self.directories: set[str] = set()
        self.reason = ""
        """Why its own metadata must be stored; "" if they need not."""
        self.is_seen = False
        """Whether only its ctime or inode is another."""
        self.changed = ""
        """What changed directly in it; "" for nothing."""
        self.is_complete = True
        """Whether it was listed to its end."""

    def listing(self, kept: list[str]) -> bytes:
        """Return what GNU tar's record of a directory says (:data:`.writer.DUMPDIR`).

        *kept* are further names. tar searches them, so they are in the order of their bytes.
        """
        names = [*self.names, *kept]
        if kept:
            names.sort(key=os.fsencode)
        codes = [
            ("D" if each in self.directories else "Y" if each in self.stored else "N") + each
            for each in names
        ]
        return os.fsencode("\0".join([*codes, ""])) + b"\0"
