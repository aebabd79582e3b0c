"""Signals while the storage does not answer: the second one ends every wait."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from bakthat.format.names import is_index_key
from tests.support.commandline import CommandLine
from tests.support.fault_proxy import FaultProxy, Stall, fault_proxy
from tests.support.glacier_server import GlacierServer
from tests.support.profiles import Conf, write_config
from tests.support.servers import parts_under_way, plain

LARGE = 20 * 1024 * 1024
"""Bytes of three parts."""
PATIENCE = 50
"""Seconds; less than a request that is not answered takes."""
AGAIN = "press Ctrl-C or send the signal again to stop now"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM]),
]


@pytest.fixture
def user(user: CommandLine, proxied_conf: Conf) -> CommandLine:
    (user.directory / "small").write_text("small")
    (user.directory / "large").write_bytes(os.urandom(LARGE))
    write_config(user.home / ".bakthat.yml", default=proxied_conf)
    return user


class Running:
    """A command that waits for a storage."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self.process = process
        self.said = ""

    def wait_for(self, text: str) -> None:
        """Return once the command has logged *text*."""
        assert self.process.stderr is not None
        deadline = time.monotonic() + PATIENCE
        while text not in self.said:
            left = deadline - time.monotonic()
            assert left > 0, f"no {text!r} in:\n{self.said}"
            if select.select([self.process.stderr], [], [], left)[0]:
                piece = os.read(self.process.stderr.fileno(), 65536)
                assert piece, f"it ended without {text!r}:\n{self.said}"
                self.said += piece.decode()

    def press_until_it_ends(self, number: int) -> int:
        """Send a signal again and again, as people do; return the exit code."""
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            self.process.send_signal(number)
            try:
                return self.process.wait(0.3)
            except subprocess.TimeoutExpired:
                continue
        raise AssertionError(f"no end in sight:\n{self.said}")

    def rest(self) -> str:
        """Return all that the command has logged, once it has ended."""
        assert self.process.stderr is not None
        self.said += self.process.stderr.read().decode()
        assert "Traceback" not in self.said, self.said
        return self.said


@contextmanager
def stalled(user: CommandLine, stall: Stall, *arguments: str) -> Iterator[Running]:
    """Run a command until the storage stalls."""
    process = user.start(*arguments)
    assert process.stdin is not None
    assert process.stdout is not None
    assert process.stderr is not None
    with process.stdin, process.stdout, process.stderr:
        try:
            running = Running(process)
            assert stall.reached.wait(PATIENCE), process.poll()
            yield running
        finally:
            process.kill()
            process.wait()


def listed(user: CommandLine) -> set[str]:
    return {each["stored_filename"] for each in user.run("show", "--json").lines("backup")}


def stored(conf: dict[str, Any]) -> set[str]:
    """Return the keys of the archives; what is stopped may leave an index without one."""
    found = plain(conf).list_objects_v2(Bucket=conf["s3_bucket"])
    return {key for each in found.get("Contents", []) if not is_index_key(key := each["Key"])}


def clean(user: CommandLine, proxy: FaultProxy, conf: dict[str, Any]) -> None:
    """Let the storage answer again, and remove what was left, which must be a second old."""
    proxy.rules.clear()
    deadline = time.monotonic() + PATIENCE
    while parts_under_way(conf) and time.monotonic() < deadline:
        assert user.run("cleanup", "--older-than", "1s").code == 0
    assert parts_under_way(conf) == []


@pytest.mark.parametrize(
    ("name", "method", "part", "step"),
    [
        ("small", "PUT", "/small.", "finishing the upload of small."),
        ("large", "POST", "uploads", "beginning the upload of large."),
        ("large", "PUT", "partNumber=1", "removing what was sent of large."),
        ("large", "PUT", "partNumber=3", "removing what was sent of large."),
        ("large", "POST", "uploadId=", "finishing the upload of large."),
    ],
    ids=["storing all", "beginning parts", "a part", "the last part", "publishing parts"],
)
def test_the_second_signal_ends_a_backup_that_waits_for_the_storage(
    user: CommandLine,
    proxied_conf: Conf,
    moto_proxy: FaultProxy,
    name: str,
    method: str,
    part: str,
    step: str,
    number: int,
) -> None:
    stall = Stall()
    moto_proxy.on(method, part, stall)
    with stalled(user, stall, "backup", name, "--prompt", "no") as running:
        running.process.send_signal(number)
        running.wait_for(AGAIN)
        assert step in running.said
        assert running.press_until_it_ends(number) == 128 + number
        assert "bakthat cleanup removes" in running.rest()
    assert listed(user) == stored(proxied_conf) == set()
    clean(user, moto_proxy, proxied_conf)
    assert user.run("backup", name, "--prompt", "no").code == 0
    assert listed(user) == stored(proxied_conf) != set()


