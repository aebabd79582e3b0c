"""``bakthat configure`` at a terminal: its questions, and what it leaves when it is stopped."""

from __future__ import annotations

import os
import re
import stat
from pathlib import Path
from typing import Any

import pytest
import yaml

from bakthat.crypto import age
from tests.support.commandline import INTERRUPT, CommandLine
from tests.support.profiles import write_config

END = "\x04"
"""What a terminal sends when somebody presses Ctrl-D: the input ends."""
QUESTIONS = [
    "AWS Access Key: ",
    "AWS Secret Key: ",
    "S3 Bucket Name: ",
    "Glacier Vault Name: ",
    "Default destination (s3): ",
    "Region Name (us-east-1): ",
]
"""Those of 0.6.0."""
IDENTITY = "File for the private key (~/.bakthat_identity.txt): "
PAGE = "File for an HTML page of the private key, to print (blank for none): "
PASSWORD_FILE = "File with the password (~/.bakthat_password.txt): "
Answers = list[tuple[str, str]]
LOCAL: Answers = [
    ("AWS Access Key: ", "\n"),
    ("AWS Secret Key: ", "\n"),
    ("S3 Bucket Name: ", "\n"),
    ("Glacier Vault Name: ", "\n"),
    ("Default destination (local): ", "\n"),
    ("Region Name (us-east-1): ", "\n"),
    ("Endpoint URL, of S3-compatible storage only: ", "\n"),
    ("Local Path (~/.bakthat_store): ", "\n"),
]
"""What somebody answers who has no account: Enter."""
WITHOUT_ENCRYPTION = {
    "default_destination": "local",
    "region_name": "us-east-1",
    "local_path": "~/.bakthat_store",
}


def choose(number: int, *more: tuple[str, str]) -> Answers:
    return [*LOCAL, ("Encryption (1): ", f"{number}\n"), *more]


def profile_of(user: CommandLine, name: str = "default") -> dict[str, Any]:
    found = yaml.safe_load((user.home / ".bakthat.yml").read_text())[name]
    assert isinstance(found, dict)
    return found


def private_key_in(path: Path) -> str:
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    (identity,) = age.parse_identities(path.read_text())
    return identity


def test_the_questions_of_060_come_first(user: CommandLine) -> None:
    given = ["AK", "SUPERSECRET", "bucket", "vault", "", "eu-west-1"]
    answers = [(question, f"{answer}\n") for question, answer in zip(QUESTIONS, given, strict=True)]
    answers += [("Endpoint URL", "\n"), ("Local Path (~/.bakthat_store): ", "\n")]
    answers += [("Encryption (1): ", "\n")]
    code, screen = user.converse("configure", "--no-proof", answers=answers)
    assert code == 0
    assert screen.startswith(
        f"This sets up the profile 'default' in {user.home}/.bakthat.yml.\r\n"
        "Enter keeps what is in parentheses, - removes it. Nothing is written before\r\n"
        "the last answer: Ctrl-C leaves everything as it is.\r\n"
    )
    assert f"profile 'default' written to {user.home}/.bakthat.yml" in screen
    assert screen.endswith("Next: bakthat backup DIRECTORY\r\n")
    assert "SUPERSECRET" not in screen
    assert profile_of(user) == {
        "access_key": "AK",
        "secret_key": "SUPERSECRET",
        "s3_bucket": "bucket",
        "glacier_vault": "vault",
        "default_destination": "s3",
        "region_name": "eu-west-1",
        "local_path": "~/.bakthat_store",
    }
    assert stat.S_IMODE((user.home / ".bakthat.yml").stat().st_mode) == 0o600


def test_the_present_values_are_offered_and_the_rest_is_kept(user: CommandLine) -> None:
    work = {"access_key": "AK", "secret_key": "SK", "s3_bucket": "old", "prefix": "p/"}
    write_config(user.home / ".bakthat.yml", default={"s3_bucket": "other"}, work=work)
    done = user.run("configure", "-p", "work", "--no-proof", stdin="\n\nnew\n\n\n\n\n\n\n")
    assert done.code == 0
    assert "AWS Access Key (AK): " in done.stderr
    assert "AWS Secret Key (unchanged): " in done.stderr
    assert "SK" not in done.stderr
    assert "S3 Bucket Name (old): " in done.stderr
    assert "Next: bakthat backup DIRECTORY -p work\n" in done.stderr
    assert profile_of(user) == {"s3_bucket": "other"}
    assert profile_of(user, "work") == {
        **work,
        "s3_bucket": "new",
        "default_destination": "s3",
        "region_name": "us-east-1",
        "local_path": "~/.bakthat_store",
    }


