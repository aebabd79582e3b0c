"""The operations: back up, restore, list, delete.

Each takes the profile by *profile* and *config* (the path of a configuration file) or as a flat
dict, *conf*; *destination* is "s3", "glacier" or "local", by default the profile's. What goes
wrong raises a subclass of :class:`~bakthat.errors.BakthatError`. The events of
:data:`bakthat.events` fire around what is done.
"""

from __future__ import annotations

import contextlib
import logging
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, overload

from bakthat import terminal
from bakthat.archive.excludes import find_rules
from bakthat.archive.walk import WalkOptions
from bakthat.conf import DEFAULT_PROFILE
from bakthat.contents import contents_of
from bakthat.errors import UsageError
from bakthat.interrupts import held_back
from bakthat.naming import is_text, printable
from bakthat.paths import expanded
from bakthat.secrets import encryption_keys, may_ask
from bakthat.session import Session, operation
from bakthat.sources import BackupSource, join_tags
from bakthat.storage_classes import DEFAULT_DAYS, STANDARD

# Each operation loads what it alone needs, and a backup what it needs only while another process
# counts the tree. So annotations are for those who read them as text, type checkers for one.
if TYPE_CHECKING:
    from bakthat import models
    from bakthat.backends.base import Thaw
    from bakthat.storing import Progress
    from bakthat.thawing import Wait

log = logging.getLogger("bakthat")

PathLike = str | os.PathLike[str]


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
    root_name: str | None = None,
    ignore_files: bool = True,
    exclude_caches: bool = False,
    one_file_system: bool = False,
    progress: Progress | None = None,
) -> models.Backups:
    """Back up a file or a directory and return its catalog entry.

    *filename* None means the current directory. *custom_filename* is the set's name, by default
    the base name of *filename*; *root_name* is what that is called inside of the archive, by
    default its base name too. *password* ("" for none) and *recipients* (age public keys) win
    over the profile; *prompt* "no" or False never asks, and lets a backup for which no key is
    configured be stored unencrypted. *exclude_file* holds .gitignore patterns; without it
    ``.bakthatexclude`` or ``.gitignore`` at the root is used unless *ignore_files* is False.
    *exclude_caches* leaves out what CACHEDIR.TAG marks, *one_file_system* what is mounted below.
    *progress* is called with bytes read and bytes to read; without it the percentages are logged.

    Files that could not be read as they were are counted in the entry's
    ``metadata["warning_count"]`` and named in ``metadata["warnings"]``; all others are stored.
    """
    session = Session(profile, config, conf, destination)
    if session.loaded.is_fallback and session.named_destination is None:
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
        joined_tags = join_tags(tags)
        options = WalkOptions(
            rules=find_rules(
                source.path,
                exclude_file=os.fspath(exclude_file) if exclude_file is not None else None,
                automatic=ignore_files,
            ),
            one_file_system=one_file_system,
            skip_caches=exclude_caches,
            unvisited=_own_store(session, source.path),
        )
        # Before a password is asked for: it says what the profile lacks.
        backend = session.backend(session.destination, s3_reduced_redundancy=s3_reduced_redundancy)
        log.info("Backing up %s", printable(str(source.path)))
        keys = encryption_keys(
            session.profile.as_mapping(),
            password=password,
            recipients=[recipients] if isinstance(recipients, str) else recipients,
            prompt=may_ask(prompt),
        )
        if keys.recipients:
            from bakthat.crypto import age

            for recipient in keys.recipients:
                age.parse_recipient(recipient)  # before anything is made on the storage
        if session.destination == "local":
            # It may lie in what is backed up, and must be there to be recognised.
            backend.create_container()
            options = replace(options, unvisited=_own_store(session, source.path))
        with contextlib.ExitStack() as reading:
            contents = reading.enter_context(contents_of(source, options))
            from bakthat.storing import NewBackup

            new = NewBackup(session, backend, source, options, keys, joined_tags, progress)
            made = new.store(contents, reading)
        if made.backend == "glacier":
            from bakthat import inventory

            inventory.save_after_change(session, make_bucket=True)
        return current.finish(made)


