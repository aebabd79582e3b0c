"""Secrets where they are used: each is read when it is needed, and by nothing else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import bakthat
from bakthat.errors import ConfigError
from bakthat.session.session import Session
from tests.support.commandline import CommandLine
from tests.support.profiles import Conf, write_config
from tests.support.servers import plain


def printing(tmp_path: Path, text: str, name: str = "ran") -> list[str]:
    """Return a program that prints a secret and leaves a line in a file."""
    (tmp_path / "secret").write_text(f"{text}\n")
    return ["sh", "-c", f"echo >> {tmp_path / name}; cat {tmp_path / 'secret'}"]


@pytest.mark.parametrize("way", ["file", "command"])
def test_the_storage_gets_its_secret_key_from_a_file_or_a_program(
    moto_conf: Conf, tree: Path, tmp_path: Path, out: Path, way: str
) -> None:
    command = printing(tmp_path, moto_conf.pop("secret_key"))
    keys = {"secret_key_file": str(tmp_path / "secret"), "secret_key_command": command}
    conf: dict[str, Any] = {**moto_conf, f"secret_key_{way}": keys[f"secret_key_{way}"]}
    made = bakthat.backup(tree, conf=conf, password="")
    bakthat.restore(made.stored_filename, conf=conf, output=out)
    assert (out / "mydir" / "a.txt").read_text() == "hello"
    assert [each.topic for each in bakthat.doctor(conf=conf) if each.is_problem] == []
    if way == "command":
        assert (tmp_path / "ran").read_text() == "\n"  # once for all of these


def test_a_secret_key_that_cannot_be_read_stops_a_backup_before_it_is_begun(
    moto_conf: Conf, tree: Path
) -> None:
    conf = {**moto_conf, "secret_key_command": ["sh", "-c", "echo half; exit 1"]}
    del conf["secret_key"]
    with pytest.raises(ConfigError, match=r"^secret_key_command failed with status 1$"):
        bakthat.backup(tree, conf=conf, password="")
    made = [each["Name"] for each in plain(moto_conf).list_buckets()["Buckets"]]
    assert conf["s3_bucket"] not in made
    assert bakthat.ls(conf=conf) == []  # which needs no secret


@pytest.mark.slow
def test_no_command_reads_a_secret_that_it_does_not_need(user: CommandLine) -> None:
    ran = user.directory / "ran"
    keys = ("secret_key", "password", "database_password", "healthchecks", "plugin_settings")
    program = printing(user.directory, "secret")
    conf: dict[str, Any] = {f"{key}_command": program for key in keys}
    conf |= {"default_destination": "local", "access_key": "AK", "s3_bucket": "b"}
    write_config(user.home / ".bakthat.yml", default=conf)
    (user.directory / "file").write_text("content")
    for line in (
        "show",
        "config check",
        "config show",
        "completion --names sets",
        "delete_older_than nothing 1D --dry-run",
    ):
        assert user.run(*line.split()).code in (0, 1), line
        assert not ran.exists(), line
    done = user.run("backup", "file")
    assert done.code == 0, done.stderr
    assert ran.read_text() == "\n"  # for the password
    assert ".age" in user.run("show").stdout


def test_a_program_that_reads_its_input_takes_nothing_of_a_stream(user: CommandLine) -> None:
    conf = {"default_destination": "local", "password_command": ["sh", "-c", "cat; echo pw"]}
    write_config(user.home / ".bakthat.yml", default=conf)
    done = user.run("backup", "-", "--name", "stream", stdin="the whole stream")
    assert done.code == 0, done.stderr
    assert user.run("cat", "stream").stdout == "the whole stream"


@pytest.mark.parametrize("way", ["file", "command"])
def test_the_catalog_may_be_named_by_a_file_or_a_program(
    local: Conf, tree: Path, tmp_path: Path, way: str
) -> None:
    catalog = local.pop("database")
    command = printing(tmp_path, catalog)
    keys = {"database_file": str(tmp_path / "secret"), "database_command": command}
    conf = {**local, f"database_{way}": keys[f"database_{way}"]}
    bakthat.backup(tree, conf=conf, password="")
    assert Path(catalog).exists()
    assert not Path("~/.bakthat.sqlite").expanduser().exists()
    assert [each.filename for each in bakthat.ls(conf=conf)] == ["mydir"]
    assert Session("default", None, conf).catalog == Path(catalog)


def test_a_catalog_that_cannot_be_named_is_not_replaced_by_the_default(
    local: Conf, tree: Path
) -> None:
    del local["database"]
    with pytest.raises(ConfigError, match=r"^the output of database_command is empty$"):
        bakthat.backup(tree, conf={**local, "database_command": "true"}, password="")
    assert not Path("~/.bakthat.sqlite").expanduser().exists()
    assert not Path(local["local_path"]).exists()
