"""BakHelper: its temporary directory, its set, and its cleanup at the end of the block."""

from __future__ import annotations

import logging
import os
import shutil
import stat
import subprocess
import sys
import tarfile
import tempfile
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

import bakthat
from bakthat.errors import (
    AmbiguousNameError,
    ConfigError,
    DestinationError,
    NoMatchError,
    PasswordError,
    ProducerError,
    SourceError,
    StorageError,
    UsageError,
)
from bakthat.helper import BakHelper
from bakthat.operations.backup import store
from tests.support.commandline import PROJECT
from tests.support.profiles import Conf

pytestmark = pytest.mark.usefixtures("cheap_passphrases")


@pytest.fixture
def start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Change to a new directory, and let temporary directories be made in a known one."""
    (tmp_path / "start").mkdir()
    (tmp_path / "temporary").mkdir()
    monkeypatch.chdir(tmp_path / "start")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    return tmp_path / "start"


@pytest.fixture
def conf(local: Conf, start: Path) -> Conf:
    assert start.is_dir()
    return {**local, "rotation": {"last": 1}}


def left_behind(start: Path) -> list[str]:
    return sorted(each.name for each in (start.parent / "temporary").iterdir())


def dump() -> None:
    Path("myfile.txt").write_text("mydata")


def break_upload(patch: pytest.MonkeyPatch, error: BaseException) -> None:
    def fail(*_arguments: object, **_options: object) -> None:
        raise error

    patch.setattr(store, "object_stages", fail)


# The directory.


def test_the_block_works_in_a_private_directory_that_is_removed_afterwards(
    conf: Conf, start: Path
) -> None:
    with BakHelper("mybackup", conf=conf) as bh:
        inside = Path.cwd()
        assert inside == bh.directory
        assert inside.name.startswith("mybackup_")
        assert stat.S_IMODE(inside.stat().st_mode) == 0o700
        dump()
    assert Path.cwd() == start
    assert left_behind(start) == []
    with pytest.raises(UsageError, match="no temporary directory"):
        _ = bh.directory


@pytest.mark.parametrize(
    "error", [RuntimeError("dump"), KeyboardInterrupt(), SystemExit(1), GeneratorExit()]
)
def test_the_directory_is_removed_after_any_exception(
    conf: Conf, start: Path, error: BaseException
) -> None:
    def work() -> None:
        with BakHelper("mybackup", conf=conf):
            dump()
            raise error

    with pytest.raises(type(error)):
        work()
    assert Path.cwd() == start
    assert left_behind(start) == []


def test_the_working_directory_is_restored_wherever_the_block_went(conf: Conf, start: Path) -> None:
    with BakHelper("mybackup", conf=conf):
        os.mkdir("sub")
        os.chdir("sub")
    assert Path.cwd() == start
    assert left_behind(start) == []


def test_a_working_directory_that_vanished_is_reported(
    conf: Conf, start: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with BakHelper("mybackup", conf=conf):
        start.rmdir()
    assert f"cannot go back to {start}" in caplog.text
    assert Path.cwd() == start.parent / "temporary"
    assert left_behind(start) == []


@pytest.mark.permissions
def test_unwritable_directories_are_removed_too(conf: Conf, start: Path) -> None:
    with BakHelper("mybackup", conf=conf):
        os.makedirs("locked/below")
        Path("locked/file").write_text("x")
        os.symlink(start, "link")
        os.chmod("locked", 0)
    assert left_behind(start) == []
    assert start.is_dir()


def test_a_directory_that_the_block_removed_is_no_error(conf: Conf, start: Path) -> None:
    with BakHelper("mybackup", conf=conf) as bh:
        bh.directory.rmdir()
    assert left_behind(start) == []
    assert Path.cwd() == start


def test_a_helper_can_be_used_again_but_not_twice_at_once(conf: Conf, start: Path) -> None:
    helper = BakHelper("mybackup", conf=conf)
    for content in ("one", "two"):
        with helper as bh:
            Path("file").write_text(content)
            bh.backup()
            with pytest.raises(UsageError, match="in use already"):
                helper.__enter__()
    assert len(bakthat.ls(conf=conf)) == 2
    assert left_behind(start) == []


def test_a_temporary_directory_that_cannot_be_made_is_an_error(
    conf: Conf, start: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(start / "missing"))
    with pytest.raises(DestinationError, match="cannot make a temporary directory") as caught:
        BakHelper("mybackup", conf=conf).__enter__()
    assert "TMPDIR" in caught.value.hint
    assert Path.cwd() == start


@pytest.mark.parametrize("name", ["ü" * 120, "-rf", "with space", "x" * 255])
def test_any_name_that_a_set_can_have_makes_a_directory(conf: Conf, start: Path, name: str) -> None:
    with BakHelper(name, conf=conf) as bh:
        assert bh.directory.is_dir()
    assert left_behind(start) == []


def test_what_the_helper_wrote_needs_a_name(conf: Conf) -> None:
    with BakHelper(conf=conf) as helper, pytest.raises(UsageError, match="has no name") as caught:
        helper.backup()
    assert "BakHelper('mybackup')" in caught.value.hint


@pytest.mark.parametrize("name", ["a/b", "..", "a\nb", "x" * 256])
def test_a_name_that_no_set_can_have_is_refused_at_once(conf: Conf, name: str) -> None:
    with pytest.raises(UsageError, match="name of a backup"):
        BakHelper(name, conf=conf)


# The configuration: a path in it must not lead into the directory that is removed.


@pytest.mark.parametrize("chdir", [True, False])
@pytest.mark.parametrize("config", ["etc/bakthat.yml", None])
def test_a_relative_store_outlives_the_block(
    isolated_environment: Path, start: Path, config: str | None, chdir: bool
) -> None:
    file = start / config if config else isolated_environment / ".bakthat.yml"
    file.parent.mkdir(exist_ok=True)
    file.write_text(
        "default: {default_destination: local, local_path: store, database: catalog.sqlite}\n"
    )
    file.chmod(0o600)
    with BakHelper("mybackup", config=config, chdir=chdir) as bh:
        (bh.directory / "myfile.txt").write_text("mydata")
        made = bh.backup()
    assert left_behind(start) == []
    assert (file.parent / "store" / made.stored_filename).is_file()
    assert [each.stored_filename for each in bakthat.ls(config=config)] == [made.stored_filename]
    bakthat.restore("mybackup", config=config)
    assert (start / "mybackup" / "myfile.txt").read_text() == "mydata"


def test_a_relative_store_without_a_file_is_refused_and_the_dump_stays(
    conf: Conf, start: Path
) -> None:
    def work() -> None:
        with BakHelper("mybackup", conf={**conf, "local_path": "store"}) as bh:
            dump()
            bh.backup()

    with pytest.raises(ConfigError, match="'local_path' is the relative path 'store'"):
        work()
    (kept,) = left_behind(start)
    assert os.listdir(start.parent / "temporary" / kept) == ["myfile.txt"]


# Backing up.


def test_the_directory_becomes_the_named_set_with_a_root_of_that_name(
    conf: Conf, start: Path
) -> None:
    with BakHelper("mybackup", conf=conf, tags=["mybackup", "daily"]) as bh:
        dump()
        made = bh.backup()
        assert bh.rotate() == []
    assert (made.filename, made.tags) == ("mybackup", "mybackup daily")
    assert not made.is_encrypted
    with tarfile.open(Path(conf["local_path"]) / made.stored_filename) as archive:
        assert archive.getnames() == ["mybackup", "mybackup/myfile.txt"]
    bakthat.restore("mybackup", conf=conf)
    assert (start / "mybackup" / "myfile.txt").read_text() == "mydata"


def test_without_a_name_and_a_block_a_file_is_a_set_of_its_own(
    conf: Conf, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now)
    bh = BakHelper(conf=conf)
    dump()
    assert bh.backup("myfile.txt").filename == "myfile.txt"
    dump()
    bh.backup("myfile.txt")
    assert len(bh.rotate("myfile.txt", last=1)) == 1  # the second one is dated a second ahead
    os.remove("myfile.txt")
    assert bh.restore("myfile.txt") is not None
    assert Path("myfile.txt").read_text() == "mydata"


def test_a_name_counts_for_a_file_too(conf: Conf) -> None:
    dump()
    assert BakHelper("mybackup", conf=conf).backup("myfile.txt").filename == "mybackup"
    other = BakHelper("mybackup", conf=conf).backup("myfile.txt", custom_filename="other")
    assert other.filename == "other"


def test_a_helper_without_a_name_is_refused_where_it_needs_one(conf: Conf) -> None:
    bh = BakHelper(conf=conf)
    with pytest.raises(UsageError, match="no temporary directory"):
        bh.backup()
    for operation in (bh.rotate, bh.restore, lambda: bh.delete_older_than("1M")):
        with pytest.raises(UsageError, match="no backup was named"):
            operation()
    with pytest.raises(UsageError, match="no file or directory was named"):
        bh.backup("")


def test_unknown_keywords_are_named(conf: Conf) -> None:
    dump()
    with pytest.raises(TypeError, match="passwort"):
        BakHelper("a", conf=conf, passwort="x")  # type: ignore[call-arg]  # the test
    bh = BakHelper("a", conf=conf)
    with pytest.raises(TypeError, match="passwort"):
        bh.backup("myfile.txt", passwort="x")  # type: ignore[call-arg]  # the test
    with pytest.raises(TypeError, match="dayz"):
        bh.rotate(dayz=1)  # type: ignore[call-arg]  # the test
    assert bakthat.ls(conf=conf) == []


@pytest.mark.parametrize(
    ("password", "configured", "environment", "encrypted"),
    [
        (None, {}, "", False),
        ("", {}, "", False),
        ("pw", {}, "", True),
        (None, {"password": "pw"}, "", True),
        ("", {"password": "pw"}, "", False),
        (None, {}, "pw", True),
        ("", {}, "pw", False),
    ],
)
def test_a_password_is_never_asked_for_and_an_empty_one_means_none(
    conf: Conf,
    monkeypatch: pytest.MonkeyPatch,
    password: str | None,
    configured: Conf,
    environment: str,
    encrypted: bool,
) -> None:
    monkeypatch.setattr("bakthat.system.terminal.is_interactive", lambda: True)
    if environment:
        monkeypatch.setenv("BAKTHAT_PASSWORD", environment)
    with BakHelper("mybackup", password=password, conf={**conf, **configured}) as bh:
        dump()
        assert bh.backup().is_encrypted == encrypted


def test_arguments_of_a_call_override_those_of_the_helper(conf: Conf, tmp_path: Path) -> None:
    other = {**conf, "local_path": str(tmp_path / "other-store")}
    with BakHelper("mybackup", password="pw", tags="a", conf=conf) as bh:
        dump()
        made = bh.backup(password="", tags=["b"], conf=other)
    assert (made.is_encrypted, made.tags) == (False, "b")
    assert [each.name for each in (tmp_path / "other-store").glob("*.tgz")]


def test_a_helper_restores_its_own_newest_backup(conf: Conf, tmp_path: Path) -> None:
    with BakHelper("mybackup", password="pw", conf=conf) as bh:
        dump()
        bh.backup()
        Path("myfile.txt").write_text("newer")
        bh.backup()
        bh.restore(output=tmp_path / "out")
        assert bh.restore() is not None
        assert Path("mybackup/myfile.txt").read_text() == "newer"
    assert (tmp_path / "out" / "mybackup" / "myfile.txt").read_text() == "newer"
    with pytest.raises(PasswordError):
        BakHelper("mybackup", password="", conf=conf).restore()


def test_expiry_and_rotation_work_on_the_helpers_set_only(
    conf: Conf, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dump()
    helpers = [BakHelper(name, conf=conf) for name in ("my", "mysql")]
    with monkeypatch.context() as patch:
        patch.setattr("bakthat.operations.backup.store.time.time", lambda: 1370373055.0)
        for bh in helpers * 3:
            bh.backup("myfile.txt")
    assert len(helpers[0].delete_older_than("1D", dry_run=True)) == 2
    assert len(helpers[0].delete_older_than("1D")) == 2
    assert len(helpers[1].rotate()) == 2
    assert sorted(each.filename for each in bakthat.ls(conf=conf)) == ["my", "mysql"]
    assert helpers[0].delete_older_than("1D", "mysql") == []
    with pytest.raises(NoMatchError):
        helpers[0].delete_older_than("1D", host="another")


def test_no_rotation_is_an_error_that_says_so(conf: Conf) -> None:
    dump()
    bh = BakHelper("my", conf={**conf, "rotation": {}})
    bh.backup("myfile.txt")
    with pytest.raises(ConfigError, match="no rotation is configured"):
        bh.rotate()


def test_another_hosts_backup_is_restored_when_it_is_named(
    conf: Conf, monkeypatch: pytest.MonkeyPatch
) -> None:
    dump()
    bh = BakHelper("my", conf=conf)
    bh.backup("myfile.txt")
    with monkeypatch.context() as patch:
        patch.setattr("socket.gethostname", lambda: "elsewhere")
        bh.backup("myfile.txt")
    with pytest.raises(AmbiguousNameError):
        bh.restore()
    found = bh.restore(host="elsewhere")
    assert found is not None
    assert found.host == "elsewhere"


# Failures.


@pytest.mark.parametrize("error", [StorageError("down"), KeyboardInterrupt(), OSError("odd")])
def test_a_failed_backup_keeps_the_dump_and_says_where(
    conf: Conf,
    start: Path,
    error: BaseException,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def work() -> None:
        with BakHelper("mybackup", conf=conf) as bh:
            dump()
            break_upload(monkeypatch, error)
            bh.backup()

    with pytest.raises(type(error)) as caught:
        work()
    (kept,) = left_behind(start)
    where = start.parent / "temporary" / kept
    assert (where / "myfile.txt").read_text() == "mydata"
    assert stat.S_IMODE(where.stat().st_mode) == 0o700
    assert caught.value.__notes__ == [f"its files are still in {where}"]
    assert [r.getMessage() for r in caplog.records if r.levelno == logging.ERROR] == [
        f"the backup failed or is incomplete: its files are still in {where}"
    ]
    assert Path.cwd() == start


def test_a_failure_that_the_script_catches_keeps_the_dump_too(
    conf: Conf, start: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with BakHelper("mybackup", conf=conf) as bh:
        dump()
        with monkeypatch.context() as patch:
            break_upload(patch, StorageError("down"))
            with pytest.raises(StorageError):
                bh.backup("myfile.txt")
    assert len(left_behind(start)) == 1
    assert "are still in" in caplog.text


@pytest.mark.parametrize("again", [None, "myfile.txt"])
def test_a_dump_that_was_backed_up_at_the_second_try_is_not_kept(
    conf: Conf, start: Path, again: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    with BakHelper("mybackup", conf=conf) as bh:
        dump()
        with monkeypatch.context() as patch:
            break_upload(patch, StorageError("down"))
            with pytest.raises(StorageError):
                bh.backup("myfile.txt")
        bh.backup(again)
    assert left_behind(start) == []


def test_a_later_backup_of_other_files_does_not_discard_the_failed_one(
    conf: Conf, start: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with BakHelper("mybackup", conf=conf) as bh:
        dump()
        Path("other.txt").write_text("other")
        with monkeypatch.context() as patch:
            break_upload(patch, StorageError("down"))
            with pytest.raises(StorageError):
                bh.backup("myfile.txt")
        bh.backup("other.txt")
    assert len(left_behind(start)) == 1


def test_a_failure_about_files_elsewhere_keeps_nothing(conf: Conf, start: Path) -> None:
    with BakHelper("mybackup", conf=conf) as bh, pytest.raises(SourceError):
        bh.backup(start / "missing")
    assert left_behind(start) == []


def test_a_failed_rotation_keeps_nothing(conf: Conf, start: Path) -> None:
    def work() -> None:
        with BakHelper("mybackup", conf={**conf, "rotation": {}}) as bh:
            dump()
            bh.backup()
            bh.rotate()

    with pytest.raises(ConfigError):
        work()
    assert left_behind(start) == []
    assert len(bakthat.ls(conf=conf)) == 1


# Threads.


def test_helpers_in_threads_do_not_change_the_working_directory(conf: Conf, start: Path) -> None:
    barrier = threading.Barrier(4, timeout=60)
    failures: list[BaseException] = []

    def work(number: int) -> None:
        try:
            with BakHelper(f"set-{number}", conf=conf, chdir=False) as bh:
                barrier.wait()
                (bh.directory / "file").write_text(str(number))
                bh.backup()
                barrier.wait()
        except BaseException as exc:  # noqa: BLE001  # reported below
            failures.append(exc)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert Path.cwd() == start
    assert left_behind(start) == []
    for number in range(4):
        BakHelper(f"set-{number}", conf=conf).restore()
        assert (start / f"set-{number}" / "file").read_text() == str(number)


def test_a_block_in_a_second_thread_is_refused(conf: Conf, start: Path) -> None:
    def enter() -> None:
        with BakHelper("second", conf=conf):
            dump()

    with ThreadPoolExecutor(1) as another:
        with BakHelper("first", conf=conf) as bh:
            with pytest.raises(UsageError, match="another thread's helper") as caught:
                another.submit(enter).result()
            assert "chdir=False" in caught.value.hint
            assert Path.cwd() == bh.directory
            with BakHelper("inner", conf=conf) as inner:
                assert Path.cwd() == inner.directory
            assert Path.cwd() == bh.directory
            with pytest.raises(UsageError):  # still: the inner block was no end of the outer one
                another.submit(enter).result()
            assert os.listdir() == []
        another.submit(enter).result()
    assert Path.cwd() == start
    assert left_behind(start) == []


FORK_BESIDE_A_BLOCK = """
import os
from concurrent.futures import ThreadPoolExecutor
from bakthat.helper import BakHelper

