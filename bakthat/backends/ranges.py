"""Read any part of a stored object."""

from __future__ import annotations

from bakthat.backends.base import Backend
from bakthat.errors import StorageError
from bakthat.system.text import printable


class ObjectRanges:
    """The bytes of the object *key*, which has *size* of them; a :class:`.RandomSource`.

    Each call of :meth:`read_at` is a request, and several threads may call it at once. It holds
    nothing open between the calls.
    """

    def __init__(self, backend: Backend, key: str, size: int) -> None:
        self._backend = backend
        self._key = key
        self.size = size

    def read_at(self, offset: int, size: int, /) -> bytes:
        """Return *size* bytes from *offset* on.

        Raises NotFoundError, NotReadyError and other StorageErrors; among them one for an object
        that ends earlier than its size says.
        """
        if offset < 0 or size < 0 or offset + size > self.size:
            raise ValueError(f"bytes {offset} to {offset + size} are not in {self.size} bytes")
        if not size:
            return b""
        with self._backend.download(self._key, start=offset, end=offset + size) as stream:
            data = stream.read(size)
        if len(data) != size:
            raise StorageError(
                f"{printable(self._key)} has fewer than {self.size} bytes on the storage: "
                "it was truncated or replaced",
                hint="bakthat sync updates the catalog",
            )
        return data
