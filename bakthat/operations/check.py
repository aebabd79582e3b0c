"""Check that the listed backups are stored and, on request, that they can be read to their end.

Nothing is written, deleted or thawed. A damaged backup does not stop the check of the others.
"""

from __future__ import annotations

import enum
import logging
import random
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

from bakthat import models
from bakthat.archive.index.reader import IndexReader
from bakthat.backends.base import Backend, StoredObject
from bakthat.backends.ranges import ObjectRanges
from bakthat.conf import DEFAULT_PROFILE
from bakthat.errors import (
    AgeFormatError,
    BakthatError,
    ConfigError,
    ContainerNotFoundError,
    CorruptIndexError,
    DecryptionError,
    KeyFormatError,
    NoMatchError,
    NotFoundError,
    NotReadyError,
    PasswordError,
    StorageError,
    UsageError,
    WrongKeyError,
)
from bakthat.format.description import INDEX, sanitized
from bakthat.format.entry import Entry
from bakthat.format.names import index_key
from bakthat.passwords import may_ask
from bakthat.pipeline import read
from bakthat.pipeline.sample import verify_share
from bakthat.policy.storage_classes import VAULT, storage_class
from bakthat.session import cold
from bakthat.session.container import recognize_moved
from bakthat.session.indexes.home import home_of_indexes
from bakthat.session.indexes.opening import check_stored_index, open_index
from bakthat.session.lookup import find_backups
from bakthat.session.reading import KeyFinder, byte_counter, expected_of, refresh_entry
from bakthat.session.session import Session, operation, result_log
from bakthat.session.sets import newest_first
from bakthat.session.stat import batches, stat_by_listing, workers
from bakthat.system.paths import PathLike
from bakthat.system.streams import ByteCounter, Progress
from bakthat.system.text import printable

log = logging.getLogger("bakthat")

MAX_SINGLE_REQUESTS = 20
"""The most backups that are looked up one by one; for more, the container is listed."""


_MOST_NAMED = 20
"""The most files that are named when they differ."""
_REMEDY = "bakthat sync --indexes makes it again"
_NO_INDEX = f"its index is missing; {_REMEDY}"
_WRONG_INDEX = f"its index says that it is that of another archive; {_REMEDY}"
_BAD_INDEX = f"its index cannot be used; {_REMEDY}"


class Verdict(enum.StrEnum):
    """The finding about one backup."""

    STORED = "stored"
    """It is stored with its size; its data was not read."""
    SAMPLED = "sampled"
    """A share of it was read, and every checksum in that is right."""
    READ = "read"
    """It was read to its end, and every checksum in it is right."""
    COLD = "cold"
    """It is stored, and must be thawed before it can be read."""
    MISSING = "missing"
    """It is not stored."""
    WRONG_SIZE = "wrong size"
    """It is stored with another size: it was replaced or truncated."""
    DAMAGED = "damaged"
    """Its data differs from the data that was stored."""
    NO_KEY = "no key"
    """None of the given passwords and private keys opens it."""
    UNKNOWN = "unknown"
    """The storage could not be reached or read."""


_GOOD = (Verdict.STORED, Verdict.SAMPLED, Verdict.READ, Verdict.COLD)


@dataclass(frozen=True, slots=True)
class CheckResult:
    """A backup and the finding about it."""

    backup: models.Backups
    verdict: Verdict
    detail: str = ""
    """One line about the problem, or about the part that was read."""
    index_problem: str = ""
    """One line about an index that should be there and is not; the backup can be restored all the
    same."""

    @property
    def is_good(self) -> bool:
        """Whether the check found no problem. A cold backup was only looked up."""
        return self.verdict in _GOOD

    def as_dict(self) -> dict[str, Any]:
        """Return the entry's columns and the finding."""
        return {
            **self.backup.as_dict(),
            "good": self.is_good,
            "verdict": self.verdict.value,
            "detail": self.detail,
            "index_problem": self.index_problem,
        }


