"""Dumps of PostgreSQL."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from bakthat.errors import DatabaseError
from bakthat.operations.sources.databases.base import Access
from bakthat.operations.sources.databases.postgresql.server import PostgreSQLServer
from bakthat.operations.sources.databases.url_parts import DatabaseUrl
from bakthat.system.programs import RunningProgram
from tests.support.databases import postgresql_replica
from tests.support.postgresql import PASSWORD, PostgreSQL, dumped, loaded, postgresql
from tests.support.processes import own_processes
from tests.support.servers import free_port

pytestmark = pytest.mark.slow

SHOP = (Path(__file__).parent / "shop.sql").read_text()


@pytest.fixture(scope="module")
def running() -> Iterator[PostgreSQL]:
    with postgresql() as server:
        yield server


@pytest.fixture(scope="module")
def shop(running: PostgreSQL) -> str:
    running.make("shop", SHOP)
    return "shop"


def test_a_database_comes_back_row_by_row(running: PostgreSQL, shop: str) -> None:
    server = running.server()
    dump = dumped(server.database(shop))
    load = server.database("shop_copy").load(replace=False)
    ended = loaded(load, dump)
    assert ended.succeeded, ended.problem()
    load.commit()
    rows = load.query("SELECT what, photo, tags FROM orders WHERE id < 5 ORDER BY id")
    assert len(rows) == 4
    assert rows[0] == ["tea; with mìlk", "\\x00ff1f8b0a0d5c", '"a"=>"b"']
    assert rows[1] == ["", "\\x", None]
    assert rows[2] == ["line\nline\ttab\\.", "\\x" + "00" * 100_000, None]
    assert load.query("SELECT encode(lo_get(4243), 'hex')") == [["00ff" * 50_000]]
    load.close()
    assert running.text("shop_copy") == running.text(shop)
    assert load.target() == f"postgresql://postgres@127.0.0.1:{running.port}/shop_copy"


@pytest.mark.parametrize(
    "name",
    [
        "a b",
        "quo\"te's",
        "100%25 %s",
        "a/b@c:1",
        "émoji 😀",
        "-Fp",
        "--file=oops",
        "dbname=shop host=nowhere.invalid",
        "postgresql://nowhere.invalid/shop",
        "$(touch oops) `id` ; &",
        "back\\slash",
        "x'; DROP DATABASE postgres; --",
        "*",
        "{secret-file}",
        "new\nline",
        "POSTGRES",
    ],
)
def test_no_name_of_a_database_is_an_option_or_sql(
    running: PostgreSQL, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    server = running.server()
    running.make(name, "CREATE TABLE t AS SELECT 1 AS one")
    before = running.databases()
    database = server.database(name)
    assert name in [each.name for each in server.databases()]
    assert "/" not in database.dump_name
    dump = dumped(database)
    assert running.databases() == before
    load = database.load(replace=True)
    assert loaded(load, dump).succeeded
    load.commit()
    assert load.query("SELECT * FROM t") == [["1"]]
    load.close()
    assert running.databases() == before
    assert list(tmp_path.iterdir()) == []
    quoted = name.replace('"', '""')
    running.sql("postgres", f'DROP DATABASE "{quoted}"')


def test_a_name_that_the_server_would_cut_is_refused(running: PostgreSQL) -> None:
    running.server().database("é" * 31 + "n")
    with pytest.raises(DatabaseError, match="more than 63 bytes"):
        running.server().database("é" * 32)


def test_each_database_of_a_user_is_listed_and_the_globals_last(
    running: PostgreSQL, shop: str
) -> None:
    running.make("closed")
    running.make("pattern")
    running.sql("postgres", "ALTER DATABASE closed ALLOW_CONNECTIONS false")
    running.sql("postgres", "ALTER DATABASE pattern IS_TEMPLATE true")
    listed = running.server().databases()
    names = [each.name for each in listed]
    assert shop in names
    assert not {"closed", "pattern", "template0", "template1", "postgres"} & set(names)
    assert listed[-1].dump_kind == listed[-1].name == "postgresql-globals"
    assert {each.dump_kind for each in listed[:-1]} == {"postgresql"}
    assert listed[-1].url == f"postgresql://postgres@127.0.0.1:{running.port}"
    running.sql("postgres", "CREATE TABLE notes (what text)")
    try:
        assert "postgres" in [each.name for each in running.server().databases()]
    finally:
        running.sql("postgres", "DROP TABLE notes")
        running.sql("postgres", "ALTER DATABASE pattern IS_TEMPLATE false")
        running.sql("postgres", "DROP DATABASE pattern")
        running.sql("postgres", "DROP DATABASE closed")


def test_a_database_that_is_being_loaded_is_not_backed_up(
    running: PostgreSQL, caplog: pytest.LogCaptureFixture
) -> None:
    load = running.server().scratch()
    name = load.target().rpartition("/")[2]
    assert name in running.databases()
    with caplog.at_level(logging.INFO):
        assert name not in [each.name for each in running.server().databases()]
    assert f"{name} is left out: a restore or a drill has made it" in caplog.messages
    load.close()


def test_what_killed_restores_and_drills_have_left_is_listed(running: PostgreSQL) -> None:
    number = "0123456789abcdef"
    left = [f"bakthat_{each}" for each in (f"drill_{number}", f"restore_{number}_old")]
    others = ["bakthat_drill", f"bakthat_drill_{number}0", f"my_bakthat_restore_{number}"]
    assert running.server().leftovers() == []
    for each in (*left, *others):
        running.make(each)
    try:
        assert running.server().leftovers() == left
    finally:
        for each in (*left, *others):
            running.sql("postgres", f"DROP DATABASE {each}")


def refusal(server: PostgreSQLServer, database: str) -> DatabaseError:
    with pytest.raises(DatabaseError) as caught:
        server.database(database).check()
    assert str(caught.value).isprintable()
    assert "\n" not in str(caught.value)
    return caught.value


def test_a_wrong_password_is_told_with_what_to_set(running: PostgreSQL, shop: str) -> None:
    error = refusal(running.server(password="hunter2"), shop)
    url = f"'postgresql://postgres@127.0.0.1:{running.port}/shop'"
    assert str(error) == f"wrong password of user 'postgres' for {url}"
    assert "database_password_file" in error.hint
    assert "hunter2" not in f"{error} {error.hint}"
    error = refusal(running.server(password=None), shop)
    assert str(error) == f"no password of user 'postgres' for {url}"
    assert "database_password_command" in error.hint
    # The user of this machine's account, whom the URL does not name.
    url = f"'postgresql://127.0.0.1:{running.port}/shop'"
    assert str(refusal(running.server("", password="hunter2"), shop)) == f"wrong password for {url}"
    assert str(refusal(running.server("", password=None), shop)) == f"no password for {url}"


def test_an_account_without_a_password_never_waits_for_one(running: PostgreSQL) -> None:
    # The environment of who calls is not used for another's password.
    error = refusal(running.server("nobody", password=""), "shop")
    assert "no password of user 'nobody'" in str(error)


def test_a_password_given_is_used_before_that_of_the_environment(
    running: PostgreSQL, shop: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PGPASSWORD", "hunter2")
    running.server().database(shop).check()
    monkeypatch.setenv("PGPASSWORD", PASSWORD)
    running.server(password=None).database(shop).check()


def test_a_missing_database_is_told_with_one_that_resembles_it(
    running: PostgreSQL, shop: str
) -> None:
    error = refusal(running.server(), "shopp")
    assert str(error) == f"'postgresql://postgres@127.0.0.1:{running.port}' has no database 'shopp'"
    assert error.hint == "did you mean shop?"
    error = refusal(running.server(), "xyzzy")
    assert error.hint.startswith("it has: ")
    assert "shop" in error.hint


def test_a_server_that_is_down_is_told(running: PostgreSQL) -> None:
    port = free_port()
    error = refusal(running.server(port=port), "shop")
    url = f"postgresql://postgres@127.0.0.1:{port}/shop"
    assert str(error) == f"cannot connect to '{url}': Connection refused"
    assert error.hint == "check the host and the port, and that the server runs"
    socket = PostgreSQLServer.from_url(
        DatabaseUrl("postgresql", socket="/nonexistent", name="shop"), Access()
    )
    assert "cannot connect to 'postgresql://%2Fnonexistent/shop'" in str(refusal(socket, "shop"))


def test_a_user_who_may_not_connect_is_told(running: PostgreSQL) -> None:
    running.sql("postgres", "CREATE ROLE guest LOGIN PASSWORD 'guest'")
    running.make("private")
    running.sql("postgres", "REVOKE CONNECT ON DATABASE private FROM PUBLIC")
    error = refusal(running.server("guest", "guest"), "private")
    assert str(error).startswith("permission denied for 'postgresql://guest@")
    assert "grant CONNECT" in error.hint


def test_a_table_that_the_user_may_not_read_fails_the_dump(running: PostgreSQL) -> None:
    running.sql("postgres", "CREATE ROLE reader LOGIN PASSWORD 'reader'")
    running.make("ledger", "CREATE TABLE secret_table AS SELECT 1 AS one")
    database = running.server("reader", "reader").database("ledger")
    database.check()
    with RunningProgram(database.dump(), stdout=True) as dump:
        while dump.stdout.read(1 << 20):
            pass
        ended = dump.wait()
    assert not ended.succeeded
    assert "permission denied for table" in ended.problem()


def test_what_a_replica_does_not_have_is_told(running: PostgreSQL) -> None:
    running.make("cached", "CREATE UNLOGGED TABLE u AS SELECT 1; CREATE TABLE t (i int)")
    assert running.server().database("cached").check() == []
    with postgresql_replica(running.environment) as environment:
        socket = environment["PGHOST"]
        url = DatabaseUrl("postgresql", "postgres", port=running.port, socket=socket)
        replica = PostgreSQLServer.from_url(url, Access())
        (told,) = replica.database("cached").check()
        assert "without the rows of its unlogged tables (1)" in told
        with pytest.raises(DatabaseError, match="read-only transaction") as caught:
            replica.scratch()
        assert "primary" in caught.value.hint
    running.sql("postgres", "DROP DATABASE cached")


def test_subscriptions_that_a_user_may_not_read_are_told(running: PostgreSQL) -> None:
    running.sql("postgres", "CREATE ROLE subscriber LOGIN PASSWORD 'x'")
    running.make("reader", "CREATE SUBSCRIPTION s CONNECTION 'host=none' PUBLICATION p"
                 " WITH (connect = false)", options="OWNER subscriber")  # fmt: skip
    assert running.server().database("reader").check() == []
    (told,) = running.server("subscriber", "x").database("reader").check()
    assert "without its subscriptions (1)" in told
    running.sql("reader", "ALTER SUBSCRIPTION s SET (slot_name = NONE)")
    running.sql("reader", "DROP SUBSCRIPTION s")
    running.sql("postgres", "DROP DATABASE reader")


def test_a_missing_program_is_told_with_its_package(
    running: PostgreSQL, shop: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    error = refusal(running.server(), shop)
    assert str(error) == "pg_dump is not installed"
    assert "apt install postgresql-client" in error.hint
    with pytest.raises(DatabaseError, match="pg_dumpall is not installed"):
        running.server().globals().check()
    with pytest.raises(DatabaseError, match="pg_restore is not installed"):
        running.server().database(shop).load(replace=True)


def test_a_program_that_cannot_be_run_is_told(
    running: PostgreSQL, shop: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "pg_dump").write_bytes(b"\0 of another kind of machine")
    (tmp_path / "pg_dump").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    assert str(refusal(running.server(), shop)) == "cannot run pg_dump: exec format error"


@pytest.mark.parametrize(
    ("version", "shown"), [("9.6.24", "9.6"), ("13.1", "13"), ("14beta1", "14")]
)
def test_an_older_pg_dump_than_the_server_is_told(
    running: PostgreSQL,
    shop: str,
    version: str,
    shown: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("pg_dump", "pg_dumpall"):
        older = tmp_path / name
        older.write_text(f"#!/bin/sh\necho '{name} (PostgreSQL) {version}'\n")
        older.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    error = refusal(running.server(), shop)
    server = running.sql("postgres", "SHOW server_version_num")[0][:2]
    url = f"postgresql://postgres@127.0.0.1:{running.port}/shop"
    assert str(error) == f"pg_dump {shown} cannot dump '{url}', whose server is PostgreSQL {server}"
    assert f"postgresql-client-{server}" in error.hint
    with pytest.raises(DatabaseError, match=f"^pg_dumpall {shown} cannot dump .*/postgres'"):
        running.server().globals().check()


def test_a_server_that_dies_fails_the_dump(running: PostgreSQL) -> None:
    running.make("large", "CREATE TABLE t AS SELECT repeat(md5(i::text), 100) FROM"
                 " generate_series(1, 3000) AS i")  # fmt: skip
    with RunningProgram(running.server().database("large").dump(), stdout=True) as dump:
        assert dump.stdout.read(1 << 16)  # it writes more than a pipe holds
        running.sql(
            "postgres",
            "SELECT pg_terminate_backend(pid, 30000) FROM pg_stat_activity WHERE datname = 'large'",
        )
        while dump.stdout.read(1 << 20):
            pass
        ended = dump.wait()
    assert not ended.succeeded
    assert "pg_dump: error" in ended.problem()


@contextmanager
def watched_processes() -> Iterator[dict[str, str]]:
    """Collect the command lines of all processes below this one, by program."""
    seen: dict[str, str] = {}
    is_over = threading.Event()

    def watch() -> None:
        while not is_over.is_set():
            for process in own_processes():
                try:
                    words = (process / "cmdline").read_bytes().split(b"\0")
                except OSError:
                    continue
                name = os.path.basename(os.fsdecode(words[0]))
                seen[name] = seen.get(name, "") + os.fsdecode(b" ".join(words))

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield seen
    finally:
        is_over.set()
        watcher.join()


@pytest.mark.skipif(not Path("/proc/self/cmdline").exists(), reason="needs Linux's /proc")
def test_no_command_line_has_the_password_or_a_query(running: PostgreSQL, shop: str) -> None:
    server = running.server()
    with watched_processes() as seen:
        dump = dumped(server.database(shop))
        while "pg_dump" not in seen:
            dumped(server.database(shop))
        while "psql" not in seen or "pg_restore" not in seen:
            load = server.scratch()
            assert loaded(load, dump).succeeded
            load.query("SELECT 'hunter2'")
            load.close()
        while "pg_dumpall" not in seen:
            dumped(server.globals())
    assert f"127.0.0.1:{running.port}/shop" in seen["pg_dump"]
    for commands in seen.values():
        assert PASSWORD not in commands
        assert "hunter2" not in commands


def test_no_error_and_no_repr_has_the_password(running: PostgreSQL) -> None:
    server = running.server()
    load = server.scratch()
    with pytest.raises(DatabaseError) as caught:
        load.query(f'SELECT * FROM "{PASSWORD}"')
    load.close()
    assert str(caught.value).endswith('relation "***" does not exist')
    assert PASSWORD not in repr(server) + repr(server.database("shop").dump())


def test_a_password_that_no_file_can_hold_is_refused(running: PostgreSQL) -> None:
    error = refusal(running.server(password="a\nb"), "shop")
    assert "line break" in str(error)
    assert "a\nb" not in str(error)


CONTAINER = """#!/bin/sh
# A stand-in for docker: exec -i NAME PROGRAM …
[ "$1 $2 $3" = "exec -i db" ] || exit 64
shift 3
{ echo "$@"; env; } >> "$RECORD"
exec "$@"
"""


@pytest.mark.parametrize("place", ["socket", "address"])
def test_the_programs_run_in_a_container(
    running: PostgreSQL,
    shop: str,
    place: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    docker, record = tmp_path / "docker", tmp_path / "record"
    docker.write_text(CONTAINER)
    docker.chmod(0o755)
    monkeypatch.setenv("RECORD", str(record))
    via = f"'{docker}' exec -i db"
    if place == "socket":
        url = DatabaseUrl("postgresql", "postgres", "", running.port, running.environment["PGHOST"])
    else:
        # "inside" is a file of passwords, as libpq finds it.
        url = DatabaseUrl("postgresql", "postgres", "127.0.0.1", running.port)
        escaped = PASSWORD.replace("\\", "\\\\").replace(":", "\\:")
        passwords = Path(os.environ["HOME"]) / ".pgpass"
        passwords.write_text(f"*:*:*:*:{escaped}\n")
        passwords.chmod(0o600)
        monkeypatch.setenv("PGPASSFILE", str(passwords))
    server = PostgreSQLServer.from_url(url, Access("hunter2", via))
    dump = dumped(server.database(shop))
    load = server.scratch()
    assert loaded(load, dump).succeeded
    assert load.query("SELECT count(*) FROM orders") == [["2004"]]
    load.close()
    assert dumped(server.globals())
    assert "pg_dump --format=custom" in record.read_text()
    assert "hunter2" not in record.read_text()


def test_a_container_without_the_program_is_told(running: PostgreSQL, tmp_path: Path) -> None:
    url = DatabaseUrl("postgresql", "postgres", "127.0.0.1", running.port)

    def error(via: str) -> DatabaseError:
        return refusal(PostgreSQLServer.from_url(url, Access(via=via)), "shop")

    told = error(f"env PATH={tmp_path}")
    assert str(told).startswith("'env' cannot run pg_dump: ended with exit code 127: env: ")
    assert "install PostgreSQL's client there" in told.hint
    failed = error("sh -c 'echo no daemon >&2; exit 1'")
    assert str(failed).startswith("pg_dump, for 'postgresql://postgres@127.0.0.1:")
    assert str(failed).endswith("', ended with exit code 1: no daemon")
    assert str(error("docker-of-nobody exec -i db")).startswith("cannot run 'docker-of-nobody'")
    assert str(error("docker 'exec")).endswith("are invalid: no closing quotation")


def test_a_dump_waits_for_a_migration_but_not_for_ever(running: PostgreSQL) -> None:
    arguments = running.server().database("shop").dump().arguments
    assert "--lock-wait-timeout=600000" in arguments
