"""Restore a backup into a directory."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bakthat import models
from bakthat.archive.extract.selection import Selection
from bakthat.archive.report import ArchiveReport
from bakthat.backends.base import StoredObject, ThawStatus
from bakthat.conf import DEFAULT_PROFILE
from bakthat.errors import CorruptArchiveError, NotFoundError, UsageError
from bakthat.operations.restore.archive import ArchiveRestore
from bakthat.operations.restore.options import RestoreOptions
from bakthat.operations.restore.state import StateRestore, archives_to_read
from bakthat.passwords import may_ask
from bakthat.policy.storage_classes import DEFAULT_DAYS, STANDARD
from bakthat.session import cold
from bakthat.session.reading import KeyFinder, expected_of, find_to_restore
from bakthat.session.session import Session, operation, result_log
from bakthat.system.paths import PathLike, expanded
from bakthat.system.streams import Progress
from bakthat.system.text import counted, human_size, printable

if TYPE_CHECKING:
    # Imported where it is used: a restore into a directory needs no programs and databases.
    from bakthat.operations.restore.stream import Consumer

log = logging.getLogger("bakthat")


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
    use_index: bool = True,
    partial: bool = False,
    to_command: str | None = None,
    into: str | None = None,
    replace: bool = False,
    via: str | None = None,
    database_password: str | None = None,
    report: ArchiveReport | None = None,
    progress: Progress | None = None,
) -> models.Backups | None:
    """Restore a backup into the directory *output* (by default the current one); return it.

    *filename* is a stored filename, a set's name (its newest backup) or the beginning of a
    stored filename that fits one set; *host* restricts the search to one host, and *source* to the
    backups of one path ("" for the set without a source). *password* and *identity_file* (age
    private keys) override the profile. The backup is read, decrypted and
    checked to its end before the first file appears in *output*; when anything fails, no file
    appears. *progress* is called with the bytes downloaded and the bytes of the whole object, or is
    told more, as by :func:`bakthat.backup`.

    *only* names files and directories inside the backup, as ``bakthat contents`` shows them, and
    nothing else is restored. What is no path in the backup is a pattern with the rules of
    .gitignore; with "!" at its beginning, it leaves out what it matches. Only those parts of the
    object are read that hold what is wanted, unless that is most of it, or it has no index.

    Each restored file must be as the index of the backup says, and have its SHA-256. *use_index*
    False ignores the index: the whole object is read, and what is in it is restored.

    An increment is restored together with what it needs of the backups before it. When one of those
    is missing or was replaced, nothing is restored, and the error says which files are affected;
    *partial* True restores all others, with a warning for each such archive. *use_index* False
    cannot restore an increment.

    With *to_command*, a line for the shell, that reads a stream from its standard input, and no
    file appears. It gets the last bytes only when the whole stream is as it was stored; where that
    turns out to be altered, it is ended before. ConsumerError is raised when it fails; it may stop
    reading early, and succeed.

    With *into*, the URL of a database as for :func:`bakthat.backup_databases`, a dump is loaded
    into that database. It is made where it is missing. One that is not empty is refused, unless
    *replace* is True; then it is replaced as late as possible. *via* and *database_password* are as
    for that function. Raises DatabaseError and ConsumerError.

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
            filename,
            destination,
            profile,
            config,
            conf=conf,
            host=host,
            source=source,
            only=only,
        )
    paths = [only] if isinstance(only, str) else list(only)
    repeated = _arguments_to_repeat(
        output, identity_file, prompt, paths, keep_going, use_index, partial, any_size
    )
    session = Session(profile, config, conf, destination)
    consumer = None
    if replace or (to_command, into, via, database_password) != (None, None, None, None):
        from bakthat.operations.restore.stream import find_consumer

        consumer = find_consumer(
            session,
            to_command=to_command,
            into=into,
            replace=replace,
            via=via,
            database_password=database_password,
        )
        repeated += consumer.arguments
        if output is not None or paths:
            raise UsageError(
                "a command or a database takes the whole stream, and no file appears",
                hint="leave --output and --only out",
            )
    options = RestoreOptions(
        target=_target(output),
        password=password,
        identity_file=identity_file,
        prompt=may_ask(prompt),
        thaw=cold.ThawOptions(tier, days, wait, arguments=repeated),
        any_size=any_size,
        only=paths,
        use_index=use_index,
        keep_going=keep_going,
        partial=partial,
        progress=progress,
    )
    options.thaw.check()
    Selection(paths)  # invalid paths are an error before anything else
    with operation(session, "restore", deferred=True) as current:
        found = find_to_restore(session, filename, host, source)
        report = ArchiveReport() if report is None else report
        if not restore_backup(session, found, options, report, consumer, on_begin=current.begin):
            return None
        name = printable(found.stored_filename)
        target = consumer.name if consumer is not None else printable(options.target)
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