@overload
def restore(
    filename: str,
    destination: str | None = ...,
    profile: str = ...,
    config: PathLike | None = ...,
    *,
    conf: Mapping[str, Any] | None = ...,
    password: str | None = ...,
    output: PathLike | None = ...,
    job_check: Literal[False] = ...,
    host: str | None = ...,
    identity_file: PathLike | None = ...,
    prompt: str | bool = ...,
    tier: str = ...,
    days: int = ...,
    wait: Wait = ...,
    any_size: bool = ...,
    only: str | Sequence[str] = ...,
    progress: Progress | None = ...,
) -> models.Backups | None: ...


@overload
def restore(
    filename: str,
    destination: str | None = ...,
    profile: str = ...,
    config: PathLike | None = ...,
    *,
    conf: Mapping[str, Any] | None = ...,
    job_check: Literal[True],
    host: str | None = ...,
) -> Thaw: ...


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
    identity_file: PathLike | None = None,
    prompt: str | bool = "yes",
    tier: str = STANDARD,
    days: int = DEFAULT_DAYS,
    wait: Wait = False,
    any_size: bool = False,
    only: str | Sequence[str] = (),
    progress: Progress | None = None,
) -> models.Backups | Thaw | None:
    """Restore a backup into the directory *output* (by default the current one); return it.

    *filename* is a stored filename, a set's name (its newest backup) or the beginning of a
    stored filename that fits one set; *host* keeps to one host's. *password* or *identity_file*
    (age private keys) win over the profile. Everything is read, decrypted and checked to its
    end before the first file appears in *output*; when anything fails, nothing appears.
    *progress* is called with bytes downloaded and bytes in all.

    *only* names files and directories inside of the backup, and nothing else is restored; the
    backup is read and checked to its end all the same.

    What unpacks to far more than was announced when it was stored is refused as a bomb: more than
    twice that and 64 MiB or, where nothing was announced, more than 200 times what is stored and
    1 GiB. With *any_size* it is restored all the same.

    What is in cold storage must be thawed first, which takes hours and is charged: the first call
    asks for it, by *tier* ("expedited", "standard" or "bulk") and on S3 for *days*, and returns
    None; so do later calls until it can be read, which ask for nothing. With *wait* True the call
    waits instead; a function is called with the seconds to wait. With *job_check*, how far the
    backup is thawed is returned, a :class:`~bakthat.backends.base.Thaw`, and nothing else is done.
    """
    from bakthat import thawing
    from bakthat.archive.choosing import Choice
    from bakthat.restoring import RestoreOptions, expected_of, fetch, find_to_restore

    chosen = [only] if isinstance(only, str) else list(only)
    choice = Choice(chosen) if chosen else None
    again = _repeated(output, identity_file, prompt, chosen)
    thaw_options = thawing.ThawOptions(tier, days, wait, again)
    thaw_options.check()
    session = Session(profile, config, conf, destination)
    with operation(session, "restore", deferred=True) as current:
        found = find_to_restore(session, filename, host)
        if job_check:
            return thawing.thaw_state(session, found)
        # Before a thaw is paid for what cannot be read, or not in part.
        if not expected_of(found).is_archive and choice is not None:
            raise UsageError(
                f"{printable(found.stored_filename)} holds one file: there is nothing to choose"
            )
        if not thawing.make_readable(session, found, thaw_options):
            return None
        current.begin()
        log.info("Restoring %s", printable(found.stored_filename))
        options = RestoreOptions(
            target=_target(output),
            password=password,
            identity_file=identity_file,
            prompt=may_ask(prompt),
            progress=progress,
            any_size=any_size,
            choice=choice,
        )
        report = fetch(session, found, options)
        if report.warning_count:
            log.warning("restored, with %d warnings", report.warning_count)
        return current.finish(found)


