"""Operations on a local directory whose disk fails lose nothing and leave nothing behind.

``tests/reliability`` fails each single change to the disk, the catalog's too.
"""

from __future__ import annotations

import errno
import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

import bakthat
from bakthat import models
from bakthat.errors import BakthatError, DestinationError, StorageError
from tests.support.commandline import CommandLine
from tests.support.needs import as_root, mounted
from tests.support.profiles import Conf, write_config

pytestmark = pytest.mark.permissions

ERRORS = [errno.ENOSPC, errno.EIO, errno.EACCES, errno.EROFS]


@pytest.fixture
def conf(isolated_environment: Path, tmp_path: Path) -> Conf:
    return {
        "default_destination": "local",
        "local_path": str(tmp_path / "store"),
        "database": str(isolated_environment / "catalog.sqlite"),
    }


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    root = tmp_path / "mydir"
    root.mkdir()
    (root / "file").write_bytes(os.urandom(700_000))
    return root


@pytest.fixture
def stored(conf: Conf, tree: Path) -> models.Backups:
    return bakthat.backup(tree, conf=conf, password="")


def everything(directory: Path | str) -> list[str]:
    return sorted(str(path.relative_to(directory)) for path in Path(directory).rglob("*"))


@contextmanager
def failing(call: str, error: int, below: str, patched: pytest.MonkeyPatch) -> Iterator[None]:
    """Let ``os.<call>`` fail for what is below a directory, by its path or its descriptor."""
    real: Callable[..., Any] = getattr(os, call)

    def fail(first: Any, *rest: Any, **options: Any) -> Any:
        if isinstance(first, int):
            path = os.readlink(f"/proc/self/fd/{first}")
        else:
            directory = options.get("dir_fd")
            path = os.fsdecode(first)
            if directory is not None:
                path = os.path.join(os.readlink(f"/proc/self/fd/{directory}"), path)
        makes = call != "open" or (rest and rest[0] & os.O_CREAT)
        if makes and path.startswith(below):
            raise OSError(error, os.strerror(error))
        return real(first, *rest, **options)

    with patched.context() as patch:
        patch.setattr(os, call, fail)
        yield


def check(error: BakthatError, code: int, place: str) -> None:
    message = str(error)
    assert os.strerror(code).lower() in message.lower()
    assert place in message
    assert message.isprintable()


@pytest.mark.parametrize("error", ERRORS, ids=errno.errorcode.get)
@pytest.mark.parametrize("call", ["open", "write", "fsync", "link"])
def test_a_backup_on_a_failing_disk_leaves_earlier_backups_intact(
    conf: Conf, tree: Path, stored: models.Backups, call: str, error: int
) -> None:
    before = everything(conf["local_path"])
    with (
        # A link is named by what it is made from, the temporary file in the store.
        failing(call, error, conf["local_path"], pytest.MonkeyPatch()),
        pytest.raises(StorageError) as caught,
    ):
        bakthat.backup(tree, conf=conf, password="")
    check(caught.value, error, conf["local_path"])
    assert caught.value.hint
    assert everything(conf["local_path"]) == before
    assert [each.stored_filename for each in bakthat.ls(conf=conf)] == [stored.stored_filename]
    with models.catalog(conf["database"]):
        assert models.Reservations.select().count() == 0
    assert bakthat.backup(tree, conf=conf, password="").size


@pytest.mark.parametrize("error", [errno.EIO, errno.EACCES, errno.EROFS], ids=errno.errorcode.get)
def test_a_deletion_on_a_failing_disk_keeps_the_backup(
    conf: Conf, stored: models.Backups, tmp_path: Path, error: int
) -> None:
    with (
        failing("unlink", error, conf["local_path"], pytest.MonkeyPatch()),
        pytest.raises(StorageError) as caught,
    ):
        bakthat.delete("mydir", conf=conf)
    check(caught.value, error, stored.stored_filename)
    assert len(bakthat.ls(conf=conf)) == 1
    bakthat.restore("mydir", conf=conf, output=tmp_path / "out")


@pytest.mark.parametrize("error", ERRORS, ids=errno.errorcode.get)
@pytest.mark.parametrize("call", ["open", "write", "mkdir"])
@pytest.mark.usefixtures("stored")
def test_a_restore_on_a_failing_disk_leaves_nothing(
    conf: Conf, tmp_path: Path, call: str, error: int
) -> None:
    out = tmp_path / "out"
    with (
        failing(call, error, str(out), pytest.MonkeyPatch()),
        pytest.raises(DestinationError) as caught,
    ):
        bakthat.restore("mydir", conf=conf, output=out)
    check(caught.value, error, "out")
    assert not out.exists()


@as_root
@pytest.mark.slow
def test_a_disk_that_is_full_and_one_that_turns_read_only(
    conf: Conf, tree: Path, isolated_environment: Path, tmp_path: Path
) -> None:
    store = tmp_path / "store"
    store.mkdir()
    config = isolated_environment / ".bakthat.yml"
    write_config(config, default=conf)
    user = CommandLine(isolated_environment, tmp_path)
    with mounted(store, "-t", "tmpfs", "-o", "size=1m,mode=700", "tmpfs"):
        assert user.run("backup", "mydir", "--prompt", "no").code == 0
        before = everything(store)
        full = user.run("backup", "mydir", "--prompt", "no", "--quiet")
        assert full.code == 1
        error, hint = full.stderr.splitlines()
        assert error.startswith(f"bakthat: error: cannot write to {store}/mydir.")
        assert error.endswith(": no space left on device")
        assert "free some space" in hint
        assert everything(store) == before
        subprocess.run(["mount", "-o", "remount,ro", str(store)], check=True)
        for command in (["backup", "mydir", "--prompt", "no"], ["delete", "mydir"]):
            refused = user.run(*command, "--quiet")
            assert refused.code == 1
            assert "read-only file system" in refused.stderr
            assert "remount the file system" in refused.stderr
        assert everything(store) == before
        assert user.run("restore", "mydir", "-o", "out").code == 0
        assert (tmp_path / "out/mydir/file").read_bytes() == (tree / "file").read_bytes()
        assert len(bakthat.ls(conf=conf)) == 1
