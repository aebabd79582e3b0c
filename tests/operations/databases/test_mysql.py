"""MySQL and MariaDB: dumps of a real MariaDB, and how they are loaded again."""

from __future__ import annotations

import io
import logging
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

import bakthat
from bakthat.errors import DatabaseError
from bakthat.operations.sources.databases.base import Access, Database, Load
from bakthat.operations.sources.databases.mysql import MySQLServer
from bakthat.operations.sources.databases.mysql_privileges import unseen
from bakthat.operations.sources.databases.url_parts import DatabaseUrl
from bakthat.system.programs import Program, RunningProgram, run_program
from tests.support.databases import mariadb_server
from tests.support.processes import own_processes
from tests.support.profiles import Conf
from tests.support.servers import free_port

PASSWORD = "p\"a\\ss #w'ö;\tn=d "
KEEPER = Access(PASSWORD)
EVERYTHING = Path(__file__).with_name("everything.sql")


@dataclass(frozen=True)
class MariaDB:
    """A server, and its client, which is not the code under test."""

    client: list[str]
    port: int
    socket: Path

    def sql(self, text: str, database: str = "") -> str:
        """Return what SQL prints: a line a row, tabs between the fields."""
        command = [*self.client, "--binary-mode", "--raw", f"--database={database}"]
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
        mariadb.sql(f"SET foreign_key_checks = 0; DROP DATABASE `{quoted}`")


pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("scrap")]


def dump_of(database: Database) -> bytes:
    database.check()
    with RunningProgram(database.dump(), stdout=True) as running:
        dump = io.BufferedReader(running.stdout).read()
        ended = running.wait()
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


def test_the_character_set_of_another_database_stays(mariadb: MariaDB) -> None:
    mariadb.sql(
        "CREATE DATABASE changed CHARACTER SET latin1; USE changed; CREATE TABLE t (a TEXT);"
        "CREATE PROCEDURE p() SELECT 1; CREATE TRIGGER tr BEFORE INSERT ON t FOR EACH ROW DO 1;"
        "CREATE EVENT e ON SCHEDULE EVERY 1 DAY DO DO 1;"
        "ALTER DATABASE CHARACTER SET utf8mb4 COLLATE utf8mb4_unicode_ci"
    )
    before = mariadb.content("changed")
    dump = dump_of(mariadb.server().database("changed"))
    # Its procedure, trigger and event are of latin1, so the dump sets that while it makes them.
    assert len(re.findall(rb"^ALTER DATABASE CHARACTER SET latin1 ", dump, re.M)) == 3
    assert b"`changed`" not in dump
    load_into(mariadb.server().database("copy").load(replace=False), dump)
    assert mariadb.content("copy") == before
    mariadb.sql("DROP DATABASE changed")
    load_into(mariadb.server().database("another").load(replace=False), dump)
    assert mariadb.content("another") == before


@pytest.mark.parametrize(
    "name",
    [
        "x`; DROP DATABASE shop; -- -",
        "--help",
        "-e",
        "a b",
        "ünï ☃",
        "'\"\\",
        "%s %d",
        "$HOME;ls",
        "../up",
    ],
)
def test_a_name_is_a_name(mariadb: MariaDB, name: str) -> None:
    server, dump = mariadb.server(), dump_of(mariadb.server().database("shop"))
    load_into(server.database(name).load(replace=False), dump)
    assert {name, "shop"} <= set(mariadb.names())
    assert name in [each.name for each in server.databases()]
    assert mariadb.content(name) == mariadb.content("shop")
    mariadb.sql(f"INSERT INTO `{name.replace('`', '``')}`.orders VALUES (9, 'nine', NULL)")
    again = dump_of(server.database(name))
    load_into(server.database(name).load(replace=True), again)
    assert dump_of(server.database(name)).count(b"nine") == 1


@pytest.mark.parametrize("name", ["", "a\0b"])
def test_no_database_has_such_a_name(mariadb: MariaDB, name: str) -> None:
    with pytest.raises(DatabaseError, match="no database can have the name"):
        mariadb.server().database(name)


def test_names_that_differ_in_case_are_two_databases(mariadb: MariaDB) -> None:
    mariadb.sql(
        "CREATE DATABASE Shop; CREATE DATABASE SHOP; CREATE TABLE SHOP.m (i INT) ENGINE=Aria"
    )
    load_into(
        mariadb.server().database("Shop").load(replace=False),
        dump_of(mariadb.server().database("shop")),
    )
    assert mariadb.content("Shop") == mariadb.content("shop")
    assert mariadb.sql("SHOW TABLES", "SHOP") == "m\n"


