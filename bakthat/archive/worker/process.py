"""A process forked from this one that does one task, and never outlives it."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import sys
import threading
from collections.abc import Callable

from bakthat.archive.worker.messages import ConnectionEndedError, send_failure
from bakthat.system.signals import SIGNALS, held_back


def may_fork() -> bool:
    """Return whether this process has a single thread, and the system what a worker needs.

    With more threads it may not fork: the child would never get a lock that another thread holds.
    """
    # A Python that was built for old kernels, such as those that uv installs, has no pidfd.
    if sys.platform != "linux" or not (
        hasattr(os, "pidfd_open")
        and hasattr(os, "P_PIDFD")
        and hasattr(signal, "pidfd_send_signal")
    ):
        return False
    try:
        # All threads, those of libraries too, which Python does not know.
        return len(os.listdir("/proc/self/task")) == 1
    except OSError:
        return False


class WorkerProcess:
    """A forked process that runs *work* with its end of a connection, and then ends.

    What *work* raises is sent as a failure (:mod:`bakthat.archive.worker.messages`). The process
    shares this one's files and what memory :mod:`mmap` shares. A signal that stops a command ends
    it, and so does the end of this process. The caller must call :meth:`end`. Raises OSError where
    no process can be started.
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
        # A descriptor means one process, whose number may be another's once it has ended.
        with held_back():
            parent = os.pidfd_open(os.getpid())
            process = -1
            try:
                _check_end_is_possible(parent)
                process = os.fork()
            finally:
                if process:  # the child watches it
                    os.close(parent)
            if process:
                with contextlib.suppress(ProcessLookupError):  # it has ended, and is not waited for
                    self._pidfd = os.pidfd_open(process)
                return
            try:
                self.connection.close()  # or the connection would not end with the parent
                _die_by_signals()
                _run(work, theirs, parent)
            finally:
                os._exit(0)  # never return to the caller in the child

    def end(self) -> None:
        """Kill the process unless it has ended, and return when it is gone; may be called again."""
        self.connection.close()
        if self._pidfd < 0:
            return
        with held_back():
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)
            # None to wait for where this process ignores SIGCHLD, or waited for any child.
            with contextlib.suppress(ChildProcessError):
                os.waitid(os.P_PIDFD, self._pidfd, os.WEXITED)
            os.close(self._pidfd)
            self._pidfd = -1


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
    """Raise OSError unless a worker can be killed and waited for by its descriptor.

    Linux 5.3 cannot wait by one, and a sandbox may refuse either. *pidfd* is of no child.
    """
    signal.pidfd_send_signal(pidfd, 0)
    with contextlib.suppress(ChildProcessError):
        os.waitid(os.P_PIDFD, pidfd, os.WEXITED | os.WNOHANG)


def _end_with(parent: int) -> None:
    """End this process when *parent*, a descriptor of a process, ends: also in a long call."""

    poll = select.poll()  # select() takes no descriptor above 1023
    poll.register(parent, select.POLLIN)

    def watch() -> None:
        poll.poll()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _die_by_signals() -> None:
    for number in SIGNALS:
        if signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, signal.SIG_DFL)
