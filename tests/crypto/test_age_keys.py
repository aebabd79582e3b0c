"""Keys and passphrases: valid ones, invalid ones, and no secret in any message."""

from __future__ import annotations

import io

import pytest

from bakthat.crypto import _bech32, age
from bakthat.crypto.age import DecryptReader, EncryptWriter
from bakthat.errors import AgeFormatError, CryptoError, KeyFormatError, PasswordError, WrongKeyError

# The example pair of https://c2sp.org/age, section "The X25519 recipient type".
IDENTITY = "AGE-SECRET-KEY-1GFPYYSJZGFPYYSJZGFPYYSJZGFPYYSJZGFPYYSJZGFPYYSJZGFPQ4EGAEX"
RECIPIENT = "age1zvkyg2lqzraa2lnjvqej32nkuu0ues2s82hzrye869xeexvn73equnujwj"
# Generated once: the names of parametrized tests must be the same in every process.
STRANGER = "AGE-SECRET-KEY-1JVQVG007S2RFV65UPRUMKS75L86CD3JNKTPKHKE00JHWG0Q96L8QTSVEHM"


def decrypt(file: bytes, identity: str = IDENTITY) -> bytes:
    return DecryptReader(io.BytesIO(file), identities=[identity]).read()


def test_the_identity_of_the_specification_has_its_recipient() -> None:
    assert age.recipient_of(IDENTITY) == RECIPIENT


def test_a_generated_identity_is_new_and_opens_its_files() -> None:
    identity = age.generate_identity()
    assert identity != STRANGER
    assert age.parse_identity(f" {identity}\n") == identity
    recipient = age.recipient_of(identity)
    assert age.parse_recipient(f" {recipient}\n") == recipient
    sink = io.BytesIO()
    with EncryptWriter(sink, recipients=[RECIPIENT, recipient]) as writer:
        writer.write(b"for two")
    assert decrypt(sink.getvalue(), identity) == decrypt(sink.getvalue()) == b"for two"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "age1",
        "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOwner",
        RECIPIENT[:-1],
        RECIPIENT + "q",
        RECIPIENT.upper(),
        RECIPIENT[:-1] + "J",
        RECIPIENT.replace("zv", "vz"),
        RECIPIENT.replace("zv", "bi"),
        RECIPIENT.replace("k", "\u212a"),
        RECIPIENT.replace("2l", "2 l"),
        _bech32.encode("age", bytes(31)),
        _bech32.encode("age", bytes(33)),
        _bech32.encode("age", b""),
        _bech32.encode("age1pq", bytes(32)),
    ],
)
def test_an_invalid_recipient_is_quoted(text: str) -> None:
    with pytest.raises(KeyFormatError) as caught:
        age.parse_recipient(text)
    assert repr(text.strip()) in str(caught.value)
    with pytest.raises(KeyFormatError):
        EncryptWriter(io.BytesIO(), recipients=[RECIPIENT, text])


@pytest.mark.parametrize(
    "text", ["1", "name@example.com", "hunter2", "ags" + RECIPIENT[3:], "ä" + RECIPIENT]
)
def test_what_may_be_a_password_is_not_quoted(text: str) -> None:
    with pytest.raises(KeyFormatError) as caught:
        age.parse_recipient(text)
    assert str(caught.value).startswith("the recipient is not an ")
    assert repr(text) not in str(caught.value)


def test_a_recipient_of_low_order_is_refused() -> None:
    with pytest.raises(KeyFormatError, match="low order"):
        EncryptWriter(io.BytesIO(), recipients=[_bech32.encode("age", bytes(32))])


def assert_shows_nothing(error: BaseException, *secrets: str) -> None:
    shown_error: BaseException | None = error
    while shown_error is not None:
        shown = f"{shown_error!r} {shown_error.args} {vars(shown_error)}".lower()
        for secret in secrets:
            assert not any(secret.lower()[at : at + 8] in shown for at in range(len(secret) - 7))
        shown_error = shown_error.__cause__ or shown_error.__context__


@pytest.mark.parametrize("spoiled", [STRANGER, STRANGER.lower(), f"# x\n{STRANGER}\n"])
def test_a_secret_key_given_as_recipient_is_not_quoted(spoiled: str) -> None:
    with pytest.raises(KeyFormatError, match="secret key") as caught:
        age.parse_recipient(spoiled)
    assert_shows_nothing(caught.value, STRANGER.removeprefix("AGE-SECRET-KEY-1"))


