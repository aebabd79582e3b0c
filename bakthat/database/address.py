"""Where a catalog is: the path of a file, or the address of a server's database."""

from __future__ import annotations

import hashlib
import os
import re
from dataclasses import dataclass, field
from pathlib import Path

from bakthat.errors import ConfigError
from bakthat.system.paths import expanded
from bakthat.system.text import did_you_mean, printable

POSTGRESQL, MYSQL = "postgresql", "mysql"

DRIVERS = {POSTGRESQL: "psycopg", MYSQL: "pymysql"}
"""The Python package that connects to each kind of server."""

_PACKAGES = {POSTGRESQL: "'psycopg[binary]'", MYSQL: "pymysql"}

KINDS = {"postgresql": POSTGRESQL, "postgres": POSTGRESQL, "mysql": MYSQL, "mariadb": MYSQL}
"""The kind of server that each scheme of an address names."""

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")
_BROKEN = re.compile(rf"({'|'.join(KINDS)}):?/{{0,2}}[^/]*@", re.IGNORECASE)
"""An address whose scheme is not whole."""
_PERCENT = re.compile(r"%(?![0-9A-Fa-f]{2})")
_EXAMPLE = "write it like postgresql://bakthat@db.example.com/bakthat"


@dataclass(frozen=True, slots=True)
class DatabaseAddress:
    """The address of a server's database. Its text never has the password."""

    kind: str
    """:data:`POSTGRESQL` or :data:`MYSQL`, which is MariaDB too."""
    shown: str
    """The address without its password and its options, for messages."""
    host: str
    """The host that it names; "" for a socket of this machine."""
    port: int | None
    user: str
    name: str
    """The name of the database."""
    password: str = field(repr=False)
    """"" for none, or one that the driver finds elsewhere."""
    url: str = field(repr=False)
    """The whole address, which may have a password, with the kind as its scheme."""

    def __str__(self) -> str:
        return self.shown

    @property
    def driver(self) -> str:
        """The Python package that connects to it."""
        return DRIVERS[self.kind]

    def missing_driver(self) -> ConfigError:
        """Return the error for a driver that is not installed."""
        return ConfigError(
            f"a catalog on {self.kind}:// needs the Python package {self.driver}",
            hint=f"pip install 'bakthat[{self.kind}]', or with pipx: pipx inject bakthat "
            f"{_PACKAGES[self.kind]}",
        )

    @property
    def digest(self) -> str:
        """12 hexadecimal digits that tell this catalog apart, whatever its password is."""
        return hashlib.sha256(self.shown.encode()).hexdigest()[:12]


Location = Path | DatabaseAddress
"""Where a catalog is."""


def is_address(text: str) -> bool:
    """Return whether *text* begins as an address does, so that it is no path."""
    return _SCHEME.match(text) is not None


def is_broken_address(text: str) -> bool:
    """Return whether *text*, which is no address, was meant as one: it would be a strange path."""
    return _BROKEN.match(text) is not None


def location_of(location: str | os.PathLike[str] | DatabaseAddress) -> Location:
    """Return the absolute path or the address that *location* is. Raises ConfigError."""
    if isinstance(location, DatabaseAddress):
        return location
    if isinstance(location, str) and is_address(location):
        return parse_address(location)
    return expanded(location)


def parse_address(text: str) -> DatabaseAddress:
    """Return the address that *text* is: ``postgresql://user:password@host:5432/name?option=x``.

    Raises ConfigError. Its messages do not quote the address, which may have a password.
    """
    from urllib.parse import unquote, urlsplit  # a catalog in a file does not need it

    found = _SCHEME.match(text)
    if found is None:
        raise ConfigError("it does not begin with a scheme such as 'postgresql'", hint=_EXAMPLE)
    scheme = found[1].lower()
    if scheme not in KINDS:
        known = ", ".join(f"{each}://" for each in KINDS)
        hint = did_you_mean(scheme, KINDS).replace("?", "://?") or f"use one of: {known}"
        if scheme == "sqlite":
            hint = "write the path of the file alone, such as /var/lib/bakthat/catalog.sqlite"
        raise ConfigError(f"{printable(scheme)}:// is no server of a catalog", hint=hint)
    kind = KINDS[scheme]
    rest = text[found.end() :]
    if not text.isprintable() or " " in text:
        raise ConfigError(
            "an address has no white space and no control character", hint="write %20 for ' '"
        )
    if "#" in rest:
        raise ConfigError("it holds a '#'", hint="write %23 for '#' in a password")
    if _PERCENT.search(rest):
        raise ConfigError("it holds a '%' without two digits", hint="write %25 for '%'")
    if "%00" in rest:
        raise ConfigError("it holds a NUL character", hint="remove %00")
    url = f"{kind}://{rest}"
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:  # which may quote the password
        raise ConfigError(
            "its host is no name, or its port is no number up to 65535",
            hint="in a password, write %40 for '@', %3A for ':', %2F for '/', %3F for '?' and "
            "%5B for '['",
        ) from None
    name = parts.path.removeprefix("/")
    if "@" in name + parts.query:  # a "/" or a "?" in the password ended it too early
        raise ConfigError(
            "it has '@' behind the host", hint="in a password, write %2F for '/' and %3F for '?'"
        )
    if not name or "/" in name:
        raise ConfigError("it names no database", hint=_EXAMPLE)
    host, user, name = parts.hostname or "", unquote(parts.username or ""), unquote(name)
    return DatabaseAddress(
        kind=kind,
        shown=_shown(kind, user, host, port, name),
        host=host,
        port=port,
        user=user,
        name=name,
        password=unquote(parts.password or ""),
        url=url,
    )


def _shown(kind: str, user: str, host: str, port: int | None, name: str) -> str:
    """Return an address without password and options; the same for all ways to write it."""
    from urllib.parse import quote

    account = f"{quote(user, safe='')}@" if user else ""
    place = f"[{host}]" if ":" in host else host
    number = f":{port}" if port is not None else ""
    return f"{kind}://{account}{place}{number}/{quote(name, safe='')}"