def restore_backup(
    session: Session,
    found: models.Backups,
    options: RestoreOptions,
    report: ArchiveReport,
    consumer: Consumer | None = None,
    *,
    on_begin: Callable[[], object],
    keys: KeyFinder | None = None,
) -> bool:
    """Restore *found* into the directory of *options*, or else into *consumer*.

    Returns False when it must be thawed first. *keys* finds those that open it. *on_begin* is
    called before anything is read. *report* takes the counts and warnings. Raises what
    :func:`restore` raises.
    """
    with ExitStack() as stack:
        expected = expected_of(found, any_size=options.any_size)
        stored = _stored_object(session, found)
        if keys is None:
            keys = KeyFinder(session, options.password, options.identity_file, options.prompt)
        reading: ArchiveRestore | StateRestore
        if consumer is not None:
            from bakthat.operations.restore.stream import StreamRestore

            reading = StreamRestore(session, found, expected, keys, options, consumer)
        elif found.is_increment:
            reading = StateRestore(stack, session, found, keys, options)
        else:
            reading = ArchiveRestore(session, found, expected, keys, options)
        if not reading.prepare(stored):
            return False
        on_begin()
        log.info("Restoring %s", printable(found.stored_filename))
        _warn_of_incomplete(found)
        reading.run(report)
        found.restore_warning_count = report.warning_count
        return True


def thaw_status(
    filename: str,
    destination: str | None = None,
    profile: str = DEFAULT_PROFILE,
    config: PathLike | None = None,
    *,
    conf: Mapping[str, Any] | None = None,
    host: str | None = None,
    source: PathLike | None = None,
    only: str | Sequence[str] = (),
) -> ThawStatus:
    """Return the status of a backup's thaw; request nothing and restore nothing.

    *filename*, *host*, *source* and *only* are as for :func:`restore`. A backup outside of cold
    storage is "warm". Of an increment, it is the status of the archive that is the least ready of
    those that its restore reads; without its keys in the profile, of all that it needs. Raises
    NoMatchError, AmbiguousNameError, StorageError.
    """
    session = Session(profile, config, conf, destination)
    with operation(session, "restore", deferred=True):
        found = find_to_restore(session, filename, host, source)
        return thaw_status_of(session, found, [only] if isinstance(only, str) else list(only))


def thaw_status_of(
    session: Session, backup: models.Backups, only: Sequence[str] = ()
) -> ThawStatus:
    """Return the status of the thaw of *backup*, of what a restore of *only* reads of it."""
    if not backup.is_increment:
        return cold.thaw_status(session, backup)
    backups = archives_to_read(session, backup, only)
    return cold.least_ready([cold.thaw_status(session, each) for each in backups])


def _arguments_to_repeat(
    output: PathLike | None,
    identity_file: PathLike | None,
    prompt: str | bool,
    only: Sequence[str],
    keep_going: bool,
    use_index: bool,
    partial: bool,
    any_size: bool,
) -> list[str]:
    """Return the arguments that the restore after the thaw needs too.

    Without ``-o``, for example, it might replace files of the current directory.
    """
    given = [*(("-o", os.fspath(output)) if output else ())]
    given += ("--identity-file", os.fspath(identity_file)) if identity_file else ()
    given += [word for path in only for word in ("--only", path)]
    given += ["--keep-going"] if keep_going else []
    given += [] if use_index else ["--no-index"]
    given += ["--partial"] if partial else []
    given += ["--any-size"] if any_size else []
    return given + ([] if may_ask(prompt) else ["--prompt", "no"])


def _target(output: PathLike | None) -> Path:
    if output is not None and not os.fspath(output):
        raise UsageError(
            "the directory to restore into has an empty name",
            hint="name one after -o (output= in Python), or leave it out for the working directory",
        )
    return expanded(output or os.curdir)


def _warn_of_incomplete(backup: models.Backups) -> None:
    name = printable(backup.stored_filename)
    if backup.is_suspicious:
        log.warning("%s may not be what you expect: its size was suspicious", name)
    elif not backup.is_complete:
        log.warning(
            "%s was stored with %s: some files are missing or incomplete in it",
            name,
            counted(backup.warning_count, "warning"),
        )


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
            "it was truncated or replaced",
            hint="bakthat sync updates the catalog; bakthat check shows which backups are whole",
        )
    return stored
