"""A user with backups, commands that run in forked children, and what must hold afterwards."""

from __future__ import annotations

import os
import pickle
import random
import select
import shutil
import signal
import sqlite3
import tempfile
import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self
from unittest import mock

import yaml

import bakthat
from bakthat import models
from bakthat.__main__ import main
from bakthat.backends import make_backend
from bakthat.backends.aws.client import AwsClient
from bakthat.crypto import age
from bakthat.errors import NotFoundError
from bakthat.format.names import index_key
from bakthat.operations import cleanup
from bakthat.operations.backup import store
from tests.support.servers import parts_under_way
from tests.support.steps import kill_before_step
from tests.support.trees import fingerprint

PATIENCE = 120.0
"""Seconds after which a command hangs."""

SET = "mydir"
IDENTITY = age.generate_identity()


@dataclass(frozen=True)
class Ended:
    """A child that ended."""

    result: Any
    output: str
    """What it wrote to standard output and error."""
    killed: bool
    seconds: float


def in_child(
    function: Callable[[], Any],
    *,
    kill_after: float | None = None,
    environment: Mapping[str, str] | None = None,
) -> Ended:
    """Call *function* in a forked process, which begins with everything imported.

    Kills it after *kill_after* seconds, if it still runs then; it may also kill itself. An
    exception of its own is raised here as AssertionError, and so is that it hangs.
    """
    answer, give = os.pipe()
    began = time.monotonic()
    with tempfile.TemporaryFile() as file:
        pid = os.fork()
        if pid == 0:
            os.close(answer)
            _be_child(function, give, file.fileno(), environment or {})
        os.close(give)
        limit = PATIENCE if kill_after is None else kill_after
        ended_by_itself = bool(select.select([answer], [], [], limit)[0])
        if not ended_by_itself:
            os.kill(pid, signal.SIGKILL)
        with open(answer, "rb") as pipe:
            content = pipe.read()
        _, status = os.waitpid(pid, 0)
        file.seek(0)
        output = file.read().decode(errors="replace")
    seconds = time.monotonic() - began
    if os.waitstatus_to_exitcode(status) == -signal.SIGKILL and not content:
        if kill_after is None and not ended_by_itself:
            raise AssertionError(f"no end after {seconds:.0f} seconds; its output:\n{output}")
        return Ended(None, output, killed=True, seconds=seconds)
    failure, result = pickle.loads(content)
    if failure:
        raise AssertionError(failure)
    return Ended(result, output, killed=False, seconds=seconds)


def _be_child(
    function: Callable[[], Any], give: int, output: int, environment: Mapping[str, str]
) -> None:
    code = 70
    try:
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.dup2(output, 1)
        os.dup2(output, 2)
        os.environ.update(environment)
        try:
            content = pickle.dumps(("", function()))
        except BaseException:  # noqa: BLE001  # the parent raises it
            content = pickle.dumps((traceback.format_exc(), None))
        os.environ.pop("FAIL_BELOW", None)
        os.write(give, content)
        code = 0
    finally:
        os._exit(code)


@dataclass
class World:
    """A home directory, a profile, and the directory that is backed up into one container."""

    home: Path
    conf: dict[str, Any]
    rng: random.Random
    problems: list[str] = field(default_factory=list)
    lost: int = 0

    @classmethod
    def make(cls, root: Path, conf: Mapping[str, Any], rng: random.Random, *, large: int) -> World:
        """Make a world below *root*, with a source that has one file of *large* bytes."""
        home = root / "home"
        home.mkdir(parents=True)
        source = root / "source" / SET
        (source / "sub").mkdir(parents=True)
        for number in range(20):
            (source / "sub" / f"{number}").write_text(f"{number}\n" * 50)
        (source / "large").write_bytes(rng.randbytes(large))
        (source / "link").symlink_to("large")
        return cls.configured(home, conf, rng)

    @classmethod
    def configured(cls, home: Path, conf: Mapping[str, Any], rng: random.Random) -> Self:
        """Make a world with the profile *conf*, and nothing to back up."""
        (home / "key").write_text(IDENTITY)
        whole = {
            **conf,
            "recipients": [age.recipient_of(IDENTITY)],
            "identity_file": str(home / "key"),
            "database": str(home / "catalog.sqlite"),
            "rotation": {"days": 2, "weeks": 0, "months": 0},
            "attempts": 1,
            "timeout": 20,
        }
        (home / ".bakthat.yml").write_text(yaml.safe_dump({"default": whole}))
        (home / ".bakthat.yml").chmod(0o600)
        world = cls(home, whole, rng)
        in_child(world._backend().create_container)
        return world

    @property
    def source(self) -> Path:
        """What is backed up."""
        return self.home.parent / "source" / SET

    def run(self, *arguments: str, kill_before: int = 0, **options: Any) -> Ended:
        """Run a command of bakthat, or kill it before a step; its exit code is the result."""
        environment = {"HOME": str(self.home), **options.pop("environment", {})}

        def command() -> int:
            if kill_before:
                kill_before_step(kill_before)
            return main(list(arguments))

        return in_child(command, environment=environment, **options)

    def back_up(self, days_ago: int = 0) -> None:
        """Make a backup, perhaps one of an earlier day."""

        def make() -> None:
            earlier = int(time.time() - days_ago * 86400)
            if days_ago:
                replace(store, "time", _Clock(earlier))
            date = bakthat.backup(self.source, conf=self.conf).backup_date
            # A key that is taken moves a backup by a second.
            if not earlier <= date < earlier + 3600:
                raise AssertionError(f"the backup of {days_ago} days ago has the date {date}")

        in_child(make, environment={"HOME": str(self.home)})

    def keys(self) -> set[str]:
        """Return what is stored."""
        stored: set[str] = in_child(lambda: {each.key for each in self._backend().ls()}).result
        return stored

    def examine(self, must_remain: set[str], after: str) -> None:
        """See that nothing of *must_remain* was lost, and that all comes to rest.

        What does not hold is added to the problems, with what it came *after*.
        """
        try:
            problems, lost = in_child(
                lambda: _examine(self, must_remain), environment={"HOME": str(self.home)}
            ).result
        except AssertionError as exc:
            problems, lost = [str(exc)], 0
        self.problems += [f"after {after}: {problem}" for problem in problems]
        self.lost += lost

    def tidy(self, most: int) -> None:
        """Delete the oldest backups but *most*."""

        def trim() -> None:
            for old in bakthat.ls(conf=self.conf)[most:]:
                bakthat.delete(old.stored_filename, conf=self.conf)

        in_child(trim, environment={"HOME": str(self.home)})

    def restores(self, name: str) -> bool:
        """Restore a backup; return whether the source comes back. Raises BakthatError."""
        output = Path(tempfile.mkdtemp(dir=self.home.parent))
        try:
            bakthat.restore(name, conf=self.conf, output=output)
            return fingerprint(output / SET) == fingerprint(self.source)
        finally:
            shutil.rmtree(output)

    def _backend(self) -> Any:
        return make_backend(self.conf["default_destination"], self.conf)

    def leftovers(self) -> list[str]:
        """Return what is stored and is neither an object nor describes one."""
        if self.conf["default_destination"] == "s3":
            return parts_under_way(self.conf)
        store = Path(self.conf["local_path"])
        found = {str(path.relative_to(store)) for path in store.rglob("*") if path.is_file()}
        backend = self._backend()
        objects = {each.key for each in [*backend.ls(), *backend.ls(indexes=True)]}
        return sorted(found - objects - {f"{key}.bakthat.json" for key in objects})


