"""Cold storage from the command line: output and exit codes."""

from __future__ import annotations

import re
import threading
from pathlib import Path
from typing import Any

import pytest
import yaml

from bakthat.cli import run
from tests.support.commandline import CommandLine, untimed
from tests.support.glacier_server import GlacierServer
from tests.support.profiles import write_config
from tests.support.servers import S3Server

READY, USAGE, NOT_READY = 0, 2, 4


@pytest.fixture
def user(user: CommandLine, tree: Path) -> CommandLine:
    assert tree.parent == user.directory  # where the commands run
    return user


@pytest.fixture
def conf(user: CommandLine, glacier: GlacierServer) -> dict[str, Any]:
    return use(user.home, glacier.conf())


def use(home: Path, conf: dict[str, Any]) -> dict[str, Any]:
    path = home / ".bakthat.yml"
    write_config(path, default=conf)
    return conf


def lines(text: str) -> list[str]:
    """Return the lines of a transcript, with what differs from run to run replaced."""
    text = re.sub(r"\d{4}-\d\d-\d\d \d\d:\d\d UTC", "DATE", text)
    text = re.sub(r"\(\d+ B\)", "(SIZE)", untimed(text))
    return re.sub(r"mydir\.\d{14}", "mydir.DATE", text).splitlines()


@pytest.mark.slow
def test_a_restore_from_a_vault_in_two_steps(
    user: CommandLine, conf: dict[str, Any], glacier: GlacierServer
) -> None:
    assert user.run("backup", "mydir", "--prompt", "no").code == 0
    asked = user.run("restore", "mydir", "-o", "out", "--tier", "bulk")
    assert (asked.code, asked.stdout) == (NOT_READY, "")
    assert lines(asked.stderr) == [
        "Requested the thaw of mydir.DATE.tgz (VAULT, tier bulk): it usually takes "
        "5 hours to 12 hours, until DATE",
        "When it is ready, run this again: bakthat restore mydir.DATE.tgz -d glacier -o out",
    ]
    again = user.run("restore", "mydir", "-o", "out")
    assert again.code == NOT_READY
    assert lines(again.stderr) == [
        "mydir.DATE.tgz is thawing (VAULT, tier bulk): requested 0 minutes ago, expected by DATE"
    ]
    assert not (user.directory / "out").exists()
    glacier.advance(hours=9)
    ready = user.run("restore", "mydir", "-o", "out")
    assert ready.code == READY, ready.stderr
    assert lines(ready.stderr)[:3] == [
        "mydir.DATE.tgz is thawed until DATE",
        "Restoring mydir.DATE.tgz",
        "Downloading...",
    ]
    assert (user.directory / "out" / "mydir" / "a.txt").read_text() == "hello"
    assert len(glacier.asked) == 1


def test_quiet_leaves_the_exit_code(user: CommandLine, conf: dict[str, Any]) -> None:
    user.run("backup", "mydir", "--prompt", "no")
    done = user.run("restore", "mydir", "--quiet")
    assert (done.code, done.stdout, done.stderr) == (NOT_READY, "", "")


def test_the_next_command_names_the_profile_and_the_file(
    user: CommandLine, glacier: GlacierServer
) -> None:
    path = user.directory / "my conf.yml"
    path.write_text(yaml.safe_dump({"cold one": glacier.conf()}))
    path.chmod(0o600)
    where = ("-p", "cold one", "-c", path)
    user.run("backup", "mydir", "--prompt", "no", *where)
    done = user.run("restore", "mydir", *where)
    assert lines(done.stderr)[-1] == (
        "When it is ready, run this again: "
        f"bakthat restore mydir.DATE.tgz -d glacier -p 'cold one' -c '{path}'"
    )


