"""Back up a file or a directory."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bakthat.archive.create.excludes import find_rules
from bakthat.archive.create.walk import WalkOptions
from bakthat.archive.create.worker import open_content
from bakthat.conf import DEFAULT_PROFILE
from bakthat.errors import UsageError
from bakthat.format.description import join_tags
from bakthat.operations.changes import after_change
from bakthat.operations.sources.files import BackupSource
from bakthat.passwords import EncryptionKeys, encryption_keys, may_ask
from bakthat.session.session import Session, operation
from bakthat.system.paths import PathLike, expanded
from bakthat.system.text import printable

if TYPE_CHECKING:
    from bakthat import models
    from bakthat.system.streams import Progress

# Nothing above may import the catalog, the storage client or age: they are loaded while the worker
# process counts the tree. So `store` is imported within `backup` (docs/architecture.rst, "What is
# loaded when").

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
    progress: Progress | None = None,
) -> models.Backups:
    """Back up a file or a directory and return its catalog entry.

    *filename* None means the current directory. *custom_filename* is the name of the set, by
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

    *progress* is called with the bytes read and the bytes to read. Without it, the log has
    percentages.

    A file that cannot be read, or that changes meanwhile, does not stop the backup. Such files are
    counted in the entry's ``metadata["warning_count"]`` and named in ``metadata["warnings"]``, and
    the entry's ``is_complete`` is False.

    Raises subclasses of BakthatError. When CatalogError says that the backup was stored but not
    recorded, or StorageError that it was confirmed but not checked, the object stays. An exception
    after the backup was recorded, such as that of a callback, has a note with the stored filename.
    """
    session = Session(profile, config, conf, destination, host=host)
    if session.loaded.is_unconfigured and session.named_destination is None:
        local_path = expanded(session.profile.local_path)
        log.info(
            "No configuration in %s: storing in %s",
            printable(session.loaded.origin),
            printable(local_path),
        )
    with operation(session, "backup") as current:
        source = BackupSource.find(
            filename, custom_filename, compress=session.profile.compress, root_name=root_name
        )
        _refuse_source_in_store(session, source.path)
        joined_tags = join_tags(tags)
        rules = find_rules(
            source.path,
            exclude_file=os.fspath(exclude_file) if exclude_file is not None else None,
            automatic=ignore_files,
        )
        # Raises ConfigError for a missing setting, before a password is asked for.
        backend = session.backend(session.destination, s3_reduced_redundancy=s3_reduced_redundancy)
        log.info("Backing up %s", printable(str(source.path)))
        keys = encryption_keys(
            session.profile.as_mapping(),
            password=password,
            recipients=[recipients] if isinstance(recipients, str) else recipients,
            prompt=may_ask(prompt),
        )
        _check_recipients(keys)
        if session.destination == "local" and not os.path.isdir(backend.container):
            from bakthat.session.container import make_container

            # It may be inside the source, and the walk skips it by its inode.
            make_container(session, backend, create=create)
        options = WalkOptions(
            rules=rules,
            one_file_system=one_file_system,
            skip_caches=exclude_caches,
            unvisited=session.store_inode() if session.destination == "local" else frozenset(),
        )
        with open_content(
            source.path, options, arcname=source.arcname, unchanged=not source.is_archive
        ) as content:
            from bakthat.operations.store import NewBackup

            def finish(entry: models.Backups) -> None:
                name = printable(entry.stored_filename)
                current.finish(entry, done=f"stored as {name} on {entry.where}")

            new = NewBackup(
                session,
                backend,
                source,
                options,
                keys,
                joined_tags,
                progress,
                create,
                allow_empty=allow_empty,
                on_recorded=finish,
            )
            entry = new.store(content)
        after_change(session, entry.backend, make_bucket=True)
        return entry


def _check_recipients(keys: EncryptionKeys) -> None:
    """Raise KeyFormatError for an invalid recipient, before the storage is touched."""
    if keys.recipients:
        from bakthat.crypto import age

        for recipient in keys.recipients:
            age.parse_recipient(recipient)


def _refuse_source_in_store(session: Session, source: Path) -> None:
    """Raise UsageError when *source* is inside of the local destination."""
    if session.destination != "local":
        return
    store = expanded(session.profile.local_path)
    if source.resolve().is_relative_to(store.resolve()):
        raise UsageError(
            f"'{printable(source)}' is inside of the local destination {printable(store)}",
            hint="choose another destination with -d, or another local_path in the profile",
        )
