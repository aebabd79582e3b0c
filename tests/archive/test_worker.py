"""Archiving a tree in a worker process: the same archive, and no process left behind."""

from __future__ import annotations

import contextlib
import errno
import gzip
import io
import os
import random
import signal
import socket
import stat
import subprocess
import sys
import tarfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import bakthat
from bakthat.archive.create import content
from bakthat.archive.create import worker as create_worker
from bakthat.archive.create.walk import Scan, WalkOptions
from bakthat.archive.create.worker import open_content
from bakthat.archive.gzip.writer import GzipWriter
from bakthat.archive.index.writer import Segment
from bakthat.archive.report import ArchiveReport
from bakthat.archive.worker.process import WorkerProcess, may_fork
from bakthat.backends.local.backend import LocalBackend
from bakthat.errors import ArchiveError, KeyExistsError, SourceError, StorageError
from tests.support.archives import Collector, members
from tests.support.examples import rest_slow
from tests.support.profiles import Conf
from tests.support.tar_bytes import snapshot
from tests.support.trees import make_every_kind

pytestmark = [
    pytest.mark.permissions,
    # The children use none of the threads that pytest may have, and never return.
    pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning"),
]


def children() -> set[int]:
    """The children of this process that it has not waited for, ended ones included."""
    found = set()
    for entry in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):  # it was waited for meanwhile
            parent = entry.read_text().rpartition(")")[2].split()[1]
            if int(parent) == os.getpid():
                found.add(int(entry.parent.name))
    return found


@pytest.fixture(autouse=True)
def no_child_stays() -> Iterator[None]:
    """The servers of other tests may be children of this process too, and may stay."""
    before = children()
    yield
    assert not children() - before


def test_a_process_with_threads_may_not_fork() -> None:
    end = threading.Event()
    thread = threading.Thread(target=end.wait)
    thread.start()
    assert not may_fork()
    end.set()
    thread.join()


@pytest.mark.parametrize("missing", ["os.pidfd_open", "os.P_PIDFD", "signal.pidfd_send_signal"])
def test_a_python_without_pidfd_starts_no_worker(tmp_path: Path, missing: str) -> None:
    """Such as those that uv installs, which are built for old kernels."""
    script = (
        "import os, signal, sys\n"
        f"del {missing}\n"
        "import bakthat\n"
        "conf = {'default_destination': 'local', 'local_path': '~/store'}\n"
        "print(bakthat.backup(sys.argv[1], conf=conf, prompt='no').metadata['files'])\n"
    )
    (tmp_path / "source").mkdir()
    (tmp_path / "source" / "file").write_text("content")
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path / "source")],
        env={**os.environ, "HOME": str(tmp_path)},
        stdout=subprocess.PIPE,
        check=True,
    )
    assert done.stdout == b"1\n"