def test_large_rows_come_back(mariadb: MariaDB) -> None:
    mariadb.sql("SET GLOBAL max_allowed_packet = 256 << 20")
    try:
        mariadb.sql(
            "CREATE DATABASE large; CREATE TABLE large.t (id INT, b LONGBLOB, c LONGTEXT);"
            "INSERT INTO large.t VALUES (1, REPEAT(x'00ff', 10 << 20), REPEAT('\\'é', 5 << 20))"
        )
        dump = dump_of(mariadb.server().database("large"))
        load_into(mariadb.server().database("copy").load(replace=False), dump)
        sums = "SELECT id, MD5(b), LENGTH(b), MD5(c), LENGTH(c) FROM t"
        assert mariadb.sql(sums, "copy") == mariadb.sql(sums, "large")
    finally:
        mariadb.sql("SET GLOBAL max_allowed_packet = DEFAULT")


def test_tables_without_transactions_are_counted(
    mariadb: MariaDB, caplog: pytest.LogCaptureFixture
) -> None:
    mariadb.sql(
        "CREATE DATABASE mixed; USE mixed; CREATE TABLE a (i INT) ENGINE=MyISAM;"
        "CREATE TABLE b (i INT) ENGINE=Aria; CREATE TABLE c (i INT) ENGINE=Aria;"
        "CREATE TABLE d (i INT); CREATE VIEW e AS SELECT * FROM a; CREATE SEQUENCE f"
    )
    mariadb.server().database("mixed").check()
    assert caplog.messages == [
        f"3 tables of mariadb://keeper@127.0.0.1:{mariadb.port}/mixed cannot be dumped consistently"
        " while in use: Aria or MyISAM has no transactions"
    ]
    mariadb.server().database("shop").check()
    assert len(caplog.messages) == 1


def test_numbers_that_lose_digits_are_told(
    mariadb: MariaDB, caplog: pytest.LogCaptureFixture
) -> None:
    mariadb.sql("CREATE DATABASE sums; CREATE TABLE sums.t (a DOUBLE, b FLOAT(10,2))")
    mariadb.server().database("sums").check()
    assert not caplog.records
    mariadb.sql("CREATE TABLE sums.lossy (a FLOAT); INSERT INTO sums.lossy VALUES (16777215);"
                "CREATE VIEW sums.v AS SELECT a FROM sums.lossy")  # fmt: skip
    dump = dump_of(mariadb.server().database("sums"))
    assert b"16777200" in dump
    assert "numbers in 1 column of mariadb://" in caplog.text


def test_what_a_user_cannot_see_is_told(mariadb: MariaDB) -> None:
    mariadb.sql(
        "CREATE USER `weak`@`%` IDENTIFIED BY 'w'; GRANT SELECT, LOCK TABLES, SHOW VIEW, EVENT"
        " ON `a%`.* TO `weak`@`%`; CREATE DATABASE abc; CREATE TABLE abc.t (i INT);"
        "CREATE PROCEDURE abc.p() SELECT 1; CREATE TRIGGER abc.tr BEFORE INSERT ON abc.t"
        " FOR EACH ROW DO 1"
    )
    url = DatabaseUrl("mariadb", "weak", "127.0.0.1", mariadb.port)
    weak = MySQLServer.from_url(url, Access("w")).database("abc")
    lacks, dump = weak.check(), dump_of(weak)
    # The grant for the name itself takes the place of the one for names like it.
    mariadb.sql(
        "GRANT SELECT, LOCK TABLES, SHOW VIEW, EVENT, TRIGGER ON abc.* TO `weak`@`%`;"
        "GRANT SELECT ON mysql.proc TO `weak`@`%`"
    )
    able = MySQLServer.from_url(url, Access("w")).database("abc")
    assert able.check() == []
    whole = dump_of(able)
    mariadb.sql("DROP USER `weak`@`%`")
    assert lacks == [
        f"triggers of {weak.url} may be missing in the dump: the user lacks the privilege TRIGGER",
        f"routines of {weak.url} may be missing in the dump: the user lacks the privilege SELECT ON"
        " mysql.proc or SHOW_ROUTINE",
    ]
    for made in (b"PROCEDURE `p`", b"TRIGGER abc.tr"):
        assert made not in dump
        assert made in whole


