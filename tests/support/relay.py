"""A relay before a server, in a process of its own: killing or stopping it breaks the network."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from queue import Queue


class Relay:
    """The connections between clients and a server."""

    def __init__(self, pid: int, port: int) -> None:
        self.port = port
        """Where it listens, on the loopback address."""
        self._pid = pid

    def cut(self) -> None:
        """End all connections, in whatever they are doing; new ones are refused."""
        os.kill(self._pid, signal.SIGKILL)

    def silence(self) -> None:
        """Pass nothing on any more, and tell nobody."""
        os.kill(self._pid, signal.SIGSTOP)


@contextmanager
def relay(port: int, *, at: int = 0) -> Iterator[Relay]:
    """Run a relay before a port of the loopback address until the block ends.

    It listens at port *at*, by default at a free one. This process is forked for it, and must have
    no threads.
    """
    with socket.create_server(("127.0.0.1", at), backlog=64) as listener:
        pid = os.fork()
        if pid == 0:
            try:
                # A stopped process in a group that loses its parent brings SIGHUP to the group.
                os.setsid()
                asyncio.run(_serve(listener, port))
            finally:
                os._exit(0)
        address = listener.getsockname()[1]
    try:
        yield Relay(pid, address)
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


@contextmanager
def relay_until(word: bytes, port: int) -> Iterator[int]:
    """Run a relay before a port, in a thread, until the block ends; yield the port of the relay.

    Of a connection whose client has sent *word*, it passes nothing on any more, and tells nobody.
    """
    started: Queue[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = Queue()

    async def serve(listener: socket.socket) -> None:
        connections: set[asyncio.Task[None] | None] = set()
        stop = asyncio.Event()

        async def connect(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            connections.add(asyncio.current_task())
            there, back = await asyncio.open_connection("127.0.0.1", port)
            answers = asyncio.create_task(_copy(there, writer))
            with closing(writer), closing(back):
                while (data := await reader.read(65536)) and word not in data:
                    back.write(data)
                    await back.drain()
                if data:
                    answers.cancel()
                    await stop.wait()
                back.write_eof()
                await answers

        server = await asyncio.start_server(connect, sock=listener)
        started.put((asyncio.get_running_loop(), stop))
        await stop.wait()
        server.close()

    with socket.create_server(("127.0.0.1", 0), backlog=64) as listener:
        address = listener.getsockname()[1]
        thread = threading.Thread(target=lambda: asyncio.run(serve(listener)))
        thread.start()
        loop, stop = started.get()
        try:
            yield address
        finally:
            loop.call_soon_threadsafe(stop.set)
            thread.join()


async def _serve(listener: socket.socket, port: int) -> None:
    connections: set[asyncio.Task[None] | None] = set()  # asyncio itself does not keep them

    async def connect(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connections.add(asyncio.current_task())
        try:
            there, back = await asyncio.open_connection("127.0.0.1", port)
        except OSError:
            writer.transport.abort()
        else:
            await asyncio.gather(_copy(reader, back), _copy(there, writer))

    async with await asyncio.start_server(connect, sock=listener) as server:
        await server.serve_forever()


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
        writer.write_eof()
    except OSError:
        writer.transport.abort()  # a reset here is one there
