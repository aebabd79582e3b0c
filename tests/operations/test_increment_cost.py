"""What an increment of an unchanged tree costs: calls to the system, and memory."""

from __future__ import annotations

import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from tests.support.commandline import CommandLine
from tests.support.needs import program
from tests.support.profiles import Conf, write_config

MIB = 1024 * 1024
FILES = 200

RUN = """
import sys
from bakthat.__main__ import main
from bakthat.operations.backup import facts, parent

# As if the tree had been edited long ago, on a disk.
parent.racy_seconds = facts.racy_seconds = lambda: 0
parent.memory_devices = frozenset
sys.exit(main(sys.argv[1:]))
"""


@pytest.fixture
def user(user: CommandLine, local: Conf) -> CommandLine:
    write_config(user.home / ".bakthat.yml", default={**local, "incremental": True})
    return user


def backup(user: CommandLine, name: str, *before: str | Path) -> str:
    """Back up a directory by a command that may follow *before*; return what it says."""
    done = subprocess.run(
        [*before, sys.executable, "-c", RUN, "backup", name, "--prompt", "no"],
        cwd=user.directory,
        env=user.environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stderr


@pytest.mark.needs("strace")
def test_an_unchanged_file_costs_one_stat_and_is_not_opened(
    user: CommandLine, tmp_path: Path
) -> None:
    allowed = subprocess.run([program("strace"), "true"], capture_output=True, text=True)
    if allowed.returncode:
        pytest.skip(f"strace may not trace here: {allowed.stderr.strip()}")
    tree = user.directory / "mydir"
    for number in range(FILES):
        path = tree / f"directory {number % 5}" / f"file {number:03}."
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{number}" * 500)
    backup(user, "mydir")
    (tree / "directory 2" / "file 007.").write_text("changed")
    trace = tmp_path / "trace"
    said = backup(user, "mydir", "strace", "-f", "-qq", "-e", "trace=file", "-o", trace)
    assert "Storing what has changed since" in said
    calls: Counter[tuple[str, str]] = Counter()
    for line in trace.read_text().splitlines():
        call = re.match(r"\d+\s+(\w+)\(.*?(file \d{3}\.)", line)
        if call is not None:
            calls[call[2], call[1]] += 1
    assert calls.pop(("file 007.", "openat"))
    del calls[next(each for each in calls if each[0] == "file 007.")]
    assert {name for name, _ in calls} == {f"file {number:03}." for number in range(FILES)} - {
        "file 007."
    }
    assert len(calls) == FILES - 1, calls.most_common(5)
    assert set(calls.values()) == {1}
    assert {call for _, call in calls} <= {"lstat", "newfstatat", "statx"}


@pytest.mark.slow
def test_the_memory_of_an_increment_does_not_grow_with_the_number_of_files(
    user: CommandLine,
) -> None:
    peaks = []
    for name, files in (("few", 3_000), ("many", 30_000)):
        make_files(user.directory / name, files)
        peaks.append(peak_of_increments(user, name))
    assert peaks[1] - peaks[0] < 8 * MIB


@pytest.mark.heavy
def test_the_memory_of_an_increment_of_half_a_million_files_is_that_of_few(
    user: CommandLine,
) -> None:
    peaks = []
    for name, files in (("few", 30_000), ("many", 500_000)):
        make_files(user.directory / name, files)
        peaks.append(peak_of_increments(user, name))
    assert peaks[1] - peaks[0] < 8 * MIB


def make_files(directory: Path, number: int) -> None:
    for at in range(number):
        if at % 500 == 0:
            inner = directory / f"{at // 500:05}"
            inner.mkdir(parents=True)
        with (inner / f"{at}").open("wb") as stream:
            stream.write(b"%d" % at)


def peak_of_increments(user: CommandLine, name: str) -> int:
    """Return the most memory, in bytes, of an increment of a tree in which nothing has changed."""
    backup(user, name)
    report = user.home / "peak"
    launcher = Path(__file__).parents[1] / "support" / "peak_memory.py"
    said = backup(user, name, sys.executable, launcher, report)
    assert "Storing what has changed since" in said
    return int(report.read_text())