@pytest.mark.parametrize(
    ("grants", "names"),
    [
        (["GRANT ALL PRIVILEGES ON *.* TO `a`@`%` WITH GRANT OPTION"], []),
        (["GRANT ALL PRIVILEGES ON `my_shop`.* TO `a`@`%`"], []),
        (["GRANT ALL PRIVILEGES ON `my\\_shop`.* TO `a`@`%`"], []),
        (["GRANT ALL PRIVILEGES ON `my%`.* TO `a`@`%`"], []),
        (["GRANT ALL PRIVILEGES ON `%`.* TO `a`@`%`"], []),
        (["GRANT ALL PRIVILEGES ON `my`.* TO `a`@`%`"], ["SELECT", "TRIGGER", "routines"]),
        (["GRANT ALL PRIVILEGES ON `my_sh\\%p`.* TO `a`@`%`"], ["SELECT", "TRIGGER", "routines"]),
        (["GRANT SELECT ON `my_shop`.`orders` TO `a`@`%`"], ["SELECT", "TRIGGER", "routines"]),
        (["GRANT SELECT, TRIGGER ON *.* TO `a`@`%`"], []),
        (["GRANT SELECT, TRIGGER ON `my_shop`.* TO `a`@`%`"], ["routines"]),
        (["GRANT SELECT, EXECUTE, TRIGGER ON `my_shop`.* TO `a`@`%`"], []),
        (["GRANT SELECT ON *.* TO `a`@`%`", "GRANT SHOW_ROUTINE ON *.* TO `a`@`%`"], ["TRIGGER"]),
        (["GRANT `reader` TO `a`@`%`", "GRANT SELECT, TRIGGER ON *.* TO `reader`"], []),
        (["GRANT USAGE ON *.* TO `a`@`%`", "GRANT `reader`@`%` TO `a`@`%`"], []),
        (
            [
                "GRANT SELECT ON `my_shop`.* TO `a`@`%`",
                "GRANT ALL PRIVILEGES ON `my%`.* TO `a`@`%`",
            ],
            ["TRIGGER", "routines"],
        ),
        ([], ["SELECT", "TRIGGER", "routines"]),
    ],
)
def test_privileges_that_are_missing_are_named(grants: list[str], names: list[str]) -> None:
    found = [
        what if what == "routines" else name for what, name in unseen(grants, "my_shop").items()
    ]
    assert found == names


def test_each_database_and_the_users_are_listed(
    mariadb: MariaDB, caplog: pytest.LogCaptureFixture
) -> None:
    left = "bakthat_drill_0123456789abcdef"
    mariadb.sql(f"CREATE DATABASE {left}; CREATE DATABASE bakthat_drill")
    caplog.set_level("INFO")
    found = [(each.dump_kind, each.name) for each in mariadb.server().databases()]
    assert found == [
        ("mariadb", "all"),
        ("mariadb", "bakthat_drill"),
        ("mariadb", "shop"),
        ("mariadb-users", "mariadb-users"),
    ]
    assert [each for each in caplog.messages if "left out" in each] == [
        f"{left} is left out: a restore or a drill has made it"
    ]
    assert mariadb.server().leftovers() == [left]


def test_the_users_come_back_with_their_passwords_and_privileges(mariadb: MariaDB) -> None:
    # Who grants privileges has them, and only root may be every user's proxy.
    url = DatabaseUrl("mariadb", "root", socket=str(mariadb.socket))
    users = MySQLServer.from_url(url, Access("mypassword")).users()
    assert (users.name, users.dump_name) == ("mariadb-users", "mariadb-users.sql")
    assert users.url == url.shown
    mariadb.sql(
        "CREATE ROLE seller; GRANT SELECT ON shop.* TO seller;"
        "CREATE USER 'o`dd''u'@'10.%' IDENTIFIED BY 'x'; GRANT seller TO 'o`dd''u'@'10.%';"
        "GRANT INSERT (id), UPDATE ON shop.orders TO 'o`dd''u'@'10.%' WITH GRANT OPTION"
    )
    shown = "SHOW GRANTS FOR 'o`dd''u'@'10.%'; SHOW GRANTS FOR app@'%'; SHOW GRANTS FOR seller"
    before, dump = mariadb.sql(shown), dump_of(users)
    mariadb.sql("DROP USER 'o`dd''u'@'10.%', app@'%'; DROP ROLE seller; CREATE USER later")
    with pytest.raises(DatabaseError, match="has users: keeper, later") as refused:
        users.load(replace=False)
    assert "--replace" in refused.value.hint
    load_into(users.load(replace=True), dump)
    assert mariadb.sql(shown) == before
    assert mariadb.sql("SELECT COUNT(*) FROM mysql.user WHERE user = 'later'") == "1\n"
    app = MySQLServer.from_url(
        DatabaseUrl("mysql", "app", "127.0.0.1", mariadb.port), Access("apple")
    )
    assert [each.name for each in app.databases()][:1] == ["all"]
    mariadb.sql("DROP USER 'o`dd''u'@'10.%', later; DROP ROLE seller")


