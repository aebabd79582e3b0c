"""Return a shell script that restores a backup without bakthat."""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack
from typing import Any

from bakthat import models
from bakthat.archive.index.reader import IndexReader
from bakthat.archive.index.state import State
from bakthat.conf import DEFAULT_PROFILE
from bakthat.errors import (
    BakthatError,
    CorruptArchiveError,
    CorruptIndexError,
    NotFoundError,
    UsageError,
)
from bakthat.format.description import sanitized
from bakthat.format.entry import Entry, EntryType
from bakthat.operations.by_hand.script import Part, Storage, write_line, write_script
from bakthat.passwords import may_ask
from bakthat.session.chains import needed_backup, needs_within, of_one_set
from bakthat.session.indexes.opening import open_cached_state, open_state
from bakthat.session.reading import KeyFinder, expected_of, find_to_restore
from bakthat.session.session import Session
from bakthat.session.sets import id_of_source
from bakthat.session.vault import VaultInventory
from bakthat.system.paths import PathLike, expanded
from bakthat.system.text import enumerate_some, from_native, printable, utc_time

log = logging.getLogger("bakthat")

_LONG_LISTING = 256 * 1024
"""Bytes of the names in a directory from which on tar may not know what was removed there. An
increment has no such record from 512 KiB on; removing before tar does it is harmless."""
_NAME_BYTES = 255 + 2
"""The most bytes of a name in tar's record of a directory."""
_FEW_ENTRIES = _LONG_LISTING // _NAME_BYTES
"""So many entries of a whole backup are no long listing, wherever they are."""


def restore_script(
    filename: str,
    destination: str | None = None,
    profile: str = DEFAULT_PROFILE,
    config: PathLike | None = None,
    *,
    conf: Mapping[str, Any] | None = None,
    host: str | None = None,
    source: PathLike | None = None,
    password: str | None = None,
    identity_file: PathLike | None = None,
    prompt: str | bool = "yes",
) -> str:
    """Return a POSIX shell script that restores a backup without bakthat.

    *filename*, *destination*, *host* and *source* select the backup as for :func:`bakthat.restore`.
    The script restores into the directory where it runs, which must be empty. It needs GNU tar,
    gzip, age and ``aws``, as far as the backup does, and holds no secrets. For an archive in a
    vault, its comments say how to fetch that.

    No key is needed, but for an increment of a tree that may have a directory of some thousand
    names: what was removed there is only in the index. If that is not in the cache of this machine,
    *password*, *identity_file* and *prompt* open it, as for a restore; a warning says that it
    could not be opened.

    Raises NoMatchError, AmbiguousNameError, UsageError, ConfigError; NotFoundError and
    CorruptArchiveError for a needed archive that is missing or was replaced; and other
    StorageErrors.
    """
    session = Session(profile, config, conf, destination)
    backup = find_to_restore(session, filename, host, source)
    keys = KeyFinder(session, password, identity_file, may_ask(prompt))
    with ExitStack() as stack:
        archives, state = _chain(stack, session, backup, keys)
        parts = [
            Part(
                each,
                expected_of(each),
                _removals(state, number) if state is not None and number else (),
                _archive_id(session, each),
            )
            for number, each in enumerate(archives)
        ]
    identity = _identity(session, identity_file)
    return write_script(parts, _storage(session, backup), identity=identity)


def restore_line(
    backup: models.Backups, profile: str = DEFAULT_PROFILE, config: PathLike | None = None
) -> str:
    """Return one command line that restores *backup* without bakthat; "" where it takes more."""
    session = Session(profile, config, None)
    part = Part(backup, expected_of(backup))
    return write_line(part, _storage(session, backup), identity=_identity(session, None))


def _identity(session: Session, identity_file: PathLike | None) -> str:
    """Return the path of the file of private keys, "" if it is not known."""
    file = identity_file if identity_file is not None else session.profile.identity_file
    return from_native(str(expanded(file))) if file is not None else ""


def _storage(session: Session, backup: models.Backups) -> Storage:
    container = session.backend(backup.backend).container
    profile = session.profile
    if backup.backend == "local":
        return Storage("local", container)
    is_vault = backup.backend == "glacier"
    endpoint_url = profile.glacier_endpoint_url if is_vault else profile.endpoint_url
    return Storage(backup.backend, container, endpoint_url, profile.region_name)


def _archive_id(session: Session, backup: models.Backups) -> str:
    """Return the id in the vault; "" in other storages. Raises NotFoundError if it is not known."""
    if backup.backend != "glacier":
        return ""
    found = VaultInventory(session).known().get(backup.stored_filename)
    if found is None:
        raise NotFoundError(
            f"the archive of {printable(backup.stored_filename)} in the vault is not known here",
            hint="bakthat show_glacier_inventory asks the vault for it",
        )
    return found


def _chain(
    stack: ExitStack, session: Session, backup: models.Backups, keys: KeyFinder
) -> tuple[list[models.Backups], State | None]:
    """Return the archives to apply, the full first, and the state if it is needed."""
    if not backup.is_increment:
        return [backup], None
    state = None
    try:
        state = stack.enter_context(open_cached_state(session, backup))
    except CorruptIndexError as exc:
        log.debug("the index in the cache cannot be used: %s", exc)
    listed: list[models.Backups] = []
    if state is None:
        listed = _listed_needs(session, backup)
        is_complete = bool(listed) and [each.date for each in listed] == list(backup.needs)
        if not is_complete or _may_list_many([*listed, backup]):
            try:
                state = _state_by_key(stack, session, backup, keys)
            except _NoIndexError as exc:
                if not is_complete:
                    raise _unknown_needs_error(backup, listed, exc) from exc
                log.warning(
                    "%s, so the script may lack commands: what was removed from a directory of "
                    "thousands of files is only in the index",
                    exc,
                )
    if state is not None:
        listed = [needed_backup(session, backup, each) for each in state.header.needs]
    return [*listed, backup], state


