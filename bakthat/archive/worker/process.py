"""A forked process that does one task, and never outlives its parent."""

from __future__ import annotations

import contextlib
import logging
import os
import select
import signal
import socket
import threading
from collections.abc import Callable

from bakthat.archive.worker.messages import ConnectionEndedError, send_failure
from bakthat.system import linux
from bakthat.system.signals import SIGNALS, held_back
from bakthat.system.threads import check_room_for_thread

log = logging.getLogger("bakthat.archive")

END_SECONDS = 10.0
"""Seconds to wait for the end of a killed process. On a dead mount, it may never end."""
_BEGIN = b"b"
"""The message that lets a process begin."""


def may_fork() -> bool:
    """Return whether a worker can be forked: on Linux with pidfds, from a single thread.

    With more threads, a lock that another thread holds would stay locked in the child for ever.
    """
    if not linux.HAS_PIDFDS:
        return False
    try:
        # This counts the threads of libraries too, which Python does not know.
        return len(os.listdir("/proc/self/task")) == 1
    except OSError:
        return False


class WorkerProcess:
    """A forked process that runs *work* with its end of a connection, and then ends.

    An exception of *work* is sent as a failure (:mod:`bakthat.archive.worker.messages`). The
    process shares open files and the memory of :mod:`mmap` with this one. A signal that stops a
    command ends it, and so does the end of this process. The caller must call :meth:`end`. Raises
    OSError where no process can be started.
    """

    def __init__(self, work: Callable[[socket.socket], None]) -> None:
        self.connection, theirs = socket.socketpair()
        self._pidfd = -1
        try:
            self._start(work, theirs)
        except BaseException:
            self.end()
            raise
        finally:
            theirs.close()

    def _start(self, work: Callable[[socket.socket], None], theirs: socket.socket) -> None:
        # A pidfd always means the same process; a pid may be reused after its process has ended.
        with held_back():
            parent = linux.open_pidfd(os.getpid())
            process = -1
            try:
                _check_end_is_possible(parent)
                process = os.fork()
            finally:
                if process:  # only the child needs it
                    os.close(parent)
            if process:
                self._pidfd = self._pidfd_of(process)
                self.connection.sendall(_BEGIN)
                return
            try:
                self.connection.close()  # or the connection would not end with the parent
                _restore_default_signals()
                if theirs.recv(1):
                    _run(work, theirs, parent)
            finally:
                os._exit(0)  # never return to the caller in the child

    def _pidfd_of(self, process: int) -> int:
        """Return a pidfd of the child *process*; without one, let it end first. Raises OSError.

        The child waits for a message, so it has done nothing, and its pid is still its own.
        """
        try:
            return linux.open_pidfd(process)
        except OSError:
            self.connection.close()  # which ends the child
            with contextlib.suppress(ChildProcessError):  # this program ignores SIGCHLD
                os.waitpid(process, 0)
            raise

    def end(self) -> None:
        """Kill the process unless it has ended, and return when it is gone; may be called again.

        Only a process that waits for a dead mount is left behind, with a warning.
        """
        self.connection.close()
        if self._pidfd < 0:
            return
        pidfd, self._pidfd = self._pidfd, -1
        with held_back("ending the process that reads the files"):
            try:
                with contextlib.suppress(ProcessLookupError):
                    linux.signal_pidfd(pidfd, signal.SIGKILL)
                if not _wait_readable(pidfd, END_SECONDS):
                    log.warning(
                        "the process that reads the files does not end; a mount may be dead"
                    )
                linux.reap_pidfd(pidfd)
            finally:
                os.close(pidfd)


def _run(work: Callable[[socket.socket], None], connection: socket.socket, parent: int) -> None:
    with contextlib.suppress(ConnectionEndedError, ConnectionError):
        try:
            _end_with(parent)
            work(connection)
        except (ConnectionEndedError, ConnectionError):
            raise
        except Exception as exc:  # noqa: BLE001  # raised in the parent
            send_failure(connection, exc)


def _check_end_is_possible(pidfd: int) -> None:
    """Raise OSError unless a worker can be killed and waited for by its pidfd.

    Linux 5.3 cannot wait for a pidfd, and a sandbox may forbid both. *pidfd* is that of this
    process: signal 0 does nothing to it, and it is not waited for, since it is no child.
    """
    linux.signal_pidfd(pidfd, 0)
    linux.reap_pidfd(pidfd)


def _end_with(parent: int) -> None:
    """End this process when *parent*, a pidfd, ends, even during a long system call."""

    def watch() -> None:
        _wait_readable(parent, None)
        os._exit(1)

    check_room_for_thread()
    threading.Thread(target=watch, daemon=True).start()


def _wait_readable(descriptor: int, seconds: float | None) -> bool:
    """Wait until *descriptor* is readable, as a pidfd is once its process has ended."""
    poll = select.poll()  # select() takes no descriptor above 1023
    poll.register(descriptor, select.POLLIN)
    return bool(poll.poll(None if seconds is None else seconds * 1000))


def _restore_default_signals() -> None:
    for number in SIGNALS:
        if signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, signal.SIG_DFL)
