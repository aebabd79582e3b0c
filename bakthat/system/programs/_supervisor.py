"""The process between bakthat and a program that it runs, so that the program never outlives it.

It is a process of its own, since only a process that survives a SIGKILL of bakthat can end what
bakthat has started. It imports nothing of bakthat and little of Python, so that it starts in some
milliseconds; :class:`bakthat.system.programs.RunningProgram` runs this file by its path.

The command line has the descriptor of the connection to bakthat, that of the program's standard
input or -1, the size of the program's command line in bytes, the time limit and the grace, in
seconds. The connection brings the command line, its words separated by NUL, then :data:`END_INPUT`
when the standard input is complete. Its end asks for the end of the program. These lines go back::

    started PID     the program runs, and leads the process group PID
    failed ERRNO    it cannot be started
    ended CODE      it ended, CODE is that of :func:`os.waitstatus_to_exitcode`
    empty           no process is left in its group
    late            the time limit has passed; sent before the group is ended for that
    limit           the time limit has passed, but no process was left in the group
    left            a killed process does not end
"""

from __future__ import annotations

import os
import select
import signal
import sys
import time
from collections.abc import Callable
from contextlib import suppress

END_INPUT = b"e"
END_SECONDS = 10.0
"""Seconds to wait for the end of killed processes. On a dead mount, they may never end."""
LONGEST_POLL = 3600.0
"""Seconds; :func:`select.poll` takes no long times."""

IGNORED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
"""Signals that the supervisor ignores: at a shutdown, when all processes get SIGTERM, it goes on
until bakthat has ended."""
# Python ignores SIGPIPE and SIGXFSZ, and bakthat may have been started with SIGCHLD ignored.
DEFAULT = (signal.SIGCHLD, signal.SIGPIPE, signal.SIGXFSZ, *IGNORED)
"""Signals that do to the program what they do by default."""


class Supervisor:
    """Runs one program."""

    def __init__(self, control: int, stdin: int, limit: float, grace: float) -> None:
        self.control = control
        # While this is open, a program whose input was cut by the death of bakthat does not take
        # the input for complete before it is ended.
        self.stdin = stdin
        self.deadline = time.monotonic() + limit
        self.grace = grace
        self.leader = 0
        """The pid of the program until it was waited for, or 0."""
        self.group = 0
        """The process group of the program while a process is in it, or 0."""
        self.woken, wake = os.pipe()
        os.set_blocking(wake, False)
        signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)  # SIG_DFL would wake nothing
        for number in IGNORED:
            signal.signal(number, signal.SIG_IGN)

    def run(self, arguments: list[bytes]) -> None:
        """Start the program, wait, and end what is left of it."""
        try:
            self.leader = self.group = os.posix_spawnp(
                arguments[0],
                arguments,
                os.environb,
                setpgroup=0,
                setsigmask=(),
                setsigdef=DEFAULT,
            )
        except OSError as exc:
            self.send(f"failed {exc.errno}")
            return
        self.send(f"started {self.leader}")
        nowhere = os.open(os.devnull, os.O_RDWR)
        for standard in range(3):  # the program alone holds its pipes
            os.dup2(nowhere, standard)
        self.wait()
        self.end()

    def wait(self) -> None:
        """Return when the program is to be ended; that it ended by itself is no reason."""
        poll = select.poll()
        poll.register(self.control, select.POLLIN)
        poll.register(self.woken, select.POLLIN)
        while (left := self.deadline - time.monotonic()) > 0:
            ready = {each for each, _ in poll.poll(min(left, LONGEST_POLL) * 1000)}
            if self.woken in ready:
                os.read(self.woken, 512)
            self.reap()
            if self.control in ready:
                try:
                    received = os.read(self.control, 1)
                except ConnectionError:
                    return
                if received != END_INPUT:
                    return
                os.close(self.stdin)
        self.reap()
        self.send("late" if self.group else "limit")

    def reap(self) -> None:
        """Report the end of the program, and of its group."""
        lines = []
        if self.leader:
            process, status = os.waitpid(self.leader, os.WNOHANG)
            if not process:
                return
            self.leader = 0
            lines.append(f"ended {os.waitstatus_to_exitcode(status)}")
        # Another group may get the number after the last process of this one.
        if self.group and not is_running(self.group):
            self.group = 0
            lines.append("empty")
        if lines:
            self.send(*lines)

    def is_over(self) -> bool:
        """Return whether no process is left in the group."""
        self.reap()
        return not self.group

    def end(self) -> None:
        """End the whole group, by force after the grace."""
        for number, seconds in ((signal.SIGTERM, self.grace), (signal.SIGKILL, END_SECONDS)):
            if not self.is_over():
                signal_group(self.group, number)
                signal_group(self.group, signal.SIGCONT)  # one that is stopped
                wait_for(self.is_over, seconds)
        if self.group:
            self.send("left")

    def send(self, *lines: str) -> None:
        """Send lines to bakthat, which may be gone."""
        with suppress(OSError):
            os.write(self.control, "".join(f"{line}\n" for line in lines).encode())


def wait_for(is_over: Callable[[], bool], seconds: float) -> None:
    """Return when *is_over* is true, or after *seconds*.

    Nothing tells the end of a process that is no child, so this asks, ever less often.
    """
    deadline = time.monotonic() + seconds
    pause = 0.001
    while not is_over() and time.monotonic() < deadline:
        time.sleep(pause)
        pause = min(2 * pause, 0.1)


def signal_group(group: int, number: int) -> None:
    """Send a signal to a group, as far as that is allowed."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(group, number)


def is_running(group: int) -> bool:
    """Return whether a process of a group runs. One that only waits for its parent does not."""
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # of another user, by sudo; on macOS also zombies
        return True
    # In a container, the first process often waits for no child, and they stay as zombies.
    try:
        processes = [each for each in os.listdir("/proc") if each.isdecimal()]
    except OSError:
        return True
    return any(is_member(each, group) for each in processes)


def is_member(process: str, group: int) -> bool:
    """Return whether a process of Linux runs, and is in *group*."""
    try:
        with open(f"/proc/{process}/stat", "rb") as file:
            state, _parent, its_group = file.read().rpartition(b")")[2].split()[:3]
    except (OSError, ValueError):
        return False
    return int(its_group) == group and state not in (b"Z", b"X")


def read_exactly(descriptor: int, size: int) -> bytes:
    """Return the next *size* bytes. Raises EOFError."""
    data = b""
    while len(data) < size:
        received = os.read(descriptor, size - len(data))
        if not received:
            raise EOFError
        data += received
    return data


def main() -> None:
    """Run the program that the command line of this process describes."""
    control, stdin, size = map(int, sys.argv[1:4])
    limit, grace = map(float, sys.argv[4:6])
    os.set_inheritable(control, False)
    if stdin >= 0:
        os.set_inheritable(stdin, False)
    supervisor = Supervisor(control, stdin, limit, grace)
    try:
        arguments = read_exactly(control, size).split(b"\0")
    except (EOFError, ConnectionError):
        return
    supervisor.run(arguments)


if __name__ == "__main__":
    main()
    os._exit(0)  # there is nothing to clean up