@pytest.mark.parametrize(
    "text",
    [
        STRANGER[:-1],
        STRANGER + "Q",
        STRANGER.lower(),
        STRANGER.capitalize(),
        STRANGER[:-1] + "*",
        STRANGER.replace("SECRET", "SECRT"),
        STRANGER.removeprefix("AGE-SECRET-KEY-1"),
        "AGE-SECRET-KEY-PQ-1" + STRANGER.removeprefix("AGE-SECRET-KEY-1"),
        STRANGER + " " + STRANGER,
    ],
)
def test_an_invalid_identity_is_never_quoted(text: str) -> None:
    for call in (
        lambda: age.parse_identity(text),
        lambda: age.recipient_of(text),
        lambda: age.parse_identities(f"# comment\n\n{text}\n"),
        lambda: DecryptReader(io.BytesIO(), identities=[text]),
    ):
        with pytest.raises(KeyFormatError) as caught:
            call()
        assert_shows_nothing(caught.value, STRANGER.removeprefix("AGE-SECRET-KEY-1"))


PLUGIN_RECIPIENT = _bech32.encode("age1yubikey", bytes(33))


@pytest.mark.parametrize("text", ["ssh-ed25519 AAAAC3Nza", "ssh-rsa AAAAB3", PLUGIN_RECIPIENT])
def test_a_recipient_of_another_kind_is_named(text: str) -> None:
    with pytest.raises(KeyFormatError, match="which is not supported") as caught:
        age.parse_recipient(text)
    assert repr(text) in str(caught.value)
    assert "age-keygen" in caught.value.hint


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("-----BEGIN OPENSSH PRIVATE KEY-----\nb3BlbnNzaC1rZXk\n", "an SSH or PEM key"),
        ("AGE-PLUGIN-YUBIKEY-1QVZSECRET", "for a plugin of age"),
        ("age-encryption.org/v1\n-> scrypt", "encrypted"),
        ("-----BEGIN AGE ENCRYPTED FILE-----\nYWdl", "encrypted"),
    ],
)
def test_an_identity_of_another_kind_is_named(text: str, what: str) -> None:
    with pytest.raises(
        KeyFormatError, match=f"line 1 of the identity file: .* is {what}"
    ) as caught:
        age.parse_identities(text)
    assert "QVZSECRET" not in str(caught.value)
    assert caught.value.hint


def with_checksum(prefix: str, values: list[int]) -> str:
    """Bech32 of groups of five bits, after the reference code in BIP 173."""
    alphabet = "qpzry9x8gf2tvdw0s3jn54khce6mua7l"
    expanded = [*(ord(char) >> 5 for char in prefix), 0, *(ord(char) & 31 for char in prefix)]
    checksum = 1
    for value in [*expanded, *values, *[0] * 6]:
        top = checksum >> 25
        checksum = (checksum & 0x1FFFFFF) << 5 ^ value
        for bit in range(5):
            generators = (0x3B6A57B2, 0x26508E6D, 0x1EA119FA, 0x3D4233DD, 0x2A1462B3)
            checksum ^= generators[bit] if top >> bit & 1 else 0
    tail = [(checksum ^ 1) >> 5 * (5 - place) & 31 for place in range(6)]
    return f"{prefix}1{''.join(alphabet[value] for value in [*values, *tail])}"


def test_bits_that_belong_to_no_byte_are_refused() -> None:
    assert _bech32.decode(with_checksum("x", [0b00101, 0b01000])) == ("x", b"\x2a")
    for values in ([0b00101, 0b01001], [0b00101, 0b01000, 0], [0], [1]):
        with pytest.raises(_bech32.Bech32Error, match="stray bits"):
            _bech32.decode(with_checksum("x", values))
    with pytest.raises(KeyFormatError, match="stray bits"):
        age.parse_recipient(with_checksum("age", [0] * 51 + [1]))


def test_letters_that_turn_into_ascii_with_their_case_are_refused() -> None:
    identity = _bech32.encode("age-secret-key-", bytes([0b10110] * 32)).upper()
    assert "K" in identity.removeprefix("AGE-SECRET-KEY-1")
    at = identity.rindex("K")
    with pytest.raises(KeyFormatError, match="ASCII"):
        age.parse_identity(f"{identity[:at]}\u212a{identity[at + 1 :]}")


def test_the_wrong_size_of_an_identity_is_refused() -> None:
    for size in (0, 31, 33):
        with pytest.raises(KeyFormatError):
            age.parse_identity(_bech32.encode("age-secret-key-", bytes(size)).upper())


def test_an_identity_file_has_comments_blank_lines_and_several_keys() -> None:
    text = f"# created: today\r\n# public key: {RECIPIENT}\r\n{IDENTITY}\r\n\r\n  # {STRANGER}\n"
    assert age.parse_identities(text) == [IDENTITY]
    assert age.parse_identities(f"{IDENTITY}\n\n{STRANGER}") == [IDENTITY, STRANGER]
    for empty in ("", "\n\n", "# comment\n"):
        with pytest.raises(KeyFormatError, match="no identity"):
            age.parse_identities(empty)
    with pytest.raises(KeyFormatError, match="line 3 "):
        age.parse_identities(f"#\n{IDENTITY}\n{RECIPIENT}\n")


