"""Nights of backups and rotations in a bucket with object lock, on a clock that is set.

Each night edits a tree, backs it up, rotates, and compares what the storage then holds with what
the rotation, the locks, the holds and the increments say by rules of its own.
"""

from __future__ import annotations

import calendar
import contextlib
import random
import shutil
import time
import urllib.request
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import time_machine

import bakthat
from bakthat.errors import StorageError
from bakthat.format.names import index_key
from bakthat.policy.object_lock.rule import LockRule
from bakthat.policy.object_lock.until import locked_until
from bakthat.policy.rotation import RotationPolicy, decide
from tests.support.clocked_moto import CLOCK
from tests.support.edits import Edits
from tests.support.indexes import forget_cache
from tests.support.lock_ledger import Ledger, Stored
from tests.support.profiles import Conf
from tests.support.servers import plain_client
from tests.support.trees import fingerprint

SET = "mydir"
DAY = 86400
HOUR = 3600
ATTACKER, OPERATOR = "attacker-access-key", "operator-access-key"


def day_of_next_year(month: int, day: int) -> int:
    """Return when that day of the next year begins, in epoch seconds UTC.

    It is after each change of the tree, whose times are of the real clock: so they are trusted.
    """
    return calendar.timegm((time.gmtime().tm_year + 1, month, day, 0, 0, 0))


@dataclass(frozen=True)
class Course:
    """What happens in which of the nights, which are counted from 0."""

    nights: int
    object_lock: Mapping[str, Any]
    rotations: Mapping[int, Mapping[str, int]]
    """The rotation of the profile from a night on."""
    begin: int = field(default_factory=lambda: day_of_next_year(1, 1))
    """When the first day begins, in epoch seconds UTC."""
    versions: str = "delete"
    holds: Mapping[int, int] = field(default_factory=dict)
    """In which night its backup is put on hold, and in which one it is released."""
    gaps: Sequence[range] = ()
    """Nights without a backup."""
    attacks: Sequence[int] = ()
    """Before which nights somebody with keys of the bucket overwrites and deletes."""
    restarts: Sequence[int] = ()
    """Before which nights the host is lost with its catalog and its cache."""
    second_backups: int = 5
    """Every so many nights there is a second backup."""
    restores: int = 1
    """Every so many nights one of the backups is restored."""
    rotates: int = 1
    """Every so many nights it rotates."""


@dataclass
class Made:
    """A backup that must be stored, and what it restores."""

    name: str
    date: int
    needs: Sequence[int]
    state: dict[bytes, Any]
    locked_at_most: float = 0
    """Until when the latest of all rotations so far let it be locked, in epoch seconds UTC."""

    @property
    def keys(self) -> tuple[str, str]:
        return self.name, index_key(self.name)


