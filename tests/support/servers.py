"""Storages for the tests: independent servers, and what each of them supports.

A storage joins the conformance suite by a factory with ``@storage("its name")``; it gets
pytest's request, from which it takes the fixtures it needs.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from bakthat.backends.base import Backend
from bakthat.backends.glacier.backend import GlacierBackend
from bakthat.backends.glacier.inventory import VaultRecords
from bakthat.backends.local.backend import LocalBackend
from bakthat.backends.s3.backend import S3Backend
from tests.support.glacier_server import GlacierServer

ROLES = ("writer", "reader", "keeper")
"""Users with access keys of their own, which a server accepts as it does those of the tests."""
START_LIMIT = 60.0
"""Seconds a server may take until it listens; the machine may be busy."""


@dataclass(frozen=True)
class S3Server:
    """A server that speaks S3 on a loopback port, and keys that it accepts."""

    endpoint_url: str
    access_key: str
    secret_key: str
    pid: int = 0

    @staticmethod
    def keys_of(role: str) -> dict[str, str]:
        """Return the access keys of one of the :data:`ROLES`, as a profile has them."""
        return {"access_key": f"{role}-access-key", "secret_key": f"{role}-secret-key"}

    def conf(self, **more: Any) -> dict[str, Any]:
        """Return a flat profile with a bucket name of its own; the bucket is not created."""
        return {
            "access_key": self.access_key,
            "secret_key": self.secret_key,
            "endpoint_url": self.endpoint_url,
            "s3_bucket": f"bakthat-{uuid.uuid4().hex[:16]}",
            **more,
        }


def free_port() -> int:
    """Return a loopback port that nothing listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def free_ports(count: int) -> list[int]:
    """Return *count* different loopback ports that nothing listens on now."""
    with contextlib.ExitStack() as probes:
        ports = []
        for _ in range(count):
            probe = probes.enter_context(socket.socket())
            probe.bind(("127.0.0.1", 0))
            ports.append(int(probe.getsockname()[1]))
        return ports


def tool(name: str) -> str:
    """Return the path of a program that a Python package installed, or that PATH has."""
    installed = Path(sys.executable).with_name(name)
    found = str(installed) if installed.exists() else shutil.which(name)
    if not found:
        pytest.fail(f"{name} is not installed; the extra `test` brings it")
    return found


