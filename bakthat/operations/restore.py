"""Restore a backup into a directory."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, overload

from bakthat.conf import DEFAULT_PROFILE
from bakthat.errors import UsageError
from bakthat.passwords import may_ask
from bakthat.policy.storage_classes import DEFAULT_DAYS, STANDARD
from bakthat.session.session import Session, operation
from bakthat.system.paths import PathLike, expanded
from bakthat.system.text import printable

# Each operation loads what it alone needs, and a backup what it needs only while another process
# counts the tree. So annotations are for those who read them as text, type checkers for one.
if TYPE_CHECKING:
    from bakthat import models
    from bakthat.backends.base import ThawStatus
    from bakthat.session.cold import Wait
    from bakthat.system.streams import Progress


from collections.abc import Callable
from dataclasses import dataclass

from bakthat import models
from bakthat.archive.extract.selection import Selection
from bakthat.archive.report import ArchiveReport
from bakthat.backends.base import Backend
from bakthat.errors import CorruptArchiveError, NotFoundError
from bakthat.pipeline import read
from bakthat.session.reading import expected_of, find_keys
from bakthat.system.streams import Progress

log = logging.getLogger("bakthat")


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
) -> ThawStatus: ...


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
) -> models.Backups | ThawStatus | None:
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
    backup is thawed is returned, a :class:`~bakthat.backends.base.ThawStatus`, and nothing else
    is done.
    """
    from bakthat.archive.extract.selection import Selection
    from bakthat.session import cold
    from bakthat.session.reading import expected_of, find_to_restore

    chosen = [only] if isinstance(only, str) else list(only)
    choice = Selection(chosen) if chosen else None
    again = _repeated(output, identity_file, prompt, chosen)
    thaw_options = cold.ThawOptions(tier, days, wait, again)
    thaw_options.check()
    session = Session(profile, config, conf, destination)
    with operation(session, "restore", deferred=True) as current:
        found = find_to_restore(session, filename, host)
        if job_check:
            return cold.thaw_status(session, found)
        # Before a thaw is paid for what cannot be read, or not in part.
        if not expected_of(found).is_archive and choice is not None:
            raise UsageError(
                f"{printable(found.stored_filename)} holds one file: there is nothing to choose"
            )
        if not cold.make_readable(session, found, thaw_options):
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


log = logging.getLogger("bakthat")


@dataclass(frozen=True, slots=True)
class RestoreOptions:
    """How the caller wants a backup back."""

    target: Path
    password: str | None
    identity_file: str | os.PathLike[str] | None
    prompt: bool
    progress: Progress | None
    any_size: bool = False
    """Unpack also what comes to far more than was announced."""
    choice: Selection | None = None
    """What of an archive is wanted; None for all."""


def fetch(session: Session, backup: models.Backups, options: RestoreOptions) -> ArchiveReport:
    """Bring *backup* back into a directory: all of it, or, when anything fails, nothing."""
    backend = session.backend(backup.backend)
    key = backup.stored_filename
    expected = expected_of(backup)
    if options.any_size and not expected.is_value:
        expected = replace(expected, limit=None)
    log.info("Downloading...")
    _check_size(backend, backup)
    passphrase, identities = find_keys(
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
                "%s was stored by bakthat 0.6.0 as it is: nothing tells whether the password was "
                "right, so look at what is restored",
                printable(key),
            )
    if expected.compressed:
        log.info("Uncompressing...")
    report = ArchiveReport()
    read.read_object(
        backend.download(key),
        expected,
        options.target,
        passphrase=passphrase,
        identities=identities,
        report=report,
        on_bytes=_meter(options.progress, backup.size),
        selection=options.choice,
    )
    return report


def _meter(progress: Progress | None, total: int) -> Callable[[int], None]:
    done = 0

    def add(size: int) -> None:
        nonlocal done
        done += size
        if progress is not None:
            progress(done, total)

    return add


def _check_size(backend: Backend, backup: models.Backups) -> None:
    name = printable(backup.stored_filename)
    try:
        stored = backend.stat(backup.stored_filename)
    except NotFoundError as exc:
        raise NotFoundError(
            f"{name} is in the catalog, but not in {backend.container} any more",
            hint="it was deleted there by something else than this bakthat",
        ) from exc
    if stored.size not in (backup.size, -1):
        raise CorruptArchiveError(
            f"{name} has {stored.size} bytes on the storage, but {backup.size} were stored: "
            "it was truncated or replaced"
        )
