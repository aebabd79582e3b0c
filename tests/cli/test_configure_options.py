"""``bakthat configure`` unattended: an option for each answer, and secrets in files only."""

from __future__ import annotations

import os
import re
import shlex
import stat
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest
import yaml

from bakthat.cli.configure.files import NewFile, check_new, warn_when_others_can_read
from bakthat.cli.configure.options import Options
from bakthat.cli.configure.profile import configure
from bakthat.crypto import age
from bakthat.errors import ConfigError
from tests.cli.test_json import checked_lines
from tests.support.commandline import CommandLine, unmeasured
from tests.support.needs import as_root
from tests.support.profiles import write_config
from tests.support.tar_bytes import as_nobody

IDENTITY = age.generate_identity()
RECIPIENT = age.recipient_of(IDENTITY)
OTHER = age.recipient_of(age.generate_identity())
LOCAL = {"default_destination": "local"}


@pytest.fixture
def user(user: CommandLine) -> CommandLine:
    """Return a user with files of keys and passwords in the working directory."""
    files = {
        "secret": "SUPERSECRET\n",
        "password": "s3cret\n",
        "empty": "",
        "lines": "two\nlines\n",
        "key.txt": age.identity_file(IDENTITY, created=0),
        "two-keys.txt": f"{age.generate_identity()}\n{age.generate_identity()}\n",
    }
    for name, text in files.items():
        (user.directory / name).write_text(text)
        (user.directory / name).chmod(0o600)
    (user.directory / "bytes").write_bytes(b"SUPER\xffSECRET\n")
    (user.directory / "mydir").mkdir()
    (user.directory / "mydir" / "file").write_text("hello")
    return user


def profile_of(user: CommandLine, name: str = "default") -> dict[str, Any]:
    found = yaml.safe_load((user.home / ".bakthat.yml").read_text())[name]
    assert isinstance(found, dict)
    return found


def test_every_answer_has_an_option_and_nothing_is_asked(user: CommandLine) -> None:
    words = (
        "configure --access-key AK --secret-key-file secret --bucket b --vault v "
        "--default-destination glacier --region eu-west-1 --endpoint-url http://localhost:1 "
        f"--local-path store --recipient {RECIPIENT} --recipient {OTHER} --identity-file key.txt "
        "--no-proof"
    )
    code, screen = user.converse(*words.split())
    assert code == 0
    assert screen.startswith(f"\r\nprofile 'default' written to {user.home}/.bakthat.yml\r\n")
    assert "SUPERSECRET" not in screen
    assert profile_of(user) == {
        "access_key": "AK",
        "secret_key": "SUPERSECRET",
        "s3_bucket": "b",
        "glacier_vault": "v",
        "default_destination": "glacier",
        "region_name": "eu-west-1",
        "endpoint_url": "http://localhost:1",
        "local_path": str(user.directory / "store"),
        "recipients": [RECIPIENT, OTHER],
        "identity_file": str(user.directory / "key.txt"),
    }
    assert stat.S_IMODE((user.home / ".bakthat.yml").stat().st_mode) == 0o600


def test_what_has_no_option_keeps_its_value_and_a_dash_removes_one(user: CommandLine) -> None:
    before = {
        "access_key": "AK",
        "secret_key": "SK",
        "s3_bucket": "b",
        "region_name": "eu-west-1",
        "password_file": "/secret",
        "rotation": {"days": 7},
    }
    write_config(user.home / ".bakthat.yml", default=before)
    assert user.run("configure", "--bucket", "new", "--no-proof").code == 0
    assert profile_of(user) == {**before, "s3_bucket": "new"}
    words = "configure --access-key - --region - --bucket - --no-proof"
    assert user.run(*words.split()).code == 0
    assert profile_of(user) == {"password_file": "/secret", "rotation": {"days": 7}}


