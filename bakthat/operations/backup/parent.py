"""Find the backup that an increment is made from, and decide when a full is made instead."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, TypedDict, Unpack

from bakthat import models
from bakthat.archive.create.increment.archive import Basis
from bakthat.archive.create.increment.rule import ChangeRule, memory_devices, racy_seconds
from bakthat.archive.index.state import State
from bakthat.archive.patterns import InvalidPatternError, PatternRules, parse_pattern
from bakthat.archive.report import PlanTotals
from bakthat.backends.ranges import ObjectRanges
from bakthat.conf import Profile
from bakthat.errors import (
    ArchiveError,
    ConfigError,
    ContainerNotFoundError,
    CredentialsError,
    CryptoError,
    NotFoundError,
    NotReadyError,
    StorageError,
    UsageError,
)
from bakthat.format.index.layout import NeededArchive
from bakthat.operations.sources.files import BackupSource
from bakthat.passwords import DecryptionKeys, EncryptionKeys
from bakthat.pipeline.ranges import plain_ranges
from bakthat.policy import settings
from bakthat.policy.intervals import parse_interval
from bakthat.policy.levels import (
    MAX_ARCHIVES,
    MAX_ARCHIVES_COLD,
    Link,
    level_of,
    parent_of,
    why_full_by_age,
    why_full_by_needs,
    why_full_by_share,
)
from bakthat.policy.newest import is_in_the_future
from bakthat.policy.rotation import RotationPolicy
from bakthat.policy.storage_classes import storage_class
from bakthat.session.chains import look_up_needed
from bakthat.session.indexes.home import home_of_index
from bakthat.session.indexes.opening import open_cached_state, open_state
from bakthat.session.reading import KeyFinder, expected_of
from bakthat.session.session import Session
from bakthat.session.sets import id_of_source, newest_first
from bakthat.system.text import from_native, printable

log = logging.getLogger("bakthat")

_MAX_TRIED = 3
"""How many of the newest backups are tried as the one to start from, if their indexes are lost."""
FIRST = "it is the first of its set"
ASKED_FOR = "it was asked for"


class IncrementKeywords(TypedDict, total=False):
    """What :func:`bakthat.backup` takes for increments; None means as the profile says."""

    incremental: bool | None
    full_every: str | None
    max_archives: int | None
    detect: str | None
    ignore_inode: bool | None
    always_read: Sequence[str] | None
    recheck: int | None
    skip_unchanged: bool | None


@dataclass(frozen=True, slots=True)
class IncrementSettings:
    """How increments are made: the keys of the profile, and what was given instead."""

    incremental: bool
    full_every: int | None
    """Seconds; None for no limit."""
    max_archives: int
    detect: str
    ignore_inode: bool
    always_read: PatternRules | None
    recheck: int
    skip_unchanged: bool

    @classmethod
    def choose(
        cls, profile: Profile, destination: str, **given: Unpack[IncrementKeywords]
    ) -> IncrementSettings:
        """Return what is *given*, and the values of *profile* for the rest. Raises UsageError."""
        values: dict[str, Any] = {
            name: getattr(profile, name) for name in IncrementKeywords.__annotations__
        }
        for name, value in given.items():
            if value is None:
                continue
            value = [value] if name == "always_read" and isinstance(value, str) else value
            value = list(value) if isinstance(value, (list, tuple)) else value
            problem = _CHECKS[name](value)
            if problem is not None:
                raise UsageError(f"'{name}' {problem.text}", hint=problem.hint)
            values[name] = value
        every = values["full_every"]
        is_cold = destination == "glacier" or storage_class(profile.storage_class or "").is_cold
        return cls(
            values["incremental"],
            parse_interval(every) if every is not None else None,
            values["max_archives"] or (MAX_ARCHIVES_COLD if is_cold else MAX_ARCHIVES),
            values["detect"],
            values["ignore_inode"],
            _rules(values["always_read"]),
            values["recheck"],
            values["skip_unchanged"],
        )

    def rule(self, run: int) -> ChangeRule:
        """Return the rule of change of the run with this number."""
        return ChangeRule(
            self.detect,
            self.ignore_inode,
            self.always_read,
            self.recheck,
            run,
            racy_seconds(),
            memory_devices(),
        )


_CHECKS: Mapping[str, settings.Check] = {
    "incremental": settings.boolean,
    "full_every": settings.interval,
    "max_archives": settings.archives,
    "detect": settings.detect,
    "ignore_inode": settings.boolean,
    "always_read": settings.texts,
    "recheck": settings.percent,
    "skip_unchanged": settings.boolean,
}


def _rules(patterns: Sequence[str]) -> PatternRules | None:
    try:
        parsed = [parse_pattern(each.encode("utf-8", "surrogateescape")) for each in patterns]
    except InvalidPatternError as exc:
        raise UsageError(
            f"'always_read' has a pattern that {exc}",
            hint="put a backslash before a character that is meant literally",
        ) from exc
    return PatternRules(parsed) if parsed else None


@dataclass(frozen=True, slots=True)
class Parent:
    """The backup that an increment is made from, with all that it needs."""

    backups: tuple[models.Backups, ...]
    """The full first, the parent last."""
    needs: tuple[NeededArchive, ...]
    """The same, as the index names them."""
    level: int
    """That of the new backup."""
    basis: Basis
    newest: models.Backups
    """The newest backup of the set; the parent, unless the levels pass over some."""
    newest_needs: tuple[NeededArchive, ...]
    """The newest backup's archives, its own the last."""
    earliest_date: int
    """The first second that the new backup may be dated: its parent must be earlier."""

    @property
    def is_newest(self) -> bool:
        """Whether the parent is the newest backup."""
        return self.basis.newest is None

    def why_full(self, totals: PlanTotals) -> str:
        """Return why a full is made, by what a comparison found; "" if an increment is.

        What cannot be read now would not be in a full, so no size is a reason for one then.
        """
        if not totals.full_directories:
            return "a single file is stored whole"
        if totals.kept:
            return ""
        needed = sum(each.footer.tar_bytes for each in self.basis.state.indexes)
        return why_full_by_share(totals.tar_bytes, totals.full_tar_bytes) or why_full_by_needs(
            needed + totals.tar_bytes, totals.full_tar_bytes
        )

    def problem(self, session: Session) -> str:
        """Return what is wrong with an archive that is needed, by looking it up; "" for nothing.

        Raises StorageError.
        """
        return _problem(session, self.backups[-1], self.needs)

    def problem_of_newest(self, session: Session) -> str:
        """Return what is wrong with an archive of the newest backup; "" for nothing.

        Raises StorageError.
        """
        return _problem(session, self.newest, self.newest_needs)

    def key_problem(self, session: Session, keys: EncryptionKeys) -> str:
        """Return why *keys* would not open all that is needed; "" if they would.

        All archives of a restore must have the same passphrase, or the same recipients. Those that
        the parent needs have those of the parent. Raises StorageError.
        """
        return _key_problem(session, self.backups[-1], self.basis.state, keys)

    def key_problem_of_newest(self, session: Session, keys: EncryptionKeys) -> str:
        """Return why *keys* would not open the newest backup; "" if they would.

        Raises StorageError.
        """
        return _key_problem(session, self.newest, self.basis.newest or self.basis.state, keys)


