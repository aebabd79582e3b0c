"""Messages between this process and one that was forked from it."""

from __future__ import annotations

import marshal
import pickle
import socket
import struct
import traceback
from typing import Any

_LENGTH = struct.Struct("<Q")
_FAILURE = "failure"


class ConnectionEndedError(Exception):
    """The other process has ended."""


class WorkerTraceback(Exception):  # noqa: N818  # it is only the cause of another
    """Where an exception was raised in the other process, as text."""

    def __str__(self) -> str:
        return f"in the other process:\n{self.args[0]}"


def send(connection: socket.socket, kind: str, content: Any) -> None:
    """Send a message: its *kind* and *content* of the types that :mod:`marshal` takes.

    Raises OSError.
    """
    text = marshal.dumps((kind, content))
    connection.sendall(_LENGTH.pack(len(text)) + text)


def send_failure(connection: socket.socket, failure: Exception) -> None:
    """Let :func:`receive` raise *failure* in the other process. Raises OSError."""
    try:
        content = pickle.dumps(failure)
        pickle.loads(content)
    except Exception:  # noqa: BLE001  # an exception may refuse in any way
        content = pickle.dumps(RuntimeError(f"{type(failure).__name__}: {failure}"))
    send(connection, _FAILURE, (content, "".join(traceback.format_exception(failure))))


def receive(connection: socket.socket) -> tuple[str, Any]:
    """Return the kind and the content of the next message.

    Raises ConnectionEndedError, and the exception that :func:`send_failure` sent, caused by a
    :class:`WorkerTraceback`.
    """
    (size,) = _LENGTH.unpack(_receive_exactly(connection, _LENGTH.size))
    kind, content = marshal.loads(_receive_exactly(connection, size))
    if kind == _FAILURE:
        failure, where = content
        raise pickle.loads(failure) from WorkerTraceback(where)
    return kind, content


def _receive_exactly(connection: socket.socket, size: int) -> bytes:
    data = bytearray(size)
    view = memoryview(data)
    while view:
        try:
            count = connection.recv_into(view)
        except ConnectionError:
            count = 0
        if not count:
            raise ConnectionEndedError
        view = view[count:]
    return bytes(data)
