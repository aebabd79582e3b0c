"""The database server that a URL names, and the password that the profile has for it."""

from __future__ import annotations

from bakthat.errors import UsageError
from bakthat.operations.sources.databases.base import Access, Database, Server
from bakthat.operations.sources.databases.url import parse, parts
from bakthat.passwords import database_password
from bakthat.session.session import Session

_FAMILIES = {"mariadb": "mysql", "rediss": "redis"}


def open_server(
    session: Session, url: str, *, password: str | None = None, via: str | None = None
) -> tuple[Server, str | None]:
    """Return the server of *url*, and the name of the database in it; None is each of them.

    *password* overrides the one in the profile. *via* are the words before each program, such as
    ``docker exec -i db``; the password must then be inside. Raises UsageError, ConfigError.
    """
    if not via and password is None:
        password = database_password(session.profile.as_mapping())
    return parse(url, Access(None if via else password, via or ""))


def find_database(
    session: Session, url: str, dump_kind: str, *, password: str | None, via: str | None
) -> Database:
    """Return the database of *url* into which a dump of *dump_kind* is loaded.

    Raises UsageError when the dump is of another kind, ConfigError, DatabaseError.
    """
    check_kind(url, dump_kind)
    server, name = open_server(session, url, password=password, via=via)
    family, _, besides = dump_kind.partition("-")
    if besides or family == "redis":
        if name is not None and besides:
            raise UsageError(
                f"a dump of {dump_kind} belongs to no database of a server",
                hint="leave the database's name out of the URL",
            )
        found = [each for each in server.databases() if each.dump_kind == dump_kind]
        if not found:
            raise UsageError(
                f"the server has nothing that a dump of {dump_kind} can be loaded into"
            )
        return found[0]
    if name is None:
        raise UsageError(
            "the URL names no database", hint="add the name of a database to it: …/shop_copy"
        )
    return server.database(name)


def check_kind(url: str, dump_kind: str) -> None:
    """Raise UsageError unless a dump of *dump_kind* can be loaded through *url*."""
    kind = parts(url).kind
    if not dump_kind:
        raise UsageError(
            "the backup is not known to be the dump of a database",
            hint="restore it with --to-command and the database's own program",
        )
    if _family(kind) != _family(dump_kind):
        raise UsageError(f"a dump of {dump_kind} cannot be loaded into {kind}")


def _family(kind: str) -> str:
    family = kind.partition("-")[0]
    return _FAMILIES.get(family, family)
