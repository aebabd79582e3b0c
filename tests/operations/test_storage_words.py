"""Every failure of a storage reads plainly and says what to try, in every operation."""

from __future__ import annotations

import socket
import socketserver
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

import bakthat
from bakthat.errors import BakthatError, StorageError, UnreachableError
from tests.support.commandline import CommandLine
from tests.support.foreign_answers import answering, make_certificate
from tests.support.profiles import Conf, write_config
from tests.support.servers import S3Server, free_port, plain

pytestmark = pytest.mark.slow

PAGE = b"<!DOCTYPE html><html><body>Welcome to this hotel</body></html>"
HTML = {"Content-Type": "text/html; charset=utf-8"}


def _error(code: str, message: str = "") -> bytes:
    return f"<Error><Code>{code}</Code><Message>{message}</Message></Error>".encode()


ANSWERS: dict[str, tuple[tuple[Any, ...], str, str]] = {
    "a portal": ((200, PAGE, HTML), "a web page with the status 200", "login in a browser"),
    "a portal without a type": ((200, PAGE), "does not come from the storage", "login in a"),
    "a portal that logs in": ((511, PAGE, HTML), "a web page with the status 511", "login in a"),
    "a portal that redirects": (
        (302, PAGE, {**HTML, "Location": "http://portal.invalid/"}),
        "a redirection to http://portal.invalid/",
        "login in a browser",
    ),
    "a redirection without a target": ((307, b""), "answered 307, a redirection", "region_name"),
    "a web server": ((404, PAGE, HTML), "a web page with the status 404", "check endpoint_url"),
    "a proxy": ((407, PAGE, HTML), "the proxy asks for a login", "USER:PASSWORD"),
    "TLS was meant": (
        (400, b"Client sent an HTTP request to an HTTPS server.\n"),
        "speaks TLS",
        "begin with https://",
    ),
    "a wrong region": (
        (301, b"", {"x-amz-bucket-region": "eu-west-1"}),
        "is in the region eu-west-1",
        "region_name: eu-west-1",
    ),
    "a wrong clock": (
        (403, _error("RequestTimeTooSkewed", "The difference is too large")),
        "RequestTimeTooSkewed",
        "clock",
    ),
    "wrong keys": ((403, _error("InvalidAccessKeyId", "unknown")), "refused", "access_key"),
}
FULL = {
    "507": ((507, b""), "is full", "make room"),
    "a quota": ((403, _error("QuotaExceeded", "the quota")), "is full", "quota"),
    "a full disk": (
        (500, _error("InternalError", "write /x: no space left on device")),
        "is full",
        "make room",
    ),
}


@pytest.fixture
def conf(moto_endpoint: S3Server, local: Conf, tree: Path) -> Conf:
    """Return a profile with a backup in its catalog."""
    conf = {**moto_endpoint.conf(), "database": local["database"], "attempts": 1, "timeout": 2}
    bakthat.backup(tree, conf=conf, password="")
    return conf


OPERATIONS: dict[str, Callable[[Conf, Path], object]] = {
    "backup": lambda conf, tree: bakthat.backup(tree, conf=conf, password=""),
    "restore": lambda conf, tree: bakthat.restore("mydir", conf=conf, output=tree / "out"),
    "sync": lambda conf, _: bakthat.sync("s3", conf=conf),
    "delete": lambda conf, _: bakthat.delete("mydir", conf=conf),
}


def _check(conf: Conf, tree: Path, operation: str, message: str, hint: str) -> BakthatError:
    with pytest.raises(StorageError) as caught:
        OPERATIONS[operation](conf, tree)
    text = str(caught.value)
    assert message in text
    assert hint in caught.value.hint
    assert conf["s3_bucket"] in text
    assert "\n" not in text
    # Nothing was taken for done.
    assert [each.is_deleted for each in bakthat.ls(conf=conf)] == [False]
    assert not (tree / "out").exists()
    return caught.value


