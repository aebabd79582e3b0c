"""A proxy before an S3 server that breaks chosen requests, in the ways that networks do."""

from __future__ import annotations

import http.client
import http.server
import socket
import struct
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit


@dataclass(frozen=True)
class Answer:
    """Answer this, without asking the server."""

    status: int
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Reset:
    """Reset the connection, without asking the server."""


@dataclass(frozen=True)
class LoseAnswer:
    """Let the server do it, then reset the connection instead of answering."""


@dataclass(frozen=True)
class Cut:
    """Announce the whole body of the server's answer, send the first bytes, and close."""

    after: int


@dataclass(frozen=True)
class Alter:
    """Let the server do it, then change headers of its answer, and flip a bit of its body."""

    headers: Mapping[str, str] = field(default_factory=dict)
    """By their names in lower case; they take the place of the server's, or are added."""
    flip: int | None = None
    """Which byte of the body, counted from its beginning."""
    without: frozenset[str] = frozenset()
    """The names of headers that are left out, in lower case."""


@dataclass(frozen=True)
class Stall:
    """Tell the test that the request has come, and answer nothing until the proxy ends."""

    reached: threading.Event = field(default_factory=threading.Event)


@dataclass(frozen=True)
class Hold:
    """Let the server do it, tell the test, and answer only when it says so."""

    done: threading.Event = field(default_factory=threading.Event)
    go: threading.Event = field(default_factory=threading.Event)


@dataclass(frozen=True)
class Judge:
    """Let the server do it, and answer what *judge* makes of its status, headers and body."""

    judge: Callable[[int, dict[str, str], bytes], tuple[int, dict[str, str], bytes]]


Fault = Answer | Reset | LoseAnswer | Cut | Alter | Stall | Hold | Judge


def refusal(status: int, code: str, message: str = "requested by the test") -> Answer:
    """Return an answer with the XML body of an S3 error."""
    body = f"<Error><Code>{code}</Code><Message>{message}</Message></Error>"
    return Answer(status, body.encode())


@dataclass
class Rule:
    """A fault for requests of *method* whose path and query contain *part*, *times* over, once
    *after* of them have passed; only for those that have *header* and lack *without*.
    """

    method: str
    part: str
    fault: Fault
    times: int
    after: int = 0
    header: str = ""
    without: str = ""


@dataclass
class FaultProxy:
    """Forwards requests to a server, one at a time, unless a rule applies."""

    upstream: str
    endpoint_url: str = ""
    requests: list[tuple[str, str, dict[str, str]]] = field(default_factory=list)
    """Method, path with query, and headers in lower case, of every request."""
    rules: list[Rule] = field(default_factory=list)
    answered_bytes: int = 0
    """Bytes of all answers, their headers included."""
    ended: threading.Event = field(default_factory=threading.Event)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def on(
        self,
        method: str,
        part: str,
        fault: Fault,
        *,
        times: int = 10**6,
        after: int = 0,
        header: str = "",
        without: str = "",
    ) -> None:
        """Break *times* requests of *method* ("*" for any) whose path and query contain *part*;
        let *after* of them pass first. Break only those that have *header*, in lower case, and
        lack *without*.
        """
        self.rules.append(Rule(method, part, fault, times, after, header, without))

    def seen(self, method: str, part: str = "") -> int:
        """Return how many requests of *method* had *part* in their path or query."""
        return sum(1 for verb, path, _ in self.requests if verb == method and part in path)

    def count(self, size: int) -> None:
        """Add to the bytes of all answers."""
        with self.lock:
            self.answered_bytes += size

    def fault_for(
        self, method: str, path: str, headers: dict[str, str], body: bytes = b""
    ) -> Fault | None:
        """Record a request and return its fault, or None."""
        with self.lock:
            self.requests.append((method, path, headers))
            for rule in self.rules:
                if (rule.header and rule.header not in headers) or rule.without in headers:
                    continue
                if rule.times and rule.method in ("*", method) and rule.part in path:
                    if rule.after:
                        rule.after -= 1
                        continue
                    rule.times -= 1
                    return rule.fault
        return None


