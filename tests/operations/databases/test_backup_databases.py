"""Databases are backed up by their URLs: each one is a backup of its own, or none."""

from __future__ import annotations

import os
import re
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

import bakthat
from bakthat.errors import (
    DatabaseError,
    ProducerError,
    UsageError,
)
from tests.support.commandline import CommandLine
from tests.support.profiles import Conf, write_config
from tests.support.relay import relay_until
from tests.support.shops import ORDERS, PASSWORD, ROWS, Shop

pytestmark = pytest.mark.slow

BESIDES = {"postgresql": "postgresql-globals", "mariadb": "mariadb-users"}


@pytest.fixture
def conf(local: Conf) -> Conf:
    return {**local, "password": "", "database_password": PASSWORD}


@pytest.fixture
def user(user: CommandLine, conf: Conf) -> CommandLine:
    write_config(user.home / ".bakthat.yml", default=conf)
    return user


def app_db(path: Path, script: str = ORDERS + ROWS) -> str:
    """Make a database of SQLite, and return its URL."""
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(script)
    return f"sqlite:///{path}"


def sets(conf: Conf) -> list[str]:
    return sorted(each.filename for each in bakthat.ls(conf=conf))


def stored(conf: Conf) -> list[str]:
    """Return the names of all files in the store."""
    store = Path(conf["local_path"])
    return sorted(str(each.relative_to(store)) for each in store.rglob("*") if each.is_file())


def docker(directory: Path) -> Path:
    """Make a program ``docker`` that runs ``exec -i NAME PROGRAM …`` here; return its directory.

    What it finds there is a password of its own, in the file that NAME names.
    """
    script = directory / "bin" / "docker"
    script.parent.mkdir(exist_ok=True)
    script.write_text(
        '#!/bin/sh\n[ "$1 $2" = "exec -i" ] || exit 125\n'
        f'echo "$*" >>{directory}/calls\nenv >>{directory}/calls\n'
        'PGPASSWORD=$(cat "$3") MYSQL_PWD=$(cat "$3")\nexport PGPASSWORD MYSQL_PWD\nshift 3\n'
        'exec "$@"\n'
    )
    script.chmod(0o755)
    return script.parent


def test_one_database_is_one_backup(conf: Conf, shop: Shop, out: Path) -> None:
    (entry,) = bakthat.backup_databases(shop.of("shop"), conf=conf, tags="daily db")
    assert (entry.filename, entry.tags) == ("shop", "daily db")
    metadata = entry.metadata
    assert metadata["source"] == shop.of("shop")
    assert metadata["dump"] == shop.kind
    assert metadata["producer"]["exit_code"] == 0
    assert metadata["producer"]["seconds"] > 0
    assert isinstance(metadata["producer"]["stderr"], str)
    bakthat.restore("shop", conf=conf, output=out)
    (dump,) = out.iterdir()
    assert dump.name == {"postgresql": "shop.dump", "mariadb": "shop.sql"}[shop.kind]
    assert dump.stat().st_mode & 0o777 == 0o600
    assert b"m\xc3\xaclk" in dump.read_bytes()


@pytest.mark.parametrize("ending", ["/*", "/", ""])
def test_each_database_of_a_server_is_a_backup(conf: Conf, shop: Shop, ending: str) -> None:
    shop.make("blog")
    try:
        told: list[str] = []
        entries = bakthat.backup_databases(
            shop.url + ending, conf=conf, on_stored=lambda entry: told.append(entry.filename)
        )
    finally:
        shop.drop("blog")
    assert [each.filename for each in entries] == ["blog", "shop", BESIDES[shop.kind]] == told
    assert entries[-1].metadata["dump"] == BESIDES[shop.kind]


def test_a_name_comes_before_those_of_several(conf: Conf, shop: Shop) -> None:
    bakthat.backup_databases(shop.url, conf=conf, custom_filename="prod")
    bakthat.backup_databases(shop.of("shop"), conf=conf, custom_filename="other")
    assert sets(conf) == sorted(["other", "prod-shop", f"prod-{BESIDES[shop.kind]}"])


