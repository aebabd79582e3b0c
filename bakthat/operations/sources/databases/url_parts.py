"""The parts of a database's URL."""

from __future__ import annotations

from dataclasses import dataclass, replace
from urllib.parse import quote


@dataclass(frozen=True, slots=True)
class DatabaseUrl:
    """What ``kind://user@host:port/name`` says, percent-decoded. It never has a password."""

    kind: str
    """"postgresql", "mysql", "mariadb", "sqlite", "redis" or "rediss"; never an alias."""
    user: str = ""
    """"" where the URL names none."""
    host: str = ""
    """A name in lower case, or an IP address without brackets; "" where the URL names none, or
    where it names a socket."""
    port: int | None = None
    """From 1 to 65535; None where the URL names none."""
    socket: str = ""
    """The absolute path of a Unix socket, for PostgreSQL of its directory: ``?host=/path`` of
    PostgreSQL, ``?socket=/path`` of the others, or ``%2Fpath`` as the host."""
    name: str | None = None
    """What follows the slash behind the host: a database's name, or for SQLite a path, so
    ``/var/lib/app.db`` of ``sqlite:////var/lib/app.db`` and ``app.db`` of ``sqlite:///app.db``.
    None where that is empty or ``*``: each database."""

    def of(self, name: str | None) -> DatabaseUrl:
        """Return the URL of the database *name* of the same server; None is each database."""
        return replace(self, name=name)

    @property
    def shown(self) -> str:
        """The URL for the catalog and for messages: one line, which has the same parts when it is
        parsed. A socket takes the place of the host."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return "".join(
            [
                f"{self.kind}://",
                f"{_encoded(self.user)}@" if self.user else "",
                _encoded(self.socket) or _encoded(host, keep="[:]"),
                f":{self.port}" if self.port is not None else "",
                f"/{_encoded(self.name, keep='/' if self.kind == 'sqlite' else '')}"
                if self.name is not None
                else "",
            ]
        )


def _encoded(text: str, keep: str = "") -> str:
    """Percent-encode what is not a letter, a digit, one of ``-._~`` or one of *keep*."""
    return "".join(
        char
        if (char.isalnum() and char.isprintable()) or char in keep
        else quote(char, safe="", errors="surrogateescape")
        for char in text
    )