class _Handler(http.server.BaseHTTPRequestHandler):
    """HTTP/1.0: each connection carries one request, so that no thread waits for a second one."""

    proxy: FaultProxy

    def _serve(self) -> None:
        body = self._receive()
        headers = {name.lower(): value for name, value in self.headers.items()}
        fault = self.proxy.fault_for(self.command, self.path, headers, body)
        self.close_connection = True
        if isinstance(fault, Stall):
            fault.reached.set()
            self.proxy.ended.wait()
        elif isinstance(fault, Reset):
            self._reset()
        elif isinstance(fault, Answer):
            headers = {**fault.headers, "Content-Length": str(len(fault.body))}
            self._answer(fault.status, headers, fault.body)
        else:
            status, answered, content = self._forward(body)
            if isinstance(fault, Hold):
                fault.done.set()
                fault.go.wait(60)
            if isinstance(fault, LoseAnswer):
                self._reset()
            else:
                sent = content[: fault.after] if isinstance(fault, Cut) else content
                if isinstance(fault, Alter):
                    answered, sent = _altered(fault, answered, content)
                if isinstance(fault, Judge):
                    status, answered, sent = fault.judge(status, answered, content)
                self._answer(status, answered, sent)

    # http.server looks for methods of these names.
    do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = _serve  # noqa: N815  (its names, not ours)

    def _receive(self) -> bytes:
        """Return the body, or what came of it before the client gave up."""
        if self.headers.get("Expect") == "100-continue":
            self.wfile.write(b"HTTP/1.1 100 Continue\r\n\r\n")  # botocore waits a second for it
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))

    def _forward(self, body: bytes) -> tuple[int, dict[str, str], bytes]:
        if len(body) < int(self.headers.get("Content-Length") or 0):
            raise ConnectionAbortedError  # the server would wait for the rest
        # The lock makes the server's check of a condition and its write one step, which moto's
        # threads alone are not.
        with self.proxy.lock:
            address = urlsplit(self.proxy.upstream)
            assert address.hostname is not None
            connection = http.client.HTTPConnection(address.hostname, address.port, timeout=60)
            try:
                connection.request(self.command, self.path, body, dict(self.headers.items()))
                answer = connection.getresponse()
                content = answer.read()
            finally:
                connection.close()
        hop_by_hop = {"connection", "transfer-encoding", "keep-alive"}
        headers = {k: v for k, v in answer.getheaders() if k.lower() not in hop_by_hop}
        if self.command != "HEAD":
            headers = {k: v for k, v in headers.items() if k.lower() != "content-length"}
            headers["Content-Length"] = str(len(content))
        return answer.status, headers, content

    def _answer(self, status: int, headers: dict[str, str], body: bytes) -> None:
        self.send_response_only(status)
        for name, value in headers.items():
            self.send_header(name, value)
        heading = sum(len(f"{name}: {value}\r\n") for name, value in headers.items()) + 40
        sent = b"" if self.command == "HEAD" else body
        self.proxy.count(heading + len(sent))
        self.end_headers()
        self.wfile.write(sent)

    def _reset(self) -> None:
        # Lingering for zero seconds makes closing a reset.
        linger = struct.pack("ii", 1, 0)
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        self.connection.close()

    def log_message(self, format: str, *args: Any) -> None:
        """Log nothing."""


def _altered(fault: Alter, headers: dict[str, str], body: bytes) -> tuple[dict[str, str], bytes]:
    replaced = fault.without.union(fault.headers)
    kept = {name: value for name, value in headers.items() if name.lower() not in replaced}
    headers = {**kept, **fault.headers}
    if fault.flip is not None and fault.flip < len(body):
        flipped = bytes([body[fault.flip] ^ 1])
        body = body[: fault.flip] + flipped + body[fault.flip + 1 :]
    return headers, body


class _Server(http.server.ThreadingHTTPServer):
    daemon_threads = False
    request_queue_size = 64

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Log nothing: tests make clients give up before the answer is complete."""


@contextmanager
def serving(proxy: FaultProxy, handler: type[Any]) -> Iterator[None]:
    """Answer requests to *proxy* by *handler*, which gets it as its ``proxy``, in the block."""
    server = _Server(("127.0.0.1", 0), type("_Handler", (handler,), {"proxy": proxy}))
    proxy.endpoint_url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield
    finally:
        proxy.ended.set()
        server.shutdown()
        thread.join()
        server.server_close()


@contextmanager
def fault_proxy(upstream: str) -> Iterator[FaultProxy]:
    """Run a proxy before the server at the URL *upstream* until the block ends."""
    proxy = FaultProxy(upstream)
    with serving(proxy, _Handler):
        yield proxy
