"""Write a backup as a file."""

from __future__ import annotations

import io
import logging
import os
import select
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any, Self

from bakthat import models
from bakthat.archive.create.content import StreamWriter
from bakthat.conf import DEFAULT_PROFILE
from bakthat.errors import UsageError
from bakthat.operations.backup.request import keys_of_backup
from bakthat.operations.backup.stream import SizeRule, StreamBackup
from bakthat.operations.sources.streams import PYTHON, StreamSource
from bakthat.session.session import Session, operation
from bakthat.system import linux
from bakthat.system.paths import PathLike
from bakthat.system.streams import Progress
from bakthat.system.threads import check_room_for_thread

log = logging.getLogger("bakthat")


_READ_BYTES = 1024 * 1024


class BackupFile(io.BufferedIOBase):
    """The file of :func:`open_backup`. What is written to it becomes the backup.

    Several threads may write; each write stays in one piece. A program may write too, when it is
    given the file as its standard output, by ``subprocess`` or the package ``sh``: it gets a pipe.
    Closing the file ends the writing, and stores nothing: only the end of the block does. After a
    write that failed, nothing is stored, whoever has handled the exception.
    """

    def __init__(self, stream: StreamWriter) -> None:
        super().__init__()
        self._stream = stream
        self._process = os.getpid()
        self._lock = threading.Lock()
        self._pipe: _Pipe | None = None
        self._failure: BaseException | None = None
        self.name: str = ""
        """The name of the set."""
        self.entry: models.Backups | None = None
        """The entry in the catalog, once the block has ended."""

    def writable(self) -> bool:
        """Return True."""
        return True

    def write(self, data: Any, /) -> int:
        """Write all of *data*, an object with the bytes; return how many they are.

        Raises StorageError, and what else stops the backup; ValueError when the file is closed.
        """
        with self._lock, memoryview(data).cast("B") as view:
            self._check_open()
            if self._pipe is None:
                self._put(view)
                return len(view)
            try:  # behind what programs have written
                self._pipe.write(view)
            except BrokenPipeError:  # the block has failed, which is the error
                raise
            except BaseException as exc:
                self._failure = self._failure or exc
                raise
            return len(view)

    def fileno(self) -> int:
        """Return the descriptor of a pipe, for programs that write to it.

        The end of the block waits until no program has the pipe open any more.
        """
        with self._lock:
            self._check_open()
            if self._pipe is None:
                self._pipe = _Pipe(self)
            return self._pipe.descriptor

    def close(self) -> None:
        """End the writing. May be called again."""
        with self._lock:
            if self._pipe is not None:
                self._pipe.close()
            super().close()

    def _check_open(self) -> None:
        if self.closed:
            raise ValueError("the file is closed")
        self._check_process()

    def _check_process(self) -> None:
        if os.getpid() != self._process:
            raise UsageError(
                "the file of open_backup belongs to another process, which writes and ends it",
                hint="end a forked child by os._exit(), or start it before the block",
            )

    def _put(self, data: memoryview) -> None:
        if self._failure is not None:
            raise self._failure
        try:
            self._stream.write(data)
        except BaseException as exc:
            self._failure = exc
            raise

    @contextmanager
    def _writing(self) -> Iterator[Self]:
        """Close the file at the end of the block; raise also what a thread was told in it."""
        try:
            try:
                yield self
                self._check_process()
                self.close()
                if self._pipe is not None:
                    self._pipe.wait()
            finally:
                if os.getpid() == self._process:
                    if self._pipe is not None:
                        self._pipe.stop()
                    self.close()
        except Exception as exc:
            if self._failure not in (None, exc):
                raise self._failure from exc  # a program says no more than that its pipe broke
            raise
        if self._failure is not None:
            raise self._failure


class _Pipe:
    """A pipe from programs to a backup's file."""

    def __init__(self, file: BackupFile) -> None:
        self._file = file
        check_room_for_thread()
        self._output, self.descriptor = os.pipe()
        self._stopped, self._stop = os.pipe()
        linux.enlarge_pipe(self.descriptor, _READ_BYTES)
        self._is_closed = False
        self._thread = threading.Thread(target=self._copy, name="bakthat-output", daemon=True)
        self._thread.start()

    def write(self, data: memoryview) -> None:
        """Write all of *data*. Raises what has stopped the backup."""
        ready = select.poll()
        ready.register(self.descriptor, select.POLLOUT)
        while data:
            try:
                data = data[os.write(self.descriptor, data) :]
            except BlockingIOError:  # a program has made its standard output non-blocking
                ready.poll()
            except BrokenPipeError as exc:
                raise (self._file._failure or exc) from None

    def close(self) -> None:
        """Close this process's end for writing. May be called again."""
        if not self._is_closed:
            self._is_closed = True
            os.close(self.descriptor)

    def wait(self) -> None:
        """Wait until every end for writing is closed, and all was read."""
        self._thread.join()

    def stop(self) -> None:
        """Read no more: whoever still writes is told so by SIGPIPE."""
        with suppress(BrokenPipeError):  # all was read
            os.write(self._stop, b"x")
        self._thread.join()
        os.close(self._stop)

    def _copy(self) -> None:
        poll = select.poll()
        poll.register(self._output, select.POLLIN)
        poll.register(self._stopped, select.POLLIN)
        try:
            buffer = memoryview(bytearray(_READ_BYTES))
            while self._stopped not in (ready for ready, _ in poll.poll()):
                size = os.readv(self._output, [buffer])
                if not size:
                    break
                self._file._put(buffer[:size])
        except BaseException as exc:  # it is raised at the end of the block
            self._file._failure = self._file._failure or exc
            log.debug("a program's output cannot be stored", exc_info=True)
        finally:
            os.close(self._output)
            os.close(self._stopped)


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
            with file._writing():
                yield file
        file.entry = writing.entry
