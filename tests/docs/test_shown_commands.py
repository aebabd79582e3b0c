"""Every command line of ``bakthat`` outside of the how-to pages is run, on a machine with backups.

A name with a date on a page is a backup here. Each command finds the machine as it was: its home
directory, with the local store, and the directories of the page.
"""

from __future__ import annotations

import re
import shutil
from functools import partial
from pathlib import Path

import pytest

import bakthat
from bakthat.format.names import parse_stored_name
from tests.docs import command_lines
from tests.docs.sessions import DOCS, SYSTEM
from tests.support.commandline import PROJECT, CommandLine
from tests.support.glacier_server import GlacierServer
from tests.support.profiles import Conf, write_config
from tests.support.servers import S3Server
from tests.support.versions import make_bucket

PAGES = [
    page
    for page in command_lines.PAGES
    if (DOCS / "how-to") not in page.parents
    and any(line.is_whole for line in command_lines.of_page(page))
]
CODES = {
    "diff": {0, 1},  # there are differences
    "status": {0, 1},  # backups of 2013 are too old
    "show_glacier_inventory": {4},  # the vault makes its list
    "doctor": {0, 1},
    "restore -d glacier": {4},  # the thaw is requested
}
"""Other exit codes than 0, by the command."""


class Machine:
    """The machine of a page, with backups of ``mydir``, ``my``, ``htdocs`` and ``/etc``."""

    def __init__(self, directory: Path, conf: Conf) -> None:
        self.root = directory / "root"
        self.home = self.root / "home"
        self.saved = directory / "saved"
        self.user = CommandLine(self.home, self.home)
        self.conf = {
            **conf,
            "local_path": str(self.home / ".bakthat_store"),
            "database": str(self.home / ".bakthat.sqlite"),
            "password": "",  # none, and no question
            "incremental": False,
            "rotation": {"days": 7, "weeks": 4},
        }
        for path in (
            *("home/mydir/etc/hosts", "home/mydir/etc/lost", "home/mydir/etc/a.conf"),
            *("home/mydir/var/www/index.html", "home/mydir/old/old.conf", "home/mydir/notes.txt"),
            "home/my/file",
            *("etc/hosts", "etc/a.conf", "srv/site1/htdocs/index.html"),
        ):
            (self.root / path).parent.mkdir(parents=True, exist_ok=True)
            (self.root / path).write_text(f"{path}\n")
        (self.root / "home/mydir/large").write_bytes(bytes(range(256)) * 1024)

    def back_up(self, names: set[str], monkeypatch: pytest.MonkeyPatch) -> None:
        """Make the backups of the page's *names*, one of each set, and keep a copy of it all."""
        sources = {"mydir": "home/mydir", "my": "home/my", "htdocs": "srv/site1/htdocs",
                   "etc": "etc"}  # fmt: skip
        wanted = {f"{name}.20130604191055.tgz" for name in sources} | names
        if any(".inc." in name for name in names):
            wanted.add("mydir.20130101000000.tgz")
        for name in sorted(wanted, key=lambda each: each.split(".")[1]):
            parsed = parse_stored_name(name)
            assert parsed is not None
            (self.root / sources[parsed.stem] / "changes").write_text(name)
            source = self.root / sources[parsed.stem]
            clock = partial(float, parsed.backup_date)
            with monkeypatch.context() as patch:
                patch.setattr("bakthat.operations.backup.store.time.time", clock)
                is_increment = ".inc." in name
                made = bakthat.backup(
                    source, conf=self.conf, incremental=is_increment, tags=["daily"]
                )
            assert made.stored_filename == name
        bakthat.backup(self.root / sources["mydir"], conf=self.conf)  # for --since
        jobs = {"nightly": {"sources": [str(self.home / "mydir")]}}
        write_config(self.home / ".bakthat.yml", default=self.conf, jobs=jobs)
        shutil.copytree(self.root, self.saved, symlinks=True)

    def run(self, words: list[str]) -> tuple[int, str]:
        """Run a command of the page; return its exit code and what it printed."""
        shutil.rmtree(self.root)
        shutil.copytree(self.saved, self.root, symlinks=True)
        here = [
            f"{self.root}{word}" if word.startswith((*SYSTEM, "/somewhere", "/tmp")) else word
            for word in words
        ]
        done = self.user.run(*here)
        return done.code, done.stderr


def _command(words: list[str]) -> str:
    return next(word for word in words if not word.startswith("-"))


def _destination(words: list[str]) -> str:
    """Return where the backups are for a command: what needs versions and locks works on S3."""
    if "glacier" in " ".join(words):
        return "glacier"
    return "s3" if _command(words) in {"hold", "release", "undelete"} else "local"


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES, ids=lambda each: str(each.relative_to(PROJECT)))
def test_every_command_of_the_page_runs(
    page: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    moto_endpoint: S3Server,
    glacier: GlacierServer,
) -> None:
    lines = [line for line in command_lines.of_page(page) if line.is_whole]
    typed = " ".join(word for line in lines for word in line.words)
    names = set(re.findall(r"\b\w+\.\d{14}(?:\.inc)?\.tgz\b", typed))
    glacier.access_key, glacier.instant = moto_endpoint.access_key, True
    failed = []
    for destination in ("local", "glacier", "s3"):
        typed_there = [line for line in lines if _destination(line.words) == destination]
        if not typed_there:
            continue
        conf = glacier.conf() | moto_endpoint.conf(default_destination=destination)
        make_bucket(conf, locks=True)
        machine = Machine(tmp_path / destination, conf)
        machine.back_up(names, monkeypatch)
        for line in typed_there:
            code, printed = machine.run(line.words)
            command = _command(line.words)
            if command == "restore" and destination == "glacier":
                command = "restore -d glacier"
            if code not in CODES.get(command, {0}):
                failed.append(f"{line.place}: bakthat {' '.join(line.words)}: {code}\n{printed}")
    assert failed == []
