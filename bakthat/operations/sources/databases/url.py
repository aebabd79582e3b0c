"""URLs of databases: ``postgresql://user@host:5432/shop``."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from urllib.parse import unquote_to_bytes

from bakthat.errors import UsageError
from bakthat.operations.sources.databases.base import Access, Server
from bakthat.operations.sources.databases.mysql import MySQLServer
from bakthat.operations.sources.databases.postgresql.server import PostgreSQLServer
from bakthat.operations.sources.databases.redis import RedisServer
from bakthat.operations.sources.databases.sqlite import SQLitePlace
from bakthat.operations.sources.databases.url_parts import DatabaseUrl
from bakthat.system.text import did_you_mean, printable

KINDS: Mapping[str, Callable[[DatabaseUrl, Access], Server]] = {
    "postgresql": PostgreSQLServer.from_url,
    "mysql": MySQLServer.from_url,
    "mariadb": MySQLServer.from_url,
    "sqlite": SQLitePlace.from_url,
    "redis": RedisServer.from_url,
    "rediss": RedisServer.from_url,
}
"""Each kind of database, and what makes its server."""

_ALIASES = {"postgres": "postgresql"}
_SOCKET_OPTIONS = {"postgresql": "host", "mysql": "socket", "mariadb": "socket", "redis": "socket"}
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")
_NUMBER = re.compile(r"[0-9]{1,5}", re.ASCII)


def parse(text: str, access: Access) -> tuple[Server, str | None]:
    """Return the server of a database's URL, and the name of the database; None is each of them.

    A password in the URL takes the place of that of *access*. Raises UsageError.
    """
    url = parts(text)
    password = url_password(text)
    if password is not None:
        access = replace(access, password=password)
    return KINDS[url.kind](url, access), url.name


def url_password(text: str) -> str | None:
    """Return the password in a database's URL, None for none. Raises UsageError."""
    _, _, password, _, _, _ = _split(text)
    return None if password is None else _decoded(password, "password")


def parts(text: str) -> DatabaseUrl:
    """Return the parts of a database's URL, without its password. Raises UsageError.

    The messages do not quote the URL, which may have a password.
    """
    kind, user, _, address, path, query = _split(text)
    socket = _socket_option(kind, query, has_host=bool(address)) if query else ""
    host, port = _host_and_port(address)
    if host.startswith("/"):
        socket = host
    if socket and kind not in _SOCKET_OPTIONS:
        raise UsageError(f"a URL of {kind} has no socket")
    if kind == "sqlite" and (user or host or port is not None):
        raise UsageError(
            "the URL of an SQLite file has no host",
            hint="write three slashes before a relative path, four before an absolute one:"
            " sqlite:////var/lib/app.db",
        )
    return DatabaseUrl(
        kind=kind,
        user=_decoded(user, "user"),
        host="" if socket else host,
        port=port,
        socket=socket,
        name=None if path in ("", "*") else _decoded(path, "database", is_path=kind == "sqlite"),
    )


def _split(text: str) -> tuple[str, str, str | None, str, str, str]:
    """Return kind, user, password, address, path and query, which are percent-encoded yet."""
    found = _SCHEME.match(text)
    if found is None:
        raise UsageError(
            "not the URL of a database", hint="write one as postgresql://user@host:5432/name"
        )
    scheme = found[1].lower()
    kind = _ALIASES.get(scheme, scheme)
    if kind not in KINDS:
        known = sorted({*KINDS, *_ALIASES})
        raise UsageError(
            f"unknown kind of database: {printable(scheme)}://",
            hint=did_you_mean(scheme, known) or f"use one of: {', '.join(known)}",
        )
    rest = text[found.end() :]
    if "#" in rest:
        raise UsageError("a database's URL has no '#'", hint="write %23 for it")
    rest, _, query = rest.partition("?")
    authority, _, path = rest.partition("/")
    credentials, at, address = authority.rpartition("@")
    if kind != "sqlite" and "@" in path:  # a "/" in the password ended it too early
        raise UsageError(
            "a database's URL has '@' behind the host",
            hint="write %2F for '/' in a password, and %40 for '@' in a database's name",
        )
    user, colon, password = credentials.partition(":")
    return kind, user, password if at and colon else None, address, path, query


def _host_and_port(address: str) -> tuple[str, int | None]:
    bracketed = re.fullmatch(r"\[([^\[\]]+)\](?::(.*))?", address, re.DOTALL)
    if bracketed is not None:
        host, port = bracketed[1], bracketed[2] or ""
    else:
        host, _, port = address.partition(":")
        if ":" in port:
            raise UsageError(
                "a database's URL has several colons behind its host",
                hint="write an IPv6 address in brackets: postgresql://[::1]:5432/name",
            )
    host = _decoded(host, "host")
    if not host.startswith("/"):
        host = host.lower()
        if not re.fullmatch(r"[\w.:%~-]*", host) or host.startswith("-"):
            raise UsageError(
                "the host in a database's URL is neither a name nor an address",
                hint="name one host: postgresql://db1/shop",
            )
    if port and not (_NUMBER.fullmatch(port) and 0 < int(port) < 65536):
        raise UsageError(
            "the port in a database's URL is no number from 1 to 65535",
            hint="a port is a number up to 65535; in a password, write %40 for '@',"
            " %3A for ':' and %2F for '/'",
        )
    return host, int(port) if port else None


def _socket_option(kind: str, query: str, *, has_host: bool) -> str:
    """Return the path of the socket that the query names, the only option of a URL."""
    name, _, value = query.partition("=")
    known = _SOCKET_OPTIONS.get(kind)
    if name != known:
        # The name is not shown: a "?" in a password is here, too.
        raise UsageError(
            "unknown option in a database's URL",
            hint=(f"the only one is ?{known}=/path, of a socket; " if known else "")
            + "write %3F for '?' in a name or a password",
        )
    socket = _decoded(value, known)
    if has_host or not socket.startswith("/"):
        raise UsageError(
            f"?{known}= in a database's URL is no absolute path, or there is a host too",
            hint=f"name a host, or the absolute path of a socket: {kind}:///name?{known}=/path",
        )
    return socket


def _decoded(text: str, what: str, *, is_path: bool = False) -> str:
    """Decode percents. Names of files may be other bytes than UTF-8, as Python decodes them."""
    if re.search(r"%(?![0-9A-Fa-f]{2})", text):
        raise UsageError(
            f"the {what} of a database's URL has a '%' without two digits", hint="write %25 for it"
        )
    try:
        encoded = unquote_to_bytes(text.encode("utf-8", "surrogateescape"))
        decoded = encoded.decode("utf-8", "surrogateescape" if is_path else "strict")
    except UnicodeError as exc:
        raise UsageError(f"the {what} of a database's URL is not UTF-8") from exc
    if "\0" in decoded:
        raise UsageError(f"the {what} of a database's URL has a NUL character")
    return decoded