with ThreadPoolExecutor(1) as another:
    helper = BakHelper("first")
    another.submit(helper.__enter__).result()
    child = os.fork()
    if child == 0:
        with BakHelper("child"):
            code = 7
        os._exit(code)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
    another.submit(helper.__exit__, None, None, None).result()
"""


def test_a_process_forked_during_another_threads_block_may_use_helpers(tmp_path: Path) -> None:
    done = subprocess.run(
        # Python warns of forking beside threads, which scripts do all the same.
        [sys.executable, "-W", "ignore", "-c", FORK_BESIDE_A_BLOCK],
        cwd=PROJECT,
        env={"HOME": str(tmp_path), "TMPDIR": str(tmp_path), "PATH": ""},
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "7\n", "")
    assert list(tmp_path.iterdir()) == []


def test_the_events_of_the_operations_fire_from_a_helper(conf: Conf) -> None:
    fired: list[str] = []
    hooks: list[tuple[Any, Callable[..., None]]] = []
    for name in ("backup", "restore", "delete_older_than", "rotate_backups"):
        slot = getattr(bakthat.events, f"on_{name}")

        def listen(_session_id: str, _result: object, name: str = name) -> None:
            fired.append(name)

        slot += listen
        hooks.append((slot, listen))
    try:
        with BakHelper("mybackup", conf=conf) as bh:
            dump()
            bh.backup()
            bh.restore()
            bh.delete_older_than("1M")
            bh.rotate()
    finally:
        for slot, listen in hooks:
            slot -= listen
    assert fired == ["backup", "restore", "delete_older_than", "rotate_backups"]


def test_the_helper_passes_on_every_option_of_backup() -> None:
    import inspect

    from bakthat.helper import BackupOptions, CommandOptions, RotationOptions

    own = {"filename", "destination", "profile", "config", "conf", "prompt", "tags", "password"}
    taken = set(inspect.signature(bakthat.backup).parameters)
    options, of_command = BackupOptions.__annotations__, CommandOptions.__annotations__
    named = {"custom_filename", "root_name", "command"}
    assert taken - own - named == {*options, *of_command}
    assert {*of_command} - {*options} == {"timeout", "fail_below", "accept_size"}
    taken = set(inspect.signature(bakthat.rotate_backups).parameters)
    assert taken - own == set(RotationOptions.__annotations__)


def test_a_dump_that_could_not_be_read_completely_is_kept(
    conf: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    real_open = os.open

    def refuse(path: Any, *arguments: Any, **options: Any) -> int:
        if os.fspath(path).endswith("dump.sql"):
            raise PermissionError(13, "Permission denied", os.fspath(path))
        return real_open(path, *arguments, **options)

    with BakHelper("mybackup", conf=conf) as bh:
        Path("dump.sql").write_text("precious")
        with monkeypatch.context() as patched:
            patched.setattr(os, "open", refuse)
            made = bh.backup()
        directory = bh.directory
    assert made.metadata["warning_count"] == 1
    assert (directory / "dump.sql").read_text() == "precious"
    shutil.rmtree(directory)


def test_a_dump_of_nothing_is_incomplete_and_leaves_no_directory(
    conf: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    with BakHelper("mybackup", conf=conf) as bh:
        directory = bh.directory
        made = bh.backup()
    assert not made.is_complete
    assert not directory.exists(), "there is nothing to keep"
    [warning] = [each.getMessage() for each in caplog.records if each.levelno >= logging.WARNING]
    assert "nothing in it is stored: the directory is empty" in warning
    with BakHelper("mybackup", conf=conf) as bh:
        assert bh.backup(allow_empty=True).is_complete


def test_a_forked_child_that_ends_leaves_the_dump_to_its_parent(conf: dict[str, Any]) -> None:
    with BakHelper("mybackup", conf=conf) as bh:
        Path("dump.sql").write_text("precious")
        bh._process += 1  # as if another process had entered the block
        directory = bh.directory
        bh.__exit__(SystemExit, SystemExit(0), None)
        assert (directory / "dump.sql").exists()
        bh._process -= 1
        bh._directory = directory
        bh.backup()
    assert not directory.exists()


# Commands.


def test_the_output_of_a_command_is_backed_up_without_a_directory(conf: Conf, start: Path) -> None:
    bh = BakHelper("shop.dump", conf=conf, password="secret", tags=["database"])
    entry = bh.backup_command("printf 'first\\nsecond'", tags="other")
    assert (entry.filename, entry.tags, entry.is_encrypted) == ("shop.dump", "other", True)
    assert left_behind(start) == []
    bh.restore()
    assert (start / "shop.dump").read_text() == "first\nsecond"
    assert bh.rotate() == []


def test_a_command_runs_in_the_directory_of_the_block(conf: Conf, start: Path) -> None:
    with BakHelper("mybackup", conf=conf) as bh:
        dump()
        entry = bh.backup_command("cat myfile.txt", "myfile.txt")
    assert (entry.filename, entry.metadata["bytes"]) == ("myfile.txt", 6)
    assert left_behind(start) == []


def test_a_command_that_fails_stores_nothing(conf: Conf) -> None:
    bh = BakHelper("shop.dump", conf=conf)
    with pytest.raises(ProducerError, match="the command ended with exit code 3: no such database"):
        bh.backup_command("echo half; echo no such database >&2; exit 3")
    with pytest.raises(ProducerError, match=r"did not end within 0\.2 seconds"):
        bh.backup_command("echo half; exec sleep 60", timeout=0.2)
    assert bakthat.ls(conf=conf) == []
    assert bh.backup_command("true", allow_empty=True).metadata["bytes"] == 0


def test_the_output_of_a_command_needs_a_name(conf: Conf) -> None:
    with pytest.raises(UsageError, match="no backup was named"):
        BakHelper(conf=conf).backup_command("echo something")
