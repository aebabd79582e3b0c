"""Locks between processes, which the operating system holds.

A lock ends with the process that holds it, however that ends, so that none is ever stale. Its file
stays: another process may have opened it already, and would lock what is gone.
"""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import socket
import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from bakthat.errors import BakthatError, CatalogError, LockedError
from bakthat.system.text import printable, reason_of, shortage_error, utc_time

log = logging.getLogger("bakthat")

_HOLDER_BYTES = 1024
"""How much is read of what a file says of its holder."""


@contextmanager
def held(path: Path, *, wait: bool, about: str, outer: Collection[int] = ()) -> Iterator[None]:
    """Hold the lock of the file *path* during the block; make the file and its directory first.

    *about* says what is locked, for messages. With *wait*, wait as long as another process holds
    it, and log that. Else raise LockedError, which says who holds it; also with *wait* when that is
    one of the processes *outer*, which wait for this one. Raises CatalogError when the file cannot
    be made or locked, ResourceError when the system is out of what that needs.
    """
    descriptor = _open(path)
    try:
        _lock(descriptor, path, wait=wait, about=about, outer=outer)
        yield
    finally:
        # Not by closing it alone: a forked process that does not end has it open too.
        with suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_UN)
        os.close(descriptor)


def _open(path: Path) -> int:
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as exc:
        raise _error("cannot open the lock", path, exc) from exc


def _lock(descriptor: int, path: Path, *, wait: bool, about: str, outer: Collection[int]) -> None:
    try:
        if not _try(descriptor):
            holder = _holder(descriptor)
            process = next((each for each in outer if holder.startswith(_process(each))), None)
            if process is not None:
                raise LockedError(
                    f"process {process}, which has started this command, has not done with {about}",
                    hint="run it after that job: --wait would wait for ever",
                )
            if not wait:
                raise LockedError(
                    f"another run is still going on {about}: {holder}",
                    hint="--wait waits for its end (wait=True in Python)",
                )
            log.info("Waiting for another run on %s: %s", about, holder)
            fcntl.flock(descriptor, fcntl.LOCK_EX)
    except OSError as exc:
        raise _error("cannot lock", path, exc) from exc
    # For messages only: a full disk does not matter.
    with suppress(OSError):
        os.ftruncate(descriptor, 0)
        said = f"{_process(os.getpid())}since {utc_time(time.time())} UTC"
        os.pwrite(descriptor, said.encode(), 0)


def _process(pid: int) -> str:
    return f"process {pid} on {printable(socket.gethostname())}, "


def _try(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _holder(descriptor: int) -> str:
    """Return who holds the lock, as the file says: its content may be old, cut or missing."""
    said = os.pread(descriptor, _HOLDER_BYTES, 0).decode(errors="replace")
    return printable(said) or "a process that has not said its number"


def _error(what: str, path: Path, exc: OSError) -> BakthatError:
    shortage = shortage_error(exc)
    if shortage is not None:
        return shortage
    hint = (
        "put the catalog on a file system with locks (database in the profile)"
        if exc.errno in (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS)
        else "let this user write there, or name another place as database in the profile"
    )
    return CatalogError(f"{what} {printable(path)}: {reason_of(exc)}", hint=hint)