def test_the_secret_key_may_come_from_standard_input(user: CommandLine) -> None:
    words = "configure --access-key AK --secret-key-file - --bucket b --no-proof"
    done = user.run(*words.split(), stdin="SUPERSECRET\n")
    assert done.code == 0
    assert "SUPERSECRET" not in done.stdout + done.stderr
    assert profile_of(user)["secret_key"] == "SUPERSECRET"


@pytest.mark.parametrize(
    ("words", "destination"),
    [("--bucket b --vault v", "s3"), ("--vault v", "glacier"), ("--no-encryption", "local")],
)
def test_a_new_profile_stores_where_it_has_a_container(
    user: CommandLine, words: str, destination: str
) -> None:
    assert user.run("configure", *words.split(), "--no-proof").code == 0
    assert profile_of(user)["default_destination"] == destination


@pytest.mark.parametrize(
    ("words", "destination"),
    [
        ("--new-key new", "s3"),
        ("-c new.yml --no-encryption", "s3"),
        ("-p shop --no-encryption", "s3"),
        ("--vault v", "glacier"),
        ("--local-path store", "local"),
    ],
)
def test_a_new_profile_stores_where_the_environment_does(
    user: CommandLine, words: str, destination: str
) -> None:
    variables = {"BAKTHAT_S3_BUCKET": "b"}
    done = user.run("configure", *words.split(), "--no-proof", env=variables)
    assert done.code == 0
    file = user.directory / "new.yml" if "-c" in words else user.home / ".bakthat.yml"
    (profile,) = yaml.safe_load(file.read_text()).values()
    assert profile["default_destination"] == destination
    assert "s3_bucket" not in profile


def test_the_question_of_a_new_profile_offers_where_the_environment_stores(
    user: CommandLine,
) -> None:
    answers = "\n" * 10
    variables = {"BAKTHAT_GLACIER_VAULT": "v"}
    assert user.run("configure", "--no-proof", stdin=answers, env=variables).code == 0
    assert profile_of(user)["default_destination"] == "glacier"


def test_a_wrong_variable_is_said_before_a_new_profile_is_written(user: CommandLine) -> None:
    done = user.run("configure", "--new-key", "new", env={"BAKTHAT_S3_BUCKET": "a/b"})
    assert done.code == 1
    assert "BAKTHAT_S3_BUCKET holds a slash" in done.stderr
    assert not (user.home / ".bakthat.yml").exists()
    assert not (user.directory / "new").exists()


@pytest.mark.parametrize("recipients", [5, [[1]], {"a": 1}])
def test_a_new_key_replaces_what_is_no_public_key(user: CommandLine, recipients: Any) -> None:
    wrong = {**LOCAL, "recipients": recipients}
    write_config(user.home / ".bakthat.yml", default=wrong)
    done = user.run("configure", "--new-key", "new", "--no-proof")
    assert (done.code, "unexpected" in done.stderr) == (0, False)
    assert str(profile_of(user)["recipients"][0]).startswith("age1")


@pytest.mark.parametrize(
    ("redirection", "message"),
    [
        ("<&-", "--secret-key-file: standard input is closed"),
        ("< bytes", "--secret-key-file: the secret key is not UTF-8 text"),
    ],
)
def test_a_secret_key_that_cannot_be_read_from_standard_input_changes_nothing(
    user: CommandLine, redirection: str, message: str
) -> None:
    done = user.shell(f"configure --access-key AK --secret-key-file - {redirection}")
    assert done.code == 2
    assert message in done.stderr
    assert "SUPER" not in done.stderr
    assert not (user.home / ".bakthat.yml").exists()


