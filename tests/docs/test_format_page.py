"""The commands of docs/explanation/format.rst restore everything, with tar, gzip and age alone."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
import shutil
import tarfile
import textwrap
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

import bakthat
from bakthat.crypto import age
from bakthat.pipeline import write
from tests.support.trees import fingerprint, make_every_kind
from tests.support.typed import typed

PAGE = Path(__file__).parents[2] / "docs" / "explanation" / "format.rst"
SECTION = re.search(r"^Restoring by hand\n-+\n(.*?)^tar\n-+\n", PAGE.read_text(), re.M | re.S)
assert SECTION is not None
COMMANDS = [
    line
    for block in re.findall(r"::\n\n((?:    .*\n)+)", SECTION[1])
    for line in textwrap.dedent(block).splitlines()
]
PASSPHRASE = "correct horse"
IDENTITY = age.generate_identity()

pytestmark = [pytest.mark.permissions, pytest.mark.needs("age", "GNU tar", "jq")]


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make what the page's names are backups of."""
    directory = tmp_path_factory.mktemp("sources")
    for name in ("mydir", "photos", "mail", "music", "work", "home"):
        make_every_kind(directory / name)
    for name in ("notes.txt", "secret.txt", "shop.dump", "app.db"):
        (directory / name).write_text(name)
    with tarfile.open(directory / "site.tgz", "w:gz") as tarball:
        tarball.add(directory / "notes.txt", "notes.txt")
    return directory


@pytest.fixture(scope="module")
def filled(sources: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Back them up as the page says; return the local directory, with the key in it."""
    store = tmp_path_factory.mktemp("filled")
    conf: dict[str, Any] = {
        "default_destination": "local",
        "local_path": str(store),
        "database": str(tmp_path_factory.mktemp("catalog") / "catalog.sqlite"),
    }
    to_key = [age.recipient_of(IDENTITY)]
    uncompressed = {**conf, "compress": False}
    increments = {**conf, "incremental": True}
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("bakthat.operations.backup.store.time.time", lambda: 1370373055.0)
        patched.setattr(write, "PASSPHRASE_WORK_FACTOR", 10)
        bakthat.backup(sources / "mydir", conf=conf, password="")
        bakthat.backup(sources / "photos", conf=conf, password=PASSPHRASE)
        bakthat.backup(sources / "mail", conf=conf, recipients=to_key)
        bakthat.backup(sources / "music", conf=uncompressed, password="")
        bakthat.backup(sources / "notes.txt", conf=uncompressed, password="")
        bakthat.backup(sources / "secret.txt", conf=uncompressed, recipients=to_key)
        bakthat.backup(sources / "site.tgz", conf=conf, password="")
        for name, keys in (("shop.dump", {"password": ""}), ("app.db", {"recipients": to_key})):
            with bakthat.open_backup(name, conf=conf, **keys) as stream:
                stream.write((sources / name).read_bytes())
        for number in range(3):
            now = partial(float, 1370373055 + number * 24 * 3600)
            patched.setattr("bakthat.operations.backup.store.time.time", now)
            for name, keys in (("work", {"password": ""}), ("home", {"recipients": to_key})):
                if name == "home" and number == 2:
                    continue
                if number:
                    change(sources / name, number)
                bakthat.backup(sources / name, conf=increments, **keys)
    (store / "key.txt").write_text(IDENTITY)
    return store


def change(root: Path, number: int) -> None:
    """Change *root* in another way for each *number*."""
    if number == 1:
        shutil.rmtree(root / "deep")
        (root / "new").write_text("new")
        (root / "executable").chmod(0o700)
        (root / "fifo").unlink()
        (root / "empty directory").rmdir()
        (root / "empty directory").write_text("a file now")
        return
    (root / "new").rename(root / "newer")
    (root / "secret").unlink()
    (root / "secret").mkdir()
    (root / "secret" / "inside").write_text("a directory now")
    os.link(root / "random", root / "another name")


def without_times_of_links(root: Path) -> dict[bytes, Any]:
    # Without options tar sets no attributes. Unless it is root, it sets no owners either, and
    # takes the umask off the modes.
    as_root = os.geteuid() == 0
    return {
        path: (found[0] if as_root else found[0][0], found[4], found[5])
        for path, found in fingerprint(root).items()
    }


def same(sources: Path, here: Path, name: str, look: Callable[[Path], Any]) -> bool:
    if (sources / name).is_dir():
        return bool(look(sources / name) == look(here / name))
    return (sources / name).read_bytes() == (here / name).read_bytes()


def test_the_page_has_a_line_for_each_form() -> None:
    assert len(COMMANDS) == 23
    first_words = {command.split()[0] for command in COMMANDS}
    assert first_words == {"tar", "age", "(age", "cp", "gzip", "cat", "zcat", "jq"}


@pytest.mark.parametrize("command", COMMANDS)
def test_what_the_page_says_restores(
    command: str, sources: Path, filled: Path, tmp_path: Path
) -> None:
    here = tmp_path / "here"
    shutil.copytree(filled, here)
    if "../" in command:  # the page has the objects beside an empty directory
        here /= "empty"
        here.mkdir()
    before = set(os.listdir(here))
    code, seen = typed(command, here, PASSPHRASE)
    assert code == 0, seen
    made = set(os.listdir(here)) - before
    if "jq" in command:
        assert made == set()
        check_of_index(command, seen, sources)
        return
    if command.startswith(("gzip -t", "tar t", "cat")) or "tar t" in command:
        assert made == set()
        if "tar t" in command:
            name = "mail" if "mail" in command else "mydir"
            assert f"{name}/deep/" in seen
        return
    (name,) = made
    assert not {"bakthat", "python"} & set(command.split())
    whole = "--xattrs" in command and os.geteuid() == 0
    assert same(sources, here, name, fingerprint if whole else without_times_of_links)


def check_of_index(command: str, seen: str, sources: Path) -> None:
    """Compare what a line of the page shows of an index with the files themselves."""
    plain = re.sub(r"\x1b\[[0-9;]*m", "", seen)  # jq shows colours on a terminal
    lines = [] if "jq -r" in command else [json.loads(line) for line in plain.splitlines()]
    if "needs" in command or '"x"' in command:
        check_of_increment(command, plain.splitlines())
    elif "[.[9], .[0]]" in command:
        for digest, path in lines:
            name = path if isinstance(path, str) else base64.b64decode(path["b64"])
            content = (sources / os.fsdecode(name)).read_bytes()
            assert base64.b64decode(f"{digest}=") == hashlib.sha256(content).digest()
        assert len(lines) > 3
    elif "mydir/empty" in command:
        ((path, kind, *_),) = lines
        assert (path, kind) == ("mydir/empty", "f")
    else:
        assert (lines[0]["bakthat"], lines[-1]["footer"]) == ("index", 1)
        assert sum(isinstance(line, list) for line in lines) == lines[-1]["records"]


def check_of_increment(command: str, seen: list[str]) -> None:
    """Compare what a line of the page shows of an increment with what was changed."""
    if '"x"' in command:
        assert [json.loads(line) for line in seen] == ["work/deep", "work/fifo"]
    elif "bakthat.json" in command:
        assert [json.loads(line) for line in seen] == [[1370373055, 1370459455]]
    else:
        assert seen == ["work.20130604191055.tgz", "work.20130605191055.inc.tgz"]