def _listed_needs(session: Session, backup: models.Backups) -> list[models.Backups]:
    """Return which archives the backup needs by the dates in its description, the full first.

    Those that the catalog does not list are missing; nothing is returned where the description is.
    """
    own = id_of_source(backup)
    chosen: dict[int, models.Backups] = {}
    for each in needs_within(backup, of_one_set(session, backup)) if backup.needs else ():
        # Of two of one date, one is of a set of the same name whose source is not known.
        if each.date not in chosen or id_of_source(each) == own:
            chosen[each.date] = each
    return list(chosen.values())


def _may_list_many(archives: Sequence[models.Backups]) -> bool:
    """Return whether a directory may have so many names that tar has no record of them.

    The counts of a description were made before the tree was read, so they are doubled.
    """
    found = [sanitized(each.metadata) for each in archives]
    if not all("files" in each and "directories" in each for each in found):
        return True
    count = sum(int(each["files"]) + int(each["directories"]) for each in found)
    return 2 * count >= _FEW_ENTRIES


class _NoIndexError(Exception):
    """The indexes of a backup cannot be opened; the message says why."""

    def __init__(self, backup: models.Backups, reason: str, hint: str = "") -> None:
        name = printable(backup.stored_filename)
        super().__init__(f"the index of {name} was not read ({reason})")
        self.hint = hint


def _state_by_key(
    stack: ExitStack, session: Session, backup: models.Backups, keys: KeyFinder
) -> State:
    """Open the indexes on the storage.

    Raises _NoIndexError; NotFoundError and CorruptArchiveError for a needed archive.
    """
    if backup.is_encrypted:
        log.info(
            "reading the index of %s, which needs the key: it says what was removed",
            printable(backup.stored_filename),
        )
    try:
        state = stack.enter_context(
            open_state(session, backup, keys, whole=True, may_read_archive=False, is_quiet=True)
        )
    except BakthatError as exc:
        is_lost = isinstance(exc, NotFoundError | CorruptArchiveError)
        if is_lost and not isinstance(exc, CorruptIndexError):
            raise
        raise _NoIndexError(backup, str(exc), exc.hint) from exc
    if state is None:
        raise _NoIndexError(backup, "it has none")
    return state


def _unknown_needs_error(
    backup: models.Backups, listed: Sequence[models.Backups], why: _NoIndexError
) -> BakthatError:
    name = printable(backup.stored_filename)
    if not backup.needs:
        return UsageError(
            f"which backups {name} needs is not known: its description was lost, and {why}",
            hint=why.hint or "bakthat sync reads the description again, if it is stored",
        )
    missing = sorted(set(backup.needs).difference(each.date for each in listed))
    dates = enumerate_some([f"{utc_time(each)} UTC" for each in missing])
    return NotFoundError(
        f"{name} needs the backup of {dates}, which the catalog does not list",
        hint="bakthat sync lists what is stored",
    )


def _removals(state: State, number: int) -> list[str]:
    """Return the paths to remove before the increment *number* of *state* is applied.

    They are those that tar does not remove, or fails to replace, since their directory has too long
    a listing for its record: what the increment removes, and directories that are none any more.
    """
    indexes = state.indexes[: number + 1]
    if sum(each.footer.records for each in indexes) < _FEW_ENTRIES:
        return []
    # Twice, since only the paths in long listings are kept in memory.
    parents = {_parent(each.path) for each in _no_directories(indexes[-1])}
    long = _long_listings(State(indexes), parents) if parents else set()
    if not long:
        return []
    removed: list[str] = []
    changed: set[str] = set()
    for each in _no_directories(indexes[-1]):
        if _parent(each.path) not in long:
            continue
        if each.type is EntryType.REMOVED:
            removed.append(each.path)
        else:
            changed.add(each.path)
    if changed:
        before = State(indexes[:-1]).entries(changed, where=changed.__contains__)
        removed += [each.path for each in before if each.type is EntryType.DIRECTORY]
    return removed


def _no_directories(index: IndexReader) -> Iterator[Entry]:
    """Yield what an increment removes, and what it stores except directories."""
    for entries in index.segments():
        for each in entries:
            is_stored = each.type.is_member and each.type is not EntryType.DIRECTORY
            if is_stored or each.type is EntryType.REMOVED:
                yield each


def _long_listings(state: State, directories: Collection[str]) -> set[str]:
    """Return those of *directories* of which an increment may have no record for tar."""
    sizes = dict.fromkeys(directories, 0)
    for each in state.entries(directories, where=lambda path: _parent(path) in sizes):
        name = each.path.rpartition("/")[2]
        sizes[_parent(each.path)] += len(name.encode("utf-8", "surrogateescape")) + 2
    return {directory for directory, size in sizes.items() if size >= _LONG_LISTING}


def _parent(path: str) -> str:
    return path.rpartition("/")[0]
