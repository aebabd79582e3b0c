"""List what a backup holds."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any, Self

from bakthat import models
from bakthat.conf import DEFAULT_PROFILE
from bakthat.errors import NoMatchError, UsageError
from bakthat.format.entry import Entry
from bakthat.session.indexes.opening import open_cached_state, open_state
from bakthat.session.lookup import find_backup
from bakthat.session.session import Session
from bakthat.system.paths import PathLike
from bakthat.system.streams import Progress
from bakthat.system.text import printable

if TYPE_CHECKING:
    from bakthat.archive.index.state import State


class Contents(Iterator[Entry]):
    """The entries of a backup, in the order of its archive."""

    def __init__(self, backup: models.Backups, entries: Iterator[Entry]) -> None:
        self.backup = backup
        """The catalog entry of the backup."""
        self._entries = entries

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Entry:
        return next(self._entries)


def contents(
    filename: str,
    patterns: str | Sequence[str] = (),
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
    progress: Progress | None = None,
) -> Contents:
    """Return an iterator over the entries of a backup; its ``backup`` is the catalog entry.

    *filename*, *destination*, *host* and *source* select the backup, and *password*,
    *identity_file* and *prompt* open it, as for :func:`bakthat.restore`. With *patterns*, only
    these entries are listed, and everything below them: a path that is there, from the top of the
    backup or from just below the directory at its top, or else a pattern as in .gitignore.

    The archive is not touched: its index says what it holds, and with an increment, those of all
    archives that it needs. Each is fetched once, and kept in a cache; *progress* is called while an
    archive is read instead, since it has no index.

    Raises NoMatchError, AmbiguousNameError and UsageError at once; while it is iterated,
    NoMatchError for a pattern that matches nothing, StorageError, CryptoError and ArchiveError.
    """
    session = Session(profile, config, conf, destination)
    backup = _find(session, filename, host, source)
    if backup.is_key_value:
        raise UsageError(
            f"{printable(backup.stored_filename)} is a value of KeyValue, which holds no files",
            hint="bakthat restore restores it, as a JSON file",
        )
    texts = [patterns] if isinstance(patterns, str) else list(patterns)
    secrets = _Secrets(password, identity_file, prompt)
    return Contents(backup, _entries(session, backup, texts, secrets, progress))


class _Secrets:
    """What opens the backup."""

    def __init__(
        self, password: str | None, identity_file: PathLike | None, prompt: str | bool
    ) -> None:
        self.password = password
        self.identity_file = identity_file
        self.prompt = prompt


def _find(session: Session, name: str, host: str | None, source: PathLike | None) -> models.Backups:
    try:
        found = find_backup(session, name, host=host, source=source)
    except NoMatchError:
        found = None
    if found is None or not found.metadata:
        from bakthat.session.reading import find_to_restore  # it loads what reads an archive

        return find_to_restore(session, name, host, source)
    return found


def _entries(
    session: Session,
    backup: models.Backups,
    texts: Sequence[str],
    secrets: _Secrets,
    progress: Progress | None,
) -> Iterator[Entry]:
    with _opened(session, backup, secrets, progress) as state:
        if not texts:
            yield from state.entries()
            return
        from bakthat.archive.extract.selection import Selection

        selection = Selection(texts)
        yield from selection.entries(state)
        selection.check()


@contextmanager
def _opened(
    session: Session, backup: models.Backups, secrets: _Secrets, progress: Progress | None
) -> Iterator[State]:
    with ExitStack() as stack:
        state = stack.enter_context(open_cached_state(session, backup))
        if state is None:
            from bakthat.passwords import may_ask
            from bakthat.session.reading import KeyFinder

            keys = KeyFinder(
                session, secrets.password, secrets.identity_file, may_ask(secrets.prompt)
            )
            state = stack.enter_context(
                open_state(session, backup, keys, whole=True, progress=progress)
            )
        assert state is not None  # made by reading the archive, if need be
        yield state
