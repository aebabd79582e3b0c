"""Say why a service cannot be reached, and recognise answers that are not the service's."""

from __future__ import annotations

import traceback
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

from bakthat.errors import StorageError

ENDPOINT_KEY = "endpoint_url"
"""The key of the profile that most services' endpoint has, as the texts here name it."""
PORTAL_HINT = (
    f"check {ENDPOINT_KEY}, and whether the network asks for a login in a browser, or a proxy "
    "stands in between"
)
_PROXY_HINT = (
    "set HTTP_PROXY or HTTPS_PROXY to http://USER:PASSWORD@HOST:PORT, or name the host of the "
    "storage in NO_PROXY"
)
_PLAIN_ON_TLS = (b"http request to an https server", b"http request was sent to https port")
_NO_TLS = ("WRONG_VERSION_NUMBER", "HTTP_REQUEST", "UNKNOWN_PROTOCOL", "RECORD_LAYER_FAILURE")


@dataclass(frozen=True, slots=True)
class Reason:
    """Why a service cannot be reached, and what to try."""

    text: str
    hint: str = "check the network, endpoint_url and region_name, and try again"
    is_final: bool = False
    """Whether it is useless to try again soon."""


def reason_of_failure(exc: BaseException) -> Reason:
    """Return why a request failed with *exc*, an exception of botocore, urllib3 or Python.

    The text has no URL, since a URL may hold a password.
    """
    import socket
    import ssl  # botocore has loaded it by then

    chain = list(_chain(exc))
    names = {type(each).__name__ for each in chain}
    for each in chain:
        if isinstance(each, ssl.SSLCertVerificationError):
            return Reason(
                f"its certificate is not valid: {each.verify_message or each.reason}",
                "check endpoint_url and the clock of this machine; name a private certificate "
                "authority in AWS_CA_BUNDLE",
                is_final=True,
            )
    if "ProxyError" in names or "ProxyConnectionError" in names:
        if any("407" in str(each) for each in chain):
            return Reason("the proxy asks for a login (407)", _PROXY_HINT, is_final=True)
        return Reason("the proxy does not answer", "check HTTP_PROXY, HTTPS_PROXY and NO_PROXY")
    for each in chain:
        if isinstance(each, ssl.SSLError):
            if each.reason in _NO_TLS:
                return Reason(
                    "what answers there does not speak TLS",
                    "if the storage has no TLS, endpoint_url begins with http://",
                    is_final=True,
                )
            return Reason(f"TLS failed ({each.reason})", PORTAL_HINT)
        if isinstance(each, socket.gaierror):
            return Reason(
                "its host name is not known",
                "check endpoint_url and region_name, and the network: names are not resolved "
                "without it",
            )
        if isinstance(each, ConnectionRefusedError):
            return Reason(
                "nothing accepts connections there",
                "check the host and port of endpoint_url, and whether the storage is running",
            )
    if "ReadTimeoutError" in names:
        return Reason(
            "it does not answer in time",
            "check the network and try again, or set a longer timeout in the profile",
        )
    if "ConnectTimeoutError" in names or isinstance(exc, TimeoutError):
        return Reason("it accepts no connection in time", "check the network and endpoint_url")
    if names & {"ConnectionClosedError", "ProtocolError", "ConnectionResetError"}:
        return Reason(
            "the connection was closed",
            "check the network and try again; check that endpoint_url begins with https:// where "
            "the storage speaks TLS",
        )
    return Reason(type(exc).__name__)


def foreign_answer(
    shown: str, status: int, headers: Mapping[str, str], body: bytes
) -> StorageError | None:
    """Return the error for an answer that is not of the service, but of a proxy or a portal.

    *shown* names the container. Returns None for an answer that may be the service's.
    """
    beginning = body[:2048].lstrip().lower()
    if status == 407:
        return StorageError(f"{shown}: the proxy asks for a login (407)", hint=_PROXY_HINT)
    if any(words in beginning for words in _PLAIN_ON_TLS):
        return StorageError(
            f"{shown}: the storage speaks TLS there, but endpoint_url begins with http://",
            hint="let endpoint_url begin with https://",
        )
    named = {name.lower(): value for name, value in headers.items()}
    is_page = beginning.startswith((b"<!doctype html", b"<html"))
    if not body and str(named.get("content-type", "")).lower().startswith("text/html"):
        # The answer to a HEAD. Some storages give that type to an answer without a body.
        is_page = str(named.get("content-length", "0")) != "0"
    # A failure of the server before a storage is often a page too, and passes.
    may_be_portal = status < 300 or 400 <= status < 500 or status == 511
    # An object may be a page itself.
    if status == 511 or (is_page and may_be_portal and "etag" not in named):
        return not_the_service(shown, f"a web page with the status {status}")
    return None


def not_the_service(shown: str, what: str) -> StorageError:
    """Return the error for *what* was answered instead of what the service answers."""
    error = StorageError(
        f"{shown}: the answer is {what}, which does not come from the storage", hint=PORTAL_HINT
    )
    error.may_pass = True
    return error


def is_of_parser(exc: Exception) -> bool:
    """Return whether botocore could not parse an answer; it lets any error of Python out then."""
    frames = traceback.walk_tb(exc.__traceback__)
    return any(frame.f_globals.get("__name__") == "botocore.parsers" for frame, _ in frames)


def host_of(url: str) -> str:
    """Return host and port of *url*; "" when it has none."""
    try:
        return urlsplit(url).netloc.rpartition("@")[2]
    except ValueError:
        return ""


def _chain(exc: BaseException) -> Iterator[BaseException]:
    """Yield *exc* and the exceptions that it wraps, in any of the ways of these libraries."""
    waiting: list[object] = [exc]
    seen: set[int] = set()
    while waiting:
        each = waiting.pop(0)
        if not isinstance(each, BaseException) or id(each) in seen:
            continue
        seen.add(id(each))
        yield each
        wrapped = getattr(each, "kwargs", None)
        waiting += [wrapped.get("error")] if isinstance(wrapped, dict) else []
        waiting += [getattr(each, name, None) for name in ("reason", "original_error")]
        waiting += [each.__cause__, each.__context__, *each.args]
