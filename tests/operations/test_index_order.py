"""An index is stored before its archive, and never stays without it: faults and kills at each step.

``tests/reliability`` kills whole commands at random moments, over S3 too.
"""

from __future__ import annotations

import errno
import gzip
import json
import os
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import bakthat
from bakthat.archive.create.increment import plan
from bakthat.archive.index import writer
from bakthat.backends import make_backend
from bakthat.backends.local.backend import LocalBackend
from bakthat.errors import ArchiveError, KeyExistsError, StorageError
from bakthat.format.names import index_key, is_index_key
from bakthat.operations import cleanup
from bakthat.operations.backup import store
from bakthat.operations.backup.store import NewBackup
from bakthat.session.container import make_container
from bakthat.session.indexes.home import directory_of_indexes
from bakthat.session.indexes.upload import NewIndex
from bakthat.session.session import Session
from tests.support.fault_proxy import FaultProxy, LoseAnswer, Reset, refusal
from tests.support.glacier_server import GlacierServer
from tests.support.indexes import forget_cache
from tests.support.profiles import Conf

NAMES = ["mydir", "mydir/a.txt"]


def stored(conf: Conf) -> tuple[set[str], set[str]]:
    """Return the keys of the archives and those of the indexes."""
    backend = make_backend(conf["default_destination"], conf)
    return {each.key for each in backend.ls()}, {each.key for each in backend.ls(indexes=True)}


def assert_pairs(conf: Conf, count: int) -> None:
    """See that there are so many archives, each with its index, listed and readable."""
    archives, indexes = stored(conf)
    assert len(archives) == count
    assert indexes == set(map(index_key, archives))
    assert {each.stored_filename for each in bakthat.ls(conf=conf)} == archives
    forget_cache()
    for key in archives:
        assert [each.path for each in bakthat.contents(key, conf=conf)] == NAMES


def back_up(tree: Path, conf: Conf) -> Any:
    return bakthat.backup(tree, conf=conf, password="")


class Failing:
    """Lets a method of the upload of an archive or of an index fail, once."""

    def __init__(self, patched: pytest.MonkeyPatch, method: str, error: Exception, *, index: bool):
        self.error: Exception | None = error
        self.index = index
        begin = LocalBackend.upload

        def upload(backend: LocalBackend, key: str, **options: Any) -> Any:
            if method == "upload" and self.applies(key):
                self.fail()
            made = begin(backend, key, **options)
            if method != "upload" and self.applies(key):
                patched.setattr(made, method, lambda *_: self.fail())
            return made

        patched.setattr(LocalBackend, "upload", upload)

    def applies(self, key: str) -> bool:
        return self.error is not None and is_index_key(key) == self.index

    def fail(self) -> None:
        error, self.error = self.error, None
        assert error is not None
        raise error


@pytest.mark.parametrize("index", [True, False], ids=["index", "archive"])
@pytest.mark.parametrize("method", ["upload", "write", "flush", "commit"])
def test_a_refused_step_leaves_neither(
    tree: Path, local: Conf, monkeypatch: pytest.MonkeyPatch, method: str, index: bool
) -> None:
    back_up(tree, local)
    with monkeypatch.context() as patched:
        Failing(patched, method, StorageError("refused"), index=index)
        with pytest.raises(StorageError, match="refused"):
            back_up(tree, local)
    assert_pairs(local, 1)
    back_up(tree, local)
    assert_pairs(local, 2)


def test_a_name_without_room_for_an_index_is_backed_up_all_the_same(
    tree: Path, local: Conf, caplog: pytest.LogCaptureFixture
) -> None:
    """A file's name ends at 255 bytes, and those of an index and its description are longer."""
    entry = bakthat.backup(tree, conf=local, password="", custom_filename="n" * 223)
    assert "the backup has no index" in caplog.text
    assert stored(local) == ({entry.stored_filename}, set())
    assert "index_size" not in entry.metadata
    forget_cache()
    assert not bakthat.find("a.txt", conf=local).is_complete
    assert [each.path for each in bakthat.contents(entry.stored_filename, conf=local)] == NAMES
    (result,) = bakthat.check(conf=local)
    assert result.is_good
    assert "it can have no index" in result.index_problem
    caplog.clear()
    bakthat.delete(entry.stored_filename, conf=local)
    assert "was not deleted" not in caplog.text
    assert stored(local) == (set(), set())


