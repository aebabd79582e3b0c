"""Streams: what is stored of them, their sizes, and how they come back."""

from __future__ import annotations

import os
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

import bakthat
from bakthat import models
from bakthat.backends.local.backend import LocalBackend
from bakthat.errors import (
    ArchiveError,
    ConsumerError,
    CryptoError,
    PasswordError,
    ProducerError,
    StorageError,
    UsageError,
    WrongKeyError,
)
from bakthat.format.names import index_key
from bakthat.helper import KeyValue
from tests.support.commandline import CommandLine
from tests.support.glacier_server import GlacierServer
from tests.support.profiles import Conf, write_config

pytestmark = pytest.mark.usefixtures("cheap_passphrases")

SECRET = "correct horse battery"


def back_up(conf: Conf, size: int, name: str = "shop.sql", **options: Any) -> models.Backups:
    """Back up *size* bytes as the output of a command."""
    line = f"head -c {size} /dev/zero"
    options = {"custom_filename": name, "password": "", **options}
    return bakthat.backup(conf=conf, command=line, **options)


def text_of(conf: Conf, name: str = "shop.sql", **options: Any) -> bytes:
    with bakthat.open_file(name, "shop.sql", conf=conf, **options) as file:
        return file.read()


# What is stored.


@pytest.mark.parametrize("compress", [True, False, 1, 9])
@pytest.mark.parametrize("password", ["", SECRET], ids=["plain", "encrypted"])
def test_a_stream_is_stored_as_it_is_and_other_tools_open_it(
    local: Conf, out: Path, tmp_path: Path, compress: bool | int, password: str
) -> None:
    conf = {**local, "compress": compress}
    identity = tmp_path / "key.txt"
    recipients = []
    if password:
        made = subprocess.run(["age-keygen", "-o", identity], capture_output=True, check=True)
        recipients = [made.stderr.decode().split()[-1]]
    entry = bakthat.backup(
        conf=conf,
        command="seq 100000",
        custom_filename="shop.sql",
        password=None if recipients else "",
        recipients=recipients,
        prompt="no",
    )
    expected = b"".join(b"%d\n" % number for number in range(1, 100001))
    suffix = (".gz" if compress else "") + (".age" if password else "")
    assert entry.stored_filename.endswith(suffix)
    assert entry.stored_filename.startswith("shop.sql.20")
    tools = ([f"age -d -i {identity}"] if password else []) + (["gunzip"] if compress else [])
    stored = Path(local["local_path"]) / entry.stored_filename
    line = " | ".join(["cat", *tools])
    with stored.open("rb") as source:
        opened = subprocess.run(["sh", "-c", line], stdin=source, capture_output=True, check=True)
    assert opened.stdout == expected
    key = {"identity_file": identity if password else None}
    bakthat.restore("shop.sql", conf=conf, output=out, **key)  # type: ignore[arg-type]  # one key
    assert (out / "shop.sql").read_bytes() == expected
    assert (out / "shop.sql").stat().st_mode & 0o777 == 0o600
    (found,) = bakthat.check(conf=conf, read_data=True, **key)  # type: ignore[arg-type]  # one key
    assert found.is_good


def test_the_catalog_says_how_the_command_ended(local: Conf) -> None:
    bakthat.backup(
        conf=local,
        command="echo data; echo 'first warning' >&2; echo second >&2",
        custom_filename="shop.sql",
        password="",
    )
    (entry,) = bakthat.ls(conf=local)
    producer = entry.metadata["producer"]
    assert producer.pop("seconds") >= 0
    assert producer == {"exit_code": 0, "stderr": "first warning\nsecond"}
    assert entry.is_complete


def test_standard_input_is_stored(user: CommandLine, local: Conf) -> None:
    write_config(user.home / ".bakthat.yml", default=local)
    done = user.shell("backup - --name shop.sql --prompt no < <(printf 'a\\0\\r\\n\\377')")
    assert done.code == 0, done.stderr
    assert text_of(local) == b"a\0\r\n\xff"
    assert user.shell("cat shop.sql | od -An -tx1").stdout.split() == ["61", "00", "0d", "0a", "ff"]
    assert user.shell("cat shop.sql shop.sql | wc -c").stdout.strip() == "5"


def test_a_stream_is_found_compared_and_listed_as_one_file(local: Conf) -> None:
    first = back_up(local, 3)
    second = back_up(local, 4)
    contents = bakthat.contents("shop.sql", conf=local)
    assert [(each.path, each.size) for each in contents] == [("shop.sql", 4)]
    changes = bakthat.diff(first.stored_filename, second.stored_filename, conf=local)
    assert [each.path for each in changes] == ["shop.sql"]
    with bakthat.open_file("shop.sql", "shop.sql", conf=local) as file:
        assert file.seek(-1, os.SEEK_END) == 3
        assert file.read() == b"\0"
    with pytest.raises(UsageError, match="is a backup of a command, which is no file or directory"):
        list(bakthat.diff("shop.sql", conf=local))


