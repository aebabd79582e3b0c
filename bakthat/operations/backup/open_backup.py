"""Write a backup as a file."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from bakthat import models
from bakthat.archive.create.content import StreamWriter
from bakthat.conf import DEFAULT_PROFILE
from bakthat.operations.backup.request import keys_of_backup
from bakthat.operations.backup.stream import SizeRule, StreamBackup
from bakthat.operations.sources.streams import PYTHON, StreamSource
from bakthat.session.session import Session, operation
from bakthat.system.paths import PathLike
from bakthat.system.streams import Progress


class BackupFile(io.BufferedIOBase):
    """The file of :func:`open_backup`. What is written to it becomes the backup.

    Closing it ends the writing, and stores nothing: only the end of the block does.
    """

    def __init__(self, stream: StreamWriter) -> None:
        super().__init__()
        self._stream = stream
        self.name: str = ""
        """The name of the set."""
        self.entry: models.Backups | None = None
        """The entry in the catalog, once the block has ended."""

    def writable(self) -> bool:
        """Return True."""
        return True

    def write(self, data: Any, /) -> int:
        """Write all of *data*, an object with the bytes; return how many they are."""
        if self.closed:
            raise ValueError("the file is closed")
        with memoryview(data).cast("B") as view:
            self._stream.write(view)
            return len(view)


@contextmanager
def open_backup(
    name: str,
    destination: str | None = None,
    profile: str = DEFAULT_PROFILE,
    config: PathLike | None = None,
    *,
    conf: Mapping[str, Any] | None = None,
    password: str | None = None,
    recipients: str | Sequence[str] = (),
    prompt: str | bool = "yes",
    tags: str | Sequence[str] = (),
    host: str | None = None,
    s3_reduced_redundancy: bool = False,
    create: bool = False,
    allow_empty: bool = False,
    accept_size: bool = False,
    fail_below: str | int | None = None,
    progress: Progress | None = None,
) -> Iterator[BackupFile]:
    """Yield a binary file, for a ``with``; what is written to it is stored when the block ends.

    *name* is that of the set. When the block raises anything, nothing is stored; nor is it when the
    program ends in the block. The file's ``entry`` is the catalog entry, once the block has ended.
    The arguments are those of :func:`bakthat.backup`, which says about a stream what is raised.
    """
    session = Session(profile, config, conf, destination, host=host)
    rule = SizeRule.make(allow_empty=allow_empty, accept_size=accept_size, fail_below=fail_below)
    source = StreamSource.named(name, PYTHON, compress=session.profile.compress)
    with operation(session, "backup") as current:
        backup = StreamBackup(
            session,
            current,
            source,
            rule,
            keys=lambda: keys_of_backup(session, password, recipients, prompt),
            tags=tags,
            s3_reduced_redundancy=s3_reduced_redundancy,
            create=create,
            progress=progress,
        )
        with backup.writing() as (stream, writing):
            file = BackupFile(stream)
            file.name = name
            with contextlib.closing(file):
                yield file
        file.entry = writing.entry
