"""Producers and standard inputs that fail: nothing is stored, and nothing is left."""

from __future__ import annotations

import itertools
import logging
import os
import pty
import select
import signal
import subprocess
import sys
import tempfile
import threading
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

import bakthat
from bakthat import models
from bakthat.errors import (
    ConsumerError,
    ProducerError,
    SourceError,
    StorageError,
    UsageError,
)
from bakthat.format import names
from tests.support.commandline import CommandLine
from tests.support.fault_proxy import FaultProxy, Hold
from tests.support.own_threads import own_threads
from tests.support.processes import own_processes
from tests.support.profiles import Conf, write_config
from tests.support.servers import parts_under_way, plain

pytestmark = pytest.mark.slow

LARGE = "head -c 20000000 /dev/urandom"
"""A command line whose output takes several parts on S3."""


def back_up(conf: Conf, command: str | None, **options: Any) -> models.Backups:
    source = None if command is not None else "-"
    options = {"custom_filename": "shop.sql", "password": "", **options}
    return bakthat.backup(source, conf=conf, command=command, **options)


def stored(conf: Conf) -> list[str]:
    """Return the names of what the storage holds, but for the mark of a local store."""
    if "s3_bucket" in conf:
        found = plain(conf).list_objects_v2(Bucket=conf["s3_bucket"]).get("Contents", [])
        return [each["Key"] for each in found] + parts_under_way(conf)
    store = Path(conf["local_path"])
    return [each.name for each in store.rglob("*") if each.is_file()]


