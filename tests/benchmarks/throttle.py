"""A proxy that makes loopback as slow as a line: so many bits a second, so much latency.

Where the kernel has netem, ``tc`` does the same; a proxy needs neither it nor root.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import cast

CHUNK = 16 * 1024
BURST = 0.02
"""Seconds of idleness that may be made up for, so that a late wake-up costs no throughput."""
SOCKET_BUFFER = 256 * 1024


@dataclass(frozen=True)
class Link:
    """A line, the same in both directions."""

    rate: float
    """Bytes a second."""
    latency: float
    """Seconds there and back."""

    def __str__(self) -> str:
        return f"{self.rate * 8 / 1e6:.0f} Mbit/s, {self.latency * 1000:.0f} ms"


SLOW = Link(rate=100e6 / 8, latency=0.04)


@dataclass
class Lane:
    """One direction of the line, which all connections share."""

    rate: float
    passed: int = 0
    """Bytes."""
    _free_at: float = 0.0

    def book(self, size: int, now: float) -> float:
        """Return the moment at which *size* more bytes have left, when they come at *now*."""
        self._free_at = max(now - BURST, self._free_at) + size / self.rate
        self.passed += size
        return self._free_at


@dataclass
class Throttle:
    """A running proxy."""

    port: int
    up: Lane
    down: Lane


@contextlib.contextmanager
def throttled(target_port: int, link: Link) -> Iterator[Throttle]:
    """Forward a loopback port to *target_port* as *link* would, until the block ends."""
    listener = socket.create_server(("127.0.0.1", 0), backlog=64)
    # Connections inherit it: what the line has not taken yet must wait with the sender.
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, SOCKET_BUFFER)
    throttle = Throttle(listener.getsockname()[1], Lane(link.rate), Lane(link.rate))
    forwarding = _Forwarding(target_port, link.latency, throttle)
    thread = threading.Thread(target=lambda: asyncio.run(forwarding.serve(listener)))
    thread.start()
    forwarding.ready.wait()
    try:
        yield throttle
    finally:
        forwarding.stop()
        thread.join()


@dataclass
class _Forwarding:
    target_port: int
    latency: float
    throttle: Throttle
    ready: threading.Event = field(default_factory=threading.Event)

    async def serve(self, listener: socket.socket) -> None:
        self._loop = asyncio.get_running_loop()
        self._stopped = asyncio.Event()
        self._ends: set[_End] = set()
        server = await self._loop.create_server(self._accept, sock=listener)
        self.ready.set()
        await self._stopped.wait()
        server.close()
        for end in list(self._ends):
            end.transport.abort()

    def stop(self) -> None:
        self._loop.call_soon_threadsafe(self._stopped.set)

    def _accept(self) -> _End:
        """Make both ends of a connection; the one behind connects once the handshake is over."""
        half = self.latency / 2
        near = _End(self._loop, self._ends, self.throttle.up, half)
        behind = _End(self._loop, self._ends, self.throttle.down, half)
        near.other, behind.other = behind, near

        def connect() -> None:
            if near not in self._ends:
                return
            task = self._loop.create_task(
                self._loop.create_connection(lambda: behind, "127.0.0.1", self.target_port)
            )
            near.connecting = task
            task.add_done_callback(connected)

        def connected(task: asyncio.Task[object]) -> None:
            if task.cancelled() or task.exception() is not None:
                near.transport.abort()
            elif near in self._ends:
                near.transport.resume_reading()
            else:
                behind.transport.abort()

        # The handshake takes one way there and back before the first byte may leave.
        near.on_connection = lambda: self._loop.call_later(self.latency, connect)
        return near


class _End(asyncio.BufferedProtocol):
    """One end of a connection: what it receives leaves at the other one, when the line allows.

    Nothing waits: timers say when the line is free for more, and when what it took has arrived.
    """

    transport: asyncio.Transport
    other: _End

    def __init__(
        self, loop: asyncio.AbstractEventLoop, ends: set[_End], lane: Lane, delay: float
    ) -> None:
        self.on_connection: Callable[[], object] = lambda: None
        self.connecting: asyncio.Task[object] | None = None
        self._loop = loop
        self._ends = ends
        self._lane = lane
        self._delay = delay
        self._buffer = bytearray(CHUNK)
        self._under_way: deque[tuple[float, bytes]] = deque()
        """When it arrives, and what; no bytes at the end."""
        self._delivery: asyncio.TimerHandle | None = None
        self._has_ended = False
        """Its end was handed over."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)
        self._ends.add(self)
        if self.other not in self._ends:  # the near end: there is nowhere to send to yet
            self.transport.pause_reading()
        self.on_connection()

    def get_buffer(self, sizehint: int) -> bytearray:
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        data = bytes(self._buffer[:nbytes])
        left = self._lane.book(len(data), self._loop.time())
        self.transport.pause_reading()
        self._loop.call_at(left, self._read_on)
        self._send(left, data)

    def eof_received(self) -> bool:
        self._send(self._loop.time(), b"")
        return True  # the other direction stays open

    def connection_lost(self, exc: Exception | None) -> None:
        self._ends.discard(self)
        if self.connecting is not None:
            self.connecting.cancel()
        if self.other in self._ends and not self._under_way:
            self.other.transport.abort() if exc else self.other.transport.close()

    def _read_on(self) -> None:
        if not self.transport.is_closing():
            self.transport.resume_reading()

    def _send(self, left: float, data: bytes) -> None:
        self._under_way.append((left + self._delay, data))
        if self._delivery is None:
            self._deliver()

    def _deliver(self) -> None:
        """Hand over what has arrived, and come again for the next."""
        self._delivery = None
        target = self.other.transport
        while self._under_way and self._under_way[0][0] <= self._loop.time():
            _, data = self._under_way.popleft()
            if target.is_closing():
                continue
            if data:
                target.write(data)
            elif self.other._has_ended:
                target.close()
                self.transport.close()
            else:
                target.write_eof()
                self._has_ended = True
        if self._under_way:
            self._delivery = self._loop.call_at(self._under_way[0][0], self._deliver)
        elif self not in self._ends and not target.is_closing():
            target.close()  # nothing more will come
