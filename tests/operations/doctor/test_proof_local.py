"""The proof of a local store says what is missing, and leaves it as it was."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pytest

import bakthat
from bakthat.policy.finding import Finding, Verdict
from tests.support.findings import problems, prove, topics
from tests.support.needs import as_root, mounted
from tests.support.profiles import Conf
from tests.support.tar_bytes import as_nobody, reachable_directory


def local_finding(conf: Conf, **options: Any) -> Finding:
    (found,) = problems(prove(conf, **options))
    return found


def test_a_directory_is_proved_and_left_as_it_was(local: Conf) -> None:
    store = Path(local["local_path"])
    (future,) = prove(local)
    assert (future.topic, future.verdict) == ("container", Verdict.GOOD)
    assert not store.exists()
    findings = prove({**local, "prefix": "hosts/{host}/"}, create=True)
    assert topics(findings, Verdict.GOOD) == ["container", "writing", "reading", "deleting"]
    assert list(store.iterdir()) == []
    store.joinpath("hosts").mkdir()
    assert problems(prove({**local, "prefix": "hosts/{host}/"})) == []
    assert list(store.rglob("*")) == [store / "hosts"]


def test_a_file_in_the_place_of_the_directory(local: Conf) -> None:
    Path(local["local_path"]).write_text("")
    wrong = local_finding(local, create=True)
    assert "not a directory" in wrong.detail
    assert "local_path" in wrong.hint


def test_a_directory_that_cannot_be_made(local: Conf) -> None:
    wrong = local_finding({**local, "local_path": "/proc/bakthat/store"}, create=True)
    assert "/proc" in wrong.detail
    assert "cannot be made" in wrong.detail
    assert "local_path" in wrong.hint


@as_root
def test_a_directory_that_this_user_may_not_write() -> None:
    with reachable_directory() as base:
        store = base / "store"
        store.mkdir(mode=0o755)
        conf = {"default_destination": "local", "local_path": str(store)}
        details = as_nobody(lambda: [(each.detail, each.hint) for each in problems(prove(conf))])
        assert details == [
            (
                f"cannot write to {store}: {store} belongs to root and has the mode 0755",
                "run it as root, or set another local_path",
            )
        ]
        assert list(store.iterdir()) == []


@as_root
def test_a_full_disk(local: Conf, tmp_path: Path) -> None:
    place = tmp_path / "disk"
    place.mkdir()
    with mounted(place, "-t", "tmpfs", "-o", "size=64k", "tmpfs"):
        (place / "fill").write_bytes(bytes(60 * 1024))
        wrong = local_finding({**local, "local_path": str(place)})
        assert "the disk is full" in wrong.detail
        assert "free some space there" in wrong.hint
        assert [each.name for each in place.iterdir()] == ["fill"]


@as_root
def test_a_store_whose_disk_is_not_mounted_is_not_made_anew(
    local: Conf, tree: Path, tmp_path: Path
) -> None:
    place = tmp_path / "disk"
    place.mkdir()
    conf = {**local, "local_path": str(place / "store")}
    with mounted(place, "-t", "tmpfs", "-o", "size=2m", "tmpfs"):
        bakthat.backup(tree, conf=conf, password="")
    for create in (True, False):
        (missing,) = prove(conf, create=create)
        assert (missing.topic, missing.verdict) == ("container", Verdict.PROBLEM)
        assert f"not mounted on {place}" in missing.detail
    assert list(place.iterdir()) == []


def test_a_signal_leaves_no_file(local: Conf, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Path(local["local_path"])
    store.mkdir()

    def interrupted(*_arguments: object, **_options: object) -> None:
        os.kill(os.getpid(), signal.SIGINT)

    for name in ("sync_directory", "read_sidecar", "FileRange"):
        with monkeypatch.context() as patch:
            patch.setattr(f"bakthat.backends.local.backend.{name}", interrupted)
            with pytest.raises(KeyboardInterrupt):
                prove({**local, "prefix": "deep/"})
        assert list(store.iterdir()) == [], name