WRONG: dict[str, tuple[str, int, str]] = {
    # What is typed, the exit code and the message.
    "an access key alone": ("--access-key AK", 2, "give --secret-key-file too"),
    "a secret key alone": ("--secret-key-file secret", 2, "give --access-key too"),
    "no secret key": ("--access-key AK --secret-key-file empty", 2, "the secret key is empty"),
    "a secret key of lines": (
        "--access-key AK --secret-key-file lines",
        2,
        "the secret key holds white space or a control character",
    ),
    "no file of it": (
        "--access-key AK --secret-key-file none",
        1,
        "cannot read the file with the secret key '{cwd}/none': no such file",
    ),
    "a file of it that is not text": (
        "--access-key AK --secret-key-file bytes",
        1,
        "the file with the secret key '{cwd}/bytes' is not UTF-8 text",
    ),
    "a path for a bucket": ("--bucket a/b", 2, "--bucket holds a slash"),
    "an unknown destination": ("--default-destination S3", 2, "did you mean s3?"),
    "no address": ("--endpoint-url localhost:9000", 2, "--endpoint-url must begin with https://"),
    "nobody's home": ("--local-path ~nobody-of-this-name/x", 1, "there is no such user"),
    "an empty value": ("--bucket=", 2, "is a variable of a script not set?"),
    "two encryptions": (
        "--no-encryption --password-file password",
        2,
        "--no-encryption and --password-file contradict each other",
    ),
    "a password and a key": (
        f"--password-file password --recipient {RECIPIENT}",
        2,
        "--password-file and --recipient contradict each other",
    ),
    "no recipient": ("--recipient age1x", 2, "--recipient: 'age1x' is not an age recipient"),
    "a private key as recipient": (
        f"--recipient {IDENTITY}",
        2,
        "--recipient: a secret key was given where a recipient is expected",
    ),
    "no password": ("--password-file empty", 1, "the password file '{cwd}/empty' is empty"),
    "no file of a password": ("--password-file none", 1, "no such file"),
    "a password of lines": ("--password-file lines", 1, "holds several lines"),
    "a password on standard input": ("--password-file -", 2, "needs the path of a file"),
    "a file for a new key": ("--new-key key.txt", 1, "'{cwd}/key.txt' exists, and is not over"),
    "no directory": ("--new-key none/key", 1, "there is no directory '{cwd}/none'"),
    "two identity files": (
        "--new-key new --identity-file key.txt",
        2,
        "--new-key and --identity-file contradict each other",
    ),
    "no identity file": ("--identity-file none", 1, "cannot read the identity file"),
    "a file without keys": ("--identity-file empty", 1, "the identity file holds no identity"),
    "a page of no key": ("--key-page page.html", 2, "the profile has no identity_file"),
    "a page of two keys": (
        "--key-page page.html --identity-file two-keys.txt",
        2,
        "--key-page is for one key, and {cwd}/two-keys.txt has 2",
    ),
    "a page over the key": ("--new-key new --key-page new", 1, "'{cwd}/new' exists, and is not"),
    "a page over a file": ("--new-key new --key-page secret", 1, "'{cwd}/secret' exists, and"),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_option_changes_nothing(user: CommandLine, case: str) -> None:
    words, code, message = WRONG[case]
    path = write_config(user.home / ".bakthat.yml", default=LOCAL)
    before = path.read_bytes(), sorted(os.listdir(user.directory))
    done = user.run("configure", *shlex.split(words), "--no-proof")
    assert message.format(cwd=user.directory) in done.stderr
    assert done.code == code
    assert done.stdout == ""
    assert IDENTITY not in done.stderr
    assert "SUPERSECRET" not in done.stderr
    assert (path.read_bytes(), sorted(os.listdir(user.directory))) == before


def test_others_who_can_read_a_secret_are_a_warning(user: CommandLine) -> None:
    for name in ("secret", "password", "key.txt"):
        (user.directory / name).chmod(0o644)
    secret = ["configure", "--access-key", "AK", "--secret-key-file", "secret", "--no-proof"]
    for words in (secret, ["configure", "--password-file", "password", "--no-proof"]):
        done = user.run(*words)
        assert "bakthat: warning: others can read " in done.stderr
        assert done.code == 0
    done = user.run("configure", "--identity-file", "key.txt", "--no-proof")
    assert f"(mode 0644): chmod 600 {user.directory}/key.txt" in done.stderr


# A new key


def test_a_new_key_encrypts_to_others_too_and_is_not_shown(user: CommandLine) -> None:
    words = f"configure --local-path store --new-key new.txt --recipient {OTHER} --no-proof"
    done = user.run(*words.split())
    assert done.code == 0
    key = user.directory / "new.txt"
    (identity,) = age.parse_identities(key.read_text())
    recipient = age.recipient_of(identity)
    assert done.stdout == (
        f"profile 'default' written to {user.home}/.bakthat.yml\n"
        f"private key written to {key}\n"
        f"public key: {recipient}\n"
    )
    assert "Keep a copy of the private key elsewhere" in done.stderr
    assert identity not in done.stderr
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    assert profile_of(user) == {
        **LOCAL,
        "local_path": str(user.directory / "store"),
        "recipients": [recipient, OTHER],
        "identity_file": str(key),
    }


@pytest.mark.needs("age", "age-keygen", "tar")
@pytest.mark.slow
def test_backups_open_with_the_key_in_bakthat_and_in_age(user: CommandLine) -> None:
    assert user.run("configure", "--local-path", "store", "--new-key", "new.txt").code == 0
    assert user.run("backup", "mydir").code == 0
    assert user.run("restore", "mydir", "-o", "out").code == 0
    assert (user.directory / "out" / "mydir" / "file").read_text() == "hello"
    (user.directory / "out2").mkdir()
    script = "age -d -i new.txt store/*.tgz.age | tar xz -C out2 && age-keygen -y new.txt"
    opened = subprocess.run(
        ["bash", "-eo", "pipefail", "-c", script], cwd=user.directory, capture_output=True
    )
    assert opened.stdout.decode().splitlines() == profile_of(user)["recipients"]
    assert (user.directory / "out2" / "mydir" / "file").read_text() == "hello"

    # A machine that only makes backups.
    assert user.run("configure", "--identity-file", "-", "--no-proof").code == 0
    (user.directory / "new.txt").unlink()
    assert user.run("backup", "mydir").code == 0
    refused = user.run("restore", "mydir", "-o", "out3")
    assert "no private key was given" in refused.stderr
    assert refused.code == 1


def test_a_key_stays_when_the_profile_cannot_be_written(user: CommandLine) -> None:
    path = write_config(user.home / ".bakthat.yml", default={**LOCAL, "s3_buckt": "x"})
    before = path.read_bytes()
    done = user.run("configure", "--new-key", "new.txt", "--no-proof")
    assert done.stderr == (
        f"bakthat: error: {path}:3: profile 'default': unknown key 's3_buckt'\n"
        "bakthat: hint: did you mean s3_bucket?\n"
        f"bakthat: hint: '{user.directory}/new.txt' was made and stays, but no profile names it\n"
    )
    assert (done.code, done.stdout) == (1, "")
    assert path.read_bytes() == before
    assert age.parse_identities((user.directory / "new.txt").read_text())


def limited(user: CommandLine, kilobytes: int, *words: str) -> subprocess.CompletedProcess[str]:
    """Run bakthat where no file can be larger than that, as on a disk that is full."""
    command = shlex.join([sys.executable, "-B", "-m", "bakthat", *words])
    return subprocess.run(
        ["bash", "-c", f"ulimit -f {kilobytes}; {command} | cat"],
        cwd=user.directory,
        env={**unmeasured(), **user.environment},
        capture_output=True,
        text=True,
    )


LARGE = "bakthat: hint: the file system, or ulimit -f, does not allow files of that size\n"


def test_a_key_that_cannot_be_written_leaves_nothing(user: CommandLine) -> None:
    before = sorted(os.listdir(user.directory))
    done = limited(user, 0, "configure", "--new-key", "new.txt", "--no-proof")
    assert done.stderr == (
        f"bakthat: error: cannot write '{user.directory}/new.txt': file too large\n{LARGE}"
    )
    assert sorted(os.listdir(user.directory)) == before
    assert os.listdir(user.home) == []


def test_a_page_that_cannot_be_written_leaves_a_profile_that_works(user: CommandLine) -> None:
    words = ["configure", "--new-key", "new.txt", "--key-page", "page.html", "--no-proof"]
    done = limited(user, 1, *words)
    assert done.stderr == (
        f"bakthat: error: cannot write '{user.directory}/page.html': file too large\n"
        f"{LARGE}"
        f"bakthat: hint: the profile was written; the private key is in {user.directory}/new.txt\n"
    )
    assert not (user.directory / "page.html").exists()
    assert profile_of(user)["identity_file"] == str(user.directory / "new.txt")
    assert user.run("configure", "--key-page", "page.html", "--no-proof").code == 0
    assert "private key" in (user.directory / "page.html").read_text()


@pytest.mark.parametrize("output", ["| true", "> /dev/full"])
def test_an_output_that_nobody_reads_costs_nothing(user: CommandLine, output: str) -> None:
    words = "configure --local-path store --new-key new.txt --key-page page.html"
    done = subprocess.run(
        ["bash", "-o", "pipefail", "-c", f"{sys.executable} -m bakthat {words} {output}"],
        cwd=user.directory,
        env={**unmeasured(), **user.environment},
        capture_output=True,
        text=True,
    )
    assert "Wrote profile 'default', which can store backups" in done.stderr
    assert done.returncode == 1
    assert (user.directory / "page.html").exists()
    assert (user.directory / "store").is_dir()
    assert profile_of(user)["identity_file"] == str(user.directory / "new.txt")


def test_what_json_says_of_a_new_key(user: CommandLine) -> None:
    words = "configure --new-key new.txt --key-page page.html --local-path store --json"
    done = user.run(*words.split())
    lines = checked_lines(done, "configure")
    assert {line["message_type"] for line in lines[:-1]} == {"check"}
    (identity,) = age.parse_identities((user.directory / "new.txt").read_text())
    summary = lines[-1]
    assert (summary["message_type"], summary["command"]) == ("summary", "configure")
    assert summary["file"] == str(user.home / ".bakthat.yml")
    assert summary["recipient"] == age.recipient_of(identity)
    assert summary["identity_file"] == str(user.directory / "new.txt")
    assert summary["key_page"] == str(user.directory / "page.html")
    assert identity not in done.stdout + done.stderr


def test_quiet_says_only_what_was_written(user: CommandLine) -> None:
    done = user.run("configure", "--new-key", "new.txt", "--local-path", "store", "--quiet")
    assert done.stderr == ""
    assert re.match("profile 'default' written to .*\nprivate key written to ", done.stdout)
    former = user.run("configure", "--no-encryption", "--identity-file", "-", "--quiet")
    assert "bakthat: warning: earlier backups open with the keys in " in former.stderr


@pytest.mark.parametrize(
    ("before", "words", "warning"),
    [
        ({}, "--recipient OURS", ""),
        ({"recipients": ["OTHERS"]}, "--recipient OTHERS --identity-file key.txt", ""),
        ({"recipients": "OURS"}, "--recipient OTHERS --recipient OURS", ""),
        ({"recipients": ["OTHERS"]}, "--recipient OURS", "the former private keys only"),
        ({"recipients": ["OTHERS"]}, "--new-key new.txt", "the former private keys only"),
        ({"recipients": ["OTHERS"]}, "--no-encryption", "the former private keys only"),
        ({"identity_file": "/old"}, "--new-key new.txt", "the keys in /old"),
        ({"identity_file": "/old"}, "--identity-file key.txt", "the keys in /old"),
        ({"identity_file": "/old"}, "--identity-file -", ""),
        (
            {"identity_file": "/old", "recipients": ["OTHERS"]},
            "--identity-file - --recipient OURS",
            "the keys in /old",
        ),
        ({"identity_file": "/old", "recipients": ["OTHERS"]}, "--no-encryption", ""),
        ({"password": "x"}, "--recipient OURS", ""),
        ({"password": ""}, "--password-file password", ""),
        ({"password": "x"}, "--password-file password", "the former password only"),
        ({"password_command": "x"}, "--no-encryption", "the former password only"),
    ],
)
def test_a_warning_says_what_opens_earlier_backups_where_the_profile_does_not(
    user: CommandLine, before: dict[str, Any], words: str, warning: str
) -> None:
    def here(text: str) -> str:
        return text.replace("OURS", RECIPIENT).replace("OTHERS", OTHER)

    path = write_config(user.home / ".bakthat.yml", default={**LOCAL, **before})
    path.write_text(here(path.read_text()))
    done = user.run("configure", *here(words).split(), "--no-proof")
    assert done.code == 0
    assert done.stderr.count("earlier backups open with ") == bool(warning)
    assert warning in done.stderr


def test_a_relative_path_in_the_profile_is_that_of_its_file(user: CommandLine) -> None:
    (user.directory / "etc").mkdir()
    for name in ("key.txt", "password"):
        (user.directory / name).rename(user.directory / "etc" / name)
    conf = {**LOCAL, "password_file": "password", "identity_file": "key.txt", "local_path": "store"}
    write_config(user.directory / "etc" / "shop.yml", default=conf)
    done = user.run("configure", "-c", "etc/shop.yml", "--key-page", "page.html", "--no-proof")
    assert done.code == 0, done.stderr
    assert RECIPIENT in (user.directory / "page.html").read_text()
    stdin = "\n" * 8 + "3\n\n"
    asked = user.run("configure", "-c", "etc/shop.yml", "--no-proof", stdin=stdin)
    assert "File with the password (password): " in asked.stderr
    assert "earlier backups" not in asked.stderr
    written = yaml.safe_load((user.directory / "etc" / "shop.yml").read_text())["default"]
    assert written == {**conf, "region_name": "us-east-1"}
    (user.directory / "etc" / "password").unlink()
    made = user.run("configure", "-c", "etc/shop.yml", "--no-proof", stdin=f"{stdin}new\nnew\n")
    assert made.code == 0, made.stderr
    assert (user.directory / "etc" / "password").read_text() == "new\n"


# The rotation


def test_a_profile_of_another_file_is_changed_there(user: CommandLine) -> None:
    directory = user.home / ".bakthat.d"
    directory.mkdir()
    key = directory / "key.txt"
    key.write_text((user.directory / "key.txt").read_text())
    key.chmod(0o600)
    path = write_config(
        directory / "storage.yml", default={**LOCAL, "identity_file": "key.txt", "password": ""}
    )
    done = user.run("configure", "--recipient", RECIPIENT, "--key-page", "page.html", "--no-proof")
    assert done.code == 0, done.stderr
    assert f"profile 'default' written to {path}\n" in done.stdout
    assert yaml.safe_load(path.read_text())["default"]["recipients"] == [RECIPIENT]
    assert "AGE-SECRET-KEY-1" in (user.directory / "page.html").read_text()
    assert not (user.home / ".bakthat.yml").exists()


def test_a_rotation_has_options_too(user: CommandLine) -> None:
    rotation = {"last": 3, "days": 7, "weeks": 4}
    write_config(user.home / ".bakthat.yml", default={**LOCAL, "rotation": rotation})
    words = "configure_backups_rotation --days 14 --weeks - --first-week-day Monday"
    code, screen = user.converse(*words.split())
    assert code == 0
    assert screen == f"rotation of profile 'default' written to {user.home}/.bakthat.yml\r\n"
    assert profile_of(user)["rotation"] == {"last": 3, "days": 14, "first_week_day": 0}


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        ("--days x", 2, "--days: 'x' is not a whole number from 0 on"),
        ("--first-week-day someday", 2, "--first-week-day: 'someday' is not a day of the week"),
        ("--days -", 1, "a rotation that keeps nothing is refused"),
    ],
)
def test_a_wrong_option_of_the_rotation_changes_nothing(
    user: CommandLine, words: str, code: int, message: str
) -> None:
    path = write_config(user.home / ".bakthat.yml", default={**LOCAL, "rotation": {"days": 7}})
    before = path.read_bytes()
    done = user.run("configure_backups_rotation", *words.split())
    assert message in done.stderr
    assert done.code == code
    assert path.read_bytes() == before


