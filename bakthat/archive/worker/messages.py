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


class WorkerTraceback(Exception):  # noqa: N818  # only the cause of another exception
    """The traceback of an exception in the other process, as text."""

    def __str__(self) -> str:
        return f"in the other process:\n{self.args[0]}"


def send(connection: socket.socket, kind: str, content: Any) -> None:
    """Send a message of *kind*, with *content* of types that :mod:`marshal` supports.

    Raises OSError.
    """
    text = marshal.dumps((kind, content))
    connection.sendall(_LENGTH.pack(len(text)) + text)


def send_failure(connection: socket.socket, failure: Exception) -> None:
    """Send *failure*, which :func:`receive` raises in the other process. Raises OSError."""
    try:
        content = pickle.dumps(failure)
        pickle.loads(content)
    except Exception:  # noqa: BLE001  # pickling may fail in any way
        content = pickle.dumps(RuntimeError(f"{type(failure).__name__}: {failure}"))
    send(connection, _FAILURE, (content, "".join(traceback.format_exception(failure))))


def receive(connection: socket.socket) -> tuple[str, Any]:
    """Return the kind and the content of the next message.

    Raises ConnectionEndedError, and the exception that :func:`send_failure` sent, with a
    :class:`WorkerTraceback` as its cause.
    """
    (size,) = _LENGTH.unpack(_receive_exactly(connection, _LENGTH.size))
    kind, content = marshal.loads(_receive_exactly(connection, size))
    if kind == _FAILURE:
        failure, worker_traceback = content
        raise pickle.loads(failure) from WorkerTraceback(worker_traceback)
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