def _key_problem(
    session: Session, backup: models.Backups, state: State, keys: EncryptionKeys
) -> str:
    if backup.metadata.get("encryption") != keys.kind:
        return "the encryption has changed"
    # An index that was made again from its archive does not say who the recipients are.
    if state.header.recipients != keys.recipients_id:
        return "the recipients have changed"
    if keys.passphrase is not None:
        return _passphrase_problem(session, backup, keys.passphrase)
    return ""


def _problem(session: Session, backup: models.Backups, needs: Sequence[NeededArchive]) -> str:
    for found in look_up_needed(session, backup, needs):
        if found.problem:
            return f"{printable(found.backup.stored_filename)} {found.problem}"
    return ""


def _passphrase_problem(session: Session, backup: models.Backups, passphrase: str) -> str:
    """Return why *passphrase* may not open a backup; "" if it does, or if that cannot be told now.

    Its index tells, or else its archive. Raises StorageError.
    """
    backend = session.backend(backup.backend)
    home, index = home_of_index(session, backend, backup.stored_filename)
    expected = expected_of(backup, any_size=True)
    try:
        for place, key in ((home, index), (backend, backup.stored_filename)):
            try:
                stored = ObjectRanges(place, key, place.stat(key).size)
                plain_ranges(stored, expected, DecryptionKeys(passphrase))
            except (NotFoundError, ContainerNotFoundError):
                continue
            return ""
    except CryptoError:  # another passphrase, or what is stored is damaged: a full is safe
        return "the passphrase has changed"
    except CredentialsError as exc:
        if home is backend:
            return (
                "nothing tells whether the passphrase has changed, as the access key may not read "
                f"(recipients need no look): {exc}"
            )
        log.debug("the passphrase of %s is not checked: %s", printable(key), exc)
        return ""
    except NotReadyError as exc:
        if key == index:  # by a rule of the bucket, so it would be so each time
            log.debug("the passphrase of %s is not checked: %s", printable(key), exc)
            return ""
    except StorageError as exc:
        if home is backend:
            raise
        # A vault's archive may be stored all the same, with a warning about its index.
        log.debug("the passphrase of %s is not checked: %s", printable(key), exc)
        return ""
    return "its index is gone, so that nothing tells whether the passphrase has changed"


