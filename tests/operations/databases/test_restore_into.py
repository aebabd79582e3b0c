"""A dump comes back into a database: all of it, or the database is as it was."""

from __future__ import annotations

import os
import shutil
import signal
import sqlite3
import subprocess
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

import bakthat
from bakthat import models
from bakthat.errors import (
    BakthatError,
    ConsumerError,
    CorruptArchiveError,
    DatabaseError,
    UsageError,
)
from tests.support.commandline import PATIENCE, CommandLine
from tests.support.glacier_server import GlacierServer
from tests.support.profiles import Conf, write_config
from tests.support.shops import ORDERS, PASSWORD, ROWS, Shop

pytestmark = pytest.mark.slow

LOADER = {"postgresql": "pg_restore", "mariadb": "mariadb"}
BESIDES = {"postgresql": "postgresql-globals", "mariadb": "mariadb-users"}
FILL = "INSERT INTO orders VALUES (4, '{}');"


@pytest.fixture
def conf(local: Conf) -> Conf:
    return {**local, "password": "", "database_password": PASSWORD}


@pytest.fixture
def user(user: CommandLine, conf: Conf) -> CommandLine:
    write_config(user.home / ".bakthat.yml", default=conf)
    return user


@pytest.fixture
def entry(conf: Conf, shop: Shop) -> models.Backups:
    """Return a backup of the database, which is larger than what a pipe and a program hold."""
    (made,) = bakthat.backup_databases(large(shop), conf=conf)
    return made


def large(shop: Shop) -> str:
    """Return the URL of a database with 3 MB that do not compress."""
    if "large" not in shop.names():
        shop.make("large")
        shop.sql("CREATE TABLE noise (id INT, what TEXT);", "large")
        for number in range(50):
            shop.sql(f"INSERT INTO noise VALUES ({number}, '{os.urandom(30_000).hex()}');", "large")
    return shop.of("large")


@contextmanager
def full_copy(shop: Shop) -> Iterator[str]:
    """Make a database ``shop_copy`` with rows of its own; yield its URL."""
    url = shop.make("shop_copy", ORDERS + "INSERT INTO orders VALUES (7, 'own');")
    try:
        yield url
    finally:
        shop.drop("shop_copy")


def own(shop: Shop) -> list[str]:
    return [f"7{'|' if shop.kind == 'postgresql' else chr(9)}own"]


def wrapped(directory: Path, name: str, script: str) -> str:
    """Make a program *name* with *script*, in which ``real`` runs it; return PATH with it."""
    made = directory / "wrapped" / name
    made.parent.mkdir(exist_ok=True)
    made.write_text(f'#!/bin/sh\nreal() {{ {shutil.which(name)} "$@"; }}\n{script}\n')
    made.chmod(0o755)
    return f"{made.parent}{os.pathsep}{os.environ['PATH']}"


def loads_only(kind: str, script: str) -> str:
    """Return *script* for the calls that load; the others run the program."""
    if kind == "postgresql":
        return f'case "$*" in *--version*) real "$@"; exit;; esac\n{script}'
    return f'case "$*" in *--max-allowed-packet*) ;; *) real "$@"; exit;; esac\n{script}'


def wait_for_connections(shop: Shop, name: str, count: int) -> None:
    """Wait until *count* clients are connected to a database."""
    if shop.kind == "postgresql":
        query = f"SELECT count(*) FROM pg_stat_activity WHERE datname = '{name}' AND usesysid > 0;"
    else:
        query = f"SELECT COUNT(*) FROM information_schema.processlist WHERE db = '{name}';"
    deadline = time.monotonic() + PATIENCE
    while shop.sql(query) != [str(count)]:
        assert time.monotonic() < deadline


def test_it_is_made_where_it_is_missing(
    conf: Conf, shop: Shop, entry: models.Backups, user: CommandLine
) -> None:
    try:
        done = user.run("restore", "large", "--into", shop.of("shop_copy"))
        assert done.code == 0, done.stderr
        assert f"into {shop.of('shop_copy')}," in done.stderr
        assert shop.orders("shop_copy") == shop.orders("large")
        count = "SELECT count(*) FROM noise;"
        assert shop.sql(count, "shop_copy") == ["50"]
    finally:
        shop.drop("shop_copy")


