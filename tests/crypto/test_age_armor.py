"""ASCII armor: strict PEM, except for whitespace around it and CR LF."""

from __future__ import annotations

import base64
import io

import pytest

from bakthat.crypto.age import DecryptReader, EncryptWriter, generate_identity, recipient_of
from bakthat.errors import AgeFormatError, BakthatError, DecryptionError

IDENTITY = generate_identity()
BEGIN = b"-----BEGIN AGE ENCRYPTED FILE-----\n"
END = b"-----END AGE ENCRYPTED FILE-----\n"


def encrypt(text: bytes) -> bytes:
    sink = io.BytesIO()
    with EncryptWriter(sink, recipients=[recipient_of(IDENTITY)]) as writer:
        writer.write(text)
    return sink.getvalue()


def lines_of(data: bytes) -> list[bytes]:
    text = base64.b64encode(data)
    return [text[at : at + 64] + b"\n" for at in range(0, len(text), 64)]


def armor(data: bytes) -> bytes:
    return BEGIN + b"".join(lines_of(data)) + END


def decrypt(file: bytes) -> bytes:
    with DecryptReader(io.BytesIO(file), identities=[IDENTITY]) as reader:
        return reader.read()


def text_whose_file_has(remainder: int) -> bytes:
    """A text whose encrypted file is *remainder* bytes longer than full lines of 48 bytes."""
    overhead = len(encrypt(b""))
    return b"t" * ((remainder - overhead) % 48 + 48)


TEXT = text_whose_file_has(10)
FILE = encrypt(TEXT)
LINES = lines_of(FILE)
BODY = b"".join(LINES)
GOOD = BEGIN + BODY + END
FULL_LAST = b"".join(lines_of(encrypt(text_whose_file_has(48))))
PADDING_1 = lines_of(encrypt(text_whose_file_has(47)))


@pytest.mark.parametrize("remainder", [1, 2, 3, 45, 46, 47, 48])
def test_armor_with_a_last_line_of_any_length_is_read(remainder: int) -> None:
    text = text_whose_file_has(remainder)
    assert decrypt(armor(encrypt(text))) == text


@pytest.mark.parametrize(
    "file",
    [
        pytest.param(GOOD, id="as age writes it"),
        pytest.param(GOOD.replace(b"\n", b"\r\n"), id="with CR LF"),
        pytest.param(GOOD[:-1], id="without the last line feed"),
        pytest.param(GOOD[:-1] + b"\r", id="with a carriage return for the last line feed"),
        pytest.param(b"\n \t\r\n\n" + GOOD, id="after blank lines"),
        pytest.param(b"\n" * 100_000 + GOOD, id="after very many empty lines"),
        pytest.param(GOOD + b"\n \t\r\n\x0b\x0c ", id="before whitespace"),
        pytest.param(GOOD + b" " * 3_000_000, id="before very much whitespace"),
    ],
)
def test_armor_that_keeps_the_rules_is_read(file: bytes) -> None:
    assert decrypt(file) == TEXT


@pytest.mark.parametrize("size", [0, 47 * 1024, 65536, 3_000_000])
def test_armor_of_any_size_is_read(size: int) -> None:
    text = bytes(size)
    assert decrypt(armor(encrypt(text))) == text


