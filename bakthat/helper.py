"""Helpers for backup scripts: :class:`BakHelper`, and :class:`KeyValue` for small values."""

from __future__ import annotations

import logging
import os
import tempfile
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypedDict, Unpack

from bakthat import models
from bakthat.conf import DEFAULT_PROFILE
from bakthat.errors import DestinationError, UsageError
from bakthat.format.names import check_set_name
from bakthat.operations.backup import operation as backup
from bakthat.operations.key_values import KeyValue
from bakthat.operations.restore.operation import restore
from bakthat.operations.retention import operation as retention
from bakthat.system.files import remove_tree
from bakthat.system.paths import PathLike, expanded
from bakthat.system.streams import Progress
from bakthat.system.text import from_native, printable, reason_of

__all__ = ["BakHelper", "KeyValue"]

log = logging.getLogger("bakthat")

_PREFIX_CHARACTERS = 40
"""How many characters of the backup's name the temporary directory's name begins with."""


class BackupOptions(TypedDict, total=False):
    """The options of :func:`bakthat.backup` that :meth:`BakHelper.backup` takes too."""

    exclude_file: PathLike | None
    s3_reduced_redundancy: bool
    recipients: Sequence[str]
    ignore_files: bool
    exclude_caches: bool
    one_file_system: bool
    allow_empty: bool
    incremental: bool | None
    full: bool
    full_every: str | None
    max_archives: int | None
    detect: str | None
    ignore_inode: bool | None
    always_read: str | Sequence[str] | None
    recheck: int | None
    skip_unchanged: bool | None
    host: str | None
    create: bool
    progress: Progress | None


class CommandOptions(TypedDict, total=False):
    """The options of :func:`bakthat.backup` that :meth:`BakHelper.backup_command` takes too."""

    timeout: str | float | None
    fail_below: str | int | None
    accept_size: bool
    allow_empty: bool
    s3_reduced_redundancy: bool
    recipients: Sequence[str]
    host: str | None
    create: bool
    progress: Progress | None


class RotationOptions(TypedDict, total=False):
    """The options of :func:`bakthat.rotate_backups` that :meth:`BakHelper.rotate` takes too."""

    host: str | None
    source: PathLike | None
    dry_run: bool
    last: int | None
    minutes: int | None
    hours: int | None
    days: int | None
    weeks: int | None
    months: int | None
    years: int | None
    first_week_day: int | None


