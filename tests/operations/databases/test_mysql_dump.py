"""The program between mysqldump and the backup: what it changes, and which dumps it refuses."""

from __future__ import annotations

import shlex
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from bakthat.operations.sources.databases import mysql_dump

WHOLE = b"-- MariaDB dump\nINSERT;\n\n-- Dump completed on 2026-11-27 10:00:00\n"


def run(
    program: str, *arguments: str, header: str = "HEADER\n", name: str = "shop"
) -> tuple[int, bytes, bytes]:
    command = [sys.executable, "-I", "-S", mysql_dump.__file__, header, name, program, *arguments]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True)
    return done.returncode, done.stdout, done.stderr


def printed(dump: bytes, tmp_path: Path, then: str = "") -> str:
    """Return a shell line that prints a dump."""
    path = tmp_path / "dump.sql"
    path.write_bytes(dump)
    return f"cat {shlex.quote(str(path))}; {then}"


def test_a_whole_dump_passes_behind_its_header(tmp_path: Path) -> None:
    assert run("sh", "-c", printed(WHOLE, tmp_path)) == (0, b"HEADER\n" + WHOLE, b"")


@pytest.mark.parametrize(
    "dump", [b"", WHOLE[:-45], WHOLE + b"x\n", WHOLE[:-45] + b"x -- Dump completed"]
)
def test_a_dump_without_its_last_line_fails(dump: bytes, tmp_path: Path) -> None:
    code, output, problem = run("sh", "-c", printed(dump, tmp_path))
    assert (code, output) == (1, b"HEADER\n" + dump)
    assert problem == b'the dump is cut: its last line is not "-- Dump completed"\n'


def test_it_fails_as_the_program_does(tmp_path: Path) -> None:
    assert run("sh", "-c", printed(WHOLE, tmp_path, "echo why >&2; exit 7"))[::2] == (7, b"why\n")
    for number in (signal.SIGKILL, signal.SIGTERM, signal.SIGSEGV, signal.SIGPIPE):
        code, _, _ = run("sh", "-c", printed(WHOLE, tmp_path, f"kill -{number.value} $$"))
        assert code == -number


def test_a_program_that_is_missing_is_named() -> None:
    code, _, problem = run("no-such-program")
    assert (code, problem) == (127, b"cannot start no-such-program: No such file or directory\n")


def test_it_ends_when_nobody_reads() -> None:
    command = [sys.executable, "-I", "-S", mysql_dump.__file__, "", "shop", "yes"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.read(4) == b"y\ny\n"
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == -signal.SIGPIPE


@pytest.mark.parametrize("name", ["shop", "o`dd", "ü\n`x", "%s"])
@pytest.mark.parametrize("size", [1, 2, 3, 7, 31, 64, 1 << 20])
def test_only_the_statement_at_a_line_s_begin_loses_its_name(
    name: str,
    size: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfdbinary: pytest.CaptureFixture[bytes],
) -> None:
    quoted = name.replace("`", "``").encode()
    named = b"ALTER DATABASE `%s` CHARACTER SET latin1 ;\n" % quoted
    other = (
        b"INSERT 'ALTER DATABASE `%s` CHARACTER SET';\nALTER DATABASE `shopx` CHARACTER SET x;\n"
        % quoted
    )
    path = tmp_path / "dump.sql"
    path.write_bytes(b"-- begin\n\n" + named + named + other + b"\nALTER DATABASE" + named + WHOLE)
    monkeypatch.setattr(mysql_dump, "_CHUNK", size)
    with path.open("rb") as stream:
        end = mysql_dump._copy(stream.fileno(), b"\nALTER DATABASE `%s` CHARACTER SET " % quoted)
    unnamed = b"ALTER DATABASE CHARACTER SET latin1 ;\n"
    assert capfdbinary.readouterr().out == (
        b"-- begin\n\n" + unnamed + unnamed + other + b"\nALTER DATABASE" + named + WHOLE
    )
    assert end.endswith(WHOLE)