def processes() -> list[str]:
    """Return the command lines of the processes below this one."""
    found = []
    for each in own_processes():
        with suppress(OSError):  # it has ended
            found.append((each / "cmdline").read_bytes().decode(errors="replace"))
    return found


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Let temporary files be made in a directory of the test."""
    made = tmp_path / "temporary"
    made.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(made))
    return made


def check_nothing_is_left(conf: Conf, temporary: Path) -> None:
    assert [each for each in stored(conf) if "shop" in each or each.endswith(".tmp")] == []
    assert bakthat.ls(conf=conf) == []
    with models.catalog(Path(conf["database"])):
        assert models.Reservations.select().count() == 0
    assert list(temporary.iterdir()) == []
    assert [each for each in processes() if "_supervisor" in each or "sleep" in each] == []
    assert own_threads() == []
    bakthat.sync(conf=conf)
    assert bakthat.ls(conf=conf) == []


ENDS = {
    "exit 3": "the command ended with exit code 3",
    "echo no such table >&2; exit 1": "the command ended with exit code 1: no such table",
    "kill -9 $$": "the command was ended by signal SIGKILL",
    "kill -TERM $$": "the command was ended by signal SIGTERM",
    "false | cat": "the command ended with exit code 1",
    "sh -c 'kill -9 $$' | cat": "the command ended with exit code 137 (of a shell: SIGKILL)",
    "nosuchprogram": "the command ended with exit code 127",
    "exec /": "the command ended with exit code 126",
    "exec sleep 60": "the command did not end within 0.4 seconds",
    "sleep 60 & exit 0": "the command did not end within 0.4 seconds",
}


@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize("begin", ["", "echo half; "], ids=["empty", "some"])
def test_a_command_that_fails_leaves_nothing(
    local: Conf, temporary: Path, begin: str, end: str
) -> None:
    with pytest.raises(ProducerError) as caught:
        back_up(local, begin + end, timeout=0.4 if "sleep" in end else 60)
    assert str(caught.value).startswith(ENDS[end])
    assert caught.value.hint
    check_nothing_is_left(local, temporary)


@pytest.mark.parametrize(
    "end", ["exit 3", "kill -9 $$", "false | cat"], ids=["exit code", "signal", "pipe"]
)
def test_a_large_output_before_the_failure_is_removed_again(
    conf: Conf, temporary: Path, fired: list[tuple[Any, ...]], end: str
) -> None:
    with pytest.raises(ProducerError) as caught:
        back_up(conf, f"{LARGE}; echo what is wrong >&2; {end}")
    assert "what is wrong" in str(caught.value)
    assert [(event, *given[1:]) for event, *given in fired] == [
        ("before_backup",),
        ("on_error", "backup", caught.value),
    ]
    check_nothing_is_left(conf, temporary)


def test_a_command_whose_program_is_killed_while_it_writes_leaves_nothing(
    conf: Conf, temporary: Path
) -> None:
    line = "{ head -c 12000000 /dev/urandom; kill -9 $$; head -c 1000000 /dev/zero; } | cat"
    with pytest.raises(ProducerError, match="was ended by signal SIGKILL"):
        back_up(conf, line)
    check_nothing_is_left(conf, temporary)


@pytest.mark.parametrize("line", ["cat /dev/zero & exit 3", "{ kill -9 $$; cat /dev/zero; } | cat"])
def test_what_others_write_for_ever_after_a_failure_is_not_waited_for(
    local: Conf, temporary: Path, line: str
) -> None:
    with pytest.raises(ProducerError, match=r"exit code 3|signal SIGKILL"):
        back_up(local, line, timeout=20)
    check_nothing_is_left(local, temporary)


def test_an_empty_output_is_refused_unless_that_is_meant(conf: Conf, temporary: Path) -> None:
    with pytest.raises(ProducerError, match="a command gave no data, so nothing was stored"):
        back_up(conf, "true")
    check_nothing_is_left(conf, temporary)
    assert back_up(conf, "true", allow_empty=True).metadata["bytes"] == 0


def test_nothing_of_the_line_is_in_messages_the_log_and_the_catalog(
    local: Conf, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    with pytest.raises(ProducerError) as caught:
        back_up(local, "password=hunter2; exit 3")
    assert "hunter2" not in f"{caught.value} {caught.value.hint}"
    entry = back_up(local, "password=hunter2; echo data")
    assert "hunter2" not in caplog.text
    assert "hunter2" not in str(entry.as_dict())
    for each in Path(local["local_path"]).rglob("*.json"):
        assert "hunter2" not in each.read_text()


def test_a_command_gets_no_input_and_no_password(
    local: Conf, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BAKTHAT_PASSWORD", "secret phrase")
    entry = back_up(local, "cat; echo ${BAKTHAT_PASSWORD-none}", password=None, prompt="no")
    assert entry.is_encrypted
    with bakthat.open_file("shop.sql", "shop.sql", conf=local) as file:
        assert file.read() == b"none\n"


@pytest.mark.parametrize(
    ("arguments", "options", "complaint"),
    [
        ({"command": ""}, {}, "the command is empty"),
        ({"command": " \n"}, {}, "the command is empty"),
        ({"command": "echo"}, {"custom_filename": None}, "a command has no name of its own"),
        ({"command": "echo"}, {"custom_filename": "a/b"}, "a/b"),
        ({"command": ["echo", "a"]}, {}, "--command is text, one line for the shell"),
        ({"command": "echo"}, {"timeout": 0}, "'0' is no time limit"),
        ({"command": "echo"}, {"timeout": -1}, "'-1' is no time limit"),
        ({"command": "echo"}, {"timeout": float("nan")}, "'nan' is no time limit"),
        ({"command": "echo"}, {"timeout": "0s"}, "'0s' is no time limit"),
        ({"command": "echo"}, {"timeout": ""}, "'' is no time limit"),
        ({"command": "echo"}, {"timeout": "2d"}, "'2d' is no time limit"),
        ({"command": "echo"}, {"timeout": "2 hours"}, "'2 hours' is no time limit"),
        ({"command": "echo"}, {"fail_below": "0%"}, "no share of the last size"),
        (
            {"command": "echo"},
            {"fail_below": 50, "accept_size": True},
            "--accept-size and --fail-below contradict",
        ),
        ({"command": "echo", "filename": "/etc"}, {}, "--command and a path were given"),
        ({"command": "echo", "filename": "-"}, {}, "--command and a path were given"),
        ({"command": "echo"}, {"incremental": True}, "'incremental' cannot be used"),
        ({"command": "echo"}, {"full": True}, "'full' cannot be used"),
        ({"command": "echo"}, {"exclude_file": "x"}, "'exclude-file' cannot be used"),
        ({"command": "echo"}, {"root_name": "x"}, "'root-name' cannot be used"),
        ({"command": "echo"}, {"skip_unchanged": True}, "'skip-unchanged' cannot be used"),
        ({"command": "echo"}, {"full_every": "90D"}, "'full-every' cannot be used"),
        ({"command": "echo"}, {"max_archives": 3}, "'max-archives' cannot be used"),
        ({"command": "echo"}, {"ignore_inode": True}, "'ignore-inode' cannot be used"),
        ({"command": "echo"}, {"always_read": ["*.db"]}, "'always-read' cannot be used"),
        ({"filename": "postgresql://host/shop"}, {}, "a URL is no file or directory"),
        ({"filename": "-"}, {"timeout": "2h"}, "--timeout is for a command"),
        ({"filename": "-"}, {"custom_filename": None}, "standard input has no name of its own"),
        ({"filename": "/etc"}, {"fail_below": "50%"}, "'fail-below' cannot be used"),
        ({"filename": "/etc"}, {"timeout": 5}, "'timeout' cannot be used"),
        ({"filename": "/etc"}, {"accept_size": True}, "'accept-size' cannot be used"),
    ],
)
def test_arguments_that_mean_nothing_are_refused_before_anything_runs(
    local: Conf, arguments: dict[str, Any], options: dict[str, Any], complaint: str
) -> None:
    given = {"custom_filename": "shop.sql", "password": "", **options}
    with pytest.raises(UsageError, match=complaint) as caught:
        bakthat.backup(conf=local, **arguments, **given)
    assert caught.value.hint
    assert not Path(local["local_path"]).exists()


def test_a_line_that_is_too_long_for_the_system_is_told(local: Conf, temporary: Path) -> None:
    with pytest.raises(
        ProducerError, match=r"^cannot run the command: argument list too long$"
    ) as caught:
        back_up(local, f"echo {'x' * 200_000}")
    assert "into a file" in caught.value.hint
    check_nothing_is_left(local, temporary)
    back_up(local, "echo data")
    with pytest.raises(ConsumerError, match=r"^cannot run the command: argument list too long$"):
        bakthat.restore("shop.sql", conf=local, to_command=f"cat; echo {'x' * 200_000}")


def test_a_storage_that_has_each_name_is_told(local: Conf, tmp_path: Path) -> None:
    first = back_up(local, "echo data")
    store = Path(local["local_path"])
    following = names.stored_names("shop.sql", first.backup_date, ".gz", encrypted=False)
    for name, _ in itertools.islice(following, 300):
        (store / name).touch()
    before = stored(local)
    with pytest.raises(StorageError, match=r"^100 names in a row are taken in ") as caught:
        back_up(local, "echo data")
    assert "the clock of this machine" in caught.value.hint
    assert stored(local) == before
    with models.catalog(Path(local["database"])):
        assert models.Reservations.select().count() == 0


# Standard input.


@pytest.fixture
def stdin_of_test(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return a function that makes a descriptor the standard input until the test ends."""
    before = os.dup(0)
    opened = []

    def replace(descriptor: int) -> None:
        os.dup2(descriptor, 0)
        os.close(descriptor)
        opened.append(open(0, closefd=False))  # noqa: SIM115  # closed below
        monkeypatch.setattr(sys, "stdin", opened[-1])

    yield replace
    os.dup2(before, 0)
    os.close(before)
    for each in opened:
        each.close()


