"""Transcripts of the command line: standard output, standard error and exit code."""

from __future__ import annotations

import os
import signal
import socket
import sqlite3
import stat
from pathlib import Path
from typing import Any

import pytest

from bakthat.crypto import age
from tests.support.commandline import INTERRUPT, CommandLine, stored_names, untimed
from tests.support.profiles import write_config

NOTHING_LISTED = "DATE (UTC)  WHERE  HOST  SIZE  NAME  TAGS\n"


@pytest.fixture
def user(user: CommandLine) -> CommandLine:
    (user.directory / "mydir").mkdir()
    (user.directory / "mydir" / "file").write_text("hello")
    return user


@pytest.fixture
def configured(user: CommandLine, rclone_conf: dict[str, Any]) -> CommandLine:
    configure(user, default=rclone_conf)
    return user


def configure(user: CommandLine, **profiles: dict[str, Any]) -> Path:
    path = user.home / ".bakthat.yml"
    return write_config(path, **profiles)


def test_the_first_backup_works_before_any_account_exists(user: CommandLine) -> None:
    done = user.run("backup", "mydir", "--prompt", "no")
    name, path = stored_names(done.stderr)
    assert path.endswith(f"/{name}")
    store = user.home / ".bakthat_store"
    size = (store / name).stat().st_size
    assert untimed(done.stderr).splitlines() == [
        f"No configuration in {user.home}/.bakthat.yml: storing in {store}",
        f"Backing up {user.directory}/mydir",
        "Compressing...",
        "Uploading...",
        "Upload completion: 0%",
        "Upload completion: 90%",
        "Upload completion: 100%",
        f"Stored as {name} ({size} B): 1 file (5 B) on local {store}",
        f"Without bakthat: tar xzpf {store / name}",
    ]
    assert (done.stdout, done.code) == ("", 0)
    assert stat.S_IMODE((store / name).stat().st_mode) == 0o600

    shown = user.run("show")
    date = f"{name[6:10]}-{name[10:12]}-{name[12:14]} {name[14:16]}:{name[16:18]}:{name[18:20]}"
    assert shown.stdout.splitlines()[1].startswith(f"{date}  local  ")
    assert shown.stdout.splitlines()[1].endswith(f"  {name}")
    assert shown.stderr == ""

    restored = user.run("restore", "mydir", "-o", "out")
    assert untimed(restored.stderr).splitlines() == [
        f"Restoring {name}",
        "Downloading...",
        "Uncompressing...",
        f"Restored {name} ({size} B): 1 file (5 B) from local {store} into out",
    ]
    assert restored.code == 0
    assert (user.directory / "out" / "mydir" / "file").read_text() == "hello"

    deleted = user.run("delete", name)
    assert untimed(deleted.stderr).splitlines() == [
        f"Deleting {name}",
        f"Deleted {name} ({size} B) from local {store}",
    ]
    assert deleted.code == 0
    assert user.run("ls").stdout == NOTHING_LISTED
    assert list(store.iterdir()) == []


def test_an_encrypted_backup_goes_to_s3_and_comes_back(configured: CommandLine) -> None:
    password = {"BAKTHAT_PASSWORD": "correct horse"}
    done = configured.run("backup", "mydir", "-t", "daily", env=password)
    assert "Encrypting..." in done.stderr.splitlines()
    assert done.code == 0
    name, path = stored_names(done.stderr)
    assert path.endswith(f"/{name}")
    assert name.endswith(".tgz.age")
    wrong = configured.run("restore", "mydir", "-o", "out", env={"BAKTHAT_PASSWORD": "wrong"})
    assert wrong.stderr.splitlines()[-2] == (
        f"bakthat: error: {name}: the passphrase does not open the age file"
    )
    assert wrong.code == 1
    assert list((configured.directory / "out").glob("*")) == []
    restored = configured.run("restore", "mydir", "-o", "out", env=password)
    assert restored.code == 0
    assert (configured.directory / "out" / "mydir" / "file").read_text() == "hello"