def test_only_the_secret_of_a_pair_that_is_known_can_be_replaced(user: CommandLine) -> None:
    before = {"access_key": "AK", "secret_key": "SK", "s3_bucket": "b"}
    write_config(user.home / ".bakthat.yml", default=before)
    done = user.run("configure", "--secret-key-file", "secret", "--no-proof")
    assert done.code == 0
    assert profile_of(user) == {**before, "secret_key": "SUPERSECRET"}


@pytest.mark.parametrize("way", ["file", "command"])
def test_a_secret_key_from_elsewhere_is_kept_and_replaced_and_removed(
    user: CommandLine, way: str
) -> None:
    before = {"access_key": "AK", f"secret_key_{way}": "/secret", "s3_bucket": "b"}
    write_config(user.home / ".bakthat.yml", default=before)
    assert user.run("configure", "--bucket", "new", "--no-proof").code == 0
    assert profile_of(user) == {**before, "s3_bucket": "new"}
    assert user.run("configure", "--secret-key-file", "secret", "--no-proof").code == 0
    assert profile_of(user) == {"access_key": "AK", "secret_key": "SUPERSECRET", "s3_bucket": "new"}
    write_config(user.home / ".bakthat.yml", default=before)
    assert user.run("configure", "--access-key", "-", "--no-proof").code == 0
    assert profile_of(user) == {"s3_bucket": "b"}


