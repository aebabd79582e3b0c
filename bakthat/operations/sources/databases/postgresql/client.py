"""The programs of PostgreSQL: how they connect, what they answer, and what their errors mean."""

from __future__ import annotations

import re
import secrets
from dataclasses import dataclass, replace
from urllib.parse import quote

from bakthat.errors import DatabaseError
from bakthat.operations.sources.databases.base import (
    PASSWORD_HINT,
    UNREACHABLE_HINT,
    Access,
    missing_program,
)
from bakthat.operations.sources.databases.url_parts import DatabaseUrl
from bakthat.system.programs import SECRET_FILE, Ended, Program, run_program
from bakthat.system.text import did_you_mean, enumerate_some, printable, reason_of

CONNECT_SECONDS = 20
"""How long a server may take to answer a connection, for each of its addresses."""
_MESSAGE = re.compile(r"^.*?\b(?:ERROR|FATAL|PANIC):\s+(?P<text>.*)$", re.MULTILINE)
_CONNECTION = re.compile(
    r"^.*?: error: (?:connection to server .*? failed: )?(?P<text>.*)$", re.MULTILINE
)
_UNREACHABLE = re.compile(
    r"Connection refused|No such file or directory|could not translate host name|timeout expired"
    r"|No route to host|Network is unreachable|Connection timed out|Connection reset by peer"
    r"|server closed the connection unexpectedly|could not connect to server"
)
_WRONG_PASSWORD = re.compile(r"password authentication failed|empty password returned")
_NO_PASSWORD = re.compile(r"no password supplied")
_WITH_DATA = re.compile(
    rb"(?:DETAIL|CONTEXT|QUERY|STATEMENT|LINE \d+|Command was):"
    rb"|pg_(?:dump|restore): (?:detail: )?(?:Command|Query) was:"
)
"""Begins what the programs write behind an error: values of rows, or SQL, perhaps with secrets."""
_NOT_RUN = (126, 127)
"""The exit codes of shells, ``env`` and ``docker exec`` for a program that is not there."""


class ClosedDatabaseError(DatabaseError):
    """The server has no such database, or the user may not connect to it."""


def identifier(name: str) -> str:
    """Return *name* as an identifier of SQL."""
    return '"' + name.replace('"', '""') + '"'


def literal(text: str) -> str:
    """Return *text* as a literal of SQL, whatever ``standard_conforming_strings`` is."""
    return "E'" + text.replace("\\", "\\\\").replace("'", "''") + "'"


