"""Load a dump of Redis: a server of its own reads and verifies it, and its keys are copied."""

from __future__ import annotations

import importlib
import logging
import os
import re
import secrets
import shlex
import shutil
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from typing import Any

from bakthat.errors import DatabaseError
from bakthat.operations.sources.databases.base import PASSWORD_HINT, UNREACHABLE_HINT, Access
from bakthat.operations.sources.databases.url_parts import DatabaseUrl
from bakthat.system.programs import Program, RunningProgram, find_program
from bakthat.system.text import printable, reason_of

logger = logging.getLogger(__name__)

_DATABASES = 16384
"""How many numbered databases a dump may have; a server with that many starts at once."""
_SCANNED = 1000
_BATCH_BYTES = 1 << 20
"""How much is copied at once, in bytes of the server's memory, unless one key has more."""
_SOCKET_PATH = 90
"""How long the path of a Unix socket is at most, with room to spare: in bytes."""


_LOGIN_HINT = f"{PASSWORD_HINT}, and the user, if any, in the URL: redis://me@host"


def connection_problem(text: str, access: Access) -> tuple[str, str]:
    """Return what an error of a Redis server or client means, without the password, and a hint."""
    if re.search("WRONGPASS|invalid username-password|invalid password", text):
        return "the password or the user is wrong", _LOGIN_HINT
    if re.search("NOAUTH|uthentication required", text):
        return "the server needs a password", _LOGIN_HINT
    if re.search("without any password configured", text):
        return "a password was given, and the server has none", "leave out the password"
    if re.search("NOPERM|no permissions", text):
        hint = "an administrator allows it: ACL SETUSER name +ping +sync +replconf"
        return masked(printable(text), access), hint
    # The words of redis-cli name the server again.
    found = re.match(r"Could not connect to Redis at \S+: ", text)
    rest = masked(printable(text[found.end() if found else 0 :]), access)
    return (f"cannot connect: {rest}", UNREACHABLE_HINT) if found else (rest, "")


def masked(text: str, access: Access) -> str:
    """Return *text* without the password."""
    return text.replace(access.password, "***") if access.password else text


class Target:
    """The Redis server into which a dump is loaded."""

    def __init__(self, url: DatabaseUrl, access: Access) -> None:
        """Raise DatabaseError without the package that connects to it."""
        self._library = _library()
        self._access = access
        self.shown = url.shown
        # As redis-cli does, whose dumps need no password from us then.
        password = access.password
        if password is None:
            password = os.environ.get("REDISCLI_AUTH")
        self._options: dict[str, Any] = {"username": url.user or None, "password": password or None}
        if url.socket:
            self._options |= {"unix_socket_path": url.socket}
        else:
            self._options |= {"host": url.host or "localhost", "port": url.port or 6379}
        if url.kind == "rediss":
            self._options |= {"ssl": True}

    @contextmanager
    def connected(self, number: int = 0) -> Iterator[Any]:
        """Connect to the database *number*. In the block, all errors of Redis are DatabaseError."""
        with (
            _errors(self._library, masked(printable(self.shown), self._access), self._access),
            closing(_connect(self._library, db=number, **self._options)) as client,
        ):
            yield client

    def is_empty(self) -> bool:
        """Tell whether the server has neither keys nor functions. Raises DatabaseError."""
        with self.connected() as client:
            return not _numbers(client) and not self.functions(client)

    def functions(self, client: Any) -> list[Any]:
        """Return the libraries of functions; none of a server before Redis 7."""
        try:
            found: list[Any] = client.execute_command("FUNCTION", "LIST")
        except self._library.ResponseError as exc:
            if "unknown command" in str(exc).lower():
                return []
            raise
        return found

    def receive(self, source: Target, *, replace: bool) -> None:
        """Copy all keys and functions of *source*, in place of all that is here with *replace*.

        Raises DatabaseError.
        """
        with source.connected() as theirs, self.connected() as ours:
            numbers = _numbers(theirs)
            functions = bool(source.functions(theirs))
            # Whatever can be refused must be refused while all is still here.
            for number in numbers:
                with source.connected(number) as filled, self.connected(number) as client:
                    _try_to_restore(filled, client)
            if replace:  # FLUSHALL may be forbidden or renamed, which a transaction tells
                for word in ("MULTI", "FLUSHALL", "DISCARD"):
                    ours.execute_command(word)
            if functions:
                content = theirs.execute_command("FUNCTION", "DUMP")
                policy = "FLUSH" if replace else "APPEND"
                ours.execute_command("FUNCTION", "RESTORE", content, policy)
            elif replace and self.functions(ours):
                ours.execute_command("FUNCTION", "FLUSH")
            if replace:
                ours.execute_command("FLUSHALL")
            evicted = _evicted(ours)
        try:
            for number in numbers:
                self._copy(source, number)
        except DatabaseError as exc:
            raise DatabaseError(
                str(exc), hint="the server has a part of the dump now; load it again with --replace"
            ) from exc
        with self.connected() as ours:
            if _evicted(ours) != evicted:
                raise DatabaseError(
                    f"{printable(self.shown)}: the server has evicted keys while it was loaded",
                    hint="increase its maxmemory, and load the dump again with --replace",
                )

    def _copy(self, source: Target, number: int) -> None:
        with source.connected(number) as theirs, self.connected(number) as ours:
            for batch in _batches(theirs):
                restores = [
                    ("RESTORE", key, expires, content, "ABSTTL") for key, expires, content in batch
                ]
                _answers(ours, restores)


