"""Back up a file or a directory."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from functools import partial
from typing import TYPE_CHECKING, Any

from bakthat.archive.create.worker import open_content
from bakthat.conf import DEFAULT_PROFILE
from bakthat.errors import UsageError
from bakthat.format.description import join_tags
from bakthat.operations.backup.request import (
    BackupRequest,
    keys_of_backup,
    refuse_misplaced,
    refuse_source_in_store,
    refuse_url,
)
from bakthat.operations.changes import after_change
from bakthat.operations.sources.files import BackupSource
from bakthat.session.session import Session, operation
from bakthat.system.paths import PathLike, expanded
from bakthat.system.text import printable

if TYPE_CHECKING:
    from bakthat import models
    from bakthat.archive.create.content import BackupContent
    from bakthat.archive.create.increment.archive import Basis
    from bakthat.archive.create.walk import Scan
    from bakthat.operations.backup.parent import Parent
    from bakthat.system.streams import Progress

# Nothing above may import the catalog, the storage client or age: they are loaded while the worker
# process counts the tree. So `store` is imported within `backup`
# (docs/development/architecture.rst, "What is loaded when").

log = logging.getLogger("bakthat")


def backup(
    filename: PathLike | None = None,
    destination: str | None = None,
    profile: str = DEFAULT_PROFILE,
    config: PathLike | None = None,
    prompt: str | bool = "yes",
    tags: str | Sequence[str] = (),
    exclude_file: PathLike | None = None,
    s3_reduced_redundancy: bool = False,
    *,
    conf: Mapping[str, Any] | None = None,
    password: str | None = None,
    recipients: str | Sequence[str] = (),
    custom_filename: str | None = None,
    host: str | None = None,
    root_name: str | None = None,
    ignore_files: bool = True,
    exclude_caches: bool = False,
    one_file_system: bool = False,
    create: bool = False,
    allow_empty: bool = False,
    incremental: bool | None = None,
    full: bool = False,
    full_every: str | None = None,
    max_archives: int | None = None,
    detect: str | None = None,
    ignore_inode: bool | None = None,
    always_read: str | Sequence[str] | None = None,
    recheck: int | None = None,
    skip_unchanged: bool | None = None,
    command: str | None = None,
    timeout: str | float | None = None,
    fail_below: str | int | None = None,
    accept_size: bool = False,
    progress: Progress | None = None,
) -> models.Backups:
    """Back up a file, a directory or a stream, and return its catalog entry.

    *filename* None means the current directory, and "-" standard input. With *command*, a line for
    the shell, its output is backed up instead. *custom_filename* is the name of the set, by
    default the base name of *filename*. *root_name* is the name of the file or directory inside
    the archive, by default its base name. *host* is the name of this host, by default the profile's
    ``host``, else the machine's. *tags* is a list, or text with commas or spaces.

    *password* ("" for none) and *recipients* (age public keys) override the profile. *prompt* "no"
    or False never asks for a password; a backup for which no key is set is then unencrypted.

    *exclude_file* has .gitignore patterns of the files to leave out. Without it,
    ``.bakthatexclude`` or ``.gitignore`` at the root is used unless *ignore_files* is False.
    *exclude_caches* leaves out the contents of directories with a CACHEDIR.TAG, and
    *one_file_system* leaves out file systems mounted below.

    A missing bucket, vault or directory is made, unless the catalog lists backups in it: then its
    disk may not be mounted, or the endpoint may be wrong. *create* makes it all the same.

    A backup of nothing but an empty directory, or of one file without a byte, is a warning too: a
    dump failed, a disk is not mounted, or a pattern fits too much. *allow_empty* says that it is
    meant.

    *incremental* stores only what has changed since an earlier backup of the set, as an increment
    that needs it; a full backup is made when there is none, when an increment would save little, or
    when *full* asks for it. The log says why. None means as the profile's ``incremental``. The
    other arguments override the keys of the profile, where they are described
    (docs/reference/configuration.rst): *full_every* is an interval such as ``90D``, *max_archives*
    the most archives that a restore reads, *detect* is "ctime", "mtime" or "hash", *always_read*
    patterns as in .gitignore, and *recheck* percent. With *skip_unchanged*, no backup is made when
    nothing has changed: the newest entry is returned, and its ``is_skipped`` is True.

    A stream, from *command* or standard input, is stored as it is, compressed: ``NAME.DATE.gz``.
    Nothing is stored when *command* ends with another exit code than 0, by a signal, or not within
    *timeout*, in seconds or an interval such as "2h"; nor when the stream is empty, unless
    *allow_empty* says that this is meant. A size below half or above twice that of the last backup
    whose size was not suspicious is suspicious: a warning, and the entry's ``is_suspicious`` is
    True. *accept_size* says that the new size is meant. Or else, below *fail_below* percent of the
    last size ("50%" or 50), nothing is stored. What a tree can leave out, and increments, are not
    for streams.

    *progress* is called with the bytes read and the bytes to read, 0 of a stream whose size is not
    known; its method ``on_state``, where
    it has one, gets a :class:`~bakthat.system.streams.ProgressState` in place of that. Without it,
    the log has percentages. The logger ``bakthat.files`` names each file once its own level is
    INFO.

    A file that cannot be read, or that changes meanwhile, does not stop the backup. Such files are
    counted in the entry's ``metadata["warning_count"]`` and named in ``metadata["warnings"]``, and
    the entry's ``is_complete`` is False.

    Raises subclasses of BakthatError. When CatalogError says that the backup was stored but not
    recorded, or StorageError that it was confirmed but not checked, the object stays. An exception
    after the backup was recorded, such as that of a callback, has a note with the stored filename.
    """
    session = Session(profile, config, conf, destination, host=host)
    _say_where_unconfigured(session)
    if command is not None and filename is not None:
        raise UsageError(
            "--command and a path were given, and a backup has one source",
            hint="quote the whole command: --command 'pg_dump shop' (command= in Python)",
        )
    refuse_url(filename)
    if command is not None or filename in ("-", b"-"):
        refuse_misplaced(
            "a stream",
            exclude_file=exclude_file is not None,
            exclude_caches=exclude_caches,
            one_file_system=one_file_system,
            root_name=root_name is not None,
            incremental=bool(incremental),
            full=full,
            full_every=full_every is not None,
            max_archives=max_archives is not None,
            skip_unchanged=bool(skip_unchanged),
            detect=detect is not None,
            ignore_inode=ignore_inode is not None,
            always_read=always_read is not None,
            recheck=recheck is not None,
        )
        from bakthat.operations.backup.stream import SizeRule, back_up_stream

        return back_up_stream(
            session,
            command,
            custom_filename,
            SizeRule.make(allow_empty=allow_empty, accept_size=accept_size, fail_below=fail_below),
            timeout=timeout,
            keys=lambda: keys_of_backup(session, password, recipients, prompt),
            tags=tags,
            s3_reduced_redundancy=s3_reduced_redundancy,
            create=create,
            progress=progress,
        )
    refuse_misplaced(
        "a file or directory",
        timeout=timeout is not None,
        fail_below=fail_below is not None,
        accept_size=accept_size,
    )
    with operation(session, "backup") as current:
        source = BackupSource.find(
            filename, custom_filename, compress=session.profile.compress, root_name=root_name
        )
        refuse_source_in_store(session, source.path)
        joined_tags = join_tags(tags)
        increments = None
        if source.is_archive and _wants_increments(session, incremental):
            from bakthat.operations.backup.parent import IncrementSettings

            increments = IncrementSettings.choose(
                session.profile,
                session.destination,
                full_every=full_every,
                max_archives=max_archives,
                detect=detect,
                ignore_inode=ignore_inode,
                always_read=always_read,
                recheck=recheck,
                skip_unchanged=skip_unchanged,
            )
        # Raises ConfigError for a missing setting, before a password is asked for.
        backend = session.backend(session.destination, s3_reduced_redundancy=s3_reduced_redundancy)
        log.info("Backing up %s", printable(str(source.path)))
        request = BackupRequest.make(
            session,
            source,
            backend=backend,
            exclude_file=exclude_file,
            ignore_files=ignore_files,
            exclude_caches=exclude_caches,
            one_file_system=one_file_system,
            password=password,
            recipients=recipients,
            prompt=prompt,
            make_store=True,
            create=create,
        )

        def finish(entry: models.Backups) -> None:
            name = printable(entry.stored_filename)
            current.finish(entry, done=f"stored as {name} on {entry.where}")

        def open_it(basis: Basis | None = None) -> AbstractContextManager[BackupContent]:
            return open_content(
                source.path,
                request.options,
                arcname=source.arcname,
                unchanged=not source.is_archive,
                basis=basis,
            )

        def store(
            content: BackupContent,
            parent: Parent | None = None,
            counted: Scan | None = None,
            started: float | None = None,
        ) -> models.Backups:
            from bakthat.operations.backup.store import NewBackup

            new = NewBackup(
                session,
                backend,
                source,
                request.keys,
                joined_tags,
                progress,
                create,
                check=request.content_check(
                    allow_empty=allow_empty, is_increment=parent is not None
                ),
                on_recorded=finish,
                parent=parent,
                started=started,
            )
            return new.store(
                content,
                counted,
                open_again=partial(open_it, parent.basis if parent is not None else None),
            )

        entry = None
        if increments is not None:
            from bakthat.operations.backup.increment import back_up_changes

            entry = back_up_changes(request, increments, store, full=full, create=create)
            if entry is not None and entry.is_skipped:
                name = printable(entry.stored_filename)
                current.finish(entry, done=f"nothing has changed since {name}")
                return entry
        if entry is None:
            with open_it() as content:
                entry = store(content)
        after_change(session, entry.backend, make_bucket=True)
        return entry


def _wants_increments(session: Session, incremental: bool | None) -> bool:
    return session.profile.incremental if incremental is None else bool(incremental)


def _say_where_unconfigured(session: Session) -> None:
    if session.loaded.is_unconfigured and session.named_destination is None:
        log.info(
            "No configuration in %s: storing in %s",
            printable(session.loaded.origin),
            printable(expanded(session.profile.local_path)),
        )