def test_one_that_fails_does_not_stop_the_others(
    conf: Conf, shop: Shop, user: CommandLine, fired: list[tuple[Any, ...]]
) -> None:
    # The name of the set would be that of another source.
    shop.make("blog")
    (user.directory / "blog").write_text("text")
    bakthat.backup(user.directory / "blog", conf=conf)
    before = stored(conf)
    fired.clear()
    try:
        done = user.run("backup", shop.url)
        with pytest.raises(DatabaseError, match=r"^1 of 3 databases could not be "):
            bakthat.backup_databases(shop.url, conf=conf)
    finally:
        shop.drop("blog")
    assert done.code == 1
    assert "blog was not backed up" in done.stderr
    assert (
        "error: 1 of 3 databases could not be backed up: blog; the first: 'blog' has" in done.stderr
    )
    assert "hint: --name db1, for example, names each of them anew: db1-blog" in done.stderr
    assert done.stderr.count("Stored as ") == 2
    new = {*stored(conf)} - {*before}
    assert not [each for each in new if "blog" in each]
    assert [each[0] for each in fired] == ["before_backup", "on_error"] + [
        "before_backup",
        "on_backup",
    ] * 2
    assert sets(conf).count("shop") == 2


def test_the_same_name_of_another_source_is_refused(
    conf: Conf, shop: Shop, tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = shop.of("shop")
    bakthat.backup_databases(url, conf=conf)
    other = url.replace("127.0.0.1", "localhost")
    with pytest.raises(UsageError, match=f"^'shop' has backups of {url}, not of {other}$"):
        bakthat.backup_databases(other, conf=conf)
    monkeypatch.setenv("PATH", f"{docker(tmp_path)}:{os.environ['PATH']}")
    (tmp_path / "db").write_text(PASSWORD)
    with pytest.raises(UsageError, match=f"^'shop' has backups of {url} with another --via$"):
        bakthat.backup_databases(url, conf=conf, via=f"docker exec -i {tmp_path}/db")
    bakthat.backup_databases(other, conf=conf, custom_filename="shop2")
    bakthat.backup_databases(url, conf=conf)
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / "orders").write_text("text")
    bakthat.backup(tmp_path / "x" / "orders", conf=conf)
    shop.make("orders")
    try:
        with pytest.raises(UsageError, match=f"^'orders' has backups of {tmp_path}/x/orders"):
            bakthat.backup_databases(shop.of("orders"), conf=conf)
    finally:
        shop.drop("orders")
    assert sets(conf) == ["orders", "shop", "shop", "shop2"]


def test_the_source_is_the_url(conf: Conf, tmp_path: Path, user: CommandLine) -> None:
    url = app_db(tmp_path / "shop")
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / "shop").write_text("text")
    assert user.run("backup", url).code == 0
    assert user.run("backup", tmp_path / "x" / "shop").code == 0
    ambiguous = user.run("restore", "shop", "-o", "out")
    assert ambiguous.code != 0
    assert url in ambiguous.stderr
    assert user.run("restore", "shop", "--source", url, "-o", "out").code == 0
    assert (tmp_path / "out" / "shop").read_bytes().startswith(b"SQLite format 3")
    assert user.run("drill", "shop", "--source", url).code == 0
    assert user.run("delete", "shop", "--source", url).code == 0
    (left,) = bakthat.ls(conf=conf)
    assert left.metadata["source"] == f"{tmp_path}/x/shop"


def test_sets_of_databases_rotate(conf: Conf, tmp_path: Path) -> None:
    url = app_db(tmp_path / "app.db")
    for _ in range(3):
        bakthat.backup_databases(url, conf=conf)
    bakthat.backup_databases(app_db(tmp_path / "b.db"), conf=conf)
    bakthat.rotate("app.db", conf={**conf, "rotation": {"last": 1}})
    assert sets(conf) == ["app.db", "b.db"]


def test_a_profile_for_increments_and_encryption(
    conf: Conf, tmp_path: Path, out: Path, cheap_passphrases: None
) -> None:
    conf |= {"password": "secret", "incremental": True, "skip_unchanged": True}
    url = app_db(tmp_path / "app.db")
    bakthat.backup_databases(url, conf=conf)
    (second,) = bakthat.backup_databases(url, conf=conf)
    assert second.stored_filename.endswith(".gz.age")
    assert not second.is_increment
    bakthat.restore("app.db", conf=conf, output=out)
    assert (out / "app.db").read_bytes().startswith(b"SQLite format 3")


