"""What is typed in the terminals of the pictures, and by whom."""

from __future__ import annotations

import calendar
import random
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import NamedTuple
from unittest import mock

import bakthat
from tests.docs.pictures.terminal import COLUMNS, Terminal
from tests.support.commandline import CommandLine
from tests.support.profiles import write_config
from tests.support.servers import moto_server, plain

KEY = "age1zvkyg2lqzraa2lnjvqej32nkuu0ues2s82hzrye869xeexvn73equnujwj"
PASSWORD = "correct horse battery staple"


class Session(NamedTuple):
    """What one picture shows."""

    title: str
    follow: Callable[[Terminal, CommandLine], None]
    """Prepares what the user has, and types."""
    columns: int = COLUMNS


def draw(session: Session) -> str:
    """Run a session in a home directory of its own; return the picture of the terminal."""
    with _user() as user:
        terminal = Terminal(user, session.columns)
        session.follow(terminal, user)
        return terminal.draw(session.title)


@contextmanager
def _user() -> Iterator[CommandLine]:
    with tempfile.TemporaryDirectory() as name:
        yield CommandLine(Path(name), Path(name))


def _first_backup(terminal: Terminal, user: CommandLine) -> None:
    _make_tree(user.home / "mydir")
    question, again = ("Password", f"{PASSWORD}\n"), ("confirmation", f"{PASSWORD}\n")
    terminal.run("bakthat backup mydir", [question, again])
    terminal.run("bakthat restore mydir -o restored", [question])


def _help(terminal: Terminal, user: CommandLine) -> None:
    terminal.run("bakthat --help")


def _show(terminal: Terminal, user: CommandLine) -> None:
    days = ("2026-11-20", "2026-11-24", "2026-11-25", "2026-11-26")
    _have_backups(user, days, incremental=True)
    terminal.run("bakthat show")


def _rotate(terminal: Terminal, user: CommandLine) -> None:
    november = (1, 7, 14, 20, 21, 22, 23, 24, 25, 26)
    _have_backups(user, ["2026-10-01", *(f"2026-11-{day:02}" for day in november)])
    terminal.run("bakthat rotate mydir --days 3 --weeks 2 --months 6 --dry-run")


def _doctor(terminal: Terminal, user: CommandLine) -> None:
    home = user.home / ".server"
    home.mkdir()
    with moto_server(home) as server:
        conf = server.conf(s3_bucket="my-backups")
        storage = plain(conf)
        storage.create_bucket(Bucket="my-backups")
        storage.put_bucket_versioning(
            Bucket="my-backups", VersioningConfiguration={"Status": "Enabled"}
        )
        write_config(
            user.home / ".bakthat.yml", default={**conf, "recipients": [KEY], "versions": "keep"}
        )
        terminal.run("bakthat doctor")


def _have_backups(user: CommandLine, days: Iterable[str], **settings: object) -> None:
    """Make the backups that the user has: one in the night of each day, to a disk."""
    profile = {
        "default_destination": "local",
        "local_path": str(user.home / "backups"),
        "host": "laptop",
        **settings,
    }
    write_config(user.home / ".bakthat.yml", default=profile)
    tree = user.home / "mydir"
    _make_tree(tree)
    conf = {**profile, "database": str(user.home / ".bakthat.sqlite")}
    for day in days:
        (tree / "day").write_bytes(random.Random(day).randbytes(300_000))
        moment = calendar.timegm(time.strptime(f"{day} 03:00", "%Y-%m-%d %H:%M"))
        with mock.patch("bakthat.operations.backup.store.time.time", partial(float, moment)):
            bakthat.backup(str(tree), conf=conf, password="")


def _make_tree(root: Path) -> None:
    """Make a directory of the same files each time; they compress as texts do."""
    numbers = random.Random(7)
    words = [numbers.randbytes(3).hex()[: numbers.randint(2, 6)] for _ in range(2000)]
    for chapter in range(12):
        directory = root / f"chapter-{chapter + 1:02}"
        directory.mkdir(parents=True)
        for page in range(5):
            text = " ".join(numbers.choices(words, k=80_000 + 1000 * page))
            (directory / f"{page + 1}.txt").write_text(text)


SESSIONS = {
    "first-backup": Session("The first backup and its restore", _first_backup, 92),
    "show": Session("The list of the backups", _show, 112),
    "rotate": Session("What a rotation would keep and delete, and why", _rotate, 88),
    "doctor": Session("Everything that a backup needs, tried", _doctor, 92),
    "help": Session("The commands of bakthat", _help),
}
"""The pictures of terminals, by their names."""