class NoParentError(Exception):
    """There is no backup to make an increment from; the text says why."""


@contextmanager
def find_parent(
    session: Session,
    source: BackupSource,
    keys: EncryptionKeys,
    increments: IncrementSettings,
    *,
    from_newest: bool = False,
    now: int | None = None,
) -> Iterator[Parent]:
    """Yield the backup to make an increment from; its indexes are open meanwhile.

    With *from_newest*, it is the newest one whatever its level. *now* is in epoch seconds UTC.
    Raises NoParentError when a full must be made, and CatalogError.
    """
    now = int(time.time()) if now is None else now
    rows = _backups_of(session, source)
    candidates = [
        each
        for each in newest_first(rows)
        if not is_in_the_future(each.date, now) and not each.has_unknown_format
    ]
    if not candidates:
        raise NoParentError("all backups of its set are dated in the future" if rows else FIRST)
    problems: list[str] = []
    with ExitStack() as stack:
        for newest in candidates[:_MAX_TRIED]:
            state = _open(stack, session, newest, keys, problems)
            if state is None:
                continue
            problem = _why_unusable(state, source)
            if problem:
                problems.append(f"{printable(newest.stored_filename)} {problem}")
                continue
            break
        else:
            raise NoParentError(problems[0])
        chain = _chain_of(newest, state, rows)
        if chain is None:
            raise NoParentError(
                f"{printable(newest.stored_filename)} needs backups that are not listed"
            )
        date = max(now, newest.date + 1)
        policy = _policy(session)
        level = level_of(date, [each.date for each in rows], policy)
        links = [Link(each.date, each.level) for each in chain]
        position = (
            len(chain) - 1 if from_newest else parent_of(links, level, increments.max_archives)
        )
        if position is None or position + 2 > max(increments.max_archives, 2):
            raise NoParentError(
                f"a restore would read more than {increments.max_archives} archives"
            )
        due = why_full_by_age(date, chain[0].date, increments.full_every)
        if due:
            raise NoParentError(due)
        rule = increments.rule(_number_of_run(session, source) if increments.recheck else 0)
        state_of_parent = (
            state if position == len(chain) - 1 else State(state.indexes[: position + 1])
        )
        yield Parent(
            tuple(chain[: position + 1]),
            _as_needed(chain, state)[: position + 1],
            level,
            Basis(state_of_parent, rule, state if state_of_parent is not state else None),
            newest,
            _as_needed(chain, state),
            newest.date + 1,
        )