def test_recipients_of_the_profile_need_no_secret_to_back_up(
    user: CommandLine, rclone_conf: dict[str, Any]
) -> None:
    identity = age.generate_identity()
    configure(user, default={**rclone_conf, "recipients": [age.recipient_of(identity)]})
    assert user.run("backup", "mydir").code == 0
    refused = user.run("restore", "mydir", "-o", "out")
    assert refused.code == 1
    assert "no private key was given" in refused.stderr
    assert "--identity-file" in refused.stderr
    (user.directory / "key").write_text(identity)
    assert user.run("restore", "mydir", "-o", "out", "--identity-file", "key").code == 0
    assert (user.directory / "out" / "mydir" / "file").read_text() == "hello"


def test_json_has_what_a_script_needs(user: CommandLine) -> None:
    (made,) = user.run("backup", "mydir", "--prompt", "no", "--json", "--quiet").lines("backup")
    assert made["filename"] == "mydir"
    assert made["metadata"]["files"] == 1
    related = {"increment": False, "needs": [], "needed_by": [], "frees": made["size"]}
    assert user.run("show", "--json").lines("backup") == [{**made, **related, "held_by": []}]
    assert user.run("show", "nothing", "--json").lines("backup") == []


def test_quiet_prints_nothing_on_success(user: CommandLine) -> None:
    for arguments in (("--quiet", "backup"), ("backup", "--quiet")):
        done = user.run(*arguments, "mydir", "--prompt", "no")
        assert (done.code, done.stdout, done.stderr) == (0, "", "")


def test_show_narrows_by_query_tag_and_destination(user: CommandLine) -> None:
    user.run("backup", "mydir", "--prompt", "no", "-t", "daily,db")
    user.run("backup", "mydir", "--prompt", "no", "--name", "other")
    for arguments, expected in {
        (): 2,
        ("other",): 1,
        ("-t", "db"): 1,
        ("-t", "d"): 0,
        ("-d", "local"): 2,
        ("-d", "s3"): 0,
        ("--host", "elsewhere"): 0,
    }.items():
        assert len(user.run("ls", *arguments).stdout.splitlines()) == expected + 1


