"""Catalogs on servers: what goes wrong, what is said, and that nothing is lost."""

from __future__ import annotations

import logging
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from bakthat import models, reservations
from bakthat.database import address, server, tables
from bakthat.database.opening import current
from bakthat.errors import BakthatError, CatalogError, ConfigError
from tests.support.catalogs import (
    ON_SERVERS,
    PASSWORD,
    MariadbCatalogs,
    NewCatalog,
    PostgresqlCatalogs,
)
from tests.support.catalogs import postgresql_catalogs as running_postgresql
from tests.support.commandline import PROJECT
from tests.support.servers import free_port
from tests.test_models import HERE, add, row

pytestmark = [
    pytest.mark.slow,
    pytest.mark.drivers,
    pytest.mark.needs("postgres", "psql", "mariadbd", "mariadb"),
]


@pytest.fixture(params=ON_SERVERS)
def catalog(request: pytest.FixtureRequest) -> str:
    make: NewCatalog = request.getfixturevalue(f"{request.param}_catalogs")
    return make()


@pytest.fixture
def postgresql(postgresql_catalogs: PostgresqlCatalogs) -> str:
    return postgresql_catalogs()


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "CONNECT_SECONDS", 1)


def names_in(catalog: str) -> list[str]:
    with models.catalog(catalog):
        return sorted(each.stored_filename for each in models.Backups.search("", HERE))


def error_in(catalog: str, **options: Any) -> BakthatError:
    """Return the error of opening a catalog, which says nothing of the password."""
    with pytest.raises(BakthatError) as caught, models.catalog(catalog, **options):
        pytest.fail("must not open")
    said = f"{caught.value} {caught.value.hint}"
    assert PASSWORD not in said
    assert quote(PASSWORD, safe="") not in said
    return caught.value


# What cannot be opened


def without(catalog: str, password: str = "") -> str:
    return catalog.replace(f":{quote(PASSWORD, safe='')}@", f":{password}@" if password else "@")


@pytest.mark.parametrize("password", ["", "wrong"])
def test_a_wrong_password_is_said_at_once(catalog: str, password: str) -> None:
    error = error_in(without(catalog, password))
    assert "refuses this user: " in str(error)
    assert "check the user and the password" in error.hint


def test_a_role_that_may_not_enter_the_database_is_said_at_once(
    postgresql_catalogs: PostgresqlCatalogs, postgresql: str
) -> None:
    name = postgresql.rpartition("/")[2]
    script = f"CREATE ROLE \"out-of-{name}\" LOGIN PASSWORD 'x'; REVOKE ALL ON DATABASE {name}"
    postgresql_catalogs.sql("postgres", f"{script} FROM PUBLIC")
    outside = postgresql_catalogs.address(name, f"out-of-{name}", "x")
    error = error_in(outside)
    assert f'refuses this user: permission denied for database "{name}"' in str(error)
    lead, statement = error.hint.split(": ")
    assert lead == "grant it, in SQL"
    assert statement == f'GRANT CONNECT ON DATABASE {name} TO "out-of-{name}"'
    postgresql_catalogs.sql("postgres", statement)
    assert "permission denied for database" not in str(error_in(outside))


def test_a_user_that_may_not_enter_the_database_is_said_at_once(
    mariadb_catalogs: NewCatalog,
) -> None:
    error = error_in(mariadb_catalogs() + "x")
    assert "refuses this user: Access denied for user 'bakthat'@'%' to database" in str(error)
    assert error.hint.startswith("grant it, in SQL: GRANT ALL ON catalog")
    assert error.hint.endswith("x.* TO bakthat")


def test_a_role_that_is_missing_is_said_at_once(
    postgresql_catalogs: PostgresqlCatalogs, postgresql: str
) -> None:
    where = f"?host={postgresql_catalogs.home}&port={postgresql_catalogs.port}"
    error = error_in(f"postgresql://nobody@/{postgresql.rpartition('/')[2]}{where}")
    assert 'refuses this user: role "nobody" does not exist' in str(error)


def test_a_database_that_is_missing_is_named_with_what_makes_it(postgresql: str) -> None:
    error = error_in(postgresql + "x")
    assert f'database "{postgresql.rpartition("/")[2]}x" does not exist' in str(error)
    assert error.hint.startswith("create it: createdb -O postgres ")


def test_a_server_without_tls_is_refused_where_tls_is_asked_for(postgresql: str) -> None:
    error = error_in(f"{postgresql}?sslmode=require")
    assert "does not support SSL" in str(error)
    assert error.hint == "check sslmode and sslrootcert in the address"