@contextmanager
def running(command: list[str], port: int, home: Path, *, grace: float = 10) -> Iterator[int]:
    """Run *command* until the block ends, entering it with its number when *port* answers.

    It is killed *grace* seconds after it was asked to end.
    """
    environment = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("AWS_", "RCLONE_", "MOTO_"))
    }
    log = home / "server.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env={**environment, "HOME": str(home)},
        )
    try:
        wait_for_port(port, process, log)
        yield process.pid
    finally:
        process.terminate()
        try:
            process.wait(grace)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def wait_for_port(port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    """Return as soon as *port* accepts connections; fail with the server's log if it does not."""
    pause = threading.Event()
    deadline = time.monotonic() + START_LIMIT
    while process.poll() is None and time.monotonic() < deadline:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            pause.wait(0.05)
        else:
            return
    pytest.fail(f"{process.args!r} does not answer on port {port}:\n{log.read_text()[-2000:]}")


@contextmanager
def moto_server(home: Path) -> Iterator[S3Server]:
    """Run moto's server: honours conditional writes, checks no keys, knows every AWS service."""
    port = free_port()
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    with running(command, port, home) as pid:
        yield S3Server(f"http://127.0.0.1:{port}", "moto-access-key", "moto-secret-key", pid)


@contextmanager
def rclone_server(
    home: Path, access_key: str = "rclone-access-key", secret_key: str = "rclone-secret-key"
) -> Iterator[S3Server]:
    """Run ``rclone serve s3``: checks keys and signatures, ignores ``If-None-Match``."""
    port = free_port()
    store = home / "store"
    store.mkdir()
    command = [
        tool("rclone"),
        "serve",
        "s3",
        str(store),
        "--config=",
        f"--addr=127.0.0.1:{port}",
        f"--auth-key={access_key},{secret_key}",
    ]
    with running(command, port, home) as pid:
        yield S3Server(f"http://127.0.0.1:{port}", access_key, secret_key, pid)


@contextmanager
def seaweedfs_server(home: Path) -> Iterator[S3Server]:
    """Run SeaweedFS (master, volume server, filer and S3 in one process)."""
    access_key, secret_key = "seaweedfs-access-key", "seaweedfs-secret-key"
    users = {"tests": {"access_key": access_key, "secret_key": secret_key}}
    users |= {each: S3Server.keys_of(each) for each in ROLES}
    identities = [
        {
            "name": name,
            "credentials": [
                {"accessKey": keys["access_key"], "secretKey": keys["secret_key"]},
            ],
            "actions": ["Admin", "Read", "List", "Tagging", "Write"],
        }
        for name, keys in users.items()
    ]
    keys = home / "s3.json"
    keys.write_text(json.dumps({"identities": identities}))
    (home / "data").mkdir()
    port, *others = free_ports(8)
    names = [
        *("master.port", "master.port.grpc", "volume.port", "volume.port.grpc"),
        *("filer.port", "filer.port.grpc", "s3.port.grpc"),
    ]
    command = [
        tool("weed"),
        "-logtostderr",
        "server",
        "-ip=127.0.0.1",
        "-ip.bind=127.0.0.1",
        f"-dir={home / 'data'}",
        "-master.telemetry=false",
        "-master.volumeSizeLimitMB=64",
        "-volume.max=10000",  # each bucket takes several
        "-s3",
        "-s3.ip.bind=127.0.0.1",
        f"-s3.config={keys}",
        "-s3.port.iceberg=0",
        "-s3.port.lance=0",
        f"-s3.port={port}",
        *(f"-{name}={number}" for name, number in zip(names, others, strict=True)),
    ]
    try:
        with running(command, port, home, grace=1) as pid:  # it would take ten seconds
            yield S3Server(f"http://127.0.0.1:{port}", access_key, secret_key, pid)
    finally:
        for number in (port, *others):  # it leaves its Unix sockets in /tmp, whatever TMPDIR is
            for left in Path("/tmp").glob(f"seaweedfs-*-{number}.sock"):
                with contextlib.suppress(PermissionError):  # another user's, with the same number
                    left.unlink(missing_ok=True)


@dataclass(frozen=True)
class Storage:
    """A backend under test, with an empty container, and the properties of its storage."""

    backend: Backend
    another: Callable[[], Backend]
    """Makes a second backend on the same container, as another process would."""
    without_container: Callable[[], Backend]
    """Makes a backend whose container does not exist."""
    leftovers: Callable[[], list[str]]
    """Returns what listings do not show: parts, temporary files, sidecars without an object."""
    part_size: int
    """Bytes; sizes around its multiples are the interesting ones."""
    refuses_racing_writers: bool = True
    """Whether of several writers of one key exactly one wins."""
    uploads_make_containers: bool = False
    """Whether the storage makes a missing container for an upload, without being asked."""


StorageFactory = Callable[[pytest.FixtureRequest], Storage]
STORAGES: dict[str, StorageFactory] = {}
"""Every storage that the conformance suite runs over, by name."""


def storage(name: str) -> Callable[[StorageFactory], StorageFactory]:
    """Register the decorated factory for the conformance suite."""

    def register(factory: StorageFactory) -> StorageFactory:
        STORAGES[name] = factory
        return factory

    return register


S3_PART = 5 * 1024 * 1024
"""Bytes: the smallest part that S3 and these servers take, but for the last one."""


@functools.cache
def plain_client(endpoint_url: str, access_key: str, secret_key: str) -> Any:
    """Return a client of boto3, independent of bakthat, to check its results."""
    import boto3

    return boto3.client(
        "s3",
        endpoint_url=endpoint_url,
        aws_access_key_id=access_key,
        aws_secret_access_key=secret_key,
        region_name="us-east-1",
    )


def parts_under_way(conf: dict[str, Any]) -> list[str]:
    """Return the keys of the multipart uploads that a bucket still holds parts of."""
    from botocore.exceptions import ClientError

    client = plain_client(conf["endpoint_url"], conf["access_key"], conf["secret_key"])
    try:
        found = client.list_multipart_uploads(Bucket=conf["s3_bucket"])
    except ClientError as exc:
        # rclone answers this for a bucket without uploads.
        if exc.response["Error"]["Code"] == "NoSuchUpload":
            return []
        raise
    return [upload["Key"] for upload in found.get("Uploads", [])]


def s3_backend(conf: dict[str, Any], **more: Any) -> S3Backend:
    """Return a backend for tests: the smallest parts, small pages, and it gives up soon."""
    settings: dict[str, Any] = {
        "part_size": S3_PART,
        "range_size": S3_PART,
        "page_size": 7,
        "max_attempts": 3,
        "connect_timeout": 5,
        "read_timeout": 20,
        **more,
    }
    return S3Backend(conf, settings=replace(S3Backend.settings_of(conf), **settings))


def s3_storage(
    server: S3Server, *, refuses_racing_writers: bool, uploads_make_containers: bool = False
) -> Storage:
    """Return an S3 server as the conformance suite takes it, with a new bucket."""
    conf = server.conf()
    backend = s3_backend(conf)
    backend.create_container()
    return Storage(
        backend=backend,
        another=lambda: s3_backend(conf),
        without_container=lambda: s3_backend(server.conf()),
        leftovers=lambda: parts_under_way(conf),
        part_size=S3_PART,
        refuses_racing_writers=refuses_racing_writers,
        uploads_make_containers=uploads_make_containers,
    )


@storage("s3 on moto")
def _moto_storage(request: pytest.FixtureRequest) -> Storage:
    # Through the proxy, which hands moto one request at a time: its threads check a condition
    # and write in two steps.
    proxy = request.getfixturevalue("moto_proxy")
    moto: S3Server = request.getfixturevalue("moto_endpoint")
    server = S3Server(proxy.endpoint_url, moto.access_key, moto.secret_key, moto.pid)
    return s3_storage(server, refuses_racing_writers=True)


@storage("s3 on rclone")
def _rclone_storage(request: pytest.FixtureRequest) -> Storage:
    # It ignores If-None-Match; bakthat only looks before it writes.
    server = request.getfixturevalue("rclone_endpoint")
    return s3_storage(server, refuses_racing_writers=False)


@storage("s3 on seaweedfs")
def _seaweedfs_storage(request: pytest.FixtureRequest) -> Storage:
    server = request.getfixturevalue("seaweedfs_endpoint")
    return s3_storage(server, refuses_racing_writers=True, uploads_make_containers=True)


@storage("local")
def _local_storage(request: pytest.FixtureRequest) -> Storage:
    tmp_path: Path = request.getfixturevalue("tmp_path")
    container = tmp_path / "store"

    def leftovers() -> list[str]:
        files = {str(p.relative_to(container)) for p in container.rglob("*") if p.is_file()}
        described = {f"{obj.key}.bakthat.json" for obj in backend.ls()}
        return sorted(files - described - {obj.key for obj in backend.ls()})

    backend = LocalBackend({"local_path": str(container)})
    backend.create_container()
    return Storage(
        backend=backend,
        another=lambda: LocalBackend({"local_path": str(container)}),
        without_container=lambda: LocalBackend({"local_path": str(tmp_path / "missing")}),
        leftovers=leftovers,
        part_size=64 * 1024,
    )


GLACIER_PART = 1024 * 1024
"""Bytes: the smallest part that Glacier takes, but for the last one."""


def glacier_backend(
    conf: dict[str, Any], records: VaultRecords | None = None, **more: Any
) -> GlacierBackend:
    """Return a backend for tests: the smallest parts, and it gives up soon."""
    settings: dict[str, Any] = {
        "part_size": GLACIER_PART,
        "range_size": GLACIER_PART,
        "max_attempts": 3,
        "connect_timeout": 5,
        "read_timeout": 20,
        **more,
    }
    made = replace(GlacierBackend.settings_of(conf), **settings)
    return GlacierBackend(conf, records, settings=made)


@storage("glacier")
def _glacier_storage(request: pytest.FixtureRequest) -> Storage:
    server: GlacierServer = request.getfixturevalue("glacier")
    server.instant = True
    conf = server.conf()
    vault = conf["glacier_vault"]
    records = VaultRecords()

    def leftovers() -> list[str]:
        known = set(records.inventory.values())
        return [
            *server.uploads_under_way(vault),
            *(archive_id for archive_id in server.archives(vault) if archive_id not in known),
        ]

    backend = glacier_backend(conf, records)
    backend.create_container()
    return Storage(
        backend=backend,
        another=lambda: glacier_backend(conf, records),
        without_container=lambda: glacier_backend(server.conf()),
        leftovers=leftovers,
        part_size=GLACIER_PART,
    )


TWO_PARTS = bytes(range(256)) * (S3_PART // 256) + b"and some more"
"""The content of an object that takes two parts of the smallest size."""


def plain(conf: dict[str, Any]) -> Any:
    """Return a client of boto3, independent of bakthat, for a profile."""
    return plain_client(conf["endpoint_url"], conf["access_key"], conf["secret_key"])


def put(backend: Backend, key: str, data: bytes, **options: Any) -> None:
    """Store *data* under *key*."""
    upload = backend.upload(key, metadata={"of": key}, **options)
    try:
        upload.write(data)
        upload.commit()
    finally:
        upload.abort()


def get(backend: Backend, key: str) -> bytes:
    """Return all of *key*."""
    with backend.download(key) as source:
        return source.read()


METHODS: dict[str, Callable[[Backend], object]] = {
    "create_container": lambda backend: backend.create_container(),
    "upload": lambda backend: put(backend, "new.tgz", b"x"),
    "upload in parts": lambda backend: put(backend, "new.tgz", TWO_PARTS),
    "download": lambda backend: get(backend, "set.tgz"),
    "stat": lambda backend: backend.stat("set.tgz"),
    "ls": lambda backend: list(backend.ls()),
    "delete": lambda backend: backend.delete("set.tgz"),
}
"""Every method of a backend, as a test may call it; only ``set.tgz`` may exist."""