def test_the_files_of_a_page_and_a_key_may_have_any_name(user: CommandLine) -> None:
    (user.directory / "a b").mkdir()
    done = user.run(
        "configure", "--new-key", "a b/ké'y", "--key-page", "a b/\N{SNOWMAN}", "--no-proof"
    )
    assert done.code == 0
    assert profile_of(user)["identity_file"] == str(Path(user.directory, "a b/ké'y"))
    assert (user.directory / "a b" / "\N{SNOWMAN}").exists()


def test_a_variable_that_wins_over_the_answers_is_named(user: CommandLine) -> None:
    other = user.directory / "other"
    done = user.run(
        "configure",
        "--local-path",
        user.directory / "mine",
        "--no-encryption",
        env={"BAKTHAT_LOCAL_PATH": str(other)},
    )
    assert (
        "bakthat: warning: variables of the environment win over the profile: BAKTHAT_LOCAL_PATH"
    ) in done.stderr
    assert done.code == 0


def test_no_other_mode_is_advised_for_a_device(user: CommandLine) -> None:
    done = user.run("configure", "--secret-key-file", "/dev/null", "--no-proof")
    assert "chmod" not in done.stderr


def test_a_file_whose_directory_is_gone_is_an_error(tmp_path: Path) -> None:
    new = NewFile(tmp_path / "gone/key.txt", "secret")
    with pytest.raises(ConfigError, match=r"cannot write '.*/gone/key\.txt': no such file"):
        new.write()


def test_a_file_that_cannot_be_looked_at_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"cannot read '.*/gone': no such file") as caught:
        warn_when_others_can_read(tmp_path / "gone")
    assert caught.value.hint


@as_root
def test_a_directory_that_may_not_be_written_is_named_before_any_question() -> None:
    with tempfile.TemporaryDirectory() as directory:
        os.chmod(directory, 0o755)
        with pytest.raises(ConfigError, match=f"'{directory}' cannot be written to") as caught:
            as_nobody(lambda: check_new(f"{directory}/key.txt"))
        assert caught.value.hint == "name another directory"
        with pytest.raises(ConfigError, match=f"'{directory}' cannot be written to") as caught:
            as_nobody(lambda: configure("default", f"{directory}/bakthat.yml", Options()))
        assert "--config" in caught.value.hint
