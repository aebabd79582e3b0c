"""A proxy that makes loopback as slow as a line: so many bits a second, so much latency.

Where the kernel has netem, ``tc`` does the same; a proxy needs neither it nor root.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field

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
        self._connections: set[asyncio.Task[None]] = set()
        server = await asyncio.start_server(self._accept, sock=listener, limit=CHUNK)
        self.ready.set()
        await self._stopped.wait()
        server.close()
        for task in list(self._connections):
            task.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)

    def stop(self) -> None:
        self._loop.call_soon_threadsafe(self._stopped.set)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._connections.add(task)
        try:
            # The handshake takes one way there and back before the first byte may leave.
            await asyncio.sleep(self.latency)
            behind = await asyncio.open_connection("127.0.0.1", self.target_port, limit=CHUNK)
            try:
                await asyncio.gather(
                    self._pump(reader, behind[1], self.throttle.up),
                    self._pump(behind[0], writer, self.throttle.down),
                )
            finally:
                behind[1].close()
        except (OSError, asyncio.CancelledError):
            pass  # either end went away, or the benchmark ended
        finally:
            self._connections.discard(task)
            writer.close()

    async def _pump(
        self, source: asyncio.StreamReader, target: asyncio.StreamWriter, lane: Lane
    ) -> None:
        under_way: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue()

        async def deliver() -> None:
            while True:
                due, data = await under_way.get()
                await asyncio.sleep(max(0.0, due - self._loop.time()))
                if not data:
                    with contextlib.suppress(OSError):
                        target.write_eof()
                    return
                target.write(data)
                await target.drain()

        delivery = asyncio.create_task(deliver())
        try:
            while data := await source.read(CHUNK):
                left = lane.book(len(data), self._loop.time())
                await asyncio.sleep(max(0.0, left - self._loop.time()))
                under_way.put_nowait((self._loop.time() + self.latency / 2, data))
            under_way.put_nowait((self._loop.time() + self.latency / 2, b""))
            await delivery
        finally:
            delivery.cancel()
