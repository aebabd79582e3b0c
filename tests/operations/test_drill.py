"""A drill proves that a backup restores, says so in the catalog, and leaves nothing behind."""

from __future__ import annotations

import os
import shutil
import signal
import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

import bakthat
from bakthat import drills, models
from bakthat.errors import (
    BakthatError,
    CorruptArchiveError,
    DatabaseError,
    DestinationError,
    DrillError,
    NotFoundError,
    NotReadyError,
    UsageError,
    WrongKeyError,
)
from bakthat.format.entry import Entry
from bakthat.operations.browse.disk import DiskTree
from tests.support.commandline import PATIENCE, CommandLine
from tests.support.glacier_server import GlacierServer
from tests.support.needs import as_root, mounted
from tests.support.profiles import Conf, write_config
from tests.support.shops import ORDERS, PASSWORD, ROWS, Shop
from tests.support.tar_bytes import NOBODY, as_nobody, reachable_directory

pytestmark = pytest.mark.slow  # dumps and servers, on one interpreter


@pytest.fixture
def conf(local: Conf) -> Conf:
    return {**local, "password": "", "database_password": PASSWORD}


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The directory of temporary files: nothing may be left in it."""
    directory = tmp_path / "temporary"
    directory.mkdir()
    monkeypatch.setenv("TMPDIR", str(directory))
    monkeypatch.setattr(tempfile, "tempdir", str(directory))
    yield directory
    assert os.listdir(directory) == []


def store(conf: Conf, source: Path | str, **options: Any) -> models.Backups:
    return bakthat.backup(str(source), conf=conf, prompt="no", **options)


def recorded(conf: Conf, name: str = "") -> dict[str, Any] | None:
    """Return what the catalog says of the last drill of the only backup of that name."""
    (found,) = bakthat.ls(name, conf=conf)
    result: dict[str, Any] | None = found.metadata.get("drill")
    return result


def app_db(path: Path) -> Path:
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(ORDERS + ROWS)
    return path


def a_tree(above: Path) -> Path:
    """Make a directory with a file of each kind that a drill must read again."""
    root = above / "mydir"
    (root / "empty").mkdir(parents=True)
    (root / "a.txt").write_text("hello")
    (root / "locked").write_text("secret")
    (root / "locked").chmod(0)
    (root / "locked2").hardlink_to(root / "locked")
    (root / "link").symlink_to("nowhere")
    (root / "no newline\x01").touch()
    with (root / "sparse").open("wb") as sparse:
        sparse.seek(5 << 20)
        sparse.write(b"end")
    os.mkfifo(root / "pipe")
    return root


def test_a_tree_passes(conf: Conf, tmp_path: Path) -> None:
    store(conf, a_tree(tmp_path))
    entry = bakthat.drill("mydir", conf=conf)
    result = entry.metadata["drill"]
    assert result == recorded(conf)
    assert result.pop("date") >= entry.backup_date
    assert result.pop("seconds") > 0
    assert result == {"passed": True, "bytes": len("hellosecretend"), "checks": 0}


@pytest.mark.parametrize("what", ["file", "empty directory", "empty file", "one hidden"])
def test_whatever_was_backed_up_passes(conf: Conf, tmp_path: Path, what: str) -> None:
    source = tmp_path / "it"
    if "directory" in what or what == "one hidden":
        source.mkdir()
    if what == "one hidden":
        (source / ".x").write_text("x")
    if what == "file":
        source.write_text("text")
    if what == "empty file":
        source.touch()
    store(conf, source)
    assert bakthat.drill("it", conf=conf).metadata["drill"]["passed"]


@pytest.mark.parametrize("key", [{"password": "secret"}, {}], ids=["encrypted", "plain"])
def test_an_increment_passes(
    conf: Conf, tree: Path, key: dict[str, str], cheap_passphrases: None
) -> None:
    conf = {**conf, **key}
    (tree / "large").write_bytes(os.urandom(1 << 20))
    store(conf, tree, incremental=True)
    (tree / "b.txt").write_text("new")
    (tree / "a.txt").unlink()
    second = store(conf, tree, incremental=True)
    assert second.is_increment
    bakthat.drill("mydir", conf=conf)
    newest, oldest = bakthat.ls(conf=conf)
    assert newest.metadata["drill"]["passed"]
    assert "drill" not in oldest.metadata


@pytest.mark.parametrize(
    ("change", "path"),
    [
        (lambda root: (root / "a.txt").write_text("hellO"), "mydir/a.txt"),
        (lambda root: (root / "a.txt").unlink(), "mydir/a.txt"),
        (lambda root: (root / "new").touch(), "mydir/new"),
        (lambda root: (root / "empty").rmdir(), "mydir/empty"),
        (lambda root: (root / "empty").rename(root / "new"), "mydir/empty, mydir/new"),
    ],
    ids=["content", "missing", "new", "directory", "renamed"],
)
def test_what_came_back_different_fails(
    conf: Conf, tmp_path: Path, change: Any, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    store(conf, a_tree(tmp_path))

    class ChangedTree(DiskTree):
        """Somebody changes a file before it is read again."""

        def __init__(self, root: Path, *arguments: Any, **options: Any) -> None:
            change(root)
            super().__init__(root, *arguments, **options)

    monkeypatch.setattr(drills, "DiskTree", ChangedTree)
    problem = f"{'2 entries' if ', ' in path else '1 entry'} came back different: {path}"
    with pytest.raises(DrillError, match=f"^{problem}$"):
        bakthat.drill("mydir", conf=conf)
    result = recorded(conf)
    assert result is not None
    assert not result["passed"]
    assert result["problem"] == problem


def test_what_cannot_be_read_again_fails(
    conf: Conf, tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store(conf, tree)

    class VanishingTree(DiskTree):
        """Somebody removes each file before it is read again."""

        def with_digest(self, entry: Entry) -> Entry | None:
            Path(self._root.parent, entry.path).unlink()
            return super().with_digest(entry)

    monkeypatch.setattr(drills, "DiskTree", VanishingTree)
    problem = "^not all that was restored can be read: .*/mydir/a.txt: vanished before it was read"
    with pytest.raises(DrillError, match=problem):
        bakthat.drill("mydir", conf=conf)
    result = recorded(conf)
    assert result is not None
    assert not result["passed"]


def test_a_damaged_object_fails_and_a_later_drill_tells_the_new_result(
    conf: Conf, tree: Path, user: CommandLine
) -> None:
    entry = store(conf, tree)
    stored = Path(conf["local_path"], entry.stored_filename)
    whole = stored.read_bytes()
    middle = len(whole) // 2
    stored.write_bytes(whole[:middle] + bytes([whole[middle] ^ 1]) + whole[middle + 1 :])
    with pytest.raises(CorruptArchiveError):
        bakthat.drill("mydir", conf=conf)
    first = recorded(conf)
    assert first is not None
    assert not first["passed"]
    assert "damaged" in first["problem"]
    stored.write_bytes(whole)
    bakthat.drill("mydir", conf=conf)
    second = recorded(conf)
    assert second is not None
    assert second["passed"]
    assert "problem" not in second


def test_a_missing_object_is_a_failed_drill(conf: Conf, tree: Path) -> None:
    entry = store(conf, tree)
    Path(conf["local_path"], entry.stored_filename).unlink()
    with pytest.raises(NotFoundError):
        bakthat.drill("mydir", conf=conf)
    result = recorded(conf)
    assert result is not None
    assert not result["passed"]


def test_the_record_survives_sync_and_whatever_else_changes_the_entry(
    conf: Conf, tree: Path, tmp_path: Path
) -> None:
    store(conf, tree)
    bakthat.drill("mydir", conf=conf)
    before = recorded(conf)
    assert before is not None
    bakthat.sync(conf=conf)
    bakthat.check(conf=conf, read_data=True)
    bakthat.restore("mydir", conf=conf, output=tmp_path / "out")
    store(conf, tree)
    assert bakthat.ls(conf=conf)[1].metadata["drill"] == before


def test_a_wrong_key_is_a_failed_drill(conf: Conf, tree: Path, cheap_passphrases: None) -> None:
    conf["password"] = "secret"
    store(conf, tree)
    with pytest.raises(WrongKeyError):
        bakthat.drill("mydir", conf=conf, password="wrong")
    result = recorded(conf)
    assert result is not None
    assert not result["passed"]


@pytest.mark.parametrize(
    "options",
    [{"scratch": "/proc"}, {"check": "SELECT 1"}, {"into": "sqlite:///x"},
     {"via": "docker exec -i db"}],
    ids=lambda options: next(iter(options)),
)  # fmt: skip
def test_what_says_nothing_about_the_backup_is_not_recorded(
    conf: Conf, tree: Path, options: dict[str, str], cheap_passphrases: None
) -> None:
    conf["password"] = "secret"
    store(conf, tree)
    with pytest.raises(BakthatError):
        bakthat.drill("mydir", conf=conf, **options)  # type: ignore[arg-type]  # a dict of options
    assert recorded(conf) is None


def test_a_command_checks_in_the_directory(conf: Conf, tree: Path, temporary: Path) -> None:
    store(conf, tree)
    line = 'test "$(pwd -P)" = "$(realpath "$BAKTHAT_DRILL")" && grep -q hello mydir/a.txt'
    entry = bakthat.drill("mydir", conf=conf, check_command=line)
    assert entry.metadata["drill"]["checks"] == 1
    with pytest.raises(DrillError, match=r"^the check command ended with exit code 7: why$"):
        bakthat.drill("mydir", conf=conf, check_command="echo why >&2; exit 7")
    with pytest.raises(DrillError, match="exit code 1"):
        bakthat.drill("mydir", conf=conf, check_command="false | cat")


def test_a_stream_comes_as_a_file(conf: Conf) -> None:
    bakthat.backup(conf=conf, command="echo hello", custom_filename="it.txt")
    entry = bakthat.drill("it.txt", conf=conf, check_command="grep -q hello it.txt")
    assert entry.metadata["drill"]["bytes"] == 6


def test_a_sqlite_dump_needs_no_server(conf: Conf, tmp_path: Path, temporary: Path) -> None:
    bakthat.backup_databases(f"sqlite:///{app_db(tmp_path / 'app.db')}", conf=conf)
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    entry = bakthat.drill(
        "app.db",
        conf=conf,
        check=["SELECT count(*) FROM orders", "SELECT what FROM orders WHERE id = 1"],
        check_command=f'case "$BAKTHAT_DRILL" in {scratch}/*) ;; *) exit 1; esac',
        scratch=scratch,
    )
    assert entry.metadata["drill"]["checks"] == 3
    assert os.listdir(scratch) == []


CHECKS = [
    ("SELECT 0", "gave '0'"),
    ("SELECT 0.0", r"gave '0\.0'"),
    ("SELECT -0e0", "gave '-?0(.0)?'"),
    ("SELECT NULL", "gave NULL"),
    ("SELECT what FROM orders WHERE id = 2", "gave NULL"),
    ("SELECT id FROM orders WHERE id = 9", "gave no row"),
    ("SELECT 0, 1", "gave '0'"),
    ("SELECT nonsense FROM orders", "failed: .*nonsense"),
]


@pytest.mark.parametrize(("check", "problem"), CHECKS)
def test_a_check_of_sqlite_that_fails(conf: Conf, tmp_path: Path, check: str, problem: str) -> None:
    bakthat.backup_databases(f"sqlite:///{app_db(tmp_path / 'app.db')}", conf=conf)
    with pytest.raises(DrillError, match=f"^the check '.*' {problem}"):
        bakthat.drill("app.db", conf=conf, check=["SELECT 1", check])
    result = recorded(conf)
    assert result is not None
    assert (result["passed"], result["checks"]) == (False, 2)


def test_a_server_gets_a_database_and_loses_it_again(conf: Conf, shop: Shop) -> None:
    bakthat.backup_databases(shop.of("shop"), conf=conf)
    before = shop.names()
    entry = bakthat.drill(
        "shop",
        conf=conf,
        into=shop.url,
        check=["SELECT count(*) FROM orders", "SELECT 'text'"],
        check_command='case "$BAKTHAT_DRILL" in *:*@*:*/bakthat_*) ;; *) exit 2; esac',
    )
    assert entry.metadata["drill"]["checks"] == 3
    for check, problem in (CHECKS[3], CHECKS[-1]):
        with pytest.raises(DrillError, match=f"^the check '.*' {problem}"):
            bakthat.drill("shop", conf=conf, into=shop.url, check=check)
    with pytest.raises(DrillError):
        bakthat.drill("shop", conf=conf, into=shop.url, check="SELECT 1 = 2")
    assert shop.names() == before


def client_line(kind: str) -> str:
    """Return the shell's words that run SQL in the scratch database, of whose URL they know all but
    the password."""
    if kind == "postgresql":
        return 'psql --no-psqlrc -At "$BAKTHAT_DRILL" -c'
    return (
        'port=${BAKTHAT_DRILL##*:}; mariadb --user=keeper --host=127.0.0.1 --port="${port%%/*}" -N '
        '"${BAKTHAT_DRILL##*/}" -e'
    )


def test_the_command_that_checks_finds_the_password_of_the_profile(conf: Conf, shop: Shop) -> None:
    bakthat.backup_databases(shop.of("shop"), conf=conf)
    once = f"{client_line(shop.kind)} 'SELECT count(*) FROM orders' | grep -qx 3"
    line = f'({once}) && ({once}) && test -z "$BAKTHAT_DATABASE_PASSWORD"'
    entry = bakthat.drill("shop", conf=conf, into=shop.url, check_command=line)
    assert entry.metadata["drill"]["passed"]
    failing = {
        f"{client_line(shop.kind)} 'SELECT nonsense FROM orders'": "nonsense",
        f"unset PGPASSFILE MYSQL_PWD; {once}": "password|denied",
    }
    for line, problem in failing.items():
        with pytest.raises(DrillError, match=problem):
            bakthat.drill("shop", conf=conf, into=shop.url, check_command=line)


def test_a_scratch_server_that_is_not_there_is_not_a_failed_drill(conf: Conf, shop: Shop) -> None:
    bakthat.backup_databases(shop.of("shop"), conf=conf)
    with pytest.raises(UsageError, match="no server was named"):
        bakthat.drill("shop", conf=conf)
    with pytest.raises(UsageError, match="cannot be loaded into"):
        bakthat.drill("shop", conf=conf, into="sqlite:///x.db")
    with pytest.raises(DatabaseError, match="cannot connect"):
        bakthat.drill("shop", conf=conf, into=f"{shop.kind}://127.0.0.1:1")
    assert recorded(conf) is None


@as_root
def test_another_user_can_drill_what_root_backed_up(
    conf: Conf, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Other users cannot come into pytest's directories.
    monkeypatch.setattr(tempfile, "tempdir", "/tmp")
    tree = a_tree(tmp_path)
    (tree / "empty").chmod(0)
    (tree / "locked").chmod(0o200)
    store(conf, tree)
    with reachable_directory() as home:
        theirs = {**conf, "local_path": f"{home}/store", "database": f"{home}/catalog.sqlite"}
        shutil.copytree(conf["local_path"], theirs["local_path"])
        for each in (home, *home.rglob("*")):
            os.chown(each, NOBODY, NOBODY)

        def drill() -> object:
            os.environ["HOME"] = str(home)
            bakthat.sync(conf=theirs)
            return bakthat.drill("mydir", conf=theirs, scratch=home).metadata["drill"]["passed"]

        assert as_nobody(drill) is True
        assert sorted(os.listdir(home)) == [".cache", "catalog.sqlite", "store"]


@as_root
def test_a_full_disk_fails_the_drill_and_leaves_nothing(conf: Conf, tmp_path: Path) -> None:
    (tmp_path / "big").write_bytes(bytes(3 << 20))
    place = tmp_path / "disk"
    place.mkdir()
    store(conf, tmp_path / "big")
    with mounted(place, "-t", "tmpfs", "-o", "size=1m", "tmpfs"):
        with pytest.raises(DestinationError, match="no space left on device"):
            bakthat.drill("big", conf=conf, scratch=place)
        assert os.listdir(place) == []
    assert recorded(conf) is None


def test_a_frozen_backup_is_not_thawed_for_a_drill(
    glacier: GlacierServer, tree: Path, user: CommandLine
) -> None:
    conf = glacier.conf(password="")
    store(conf, tree)
    glacier.advance(hours=48)
    write_config(user.home / ".bakthat.yml", default=conf)
    before = len(glacier.requests)
    done = user.run("drill", "mydir")
    assert done.code == 4
    assert "cannot be drilled now" in done.stderr
    assert [each for each in glacier.requests[before:] if "POST" in str(each)] == []


def test_a_backup_that_freezes_again_before_it_is_read_is_neither_thawed_nor_a_failed_drill(
    glacier: GlacierServer, tree: Path
) -> None:
    conf = glacier.conf(password="")
    store(conf, tree)
    assert bakthat.restore("mydir", conf=conf) is None
    glacier.advance(hours=6)

    def freeze(_session_id: str) -> None:
        glacier.advance(hours=48)

    bakthat.events.before_drill += freeze
    before = len(glacier.requests)
    try:
        with pytest.raises(NotReadyError, match=r"^the backup must be thawed first$"):
            bakthat.drill("mydir", conf=conf)
    finally:
        bakthat.events.before_drill -= freeze
    assert [each for each in glacier.requests[before:] if "POST" in str(each)] == []
    assert recorded(conf) is None


def test_events_are_told_what_a_drill_has_found(
    conf: Conf, tree: Path, fired: list[tuple[Any, ...]]
) -> None:
    store(conf, tree)
    fired.clear()
    entry = bakthat.drill("mydir", conf=conf)
    (_, session_id), (_, _, told) = fired
    assert fired == [("before_drill", session_id), ("on_drill", session_id, told)]
    assert told.metadata["drill"] == entry.metadata["drill"]
    fired.clear()
    with pytest.raises(DrillError) as caught:
        bakthat.drill("mydir", conf=conf, check_command="false")
    assert [each[0] for each in fired] == ["before_drill", "on_error"]
    assert fired[1][2:] == ("drill", caught.value)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_drill_leaves_nothing(
    conf: Conf, shop: Shop, user: CommandLine, temporary: Path, number: int
) -> None:
    write_config(user.home / ".bakthat.yml", default=conf)
    bakthat.backup_databases(shop.of("shop"), conf=conf)
    before = shop.names()
    os.mkfifo(user.directory / "reached")
    line = f"echo >{user.directory}/reached; exec sleep 600"
    process = user.start(
        "drill", "shop", "--into", shop.url, "--check-command", line, env={"TMPDIR": str(temporary)}
    )
    assert (user.directory / "reached").read_text() == "\n"
    assert shop.names() > before
    process.send_signal(number)
    _, errors = process.communicate(timeout=PATIENCE)
    assert process.returncode == 128 + number, errors
    assert shop.names() == before
    assert recorded(conf) is None


def test_the_password_is_asked_once(tree: Path, local: Conf, user: CommandLine) -> None:
    write_config(user.home / ".bakthat.yml", default=local)
    assert user.run("backup", tree, env={"BAKTHAT_PASSWORD": "secret"}).code == 0
    code, screen = user.converse("drill", "mydir", answers=[("assword: ", "secret\n")])
    assert code == 0, screen
    assert screen.count("assword: ") == 1
    assert "restores: 5 B" in screen


def test_the_command_line_says_what_a_drill_has_found(
    conf: Conf, tree: Path, user: CommandLine
) -> None:
    write_config(user.home / ".bakthat.yml", default=conf)
    store(conf, tree)
    done = user.run("drill", "mydir", "--check-command", "true")
    assert done.code == 0
    assert "restores: 5 B, 1 check passed" in done.stderr
    failed = user.run("drill", "mydir", "--check-command", "echo no orders; false")
    assert failed.code == 1
    assert "error: the check command ended with exit code 1: no orders" in failed.stderr
    (entry,) = user.run("show", "--json").lines("backup")
    assert entry["metadata"]["drill"]["problem"] == (
        "the check command ended with exit code 1: no orders"
    )
    assert user.run("drill", "mydir", "--check", "SELECT 1").code == 2
