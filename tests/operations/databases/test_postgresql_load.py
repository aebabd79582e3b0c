"""Loading dumps of PostgreSQL."""

from __future__ import annotations

import logging
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from bakthat.errors import DatabaseError
from bakthat.operations.sources.databases.base import Load
from bakthat.system.programs import RunningProgram
from tests.support.needs import program
from tests.support.postgresql import PostgreSQL, dumped, loaded, postgresql

pytestmark = pytest.mark.slow

SHOP = (Path(__file__).parent / "shop.sql").read_text()
STATE = (
    "SELECT datname, datdba::regrole, encoding, datcollate, datctype, datacl, datconnlimit,"
    " shobj_description(d.oid, 'pg_database'), setconfig, nullif(setrole, 0)::regrole"
    " FROM pg_database d LEFT JOIN pg_db_role_setting ON setdatabase = d.oid ORDER BY 1, 9"
)


@pytest.fixture(scope="module")
def running() -> Iterator[PostgreSQL]:
    with postgresql() as server:
        yield server


@pytest.fixture(scope="module")
def dump(running: PostgreSQL) -> bytes:
    running.make("shop", SHOP)
    return dumped(running.server().database("shop"))


@pytest.fixture
def old(running: PostgreSQL) -> Iterator[str]:
    """Make a database with a row, settings, rights and an owner of its own."""
    running.make("old", "CREATE TABLE kept AS SELECT 'the old one' AS what")
    running.sql("postgres", "ALTER DATABASE old SET work_mem TO '5MB'; COMMENT ON DATABASE old IS"
                " 'old'; REVOKE CONNECT ON DATABASE old FROM PUBLIC")  # fmt: skip
    yield "old"
    running.sql("postgres", "DROP DATABASE old")


def everything(running: PostgreSQL, *databases: str) -> list[list[str]]:
    """Return what the server has, and all of some databases."""
    return [running.sql("postgres", STATE), *(running.text(each) for each in databases)]


def finish(load: Load, dump: bytes) -> None:
    ended = loaded(load, dump)
    assert ended.succeeded, ended.problem()
    load.commit()
    load.close()


def test_a_database_that_exists_and_is_empty_is_filled(running: PostgreSQL, dump: bytes) -> None:
    running.sql("postgres", "CREATE ROLE filler")
    running.make("prepared", options="OWNER filler CONNECTION LIMIT 9")
    running.sql("postgres", "ALTER DATABASE prepared SET work_mem TO '6MB'")
    before = running.sql("postgres", STATE)
    finish(running.server().database("prepared").load(replace=False), dump)
    assert running.text("prepared") == running.text("shop")
    assert running.sql("postgres", STATE) == before


@pytest.mark.parametrize(
    "script",
    [
        "CREATE TABLE t ()",
        "CREATE SCHEMA s",
        "CREATE FUNCTION f() RETURNS int LANGUAGE sql AS 'SELECT 1'",
        "CREATE TYPE t AS ENUM ()",
        "CREATE DOMAIN d AS text",
        "CREATE SEQUENCE s",
        "CREATE EXTENSION hstore",
        "SELECT lo_create(1)",
        "CREATE PUBLICATION p",
        "CREATE FOREIGN DATA WRAPPER w",
        "ALTER DEFAULT PRIVILEGES GRANT SELECT ON TABLES TO PUBLIC",
    ],
)
def test_a_database_that_is_not_empty_is_refused(
    running: PostgreSQL, dump: bytes, script: str
) -> None:
    running.make("taken", script)
    before = everything(running, "taken")
    with pytest.raises(DatabaseError) as caught:
        running.server().database("taken").load(replace=False)
    url = f"postgresql://postgres@127.0.0.1:{running.port}/taken"
    assert str(caught.value) == f"the database '{url}' is not empty"
    assert "--replace" in caught.value.hint
    assert everything(running, "taken") == before
    running.sql("postgres", "DROP DATABASE taken")


def test_temporary_tables_of_sessions_are_no_content(running: PostgreSQL, dump: bytes) -> None:
    running.make("visited")
    with session(running, "visited", "CREATE TEMPORARY TABLE t (id serial, what text);") as other:
        load = running.server().database("visited").load(replace=False)
        load.close()
        assert other.poll() is None