def test_the_next_command_restores_to_the_same_place(
    user: CommandLine, conf: dict[str, Any]
) -> None:
    user.run("backup", "mydir", "--prompt", "no")
    options = ("-o", "my out", "--identity-file", "key.txt", "--any-size", "--prompt", "no")
    output = lines(user.run("restore", "mydir", *options).stderr)
    assert output[-1].endswith(
        " -d glacier -o 'my out' --identity-file key.txt --any-size --prompt no"
    )


def test_two_concurrent_restores_request_one_thaw(
    user: CommandLine,
    conf: dict[str, Any],
    glacier: GlacierServer,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    user.run("backup", "mydir", "--prompt", "no")
    both_looked = threading.Barrier(2)
    list_jobs, looks = glacier.list_jobs, []

    def list_and_meet(*arguments: Any) -> Any:
        found = list_jobs(*arguments)
        looks.append(found)
        if len(looks) <= both_looked.parties:
            glacier.lock.release()
            both_looked.wait(60)
            glacier.lock.acquire()
        return found

    monkeypatch.setattr(glacier, "list_jobs", list_and_meet)
    processes = [user.start("restore", "mydir") for _ in range(2)]
    output = [lines(process.communicate()[1].decode()) for process in processes]
    assert [process.returncode for process in processes] == [NOT_READY, NOT_READY]
    assert len(glacier.asked) == 1
    assert sorted(len(each) for each in output) == [1, 2], output


@pytest.mark.slow
def test_job_check_prints_the_status_and_sets_the_exit_code(
    user: CommandLine, conf: dict[str, Any], glacier: GlacierServer
) -> None:
    user.run("backup", "mydir", "--prompt", "no")
    frozen = user.run("restore", "mydir", "--job-check")
    assert (frozen.code, lines(frozen.stdout)) == (
        NOT_READY,
        ["mydir.DATE.tgz is frozen (VAULT); bakthat restore requests its thaw"],
    )
    assert glacier.asked == []
    glacier.instant = True
    user.run("restore", "mydir")
    done = user.run("restore", "mydir", "--job-check")
    assert (done.code, lines(done.stdout)) == (READY, ["mydir.DATE.tgz is thawed until DATE"])


@pytest.mark.parametrize(
    "arguments", [("--tier", "fast"), ("--days", "0"), ("--days", "soon"), ("--tier", "")]
)
def test_invalid_options_are_usage_errors(
    user: CommandLine, conf: dict[str, Any], glacier: GlacierServer, arguments: tuple[str, str]
) -> None:
    done = user.run("restore", "mydir", *arguments)
    assert done.code == USAGE
    assert arguments[1] in done.stderr
    assert glacier.requests == []


@pytest.mark.usefixtures("restored_signals")  # here the clock is the server's, in this process
def test_waiting_restores_in_one_command(
    user: CommandLine,
    conf: dict[str, Any],
    glacier: GlacierServer,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    user.run("backup", "mydir", "--prompt", "no")
    monkeypatch.setattr(
        "bakthat.session.cold.time.sleep", lambda seconds: glacier.advance(hours=seconds / 3600)
    )
    code = run.run(["restore", "mydir", "-o", str(user.directory / "out"), "--wait"])
    output = lines(capfd.readouterr().err)
    assert code == READY, output
    assert sum("is thawing (VAULT, tier standard)" in line for line in output) == 23
    assert (user.directory / "out" / "mydir" / "a.txt").read_text() == "hello"


def test_thaws_are_listed_as_a_table_and_as_json(
    user: CommandLine, conf: dict[str, Any], glacier: GlacierServer
) -> None:
    nothing = user.run("thaws")
    assert (nothing.code, nothing.stdout.split()) == (
        0,
        ["NAME", "WHERE", "CLASS", "TIER", "ASKED", "READY", "UNTIL"],
    )
    user.run("backup", "mydir", "--prompt", "no")
    user.run("restore", "mydir")
    listed = user.run("thaws")
    assert re.sub(" +", " ", lines(listed.stdout)[1]) == (
        "mydir.DATE.tgz glacier VAULT standard DATE no"
    )
    glacier.advance(hours=5)
    (thaw,) = user.run("thaws", "--json").lines("status")
    assert (thaw["state"], thaw["tier"], thaw["backend"]) == ("ready", "standard", "glacier")
    assert thaw["container"] == conf["glacier_vault"]
    assert thaw["ready_until"] > thaw["requested_at"]
    assert len(glacier.asked) == 1


@pytest.mark.slow
def test_the_inventory_commands(
    user: CommandLine, glacier: GlacierServer, moto_endpoint: S3Server, tmp_path: Path
) -> None:
    s3 = moto_endpoint.conf()
    conf = {**glacier.conf(), "endpoint_url": s3["endpoint_url"], "s3_bucket": s3["s3_bucket"]}
    use(user.home, conf)
    user.run("backup", "mydir", "--prompt", "no")
    local = user.run("show_local_glacier_inventory")
    assert lines(local.stdout)[1].startswith("mydir.DATE.tgz  ")
    backed_up = user.run("backup_glacier_inventory")
    assert (backed_up.code, backed_up.stdout) == (0, "1 archives are in the bucket's inventory\n")

    (tmp_path / "elsewhere").mkdir()
    other = CommandLine(tmp_path / "elsewhere", user.directory)
    use(other.home, conf)
    restored = other.run("restore-glacier-inventory")
    assert restored.stdout == "1 archives were added to the inventory of this machine\n"
    assert other.run("show-local-glacier-inventory").stdout == local.stdout

    asked = other.run("show_glacier_inventory")
    assert (asked.code, asked.stdout) == (NOT_READY, "")
    assert lines(asked.stderr) == [
        f"Requested the inventory of vault {conf['glacier_vault']}: it takes 3 to 5 hours",
        "When it is ready, run bakthat show_glacier_inventory again",
    ]
    waiting = other.run("show_glacier_inventory")
    assert waiting.code == NOT_READY
    glacier.advance(hours=5)
    shown = other.run("show_glacier_inventory")
    assert shown.code == READY
    assert "mydir.DATE.tgz" in lines(shown.stdout)[1]
    (archive,) = other.run("show_glacier_inventory", "--json").lines("archive")
    listed = user.run("show_local_glacier_inventory", "--json").lines("archive")
    assert listed == [{"key": archive["key"], "archive_id": archive["archive_id"]}]


@pytest.mark.parametrize("command", ["backup_glacier_inventory", "restore_glacier_inventory"])
def test_an_inventory_without_a_bucket_names_what_is_missing(
    user: CommandLine, conf: dict[str, Any], command: str
) -> None:
    done = user.run(command)
    assert done.code == 1
    assert done.stderr.splitlines()[0] == "bakthat: error: 's3_bucket' is not set"


def test_deleting_too_early_is_a_warning(user: CommandLine, conf: dict[str, Any]) -> None:
    user.run("backup", "mydir", "--prompt", "no")
    done = user.run("delete", "mydir")
    assert done.code == 0
    assert lines(done.stderr) == [
        "bakthat: warning: mydir.DATE.tgz is in a vault, which is charged for at least 90 days: "
        "deleting it now saves nothing for 90 days",
        "Deleting mydir.DATE.tgz",
        f"Deleted mydir.DATE.tgz (SIZE) from glacier {conf['glacier_vault']}",
    ]


def test_a_check_that_can_read_nothing_is_not_ready(
    user: CommandLine, conf: dict[str, Any]
) -> None:
    user.run("backup", "mydir", "--prompt", "no")
    looked_up = user.run("check")
    assert (looked_up.code, lines(looked_up.stderr)[-1]) == (
        READY,
        "Checked 1 backup: 1 good, 0 wrong",
    )
    unread = user.run("check", "--read-data")
    assert (unread.code, lines(unread.stderr)[-1]) == (
        NOT_READY,
        "Checked 1 backup: 1 good (1 in cold storage, not read), 0 wrong",
    )