def test_a_source_that_gives_single_bytes_is_read() -> None:
    class Dribble(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            return super().read(1)

    with DecryptReader(Dribble(b"\n" + GOOD), identities=[IDENTITY]) as reader:
        assert reader.read() == TEXT


@pytest.mark.parametrize(
    "file",
    [
        pytest.param(BEGIN.lower() + BODY + END.lower(), id="markers in lower case"),
        pytest.param(GOOD.replace(b"AGE ENCRYPTED", b"PRIVATE KEY"), id="another label"),
        pytest.param(BEGIN + BODY + END.replace(b"FILE", b"KEY"), id="another label at the end"),
        pytest.param(b"garbage\n" + GOOD, id="garbage before"),
        pytest.param(b"\ngarbage\n" + GOOD, id="garbage after a blank line before"),
        pytest.param(b"-----\n" + GOOD, id="dashes before"),
        pytest.param(b" " + GOOD, id="a space before BEGIN"),
        pytest.param(b" " * 1024 + GOOD, id="many spaces before BEGIN"),
        pytest.param(BEGIN[:-1] + b" \n" + BODY + END, id="a space after BEGIN"),
        pytest.param(BEGIN[:-1] + BODY + END, id="no line feed after BEGIN"),
        pytest.param(GOOD + b"garbage", id="garbage after"),
        pytest.param(GOOD + b"\n\ngarbage", id="garbage after blank lines"),
        pytest.param(GOOD + b" " * 100_000 + b"x", id="garbage after much whitespace"),
        pytest.param(GOOD + GOOD, id="armor after armor"),
        pytest.param(GOOD[:-1] + b" \n", id="a space after END"),
        pytest.param(GOOD[:-1] + b"garbage\n", id="garbage on the END line"),
        pytest.param(BEGIN + BODY + b" " + END, id="a space before END"),
        pytest.param(BEGIN + b"\n" + BODY + END, id="an empty line after BEGIN"),
        pytest.param(BEGIN + BODY + b"\n" + END, id="an empty line before END"),
        pytest.param(BEGIN + FULL_LAST + b"\n" + END, id="an empty line after a full last line"),
        pytest.param(BEGIN + LINES[0] + b"\n" + b"".join(LINES[1:]) + END, id="an empty line"),
        pytest.param(BEGIN + b"Comment: x\n\n" + BODY + END, id="headers"),
        pytest.param(BEGIN + BODY + b"=Ab3d\n" + END, id="a PGP checksum"),
        pytest.param(BEGIN + BODY, id="no END line"),
        pytest.param(BEGIN + BODY[:-1], id="nothing after the last line"),
        pytest.param(BEGIN + LINES[0], id="nothing after a full line"),
        pytest.param(BEGIN, id="nothing after BEGIN"),
        pytest.param(BEGIN[:-1], id="half of BEGIN"),
        pytest.param(BEGIN + END, id="nothing between"),
        pytest.param(BEGIN + END + BODY + END, id="END twice"),
        pytest.param(BEGIN + BODY.replace(b"\n", b""), id="one long line and no END"),
        pytest.param(BEGIN + BODY.replace(b"\n", b"") + b"\n" + END, id="one long line"),
        pytest.param(GOOD.replace(LINES[0], LINES[0][:-1] + b"A\n"), id="a line of 65 columns"),
        pytest.param(
            BEGIN + LINES[0][:60] + b"\n" + LINES[0][60:] + b"".join(LINES[1:]) + END,
            id="a short line in the middle",
        ),
        pytest.param(GOOD.replace(LINES[1], b" " + LINES[1]), id="a space at a line's start"),
        pytest.param(GOOD.replace(LINES[1], LINES[1][:-1] + b" \n"), id="a space at a line's end"),
        pytest.param(BEGIN + BODY[:-1] + b" \n" + END, id="a space at the last line's end"),
        pytest.param(GOOD.replace(LINES[1], LINES[1][:-1] + b"\r\r\n"), id="two carriage returns"),
        pytest.param(GOOD.replace(b"\n", b"\r"), id="carriage returns only"),
        pytest.param(GOOD.replace(LINES[1][:9], b"*" + LINES[1][1:9]), id="a star in the header"),
        pytest.param(BEGIN + b"-" + BODY[1:] + END, id="the URL alphabet"),
        pytest.param(BEGIN + BODY[:-3] + b"\n" + END, id="no padding"),
        pytest.param(BEGIN + BODY[:-2] + b"\n" + END, id="half of the padding"),
        pytest.param(BEGIN + BODY[:-1] + b"=\n" + END, id="too much padding"),
        pytest.param(BEGIN + BODY[:-1] + b"====\n" + END, id="a group of padding"),
        pytest.param(BEGIN + BODY[:-2] + b"\n=\n" + END, id="a line end in the padding"),
        pytest.param(BEGIN + BODY + b"====\n" + END, id="a line of padding"),
        pytest.param(BEGIN + b"AA==\n" + BODY + END, id="padding in the middle"),
        pytest.param(BEGIN + BODY[:-4] + b"B==\n" + END, id="four bits left over"),
        pytest.param(
            BEGIN + b"".join(PADDING_1)[:-3] + b"B=\n" + END, id="two bits left over, full line"
        ),
    ],
)
def test_armor_that_breaks_a_rule_is_refused(file: bytes) -> None:
    with pytest.raises(AgeFormatError):
        decrypt(file)


def test_a_header_with_crlf_inside_the_armor_is_refused() -> None:
    header, mark, rest = FILE.partition(b"\n---")
    with pytest.raises(AgeFormatError):
        decrypt(armor(header.replace(b"\n", b"\r\n") + mark + rest))


def test_garbage_that_is_encoded_too_is_an_altered_payload() -> None:
    with pytest.raises(DecryptionError):
        decrypt(armor(FILE + b"garbage"))
    with pytest.raises(AgeFormatError):
        decrypt(armor(b"garbage" + FILE))


def test_armor_inside_armor_is_no_age_file() -> None:
    with pytest.raises(AgeFormatError):
        decrypt(armor(GOOD))


def test_armor_cut_anywhere_is_refused() -> None:
    for size in range(len(GOOD) - 1):
        with pytest.raises(BakthatError):
            decrypt(GOOD[:size])


def test_whitespace_before_a_binary_file_is_refused() -> None:
    with pytest.raises(AgeFormatError):
        decrypt(b"\n" + FILE)


def test_whitespace_alone_is_no_age_file() -> None:
    for file in (b"", b" ", b"\n\n\n", b" " * 5000):
        with pytest.raises(AgeFormatError, match="not an age file"):
            decrypt(file)
