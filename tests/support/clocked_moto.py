"""moto as a server whose clock the test sets, and that writes down each request that may change it.

Locks end by the clock of the storage, so a test of a year needs a storage whose year passes as
fast. ``PUT /clock`` with epoch seconds as its body sets the clock, which stands still in between.
This file is a program of its own, and imports nothing of the tests.
"""

from __future__ import annotations

import io
import json
import sys
import time
from collections.abc import Callable, Iterable
from typing import Any, TextIO

import time_machine
from moto.moto_server.werkzeug_app import (
    DomainDispatcherApplication,
    MotoRequestHandler,
    create_backend_app,
)
from werkzeug.serving import make_server

CLOCK = "/clock"
HEADERS = {
    "mode": "HTTP_X_AMZ_OBJECT_LOCK_MODE",
    "until": "HTTP_X_AMZ_OBJECT_LOCK_RETAIN_UNTIL_DATE",
    "hold": "HTTP_X_AMZ_OBJECT_LOCK_LEGAL_HOLD",
    "source": "HTTP_X_AMZ_COPY_SOURCE",
    "bypass": "HTTP_X_AMZ_BYPASS_GOVERNANCE_RETENTION",
}
_WITH_A_BODY = ("delete", "retention", "legal-hold")
"""The queries of requests whose bodies are written down."""


class Recorded:
    """A WSGI application that sets the clock, or writes a request down and passes it on."""

    def __init__(self, application: Any, clock: time_machine.Traveller, log: TextIO) -> None:
        self._application = application
        self._clock = clock
        self._log = log

    def __call__(
        self, environ: dict[str, Any], start_response: Callable[..., Any]
    ) -> Iterable[bytes]:
        if environ["PATH_INFO"] == CLOCK:
            size = int(environ["CONTENT_LENGTH"])
            self._clock.move_to(float(environ["wsgi.input"].read(size)))
            start_response("204 No Content", [])
            return []
        if environ["REQUEST_METHOD"] in ("GET", "HEAD"):
            return self._passed_on(environ, start_response)
        return self._written_down(environ, start_response)

    def _passed_on(
        self, environ: dict[str, Any], start_response: Callable[..., Any]
    ) -> Iterable[bytes]:
        answer: Iterable[bytes] = self._application(environ, start_response)
        return answer

    def _written_down(
        self, environ: dict[str, Any], start_response: Callable[..., Any]
    ) -> Iterable[bytes]:
        body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
        environ["wsgi.input"] = io.BytesIO(body)
        answered: dict[str, Any] = {}

        def start(status: str, headers: list[tuple[str, str]], *more: Any) -> Any:
            answered["status"] = int(status.split()[0])
            answered["headers"] = {name.lower(): value for name, value in headers}
            return start_response(status, headers, *more)

        answer = b"".join(self._passed_on(environ, start))
        query = environ["QUERY_STRING"]
        has_body = query.split("&")[0].partition("=")[0] in _WITH_A_BODY
        record = {
            "at": time.time(),
            "method": environ["REQUEST_METHOD"],
            "path": environ["RAW_URI"].partition("?")[0],
            "query": query,
            "authorization": environ.get("HTTP_AUTHORIZATION", ""),
            "status": answered["status"],
            "version": answered["headers"].get("x-amz-version-id", ""),
            "body": body.decode() if has_body else "",
            "answer": answer.decode() if has_body else "",
            **{name: environ.get(header, "") for name, header in HEADERS.items()},
        }
        self._log.write(json.dumps(record) + "\n")
        self._log.flush()
        return [answer]


def main(port: str, log: str, begin: str) -> None:
    """Serve on *port*, write down to the file *log*, and let the clock say *begin*."""
    # A moment that does not pass: what a test does at one moment has one date.
    with time_machine.travel(float(begin), tick=False) as clock, open(log, "a") as written:
        application = Recorded(DomainDispatcherApplication(create_backend_app), clock, written)
        server = make_server(
            "127.0.0.1", int(port), application, True, request_handler=MotoRequestHandler
        )
        server.serve_forever()


if __name__ == "__main__":
    main(*sys.argv[1:])
