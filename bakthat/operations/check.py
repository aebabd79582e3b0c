"""Check that the listed backups are stored and, on request, that they can be read to their end.

Nothing is written, deleted or thawed. A damaged backup does not stop the check of the others.
"""

from __future__ import annotations

import enum
import logging
import random
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bakthat import models
from bakthat.backends.base import Backend, StoredObject
from bakthat.conf import DEFAULT_PROFILE
from bakthat.errors import (
    BakthatError,
    ConfigError,
    KeyFormatError,
    NoMatchError,
    NotFoundError,
    PasswordError,
    StorageError,
    UsageError,
    WrongKeyError,
)
from bakthat.passwords import may_ask
from bakthat.pipeline import read
from bakthat.policy.storage_classes import VAULT, storage_class
from bakthat.session import cold
from bakthat.session.container import recognize_moved
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


class Verdict(enum.StrEnum):
    """The finding about one backup."""

    STORED = "stored"
    """It is stored with its size; its data was not read."""
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


_GOOD = (Verdict.STORED, Verdict.READ, Verdict.COLD)


@dataclass(frozen=True, slots=True)
class CheckResult:
    """A backup and the finding about it."""

    backup: models.Backups
    verdict: Verdict
    detail: str = ""
    """One line about the problem."""

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
    sample: int | None = None,
    password: str | None = None,
    identity_file: PathLike | None = None,
    prompt: str | bool = "yes",
    progress: Progress | None = None,
) -> list[CheckResult]:
    """Check that the backups in the catalog are stored; return one result for each backup.

    By default all backups of the profile's containers are checked. *destination* restricts the
    check to one container, and *host* to one host. *filename* restricts it to a backup by its
    stored filename, to a set by its name, or to the backups whose stored filename begins with it.
    *sample* is a number of backups to pick at random.

    By default existence and size are checked. With *read_data*, each backup is downloaded,
    decrypted, decompressed and read to the end of its archive; nothing is written. *password*,
    *identity_file* and *prompt* are as for :func:`bakthat.restore`; a password is asked for once.
    A backup in cold storage is not thawed, and is read only if it is thawed already. *progress* is
    called with the bytes read and the bytes of the stored backups, or without *read_data* with the
    numbers of backups.

    A problem with a backup is in its result, and is not raised. Raises NoMatchError, also when
    there is no backup to check, UsageError, ConfigError.
    """
    if sample is not None and (isinstance(sample, bool) or sample < 1):
        raise UsageError(f"a sample must be a whole number from 1 on, not {sample!r}")
    session = Session(profile, config, conf, destination)
    with operation(session, "check", deferred=True):
        backups = _select(session, filename, host)
        if sample is not None and sample < len(backups):
            picked = {each.stored_filename for each in random.sample(backups, sample)}
            backups = [each for each in backups if each.stored_filename in picked]
        found = _stat_all(session, backups, None if read_data else progress)
        if read_data:
            keys = KeyFinder(session, password, identity_file, may_ask(prompt))
            found = list(_read_all(session, found, keys, progress))
        if not found:
            raise NoMatchError(
                f"nothing to check: {_description_of_none(session, host)}",
                hint="bakthat sync lists what is stored",
            )
    good = sum(each.is_good for each in found)
    result_log.info("Checked %d backups: %d good, %d wrong", len(found), good, len(found) - good)
    return found


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
    session: Session, found: Sequence[CheckResult], keys: KeyFinder, progress: Progress | None
) -> Iterator[CheckResult]:
    total = sum(max(each.backup.size, 0) for each in found if each.is_good)
    count = byte_counter(progress, total)
    for each in found:
        if not each.is_good:
            yield each
            continue
        log.info("Reading %s", printable(each.backup.stored_filename))
        checked = _read(session, each, keys, count)
        if not checked.is_good:
            log.warning("%s: %s", printable(each.backup.stored_filename), checked.detail)
        yield checked


def _read(
    session: Session, stored: CheckResult, keys: KeyFinder, count: ByteCounter
) -> CheckResult:
    backup = stored.backup
    try:
        backend = session.backend(backup.backend)
        if stored.verdict is Verdict.COLD:
            state = cold.thaw_status(session, backup)
            if not state.is_readable:
                return CheckResult(backup, Verdict.COLD, cold.describe(state))
        refresh_entry(session, backup)
        expected = expected_of(backup, any_size=True)
        backup_keys = keys.of(backend, backup, expected)
        read.verify_object(
            backend.download(backup.stored_filename),
            expected,
            keys=backup_keys,
            on_bytes=count,
        )
    except (PasswordError, WrongKeyError, KeyFormatError, ConfigError) as exc:
        return CheckResult(backup, Verdict.NO_KEY, str(exc))
    except NotFoundError as exc:
        return CheckResult(backup, Verdict.MISSING, str(exc))
    except (StorageError, UsageError) as exc:
        return CheckResult(backup, Verdict.UNKNOWN, str(exc))
    except BakthatError as exc:
        return CheckResult(backup, Verdict.DAMAGED, str(exc))
    return CheckResult(backup, Verdict.READ)
