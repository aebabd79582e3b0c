"""A Redis server is backed up, restored and drilled by its URL, as databases are."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

import bakthat
from bakthat.errors import BakthatError, DrillError, UsageError
from tests.support.commandline import CommandLine
from tests.support.databases import output_of, redis_server
from tests.support.profiles import Conf, write_config
from tests.support.relay import relay_until

pytestmark = pytest.mark.slow

PASSWORD = "redis-zq7Kx"


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[int, int]]:
    """Run two servers; the first has a key."""
    homes = [tmp_path_factory.mktemp("redis") for _ in range(2)]
    with (
        redis_server(homes[0], password=PASSWORD) as first,
        redis_server(homes[1], password=PASSWORD) as second,
    ):
        redis(first, "SET", "shop", "tea")
        yield first, second


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


def redis(port: int, *words: str) -> str:
    command = ["redis-cli", "-h", "127.0.0.1", "-p", str(port), "-a", PASSWORD, "--no-auth-warning"]
    return output_of(*command, *words).strip()


def test_there_and_back(
    conf: Conf, servers: tuple[int, int], user: CommandLine, tmp_path: Path
) -> None:
    first, second = servers
    write_config(user.home / ".bakthat.yml", default=conf)
    done = user.run("backup", f"redis://127.0.0.1:{first}")
    assert done.code == 0, done.stderr
    (entry,) = bakthat.ls(conf=conf)
    assert entry.metadata["dump"] == "redis"
    name = entry.filename
    into = f"redis://127.0.0.1:{second}"
    done = user.run("restore", name, "--into", into)
    assert done.code == 0, done.stderr
    assert redis(second, "GET", "shop") == "tea"
    redis(second, "SET", "own", "1")
    refused = user.run("restore", name, "--into", into)
    assert refused.code == 1
    assert "--replace" in refused.stderr
    assert redis(second, "GET", "own") == "1"
    assert user.run("restore", name, "--into", into, "--replace").code == 0
    assert redis(second, "EXISTS", "own") == "0"
    with pytest.raises(UsageError, match="cannot be loaded into"):
        bakthat.restore(name, conf=conf, into="postgresql://127.0.0.1/x")
    bakthat.restore(name, conf=conf, output=tmp_path / "out")
    (dump,) = (tmp_path / "out").iterdir()
    assert dump.read_bytes().startswith(b"REDIS")
    assert dump.stat().st_mode & 0o777 == 0o600


def test_what_the_dump_program_says_is_shown_if_it_fails_only(
    conf: Conf, servers: tuple[int, int], user: CommandLine
) -> None:
    write_config(user.home / ".bakthat.yml", default=conf)
    backup = ("backup", f"redis://127.0.0.1:{servers[0]}")
    done = user.run(*backup)
    assert done.code == 0
    assert "redis-cli" not in done.stderr
    assert "SYNC" not in done.stderr
    (entry,) = bakthat.ls(conf=conf)
    assert "SYNC" in entry.metadata["producer"]["stderr"]
    program = user.directory / "redis-cli"
    program.write_text(
        '#!/bin/sh\ncase "$*" in *--rdb*) echo SYNC >&2; echo no sync >&2; exit 1;; esac\n'
        f'exec {shutil.which("redis-cli")} "$@"\n'
    )
    program.chmod(0o755)
    failed = user.run(*backup, env={"PATH": f"{user.directory}:{os.environ['PATH']}"})
    assert failed.code == 1
    assert "error: redis-cli ended with exit code 1: SYNC; no sync\n" in failed.stderr


def test_a_drill_starts_a_server_of_its_own(conf: Conf, servers: tuple[int, int]) -> None:
    (entry,) = bakthat.backup_databases(f"redis://127.0.0.1:{servers[0]}", conf=conf)
    drilled = bakthat.drill(entry.filename, conf=conf, check=["DBSIZE", "GET shop"])
    assert drilled.metadata["drill"]["passed"]
    for check, problem in [
        ("GET none", "gave NULL"),
        ("EXISTS none", "gave '0'"),
        ("NONSENSE", "failed: "),
        ("LRANGE none 0 -1", "gave no row"),
    ]:
        with pytest.raises(DrillError, match=f"^the check '{check}' {problem}"):
            bakthat.drill(entry.filename, conf=conf, check=check)
    with pytest.raises(DrillError, match="exit code 5"):
        bakthat.drill(entry.filename, conf=conf, check_command="exit 5")
    done = bakthat.drill(
        entry.filename,
        conf=conf,
        check_command='test "$(redis-cli -u "$BAKTHAT_DRILL" GET shop)" = tea || '
        'test "$(redis-cli -s "${BAKTHAT_DRILL#*://}" GET shop)" = tea',
    )
    assert done.metadata["drill"]["passed"]


def test_what_fails_leaves_nothing(conf: Conf, servers: tuple[int, int]) -> None:
    url = f"redis://127.0.0.1:{servers[0]}"
    for wrong, at in [({"database_password": "wrong"}, url), ({}, "redis://127.0.0.1:1")]:
        with pytest.raises(BakthatError) as caught:
            bakthat.backup_databases(at, conf={**conf, **wrong})
        assert PASSWORD not in str(caught.value)
    assert not Path(conf["local_path"]).exists()
    with pytest.raises(BakthatError):
        bakthat.backup_databases(f"{url}/3", conf=conf)


def test_the_time_limit_counts_before_the_dump_too(conf: Conf, servers: tuple[int, int]) -> None:
    late = pytest.raises(BakthatError, match=r"did not end within 1 second$")
    with relay_until(b"AUTH", servers[0]) as silent, late:
        bakthat.backup_databases(f"redis://127.0.0.1:{silent}", conf=conf, timeout=1)
    assert bakthat.ls(conf=conf) == []