def replace(owner: object, name: str, value: object) -> None:
    """Replace what exists as *name*, until this process ends; AttributeError where nothing does."""
    mock.patch.object(owner, name, value).start()


class _Clock:
    """The module ``time``, of another day."""

    def __init__(self, now: float) -> None:
        self._now = now

    def time(self) -> float:
        return self._now

    def __getattr__(self, name: str) -> Any:
        return getattr(time, name)


def _share_clients() -> None:
    """Make one client of botocore for all of this child: that takes longer than any request."""
    made: dict[tuple[str, int], Any] = {}
    make = AwsClient._make_client

    def shared(client: AwsClient, attempts: int) -> Any:
        key = (client.service, attempts)
        if key not in made:
            made[key] = make(client, attempts)
        return made[key]

    replace(AwsClient, "_make_client", shared)


def _examine(world: World, must_remain: set[str]) -> tuple[list[str], int]:
    _share_clients()
    problems: list[str] = []
    catalog = Path(world.conf["database"])
    if catalog.exists():
        connection = sqlite3.connect(catalog)
        (output,) = connection.execute("PRAGMA integrity_check").fetchone()
        connection.close()
        if output != "ok":
            problems.append(f"the catalog is damaged: {output}")
    restored: set[str] = set()
    # What was being deleted may be listed still, and be gone, until the next sync.
    problems += _restore_all(world, restored, half_deleted=lambda key: key not in must_remain)
    bakthat.sync(conf=world.conf)
    problems += _restore_all(world, restored, half_deleted=lambda _key: False)
    # Whatever its age: what was killed a moment ago is dead here.
    replace(cleanup, "parse_interval", lambda _text: -2)
    bakthat.cleanup(conf=world.conf)
    stored = {each.key for each in world._backend().ls()}
    listed = {each.stored_filename for each in bakthat.ls(conf=world.conf)}
    if stored != listed:
        problems.append(f"stored and listed differ: {stored ^ listed}")
    indexes = {each.key for each in world._backend().ls(indexes=True)}
    if different := indexes ^ {index_key(key) for key in stored}:
        problems.append(f"the archives and the indexes differ: {different}")
    checked = bakthat.check(conf=world.conf) if listed else []
    problems += [f"{each.backup}: {each.index_problem}" for each in checked if each.index_problem]
    if left := world.leftovers():
        problems.append(f"left behind: {left}")
    with models.catalog(catalog):
        if reserved := models.Reservations.select().count():
            problems.append(f"{reserved} reservations are left")
    if staged := [path.name for path in world.home.iterdir() if "restore" in path.name]:
        problems.append(f"left in the home directory: {staged}")
    missing = must_remain - restored
    problems += [f"LOST: {key}" for key in missing]
    return problems, len(missing)


def _restore_all(world: World, done: set[str], *, half_deleted: Callable[[str], bool]) -> list[str]:
    """Restore everything that is listed and not *done*; add to it what comes back whole."""
    problems = []
    for backup in bakthat.ls(conf=world.conf):
        if backup.stored_filename in done:
            continue
        try:
            if world.restores(backup.stored_filename):
                done.add(backup.stored_filename)
            else:
                problems.append(f"{backup.stored_filename} comes back altered")
        except NotFoundError as exc:
            if not half_deleted(backup.stored_filename):
                problems.append(f"{backup.stored_filename} is listed, and gone: {exc}")
        except bakthat.BakthatError as exc:
            problems.append(f"{backup.stored_filename} is listed, and does not restore: {exc}")
    return problems