@pytest.mark.needs("openssl")
def test_tls_is_checked_by_the_certificate_that_the_address_names(tmp_path: Path) -> None:
    own, other = (certificate(tmp_path / name) for name in ("own", "other"))
    with running_postgresql() as running:
        running.use_tls(*own)
        catalog = running()
        whole = f"{catalog}?sslmode=verify-full&sslrootcert="
        add(f"{whole}{own[0]}", row("a.1"))
        error = error_in(f"{whole}{other[0]}")
        assert "cannot connect to the catalog" in str(error)
        assert "certificate verify failed" in str(error)
        assert names_in(f"{catalog}?sslmode=require") == ["a.1"]


def certificate(directory: Path) -> tuple[Path, Path]:
    """Make a certificate for the loopback address, and its key."""
    directory.mkdir()
    made = directory / "server.crt", directory / "server.key"
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"]
    command += ["-subj", "/CN=catalog", "-addext", "subjectAltName=IP:127.0.0.1"]
    subprocess.run([*command, "-out", made[0], "-keyout", made[1]], check=True, capture_output=True)
    return made


@pytest.mark.parametrize("option", ["nonsense=1", "connect_timeout=soon"])
def test_an_option_that_the_driver_refuses_is_said(catalog: str, option: str) -> None:
    error = error_in(f"{catalog}?{option}")
    assert str(error).startswith("cannot use the catalog ")
    assert error.hint == "check what follows '?' in the address"


def test_a_file_of_an_option_that_is_missing_is_said_with_where_to_look(
    mariadb_catalogs: NewCatalog,
) -> None:
    error = error_in(f"{mariadb_catalogs()}?ssl_ca=/nowhere")
    assert str(error).endswith(": No such file or directory")
    assert error.hint == "check what follows '?' in the address"


def test_a_server_of_mysql_without_tls_is_refused_where_tls_is_asked_for(
    mariadb_catalogs: NewCatalog, tmp_path: Path
) -> None:
    authority, _ = certificate(tmp_path / "own")
    error = error_in(f"{mariadb_catalogs()}?ssl_ca={authority}")
    assert "by TLS: SSL is required but the server doesn't support it" in str(error)
    assert error.hint == "check ssl_ca in the address"


@pytest.mark.parametrize("encoding", ["latin1", "nonsense"])
def test_no_option_changes_how_names_are_written(catalog: str, encoding: str) -> None:
    name = "client_encoding" if catalog.startswith("postgresql") else "charset"
    add(f"{catalog}?{name}={encoding}", row("\u00e4\U0001f4be.1"))
    assert names_in(catalog) == ["\u00e4\U0001f4be.1"]


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("scheme", ["postgresql", "mysql"])
def test_a_server_that_does_not_run_is_said(scheme: str) -> None:
    port = free_port()
    error = error_in(f"{scheme}://bakthat:{quote(PASSWORD, safe='')}@127.0.0.1:{port}/c")
    assert (
        f"the server of the catalog {scheme}://bakthat@127.0.0.1:{port}/c does not answer"
        in str(error)
    )
    assert error.hint.startswith("check that it runs and can be reached: ")
    assert f" 127.0.0.1 -{'p' if scheme == 'postgresql' else 'P'} {port}" in error.hint


def test_a_server_that_starts_meanwhile_is_waited_for(
    postgresql_catalogs: PostgresqlCatalogs, postgresql: str
) -> None:
    postgresql_catalogs.stop()
    starting = threading.Timer(1, postgresql_catalogs.start)
    starting.start()
    try:
        assert names_in(postgresql) == []
    finally:
        starting.join()


@pytest.mark.parametrize(("scheme", "driver"), [("postgresql", "psycopg"), ("mariadb", "pymysql")])
def test_a_driver_that_is_missing_is_named_with_its_extra(
    scheme: str, driver: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, driver, None)
    error = error_in(f"{scheme}://db/c")
    assert isinstance(error, ConfigError)
    assert f"needs the Python package {driver}" in str(error)
    extra = "mysql" if scheme == "mariadb" else scheme
    assert error.hint.startswith(f"pip install 'bakthat[{extra}]', or with pipx: ")


