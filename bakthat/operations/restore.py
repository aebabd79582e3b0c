"""Restore a backup into a directory."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bakthat import models
from bakthat.archive.extract.selection import Selection
from bakthat.archive.report import ArchiveReport
from bakthat.backends.base import StoredObject, ThawStatus
from bakthat.conf import DEFAULT_PROFILE
from bakthat.errors import CorruptArchiveError, NotFoundError, UsageError
from bakthat.passwords import may_ask
from bakthat.pipeline import read
from bakthat.policy.storage_classes import DEFAULT_DAYS, STANDARD, storage_class
from bakthat.session import cold
from bakthat.session.reading import byte_counter, expected_of, find_keys, find_to_restore
from bakthat.session.session import Session, operation, result_log
from bakthat.system.paths import PathLike, expanded
from bakthat.system.streams import Progress
from bakthat.system.text import counted, human_size, printable

log = logging.getLogger("bakthat")


@dataclass(frozen=True, slots=True)
class RestoreOptions:
    """The options of a restore."""

    target: Path
    password: str | None
    identity_file: PathLike | None
    prompt: bool
    thaw: cold.ThawOptions
    any_size: bool
    """Whether the unpacked size is unlimited."""
    selection: Selection | None
    """The wanted members of an archive; None for all."""
    keep_going: bool
    """Whether members that the file system cannot hold are left out."""
    progress: Progress | None


def restore(
    filename: str,
    destination: str | None = None,
    profile: str = DEFAULT_PROFILE,
    config: PathLike | None = None,
    *,
    conf: Mapping[str, Any] | None = None,
    password: str | None = None,
    output: PathLike | None = None,
    job_check: bool = False,
    host: str | None = None,
    source: PathLike | None = None,
    identity_file: PathLike | None = None,
    prompt: str | bool = "yes",
    tier: str = STANDARD,
    days: int = DEFAULT_DAYS,
    wait: cold.Wait = False,
    any_size: bool = False,
    only: str | Sequence[str] = (),
    keep_going: bool = False,
    report: ArchiveReport | None = None,
    progress: Progress | None = None,
) -> models.Backups | None:
    """Restore a backup into the directory *output* (by default the current one); return it.

    *filename* is a stored filename, a set's name (its newest backup) or the beginning of a
    stored filename that fits one set; *host* restricts the search to one host, and *source* to the
    backups of one path ("" for the set without a source). *password* and *identity_file* (age
    private keys) override the profile. The backup is read, decrypted and
    checked to its end before the first file appears in *output*; when anything fails, no file
    appears. *progress* is called with the bytes downloaded and the bytes of the whole object.

    *only* names files and directories inside the backup; nothing else is restored. The whole backup
    is still read and checked. It is read a second time for a chosen hard link whose content is
    stored under a name that was not chosen.

    *keep_going* True leaves out what the file system of *output* cannot hold, such as names that it
    does not allow, devices and files that are too large. A warning names each.

    What cannot be restored exactly, such as an attribute that the file system does not know, is a
    warning, and the rest is restored. *report* collects the files, directories, bytes and warnings,
    also while an exception is on its way. The returned entry's ``is_complete`` is False after a
    warning.

    A backup that unpacks to far more than was backed up is refused, since it could fill the disk.
    The limit is twice the size in the catalog of the machine that made the backup plus 64 MiB. For
    any other machine, and without that catalog, it is 200 times the stored size plus 1 GiB or, if
    that is more, twice the announced size plus 64 MiB. *any_size* True lifts the limit.

    A backup in cold storage must be thawed first, which takes hours and is charged. The first call
    requests the thaw, by *tier* ("expedited", "standard" or "bulk") and on S3 for *days*, and
    returns None. Further calls return None, and request nothing, until the backup can be read. With
    *wait* True the call waits instead; a function is called with the seconds to wait. *job_check*
    True only returns the result of :func:`thaw_status`, which new code should call.

    Raises NoMatchError and AmbiguousNameError for the name, PasswordError and WrongKeyError for the
    keys, CorruptArchiveError, DestinationError, StorageError, or another BakthatError.
    """
    if job_check:
        return thaw_status(  # type: ignore[return-value]  # an alias; typed code calls it
            filename, destination, profile, config, conf=conf, host=host, source=source
        )
    paths = [only] if isinstance(only, str) else list(only)
    repeated = _arguments_to_repeat(output, identity_file, prompt, paths, keep_going)
    options = RestoreOptions(
        target=_target(output),
        password=password,
        identity_file=identity_file,
        prompt=may_ask(prompt),
        thaw=cold.ThawOptions(tier, days, wait, repeated),
        any_size=any_size,
        selection=Selection(paths) if paths else None,
        keep_going=keep_going,
        progress=progress,
    )
    options.thaw.check()
    session = Session(profile, config, conf, destination)
    with operation(session, "restore", deferred=True) as current:
        found = find_to_restore(session, filename, host, source)
        expected = expected_of(found, any_size=options.any_size)
        # Before the thaw, which costs money.
        if not expected.is_archive and options.selection is not None:
            raise UsageError(
                f"{printable(found.stored_filename)} holds one file: it cannot be restored in part"
            )
        stored = _stored_object(session, found)
        is_cold = storage_class(stored.storage_class).is_cold
        if is_cold and not cold.make_readable(session, found, options.thaw):
            return None
        current.begin()
        log.info("Restoring %s", printable(found.stored_filename))
        _warn_of_incomplete(found)
        report = ArchiveReport() if report is None else report
        _fetch(session, found, expected, options, report)
        found.restore_warning_count = report.warning_count
        name, target = printable(found.stored_filename), printable(options.target)
        current.finish(found, done=f"restored {name} into {target}")
        result_log.info(
            "Restored %s: %d files (%s) into %s, with %d warnings",
            name,
            report.files,
            human_size(report.bytes),
            target,
            report.warning_count,
        )
        return found


def thaw_status(
    filename: str,
    destination: str | None = None,
    profile: str = DEFAULT_PROFILE,
    config: PathLike | None = None,
    *,
    conf: Mapping[str, Any] | None = None,
    host: str | None = None,
    source: PathLike | None = None,
) -> ThawStatus:
    """Return the status of a backup's thaw; request nothing and restore nothing.

    *filename*, *host* and *source* are as for :func:`restore`. A backup outside of cold storage is
    "warm". Raises NoMatchError, AmbiguousNameError, StorageError.
    """
    session = Session(profile, config, conf, destination)
    with operation(session, "restore", deferred=True):
        return cold.thaw_status(session, find_to_restore(session, filename, host, source))


def _arguments_to_repeat(
    output: PathLike | None,
    identity_file: PathLike | None,
    prompt: str | bool,
    only: Sequence[str],
    keep_going: bool,
) -> list[str]:
    """Return the arguments that the restore after the thaw needs too.

    Without ``-o``, for example, it might replace files of the current directory.
    """
    given = [*(("-o", os.fspath(output)) if output else ())]
    given += ("--identity-file", os.fspath(identity_file)) if identity_file else ()
    given += [word for path in only for word in ("--only", path)]
    given += ["--keep-going"] if keep_going else []
    return given + ([] if may_ask(prompt) else ["--prompt", "no"])


def _target(output: PathLike | None) -> Path:
    if output is not None and not os.fspath(output):
        raise UsageError("the directory to restore into has an empty name")
    return expanded(output or os.curdir)


def _warn_of_incomplete(backup: models.Backups) -> None:
    if not backup.is_complete:
        log.warning(
            "%s was stored with %s: some files are missing or incomplete in it",
            printable(backup.stored_filename),
            counted(backup.warning_count, "warning"),
        )


def _fetch(
    session: Session,
    backup: models.Backups,
    expected: read.Expected,
    options: RestoreOptions,
    report: ArchiveReport,
) -> None:
    """Restore all of *backup* into a directory; when anything fails, nothing appears there."""
    backend = session.backend(backup.backend)
    backup.container = backend.container
    key = backup.stored_filename
    log.info("Downloading...")
    keys = find_keys(
        session,
        backend,
        backup,
        expected,
        password=options.password,
        identity_file=options.identity_file,
        prompt=options.prompt,
    )
    if expected.encrypted:
        log.info("Decrypting...")
        if expected.is_legacy and not (expected.compressed or expected.is_value):
            log.warning(
                "%s was stored uncompressed by bakthat 0.6.0, so a wrong password cannot be "
                "detected: check the restored file",
                printable(key),
            )
    if expected.compressed:
        log.info("Uncompressing...")
    started = time.monotonic()
    read.read_object(
        backend.download(key),
        expected,
        options.target,
        keys=keys,
        report=report,
        on_bytes=byte_counter(options.progress, backup.size),
        selection=options.selection,
        keep_going=options.keep_going,
        reopen=lambda: backend.download(key),
    )
    report.seconds = time.monotonic() - started


def _stored_object(session: Session, backup: models.Backups) -> StoredObject:
    """Return the stored object of *backup*. Raises when it is missing or has another size."""
    backend = session.backend(backup.backend)
    name = printable(backup.stored_filename)
    try:
        stored = backend.stat(backup.stored_filename)
    except NotFoundError as exc:
        if exc.hint:  # a missing bucket, or a vault that may hold it under an unknown id
            raise
        raise NotFoundError(
            f"{name} is in the catalog, but not in {backend.container} any more",
            hint="bakthat on another machine, another program or a rule of the bucket deleted it; "
            "bakthat sync updates the catalog",
        ) from exc
    if stored.size not in (backup.size, -1):
        raise CorruptArchiveError(
            f"{name} has {stored.size} bytes on the storage, but {backup.size} were stored: "
            "it was truncated or replaced"
        )
    return stored