class RedisLoad:
    """A dump being written into a file, which a Redis server without network reads then."""

    def __init__(self, target: Target | None = None, *, replace: bool = False) -> None:
        """Prepare to load into *target*; None keeps the dump in the server of its own.

        Raises DatabaseError; also when *target* is not empty, unless *replace*.
        """
        self._target, self._replace = target, replace
        self._library = _library()
        self._resources = ExitStack()
        self._loaded: Target | None = None
        server = find_program("redis-server", "valkey-server")
        if server is None:
            raise DatabaseError(
                "'redis-server' is not installed: it reads and verifies a dump of Redis",
                hint="on Debian: apt install redis-server",
            )
        self._server = server
        if target and not target.is_empty() and not replace:
            raise DatabaseError(
                f"{printable(target.shown)} is not empty",
                hint="give another server, or --replace to remove all that this one has",
            )
        self._directory = self._temporary_directory()
        path = os.path.join(self._directory, "dump.rdb")
        # The shell's own redirection: its file is open before cat starts.
        self.program = Program("cat", ("/bin/sh", "-c", 'umask 077; exec cat > "$0"', path))

    def commit(self) -> None:
        """Let the server of its own load the dump, and copy it to the target.

        Raises DatabaseError. The target is unchanged unless the dump is whole; when it fails later,
        the target may have a part of it.
        """
        scratch = self._started()
        if self._target:
            self._target.receive(scratch, replace=self._replace)
        self._loaded = self._target or scratch

    def query(self, text: str) -> Sequence[Sequence[str | None]]:
        """Return what one command answers, in the database 0. Raises DatabaseError."""
        assert self._loaded, "not committed"
        try:
            words = shlex.split(text)
        except ValueError as exc:
            raise DatabaseError(f"the command cannot be read: {reason_of(exc)}") from exc
        if not words:
            raise DatabaseError("the command is empty", hint="for example DBSIZE, or GET key")
        with self._loaded.connected() as client:
            answer = client.execute_command(*words)
        if not isinstance(answer, list):
            return [[_shown(answer)]]
        return [_row(each) for each in answer]

    def target(self) -> str:
        """Return the URL of the target; for a server of its own, the path of its socket."""
        return self._target.shown if self._target else self._socket

    def close(self) -> None:
        """End the server of its own, and remove its files."""
        self._resources.close()

    def _temporary_directory(self, place: str | None = None) -> str:
        try:
            path = tempfile.mkdtemp(prefix="bakthat-", dir=place)
        except OSError as exc:
            raise DatabaseError(
                f"cannot make a temporary directory: {reason_of(exc)}",
                hint="set the variable TMPDIR to a directory with a short path",
            ) from exc
        self._resources.callback(_remove, path)
        return path

    def _started(self) -> Target:
        """Start a server that loads the dump; return it when it has. Raises DatabaseError."""
        directory = self._directory
        if len(os.fsencode(directory)) > _SOCKET_PATH - len("/socket"):
            directory = self._temporary_directory("/tmp")
        self._socket = os.path.join(directory, "socket")
        options = {
            "port": "0",
            "unixsocket": self._socket,
            "unixsocketperm": "700",
            "dir": self._directory,
            "dbfilename": "dump.rdb",
            "databases": str(_DATABASES),
            "save": "",
            "appendonly": "no",
        }
        words = [word for name, value in options.items() for word in (f"--{name}", value)]
        program = Program(self._server, (self._server, *words))
        try:
            running = self._resources.enter_context(RunningProgram(program, stdout=True))
        except OSError as exc:
            raise DatabaseError(f"cannot start {self._server}: {reason_of(exc)}") from exc
        lines: list[str] = []
        for line in map(_text, running.stdout):
            if "ready to accept connections" in line.lower():
                url = DatabaseUrl("redis", socket=self._socket)
                return Target(url, Access(password=""))
            lines.append(line)
        ended = running.wait()
        # A line is "PID:M 27 Nov 2026 10:16:36.628 # text"; "#" means a warning or an error.
        errors = [line.partition(" # ")[2].strip() for line in lines if " # " in line]
        why = errors[-1] if errors and ended.signal is None else ended.problem()
        raise DatabaseError(f"{self._server} does not load the dump: {printable(why)}")


