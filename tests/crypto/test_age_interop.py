"""Other implementations open what bakthat wrote, and the other way round.

pyrage wraps the Rust implementation (https://github.com/str4d/rage); the age command is the
Go one (https://github.com/FiloSottile/age), used where it is installed.
"""

from __future__ import annotations

import io
import os
import re
import subprocess
import sys
from datetime import datetime
from pathlib import Path

import pyrage  # type: ignore[import-untyped]  # it comes without types
import pytest

from bakthat.crypto import age
from bakthat.crypto.age import DecryptReader, EncryptWriter

IDENTITY = age.generate_identity()
RECIPIENT = age.recipient_of(IDENTITY)
SIZES = [0, 1, 65535, 65536, 65537, 131071, 131072, 131073, 1 << 20, (1 << 20) + 1, 3_000_000]

needs_age = pytest.mark.needs("age", "age-keygen")


def encrypt(text: bytes, *recipients: str) -> bytes:
    sink = io.BytesIO()
    with EncryptWriter(sink, recipients=recipients) as writer:
        writer.write(text)
    return sink.getvalue()


def decrypt(file: bytes, identity: str = IDENTITY) -> bytes:
    with DecryptReader(io.BytesIO(file), identities=[identity]) as reader:
        return reader.read()


@pytest.mark.parametrize("size", SIZES)
def test_pyrage_opens_what_bakthat_wrote(size: int) -> None:
    text = os.urandom(size)
    identity = pyrage.x25519.Identity.from_str(IDENTITY)
    assert pyrage.decrypt(encrypt(text, RECIPIENT), [identity]) == text


@pytest.mark.parametrize("armored", [False, True])
@pytest.mark.parametrize("size", SIZES)
def test_bakthat_opens_what_pyrage_wrote(size: int, armored: bool) -> None:
    text = os.urandom(size)
    recipient = pyrage.x25519.Recipient.from_str(RECIPIENT)
    assert decrypt(pyrage.encrypt(text, [recipient], armored=armored)) == text


def test_every_recipient_opens_a_file_for_several() -> None:
    others = [pyrage.x25519.Identity.generate() for _ in range(3)]
    publics = [str(other.to_public()) for other in others]
    file = encrypt(b"for four", *publics, RECIPIENT)
    assert decrypt(file) == b"for four"
    for other in others:
        assert pyrage.decrypt(file, [other]) == b"for four"
        assert decrypt(file, str(other)) == b"for four"
    file = pyrage.encrypt(b"for four", [other.to_public() for other in others])
    for other in others:
        assert decrypt(file, str(other)) == b"for four"


def test_keys_equal_those_of_pyrage() -> None:
    for _ in range(20):
        theirs = pyrage.x25519.Identity.generate()
        assert age.parse_identity(str(theirs)) == str(theirs)
        assert age.recipient_of(str(theirs)) == str(theirs.to_public())
        ours = age.generate_identity()
        public = pyrage.x25519.Identity.from_str(ours).to_public()
        assert str(public) == age.recipient_of(ours)


@pytest.mark.parametrize("size", [0, 65536, 65537])
def test_pyrage_opens_what_bakthat_wrote_with_a_passphrase(size: int) -> None:
    text = os.urandom(size)
    sink = io.BytesIO()
    with EncryptWriter(sink, passphrase="pass wörd", work_factor=10) as writer:
        writer.write(text)
    assert pyrage.passphrase.decrypt(sink.getvalue(), "pass wörd") == text


@pytest.mark.slow
def test_bakthat_opens_what_pyrage_wrote_with_a_passphrase() -> None:
    # Once, and so armored: pyrage takes seconds to choose a work factor for the machine.
    file = pyrage.passphrase.encrypt(b"only copy", "pass wörd", armored=True)
    assert DecryptReader(io.BytesIO(file), passphrase="pass wörd").read() == b"only copy"


@needs_age
@pytest.mark.parametrize("size", SIZES)
def test_the_age_command_opens_what_bakthat_wrote(size: int, tmp_path: Path) -> None:
    text = os.urandom(size)
    (tmp_path / "key").write_text(IDENTITY + "\n")
    opened = subprocess.run(
        ["age", "-d", "-i", tmp_path / "key"],
        input=encrypt(text, RECIPIENT),
        capture_output=True,
        check=True,
    )
    assert opened.stdout == text


@needs_age
@pytest.mark.parametrize("armored", [False, True])
@pytest.mark.parametrize("size", SIZES)
def test_bakthat_opens_what_the_age_command_wrote(size: int, armored: bool) -> None:
    text = os.urandom(size)
    command = ["age", "-r", RECIPIENT, *(["-a"] if armored else [])]
    file = subprocess.run(command, input=text, capture_output=True, check=True).stdout
    assert decrypt(file) == text


@needs_age
def test_bakthat_reads_the_identity_file_of_age_keygen(tmp_path: Path) -> None:
    subprocess.run(["age-keygen", "-o", tmp_path / "key"], capture_output=True, check=True)
    shown = subprocess.run(
        ["age-keygen", "-y", tmp_path / "key"], capture_output=True, check=True, text=True
    )
    [identity] = age.parse_identities((tmp_path / "key").read_text())
    assert age.recipient_of(identity) == age.parse_recipient(shown.stdout)


@needs_age
def test_an_identity_file_is_that_of_age_keygen(tmp_path: Path) -> None:
    theirs, ours = tmp_path / "theirs", tmp_path / "ours"
    environment = {**os.environ, "TZ": "UTC"}
    subprocess.run(["age-keygen", "-o", theirs], env=environment, capture_output=True, check=True)
    text = theirs.read_text()
    [identity] = age.parse_identities(text)
    date = re.fullmatch(r"# created: (\S+)", text.splitlines()[0])
    assert date is not None
    created = datetime.fromisoformat(date[1]).timestamp()
    assert age.identity_file(identity, created=created) == text

    ours.write_text(age.identity_file(IDENTITY, created=created))
    shown = subprocess.run(["age-keygen", "-y", ours], capture_output=True, check=True, text=True)
    assert shown.stdout == f"{RECIPIENT}\n"


def type_passphrase(command: list[str], typed: str) -> None:
    """Run *command* on a terminal and type *typed*: age reads passphrases only from a terminal."""
    # In a process of its own, since a process with threads, as pytest's may be, must not fork.
    spawn = "import os, pty, sys; sys.exit(os.waitstatus_to_exitcode(pty.spawn(sys.argv[1:])))"
    subprocess.run(
        [sys.executable, "-c", spawn, *command],
        input=typed.encode(),
        capture_output=True,
        check=True,
    )


@pytest.mark.slow
@needs_age
def test_the_age_command_and_bakthat_share_passphrases(tmp_path: Path) -> None:
    text, ours, theirs, opened = (tmp_path / name for name in ("text", "ours", "theirs", "opened"))
    text.write_bytes(b"only copy")
    with (
        ours.open("wb") as sink,
        EncryptWriter(sink, passphrase="secret", work_factor=10) as writer,
    ):
        writer.write(b"only copy")
    type_passphrase(["age", "-d", "-o", str(opened), str(ours)], "secret\n")
    assert opened.read_bytes() == b"only copy"
    type_passphrase(["age", "-p", "-o", str(theirs), str(text)], "secret\nsecret\n")
    with theirs.open("rb") as source, DecryptReader(source, passphrase="secret") as reader:
        assert reader.read() == b"only copy"