@pytest.mark.parametrize(
    ("containers", "offered"),
    [(("bucket", "vault"), "s3"), (("", "vault"), "glacier"), (("", ""), "local")],
)
def test_a_new_profile_is_offered_a_destination_that_it_has(
    user: CommandLine, containers: tuple[str, str], offered: str
) -> None:
    bucket, vault = containers
    done = user.run("configure", "--no-proof", stdin=f"\n\n{bucket}\n{vault}\n\n\n\n\n\n")
    assert f"Default destination ({offered}): " in done.stderr
    assert profile_of(user)["default_destination"] == offered


def test_a_dash_removes_a_value_and_the_secret_key_with_its_access_key(user: CommandLine) -> None:
    conf = {"access_key": "AK", "secret_key": "SK", "s3_bucket": "b", "endpoint_url": "http://a:1"}
    write_config(user.home / ".bakthat.yml", default=conf)
    done = user.run("configure", "--no-proof", stdin="-\n\n\n\n\n\n-\n\n\n")
    assert done.code == 0
    assert profile_of(user) == {**WITHOUT_ENCRYPTION, "default_destination": "s3", "s3_bucket": "b"}


@pytest.mark.parametrize("way", ["file", "command"])
def test_a_secret_key_from_elsewhere_is_kept_replaced_and_removed_by_an_answer(
    user: CommandLine, way: str
) -> None:
    conf = {"access_key": "AK", f"secret_key_{way}": "/secret", "s3_bucket": "b"}
    rest = {
        "default_destination": "s3",
        "region_name": "us-east-1",
        "local_path": "~/.bakthat_store",
    }
    for answers, wanted in (
        ("\n\n", {"access_key": "AK", f"secret_key_{way}": "/secret"}),
        ("\nNEW\n", {"access_key": "AK", "secret_key": "NEW"}),
        ("-\n\n", {}),
    ):
        write_config(user.home / ".bakthat.yml", default=conf)
        done = user.run("configure", "--no-proof", stdin=f"{answers}\n\n\n\n\n\n\n")
        assert done.code == 0, done.stderr
        assert "AWS Secret Key (unchanged): " in done.stderr
        found = {key: value for key, value in profile_of(user).items() if key not in rest}
        assert found == {**wanted, "s3_bucket": "b"}


# Wrong answers
# Wrong answers


def test_a_wrong_answer_is_asked_for_again_with_what_is_wrong(user: CommandLine) -> None:
    (user.home / "empty").touch()
    answers = [
        ("AWS Access Key: ", "A K\n"),
        ("it holds white space or a control character\r\nhint: remove it\r\nAWS Acc", "AK\n"),
        ("AWS Secret Key: ", "\n"),
        ("the access key needs its secret key\r\nAWS Secret Key: ", "SK\n"),
        ("S3 Bucket Name: ", "bucket/path\n"),
        ("it holds a slash\r\nhint: write only the name", "bucket\n"),
        ("Glacier Vault Name: ", "\n"),
        ("Default destination (s3): ", "tape\n"),
        ("it must be one of s3, glacier, local", "local\n"),
        ("Region Name (us-east-1): ", "\n"),
        ("Endpoint URL, of S3-compatible storage only: ", "localhost:9000\n"),
        ("hint: write https://localhost:9000, or http://localhost:9000", "-\n"),
        ("Local Path (~/.bakthat_store): ", "~nobody-of-this-name/x\n"),
        ("there is no such user", "\n"),
        ("Encryption (1): ", "9\n"),
        ("it must be a number from 1 to 5\r\nEncryption (1): ", "3\n"),
        (PASSWORD_FILE, "-\n"),
        ("a file is needed", "~/empty\n"),
        ("empty' is empty", "~/none/file\n"),
        (f"there is no directory '{user.home}/none'\r\nhint: mkdir -p ", "~/new\n"),
        ("~/new is new, and gets the password that you type now.\r\nPassword: ", "\n"),
        ("the password is empty\r\nPassword: ", "one\n"),
        ("Password confirmation: ", "other\n"),
        ("the password and its confirmation differ\r\nPassword: ", "one\n"),
        ("Password confirmation: ", "one\n"),
    ]
    code, screen = user.converse("configure", "--no-proof", answers=answers)
    assert code == 0, screen
    assert profile_of(user) == {
        "access_key": "AK",
        "secret_key": "SK",
        "s3_bucket": "bucket",
        **WITHOUT_ENCRYPTION,
        "password_file": "~/new",
    }
    assert (user.home / "new").read_text() == "one\n"
    assert stat.S_IMODE((user.home / "new").stat().st_mode) == 0o600


