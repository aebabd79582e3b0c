"""Secrets are in the configuration only: a search of everything that whole runs leave behind."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.commandline import CommandLine
from tests.support.fault_proxy import FaultProxy, Hold, refusal
from tests.support.profiles import Conf, write_config
from tests.support.servers import plain

pytestmark = pytest.mark.slow

PASSWORD = "correct-horse-battery-staple"
SECRET_KEY = "s3cr3t-key-that-must-not-be-seen"
SECRETS = (PASSWORD.encode(), SECRET_KEY.encode())


@pytest.fixture
def conf(proxied_conf: Conf) -> Conf:
    """Return a profile whose secret key stands nowhere else; moto takes any."""
    return {**proxied_conf, "secret_key": SECRET_KEY, "attempts": 1}


@pytest.fixture
def user(user: CommandLine, conf: dict[str, Any]) -> CommandLine:
    (user.directory / "mydir").mkdir()
    (user.directory / "mydir" / "file").write_text("hello")
    disk = {"default_destination": "local", "password": PASSWORD, "secret_key": SECRET_KEY}
    write_config(
        user.home / ".bakthat.yml",
        default={**conf, "password": PASSWORD},
        disk={**disk, "access_key": "a"},
    )
    return user


def assert_clean(where: str, content: bytes) -> None:
    for secret in SECRETS:
        assert secret not in content, f"a secret is in {where}: {content!r}"


def files_of(*roots: Path) -> Iterator[Path]:
    for root in roots:
        yield from (path for path in root.rglob("*") if path.is_file())


COMMANDS = [
    ("backup", "mydir", "-t", "daily"),
    ("show", "--json"),
    ("restore", "mydir", "-o", "out"),
    ("rotate_backups", "mydir", "--dry-run"),
    ("backup", "mydir", "-p", "disk"),
    ("restore", "mydir", "-p", "disk", "-o", "out"),
    ("delete", "mydir"),
    ("delete", "mydir"),  # which fails
    ("restore", "mydir"),  # likewise
    ("backup", "mydir"),  # likewise, since the storage refuses by now
    ("backup", "missing"),
]


def test_no_run_leaves_a_secret_anywhere(
    user: CommandLine, conf: dict[str, Any], moto_proxy: FaultProxy
) -> None:
    config = user.home / ".bakthat.yml"
    for number, command in enumerate(COMMANDS):
        if number == len(COMMANDS) - 2:
            moto_proxy.on("PUT", "/mydir.", refusal(403, "SignatureDoesNotMatch", "of your key"))
        done = user.run(*command, "--debug")
        assert done.stdout or done.stderr
        assert_clean(f"what {command} prints", (done.stdout + done.stderr).encode())
    found = [path for path in files_of(user.home, user.directory) if path != config]
    assert len(found) > 4
    for path in found:
        assert_clean(str(path), path.read_bytes() + os.fsencode(path))
    bucket = plain(conf)
    for entry in bucket.list_objects_v2(Bucket=conf["s3_bucket"]).get("Contents", []):
        stored = bucket.get_object(Bucket=conf["s3_bucket"], Key=entry["Key"])
        assert_clean(entry["Key"], repr(stored).encode() + stored["Body"].read())
    for verb, path_and_query, headers in moto_proxy.requests:
        assert_clean(verb, f"{path_and_query} {headers}".encode())


def test_what_a_run_leaves_in_the_home_directory_is_for_its_owner_only(user: CommandLine) -> None:
    user.run("backup", "mydir", "-p", "disk")
    user.run("configure", "-p", "new")
    for path in files_of(user.home):
        assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0, path


@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="needs Linux's /proc")
def test_the_process_list_shows_no_secret(user: CommandLine, moto_proxy: FaultProxy) -> None:
    hold = Hold()
    moto_proxy.on("PUT", "/mydir.", hold, times=1)
    process = user.start("backup", "mydir")
    assert process.stdin is not None
    assert process.stdout is not None
    assert process.stderr is not None
    with process.stdin, process.stdout, process.stderr:
        assert hold.done.wait(60)
        shown = [Path(f"/proc/{process.pid}/{name}") for name in ("cmdline", "environ", "comm")]
        threads = Path(f"/proc/{process.pid}/task").glob("*/comm")
        contents = {path: path.read_bytes() for path in [*shown, *threads]}
        hold.go.set()
        assert process.wait(60) == 0
    for path, content in contents.items():
        assert_clean(str(path), content)


def test_no_exception_of_the_library_repeats_a_secret(
    conf: dict[str, Any], isolated_environment: Path
) -> None:
    # As a script without bakthat's command line would show it: the whole chain of exceptions.
    # Its source is a file, so that the lines a traceback quotes hold names only.
    script = isolated_environment / "script.py"
    script.write_text(
        "import os, bakthat, json\n"
        "conf = json.loads(os.environ['CONF'])\n"
        "bakthat.restore('missing', conf=conf, password=os.environ['PASSWORD'])\n"
    )
    for broken in ({"s3_bucket": "missing-bucket"}, {"endpoint_url": "http://127.0.0.1:1"}):
        done = subprocess.run(
            [sys.executable, str(script)],
            env={
                **os.environ,
                "PYTHONPATH": str(Path(__file__).parents[2]),
                "CONF": json.dumps({**conf, **broken}),
                "PASSWORD": PASSWORD,
            },
            capture_output=True,
            check=False,
        )
        assert done.returncode == 1
        assert b"Error" in done.stderr
        assert_clean("a traceback", done.stdout + done.stderr)