def test_one_that_is_not_empty_is_refused_until_it_may_be_replaced(
    conf: Conf, shop: Shop, entry: models.Backups
) -> None:
    before = shop.names()
    with full_copy(shop) as url:
        with pytest.raises(DatabaseError, match="is not empty") as caught:
            bakthat.restore("large", conf=conf, into=url)
        assert "--replace" in caught.value.hint
        assert shop.orders("shop_copy") == own(shop)
        bakthat.restore("large", conf=conf, into=url, replace=True)
        assert shop.orders("shop_copy") == shop.orders("large")
    assert shop.names() == before


def test_what_cannot_be_loaded_is_refused_before_anything_is_read(
    conf: Conf,
    shop: Shop,
    entry: models.Backups,
    tree: Path,
    tmp_path: Path,
    fired: list[tuple[Any, ...]],
) -> None:
    bakthat.backup(tree, conf=conf)
    bakthat.backup(conf=conf, command="echo SELECT 1", custom_filename="stream.sql")
    bakthat.backup_databases(shop.url, conf=conf)
    fired.clear()
    other = "postgresql" if shop.kind == "mariadb" else "mysql"
    for name, into, message in [
        ("large", f"{other}://127.0.0.1:1/x", f"a dump of {shop.kind} cannot be loaded into"),
        ("large", f"sqlite:///{tmp_path}/x.db", f"a dump of {shop.kind} cannot be loaded into"),
        ("large", shop.url, "names no database"),
        ("large", f"{shop.url}/*", "names no database"),
        ("mydir", shop.of("x"), "is an archive of files"),
        (BESIDES[shop.kind], shop.of("x"), "belongs to no database of a server"),
        ("stream.sql", shop.of("x"), "no dump of a database that bakthat knows"),
    ]:
        with pytest.raises(UsageError, match=message):
            bakthat.restore(name, conf=conf, into=into)
    assert {each[0] for each in fired} == {"on_error"}
    assert not (tmp_path / "x.db").exists()


@pytest.mark.parametrize("replace", [False, True], ids=["new", "replace"])
def test_an_altered_object_changes_nothing(
    conf: Conf, shop: Shop, entry: models.Backups, replace: bool
) -> None:
    path = Path(conf["local_path"], entry.stored_filename)
    content = bytearray(path.read_bytes())
    content[-100_000] ^= 1
    path.write_bytes(content)
    with full_copy(shop) as url:
        before = shop.names()
        with pytest.raises(CorruptArchiveError):
            bakthat.restore(
                "large", conf=conf, into=url if replace else shop.of("shop_new"), replace=replace
            )
        assert shop.orders("shop_copy") == own(shop)
        assert shop.names() == before


@pytest.mark.parametrize("replace", [False, True], ids=["new", "replace"])
@pytest.mark.parametrize(
    ("script", "message"),
    [
        ("echo no room >&2; exit 3", "ended with exit code 3: no room"),
        ("kill -9 $$", "SIGKILL"),
        ('head -c 500000 | real "$@"; kill -9 $$', "SIGKILL"),
        ('real "$@"; echo late >&2; exit 1', "exit code 1: .*late"),
    ],
    ids=["at once", "killed", "killed in the middle", "at the end"],
)
def test_a_program_that_fails_changes_nothing(
    conf: Conf,
    shop: Shop,
    entry: models.Backups,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    script: str,
    message: str,
    replace: bool,
) -> None:
    path = wrapped(tmp_path, LOADER[shop.kind], loads_only(shop.kind, script))
    monkeypatch.setenv("PATH", path)
    with full_copy(shop) as url:
        before = shop.names()
        with pytest.raises((ConsumerError, DatabaseError), match=message):
            bakthat.restore(
                "large", conf=conf, into=url if replace else shop.of("shop_new"), replace=replace
            )
        assert shop.orders("shop_copy") == own(shop)
        assert shop.names() == before


