"""The database server that a URL names, and the password that the profile has for it."""

from __future__ import annotations

import logging
import shlex

from bakthat.errors import DatabaseError, UsageError
from bakthat.operations.sources.databases.base import Access, Database, Server
from bakthat.operations.sources.databases.url import parse, parts
from bakthat.passwords import database_password
from bakthat.session.session import Session

log = logging.getLogger("bakthat")

_FAMILIES = {"mariadb": "mysql", "rediss": "redis"}


def open_server(
    session: Session,
    url: str,
    *,
    password: str | None = None,
    via: str | None = None,
    timeout: float | None = None,
) -> tuple[Server, str | None]:
    """Return the server of *url*, and the name of the database in it; None is each of them.

    *password* overrides the one in the profile. *via* are the words before each program, such as
    ``docker exec -i db``; the password must then be inside. *timeout* is in seconds, for what comes
    before a dump. Raises UsageError, ConfigError.
    """
    _check_words(via)
    if not via and password is None:
        password = database_password(session.profile.as_mapping())
    return parse(url, Access(None if via else password, via or "", timeout))


def warn_of_leftovers(server: Server) -> None:
    """Log a warning about each database that a killed restore or drill has left on *server*.

    None is dropped: no lock of a server proves that nobody needs it. A server ends idle sessions
    with their locks, and a replaced database of MySQL may be whole in what was left only. Raises
    DatabaseError.
    """
    for name in server.leftovers():
        log.warning(
            "a restore or a drill that was killed seems to have left the database %s: nobody is"
            " connected to it; unless you need what is in it, remove it: DROP DATABASE %s",
            name,
            name,
        )


def find_database(
    session: Session, url: str, dump_kind: str, *, password: str | None, via: str | None
) -> Database:
    """Return the database of *url* into which a dump of *dump_kind* is loaded.

    Raises UsageError as :func:`check_target` does, ConfigError, DatabaseError.
    """
    check_target(url, dump_kind)
    server, name = open_server(session, url, password=password, via=via)
    warn_of_leftovers(server)
    if name is not None and _family(dump_kind) != "redis":
        return server.database(name)
    for each in server.databases():
        if each.dump_kind == dump_kind:
            return each
    raise DatabaseError(
        f"{parts(url).of(None).shown} has nothing into which a dump of {dump_kind} can be loaded",
        hint="restore it into a directory: without --into",
    )


def check_target(url: str, dump_kind: str) -> None:
    """Raise UsageError unless *url* names what a dump of *dump_kind* can be loaded into."""
    check_kind(url, dump_kind)
    has_name = parts(url).name is not None
    if "-" in dump_kind and has_name:
        raise UsageError(
            f"a dump of {dump_kind} belongs to no database of a server",
            hint="leave the database's name out of the URL",
        )
    if "-" not in dump_kind and not has_name and _family(dump_kind) != "redis":
        raise UsageError(
            "the URL names no database", hint="add the name of a database to it: …/shop_copy"
        )


def check_kind(url: str, dump_kind: str) -> None:
    """Raise UsageError unless a dump of *dump_kind* can be loaded through *url*."""
    kind = parts(url).kind
    if not dump_kind:
        raise UsageError(
            "the backup is no dump of a database that bakthat knows",
            hint="restore it with --to-command and the database's own program",
        )
    if _family(kind) != _family(dump_kind):
        raise UsageError(f"a dump of {dump_kind} cannot be loaded into {kind}")


def _family(kind: str) -> str:
    family = kind.partition("-")[0]
    return _FAMILIES.get(family, family)


def _check_words(via: str | None) -> None:
    """Raise UsageError unless *via* are words, as a shell reads them. They may be secret."""
    try:
        words = shlex.split(via) if via is not None else ["-"]
    except ValueError as exc:
        raise UsageError(
            "--via has a quote without its end",
            hint="for example: --via 'docker exec -i db' (via= in Python)",
        ) from exc
    if not words:
        raise UsageError(
            "there are no words in --via",
            hint="leave --via out (via= in Python), or name a program: --via 'docker exec -i db'",
        )
