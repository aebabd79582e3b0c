"""The sessions of docs/how-to/configure.rst."""

from __future__ import annotations

import uuid
from pathlib import Path

from tests.docs.sessions import DOCS, Reader, sessions_of
from tests.support.commandline import CommandLine
from tests.support.servers import S3Server


def test_the_sessions_are_what_happens(
    isolated_environment: Path, rclone_endpoint: S3Server
) -> None:
    user = CommandLine(isolated_environment, isolated_environment)
    (user.directory / "secret-key").write_text(rclone_endpoint.secret_key)
    reader = Reader(
        user,
        places={
            "http://storage:9000": rclone_endpoint.endpoint_url,
            "backup-of-you": rclone_endpoint.access_key,
            "my-backups": f"my-{uuid.uuid4().hex[:16]}",
        },
        secrets={"AWS Secret Key:": rclone_endpoint.secret_key},
    )
    reader.follow(sessions_of(DOCS / "how-to" / "configure.rst"))
