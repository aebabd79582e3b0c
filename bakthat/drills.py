"""Prove that a backup restores: restore it into a scratch place, check it, and remove it again."""

from __future__ import annotations

import logging
import os
import stat
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bakthat import models
from bakthat.archive.create.walk import WalkOptions
from bakthat.archive.report import ArchiveReport
from bakthat.conf import DEFAULT_PROFILE, DRILL_VARIABLE
from bakthat.errors import (
    BakthatError,
    CatalogError,
    ConfigError,
    ConsumerError,
    CredentialsError,
    DatabaseError,
    DestinationError,
    DrillError,
    NotReadyError,
    PasswordError,
    UnreachableError,
    UsageError,
)
from bakthat.operations.browse.comparison import Aspect, ChangeKind, Totals, compare
from bakthat.operations.browse.diff import StateTree
from bakthat.operations.browse.disk import DiskTree
from bakthat.operations.facts import DRILL
from bakthat.operations.restore.operation import restore_backup, thaw_status_of
from bakthat.operations.restore.options import RestoreOptions
from bakthat.operations.restore.stream import Consumer, Write, dump_kind_of, load_dump, opened
from bakthat.operations.sources.databases.base import Load
from bakthat.operations.sources.databases.url_parts import DatabaseUrl
from bakthat.operations.sources.servers import check_kind, open_server, warn_of_leftovers
from bakthat.passwords import may_ask
from bakthat.session import cold
from bakthat.session.indexes.opening import open_state
from bakthat.session.reading import KeyFinder, find_to_restore
from bakthat.session.session import Session, operation, result_log
from bakthat.system.files import remove_tree
from bakthat.system.paths import PathLike, expanded
from bakthat.system.programs import Program, RunningProgram, shell_program
from bakthat.system.signals import held_back
from bakthat.system.streams import Progress
from bakthat.system.text import enumerate_some, human_size, printable, reason_of, to_native

log = logging.getLogger("bakthat")

_WITHOUT_SERVER = frozenset({"sqlite", "redis"})
"""The kinds that need no server of the user to be loaded."""
_NO_RESULT = (
    ConfigError,
    CredentialsError,
    NotReadyError,
    PasswordError,
    UnreachableError,
    UsageError,
)
"""What says nothing about the backup. That it does not restore with a key is a result."""
_FALSE = frozenset({None, "f", "false"})
"""What a check must not give, besides zero. PostgreSQL writes "f"."""

_SHOWN = 10
"""How many of the paths that came back different are named."""


def drill(
    filename: str,
    destination: str | None = None,
    profile: str = DEFAULT_PROFILE,
    config: PathLike | None = None,
    *,
    conf: Mapping[str, Any] | None = None,
    password: str | None = None,
    host: str | None = None,
    source: PathLike | None = None,
    identity_file: PathLike | None = None,
    prompt: str | bool = "yes",
    into: str | None = None,
    via: str | None = None,
    database_password: str | None = None,
    check: str | Sequence[str] = (),
    check_command: str | None = None,
    scratch: PathLike | None = None,
    progress: Progress | None = None,
) -> models.Backups:
    """Restore a backup into a scratch place, check it there, and remove it; return the entry.

    A tree, and any stream that is no database's, comes into a temporary directory below *scratch*,
    by default that of the system; then each file is read again, and its SHA-256 compared with that
    in the index. A dump is loaded into a scratch database: a file of SQLite, a server of Redis that
    is started for it, or a database with a random name on the server that *into* names, such as
    ``postgresql://localhost``. *via* and *database_password* are as for
    :func:`bakthat.backup_databases`.

    *check* are SQL queries, or commands of Redis: one fails the drill by an error, without a row,
    and when the first value is 0, false or NULL. *check_command* is a line for the shell, run in
    the directory; it fails the drill by another exit code than 0. The variable ``BAKTHAT_DRILL`` is
    the directory, the path of the file, or the URL of the scratch database, without the password;
    the server's programs find that, by ``PGPASSFILE`` or ``MYSQL_PWD``, unless *via* was given.

    *filename* and the other arguments are those of :func:`bakthat.restore`. The result is kept in
    the catalog, and in the entry's ``metadata["drill"]``: "date" (epoch seconds UTC), "passed",
    "seconds", "bytes", "checks" and, of one that failed, "problem". Nothing else is left behind. An
    error that says nothing about the backup, such as that of a full scratch disk or of a server
    that does not answer, is raised and not kept.

    Raises DrillError when what was restored is not as it should be or a check fails, NotReadyError
    for a backup in cold storage that is not thawed, and what :func:`bakthat.restore` raises.
    """
    session = Session(profile, config, conf, destination)
    checks = [check] if isinstance(check, str) else list(check)
    keys = KeyFinder(session, password, identity_file, may_ask(prompt))
    options = RestoreOptions(
        target=expanded(scratch or tempfile.gettempdir()),
        password=password,
        identity_file=identity_file,
        prompt=may_ask(prompt),
        thaw=cold.ThawOptions(may_request=False),
        any_size=False,
        only=(),
        use_index=True,
        keep_going=False,
        partial=False,
        progress=progress,
    )
    with operation(session, "drill", deferred=True) as current:
        found = find_to_restore(session, filename, host, source)
        kind = dump_kind_of(found)
        _check_arguments(
            found, kind, into, checks, is_server_named=(via, database_password) != (None, None)
        )
        _refuse_frozen(session, found)
        current.begin()
        started = time.monotonic()
        report = ArchiveReport()
        drilled = _Drill(session, found, keys, options, report, checks, check_command)
        problem: BakthatError | None = None
        try:
            if is_loaded(kind):
                drilled.load(kind, into, via=via, database_password=database_password)
            else:
                drilled.unpack()
        except _NO_RESULT:
            raise
        except BakthatError as exc:
            # A disk that is full, or cannot hold what is in the backup, is that of the drill.
            if not isinstance(exc, DestinationError) or isinstance(exc, ConsumerError):
                problem = exc
            raise
        finally:
            if drilled.has_passed or (problem is not None and drilled.has_scratch):
                _record(session, found, _result(report, started, checks, check_command, problem))
        name = printable(found.stored_filename)
        current.finish(found, done=f"{name} restores")
        result_log.info("%s restores: %d files (%s)", name, report.files, human_size(report.bytes))
        return found


