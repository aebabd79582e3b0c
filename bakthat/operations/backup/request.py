"""What a backup was asked for: its source, what is left out, its keys and where it is stored."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bakthat.archive.create.excludes import find_rules
from bakthat.archive.create.walk import WalkOptions
from bakthat.archive.report import ArchiveReport, PlanTotals
from bakthat.backends.base import Backend
from bakthat.errors import UsageError
from bakthat.operations.sources.base import ContentCheck
from bakthat.operations.sources.files import BackupSource
from bakthat.passwords import EncryptionKeys, encryption_keys, may_ask
from bakthat.session.session import Session
from bakthat.system.paths import PathLike, expanded, is_url
from bakthat.system.text import counted, printable

log = logging.getLogger("bakthat")

# As in `operation`, nothing above may import the catalog, the storage client or age.


@dataclass(frozen=True, slots=True)
class BackupRequest:
    """A backup to make. Everything but its name, and whether it is an increment, is decided."""

    session: Session
    backend: Backend
    source: BackupSource
    options: WalkOptions
    keys: EncryptionKeys

    @classmethod
    def make(
        cls,
        session: Session,
        source: BackupSource,
        *,
        backend: Backend,
        exclude_file: PathLike | None,
        ignore_files: bool,
        exclude_caches: bool,
        one_file_system: bool,
        password: str | None,
        recipients: str | Sequence[str],
        prompt: str | bool,
        make_store: bool,
        create: bool = False,
    ) -> BackupRequest:
        """Return the request; ask for a password if need be. The arguments are those of a backup.

        With *make_store*, a local store that is missing is made, since it may be inside the source.
        Raises UsageError, ConfigError, PasswordError, KeyFormatError and StorageError.
        """
        rules = find_rules(
            source.path,
            exclude_file=os.fspath(exclude_file) if exclude_file is not None else None,
            automatic=ignore_files,
        )
        if session.profile.object_lock:
            from bakthat.session.locks.retention import check_rule

            check_rule(session)
        keys = keys_of_backup(session, password, recipients, prompt)
        is_local = session.destination == "local"
        if make_store and is_local and not os.path.isdir(backend.container):
            from bakthat.session.container import make_container

            # It may be inside the source, and the walk skips it by its inode.
            make_container(session, backend, create=create)
        options = WalkOptions(
            rules=rules,
            one_file_system=one_file_system,
            skip_caches=exclude_caches,
            unvisited=session.unvisited(session.destination, source.path),
        )
        return cls(session, backend, source, options, keys)

    def content_check(self, *, allow_empty: bool, is_increment: bool) -> ContentCheck:
        """Return what warns when nothing was stored, and logs what was left out.

        *allow_empty* says that a backup without any content is meant.
        """

        def check(report: ArchiveReport, totals: PlanTotals | None) -> Mapping[str, Any]:
            counts = report
            if is_increment and totals is not None:
                counts = ArchiveReport(totals.full_files, totals.full_directories)
            why = "" if allow_empty else self.source.why_empty(counts, self.options)
            if why:
                report.warn(
                    f"{printable(self.source.path)}: nothing in it is stored: {why}; "
                    "--allow-empty says that this is meant"
                )
            self._log_excluded(report)
            return {}

        return check

    def _log_excluded(self, report: ArchiveReport) -> None:
        if self.options.rules is not None:
            log.info(
                "Left out %s and %s by %s",
                counted(report.excluded_files, "file"),
                f"{report.excluded_directories} directories"
                if report.excluded_directories != 1
                else "1 directory",
                printable(str(self.options.rules.path)),
            )


def keys_of_backup(
    session: Session, password: str | None, recipients: str | Sequence[str], prompt: str | bool
) -> EncryptionKeys:
    """Return the keys of a new backup; ask for a password if need be.

    The arguments are those of a backup. Raises ConfigError, PasswordError and KeyFormatError.
    """
    keys = encryption_keys(
        session.profile.as_mapping(),
        password=password,
        recipients=[recipients] if isinstance(recipients, str) else recipients,
        prompt=may_ask(prompt),
    )
    _check_recipients(keys)
    return keys


def refuse_source_in_store(session: Session, source: Path) -> None:
    """Raise UsageError when *source* is inside of the local destination."""
    if session.destination != "local":
        return
    store = expanded(session.profile.local_path)
    if source.resolve().is_relative_to(store.resolve()):
        raise UsageError(
            f"'{printable(source)}' is inside of the local destination {printable(store)}",
            hint="choose another destination with -d, or another local_path in the profile",
        )


def _check_recipients(keys: EncryptionKeys) -> None:
    """Raise KeyFormatError for an invalid recipient, before the storage is touched."""
    if keys.recipients:
        from bakthat.crypto import age

        for recipient in keys.recipients:
            age.parse_recipient(recipient)


def refuse_misplaced(source: str, **given: bool) -> None:
    """Raise UsageError for an argument that means nothing for such a *source*."""
    for name, is_given in given.items():
        if is_given:
            raise UsageError(
                f"'{name.replace('_', '-')}' cannot be used when {source} is backed up",
                hint="leave it out",
            )


def refuse_url(filename: PathLike | None) -> None:
    """Raise UsageError for the URL of a database, which is not quoted: it may have a password."""
    if is_url(filename):
        raise UsageError(
            "a URL is no file or directory", hint="bakthat.backup_databases backs up databases"
        )