def test_the_password_is_found_where_psql_finds_it(
    postgresql: str, isolated_environment: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    quoted = PASSWORD.replace("\\", "\\\\").replace(":", "\\:")
    passwords = isolated_environment / ".pgpass"
    passwords.write_text(f"127.0.0.1:*:*:postgres:{quoted}\n")
    passwords.chmod(0o600)
    assert names_in(without(postgresql)) == []
    passwords.unlink()
    monkeypatch.setenv("PGPASSWORD", PASSWORD)
    assert names_in(without(postgresql)) == []


@pytest.mark.parametrize("password", ["p\u00e4ss\u20acw\u00f6rd", "0123", "true", "a+b"])
def test_a_password_may_be_any_text(
    password: str,
    postgresql_catalogs: PostgresqlCatalogs,
    mariadb_catalogs: MariadbCatalogs,
) -> None:
    postgresql, mariadb = postgresql_catalogs(), mariadb_catalogs()
    role = f"user_{postgresql.rpartition('/')[2]}"
    postgresql_catalogs.sql("postgres", f"CREATE ROLE {role} SUPERUSER LOGIN PASSWORD '{password}'")
    mariadb_catalogs.sql(
        f"CREATE OR REPLACE USER other@'%' IDENTIFIED BY '{password}';GRANT ALL ON *.* TO other@'%'"
    )
    whole = quote(PASSWORD, safe="")
    for catalog, user in ((postgresql, role), (mariadb, "other")):
        scheme, _, place = catalog.replace(f":{whole}", "").partition("://")
        place = place.partition("@")[2]
        written = quote(password, safe="+")
        assert names_in(f"{scheme}://{user}:{written}@{place}") == []
        assert names_in(f"{scheme}://{user}@{place}?password={written}") == []


@pytest.mark.parametrize(
    ("catalog", "key"),
    [("postgresql://u@h/c", "sslpassword"), ("mysql://u@h/c", "ssl_key_password")],
)
def test_the_password_of_a_key_for_tls_may_be_any_text(catalog: str, key: str) -> None:
    found = server._database(address.parse_address(f"{catalog}?{key}=0123"), 1)
    assert found.connect_params[key] == "0123"


def test_a_user_with_too_many_connections_is_tried_again(
    mariadb_catalogs: MariadbCatalogs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "CONNECT_SECONDS", 30)
    first = mariadb_catalogs()
    mariadb_catalogs.sql(
        "CREATE USER one@'%' IDENTIFIED BY 'x' WITH MAX_USER_CONNECTIONS 1;"
        "GRANT ALL ON *.* TO one@'%'"
    )
    one = f"mysql://one:x@{first.partition('@')[2]}"
    code = "import sys; from tests.test_models import add, row\nadd(sys.argv[1], row('a.1'))"
    with models.catalog(one):
        other = subprocess.Popen([sys.executable, "-c", code, one], cwd=PROJECT)
        with pytest.raises(subprocess.TimeoutExpired):
            other.wait(3)
    assert other.wait(60) == 0
    assert names_in(one) == ["a.1"]


# Tables


def test_a_newer_catalog_is_refused(catalog: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as later:
        later.setattr(models, "SCHEMA_VERSION", 99)
        add(catalog, row("a.1"))
    error = error_in(catalog)
    assert "was written by a newer bakthat (schema 99" in str(error)


def test_a_database_of_something_else_is_left_alone(
    postgresql_catalogs: PostgresqlCatalogs, postgresql: str
) -> None:
    name = postgresql.rpartition("/")[2]
    postgresql_catalogs.sql(name, "CREATE TABLE jobs (what TEXT); INSERT INTO jobs VALUES ('x')")
    error = error_in(postgresql)
    assert "has a table jobs that is not bakthat's" in str(error)
    assert postgresql_catalogs.sql(name, "SELECT * FROM jobs") == "x\n"
    tables = "SELECT count(*) FROM pg_tables WHERE schemaname = 'public'"
    assert postgresql_catalogs.sql(name, tables) == "1\n"


def test_a_database_that_cannot_hold_every_name_is_refused(
    postgresql_catalogs: PostgresqlCatalogs,
) -> None:
    script = "CREATE DATABASE latin ENCODING 'LATIN1' TEMPLATE template0 LOCALE 'C'"
    postgresql_catalogs.sql("postgres", script)
    error = error_in(postgresql_catalogs.address("latin"))
    assert str(error).endswith("/latin has the encoding LATIN1, not UTF8")
    assert error.hint.endswith("createdb -E UTF8 -T template0 latin")


def test_tables_that_a_killed_process_did_not_finish_are_made(
    catalog: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    statements = tables.statements

    def killed(kind: str, version: int) -> Any:
        for each in statements(kind, version):
            if "inventory" in each:
                raise KeyboardInterrupt
            yield each

    with monkeypatch.context() as half:
        half.setattr(tables, "statements", killed)
        with pytest.raises(KeyboardInterrupt), models.catalog(catalog):
            pytest.fail("must not open")
    add(catalog, row("a.1"))
    assert names_in(catalog) == ["a.1"]


def test_many_processes_make_the_tables_at_once(catalog: str) -> None:
    code = "import sys; from bakthat import models\nwith models.catalog(sys.argv[1]): pass"
    command = [sys.executable, "-c", code, catalog]
    started = [subprocess.Popen(command, cwd=PROJECT) for _ in range(8)]
    assert [each.wait(120) for each in started] == [0] * 8
    assert names_in(catalog) == []


# Roles


def test_a_role_that_may_only_read_reads(
    postgresql_catalogs: PostgresqlCatalogs, postgresql: str
) -> None:
    add(postgresql, row("a.1"))
    name = postgresql.rpartition("/")[2]
    postgresql_catalogs.sql(
        name,
        f"CREATE ROLE monitor_{name} LOGIN PASSWORD 'look';"
        f"GRANT SELECT ON ALL TABLES IN SCHEMA public TO monitor_{name}",
    )
    reader = postgresql_catalogs.address(name, f"monitor_{name}", "look")
    assert names_in(reader) == ["a.1"]
    with models.catalog(reader):
        assert reservations.pinned() == set()
    with pytest.raises(CatalogError, match="permission denied for table") as caught:
        add(reader, row("b.1"))
    assert str(caught.value).startswith("cannot write the catalog postgresql://monitor_")
    assert "grant it SELECT, INSERT, UPDATE and DELETE" in caught.value.hint
    assert names_in(postgresql) == ["a.1"]


@pytest.mark.parametrize("lacks", ["INSERT", "UPDATE", "DELETE"])
def test_a_right_that_a_role_lacks_is_found_without_a_change(
    lacks: str, postgresql_catalogs: PostgresqlCatalogs, postgresql: str
) -> None:
    add(postgresql, row("a.1"))
    name = postgresql.rpartition("/")[2]
    role = f"no_{lacks.lower()}_{name}"
    rights = ", ".join({"SELECT", "INSERT", "UPDATE", "DELETE"} - {lacks})
    postgresql_catalogs.sql(
        name,
        f"CREATE ROLE {role} LOGIN PASSWORD 'x';"
        f"GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO {role};"
        f"REVOKE ALL ON config FROM {role}; GRANT {rights} ON config TO {role}",
    )
    writer = postgresql_catalogs.address(name, role, "x")
    with (
        pytest.raises(CatalogError, match="permission denied for table config"),
        models.catalog(writer, write=True),
    ):
        models.check_may_write()
    with models.catalog(postgresql, write=True):
        models.check_may_write()
    assert names_in(postgresql) == ["a.1"]


def test_a_server_that_only_reads_is_said(
    postgresql_catalogs: PostgresqlCatalogs, postgresql: str
) -> None:
    add(postgresql, row("a.1"))
    name = postgresql.rpartition("/")[2]
    postgresql_catalogs.sql(
        "postgres", f"ALTER DATABASE {name} SET default_transaction_read_only = on"
    )
    assert names_in(postgresql) == ["a.1"]
    with pytest.raises(CatalogError, match="in a read-only transaction"):
        add(postgresql, row("b.1"))


# Locks


def test_a_catalog_that_another_process_writes_is_waited_for(catalog: str) -> None:
    add(catalog)
    code = (
        "import sys; from bakthat import models; from tests.test_models import row\n"
        "with models.catalog(sys.argv[1], write=True):\n"
        "    models.record(row('a.1')); print('inside', flush=True); sys.stdin.readline()"
    )
    command = [sys.executable, "-c", code, catalog]
    with subprocess.Popen(
        command, cwd=PROJECT, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as other:
        assert other.stdin is not None
        assert other.stdout is not None
        assert other.stdout.readline() == b"inside\n"
        error = error_in(catalog, write=True, patience=0)
        assert str(error).endswith("is locked by another process")
        assert names_in(catalog) == []
        ending = threading.Timer(1, lambda: other.stdin and other.stdin.close())
        ending.start()
        add(catalog, row("b.1"))
        ending.join()
    assert names_in(catalog) == ["a.1", "b.1"]


def test_a_process_that_was_killed_leaves_no_lock(catalog: str) -> None:
    add(catalog)
    code = (
        "import os, sys; from bakthat import models; from tests.test_models import row\n"
        "with models.catalog(sys.argv[1], write=True):\n"
        "    models.record(row('a.1')); os.kill(os.getpid(), 9)"
    )
    killed = subprocess.run([sys.executable, "-c", code, catalog], cwd=PROJECT)
    assert killed.returncode == -9
    add(catalog, row("b.1"))
    assert names_in(catalog) == ["b.1"]


def test_a_host_that_does_nothing_does_not_lock_the_catalog_for_ever(
    catalog: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "IDLE_SECONDS", 1)
    with pytest.raises(CatalogError, match="does not answer"):
        write_around(catalog, lambda: add_elsewhere(catalog, "c.1"))
    assert names_in(catalog) == ["c.1"]


def test_a_pooler_does_not_change_how_long_a_transaction_waits(postgresql: str) -> None:
    names = ("lock_timeout", "statement_timeout", "idle_in_transaction_session_timeout")

    def limits() -> list[str]:
        return [current.execute_sql(f"SHOW {each}").fetchone()[0] for each in names]

    with models.catalog(postgresql, patience=50):
        # Each transaction has another connection of the pooler, with what others have set there.
        current.execute_sql("SET lock_timeout = 1; SET statement_timeout = 0")
        current.execute_sql("SET idle_in_transaction_session_timeout = 0")
        with models.catalog(postgresql, write=True):
            assert limits() == ["50s", "110s", "2min"]
        assert limits() == ["1ms", "0", "0"]


def write_around(catalog: str, event: Callable[[], object]) -> None:
    """Write before and after *event* in one transaction."""
    with models.catalog(catalog, write=True):
        models.record(row("a.1"))
        event()
        models.record(row("b.1"))


def add_elsewhere(catalog: str, name: str) -> None:
    """Add a backup in another process, which waits for this one's transaction."""
    code = "import sys; from tests.test_models import add, row\nadd(sys.argv[1], row(sys.argv[2]))"
    command = [sys.executable, "-c", code, catalog, name]
    subprocess.run(command, cwd=PROJECT, check=True, timeout=60)


# A server that goes away


def cut(postgresql_catalogs: PostgresqlCatalogs, catalog: str) -> None:
    """End each connection to a catalog."""
    postgresql_catalogs.sql(
        "postgres",
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
        f" WHERE datname = '{catalog.rpartition('/')[2]}'",
    )


def test_a_block_whose_connection_is_lost_changes_nothing(
    postgresql_catalogs: PostgresqlCatalogs, postgresql: str
) -> None:
    def lose() -> None:
        cut(postgresql_catalogs, postgresql)

    def lose_and_fail() -> None:
        lose()
        raise ValueError("mine")

    def write_and_lose() -> None:
        with models.catalog(postgresql, write=True):
            models.record(row("b.1"))
            lose()

    add(postgresql, row("c.1"))
    with pytest.raises(CatalogError, match="does not answer: terminating connection") as caught:
        write_around(postgresql, lose)
    assert caught.value.hint.startswith("check that it runs")
    with pytest.raises(CatalogError, match="does not answer"):
        write_and_lose()
    with pytest.raises(ValueError, match="mine"):
        write_around(postgresql, lose_and_fail)
    assert names_in(postgresql) == ["c.1"]


def test_a_change_that_must_not_be_lost_is_tried_again(
    postgresql_catalogs: PostgresqlCatalogs,
    postgresql: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(models, "AWAY_PAUSE", 0.1)
    tried: list[int] = []

    def change() -> int:
        tried.append(len(tried))
        models.record(row("a.1"))
        if len(tried) < 3:
            cut(postgresql_catalogs, postgresql)
        return len(tried)

    with caplog.at_level(logging.WARNING):
        assert models.changed(postgresql, change) == 3
    assert names_in(postgresql) == ["a.1"]
    assert "trying again for up to 5 minutes" in caplog.text


@pytest.mark.usefixtures("impatient")
def test_it_is_not_tried_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(models, "RECORD_PATIENCE", 2)
    monkeypatch.setattr(models, "AWAY_PAUSE", 0.1)
    begun = time.monotonic()
    with pytest.raises(CatalogError, match="does not answer"):
        models.changed(f"postgresql://127.0.0.1:{free_port()}/c", lambda: None)
    assert 2 <= time.monotonic() - begun < 30


def test_an_error_of_the_change_is_not_tried_again(catalog: str) -> None:
    tried: list[int] = []

    def change() -> None:
        tried.append(1)
        raise CatalogError("mine")

    with pytest.raises(CatalogError, match="mine"):
        models.changed(catalog, change)
    assert tried == [1]


def test_an_address_with_another_password_is_the_same_open_catalog(postgresql: str) -> None:
    same = postgresql.replace("postgresql://", "postgres://")
    assert address.location_of(same) == address.location_of(postgresql)
    with models.catalog(postgresql, write=True):
        models.record(row("a.1"))
        assert names_in(same) == ["a.1"]
