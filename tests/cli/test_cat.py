"""``bakthat cat``: what is written where, exit codes, and pipes that are closed."""

from __future__ import annotations

import hashlib
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.commandline import CommandLine
from tests.support.glacier_server import GlacierServer
from tests.support.profiles import Conf, write_config

NOISE = random.Random(6).randbytes(3 * 1024 * 1024)


@pytest.fixture
def user(user: CommandLine, local: Conf) -> CommandLine:
    """Return a user with a backup of some files."""
    root = user.directory / "data"
    root.mkdir()
    (root / "noise").write_bytes(NOISE)
    (root / "lines").write_text("".join(f"line {number}\n" for number in range(100_000)))
    os.symlink("lines", root / "link")
    write_config(user.home / ".bakthat.yml", default=local)
    assert user.run("backup", root, "--prompt", "no", "--quiet").code == 0
    return user


def cat(user: CommandLine, *arguments: str) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [sys.executable, "-m", "bakthat", "cat", *arguments],
        env=user.environment,
        cwd=user.directory,
        capture_output=True,
        check=False,
    )


def test_it_writes_the_bytes_of_the_file_and_nothing_else(user: CommandLine) -> None:
    done = cat(user, "data", "noise", "--quiet")
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout == NOISE
    assert cat(user, "data", "data/no*").stdout == NOISE


@pytest.mark.parametrize(
    ("path", "code", "message"),
    [
        ("missing", 1, "the backup holds no 'missing'"),
        ("data", 2, "'data' is a directory in the backup"),
        ("link", 2, "'data/link' is a symbolic link to 'lines' in the backup"),
        ("*", 2, "'*' matches more than one file, such as 'data/lines' and 'data/link'"),
        ("../x", 2, "no path in a backup can be '../x'"),
    ],
)
def test_what_is_no_file_is_one_line(user: CommandLine, path: str, code: int, message: str) -> None:
    done = cat(user, "data", path, "--quiet")
    assert done.returncode == code
    assert done.stdout == b""
    lines = done.stderr.decode().splitlines()
    assert lines[0] == f"bakthat: error: {message}"


def test_damage_fails_and_writes_nothing_of_a_small_file(user: CommandLine, local: Conf) -> None:
    assert cat(user, "data", "lines").returncode == 0  # the cache has the index from now on
    (stored,) = Path(local["local_path"]).glob("*.tgz")
    with stored.open("r+b") as file:
        file.seek(stored.stat().st_size // 2)
        file.write(b"damage")
    done = cat(user, "data", "noise", "--quiet")
    assert (done.returncode, done.stdout) == (1, b"")
    assert b"Traceback" not in done.stderr
    assert done.stderr.startswith(b"bakthat: error: ")


def test_a_pipe_that_is_closed_is_no_failure(user: CommandLine) -> None:
    for path, command in (("lines", "head -n 1"), ("noise", "head -c 10"), ("noise", "true")):
        line = f"{sys.executable} -m bakthat cat data {path} --quiet | {command}"
        done = subprocess.run(
            ["bash", "-c", f"{line}; echo ${{PIPESTATUS[0]}}"],
            env=user.environment,
            cwd=user.directory,
            capture_output=True,
            check=True,
        )
        assert done.stdout.endswith(b"0\n")
        assert done.stderr == b""


@pytest.mark.parametrize("redirection", [">/dev/full", ">&-"])
def test_an_output_that_cannot_be_written_is_a_failure(user: CommandLine, redirection: str) -> None:
    done = user.shell(f"cat data noise --quiet {redirection}")
    assert done.code == 1
    assert done.stderr.startswith("bakthat: error: cannot write the output: ")
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.slow
def test_a_vault_that_is_not_thawed_has_an_exit_code_of_its_own(
    user: CommandLine, glacier: GlacierServer, tmp_path: Path
) -> None:
    write_config(user.home / ".bakthat.yml", default=glacier.conf())
    assert user.run("backup", tmp_path / "data", "--prompt", "no", "--quiet").code == 0
    done = cat(user, "data", "lines", "--quiet")
    assert (done.returncode, done.stdout) == (4, b"")
    assert b"must be thawed before it can be read" in done.stderr
    assert user.run("restore", "data", "-o", tmp_path / "out").code == 4
    glacier.advance(hours=6)
    done = cat(user, "data", "lines", "--quiet")
    assert (
        hashlib.sha256(done.stdout).digest()
        == hashlib.sha256((tmp_path / "data/lines").read_bytes()).digest()
    )
