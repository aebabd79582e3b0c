"""``bakthat configure`` ends with the proof that backups can be stored, or says what is missing."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.cli.test_json import checked_lines
from tests.support.commandline import CommandLine, untimed
from tests.support.profiles import Conf
from tests.support.servers import free_port, plain


def options_of(user: CommandLine, conf: Conf) -> list[str]:
    secret = user.directory / "secret"
    secret.write_text(conf["secret_key"])
    secret.chmod(0o600)
    words = ["--access-key", conf["access_key"], "--secret-key-file", str(secret)]
    words += ["--endpoint-url", conf["endpoint_url"], "--bucket", conf["s3_bucket"]]
    return [*words, "--no-encryption"]


def profile_of(user: CommandLine) -> dict[str, Any]:
    found = yaml.safe_load((user.home / ".bakthat.yml").read_text())["default"]
    assert isinstance(found, dict)
    return found


def test_the_bucket_is_made_and_what_was_proved_is_printed(
    user: CommandLine, s3_conf: Conf
) -> None:
    done = user.run("configure", *options_of(user, s3_conf))
    assert done.code == 0
    lines = done.stdout.splitlines()
    assert lines[0] == f"profile 'default' written to {user.home}/.bakthat.yml"
    assert lines[1] == "good"
    found = dict(re.findall(r"^  (\w[\w ]*?) {2,}(.+)$", done.stdout, re.MULTILINE))
    shown = f"bucket '{s3_conf['s3_bucket']}' at {s3_conf['endpoint_url']}"
    assert found["container"] == f"{shown} was made"
    assert found.keys() >= {"writing", "reading", "deleting"}
    assert "problem" not in lines
    assert untimed(done.stderr).splitlines() == [
        "Trying to write, read and delete on s3...",
        "Wrote profile 'default', which can store backups",
        "Next: bakthat backup DIRECTORY",
    ]
    assert "Contents" not in plain(s3_conf).list_objects_v2(Bucket=s3_conf["s3_bucket"])

    again = user.run("configure", "--region", "us-east-1")
    assert again.code == 0
    assert " was made" not in again.stdout


def test_a_wrong_secret_key_is_named_and_the_profile_stays(
    user: CommandLine, rclone_conf: Conf
) -> None:
    done = user.run("configure", *options_of(user, {**rclone_conf, "secret_key": "wrong-key"}))
    assert done.code == 1
    title, problem, hint = done.stdout.splitlines()[-3:]
    assert title == "problem"
    assert problem.startswith("  credentials  bucket '")
    assert hint.strip() == "hint: the secret key does not fit the access key: check secret_key"
    assert (
        "bakthat: error: the profile was written, but it cannot store backups yet\n"
        "bakthat: hint: mend what was found, then try again: bakthat doctor\n"
        "Wrote profile 'default', "
    ) in done.stderr
    assert "Next:" not in done.stderr
    assert "wrong-key" not in done.stdout + done.stderr
    assert profile_of(user)["secret_key"] == "wrong-key"


PROBLEMS: dict[str, tuple[list[str], str]] = {
    "no bucket": (["--default-destination", "s3", "--no-encryption"], "s3_bucket"),
    "no vault": (["--default-destination", "glacier", "--no-encryption"], "glacier_vault"),
    "no server": (
        ["--bucket", "b", "--no-encryption", "--endpoint-url", f"http://127.0.0.1:{free_port()}"],
        "127.0.0.1",
    ),
    "a file in the way": (["--local-path", "secret/store"], "secret"),
}


@pytest.mark.parametrize("case", PROBLEMS)
def test_what_is_missing_is_said(user: CommandLine, case: str) -> None:
    (user.directory / "secret").write_text("x")
    words, named = PROBLEMS[case]
    environment = {"AWS_ACCESS_KEY_ID": "AK", "AWS_SECRET_ACCESS_KEY": "SK"}
    done = user.run("configure", *words, "-c", "shop.yml", "-p", "shop", env=environment)
    assert done.code == 1
    assert named in done.stdout.partition("\nproblem\n")[2]
    assert "try again: bakthat doctor -p shop -c shop.yml\n" in done.stderr
    assert (user.directory / "shop.yml").exists()


def test_without_the_proof_nothing_is_asked_of_the_storage(user: CommandLine) -> None:
    words = ["--bucket", "b", "--no-encryption", "--endpoint-url", "http://127.0.0.1:1"]
    done = user.run("configure", *words, "--no-proof")
    assert untimed(done.stderr) == "Wrote profile 'default'\nNext: bakthat backup DIRECTORY\n"
    assert done.code == 0


def test_a_local_directory_is_proved_too(user: CommandLine) -> None:
    done = user.run("configure", "--local-path", "store", "--no-encryption")
    assert done.code == 0
    assert "\ngood\n  container  directory " in done.stdout
    assert "\n  writing    a file was written" in done.stdout
    assert os.listdir(user.directory / "store") == []


def test_the_proof_in_json(user: CommandLine, rclone_conf: Conf) -> None:
    good = user.run("configure", *options_of(user, rclone_conf), "--json")
    lines = checked_lines(good, "configure")
    assert {line["verdict"] for line in lines[:-1]} == {"good", "advice"}
    assert lines[-1]["file"] == str(user.home / ".bakthat.yml")

    wrong = options_of(user, {**rclone_conf, "secret_key": "wrong-key"})
    bad = user.run("configure", *wrong, "--json")
    lines = checked_lines(bad, "configure")
    kinds = [line["message_type"] for line in lines]
    assert kinds[0] == "error"
    assert set(kinds[1:-1]) == {"check"}
    assert lines[-2]["verdict"] == "problem"
    assert kinds[-1] == "summary"
    assert bad.code == 1


def test_a_person_without_an_account_can_store_and_restore_at_once(user: CommandLine) -> None:
    enter = ["AWS Access Key: ", "AWS Secret Key: ", "S3 Bucket Name: ", "Glacier Vault Name: "]
    enter += ["Default destination (local): ", "Region Name", "Endpoint URL", "Local Path"]
    enter += ["Encryption (1): "]
    code, screen = user.converse("configure", answers=[(each, "\n") for each in enter])
    assert code == 0
    assert "Wrote profile 'default', which can store backups" in screen
    (user.directory / "mydir").mkdir()
    (user.directory / "mydir" / "file").write_text("hello")
    assert user.run("backup", "mydir", "--prompt", "no").code == 0
    assert user.run("restore", "mydir", "-o", "out").code == 0


def test_a_relative_local_path_is_that_of_the_working_directory(user: CommandLine) -> None:
    elsewhere = user.directory / "elsewhere"
    elsewhere.mkdir()
    config = Path("elsewhere", "shop.yml")
    words = ["--local-path", "store", "--no-encryption"]
    assert user.run("configure", *words, "-c", config).code == 0
    assert (user.directory / "store").is_dir()