@pytest.mark.parametrize("operation", OPERATIONS)
@pytest.mark.parametrize("name", ANSWERS)
def test_an_answer_that_is_not_the_storages_or_a_refusal_is_told_plainly(
    conf: Conf, tree: Path, name: str, operation: str
) -> None:
    answer, message, hint = ANSWERS[name]
    with answering(*answer) as address:
        _check({**conf, "endpoint_url": f"http://{address}"}, tree, operation, message, hint)


@pytest.mark.parametrize("name", FULL)
def test_a_full_storage_is_told_plainly(proxied: Conf, moto_proxy: Any, name: str) -> None:
    from tests.support.fault_proxy import Answer

    ((status, body), message, hint) = FULL[name]
    moto_proxy.on("PUT", ".tgz", Answer(status, body))
    tree = Path(proxied["database"]).parent / "full"
    tree.mkdir()
    with pytest.raises(StorageError, match=message) as caught:
        bakthat.backup(tree, conf={**proxied, "attempts": 1}, password="")
    assert hint in caught.value.hint


@pytest.fixture
def proxied(proxied_conf: Conf, local: Conf) -> Conf:
    return {**proxied_conf, "database": local["database"]}


@contextmanager
def _unresolved(monkeypatch: pytest.MonkeyPatch, _: Path) -> Iterator[str]:
    def fail(*_arguments: object, **_options: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", fail)
    yield "http://storage.example:9000"


@contextmanager
def _nothing(_: pytest.MonkeyPatch, _directory: Path) -> Iterator[str]:
    yield f"http://127.0.0.1:{free_port()}"


@contextmanager
def _https_to_plain(_: pytest.MonkeyPatch, _directory: Path) -> Iterator[str]:
    with answering(200) as address:
        yield f"https://{address}"


@contextmanager
def _plain_to_https(_: pytest.MonkeyPatch, directory: Path) -> Iterator[str]:
    with answering(200, certificate=make_certificate(directory / "key.pem")) as address:
        yield f"http://{address}"


@contextmanager
def _self_signed(_: pytest.MonkeyPatch, directory: Path) -> Iterator[str]:
    with answering(200, certificate=make_certificate(directory / "key.pem")) as address:
        yield f"https://{address}"


@contextmanager
def _proxy(monkeypatch: pytest.MonkeyPatch, _: Path) -> Iterator[str]:
    with answering(407, PAGE, HTML) as address:
        monkeypatch.setenv("HTTPS_PROXY", f"http://{address}")
        monkeypatch.setenv("NO_PROXY", "")
        yield "https://storage.example"


@contextmanager
def _dead_proxy(monkeypatch: pytest.MonkeyPatch, _: Path) -> Iterator[str]:
    monkeypatch.setenv("HTTPS_PROXY", f"http://127.0.0.1:{free_port()}")
    monkeypatch.setenv("NO_PROXY", "")
    yield "https://storage.example"


@contextmanager
def _other_tls(_: pytest.MonkeyPatch, _directory: Path) -> Iterator[str]:
    alert = b"\x15\x03\x03\x00\x02\x02\x28"  # the handshake has failed

    class Refuse(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            self.request.recv(65536)
            self.request.sendall(alert)

    with socketserver.TCPServer(("127.0.0.1", 0), Refuse) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield f"https://127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join()


@contextmanager
def _no_room(_: pytest.MonkeyPatch, _directory: Path) -> Iterator[str]:
    """A host that accepts no more connections: those that wait fill its queue."""
    with socket.create_server(("127.0.0.1", 0), backlog=0) as server, ExitStack() as waiting:
        address = server.getsockname()
        for _attempt in range(4):
            client = waiting.enter_context(socket.socket())
            client.setblocking(False)
            client.connect_ex(address)
        yield f"http://127.0.0.1:{address[1]}"


NETWORKS: dict[str, tuple[Any, str, str]] = {
    "an unknown host": (_unresolved, "host name is not known", "endpoint_url"),
    "nothing listens": (_nothing, "nothing accepts connections", "host and port"),
    "https to http": (_https_to_plain, "does not speak TLS", "http://"),
    "http to https": (_plain_to_https, "connection was closed", "https://"),
    "a certificate": (_self_signed, "certificate is not valid: self", "AWS_CA_BUNDLE"),
    "no room": (_no_room, "accepts no connection in time", "check the network"),
    "other TLS": (_other_tls, "TLS failed (", "check endpoint_url"),
    "no proxy": (_dead_proxy, "the proxy does not answer", "HTTPS_PROXY"),
    "a proxy": (_proxy, "asks for a login (407)", "USER:PASSWORD"),
}


@pytest.mark.parametrize("operation", OPERATIONS)
@pytest.mark.parametrize("name", NETWORKS)
def test_a_storage_that_cannot_be_reached_says_why(
    conf: Conf,
    tree: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    operation: str,
) -> None:
    network, message, hint = NETWORKS[name]
    with network(monkeypatch, tmp_path) as url:
        error = _check({**conf, "endpoint_url": url}, tree, operation, message, hint)
    assert isinstance(error, UnreachableError)


def test_a_failure_that_stays_is_not_tried_eight_times(
    conf: Conf, tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pauses: list[float] = []
    monkeypatch.setattr("botocore.endpoint.time.sleep", pauses.append)
    with _self_signed(monkeypatch, tmp_path) as url:
        several = {**conf, "endpoint_url": url, "attempts": 8}
        _check(several, tree, "restore", "certificate is not valid", "AWS_CA_BUNDLE")
    assert pauses == []


@pytest.mark.parametrize("command", ["backup mydir --prompt no", "restore mydir", "sync", "delete"])
def test_a_command_before_a_portal_ends_with_1_and_a_hint(
    user: CommandLine, conf: Conf, command: str
) -> None:
    name = bakthat.ls(conf=conf)[0].stored_filename
    with answering(200, PAGE, HTML) as address:
        profile = {**conf, "endpoint_url": f"http://{address}", "default_destination": "s3"}
        write_config(user.home / ".bakthat.yml", default=profile)
        words = [*command.split(), *([name] if command == "delete" else [])]
        done = user.run(*words)
    assert done.code == 1, done.stderr
    assert "bakthat: error: bucket" in done.stderr
    assert "does not come from the storage" in done.stderr
    assert "login in a browser" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_deletion_that_a_lock_refuses_is_told_plainly(proxied: Conf, moto_proxy: Any) -> None:
    from tests.support.fault_proxy import refusal

    tree = Path(proxied["database"]).parent / "locked"
    tree.mkdir()
    made = bakthat.backup(tree, conf=proxied, password="")
    message = "Access Denied because object protected by object lock."
    moto_proxy.on("DELETE", ".tgz", refusal(403, "AccessDenied", message))
    with pytest.raises(StorageError, match=r"is locked: AccessDenied") as caught:
        bakthat.delete(made.stored_filename, conf=proxied)
    assert "retention ends" in caught.value.hint
    assert bakthat.ls(conf=proxied) == [made]
    assert plain(proxied).list_objects_v2(Bucket=proxied["s3_bucket"])["KeyCount"] == 2


@pytest.mark.parametrize("name", ["a portal", "a portal without a type", "a web server"])
def test_a_page_in_the_place_of_a_vault_is_told_plainly(local: Conf, tree: Path, name: str) -> None:
    answer, message, hint = ANSWERS[name]
    with answering(*answer) as address:
        conf = {
            "access_key": "a",
            "secret_key": "b",
            "glacier_vault": "vault",
            "glacier_endpoint_url": f"http://{address}",
            "default_destination": "glacier",
            "database": local["database"],
            "attempts": 1,
        }
        for use in (
            lambda: bakthat.backup(tree, conf=conf, password=""),
            lambda: bakthat.thaws("glacier", conf=conf),
            lambda: bakthat.show_glacier_inventory(conf=conf),
        ):
            with pytest.raises(StorageError, match=message) as caught:
                use()
            assert hint.replace("endpoint_url", "glacier_endpoint_url") in caught.value.hint
    assert bakthat.ls(conf=conf) == []