@pytest.mark.parametrize("part", ["partNumber=2", "partNumber=3"])
def test_one_signal_ends_the_sending_of_parts(
    user: CommandLine, proxied_conf: Conf, moto_proxy: FaultProxy, part: str, number: int
) -> None:
    """The part that waits is not sent again, so it ends after one timeout and not after eight."""
    write_config(user.home / ".bakthat.yml", default={**proxied_conf, "timeout": 3})
    stall = Stall()
    moto_proxy.on("PUT", part, stall)
    with stalled(user, stall, "backup", "large", "--prompt", "no") as running:
        running.process.send_signal(number)
        assert running.process.wait(PATIENCE) == 128 + number
        running.rest()
    assert moto_proxy.seen("PUT", part) == 1
    assert moto_proxy.seen("POST", "uploadId=") == 0
    assert listed(user) == stored(proxied_conf) == set()
    assert parts_under_way(proxied_conf) == []


@pytest.mark.parametrize(
    ("name", "method", "part"), [("small", "PUT", "/small."), ("large", "POST", "uploadId=")]
)
def test_after_one_signal_the_last_request_is_finished_and_recorded(
    user: CommandLine,
    proxied_conf: Conf,
    moto_proxy: FaultProxy,
    name: str,
    method: str,
    part: str,
    number: int,
) -> None:
    write_config(user.home / ".bakthat.yml", default={**proxied_conf, "timeout": 3})
    stall = Stall()
    moto_proxy.on(method, part, stall, times=1)
    with stalled(user, stall, "backup", name, "--prompt", "no") as running:
        running.process.send_signal(number)
        running.wait_for(AGAIN)
        assert running.process.wait(PATIENCE) == 128 + number
        assert f"stored as {name}." in running.rest()
    assert listed(user) == stored(proxied_conf) != set()


def test_the_second_signal_ends_the_abort_of_an_upload(
    user: CommandLine, proxied_conf: Conf, moto_proxy: FaultProxy, number: int
) -> None:
    refused, stall = Stall(), Stall()
    moto_proxy.on("DELETE", "uploadId=", stall)
    moto_proxy.on("PUT", "partNumber=2", refused, times=1)
    write_config(user.home / ".bakthat.yml", default={**proxied_conf, "timeout": 3})
    with stalled(user, refused, "backup", "large", "--prompt", "no") as running:
        running.process.send_signal(number)
        running.wait_for(AGAIN)
        assert stall.reached.wait(PATIENCE)
        assert running.press_until_it_ends(number) == 128 + number
        assert "bakthat cleanup removes what is left" in running.rest()
    assert listed(user) == stored(proxied_conf) == set()
    clean(user, moto_proxy, proxied_conf)


@pytest.mark.parametrize(
    ("arguments", "method", "part"),
    [
        (["delete", "small"], "DELETE", "/small."),
        (["rotate_backups", "small", "--last", "1"], "POST", "delete"),
    ],
    ids=["one", "a batch"],
)
@pytest.mark.parametrize("presses", ["once", "twice"])
def test_a_deletion_that_is_stopped_says_what_mends_it(
    user: CommandLine,
    proxied_conf: Conf,
    moto_proxy: FaultProxy,
    arguments: list[str],
    method: str,
    part: str,
    presses: str,
    number: int,
) -> None:
    profile = {**proxied_conf, "timeout": 3 if presses == "once" else 60}
    write_config(user.home / ".bakthat.yml", default=profile)
    for _ in range(2):
        assert user.run("backup", "small", "--prompt", "no").code == 0
    stall = Stall()
    moto_proxy.on(method, part, stall, times=1)
    with stalled(user, stall, *arguments) as running:
        running.process.send_signal(number)
        running.wait_for(AGAIN)
        assert "finishing the deletion of" in running.said
        assert "bakthat sync then brings the catalog up to date" in running.said
        if presses == "once":
            assert running.process.wait(PATIENCE) == 128 + number
        else:
            assert running.press_until_it_ends(number) == 128 + number
        running.rest()
    left = 1 if presses == "once" else 2  # the stalled request had not reached the storage
    assert listed(user) == stored(proxied_conf)
    assert len(stored(proxied_conf)) == left


@pytest.mark.parametrize(
    ("name", "part"), [("small", "/archives"), ("large", "/multipart-uploads/")]
)
def test_the_second_signal_ends_a_backup_to_a_vault(
    user: CommandLine, glacier: GlacierServer, name: str, part: str, number: int
) -> None:
    conf = glacier.conf()
    with fault_proxy(conf["glacier_endpoint_url"]) as proxy:
        write_config(
            user.home / ".bakthat.yml",
            default={**conf, "glacier_endpoint_url": proxy.endpoint_url},
        )
        stall = Stall()
        proxy.on("POST", part, stall)
        with stalled(user, stall, "backup", name, "--prompt", "no", "-d", "glacier") as running:
            running.process.send_signal(number)
            running.wait_for(AGAIN)
            assert f"finishing the upload of {name}." in running.said
            assert running.press_until_it_ends(number) == 128 + number
            running.rest()
        assert listed(user) == set()
        assert glacier.archives(conf["glacier_vault"]) == {}
