"""Write one object in parts, sent in parallel while the next one is filled.

This module has the buffers and the threads of S3 and Glacier. An upload that failed stays failed.
"""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, Future, wait
from functools import partial
from typing import Any, TypeVar

from bakthat.backends.aws.part_buffer import PartBuffer
from bakthat.backends.aws.part_plan import MAX_PARTS, MIB, PartPlan
from bakthat.backends.base import StoredObject
from bakthat.errors import BakthatError, StorageError
from bakthat.system.signals import held_back, report_wait
from bakthat.system.text import human_size
from bakthat.system.threads import ThreadPool

Result = TypeVar("Result")

PARTS_MEMORY = 64 * MIB
"""The most bytes of parts that are kept, as long as two parts fit. Of larger parts, two are kept:
one is sent, one is filled."""

MAX_OVERTAKING = 8
"""The most parts that may be sent after a part whose request is not answered yet.

rclone writes the parts in order, and answers the request of a part only when no later part waits
(cmd/serve/s3/multipart.go of rclone 1.75). If a later part always waited, this side would take the
answer for lost, send the part again and publish while rclone still writes it; then the upload fails
with InvalidPart."""


def parts_in_flight(part_size: int, workers: int) -> int:
    """Return how many parts may be sent, or wait to be sent, while another part is filled."""
    return min(workers + 1, max(1, PARTS_MEMORY // part_size - 1))


class PartUpload(ABC):
    """An upload in parts; see :class:`~bakthat.backends.base.Upload`.

    Subclasses make the requests that begin it, send a part, publish and abort.
    """

    def __init__(self, key: str, *, plan: PartPlan, workers: int) -> None:
        self._key = key
        self._plan = plan
        self._workers = workers
        self._buffer: PartBuffer | None = None
        self._buffers: set[PartBuffer] = set()
        self._spare: deque[PartBuffer] = deque()
        self._sent = 0
        self._number = 0
        self._upload_id: str | None = None
        self._pool: ThreadPool | None = None
        self._pending: dict[Future[dict[str, Any]], int] = {}
        self._parts: list[dict[str, Any]] = []
        self._cancelled = threading.Event()
        self._error: BakthatError | None = None
        self._is_flushed = False
        self._closed = False

    @abstractmethod
    def _begin(self) -> str:
        """Begin an upload in parts; return its id."""

    @abstractmethod
    def _upload_part(self, number: int, start: int, part: PartBuffer) -> dict[str, Any]:
        """Send a part, which begins at byte *start*; return its entry in :attr:`_parts`.

        Runs in a thread. Appends *part* to ``_spare`` once it was sent.
        """

    @abstractmethod
    def _publish_whole(self, part: PartBuffer) -> StoredObject:
        """Store the whole object, which is small enough for one request."""

    @abstractmethod
    def _publish_parts(self) -> StoredObject:
        """Publish the object, all of whose parts were sent."""

    @abstractmethod
    def _abort_parts(self, upload_id: str) -> None:
        """Remove the parts of an upload that is aborted. Never raises."""

    def write(self, data: bytes | bytearray | memoryview, /) -> None:
        """Write all of *data*; block while as many parts as allowed are being sent."""
        self._check_usable()
        view = memoryview(data).cast("B")
        while view:
            buffer = self._buffer or self._run_step(self._empty_buffer)
            self._buffer = buffer
            # A full buffer is sent only when another byte follows: otherwise it is the last part,
            # or the whole object.
            if buffer.filled >= buffer.size:
                self._run_step(self._send_part)
                continue
            piece = view[: buffer.size - buffer.filled]
            self._run_step(partial(buffer.write, piece))
            view = view[len(piece) :]

    def flush(self) -> None:
        """Send all parts; an object without parts is sent by :meth:`commit`."""
        self._check_usable()
        if self._upload_id is not None and not self._is_flushed:
            self._run_step(self._send_last_part)
            self._is_flushed = True

    def commit(self) -> StoredObject:
        """Publish the object and return it once the storage has confirmed it."""
        self.flush()
        stored = self._run_step(self._publish_parts if self._is_flushed else self._publish_buffer)
        self._closed = True
        self._stop_workers()
        self._free_buffers()
        return stored

    def abort(self) -> None:
        """Abort the upload and remove every part that was sent."""
        self._cancelled.set()
        if self._upload_id is not None and not self._closed:
            report_wait()
        # The workers end first: a part that arrived after the upload was aborted would stay, and be
        # charged.
        self._stop_workers()
        self._pending.clear()
        self._free_buffers()
        if self._closed or self._upload_id is None:
            self._closed = True
            return
        self._closed = True
        self._abort_parts(self._upload_id)

    def _check_usable(self) -> None:
        if self._error is not None:
            raise self._error
        if self._closed:
            raise StorageError(f"the upload of {self._key!r} has ended already")

    def _run_step(self, step: Callable[[], Result]) -> Result:
        # An upload that failed stays failed: to continue would leave a hole in the object.
        try:
            return step()
        except BakthatError as exc:
            self._error = exc
            raise

    # Parts

    def _send_part(self) -> None:
        if self._upload_id is None:
            # An interrupt before the id is known would leave an upload that nobody can abort.
            with held_back(
                f"beginning the upload of {self._key}", mend="bakthat cleanup removes what is left"
            ):
                self._upload_id = self._begin()
        if self._pool is None:
            self._pool = ThreadPool(self._workers, thread_name_prefix="bakthat-upload")
        self._number += 1
        if self._number > MAX_PARTS:
            raise StorageError(
                f"{self._key!r} is larger than {MAX_PARTS} parts can hold, "
                f"{human_size(self._plan.capacity)}",
                hint="back it up in several pieces, or, if it grew while it was read, again when "
                "it is at rest",
            )
        part = self._take_part()
        start, self._sent = self._sent, self._sent + part.filled
        future = self._pool.submit(self._upload_part, self._number, start, part)
        self._pending[future] = self._number
        size = self._plan.size_of(self._number + 1)
        self._collect(at_most=parts_in_flight(size, self._workers))

    def _empty_buffer(self) -> PartBuffer:
        """Return a buffer for the next part."""
        size = self._plan.size_of(self._number + 1)
        # The buffers of parts that were sent are used again: a new one for each part would fragment
        # the heap to several times its used size.
        while self._spare:
            buffer = self._spare.pop()
            if buffer.size == size and buffer.empty():
                return buffer
            self._buffers.remove(buffer)
            buffer.close()
        buffer = PartBuffer(size)
        self._buffers.add(buffer)
        return buffer

    def _take_part(self) -> PartBuffer:
        part, self._buffer = self._buffer or self._empty_buffer(), None
        return part

    def _free_buffers(self) -> None:
        self._buffer = None
        self._spare.clear()
        while self._buffers:
            self._buffers.pop().close()

    def _collect(self, *, at_most: int) -> None:
        """Wait until at most *at_most* parts are being sent, and none is overtaken too far.

        Raises what one of them raised.
        """
        done = {future for future in self._pending if future.done()}
        while True:
            for future in done:
                del self._pending[future]
            self._parts += [future.result() for future in done]
            oldest = min(self._pending.values(), default=self._number)
            if len(self._pending) <= at_most and self._number - oldest < MAX_OVERTAKING:
                return
            done = wait(self._pending, return_when=FIRST_COMPLETED).done

    def _stop_workers(self) -> None:
        if self._pool is not None:
            self._pool.shutdown(wait=True, cancel_futures=True)
            self._pool = None

    def _send_last_part(self) -> None:
        self._send_part()
        self._collect(at_most=0)

    def _publish_buffer(self) -> StoredObject:
        part = self._take_part()
        self._sent = part.filled
        return self._publish_whole(part)