def check(
    filename: str = "",
    destination: str | None = None,
    profile: str = DEFAULT_PROFILE,
    config: PathLike | None = None,
    *,
    conf: Mapping[str, Any] | None = None,
    host: str | None = None,
    read_data: bool = False,
    sample: int | str | None = None,
    password: str | None = None,
    identity_file: PathLike | None = None,
    prompt: str | bool = "yes",
    progress: Progress | None = None,
) -> list[CheckResult]:
    """Check that the backups in the catalog are stored; return one result for each backup.

    By default all backups of the profile's containers are checked. *destination* restricts the
    check to one container, and *host* to one host. *filename* restricts it to a backup by its
    stored filename, to a set by its name, or to the backups whose stored filename begins with it.
    *sample* is a number of backups to pick at random, or text such as ``5%``: that share of the
    data of each backup is read, from a random place on, so that each check reads another part.

    By default existence and size are checked, and whether the index is there. With *read_data*,
    each backup is downloaded, decrypted, decompressed and read to the end of its archive; nothing
    is written. Each file is compared with the SHA-256 in the index, and the files that differ are
    named. *password*, *identity_file* and *prompt* are as for :func:`bakthat.restore`; a password
    is asked for once. A backup in cold storage is not thawed, and is read only if it is thawed
    already. *progress* is called with the bytes read and the bytes to read, or where nothing is
    read with the numbers of backups.

    A problem with a backup is in its result, and is not raised. Raises NoMatchError, also when
    there is no backup to check, UsageError, ConfigError.
    """
    number, share = _parse_sample(sample)
    session = Session(profile, config, conf, destination)
    with operation(session, "check", deferred=True):
        backups = _select(session, filename, host)
        if number is not None and number < len(backups):
            picked = {each.stored_filename for each in random.sample(backups, number)}
            backups = [each for each in backups if each.stored_filename in picked]
        is_read = read_data or share is not None
        found = _stat_all(session, backups, None if is_read else progress)
        found = list(_with_index_problems(session, found))
        if is_read:
            keys = KeyFinder(session, password, identity_file, may_ask(prompt))
            found = list(_read_all(session, found, keys, 1.0 if read_data else share, progress))
        if not found:
            raise NoMatchError(
                f"nothing to check: {_description_of_none(session, host)}",
                hint="bakthat sync lists what is stored",
            )
    good = sum(each.is_good for each in found)
    result_log.info("Checked %d backups: %d good, %d wrong", len(found), good, len(found) - good)
    return found


def _parse_sample(sample: int | str | None) -> tuple[int | None, float | None]:
    """Return the number of backups, and the share of their data. Raises UsageError."""
    if isinstance(sample, str) and re.fullmatch(r"\d{1,3}(\.\d+)?%", sample):
        share = float(sample[:-1]) / 100
        if 0 < share <= 1:
            return None, share
    elif isinstance(sample, str) and sample.isdecimal():
        return _parse_sample(int(sample))
    elif sample is None or (isinstance(sample, int) and sample is not True and sample >= 1):
        return sample, None
    raise UsageError(
        f"invalid sample {sample!r}",
        hint="give a number of backups from 1 on, or a share of their data such as 5%",
    )


def _select(session: Session, filename: str, host: str | None) -> list[models.Backups]:
    if filename:
        return find_backups(session, filename, host=host)
    named = [session.named_destination] if session.named_destination else []
    recognize_moved(session)
    with models.catalog(session.catalog_path):
        found = models.Backups.search("", session.containers(*named))
    return newest_first(each for each in found if host is None or each.host == host)


def _description_of_none(session: Session, host: str | None) -> str:
    of_host = "" if host is None else f" of {printable(host)}"
    where = session.named_destination or "the profile's containers"
    return f"the catalog {printable(session.catalog_path)} has no backup{of_host} in {where}"


# Existence and size


def _stat_all(
    session: Session, backups: Sequence[models.Backups], progress: Progress | None
) -> list[CheckResult]:
    verdicts: dict[str, CheckResult] = {}
    for destination in dict.fromkeys(each.backend for each in backups):
        of_it = [each for each in backups if each.backend == destination]
        for checked in _stat_in(session, destination, of_it):
            verdicts[checked.backup.stored_filename] = checked
            if progress is not None:
                progress(len(verdicts), len(backups))
    listed = _still_listed(session, verdicts.values())
    return [verdicts[each.stored_filename] for each in backups if each.stored_filename in listed]


def _stat_in(
    session: Session, destination: str, backups: Sequence[models.Backups]
) -> Iterator[CheckResult]:
    try:
        backend = session.backend(destination)
        listed: dict[str, StoredObject] = {}
        if len(backups) > MAX_SINGLE_REQUESTS:
            listed = stat_by_listing(backend, [each.stored_filename for each in backups])
    except (StorageError, ConfigError) as exc:
        yield from (CheckResult(each, Verdict.UNKNOWN, str(exc)) for each in backups)
        return
    with workers() as pool:
        for batch in batches(backups):
            yield from pool.map(
                lambda each: _stat(backend, each, listed.get(each.stored_filename)), batch
            )


