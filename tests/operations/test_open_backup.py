"""A backup that is written as a file: what a clean end stores, and what else stores nothing."""

from __future__ import annotations

import csv
import errno
import gc
import io
import os
import signal
import subprocess
import sys
import tarfile
import threading
from collections.abc import Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, suppress
from pathlib import Path
from typing import IO, Any, cast

import pytest
import sh

import bakthat
from bakthat import models
from bakthat.archive.create import content as archive_content
from bakthat.errors import (
    KeyExistsError,
    ProducerError,
    ResourceError,
    StorageError,
    UsageError,
)
from bakthat.operations.backup.open_backup import BackupFile
from tests.support.own_threads import own_threads
from tests.support.profiles import Conf
from tests.support.servers import parts_under_way, plain

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("cheap_passphrases")]

Open = Callable[..., AbstractContextManager[BackupFile]]


@pytest.fixture
def open_backup(local: Conf) -> Open:
    """Return the function with the profile."""

    def opened(name: str = "shop.sql", **options: Any) -> AbstractContextManager[BackupFile]:
        return bakthat.open_backup(name, conf=local, **{"password": "", **options})

    return opened


def content(conf: Conf, name: str = "shop.sql") -> bytes:
    with bakthat.open_file(name, name, conf=conf) as file:
        return file.read()


def files(conf: Conf) -> list[str]:
    """Return the names of all files in the store but its mark."""
    store = Path(conf["local_path"])
    return sorted(str(each.relative_to(store)) for each in store.rglob("*") if each.is_file())


def check_nothing_is_left(conf: Conf) -> None:
    assert bakthat.ls(conf=conf) == []
    assert [each for each in files(conf) if "shop" in each] == []
    with models.catalog(Path(conf["database"])):
        assert models.Reservations.select().count() == 0
    assert own_threads() == []


def test_what_is_written_is_stored_when_the_block_ends(local: Conf, open_backup: Open) -> None:
    with open_backup(tags="daily", host="alpha") as file:
        assert file.write(b"first ") == 6
        assert file.write(memoryview(b"second")) == 6
        assert (file.name, file.entry, file.writable()) == ("shop.sql", None, True)
        assert bakthat.ls(conf=local) == []
    assert file.entry is not None
    (listed,) = bakthat.ls(conf=local)
    assert listed.stored_filename == file.entry.stored_filename
    assert (listed.tags, listed.metadata["client"], listed.metadata["bytes"]) == (
        "daily",
        "alpha",
        12,
    )
    assert content(local) == b"first second"
    with pytest.raises(ValueError, match="closed"):
        file.write(b"too late")
    assert own_threads() == []


@pytest.mark.parametrize(
    "error", [RuntimeError("dump"), KeyboardInterrupt(), SystemExit(0), GeneratorExit()]
)
def test_nothing_is_stored_when_the_block_raises(
    local: Conf, open_backup: Open, error: BaseException
) -> None:
    def write() -> None:
        with open_backup() as file:
            file.write(b"half")
            raise error

    with pytest.raises(type(error)) as caught:
        write()
    assert caught.value is error
    check_nothing_is_left(local)


def test_a_generator_that_is_closed_stores_nothing(local: Conf, open_backup: Open) -> None:
    def write() -> Generator[None, None, None]:
        with open_backup() as file:
            file.write(b"half")
            yield

    writing = write()
    next(writing)
    writing.close()
    check_nothing_is_left(local)


def test_no_finaliser_stores_anything(local: Conf, open_backup: Open) -> None:
    manager = open_backup()
    file = manager.__enter__()
    file.write(b"half")
    del manager
    gc.collect()
    with pytest.raises(ValueError, match="closed"):
        file.write(b"more")
    del file
    gc.collect()
    check_nothing_is_left(local)


ENDS = {
    "os._exit": "os._exit(0)",
    "sys.exit": "sys.exit(0)",
    "SIGKILL": "os.kill(os.getpid(), 9)",
    "the end of the program without the end of the block": "stack = None",
}

PROGRAM = """
import os, sys
import bakthat
manager = bakthat.open_backup("shop.sql", conf={conf!r}, password="")
file = manager.__enter__() if {is_open!r} else None
if file:
    file.write(b"half")
    {end}
else:
    with manager as file:
        file.write(b"half")
        {end}
"""