@pytest.mark.parametrize("replace", [False, True], ids=["new", "replace"])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_restore_changes_nothing(
    conf: Conf, shop: Shop, entry: models.Backups, user: CommandLine, number: int, replace: bool
) -> None:
    script = f'echo >{user.directory}/reached; head -c 500000 | real "$@"; exec sleep 600'
    os.mkfifo(user.directory / "reached")
    path = wrapped(user.directory, LOADER[shop.kind], loads_only(shop.kind, script))
    with full_copy(shop) as url:
        before = shop.names()
        into = [url, "--replace"] if replace else [shop.of("shop_new")]
        process = user.start("restore", "large", "--into", *into, env={"PATH": path})
        assert (user.directory / "reached").read_text() == "\n"
        process.send_signal(number)
        _, errors = process.communicate(timeout=PATIENCE)
        assert process.returncode == 128 + number, errors
        assert shop.orders("shop_copy") == own(shop)
        assert shop.names() == before


def test_a_killed_restore_does_not_touch_what_it_was_to_replace(
    conf: Conf, shop: Shop, entry: models.Backups, user: CommandLine
) -> None:
    script = f'echo >{user.directory}/reached; head -c 500000 | real "$@"; exec sleep 600'
    os.mkfifo(user.directory / "reached")
    path = wrapped(user.directory, LOADER[shop.kind], loads_only(shop.kind, script))
    before = shop.names()
    with full_copy(shop) as url:
        process = user.start("restore", "large", "--into", url, "--replace", env={"PATH": path})
        assert (user.directory / "reached").read_text() == "\n"
        process.kill()
        process.communicate(timeout=PATIENCE)
        assert shop.orders("shop_copy") == own(shop)
        # The database that it has made is left, and no backup of each database has it.
        (left,) = shop.names() - before - {"shop_copy"}
        try:
            wait_for_connections(shop, left, 0)
            of_all = user.run("backup", shop.url, "--name", "all")
            assert left not in " ".join(each.filename for each in bakthat.ls(conf=conf))
            statement = f"DROP DATABASE {left}"
            warning = (
                f"bakthat: warning: a restore or a drill that was killed seems to have left the "
                f"database {left}: nobody is connected to it; unless you need what is in it, "
                f"remove it: {statement}"
            )
            others = (
                ("backup", shop.of("shop")),
                ("restore", "shop", "--into", url, "--replace"),
                ("drill", "shop", "--into", shop.url),
            )
            for done in (of_all, *(user.run(*each) for each in others)):
                assert done.code == 0, done.stderr
                assert done.stderr.splitlines().count(warning) == 1
            assert left in shop.names()
            shop.sql(f"{statement};")
            for each in others:
                done = user.run(*each)
                assert done.code == 0
                assert "warning" not in done.stderr
        finally:
            shop.drop(left)


def test_a_database_of_a_restore_that_somebody_is_connected_to_is_no_leftover(
    conf: Conf, shop: Shop, caplog: pytest.LogCaptureFixture
) -> None:
    used, unused = (f"bakthat_{each}_0123456789abcdef" for each in ("restore", "drill"))
    for each in (used, unused):
        shop.sql(f"CREATE DATABASE {each};")
    environment = {**os.environ, **shop.environment}
    session = subprocess.Popen([*shop.client, used], stdin=subprocess.PIPE, env=environment)
    try:
        wait_for_connections(shop, used, 1)
        bakthat.backup_databases(shop.of("shop"), conf=conf)
        assert f"DROP DATABASE {unused}" in caplog.text
        assert used not in caplog.text
    finally:
        session.communicate(timeout=PATIENCE)
        shop.drop(used, unused)


def test_what_fails_is_one_line(
    conf: Conf, shop: Shop, entry: models.Backups, user: CommandLine
) -> None:
    def error(*arguments: str, **options: Any) -> str:
        done = user.run("restore", "large", "--into", *arguments, **options)
        assert done.code == 1, done.stderr
        known = ("Restoring", "Downloading", "Uncompressing", "bakthat: hint: ")
        lines = [each for each in done.stderr.splitlines() if not each.startswith(known)]
        assert len(lines) == 1, done.stderr
        return lines[0]

    new = shop.of("shop_new")
    assert "cannot connect to" in error(f"{shop.kind}://127.0.0.1:1/shop_new")
    assert "is not installed" in error(new, env={"PATH": str(user.directory)})
    assert "nosuchprogram" in error(new, "--via", "nosuchprogram exec -i db")
    write_config(user.home / ".bakthat.yml", default={**conf, "database_password": "no"})
    message = error(new)
    assert "wrong password" in message or "cannot log in" in message
    assert "shop_new" not in shop.names()


