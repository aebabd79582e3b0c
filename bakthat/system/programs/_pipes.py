"""The pipes between this process and a program."""

from __future__ import annotations

import errno
import fcntl
import io
import logging
import os
import re
import select
import socket
from contextlib import ExitStack, suppress
from typing import TYPE_CHECKING

from bakthat.system import linux
from bakthat.system.programs import _supervisor
from bakthat.system.streams import Buffer
from bakthat.system.text import printable

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

log = logging.getLogger("bakthat.programs")

STDERR_BYTES = 2048
"""How much of the end of a program's standard error is kept, in bytes."""
PIPE_SIZE = 1 << 20
"""How many bytes a pipe holds, where the system lets it."""
CHUNK = 1 << 16
"""How many bytes of small things are read at once."""


class ProgramInput:
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


class ProgramOutput(io.RawIOBase):
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


class ProgramErrors:
    """The standard error of a program: its lines are logged, and its end is kept."""

    def __init__(
        self, name: str, file: io.FileIO, level: int, private: re.Pattern[bytes] | None
    ) -> None:
        """*private* is :attr:`Program.private_errors`."""
        self.file = file
        self._private = private
        self._is_private = False
        self._held = b""
        self._name = name
        self._level = level
        self._end = b""
        self._line = b""
        os.set_blocking(file.fileno(), False)

    def read(self) -> bool:
        """Read what is there; return whether more may come."""
        data = self.file.read(CHUNK)
        if data is None:
            return True
        may_come = bool(data)
        if self._private is not None:
            data = self._without_private(data, self._private)
        self._end = (self._end + data)[-STDERR_BYTES - 1 :]
        if log.isEnabledFor(self._level):
            *lines, self._line = (self._line + data).split(b"\n")
            for line in lines:
                self._log(line)
            if self._line and (not may_come or len(self._line) >= CHUNK):
                self._log(self._line)
                self._line = b""
        return may_come

    def _without_private(self, data: bytes, private: re.Pattern[bytes]) -> bytes:
        """Return the lines of *data* that may be shown; "" is the end of all."""
        shown = b""
        *lines, self._held = (self._held + data).split(b"\n")
        if not data:
            lines, self._held = [self._held] if self._held else [], b""
        elif len(self._held) > CHUNK:  # the rest is as private as its beginning
            self._held = self._held[:CHUNK]
        for line in lines:
            if private.match(line):
                self._is_private = True
            elif line.startswith(self._name.encode() + b":"):
                self._is_private = False
            if not self._is_private:
                shown += line + b"\n"
        return shown

    def drain(self) -> None:
        """Read what is there now: no more than a pipe holds, for others may go on writing."""
        left = PIPE_SIZE
        poll = select.poll()
        poll.register(self.file, select.POLLIN)
        while left > 0 and poll.poll(0) and self.read():
            left -= CHUNK

    def finish(self) -> None:
        """Log the last line, whose end does not come."""
        self._log(self._line)
        self._line = b""

    def text(self) -> str:
        """Return the end, in printable lines, without the rest of a line that was cut."""
        end = self._end
        if len(end) > STDERR_BYTES:
            end = end.partition(b"\n")[2] or end
        text = "\n".join(map(_shown, end.decode(errors="replace").splitlines()))
        return text.encode()[-STDERR_BYTES:].decode(errors="ignore").strip("\n")

    def _log(self, line: bytes) -> None:
        text = line.decode(errors="replace").rstrip()
        if text:
            prefix = "" if text.startswith(f"{self._name}: ") else f"{self._name}: "
            log.log(self._level, "%s%s", prefix, _shown(text))


def _shown(line: str) -> str:
    """Return a line of a program in printable characters, and indented by spaces."""
    # Other tabs stay, since a secret that has one is masked later, as it is printable.
    text = line.lstrip("\t")
    return "    " * (len(line) - len(text)) + printable(text)


def make_pipe(reader: ExitStack, writer: ExitStack) -> tuple[io.FileIO, io.FileIO]:
    """Return the ends of a new pipe; each of the stacks closes its end."""
    readable, writable = os.pipe()
    ends = io.FileIO(above_standard(readable), "r"), io.FileIO(above_standard(writable), "w")
    reader.enter_context(ends[0])
    writer.enter_context(ends[1])
    linux.enlarge_pipe(writable, PIPE_SIZE)
    return ends


def file_of(content: bytes, owner: ExitStack) -> io.FileIO:
    """Return a file without a name that has *content*, at its start; *owner* closes it."""
    file = io.FileIO(above_standard(linux.open_nameless_file()), "r+")
    owner.enter_context(file)
    rest = memoryview(content)
    while rest:
        rest = rest[file.write(rest) :]
    file.seek(0)
    return file


def above_standard(descriptor: int) -> int:
    """Return *descriptor*, or another for it when it is one of the three standard ones.

    They are free in a process that was started with them closed, and a child has its own there.
    """
    if descriptor > 2:
        return descriptor
    try:
        return fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, 3)
    finally:
        os.close(descriptor)