def session(running: PostgreSQL, database: str, sql: str) -> subprocess.Popen[bytes]:
    """Start a session that has run *sql*, and stays."""
    client = subprocess.Popen(
        [program("psql"), "-X", "-q", "-A", "-t"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env={**running.environment, "PGDATABASE": database},
    )
    assert client.stdin is not None
    assert client.stdout is not None
    client.stdin.write(f"{sql}\n\\echo ready\n".encode())
    client.stdin.flush()
    while client.stdout.readline() != b"ready\n":
        pass
    return client


def test_a_database_is_replaced_while_somebody_uses_it(
    running: PostgreSQL, dump: bytes, old: str
) -> None:
    before = running.databases()
    load = running.server().database(old).load(replace=True)
    ended = loaded(load, dump)
    assert ended.succeeded, ended.problem()
    assert running.sql(old, "SELECT what FROM kept") == ["the old one"]
    with session(running, old, "BEGIN; SELECT * FROM kept;"):
        load.commit()
    load.close()
    assert load.query("SELECT count(*) FROM orders") == [["2004"]]
    assert running.text(old) == running.text("shop")
    assert running.databases() == before


def test_the_database_of_administration_is_replaced_too(running: PostgreSQL, dump: bytes) -> None:
    running.sql("postgres", "CREATE TABLE notes ()")
    before = running.databases()
    finish(running.server().database("postgres").load(replace=True), dump)
    assert running.text("postgres") == running.text("shop")
    assert running.databases() == before
    running.sql("template1", "DROP DATABASE postgres")
    running.sql("template1", "CREATE DATABASE postgres")


@pytest.mark.parametrize("part", [0, 1, 5, 100, 0.3, 0.6, 0.9, -1])
def test_a_dump_that_is_cut_leaves_the_old_database(
    running: PostgreSQL, dump: bytes, old: str, part: float
) -> None:
    before = everything(running, old)
    load = running.server().database(old).load(replace=True)
    size = int(len(dump) * part) if 0 < part < 1 else int(part)
    assert not loaded(load, dump[:size]).succeeded
    load.close()
    load.close()
    assert everything(running, old) == before


@pytest.mark.parametrize("part", [0, 100, 0.5, -1])
def test_a_dump_that_is_cut_leaves_an_empty_database_empty(
    running: PostgreSQL, dump: bytes, part: float
) -> None:
    running.make("hollow")
    before = everything(running, "hollow")
    load = running.server().database("hollow").load(replace=False)
    size = int(len(dump) * part) if 0 < part < 1 else int(part)
    assert not loaded(load, dump[:size]).succeeded
    load.close()
    assert everything(running, "hollow") == before
    running.sql("postgres", "DROP DATABASE hollow")


def test_what_was_loaded_but_not_committed_is_removed(
    running: PostgreSQL, dump: bytes, old: str
) -> None:
    running.make("ascii", "CREATE TABLE t AS SELECT 1 AS one")
    small = dumped(running.server().database("ascii"))
    before = everything(running, old)
    server = running.server()
    for name in (old, "fresh"):
        load = server.database(name).load(replace=True)
        assert loaded(load, small).succeeded
        load.close()
        assert everything(running, old) == before
    load = server.scratch()
    assert loaded(load, small).succeeded
    load.commit()
    assert load.query("SELECT one FROM t") == [["1"]]
    assert "/bakthat_drill_" in load.target()
    load.close()
    assert everything(running, old) == before


def test_what_is_in_a_database_that_was_empty_is_never_removed(
    running: PostgreSQL, dump: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    running.make("hollow")
    first, second = (running.server().database("hollow").load(replace=False) for _ in range(2))
    finish(first, dump)
    assert not loaded(second, dump).succeeded
    second.close()
    assert running.text("hollow") == running.text("shop")
    assert "is not empty any more" in caplog.text
    running.sql("postgres", "DROP DATABASE hollow")


def test_a_database_with_a_subscription_is_removed_after_a_drill(running: PostgreSQL) -> None:
    running.make("reader", "CREATE TABLE t (a int); CREATE SUBSCRIPTION s CONNECTION 'host=none'"
                 " PUBLICATION p WITH (connect = false)")  # fmt: skip
    small = dumped(running.server().database("reader"))
    before = running.databases()
    load = running.server().scratch()
    assert loaded(load, small).succeeded
    load.commit()
    assert load.query("SELECT count(*) FROM pg_subscription WHERE subname = 's'") == [["2"]]
    load.close()
    assert running.databases() == before
    assert running.sql("postgres", "SELECT subslotname FROM pg_subscription") == ["s"]


@pytest.mark.parametrize("replace", [False, True])
def test_a_template_is_refused(running: PostgreSQL, replace: bool) -> None:
    with pytest.raises(DatabaseError, match="is a template"):
        running.server().database("template1").load(replace=replace)


def test_a_load_that_is_killed_leaves_nothing(running: PostgreSQL, dump: bytes, old: str) -> None:
    before = everything(running, old)
    load = running.server().database(old).load(replace=True)
    with RunningProgram(load.program, stdin=True) as restore:
        restore.stdin.write(dump[: len(dump) // 2])
        restore.kill()
        assert not restore.wait().succeeded
    load.close()
    assert everything(running, old) == before


def test_a_role_that_is_missing_fails_the_load(running: PostgreSQL, old: str) -> None:
    running.sql("postgres", "CREATE ROLE gone")
    running.make("owned", "CREATE TABLE t (); ALTER TABLE t OWNER TO gone")
    small = dumped(running.server().database("owned"))
    running.sql("postgres", "DROP DATABASE owned")
    running.sql("postgres", "DROP ROLE gone")
    before = everything(running, old)
    load = running.server().database(old).load(replace=True)
    ended = loaded(load, small)
    assert not ended.succeeded
    assert 'role "gone" does not exist' in ended.problem()
    load.close()
    assert everything(running, old) == before


def test_an_owner_that_is_missing_fails_the_load_before_it_replaces(
    running: PostgreSQL, old: str
) -> None:
    running.sql("postgres", "CREATE ROLE gone")
    running.make("owned", "CREATE TABLE t ()", options="OWNER gone")
    small = dumped(running.server().database("owned"))
    running.sql("postgres", "DROP DATABASE owned")
    running.sql("postgres", "DROP ROLE gone")
    before = everything(running, old)
    load = running.server().database(old).load(replace=True)
    assert loaded(load, small).succeeded
    with pytest.raises(DatabaseError, match='role "gone" does not exist') as caught:
        load.commit()
    assert "restore the globals first" in caught.value.hint
    load.close()
    assert everything(running, old) == before
    # One that is made before keeps its own owner.
    running.make("owned")
    finish(running.server().database("owned").load(replace=False), small)
    running.sql("postgres", "DROP DATABASE owned")


def test_the_encoding_the_locale_the_rights_and_the_settings_come_back(
    running: PostgreSQL,
) -> None:
    odd = '"latin ""one"""'
    running.sql("postgres", 'CREATE ROLE "boß\'s"; CREATE ROLE app')
    running.make(
        'latin "one"',
        f"CREATE TABLE t AS SELECT 'süß'::text AS what; COMMENT ON DATABASE {odd} IS"
        f" 'ALTER DATABASE {odd} for ''us'' \\ ; süß'",
        options="ENCODING LATIN1 LC_COLLATE 'C' LC_CTYPE 'C' OWNER \"boß's\"",
    )
    running.sql(
        "postgres",
        f"""
        ALTER DATABASE {odd} SET search_path TO "A b", '', public;
        ALTER DATABASE {odd} SET my.setting TO 'it''s \\ :x';
        ALTER ROLE app IN DATABASE {odd} SET work_mem TO '5MB';
        ALTER DATABASE {odd} CONNECTION LIMIT 7;
        REVOKE CONNECT ON DATABASE {odd} FROM PUBLIC;
        GRANT CONNECT ON DATABASE {odd} TO app WITH GRANT OPTION;
        """,
    )
    server = running.server()
    small = dumped(server.database('latin "one"'))
    rows = [row for row in running.sql("postgres", STATE) if row.startswith("latin")]
    assert "LATIN1" in running.sql('latin "one"', "SHOW server_encoding")
    for name in ("l'atin \"2", "plain"):
        finish(server.database(name).load(replace=False), small)
        copied = [row for row in running.sql("postgres", STATE) if row.startswith(f"{name}|")]
        assert [normal(row) for row in copied] == [normal(row) for row in rows]
        load = server.database(name).load(replace=True)
        assert load.query("SELECT current_setting('server_encoding')") == [["UTF8"]]
        finish(load, small)
        assert load.query("SELECT what, octet_length(what) FROM t") == [["süß", "3"]]
        assert load.query("SELECT current_setting('server_encoding')") == [["LATIN1"]]


def normal(row: str) -> list[str]:
    """Return a row of STATE without the name, with rights in any order."""
    _, *columns = row.split("|")
    columns[4] = " ".join(sorted(columns[4].strip("{}").split(",")))
    return columns


def test_a_locale_that_the_server_lacks_is_told(
    running: PostgreSQL, dump: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    foreign = dump.replace(b" LOCALE = 'C';", b" LOCALE = 'X';", 1)
    assert foreign != dump
    load = running.server().database("foreign").load(replace=False)
    with caplog.at_level(logging.WARNING):
        finish(load, foreign)
    assert "cannot make a database with ENCODING UTF8" in caplog.text
    assert running.text("foreign") == running.text("shop")


def test_a_user_who_may_make_databases_loads_what_is_his_own(running: PostgreSQL) -> None:
    running.sql("postgres", "CREATE ROLE app2 LOGIN CREATEDB PASSWORD 'app2'")
    running.make("own", options="OWNER app2")
    server = running.server("app2", "app2")
    running.sql("own", "SET ROLE app2; CREATE TABLE t AS SELECT 1 AS one")
    small = dumped(server.database("own"))
    before = running.databases()
    for name in ("own", "own_copy"):
        load = server.database(name).load(replace=True)
        finish(load, small)
        assert load.query("SELECT * FROM t") == [["1"]]
    assert running.databases() == before | {"own_copy"}
    running.make("others", "CREATE TABLE t ()")
    state = everything(running, "others")
    load = server.database("others").load(replace=True)
    assert loaded(load, small).succeeded
    with pytest.raises(DatabaseError, match="must be owner of database") as caught:
        load.commit()
    load.close()
    assert "a user" in caught.value.hint
    assert everything(running, "others") == state


def test_a_user_who_may_not_make_databases_is_told(running: PostgreSQL, dump: bytes) -> None:
    running.sql("postgres", "CREATE ROLE weak LOGIN PASSWORD 'weak'")
    with pytest.raises(DatabaseError, match="permission denied to create database"):
        running.server("weak", "weak").database("new").load(replace=False)
    with pytest.raises(DatabaseError, match="permission denied to create database"):
        running.server("weak", "weak").scratch()


def test_a_database_that_was_made_meanwhile_is_not_replaced(
    running: PostgreSQL, dump: bytes
) -> None:
    load = running.server().database("race").load(replace=False)
    assert loaded(load, dump).succeeded
    running.make("race", "CREATE TABLE t ()")
    before = running.text("race")
    with pytest.raises(DatabaseError, match="was made meanwhile"):
        load.commit()
    load.close()
    assert running.text("race") == before
    running.sql("postgres", "DROP DATABASE race")


def test_a_database_that_cannot_be_renamed_stays(running: PostgreSQL, dump: bytes) -> None:
    # Template databases cannot be dropped, which is found after the exchange: nothing is lost.
    before = running.databases()
    running.make("model", "CREATE TABLE t ()")
    load = running.server().database("model").load(replace=True)
    assert loaded(load, dump).succeeded
    running.sql("postgres", "ALTER DATABASE model IS_TEMPLATE true")
    load.commit()
    load.close()
    assert running.text("model") == running.text("shop")
    (left,) = [name for name in running.databases() - before if name.endswith("_old")]
    running.sql("postgres", f"ALTER DATABASE {left} IS_TEMPLATE false")
    running.sql("postgres", f"DROP DATABASE {left}")
    running.sql("postgres", "DROP DATABASE model")


def test_what_cannot_be_removed_is_told(
    running: PostgreSQL, dump: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    running.sql("postgres", "ALTER ROLE postgres CONNECTION LIMIT -1; CREATE ROLE temp SUPERUSER"
                " LOGIN PASSWORD 'temp'")  # fmt: skip
    load = running.server("temp", "temp").scratch()
    running.sql("postgres", "ALTER ROLE temp NOLOGIN")
    with caplog.at_level(logging.WARNING):
        load.close()
    (name,) = [each for each in running.databases() if each.startswith("bakthat_drill_")]
    assert f"the temporary database '{name}' is left" in caplog.text
    running.sql("postgres", f"DROP DATABASE {name}")
    running.sql("postgres", "DROP ROLE temp")


@pytest.mark.parametrize(
    ("query", "rows"),
    [
        ("SELECT 1, '', NULL, E'a\\nb|c', true", [["1", "", None, "a\nb|c", "t"]]),
        ("SELECT 1;\nSELECT 'é' -- end", [["1"], ["é"]]),
        ("SELECT 1 WHERE false", []),
        ("SELECT NULL", [[None]]),
        ("SELECT ''", [[""]]),
        ("CREATE TABLE made ()", []),
        ("VALUES (1), (2)", [["1"], ["2"]]),
        ("", []),
    ],
)
def test_a_query_returns_rows(
    running: PostgreSQL, query: str, rows: list[list[str | None]]
) -> None:
    load = running.server().scratch()
    try:
        assert load.query(query) == rows
    finally:
        load.close()


def test_a_query_that_fails_says_why(running: PostgreSQL) -> None:
    load = running.server().scratch()
    try:
        for query, reason in [
            ("SELECT count(*) FROM nonesuch", 'relation "nonesuch" does not exist'),
            ("SELECT 1; SELECT 1 / 0; SELECT 2", "division by zero"),
            ("SELECT 'a", "unterminated quoted string"),
        ]:
            with pytest.raises(DatabaseError, match=reason) as caught:
                load.query(query)
            assert str(caught.value).startswith(f"the query failed for '{load.target()}': ")
            assert str(caught.value).isprintable()
    finally:
        load.close()


# Roles and tablespaces


def test_the_globals_come_back_with_passwords_and_memberships(
    running: PostgreSQL, tmp_path: Path
) -> None:
    roles = [f"r{number} \"x'" for number in range(40)] + ["-x", "UPPER", "plain", "ünï", "a;b"]
    made = "".join(f"CREATE ROLE {quoted(role)} LOGIN PASSWORD 'pw';" for role in roles)
    running.sql("postgres", f"{made} GRANT plain TO \"UPPER\" WITH ADMIN OPTION;"
                " ALTER ROLE plain SET work_mem TO '7MB'; COMMENT ON ROLE plain IS 'it''s';"
                " ALTER ROLE plain VALID UNTIL '2030-01-01' CONNECTION LIMIT 3")  # fmt: skip
    globals_ = running.server().globals()
    dump = dumped(globals_)
    assert globals_.dump_name == "postgresql-globals.sql"
    again = [line for line in dump.splitlines() if not line.startswith((b"\\", b"--"))]
    for gone in (roles[:20], roles, []):
        for role in gone:
            running.sql("postgres", f"DROP ROLE {quoted(role)}")
        load = globals_.load(replace=False)
        finish(load, dump)
        assert load.query("SELECT rolconnlimit FROM pg_roles WHERE rolname = 'plain'") == [["3"]]
        assert load.target() == f"postgresql://postgres@127.0.0.1:{running.port}"
        now = dumped(globals_).splitlines()
        assert [line for line in now if not line.startswith((b"\\", b"--"))] == again
    running.server().globals().check()  # the password of postgres is as it was


def quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


@pytest.mark.parametrize(
    "statement",
    [
        "ALTER ROLE nonesuch SUPERUSER;",
        "CREATE ROLE x NONESUCH;",
        'CREATE ROLE "pg_reserved";',
        "nonsense;",
        "CREATE ROLE a; CREATE ROLE a;",
    ],
)
def test_any_other_error_in_the_globals_fails(running: PostgreSQL, statement: str) -> None:
    load = running.server().globals().load(replace=False)
    script = f"CREATE ROLE postgres;\n{statement}\nCREATE ROLE never;\n"
    ended = loaded(load, script.encode())
    assert not ended.succeeded
    assert "ERROR" in ended.problem()
    assert running.sql("postgres", "SELECT 1 FROM pg_roles WHERE rolname = 'never'") == []


def test_a_user_who_may_not_read_passwords_dumps_the_roles_without(running: PostgreSQL) -> None:
    running.sql("postgres", "CREATE ROLE hosted LOGIN PASSWORD 'hosted'")
    globals_ = running.server("hosted", "hosted").globals()
    (told,) = globals_.check()
    dump = dumped(globals_)
    assert b'CREATE ROLE "hosted";' in dump
    assert b"SCRAM" not in dump
    assert "without their passwords" in told
    assert running.server().globals().check() == []


def test_an_error_has_no_data_of_rows(
    running: PostgreSQL, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PG_COLOR", "always")
    running.make("strict", "CREATE TABLE t AS SELECT E'first\nsecond' AS a; CREATE FUNCTION f(text)"
                 " RETURNS bool LANGUAGE plpgsql IMMUTABLE AS $$ BEGIN RETURN current_database() ="
                 " 'strict'; END $$; ALTER TABLE t ADD CONSTRAINT c CHECK (f(a))")  # fmt: skip
    small = dumped(running.server().database("strict"))
    load = running.server().scratch()
    with caplog.at_level(logging.DEBUG):
        ended = loaded(load, small)
    load.close()
    assert ended.problem() == (
        'ended with exit code 1: pg_restore: error: COPY failed for table "t": ERROR:  new row for'
        ' relation "t" violates check constraint "c"'
    )
    assert not [word for word in ("first", "second") if word in f"{ended.stderr}{caplog.text}"]