def test_a_database_that_is_not_empty_is_refused(mariadb: MariaDB) -> None:
    server = mariadb.server()
    for made, what in {
        "TABLE t (i INT)": "tables and views: 1",
        "VIEW v AS SELECT 1": "tables and views: 1",
        "FUNCTION f() RETURNS INT RETURN 1": "routines: 1",
        "EVENT e ON SCHEDULE EVERY 1 DAY DO DO 1": "events: 1",
    }.items():
        mariadb.sql("CREATE OR REPLACE DATABASE used")
        mariadb.sql(f"CREATE {made}", "used")
        with pytest.raises(DatabaseError) as refused:
            server.database("used").load(replace=False)
        assert str(refused.value).endswith(f"/used is not empty ({what})")
        assert "--replace" in refused.value.hint
    with pytest.raises(DatabaseError, match="a database of the server's own"):
        server.database("mysql").load(replace=True)


def cut_load(load: Load, dump: bytes) -> None:
    """Load the beginning of a dump, as when the storage fails behind it."""
    with RunningProgram(load.program, stdin=True) as running:
        running.stdin.write(dump)
        running.stdin.close()
        running.wait()
    load.close()


def test_a_load_that_is_cut_leaves_the_old_database(mariadb: MariaDB) -> None:
    dump = dump_of(mariadb.server().database("all")).replace(b"tea;", b"coffee;")
    names, before = mariadb.names(), mariadb.content("shop")
    half = dump[: len(dump) // 2]
    cut_load(mariadb.server().database("shop").load(replace=True), half)
    cut_load(mariadb.server().database("new").load(replace=False), half)
    cut_load(mariadb.server().scratch(), half)
    assert (mariadb.names(), mariadb.content("shop")) == (names, before)


@pytest.mark.parametrize("is_there", [False, True])
def test_a_database_that_is_being_loaded_is_refused(mariadb: MariaDB, is_there: bool) -> None:
    dump = dump_of(mariadb.server().database("shop"))
    if is_there:
        mariadb.sql("CREATE DATABASE fresh")
    first = mariadb.server().database("fresh").load(replace=False)
    with pytest.raises(DatabaseError, match="is not empty"):
        mariadb.server().database("fresh").load(replace=False)
    load_into(first, dump)
    assert mariadb.content("fresh") == mariadb.content("shop")


def test_a_database_that_was_replaced_meanwhile_is_told(mariadb: MariaDB) -> None:
    dump = dump_of(mariadb.server().database("shop"))
    first = mariadb.server().database("fresh").load(replace=True)
    load_into(mariadb.server().database("fresh").load(replace=True), dump)
    with pytest.raises(DatabaseError, match="somebody else has replaced fresh"):
        load_into(first, dump)
    first.close()
    assert mariadb.content("fresh") == mariadb.content("shop")


def test_a_load_that_is_cut_leaves_an_empty_database_empty(mariadb: MariaDB) -> None:
    mariadb.sql("CREATE DATABASE empty CHARACTER SET latin2 COMMENT 'mine'")
    before = mariadb.content("empty"), mariadb.sql("SHOW CREATE DATABASE empty")
    dump = dump_of(mariadb.server().database("all"))
    cut_load(
        mariadb.server().database("empty").load(replace=False), dump[: dump.index(b"CREATE VIEW")]
    )
    assert (mariadb.content("empty"), mariadb.sql("SHOW CREATE DATABASE empty")) == before


def test_a_copy_that_fails_says_where_the_whole_one_is(
    mariadb: MariaDB, caplog: pytest.LogCaptureFixture
) -> None:
    mariadb.sql(
        "CREATE DATABASE busy; CREATE TABLE busy.t (b LONGBLOB);"
        "INSERT INTO busy.t VALUES (REPEAT('x', 3 << 20))"
    )
    dump, before = dump_of(mariadb.server().database("busy")), mariadb.content("busy")
    load = mariadb.server().database("busy").load(replace=True)
    try:
        feed(load.program, dump)
        assert mariadb.content("busy") == before
        mariadb.sql("SET GLOBAL max_allowed_packet = 1 << 20")
        with pytest.raises(DatabaseError, match=r"max_allowed_packet|gone away"):
            load.commit()
    finally:
        mariadb.sql("SET GLOBAL max_allowed_packet = DEFAULT")
        load.close()
    (kept,) = [name for name in mariadb.names() if name.startswith("bakthat_restore_")]
    assert mariadb.content(kept) == before
    assert (
        f"what was loaded is whole in mariadb://keeper@127.0.0.1:{mariadb.port}/{kept}"
        in caplog.text
    )


@pytest.mark.parametrize(
    ("broken", "problem"),
    [
        ("\0 of another kind of machine", "cannot copy the database: exec format error"),
        ("#!/bin/sh\nexec true\n", "mariadb has not read all of the copy"),
    ],
    ids=["cannot start", "reads nothing"],
)
def test_a_client_that_breaks_before_the_copy_loses_nothing(
    mariadb: MariaDB, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, broken: str, problem: str
) -> None:
    mariadb.sql(
        "CREATE DATABASE large; CREATE TABLE large.t (b LONGBLOB);"
        "INSERT INTO large.t VALUES (REPEAT('x', 3 << 20))"
    )
    before = mariadb.content("large")
    load = mariadb.server().database("large").load(replace=True)
    feed(load.program, dump_of(mariadb.server().database("large")))
    # The client is replaced when it runs the last statement before the copy.
    client, other = tmp_path / "mariadb", tmp_path / "other"
    client.write_text(
        "#!/bin/sh\nsql=$(cat)\n"
        f"case $sql in *'CREATE TABLE bakthat_restore'*) mv {other} {client};; esac\n"
        f'printf %s "$sql" | {shutil.which("mariadb")} "$@"\n'
    )
    other.write_text(broken)
    for each in (client, other):
        each.chmod(0o755)
    with monkeypatch.context() as patched:
        patched.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
        with pytest.raises(DatabaseError, match=f"^{problem}$"):
            load.commit()
    load.close()
    (kept,) = [name for name in mariadb.names() if name.startswith("bakthat_restore_")]
    assert mariadb.content(kept) == before


def test_a_user_who_may_not_make_tables_is_told(mariadb: MariaDB) -> None:
    mariadb.sql(
        "CREATE DATABASE empty; CREATE USER reader@'%' IDENTIFIED BY 'pear';"
        "GRANT SELECT ON empty.* TO reader@'%'"
    )
    try:
        url = DatabaseUrl("mariadb", "reader", "127.0.0.1", mariadb.port)
        database = MySQLServer.from_url(url, Access("pear")).database("empty")
        with pytest.raises(
            DatabaseError, match=r"^cannot begin to load into empty: .* CREATE command denied"
        ):
            database.load(replace=False)
    finally:
        mariadb.sql("DROP USER reader@'%'")


def test_a_drill_leaves_nothing_and_runs_no_event(mariadb: MariaDB) -> None:
    before = mariadb.names()
    load = mariadb.server().scratch()
    try:
        feed(load.program, dump_of(mariadb.server().database("all")))
        load.commit()
        name = load.target().rpartition("/")[2]
        assert name in mariadb.names()
        assert load.query("SELECT id, note, 'NULL' AS `a\"<b` FROM parent ORDER BY id") == [
            ["1", "one", "NULL"],
            ["2", None, "NULL"],
        ]
        assert load.query("SELECT '<é>\t&amp;\n\\\\', 1; SELECT 2") == [
            ["<é>\t&amp;\n\\", "1"],
            ["2"],
        ]
        assert load.query("SELECT 1 FROM parent WHERE id = 0") == []
        assert load.query(
            "SELECT DISTINCT status FROM information_schema.events WHERE event_schema = DATABASE()"
        ) == [["DISABLED"]]
        with pytest.raises(DatabaseError, match=r"Table .*nowhere' doesn't exist"):
            load.query("SELECT 1 FROM nowhere")
    finally:
        load.close()
        load.close()
    assert mariadb.names() == before


def test_no_shell_is_run_by_a_dump_or_a_query(mariadb: MariaDB, tmp_path: Path) -> None:
    made = tmp_path / "made"
    load = mariadb.server().scratch()
    try:
        with pytest.raises(DatabaseError):
            load.query(f"\\! touch {made}")
        with pytest.raises(AssertionError, match="Unknown command"):
            feed(load.program, f"\\! touch {made}\n".encode())
    finally:
        load.close()
    assert not made.exists()


def command_lines() -> list[str]:
    """Return the command line and the environment of each process below this one."""
    found = []
    for process in own_processes():
        try:
            text = (process / "cmdline").read_bytes() + b"\n" + (process / "environ").read_bytes()
        except OSError:
            continue
        found.append(text.decode("utf-8", "replace"))
    return found


def test_no_process_shows_the_password(mariadb: MariaDB, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    mariadb.sql("CREATE DATABASE large; CREATE TABLE large.t AS SELECT REPEAT('x', 4 << 20) AS a")
    database = mariadb.server().database("large")
    program = database.dump()
    assert PASSWORD not in repr(program)
    with RunningProgram(program, stdout=True) as running:
        assert running.stdout.readinto(bytearray(1000))
        lines = command_lines()
    load = mariadb.server().scratch()
    with RunningProgram(load.program, stdin=True) as running:
        running.stdin.write(b"-- more than a pipe holds\n" * 200_000)
        lines += command_lines()
    load.close()
    wanted = [line for line in lines if "--defaults-file=/dev/fd/" in line]
    assert any("mariadb-dump\0" in line for line in wanted)
    assert any(line.startswith("mariadb\0") for line in wanted)
    assert not [line for line in lines if PASSWORD in line or PASSWORD[:8] in line]
    assert PASSWORD[:8] not in caplog.text


def test_a_message_masks_the_password(mariadb: MariaDB) -> None:
    load = mariadb.server().scratch()
    with pytest.raises(DatabaseError, match=r"Unknown column 'x\*\*\*x'"):
        load.query(f"SELECT `x{PASSWORD}x`")
    load.close()


def test_what_fails_does_not_show_the_rows(mariadb: MariaDB) -> None:
    load = mariadb.server().scratch()
    with RunningProgram(load.program, stdin=True) as running:
        running.stdin.write(b"CREATE TABLE t (i INT PRIMARY KEY, w TEXT);\n")
        running.stdin.write(b"INSERT INTO t VALUES (1, 'a secret'), (1, 'another');\n")
        running.stdin.close()
        ended = running.wait()
    load.close()
    assert ended.stderr.startswith("ERROR 1062 (23000) at line 2: Duplicate entry '1' for key")
    assert "secret" not in ended.stderr


def refusal(url: DatabaseUrl, access: Access = KEEPER) -> tuple[str, str]:
    """Return the message and the hint of a check of a database, whose lines are one each."""
    with pytest.raises(DatabaseError) as refused:
        MySQLServer.from_url(url, access).database(url.name or "shop").check()
    assert "\n" not in str(refused.value)
    return str(refused.value), refused.value.hint


def test_a_wrong_password_is_one_line(mariadb: MariaDB) -> None:
    message, hint = refusal(mariadb.url(), Access("wrong word"))
    where = f"mariadb://keeper@127.0.0.1:{mariadb.port}"
    assert message.startswith(f"cannot log in to {where}: Access denied for user 'keeper'@")
    assert message.endswith("(using password: YES)")
    assert "database_password_file, database_password_command or database_password" in hint
    message, _ = refusal(mariadb.url(), Access())
    assert message.endswith("(using password: NO)")


def test_a_server_that_is_down_is_one_line() -> None:
    port = free_port()
    message, hint = refusal(DatabaseUrl("mysql", "me", "127.0.0.1", port))
    assert message.startswith(f"cannot connect to mysql://me@127.0.0.1:{port}: Can't connect to ")
    assert hint == "check the host and the port, and that the server runs"
    message, _ = refusal(DatabaseUrl("mysql", "me", socket="/nowhere/socket"))
    assert "cannot connect to mysql://me@%2Fnowhere%2Fsocket: Can't connect to local" in message


def test_a_missing_database_is_one_line(mariadb: MariaDB) -> None:
    message, hint = refusal(mariadb.url().of("shpo"))
    where = f"mariadb://keeper@127.0.0.1:{mariadb.port}"
    assert (message, hint) == (f"'{where}' has no database 'shpo'", "did you mean shop?")
    assert refusal(mariadb.url().of("zzz"))[1] == "its databases: all, shop"


def test_a_missing_program_is_one_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert refusal(DatabaseUrl("mariadb")) == (
        "mariadb-dump is not installed",
        "on Debian: apt install mariadb-client",
    )
    assert refusal(DatabaseUrl("mysql")) == (
        "mysqldump is not installed",
        "on Debian: apt install default-mysql-client",
    )


def test_a_broken_program_is_one_line(
    mariadb: MariaDB, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    broken = tmp_path / "mariadb-dump"
    broken.write_text("#!/bin/sh\necho 'cannot open shared object file' >&2; exit 127\n")
    broken.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    for look in (mariadb.server().databases, mariadb.server().database("shop").check):
        with pytest.raises(DatabaseError, match=r"^mariadb-dump ended with exit code 127: c"):
            look()


def test_settings_of_the_user_make_no_dump_and_no_load_less(mariadb: MariaDB) -> None:
    settings = Path.home() / ".my.cnf"
    settings.write_text(
        f"[client]\nsocket={mariadb.socket}\npassword=wrong\n[mariadb-client]\nforce\nskip-column-names\n"
        "[mysqldump]\nforce\nskip-comments\nskip-opt\nskip-extended-insert\nskip-events\n"
    )
    server = mariadb.server()
    load_into(server.database("copy").load(replace=False), dump_of(server.database("all")))
    assert mariadb.content("copy") == mariadb.content("all")
    load = server.scratch()
    with RunningProgram(load.program, stdin=True) as running:
        running.stdin.write(b"NONSENSE; CREATE TABLE t (i INT);")
        running.stdin.close()
        assert running.wait().exit_code == 1
    assert load.query("SHOW TABLES") == []
    load.close()
    # What the URL does not say is taken from there.
    local = MySQLServer.from_url(DatabaseUrl("mariadb", "root"), Access("mypassword"))
    assert [each.name for each in local.databases()][-1] == "mariadb-users"


@pytest.mark.parametrize(
    "setting",
    ["databases", "no-data", "no-create-info", "compact", "quote-names=0", "set-charset=0",
     "skip-tz-utc"],
)  # fmt: skip
def test_no_setting_of_the_user_makes_another_dump(mariadb: MariaDB, setting: str) -> None:
    Path.home().joinpath(".my.cnf").write_text(f"[mysqldump]\n{setting}\n")
    mariadb.sql("CREATE DATABASE mine; CREATE TABLE mine.t (a TEXT); INSERT INTO mine.t VALUES (1)")
    dump = dump_of(mariadb.server().database("mine"))
    mariadb.sql("UPDATE mine.t SET a = 'newer'")
    load_into(mariadb.server().database("copy").load(replace=False), dump)
    assert mariadb.sql("SELECT * FROM copy.t") == "1\n"
    assert mariadb.sql("SELECT * FROM mine.t") == "newer\n"
    for statement in (b"\nUSE ", b"SET NAMES utf8mb4", b"SET TIME_ZONE='+00:00'", b"TABLE `t`"):
        assert (statement in dump) == (statement != b"\nUSE ")


@pytest.mark.parametrize(
    "setting", ["where=1=0", "ignore_table=mine.t", "ignore-table-data=mine.t"]
)
def test_a_setting_by_which_a_dump_lacks_something_is_told(mariadb: MariaDB, setting: str) -> None:
    Path.home().joinpath(".my.cnf").write_text(f"[mysqldump]\n{setting}\n")
    mariadb.sql("CREATE DATABASE mine")
    (told,) = mariadb.server().database("mine").check()
    name = setting.partition("=")[0].replace("_", "-")
    assert f"may lack something: an option file such as ~/.my.cnf has '{name}'" in told
    assert PASSWORD not in told


def test_the_dump_of_mysql_gets_its_options(
    mariadb: MariaDB, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The lines of the help of mysqldump 8.0 that count.
    known = "  -y, --no-tablespaces\n  --column-statistics\n  --set-gtid-purged[=name]\n"
    script = tmp_path / "mysqldump"
    script.write_text(f"#!/bin/sh\necho '{known}'\n")
    script.chmod(0o755)
    (tmp_path / "mysql").symlink_to(shutil.which("mariadb") or "")
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    program = mariadb.server("mysql").database("shop").dump()
    assert program.name == "mysqldump"
    assert program.arguments[6:8] == ("mysqldump", "--defaults-file={secret-file}")
    assert program.arguments[-5:] == (
        "--no-tablespaces",
        "--set-gtid-purged=OFF",
        "--column-statistics=0",
        "--",
        "shop",
    )
    assert mariadb.server("mysql").databases()[-1].name == "shop"
    with pytest.raises(DatabaseError, match="mysqldump cannot dump users"):
        mariadb.server("mysql").users().check()


def test_users_are_not_restored_where_no_program_knows_them(
    mariadb: MariaDB, local: Conf, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    conf = {**local, "password": "", "database_password": PASSWORD}
    url = mariadb.url().shown
    bakthat.backup_databases(url, conf=conf)
    older = tmp_path / "mariadb-dump"
    older.write_text("#!/bin/sh\necho '  --no-tablespaces'\n")
    older.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    with pytest.raises(DatabaseError, match="has nothing into which a dump of mariadb-users can"):
        bakthat.restore("mariadb-users", conf=conf, into=url)


def test_a_foreign_key_of_another_database_holds_again(mariadb: MariaDB) -> None:
    mariadb.sql(
        "CREATE DATABASE parents; CREATE TABLE parents.p (id INT PRIMARY KEY);"
        "INSERT INTO parents.p VALUES (1); CREATE DATABASE children;"
        "CREATE TABLE children.c (p INT, FOREIGN KEY (p) REFERENCES parents.p (id));"
        "INSERT INTO children.c VALUES (1)"
    )
    parents = mariadb.server().database("parents")
    load_into(parents.load(replace=True), dump_of(parents))
    with pytest.raises(AssertionError, match="ERROR 1451"):  # a row has a child
        mariadb.sql("DELETE FROM parents.p")


def test_a_dump_that_fails_is_one(mariadb: MariaDB) -> None:
    mariadb.sql(
        "CREATE DATABASE bad; CREATE TABLE bad.t (i INT); CREATE VIEW bad.v AS"
        " SELECT * FROM bad.t; DROP TABLE bad.t"
    )
    ended, dump = run_program(mariadb.server().database("bad").dump())
    assert dump
    assert not ended.succeeded
    assert "View 'bad.v' references invalid table(s)" in ended.problem()


@pytest.fixture
def docker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Put a program ``docker`` in PATH, which runs programs here; return the file it writes.

    The file has a line for each program.
    """
    calls, script = tmp_path / "calls", tmp_path / "bin" / "docker"
    script.parent.mkdir()
    script.write_text(
        f'#!/bin/sh\necho "$*" >> {calls}\nshift 3\nPATH=${{INSIDE:-$PATH}} exec "$@"\n'
    )
    script.chmod(0o755)
    monkeypatch.setenv("PATH", f"{script.parent}:{os.environ['PATH']}")
    return calls


def test_programs_run_in_a_container_where_the_password_is(mariadb: MariaDB, docker: Path) -> None:
    settings = Path.home() / ".my.cnf"
    settings.write_text("[client]\nuser=root\npassword=mypassword\n")
    settings.chmod(0o600)
    url = DatabaseUrl("mariadb", socket=str(mariadb.socket))
    server = MySQLServer.from_url(url, Access("never passed on", via="docker exec -i 'db'"))
    load_into(server.database("copy").load(replace=False), dump_of(server.database("all")))
    load_into(server.database("copy").load(replace=True), dump_of(server.database("all")))
    assert mariadb.content("copy") == mariadb.content("all")
    calls = docker.read_text()
    assert "exec -i db mariadb-dump --socket=" in calls
    assert "--defaults" not in calls
    settings.write_text("[client]\npassword=wrong\n")
    _, hint = refusal(url, Access(via="docker exec -i db"))
    assert "where the programs run" in hint


def test_a_program_that_the_container_lacks_is_one_line(
    mariadb: MariaDB, docker: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    inside = tmp_path / "inside"
    inside.mkdir()
    monkeypatch.setenv("INSIDE", str(inside))
    message, _ = refusal(mariadb.url(), Access(via="docker exec -i db"))
    assert message.startswith(
        "neither mariadb-dump nor mysqldump can be run by docker: mysqldump ended with exit code"
        " 127: "
    )
    # The other name is taken where the first one is missing.
    for new, old in {"mariadb-dump": "mysqldump", "mariadb": "mysql"}.items():
        (inside / old).symlink_to(shutil.which(new) or "")
    Path.home().joinpath(".my.cnf").write_text(f"[client]\nsocket={mariadb.socket}\nuser=root\n")
    refused = refusal(DatabaseUrl("mariadb"), Access(via="docker exec -i db"))
    assert refused[0].startswith("cannot log in to mariadb://: Access denied")
