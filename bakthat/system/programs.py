"""Programs that produce what is backed up, or take what is restored."""

from __future__ import annotations

import errno
import fcntl
import functools
import io
import logging
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple, Self

from bakthat.system import _supervisor, linux
from bakthat.system.signals import held_back
from bakthat.system.streams import Buffer
from bakthat.system.text import counted, human_size, printable
from bakthat.system.threads import check_room_for_thread

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

log = logging.getLogger("bakthat.programs")

SECRET_FILE = "{secret-file}"
"""In the arguments and the environment of a program, the path of its secret file."""
STDERR_BYTES = 2048
"""How much of the end of a program's standard error is kept, in bytes."""
GRACE = 5.0
"""Seconds between SIGTERM and SIGKILL."""
PIPE_SIZE = 1 << 20
"""How many bytes a pipe holds, where the system lets it."""
MAX_OUTPUT = 16 << 20
"""How many bytes :func:`run_program` returns at most."""

_END_SECONDS = 30.0
"""Seconds after which a supervisor that was asked to end is killed; it needs less than 16."""
_CHUNK = 1 << 16
_SHOWN_LINES, _SHOWN_CHARACTERS = 5, 500
"""How much of the end of a program's standard error a message shows."""


@dataclass(frozen=True, slots=True)
class Program:
    """A program to run."""

    name: str
    """For messages: "pg_dump", "the command"."""
    arguments: tuple[str, ...]
    """Its command line; the program is looked up on PATH."""
    environment: Mapping[str, str] = field(default_factory=dict)
    """What is added to the environment of this process."""
    secret: str = field(default="", repr=False)
    """The content of a file that only the program can read: :data:`SECRET_FILE` is its path."""


def find_program(*names: str) -> str | None:
    """Return the first of *names* that is on PATH, None for none."""
    return next((name for name in names if shutil.which(name)), None)


def shell_program(line: str) -> Program:
    """Return the program that runs *line* in a shell, as :manpage:`sh(1)` describes it.

    A pipe fails when any of its programs fails; a line that begins with ``set +o pipefail;`` has it
    otherwise. Where no shell knows that, a warning is logged for a line with a pipe.
    """
    shell = _shell()
    if "pipefail" not in shell and "|" in line.replace("||", ""):
        log.warning(
            "no shell here has pipefail: only the last program of a pipe is checked; install bash"
        )
    return Program("the command", (*shell, "-c", line))