def passphrase_file(passphrase: str) -> bytes:
    sink = io.BytesIO()
    with EncryptWriter(sink, passphrase=passphrase, work_factor=2) as writer:
        writer.write(b"text")
    return sink.getvalue()


@pytest.mark.parametrize(
    "passphrase", ["x", " ", "pass wörd 🗝", "line\nbreak", "\udcff\udc80", "p" * 5000]
)
def test_a_passphrase_may_be_any_text(passphrase: str) -> None:
    file = passphrase_file(passphrase)
    assert DecryptReader(io.BytesIO(file), passphrase=passphrase).read() == b"text"
    both = DecryptReader(io.BytesIO(file), passphrase=passphrase, identities=[IDENTITY])
    assert both.read() == b"text"
    with pytest.raises(WrongKeyError, match="passphrase does not open") as caught:
        DecryptReader(io.BytesIO(file), passphrase=passphrase + "y")
    assert_shows_nothing(caught.value, passphrase)


def test_a_passphrase_that_utf8_cannot_hold_is_not_quoted() -> None:
    with pytest.raises(PasswordError) as caught:
        EncryptWriter(io.BytesIO(), passphrase="tell-nobody-\ud800")
    assert_shows_nothing(caught.value, "tell-nobody-")


def test_the_key_of_the_other_kind_is_named_in_the_error() -> None:
    with pytest.raises(WrongKeyError, match="encrypted with a passphrase, and only identities"):
        DecryptReader(io.BytesIO(passphrase_file("secret")), identities=[IDENTITY])
    sink = io.BytesIO()
    with EncryptWriter(sink, recipients=[RECIPIENT, RECIPIENT]):
        pass
    file = sink.getvalue()
    with pytest.raises(WrongKeyError, match="to 2 recipients, and only a passphrase"):
        DecryptReader(io.BytesIO(file), passphrase="secret")
    with pytest.raises(WrongKeyError, match="to 2 recipients, and to none of the identities"):
        DecryptReader(io.BytesIO(file), passphrase="secret", identities=[STRANGER])
    assert DecryptReader(io.BytesIO(file), identities=[STRANGER, IDENTITY]).read() == b""


def test_invalid_keys_are_refused_before_anything_is_written() -> None:
    sink = io.BytesIO()
    with pytest.raises(TypeError, match="not both"):
        EncryptWriter(sink, passphrase="x", recipients=[RECIPIENT])
    with pytest.raises(PasswordError, match="neither"):
        EncryptWriter(sink)
    with pytest.raises(PasswordError, match="empty"):
        EncryptWriter(sink, passphrase="")
    with pytest.raises(TypeError, match="list"):
        EncryptWriter(sink, recipients=RECIPIENT)
    for work_factor in (0, 23, -1):
        with pytest.raises(ValueError, match=f"work factor {work_factor} "):
            EncryptWriter(sink, passphrase="x", work_factor=work_factor)
    with pytest.raises(PasswordError, match="neither"):
        DecryptReader(io.BytesIO())
    with pytest.raises(PasswordError, match="empty"):
        DecryptReader(io.BytesIO(), passphrase="")
    with pytest.raises(TypeError, match="list"):
        DecryptReader(io.BytesIO(), identities=IDENTITY)
    assert sink.getvalue() == b""


def test_more_recipients_than_a_reader_would_accept_are_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    recipients = [RECIPIENT] * 100
    sink = io.BytesIO()
    with EncryptWriter(sink, recipients=recipients) as writer:
        writer.write(b"text")
    assert decrypt(sink.getvalue()) == b"text"
    monkeypatch.setattr(age, "MAX_HEADER_SIZE", 9000)
    with pytest.raises(CryptoError, match="100 recipients are more"):
        EncryptWriter(io.BytesIO(), recipients=recipients)


def test_the_default_work_factor_is_that_of_the_age_command() -> None:
    sink = io.BytesIO()
    with EncryptWriter(sink, passphrase="x"):
        pass
    assert sink.getvalue().split(b"\n")[1].endswith(b" 18")


def test_a_text_that_is_no_age_file_is_refused() -> None:
    for file in (b"", b"x", b"\x1f\x8b\x08" + bytes(100), b"age-encryption.or", RECIPIENT.encode()):
        with pytest.raises(AgeFormatError, match="not an age file"):
            decrypt(file)
