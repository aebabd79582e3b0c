"""Messages between this process and one that was forked from it."""

from __future__ import annotations

import marshal
import socket
import struct
from typing import Any

from bakthat import errors
from bakthat.archive.report import ArchiveReport

_LENGTH = struct.Struct("<Q")


class GoneError(Exception):
    """The other process is gone."""


def send(connection: socket.socket, message: Any) -> None:
    """Send *message*, of the types that :mod:`marshal` takes. Raises OSError."""
    text = marshal.dumps(message)
    connection.sendall(_LENGTH.pack(len(text)) + text)


def receive(connection: socket.socket) -> Any:
    """Return the next message. Raises GoneError."""
    (size,) = _LENGTH.unpack(_exactly(connection, _LENGTH.size))
    return marshal.loads(_exactly(connection, size))


def tell_failure(connection: socket.socket, failure: Exception) -> None:
    """Let :func:`hear` raise *failure* in the other process. Raises OSError."""
    if isinstance(failure, errors.BakthatError):
        send(connection, ("bakthat", (type(failure).__name__, str(failure), failure.hint)))
    else:
        send(connection, ("defect", f"{type(failure).__name__}: {failure}"))


def hear(connection: socket.socket, gone: errors.BakthatError) -> tuple[str, Any]:
    """Return the next message: a word, and what is said.

    Raises what :func:`tell_failure` told, RuntimeError for what is no error of bakthat, and
    *gone* when the other process is gone.
    """
    try:
        word, said = receive(connection)
    except GoneError:
        raise gone from None
    if word == "bakthat":
        name, text, hint = said
        raise getattr(errors, name)(text, hint=hint)
    if word == "defect":
        raise RuntimeError(said)
    return word, said


class ToldReport(ArchiveReport):
    """A report whose warnings go to the other process, as messages."""

    def __init__(self, connection: socket.socket) -> None:
        super().__init__()
        self._connection = connection

    def warn(self, text: str) -> None:
        """Send the warning *text*."""
        send(self._connection, ("warning", text))


def _exactly(connection: socket.socket, size: int) -> bytes:
    data = bytearray(size)
    view = memoryview(data)
    while view:
        try:
            count = connection.recv_into(view)
        except ConnectionError:
            count = 0
        if not count:
            raise GoneError
        view = view[count:]
    return bytes(data)