def test_standard_input_that_is_empty_or_unreadable_stores_nothing(
    local: Conf, temporary: Path, tmp_path: Path, stdin_of_test: Any
) -> None:
    stdin_of_test(os.open(os.devnull, os.O_RDONLY))
    with pytest.raises(ProducerError, match="standard input gave no data"):
        back_up(local, None)
    os.dup2(os.open(tmp_path, os.O_RDONLY), 0)
    with pytest.raises(SourceError, match="cannot read standard input: is a directory"):
        back_up(local, None)
    check_nothing_is_left(local, temporary)


def test_an_error_in_the_middle_of_standard_input_stores_nothing(
    local: Conf, temporary: Path, tmp_path: Path, stdin_of_test: Any
) -> None:
    # What a process maps nowhere cannot be read.
    memory = os.open("/proc/self/mem", os.O_RDONLY)
    with open("/proc/self/maps", encoding="ascii") as maps:
        texts = [line.split()[0].split("-") for line in maps if line.split()[1].startswith("r")]
    spans = [[int(each, 16) for each in text] for text in texts]
    gaps = [(one[1], other[0]) for one, other in itertools.pairwise(spans)]
    end = next(low for low, high in gaps if 2**30 < high - low < 2**62)
    os.lseek(memory, end - 4096, os.SEEK_SET)
    stdin_of_test(memory)
    with pytest.raises(SourceError, match="cannot read standard input: input/output error"):
        back_up(local, None)
    check_nothing_is_left(local, temporary)


