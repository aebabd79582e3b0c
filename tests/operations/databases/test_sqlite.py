"""A file of SQLite is copied as it is at one moment, and comes back whole or not at all."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from bakthat.errors import DatabaseError, UsageError
from bakthat.operations.sources.databases import _sqlite_dump, sqlite
from bakthat.operations.sources.databases.base import Access
from bakthat.operations.sources.databases.sqlite import SQLiteFile, SQLitePlace
from bakthat.operations.sources.databases.url_parts import DatabaseUrl
from tests.support.commandline import PATIENCE
from tests.support.dumps import dump_of, run, write_into
from tests.support.needs import as_root
from tests.support.tar_bytes import as_nobody, reachable_directory

Make = Callable[..., Path]


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The directory of temporary files: nothing may be left in it."""
    directory = tmp_path / "temporary"
    directory.mkdir()
    monkeypatch.setenv("TMPDIR", str(directory))
    monkeypatch.setattr("tempfile.tempdir", str(directory))
    yield directory
    assert list(directory.iterdir()) == []


def database(path: Path) -> SQLiteFile:
    (found,) = SQLitePlace.from_url(DatabaseUrl("sqlite", name=str(path)), Access()).databases()
    return found


def execute(path: Path, script: str) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(script)


def rows(path: Path, text: str) -> list[tuple[object, ...]]:
    with closing(sqlite3.connect(path)) as connection:
        return connection.execute(text).fetchall()


