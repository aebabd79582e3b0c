"""Databases of PostgreSQL on the command line: there and back."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from bakthat.operations.sources.databases.postgresql.client import literal
from tests.support.commandline import CommandLine, Done
from tests.support.postgresql import PASSWORD, PostgreSQL, postgresql
from tests.support.profiles import Conf, write_config

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def running() -> Iterator[PostgreSQL]:
    with postgresql() as server:
        server.make("shop", "CREATE TABLE orders AS SELECT i FROM generate_series(1, 5000) AS i")
        server.make(
            "latin",
            "CREATE TABLE t AS SELECT 'süß'::text AS what",
            options="ENCODING LATIN1 LC_COLLATE 'C' LC_CTYPE 'C' CONNECTION LIMIT 5",
        )
        yield server


@pytest.fixture
def user(user: CommandLine, local: Conf) -> CommandLine:
    """Return a user whose profile has the password of the server."""
    write_config(user.home / ".bakthat.yml", default={**local, "database_password": PASSWORD})
    return user


def succeed(done: Done) -> None:
    assert done.code == 0, done.stderr
    assert PASSWORD not in done.stdout + done.stderr


def url(running: PostgreSQL, name: str = "") -> str:
    return f"postgresql://postgres@127.0.0.1:{running.port}{name and '/'}{name}"


def stored(user: CommandLine) -> list[Path]:
    store = user.home / "store"
    return sorted(store.iterdir()) if store.exists() else []


def test_each_database_comes_back_as_it_was(running: PostgreSQL, user: CommandLine) -> None:
    succeed(user.run("backup", url(running, "*"), "--prompt", "no"))
    for name in ("shop", "latin"):
        succeed(user.run("restore", name, "--into", url(running, f"{name}_copy")))
        assert running.text(f"{name}_copy") == running.text(name)
    like = "SELECT encoding, datconnlimit FROM pg_database WHERE datname LIKE 'latin%'"
    assert running.sql("postgres", like) == ["8|5", "8|5"]
    succeed(user.run("restore", "postgresql-globals", "--into", url(running)))
    check = ("--check", "SELECT count(*) FROM orders")
    before = running.databases()
    succeed(user.run("drill", "shop", "--into", url(running), *check))
    assert running.databases() == before
    for place in (*stored(user), user.home / "catalog.sqlite"):
        assert PASSWORD.encode() not in place.read_bytes()


@pytest.mark.parametrize("target", ["taken", "empty", "missing"])
def test_a_stored_dump_that_is_damaged_changes_no_database(
    running: PostgreSQL, user: CommandLine, target: str
) -> None:
    succeed(user.run("backup", url(running, "shop"), "--prompt", "no"))
    (dump,) = [each for each in stored(user) if each.suffix == ".gz"]
    if target != "missing":
        running.make(target, "CREATE TABLE kept ()" if target == "taken" else "")
    before = running.databases()
    text = running.text(target) if target != "missing" else []
    content = dump.read_bytes()
    for damaged in (
        content[:-1],
        content[:-9] + b"\0" + content[-8:],
        content[: len(content) // 2],
    ):
        dump.write_bytes(damaged)
        done = user.run("restore", "shop", "--into", url(running, target), "--replace")
        assert done.code != 0
        assert running.databases() == before
        if target != "missing":
            assert running.text(target) == text
    if target != "missing":
        running.sql("postgres", f"DROP DATABASE {target}")


def test_what_fails_stores_nothing_and_says_why_in_one_line(
    running: PostgreSQL, user: CommandLine, local: Conf
) -> None:
    done = user.run("backup", url(running, "shp"), "--prompt", "no")
    assert done.code == 1
    assert done.stderr.splitlines() == [
        "Backing up shp",
        f"bakthat: error: '{url(running)}' has no database 'shp'",
        "bakthat: hint: did you mean shop?",
    ]
    write_config(user.home / ".bakthat.yml", default={**local, "database_password": "hunter2"})
    done = user.run("backup", url(running, "shop"), "--prompt", "no", "--quiet")
    assert done.code == 1
    assert done.stderr.splitlines()[0] == (
        f"bakthat: error: wrong password of user 'postgres' for '{url(running, 'shop')}'"
    )
    assert "hunter2" not in done.stderr
    done = user.run("backup", url(running, "shop"), "--prompt", "no", env={"PATH": os.devnull})
    assert done.code == 1
    assert "bakthat: error: pg_dump is not installed" in done.stderr
    assert [each for each in stored(user) if each.is_file()] == []


def test_who_may_read_one_database_only_backs_it_up(running: PostgreSQL, user: CommandLine) -> None:
    closed = ("postgres", "template1")
    for each in closed:
        running.sql("postgres", f"REVOKE CONNECT ON DATABASE {each} FROM PUBLIC")
    running.sql("postgres", f"CREATE ROLE reader LOGIN PASSWORD {literal(PASSWORD)}")
    running.sql("postgres", "GRANT pg_read_all_data TO reader")
    try:
        theirs = url(running, "shop").replace("postgres@", "reader@")
        done = user.run("backup", theirs, "--prompt", "no")
        succeed(done)
        assert "cannot look for what killed restores and drills have left" in done.stderr
        assert "warning" not in done.stderr
    finally:
        running.sql("postgres", "DROP ROLE reader")
        for each in closed:
            running.sql("postgres", f"GRANT CONNECT ON DATABASE {each} TO PUBLIC")