def test_a_secret_key_without_an_access_key_is_not_asked_for_again_for_ever(
    user: CommandLine,
) -> None:
    answers = [
        ("AWS Access Key: ", "\n"),
        ("AWS Secret Key: ", "SK\n"),
        (
            "there is no access key that it belongs to\r\nhint: press Enter\r\nAWS Secret Key: ",
            "\n",
        ),
        *choose(1)[2:],
    ]
    code, screen = user.converse("configure", "--no-proof", answers=answers)
    assert code == 0, screen
    assert profile_of(user) == WITHOUT_ENCRYPTION


def test_a_wrong_destination_is_asked_for_again_without_a_terminal_too(user: CommandLine) -> None:
    done = user.run("configure", "--no-proof", stdin="\n\n\n\ntape\nlocal\n\n\n\n\n")
    assert done.code == 0
    assert profile_of(user)["default_destination"] == "local"


@pytest.mark.parametrize(
    ("stdin", "code", "message"),
    [
        ("A K\n", 2, "bakthat: error: it holds white space"),
        ("AK\n\n", 2, "bakthat: error: the access key needs its secret key"),
        ("AK\nSK\n", 1, "the input ended before the last answer; nothing was changed"),
        ("\n\n\n\n\n\n\n\n6\n", 2, "bakthat: error: it must be a number from 1 to 5"),
        ("\n\n\n\n\n\n\n\n3\nfile\n", 1, "the input ended before the last answer"),
        ("\n\n\n\n\n\n\n\n3\nfile\na\nb\n", 1, "the password and its confirmation differ"),
        ("\n\n\n\n\n\n\n\n4\nno/file\n", 1, "there is no directory"),
        ("\n\n\n\n\n\n\n\n4\nfile\n", 1, "the input ended before the last answer"),
        ("\n\n\n\n\n\n\n\n5\nage1x\n", 1, "'age1x' is not an age recipient"),
        ("\n\n\n\n\n\n\n\n5\n\n", 2, "a public key is needed"),
    ],
)
def test_a_wrong_answer_without_a_terminal_changes_nothing(
    user: CommandLine, stdin: str, code: int, message: str
) -> None:
    path = write_config(user.home / ".bakthat.yml", default={"default_destination": "local"})
    before = path.read_bytes()
    done = user.run("configure", stdin=stdin)
    assert message in done.stderr
    assert done.code == code
    assert path.read_bytes() == before
    assert (os.listdir(user.home), os.listdir(user.directory)) == ([path.name], [])


STOPPED = {
    "a setting": choose(1)[:3],
    "the secret key": choose(1)[:2],
    "the menu": choose(1),
    "the password file": choose(3, (PASSWORD_FILE, "\n")),
    "the password": choose(3, (PASSWORD_FILE, "\n"), ("Password: ", "x\n")),
    "the confirmation": choose(
        3, (PASSWORD_FILE, "\n"), ("Password: ", "x\n"), ("Password confirmation: ", "x\n")
    ),
    "the private key": choose(4, (IDENTITY, "\n")),
    "the page": choose(4, (IDENTITY, "\n"), (PAGE, "\n")),
    "the public keys": choose(5, ("Public keys, separated by spaces: ", "\n")),
}


@pytest.mark.parametrize("keys", [INTERRUPT, END])
@pytest.mark.parametrize("question", STOPPED)
def test_stopping_before_the_last_answer_changes_nothing(
    user: CommandLine, question: str, keys: str
) -> None:
    path = write_config(user.home / ".bakthat.yml", default={"default_destination": "local"})
    before = path.read_bytes()
    answers = list(STOPPED[question])
    answers[-1] = (answers[-1][0], keys)
    code, screen = user.converse("configure", answers=answers)
    message = "interrupted" if keys == INTERRUPT else "the input ended before the last answer"
    assert f"bakthat: error: {message}" in screen
    assert code == (130 if keys == INTERRUPT else 1)
    assert path.read_bytes() == before
    assert os.listdir(user.home) == [path.name]