def test_an_empty_stream_has_a_good_index(local: Conf, caplog: pytest.LogCaptureFixture) -> None:
    back_up(local, 0, allow_empty=True)
    assert text_of(local) == b""
    assert [each.size for each in bakthat.contents("shop.sql", conf=local)] == [0]
    (checked,) = bakthat.check("shop.sql", conf=local, read_data=True)
    assert checked.is_good
    assert checked.index_problem == ""
    assert "cannot be used" not in caplog.text


def test_the_script_restores_without_bakthat(
    user: CommandLine, local: Conf, tmp_path: Path
) -> None:
    write_config(user.home / ".bakthat.yml", default=local)
    back_up(local, 5000)
    script = tmp_path / "script.sh"
    script.write_text(user.run("show", "--by-hand", "shop.sql").stdout)
    (tmp_path / "empty").mkdir()
    subprocess.run(["sh", script], cwd=tmp_path / "empty", check=True, capture_output=True)
    assert (tmp_path / "empty" / "shop.sql").read_bytes() == bytes(5000)


def test_an_incremental_profile_makes_no_difference(local: Conf) -> None:
    conf = {**local, "incremental": True, "skip_unchanged": True}
    entries = [back_up(conf, 10) for _ in range(2)]
    assert [each.is_increment or each.is_skipped for each in entries] == [False, False]
    assert len(bakthat.ls(conf=conf)) == 2


def test_names_of_one_second_do_not_collide(local: Conf) -> None:
    with ThreadPoolExecutor(4) as pool:
        entries = list(pool.map(lambda size: back_up(local, size), [10, 11, 12, 13]))
    assert len({each.stored_filename for each in entries}) == 4
    for entry in entries:
        assert len(text_of(local, entry.stored_filename)) == entry.metadata["bytes"]