@functools.cache
def _shell() -> tuple[str, ...]:
    """Return the shell and its options; with pipefail, if there is such a shell."""
    bash = shutil.which("bash")
    shells = [("/bin/sh",)] if bash is None else [("/bin/sh",), (bash, "--posix")]
    for shell in shells:
        # Not the exit status, which is unknown in a program that ignores SIGCHLD.
        done = subprocess.run(
            [*shell, "-o", "pipefail", "-c", "echo known"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=False,
        )
        if done.stdout == b"known\n":
            return (*shell, "-o", "pipefail")
    return ("/bin/sh",)


class Ended(NamedTuple):
    """How a program ended. Without exit code, signal and time limit, that is not known."""

    exit_code: int | None
    signal: int | None
    timed_out: bool
    """Whether it, or one that still held its standard output, was ended by the time limit."""
    seconds: float
    """How long it ran; the time limit if that has ended it."""
    stderr: str
    """The end of its standard error, at most :data:`STDERR_BYTES`, in printable lines."""

    @property
    def succeeded(self) -> bool:
        """Whether it ended by itself, with exit code 0."""
        return self.exit_code == 0 and not self.timed_out

    def how(self) -> str:
        """Return the end of a sentence that begins with the program: ``ended with exit code 3``."""
        if self.timed_out:
            return f"did not end within {_limit_text(self.seconds)}"
        if self.exit_code is not None:
            return f"ended with exit code {self.exit_code}"
        if self.signal is None:
            return "ended in an unknown way: the process that watched it was killed"
        return f"was ended by signal {_signal_name(self.signal)}"

    def problem(self) -> str:
        """Return :meth:`how`, and the last lines of the standard error, as one line."""
        lines = [line.strip() for line in self.stderr.splitlines() if line.strip()]
        end = "; ".join(lines[-_SHOWN_LINES:])
        if len(end) > _SHOWN_CHARACTERS:
            end = f"…{end[-_SHOWN_CHARACTERS:]}"
        return f"{self.how()}: {end}" if end else self.how()


def _limit_text(seconds: float) -> str:
    for unit, noun in ((3600, "hour"), (60, "minute"), (1, "second")):
        if seconds >= unit and seconds % unit == 0:
            return counted(int(seconds / unit), noun)
    return f"{seconds:g} seconds"


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:  # a real-time signal
        return str(number)


class RunningProgram:
    """A program that runs, in a process group of its own, until :meth:`close`.

    A context manager. However this process ends, so does the program, with all of its group: a
    supervisor, a small process of its own, ends them (:mod:`bakthat.system._supervisor`).
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
        error: the end is kept, and each line is logged. Raises OSError when it cannot be started,
        and MemoryError without memory for a thread.
        """
        self._program = program
        self._timeout = timeout
        self._resources = ExitStack()
        self._input: _Input | None = None
        self._output: _Output | None = None
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
        self._is_late = self._is_killed = self._is_lost = False
        self._started = self._ended = time.monotonic()
        try:
            with held_back(f"starting {program.name}"):
                self._start(stdin, stdout)
        except BaseException:
            self.close()
            raise

    @property
    def stdin(self) -> _Input:
        """Where to write what the program reads; close it when that is complete."""
        assert self._input is not None, "started without stdin=True"
        return self._input

    @property
    def stdout(self) -> io.RawIOBase:
        """What the program writes. Only :meth:`wait` says whether its end is the true one."""
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

    def kill(self) -> None:
        """Let the program be ended, with its group: by SIGTERM, after :data:`GRACE` by SIGKILL.

        Does not wait; any thread may call it. Unless all had ended, the program has failed then.
        """
        with self._lock:
            self._receive()
            if self._group or self._status is None:
                self._is_killed = True
            with suppress(OSError):  # the supervisor has ended
                self._control.shutdown(socket.SHUT_WR)

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
            control = _above_standard(connection.detach())
            theirs.callback(os.close, control)
            errors, their_stderr = _pipe(self._resources, theirs)
            self._stderr = _Stderr(self._program.name, errors)
            over, self._on_over = _pipe(self._resources, self._resources)
            input_end = secret = -1
            their_stdin: io.FileIO | int = subprocess.DEVNULL
            their_stdout = their_stderr
            if isinstance(stdin, bytes):
                their_stdin = _file_of(stdin, theirs)
            elif stdin:
                their_stdin, file = _pipe(theirs, self._resources)
                self._input = _Input(file, over, self._control)
                input_end = file.fileno()
            if stdout:
                file, their_stdout = _pipe(self._resources, theirs)
                self._output = _Output(file, over)
            if self._program.secret:
                secret = _file_of(self._program.secret.encode(), theirs).fileno()
            arguments, environment = _command_line(self._program, secret)
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
            while b"\n" not in self._received and (data := self._control.recv(_CHUNK)):
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
                data = self._control.recv(_CHUNK, socket.MSG_DONTWAIT)
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
        elif word == "empty":
            self._group = 0
        elif word == "late":
            self._is_late = True
        elif word == "limit":  # another group may still hold the output
            self._is_late = self._output is not None and self._output.has_writer()
        elif word == "left":
            log.warning("%s was killed, and does not end", self._program.name)

    def _disconnect(self) -> None:
        """Handle the end of the supervisor: no message comes any more."""
        if self._group or self._status is None:
            self._is_lost = not self._is_killed and not self._is_late
        if self._is_lost:
            self._kill_group()
        if self._is_lost or self._is_killed or self._is_late:
            self._on_over.write(b"x")
        self._stderr.drain()
        self._has_ended.set()

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


class _Input:
    """The standard input of a program."""

    def __init__(self, file: io.FileIO, over: io.FileIO, control: socket.socket) -> None:
        self._file = file
        self._over = over.fileno()
        self._control = control
        os.set_blocking(file.fileno(), False)
        self._poll = select.poll()
        self._poll.register(file, select.POLLOUT)
        self._poll.register(over, select.POLLIN)

    def write(self, data: Buffer) -> None:
        """Write all of *data*. Raises BrokenPipeError when nothing reads it any more."""
        rest = memoryview(data).cast("B")
        while rest:
            written = self._file.write(rest)
            if written is not None:
                rest = rest[written:]
            elif any(ready == self._over for ready, _ in self._poll.poll()):
                raise BrokenPipeError(errno.EPIPE, os.strerror(errno.EPIPE))

    def close(self) -> None:
        """End the input, which is complete; may be called again."""
        if not self._file.closed:
            with suppress(OSError):  # the supervisor has ended
                self._control.send(_supervisor.END_INPUT)
            self._file.close()


class _Output(io.RawIOBase):
    """The standard output of a program. It ends when the program was ended, whoever holds it."""

    def __init__(self, file: io.FileIO, over: io.FileIO) -> None:
        self._file = file
        self._over = over.fileno()
        self._poll = select.poll()
        self._poll.register(file, select.POLLIN)
        self._poll.register(over, select.POLLIN)

    def readable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self._file.fileno()

    def readinto(self, buffer: WriteableBuffer, /) -> int:
        if any(ready == self._over for ready, _ in self._poll.poll()):
            return 0
        return self._file.readinto(buffer) or 0

    def close(self) -> None:
        self._file.close()
        super().close()

    def has_writer(self) -> bool:
        """Return whether a process can still write."""
        if self._file.closed:
            return False
        poll = select.poll()
        poll.register(self._file, 0)
        return not poll.poll(0)


class _Stderr:
    """The standard error of a program: its lines are logged, and its end is kept."""

    def __init__(self, name: str, file: io.FileIO) -> None:
        self.file = file
        self._name = name
        self._end = b""
        self._line = b""
        os.set_blocking(file.fileno(), False)

    def read(self) -> bool:
        """Read what is there; return whether more may come."""
        data = self.file.read(_CHUNK)
        if data is None:
            return True
        self._end = (self._end + data)[-STDERR_BYTES - 1 :]
        if log.isEnabledFor(logging.INFO):
            *lines, self._line = (self._line + data).split(b"\n")
            for line in lines:
                self._log(line)
            if self._line and (not data or len(self._line) >= _CHUNK):
                self._log(self._line)
                self._line = b""
        return bool(data)

    def drain(self) -> None:
        """Read what is there now: no more than a pipe holds, for others may go on writing."""
        left = PIPE_SIZE
        poll = select.poll()
        poll.register(self.file, select.POLLIN)
        while left > 0 and poll.poll(0) and self.read():
            left -= _CHUNK

    def text(self) -> str:
        """Return the end, in printable lines, without the rest of a line that was cut."""
        end = self._end
        if len(end) > STDERR_BYTES:
            end = end.partition(b"\n")[2] or end
        text = "\n".join(map(printable, end.decode(errors="replace").splitlines()))
        return text.encode()[-STDERR_BYTES:].decode(errors="ignore").strip("\n")

    def _log(self, line: bytes) -> None:
        text = line.decode(errors="replace").rstrip()
        if text:
            log.info("%s: %s", self._name, printable(text))


def run_program(
    program: Program, *, input: bytes = b"", timeout: float | None = 60
) -> tuple[Ended, bytes]:
    """Run *program* with a small *input*; return how it ended, and what it wrote.

    It is ended after *timeout* seconds. Raises OSError when it cannot be started, and when it
    writes more than :data:`MAX_OUTPUT`.
    """
    with RunningProgram(program, stdin=input, stdout=True, timeout=timeout) as running:
        output = bytearray()
        while data := running.stdout.read(_CHUNK):
            output += data
            if len(output) > MAX_OUTPUT:
                raise OSError(errno.EFBIG, f"it writes more than {human_size(MAX_OUTPUT)}")
        return running.wait(), bytes(output)


def _command_line(program: Program, secret: int) -> tuple[bytes, dict[str, str]]:
    """Return the words, separated by NUL, and the environment of *program*. Raises OSError."""

    def filled(text: str) -> str:
        return text if secret < 0 else text.replace(SECRET_FILE, f"/dev/fd/{secret}")

    environment = {name: value for name, value in os.environ.items() if name != "BAKTHAT_PASSWORD"}
    environment |= {name: filled(value) for name, value in program.environment.items()}
    words = [os.fsencode(filled(each)) for each in program.arguments]
    if any(b"\0" in each for each in words) or any("\0" in each for each in environment.values()):
        raise OSError(errno.EINVAL, "its command line or environment holds a NUL character")
    return b"\0".join(words), environment


def _pipe(reader: ExitStack, writer: ExitStack) -> tuple[io.FileIO, io.FileIO]:
    """Return the ends of a new pipe; each of the stacks closes its end."""
    readable, writable = os.pipe()
    ends = io.FileIO(_above_standard(readable), "r"), io.FileIO(_above_standard(writable), "w")
    reader.enter_context(ends[0])
    writer.enter_context(ends[1])
    linux.enlarge_pipe(writable, PIPE_SIZE)
    return ends


def _file_of(content: bytes, owner: ExitStack) -> io.FileIO:
    """Return a file without a name that has *content*, at its start; *owner* closes it."""
    file = io.FileIO(_above_standard(linux.open_nameless_file()), "r+")
    owner.enter_context(file)
    rest = memoryview(content)
    while rest:
        rest = rest[file.write(rest) :]
    file.seek(0)
    return file


def _above_standard(descriptor: int) -> int:
    """Return *descriptor*, or another for it when it is one of the three standard ones.

    They are free in a process that was started with them closed, and a child has its own there.
    """
    if descriptor > 2:
        return descriptor
    try:
        return fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, 3)
    finally:
        os.close(descriptor)