def _stat(backend: Backend, backup: models.Backups, stored: StoredObject | None) -> CheckResult:
    """Compare an entry with its object; *stored* None means that it must be requested."""
    try:
        stored = backend.stat(backup.stored_filename) if stored is None else stored
    except NotFoundError as exc:
        return CheckResult(backup, Verdict.MISSING, str(exc))
    except (StorageError, UsageError) as exc:
        return CheckResult(backup, Verdict.UNKNOWN, str(exc))
    # Another machine may have replaced a value without this catalog.
    may_change = backup.is_key_value and "format" in backup.metadata
    if stored.size != backup.size and not may_change and -1 not in (stored.size, backup.size):
        detail = f"{stored.size} bytes on the storage, {backup.size} in the catalog"
        return CheckResult(backup, Verdict.WRONG_SIZE, detail)
    if storage_class(stored.storage_class).is_cold:
        where = "a vault" if stored.storage_class == VAULT else stored.storage_class
        return CheckResult(backup, Verdict.COLD, f"in {where}")
    return CheckResult(backup, Verdict.STORED)


def _with_index_problems(session: Session, found: Sequence[CheckResult]) -> Iterator[CheckResult]:
    """Yield the results, with the problem of an index that should be stored and is not."""
    expected = [each.backup for each in found if each.is_good and _should_have_index(each.backup)]
    problems: dict[str, str] = {}
    for destination in dict.fromkeys(each.backend for each in expected):
        backups = [each for each in expected if each.backend == destination]
        try:
            problems |= _index_problems(session, session.backend(destination), backups)
        except (StorageError, ConfigError) as exc:
            log.warning("the indexes on %s cannot be looked up: %s", destination, exc)
    for each in found:
        problem = problems.get(each.backup.stored_filename, "")
        yield replace(each, index_problem=problem) if problem else each


def _index_problems(
    session: Session, backend: Backend, backups: Sequence[models.Backups]
) -> dict[str, str]:
    """Return the problem of each index that is missing, or is that of another archive."""
    home, within = home_of_indexes(session, backend)
    if len(backups) > MAX_SINGLE_REQUESTS:
        # A listing tells those whose size is known; another size may have a reason.
        prefix = within + session.shared_prefix
        try:
            sizes = {each.key: each.size for each in home.ls(prefix, indexes=True)}
        except ContainerNotFoundError:
            sizes = {}
        backups = [
            each
            for each in backups
            if sizes.get(index_key(within + each.stored_filename), -1)
            != each.metadata.get("index_size")
        ]
    with workers() as pool:
        problems = pool.map(lambda each: _index_problem(home, within, each), backups)
        return {
            each.stored_filename: problem
            for each, problem in zip(backups, problems, strict=True)
            if problem
        }


def _index_problem(home: Backend, within: str, backup: models.Backups) -> str:
    """Return what is wrong with an index by its self-description; "" if it seems right."""
    try:
        stored = home.stat(index_key(within + backup.stored_filename))
    except (NotFoundError, ContainerNotFoundError):
        return _NO_INDEX
    except UsageError as exc:
        return f"it can have no index: {exc}"
    description = sanitized(stored.metadata)
    right = {"kind": INDEX, "date": backup.backup_date}
    if backup.size >= 0:
        right["stored"] = backup.size
    is_another = any(description.get(key, value) != value for key, value in right.items())
    return _WRONG_INDEX if is_another else ""


def _still_listed(session: Session, checked: Iterable[CheckResult]) -> set[str]:
    """Return the stored filenames, without backups deleted since the catalog was read."""
    names = {each.backup.stored_filename for each in checked}
    missing = {each.backup.stored_filename for each in checked if each.verdict is Verdict.MISSING}
    if not missing:
        return names
    with models.catalog(session.catalog_path):
        listed = {row.stored_filename for row in models.Backups.not_deleted(session.containers())}
    return names - (missing - listed)


# Data


def _read_all(
    session: Session,
    found: Sequence[CheckResult],
    keys: KeyFinder,
    share: float | None,
    progress: Progress | None,
) -> Iterator[CheckResult]:
    total = sum(max(each.backup.size, 0) for each in found if each.is_good)
    count = byte_counter(progress, round(total * (share or 1)))
    for each in found:
        if not each.is_good:
            yield each
            continue
        log.info("Reading %s", printable(each.backup.stored_filename))
        checked = _read(session, each, keys, share or 1, count)
        if not checked.is_good:
            log.warning("%s: %s", printable(each.backup.stored_filename), checked.detail)
        yield checked