class Year:
    """A host, its bucket, and all that they should be by now."""

    def __init__(self, course: Course, conf: Conf, log: Path, home: Path, seed: int) -> None:
        self.course = course
        self.home = home
        self.rng = random.Random(seed)
        self.conf: Conf = {
            **conf,
            "default_destination": "s3",
            "database": str(home / "catalog.sqlite"),
            "incremental": True,
            # Few bytes are stored, and the headers alone would make most increments too large.
            "compress": True,
            "object_lock": dict(course.object_lock),
            "versions": course.versions,
            "rotation": dict(course.rotations[0]),
        }
        self.ledger = Ledger(log, conf["s3_bucket"], conf["access_key"])
        self.edits = Edits(home / SET)
        self.made: dict[int, Made] = {}
        """By date: what must be stored."""
        self.gone: set[str] = set()
        """The keys that rotation has deleted."""
        self.held: dict[int, int] = {}
        """The dates of backups on hold, and in which night they are released."""
        self.is_attacked = False
        self.figures: Counter[str] = Counter()

    # The clock.

    @contextlib.contextmanager
    def on_its_clock(self) -> Iterator[None]:
        """Let the clock of this process, which :meth:`_set` sets with the server's, stand still."""
        with time_machine.travel(float(self.course.begin), tick=False) as self._clock:
            yield

    def _set(self, moment: float) -> None:
        assert moment >= time.time()
        self._clock.move_to(moment)
        address = self.conf["endpoint_url"] + CLOCK
        request = urllib.request.Request(address, str(moment).encode(), method="PUT")
        urllib.request.urlopen(request).close()

    def _pass(self, seconds: float) -> None:
        self._set(time.time() + seconds)

    # What happens.

    def live(self) -> None:
        """Live through all nights."""
        for night in range(self.course.nights):
            self._set(self.course.begin + night * DAY + 2 * HOUR + self.rng.randrange(HOUR))
            self._begin(night)
            if not any(night in gap for gap in self.course.gaps):
                self._back_up()
                if night in self.course.holds:
                    self._hold(night)
                self._pass(HOUR)
                if night % self.course.second_backups == self.course.second_backups - 1:
                    self._back_up()
                    self._pass(HOUR)
            if night % self.course.rotates == 0:
                self._rotate()
            self._pass(60)
            if self.is_attacked:
                self._mend()
            self._release(night)
            self._examine(restores=night % self.course.restores == 0)

    def end(self) -> None:
        """Release what is on hold, let all locks of what is not kept end, and rotate once more."""
        self._release(None)
        keep = self._decided()
        ends = [
            self._first(key).until
            for date in self.made.keys() - keep
            for key in self.made[date].keys
        ]
        self._set(max(time.time(), *ends, 0) + DAY)
        self._rotate()
        assert self.made.keys() == keep
        self._examine(restores=len(self.made))
        self._examine_versions()

    def _begin(self, night: int) -> None:
        if night in self.course.rotations:
            self.conf["rotation"] = dict(self.course.rotations[night])
        if night in self.course.restarts:
            Path(self.conf["database"]).unlink()
            forget_cache()
            bakthat.sync(conf=self.conf)
            self._examine()
            self.figures["restarts"] += 1
        if night in self.course.attacks:
            self._attack()

    def _back_up(self) -> None:
        for _ in range(self.rng.randrange(4)):
            self.edits.make(self.rng)
        state = fingerprint(self.home / SET)
        entry = bakthat.backup(self.home / SET, conf=self.conf, password="")
        assert entry.is_complete, entry.metadata
        assert entry.date not in self.made
        made = Made(entry.stored_filename, entry.date, entry.needs, state)
        self.made[made.date] = made
        assert set(made.needs) < self.made.keys()
        self._note_locks()
        if self.is_attacked:  # an increment was begun and given up, and what it needed is locked
            for each in self.made.values():
                each.locked_at_most = max(each.locked_at_most, made.locked_at_most)
        self.figures["increments" if made.needs else "fulls"] += 1
        self._catch_up()

    def _rotate(self) -> None:
        expected = self._with_needs(self._decided() | self._locked())
        self._note_locks()
        if not self.is_attacked and not self.rng.randrange(5):
            planned = bakthat.rotate_backups(SET, conf=self.conf, dry_run=True)
            assert {each.date for each in planned} == self.made.keys() - expected
        try:
            returned = {each.date for each in bakthat.rotate_backups(SET, conf=self.conf)}
        except StorageError:
            if not self.is_attacked:
                raise
            self.figures["rotations that an attack ended"] += 1
            returned = set()
        self._catch_up()
        went = {date for date, each in self.made.items() if not self.ledger.has(each.name)}
        assert went & expected == set()
        assert returned <= went or self.is_attacked  # with versions: keep, it was hidden already
        if not self.is_attacked:
            assert went == self.made.keys() - expected
            assert returned == went
        self.figures["deleted by rotation"] += len(went)
        for date in went:
            self.gone.update(self.made.pop(date).keys)
        if not self.is_attacked:
            self._examine_locks()

    def _hold(self, night: int) -> None:
        made = self.made[max(self.made)]
        bakthat.hold(made.name, reason=f"night {night}", conf=self.conf)
        self.held[made.date] = self.course.holds[night]
        self.figures["increments on hold"] += bool(made.needs)
        self._catch_up()

    def _release(self, night: int | None) -> None:
        """Release what is released in that night, or all."""
        for date, end in sorted(self.held.items()):
            if night is None or end == night:
                bakthat.release(self.made[date].name, conf=self.conf)
                del self.held[date]
                self.figures["released"] += 1
        self._catch_up()
        # After a restart or an attack nobody knows what was put on hold by its name, and what for
        # the sake of something else; so each one stays on hold until it is released by its name.
        for date in sorted(self._on_hold() - self._with_needs(self.held), reverse=True):
            assert self.figures["restarts"] or self.figures["attacks"]
            bakthat.release(self.made[date].name, conf=self.conf)
        self._catch_up()

    def _attack(self) -> None:
        """Overwrite and delete what the bucket lets, which does not judge the keys of access."""
        client = plain_client(self.conf["endpoint_url"], ATTACKER, "secret")
        bucket = self.conf["s3_bucket"]
        keys = sorted(key for each in self.made.values() for key in each.keys)
        for key in self.rng.sample(keys, min(6, len(keys))):
            if self.rng.random() < 0.5:
                client.put_object(Bucket=bucket, Key=key, Body=b"give us money")
            else:
                client.delete_object(Bucket=bucket, Key=key)
        locked = [
            {"Key": key, "VersionId": each.version_id}
            for key in keys
            for each in self.ledger.versions[key]
            if each.is_locked(time.time())
        ]
        answer = client.delete_objects(Bucket=bucket, Delete={"Objects": locked})
        assert len(answer["Errors"]) == len(locked)
        self.is_attacked = True
        self.figures["attacks"] += 1
        self._catch_up()

    def _mend(self) -> None:
        """Bring back what was attacked, by turns with bakthat and by removing what hides it."""
        self._note_locks()
        if self.figures["attacks"] % 2:
            for made in self.made.values():
                if any(self.ledger.latest(key) is not self._first(key) for key in made.keys):
                    done = bakthat.undelete(made.name, conf=self.conf)
                    assert not any(each.has_failed for each in done)
                    self.figures["brought back"] += 1
        else:
            self._remove_attacks()
            bakthat.sync(conf=self.conf)
        for date in self.held:  # what it needs may have been hidden when it was put on hold
            bakthat.hold(self.made[date].name, reason="again", conf=self.conf)
        self._catch_up()
        self.is_attacked = False

    def _remove_attacks(self) -> None:
        client = plain_client(self.conf["endpoint_url"], OPERATOR, "secret")
        # With versions: keep, what rotation would have hidden may stay hidden by the attacker.
        for key in (key for made in self.made.values() for key in made.keys):
            for each in self.ledger.versions[key]:
                if each.by == ATTACKER and self.ledger.versions[key][-1].by == ATTACKER:
                    where = {"Bucket": self.conf["s3_bucket"], "Key": key}
                    client.delete_object(**where, VersionId=each.version_id)

    # What must be.

    def _policy(self) -> RotationPolicy:
        return RotationPolicy.choose(self.conf["rotation"])

    def _decided(self) -> set[int]:
        """Return the dates of what the rotation keeps, or that is on hold, with all it needs."""
        dates = list(self.made)
        decisions = decide(dates, self._policy(), int(time.time()))
        kept = {date for date, each in zip(dates, decisions, strict=True) if each.keep}
        return self._with_needs(kept | self.held.keys())

    def _with_needs(self, dates: Iterable[int]) -> set[int]:
        return {each for date in dates for each in (date, *self.made[date].needs)}

    def _on_hold(self) -> set[int]:
        """Return the dates of what is on hold on the storage, the archive or its index."""
        held = {key for key in self.ledger.versions if self.ledger.is_held(key)}
        return {date for date, each in self.made.items() if held & {*each.keys}}

    def _locked(self) -> set[int]:
        """Return the dates of what the storage would refuse to delete now."""
        now = time.time()
        return {
            date
            for date, made in self.made.items()
            for key in made.keys
            for each in self.ledger.versions[key]
            if each.by == self.ledger.host and each.is_locked(now)
        }

    def _first(self, key: str) -> Stored:
        """Return the version of *key* that its backup wrote."""
        found = self.ledger.of_host(key)
        assert found is not None
        return found

    def _versions(self, key: str) -> list[Stored]:
        """Return the version of *key* that its backup wrote, and a copy that brought it back."""
        first, latest = self._first(key), self.ledger.latest(key)
        return [first] if latest in (None, first) or latest.by == ATTACKER else [first, latest]

    def _wanted(self) -> dict[int, float]:
        """Return until when each backup is to be locked, by the rotation alone."""
        dates = list(self.made)
        rule = LockRule.of(self.course.object_lock)
        assert rule is not None
        return dict(
            zip(dates, locked_until(dates, rule, self._policy(), int(time.time())), strict=True)
        )

    def _note_locks(self) -> None:
        for date, until in self._wanted().items():
            for each in (date, *self.made[date].needs):
                made = self.made[each]
                made.locked_at_most = max(made.locked_at_most, until)

    def _catch_up(self) -> None:
        self.ledger.catch_up()
        assert self.ledger.wrong == []

    def _examine(self, restores: int = 0) -> None:
        """Compare the storage and the catalog with what must be there; restore so many."""
        self._catch_up()
        expected = {each.name for each in self.made.values()}
        assert self.ledger.keys() == {key for each in self.made.values() for key in each.keys}
        listed = {each.stored_filename: each for each in bakthat.ls(conf=self.conf)}
        assert listed.keys() == expected
        for made in self.made.values():
            known = listed[made.name].metadata["lock"]["until"]
            for key in made.keys:
                for each in self._versions(key):
                    assert known <= each.until, self.ledger.versions[key]
        for made in self.made.values():
            assert set(made.needs) <= self.made.keys()
        assert self._on_hold() == self._with_needs(self.held)
        for made in self.rng.sample(list(self.made.values()), restores):
            self._restore(made)

    def _restore(self, made: Made) -> None:
        out = self.home / "out"
        restored = bakthat.restore(made.name, conf=self.conf, output=out, password="")
        assert restored is not None
        assert restored.is_complete, restored.metadata
        assert fingerprint(out / SET) == made.state
        shutil.rmtree(out)
        self.figures["restores"] += 1
        self.figures["most archives"] = max(self.figures["most archives"], len(made.needs) + 1)

    def _examine_locks(self) -> None:
        """Each lock lasts as long as the rotation says, within a day, and as what needs it."""
        now = time.time()
        decided = decide(list(self.made), self._policy(), int(now))
        kept = {date for date, each in zip(self.made, decided, strict=True) if each.keep}
        wanted = self._wanted()
        for date, made in self.made.items():
            for each in (one for key in made.keys for one in self._versions(key)):
                if date in kept and wanted[date] > now:
                    assert each.until > max(now, wanted[date] - DAY), made.name
                assert each.until <= made.locked_at_most, made.name
                assert each.mode == self.course.object_lock["mode"].upper()
                for need in made.needs:
                    for needed in (
                        one for key in self.made[need].keys for one in self._versions(key)
                    ):
                        assert needed.until >= each.until or each.until <= now
                        assert needed.is_held or not each.is_held

    def _examine_versions(self) -> None:
        """Compare all versions of the bucket with the ledger, and with what must be there."""
        client = plain_client(self.conf["endpoint_url"], OPERATOR, "secret")
        pages = client.get_paginator("list_object_versions").paginate(Bucket=self.conf["s3_bucket"])
        found = [
            (each["Key"], each["VersionId"], kind == "DeleteMarkers")
            for page in pages
            for kind in ("Versions", "DeleteMarkers")
            for each in page.get(kind, ())
        ]
        assert sorted(found) == sorted(self.ledger.listed())
        keys = [key for each in self.made.values() for key in each.keys]
        if self.course.versions == "keep":
            assert {key for key, *_ in found} == {*keys, *self.gone}
        else:
            assert {key for key, *_ in found} == {*keys}
        for key, versions in self.ledger.versions.items():
            first, last = self._first(key), versions[-1]
            assert last.by == self.ledger.host or key in self.gone
            assert last.is_marker is (key in self.gone)
            others = [each for each in versions if each not in (first, last)]
            assert all(each.by == ATTACKER or each.is_copy for each in others)
            assert last is first or last.is_marker or last.is_copy
        for key, version_id, is_marker in found:
            if not is_marker:
                self._compare_lock(client, key, version_id)

    def _compare_lock(self, client: Any, key: str, version_id: str) -> None:
        head = client.head_object(Bucket=self.conf["s3_bucket"], Key=key, VersionId=version_id)
        (each,) = (x for x in self.ledger.versions[key] if x.version_id == version_id)
        until = head.get("ObjectLockRetainUntilDate")
        assert (until.timestamp() if until else 0) == each.until
        assert head.get("ObjectLockMode", "") == each.mode
        assert (head.get("ObjectLockLegalHoldStatus") == "ON") is each.is_held is False