def test_a_terminal_and_no_standard_input_are_refused(
    local: Conf, stdin_of_test: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    controller, terminal = pty.openpty()
    stdin_of_test(terminal)
    with pytest.raises(UsageError, match="standard input is a terminal"):
        back_up(local, None)
    os.close(controller)
    monkeypatch.setattr(sys, "stdin", None)
    with pytest.raises(UsageError, match="standard input is closed"):
        back_up(local, None)
    assert not Path(local["local_path"]).exists()


def test_standard_input_may_be_closed_on_the_command_line(user: CommandLine) -> None:
    done = user.shell("backup - --name shop.sql --prompt no <&-")
    assert done.code == 2
    assert "standard input is closed" in done.stderr
    done = user.shell("backup - --name shop.sql --prompt no </dev/null")
    assert done.code == 1
    assert "standard input gave no data" in done.stderr


def test_a_pause_in_a_non_blocking_standard_input_is_not_its_end(
    local: Conf, stdin_of_test: Any
) -> None:
    readable, writable = os.pipe()
    os.set_blocking(readable, False)
    stdin_of_test(readable)
    os.write(writable, b"first ")

    def write_the_rest(done: int, _total: int) -> None:
        if done == 0:
            writer.start()

    # It writes only when the backup waits for more.
    def write() -> None:
        while select.select([readable_again], [], [], 0)[0]:
            pass
        os.write(writable, b"second")
        os.close(writable)

    readable_again = os.dup(0)
    writer = threading.Thread(target=write)
    entry = back_up(local, None, progress=write_the_rest)
    writer.join()
    os.close(readable_again)
    assert entry.metadata["bytes"] == len(b"first second")


# Interrupts.


@pytest.mark.parametrize(
    ("method", "part"),
    [("POST", "uploads"), ("PUT", "partNumber=1"), ("POST", "uploadId=")],
    ids=["beginning parts", "sending a part", "publishing parts"],
)
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_backup_of_a_command_is_stored_and_listed_or_neither(
    user: CommandLine,
    proxied_conf: Conf,
    moto_proxy: FaultProxy,
    method: str,
    part: str,
    number: int,
) -> None:
    write_config(user.home / ".bakthat.yml", default=proxied_conf)
    hold = Hold()
    moto_proxy.on(method, part, hold, times=1)
    marked = user.directory / "producer"
    line = f"echo $$ >{marked}; {LARGE}" + ("; exec sleep 300" if part != "uploadId=" else "")
    with user.start("backup", "--command", line, "--name", "shop", "--prompt", "no") as process:
        assert process.stderr is not None
        assert hold.done.wait(60)
        process.send_signal(number)
        process.send_signal(number)
        hold.go.set()
        output = process.stderr.read().decode()
        assert process.wait(60) == 128 + number, output
    assert "Traceback" not in output
    listed = [each["stored_filename"] for each in user.run("show", "--json").lines("backup")]
    objects = stored(proxied_conf)
    assert sorted(objects) == sorted([*listed, *(f"{each}.index" for each in listed)])
    assert not Path(f"/proc/{marked.read_text().strip()}").exists()
    cleaned = user.run("cleanup", "--older-than", "1s", "--json")
    assert cleaned.lines("change") == []


def test_a_command_ends_with_bakthat_that_is_killed(user: CommandLine) -> None:
    fifo, marked = user.directory / "fifo", user.directory / "producer"
    os.mkfifo(fifo)
    # The other end of the FIFO is closed when the last process of the command has ended.
    line = f"exec 7>{fifo}; echo $$ >{marked}; echo half; echo ready >&7; exec sleep 300"
    with (
        user.start("backup", "--command", line, "--name", "shop", "--prompt", "no") as process,
        fifo.open("rb") as gate,
    ):
        assert gate.readline() == b"ready\n"
        process.kill()
        assert gate.read() == b""
    assert user.run("show", "--json").lines("backup") == []
    assert user.run("sync").code == 0
    assert user.run("show", "--json").lines("backup") == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_command_never_takes_for_complete_what_an_interrupted_restore_has_sent(
    user: CommandLine, local: Conf, number: int
) -> None:
    write_config(user.home / ".bakthat.yml", default=local)
    back_up(local, "head -c 5000000 /dev/zero")
    fifo, never, done = (user.directory / name for name in ("fifo", "never", "done"))
    os.mkfifo(fifo)
    os.mkfifo(never)
    # More than a pipe holds is left when it stops reading.
    line = f"exec 7>{fifo}; head -c 1 >&7; read x <{never}; cat >&2 && touch {done}"
    with (
        user.start("restore", "shop.sql", "--to-command", line) as process,
        fifo.open("rb", buffering=0) as gate,
    ):
        assert gate.read(1) == b"\0"
        process.send_signal(number)
        assert gate.read() == b""  # every process of the command has ended
        assert process.wait(60) == (-number if number == signal.SIGKILL else 128 + number)
    assert not done.exists()


def test_an_interrupt_in_the_block_of_a_file_with_programs_stores_nothing(
    user: CommandLine, local: Conf
) -> None:
    fifo = user.directory / "fifo"
    os.mkfifo(fifo)
    line = f"exec 7>{fifo}; echo half; echo ready >&7; exec cat /dev/zero"
    text = f"""
import subprocess, bakthat
with bakthat.open_backup("shop.sql", conf={local!r}, password="") as file:
    subprocess.run(["sh", "-c", {line!r}], stdout=file, start_new_session=True)
"""
    with (
        subprocess.Popen([sys.executable, "-c", text], stderr=subprocess.PIPE) as process,
        fifo.open("rb") as gate,
    ):
        assert gate.readline() == b"ready\n"
        # A signal right before subprocess waits is noticed only by the next one.
        for _ in range(6):
            process.send_signal(signal.SIGINT)
            with suppress(subprocess.TimeoutExpired):
                process.wait(10)
                break
        assert gate.read() == b""
        assert process.stderr is not None
        assert b"KeyboardInterrupt" in process.stderr.read()
        assert process.wait(60) == -signal.SIGINT
    assert bakthat.ls(conf=local) == []
    assert [each for each in stored(local) if "shop" in each or each.endswith(".tmp")] == []