def test_a_suspicious_size_is_stored_with_a_warning(
    conf: Conf, tmp_path: Path, user: CommandLine
) -> None:
    path = tmp_path / "app.db"
    url = app_db(path, ORDERS + "CREATE TABLE large (x); INSERT INTO large VALUES (zeroblob(1e6));")
    assert user.run("backup", url).code == 0
    path.unlink()
    app_db(path)
    below = user.run("backup", url, "--fail-below", "50%")
    assert below.code == 1
    assert "less than 50 %" in below.stderr
    done = user.run("backup", url)
    assert done.code == 3
    assert "the size is suspicious" in done.stderr
    newest, _ = bakthat.ls(conf=conf)
    assert newest.is_suspicious
    assert user.run("backup", url, "--accept-size").code == 0


@pytest.mark.parametrize("key", ["database_password", "database_password_file",
                                 "database_password_command", "argument", "url"])  # fmt: skip
def test_where_the_password_comes_from(local: Conf, shop: Shop, tmp_path: Path, key: str) -> None:
    conf, url, password = {**local, "password": ""}, shop.of("shop"), None
    file = tmp_path / "password"
    file.write_text(f"{PASSWORD}\n")
    file.chmod(0o600)
    match key:
        case "database_password":
            conf[key] = PASSWORD
        case "database_password_file":
            conf[key] = str(file)
        case "database_password_command":
            conf[key] = f"cat {file}"
        case "argument":
            conf["database_password"], password = "wrong", PASSWORD
        case "url":
            url = url.replace("@", ":s3%3Acr%5Cet-'%C3%BC-zq7Kx@")
    (entry,) = bakthat.backup_databases(url, conf=conf, database_password=password)
    assert entry.metadata["source"] == shop.of("shop")