@pytest.fixture
def forking(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(create_worker, "may_fork", lambda: True)


def archived(
    root: Path, sink: Any, options: WalkOptions | None = None
) -> tuple[Scan, ArchiveReport, int, int, list[Segment]]:
    report = ArchiveReport()
    read: list[int] = []
    segments: list[Segment] = []
    with open_content(root, options or WalkOptions(), arcname="set") as archive:
        archive.begin("this one")
        counted = archive.count()
        size = archive.write(
            sink,
            report=report,
            on_bytes=read.append,
            on_segment=segments.append,
        )
    return counted, report, sum(read), size, segments


def assert_archived_alike(root: Path, options: WalkOptions | None = None) -> ArchiveReport:
    here, forked, packed = Collector(), Collector(), Collector()
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(create_worker, "may_fork", lambda: False)
        expected = archived(root, here, options)
        patched.setattr(create_worker, "may_fork", lambda: True)
        assert archived(root, forked, options) == expected
        with GzipWriter(packed, level=1) as writer:
            assert archived(root, writer, options) == expected
    assert forked.data == here.data
    assert gzip.decompress(packed.data) == here.data
    assert expected[3] == len(here.data)
    return expected[1]


def test_an_archive_of_every_kind_is_the_same(tmp_path: Path) -> None:
    report = assert_archived_alike(make_every_kind(tmp_path / "every kind"))
    assert report.files > 20


def test_warnings_arrive_in_order(tmp_path: Path) -> None:
    for number in range(50):
        os.mknod(tmp_path / f"{number:02}", stat.S_IFSOCK)
    report = assert_archived_alike(tmp_path)
    assert report.warning_count == 50
    assert "/00: is a socket" in report.warnings[0]


@pytest.mark.parametrize("threads", rest_slow([30, 1, 2, 8], 2))
def test_an_archive_larger_than_the_shared_memory_is_complete(
    tmp_path: Path, forking: None, threads: int
) -> None:
    noise = random.Random(1).randbytes(1 << 20)
    for number in range(3):
        (tmp_path / f"{number}").write_bytes(noise * 14 + b"x" * number)
    sink = Collector()
    with GzipWriter(sink, level=1, threads=threads) as writer:
        archived(tmp_path, writer)
    with tarfile.open(fileobj=io.BytesIO(gzip.decompress(sink.data))) as tar:
        assert [m.size for m in tar if m.isfile()] == [14 << 20, (14 << 20) + 1, (14 << 20) + 2]


def test_a_worker_that_is_killed_is_an_error(
    tmp_path: Path, forking: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(content, "write_tree", lambda *_, **__: os.kill(os.getpid(), 9))
    with pytest.raises(ArchiveError, match="the process that makes the archive ended"):
        archived(tmp_path, Collector())


def test_a_worker_that_is_killed_after_counting_is_an_error(tmp_path: Path, forking: None) -> None:
    before = children()
    with open_content(tmp_path, WalkOptions(), arcname="set") as archive:
        archive.count()
        [process] = children() - before
        os.kill(process, signal.SIGKILL)
        with pytest.raises(ArchiveError, match="the process that makes the archive ended"):
            archive.write(
                Collector(),
                report=ArchiveReport(),
                on_bytes=lambda _: None,
                on_segment=lambda _: None,
            )


def test_an_error_in_the_worker_is_raised_here(
    tmp_path: Path, forking: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(error: Exception) -> Any:
        def raising(*_: object, **__: object) -> None:
            raise error

        return raising

    monkeypatch.setattr(content, "write_tree", fail(SourceError("gone", hint="look")))
    with pytest.raises(SourceError, match="gone") as caught:
        archived(tmp_path, Collector())
    assert caught.value.hint == "look"


def test_a_defect_in_the_worker_is_raised_unchanged(
    tmp_path: Path, forking: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def divide(*_: object) -> None:
        raise ZeroDivisionError("a defect")

    monkeypatch.setattr(content, "scan", divide)
    with pytest.raises(ZeroDivisionError, match="a defect") as caught:
        archived(tmp_path, Collector())
    assert ", in divide" in str(caught.value.__cause__)  # which --debug prints


def test_a_worker_that_gets_no_thread_reports_it(
    tmp_path: Path, forking: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    with pytest.raises(RuntimeError, match="can't start new thread"):
        archived(tmp_path, Collector())


def test_an_exception_that_cannot_be_sent_is_named(
    tmp_path: Path, forking: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    class LocalError(Exception):
        pass

    def fail(*_: object) -> None:
        raise LocalError("only here")

    monkeypatch.setattr(content, "scan", fail)
    with pytest.raises(RuntimeError, match="LocalError: only here"):
        archived(tmp_path, Collector())


@pytest.mark.parametrize("failure", [KeyboardInterrupt, OSError, StorageError])
def test_a_sink_that_fails_ends_the_worker(
    tmp_path: Path, forking: None, failure: type[BaseException]
) -> None:
    class Failing:
        def write(self, data: object, /) -> None:
            raise failure("down")

    (tmp_path / "a").write_bytes(bytes(40 << 20))
    with pytest.raises(failure):
        archived(tmp_path, Failing())
    with pytest.raises(failure), GzipWriter(Failing(), level=1) as writer:
        archived(tmp_path, writer)


def test_a_worker_whose_archive_is_not_read_ends(tmp_path: Path, forking: None) -> None:
    with pytest.raises(ZeroDivisionError), open_content(tmp_path, WalkOptions(), arcname="set"):
        raise ZeroDivisionError


def test_a_missing_root_is_an_error_before_a_worker_starts(tmp_path: Path) -> None:
    with (
        pytest.raises(SourceError),
        open_content(tmp_path / "missing", WalkOptions(), arcname="set"),
    ):
        pytest.fail("the block must not begin")


def test_directories_that_changed_since_the_scan_are_listed_again(tmp_path: Path) -> None:
    """The listing that a scan keeps is valid only as long as the directory does not change."""
    for name in ("same", "more", "less"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "old").write_text(name)
    sink, report = Collector(), ArchiveReport()
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(create_worker, "may_fork", lambda: False)
        with open_content(tmp_path, WalkOptions(), arcname="set") as archive:
            assert archive.count().files == 3
            (tmp_path / "more" / "new").touch()
            (tmp_path / "less" / "old").unlink()
            archive.write(
                sink,
                report=report,
                on_bytes=lambda _: None,
                on_segment=lambda _: None,
            )
    assert not report.warning_count
    names = set(members(sink.data))
    assert {"set/same/old", "set/more/old", "set/more/new"} <= names
    assert "set/less/old" not in names


@pytest.mark.parametrize(
    "work",
    [
        "lambda _: [signal.pause() for _ in range(1000)]",
        "lambda connection: connection.recv(1)",
        "lambda _: os.read(os.pipe()[0], 1)",
        "lambda _: [None for _ in iter(int, 1)]",
    ],
    ids=["pausing", "waiting for a message", "blocked", "busy"],
)
@pytest.mark.parametrize("open_files", [0, 1100])
def test_an_orphan_ends_by_itself(work: str, open_files: int) -> None:
    """A process whose parent was killed must not work on, with the parent's files open."""
    script = (
        "import os, resource, signal\n"
        "_, most = resource.getrlimit(resource.RLIMIT_NOFILE)\n"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (min(most, 4096), most))\n"
        f"for _ in range({open_files}):\n"
        "    os.open(os.devnull, os.O_RDONLY)\n"
        "from bakthat.archive.worker.process import WorkerProcess\n"
        f"worker = WorkerProcess({work})\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    # Its output ends when the last process that has it open is gone.
    done = subprocess.run(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, timeout=60, check=False
    )
    assert done.returncode == -signal.SIGKILL


def test_work_that_raises_ends_the_process_too() -> None:
    readable, writable = os.pipe()

    def work(_: socket.socket) -> None:
        os.write(writable, b"x")
        raise ZeroDivisionError

    worker = WorkerProcess(work)
    os.close(writable)
    assert os.read(readable, 10) == b"x"
    assert os.read(readable, 10) == b""
    worker.end()
    os.close(readable)


def test_a_parent_that_ignores_the_end_of_children_ends_its_worker() -> None:
    """Then the pid is free at once, and another process may get it."""
    script = (
        "import os, signal\n"
        "from bakthat.archive.worker.process import WorkerProcess\n"
        "signal.signal(signal.SIGCHLD, signal.SIG_IGN)\n"
        "ended = WorkerProcess(lambda _: None)\n"
        "assert ended.connection.recv(1) == b''\n"
        "ended.end()\n"
        "ended.end()\n"
        "busy = WorkerProcess(lambda _: [signal.pause() for _ in range(1000)])\n"
        "busy.end()\n"
        "print('done')\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, timeout=60, check=True
    )
    assert done.stdout == b"done\n"


def test_without_a_worker_this_process_makes_the_archive(
    tmp_path: Path, forking: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse() -> int:
        raise BlockingIOError("too many processes")

    monkeypatch.setattr("bakthat.archive.worker.process.os.fork", refuse)
    sink = Collector()
    archived(make_every_kind(tmp_path / "every kind"), sink)
    assert members(sink.data)


@pytest.mark.parametrize(
    ("function", "number"),
    [
        ("linux.open_pidfd", errno.ENOSYS),
        ("linux.reap_pidfd", errno.EINVAL),  # Linux 5.3
        ("linux.signal_pidfd", errno.EPERM),  # a sandbox
    ],
)
def test_no_worker_is_started_that_could_not_be_ended(
    tmp_path: Path, forking: None, monkeypatch: pytest.MonkeyPatch, function: str, number: int
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(f"bakthat.archive.worker.process.{function}", refuse)
    open_before = os.listdir("/proc/self/fd")
    sink = Collector()
    archived(make_every_kind(tmp_path / "every kind"), sink)
    assert members(sink.data)
    assert os.listdir("/proc/self/fd") == open_before


@pytest.mark.parametrize("sigchld", ["SIG_DFL", "SIG_IGN"])
@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENOMEM, errno.ENOSYS])
def test_a_process_that_gets_no_pidfd_ends_before_it_begins(sigchld: str, number: int) -> None:
    script = (
        "import os, signal\n"
        "from bakthat.archive.worker.process import WorkerProcess\n"
        f"signal.signal(signal.SIGCHLD, signal.{sigchld})\n"
        "real = os.pidfd_open\n"
        "def open_own(process):\n"
        "    if process == os.getpid():\n"
        "        return real(process)\n"
        f"    raise OSError({number}, 'refused')\n"
        "os.pidfd_open = open_own\n"
        "try:\n"
        "    WorkerProcess(lambda _: print('begun', flush=True))\n"
        "except OSError as exc:\n"
        f"    assert exc.errno == {number}\n"
        "try:\n"
        "    print(os.waitpid(-1, 0))\n"
        "except ChildProcessError:\n"
        "    print('no child')\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, timeout=60, check=True
    )
    assert done.stdout == b"no child\n"


def test_an_archive_is_made_whatever_number_of_descriptors_is_left(tmp_path: Path) -> None:
    """Too few are a plain error. No process and no descriptor stays behind."""
    (tmp_path / "source").mkdir()
    (tmp_path / "source" / "file").write_text("content")
    script = (
        "import errno, os, resource, sys\n"
        "from pathlib import Path\n"
        "from bakthat.archive.create.walk import WalkOptions\n"
        "from bakthat.archive.create.worker import open_content\n"
        "from bakthat.archive.report import ArchiveReport\n"
        "from bakthat.errors import SourceError\n"
        "class Sink:\n"
        "    size = 0\n"
        "    def write(self, data):\n"
        "        self.size += len(data)\n"
        "def archive(sink):\n"
        "    with open_content(Path(sys.argv[1]), WalkOptions(), arcname='set') as content:\n"
        "        content.begin('')\n"
        "        content.count()\n"
        "        content.write(\n"
        "            sink, report=ArchiveReport(), on_bytes=lambda _: None,\n"
        "            on_segment=lambda _: None)\n"
        "archive(Sink())\n"
        "highest = max(map(int, os.listdir('/proc/self/fd')))\n"
        "before = os.listdir('/proc/self/fd')\n"
        "ends = []\n"
        "for more in range(12):\n"
        "    sink = Sink()\n"
        "    resource.setrlimit(resource.RLIMIT_NOFILE, (highest + more, 4096))\n"
        "    try:\n"
        "        archive(sink)\n"
        "        ends.append('done')\n"
        "    except (OSError, SourceError) as exc:\n"
        "        assert 'oo many open files' in str(exc), exc\n"
        "        ends.append('refused')\n"
        "    resource.setrlimit(resource.RLIMIT_NOFILE, (4096, 4096))\n"
        "    assert os.listdir('/proc/self/fd') == before\n"
        "    try:\n"
        "        raise SystemExit(f'a child stays: {os.waitpid(-1, os.WNOHANG)}, {ends}')\n"
        "    except ChildProcessError:\n"
        "        pass\n"
        "print(*sorted(set(ends)))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path / "source")],
        stdout=subprocess.PIPE,
        timeout=60,
        check=True,
    )
    assert done.stdout == b"done refused\n"


def test_a_process_that_does_not_end_is_left_with_a_warning() -> None:
    """As one does that waits for a dead mount. Here the signal that kills is lost."""
    script = (
        "import logging, os, signal\n"
        "from bakthat.archive.worker import process\n"
        "logging.basicConfig(format='%(message)s')\n"
        "process.END_SECONDS = 0.1\n"
        "readable, writable = os.pipe()\n"
        "worker = process.WorkerProcess(lambda _: os.read(readable, 1))\n"
        "kill = signal.pidfd_send_signal\n"
        "signal.pidfd_send_signal = lambda *_: None\n"
        "worker.end()\n"
        "os.write(writable, b'x')\n"
        "os.wait()\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], stderr=subprocess.PIPE, timeout=60, check=True
    )
    assert done.stderr == b"the process that reads the files does not end; a mount may be dead\n"


def test_the_worker_of_a_name_that_is_taken_ends_at_once(
    tree: Path, local: Conf, forking: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = children()
    running: list[int] = []
    upload = LocalBackend.upload

    def refuse_first(self: LocalBackend, key: str, **options: Any) -> Any:
        running.append(len(children() - before))
        if len(running) == 1:
            raise KeyExistsError("taken")
        return upload(self, key, **options)

    monkeypatch.setattr(LocalBackend, "upload", refuse_first)
    bakthat.backup(tree, conf=local, password="")
    assert running == [1, 1, 1]  # the archive twice, and the index


def test_the_command_line_archives_in_a_worker(tmp_path: Path) -> None:
    """In a process with one thread; the restored tree equals the original."""
    source = tmp_path / "home" / "source"
    source.mkdir(parents=True)
    for number in range(600):
        (source / f"{number}").write_text(str(number))
    script = (
        "import os, sys\n"
        "os.register_at_fork(after_in_parent=lambda: print('forked', flush=True))\n"
        "from bakthat.__main__ import main\n"
        "sys.exit(main(sys.argv[1:]))\n"
    )

    def run(*arguments: str) -> str:
        return subprocess.run(
            [sys.executable, "-c", script, *arguments],
            env={**os.environ, "HOME": str(tmp_path / "home")},
            cwd=tmp_path,
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        ).stdout

    assert run("backup", "--prompt", "no", str(source)).count("forked") == 1
    assert run("restore", "source", "-o", str(tmp_path / "out")).count("forked") == 0
    assert snapshot(tmp_path / "out" / "source") == snapshot(source)
