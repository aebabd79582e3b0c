"""Running a program, so that it never outlives this process and that its end is known."""

from __future__ import annotations

import errno
import io
import logging
import os
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import ExitStack, suppress
from dataclasses import replace
from typing import Self

from bakthat.system.programs import _supervisor
from bakthat.system.programs._pipes import (
    CHUNK,
    ProgramErrors,
    ProgramInput,
    ProgramOutput,
    above_standard,
    file_of,
    make_pipe,
)
from bakthat.system.programs.ended import Ended
from bakthat.system.programs.program import Program, command_line
from bakthat.system.signals import held_back, report_wait
from bakthat.system.text import human_size
from bakthat.system.threads import check_room_for_thread

log = logging.getLogger("bakthat.programs")

GRACE = 5.0
"""Seconds between SIGTERM and SIGKILL."""
MAX_OUTPUT = 16 << 20
"""How many bytes :func:`run_program` returns at most."""
_END_SECONDS = 2 * (GRACE + _supervisor.END_SECONDS)
"""Seconds after which a supervisor that was asked to end is killed, far more than it needs."""


class RunningProgram:
    """A program that runs, in a process group of its own, until :meth:`close`.

    A context manager. However this process ends, so does the program, with all of its group: a
    supervisor, a small process of its own, ends them (``_supervisor.py``).
    """

    def __init__(
        self,
        program: Program,
        *,
        stdin: bool | bytes = False,
        stdout: bool = False,
        timeout: float | None = None,
    ) -> None:
        """Start *program*, and end it after *timeout* seconds.

        *stdin* is what it reads; True lets :attr:`stdin` write that, False is nothing. With
        *stdout*, :attr:`stdout` reads what it writes; without, that is treated as its standard
        error: the end is kept, and each line is logged. Raises OSError when it cannot
        be started, and MemoryError without memory for a thread.
        """
        self._program = program
        self._timeout = timeout
        self._resources = ExitStack()
        self._input: ProgramInput | None = None
        self._output: ProgramOutput | None = None
        self._supervisor: subprocess.Popen[bytes] | None = None
        self._watcher: threading.Thread | None = None
        # What the supervisor has sent is handled by the thread and by wait().
        self._lock = threading.RLock()
        self._received = b""
        self._group = 0
        """The process group while a process is in it."""
        self._status: int | None = None
        """Its exit code, or the negative number of the signal that has ended it."""
        self._has_ended = threading.Event()
        self._is_connected = True
        self._is_asked = False
        """Whether this process has asked for the end."""
        self._is_late = self._is_killed = self._is_lost = False
        """Whether the time limit, this process or the loss of the supervisor made it fail."""
        self._started = self._ended = time.monotonic()
        try:
            with held_back(f"starting {program.name}"):
                self._start(stdin, stdout)
        except BaseException:
            self.close()
            raise

    @property
    def stdin(self) -> ProgramInput:
        """Where to write what the program reads; close it when that is complete."""
        assert self._input is not None, "started without stdin=True"
        return self._input

    @property
    def stdout(self) -> io.RawIOBase:
        """What the program writes; it ends early when the program has failed.

        Only :meth:`wait` says whether its end is the true one.
        """
        assert self._output is not None, "started without stdout=True"
        return self._output

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def wait(self) -> Ended:
        """Wait for the end of the program, not for that of what it has started; say how it was.

        Read its standard output to the end before, and close its standard input.
        """
        report_wait()
        self._has_ended.wait()
        with self._lock:
            self._receive()  # perhaps the time limit, which has ended the output
            exit_code = signal_number = None
            if self._status is not None and not self._is_lost:
                exit_code = self._status if self._status >= 0 else None
                signal_number = -self._status if self._status < 0 else None
            if exit_code == 0 and self._is_killed:
                exit_code, signal_number = None, signal.SIGTERM.value
            seconds = self._ended - self._started
            if self._is_late and self._timeout is not None:
                seconds = self._timeout
            return Ended(exit_code, signal_number, self._is_late, seconds, self._stderr.text())

    def has_left(self) -> bool:
        """Return whether processes of its group still run, once :meth:`wait` has returned."""
        with self._lock:
            return bool(self._group)

    def kill(self) -> None:
        """Let the program be ended, with its group: by SIGTERM, after :data:`GRACE` by SIGKILL.

        Does not wait; any thread may call it. The program has failed then, unless it had ended and
        no process held its standard output any more.
        """
        with self._lock:
            self._receive()
            self._ask_for_end()

    def close(self) -> None:
        """End the program with its group, as :meth:`kill` does, and wait; may be called again."""
        # When a second signal interrupts this, all stays open, and the supervisor goes on: the
        # end of the input must not look complete to a program that still runs.
        with held_back(f"ending {self._program.name}"):
            self._end()
            self._resources.close()

    def _start(self, stdin: bool | bytes, stdout: bool) -> None:
        with ExitStack() as theirs:
            self._control, connection = socket.socketpair()
            self._resources.enter_context(self._control)
            control = above_standard(connection.detach())
            theirs.callback(os.close, control)
            errors, their_stderr = make_pipe(self._resources, theirs)
            self._stderr = ProgramErrors(
                self._program.name, errors, self._program.level, self._program.private_errors
            )
            over, self._on_over = make_pipe(self._resources, self._resources)
            input_end = secret = -1
            their_stdin: io.FileIO | int = subprocess.DEVNULL
            their_stdout = their_stderr
            if isinstance(stdin, bytes):
                their_stdin = file_of(stdin, theirs)
            elif stdin:
                their_stdin, file = make_pipe(theirs, self._resources)
                self._input = ProgramInput(file, over, self._control)
                input_end = file.fileno()
            if stdout:
                file, their_stdout = make_pipe(self._resources, theirs)
                self._output = ProgramOutput(file, over)
            if self._program.secret:
                secret = file_of(self._program.secret.encode(), theirs).fileno()
            words, environment = command_line(self._program, secret)
            arguments = b"\0".join(words)
            limit = "inf" if self._timeout is None else str(self._timeout)
            numbers = (control, input_end, len(arguments), limit, GRACE)
            self._supervisor = subprocess.Popen(
                [sys.executable, "-I", "-S", _supervisor.__file__, *map(str, numbers)],
                stdin=their_stdin,
                stdout=their_stdout,
                stderr=their_stderr,
                env=environment,
                pass_fds=[each for each in (control, input_end, secret) if each >= 0],
                start_new_session=True,
            )
        self._group = self._begin(arguments)
        check_room_for_thread()
        self._watcher = threading.Thread(
            target=self._watch, name=f"bakthat-{self._program.name}", daemon=True
        )
        self._watcher.start()

    def _begin(self, arguments: bytes) -> int:
        """Let the supervisor start the program; return its process group. Raises OSError."""
        with suppress(ConnectionError):
            self._control.sendall(arguments)
            while b"\n" not in self._received and (data := self._control.recv(CHUNK)):
                self._received += data
        line, _, self._received = self._received.partition(b"\n")
        match line.split():
            case [b"started", group]:
                return int(group)
            case [b"failed", number]:
                name = self._program.arguments[0]
                raise OSError(int(number), os.strerror(int(number)), name)
        raise OSError(errno.ECHILD, "the process that starts it has ended")

    def _watch(self) -> None:
        """Read the standard error, and what the supervisor sends, until that has ended."""
        poll = select.poll()
        poll.register(self._control, select.POLLIN)
        poll.register(self._stderr.file.fileno(), select.POLLIN)
        with self._lock:
            self._receive()
        while self._is_connected:
            for descriptor, _ in poll.poll():
                with self._lock:
                    if descriptor != self._stderr.file.fileno():
                        self._receive()
                    elif not self._stderr.read():
                        poll.unregister(descriptor)

    def _receive(self) -> None:
        """Handle all that the supervisor has sent; the caller has the lock."""
        while self._is_connected:
            *lines, self._received = self._received.split(b"\n")
            for line in lines:
                self._handle(line.decode())
            try:
                data = self._control.recv(CHUNK, socket.MSG_DONTWAIT)
            except BlockingIOError:
                return
            except ConnectionError:
                data = b""
            self._received += data
            if not data:
                self._is_connected = False
                self._disconnect()

    def _handle(self, line: str) -> None:
        word, _, value = line.partition(" ")
        if word == "ended":
            self._status = int(value)
            self._ended = time.monotonic()
            self._stderr.drain()
            self._has_ended.set()
            if self._status and (self._output is not None or self._input is not None):
                self._ask_for_end()  # what the others still write or read is of no use
        elif word == "empty":
            self._group = 0
        elif word == "late":
            self._is_late = True
        elif word == "limit":  # another group may still hold the output
            self._is_late = self._may_write()
        elif word == "left":
            log.warning("%s was killed, but does not end", self._program.name)
            self._group = 0

    def _ask_for_end(self) -> None:
        """Let the supervisor end the group; the caller has the lock."""
        self._is_asked = True
        if self._status is None or self._may_write():
            self._is_killed = True
        with suppress(OSError):  # the supervisor has ended
            self._control.shutdown(socket.SHUT_WR)

    def _disconnect(self) -> None:
        """Handle the end of the supervisor: no message comes any more."""
        if self._group or self._status is None:
            self._is_lost = not self._is_asked and not self._is_late
        if self._is_lost:
            self._kill_group()
        # After a failure, another group may still hold the input.
        if self._status or self._is_lost or self._is_killed or self._is_late:
            self._on_over.write(b"x")
        self._stderr.drain()
        self._stderr.finish()
        self._has_ended.set()

    def _may_write(self) -> bool:
        return self._output is not None and self._output.has_writer()

    def _kill_group(self) -> None:
        if self._group:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(self._group, signal.SIGKILL)

    def _end(self) -> None:
        if self._supervisor is None:
            return
        self.kill()
        if self._watcher is not None and self._watcher.ident is not None:
            self._watcher.join(_END_SECONDS)
            if self._watcher.is_alive():  # a supervisor that is stopped
                self._kill_group()
                self._supervisor.kill()
                self._watcher.join()
        self._supervisor.wait()
        if self._group:  # no supervisor has waited for what was killed
            group, self._group = self._group, 0
            _supervisor.wait_for(lambda: not _supervisor.is_running(group), _supervisor.END_SECONDS)


def run_program(
    program: Program, *, input: bytes = b"", timeout: float | None = 60
) -> tuple[Ended, bytes]:
    """Run *program* with a small *input*; return how it ended, and what it wrote.

    It is ended after *timeout* seconds. Its standard error is for the caller, who makes a message
    of it, and only logged for debugging. Raises OSError when it cannot be started, and when it
    writes more than :data:`MAX_OUTPUT`.
    """
    quiet = replace(program, level=logging.DEBUG)
    with RunningProgram(quiet, stdin=input, stdout=True, timeout=timeout) as running:
        output = bytearray()
        while data := running.stdout.read(CHUNK):
            output += data
            if len(output) > MAX_OUTPUT:
                raise OSError(errno.EFBIG, f"it writes more than {human_size(MAX_OUTPUT)}")
        return running.wait(), bytes(output)