def test_an_index_that_cannot_be_cached_fails_no_stored_backup(
    tree: Path, local: Conf, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was in a temporary file that cannot be read any more."""

    def refuse(*_: object) -> None:
        raise ArchiveError("cannot keep the index")

    monkeypatch.setattr("bakthat.session.indexes.upload.remember_index", refuse)
    assert back_up(tree, local).is_complete
    assert_pairs(local, 1)


def test_an_archive_that_is_refused_takes_its_index_along_on_s3(
    tree: Path, proxied_conf: Conf, local: Conf, moto_proxy: FaultProxy
) -> None:
    conf = {
        **proxied_conf,
        "database": local["database"],
        "default_destination": "s3",
        "attempts": 1,
    }
    moto_proxy.on("PUT", "/mydir.", refusal(403, "AccessDenied"), times=1, after=1)
    with pytest.raises(StorageError):
        back_up(tree, conf)
    assert stored(conf) == (set(), set())
    back_up(tree, conf)
    assert_pairs(conf, 1)


@pytest.mark.parametrize("lost", [1, 10**6], ids=["one answer", "all further answers"])
def test_an_archive_that_may_be_stored_keeps_its_index(
    tree: Path,
    proxied_conf: Conf,
    local: Conf,
    moto_proxy: FaultProxy,
    lost: int,
    caplog: pytest.LogCaptureFixture,
) -> None:
    conf = {
        **proxied_conf,
        "database": local["database"],
        "default_destination": "s3",
        "attempts": 1,
    }
    # The index: is its key free, its request, is it all there? Then the archive.
    moto_proxy.on("PUT", "/mydir.", LoseAnswer(), times=1, after=1)
    moto_proxy.on("HEAD", "/mydir.", Reset(), times=lost, after=3)
    with pytest.raises(StorageError):
        back_up(tree, conf)
    moto_proxy.rules.clear()
    archives, indexes = stored(conf)
    assert indexes == {index_key(*archives)}
    assert ("may remain without an archive" in caplog.text) == (lost > 1)
    bakthat.sync(conf=conf)
    assert_pairs(conf, 1)


def test_an_archive_whose_name_is_taken_meanwhile_takes_its_index_along(
    tree: Path, local: Conf, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        Failing(patched, "commit", KeyExistsError("taken"), index=False)
        back_up(tree, local)
    assert_pairs(local, 1)


def test_an_index_that_is_there_already_is_left_alone(
    tree: Path, local: Conf, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Clock:
        time = staticmethod(lambda: 1_370_373_055)

        def __getattr__(self, name: str) -> Any:
            import time

            return getattr(time, name)

    backend = make_backend("local", local)
    backend.create_container()
    orphan = "mydir.20130604191055.tgz.index"
    upload = backend.upload(orphan, metadata={"kind": "index"})
    upload.write(b"another one's")
    upload.commit()
    monkeypatch.setattr(store, "time", Clock())
    entry = back_up(tree, local)
    assert entry.stored_filename == "mydir.20130604191056.tgz"
    assert stored(local) == ({entry.stored_filename}, {orphan, index_key(entry.stored_filename)})
    with backend.download(orphan) as stream:
        assert stream.read() == b"another one's"


def test_an_index_that_cannot_be_removed_is_named(
    tree: Path, local: Conf, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(_self: LocalBackend, _key: str) -> None:
        raise StorageError("it may not be deleted")

    with monkeypatch.context() as patched:
        Failing(patched, "commit", StorageError("refused"), index=False)
        patched.setattr(LocalBackend, "delete", refuse)
        with pytest.raises(StorageError, match="refused"):
            back_up(tree, local)
    archives, (index,) = stored(local)
    assert archives == set()
    assert (
        f"{index} may remain without an archive: it may not be deleted; "
        "bakthat cleanup removes it after a day" in caplog.text
    )


class Full:
    """A temporary file on a disk that is full."""

    def write(self, _data: bytes) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def close(self) -> None:
        pass


def test_a_temporary_directory_that_is_full_is_an_error_of_one_line(
    tree: Path, local: Conf, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "SpooledTemporaryFile", lambda **_: Full())
    with pytest.raises(ArchiveError, match=r"cannot keep the index in .*: no space"):
        back_up(tree, local)
    assert stored(local) == (set(), set())
    assert bakthat.ls(conf=local) == []


def test_without_a_directory_for_temporary_files_an_error_says_which_were_tried(
    tree: Path, local: Conf, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in a container whose file system is read-only."""
    made = back_up(tree, local)
    # The usual ones are not to be had by any user.
    monkeypatch.setattr(tempfile, "_candidate_tempdir_list", lambda: ["/proc/none"])
    monkeypatch.setattr(tempfile, "tempdir", None)
    monkeypatch.setattr(writer, "_MEMORY_BYTES", 1)
    monkeypatch.setattr(plan, "_MEMORY_BYTES", 1)
    for incremental, what in ((False, "the index"), (True, "what changed")):
        (tree / "a.txt").write_text(what)
        with pytest.raises(
            ArchiveError, match=rf"cannot keep {what} in a .*: no usable .*/proc/no"
        ):
            bakthat.backup(tree, conf=local, password="", incremental=incremental)
    assert stored(local)[0] == {made.stored_filename}


def test_an_increment_that_finds_no_room_for_its_plan_stores_nothing(
    tree: Path, local: Conf, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = back_up(tree, local)
    (tree / "new").write_text("new")
    monkeypatch.setattr(tempfile, "SpooledTemporaryFile", lambda **_: Full())
    with pytest.raises(ArchiveError, match=r"cannot keep what changed in .*: no space") as caught:
        bakthat.backup(tree, conf=local, password="", incremental=True)
    assert "TMPDIR" in caught.value.hint
    assert [each.stored_filename for each in bakthat.ls(conf=local)] == [first.stored_filename]


def test_a_vault_gets_its_archive_even_if_the_index_has_no_place(
    tree: Path, local: Conf, glacier: GlacierServer, caplog: pytest.LogCaptureFixture
) -> None:
    conf = {**glacier.conf(), "default_destination": "glacier", "database": local["database"]}
    Path(directory_of_indexes(Session("default", None, conf))).write_text("no directory")
    entry = back_up(tree, conf)
    assert "index_size" not in entry.metadata
    assert entry.is_complete
    key = index_key(entry.stored_filename)
    assert f"the index {conf['glacier_vault']}/{key} could not be stored" in caplog.text
    assert "bakthat sync --indexes makes it again" in caplog.text


def test_a_cache_that_cannot_be_written_is_no_error(
    tree: Path, local: Conf, isolated_environment: Path
) -> None:
    (isolated_environment / ".cache").write_text("no directory")
    entry = back_up(tree, local)
    assert entry.metadata["index_size"] > 0


# Kills

Step = Callable[[pytest.MonkeyPatch], object]


def die(*_arguments: object, **_options: object) -> Any:
    os.kill(os.getpid(), signal.SIGKILL)


def before(owner: type, name: str) -> Step:
    return lambda patched: patched.setattr(owner, name, die)


def after(owner: type, name: str) -> Step:
    real = getattr(owner, name)

    def call(*arguments: Any, **options: Any) -> None:
        real(*arguments, **options)
        die()

    return lambda patched: patched.setattr(owner, name, call)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="forks")
@pytest.mark.parametrize(
    ("step", "is_stored"),
    [
        pytest.param(before(NewIndex, "send"), False, id="before the index is sent"),
        pytest.param(after(NewIndex, "send"), False, id="when the index is sent"),
        pytest.param(after(NewIndex, "commit"), False, id="when the index is stored"),
        pytest.param(before(NewIndex, "keep"), True, id="when the archive is stored"),
        pytest.param(after(NewBackup, "_record"), True, id="when it is recorded"),
        pytest.param(before(NewIndex, "remember"), True, id="before the cache"),
        pytest.param(after(NewIndex, "remember"), True, id="when all is done"),
    ],
)
def test_a_kill_at_any_step_leaves_a_backup_or_none(
    tree: Path, local: Conf, monkeypatch: pytest.MonkeyPatch, step: Step, is_stored: bool
) -> None:
    back_up(tree, local)
    child = os.fork()
    if not child:
        try:
            step(monkeypatch)
            back_up(tree, local)
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    archives, indexes = stored(local)
    assert len(archives) == 1 + is_stored
    assert set(map(index_key, archives)) <= indexes
    bakthat.sync(conf=local)
    assert {each.stored_filename for each in bakthat.ls(conf=local)} == archives
    with monkeypatch.context() as patched:
        # Whatever its age: what was killed a moment ago is dead here.
        patched.setattr(cleanup, "parse_interval", lambda _text: -2)
        bakthat.cleanup(conf=local)
    assert_pairs(local, 1 + is_stored)
    described = {f"{key}.bakthat.json" for both in stored(local) for key in both}
    kept = {path.name for path in Path(local["local_path"]).iterdir()}
    assert kept == described.union(*stored(local))
    back_up(tree, local)
    assert_pairs(local, 2 + is_stored)


@pytest.mark.parametrize("what", ["", "a.txt"])
def test_the_index_says_when_the_first_file_was_looked_at(
    tree: Path, local: Conf, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    """A worker process reads while this one connects, and a file may change meanwhile."""
    connected = []

    def connect(*arguments: Any, **options: Any) -> Any:
        connected.append(time.time_ns())
        return make_container(*arguments, **options)

    monkeypatch.setattr("bakthat.operations.backup.store.make_container", connect)
    before = time.time_ns()
    back_up(tree / what, local)
    (index,) = Path(local["local_path"]).glob("*.index")
    header = json.loads(gzip.decompress(index.read_bytes()).splitlines()[0])
    assert before <= header["begun"] <= connected[0]
