"""Tests that take gigabytes or minutes, and of the memory limit, which every run checks."""

from __future__ import annotations

import filecmp
import hashlib
import os
import random
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from bakthat.crypto import age
from tests.support.commandline import CommandLine
from tests.support.profiles import write_config
from tests.support.trees import fingerprint

MEBIBYTE = 1024 * 1024
MEMORY_PROMISE = 256 * MEBIBYTE


def use(user: CommandLine, conf: dict[str, Any]) -> None:
    path = user.home / ".bakthat.yml"
    write_config(path, default=conf)


def make_file(path: Path, size: int) -> None:
    """Write *size* reproducible bytes, half of which compress."""
    source = random.Random(size)
    text = (b"the quick brown fox jumps over the lazy dog\n" * 24_000)[: MEBIBYTE // 2]
    with path.open("wb") as stream:
        while (left := size - stream.tell()) > 0:
            stream.write((source.randbytes(MEBIBYTE // 2) + text)[:left])


@contextmanager
def no_temporary_space(user: CommandLine) -> Iterator[Path]:
    """Give the user a TMPDIR of one MiB, or, when nothing can be mounted, one without rights."""
    directory = user.home / "tmp"
    directory.mkdir(mode=0o500)
    mounted = (
        os.geteuid() == 0
        and subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", directory], capture_output=True
        ).returncode
        == 0
    )
    user.environment["TMPDIR"] = str(directory)
    try:
        yield directory
    finally:
        if mounted:
            subprocess.run(["umount", directory], check=True)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("destination", "encryption"),
    [
        ("local", "passphrase"),
        pytest.param("rclone", "recipients", marks=pytest.mark.heavy),
        pytest.param("local", "recipients", marks=pytest.mark.heavy),
        pytest.param("rclone", "passphrase", marks=pytest.mark.heavy),
        pytest.param("moto", "passphrase", marks=pytest.mark.heavy),
    ],
)
def test_a_gibibyte_takes_little_memory_and_no_temporary_space(
    user: CommandLine, destination: str, encryption: str, request: pytest.FixtureRequest
) -> None:
    conf: dict[str, Any] = {"default_destination": "local"}
    if destination != "local":
        conf = request.getfixturevalue(f"{destination}_conf")
    if encryption == "recipients":
        identity = age.generate_identity()
        (user.directory / "key").write_text(identity)
        conf |= {
            "recipients": [age.recipient_of(identity)],
            "identity_file": str(user.directory / "key"),
        }
    else:
        user.environment["BAKTHAT_PASSWORD"] = "secret"
    use(user, conf)
    source = user.directory / "big"
    make_file(source, 1024 * MEBIBYTE)
    with no_temporary_space(user) as temporary:
        made, made_with = user.run_measured("backup", "big")
        restored, restored_with = user.run_measured("restore", "big", "-o", "out")
        assert list(temporary.iterdir()) == []
    assert (made.code, restored.code) == (0, 0), made.stderr + restored.stderr
    assert max(made_with, restored_with) < MEMORY_PROMISE
    assert filecmp.cmp(source, user.directory / "out" / "big", shallow=False)
    source.unlink()
    (user.directory / "out" / "big").unlink()


@pytest.mark.heavy
@pytest.mark.parametrize("destination", ["local", "moto", "rclone"])
def test_sixty_thousand_small_files_are_restored(
    user: CommandLine, destination: str, request: pytest.FixtureRequest
) -> None:
    conf: dict[str, Any] = {"default_destination": "local"}
    if destination != "local":
        conf = request.getfixturevalue(f"{destination}_conf")
    use(user, conf)
    root = user.directory / "many"
    for number in range(60_000):
        directory = root / f"{number // 1000:02}" / f"{number // 100 % 10}"
        directory.mkdir(parents=True, exist_ok=True)
        content = hashlib.sha256(b"%d" % number).hexdigest() * (number % 50)
        (directory / f"file {number}").write_text(content)
    made, made_with = user.run_measured("backup", "many", env={"BAKTHAT_PASSWORD": "secret"})
    assert made.code == 0, made.stderr
    restored, restored_with = user.run_measured(
        "restore", "many", "-o", "out", env={"BAKTHAT_PASSWORD": "secret"}
    )
    assert restored.code == 0, restored.stderr
    assert max(made_with, restored_with) < MEMORY_PROMISE
    assert fingerprint(user.directory / "out" / "many") == fingerprint(root)


@pytest.mark.heavy
@pytest.mark.parametrize(
    ("destination", "compress"),
    [
        ("local", True),
        ("local", False),
        ("rclone", True),
        ("rclone", False),
        # Only compressed: moto copies the whole object for each requested range.
        ("moto", True),
    ],
)
def test_a_file_of_two_gibibytes_is_restored(
    user: CommandLine, destination: str, compress: bool, request: pytest.FixtureRequest
) -> None:
    conf: dict[str, Any] = {"default_destination": "local"}
    if destination != "local":
        conf = request.getfixturevalue(f"{destination}_conf")
    use(user, {**conf, "compress": compress})
    source = user.directory / "huge"
    make_file(source, 2048 * MEBIBYTE + 1)
    made, made_with = user.run_measured("backup", "huge", env={"BAKTHAT_PASSWORD": "secret"})
    assert made.code == 0, made.stderr
    restored, restored_with = user.run_measured(
        "restore", "huge", "-o", "out", env={"BAKTHAT_PASSWORD": "secret"}
    )
    assert restored.code == 0, restored.stderr
    assert max(made_with, restored_with) < MEMORY_PROMISE
    assert filecmp.cmp(source, user.directory / "out" / "huge", shallow=False)
