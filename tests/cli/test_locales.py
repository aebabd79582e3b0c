"""What is stored does not depend on the locale: neither a password nor a name."""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from tests.support.commandline import CommandLine, Done
from tests.support.locales import ASCII, german_latin1

pytestmark = pytest.mark.slow

UTF8 = {"LC_ALL": "C.UTF-8"}
PASSWORD = {"BAKTHAT_PASSWORD": "pässwort"}
EVERY_BYTE = bytes(set(range(1, 256)) - {ord("/")})
"""The bytes that the name of a file can hold."""


@pytest.fixture(scope="session")
def latin1(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Return the variables of a locale whose encoding is ISO 8859-1."""
    return german_latin1(tmp_path_factory.mktemp("locales"))


@pytest.fixture(params=["latin1", "ascii"])
def locale(request: pytest.FixtureRequest, latin1: dict[str, str]) -> dict[str, str]:
    """Return the variables of each locale that is not UTF-8 in turn."""
    return latin1 if request.param == "latin1" else ASCII


@pytest.fixture
def directory(user: CommandLine) -> Path:
    """Make a directory to back up, whose name is not ASCII."""
    path = user.directory / "bär"
    path.mkdir()
    (path / "ü.txt").write_text("grüße")
    return path


def done(ended: Done) -> Done:
    """Return a command that succeeded."""
    assert ended.code == 0, ended.stderr
    return ended


def listed(user: CommandLine) -> list[dict[str, object]]:
    return done(user.run("show", "--json", env=UTF8)).lines("backup")


def files_below(path: Path) -> dict[bytes, bytes]:
    """Return the files below *path* by the bytes of their names."""
    found = {}
    for place, _directories, files in os.walk(os.fsencode(path)):
        for name in files:
            with open(os.path.join(place, name), "rb") as stream:
                found[name] = stream.read()
    return found


def test_a_password_of_the_environment_opens_in_every_locale(
    user: CommandLine, directory: Path, locale: dict[str, str]
) -> None:
    done(user.run("backup", directory, env=locale | PASSWORD))
    done(user.run("restore", "bär", "-o", "one", env=UTF8 | PASSWORD))
    done(user.run("restore", "bär", "-o", "two", env=locale | PASSWORD))
    for restored in ("one", "two"):
        assert files_below(user.directory / restored) == files_below(directory)


def test_a_typed_password_opens_in_every_locale(
    user: CommandLine, directory: Path, locale: dict[str, str]
) -> None:
    typed = [("Password (blank", "pässwort\n"), ("confirmation:", "pässwort\n")]
    code, screen = user.converse("backup", str(directory), answers=typed, env=locale)
    assert code == 0, screen
    assert "pässwort" not in screen
    done(user.run("restore", "bär", "-o", "out", env=UTF8 | PASSWORD))
    answer = [("Password:", "pässwort\n")]
    code, screen = user.converse("restore", "bär", "-o", "again", answers=answer, env=locale)
    assert code == 0, screen


def test_a_typed_password_may_hold_any_bytes(user: CommandLine, directory: Path) -> None:
    typed = "p\udce4sswort"
    answers = [("Password (blank", f"{typed}\n"), ("confirmation:", f"{typed}\n")]
    code, screen = user.converse("backup", str(directory), answers=answers, env=UTF8)
    assert code == 0, screen
    done(user.run("restore", "bär", "-o", "out", env={"BAKTHAT_PASSWORD": typed}))


def test_names_tags_and_keys_are_utf8_in_every_locale(
    user: CommandLine, directory: Path, locale: dict[str, str]
) -> None:
    done(user.run("backup", directory, "-t", "grün", "--prompt", "no", env=locale))
    done(user.run("backup", directory, "--name", "größe", "--prompt", "no", env=locale))
    shown = done(user.run("show", env=locale)).stdout
    assert "bär" in shown
    assert "größe" in shown
    assert "grün" in shown
    assert shown == done(user.run("show", env=UTF8)).stdout
    kept = sorted(path.name.partition(".")[0] for path in user.home.glob(".bakthat_store/*.tgz"))
    assert kept == ["bär", "größe"]
    done(user.run("delete", "größe", env=UTF8))
    done(user.run("rotate", "bär", "--days", "1", env=locale))


def test_names_in_the_archive_are_the_bytes_on_the_disk(
    user: CommandLine, directory: Path, locale: dict[str, str]
) -> None:
    for place in range(0, len(EVERY_BYTE), 100):
        name = b"n" + EVERY_BYTE[place : place + 100]
        with open(os.path.join(os.fsencode(directory), name), "wb") as stream:
            stream.write(name)
    done(user.run("backup", directory, "--prompt", "no", env=locale))
    (stored,) = user.home.glob(".bakthat_store/*.tgz")
    with tarfile.open(stored) as archive:
        members = {os.fsencode(os.path.basename(each.name)) for each in archive if each.isfile()}
    assert members == set(files_below(directory))
    done(user.run("restore", "bär", "-o", "out", env=locale))
    assert files_below(user.directory / "out") == files_below(directory)


def test_a_name_that_is_not_utf8_is_refused_in_every_locale(
    user: CommandLine, locale: dict[str, str]
) -> None:
    path = user.directory / "b\udce4r"
    path.mkdir()
    (path / "file").write_text("content")
    refused = user.run("backup", path, "--prompt", "no", env=locale)
    assert refused.code == 2
    assert r"'b\xe4r' is not UTF-8" in refused.stderr
    done(user.run("backup", path, "--name", "bär", "--prompt", "no", env=locale))


def test_paths_in_the_configuration_are_utf8_in_every_locale(
    user: CommandLine, directory: Path, locale: dict[str, str]
) -> None:
    (user.home / ".bakthat.yml").write_text(
        "default: {default_destination: local, local_path: ~/größe, password_file: ~/schlüssel}\n"
    )
    (user.home / ".bakthat.yml").chmod(0o600)
    (user.home / "schlüssel").write_text("pässwort\n")
    done(user.run("backup", directory, env=locale))
    assert list(user.home.glob("größe/bär.*.tgz.age"))
    done(user.run("restore", "bär", "-o", "out", env=UTF8))


SCRIPT = """
import os, sys, bakthat
assert sys.getfilesystemencoding() != "utf-8"
conf = {"default_destination": "local", "local_path": os.path.expanduser("~/.bakthat_store")}
with open(os.path.expanduser("~/file.yml"), "w", encoding="utf-8") as stream:
    stream.write("default: {default_destination: local, local_path: ~/gr\\u00f6\\u00dfe}")
for each in (conf, {**conf, "compress": False}):
    bakthat.backup(sys.argv[1], conf=each, tags="gr\\u00fcn")
    bakthat.restore("b\\u00e4r", conf=conf, output=sys.argv[2])
bakthat.backup(os.path.join(sys.argv[1], os.fsdecode("\\u00fc.txt".encode())),
    conf={**conf, "compress": False})
bakthat.restore("\\u00fc.txt", conf=conf, output=sys.argv[2])
bakthat.backup(sys.argv[1], config="~/file.yml", tags="gr\\u00fcn")
"""


def test_the_library_stores_the_same_in_every_locale(
    user: CommandLine, directory: Path, locale: dict[str, str]
) -> None:
    ended = subprocess.run(
        [sys.executable, "-c", SCRIPT, directory, user.directory / "out"],
        env={**user.environment, **locale, **PASSWORD},
        capture_output=True,
    )
    assert ended.returncode == 0, ended.stderr.decode()
    assert list(user.home.glob("größe/bär.*.tgz.age"))
    assert files_below(user.directory / "out") == files_below(directory)
    entries = listed(user)
    assert {entry["filename"] for entry in entries} == {"bär", "ü.txt"}
    assert {entry["tags"] for entry in entries} == {"grün", ""}
    done(user.run("restore", "bär", "-o", "again", env=UTF8 | PASSWORD))
    done(user.run("restore", "ü.txt", "-o", "file", env=UTF8 | PASSWORD))
    done(user.run("check", "--read-data", env=UTF8 | PASSWORD))
    assert files_below(user.directory / "again") == files_below(directory)
    assert files_below(user.directory / "file") == files_below(directory)


CALLER = """
import sys
from bakthat.__main__ import main
print("once")
sys.argv = ["bakthat", "backup", "b\\udcc3\\udca4r", "--prompt", "no"]
sys.exit(main())
"""


def test_a_program_that_calls_the_command_line_is_not_started_again(
    user: CommandLine, directory: Path
) -> None:
    ended = subprocess.run(
        [sys.executable, "-c", CALLER],
        env={**user.environment, **ASCII},
        cwd=directory.parent,
        capture_output=True,
    )
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout == b"once\n"
    assert list(user.home.glob(".bakthat_store/bär.*.tgz"))
