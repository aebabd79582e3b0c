"""A web server on loopback that records its requests, and answers as the test says."""

from __future__ import annotations

import http.server
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Received:
    """One request."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes


@dataclass
class HttpListener:
    """The address of the server, its requests, and its answers."""

    url: str
    requests: list[Received] = field(default_factory=list)
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    answers: bool = True
    """False: it reads requests and closes the connection without an answer."""

    def paths(self) -> list[str]:
        """Return the requested paths, without their queries."""
        return [each.path.partition("?")[0] for each in self.requests]


@contextmanager
def http_listener() -> Iterator[HttpListener]:
    """Serve until the block ends."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def answer(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            headers = {name.lower(): value for name, value in self.headers.items()}
            listener.requests.append(Received(self.command, self.path, headers, body))
            if not listener.answers:
                self.close_connection = True
                return
            self.send_response(listener.status)
            for name, value in listener.headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", "0")
            self.end_headers()

        do_GET = do_POST = answer  # noqa: N815  # names that http.server looks for

        def log_message(self, *_arguments: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = False  # so that closing waits for the last answer
    listener = HttpListener(f"http://127.0.0.1:{server.server_port}")
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield listener
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
