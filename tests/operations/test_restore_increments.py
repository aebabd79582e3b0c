"""Restoring increments: the state of a backup, from all archives that it needs."""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest

import bakthat
from tests.support.increments import Chain
from tests.support.indexes import forget_cache
from tests.support.profiles import Conf
from tests.support.trees import fingerprint, make_every_kind

MIB = 1024 * 1024


@pytest.fixture
def chain(local: Conf, tmp_path: Path) -> Chain:
    tree = tmp_path / "mydir"
    tree.mkdir()
    return Chain(tree, local)


def test_the_state_of_each_increment_is_restored_exactly(local: Conf, tmp_path: Path) -> None:
    tree = make_every_kind(tmp_path / "mydir")
    chain = Chain(tree, local)
    chain.full()
    states = [fingerprint(tree)]
    changes = [change_files, change_directories, change_links]
    for change in changes:
        change(tree)
        chain.increment()
        states.append(fingerprint(tree))
    for number, name in enumerate(chain.names):
        for cached in (True, False):
            if not cached:
                forget_cache()
            out = tmp_path / f"out {number} {cached}"
            restored = bakthat.restore(name, conf=local, output=out, password="")
            assert restored is not None
            assert restored.is_complete
            assert fingerprint(out / "mydir") == states[number]


def change_files(tree: Path) -> None:
    (tree / "text").write_text("other")
    (tree / "new").write_bytes(b"new")
    (tree / "random").unlink()
    (tree / "link").unlink()
    (tree / "link").mkdir()
    (tree / "link" / "in what was a link").write_text("x")
    (tree / "executable").chmod(0o755)


def change_directories(tree: Path) -> None:
    (tree / "read-only").chmod(0o755)
    (tree / "read-only" / "more").write_text("more")
    (tree / "read-only").chmod(0o500)
    os.utime(tree / "read-only", ns=(1, 1_000_000_000_000_000_001))
    (tree / "empty directory").rmdir()
    (tree / "empty directory").write_text("a file now")
    (tree / "link" / "in what was a link").unlink()
    (tree / "link").rmdir()


def change_links(tree: Path) -> None:
    os.link(tree / "secret", tree / "another name")
    (tree / "hard link").unlink()
    os.link(tree / "new", tree / "hard link")


@pytest.mark.parametrize("kind", ["passphrase", "not compressed"])
@pytest.mark.usefixtures("cheap_passphrases")
def test_increments_are_restored_whatever_their_kind(
    kind: str, local: Conf, tmp_path: Path
) -> None:
    tree = tmp_path / "mydir"
    tree.mkdir()
    noise = random.Random(1)
    for number in range(6):
        (tree / f"large{number}").write_bytes(noise.randbytes(MIB))
    conf = {**local, "compress": False} if kind == "not compressed" else local
    password = "secret" if kind == "passphrase" else ""
    chain = Chain(tree, conf, password)
    chain.full()
    for number in (1, 2, 3, 4):
        (tree / f"large{number}").write_bytes(noise.randbytes(MIB))
    chain.increment()
    forget_cache()
    out = tmp_path / "out"
    bakthat.restore(chain.names[-1], conf=conf, output=out, password=password)
    assert fingerprint(out / "mydir") == fingerprint(tree)