@pytest.mark.parametrize(
    ("end", "is_open"),
    [("os._exit", False), ("sys.exit", False), ("SIGKILL", False), (list(ENDS)[-1], True)],
)
def test_a_program_that_ends_in_the_block_stores_nothing(
    local: Conf, end: str, is_open: bool
) -> None:
    text = PROGRAM.format(conf=local, end=ENDS[end], is_open=is_open)
    subprocess.run([sys.executable, "-c", text], check=False, capture_output=True)
    assert bakthat.ls(conf=local) == []
    bakthat.sync(conf=local)
    assert bakthat.ls(conf=local) == []
    assert [each for each in files(local) if each.startswith("shop")] == []


def test_a_forked_child_that_leaves_the_block_neither_stores_nor_removes(
    local: Conf, open_backup: Open
) -> None:
    with open_backup() as file:
        file.write(b"before ")
        child = os.fork()
        if child == 0:
            os._exit(_leave(file))
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        file.write(b"after")
    assert content(local) == b"before after"


def _leave(file: BackupFile) -> int:
    """Return 0 when a forked child may not write to the file."""
    try:
        file.write(b"by the child")
    except UsageError:
        return 0
    return 1


@pytest.mark.parametrize(
    ("end", "message"),
    [("sys.exit(0)", ""), ("pass", "belongs to another process")],
    ids=["exits", "ends the block"],
)
def test_only_the_process_that_opened_the_file_ends_the_backup(
    local: Conf, end: str, message: str
) -> None:
    text = f"""
import os, sys
import bakthat
bakthat.events.on_error += lambda *_: print("on_error was called")
with bakthat.open_backup("shop.sql", conf={local!r}, password="") as file:
    file.write(b"before " + bytes(9_000_000))
    child = os.fork()
    if child == 0:
        {end}
    else:
        os.waitpid(child, 0)
        file.write(b"after")
"""
    done = subprocess.run(
        [sys.executable, "-c", text], check=False, capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
    assert message in done.stderr
    assert len(bakthat.ls(conf=local)) == 1
    assert content(local) == b"before " + bytes(9_000_000) + b"after"


def test_an_empty_file_is_refused_unless_that_is_meant(local: Conf, open_backup: Open) -> None:
    with pytest.raises(ProducerError, match="a Python program gave no data"), open_backup() as file:
        file.write(b"")
    check_nothing_is_left(local)
    with open_backup(allow_empty=True):
        pass
    assert content(local) == b""


def test_a_file_that_is_closed_early_is_stored_when_the_block_ends(
    local: Conf, open_backup: Open
) -> None:
    with open_backup() as file:
        file.write(b"all")
        file.close()
        file.close()
        with pytest.raises(ValueError, match="closed"):
            file.write(b"more")
        with pytest.raises(ValueError, match="closed"):
            file.fileno()
        assert bakthat.ls(conf=local) == []
    assert content(local) == b"all"


def test_the_file_is_one_for_pythons_own_writers(local: Conf, open_backup: Open) -> None:
    with open_backup("rows.csv") as file, io.TextIOWrapper(file, "utf-8", newline="") as text:
        csv.writer(text).writerows([["id", "naïve"], [1, "ä"]])
    assert content(local, "rows.csv") == "id,naïve\r\n1,ä\r\n".encode()
    with open_backup("all.tar") as file, tarfile.open(fileobj=file, mode="w|") as archive:
        archive.addfile(tarfile.TarInfo("member"))
    with tarfile.open(fileobj=io.BytesIO(content(local, "all.tar"))) as archive:
        assert archive.getnames() == ["member"]


def test_backups_may_be_written_at_once(local: Conf, open_backup: Open) -> None:
    with open_backup("outer") as outer, open_backup("inner") as inner, open_backup("inner") as same:
        outer.write(b"outer")
        inner.write(b"inner")
        same.write(b"other")
    assert content(local, "outer") == b"outer"
    assert same.entry is not None
    assert inner.entry is not None
    assert same.entry.stored_filename != inner.entry.stored_filename
    assert sorted(each.metadata["bytes"] for each in bakthat.ls("inner", conf=local)) == [5, 5]


def test_each_write_of_several_threads_stays_in_one_piece(local: Conf, open_backup: Open) -> None:
    pieces = [bytes([number]) * 5000 for number in range(200)]
    with open_backup() as file, ThreadPoolExecutor(8) as pool:
        assert list(pool.map(file.write, pieces)) == [5000] * 200
    stored = content(local)  # compares the SHA-256
    found = sorted(stored[at : at + 5000] for at in range(0, len(stored), 5000))
    assert found == sorted(pieces)


class Broken:
    """A sink that refuses one write, and takes the next ones."""

    def __init__(self, sink: Any, after: int) -> None:
        self.sink, self.left = sink, after

    def write(self, data: Any) -> None:
        self.left -= 1
        if not self.left:
            raise StorageError(os.strerror(errno.ENOSPC))
        self.sink.write(data)


@pytest.fixture
def broken(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the second piece of a stream meet a full disk."""
    original = archive_content.StreamWriter.__init__

    def init(self: Any, sink: Any, *arguments: Any, **options: Any) -> None:
        original(self, Broken(sink, 2), *arguments, **options)

    monkeypatch.setattr(archive_content.StreamWriter, "__init__", init)


@pytest.mark.usefixtures("broken")
def test_after_a_failed_write_nothing_is_stored_though_its_exception_was_handled(
    local: Conf, open_backup: Open
) -> None:
    def write() -> None:
        with open_backup() as file:
            file.write(b"first")
            with suppress(StorageError):
                file.write(b"second")
            with suppress(StorageError):
                file.write(b"third")

    with pytest.raises(StorageError, match="No space left"):
        write()
    check_nothing_is_left(local)


# Programs that write to the file.


def output(file: BackupFile) -> IO[bytes]:
    """Return the file, under the type that typeshed gives to every file."""
    return cast(IO[bytes], file)


def test_programs_write_in_order_with_the_python_program(local: Conf, open_backup: Open) -> None:
    with open_backup() as file:
        file.write(b"1 ")
        subprocess.run(["printf", "2 "], stdout=file.fileno(), check=True)
        sh.printf("3\\n4\\0 ", _out=output(file))
        file.write(b"5")
        file.write(bytes(3_000_000))
    assert content(local) == b"1 2 3\n4\0 5" + bytes(3_000_000)
    assert own_threads() == []


@pytest.mark.parametrize(
    "end", ["exit 3", "kill -9 $$", "exec sleep 60"], ids=["exit code", "signal", "time limit"]
)
def test_a_program_of_sh_that_fails_stores_nothing(
    local: Conf, open_backup: Open, end: str
) -> None:
    with (
        pytest.raises((sh.ErrorReturnCode, sh.TimeoutException)),
        open_backup() as file,
    ):
        sh.sh("-c", f"echo half; {end}", _out=output(file), _timeout=0.5)
    check_nothing_is_left(local)


def test_the_block_waits_for_a_program_that_still_writes(local: Conf, open_backup: Open) -> None:
    with open_backup() as file:
        process = subprocess.Popen(
            ["sh", "-c", "read line; echo end"], stdin=-1, stdout=output(file)
        )
        threading.Timer(0.1, lambda: process.communicate(b"go\n")).start()
    assert content(local) == b"end\n"
    assert process.wait(60) == 0


def test_a_program_that_still_writes_is_told_that_the_block_has_failed(
    local: Conf, open_backup: Open
) -> None:
    started = []

    def write() -> None:
        with open_backup() as file:
            started.append(subprocess.Popen(["cat", "/dev/zero"], stdout=output(file)))
            raise RuntimeError("other")

    with pytest.raises(RuntimeError, match="other"):
        write()
    assert started[0].wait(60) == -signal.SIGPIPE
    check_nothing_is_left(local)


@pytest.mark.usefixtures("broken")
@pytest.mark.parametrize("through", ["sh", "subprocess", "subprocess, unchecked"])
def test_a_storage_that_fails_stops_the_program_and_is_the_error(
    local: Conf, open_backup: Open, through: str
) -> None:
    def write() -> None:
        with open_backup() as file:
            if through == "sh":
                sh.cat("/dev/zero", _out=output(file))
            else:
                subprocess.run(
                    ["cat", "/dev/zero"], stdout=output(file), check=through == "subprocess"
                )

    with pytest.raises(StorageError, match="No space left"):
        write()
    check_nothing_is_left(local)


@pytest.mark.usefixtures("broken")
def test_writing_behind_a_program_raises_what_has_failed(local: Conf, open_backup: Open) -> None:
    def write() -> None:
        with open_backup() as file:
            file.fileno()
            while True:
                file.write(bytes(100_000))

    with pytest.raises(StorageError, match="No space left"):
        write()
    check_nothing_is_left(local)


def test_a_write_behind_a_program_that_was_interrupted_stores_nothing(
    local: Conf, open_backup: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    written = os.write

    def interrupted(descriptor: int, data: Any) -> int:
        if len(data) > 1:  # not the byte that stops the reader
            written(descriptor, data[:5])
            raise InterruptedError("a callback of a signal")
        return written(descriptor, data)

    def write() -> None:
        with open_backup() as file:
            file.fileno()
            monkeypatch.setattr(os, "write", interrupted)
            with suppress(InterruptedError):
                file.write(b"only a part of this")

    with pytest.raises(InterruptedError):
        write()
    check_nothing_is_left(local)


def test_a_thread_that_still_writes_does_not_hide_why_the_block_failed(
    local: Conf, open_backup: Open
) -> None:
    threads = []

    def write() -> None:
        with open_backup() as file:
            file.fileno()
            threads.append(threading.Thread(target=write_for_ever, args=(file,)))
            threads[0].start()
            raise RuntimeError("the block has failed")

    def write_for_ever(file: BackupFile) -> None:
        with suppress(BrokenPipeError, ValueError):
            while True:
                file.write(bytes(3_000_000))

    with pytest.raises(RuntimeError, match="the block has failed"):
        write()
    threads[0].join()
    check_nothing_is_left(local)


def test_a_pipe_that_cannot_be_read_stores_nothing(
    local: Conf, open_backup: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    def read(*_: object) -> int:
        raise MemoryError("no memory to read")

    def write() -> None:
        with open_backup() as file:
            file.write(b"before it, ")
            monkeypatch.setattr(os, "readv", read)
            subprocess.run(["printf", "what is lost"], stdout=file.fileno(), check=False)

    with pytest.raises(ResourceError, match="memory"):
        write()
    check_nothing_is_left(local)


def test_a_program_may_make_its_output_non_blocking(local: Conf, open_backup: Open) -> None:
    with open_backup() as file:
        line = "import os; os.set_blocking(1, False); os.write(1, b'begin ')"
        subprocess.run([sys.executable, "-c", line], stdout=file.fileno(), check=True)
        file.write(bytes(9_000_000))
    assert content(local) == b"begin " + bytes(9_000_000)


# S3.


def test_a_block_that_raises_leaves_no_part(moto_conf: Conf, local: Conf) -> None:
    conf = {**moto_conf, "database": local["database"], "compress": False}

    def write() -> None:
        with bakthat.open_backup("shop.sql", conf=conf, password="") as file:
            file.write(os.urandom(20_000_000))
            raise RuntimeError("other")

    with pytest.raises(RuntimeError, match="other"):
        write()
    assert parts_under_way(conf) == []
    assert plain(conf).list_objects_v2(Bucket=conf["s3_bucket"]).get("Contents", []) == []
    assert bakthat.ls(conf=conf) == []


def test_a_name_that_is_taken_meanwhile_is_not_replaced(local: Conf, open_backup: Open) -> None:
    def write() -> None:
        with open_backup() as file:
            file.write(b"mine")
            with models.catalog(Path(local["database"])):
                (reserved,) = models.Reservations.select()
            (Path(local["local_path"]) / reserved.stored_filename).write_bytes(b"theirs")

    with pytest.raises(StorageError, match="another writer") as caught:
        write()
    assert isinstance(caught.value.__cause__, KeyExistsError)
    (other,) = Path(local["local_path"]).glob("shop.sql*")
    assert other.read_bytes() == b"theirs"
    assert bakthat.ls(conf=local) == []
    with models.catalog(Path(local["database"])):
        assert models.Reservations.select().count() == 0
