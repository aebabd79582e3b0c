"""The programs of MySQL and MariaDB: finding them, connecting, and sending SQL."""

from __future__ import annotations

import functools
import html
import os
import re
from collections.abc import Sequence
from dataclasses import replace
from typing import NoReturn

from bakthat.errors import DatabaseError
from bakthat.operations.sources.databases.base import (
    PASSWORD_HINT,
    UNREACHABLE_HINT,
    Access,
    missing_program,
)
from bakthat.operations.sources.databases.url_parts import DatabaseUrl
from bakthat.system.programs import SECRET_FILE, Ended, Program, find_program, run_program
from bakthat.system.text import did_you_mean, enumerate_some, printable, reason_of

Row = Sequence[str | None]

_CLIENTS = ("mariadb", "mysql")
_DUMPS = ("mariadb-dump", "mysqldump")
_PACKAGES = {"mariadb": "mariadb-client", "mysql": "default-mysql-client"}

_CONNECT_SECONDS = 30
_PROBE_SECONDS = 60

# Names of databases, and the SQL around them, are UTF-8. In its binary mode the client knows no
# commands of its own: a line "\! rm" of a dump, or of a query, runs no shell.
_OPTIONS = (
    "--batch",
    "--binary-mode",
    "--default-character-set=utf8mb4",
    f"--connect-timeout={_CONNECT_SECONDS}",
    "--skip-reconnect",  # a new connection would not have the session's settings
    "--local-infile=0",
    "--skip-force",  # whatever ~/.my.cnf says: the first error ends a load
)

_UNREACHABLE = {1040, 1042, 1129, 1130, 1203, 2002, 2003, 2005, 2006, 2012, 2013, 2026, 2055}
_WRONG_PASSWORD = {1045, 1698, 1862}
_NO_PRIVILEGE = {1044, 1142, 1143, 1227, 1370, 1419}
_NO_DATABASE = 1049
_TLS = 2026
_NOT_REACHED = {2002, 2003, 2005}

_OPTION_FILES = re.compile(r"options are read from the following files in the given order:\n(.*)")
_ERROR = re.compile(r"ERROR (\d+)(?: \(\w+\))?(?: at line \d+)?(?: in file: '[^']*')?: (.*)", re.S)


def quoted(name: str) -> str:
    """Return the name of a database, or of what is inside of one, for SQL."""
    return f"`{name.replace('`', '``')}`"


