"""Redis: a dump of all of a server, as ``redis-cli --rdb`` writes it."""

from __future__ import annotations

import ipaddress
import logging
import re
from dataclasses import replace
from typing import NoReturn

from bakthat.errors import DatabaseError, UsageError
from bakthat.operations.sources.databases.base import Access, missing_program
from bakthat.operations.sources.databases.redis_load import (
    RedisLoad,
    Target,
    connection_problem,
    masked,
)
from bakthat.operations.sources.databases.url_parts import DatabaseUrl
from bakthat.system.programs import Program, find_program, run_program
from bakthat.system.text import printable, reason_of

_ANSWER_SECONDS = 60.0
"""The most seconds for the answer to a command that takes no time on the server."""
_DEFAULT_PORT = 6379


class RedisServer:
    """A Redis server, whose numbered databases are one dump."""

    def __init__(self, url: DatabaseUrl, access: Access) -> None:
        self._url, self._access = url, access

    @classmethod
    def from_url(cls, url: DatabaseUrl, access: Access) -> RedisServer:
        """Return the server that *url* names. Raises UsageError."""
        if url.name is not None:
            raise UsageError(
                f"a dump of Redis has all of its databases, not only {printable(url.name)!r}",
                hint=f"leave out what follows the host: {url.of(None).shown}",
            )
        return cls(url, access)

    def databases(self) -> list[RedisDatabases]:
        """Return all numbered databases, as one."""
        return [RedisDatabases(self._url, self._access)]

    def leftovers(self) -> list[str]:
        """Return nothing: what is made for a while is on this machine, and ends with bakthat."""
        return []

    def with_login(self, program: Program) -> Program:
        """Return *program*: a server of :meth:`scratch` has no password."""
        return program

    def database(self, name: str) -> RedisDatabases:
        """Return all numbered databases. Raises UsageError for the *name* of one of them."""
        (found,) = self.from_url(self._url.of(name or None), self._access).databases()
        return found

    def scratch(self) -> RedisLoad:
        """Prepare to load a dump into a Redis server of its own on this machine.

        Raises DatabaseError.
        """
        return RedisLoad()


class RedisDatabases:
    """All numbered databases of a Redis server, with its functions."""

    dump_kind = "redis"

    def __init__(self, url: DatabaseUrl, access: Access) -> None:
        self._url, self._access = url, access
        self.url = replace(url, user="").shown
        host = re.sub(r"[^\w.-]+", "-", url.host or "localhost")
        port = "" if url.port in {None, _DEFAULT_PORT} else f"-{url.port}"
        self.name = f"redis-{host}{port}"
        self.dump_name = f"{self.name}.rdb"

    def check(self) -> list[str]:
        """Return nothing, since a dump has all.

        Raises DatabaseError unless the server answers, and the user may copy it.
        """
        if not self._access.via and not find_program("redis-cli", "valkey-cli"):
            raise missing_program("redis-cli", "redis-tools")
        answer = self._answer("PING")
        # Whoever may not PING may still be allowed to copy.
        if answer != "PONG" and not answer.startswith("NOPERM"):
            self._refuse(answer or "there is no answer")
        user = self._url.user or "default"
        # A server before Redis 7, and one that does not let the user ask, answer something else.
        answer = self._answer("ACL", "DRYRUN", user, "SYNC")
        if "no permissions" in answer and not answer.startswith("NOPERM"):
            self._refuse(answer)
        return []

    def dump(self) -> Program:
        """Return the program that writes a dump to its standard output.

        It fails when the server, or the process that saves for it, ends before the dump does.
        """
        # Its standard error says what it does, also when all is well.
        return replace(self._program("--rdb", "-"), level=logging.DEBUG)

    def load(self, *, replace: bool) -> RedisLoad:
        """Prepare to load a dump into the server.

        Raises DatabaseError; also when the server is not empty, unless *replace*.
        """
        if self._access.via:
            raise UsageError(
                "--via cannot load a dump of Redis: that needs a connection from this machine",
                hint="give a URL that this machine can reach, without --via; or restore the dump "
                "as a file, and start the server with it as its dump.rdb",
            )
        target = Target(self._url, self._access)
        return RedisLoad(target, replace=replace)

    def _program(self, *words: str) -> Program:
        url, access = self._url, self._access
        name = "redis-cli" if access.via else find_program("redis-cli", "valkey-cli") or "redis-cli"
        options = ["-s", url.socket] if url.socket else ["-h", url.host or "localhost"]
        if not url.socket:
            options += ["-p", str(url.port or _DEFAULT_PORT)]
        if url.kind == "rediss":
            options += ["--tls"]
            if url.host and not _is_address(url.host):
                options += ["--sni", url.host]
        if url.user:
            options += ["--user", url.user]
        password = {} if access.password is None else {"REDISCLI_AUTH": access.password}
        return Program(name, access.command(name, *options, *words), password)

    def _answer(self, *words: str) -> str:
        """Return the answer to a command in one line. Raises DatabaseError without one."""
        try:
            seconds = min(_ANSWER_SECONDS, self._access.query_seconds)
            ended, output = run_program(self._program(*words), timeout=seconds)
        except OSError as exc:
            self._refuse(f"{self._program().arguments[0]}: {reason_of(exc)}")
        # A wrong password is told there, and the command is sent all the same.
        refused = re.search("^AUTH failed: (.*)", ended.stderr, re.MULTILINE)
        if refused:
            self._refuse(refused[1])
        if not ended.succeeded:
            self._refuse(ended.stderr or ended.how())
        return " ".join(output.decode(errors="replace").split())

    def _refuse(self, text: str) -> NoReturn:
        problem, hint = connection_problem(" ".join(text.split()), self._access)
        if self._access.via and "password" in problem:
            hint = "the password must be known there: docker exec -e REDISCLI_AUTH passes it on"
        where = masked(printable(self._url.shown), self._access)
        raise DatabaseError(f"{where}: {problem}", hint=hint)


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
