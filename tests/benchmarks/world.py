"""Where the benchmark runs: a server, a place for each run, and the settings of every tool."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from bakthat.crypto import age
from tests.benchmarks.datasets import Tree
from tests.benchmarks.measuring import Measurement, measure, tree_bytes
from tests.benchmarks.peers import Peer
from tests.support.servers import S3Server, plain_client, rclone_server

PASSWORD = "correct horse battery staple"
PASSWORD_VARIABLES = (
    "BORG_PASSPHRASE",
    "KOPIA_PASSWORD",
    "PASSPHRASE",
    "RESTIC_PASSWORD",
)
PROJECT = Path(__file__).parents[2]
TMPFS = Path("/dev/shm")


@dataclass(frozen=True)
class World:
    """One server and one workspace, for the whole benchmark."""

    workspace: Path
    memory_disk: Path
    """On a tmpfs, or in the workspace where there is none."""
    server: S3Server
    identity: str
    settle: bool
    """Whether the disk comes to rest before each run."""

    @property
    def store(self) -> Path:
        """The directory that the server serves."""
        return self.workspace / "server" / "store"

    @contextlib.contextmanager
    def site(self, name: str, *, port: int = 0) -> Iterator[Site]:
        """Make a home, a bucket and a repository for one backup and its restores, all empty.

        *port* is that of a proxy before the server. The server is never started anew, since some
        clients then hang.
        """
        keys = (self.server.access_key, self.server.secret_key)
        path = self.workspace / "sites" / name
        shutil.rmtree(path, ignore_errors=True)
        for directory in ("home", "tmp", "work", "repository"):
            (path / directory).mkdir(parents=True, mode=0o700)
        site = Site(self, path, f"bench-{name}".lower(), port or self.port)
        # Through the server, which remembers what its directory held.
        plain_client(self.server.endpoint_url, *keys).create_bucket(Bucket=site.bucket)
        site.write_settings()
        try:
            yield site
        finally:
            stop_agents(site)
            shutil.rmtree(path, ignore_errors=True)
            shutil.rmtree(self.store / site.bucket, ignore_errors=True)

    @property
    def port(self) -> int:
        """The server's."""
        return int(self.server.endpoint_url.rsplit(":", 1)[1])


@dataclass(frozen=True)
class Site:
    """Where one tool backs up and restores."""

    world: World
    path: Path
    bucket: str
    port: int

    @property
    def home(self) -> Path:
        """Empty at first; settings, caches and catalogs come here."""
        return self.path / "home"

    @property
    def repository(self) -> Path:
        """A local directory to back up to."""
        return self.path / "repository"

    def write_settings(self, **more: Any) -> None:
        """Write the files that the tools read; *more* goes into bakthat's profile."""
        conf = {
            "access_key": self.world.server.access_key,
            "secret_key": self.world.server.secret_key,
            "endpoint_url": f"http://127.0.0.1:{self.port}",
            "s3_bucket": self.bucket,
            "local_path": str(self.repository),
            "recipients": [age.recipient_of(self.world.identity)],
            "identity_file": str(self.home / "identity"),
            **more,
        }
        for name, text in (
            (".bakthat.yml", yaml.safe_dump({"default": conf})),
            ("identity", self.world.identity + "\n"),
            ("password", PASSWORD + "\n"),
        ):
            (self.home / name).write_text(text)
            (self.home / name).chmod(0o600)

    def environment(self) -> dict[str, str]:
        """Return the environment of every tool; docs in ``peers``."""
        server, endpoint = self.world.server, f"http://127.0.0.1:{self.port}"
        return {
            "HOME": str(self.home),
            "TMPDIR": str(self.path / "tmp"),
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "LANG": "C.UTF-8",
            "BUCKET": self.bucket,
            "ENDPOINT": endpoint,
            "HOST_PORT": f"127.0.0.1:{self.port}",
            "REPOSITORY": str(self.repository),
            "RECIPIENT": age.recipient_of(self.world.identity),
            "IDENTITY": str(self.home / "identity"),
            "PASSWORD_FILE": str(self.home / "password"),
            **dict.fromkeys(PASSWORD_VARIABLES, PASSWORD),
            "KOPIA_CHECK_FOR_UPDATES": "false",
            "GNUPGHOME": str(self.home),
            "AWS_ACCESS_KEY_ID": server.access_key,
            "AWS_SECRET_ACCESS_KEY": server.secret_key,
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
            # The server knows no checksum of a part of an object.
            "AWS_REQUEST_CHECKSUM_CALCULATION": "when_required",
            "AWS_RESPONSE_CHECKSUM_VALIDATION": "when_required",
            "RESTIC_REPOSITORY": f"s3:{endpoint}/{self.bucket}",
            "RCLONE_CONFIG": "",
            "RCLONE_CONFIG_STORE_TYPE": "s3",
            "RCLONE_CONFIG_STORE_PROVIDER": "Rclone",
            "RCLONE_CONFIG_STORE_ENDPOINT": endpoint,
            "RCLONE_CONFIG_STORE_ACCESS_KEY_ID": server.access_key,
            "RCLONE_CONFIG_STORE_SECRET_ACCESS_KEY": server.secret_key,
            "RCLONE_S3_NO_CHECK_BUCKET": "true",
        }

    def run(
        self,
        script: str,
        tree: Tree | None = None,
        *,
        target: Path | None = None,
        cores: Sequence[int] | None = None,
        file: str = "",
    ) -> Measurement:
        """Run *script* here and return what it took. Raises CommandFailedError."""
        environment = self.environment()
        if tree:
            environment |= {
                "SOURCE": str(tree.path),
                "PARENT": str(tree.path.parent),
                "NAME": tree.path.name,
                "FILE": file or tree.one_file,
            }
        if target:
            environment["TARGET"] = str(target)
        return measure(
            script,
            environment=environment,
            directory=target or self.path / "work",
            log=self.path / "log",
            scratch=(self.home, self.path / "tmp"),
            server=self.world.server.pid,
            cores=cores,
            settle=self.world.settle,
        )

    def stored(self, peer: Peer) -> int:
        """Return the bytes that *peer* has stored here."""
        return tree_bytes(self.world.store / self.bucket if peer.on_s3 else self.repository)


@contextlib.contextmanager
def open_world(workspace: Path, *, settle: bool) -> Iterator[World]:
    """Start the server and make the directories; both are gone when the block ends."""
    shutil.rmtree(workspace / "server", ignore_errors=True)
    (workspace / "server").mkdir(parents=True)
    memory_disk = (TMPFS if os.access(TMPFS, os.W_OK) else workspace) / f"bakthat-{os.getpid()}"
    memory_disk.mkdir()
    try:
        with rclone_server(workspace / "server") as server:
            yield World(workspace, memory_disk, server, age.generate_identity(), settle)
    finally:
        shutil.rmtree(memory_disk, ignore_errors=True)
        for directory in ("server", "sites"):
            shutil.rmtree(workspace / directory, ignore_errors=True)


def stop_agents(site: Site) -> None:
    """End the agent that gpg leaves behind."""
    if shutil.which("gpgconf"):
        subprocess.run(
            ["gpgconf", "--kill", "all"],
            env=site.environment(),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            check=False,
        )