def test_a_name_that_the_storage_has_is_left_as_it_is(
    local: Conf, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = back_up(local, 10)
    Path(local["database"]).unlink()  # another machine stored it, in the same second
    date = first.date
    monkeypatch.setattr("bakthat.operations.backup.store.time.time", lambda: float(date))
    second = back_up(local, 20)
    assert second.stored_filename != first.stored_filename
    bakthat.sync(conf=local)
    assert {each.metadata["bytes"] for each in bakthat.ls(conf=local)} == {10, 20}


def test_a_vault_takes_streams(glacier: GlacierServer, local: Conf) -> None:
    glacier.instant = True
    conf = {**glacier.conf(), "default_destination": "glacier", "database": local["database"]}
    with pytest.raises(ProducerError, match="exit code 3"):
        bakthat.backup(
            conf=conf, command="seq 900000; exit 3", custom_filename="shop.sql", password=""
        )
    assert not glacier.uploads_under_way(conf["glacier_vault"])
    assert not glacier.archives(conf["glacier_vault"])
    entry = back_up(conf, 3_000_000, password=SECRET)
    assert entry.backend == "glacier"
    with bakthat.open_backup("shop.sql", conf=conf, password=SECRET) as file:
        file.write(bytes(3_000_001))
    (found, _) = bakthat.ls(conf=conf)
    assert found.metadata["bytes"] == 3_000_001


# Sizes.


def test_a_size_far_from_the_last_is_suspicious_everywhere(
    conf: Conf, tmp_path: Path, caplog: pytest.LogCaptureFixture, fired: list[tuple[Any, ...]]
) -> None:
    assert not back_up(conf, 1000).is_suspicious
    fired.clear()
    entry = back_up(conf, 499)
    assert entry.metadata["suspicious"] is True
    assert not entry.is_complete
    warning = "shop.sql: the size is suspicious: 499 B is less than half of the 1.0 KB of shop.sql."
    assert warning in caplog.text
    assert entry.metadata["warnings"][0].startswith(warning)
    (result,) = [given[-1] for event, *given in fired if event == "on_backup"]
    assert result.is_suspicious
    assert [each.is_suspicious for each in bakthat.ls(conf=conf)] == [True, False]
    # Another machine has no catalog but what the storage says.
    other = {**conf, "database": str(tmp_path / "other.sqlite")}
    bakthat.sync(conf=other)
    found = bakthat.ls(conf=other)
    assert [(each.is_suspicious, each.metadata["bytes"]) for each in found] == [
        (True, 499),
        (False, 1000),
    ]
    assert back_up(other, 498).is_suspicious


@pytest.mark.parametrize(
    ("last", "size", "is_suspicious"),
    [(100, 50, False), (100, 49, True), (100, 200, False), (100, 201, True), (100, 100, False)],
)
def test_half_and_twice_are_usual_sizes(
    local: Conf, last: int, size: int, is_suspicious: bool
) -> None:
    back_up(local, last)
    assert back_up(local, size).is_suspicious == is_suspicious


def test_the_one_after_a_suspicious_one_is_compared_with_the_last_good_one(local: Conf) -> None:
    sizes = [100, 10, 12, 90, 300, 310]
    found = [back_up(local, size).is_suspicious for size in sizes]
    assert found == [False, True, True, False, True, True]
    assert not back_up(local, 320, accept_size=True).is_suspicious
    assert not back_up(local, 330).is_suspicious
    assert back_up(local, 90).is_suspicious


def test_other_hosts_sets_files_and_values_do_not_count(local: Conf, tmp_path: Path) -> None:
    back_up(local, 100, host="other")
    back_up(local, 100, name="other.sql")
    (tmp_path / "shop.sql").write_bytes(bytes(100))
    bakthat.backup(tmp_path / "shop.sql", conf=local, password="")
    bakthat.backup(tmp_path, conf=local, password="", custom_filename="shop.sql")
    KeyValue(conf=local).set_key("shop.sql", "x" * 100, password="")
    assert not back_up(local, 1).is_suspicious
    assert not back_up(local, 2, host="other", accept_size=True).is_suspicious


def test_a_size_below_the_limit_stores_nothing(local: Conf) -> None:
    back_up(local, 1000)
    with pytest.raises(ProducerError, match=r"499 B is less than 50 % of the 1\.0 KB") as caught:
        back_up(local, 499, fail_below="50%")
    assert "nothing was stored" in str(caught.value)
    with pytest.raises(ProducerError, match="is less than 90 %"):
        back_up(local, 899, fail_below=90)
    assert back_up(local, 900, fail_below=90).metadata["bytes"] == 900
    assert len(bakthat.ls(conf=local)) == 2
    assert back_up(local, 1, name="first", fail_below=100).metadata["bytes"] == 1


def test_the_exit_code_says_that_a_size_is_suspicious(user: CommandLine, local: Conf) -> None:
    write_config(user.home / ".bakthat.yml", default=local)
    back_up(local, 1000)
    line = ("backup", "--name", "shop.sql", "--prompt", "no", "--command")
    done = user.run(*line, "head -c 9 /dev/zero")
    assert done.code == 3
    assert "the size is suspicious: 9 B is less than half" in done.stderr
    assert "--accept-size" in done.stderr
    assert user.run(*line, "head -c 9 /dev/zero", "--fail-below", "50%").code == 1
    assert user.run(*line, "head -c 9 /dev/zero", "--accept-size").code == 0
    done = user.run(*line, "head -c 99 /dev/zero", "--json")
    assert done.code == 3
    (shown,) = done.lines("backup")
    assert shown["metadata"]["suspicious"] is True
    done = user.run("restore", "shop.sql", "--output", str(user.directory / "out"))
    assert done.code == 0, done.stderr
    assert "its size was suspicious" in done.stderr
    assert "missing or incomplete" not in done.stderr


def test_rotation_keeps_the_newest_of_a_usual_size(local: Conf) -> None:
    conf = {**local, "rotation": {"last": 1}}
    for size in (100, 101, 1, 2):
        back_up(conf, size)
    bakthat.rotate_backups("shop.sql", conf=conf)
    kept = [each.metadata["bytes"] for each in bakthat.ls(conf=conf)]
    assert kept == [2, 101]
    bakthat.delete_older_than("shop.sql", "1s", conf=conf)
    assert [each.metadata["bytes"] for each in bakthat.ls(conf=conf)] == [2, 101]


def test_sync_makes_the_lost_index_of_a_stream_again(local: Conf) -> None:
    entry = back_up(local, 5000)
    store = LocalBackend({"local_path": local["local_path"]})
    store.delete(index_key(entry.stored_filename))
    bakthat.sync(conf=local, indexes=True)
    store.stat(index_key(entry.stored_filename))
    assert [each.size for each in bakthat.contents("shop.sql", conf=local)] == [5000]


# Into a command.


def test_a_command_reads_the_whole_stream(conf: Conf, tmp_path: Path) -> None:
    seq = b"".join(b"%d\n" % number for number in range(1, 300001))
    bakthat.backup(conf=conf, command="seq 300000", custom_filename="shop.sql", password=SECRET)
    taken = tmp_path / "taken"
    entry = bakthat.restore("shop.sql", conf=conf, password=SECRET, to_command=f"cat >{taken}")
    assert entry is not None
    assert taken.read_bytes() == seq


CONSUMERS = {
    "cat >x; exit 4": "the command ended with exit code 4",
    "head -c 1 >x; echo full >&2; exit 4": "the command ended with exit code 4: full",
    "kill -9 $$": "the command was ended by signal SIGKILL",
    "nosuchprogram": "the command ended with exit code 127",
}


@pytest.mark.parametrize("size", [10, 3_000_000])
@pytest.mark.parametrize("line", CONSUMERS)
def test_a_command_that_fails_is_an_error(
    local: Conf, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, line: str, size: int
) -> None:
    monkeypatch.chdir(tmp_path)
    back_up(local, size)
    with pytest.raises(ConsumerError) as caught:
        bakthat.restore("shop.sql", conf=local, to_command=line)
    assert str(caught.value).startswith(CONSUMERS[line])


@pytest.mark.parametrize("size", [10, 3_000_000])
def test_a_command_that_has_enough_may_stop_reading(local: Conf, size: int) -> None:
    back_up(local, size)
    for line in ("head -c 1", "true", "exec <&-; sleep 0.1"):
        assert bakthat.restore("shop.sql", conf=local, to_command=line) is not None


def test_a_broken_pipe_of_somebody_else_ends_the_command(local: Conf, tmp_path: Path) -> None:
    def progress(done: int, _total: int) -> None:
        if done:
            raise BrokenPipeError("the terminal is gone")

    back_up(local, 3_000_000)
    line = f"cat >{tmp_path / 'got'}; echo complete >{tmp_path / 'complete'}"
    with pytest.raises(BrokenPipeError, match="the terminal is gone"):
        bakthat.restore("shop.sql", conf=local, to_command=line, progress=progress)
    assert not (tmp_path / "complete").exists()


@pytest.mark.parametrize("size", [10, 3_000_000])
@pytest.mark.parametrize("change", ["byte", "whole", "cut", "whole, without index"])
def test_a_command_never_takes_an_altered_stream_for_complete(
    local: Conf, tmp_path: Path, size: int, change: str
) -> None:
    line = f"head -c {size} /dev/urandom"
    entry = bakthat.backup(conf=local, command=line, custom_filename="shop.sql", password="")
    store = Path(local["local_path"])
    path = store / entry.stored_filename
    data = bytearray(path.read_bytes())
    if change == "byte":
        data[len(data) // 2] ^= 1
    elif change == "cut":
        del data[-1:]
    else:
        other = bakthat.backup(conf=local, command=line, custom_filename="other", password="")
        data = bytearray((store / other.stored_filename).read_bytes())
    path.write_bytes(data)
    if change == "whole, without index":
        (store / index_key(entry.stored_filename)).unlink()
    line = f"cat >{tmp_path / 'x'} && touch {tmp_path / 'done'}"
    with pytest.raises((ArchiveError, CryptoError, StorageError)) as caught:
        bakthat.restore("shop.sql", conf=local, to_command=line)
    assert "--only" not in caught.value.hint
    assert not (tmp_path / "done").exists()
    if (tmp_path / "x").exists():
        assert (tmp_path / "x").stat().st_size < size


def test_a_wrong_password_starts_no_command(local: Conf, tmp_path: Path) -> None:
    back_up(local, 10, password=SECRET)
    line = f"touch {tmp_path / 'started'}; cat"
    for options in ({"password": "wrong"}, {"prompt": "no"}):
        with pytest.raises((PasswordError, WrongKeyError)):
            bakthat.restore("shop.sql", conf=local, to_command=line, **options)  # type: ignore[arg-type]  # one of two options
    assert not (tmp_path / "started").exists()


def test_a_tree_and_a_value_are_no_streams(local: Conf, tree: Path, user: CommandLine) -> None:
    bakthat.backup(tree, conf=local, password="")
    KeyValue(conf=local).set_key("key", "value", password="")
    for name, complaint in (("mydir", "is an archive of files"), ("key", "is a value")):
        with pytest.raises(UsageError, match=complaint):
            bakthat.restore(name, conf=local, to_command="cat")
    with pytest.raises(UsageError, match="no file appears"):
        bakthat.restore("mydir", conf=local, to_command="cat", output=tree)
    write_config(user.home / ".bakthat.yml", default=local)
    done = user.run("cat", "mydir")
    assert (done.code, done.stdout) == (2, "")
    assert "is an archive of files" in done.stderr


def test_a_cold_stream_is_thawed_first(
    moto_conf: Conf, local: Conf, tmp_path: Path, user: CommandLine
) -> None:
    conf = {**moto_conf, "database": local["database"], "storage_class": "DEEP_ARCHIVE"}
    write_config(user.home / ".bakthat.yml", default=conf)
    back_up(conf, 10)
    marked = tmp_path / "started"
    done = user.run("restore", "shop.sql", "--to-command", f"touch {marked}; cat")
    assert done.code == 4, done.stderr
    assert "--to-command" in done.stderr + done.stdout
    assert not marked.exists()
