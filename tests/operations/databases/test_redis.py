"""A Redis server is dumped whole, and comes back with all types, times and functions."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
import redis

from bakthat.errors import DatabaseError, UsageError
from bakthat.operations.sources.databases.base import Access
from bakthat.operations.sources.databases.redis import RedisDatabases, RedisServer
from bakthat.operations.sources.databases.url_parts import DatabaseUrl
from tests.support.commandline import PATIENCE
from tests.support.databases import redis_server
from tests.support.dumps import dump_of, run, write_into
from tests.support.foreign_answers import make_certificate
from tests.support.own_threads import own_threads
from tests.support.processes import own_processes
from tests.support.servers import free_port

pytestmark = [pytest.mark.slow, pytest.mark.needs("redis-server", "redis-cli")]

PASSWORD = "mypassword-3141"
Serve = Callable[..., int]


@pytest.fixture(autouse=True)
def temporary(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Path]:
    """The directory of temporary files: nothing may be left in it, and nothing may run."""
    directory = tmp_path / "temporary"
    directory.mkdir()
    monkeypatch.setenv("TMPDIR", str(directory))
    monkeypatch.setattr("tempfile.tempdir", str(directory))
    monkeypatch.delenv("REDISCLI_AUTH", raising=False)
    yield directory
    assert list(directory.iterdir()) == []
    assert own_threads() == []


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Serve]:
    """Start a server with the password, or another, and return its port."""
    with ExitStack() as servers:

        def start(name: str = "first", *, password: str = PASSWORD, settings: str = "") -> int:
            home = tmp_path / name
            home.mkdir()
            return servers.enter_context(redis_server(home, password=password, settings=settings))

        yield start


@pytest.fixture
def no_password_in_arguments() -> Iterator[None]:
    """Look at the command lines of all processes below this one all the time."""
    found: list[str] = []
    stop = threading.Event()

    def watch() -> None:
        while not stop.wait(0.002):
            for process in own_processes():
                try:
                    line = (process / "cmdline").read_bytes()
                except OSError:  # it has ended
                    continue
                if PASSWORD.encode() in line:
                    found.append(line.decode())

    thread = threading.Thread(target=watch)
    thread.start()
    yield
    stop.set()
    thread.join()
    assert found == []


def server_at(port: int, *, user: str = "", **access: Any) -> RedisServer:
    access.setdefault("password", PASSWORD)
    return RedisServer.from_url(
        DatabaseUrl("redis", user=user, host="127.0.0.1", port=port), Access(**access)
    )


def at(port: int, **options: Any) -> RedisDatabases:
    (found,) = server_at(port, **options).databases()
    return found


@contextmanager
def client(port: int, number: int = 0) -> Iterator[Any]:
    with redis.Redis(port=port, password=PASSWORD, db=number) as connection:
        yield connection


FUNCTION = "#!lua name=mylib\nredis.register_function('double', function(k, a) return a[1] * 2 end)"


def fill(port: int) -> None:
    with client(port) as first, client(port, 15) as last:
        first.set("text", "mìlk; 'tea'\n")
        first.set(b"\0\xff key", bytes(range(256)))
        first.set("number", 42)
        first.set("empty", "")
        first.set("big", os.urandom(3_000_000))
        first.rpush("list", *[f"item {number}" for number in range(2000)])
        first.sadd("set", *[f"member {number}" for number in range(2000)])
        first.sadd("numbers", 1, 2, 3)
        first.zadd("zset", {f"member {number}": number / 7 for number in range(2000)})
        first.hset("hash", mapping={f"field {number}": number for number in range(2000)})
        first.xadd("stream", {"a": "1"}, id="5-1")
        first.xgroup_create("stream", "readers", id="0")
        first.xreadgroup("readers", "me", {"stream": ">"})
        first.pfadd("log", "a", "b")
        first.geoadd("places", (13.36, 38.11, "Palermo"))
        first.set("soon", "gone in a day", ex=86_400)
        first.set("expired", "not to come back", px=1)
        first.function_load(FUNCTION)
        last.mset({f"key {number}": number for number in range(3000)})


def content(port: int) -> dict[int, dict[bytes, Any]]:
    """Return all that is in each numbered database, as DEBUG tells it without order."""
    found = {}
    for number in range(16):
        with client(port, number) as connection:
            found[number] = {
                key: (
                    connection.type(key),
                    connection.execute_command("DEBUG", "DIGEST-VALUE", key),
                )
                for key in connection.scan_iter()
            }
    return found


def expiry(port: int, key: str) -> int:
    with client(port) as connection:
        return int(connection.pexpiretime(key))


def load_into(port: int, dump: bytes, *, replace: bool = False) -> None:
    load = at(port).load(replace=replace)
    try:
        write_into(load, dump)
        load.commit()
    finally:
        load.close()


@pytest.mark.usefixtures("no_password_in_arguments")
def test_everything_on_a_server_comes_back(serve: Serve) -> None:
    source, target = serve(), serve("second")
    fill(source)
    dump = dump_of(at(source))
    assert dump.startswith(b"REDIS")
    load_into(target, dump)
    assert content(target) == content(source)
    assert len(content(target)[15]) == 3000
    assert b"expired" not in content(target)[0]
    assert abs(expiry(target, "soon") - expiry(source, "soon")) < 1000
    with client(target) as connection:
        assert connection.fcall("double", 0, 21) == 42
        assert connection.get("big") is not None
        (group,) = connection.xinfo_groups("stream")
        assert (group["name"], group["pending"]) == (b"readers", 1)


def test_a_server_with_keys_or_functions_is_replaced_only_when_told(serve: Serve) -> None:
    source, target = serve(), serve("second")
    fill(source)
    dump = dump_of(at(source))
    with client(target, 3) as connection:
        connection.set("old", "1")
    with pytest.raises(DatabaseError, match=r"^redis://127.0.0.1:\d+ is not empty$") as caught:
        at(target).load(replace=False)
    assert "--replace" in caught.value.hint
    load_into(target, dump, replace=True)
    assert content(target) == content(source)
    with client(target) as connection:
        connection.flushall()
        with pytest.raises(DatabaseError, match="is not empty"):
            at(target).load(replace=False)
        connection.function_flush()
        connection.function_load(FUNCTION.replace("mylib", "other").replace("double", "old"))
        load_into(target, dump, replace=True)
        assert [library[1] for library in connection.function_list()] == [b"mylib"]


def test_a_dump_without_functions_removes_those_of_a_replaced_server(serve: Serve) -> None:
    source, target = serve(), serve("second")
    with client(source) as connection:
        connection.set("a", "b")
    with client(target) as connection:
        connection.function_load(FUNCTION)
        load_into(target, dump_of(at(source)), replace=True)
        assert connection.function_list() == []
        assert connection.keys() == [b"a"]


@pytest.mark.parametrize("damage", ["cut", "altered", "empty", "text"])
def test_a_dump_that_is_not_whole_replaces_nothing(serve: Serve, damage: str) -> None:
    port = serve()
    with client(port) as connection:
        connection.set("old", "value of some length")
        dump = dump_of(at(port))
        bad = {
            "cut": dump[:-60],
            "altered": dump.replace(b"some", b"same"),
            "empty": b"",
            "text": b"SET a b\n" * 100,
        }[damage]
        load = at(port).load(replace=True)
        write_into(load, bad)
        with pytest.raises(
            DatabaseError, match=r"^redis-server does not load the dump: "
        ) as caught:
            load.commit()
        load.close()
        assert "\n" not in str(caught.value)
        assert connection.get("old") == b"value of some length"


@pytest.mark.parametrize(
    ("settings", "command", "message"),
    [
        ("databases 2\n", "PING", "DB index is out of range"),
        ('rename-command FLUSHALL ""\n', "PING", "unknown command 'FLUSHALL'"),
        ("", "REPLICAOF 127.0.0.1 1", "against a read only replica"),
        ("", "ACL SETUSER default -restore", "no permissions to run the 'restore' command"),
        ("", "ACL SETUSER default -flushall", "no permissions to run the 'flushall' command"),
        ("", "CONFIG SET maxmemory 1000", "used memory"),
    ],
)
def test_a_server_that_cannot_take_the_dump_keeps_what_it_has(
    serve: Serve, settings: str, command: str, message: str
) -> None:
    source, target = serve(), serve("second", settings=settings)
    with client(source) as first, client(source, 5) as sixth:
        first.set("a", "b")
        sixth.set("a", "b")
    with client(target) as connection:
        connection.set("old", "1")
        connection.function_load(FUNCTION)
        connection.execute_command(*command.split())
        with pytest.raises(DatabaseError, match=message) as caught:
            load_into(target, dump_of(at(source)), replace=True)
        assert "\n" not in str(caught.value)
        assert connection.keys() == [b"old"]
        assert len(connection.function_list()) == 1


def test_a_scratch_server_answers_and_goes(serve: Serve, temporary: Path) -> None:
    source = serve()
    fill(source)
    load = server_at(source).scratch()
    write_into(load, dump_of(at(source)))
    load.commit()
    socket = load.target()
    listed = subprocess.run(["redis-cli", "-s", socket, "GET", "number"], capture_output=True)
    assert listed.stdout == b"42\n"
    assert load.query("GET number") == [["42"]]
    assert load.query("GET 'no such key'") == [[None]]
    assert load.query("LRANGE list 0 1") == [["item 0"], ["item 1"]]
    assert load.query("KEYS none*") == []
    assert load.query("MGET number nothing") == [["42"], [None]]
    assert load.query("HGETALL none") == []
    assert load.query('GET "\0"') == [[None]]
    assert load.query("DBSIZE") == [[str(len(content(source)[0]))]]
    assert load.query("XRANGE stream - +") == [["5-1", "a 1"]]
    for bad, message in [
        ("NOTHING", "unknown command"),
        ("GET 'open", "no closing quotation"),
        (" ", "the command is empty"),
        ("LPUSH number 1", "wrong kind of value"),
    ]:
        with pytest.raises(DatabaseError, match=message):
            load.query(bad)
    load.close()
    load.close()
    assert list(temporary.iterdir()) == []
    with pytest.raises(FileNotFoundError):
        os.stat(socket)


def test_a_load_that_is_not_committed_leaves_nothing(serve: Serve, temporary: Path) -> None:
    port = serve()
    load = at(port).load(replace=False)
    write_into(load, b"REDIS")
    assert list(temporary.iterdir()) != []
    load.close()
    assert list(temporary.iterdir()) == []


def failed_check(database: RedisDatabases) -> str:
    with pytest.raises(DatabaseError) as caught:
        database.check()
    text = f"{caught.value} {caught.value.hint}"
    assert "\n" not in text
    assert PASSWORD not in text
    assert PASSWORD not in repr(database.dump())[: repr(database.dump()).index("environment")]
    return str(caught.value)


@pytest.mark.usefixtures("no_password_in_arguments")
def test_what_is_wrong_with_a_server_is_said_in_one_line(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    port = serve()
    where = f"redis://127.0.0.1:{port}"
    for other in ("other", "wrong"):  # which is masked in words of the server only
        told = failed_check(at(port, password=other))
        assert told == f"{where}: the password or the user is wrong"
    assert failed_check(at(port, password=None)) == f"{where}: the server needs a password"
    assert failed_check(at(1)) == "redis://127.0.0.1:1: cannot connect: Connection refused"
    with client(port) as connection:
        connection.acl_setuser("me", enabled=True, passwords=[f"+{PASSWORD}"], commands=["+ping"])
        connection.acl_setuser(
            "other", enabled=True, passwords=[f"+{PASSWORD}"], commands=["+acl|dryrun"]
        )
    at(port, user="me").check()  # only the dump can tell
    done = run(at(port, user="me").dump())
    assert (done.returncode, done.stdout) == (1, b"")
    assert b"no permissions to run the 'sync' command" in done.stderr
    assert "no permissions to run the 'sync' command" in failed_check(at(port, user="other"))
    for database in (at(port, password="other"), at(1)):
        done = run(database.dump())
        assert (done.returncode, done.stdout) == (1, b"")
        with pytest.raises(DatabaseError):
            database.load(replace=False)
    open_port = serve("open", password="")
    assert failed_check(at(open_port)) == (
        f"redis://127.0.0.1:{open_port}: a password was given, and the server has none"
    )
    monkeypatch.setenv("REDISCLI_AUTH", PASSWORD)  # as redis-cli knows it
    dump = dump_of(at(port, password=None))
    load = at(port, password=None).load(replace=False)
    write_into(load, dump)
    load.commit()
    load.close()


def test_a_user_with_the_fewest_permissions_can_dump(serve: Serve) -> None:
    port = serve()
    with client(port) as connection:
        connection.set("a", "b")
        connection.acl_setuser(
            "me", enabled=True, passwords=[f"+{PASSWORD}"], commands=["+sync", "+replconf"]
        )
    assert dump_of(at(port, user="me")).startswith(b"REDIS")


def test_a_missing_program_is_named(
    serve: Serve, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    port = serve()
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(DatabaseError, match=r"^redis-cli is not installed") as caught:
        at(port).check()
    assert "redis-tools" in caught.value.hint
    for load in (server_at(port).scratch, lambda: at(port).load(replace=True)):
        with pytest.raises(DatabaseError, match=r"^'redis-server' is not installed") as caught:
            load()
        assert "apt install redis-server" in caught.value.hint


def test_a_server_of_our_own_that_cannot_be_started_is_told(
    serve: Serve, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    port = serve()
    broken = tmp_path / "redis-server"
    broken.write_bytes(b"\0 of another kind of machine")
    broken.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    load = server_at(port).scratch()
    write_into(load, dump_of(at(port)))
    with pytest.raises(DatabaseError, match=r"^cannot start redis-server: exec format error$"):
        load.commit()
    load.close()


def test_a_missing_temporary_directory_is_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "none"))
    with pytest.raises(
        DatabaseError, match=r"^cannot make a temporary directory: no such file or directory$"
    ) as caught:
        server_at(1).scratch()
    assert "TMPDIR" in caught.value.hint


def test_a_missing_library_is_named(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "redis", None)
    with pytest.raises(DatabaseError, match=r"^the library 'redis' is not installed") as caught:
        server_at(1).scratch()
    assert "pip install redis" in caught.value.hint


@pytest.mark.parametrize("victim", ["server", "saving process"])
def test_a_dump_that_is_cut_fails(serve: Serve, victim: str) -> None:
    port = serve()
    with client(port) as connection:
        connection.execute_command("DEBUG", "POPULATE", 200_000, "key", 200)
        connection.config_set("rdb-key-save-delay", 100)  # µs
        server = int(connection.info("server")["process_id"])
        program = at(port).dump()
        process = subprocess.Popen(
            program.arguments,
            env={**os.environ, **program.environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        assert process.stdout
        start = process.stdout.read(1000)
        assert start.startswith(b"REDIS")
        (child,) = Path(f"/proc/{server}/task/{server}/children").read_text().split()
        os.kill(server if victim == "server" else int(child), signal.SIGKILL)
        output, errors = process.communicate(timeout=PATIENCE)
    if victim == "server":
        os.kill(int(child), signal.SIGKILL)
    assert process.returncode == 1, errors
    assert len(output) > 0


def test_a_server_that_is_killed_during_a_load_is_an_error(serve: Serve) -> None:
    source, target = serve(), serve("second")
    with client(source) as connection:
        connection.execute_command("DEBUG", "POPULATE", 100_000, "key", 200)
    load = at(target).load(replace=False)
    write_into(load, dump_of(at(source)))

    def kill() -> None:
        with client(target) as connection:
            process = int(connection.info("server")["process_id"])
            while connection.dbsize() < 100:  # more than is tried first
                pass
            os.kill(process, signal.SIGKILL)

    thread = threading.Thread(target=kill)
    thread.start()
    with pytest.raises(DatabaseError, match=f"^redis://127.0.0.1:{target}: ") as caught:
        load.commit()
    thread.join()
    load.close()
    assert "\n" not in str(caught.value)
    assert "a part of the dump" in caught.value.hint


def test_a_server_that_evicts_what_it_gets_is_an_error(serve: Serve) -> None:
    source, target = serve(), serve("second")
    with client(source) as connection:
        connection.execute_command("DEBUG", "POPULATE", 20_000, "key", 200)
    with client(target) as connection:
        connection.config_set("maxmemory", "4mb")
        connection.config_set("maxmemory-policy", "allkeys-lru")
    with pytest.raises(DatabaseError, match="the server has evicted keys") as caught:
        load_into(target, dump_of(at(source)))
    assert "maxmemory" in caught.value.hint


def test_a_server_of_our_own_that_is_killed_is_an_error(
    serve: Serve, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    stand_in = tmp_path / "bin" / "redis-server"
    stand_in.parent.mkdir()
    stand_in.write_text("#!/bin/sh\nkill -KILL $$\n")
    stand_in.chmod(0o755)
    load = server_at(1).scratch()
    monkeypatch.setenv("PATH", f"{stand_in.parent}:{os.environ['PATH']}")
    write_into(load, b"REDIS")
    with pytest.raises(
        DatabaseError, match=r"^redis-server does not load the dump: was ended by signal SIGKILL$"
    ):
        load.commit()
    load.close()


def test_a_key_that_expired_since_the_dump_is_not_brought_back(serve: Serve) -> None:
    source, target = serve(), serve("second")
    with client(source) as connection:
        connection.set("kept", "1")
        connection.set("soon", "1", px=300)
        dump = dump_of(at(source))
        assert b"soon" in dump
        while connection.exists("soon"):
            pass
    load_into(target, dump)
    with client(target) as connection:
        assert connection.keys() == [b"kept"]


def test_a_server_with_tls_is_dumped_and_loaded(
    serve: Serve, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    certificate = make_certificate(tmp_path / "certificate.pem")
    port = free_port()
    serve(
        settings=f"tls-port {port}\ntls-auth-clients no\ntls-ca-cert-file {certificate}\n"
        f"tls-cert-file {certificate}\ntls-key-file {certificate}\n"
    )
    url = DatabaseUrl("rediss", host="127.0.0.1", port=port)
    (database,) = RedisServer.from_url(url, Access(PASSWORD)).databases()
    assert "certificate verify failed" in failed_check(database)
    with pytest.raises(DatabaseError, match="certificate verify failed"):
        database.load(replace=False)
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    dump = dump_of(database)
    load = database.load(replace=False)
    write_into(load, dump)
    load.commit()
    load.close()


def test_the_password_is_in_no_log(serve: Serve, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG")
    source, target = serve(), serve("second")
    fill(source)
    load_into(target, dump_of(at(source)))
    for each in caplog.records:
        if each.name.startswith("bakthat"):
            assert PASSWORD not in each.getMessage()


def test_a_long_temporary_directory_is_no_obstacle(
    serve: Serve, monkeypatch: pytest.MonkeyPatch, temporary: Path
) -> None:
    port = serve()
    with client(port) as connection:
        connection.set("a", "b")
    long = temporary / ("x" * 120)
    long.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(long))
    load = server_at(port).scratch()
    write_into(load, dump_of(at(port)))
    load.commit()
    place = Path(load.target()).parent
    assert load.query("GET a") == [["b"]]
    load.close()
    assert not place.exists()
    long.rmdir()


def test_a_socket_is_dumped_and_loaded(serve: Serve, tmp_path: Path) -> None:
    port = serve()
    url = DatabaseUrl("redis", socket=str(tmp_path / "first" / "redis.sock"))
    (database,) = RedisServer.from_url(url, Access(PASSWORD)).databases()
    with client(port) as connection:
        connection.set("a", "b")
        dump = dump_of(database)
        connection.flushall()
        load = database.load(replace=False)
        write_into(load, dump)
        load.commit()
        load.close()
        assert connection.get("a") == b"b"
    assert database.name == "redis-localhost"


def test_a_server_has_one_name_and_one_url() -> None:
    def names(**parts: Any) -> tuple[str, str, str]:
        found = at(0) if not parts else RedisDatabases(DatabaseUrl(**parts), Access())
        return found.name, found.dump_name, found.url

    assert names(kind="redis", host="cache.example.com", user="me") == (
        "redis-cache.example.com",
        "redis-cache.example.com.rdb",
        "redis://cache.example.com",
    )
    assert names(kind="rediss", host="::1", port=6380) == (
        "redis--1-6380",
        "redis--1-6380.rdb",
        "rediss://[::1]:6380",
    )


def test_one_of_the_numbered_databases_is_refused() -> None:
    with pytest.raises(
        UsageError, match=r"^a dump of Redis has all of its databases, not only '3'$"
    ):
        RedisServer.from_url(DatabaseUrl("redis", host="h", name="3"), Access())
    with pytest.raises(UsageError, match="not only '0'"):
        server_at(1).database("0")
    assert server_at(1).database("").url == "redis://127.0.0.1:1"


@pytest.mark.usefixtures("no_password_in_arguments")
def test_a_container_dumps_by_its_own_program_and_is_loaded_by_its_network(
    serve: Serve, tmp_path: Path
) -> None:
    port = serve()
    with client(port) as connection:
        connection.set("a", "b")
    container = tmp_path / "docker"
    container.write_text(f'#!/bin/sh\nshift 3\nexport REDISCLI_AUTH={PASSWORD}\nexec "$@"\n')
    container.chmod(0o755)
    database = at(port, via=f"{container} exec -i db", password=None)
    assert dump_of(database).startswith(b"REDIS")
    with pytest.raises(UsageError, match="connection from this machine") as caught:
        database.load(replace=False)
    assert "--via" in caught.value.hint
    container.write_text('#!/bin/sh\nshift 3\nexec env -i PATH=$PATH "$@"\n')
    with pytest.raises(DatabaseError, match="the server needs a password") as failed:
        at(port, via=f"{container} exec -i db").check()
    assert "docker exec -e REDISCLI_AUTH" in failed.value.hint
    with pytest.raises(DatabaseError, match="none: no such file or directory"):
        at(port, via=f"{tmp_path}/none").check()