def ls(
    query: str = "",
    destination: str | None = "",
    tags: str | Sequence[str] = "",
    profile: str = DEFAULT_PROFILE,
    config: PathLike | None = None,
    *,
    conf: Mapping[str, Any] | None = None,
    host: str | None = None,
) -> list[models.Backups]:
    """Return the backups of the profile's containers that the catalog lists, the newest first.

    *query* is any part of a set's name or of a stored filename. *destination* keeps to one of
    them, *tags* to backups that carry at least one of these, *host* to one host's.
    """
    from bakthat import models

    session = Session(profile, config, conf, destination)
    named = [session.named_destination] if session.named_destination else []
    with models.catalog(session.catalog_path):
        if not is_text(query):
            return []  # no name can hold it, and SQLite cannot be asked
        found = models.Backups.search(query, session.containers(*named), join_tags(tags).split())
    return [each for each in found if host is None or each.host == host]


def show(
    query: str = "",
    destination: str | None = "",
    tags: str | Sequence[str] = "",
    profile: str = DEFAULT_PROFILE,
    config: PathLike | None = None,
    *,
    conf: Mapping[str, Any] | None = None,
    host: str | None = None,
) -> None:
    """Print what :func:`ls` returns, as a table on standard output."""
    found = ls(query, destination, tags, profile, config, conf=conf, host=host)
    print_backups(found)


def delete(
    filename: str,
    destination: str | None = None,
    profile: str = DEFAULT_PROFILE,
    config: PathLike | None = None,
    *,
    conf: Mapping[str, Any] | None = None,
    host: str | None = None,
) -> models.Backups:
    """Delete one backup from the storage, mark it in the catalog, and return it.

    *filename* is a stored filename, a set's name (its newest backup) or the beginning of a
    stored filename that spells the set's name out (``mydir.2013``). What is gone from the
    storage already is only marked.
    """
    from bakthat import inventory, models
    from bakthat.costs import check_before_deleting
    from bakthat.selection import find_backup

    session = Session(profile, config, conf, destination)
    with operation(session, "delete") as current:
        found = find_backup(session, filename, host=host, to_delete=True)
        backend = session.backend(found.backend)
        for unknown in check_before_deleting(backend, [found]).values():
            raise unknown
        log.info("Deleting %s", printable(found.stored_filename))
        with models.catalog(session.catalog_path, write=True):
            models.prove_writable(found)
        # An interrupt leaves it in storage and catalog, or in neither.
        with held_back():
            backend.delete(found.stored_filename)
            with models.catalog(session.catalog_path, write=True, patience=models.RECORD_PATIENCE):
                models.mark_deleted(found)
        if found.backend == "glacier":
            inventory.save_after_change(session)
        return current.finish(found)


def print_backups(backups: Sequence[models.Backups]) -> None:
    """Print backups as a table on standard output."""
    rows = [
        (
            time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(each.backup_date)),
            each.backend,
            each.host,
            terminal.human_size(each.size),
            each.stored_filename,
            each.tags,
        )
        for each in backups
    ]
    terminal.print_table(
        ("DATE (UTC)", "WHERE", "HOST", "SIZE", "NAME", "TAGS"), rows, right=frozenset({3})
    )


def _own_store(session: Session, source: Path) -> frozenset[tuple[int, int]]:
    """Identify the directory that is backed up to: stored into itself, it would never end."""
    if session.destination != "local":
        return frozenset()
    store = expanded(session.profile.local_path)
    if source.resolve().is_relative_to(store.resolve()):
        raise UsageError(
            f"'{printable(source)}' is inside of {printable(store)}, where it would be stored",
            hint="name another destination with -d, or another local_path in the profile",
        )
    try:
        status = store.stat()
    except OSError:
        return frozenset()  # not made yet, or a matter for the backend
    return frozenset({(status.st_dev, status.st_ino)})


def _repeated(
    output: PathLike | None,
    identity_file: PathLike | None,
    prompt: str | bool,
    only: Sequence[str],
) -> list[str]:
    """Return the arguments that a restore must be given again once the backup is thawed.

    Without ``-o`` it might go over the very files that it was to be compared with.
    """
    given = [*(("-o", os.fspath(output)) if output else ())]
    given += ("--identity-file", os.fspath(identity_file)) if identity_file else ()
    given += [word for path in only for word in ("--only", path)]
    return given + ([] if may_ask(prompt) else ["--prompt", "no"])


def _target(output: PathLike | None) -> Path:
    if output is not None and not os.fspath(output):
        raise UsageError("the directory to restore into has an empty name")
    return expanded(output or os.curdir)
