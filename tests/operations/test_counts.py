"""Counts made before a tree is read are hints: nothing that is read later depends on them."""

from __future__ import annotations

import os
import random
import stat
from pathlib import Path
from typing import Any

import pytest

import bakthat
from bakthat.archive.create.content import TreeArchive
from bakthat.archive.create.walk import Scan
from bakthat.backends.local.backend import LocalBackend
from bakthat.errors import ArchiveError
from bakthat.models import Backups
from bakthat.operations.check.result import Verdict
from bakthat.session import reading
from tests.support.indexes import lose_indexes
from tests.support.profiles import Conf

MIB = 1024 * 1024
COUNTED = Scan(files=1, directories=1, bytes=10)


def lose_catalog(conf: Conf) -> Backups:
    """Remove the catalog, rebuild it from the storage, and return its only backup."""
    for path in Path(conf["database"]).parent.glob(Path(conf["database"]).name + "*"):
        path.unlink()
    bakthat.sync(conf=conf)
    (found,) = bakthat.ls(conf=conf)
    return found


def verdict(conf: Conf) -> Verdict:
    (checked,) = bakthat.check(conf=conf, read_data=True, password="")
    return checked.verdict


@pytest.fixture
def large(tmp_path: Path) -> Path:
    """Return a directory with a file of 3 MiB."""
    path = tmp_path / "mydir"
    path.mkdir()
    (path / "big").write_bytes(random.Random(1).randbytes(3 * MIB))
    return path


@pytest.fixture
def grown(local: Conf, large: Path, monkeypatch: pytest.MonkeyPatch) -> Backups:
    """Return a backup of a tree that had 10 bytes when it was counted; small limits hold."""
    with monkeypatch.context() as patched:
        patched.setattr(TreeArchive, "count", lambda _self: COUNTED)
        made = bakthat.backup(large, conf=local, password="")
    monkeypatch.setattr(reading, "SLACK_BYTES", MIB)
    return made


def test_content_whose_first_name_is_excluded_is_announced(
    local: Conf, large: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (large / "a_cache").mkdir()
    os.link(large / "big", large / "a_cache/big")
    (large / ".bakthatexclude").write_text("a_cache/\n")
    bakthat.backup(large, conf=local, password="")
    assert lose_catalog(local).metadata["bytes"] == 3 * MIB + 9
    monkeypatch.setattr(reading, "SLACK_BYTES", 0)
    monkeypatch.setattr(reading, "UNANNOUNCED_BYTES", 0)
    monkeypatch.setattr(reading, "UNANNOUNCED_FACTOR", 0)
    assert verdict(local) is Verdict.READ
    bakthat.restore("mydir", conf=local, output=out)
    assert (out / "mydir/big").stat().st_size == 3 * MIB


@pytest.mark.usefixtures("grown")
def test_a_tree_that_grew_while_it_was_read_is_restored_without_its_catalog(
    local: Conf, out: Path
) -> None:
    lose_catalog(local)
    assert verdict(local) is Verdict.READ
    bakthat.restore("mydir", conf=local, output=out)
    assert (out / "mydir/big").stat().st_size == 3 * MIB


def test_a_check_has_no_limit_and_a_restore_says_what_is_known(
    local: Conf, grown: Backups, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lose_indexes(local, grown.stored_filename)  # which know what was stored
    lose_catalog(local)
    for limit in ("UNANNOUNCED_BYTES", "UNANNOUNCED_FACTOR"):
        monkeypatch.setattr(reading, limit, 0)
    assert verdict(local) is Verdict.READ
    with pytest.raises(ArchiveError) as caught:
        bakthat.restore("mydir", conf=local, output=out)
    assert "10 B were counted before the backup was made" in str(caught.value)
    assert "the tree grew while it was read, or the object was replaced" in caught.value.hint
    assert "--any-size" in caught.value.hint
    bakthat.restore("mydir", conf=local, output=out, any_size=True)
    assert (out / "mydir/big").stat().st_size == 3 * MIB


def test_the_catalog_of_the_machine_that_made_a_backup_has_the_counts_of_what_is_stored(
    local: Conf, grown: Backups, out: Path
) -> None:
    assert (grown.metadata["files"], grown.metadata["bytes"]) == (1, 3 * MIB)
    assert verdict(local) is Verdict.READ
    bakthat.restore("mydir", conf=local, output=out)


def test_progress_never_goes_beyond_its_total(
    local: Conf, large: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(TreeArchive, "count", lambda _self: COUNTED)
    seen: list[tuple[int, int]] = []
    bakthat.backup(
        large, conf=local, password="", progress=lambda done, total: seen.append((done, total))
    )
    assert all(done <= total for done, total in seen)
    assert seen[0] == (0, 10)
    assert seen[-1] == (3 * MIB, 3 * MIB)


def test_a_file_is_described_as_the_one_whose_content_is_stored(
    local: Conf, tmp_path: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "notes"
    path.write_text("old")
    path.chmod(0o640)
    (tmp_path / "new").write_text("new content")
    (tmp_path / "new").chmod(0o600)
    real = LocalBackend.upload

    def upload(backend: LocalBackend, key: str, **options: Any) -> Any:
        if path.read_text() == "old":
            os.replace(tmp_path / "new", path)
        return real(backend, key, **options)

    monkeypatch.setattr(LocalBackend, "upload", upload)
    bakthat.backup(path, conf={**local, "compress": False}, password="")
    bakthat.restore("notes", conf=local, output=out)
    assert (out / "notes").read_text() == "old"
    assert stat.S_IMODE((out / "notes").stat().st_mode) == 0o640