def test_options_without_a_database_are_refused(conf: Conf, tree: Path) -> None:
    bakthat.backup(tree, conf=conf)
    for options in ({"replace": True}, {"via": "docker exec -i db"}, {"database_password": "x"}):
        with pytest.raises(UsageError, match="restore into a database"):
            bakthat.restore("mydir", conf=conf, **options)
    others = ({"output": "x"}, {"only": "a.txt"}, {"to_command": "cat"})
    for options in others:
        with pytest.raises(UsageError):
            bakthat.restore("mydir", conf=conf, into="sqlite:///x.db", **options)  # type: ignore[arg-type]  # a dict


def test_a_frozen_dump_says_what_to_repeat_without_a_secret(
    glacier: GlacierServer, tmp_path: Path, user: CommandLine
) -> None:
    conf = glacier.conf(password="")
    write_config(user.home / ".bakthat.yml", default=conf)
    with closing(sqlite3.connect(tmp_path / "app.db")) as connection:
        connection.executescript(ORDERS + ROWS)
    bakthat.backup_databases(f"sqlite:///{tmp_path}/app.db", conf=conf)
    target = f"sqlite:///{tmp_path}/copy.db"
    done = user.run("restore", "app.db", "--into", target, "--replace")
    assert done.code == 4
    assert f"--into {target} --replace" in done.stderr
    assert not (tmp_path / "copy.db").exists()
    glacier.advance(hours=6)
    assert user.run("restore", "app.db", "--into", target, "--replace").code == 0
    assert (tmp_path / "copy.db").exists()


def test_a_password_in_a_url_is_not_in_the_command_to_repeat(
    glacier: GlacierServer, caplog: pytest.LogCaptureFixture
) -> None:
    conf = glacier.conf(password="")
    bakthat.backup(conf=conf, command="echo text", custom_filename="shop")
    row = bakthat.ls(conf=conf)[0]
    with models.catalog(Path.home() / ".bakthat.sqlite", write=True):
        row.metadata = {**row.metadata, "dump": "postgresql"}
        row.save(only=["metadata"])
    caplog.set_level("DEBUG")
    url = "postgresql://me:hidden1@host/shop"
    assert bakthat.restore("shop", conf=conf, into=url, via="env A=hidden2 docker") is None
    assert "postgresql://me@host/shop" in caplog.text
    assert "hidden" not in caplog.text


def test_a_file_of_sqlite_takes_the_place_of_another_at_the_end(
    conf: Conf, tmp_path: Path, user: CommandLine
) -> None:
    source, target = tmp_path / "app.db", tmp_path / "x" / "copy.db"
    target.parent.mkdir()
    with closing(sqlite3.connect(source)) as connection:
        connection.executescript(ORDERS + ROWS)
    (entry,) = bakthat.backup_databases(f"sqlite:///{source}", conf=conf)
    url = f"sqlite:///{target}"
    bakthat.restore("app.db", conf=conf, into=url)
    with closing(sqlite3.connect(target)) as connection:
        assert connection.execute("SELECT count(*) FROM orders").fetchone() == (3,)
        connection.execute("CREATE TABLE own (x)")
    before = target.read_bytes()
    with pytest.raises(DatabaseError, match="not empty"):
        bakthat.restore("app.db", conf=conf, into=url)
    path = Path(conf["local_path"], entry.stored_filename)
    whole = path.read_bytes()
    path.write_bytes(whole[:-5] + bytes([whole[-5] ^ 1]) + whole[-4:])
    with pytest.raises(BakthatError):
        bakthat.restore("app.db", conf=conf, into=url, replace=True)
    assert target.read_bytes() == before
    assert os.listdir(target.parent) == ["copy.db"]
    path.write_bytes(whole)
    done = user.run("restore", "app.db", "--into", url, "--replace")
    assert done.code == 0
    with closing(sqlite3.connect(target)) as connection, pytest.raises(sqlite3.OperationalError):
        connection.execute("SELECT * FROM own")
    assert os.listdir(target.parent) == ["copy.db"]
    missing = user.run("restore", "app.db", "--into", f"sqlite:///{tmp_path}/none/x.db")
    assert missing.code == 1
    assert "none" in missing.stderr