@dataclass(frozen=True, slots=True)
class Client:
    """The programs of PostgreSQL for one server."""

    url: DatabaseUrl
    access: Access

    def shown(self, database: str | None = None) -> str:
        """Return the URL of a database, None is the server, for messages."""
        return self.url.of(database).shown

    def program(self, name: str, *options: str, database: str) -> Program:
        """Return the program *name* with *options*, connected to *database*.

        It never asks for a password.
        """
        arguments = (name, *options, "--no-password", f"--dbname={self._connection(database)}")
        # Messages in English: what follows from an error depends on its text.
        environment = {"LC_ALL": "C", "PG_COLOR": "never"}
        command = self._command(*arguments)
        return self.with_login(Program(name, command, environment, private_errors=_WITH_DATA))

    def with_login(self, program: Program) -> Program:
        """Return *program*, in which libpq finds the password, if it is not to find it itself."""
        if self.access.via or self.access.password is None:
            return program
        # An empty PGPASSWORD is none; one that is set would take precedence over the file.
        password = {"PGPASSFILE": SECRET_FILE, "PGPASSWORD": ""}
        environment = {**program.environment, **password}
        return replace(program, environment=environment, secret=self._password_file())

    def check_tool(self, name: str) -> int:
        """Return a program's version, such as 1500 for 15.2.

        Raises DatabaseError when it is missing.
        """
        ended, output = self.run(Program(name, self._command(name, "--version")))
        version = re.search(rb"\) (\d+)(?:\.(\d+))?", output)
        if not ended.succeeded or version is None:
            raise self.error(ended, name)
        major = int(version[1])
        return major * 100 + (int(version[2] or 0) if major < 10 else 0)

    def rows(
        self,
        database: str,
        sql: str,
        *,
        doing: str = "psql",
        is_limited: bool = True,
    ) -> list[list[str | None]]:
        """Return what statements give. *doing* is the subject of an error's message.

        Without *is_limited*, they may take any time. Raises DatabaseError.
        """
        # No value has a NUL, nor a random text: so any other value is told from its neighbours.
        field, null = secrets.token_hex(16), secrets.token_hex(16)
        program = self.program(
            "psql",
            "--no-psqlrc",
            "--quiet",
            "--no-align",
            "--tuples-only",
            f"--field-separator={field}",
            "--record-separator-zero",
            f"--pset=null={null}",
            "--set=ON_ERROR_STOP=1",
            database=database,
        )
        # On standard input, since others see a command line.
        script = f"\\encoding UTF8\n{sql}\n"
        timeout = self.access.query_seconds if is_limited else None
        ended, output = self.run(program, script.encode(), timeout=timeout)
        if not ended.succeeded:
            raise self.error(ended, doing, database)
        return [
            [None if value == null else value for value in row.split(field)]
            for row in output.decode("utf-8", "replace").split("\0")[:-1]
        ]

    def maintenance(self, but: str | None = None) -> str:
        """Return the database to connect to for what concerns others, never *but*.

        Raises DatabaseError.
        """
        names = [name for name in ("postgres", "template1") if name != but]
        for name in names:
            try:
                self.rows(name, "SELECT 1;")
            except ClosedDatabaseError:
                if name == names[-1]:
                    raise
            else:
                return name
        raise AssertionError("unreachable")

    def run(
        self, program: Program, data: bytes = b"", *, timeout: float | None = 60
    ) -> tuple[Ended, bytes]:
        """Run a program to its end. Raises DatabaseError when it cannot be started."""
        try:
            return run_program(program, input=data, timeout=timeout)
        except OSError as exc:
            if self.access.via:
                raise DatabaseError(
                    f"cannot run '{self._via()}': {reason_of(exc)}",
                    hint="check the words that precede the programs of the database",
                ) from exc
            if isinstance(exc, (FileNotFoundError, NotADirectoryError)):
                raise missing_program(program.name, "postgresql-client") from exc
            raise DatabaseError(f"cannot run {program.name}: {reason_of(exc)}") from exc

    def error(self, ended: Ended, doing: str, database: str | None = None) -> DatabaseError:
        """Return the error that says in one line why a program failed, and what to do.

        *doing* is the subject of the message: a program, or "the query".
        """
        # Behind the first refusal may come one without TLS, which is of less use.
        found = _MESSAGE.search(ended.stderr) or _CONNECTION.search(ended.stderr)
        reason = self._masked(found["text"] if found is not None else ended.problem())
        if self.access.via and ended.exit_code in _NOT_RUN:
            return DatabaseError(
                f"'{self._via()}' cannot run {doing}: {reason}",
                hint="install PostgreSQL's client there, and check what precedes the program",
            )
        refused = self._refusal(ended.stderr, database)
        if refused is not None:
            return refused
        where = f"'{self.shown(database)}'"
        if "connection to server" in ended.stderr or not _MESSAGE.search(ended.stderr):
            if _UNREACHABLE.search(ended.stderr):
                message = f"cannot connect to {where}: {reason}"
                return DatabaseError(message, hint=UNREACHABLE_HINT)
            if found is None:  # the reason is how it ended
                return DatabaseError(f"{doing}, for {where}, {reason}")
            return DatabaseError(f"{where}: {reason}")
        hint = ""
        if "permission denied" in reason or "must be" in reason:
            hint = "name a user in the URL who has the right, or grant it"
        if "in a read-only transaction" in reason:
            hint = "is the server a replica? name its primary in the URL"
        if "out of shared memory" in reason:
            hint = "increase max_locks_per_transaction in the server's configuration"
        return DatabaseError(f"{doing} failed for {where}: {reason}", hint=hint)

    def _refusal(self, text: str, database: str | None) -> DatabaseError | None:
        """Return the error for a server that refused the user, or has no such database."""
        where = f"'{self.shown(database)}'"
        user = f" of user '{printable(self.url.user)}'" if self.url.user else ""
        if _WRONG_PASSWORD.search(text):
            return DatabaseError(f"wrong password{user} for {where}", hint=self._password_hint())
        if _NO_PASSWORD.search(text):
            return DatabaseError(f"no password{user} for {where}", hint=self._password_hint())
        if database is not None and f'FATAL:  database "{database}" does not exist' in text:
            return ClosedDatabaseError(
                f"'{self.shown()}' has no database '{printable(database)}'",
                hint=self._similar(database),
            )
        if "permission denied for database" in text:
            return ClosedDatabaseError(
                f"permission denied for {where}",
                hint="name a user in the URL who may connect to it, or grant CONNECT",
            )
        return None

    def _similar(self, database: str) -> str:
        listed = "SELECT datname FROM pg_catalog.pg_database WHERE datallowconn ORDER BY 1"
        for other in ("postgres", "template1"):
            if other != database:
                try:
                    known = [row[0] or "" for row in self.rows(other, listed)]
                except DatabaseError:
                    continue
                shown = enumerate_some([printable(name) for name in known])
                return did_you_mean(database, known) or f"it has: {shown}"
        return ""

    def _password_hint(self) -> str:
        if self.access.via:
            return "let the programs find the password there, for example in ~/.pgpass"
        return PASSWORD_HINT

    def _via(self) -> str:
        """Return the first word before the programs; others may be secret."""
        return printable(self._command()[0])

    def _command(self, *arguments: str) -> tuple[str, ...]:
        try:
            return self.access.command(*arguments)
        except ValueError as exc:
            raise DatabaseError(
                "the words that precede the programs of the database are invalid:"
                f" {reason_of(exc)}",
                hint="close each quote",
            ) from exc

    def _connection(self, database: str) -> str:
        """Return a URL for the programs, in which no character of a name has a meaning.

        A plain name could be an option or a connection string of its own, and some programs before
        it, such as ssh, hand it to a shell.
        """
        url = self.url
        host = f"[{url.host}]" if ":" in url.host else quote(url.socket or url.host, safe="")
        user = f"{quote(url.user, safe='')}@" if url.user else ""
        port = f":{url.port}" if url.port is not None else ""
        name = quote(database, safe="")
        return f"postgresql://{user}{host}{port}/{name}?connect_timeout={CONNECT_SECONDS}"

    def _password_file(self) -> str:
        """Return the file of passwords that libpq reads, with the password for every server."""
        password = self.access.password or ""
        if "\n" in password or "\r" in password:
            raise DatabaseError(
                "the password of the database has a line break, which no file for libpq can hold",
                hint="change the password",
            )
        escaped = password.replace("\\", "\\\\").replace(":", "\\:")
        return f"*:*:*:*:{escaped}\n"

    def _masked(self, text: str) -> str:
        password = self.access.password
        return printable(text.replace(password, "***") if password else text)