def test_a_directory_that_cannot_have_the_file_is_named_before_any_question(
    user: CommandLine,
) -> None:
    code, screen = user.converse("configure", "-c", "no/such.yml")
    assert f"there is no directory '{user.directory}/no'\r\n" in screen
    assert "AWS Access Key" not in screen
    assert code == 1


# Encryption


def test_keeping_the_encryption_is_the_default(user: CommandLine) -> None:
    conf = {**WITHOUT_ENCRYPTION, "password_file": "secret", "identity_file": "/keys"}
    write_config(user.home / ".bakthat.yml", default=conf)
    code, screen = user.converse("configure", "--no-proof", answers=choose(1))
    assert "Encryption of new backups. Now: with the password in secret.\r\n" in screen
    assert code == 0
    assert profile_of(user) == conf


def test_none_says_that_unencrypted_is_meant(user: CommandLine) -> None:
    recipient = age.recipient_of(age.generate_identity())
    conf = {**WITHOUT_ENCRYPTION, "recipients": [recipient], "password_file": "/secret"}
    write_config(user.home / ".bakthat.yml", default=conf)
    code, screen = user.converse("configure", "--no-proof", answers=choose(2))
    assert "Now: with 1 public key.\r\n" in screen
    assert (
        "bakthat: warning: earlier backups open with the former password only: do not lose it\r\n"
        in screen
    )
    assert "earlier backups open with the former private keys only" in screen
    assert code == 0
    assert profile_of(user) == {**WITHOUT_ENCRYPTION, "password": ""}
    (user.directory / "mydir").mkdir()
    stored = user.run("backup", "mydir")  # without a terminal, and with nothing that asks
    assert re.search(r"Stored as mydir\.\d{14}\.tgz ", stored.stderr), stored.stderr


def test_a_password_file_that_is_there_is_used_as_it_is(user: CommandLine) -> None:
    password = user.directory / "my password"
    password.write_text("s3cret\n")
    password.chmod(0o640)
    answers = choose(3, (PASSWORD_FILE, "my password\n"))
    code, screen = user.converse("configure", "--no-proof", answers=answers)
    assert code == 0
    assert f"others can read {password} (mode 0640): chmod 600 {password}" in screen
    assert profile_of(user) == {**WITHOUT_ENCRYPTION, "password_file": str(password)}
    assert password.read_text() == "s3cret\n"


@pytest.mark.slow
def test_a_new_password_encrypts_and_opens_what_is_backed_up(user: CommandLine) -> None:
    typed = [
        (PASSWORD_FILE, "\n"),
        ("Password: ", "pass wörd\n"),
        ("confirmation: ", "pass wörd\n"),
    ]
    code, screen = user.converse("configure", "--no-proof", answers=choose(3, *typed))
    assert code == 0
    assert "wörd" not in screen
    (user.directory / "mydir").mkdir()
    stored = user.run("backup", "mydir")
    assert ".tgz.age" in stored.stderr
    assert user.run("restore", "mydir", "-o", "out").code == 0
    restored = user.run(
        "restore", "mydir", "-o", "out2", "--identity-file", "none", env={"BAKTHAT_PASSWORD": "x"}
    )
    assert restored.code == 1


def test_a_new_key_is_shown_once_and_restores(user: CommandLine) -> None:
    answers = choose(4, (IDENTITY, "\n"), (PAGE, "page.html\n"))
    code, screen = user.converse("configure", "--no-proof", answers=answers)
    assert code == 0
    identity = private_key_in(user.home / ".bakthat_identity.txt")
    assert screen.count(identity) == 1
    assert "Keep a copy of the private key elsewhere: without it nobody can restore" in screen
    assert f"Print this page, then delete the file:\r\n    {user.directory}/page.html\r\n" in screen
    page = user.directory / "page.html"
    assert stat.S_IMODE(page.stat().st_mode) == 0o600
    recipient = age.recipient_of(identity)
    assert profile_of(user) == {
        **WITHOUT_ENCRYPTION,
        "recipients": [recipient],
        "identity_file": "~/.bakthat_identity.txt",
    }
    (user.directory / "mydir").mkdir()
    (user.directory / "mydir" / "file").write_text("hello")
    assert ".tgz.age" in user.run("backup", "mydir").stderr
    assert user.run("restore", "mydir", "-o", "out").code == 0
    assert (user.directory / "out" / "mydir" / "file").read_text() == "hello"


