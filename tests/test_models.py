"""The catalog: opening, upgrading, queries, and what several processes do to it."""

from __future__ import annotations

import multiprocessing
import sqlite3
import stat
import subprocess
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from bakthat import models, reservations
from bakthat.database import sqlite
from bakthat.database.sqlite import SqliteCatalog
from bakthat.errors import CatalogError
from tests.support.needs import as_root, mounted

pytestmark = pytest.mark.permissions

SCHEMA_060 = """
CREATE TABLE "backups" ("id" INTEGER NOT NULL PRIMARY KEY, "backend" VARCHAR(255) NOT NULL,
    "backend_hash" VARCHAR(255), "backup_date" DATETIME NOT NULL, "filename" TEXT NOT NULL,
    "is_deleted" SMALLINT NOT NULL, "last_updated" DATETIME NOT NULL, "metadata" TEXT NOT NULL,
    "size" INTEGER NOT NULL, "stored_filename" TEXT NOT NULL, "tags" VARCHAR(255) NOT NULL);
CREATE INDEX "backups_backend" ON "backups" ("backend");
CREATE UNIQUE INDEX "backups_stored_filename" ON "backups" ("stored_filename");
CREATE TABLE "config" ("id" INTEGER NOT NULL PRIMARY KEY, "key" TEXT NOT NULL,
    "value" TEXT NOT NULL);
CREATE TABLE "inventory" ("id" INTEGER NOT NULL PRIMARY KEY, "archive_id" TEXT NOT NULL,
    "filename" TEXT NOT NULL);
CREATE TABLE "jobs" ("id" INTEGER NOT NULL PRIMARY KEY, "filename" TEXT NOT NULL,
    "job_id" TEXT NOT NULL);
"""

HASH = models.backend_hash("bucket")
HERE = [("s3", HASH)]


def row(stored: str, name: str = "my", **more: Any) -> dict[str, Any]:
    return {
        "backend": "s3",
        "backend_hash": HASH,
        "backup_date": 1370373055,
        "filename": name,
        "metadata": {"is_enc": False, "client": "box"},
        "size": 10,
        "stored_filename": stored,
        "tags": "",
        **more,
    }


def add(path: Path | str, *rows: dict[str, Any]) -> None:
    with models.catalog(path, write=True):
        for each in rows:
            models.record(each)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "catalog.sqlite"


def test_a_new_catalog_is_private_and_its_directory_is_made(tmp_path: Path) -> None:
    path = tmp_path / "share" / "catalog.sqlite"
    with models.catalog(path):
        assert models.Backups.select().count() == 0
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_catalog_of_060_opens_with_its_rows(path: Path) -> None:
    legacy_hash = models.legacy_backend_hash("AK", "bucket")
    with sqlite3.connect(path) as old:
        old.executescript(SCHEMA_060)
        old.execute(
            "INSERT INTO backups VALUES (1, 's3', ?, 1370373055, 'mydir', 0, 1370373060, "
            """'{"is_enc": true, "client": "box"}', 12, 'mydir.20130604191055.tgz.enc', 'a b')""",
            (legacy_hash,),
        )
    old.close()
    with models.catalog(path):
        (backup,) = models.Backups.of_set("mydir", [("s3", legacy_hash)])
    assert str(backup) == "<Backup: mydir.20130604191055.tgz.enc>"
    assert backup["stored_filename"] == backup.stored_filename
    assert backup.is_encrypted
    assert backup.host == "box"
    assert backup.backup_date == 1370373055
    with pytest.raises(KeyError):
        backup["nonsense"]


def test_the_hash_of_060_is_sha512_of_key_and_container() -> None:
    # As `printf AKbucket | sha512sum` prints it.
    expected = (
        "574bac74870135d3bffaf8a9cbc95877f16af9ebe5633685605ea0c1d34c04c1"
        "a7c149b174219dbf7e54d104c9db94d9d96bd1fa5acbc0b19c7c878be31b342d"
    )
    assert models.legacy_backend_hash("AK", "bucket") == expected