@dataclass(slots=True)
class _Drill:
    session: Session
    backup: models.Backups
    keys: KeyFinder
    options: RestoreOptions
    report: ArchiveReport
    checks: Sequence[str]
    check_command: str | None
    has_scratch: bool = False
    """Whether there is a scratch place: what fails before says nothing about the backup."""
    has_passed: bool = False

    def unpack(self) -> None:
        """Restore into a directory, and check it there."""
        with _scratch_directory(self.options.target) as directory:
            self.has_scratch = True
            self._restore(directory)
            self._compare(directory)
            self._run_command(str(directory), directory)
            self.has_passed = True

    def load(
        self, kind: str, into: str | None, *, via: str | None, database_password: str | None
    ) -> None:
        """Load a dump into a scratch database of the server of *into*, and check it there."""
        with ExitStack() as stack:
            directory = stack.enter_context(_scratch_directory(self.options.target))
            url = into or f"{kind}:///"
            if kind == "sqlite":
                url = DatabaseUrl(kind, name=str(directory / "drill.db")).shown
            server, _ = open_server(self.session, url, password=database_password, via=via)
            loads: list[Load] = []

            def consume(write: Write) -> None:
                warn_of_leftovers(server)
                loads.append(stack.enter_context(opened(server.scratch)))
                self.has_scratch = True
                load_dump(loads[0], write)

            self._restore(directory, Consumer("a scratch database", consume))
            for query in self.checks:
                _check_query(loads[0], query)
            self._run_command(loads[0].target(), directory, server.with_login)
            self.has_passed = True

    def _restore(self, directory: Path, consumer: Consumer | None = None) -> None:
        restored = restore_backup(
            self.session,
            self.backup,
            self.options.into(directory),
            self.report,
            consumer,
            on_begin=lambda: None,
            keys=self.keys,
        )
        if not restored:
            raise NotReadyError("the backup must be thawed first")

    def _compare(self, directory: Path) -> None:
        """Read each file that was restored; raise DrillError unless it is as the index says."""
        if self.backup.is_key_value:
            return  # it has no index, and its text was parsed
        report, differing, count = ArchiveReport(), list[str](), 0
        with ExitStack() as stack:
            opened = open_state(self.session, self.backup, self.keys, whole=True)
            state = stack.enter_context(opened)
            assert state is not None  # made by reading the archive, if need be
            before = StateTree(state, has_whole_seconds="format" not in self.backup.metadata)
            if os.geteuid() != 0:
                _make_readable(directory)
            root = directory / to_native(before.top) if before.top else directory
            after = DiskTree(root, before.top, WalkOptions(), report, reads=True)
            for change in compare(before, after, Totals()):
                is_lost = change.kind is not ChangeKind.CHANGED
                if is_lost or {Aspect.TYPE, Aspect.CONTENT, Aspect.TARGET} & {*change.aspects}:
                    count += 1
                    differing += [printable(change.path)] if count <= _SHOWN else []
        if report.warning_count:
            raise DrillError(f"not all that was restored can be read: {report.warnings[0]}")
        if count:
            raise DrillError(
                f"{count} {'entry' if count == 1 else 'entries'} came back different: "
                f"{enumerate_some(differing)}",
                hint="bakthat check --read-data tells whether the stored backup is whole",
            )

    def _run_command(
        self,
        target: str,
        directory: Path,
        with_login: Callable[[Program], Program] = lambda program: program,
    ) -> None:
        if self.check_command is None:
            return
        shell = shell_program(self.check_command)
        inside = ("/bin/sh", "-c", 'cd -- "$0" && exec "$@"', str(directory), *shell.arguments)
        program = Program("the check command", inside, {DRILL_VARIABLE: target})
        with RunningProgram(with_login(program)) as running:
            ended = running.wait()
        if not ended.succeeded:
            raise DrillError(f"{program.name} {ended.problem()}")