class _WorkingDirectory:
    """Lets one thread at a time use the process's working directory. Its helpers may be nested."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._owner = (0, 0)
        self._blocks = 0

    def acquire(self) -> None:
        """Start one use by this thread. Raises UsageError while another thread uses it."""
        me = (os.getpid(), threading.get_ident())
        with self._lock:
            # A forked child has none of its parent's other threads.
            if self._blocks and self._owner != me and self._owner[0] == me[0]:
                raise UsageError(
                    "another thread's helper uses the working directory",
                    hint="pass chdir=False, and write to the helper's directory",
                )
            self._blocks = self._blocks + 1 if self._owner == me else 1
            self._owner = me

    def release(self) -> None:
        """End one use."""
        with self._lock:
            self._blocks -= 1


_working_directory = _WorkingDirectory()


class BakHelper:
    """Back up the files that a script writes.

    *backup_name* is the name of the set, by default the base name of the source.
    *destination*, *password*, *profile*, *config*, *conf* and *tags* are defaults for the methods,
    with the meanings that :func:`bakthat.backup` gives them. A helper never asks for a password.
    With *password* None, it uses BAKTHAT_PASSWORD, then the profile's recipients or password; when
    none is set, the backup is not encrypted. "" always means unencrypted.

    As a context manager it makes a temporary directory that only this user can read, in TMPDIR
    or ``/tmp``, and makes it the working directory. At the end of the block, also after an
    exception, it changes back to the former working directory and removes the temporary one. When
    a backup from it failed or lacks files, it keeps the temporary directory, and the log names it.
    A backup of an empty directory is such a backup too, unless *allow_empty* says that it is meant,
    but leaves no directory.

    The threads of a process share one working directory. Where several threads use helpers
    at once, or other code depends on the working directory, pass ``chdir=False`` and write to
    :attr:`directory`; else a second thread's block raises UsageError. Only one thread at a time
    may use a helper.
    """

    def __init__(
        self,
        backup_name: str = "",
        *,
        destination: str | None = None,
        password: str | None = None,
        profile: str = DEFAULT_PROFILE,
        conf: Mapping[str, Any] | None = None,
        tags: str | Sequence[str] = (),
        config: PathLike | None = None,
        chdir: bool = True,
    ) -> None:
        self.backup_name = check_set_name(backup_name) if backup_name else ""
        self.destination = destination
        self.password = password
        self.profile = profile
        # A relative path would mean another file once the temporary directory is the working one.
        self.config = expanded(config) if config else config
        self.conf = conf
        self.tags = tags
        self._chdir = chdir
        self._directory: Path | None = None
        self._former = ""
        self._unsaved: set[Path] = set()
        self._process = 0

    @property
    def directory(self) -> Path:
        """The temporary directory, as an absolute path. Raises UsageError outside of the block."""
        if self._directory is None:
            raise UsageError(
                "the helper has no temporary directory",
                hint="use it as a context manager: with BakHelper(…) as bh",
            )
        return self._directory

    def __enter__(self) -> Self:
        if self._directory is not None:
            raise UsageError(
                f"the helper is in use already, in {self._directory}", hint="make another BakHelper"
            )
        if self._chdir:
            _working_directory.acquire()
        try:
            self._make_directory()
        except BaseException:
            if self._chdir:
                _working_directory.release()
            raise
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        directory, self._directory = self.directory, None
        if os.getpid() != self._process:
            return  # this is a forked child; the parent is still dumping
        try:
            if self._chdir:
                self._go_back(directory)
        finally:
            if self._chdir:
                _working_directory.release()
            if self._unsaved and not _is_empty(directory):
                where = f"its files are still in {printable(directory)}"
                log.error("the backup failed or is incomplete: %s", where)
                if exc is not None:
                    exc.add_note(where)
            else:
                remove_tree(directory)

    def backup(
        self,
        filename: PathLike | None = None,
        destination: str | None = None,
        *,
        password: str | None = None,
        tags: str | Sequence[str] | None = None,
        custom_filename: str | None = None,
        profile: str | None = None,
        config: PathLike | None = None,
        conf: Mapping[str, Any] | None = None,
        **options: Unpack[BackupOptions],
    ) -> models.Backups:
        """Back up *filename*, by default the whole temporary directory; return the entry.

        The set is *custom_filename*, by default the helper's *backup_name*, else the base name of
        *filename*. Inside the archive the temporary directory has the same name. When a backup in
        the block fails or has warnings, the temporary directory is kept. The other *options* and
        the exceptions are those of :func:`bakthat.backup`.
        """
        source = self.directory if filename is None else filename
        unsaved = self._inside(source)
        self._unsaved |= unsaved
        name = custom_filename or self.backup_name or None
        if filename is None and name is None:
            raise UsageError(
                "the backup has no name", hint="pass a name, BakHelper('mybackup'), or a file"
            )
        if name is None and unsaved:
            # Each block has another temporary directory, and its backups belong to one set.
            name = from_native(os.path.basename(os.path.abspath(source)))
        entry = backup.backup(
            source,
            destination or self.destination,
            profile or self.profile,
            config or self.config,
            prompt="no",
            tags=self.tags if tags is None else tags,
            conf=self.conf if conf is None else conf,
            password=self.password if password is None else password,
            custom_filename=name,
            root_name=name if filename is None else None,
            **options,
        )
        if not entry.is_complete:
            return entry  # keep the directory: it has the only copy of the files not stored
        for saved in unsaved:
            self._unsaved = {each for each in self._unsaved if not each.is_relative_to(saved)}
        return entry

    def backup_command(
        self,
        command: str,
        custom_filename: str | None = None,
        destination: str | None = None,
        *,
        password: str | None = None,
        tags: str | Sequence[str] | None = None,
        profile: str | None = None,
        config: PathLike | None = None,
        conf: Mapping[str, Any] | None = None,
        **options: Unpack[CommandOptions],
    ) -> models.Backups:
        """Back up what *command*, a line for the shell, prints; return the entry.

        The output goes into the storage as it comes, and no file appears: the helper needs no
        block. The set is *custom_filename*, by default the helper's *backup_name*. ProducerError is
        raised when the command fails, and nothing is stored then. The other *options* and the
        exceptions are those of :func:`bakthat.backup`.
        """
        return backup.backup(
            None,
            destination or self.destination,
            profile or self.profile,
            config or self.config,
            prompt="no",
            tags=self.tags if tags is None else tags,
            conf=self.conf if conf is None else conf,
            password=self.password if password is None else password,
            custom_filename=self._set_name(custom_filename),
            command=command,
            **options,
        )

    def restore(
        self,
        filename: str | None = None,
        destination: str | None = None,
        *,
        output: PathLike | None = None,
        password: str | None = None,
        host: str | None = None,
        source: PathLike | None = None,
        identity_file: PathLike | None = None,
    ) -> models.Backups | None:
        """Restore the newest backup of the helper's set, or what *filename* names.

        The files appear in *output*, by default the working directory, which in the block is the
        temporary one. Returns the entry, or None while the backup is thawing. Raises what
        :func:`bakthat.restore` raises.
        """
        return restore(
            self._set_name(filename),
            destination or self.destination,
            self.profile,
            self.config,
            conf=self.conf,
            # "" makes new backups unencrypted; a stored one may be encrypted all the same.
            password=(self.password if password is None else password) or None,
            output=output,
            host=host,
            source=source,
            identity_file=identity_file,
            prompt="no",
        )

    def delete_older_than(
        self,
        interval: str,
        filename: str | None = None,
        destination: str | None = None,
        *,
        host: str | None = None,
        source: PathLike | None = None,
        dry_run: bool = False,
    ) -> list[models.Backups]:
        """Delete the backups of the helper's set that are older than *interval*; return them.

        *filename* names another set. The newest backup stays. Raises what
        :func:`bakthat.delete_older_than` raises.
        """
        return retention.delete_older_than(
            self._set_name(filename),
            interval,
            destination or self.destination,
            self.profile,
            self.config,
            conf=self.conf,
            host=host,
            source=source,
            dry_run=dry_run,
        )

    def rotate(
        self,
        filename: str | None = None,
        destination: str | None = None,
        **options: Unpack[RotationOptions],
    ) -> list[models.Backups]:
        """Delete the backups of the helper's set that the rotation does not keep; return them.

        *filename* names another set. The *options* and exceptions are those of
        :func:`bakthat.rotate_backups`: ConfigError where no rotation is configured.
        """
        return retention.rotate_backups(
            self._set_name(filename),
            destination or self.destination,
            self.profile,
            self.config,
            conf=self.conf,
            **options,
        )

    def _set_name(self, filename: str | None) -> str:
        name = filename or self.backup_name
        if not name:
            raise UsageError(
                "no backup was named", hint="pass a name, BakHelper('mybackup'), or a file"
            )
        return name

    def _inside(self, source: PathLike) -> set[Path]:
        """Return the path of *source* if it is inside the temporary directory, else no path."""
        path = Path(os.path.realpath(source))
        is_inside = self._directory is not None and path.is_relative_to(self._directory)
        return {path} if is_inside else set()

    def _make_directory(self) -> None:
        prefix = f"{self.backup_name[:_PREFIX_CHARACTERS] or 'bakthat'}_"
        try:
            former = os.getcwd() if self._chdir else ""
            directory = tempfile.mkdtemp(prefix=prefix)  # 0700
        except OSError as exc:
            raise DestinationError(
                f"cannot make a temporary directory: {reason_of(exc)}",
                hint="set TMPDIR to a writable directory",
            ) from exc
        if self._chdir:
            os.chdir(directory)
            log.info("New current working directory: %s", printable(directory))
        self._directory, self._former = Path(directory).resolve(), former
        self._process = os.getpid()
        self._unsaved.clear()

    def _go_back(self, directory: Path) -> None:
        try:
            os.chdir(self._former)
        except OSError as exc:
            log.warning("cannot go back to %s: %s", printable(self._former), reason_of(exc))
            os.chdir(directory.parent)


def _is_empty(directory: Path) -> bool:
    try:
        return not os.listdir(directory)
    except OSError:
        return False
