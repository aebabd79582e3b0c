"""Files that are created or replaced as a whole."""

from __future__ import annotations

import os
import resource
import stat
from pathlib import Path

import pytest

from bakthat.system import files


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077])
def test_a_new_file_is_for_its_owner_only(tmp_path: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        files.create_file(tmp_path / "new", b"secret")
    finally:
        os.umask(before)
    assert (tmp_path / "new").read_bytes() == b"secret"
    assert stat.S_IMODE((tmp_path / "new").stat().st_mode) == 0o600


def test_what_has_the_name_already_is_not_changed(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"precious")
    (tmp_path / "link").symlink_to("file")
    (tmp_path / "dangling").symlink_to("nowhere")
    for name in ("file", "link", "dangling"):
        with pytest.raises(FileExistsError):
            files.create_file(tmp_path / name, b"other")
    assert (tmp_path / "file").read_bytes() == b"precious"
    assert sorted(os.listdir(tmp_path)) == ["dangling", "file", "link"]


def test_a_file_that_cannot_be_finished_is_removed(tmp_path: Path) -> None:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (3, before[1]))
    try:
        with pytest.raises(OSError, match="File too large"):
            files.create_file(tmp_path / "new", b"secret")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert os.listdir(tmp_path) == []