def _check_query(load: Load, query: str) -> None:
    """Raise DrillError unless *query* gives a row with a first value that is neither 0 nor NULL."""
    try:
        rows = load.query(query)
    except DatabaseError as exc:
        raise DrillError(f"the check '{printable(query)}' failed: {exc}", hint=exc.hint) from exc
    value = rows[0][0] if rows and rows[0] else None
    if not _is_false(value):
        return
    given = "no row" if not rows else "NULL" if value is None else f"'{printable(value)}'"
    raise DrillError(
        f"the check '{printable(query)}' gave {given}",
        hint="look at the database that was dumped, and at the older backups",
    )


def is_loaded(kind: str) -> bool:
    """Return whether a drill loads a dump of *kind* into a scratch database.

    There is none for what belongs to a whole server. "" is the kind of what is no dump.
    """
    return bool(kind) and "-" not in kind


def needs_server(kind: str) -> bool:
    """Return whether a drill of a dump of *kind* needs a server that runs: ``into`` names it."""
    return is_loaded(kind) and kind not in _WITHOUT_SERVER


def _check_arguments(
    found: models.Backups,
    kind: str,
    into: str | None,
    checks: Sequence[str],
    *,
    is_server_named: bool,
) -> None:
    """Raise UsageError where the arguments do not fit the kind of the backup."""
    name = printable(found.stored_filename)
    if not is_loaded(kind):
        if into is not None or checks or is_server_named:
            raise UsageError(
                f"{name} is no dump that a scratch database can be loaded with",
                hint="--check-command checks the files in the scratch directory",
            )
        return
    if into is not None:
        check_kind(into, kind)
    elif needs_server(kind):
        raise UsageError(
            f"{name} is a dump of {kind}, and no server was named for the scratch database",
            hint=f"name one: --into {kind}://localhost (into= in Python)",
        )


def _refuse_frozen(session: Session, found: models.Backups) -> None:
    status = thaw_status_of(session, found)
    if not status.is_readable:
        raise NotReadyError(
            f"{cold.describe(status)}, so it cannot be drilled now",
            hint=f"bakthat restore {printable(found.stored_filename)} requests its thaw, which is "
            "charged",
        )


def _is_false(value: str | None) -> bool:
    if value in _FALSE:
        return True
    try:
        return float(value or "") == 0
    except ValueError:
        return False


def _make_readable(directory: Path) -> None:
    """Let the owner read all that was restored, whose modes may not."""
    for above, names, files in os.walk(directory):
        for name in (*names, *files):
            path = os.path.join(above, name)
            mode = os.lstat(path).st_mode
            if stat.S_ISDIR(mode) or stat.S_ISREG(mode):
                os.chmod(path, stat.S_IMODE(mode) | stat.S_IRUSR | stat.S_IXUSR)


@contextmanager
def _scratch_directory(above: Path) -> Iterator[Path]:
    """Yield a new directory that only this user can read, and remove it with its contents."""
    try:
        directory = Path(tempfile.mkdtemp(prefix="bakthat-drill-", dir=above))
    except OSError as exc:
        raise DestinationError(
            f"cannot make a scratch directory in {printable(above)}: {reason_of(exc)}",
            hint="name another place with --scratch (scratch= in Python)",
        ) from exc
    try:
        yield directory
    finally:
        with held_back(f"removing {printable(directory)}", mend=f"rm -r {printable(directory)}"):
            remove_tree(directory)


def _result(
    report: ArchiveReport,
    started: float,
    checks: Sequence[str],
    check_command: str | None,
    problem: BakthatError | None,
) -> dict[str, Any]:
    return {
        "date": int(time.time()),
        "passed": problem is None,
        "seconds": round(time.monotonic() - started, 3),
        "bytes": report.bytes,
        "checks": len(checks) + (check_command is not None),
        **({"problem": printable(str(problem))} if problem is not None else {}),
    }


def _record(session: Session, found: models.Backups, result: Mapping[str, Any]) -> None:
    """Keep the *result* in the entry and, where the catalog has it, there."""
    found.metadata = {**found.metadata, DRILL: dict(result)}
    try:
        with models.catalog(session.catalog, write=True):
            row = models.Backups.get_or_none(
                models.Backups.stored_filename == found.stored_filename
            )
            if row is None:
                return
            row.metadata = {**row.metadata, DRILL: dict(result)}
            row.last_updated = int(time.time())
            row.save(only=["metadata", "last_updated"])
    except CatalogError as exc:
        log.warning("the result of the drill is not in the catalog: %s", exc)