def test_a_file_that_cannot_be_read_exits_with_3(
    user: CommandLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = user.directory / "mydir" / "socket"
    monkeypatch.chdir(user.directory / "mydir")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("socket")  # by its short name: the whole path is too long for a socket
        done = user.run("backup", "mydir", "--prompt", "no")
    assert done.code == 3
    assert f"bakthat: warning: {path}: is a socket; it is not stored" in done.stderr
    assert (
        "bakthat: error: stored with 1 warning; some files are missing or incomplete" in done.stderr
    )
    assert user.run("restore", "mydir", "-o", "out").code == 0
    assert (user.directory / "out" / "mydir" / "file").read_text() == "hello"


FAILURES: dict[str, tuple[list[str], int, str]] = {
    "no command": ([], 2, "bakthat: error: no command was given"),
    "unknown command": (["frobnicate"], 2, "bakthat: error: no command 'frobnicate'"),
    "unknown option": (
        ["backup", "--frobnicate"],
        2,
        "bakthat: error: backup has no option --frobnicate",
    ),
    "no such file": (
        ["backup", "missing", "--prompt", "no"],
        1,
        "bakthat: error: no such file or directory: ",
    ),
    "empty name": (
        ["backup", "", "--prompt", "no"],
        2,
        "bakthat: error: no file or directory was named",
    ),
    "the root": (
        ["backup", "/", "--prompt", "no"],
        2,
        "bakthat: error: '/' has no name of its own",
    ),
    "no password": (
        ["backup", "mydir"],
        1,
        "bakthat: error: no password is set, and there is no terminal to ask for one\n"
        "bakthat: hint: set BAKTHAT_PASSWORD",
    ),
    "missing exclude file": (
        ["backup", "mydir", "--prompt", "no", "--exclude-file", "nowhere"],
        2,
        "nowhere",
    ),
    "exclude file without a name": (
        ["backup", "mydir", "--prompt", "no", "--exclude-file", ""],
        2,
        "backup: argument --exclude-file: the value is empty; is a variable of a script not set?\n",
    ),
    "an empty destination": (
        ["backup", "mydir", "--prompt", "no", "-d", ""],
        2,
        "error: backup: argument -d/--destination: the value is empty",
    ),
    "an empty recipient": (
        ["backup", "mydir", "--prompt", "no", "--recipient", ""],
        2,
        "error: backup: argument --recipient: the value is empty",
    ),
    "an empty host": (["delete", "mydir", "--host", ""], 2, "--host: the value is empty"),
    "too long a name": (
        ["backup", "x" * 300, "--prompt", "no"],
        1,
        f"{'x' * 300}': file name too long\n",
    ),
    "unknown destination": (
        ["backup", "mydir", "-d", "tape", "--prompt", "no"],
        2,
        "bakthat: error: there is no destination 'tape'\n"
        "bakthat: hint: use one of: s3, glacier, local",
    ),
    "no bucket": (["backup", "mydir", "-d", "s3", "--prompt", "no"], 1, "s3_bucket"),
    "a dry run of a stream": (
        ["backup", "--command", "echo", "--name", "text", "--dry-run"],
        2,
        "bakthat: error: --dry-run and --why cannot tell what a stream would store",
    ),
    "an increment of a database": (
        ["backup", "postgresql://host/shop", "--incremental"],
        2,
        "bakthat: error: 'incremental' cannot be used when a database is backed up\n",
    ),
    "a container without a database": (
        ["backup", "mydir", "--via", "docker exec -i db"],
        2,
        "bakthat: error: --via is for databases\n",
    ),
    "a time limit that is none": (
        ["backup", "--command", "echo", "--name", "text", "--timeout", "0s"],
        2,
        "bakthat: error: '0s' is no time limit\nbakthat: hint: give one such as 2h or 30m\n",
    ),
    "two rules for a size": (
        ["backup", "sqlite:///app.db", "--fail-below", "50%", "--accept-size"],
        2,
        "bakthat: error: --accept-size and --fail-below contradict each other\n",
    ),
    "no such backup": (
        ["restore", "nothing"],
        1,
        "bakthat: error: no backup matches 'nothing'\n"
        "bakthat: hint: bakthat backup makes the first one",
    ),
    "no such backup to delete": (["delete", "nothing"], 1, "no backup matches 'nothing'"),
    "an escape in a name": (
        ["restore", "\x1b[31mred"],
        1,
        "bakthat: error: no backup matches '\\x1b[31mred'",
    ),
    "missing configuration": (
        ["show", "-c", "nowhere.yml"],
        1,
        "/nowhere.yml'",
    ),
    "unknown profile": (
        ["show", "-p", "work"],
        1,
        "bakthat: error: there is no profile 'work'",
    ),
}


@pytest.mark.parametrize("case", FAILURES)
def test_a_failure_is_one_clear_line_and_leaves_nothing(user: CommandLine, case: str) -> None:
    arguments, code, message = FAILURES[case]
    before = sorted(user.directory.rglob("*"))
    done = user.run(*arguments)
    assert message in done.stderr
    assert done.code == code
    assert done.stdout == ""
    assert "Traceback" not in done.stderr
    assert sorted(user.directory.rglob("*")) == before
    assert user.run("show").stdout == NOTHING_LISTED
    assert not (user.home / ".bakthat_store").exists()


def test_a_leading_dash_works_after_two_dashes(user: CommandLine) -> None:
    (user.directory / "-rf" / "directory").mkdir(parents=True)
    assert user.run("backup", "--prompt", "no", "--", "-rf").code == 0
    assert user.run("restore", "-o", "out", "--", "-rf").code == 0
    assert (user.directory / "out" / "-rf").is_dir()
    assert user.run("delete", "--", "-rf").code == 0


def test_a_broken_configuration_is_one_line_with_its_place(user: CommandLine) -> None:
    path = user.home / ".bakthat.yml"
    path.write_text("default:\n  s3_bucket: [unclosed\n")
    path.chmod(0o600)
    done = user.run("backup", "mydir", "--prompt", "no")
    assert done.stderr == (
        f"bakthat: error: {path}:2: a bracket that is not closed\nbakthat: hint: close it\n"
    )
    configure(user, default={"s3_buckt": "x"})
    done = user.run("backup", "mydir", "--prompt", "no")
    assert done.stderr == (
        f"bakthat: error: {path}:2: profile 'default': unknown key 's3_buckt'\n"
        "bakthat: hint: did you mean s3_bucket?\n"
    )
    assert done.code == 1


def test_wrong_keys_are_one_line_without_the_secret(
    user: CommandLine, rclone_conf: dict[str, Any]
) -> None:
    configure(user, default={**rclone_conf, "secret_key": "wrong-secret-key"})
    done = user.run("backup", "mydir", "--prompt", "no", "--debug")
    assert done.code == 1
    assert [line for line in done.stderr.splitlines() if line.startswith("bakthat: error: ")]
    assert "wrong-secret-key" not in done.stderr + done.stdout
    assert user.run("show").stdout == NOTHING_LISTED


def test_the_traceback_is_shown_with_debug_only(user: CommandLine) -> None:
    assert "Traceback" not in user.run("restore", "nothing").stderr
    assert "Traceback" in user.run("restore", "nothing", "--debug").stderr
    assert "Traceback" in user.run("--debug", "restore", "nothing").stderr


def test_a_catalog_of_a_newer_version_is_refused(user: CommandLine) -> None:
    with sqlite3.connect(user.home / ".bakthat.sqlite") as newer:
        newer.execute("PRAGMA user_version = 99")
    newer.close()
    done = user.run("backup", "mydir", "--prompt", "no")
    assert "was written by a newer bakthat" in done.stderr
    assert done.code == 1
    assert list((user.home / ".bakthat_store").glob("*")) == []


def test_a_closed_pipe_is_no_traceback(user: CommandLine) -> None:
    process = user.start("--help")
    assert process.stdout is not None
    assert process.stderr is not None
    assert process.stdin is not None
    process.stdout.close()
    with process.stdin, process.stderr:
        assert b"Traceback" not in process.stderr.read()
        process.wait()


@pytest.mark.parametrize(
    ("number", "code", "word"),
    [
        (signal.SIGINT, 130, "interrupted"),
        (signal.SIGTERM, 143, "terminated"),
        (signal.SIGHUP, 129, "hung up"),
    ],
)
def test_a_signal_in_the_middle_leaves_nothing(
    user: CommandLine, number: signal.Signals, code: int, word: str
) -> None:
    # Opening a FIFO as the password file waits for a writer, so the moment is known.
    fifo = user.directory / "fifo"
    os.mkfifo(fifo)
    config = {"default_destination": "local", "password_file": str(fifo)}
    configure(user, default=config)
    process = user.start("backup", "mydir")
    assert process.stdin is not None
    assert process.stdout is not None
    assert process.stderr is not None
    with process.stdin, process.stdout, process.stderr:
        descriptor = os.open(fifo, os.O_WRONLY)  # returns when bakthat reads it
        try:
            process.send_signal(number)
            assert process.wait(60) == code
        finally:
            os.close(descriptor)
        assert process.stderr.read().decode().splitlines()[-1] == f"bakthat: error: {word}"
    assert user.run("show").stdout == NOTHING_LISTED


def test_a_backup_goes_on_when_its_log_cannot_be_written(user: CommandLine) -> None:
    for redirection in ("2>/dev/full", "2>&-", ">&-", "2>&1 | head -n 1"):
        done = user.shell(f"backup mydir --prompt no {redirection}")
        assert "Traceback" not in done.stdout + done.stderr
        assert "defect" not in done.stdout + done.stderr
    assert len(user.run("show").stdout.splitlines()) == 1 + 4
    assert user.shell("show >&-").code == 0


@pytest.mark.parametrize("words", ["show", "--help", "--version", "backup --help"])
def test_output_that_cannot_be_written_is_an_error(user: CommandLine, words: str) -> None:
    full = user.shell(f"{words} >/dev/full")
    assert full.stderr == "bakthat: error: cannot write the output: no space left on device\n"
    assert full.code == 1


def test_names_that_the_terminal_cannot_show_are_escaped(user: CommandLine) -> None:
    assert user.run("backup", "mydir", "--name", "é", "--prompt", "no").code == 0
    done = user.run("show", env={"PYTHONIOENCODING": "ascii"})
    assert done.code == 0
    assert "\\xe9." in done.stdout


@pytest.mark.parametrize("arguments", [("restore",), ("delete",)])
def test_a_name_of_broken_bytes_matches_nothing(
    user: CommandLine, arguments: tuple[str, ...]
) -> None:
    done = user.run(*arguments, os.fsdecode(b"\xff"))
    assert done.stderr.splitlines()[0] == "bakthat: error: no backup matches '\\xff'"
    assert done.code == 1


def test_a_home_that_is_not_utf8_works(user: CommandLine) -> None:
    home = os.fsencode(user.home) + b"/h\xff"
    os.mkdir(home)
    user.environment["HOME"] = os.fsdecode(home)
    done = user.run("backup", "mydir", "--prompt", "no")
    assert done.code == 0, done.stderr
    assert "h\\xff/.bakthat_store" in done.stderr
    assert user.run("restore", "mydir", "-o", "out").code == 0


def test_a_missing_bucket_is_reported_before_a_password_is_asked_for(user: CommandLine) -> None:
    code, screen = user.converse("backup", "mydir", "-d", "s3")
    assert code == 1
    assert "s3_bucket" in screen
    assert "Password" not in screen


# On a terminal.


def test_a_terminal_is_asked_for_the_password(user: CommandLine) -> None:
    ask, again = "Password (blank to disable encryption): ", "Password confirmation: "
    code, screen = user.converse(
        "backup", "mydir", answers=[(ask, "secret\n"), (again, "secret\n")]
    )
    assert code == 0
    assert "secret" not in screen
    assert screen.index("Backing up") < screen.index(ask) < screen.index("Compressing...")
    assert "Upload completion" not in screen  # a bar takes its place
    code, screen = user.converse(
        "restore", "mydir", "-o", "out", answers=[("Password: ", "secret\n")]
    )
    assert code == 0
    assert (user.directory / "out" / "mydir" / "file").read_text() == "hello"


def test_passwords_that_do_not_match_store_nothing(user: CommandLine) -> None:
    ask, again = "Password (blank to disable encryption): ", "Password confirmation: "
    code, screen = user.converse("backup", "mydir", answers=[(ask, "secret\n"), (again, "other\n")])
    assert code == 1
    assert "bakthat: error: the password and its confirmation differ" in screen
    assert user.run("show").stdout == NOTHING_LISTED


def test_a_blank_password_disables_encryption(user: CommandLine) -> None:
    ask = "Password (blank to disable encryption): "
    code, screen = user.converse("backup", "mydir", answers=[(ask, "\n")])
    assert code == 0
    assert "Encrypting..." not in screen
    assert len(stored_names(user.run("show").stdout)) == 1


def test_interrupting_the_question_stores_nothing(user: CommandLine) -> None:
    ask = "Password (blank to disable encryption): "
    code, screen = user.converse("backup", "mydir", answers=[(ask, INTERRUPT)])
    assert code == 130
    assert "bakthat: error: interrupted" in screen
    assert user.run("show").stdout == NOTHING_LISTED


def test_a_configuration_from_a_pipe_is_enough_for_every_command(
    user: CommandLine, rclone_conf: dict[str, Any]
) -> None:
    path = configure(user, default=rclone_conf)
    for command in (
        "backup mydir --prompt no --json",
        "show --json",
        "doctor",
        "rotate mydir --last 1 --dry-run",
        "config show",
    ):
        done = user.shell(f"{command} -c <(cat {path})")
        assert done.code == 0, done.stderr
