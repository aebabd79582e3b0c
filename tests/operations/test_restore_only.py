"""Restoring a part of a backup, and nothing else."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

import bakthat
from bakthat.errors import CorruptArchiveError, NoMatchError, UsageError
from bakthat.helper import KeyValue
from tests.support.commandline import CommandLine
from tests.support.tar_bytes import snapshot

pytestmark = pytest.mark.permissions


@pytest.fixture
def conf(tmp_path: Path) -> dict[str, Any]:
    return {
        "default_destination": "local",
        "local_path": str(tmp_path / "store"),
        "database": str(tmp_path / "catalog.sqlite"),
    }


@pytest.fixture
def stored(tmp_path: Path, conf: dict[str, Any]) -> str:
    """Back a tree up and return its stored filename."""
    tree = tmp_path / "mydir"
    for name in ("etc/hosts", "etc/hosts.bak", "etc/ssl/a.pem", "mydir/inner", "top"):
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        (tree / name).write_text(name)
    os.link(tree / "etc/hosts", tree / "linked")
    (tree / "etc/link").symlink_to("hosts")
    (tree / "etc/ssl").chmod(0o710)
    return str(bakthat.backup(tree, conf=conf, password="").stored_filename)


def restored(directory: Path) -> set[str]:
    return {str(each.relative_to(directory)) for each in directory.rglob("*") if not each.is_dir()}


@pytest.mark.parametrize(
    ("only", "expected"),
    [
        ("etc/hosts", {"mydir/etc/hosts"}),
        ("mydir/etc/hosts", {"mydir/etc/hosts"}),
        ("/etc/hosts/", {"mydir/etc/hosts"}),
        ("etc/ssl", {"mydir/etc/ssl/a.pem"}),
        ("etc/link", {"mydir/etc/link"}),
        (["top", "etc/ssl/a.pem"], {"mydir/top", "mydir/etc/ssl/a.pem"}),
        (["etc/hosts", "linked"], {"mydir/etc/hosts", "mydir/linked"}),
        ("mydir/inner", {"mydir/mydir/inner"}),
    ],
)
def test_a_named_file_or_directory_is_restored_with_its_content(
    only: str | list[str], expected: set[str], stored: str, conf: dict[str, Any], tmp_path: Path
) -> None:
    assert bakthat.restore(stored, conf=conf, output=tmp_path / "out", only=only) is not None
    assert restored(tmp_path / "out") == expected


def test_a_directory_has_its_mode_and_those_above_it_are_made(
    stored: str, conf: dict[str, Any], tmp_path: Path
) -> None:
    bakthat.restore(stored, conf=conf, output=tmp_path / "out", only="etc/ssl")
    assert (tmp_path / "out/mydir/etc/ssl").stat().st_mode & 0o7777 == 0o710
    assert (tmp_path / "out/mydir/etc/ssl/a.pem").read_text() == "etc/ssl/a.pem"


def test_what_is_not_there_is_an_error(stored: str, conf: dict[str, Any], tmp_path: Path) -> None:
    for only in ("etc/hos", "*.pdf", "hosts/"):
        with pytest.raises(NoMatchError, match="the backup holds no"):
            bakthat.restore(stored, conf=conf, output=tmp_path / "out", only=["top", only])
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("only", "expected"),
    [
        ("host?", {"mydir/etc/hosts"}),
        ("hosts*", {"mydir/etc/hosts", "mydir/etc/hosts.bak"}),
        ("/etc/*", {f"mydir/etc/{name}" for name in ("hosts", "hosts.bak", "ssl/a.pem", "link")}),
        ("ssl/", {"mydir/etc/ssl/a.pem"}),
        (["etc", "!*.bak", "!link"], {"mydir/etc/hosts", "mydir/etc/ssl/a.pem"}),
    ],
)
def test_a_pattern_selects_as_in_gitignore(
    only: str | list[str], expected: set[str], stored: str, conf: dict[str, Any], tmp_path: Path
) -> None:
    bakthat.restore(stored, conf=conf, output=tmp_path / "out", only=only)
    assert restored(tmp_path / "out") == expected


@pytest.mark.parametrize("name", ["same", "[ab]?"])
def test_a_path_that_is_there_is_no_pattern(
    name: str, conf: dict[str, Any], tmp_path: Path
) -> None:
    tree = tmp_path / "tree"
    for path in (name, f"below/{name}", "below/ax"):
        (tree / path).parent.mkdir(parents=True, exist_ok=True)
        (tree / path).write_text(path)
    bakthat.backup(tree, conf=conf, password="")
    bakthat.restore("tree", conf=conf, output=tmp_path / "out", only=name)
    assert restored(tmp_path / "out") == {f"tree/{name}"}


def test_a_hard_link_brings_the_content_that_another_name_holds(
    stored: str, conf: dict[str, Any], tmp_path: Path
) -> None:
    bakthat.restore(stored, conf=conf, output=tmp_path / "out", only="linked")
    assert restored(tmp_path / "out") == {"mydir/linked"}
    assert (tmp_path / "out/mydir/linked").read_text() == "etc/hosts"


def test_an_encrypted_backup_is_opened_again_for_the_content_of_hard_links(
    conf: dict[str, Any], tmp_path: Path, cheap_passphrases: None
) -> None:
    tree = tmp_path / "tree"
    (tree / "a").mkdir(parents=True)
    (tree / "b/deep").mkdir(parents=True)
    (tree / "a/first").write_text("content")
    os.symlink("nowhere", tree / "a/symbolic")
    for name in ("b/second", "b/deep/third"):
        os.link(tree / "a/first", tree / name)
    os.link(tree / "a/symbolic", tree / "b/symbolic", follow_symlinks=False)
    os.setxattr(tree / "a/first", "user.note", b"kept")
    (tree / "a/first").chmod(0o640)
    for name in ("a/first", "b/deep", "b"):
        os.utime(tree / name, ns=(1, 1_600_000_000_123_456_789))
    bakthat.backup(tree, conf=conf, password="pw")
    bakthat.restore("tree", conf=conf, password="pw", output=tmp_path / "out", only="b")
    assert restored(tmp_path / "out") == {"tree/b/second", "tree/b/deep/third", "tree/b/symbolic"}
    assert snapshot(tmp_path / "out/tree/b") == snapshot(tree / "b")
    assert (tmp_path / "out/tree/b").stat().st_mtime_ns == 1_600_000_000_123_456_789


@pytest.mark.parametrize("only", ["", "/", "..", "etc/../../x", "nul\0"])
def test_an_invalid_path_is_refused(
    only: str, stored: str, conf: dict[str, Any], tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match="no path in a backup can be"):
        bakthat.restore(stored, conf=conf, output=tmp_path / "out", only=[only])
    assert not (tmp_path / "out").exists()


def test_a_backup_of_one_file_is_restored_by_its_name(conf: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "file.txt").write_text("text")
    made = bakthat.backup(tmp_path / "file.txt", conf={**conf, "compress": False}, password="")
    for number, only in enumerate(("file.txt", "*.txt", "/file*")):
        out = tmp_path / f"out{number}"
        bakthat.restore(made.stored_filename, conf=conf, output=out, only=only)
        assert (out / "file.txt").read_text() == "text"
    for only in ("other", "!*.txt"):
        with pytest.raises(NoMatchError, match="the backup holds n"):
            bakthat.restore(made.stored_filename, conf=conf, output=tmp_path / "none", only=only)
    assert not (tmp_path / "none").exists()


def test_a_value_cannot_be_restored_in_part(conf: dict[str, Any], tmp_path: Path) -> None:
    KeyValue(conf=conf).set_key("key", {"a": 1}, password="")
    with pytest.raises(UsageError, match="is a value"):
        bakthat.restore("key", conf=conf, output=tmp_path / "out", only="key")


def test_damage_elsewhere_is_told_and_what_is_wanted_is_restored(
    stored: str, conf: dict[str, Any], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A small archive is read front to back, but the index allows to read around the damage."""
    path = tmp_path / "store" / stored
    damaged = bytearray(path.read_bytes())
    damaged[-6] ^= 1  # in the checksum at the end
    path.write_bytes(damaged)
    with pytest.raises(CorruptArchiveError):
        bakthat.restore(
            stored, conf=conf, output=tmp_path / "out", only="etc/hosts", use_index=False
        )
    assert not (tmp_path / "out").exists()
    bakthat.restore(stored, conf=conf, output=tmp_path / "out", only="etc/hosts")
    assert restored(tmp_path / "out") == {"mydir/etc/hosts"}
    assert f"{stored} is damaged: the gzip member at byte 0 fails its checksum" in caplog.text


def test_the_command_line_takes_several_paths(isolated_environment: Path, tmp_path: Path) -> None:
    user = CommandLine(isolated_environment, tmp_path)
    tree = user.directory / "mydir"
    for name in ("a", "b", "c"):
        (tree / name).parent.mkdir(exist_ok=True)
        (tree / name).write_text(name)
    assert user.run("backup", "mydir", "--prompt", "no").code == 0
    done = user.run("restore", "mydir", "-o", "out", "--only", "a", "--only", "mydir/c")
    assert done.code == 0, done.stderr
    assert restored(user.directory / "out") == {"mydir/a", "mydir/c"}
    done = user.run("restore", "mydir", "-o", "most", "--only", "!b", "--no-index")
    assert done.code == 0, done.stderr
    assert restored(user.directory / "most") == {"mydir/a", "mydir/c"}
    missing = user.run("restore", "mydir", "-o", "other", "--only", "d")
    assert missing.code == 1
    assert "bakthat: error: the backup holds no 'd'" in missing.stderr
    assert not (user.directory / "other").exists()