def _read(
    session: Session, stored: CheckResult, keys: KeyFinder, share: float, count: ByteCounter
) -> CheckResult:
    backup = stored.backup
    try:
        backend = session.backend(backup.backend)
        if stored.verdict is Verdict.COLD:
            state = cold.thaw_status(session, backup)
            if not state.is_readable:
                return replace(stored, detail=cold.describe(state))
        refresh_entry(session, backup)
        expected = expected_of(backup, any_size=True)
        backup_keys = keys.of(backend, backup, expected)
        differences = _Differences()
        if share == 1:
            stored = _with_index_read(session, stored, keys)
        with _usable_index(session, stored, keys) as index:
            if index is None and _should_have_index(backup):
                stored = replace(stored, index_problem=stored.index_problem or _BAD_INDEX)
            if share < 1 and not _has_parts(index, expected):
                detail = "without an index, no part of it can be read alone"
                return replace(stored, verdict=Verdict.STORED, detail=detail)
            if share < 1 and index is not None:
                verify_share(
                    ObjectRanges(backend, backup.stored_filename, backup.size),
                    expected,
                    index=index,
                    share=share,
                    keys=backup_keys,
                    file_keys=keys.file_keys,
                    on_bytes=count,
                    on_difference=differences.add,
                )
            else:
                read.verify_object(
                    backend.download(backup.stored_filename),
                    expected,
                    keys=backup_keys,
                    on_bytes=count,
                    index=index,
                    on_difference=differences.add,
                    file_keys=keys.file_keys,
                )
    except (PasswordError, WrongKeyError, KeyFormatError, ConfigError) as exc:
        return replace(stored, verdict=Verdict.NO_KEY, detail=str(exc))
    except NotFoundError as exc:
        return replace(stored, verdict=Verdict.MISSING, detail=str(exc))
    except CorruptIndexError as exc:
        problem = stored.index_problem or _BAD_INDEX
        return replace(stored, verdict=Verdict.STORED, detail=str(exc), index_problem=problem)
    except (StorageError, UsageError) as exc:
        return replace(stored, verdict=Verdict.UNKNOWN, detail=str(exc))
    except BakthatError as exc:
        return replace(stored, verdict=Verdict.DAMAGED, detail=str(exc))
    if differences.count:
        return replace(stored, verdict=Verdict.DAMAGED, detail=differences.describe())
    if share < 1:
        return replace(
            stored, verdict=Verdict.SAMPLED, detail=f"{share * 100:.3g} % of it was read"
        )
    return replace(stored, verdict=Verdict.READ, detail="")


def _with_index_read(session: Session, stored: CheckResult, keys: KeyFinder) -> CheckResult:
    """Return *stored* with the problem of its index, which is read to its end as it is stored.

    Raises StorageError, WrongKeyError.
    """
    if stored.index_problem or not _should_have_index(stored.backup):
        return stored
    try:
        check_stored_index(session, stored.backup, keys)
    except (NotFoundError, ContainerNotFoundError):
        return replace(stored, index_problem=_NO_INDEX)
    except (CorruptIndexError, DecryptionError, AgeFormatError) as exc:
        log.warning("the index of %s: %s", printable(stored.backup.stored_filename), exc)
        return replace(stored, index_problem=_BAD_INDEX)
    except NotReadyError as exc:
        log.warning("the index of %s: %s", printable(stored.backup.stored_filename), exc)
    return stored


@contextmanager
def _usable_index(
    session: Session, stored: CheckResult, keys: KeyFinder
) -> Iterator[IndexReader | None]:
    """Open the index of a backup; yield None for one that has none, or a bad one."""
    if stored.index_problem and stored.index_problem != _NO_INDEX:
        yield None
        return
    with open_index(
        session, stored.backup, keys, whole=True, may_read_archive=False, is_quiet=True
    ) as index:
        yield index


def _should_have_index(backup: models.Backups) -> bool:
    """Return whether an index was stored with a backup, or later by sync."""
    return "index" in backup.metadata or "index_size" in backup.metadata


class _Differences:
    """The files that have another SHA-256 than their index says: some of them, and how many."""

    def __init__(self) -> None:
        self.count = 0
        self._paths: list[str] = []

    def add(self, entry: Entry) -> None:
        self.count += 1
        if len(self._paths) < _MOST_NAMED:
            self._paths.append(printable(entry.path))

    def describe(self) -> str:
        more = f" and {self.count - len(self._paths)} more" if self.count > _MOST_NAMED else ""
        one = self.count == 1
        files = "1 file differs" if one else f"{self.count} files differ"
        return f"{files} from the SHA-256 in the index: {', '.join(self._paths)}{more}"


def _has_parts(index: IndexReader | None, expected: read.Expected) -> bool:
    """Return whether a part of a backup can be read alone."""
    if index is None or (expected.encrypted and expected.is_legacy):
        return False
    return not expected.compressed or index.members() is not None