def test_the_variables_of_the_programs_count(
    local: Conf, shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PGPASSWORD", PASSWORD)
    monkeypatch.setenv("MYSQL_PWD", PASSWORD)
    bakthat.backup_databases(shop.of("shop"), conf={**local, "password": ""})
    with pytest.raises(DatabaseError):
        bakthat.backup_databases(
            shop.of("shop"), conf={**local, "password": "", "database_password": "wrong"}
        )


def test_a_variable_of_bakthat_is_for_bakthat_alone(
    local: Conf, shop: Shop, user: CommandLine
) -> None:
    write_config(user.home / ".bakthat.yml", default={**local, "password": ""})
    env = {"BAKTHAT_DATABASE_PASSWORD": PASSWORD}
    done = user.run("backup", shop.of("shop"), env=env)
    assert done.code == 0, done.stderr
    program = shutil.which("env")
    done = user.run("backup", "--command", f"{program}", "--name", "environment", env=env)
    assert done.code == 0
    assert PASSWORD not in user.run("cat", "environment", "environment").stdout


def test_a_container_has_its_own_password(
    conf: Conf, shop: Shop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", f"{docker(tmp_path)}:{os.environ['PATH']}")
    (tmp_path / "db").write_text(PASSWORD)
    conf["database_password"] = "of-another-server"
    words = f"docker exec -i {tmp_path}/db"
    entries = bakthat.backup_databases(shop.url, conf=conf, via=words)
    assert [each.filename for each in entries] == ["shop", BESIDES[shop.kind]]
    try:
        bakthat.restore("shop", conf=conf, into=shop.of("shop_copy"), via=words)
        assert shop.orders("shop_copy") == shop.orders("shop")
    finally:
        shop.drop("shop_copy")
    bakthat.drill("shop", conf=conf, into=shop.url, via=words, check="SELECT 1")
    assert "of-another-server" not in (tmp_path / "calls").read_text()
    (tmp_path / "db").write_text("wrong")
    with pytest.raises(DatabaseError) as caught:
        bakthat.backup_databases(shop.of("shop"), conf=conf, via=words)
    assert "database_password" not in caught.value.hint


@pytest.mark.parametrize(
    ("via", "message"),
    [("docker 'exec", "quote without its end"), ("  ", "no words"), ("", "no words")],
)
def test_words_that_are_none_are_refused(conf: Conf, shop: Shop, via: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        bakthat.backup_databases(shop.of("shop"), conf=conf, via=via)


def failure(kind: str, shop: Shop, user: CommandLine, conf: Conf) -> list[str]:
    """Prepare a backup that fails; return its URL and its options."""
    match kind:
        case "wrong password":
            write_config(user.home / ".bakthat.yml", default={**conf, "database_password": "no"})
        case "no such database":
            return [shop.of("shopp")]
        case "no server":
            return [f"{shop.kind}://127.0.0.1:1/shop"]
        case "no such host":
            return [f"{shop.kind}://nowhere.invalid/shop"]
        case "no tool":
            user.environment["PATH"] = str(user.directory)
        case "no such words":
            return [shop.of("shop"), "--via", "nosuchprogram exec -i db"]
    return [shop.of("shop")]


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("wrong password", "wrong password|cannot log in"),
        ("no such database", "no database '?shopp"),
        ("no server", "cannot connect to"),
        ("no such host", "cannot connect to"),
        ("no tool", "is not installed"),
        ("no such words", "nosuchprogram"),
    ],
)
def test_what_fails_is_one_line_and_leaves_nothing(
    conf: Conf, shop: Shop, user: CommandLine, kind: str, message: str
) -> None:
    arguments = failure(kind, shop, user, conf)
    for url in (arguments[0], shop.url) if kind != "no such database" else (arguments[0],):
        if kind in ("no server", "no such host"):
            url = url.replace(shop.url, arguments[0].rpartition("/")[0])
        done = user.run("backup", url, *arguments[1:])
        lines = [line for line in done.stderr.splitlines() if "hint: " not in line]
        assert done.code == 1, done.stderr
        assert [line for line in lines[:-1] if not line.startswith("Backing up shop")] == []
        assert re.match(f"bakthat: error: .*({message})", lines[-1]), done.stderr
    assert not Path(conf["local_path"]).exists()
    assert bakthat.ls(conf=conf) == []


def test_a_file_of_sqlite_that_is_missing(conf: Conf, user: CommandLine) -> None:
    done = user.run("backup", f"sqlite:///{user.directory}/app.db")
    assert done.code == 1
    assert f"error: there is no file {user.directory}/app.db" in done.stderr
    assert os.listdir(user.directory) == []
    assert not Path(conf["local_path"]).exists()


@pytest.mark.parametrize("command", [["backup"], ["restore", "shop", "--into"],
                                     ["drill", "shop", "--into"]])  # fmt: skip
def test_a_password_on_the_command_line_is_refused(
    user: CommandLine, shop: Shop, command: list[str]
) -> None:
    done = user.run(*command, shop.of("shop").replace("@", ":hidden@"))
    assert done.code == 2
    assert "hidden" not in done.stdout + done.stderr
    assert "database_password_file" in done.stderr


def test_a_dump_that_fails_or_is_killed_leaves_nothing(
    conf: Conf, shop: Shop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = {"postgresql": "pg_dump", "mariadb": "mariadb-dump"}[shop.kind]
    real = shutil.which(name)
    (tmp_path / "bin").mkdir()
    wrapper = tmp_path / "bin" / name
    monkeypatch.setenv("PATH", f"{wrapper.parent}:{os.environ['PATH']}")
    for ending, message in [("exit 3", "exit code"), ("kill -9 $$", "SIGKILL|exit code|signal")]:
        wrapper.write_text(
            '#!/bin/sh\ncase "$*" in *--version*|*--help*|*--print-defaults*)'
            f' exec {real} "$@";; esac\n'
            f'{real} "$@"\necho lost connection >&2\n{ending}\n'
        )
        wrapper.chmod(0o755)
        with pytest.raises(ProducerError, match=message) as caught:
            bakthat.backup_databases(shop.of("shop"), conf=conf)
        assert "lost connection" in str(caught.value)
        assert stored(conf) == []
    assert bakthat.ls(conf=conf) == []


def test_the_time_limit_counts_before_the_dump_too(conf: Conf, shop: Shop) -> None:
    address, _, port = shop.url.rpartition(":")
    with relay_until(b"SELECT", int(port)) as silent:
        for name in ("/shop", "/*"):
            with pytest.raises(DatabaseError, match=r"did not end within 2 seconds$"):
                bakthat.backup_databases(f"{address}:{silent}{name}", conf=conf, timeout=2)
    assert stored(conf) == []


def test_another_machine_restores_what_it_knows_by_sync(
    conf: Conf, shop: Shop, tmp_path: Path
) -> None:
    bakthat.backup_databases(shop.url, conf=conf, host="first")
    other = {**conf, "database": str(tmp_path / "other.sqlite"), "host": "second"}
    bakthat.sync(conf=other)
    try:
        bakthat.restore("shop", conf=other, into=shop.of("shop_copy"))
        assert shop.orders("shop_copy") == shop.orders("shop")
    finally:
        shop.drop("shop_copy")
    bakthat.drill("shop", conf=other, into=shop.url, check="SELECT count(*) FROM orders")
    bakthat.restore(BESIDES[shop.kind], conf=other, output=tmp_path / "out")
    assert [each.name for each in (tmp_path / "out").iterdir()] == [f"{BESIDES[shop.kind]}.sql"]


def test_the_dump_flows_into_the_database_s_own_program(
    conf: Conf, shop: Shop, user: CommandLine
) -> None:
    bakthat.backup_databases(shop.of("shop"), conf=conf)
    shop.make("shop_copy", "")
    program = (
        "pg_restore -d shop_copy"
        if shop.kind == "postgresql"
        else (" ".join(shop.client) + " shop_copy")
    )
    try:
        user.environment |= shop.environment
        assert user.shell(f"cat shop | {program}").code == 0
        assert shop.orders("shop_copy") == shop.orders("shop")
    finally:
        shop.drop("shop_copy")


def test_json_has_a_line_for_each_and_one_summary(
    conf: Conf, shop: Shop, user: CommandLine
) -> None:
    done = user.run("backup", shop.url, "--json")
    assert done.code == 0
    entries = done.lines("backup")
    assert [each["filename"] for each in entries] == ["shop", BESIDES[shop.kind]]
    (summary,) = done.lines("summary")
    assert summary["files"] == 2
    assert summary["stored"] == sum(each["size"] for each in entries)
    assert (summary["warnings"], summary["skipped"]) == (0, False)
    assert done.stdout.splitlines()[-1].startswith('{"message_type": "summary"')


def test_a_slash_in_a_name_is_no_obstacle(conf: Conf, shop: Shop, out: Path) -> None:
    quote = '"' if shop.kind == "postgresql" else "`"
    shop.sql(f"CREATE DATABASE {quote}a/b *ü{quote};")
    try:
        entries = bakthat.backup_databases(shop.url, conf=conf)
        bakthat.drill("a_b *ü", conf=conf, into=shop.url)
    finally:
        shop.drop(f"{quote}a/b *ü{quote}")
    assert [each.filename for each in entries] == ["a_b *ü", "shop", BESIDES[shop.kind]]
    assert entries[0].metadata["source"] == shop.of("a%2Fb%20%2Aü")
    bakthat.restore("a_b *ü", conf=conf, output=out)
    (dump,) = out.iterdir()
    assert dump.stem == "a_b *ü"


def test_a_dump_that_lacks_something_is_incomplete(
    user: CommandLine, conf: Conf, shop: Shop
) -> None:
    """A user who may not see all gets a dump all the same; nobody takes it for complete."""
    if shop.kind == "postgresql":
        shop.sql("CREATE ROLE weak LOGIN PASSWORD 'weak';")
        shop.sql("GRANT SELECT ON orders TO weak;", "shop")
        url, told = shop.url.replace("postgres@", "weak@"), "without their passwords"
    else:
        shop.sql(
            "CREATE USER weak IDENTIFIED BY 'weak';"
            "GRANT SELECT, LOCK TABLES, SHOW VIEW, EVENT ON shop.* TO weak;"
        )
        url = re.sub("//[^@]+@", "//weak@", shop.of("shop"))
        told = "triggers of "
    write_config(user.home / ".bakthat.yml", default={**conf, "database_password": "weak"})
    done = user.run("backup", url)
    incomplete = [each for each in bakthat.ls(conf=conf) if not each.is_complete]
    shop.sql(
        "DROP OWNED BY weak; DROP ROLE weak;" if shop.kind == "postgresql" else "DROP USER weak;",
        "shop",
    )
    assert done.code == 3, done.stderr
    assert told in done.stderr
    assert re.search(r"error: stored with \d warnings?: the dump lacks something", done.stderr)
    assert told in str([each.metadata["warnings"] for each in incomplete])
    for each in incomplete:
        assert each.warning_count == len(each.metadata["warnings"])
        assert not each.is_suspicious