def test_a_catalog_without_needs_of_reservations_is_upgraded(path: Path) -> None:
    with sqlite3.connect(path) as old:
        old.executescript(SCHEMA_060)
        old.executescript(
            """
            CREATE TABLE "reservations" ("stored_filename" TEXT NOT NULL PRIMARY KEY,
                "reserved_at" INTEGER NOT NULL);
            PRAGMA user_version = 1;
            """
        )
        old.execute("INSERT INTO reservations VALUES ('my.1', ?)", (int(time.time()),))
    old.close()
    with models.catalog(path, write=True):
        assert models.Reservations.get().needs == ()
        assert reservations.pinned() == set()
        reservations.reserve([("my.2", 2)], needs=["my.0"])
        assert reservations.pinned() == {"my.0"}
    with sqlite3.connect(path) as raw:
        assert raw.execute("PRAGMA user_version").fetchone() == (models.SCHEMA_VERSION,)
    raw.close()


def test_an_old_catalog_that_can_only_be_read_has_no_pins(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with sqlite3.connect(path) as old:
        old.executescript(SCHEMA_060)
    old.close()
    monkeypatch.setattr(sqlite, "_may_only_be_read", lambda file: True)
    with models.catalog(path):
        assert reservations.pinned() == set()


def test_damaged_metadata_reads_as_nothing_known(path: Path) -> None:
    add(path, row("a.20130604191055.tgz"), row("b.20130604191055.tgz"))
    with sqlite3.connect(path) as raw:
        raw.execute("UPDATE backups SET metadata = 'not json' WHERE id = 1")
        raw.execute("UPDATE backups SET metadata = '[1]' WHERE id = 2")
    raw.close()
    with models.catalog(path):
        assert [each.metadata for each in models.Backups.search("", HERE)] == [{}, {}]


def test_a_newer_catalog_is_refused_untouched(path: Path) -> None:
    with sqlite3.connect(path) as newer:
        newer.execute("PRAGMA user_version = 99")
    newer.close()
    before = path.read_bytes()
    with pytest.raises(CatalogError, match="newer bakthat"), models.catalog(path):
        pytest.fail("must not open")
    assert path.read_bytes() == before


def test_what_is_no_database_is_refused_untouched(path: Path) -> None:
    path.write_text("this is a letter to my aunt, and no database at all\n" * 20)
    with pytest.raises(CatalogError, match="not a SQLite database"), models.catalog(path):
        pytest.fail("must not open")
    assert path.read_text().startswith("this is a letter")


def test_a_directory_in_its_place_is_one_clear_error(path: Path) -> None:
    path.mkdir()
    with pytest.raises(CatalogError, match="it is a directory"), models.catalog(path):
        pytest.fail("must not open")


def test_a_locked_catalog_says_so(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    add(path, row("a.20130604191055.tgz"))
    monkeypatch.setattr(models, "BUSY_TIMEOUT", 0)
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    try:
        with pytest.raises(CatalogError, match="locked by another process"):
            add(path, row("b.20130604191055.tgz"))
    finally:
        other.close()


@as_root
def test_a_catalog_on_a_read_only_file_system_says_so(tmp_path: Path) -> None:
    mount = tmp_path / "mount"
    mount.mkdir()
    with mounted(mount, "-t", "tmpfs", "-o", "ro", "tmpfs"):
        path = mount / "catalog.sqlite"
        with pytest.raises(CatalogError, match="is mounted read-only"):
            add(path, row("b.20130604191055.tgz"))


@as_root
def test_a_catalog_that_may_only_be_read_is_read(tmp_path: Path) -> None:
    kept = tmp_path / "kept"
    kept.mkdir()
    add(kept / "catalog.sqlite", row("a.20130604191055.tgz"))
    with mounted(kept, "--bind", str(kept)):
        subprocess.run(["mount", "-o", "remount,bind,ro", kept], check=True)
        with models.catalog(kept / "catalog.sqlite"):
            assert len(models.Backups.search("", HERE)) == 1
        with pytest.raises(CatalogError, match="is mounted read-only"):
            add(kept / "catalog.sqlite", row("b.20130604191055.tgz"))


def test_a_transaction_that_fails_leaves_nothing(catalog: str) -> None:
    def fail_half_way() -> None:
        with models.catalog(catalog, write=True):
            models.record(row("a.20130604191055.tgz"))
            raise RuntimeError("half-way")

    with pytest.raises(RuntimeError, match="half-way"):
        fail_half_way()
    with models.catalog(catalog):
        assert models.Backups.search("", HERE) == []


def test_a_set_is_its_whole_name(catalog: str) -> None:
    names = ["my", "mysql", "my.sql", "my*", "m?", "my_other", "m%", "my'; --", "MY"]
    add(catalog, *(row(f"{name}.20130604191055.tgz", name) for name in names))
    with models.catalog(catalog):
        for name in names:
            assert [each.filename for each in models.Backups.of_set(name, HERE)] == [name]


def test_a_set_is_in_one_container(catalog: str) -> None:
    elsewhere = models.backend_hash("elsewhere")
    add(catalog, row("a.20130604191055.tgz"), row("b.20130604191055.tgz", backend_hash=elsewhere))
    with models.catalog(catalog):
        assert len(models.Backups.of_set("my", HERE)) == 1
        assert len(models.Backups.of_set("my", [*HERE, ("s3", elsewhere)])) == 2
        assert models.Backups.of_set("my", [("glacier", HASH)]) == []
        assert models.Backups.of_set("my", []) == []


def test_a_set_can_be_restricted_to_one_host(catalog: str) -> None:
    add(
        catalog,
        row("a.20130604191055.tgz"),
        row("b.20130604191055.tgz", metadata={"client": "other"}),
    )
    with models.catalog(catalog):
        (only,) = models.Backups.of_set("my", HERE, host="other")
    assert only.stored_filename == "b.20130604191055.tgz"


def test_the_newest_comes_first_and_deleted_ones_never(catalog: str) -> None:
    add(catalog, *(row(f"my.{n}", backup_date=n) for n in (2, 3, 1)))
    with models.catalog(catalog, write=True):
        models.mark_deleted(models.Backups.get(models.Backups.stored_filename == "my.2"), "by name")
    with models.catalog(catalog):
        assert [each.backup_date for each in models.Backups.of_set("my", HERE)] == [3, 1]
        assert [each.backup_date for each in models.Backups.search("my", HERE)] == [3, 1]
        found = models.Backups.beginning_with(["my."], HERE)
    assert [each.backup_date for each in found] == [3, 1]


def test_beginnings_are_compared_literally(catalog: str) -> None:
    names = ["my.2013", "my.2014", "my_2013", "my%2013", "My.2013", "mz"]
    add(catalog, *(row(name, name) for name in names))
    with models.catalog(catalog):
        for beginning, expected in {"my.": 2, "my_": 1, "my%": 1, "m": 5, "": 6, "x": 0}.items():
            assert len(models.Backups.beginning_with([beginning], HERE)) == expected


def test_a_search_finds_parts_of_names_and_whole_tags(catalog: str) -> None:
    add(catalog, row("site.1", "site", tags="db daily"), row("other.1", "other", tags="dbx"))
    with models.catalog(catalog):
        assert len(models.Backups.search("it", HERE)) == 1
        assert len(models.Backups.search(".1", HERE)) == 2
        assert len(models.Backups.search("%", HERE)) == 0
        (tagged,) = models.Backups.search("", HERE, ["db", "nothing"])
    assert tagged.filename == "site"


def test_names_are_compared_by_their_bytes(catalog: str) -> None:
    names = [
        "a",
        "a ",
        "A",
        "\u00e4",
        "a\u0308",
        "\U0001f4be",
        "z",
        "a\\",
        "x" * 1024,
        "\u00e9" * 512,
    ]
    add(catalog, *(row(name, name) for name in names))
    with models.catalog(catalog):
        rows = models.Backups.not_deleted(HERE).order_by(models.Backups.stored_filename)
        assert [each.stored_filename for each in rows] == sorted(names, key=str.encode)
        assert models.Backups.set_names(HERE) == sorted(names, key=str.encode)
        for name in names:
            assert [each.filename for each in models.Backups.of_set(name, HERE)] == [name]
        assert len(models.Backups.beginning_with(["a"], HERE)) == 4
        assert {each.filename for each in models.Backups.search("a", HERE)} == {
            *("a", "a ", "a\u0308", "a\\")
        }


def test_sizes_and_metadata_are_as_large_as_they_are(catalog: str) -> None:
    metadata = {"client": "box", "source": "/\udcff\0\U0001f4be", "long": "x" * 100_000}
    tags = " ".join(f"tag{number}" for number in range(100))
    add(catalog, row("my.1", size=2**42, metadata=metadata, tags=tags, backup_date=2**33))
    with models.catalog(catalog):
        (found,) = models.Backups.of_set("my", HERE)
    assert (found.size, found.backup_date, found.tags) == (2**42, 2**33, tags)
    assert found.metadata == metadata


def test_the_hosts_of_a_set_are_those_of_its_backups(catalog: str) -> None:
    add(
        catalog,
        row("my.1"),
        row("my.2", metadata={"client": "other"}),
        row("my.3", metadata={}),
        row("my.4", metadata={"client": "third", "KeyValue": True}),
        row("other.1", "other", metadata={"client": "fourth"}),
    )
    with models.catalog(catalog):
        assert models.Backups.hosts_of("my", HERE) == {"box", "other", ""}


def test_a_row_takes_the_place_of_those_with_its_names(catalog: str) -> None:
    with models.catalog(catalog, write=True):
        for filename, archive_id in (("a", "1"), ("b", "2"), ("a", "3"), ("c", "2")):
            models.put(models.Inventory, filename=filename, archive_id=archive_id)
        rows = models.Inventory.select().order_by(models.Inventory.filename)
        assert [(row.filename, row.archive_id) for row in rows] == [("a", "3"), ("c", "2")]


def test_looking_a_set_up_does_not_scan_the_table(path: Path) -> None:
    with models.catalog(path):
        for query in (
            models.Backups.not_deleted(HERE).where(models.Backups.filename == "my"),
            models.Backups.not_deleted(HERE).where(models.Backups.stored_filename >= "my."),
        ):
            sql, parameters = query.sql()
            with sqlite3.connect(path) as raw:
                plan = raw.execute(f"EXPLAIN QUERY PLAN {sql}", parameters).fetchall()
            raw.close()
            assert "SEARCH" in str(plan)
            assert "SCAN" not in str(plan)


def test_a_name_is_reserved_once_until_it_is_released(catalog: str) -> None:
    names = [("my.1", 1), ("my.2", 2), ("my.3", 3)]
    with models.catalog(catalog, write=True):
        assert reservations.reserve(names) == ("my.1", 1)
        assert reservations.reserve(names) == ("my.2", 2)
        reservations.release("my.1")
        assert reservations.reserve(names) == ("my.1", 1)
        models.record(row("my.1"))
        assert models.Reservations.select().count() == 1


def test_the_name_of_a_deleted_backup_is_not_used_again(catalog: str) -> None:
    add(catalog, row("my.1"))
    with models.catalog(catalog, write=True):
        models.mark_deleted(models.Backups.get(), "by name")
        assert reservations.reserve([("my.1", 1), ("my.2", 2)]) == ("my.2", 2)


def test_the_reservation_of_a_dead_process_expires(catalog: str) -> None:
    with models.catalog(catalog, write=True):
        reservations.reserve([("my.1", 1)])
        models.Reservations.update(reserved_at=0).execute()
        assert reservations.reserve([("my.1", 1)]) == ("my.1", 1)


def test_what_running_backups_need_is_pinned_until_they_end(catalog: str) -> None:
    with models.catalog(catalog, write=True):
        reservations.reserve([("my.3", 3)], needs=["my.1", "my.2"])
        reservations.reserve([("other.3", 3)], needs=["other.1"])
        reservations.reserve([("full.3", 3)])
        assert reservations.pinned() == {"my.1", "my.2", "other.1"}
        models.record(row("my.3"))
        assert reservations.pinned() == {"other.1"}
        models.Reservations.update(reserved_at=0).execute()
        assert reservations.pinned() == set()


@pytest.mark.parametrize("text", ["not json", "{}", '"my.1"', "[1, null]", "[" * 100_000])
def test_a_damaged_list_of_needs_reads_as_none(path: Path, text: str) -> None:
    with models.catalog(path, write=True):
        reservations.reserve([("my.3", 3)], needs=["my.1"])
    with sqlite3.connect(path) as raw:
        raw.execute("UPDATE reservations SET needs = ?", (text,))
    raw.close()
    with models.catalog(path):
        assert reservations.pinned() == set()


def test_a_backup_that_needs_one_that_was_deleted_meanwhile_is_refused(catalog: str) -> None:
    add(catalog, row("my.1"), row("my.2"))
    with models.catalog(catalog, write=True):
        models.mark_deleted(models.Backups.get(models.Backups.stored_filename == "my.2"), "by name")
    with (
        pytest.raises(CatalogError, match=r"my\.2, which the backup would need, was deleted"),
        models.catalog(catalog, write=True),
    ):
        reservations.reserve([("my.3", 3)], needs=["my.1", "my.2"])
    with models.catalog(catalog):
        assert models.Reservations.select().count() == 0


def _reserve_many(path: str, results: Any) -> None:
    for _ in range(10):
        with models.catalog(path, write=True):
            name, _date = reservations.reserve((f"my.{n}", n) for n in range(1000))
            results.put(name)


def test_processes_never_reserve_one_name_twice(catalog: str) -> None:
    context = multiprocessing.get_context("spawn")
    results = context.Queue()
    workers = [context.Process(target=_reserve_many, args=(catalog, results)) for _ in range(4)]
    for worker in workers:
        worker.start()
    names = [results.get(timeout=60) for _ in range(40)]
    for worker in workers:
        worker.join()
        worker.close()
    results.close()
    results.join_thread()
    assert len(set(names)) == 40


def test_threads_use_different_catalogs_at_once(tmp_path: Path) -> None:
    failures: list[BaseException] = []

    def fill(number: int) -> None:
        try:
            for n in range(20):
                add(tmp_path / f"{number}.sqlite", row(f"{number}.{n}"))
        except BaseException as exc:  # noqa: BLE001  # handed to the main thread, which asserts
            failures.append(exc)

    threads = [threading.Thread(target=fill, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    for number in range(4):
        with models.catalog(tmp_path / f"{number}.sqlite"):
            found = models.Backups.search("", HERE)
        assert {each.stored_filename for each in found} == {f"{number}.{n}" for n in range(20)}


def test_a_plugins_model_keeps_the_table(catalog: str) -> None:
    class MyBackups(models.Backups):
        pass

    add(catalog, row("my.1"))
    with models.catalog(catalog):
        (mine,) = MyBackups.of_set("my", HERE)
    assert isinstance(mine, MyBackups)


def test_a_catalog_that_another_process_is_creating_is_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SQLite itself refuses at once where several switch to a write-ahead log."""
    run = sqlite.run_sql
    refused: list[str] = []

    def busy(opened: SqliteCatalog, statement: str) -> None:
        if "journal_mode" in statement and len(refused) < 3:
            refused.append(statement)
            locked = sqlite3.OperationalError("database is locked")
            locked.sqlite_errorname = "SQLITE_BUSY"
            raise CatalogError("locked") from locked
        run(opened, statement)

    monkeypatch.setattr(sqlite, "run_sql", busy)
    with models.catalog(tmp_path / "catalog.sqlite", write=True):
        assert models.Backups.select().count() == 0
    assert len(refused) == 3
