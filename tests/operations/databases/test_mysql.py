"""MySQL and MariaDB: dumps of a real MariaDB, and how they are loaded again."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from bakthat.errors import DatabaseError
from bakthat.operations.sources.databases.base import Access, Database, Load
from bakthat.operations.sources.databases.mysql import MySQLServer
from bakthat.operations.sources.databases.url_parts import DatabaseUrl
from bakthat.system.programs import Program, RunningProgram, run_program
from tests.support.databases import mariadb_server
from tests.support.servers import free_port

PASSWORD = "p\"a\\ss #w'ö;\tn=d "
EVERYTHING = Path(__file__).with_name("everything.sql")


@dataclass(frozen=True)
class MariaDB:
    """A server, and its client, which is not the code under test."""

    client: list[str]
    port: int
    socket: Path

    def sql(self, text: str, database: str = "") -> str:
        """Return what SQL prints: a line a row, tabs between the fields."""
        command = [*self.client, "--binary-mode", f"--database={database}"]
        done = subprocess.run(command, input=text.encode(), capture_output=True)
        assert done.returncode == 0, done.stderr
        return done.stdout.decode()

    def url(self, kind: str = "mariadb") -> DatabaseUrl:
        return DatabaseUrl(kind, "keeper", "127.0.0.1", self.port)

    def server(self, kind: str = "mariadb") -> MySQLServer:
        return MySQLServer.from_url(self.url(kind), Access(PASSWORD))

    def names(self) -> list[str]:
        """Return the names of the databases."""
        return self.sql("SHOW DATABASES").splitlines()

    def content(self, database: str) -> list[str]:
        """Return each row and each definition of a database."""
        found = [self.sql("SELECT @@character_set_database, @@collation_database", database)]
        tables = self.sql("SHOW FULL TABLES", database).splitlines()
        for name, kind in (line.split("\t") for line in tables):
            quoted = f"`{name.replace('`', '``')}`"
            found.append(self.sql(f"SHOW CREATE TABLE {quoted}", database))
            columns = self.sql(
                "SELECT CONCAT('HEX(CAST(`', REPLACE(column_name, '`', '``'), '` AS BINARY))')"
                " FROM information_schema.columns WHERE table_schema = DATABASE()"
                f" AND table_name = '{name}' ORDER BY ordinal_position",
                database,
            ).splitlines()
            if kind == "SYSTEM VERSIONED":
                columns += ["row_start", "row_end"]
                quoted += " FOR SYSTEM_TIME ALL"
            order = ",".join(str(number + 1) for number in range(len(columns)))
            query = f"SELECT {','.join(columns)} FROM {quoted} ORDER BY {order}"
            found.append(self.sql(query, database))
        for table, columns_of in {
            "triggers": "trigger_name, event_manipulation, event_object_table, action_order,"
            " action_statement, action_timing, database_collation",
            "routines": "routine_name, routine_type, data_type, dtd_identifier, routine_definition,"
            " is_deterministic, security_type, routine_comment, database_collation",
            "events": "event_name, event_definition, interval_value, interval_field, starts, ends,"
            " status, on_completion, event_comment, time_zone, database_collation",
        }.items():
            found.append(
                self.sql(
                    f"SELECT {columns_of}, sql_mode, definer, character_set_client,"
                    f" collation_connection FROM information_schema.{table}"
                    f" WHERE {table[:-1]}_schema = DATABASE() ORDER BY 1, 2",
                    database,
                )
            )
        parameters = "SELECT specific_name, ordinal_position, parameter_mode, parameter_name,"
        parameters += " dtd_identifier FROM information_schema.parameters"
        found.append(self.sql(f"{parameters} WHERE specific_schema = DATABASE()", database))
        return found


@pytest.fixture(scope="module")
def mariadb(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MariaDB]:
    """Run a server with a database ``shop``; and ``all``, which has everything."""
    home, port = tmp_path_factory.mktemp("mariadb"), free_port()
    with mariadb_server(home, port=port) as client:
        running = MariaDB(client, port, home / "socket")
        password = PASSWORD.replace("\\", r"\\").replace("'", r"\'")
        running.sql(
            f"CREATE USER keeper@'%' IDENTIFIED BY '{password}';"
            "GRANT ALL ON *.* TO keeper@'%' WITH GRANT OPTION;"
            "CREATE USER app@'%' IDENTIFIED BY 'apple'; GRANT ALL ON `all`.* TO app@'%';"
            "CREATE DATABASE `all` CHARACTER SET latin1 COLLATE latin1_german1_ci"
            " COMMENT 'it''s; \"all\"'"
        )
        running.sql(EVERYTHING.read_text(), "all")
        yield running


@pytest.fixture
def scrap(mariadb: MariaDB) -> Iterator[None]:
    """Remove the databases that a test makes."""
    before = set(mariadb.names())
    yield
    for name in set(mariadb.names()) - before:
        quoted = name.replace("`", "``")
        mariadb.sql(f"DROP DATABASE `{quoted}`")


pytestmark = pytest.mark.usefixtures("scrap")


def dump_of(database: Database) -> bytes:
    database.check()
    ended, dump = run_program(database.dump(), timeout=None)
    assert ended.succeeded, ended.problem()
    return dump


def feed(program: Program, dump: bytes) -> None:
    with RunningProgram(program, stdin=True) as running:
        running.stdin.write(dump)
        running.stdin.close()
        ended = running.wait()
    assert ended.succeeded, ended.problem()


def load_into(load: Load, dump: bytes) -> None:
    try:
        feed(load.program, dump)
        load.commit()
    finally:
        load.close()


@pytest.mark.parametrize("kind", ["mariadb", "mysql"])
def test_a_database_comes_back_whole_under_another_name(mariadb: MariaDB, kind: str) -> None:
    server = mariadb.server(kind)
    original = server.database("all")
    assert (original.dump_kind, original.name, original.dump_name) == (kind, "all", "all.sql")
    assert original.url == f"{kind}://keeper@127.0.0.1:{mariadb.port}/all"
    load_into(server.database("copy").load(replace=False), dump_of(original))
    assert mariadb.content("copy") == mariadb.content("all")
    assert '"all"\'' in mariadb.sql("SHOW CREATE DATABASE copy")


def test_a_replaced_database_is_whole_too(mariadb: MariaDB) -> None:
    mariadb.sql(
        "CREATE DATABASE busy; CREATE TABLE busy.gone (id INT); CREATE VIEW busy.v AS SELECT 1"
    )
    server, before = mariadb.server(), mariadb.names()
    load_into(server.database("busy").load(replace=True), dump_of(server.database("all")))
    assert mariadb.content("busy") == mariadb.content("all")
    assert mariadb.names() == before


def test_a_socket_is_used(mariadb: MariaDB) -> None:
    url = DatabaseUrl("mysql", "root", socket=str(mariadb.socket))
    server = MySQLServer.from_url(url, Access("mypassword"))
    assert b"w\\'ith" not in dump_of(server.database("shop"))
    with pytest.raises(DatabaseError, match="Access denied"):
        MySQLServer.from_url(url, Access("wrong")).databases()
