"""A proxy before an S3 server that keeps objects of the archive classes frozen, as S3 does.

moto thaws at once; here a thaw takes the hours that S3 takes, by a clock that tests move, and its
copy expires.
"""

from __future__ import annotations

import email.utils
import http.client
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from urllib.parse import parse_qs, unquote, urlsplit

from tests.support.fault_proxy import FaultProxy, _Handler, serving

HOUR = 3600.0
TIER_HOURS = {
    "GLACIER": {"Expedited": 0.07, "Standard": 4.0, "Bulk": 8.0},
    "DEEP_ARCHIVE": {"Standard": 11.0, "Bulk": 40.0},
}
TIER_HOURS["ARCHIVE_ACCESS"] = TIER_HOURS["GLACIER"]
TIER_HOURS["DEEP_ARCHIVE_ACCESS"] = TIER_HOURS["DEEP_ARCHIVE"]


@dataclass
class Copy:
    """A readable copy on its way. Times are by the proxy's clock."""

    ready_at: float
    expires_at: float


@dataclass
class ThawProxy(FaultProxy):
    """*now* is S3's clock, in epoch seconds UTC; keys are paths, with the bucket."""

    now: float = field(default_factory=time.time)
    copies: dict[str, Copy] = field(default_factory=dict)
    tiers: dict[str, str] = field(default_factory=dict)
    """The archive tier of objects of intelligent tiering; those without one are warm."""
    asked: list[tuple[str, str]] = field(default_factory=list)
    """Path and tier of every thaw that was begun; each one is charged."""
    has_expedited_capacity: bool = True
    loses_next_answer: bool = False
    lists_thaws: bool = True

    def advance(self, *, hours: float) -> None:
        self.now += hours * HOUR

    def copy_of(self, path: str) -> Copy | None:
        copy = self.copies.get(path)
        if copy is not None and self.now >= copy.expires_at:
            del self.copies[path]
            return None
        return copy

    def class_of(self, path: str, headers: dict[str, str]) -> str:
        """Return the archive class or tier of an object, or "" when it is not archived."""
        copy = self.copy_of(path)
        if path in self.tiers:
            if copy is not None and self.now >= copy.ready_at:
                del self.tiers[path]  # it has moved, and stays warm
                return ""
            return self.tiers[path]
        address = urlsplit(self.upstream)
        assert address.hostname is not None
        connection = http.client.HTTPConnection(address.hostname, address.port, timeout=60)
        try:
            connection.request("HEAD", path, headers=headers)
            found = connection.getresponse().getheader("x-amz-storage-class") or ""
        finally:
            connection.close()
        return found if found in TIER_HOURS else ""

    def restore_header(self, path: str) -> str:
        copy = self.copy_of(path)
        if copy is None:
            return ""
        if self.now < copy.ready_at:
            return 'ongoing-request="true"'
        expires = email.utils.formatdate(copy.expires_at, usegmt=True)
        return f'ongoing-request="false", expiry-date="{expires}"'


class _ThawHandler(_Handler):
    proxy: ThawProxy

    def _serve(self) -> None:
        url = urlsplit(self.path)
        path, query = unquote(url.path), parse_qs(url.query, keep_blank_values=True)
        body = self._receive()
        headers = {name.lower(): value for name, value in self.headers.items()}
        self.proxy.requests.append((self.command, self.path, headers))
        self.close_connection = True
        is_object = path.strip("/").count("/") > 0
        if self.command == "POST" and "restore" in query:
            self._restore(path, body)
        elif self.command == "GET" and is_object and self._is_frozen(path):
            self._refuse(403, "InvalidObjectState")
        else:
            status, answered, content = self._forward(body)
            answered = {k: v for k, v in answered.items() if k.lower() != "x-amz-restore"}
            if self.command == "HEAD" and is_object and status == 200:
                answered |= self._state_headers(path)
            if "list-type" in query and "x-amz-optional-object-attributes" in headers:
                content = self._with_states(path, content)
                answered["Content-Length"] = str(len(content))
            self._answer(status, answered, content)

    # http.server looks for methods of these names.
    do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = _serve  # noqa: N815  (its names, not ours)

    def _is_frozen(self, path: str) -> bool:
        if not self.proxy.class_of(path, self._plain_headers()):
            return False
        copy = self.proxy.copy_of(path)
        return copy is None or self.proxy.now < copy.ready_at

    def _plain_headers(self) -> dict[str, str]:
        return {"Authorization": self.headers.get("Authorization", "")}

    def _state_headers(self, path: str) -> dict[str, str]:
        name = self.proxy.class_of(path, self._plain_headers())
        header = self.proxy.restore_header(path) if name else ""
        found = {"x-amz-restore": header} if header else {}
        return found | ({"x-amz-archive-status": name} if path in self.proxy.tiers else {})

    def _with_states(self, path: str, content: bytes) -> bytes:
        if not self.proxy.lists_thaws:
            return content

        def add(match: re.Match[str]) -> str:
            copy = self.proxy.copy_of(f"{path.rstrip('/')}/{match[1]}")
            if copy is None:
                return match[0]
            running = self.proxy.now < copy.ready_at
            until = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(copy.expires_at))
            state = f"<IsRestoreInProgress>{str(running).lower()}</IsRestoreInProgress>"
            if not running:
                state += f"<RestoreExpiryDate>{until}</RestoreExpiryDate>"
            return f"{match[0]}<RestoreStatus>{state}</RestoreStatus>"

        return re.sub(r"<Key>([^<]*)</Key>", add, content.decode()).encode()

    def _restore(self, path: str, body: bytes) -> None:
        name = self.proxy.class_of(path, self._plain_headers())
        tier = (re.search(rb"<Tier>(\w+)</Tier>", body) or [b"", b"Standard"])[1].decode()
        days = re.search(rb"<Days>(\d+)</Days>", body)
        copy = self.proxy.copy_of(path)
        if not name:
            return self._refuse(403, "InvalidObjectState")
        if tier not in TIER_HOURS[name] or bool(days) == (path in self.proxy.tiers):
            return self._refuse(400, "InvalidArgument")
        if copy is not None and self.proxy.now < copy.ready_at:
            return self._refuse(409, "RestoreAlreadyInProgress")
        if tier == "Expedited" and not self.proxy.has_expedited_capacity:
            return self._refuse(503, "GlacierExpeditedRetrievalNotAvailable")
        life = int(days[1]) * 24 * HOUR if days else 1e9
        if copy is not None:
            copy.expires_at = self.proxy.now + life
            return self._answer(200, {"Content-Length": "0"}, b"")
        if days:
            self._forward(body)  # else moto would refuse to give the object out
        ready_at = self.proxy.now + TIER_HOURS[name][tier] * HOUR
        self.proxy.copies[path] = Copy(ready_at, ready_at + life)
        self.proxy.asked.append((path, tier))
        if self.proxy.loses_next_answer:
            self.proxy.loses_next_answer = False
            return self._reset()
        return self._answer(202, {"Content-Length": "0"}, b"")

    def _refuse(self, status: int, code: str) -> None:
        content = f"<Error><Code>{code}</Code><Message>as S3 does</Message></Error>".encode()
        self._answer(status, {"Content-Length": str(len(content))}, content)


@contextmanager
def thaw_proxy(upstream: str) -> Iterator[ThawProxy]:
    """Run a proxy before the S3 server at the URL *upstream* until the block ends."""
    proxy = ThawProxy(upstream)
    with serving(proxy, _ThawHandler):
        yield proxy
