"""A server of short-lived keys: an instance's metadata, a container's endpoint, SSO's portal."""

from __future__ import annotations

import http.server
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

ACCESS_KEY, SECRET_KEY, TOKEN = "ASIASERVED", "served-secret", "served-token"
ROLE = "backup-role"


@dataclass
class MetadataServer:
    """What the server answers, and what it was asked."""

    endpoint_url: str = ""
    lifetime: timedelta = timedelta(hours=6)
    """How long its keys are valid."""
    status: int = 200
    """Of every answer; another one refuses."""
    issued: int = 0
    """How often it gave out keys; their names end in this number."""
    paths: list[str] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def keys(self) -> dict[str, Any]:
        """Return new keys, with the names that all three services give to the fields."""
        with self.lock:
            self.issued += 1
            return {
                "access_key": f"{ACCESS_KEY}{self.issued}",
                "secret_key": SECRET_KEY,
                "token": TOKEN,
                "expires": datetime.now(UTC) + self.lifetime,
            }


class _Handler(http.server.BaseHTTPRequestHandler):
    metadata: MetadataServer

    def do_PUT(self) -> None:
        """Give out the token that version 2 of the metadata service asks for first."""
        self._answer("an-imds-token" if self.path == "/latest/api/token" else None)

    def do_GET(self) -> None:
        """Give out keys in the form of the service that the path belongs to."""
        path = self.path.partition("?")[0]
        if path == "/container":
            self._answer(self._iam("Token"))
        elif path == "/latest/meta-data/iam/security-credentials/":
            self._answer(ROLE if self._is_version_2() else None)
        elif path == f"/latest/meta-data/iam/security-credentials/{ROLE}":
            content = {"Code": "Success", "Type": "AWS-HMAC", **self._iam("Token")}
            self._answer(content if self._is_version_2() else None)
        elif path == "/federation/credentials":
            keys = self.metadata.keys()
            self._answer(
                {
                    "roleCredentials": {
                        "accessKeyId": keys["access_key"],
                        "secretAccessKey": keys["secret_key"],
                        "sessionToken": keys["token"],
                        "expiration": int(keys["expires"].timestamp() * 1000),
                    }
                }
            )
        else:
            self._answer(None)

    def _is_version_2(self) -> bool:
        return self.headers.get("X-aws-ec2-metadata-token") == "an-imds-token"

    def _iam(self, token: str) -> dict[str, str]:
        keys = self.metadata.keys()
        return {
            "AccessKeyId": keys["access_key"],
            "SecretAccessKey": keys["secret_key"],
            token: keys["token"],
            "Expiration": keys["expires"].strftime("%Y-%m-%dT%H:%M:%SZ"),
            "LastUpdated": "2026-01-01T00:00:00Z",
        }

    def _answer(self, content: dict[str, Any] | str | None) -> None:
        self.metadata.paths.append(self.path)
        status = 404 if content is None else self.metadata.status
        body = content if isinstance(content, str) else json.dumps(content or {})
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("x-aws-ec2-metadata-token-ttl-seconds", "21600")
        self.end_headers()
        self.wfile.write(body.encode())

    def log_message(self, format: str, *args: Any) -> None:
        """Write no log."""


@contextmanager
def metadata_server() -> Iterator[MetadataServer]:
    """Run the server on a loopback port until the block ends."""
    metadata = MetadataServer()
    handler = type("Handler", (_Handler,), {"metadata": metadata})
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    metadata.endpoint_url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield metadata
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
