"""What a dump of PostgreSQL says of the database itself: encoding, locale, owner, rights, settings.

``pg_restore`` uses it only when it makes a database of the same name. The format is that of
``pg_dump --format=custom``, versions 1.12 to 1.16 (PostgreSQL 9.0 to 18), as ReadHead() and
ReadToc() of ``pg_backup_archiver.c`` read it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple

_NAME = r'(?:"(?:[^"]|"")*"|[a-z_][a-z0-9_$]*)'
_CREATE = re.compile(
    rf"CREATE DATABASE (?P<name>{_NAME}) WITH TEMPLATE = template0"
    r"(?P<options>(?: [A-Z_]+ = (?:'(?:[^'\\]|'')*'|\w+))*);\s*"
)
_OPTION = re.compile(r" ([A-Z_]+) = (?:'((?:[^'\\]|'')*)'|(\w+))")
_KEPT = {
    "ENCODING",
    "LOCALE",
    "LC_COLLATE",
    "LC_CTYPE",
    "LOCALE_PROVIDER",
    "ICU_LOCALE",
    "ICU_RULES",
    "BUILTIN_LOCALE",
}
_OTHER_TOKENS = r"""\bE'(?:[^'\\]|\\.|'')*'|'(?:[^']|'')*'|"(?:[^"]|"")*\""""
"""Literals and identifiers in SQL: what is in them is no name of a database."""
_SPECIAL = {"ENCODING", "STDSTRINGS", "SEARCHPATH", "DATABASE"}
_CODECS = {"SQL_ASCII": "utf-8", "UTF8": "utf-8", "KOI8R": "koi8-r", "KOI8U": "koi8-u"}


@dataclass(frozen=True, slots=True)
class DatabaseProperties:
    """What a dump says of its database."""

    options: Mapping[str, str]
    """The encoding and the locale, by the names that CREATE DATABASE has for them."""
    owner: str
    name: str
    """The name, as it is written in *changes*."""
    changes: tuple[str, ...]
    """SQL for the rights, the settings and the comment."""

    @classmethod
    def of(cls, head: bytes) -> DatabaseProperties | None:
        """Return what the beginning of a dump says; None where that is not found in it."""
        try:
            entries = list(_Reader(head).entries())
        except (ValueError, LookupError):
            return None
        first = next((entry for entry in entries if entry.kind == "DATABASE"), None)
        made = _CREATE.fullmatch(first.sql) if first is not None else None
        if first is None or made is None:
            return None
        options = {
            name: text.replace("''", "'") or word
            for name, text, word in _OPTION.findall(made["options"])
            if name in _KEPT
        }
        if "LOCALE" in options:
            options["LC_COLLATE"] = options["LC_CTYPE"] = options.pop("LOCALE")
        return cls(
            options,
            first.owner,
            made["name"],
            tuple(entry.sql for entry in entries if entry.kind not in _SPECIAL),
        )

    def changes_of(self, name: str) -> list[str]:
        """Return :attr:`changes` for a database *name*, which is an identifier of SQL.

        A statement that kept the old name would change the database that has it.
        """
        named = rf"(?<= DATABASE ){re.escape(self.name)}(?![\w$\"])"
        pattern = re.compile(f"({named})|{_OTHER_TOKENS}", re.DOTALL)
        return [
            pattern.sub(lambda found: found[0] if found[1] is None else name, each)
            for each in self.changes
        ]


class _Entry(NamedTuple):
    kind: str
    sql: str
    owner: str


def _changes_database(kind: str, tag: bytes) -> bool:
    return kind == "DATABASE PROPERTIES" or (
        kind in ("ACL", "COMMENT", "SECURITY LABEL") and tag.startswith(b"DATABASE ")
    )


class _Reader:
    """Reads the table of contents of a dump. Its methods raise ValueError behind the end."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._position = 0
        if self._take(5) != b"PGDMP":
            raise ValueError("no dump in custom format")
        self._version = tuple(self._take(3))
        self._int_size, self._offset_size, _ = self._take(3)
        if not (1, 12, 0) <= self._version < (1, 17, 0) or self._int_size not in (4, 8):
            raise ValueError("a version of the format that is not known")

    def entries(self) -> Iterator[_Entry]:
        """Yield those that concern the database; they are the first ones."""
        if self._version >= (1, 15, 0):
            self._take(1)  # how it is compressed
        else:
            self._int()
        for _ in range(7):  # when it was written
            self._int()
        for _ in range(3):  # the database, the versions of the server and of pg_dump
            self._text()
        codec = "utf-8"
        for _ in range(self._int()):
            kind, tag = self._kind_and_tag()
            # The others follow, and the next one may be larger than what there is of the dump.
            if kind not in _SPECIAL and not _changes_database(kind, tag):
                return
            sql, owner = self._sql_and_owner()
            if kind == "ENCODING":
                codec = _codec(sql.decode("ascii", "replace"))
            yield _Entry(kind, sql.decode(codec), owner.decode(codec))

    def _kind_and_tag(self) -> tuple[str, bytes]:
        """Return what the next entry is, and of what."""
        self._int()  # its number
        self._int()  # whether it has data
        self._text()  # the catalog
        self._text()  # its number there
        tag = self._text()
        return self._text().decode("ascii", "replace"), tag

    def _sql_and_owner(self) -> tuple[bytes, bytes]:
        """Return these of the entry, and go on to the next one."""
        self._int()  # the section
        sql = self._text()
        for _ in range(4):  # SQL to drop it and to copy into it, schema, tablespace
            self._text()
        if self._version >= (1, 14, 0):
            self._text()  # the access method of the table
        if self._version >= (1, 16, 0):
            self._int()  # the kind of relation
        owner = self._text()
        self._text()  # whether it has object identifiers
        while self._string() is not None:  # what it depends on
            pass
        self._take(1 + self._offset_size)  # where its data is
        return sql, owner

    def _take(self, size: int) -> bytes:
        taken = self._data[self._position : self._position + size]
        if len(taken) < size:
            raise ValueError("behind the end")
        self._position += size
        return taken

    def _int(self) -> int:
        is_negative = self._take(1) != b"\0"
        number = int.from_bytes(self._take(self._int_size), "little")
        return -number if is_negative else number

    def _string(self) -> bytes | None:
        size = self._int()
        return self._take(size) if size >= 0 else None

    def _text(self) -> bytes:
        return self._string() or b""


def _codec(sql: str) -> str:
    """Return Python's name of the encoding in ``SET client_encoding = 'LATIN1';``."""
    encoding = sql.split("'")[1] if sql.count("'") == 2 else "UTF8"
    return _CODECS.get(encoding) or re.sub(r"^WIN(?=\d)", "cp", encoding)
