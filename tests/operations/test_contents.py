"""List what a backup holds."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import bakthat
from bakthat.errors import NoMatchError, UsageError, WrongKeyError
from bakthat.helper import KeyValue
from tests.support.commandline import CommandLine
from tests.support.profiles import Conf
from tests.support.trees import make_every_kind


@pytest.fixture
def forget_cache(isolated_environment: Path) -> Callable[[], None]:
    """Return a function that empties the cache of indexes."""
    return lambda: shutil.rmtree(isolated_environment / ".cache", ignore_errors=True)


def paths(name: str, *patterns: str, conf: Conf) -> list[str]:
    return [entry.path for entry in bakthat.contents(name, patterns, conf=conf, password="x")]


@pytest.fixture
def made(tmp_path: Path) -> Path:
    root = tmp_path / "mydir"
    (root / "etc" / "sub").mkdir(parents=True)
    for name in ("etc/hosts", "etc/sub/a.conf", "b.conf", "etc/sub/c"):
        (root / name).write_text(name)
    return root


@pytest.mark.usefixtures("cheap_passphrases")
@pytest.mark.parametrize("password", ["", "x"])
def test_contents_lists_the_entries_in_order(local: Conf, made: Path, password: str) -> None:
    bakthat.backup(made, conf=local, password=password)
    assert paths("mydir", conf=local) == [
        "mydir",
        "mydir/b.conf",
        "mydir/etc",
        "mydir/etc/hosts",
        "mydir/etc/sub",
        "mydir/etc/sub/a.conf",
        "mydir/etc/sub/c",
    ]
    assert paths("mydir", "*.conf", conf=local) == ["mydir/b.conf", "mydir/etc/sub/a.conf"]
    assert paths("mydir", "etc/hosts", "/b*", conf=local) == ["mydir/b.conf", "mydir/etc/hosts"]
    assert paths("mydir", "mydir/etc/sub", conf=local) == [
        "mydir/etc/sub",
        "mydir/etc/sub/a.conf",
        "mydir/etc/sub/c",
    ]


def test_a_pattern_that_matches_nothing_is_an_error(local: Conf, made: Path) -> None:
    bakthat.backup(made, conf=local, password="")
    with pytest.raises(NoMatchError, match="the backup holds no 'nothing'"):
        paths("mydir", "b.conf", "nothing", conf=local)


def test_an_unknown_name_is_an_error_at_once(local: Conf) -> None:
    with pytest.raises(NoMatchError):
        bakthat.contents("nothing", conf=local)


def test_a_value_holds_no_files(local: Conf) -> None:
    KeyValue(conf=local).set_key("mykey", "value")
    with pytest.raises(UsageError, match="is a value of KeyValue"):
        bakthat.contents("mykey", conf=local)


@pytest.mark.usefixtures("cheap_passphrases")
def test_from_the_cache_neither_a_key_nor_the_storage_is_needed(
    local: Conf, made: Path, forget_cache: Callable[[], None]
) -> None:
    bakthat.backup(made, conf=local, password="x")
    before = paths("mydir", conf=local)
    shutil.rmtree(local["local_path"])
    assert [each.path for each in bakthat.contents("mydir", conf=local, prompt="no")] == before


@pytest.mark.usefixtures("cheap_passphrases")
def test_a_wrong_password_is_said(
    local: Conf, made: Path, forget_cache: Callable[[], None]
) -> None:
    bakthat.backup(made, conf=local, password="x")
    forget_cache()
    with pytest.raises(WrongKeyError):
        list(bakthat.contents("mydir", conf=local, password="wrong"))


@pytest.mark.needs("GNU tar")
def test_the_command_prints_what_tar_prints(user: CommandLine, tmp_path: Path) -> None:
    make_every_kind(tmp_path / "tree")
    user.run("backup", "tree", "-d", "local", "--prompt", "no")
    (archive,) = (user.home / ".bakthat_store").glob("*.tgz")
    done = subprocess.run(
        ["tar", "-t", "-v", "--quoting-style=literal", "-z", "-f", archive],
        capture_output=True,
        check=True,
    )
    with user.start("contents", "tree") as process:
        printed, _ = process.communicate()
    assert printed == done.stdout


def test_on_a_terminal_what_it_cannot_show_is_escaped(user: CommandLine, tree: Path) -> None:
    (tree / "new\nline \x1b[31m").touch()
    (tree / os.fsdecode(b"not-utf8-\xff")).touch()
    user.run("backup", tree, "-d", "local", "--prompt", "no")
    code, screen = user.converse("contents", "mydir")
    assert code == 0
    assert "mydir/new\\nline \\x1b[31m\r\n" in screen
    assert "mydir/not-utf8-\\xff\r\n" in screen


def test_json_is_one_object_a_line_and_a_summary(user: CommandLine, tree: Path) -> None:
    (tree / "link").symlink_to("a.txt")
    (tree / "del\x7f").touch()
    user.run("backup", tree, "-d", "local", "--prompt", "no")
    done = user.run("contents", "mydir", "--json")
    *entries, summary = map(json.loads, done.stdout.splitlines())
    assert [(each["message_type"], each["path"]) for each in entries] == [
        ("entry", "mydir"),
        ("entry", "mydir/a.txt"),
        ("entry", "mydir/del\x7f"),
        ("entry", "mydir/link"),
    ]
    file, link = entries[1], entries[3]
    assert file["sha256"] == hashlib.sha256(b"hello").hexdigest()
    assert (file["type"], file["size"], file["mtime"]) == (
        "file",
        5,
        (tree / "a.txt").stat().st_mtime_ns / 10**9,
    )
    assert (link["type"], link["target"]) == ("symlink", "a.txt")
    assert summary["message_type"] == "summary"
    assert (summary["files"], summary["directories"], summary["bytes"]) == (3, 1, 5)
    assert done.stderr.splitlines()[-1].startswith(f"Listed {summary['stored_filename']}: 3 files")


def test_no_match_is_an_exit_code(user: CommandLine, tree: Path) -> None:
    user.run("backup", tree, "-d", "local", "--prompt", "no")
    done = user.run("contents", "mydir", "nothing")
    assert (done.code, done.stdout) == (1, "")
    assert "bakthat: error: the backup holds no 'nothing'" in done.stderr


def test_a_backup_that_the_catalog_does_not_list_is_found_on_the_storage(
    conf: Conf, made: Path, tmp_path: Path
) -> None:
    name = bakthat.backup(made, conf=conf, password="").stored_filename
    elsewhere = {**conf, "database": str(tmp_path / "elsewhere.sqlite")}
    assert paths(name, "b.conf", conf=elsewhere) == ["mydir/b.conf"]


def test_from_the_cache_nothing_is_loaded_that_reads_storages_or_ciphers(
    user: CommandLine, tree: Path
) -> None:
    user.run("backup", tree, "-d", "local", "--prompt", "no")
    code = (
        "import sys; from bakthat.__main__ import main; main(['contents', 'mydir', '--quiet']); "
        "print('|', *sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        env=user.environment,
    )
    listed, _, modules = done.stdout.partition("|")
    assert listed.endswith("mydir/a.txt\n")
    loaded = set(modules.split())
    assert loaded.isdisjoint({"botocore", "boto3", "cryptography", "urllib3", "email"})
    assert "bakthat.session.reading" not in loaded
