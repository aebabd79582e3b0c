"""Nights of jobs: cron itself starts all at once, and in some of them bakthat is killed.

``python -m tests.reliability.nights`` runs many; it is for root, who may mount cron's directories.
"""

from __future__ import annotations

import argparse
import os
import random
import shlex
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import yaml

import bakthat
from bakthat.format.names import index_key, is_index_key
from bakthat.session.sets import newest_first
from tests.reliability.world import in_child
from tests.support.commandline import PROJECT
from tests.support.needs import program
from tests.support.processes import own_processes
from tests.support.schedules import with_mounts
from tests.support.servers import moto_server, plain, seaweedfs_server

PATIENCE = 900.0
"""Seconds that a night may take."""
KEPT = 3
"""How many backups of each set the rotation keeps."""
AT_START = "@reboot"
"""When cron itself starts, and not at the next minute."""
_LARGE = 300_000
"""Bytes of a file in each source, so that a kill meets uploads."""


@dataclass
class Nights:
    """A user with jobs, each of them with several sources, and storages that they share."""

    home: Path
    rng: random.Random
    jobs: Sequence[str]
    sources: Mapping[str, Sequence[Path]]
    """Those of each job."""
    profiles: Mapping[str, dict[str, Any]]
    number: int = 0
    """Of the last night."""
    seconds: float = 20.0
    """How long the last night took in which nothing was killed."""
    content: dict[Path, str] = field(default_factory=dict)
    """What each source has had in this night."""
    known: set[str] = field(default_factory=set)
    """The stored filenames of earlier nights."""
    problems: list[str] = field(default_factory=list)

    @classmethod
    def make(
        cls,
        root: Path,
        profiles: Mapping[str, dict[str, Any]],
        rng: random.Random,
        *,
        jobs: int,
        sources: int,
    ) -> Nights:
        """Make the configuration and the sources below *root*; the jobs share the *profiles*."""
        home = root / "home"
        home.mkdir(parents=True)
        names = [f"job{number:02}" for number in range(jobs)]
        paths = {
            name: [root / "sources" / name / f"{name}-{number}" for number in range(sources)]
            for name in names
        }
        for each in [path for of_job in paths.values() for path in of_job]:
            each.mkdir(parents=True)
            (each / "large").write_bytes(rng.randbytes(_LARGE))
        common = {"database": str(home / "catalog.sqlite"), "rotation": {"last": KEPT}}
        whole = {name: {**conf, **common} for name, conf in profiles.items()}
        made = cls(home, rng, names, paths, whole)
        configured: dict[str, Any] = dict(whole)
        configured["jobs"] = {
            name: {
                "profile": list(profiles)[number % len(profiles)],
                "sources": [str(path) for path in paths[name]],
                "rotate": True,
                "before": [f"touch {made.stopped(name)}"],
                "after": [f"rm {made.stopped(name)}"],
            }
            for number, name in enumerate(names)
        }
        made.config.write_text(yaml.safe_dump(configured))
        made.config.chmod(0o600)
        return made

    @property
    def config(self) -> Path:
        """The configuration file."""
        return self.home / ".bakthat.yml"

    def stopped(self, job: str) -> Path:
        """Return a file that is there from ``before`` to ``after`` of a job."""
        return self.home / f"{job}.stopped"

    def log(self, job: str) -> str:
        """Return what a job has printed in this night."""
        path = self.home / f"{job}.log"
        return path.read_text() if path.exists() else ""

    def run(self, *, kills: int = 0, when: str = AT_START) -> list[int]:
        """Let cron start all jobs, and kill some at random moments; return their exit codes."""
        self.number += 1
        for path in [path for of_job in self.sources.values() for path in of_job]:
            self.content[path] = f"{self.number} {self.rng.random()}"
            (path / "night").write_text(self.content[path])
        codes = {job: self.home / f"{job}.code" for job in self.jobs}
        for each in codes.values():
            each.unlink(missing_ok=True)
        began = time.monotonic()
        moments = sorted(self.rng.uniform(0, self.seconds) for _ in range(kills))
        with self._cron(when):
            pause = threading.Event()
            while not all(each.exists() and each.read_text() for each in codes.values()):
                passed = time.monotonic() - began
                assert passed < PATIENCE, f"no end of {self.logs()}"
                if moments and passed >= moments[0]:
                    del moments[0]
                    self._kill_one()
                pause.wait(0.02)
        if not kills:
            self.seconds = time.monotonic() - began
        return [int(each.read_text()) for each in codes.values()]

    def logs(self) -> str:
        """Return the end of what each job has printed."""
        return "\n".join(f"{job}: {self.log(job)[-500:]}" for job in self.jobs)

    @contextmanager
    def _cron(self, when: str) -> Iterator[None]:
        """Run cron with a crontab of its own, and with no other."""
        with tempfile.TemporaryDirectory() as scratch:
            places = {name: Path(scratch, name) for name in ("spool", "cron.d", "run")}
            for each in places.values():
                each.mkdir()
            nothing = Path(scratch, "crontab")
            nothing.touch()
            tab = places["spool"] / "root"
            tab.write_text("".join(f"{each}\n" for each in self._crontab(when)))
            tab.chmod(0o600)
            words = with_mounts(
                {
                    "/var/spool/cron/crontabs": places["spool"],
                    "/etc/cron.d": places["cron.d"],
                    "/etc/crontab": nothing,
                    "/run": places["run"],
                }
            )
            with subprocess.Popen([*words, program("cron"), "-f"]) as daemon:
                try:
                    yield
                finally:
                    daemon.kill()

    def _crontab(self, when: str) -> Iterator[str]:
        yield f"HOME={self.home}"
        yield f"PATH={os.environ['PATH']}"
        yield f"PYTHONPATH={PROJECT}"
        yield "AWS_EC2_METADATA_DISABLED=true"
        for job in self.jobs:
            command = shlex.join([sys.executable, "-m", "bakthat", "run", job])
            log, code = (shlex.quote(str(self.home / f"{job}.{end}")) for end in ("log", "code"))
            yield f"{when} {command} >{log} 2>&1; echo $? >{code}"

    def _kill_one(self) -> None:
        """Kill a process that runs a job; not one that it has started."""
        commands: dict[int, list[bytes]] = {}
        parents: dict[int, int] = {}
        for each in own_processes():
            with suppress(OSError):
                commands[int(each.name)] = (each / "cmdline").read_bytes().split(b"\0")
                stat = (each / "stat").read_text().rpartition(")")[2].split()
                parents[int(each.name)] = int(stat[1])
        running = [
            pid for pid, words in commands.items() if words[1:4] == [b"-m", b"bakthat", b"run"]
        ]
        mains = [pid for pid in running if parents.get(pid) not in running]
        if mains:
            with suppress(ProcessLookupError):
                os.kill(self.rng.choice(mains), signal.SIGKILL)

    def examine(self, *, was_killed: bool) -> int:
        """See that nothing was lost, or stored twice; return how many backups are new.

        What does not hold is added to the problems. After kills, ``bakthat sync`` may list what was
        stored and not recorded.
        """
        new = 0
        for position, conf in enumerate(self.profiles.values()):
            if was_killed:
                self._ask(partial(self._sync, conf))
            self._ask(partial(self._differences, conf))
            for job in self.jobs[position :: len(self.profiles)]:
                found = self._ask(partial(self._examine_job, conf, job, was_killed=was_killed))
                self.known |= set(found)
                new += len(found)
        left = [job for job in self.jobs if self.stopped(job).exists()]
        if left and not was_killed:
            self.problems.append(f"night {self.number}: 'after' has not run: {left}")
        return new

    def _ask(self, look: Callable[[], Sequence[list[str]]]) -> list[str]:
        """Call *look* in a child; add the problems, which it returns first, and return the rest."""
        try:
            problems, *more = in_child(look, environment={"HOME": str(self.home)}).result
        except AssertionError as exc:
            problems, more = [str(exc)], []
        self.problems += [f"night {self.number}: {each}" for each in problems]
        return more[0] if more else []

    def _sync(self, conf: dict[str, Any]) -> Sequence[list[str]]:
        """List what was stored and not recorded; nothing of that is a problem."""
        bakthat.sync(conf=conf)
        return [[]]

    def _differences(self, conf: dict[str, Any]) -> Sequence[list[str]]:
        """Say what the storage has and the catalog does not list, and the other way round.

        The index of a backup that was killed before its archive was stored belongs to none.
        """
        listed = {each.stored_filename for each in bakthat.ls(conf=conf)}
        pages = plain(conf).get_paginator("list_objects_v2").paginate(Bucket=conf["s3_bucket"])
        keys = {each["Key"] for page in pages for each in page.get("Contents", [])}
        stored = {each for each in keys if not is_index_key(each)}
        missing = [f"{each} is listed, and not stored" for each in sorted(listed - stored)]
        more = [f"{each} is stored, and not listed" for each in sorted(stored - listed)]
        without = [each for each in sorted(listed & stored) if index_key(each) not in keys]
        return [[*missing, *more, *(f"{each} has no index" for each in without)]]

    def _examine_job(
        self, conf: dict[str, Any], job: str, *, was_killed: bool
    ) -> tuple[list[str], list[str]]:
        """Return what does not hold of a job, and the stored filenames that are new."""
        found: list[str] = []
        problems: list[str] = []
        for path in self.sources[job]:
            listed = [
                each for each in bakthat.ls(path.name, conf=conf) if each.filename == path.name
            ]
            fresh = [
                each for each in newest_first(listed) if each.stored_filename not in self.known
            ]
            found += [each.stored_filename for each in fresh]
            if len(fresh) > 1 or not (fresh or was_killed):
                problems.append(f"{path.name} has {len(fresh)} new backups")
            if len(listed) > KEPT + was_killed:  # one that was killed has not rotated
                problems.append(f"{path.name} has {len(listed)} backups, and was not rotated")
            for each in fresh:
                with tempfile.TemporaryDirectory() as scratch:
                    bakthat.restore(each.stored_filename, conf=conf, output=Path(scratch))
                    content = (Path(scratch) / path.name / "night").read_text()
                    whole = (Path(scratch) / path.name / "large").read_bytes()
                if content != self.content[path] or whole != (path / "large").read_bytes():
                    problems.append(f"{each.stored_filename} came back different")
        return problems, found