def test_a_second_key_gets_a_file_of_its_own_and_the_first_one_is_named(user: CommandLine) -> None:
    user.converse("configure", "--no-proof", answers=choose(4, (IDENTITY, "\n"), (PAGE, "\n")))
    first = (user.home / ".bakthat_identity.txt").read_bytes()
    second = "File for the private key (~/.bakthat_identity_2.txt): "
    answers = choose(4, (second, "~/.bakthat_identity.txt\n"), ("is not overwritten", "\n"))
    code, screen = user.converse("configure", "--no-proof", answers=[*answers, (PAGE, "\n")])
    assert code == 0
    assert "warning: earlier backups open with the keys in ~/.bakthat_identity.txt (" in screen
    assert (user.home / ".bakthat_identity.txt").read_bytes() == first
    identity = private_key_in(user.home / ".bakthat_identity_2.txt")
    assert profile_of(user)["recipients"] == [age.recipient_of(identity)]
    assert profile_of(user)["identity_file"] == "~/.bakthat_identity_2.txt"


def test_the_file_of_another_profile_has_its_name(user: CommandLine) -> None:
    (user.directory / "etc").mkdir()
    asked = f"File for the private key ({user.directory}/etc/shop_a_b_identity.txt): "
    answers = choose(4, (asked, "\n"), (PAGE, "\n"))
    code, screen = user.converse(
        "configure", "-p", "a/b", "-c", "etc/shop.yml", "--no-proof", answers=answers
    )
    assert code == 0
    assert "    bakthat configure -p a/b -c etc/shop.yml --identity-file -\r\n" in screen
    private_key_in(user.directory / "etc" / "shop_a_b_identity.txt")


def test_public_keys_that_one_has_are_checked(user: CommandLine) -> None:
    identities = [age.generate_identity() for _ in range(3)]
    ours, theirs, other = map(age.recipient_of, identities)
    key = user.directory / "key.txt"
    key.write_text(f"{identities[0]}\n")
    key.chmod(0o600)
    asked = "Public keys, separated by spaces"
    answers = choose(
        5,
        (f"{asked}: ", f"{identities[0]}\n"),
        ("a secret key was given where a recipient is expected\r\nhint: ", f"{ours} {theirs}\n"),
        ("File of the private key, only to restore here: ", "none\n"),
        ("cannot read the identity file", "key.txt\n"),
    )
    code, screen = user.converse("configure", "--no-proof", answers=answers)
    assert code == 0, screen
    assert profile_of(user) == {
        **WITHOUT_ENCRYPTION,
        "recipients": [ours, theirs],
        "identity_file": str(key),
    }

    file = f"File of the private key, only to restore here ({key}): "
    kept = choose(5, (f"{asked} ({ours} {theirs}): ", "\n"), (file, "\n"))
    assert user.converse("configure", "--no-proof", answers=kept)[0] == 0
    assert profile_of(user)["recipients"] == [ours, theirs]

    changed = choose(5, (f"{asked} ({ours} {theirs}): ", f"{other}\n"), (file, "key.txt\n"))
    code, screen = user.converse("configure", "--no-proof", answers=changed)
    assert f"no key in {key} belongs to the public keys of the profile" in screen
    assert profile_of(user)["recipients"] == [other]

    removed = choose(5, (f"{asked} ({other}): ", "\n"), (file, "-\n"))
    assert user.converse("configure", "--no-proof", answers=removed)[0] == 0
    assert "identity_file" not in profile_of(user)


@pytest.mark.parametrize("command", ["configure", "configure_backups_rotation"])
def test_a_closed_standard_input_is_an_input_that_ended(user: CommandLine, command: str) -> None:
    done = user.shell(f"{command} <&-")
    assert (done.code, done.stdout) == (1, "")
    assert "bakthat: error: the input ended before the last answer" in done.stderr
    assert os.listdir(user.home) == []