def run_python(script: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", script, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True)


@contextmanager
def opened_by_another(path: Path, script: str) -> Iterator[None]:
    """Run *script* on a connection *c* of another process, and keep that until the block ends."""
    source = (
        f"import sqlite3, sys; c = sqlite3.connect(sys.argv[1], isolation_level=None); {script}"
    )
    source += "; print(flush=True); sys.stdin.read()"
    process = subprocess.Popen(
        [sys.executable, "-c", source, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert process.stdin
    assert process.stdout
    try:
        assert process.stdout.readline() == b"\n"
        yield
    finally:
        process.stdin.close()
        process.wait(PATIENCE)
        process.stdout.close()


EVERYTHING = """
    PRAGMA page_size = 1024;
    PRAGMA application_id = 1234567;
    PRAGMA user_version = 42;
    CREATE TABLE orders (id INTEGER PRIMARY KEY, what TEXT, photo BLOB, price REAL);
    INSERT INTO orders VALUES (1, 'tea; ''with'' mìlk', x'00ff1f8b0a', 0.1);
    INSERT INTO orders VALUES (2, 'a' || char(0) || 'b', zeroblob(5000), NULL);
    CREATE TABLE pairs (a TEXT, b TEXT, PRIMARY KEY (a, b)) WITHOUT ROWID;
    INSERT INTO pairs VALUES ('x', 'y');
    CREATE VIRTUAL TABLE notes USING fts5(body);
    INSERT INTO notes VALUES ('the quick fox');
    CREATE INDEX by_what ON orders (what);
    CREATE VIEW named AS SELECT what FROM orders;
    CREATE TRIGGER added AFTER INSERT ON pairs BEGIN UPDATE orders SET price = 2; END;
"""
QUESTIONS = [
    "PRAGMA page_size",
    "PRAGMA application_id",
    "PRAGMA user_version",
    "SELECT type, name, tbl_name, sql FROM sqlite_master ORDER BY name",
    "SELECT id, what, length(CAST(what AS BLOB)), photo, price FROM orders ORDER BY id",
    "SELECT * FROM pairs",
    "SELECT * FROM notes WHERE notes MATCH 'quick'",
    "PRAGMA journal_mode",
]


@pytest.mark.parametrize("journal", ["delete", "wal"])
def test_everything_in_a_file_comes_back(tmp_path: Path, journal: str) -> None:
    source, target = tmp_path / "app.db", tmp_path / "copy of ü%#?.db"
    execute(source, EVERYTHING + f"PRAGMA journal_mode = {journal};")
    before = sorted(os.listdir(tmp_path))
    dump = dump_of(database(source))
    assert sorted(os.listdir(tmp_path)) == before
    load = database(target).load(replace=False)
    write_into(load, dump)
    assert not target.exists()
    load.commit()
    load.close()
    assert [rows(target, each) for each in QUESTIONS] == [rows(source, each) for each in QUESTIONS]
    assert sorted(os.listdir(tmp_path)) == sorted([*before, target.name])
    assert target.stat().st_mode & 0o777 == 0o600


def test_the_set_has_the_name_of_the_file_and_the_url_its_whole_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    found = database(Path("app.db"))
    assert (found.name, found.dump_name, found.dump_kind) == ("app.db", "app.db", "sqlite")
    assert found.url == f"sqlite:///{tmp_path}/app.db"


def test_what_is_in_the_log_only_is_copied_and_the_files_stay(tmp_path: Path) -> None:
    path = tmp_path / "app.db"
    script = (
        "c.executescript('PRAGMA journal_mode=wal; PRAGMA wal_autocheckpoint=0;"
        " CREATE TABLE t (x); INSERT INTO t VALUES (7)')"
    )
    with opened_by_another(path, script):
        before = {each.name: each.stat().st_size for each in tmp_path.iterdir()}
        dump = dump_of(database(path))
        assert {each.name: each.stat().st_size for each in tmp_path.iterdir()} == before
    copy = tmp_path / "copy.db"
    copy.write_bytes(dump)
    assert rows(copy, "SELECT * FROM t") == [(7,)]


@pytest.mark.parametrize("journal", ["delete", "wal"])
def test_a_copy_ends_while_another_program_writes_all_the_time(
    tmp_path: Path, journal: str
) -> None:
    path = tmp_path / "app.db"
    execute(
        path,
        f"PRAGMA journal_mode = {journal}; CREATE TABLE a (x); CREATE TABLE b (x);"
        " WITH n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 20000)"
        " INSERT INTO a SELECT zeroblob(1000) FROM n;",
    )
    stop, wrote = threading.Event(), 0

    def write() -> None:
        nonlocal wrote
        with closing(sqlite3.connect(path, isolation_level=None, timeout=PATIENCE)) as connection:
            connection.execute("PRAGMA synchronous = OFF")
            while not stop.is_set():
                connection.executescript(
                    "BEGIN; INSERT INTO a VALUES (1); INSERT INTO b VALUES (1); COMMIT"
                )
                wrote += 1

    writer = threading.Thread(target=write)
    writer.start()
    try:
        dumps = [dump_of(database(path)) for _ in range(3)]
    finally:
        stop.set()
        writer.join()
    assert wrote > 5
    for dump in dumps:
        copy = tmp_path / "copy.db"
        copy.write_bytes(dump)
        assert rows(copy, "SELECT (SELECT count(*) FROM a) - (SELECT count(*) FROM b)") == [
            (20000,)
        ]
        assert rows(copy, "PRAGMA integrity_check") == [("ok",)]


KILLED_IN_A_TRANSACTION = (
    "import os, signal, sqlite3, sys; c = sqlite3.connect(sys.argv[1], isolation_level=None);"
    "c.execute('PRAGMA synchronous = OFF'); c.execute('CREATE TABLE t (x)');"
    "c.executemany('INSERT INTO t VALUES (?)', [('a' * 500,)] * 3000);"
    "c.execute('PRAGMA cache_size = 5'); c.execute('BEGIN'); c.execute('UPDATE t SET x = 1');"
    "os.kill(os.getpid(), signal.SIGKILL)"
)


def test_a_transaction_of_a_killed_program_is_not_in_the_copy(tmp_path: Path) -> None:
    path = tmp_path / "app.db"
    assert run_python(KILLED_IN_A_TRANSACTION, path).returncode == -signal.SIGKILL
    assert (tmp_path / "app.db-journal").stat().st_size > 0
    copy = tmp_path / "copy.db"
    copy.write_bytes(dump_of(database(path)))
    assert rows(copy, "SELECT DISTINCT x FROM t") == [("a" * 500,)]


@pytest.fixture
def public(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A directory of root that other users may read."""
    monkeypatch.setattr("tempfile.tempdir", "/tmp")
    with reachable_directory() as directory:
        yield directory


@as_root
@pytest.mark.parametrize("journal", ["delete", "wal"])
def test_a_user_who_may_only_read_can_dump(public: Path, journal: str) -> None:
    path = public / "app.db"
    execute(path, f"PRAGMA journal_mode = {journal}; CREATE TABLE t (x)")
    path.chmod(0o644)

    def copied() -> list[tuple[str]]:
        with (
            _sqlite_dump.reading(str(path), 1) as source,
            closing(sqlite3.connect(":memory:")) as copy,
        ):
            source.backup(copy)
            return copy.execute("SELECT name FROM sqlite_master").fetchall()

    assert as_nobody(copied) == [("t",)]
    assert os.listdir(public) == ["app.db"]


@as_root
def test_a_killed_transaction_that_a_reader_cannot_undo_is_named(public: Path) -> None:
    path = public / "app.db"
    assert run_python(KILLED_IN_A_TRANSACTION, path).returncode == -signal.SIGKILL
    for each in public.iterdir():
        each.chmod(0o644)
    with pytest.raises(DatabaseError, match="a killed program left a transaction"):
        as_nobody(database(path).check)


def test_a_change_during_a_copy_without_locks_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "app.db"
    execute(path, "PRAGMA journal_mode = wal; CREATE TABLE t (x);")
    connect = _sqlite_dump.connect

    def in_a_directory_that_may_only_be_read(
        path: str, mode: str, seconds: float
    ) -> sqlite3.Connection:
        # Root may write everywhere, so a path without the directory stands for it.
        return connect(path if "immutable" in mode else f"{path}/none", mode, seconds)

    monkeypatch.setattr(_sqlite_dump, "connect", in_a_directory_that_may_only_be_read)
    with _sqlite_dump.reading(str(path), 1) as connection:
        assert connection.execute("SELECT * FROM t").fetchall() == []
    with (
        pytest.raises(OSError, match="a program changed the database"),
        _sqlite_dump.reading(str(path), 1),
    ):
        execute(path, "INSERT INTO t VALUES (1)")


def failed_dump(path: Path) -> str:
    """Return the only line that the dump and, after the path, the check say."""
    done = run(database(path).dump())
    assert done.returncode == 1
    assert done.stdout == b""
    line = done.stderr.decode().removesuffix("\n")
    with pytest.raises(DatabaseError) as caught:
        database(path).check()
    assert line in str(caught.value) or isinstance(caught.value.__cause__, FileNotFoundError)
    assert "\n" not in f"{line}{caught.value}"
    return line


def test_a_missing_file_is_not_made(tmp_path: Path) -> None:
    assert failed_dump(tmp_path / "app.db") == "No such file or directory"
    with pytest.raises(DatabaseError, match=f"^there is no file {tmp_path}/app.db$"):
        database(tmp_path / "app.db").check()
    assert not (tmp_path / "app.db").exists()


def test_a_directory_and_another_kind_of_file_are_no_database(tmp_path: Path) -> None:
    assert failed_dump(tmp_path) == "it is not a file"
    (tmp_path / "app.db").write_bytes(os.urandom(5000))
    assert failed_dump(tmp_path / "app.db") == (
        "the file is not a SQLite database, or it is encrypted"
    )


def test_a_locked_database_is_an_error_after_a_while(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "app.db"
    execute(path, "CREATE TABLE t (x)")
    monkeypatch.setattr(sqlite, "BUSY_SECONDS", 0.1)
    with opened_by_another(path, "c.execute('BEGIN EXCLUSIVE')"):
        assert failed_dump(path) == "another program has locked the database"
    assert dump_of(database(path))


def test_a_dump_waits_for_a_lock(tmp_path: Path) -> None:
    path = tmp_path / "app.db"
    execute(path, "CREATE TABLE t (x)")
    with opened_by_another(path, "c.execute('BEGIN EXCLUSIVE')"):
        process = subprocess.Popen(database(path).dump().arguments, stdout=subprocess.PIPE)
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(0.5)
    output, _ = process.communicate(timeout=PATIENCE)
    assert (process.returncode, output[:6]) == (0, b"SQLite")


def test_a_killed_dump_leaves_nothing(tmp_path: Path, temporary: Path) -> None:
    path = tmp_path / "app.db"
    execute(path, "CREATE TABLE t (x); INSERT INTO t VALUES (zeroblob(3000000))")
    process = subprocess.Popen(database(path).dump().arguments, stdout=subprocess.PIPE)
    assert process.stdout
    with process.stdout:
        assert process.stdout.read(16) == b"SQLite format 3\0"  # the copy is made and being written
        process.kill()
        process.wait()
    assert sorted(os.listdir(tmp_path)) == ["app.db", temporary.name]


# Loads


def a_dump(directory: Path, value: int = 7) -> bytes:
    path = directory / "source.db"
    execute(path, f"CREATE TABLE t (x); INSERT INTO t VALUES ({value})")
    try:
        return dump_of(database(path))
    finally:
        path.unlink()


def load_into(path: Path, dump: bytes, *, replace: bool = False) -> None:
    load = database(path).load(replace=replace)
    try:
        write_into(load, dump)
        load.commit()
    finally:
        load.close()


def test_a_database_with_tables_is_replaced_only_when_told(tmp_path: Path) -> None:
    dump, path = a_dump(tmp_path), tmp_path / "app.db"
    execute(path, "CREATE TABLE old (x)")
    path.chmod(0o640)
    with pytest.raises(DatabaseError, match=f"^the database {path} is not empty$") as caught:
        database(path).load(replace=False)
    assert "--replace" in caught.value.hint
    assert rows(path, "SELECT name FROM sqlite_master") == [("old",)]
    load_into(path, dump, replace=True)
    assert rows(path, "SELECT name FROM sqlite_master") == [("t",)]
    assert path.stat().st_mode & 0o777 == 0o640


@pytest.mark.parametrize("content", [b"", None])
def test_an_empty_database_is_no_obstacle(tmp_path: Path, content: bytes | None) -> None:
    dump, path = a_dump(tmp_path), tmp_path / "app.db"
    if content is None:
        execute(path, "CREATE TABLE old (x); DROP TABLE old")
    else:
        path.write_bytes(content)
    load_into(path, dump)
    assert rows(path, "SELECT x FROM t") == [(7,)]


def test_tables_made_during_the_load_are_not_lost(tmp_path: Path) -> None:
    path = tmp_path / "app.db"
    load = database(path).load(replace=False)
    write_into(load, a_dump(tmp_path))
    execute(path, "CREATE TABLE made_meanwhile (x)")
    with pytest.raises(DatabaseError, match="is not empty"):
        load.commit()
    load.close()
    assert rows(path, "SELECT name FROM sqlite_master") == [("made_meanwhile",)]
    assert sorted(os.listdir(tmp_path)) == ["app.db", "temporary"]


def test_a_link_stays_one(tmp_path: Path) -> None:
    (tmp_path / "app.db").symlink_to("data.db")
    load_into(tmp_path / "app.db", a_dump(tmp_path))
    assert os.readlink(tmp_path / "app.db") == "data.db"
    assert rows(tmp_path / "data.db", "SELECT x FROM t") == [(7,)]


KILLED_WITH_LOG = (
    "import os, sqlite3, sys; c = sqlite3.connect(sys.argv[1], isolation_level=None);"
    "c.executescript('PRAGMA journal_mode = wal; CREATE TABLE t (x);"
    " INSERT INTO t VALUES (1), (2), (3)'); os._exit(0)"
)


def test_the_log_of_a_replaced_database_does_not_come_into_the_new_one(tmp_path: Path) -> None:
    dump, path = a_dump(tmp_path), tmp_path / "app.db"
    assert run_python(KILLED_WITH_LOG, path).returncode == 0
    assert (tmp_path / "app.db-wal").stat().st_size > 0
    load_into(path, dump, replace=True)
    assert sorted(os.listdir(tmp_path)) == ["app.db", "temporary"]
    assert rows(path, "SELECT x FROM t") == [(7,)]


def test_a_damaged_database_and_its_log_are_replaced(tmp_path: Path) -> None:
    dump, path = a_dump(tmp_path), tmp_path / "app.db"
    assert run_python(KILLED_WITH_LOG, path).returncode == 0
    path.write_bytes(os.urandom(8192))
    (tmp_path / "app.db-wal").write_bytes(os.urandom(8192))
    with pytest.raises(DatabaseError, match="is not a SQLite database"):
        database(path).load(replace=False)
    load_into(path, dump, replace=True)
    assert sorted(os.listdir(tmp_path)) == ["app.db", "temporary"]
    assert rows(path, "SELECT x FROM t") == [(7,)]


def test_a_log_without_its_database_is_not_applied_to_the_new_one(tmp_path: Path) -> None:
    dump, path = a_dump(tmp_path), tmp_path / "app.db"
    assert run_python(KILLED_WITH_LOG, path).returncode == 0
    path.rename(tmp_path / "moved.db")
    with pytest.raises(DatabaseError, match=r"app\.db-wal belongs to a database"):
        database(path).load(replace=False)
    load_into(path, dump, replace=True)
    assert sorted(os.listdir(tmp_path)) == ["app.db", "moved.db", "temporary"]
    assert rows(path, "SELECT x FROM t") == [(7,)]


@pytest.mark.parametrize("journal", ["delete", "wal"])
def test_a_database_in_use_is_not_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, journal: str
) -> None:
    dump, path = a_dump(tmp_path), tmp_path / "app.db"
    execute(
        path, f"PRAGMA journal_mode = {journal}; CREATE TABLE old (x); INSERT INTO old VALUES (1)"
    )
    monkeypatch.setattr(sqlite, "BUSY_SECONDS", 0.1)
    load = database(path).load(replace=True)
    write_into(load, dump)
    with (
        opened_by_another(path, "c.execute('BEGIN'); c.execute('SELECT * FROM old').fetchall()"),
        pytest.raises(DatabaseError, match="another program has locked the database"),
    ):
        load.commit()
    load.close()
    assert rows(path, "SELECT x FROM old") == [(1,)]
    assert rows(path, "PRAGMA journal_mode") == [(journal,)]
    assert sorted(os.listdir(tmp_path)) == ["app.db", "temporary"]


@pytest.mark.parametrize("damage", ["cut", "altered", "empty", "text"])
def test_a_dump_that_is_not_whole_replaces_nothing(tmp_path: Path, damage: str) -> None:
    source, path = tmp_path / "source.db", tmp_path / "app.db"
    execute(source, EVERYTHING)
    dump = dump_of(database(source))
    source.unlink()
    bad = {
        "cut": dump[: len(dump) // 2],
        "altered": dump.replace(b"fox", b"\0\0\0", 1).replace(b"by_what", b"by_wha\0"),
        "empty": b"",
        "text": b"CREATE TABLE t (x);" * 100,
    }[damage]
    execute(path, "CREATE TABLE old (x); INSERT INTO old VALUES (1)")
    with pytest.raises(DatabaseError):
        load_into(path, bad, replace=True)
    assert rows(path, "SELECT x FROM old") == [(1,)]
    assert sorted(os.listdir(tmp_path)) == ["app.db", "temporary"]


def test_a_dump_that_contradicts_itself_replaces_nothing(tmp_path: Path) -> None:
    source, path = tmp_path / "source.db", tmp_path / "app.db"
    execute(
        source,
        "CREATE TABLE t (x); INSERT INTO t VALUES (NULL); PRAGMA writable_schema = ON;"
        "UPDATE sqlite_master SET sql = 'CREATE TABLE t (x NOT NULL)'",
    )
    execute(path, "CREATE TABLE old (x); INSERT INTO old VALUES (1)")
    with pytest.raises(
        DatabaseError, match=r"^the dump is a damaged SQLite database: NULL value in t\.x$"
    ) as caught:
        load_into(path, dump_of(database(source)), replace=True)
    assert ".recover" in caught.value.hint
    assert rows(path, "SELECT x FROM old") == [(1,)]


def test_a_database_with_functions_of_its_program_comes_back_with_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    source, path = tmp_path / "source.db", tmp_path / "app.db"
    with closing(sqlite3.connect(source)) as connection:
        connection.create_collation("own", lambda a, b: (a > b) - (a < b))
        connection.executescript(
            "CREATE TABLE t (x TEXT COLLATE own); CREATE INDEX i ON t (x);"
            "INSERT INTO t VALUES ('a')"
        )
    load_into(path, dump_of(database(source)))
    assert caplog.messages == [
        "SQLite cannot check all of the database: no such collation sequence: own"
    ]
    assert rows(path, "SELECT x FROM t") == [("a",)]


def test_a_missing_directory_is_named(tmp_path: Path) -> None:
    path = tmp_path / "none" / "app.db"
    with pytest.raises(
        DatabaseError, match=f"^cannot load into {path}: No such file or directory$"
    ):
        database(path).load(replace=False)
    with pytest.raises(DatabaseError, match=r"^cannot make a temporary directory: No such file"):
        SQLitePlace(str(path)).scratch()
    with pytest.raises(DatabaseError, match=f"^{tmp_path} is not a file$"):
        database(tmp_path).load(replace=True)


def test_a_load_that_is_not_committed_leaves_nothing(tmp_path: Path) -> None:
    load = database(tmp_path / "app.db").load(replace=False)
    write_into(load, a_dump(tmp_path))
    load.close()
    load.close()
    assert os.listdir(tmp_path) == ["temporary"]


def test_a_scratch_database_answers_and_goes(tmp_path: Path, temporary: Path) -> None:
    source = tmp_path / "app.db"
    execute(source, EVERYTHING + "PRAGMA journal_mode = wal;")
    url = DatabaseUrl("sqlite", name=str(temporary / "drill.db"))
    load = SQLitePlace.from_url(url, Access()).scratch()
    write_into(load, dump_of(database(source)))
    load.commit()
    assert Path(load.target()).name == "drill.db"
    assert Path(load.target()).parent.parent == temporary
    assert load.query("SELECT id, price, photo, what FROM orders WHERE id = 1") == [
        ["1", "0.1", "00ff1f8b0a", "tea; 'with' mìlk"]
    ]
    assert load.query("SELECT NULL, CAST(x'ff41' AS TEXT)") == [[None, "\\xffA"]]
    assert load.query("SELECT 1 FROM orders WHERE id = 99") == []
    for bad, message in [
        ("SELECT * FROM none", "no such table: none"),
        ("DELETE FROM orders", "attempt to write a readonly database"),
        ("SELECT 1; SELECT 2", "one statement at a time"),
    ]:
        with pytest.raises(DatabaseError, match=f"^the query failed: .*{message}"):
            load.query(bad)
    load.close()
    load.close()
    assert list(temporary.iterdir()) == []
    assert source.exists()


def test_a_file_needs_no_other_program_and_no_server() -> None:
    with pytest.raises(UsageError, match="is a file") as caught:
        SQLitePlace.from_url(DatabaseUrl("sqlite", name="/app.db"), Access(via="docker exec -i db"))
    assert "--via" in caught.value.hint
    with pytest.raises(UsageError, match="names no SQLite file"):
        SQLitePlace.from_url(DatabaseUrl("sqlite"), Access())