@contextmanager
def two_servers(root: Path) -> Iterator[dict[str, dict[str, Any]]]:
    """Run moto's server and SeaweedFS; yield a profile of each."""
    with ExitStack() as servers:
        profiles = {}
        for name, serve in (("moto", moto_server), ("seaweedfs", seaweedfs_server)):
            (root / name).mkdir()
            server = servers.enter_context(serve(root / name))
            profiles[name] = server.conf(default_destination="s3")
        yield profiles


def next_minute() -> str:
    """Return a time of a crontab, that of a minute which begins in 10 to 70 seconds."""
    return time.strftime("%M %H %d %m *", time.localtime(time.time() + 70))


def main() -> int:
    """Run nights by the arguments; return 1 when anything did not hold."""
    parser = argparse.ArgumentParser(prog="python -m tests.reliability.nights", description=__doc__)
    parser.add_argument("--nights", type=int, default=20, help="each second one with kills")
    parser.add_argument("--jobs", type=int, default=20)
    parser.add_argument("--sources", type=int, default=3, help="of each job")
    parser.add_argument("--kills", type=int, default=15, help="in each night with kills")
    parser.add_argument("--by-the-minute", type=int, default=2, help="nights that wait for one")
    parser.add_argument("--seed", type=int)
    options = parser.parse_args()
    seed = options.seed if options.seed is not None else random.SystemRandom().randrange(2**32)
    print(f"seed {seed}", flush=True)
    with tempfile.TemporaryDirectory() as directory, two_servers(Path(directory)) as profiles:
        os.environ["AWS_EC2_METADATA_DISABLED"] = "true"
        nights = Nights.make(
            Path(directory) / "user",
            profiles,
            random.Random(seed),
            jobs=options.jobs,
            sources=options.sources,
        )
        made = killed = 0
        began = time.monotonic()
        for number in range(options.nights):
            kills = options.kills if number % 2 else 0
            when = next_minute() if number < options.by_the_minute else AT_START
            codes = nights.run(kills=kills, when=when)
            killed += codes.count(137)
            if not kills and any(codes):
                nights.problems.append(f"night {nights.number}: {codes}: {nights.logs()}")
            new = nights.examine(was_killed=bool(kills))
            made += new
            print(
                f"night {nights.number}: {killed} killed so far, {new} new backups, "
                f"{len(nights.problems)} problems, {time.monotonic() - began:.0f} s",
                flush=True,
            )
    print(
        f"{options.nights} nights of {options.jobs} jobs, {killed} of which were killed: "
        f"{made} backups, each restored; {len(nights.problems)} problems"
    )
    for problem in nights.problems:
        print(f"PROBLEM {problem}")
    return 1 if nights.problems else 0


if __name__ == "__main__":
    sys.exit(main())
