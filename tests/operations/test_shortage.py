"""A process without memory, threads or file descriptors says so, and leaves nothing behind."""

from __future__ import annotations

import errno
import os
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import bakthat
from bakthat.archive.gzip.writer import GzipWriter
from bakthat.errors import ResourceError
from tests.support.commandline import CommandLine
from tests.support.profiles import Conf, write_config
from tests.support.servers import parts_under_way, plain

UNDER_A_LIMIT = """
import os, resource, sys, threading
os.closerange(3, 1000)
from bakthat.__main__ import main

kind, more = sys.argv[1], int(sys.argv[2])
if kind == "files":
    resource.setrlimit(resource.RLIMIT_NOFILE, (3 + more, 4096))
elif kind == "memory":
    import bakthat.cli.run  # Python itself may crash when it cannot load a module
    with open("/proc/self/statm") as file:
        used = int(file.read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + more * 1024 * 1024, resource.RLIM_INFINITY))
else:
    start, left = threading.Thread.start, [more]
    def refuse(thread):
        left[0] -= 1
        if left[0] < 0:
            raise RuntimeError("can't start new thread")
        start(thread)
    threading.Thread.start = refuse
sys.exit(main(sys.argv[3:]))
"""
WITHOUT_A_LIBRARY = """
import sys
from bakthat.__main__ import main

class Refusing:
    def find_spec(self, name, *_):
        if name == "_ssl":
            raise ImportError("_ssl.so: failed to map segment from shared object")

sys.meta_path.insert(0, Refusing())
sys.exit(main(sys.argv[1:]))
"""
LIMITS = [
    *(("files", more) for more in (0, 1, 3, 4, 5, 7, 10, 200)),
    *(("threads", more) for more in (0, 1, 2, 3, 5)),
    *(("memory", more) for more in (22, 60, 110)),
]
"""Kinds of limits, and what is left: descriptors, MiB, threads.

CPython itself crashes where an error is raised when the very last page is used, as with some single
value between these; what is left behind then is what a kill leaves.
"""
REASONS = (
    "not enough memory",
    "of memory",
    "too many open files",
    "no more threads can be started",
    "unable to open database file",
)


def run(user: CommandLine, kind: str, more: int, *arguments: str | Path) -> tuple[int, str]:
    return run_code(user, UNDER_A_LIMIT, kind, str(more), *arguments)


def run_code(user: CommandLine, code: str, *arguments: str | Path) -> tuple[int, str]:
    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)],
        cwd=user.directory,
        env=user.environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    return done.returncode, done.stderr


def assert_plain(code: int, said: str) -> None:
    assert code in (0, 1), said
    assert "unexpected" not in said
    assert "defect" not in said
    assert "Traceback" not in said
    if code:
        assert any(reason in said.lower() for reason in REASONS), said


@pytest.fixture(params=["local", "s3"])
def profile(request: pytest.FixtureRequest, user: CommandLine) -> dict[str, Any]:
    (user.directory / "source").mkdir()
    (user.directory / "source" / "large").write_bytes(os.urandom(20 << 20))
    (user.directory / "source" / "small").write_text("content")
    conf: Conf = {"default_destination": "local"}
    if request.param == "s3":
        conf = request.getfixturevalue("moto_conf")
        plain(conf).create_bucket(Bucket=conf["s3_bucket"])
    profile = {**conf, "attempts": 2}
    write_config(user.home / ".bakthat.yml", default=profile)
    return profile


def remains(user: CommandLine, profile: dict[str, Any]) -> list[str]:
    """Return what a failed backup left behind."""
    found = []
    if "s3_bucket" in profile:
        found += parts_under_way(profile)
    store = user.home / ".bakthat_store"
    if store.exists():
        found += [each.name for each in store.iterdir() if ".tmp" in each.name]
    catalog = user.home / ".bakthat.sqlite"
    if catalog.exists():
        with sqlite3.connect(catalog) as database:
            tables = database.execute("SELECT name FROM sqlite_master WHERE name = 'reservations'")
            if tables.fetchall():
                rows = database.execute("SELECT stored_filename FROM reservations")
                found += [name for (name,) in rows]
        database.close()
    return found


@pytest.mark.parametrize(
    ("failure", "message"),
    [
        (MemoryError(), "there is not enough memory"),
        (RuntimeError("can't start new thread"), "no more threads can be started"),
        (OSError(errno.EMFILE, "Too many open files"), "too many open files"),
        (OSError(errno.ENFILE, "Too many open files"), "this machine has too many open files"),
        (SystemError("<x> returned NULL without setting an exception"), "not enough memory"),
        (ImportError("x.so: failed to map segment from shared object"), "not enough memory"),
    ],
)
def test_the_library_raises_one_error_for_every_shortage(
    tree: Path, local: Conf, monkeypatch: pytest.MonkeyPatch, failure: Exception, message: str
) -> None:
    def fail(*_: object) -> None:
        raise failure

    monkeypatch.setattr(GzipWriter, "write", fail)
    with pytest.raises(ResourceError, match=message) as caught:
        bakthat.backup(tree, conf=local, password="")
    assert caught.value.hint
    assert caught.value.__cause__ is failure
    assert list(Path(local["local_path"]).iterdir()) == []
    monkeypatch.undo()
    assert bakthat.backup(tree, conf=local, password="").size


def test_a_library_that_cannot_be_loaded_is_a_shortage_also_where_another_one_hides_that(
    user: CommandLine, moto_conf: Conf
) -> None:
    write_config(user.home / ".bakthat.yml", default=moto_conf)
    (user.directory / "file").write_text("content")
    code, said = run_code(user, WITHOUT_A_LIBRARY, "backup", "file", "--prompt", "no")
    assert_plain(code, said)
    assert "bakthat: error: there is not enough memory\n" in said


@pytest.mark.slow
def test_a_backup_and_a_restore_under_limits_are_whole_or_say_what_is_missing(
    user: CommandLine, profile: dict[str, Any]
) -> None:
    assert user.run("backup", "source", "--name", "kept", "--prompt", "no").code == 0
    source = (user.directory / "source" / "large").read_bytes()
    codes = set()
    for kind, more in LIMITS:
        code, said = run(user, kind, more, "backup", "source", "--prompt", "no")
        assert_plain(code, f"backup, {kind} {more}: {said}")
        left = remains(user, profile)
        if kind == "memory":  # there may be too little to release the name, which then expires
            left = [each for each in left if not each.startswith("source.")]
        assert left == [], (kind, more, said)
        out = user.directory / f"out-{kind}-{more}"
        restored, said = run(user, kind, more, "restore", "kept", "-o", out)
        assert_plain(restored, f"restore, {kind} {more}: {said}")
        assert out.exists() == (restored == 0), said
        if restored == 0:
            assert (out / "source" / "large").read_bytes() == source
        codes |= {code, restored}
    assert codes == {0, 1}
    assert user.run("check", "--read-data").code == 0