def _remove(directory: str) -> None:
    try:
        shutil.rmtree(directory)
    except OSError as exc:
        logger.warning("cannot remove %s: %s", printable(directory), reason_of(exc))


def _library() -> Any:
    try:
        return importlib.import_module("redis")  # bakthat works without it
    except ModuleNotFoundError as exc:
        raise DatabaseError(
            "the library 'redis' is not installed: it loads dumps of Redis",
            hint="pip install redis, or with pipx: pipx inject bakthat redis",
        ) from exc


def _connect(library: Any, **options: Any) -> Any:
    """Return a client with one connection, which returns the server's answers as they are."""
    client = library.Redis(
        **options,
        protocol=2,
        single_connection_client=True,
        socket_timeout=None,  # FLUSHALL and DUMP may take minutes
        socket_connect_timeout=60,
        # A RESTORE that was done must not be done again.
        retry=library.retry.Retry(library.backoff.NoBackoff(), 0),
    )
    client.response_callbacks.clear()
    return client


@contextmanager
def _errors(library: Any, where: str, access: Access) -> Iterator[None]:
    try:
        yield
    except (library.RedisError, OSError) as exc:
        problem, hint = connection_problem(" ".join(str(exc).split()), access)
        raise DatabaseError(f"{where}: {problem}", hint=hint) from exc


def _numbers(client: Any) -> list[int]:
    """Return the numbers of the databases that have keys."""
    found = client.execute_command("INFO", "keyspace")
    return [int(each) for each in re.findall(r"^db(\d+):", _text(found), re.MULTILINE)]


def _evicted(client: Any) -> int:
    """Return how many keys the server has removed for want of memory."""
    found = re.search(r"^evicted_keys:(\d+)", _text(client.execute_command("INFO", "stats")), re.M)
    return int(found[1]) if found else 0


def _answers(client: Any, commands: Iterable[Sequence[Any]]) -> list[Any]:
    """Return what the server answers to *commands*, which are sent at once."""
    pipeline = client.pipeline(transaction=False)
    for each in commands:
        pipeline.execute_command(*each)
    answers: list[Any] = pipeline.execute(raise_on_error=False)
    for answer in answers:
        if isinstance(answer, Exception):
            raise answer  # an error that execute() raises would have a key and its content
    return answers


def _batches(client: Any) -> Iterator[list[tuple[bytes, int, bytes]]]:
    """Yield each key, when it expires in milliseconds since 1970, 0 for never, and its content."""
    cursor = b""
    while cursor != b"0":
        cursor, keys = client.execute_command("SCAN", cursor or b"0", "COUNT", _SCANNED)
        batch: list[bytes] = []
        left = _BATCH_BYTES
        for key, size in zip(
            keys, _answers(client, [("MEMORY", "USAGE", key) for key in keys]), strict=True
        ):
            if batch and (size or 0) > left:
                yield _entries(client, batch)
                batch, left = [], _BATCH_BYTES
            batch.append(key)
            left -= size or 0  # None when it has expired
        yield _entries(client, batch)


def _entries(client: Any, keys: list[bytes]) -> list[tuple[bytes, int, bytes]]:
    contents = _answers(client, [("DUMP", key) for key in keys])
    # Not PEXPIRETIME, which is not known before Redis 7.
    times = _answers(client, [("PTTL", key) for key in keys])
    now = time.time_ns() // 1_000_000
    return [
        (key, 0 if left == -1 else now + left, content)
        for key, left, content in zip(keys, times, contents, strict=True)
        if content is not None and left != -2  # it has not expired meanwhile
    ]


def _try_to_restore(source: Any, target: Any) -> None:
    """Restore one key under a name of its own, for a moment."""
    for batch in _batches(source):
        for _, _, content in batch:
            name = f"bakthat:{secrets.token_hex(16)}"
            target.execute_command("RESTORE", name, 1000, content)  # expires in a second
            target.execute_command("DEL", name)
            return


def _row(value: Any) -> list[str | None]:
    return [_shown(each) for each in value] if isinstance(value, list) else [_shown(value)]


def _shown(value: Any) -> str | None:
    if value is None:
        return None
    if isinstance(value, list):  # within a row
        return " ".join(_shown(each) or "" for each in value)
    return _text(value) if isinstance(value, bytes) else str(value)


def _text(value: bytes) -> str:
    return value.decode(errors="backslashreplace")