def _backups_of(session: Session, source: BackupSource) -> list[models.Backups]:
    """Return the backups of the set that *source* belongs to."""
    with models.catalog(session.catalog):
        rows = models.Backups.of_set(
            source.set_name, session.containers(session.destination), host=session.host
        )
    return [
        each for each in rows if not each.is_key_value and id_of_source(each) == source.source_id
    ]


def count_run(session: Session, source: BackupSource) -> None:
    """Record that the files whose turn it was were read, so that others follow."""
    run = _number_of_run(session, source) + 1
    with models.catalog(session.catalog, write=True):
        models.put(models.Config, key=_run_key(session, source), value={"run": run})


def _number_of_run(session: Session, source: BackupSource) -> int:
    """Return how many runs of its set read unchanged files too."""
    config: Any = models.Config
    with models.catalog(session.catalog):
        row = config.get_or_none(config.key == _run_key(session, source))
    found = row.value.get("run") if row is not None else None
    return found if isinstance(found, int) else 0


def _run_key(session: Session, source: BackupSource) -> str:
    """Return the name of the count: each destination has its own turns."""
    container = models.backend_hash(session.backend(session.destination).identity)
    return f"recheck {session.host} {source.set_name} {source.source_id} {container}"


def _open(
    stack: ExitStack,
    session: Session,
    backup: models.Backups,
    keys: EncryptionKeys,
    problems: list[str],
) -> State | None:
    """Open the state of a backup; None, with the problem added to *problems*, if that fails."""
    name = printable(backup.stored_filename)
    try:
        state = stack.enter_context(open_cached_state(session, backup))
        if state is not None:
            return state
        finder = KeyFinder(session, keys.passphrase, prompt=False)
        state = stack.enter_context(
            open_state(session, backup, finder, whole=True, may_read_archive=False, is_quiet=True)
        )
    except (CryptoError, ConfigError) as exc:
        problems.append(
            f"the index of {name} is not in the cache of this machine, and cannot be decrypted "
            f"here: {exc}"
        )
        return None
    except (NotFoundError, ArchiveError, StorageError) as exc:
        problems.append(f"the index of {name} cannot be used: {exc}")
        return None
    if state is None:
        problems.append(f"{name} has no index (bakthat sync --indexes makes one)")
    return state


def _why_unusable(state: State, source: BackupSource) -> str:
    """Return why a backup cannot be one to make an increment from; "" if it can."""
    if not all(each.header.is_sorted and each.header.kind == "archive" for each in state.indexes):
        return "is no archive of this version"
    if state.top != from_native(source.arcname):
        return "has another directory at its top"
    return ""


def _chain_of(
    newest: models.Backups, state: State, rows: Sequence[models.Backups]
) -> list[models.Backups] | None:
    """Return the backups that *newest* needs and itself, the full first; None if one is missing."""
    known = {each.stored_filename: each for each in rows}
    chain = [known.get(each.header.key) for each in state.indexes]
    found = [each for each in chain if each is not None]
    return found if len(found) == len(chain) else None


def _as_needed(chain: Sequence[models.Backups], state: State) -> tuple[NeededArchive, ...]:
    return tuple(
        NeededArchive(each.stored_filename, each.date, each.size, index.header.archive_id)
        for each, index in zip(chain, state.indexes, strict=True)
    )


def _policy(session: Session) -> RotationPolicy | None:
    """Return the rotation of the profile; None if it has none, or one that is not valid."""
    if not session.profile.rotation:
        return None
    try:
        return RotationPolicy.choose(session.profile.rotation)
    except (ConfigError, UsageError) as exc:
        log.debug("the rotation of the profile gives no levels: %s", exc)
        return None