class Client:
    """How to run the programs of a server."""

    def __init__(self, url: DatabaseUrl, access: Access) -> None:
        self.url = url
        self._access = access
        self._help: dict[str, str] = {}

    @functools.cached_property
    def client(self) -> str:
        """The name of the client's program. Raises DatabaseError when there is none."""
        return self._find(_CLIENTS)

    @functools.cached_property
    def dump(self) -> str:
        """The name of the dump's program. Raises DatabaseError when there is none."""
        return self._find(_DUMPS)

    @functools.cached_property
    def _client_options(self) -> tuple[str, ...]:
        # The client of MariaDB would write each statement that fails, with the data of its rows.
        quiet = ("--skip-print-query-on-error",)
        return (*_OPTIONS, *(quiet if self.knows(self.client, "--print-query-on-error") else ()))

    def knows(self, program: str, option: str) -> bool:
        """Return whether a program has an option: ``--dump-history``. Raises DatabaseError."""
        # The help has "--system=name" and "--max-allowed-packet=#".
        return re.search(rf"{option}(?![-\w])", self._help_of(program)) is not None

    def _help_of(self, program: str) -> str:
        if program not in self._help:
            ended, output = self._run(self._program(program, "--help"), seconds=_PROBE_SECONDS)
            if not ended.succeeded:
                raise DatabaseError(f"{program} {self.without_password(ended.problem())}")
            self._help[program] = output.decode(errors="replace")
        return self._help[program]

    def settings_of(self, program: str) -> set[str]:
        """Return the names of the options that a program gets from files. Raises DatabaseError."""
        first = [f"--defaults-file={SECRET_FILE}"] if self._secret else []
        words = self._access.command(program, *first, "--print-defaults")
        ended, output = self._run(self.program(program, words), seconds=_PROBE_SECONDS)
        if not ended.succeeded:
            raise DatabaseError(f"{program} {self.without_password(ended.problem())}")
        names = re.findall(r"(?<!\S)--([A-Za-z_-]+)", output.decode(errors="replace"))
        return {name.replace("_", "-") for name in names}

    def command(self, program: str, *options: str) -> tuple[str, ...]:
        """Return the command line of a program of the server that connects to it."""
        url = self.url
        first = [f"--defaults-file={SECRET_FILE}"] if self._secret else []
        return self._access.command(
            program,
            *first,  # the programs take it only before all others
            *([f"--user={url.user}"] if url.user else []),
            *([f"--host={url.host}"] if url.host else []),
            *([f"--port={url.port}"] if url.port else []),
            # With the name localhost the programs would take the socket, whatever the port.
            *(["--protocol=tcp"] if url.host and url.port else []),
            *([f"--socket={url.socket}"] if url.socket else []),
            *options,
        )

    def program(self, name: str, arguments: tuple[str, ...]) -> Program:
        """Return a program whose command line was made by :meth:`command`."""
        return Program(name, arguments, secret=self._secret)

    def with_login(self, program: Program) -> Program:
        """Return *program* of the user, in which the client finds the password.

        It is in a variable, since the client takes the name of a file on its command line only.
        """
        if self._access.password is None or self._access.via:
            return program
        password = {"MYSQL_PWD": self._access.password}
        return replace(program, environment={**program.environment, **password})

    def load_program(self, database: str | None) -> Program:
        """Return the program that loads a dump from its standard input."""
        options = (*self._client_options, "--max-allowed-packet=1G")
        return self.program(self.client, self.command(self.client, *options, *_into(database)))

    def query(self, sql: str, database: str | None = None, *, is_limited: bool = True) -> list[Row]:
        """Return the rows that SQL gives, in *database*; None is NULL.

        Without *is_limited*, it may take any time. Raises DatabaseError.
        """
        # Of the client's formats, only XML tells NULL from a text, and where a field ends.
        command = self.command(self.client, *self._client_options, "--xml", *_into(database))
        ended, output = self._run(
            self.program(self.client, command),
            text=sql.encode("utf-8", "surrogateescape"),
            seconds=self._access.query_seconds if is_limited else None,
        )
        if not ended.succeeded:
            self._fail(ended, database)
        return rows_of(output)

    def has_database(self, name: str) -> bool:
        """Return whether the server has a database of that name."""
        rows = self.query("SELECT @@lower_case_table_names; SHOW DATABASES")
        keeps_case, *names = [row[0] or "" for row in rows]
        if keeps_case != "0":
            return name.lower() in map(str.lower, names)
        return name in names

    def _find(self, names: tuple[str, ...]) -> str:
        if self.url.kind == "mysql":
            names = names[::-1]
        via = self._access.via
        if not via:
            found = find_program(*names)
            if found is not None:
                return found
            raise missing_program(names[0], _PACKAGES[self.url.kind])
        for name in names:
            ended, _ = self._run(self._program(name, "--version"), seconds=_PROBE_SECONDS)
            if ended.succeeded:
                return name
        raise DatabaseError(
            f"neither {names[0]} nor {names[1]} can be run by {printable(via.split()[0])}:"
            f" {names[1]} {self.without_password(ended.problem())}"
        )

    def _program(self, name: str, *options: str) -> Program:
        return Program(name, self._access.command(name, *options))

    def _run(
        self, program: Program, *, text: bytes = b"", seconds: float | None = None
    ) -> tuple[Ended, bytes]:
        try:
            return run_program(program, input=text, timeout=seconds)
        except OSError as exc:
            raise DatabaseError(
                f"cannot run {printable(program.arguments[0])}: {reason_of(exc)}",
                hint="check the words that precede the programs of the database"
                if self._access.via
                else "",
            ) from exc

    @functools.cached_property
    def _secret(self) -> str:
        """The option file with the password; where a program runs elsewhere, it has its own.

        The programs would read ~/.my.cnf behind one of ``--defaults-extra-file``, and its password
        would count. So this one includes the files that the programs read, and is their only one.
        """
        if self._access.password is None or self._access.via:
            return ""
        escaped = self._access.password
        for char, escape in {"\\": r"\\", '"': r"\"", "\n": r"\n", "\r": r"\r"}.items():
            escaped = escaped.replace(char, escape)
        listed = _OPTION_FILES.search(self._help_of(self.client))
        paths = [os.path.expanduser(path) for path in listed[1].split()] if listed else []
        included = [f"!include {path}\n" for path in paths if os.access(path, os.R_OK)]
        return f'{"".join(included)}[client]\npassword="{escaped}"\n'

    def without_password(self, text: str) -> str:
        """Return *text* for a message, with the password masked, in one line."""
        password = self._access.password
        if password:
            text = text.replace(password, "***").replace(printable(password), "***")
        return printable(" ".join(text.split()))

    def _fail(self, ended: Ended, database: str | None) -> NoReturn:
        """Raise the error that the client has printed."""
        found = _ERROR.search(ended.stderr)
        if found is None:
            raise DatabaseError(f"{self.client} {self.without_password(ended.problem())}")
        code, text = int(found[1]), self.without_password(found[2])
        where = self.url.of(None).shown
        hint = ""
        if code in _UNREACHABLE:
            message = f"cannot connect to {where}: {text}"
            if code == _TLS:
                hint = "set the options of TLS in ~/.my.cnf, in the section [client]"
            elif code in _NOT_REACHED:
                hint = UNREACHABLE_HINT
        elif code in _WRONG_PASSWORD:
            message = f"cannot log in to {where}: {text}"
            hint = (
                "with --via, the password must be where the programs run, such as in ~/.my.cnf"
                if self._access.via
                else PASSWORD_HINT
            )
        elif code == _NO_DATABASE and database is not None:
            message = f"'{where}' has no database '{printable(database)}'"
            hint = self._similar(database)
        else:
            message = f"{where}: {text}"
            if code in _NO_PRIVILEGE:
                hint = "grant the user this privilege, or use another user in the URL"
        raise DatabaseError(message, hint=hint)

    def _similar(self, database: str) -> str:
        names = [row[0] or "" for row in self.query("SHOW DATABASES")]
        names = [name for name in names if name not in SYSTEM]
        listed = f"its databases: {enumerate_some([*map(printable, names)])}" if names else ""
        return did_you_mean(database, names) or listed


SYSTEM = ("information_schema", "mysql", "performance_schema", "sys")
"""The databases that each server has of its own."""


def _into(database: str | None) -> list[str]:
    return [] if database is None else [f"--database={database}"]


_ROW = re.compile(rb"<row>(.*?)</row>", re.S)
_FIELD = re.compile(rb'<field name="[^"]*"(?: xsi:nil="true" />|>([^<]*)</field>)')


def rows_of(output: bytes) -> list[Row]:
    """Return the rows that the client has written with ``--xml``.

    A parser of XML would refuse control characters, which the client writes as they are.
    """
    return [[_text(field[1]) for field in _FIELD.finditer(row[1])] for row in _ROW.finditer(output)]


def _text(field: bytes | None) -> str | None:
    return None if field is None else html.unescape(field.decode("utf-8", "surrogateescape"))
