"""Back up databases by their URLs: each one is a backup of its own."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from bakthat import models
from bakthat.archive.gzip.level import DEFAULT_LEVEL
from bakthat.conf import DEFAULT_PROFILE
from bakthat.errors import BakthatError, DatabaseError, ProducerError, UsageError
from bakthat.format import names
from bakthat.format.description import NAMED, source_id
from bakthat.operations.backup.request import keys_of_backup
from bakthat.operations.backup.stream import SizeRule, StreamBackup, seconds_of
from bakthat.operations.sources.databases.base import Database, Server
from bakthat.operations.sources.servers import open_server, warn_of_leftovers
from bakthat.operations.sources.streams import StreamSource, write_output
from bakthat.session.session import Session, operation
from bakthat.session.sets import id_of_source
from bakthat.system.paths import PathLike
from bakthat.system.streams import Progress
from bakthat.system.text import counted, enumerate_some, printable

log = logging.getLogger("bakthat")


def backup_databases(
    url: str,
    destination: str | None = None,
    profile: str = DEFAULT_PROFILE,
    config: PathLike | None = None,
    *,
    conf: Mapping[str, Any] | None = None,
    custom_filename: str | None = None,
    database_password: str | None = None,
    via: str | None = None,
    timeout: str | float | None = None,
    fail_below: str | int | None = None,
    accept_size: bool = False,
    password: str | None = None,
    recipients: str | Sequence[str] = (),
    prompt: str | bool = "yes",
    tags: str | Sequence[str] = (),
    host: str | None = None,
    s3_reduced_redundancy: bool = False,
    create: bool = False,
    progress: Progress | None = None,
    on_stored: Callable[[models.Backups], object] | None = None,
) -> list[models.Backups]:
    """Back up the database of *url*, or each database of its server; return the entries.

    *url* is ``postgresql://user@host:5432/shop``, ``mysql://…``, ``mariadb://…``,
    ``sqlite:////var/lib/app.db`` or ``redis://…``. Without a name, or with ``*``, it means each
    database of the server, and what it has besides them: the roles of PostgreSQL, the users of
    MariaDB. Each is a backup of its own, and the set is named after the database, or else
    *custom_filename*; of several, that and a hyphen come before the name. For a slash in a
    database's name, the set has "_".

    The server's own programs make the dumps. *database_password* overrides the profile's
    ``database_password``, ``database_password_file`` and ``database_password_command``; without
    any, the programs look for it where they always do. *via* are words before each program, such as
    ``docker exec -i db``; the password must then be inside. *timeout* is for each dump, and for
    each question to the server before it. *on_stored* is called with each entry. The other
    arguments are those of :func:`bakthat.backup`, which also says when a dump is refused.

    A database that cannot be dumped does not stop the others; DatabaseError, or ProducerError of a
    single one, is raised at the end. UsageError when another source has backups of that name.
    """
    session = Session(profile, config, conf, destination, host=host)
    rule = SizeRule.make(allow_empty=False, accept_size=accept_size, fail_below=fail_below)
    seconds = seconds_of(timeout)
    with operation(session, "backup", deferred=True):  # an error is told, as one of a backup
        server, name = open_server(
            session, url, password=database_password, via=via, timeout=seconds
        )
        databases = [server.database(name)] if name is not None else server.databases()
    warn_once = functools.cache(lambda: _warn_of_leftovers(server))
    keys = functools.cache(lambda: keys_of_backup(session, password, recipients, prompt))
    stored: list[models.Backups] = []
    failed: dict[str, BakthatError] = {}
    for database in databases:
        try:
            with operation(session, "backup") as current:
                source = _source(session, database, custom_filename, via, is_one=name is not None)
                backup = StreamBackup(
                    session,
                    current,
                    source,
                    rule,
                    keys=keys,
                    tags=tags,
                    s3_reduced_redundancy=s3_reduced_redundancy,
                    create=create,
                    progress=progress,
                )
                lacks = database.check()
                warn_once()
                dump = database.dump()
                write = functools.partial(
                    write_output, dump, timeout=seconds, hint="nothing was stored"
                )
                entry = backup.store(write, lacks)
        except (DatabaseError, ProducerError, UsageError) as exc:
            if len(databases) == 1:
                raise
            log.error("%s was not backed up: %s", printable(database.name), exc)
            failed[database.name] = exc
            continue
        stored.append(entry)
        if on_stored is not None:
            on_stored(entry)
    if failed:
        first = next(iter(failed.values()))
        raise DatabaseError(
            f"{len(failed)} of {counted(len(databases), 'database')} could not be backed up: "
            f"{enumerate_some([printable(each) for each in failed])}; the first: {first}",
            hint=first.hint,
        ) from first
    return stored


def _warn_of_leftovers(server: Server) -> None:
    try:
        warn_of_leftovers(server)
    except DatabaseError as exc:  # whoever may read one database need not see the others
        log.info("cannot look for what killed restores and drills have left: %s", exc)


def _source(
    session: Session, database: Database, name: str | None, via: str | None, *, is_one: bool
) -> StreamSource:
    """Return *database* as the source of a backup. Raises UsageError, CatalogError."""
    compress = session.profile.compress
    own = database.name.replace("/", "_")  # which no backup's name can hold
    set_name = own if name is None else name if is_one else f"{name}-{own}"
    source = StreamSource(
        names.check_set_name(set_name),
        DEFAULT_LEVEL if compress is True else int(compress),
        database.url,
        # Two containers may have databases of one URL.
        source_id(f"{via} {database.url}" if via else database.url) if name is None else NAMED,
        database.dump_name,
        database.dump_kind,
    )
    if name is None:
        _refuse_other_source(session, source, is_one=is_one)
    return source


def _refuse_other_source(session: Session, source: StreamSource, *, is_one: bool) -> None:
    """Raise UsageError when the set has backups of something else: which one is meant to come back
    would not be known."""
    containers = session.containers(session.destination)
    with models.catalog(session.catalog):
        rows = models.Backups.of_set(source.set_name, containers, host=session.host)
    for each in rows:
        if not each.is_key_value and id_of_source(each) not in ("", source.source_id):
            shown = printable(each.source) or "something else"
            other = (
                f"of {shown} with another --via"
                if each.source == source.origin
                else f"of {shown}, not of {printable(source.origin)}"
            )
            name = printable(source.set_name)
            raise UsageError(
                f"'{name}' has backups {other}",
                hint=f"give this one a name: --name {name}-2"
                if is_one
                else f"--name db1, for example, names each of them anew: db1-{name}",
            )
