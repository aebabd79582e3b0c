"""Every rule of https://c2sp.org/age, with files that keep it and files that break it.

The code that makes the files shares nothing with bakthat, so that both cannot have the same error.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import io
import resource
from collections.abc import Sequence

import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

from bakthat.crypto.age import DecryptReader
from bakthat.errors import AgeFormatError, CryptoError, DecryptionError, WrongKeyError
from tests.support.tar_bytes import in_child

# The example pair of the specification, section "The X25519 recipient type".
IDENTITY = "AGE-SECRET-KEY-1GFPYYSJZGFPYYSJZGFPYYSJZGFPYYSJZGFPYYSJZGFPYYSJZGFPQ4EGAEX"
SECRET = b"\x42" * 32
PUBLIC = X25519PrivateKey.from_private_bytes(SECRET).public_key().public_bytes_raw()
STRANGER = X25519PrivateKey.from_private_bytes(b"\x17" * 32).public_key().public_bytes_raw()
EPHEMERAL = X25519PrivateKey.from_private_bytes(b"\x0e" * 32)
FILE_KEY = bytes(range(16))
NONCE = bytes(range(100, 116))
SALT = bytes(range(50, 66))
PASSPHRASE = "correct horse"
CHUNK = 65536
TEXT = b"only copy"
V1 = b"age-encryption.org/v1\n"
GREASE = b"-> grease-me an argument\n" + b"QUFB\n"


def b64(data: bytes) -> bytes:
    return base64.b64encode(data).rstrip(b"=")


def hkdf(secret: bytes, salt: bytes, info: bytes) -> bytes:
    extracted = hmac.digest(salt or bytes(32), secret, "sha256")
    return hmac.digest(extracted, info + b"\x01", "sha256")


def seal(key: bytes, file_key: bytes) -> bytes:
    return ChaCha20Poly1305(key).encrypt(bytes(12), file_key, None)


def x25519_body(public: bytes = PUBLIC, file_key: bytes = FILE_KEY) -> bytes:
    secret = EPHEMERAL.exchange(X25519PublicKey.from_public_bytes(public))
    salt = EPHEMERAL.public_key().public_bytes_raw() + public
    return seal(hkdf(secret, salt, b"age-encryption.org/v1/X25519"), file_key)


SHARE = b64(EPHEMERAL.public_key().public_bytes_raw())


def x25519(public: bytes = PUBLIC, file_key: bytes = FILE_KEY) -> bytes:
    return b"-> X25519 " + SHARE + b"\n" + b64(x25519_body(public, file_key)) + b"\n"


def scrypt_body(salt: bytes = SALT, log_n: int = 4, file_key: bytes = FILE_KEY) -> bytes:
    key = hashlib.scrypt(
        PASSPHRASE.encode(),
        salt=b"age-encryption.org/v1/scrypt" + salt,
        n=1 << log_n,
        r=8,
        p=1,
        dklen=32,
    )
    return seal(key, file_key)


def scrypt(arguments: bytes | None = None, body: bytes | None = None) -> bytes:
    if arguments is None:
        arguments = b64(SALT) + b" 4"
    return b"-> scrypt " + arguments + b"\n" + b64(scrypt_body() if body is None else body) + b"\n"


def mac_of(signed: bytes, file_key: bytes = FILE_KEY) -> bytes:
    return b64(hmac.digest(hkdf(file_key, b"", b"header"), signed, "sha256"))


def header(*stanzas: bytes, version: bytes = V1, file_key: bytes = FILE_KEY) -> bytes:
    signed = version + b"".join(stanzas) + b"---"
    return signed + b" " + mac_of(signed, file_key) + b"\n"


def chunk(number: int, data: bytes, *, final: bool) -> bytes:
    cipher = ChaCha20Poly1305(hkdf(FILE_KEY, NONCE, b"payload"))
    return cipher.encrypt(number.to_bytes(11, "big") + bytes([final]), data, None)


def payload(*chunks: bytes) -> bytes:
    last = len(chunks) - 1
    return NONCE + b"".join(chunk(n, c, final=n == last) for n, c in enumerate(chunks))


def age_file(*stanzas: bytes) -> bytes:
    return header(*stanzas) + payload(TEXT)


def decrypt(file: bytes, *, step: int = -1) -> bytes:
    reader = DecryptReader(io.BytesIO(file), passphrase=PASSPHRASE, identities=[IDENTITY])
    if step < 0:
        return reader.read()
    return b"".join(iter(lambda: reader.read(step), b""))


def released(file: bytes) -> bytes:
    """Return the plaintext that a reader returns before it refuses the rest."""
    reader = DecryptReader(io.BytesIO(file), identities=[IDENTITY])
    got = b""
    for _ in range(len(file)):
        try:
            data = reader.read(1000)
        except DecryptionError:
            break
        assert data, "the file was taken for complete"
        got += data
    with pytest.raises(DecryptionError):
        reader.read(1)
    return got


def stanza(body_lines: Sequence[bytes], first: bytes = b"-> other") -> bytes:
    return b"".join(line + b"\n" for line in (first, *body_lines))


# --- the header -------------------------------------------------------------------------------

FULL = b"A" * 64


@pytest.mark.parametrize(
    "stanzas",
    [
        pytest.param([x25519()], id="one X25519 stanza"),
        pytest.param([x25519(STRANGER), x25519()], id="the second of two recipients"),
        pytest.param([x25519(), x25519(STRANGER)], id="the first of two recipients"),
        pytest.param([GREASE, x25519(), GREASE], id="unknown stanzas around it"),
        pytest.param([scrypt()], id="one scrypt stanza"),
        pytest.param([stanza([b""]), x25519()], id="an empty body is an empty line"),
        pytest.param([stanza([FULL, b""]), x25519()], id="a full line before an empty line"),
        pytest.param([stanza([FULL, FULL, b"AA"]), x25519()], id="full lines before a short one"),
        pytest.param([stanza([b"A" * 63]), x25519()], id="a line one short of full"),
        pytest.param([stanza([b""], b"-> ! ~"), x25519()], id="the ends of VCHAR as arguments"),
        pytest.param([stanza([b""], b"-> -> ---"), x25519()], id="marks as arguments"),
        pytest.param([stanza([b""], b"-> x25519"), x25519()], id="the type in lower case"),
        pytest.param([stanza([b""], b"-> Scrypt"), x25519()], id="scrypt with a capital"),
    ],
)
def test_a_header_that_keeps_the_rules_is_read(stanzas: list[bytes]) -> None:
    assert decrypt(age_file(*stanzas)) == TEXT


@pytest.mark.parametrize(
    "bad",
    [
        pytest.param(b"->\n\n", id="no arguments"),
        pytest.param(b"-> \n\n", id="one empty argument"),
        pytest.param(b"-> a  b\n\n", id="an empty argument between two"),
        pytest.param(b"-> a \n\n", id="a trailing space"),
        pytest.param(b"->a\n\n", id="no space after the arrow"),
        pytest.param(b"-- a\n\n", id="another arrow"),
        pytest.param(b" -> a\n\n", id="a space before the arrow"),
        pytest.param(b"\n", id="an empty line in place of a stanza"),
        pytest.param(b"-> a\tb\n\n", id="a tab in an argument"),
        pytest.param(b"-> a\x7f\n\n", id="a delete character in an argument"),
        pytest.param("-> ä\n\n".encode(), id="an argument that is not ASCII"),
        pytest.param(b"-> a\r\n\n", id="a carriage return after the arguments"),
        pytest.param(b"-> a\nAA\r\n", id="a carriage return after the body"),
        pytest.param(b"-> a\nA\rA\n", id="a carriage return in the body"),
        pytest.param(b"-> a\nAA==\n", id="padding"),
        pytest.param(b"-> a\nA\n", id="a length no base64 has"),
        pytest.param(b"-> a\nAB\n", id="bits left over"),
        pytest.param(b"-> a\nA_-A\n", id="the URL alphabet"),
        pytest.param(b"-> a\nAA AA\n", id="a space in the body"),
        pytest.param(b"-> a\n" + FULL + b"\n", id="a full line and no short one"),
        pytest.param(b"-> a\n" + FULL + b"A\n", id="a line of 65 columns"),
        pytest.param(b"-> a\n" + FULL + b"AAAA\n\n", id="a line of 68 columns"),
        pytest.param(b"-> a\nAAAA\nAAAA\n", id="two short lines"),
        pytest.param(b"-> a\n\n\n", id="two empty lines"),
        pytest.param(b"-> a\n", id="no body at all"),
    ],
)
def test_a_stanza_that_breaks_the_grammar_is_refused(bad: bytes) -> None:
    with pytest.raises(AgeFormatError):
        decrypt(age_file(bad, x25519()))
    with pytest.raises(AgeFormatError):
        decrypt(age_file(x25519(), bad))


@pytest.mark.parametrize(
    "version",
    [
        b"age-encryption.org/v2\n",
        b"age-encryption.org/v1 \n",
        b"age-encryption.org/v1\r\n",
        b"age-encryption.org/\n",
        b"age-encryption.org/v1",
        b"Age-encryption.org/v1\n",
        b"age-encryption.org\n",
        b"\n" + V1,
        b"\xef\xbb\xbf" + V1,
        b"",
    ],
)
def test_another_version_line_is_refused(version: bytes) -> None:
    with pytest.raises(AgeFormatError):
        decrypt(header(x25519(), version=version) + payload(TEXT))


def test_a_header_in_crlf_is_refused_with_a_hint() -> None:
    with pytest.raises(AgeFormatError) as caught:
        decrypt(header(x25519()).replace(b"\n", b"\r\n") + payload(TEXT))
    assert "binary" in caught.value.hint


def test_a_header_without_stanzas_is_refused() -> None:
    with pytest.raises(AgeFormatError, match="no recipient stanza"):
        decrypt(age_file())


SIGNED = V1 + x25519() + b"---"
MAC = mac_of(SIGNED)
LAST = MAC[-1:]
# 43 characters of base64 hold 258 bits of the 256: the next letter has the same 256.
SPOILED = MAC[:-1] + bytes([LAST[0] + 1])


@pytest.mark.parametrize(
    "end",
    [
        pytest.param(b"  " + MAC + b"\n", id="an extra space"),
        pytest.param(b" " + MAC + b" \n", id="a trailing space"),
        pytest.param(MAC + b"\n", id="no space"),
        pytest.param(b"\n", id="no MAC"),
        pytest.param(b" \n", id="an empty MAC"),
        pytest.param(b" " + MAC[:-1] + b"\n", id="42 characters"),
        pytest.param(b" " + b64(base64.b64decode(MAC + b"=")[:31]) + b"\n", id="31 bytes"),
        pytest.param(b" " + b64(base64.b64decode(MAC + b"=") + b"x") + b"\n", id="33 bytes"),
        pytest.param(b" " + MAC + b"=\n", id="padding"),
        pytest.param(b" " + SPOILED + b"\n", id="not canonical"),
        pytest.param(b" " + MAC + b"\r\n", id="a carriage return"),
        pytest.param(b" " + MAC + b"garbage\n", id="garbage after it"),
        pytest.param(b" " + MAC, id="no line feed"),
        pytest.param(b"- " + MAC + b"\n", id="four dashes"),
    ],
)
def test_a_malformed_mac_line_is_refused(end: bytes) -> None:
    file = SIGNED + end + (payload(TEXT) if end.endswith(b"\n") else b"")
    with pytest.raises(AgeFormatError):
        decrypt(file)


def test_another_mac_is_reported_as_alteration() -> None:
    with pytest.raises(DecryptionError, match="altered"):
        decrypt(SIGNED + b" " + b64(bytes(32)) + b"\n" + payload(TEXT))


def test_an_altered_unknown_stanza_is_reported_as_alteration() -> None:
    with pytest.raises(DecryptionError, match="altered"):
        decrypt(age_file(GREASE, x25519()).replace(b"QUFB", b"QUFC"))


def test_a_header_cut_anywhere_is_refused() -> None:
    whole = header(x25519())
    for size in range(len(whole) + 16):
        with pytest.raises(AgeFormatError):
            decrypt((whole + NONCE)[:size])


def test_an_endless_header_is_refused_before_it_fills_the_memory() -> None:
    class Endless:
        given = 0

        def read(self, size: int, /) -> bytes:
            self.given += size
            return (V1 if self.given == size else b"A" * size)[:size]

    source = Endless()
    with pytest.raises(AgeFormatError, match="longer than"):
        DecryptReader(source, identities=[IDENTITY])
    assert source.given < 4 << 20


def test_a_header_of_many_stanzas_is_refused_when_it_is_too_long() -> None:
    with pytest.raises(AgeFormatError, match="longer than"):
        decrypt(age_file(*[GREASE] * 40_000, x25519()))
    assert decrypt(age_file(*[GREASE] * 20_000, x25519())) == TEXT


# --- X25519 -----------------------------------------------------------------------------------

BODY = x25519_body()
LOW_ORDER = [
    bytes(32),
    b"\x01" + bytes(31),
    bytes.fromhex("e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800"),
    bytes.fromhex("5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157"),
    bytes.fromhex("ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f"),
]  # The small-order points of Curve25519: https://cr.yp.to/ecdh.html#validate


@pytest.mark.parametrize(
    "bad",
    [
        pytest.param(b"-> X25519\n" + b64(BODY) + b"\n", id="no share"),
        pytest.param(b"-> X25519 " + SHARE + b" 1\n" + b64(BODY) + b"\n", id="an extra argument"),
        pytest.param(b"-> X25519 " + SHARE[:-1] + b"\n" + b64(BODY) + b"\n", id="a cut share"),
        pytest.param(b"-> X25519 " + b64(bytes(31)) + b"\n" + b64(BODY) + b"\n", id="31 bytes"),
        pytest.param(b"-> X25519 " + b64(PUBLIC + b"x") + b"\n" + b64(BODY) + b"\n", id="33 bytes"),
        pytest.param(b"-> X25519 " + SHARE + b"=\n" + b64(BODY) + b"\n", id="a padded share"),
        pytest.param(b"-> X25519 " + SHARE + b"\n\n", id="an empty body"),
        pytest.param(b"-> X25519 " + SHARE + b"\n" + b64(BODY[:-1]) + b"\n", id="a short body"),
        pytest.param(b"-> X25519 " + SHARE + b"\n" + b64(BODY + b"x") + b"\n", id="a long body"),
        pytest.param(x25519(file_key=bytes(15)), id="a file key of 15 bytes"),
        pytest.param(x25519(file_key=bytes(24)), id="a file key of 24 bytes"),
        *(
            pytest.param(b"-> X25519 " + b64(point) + b"\n" + b64(BODY) + b"\n", id=f"order {n}")
            for n, point in enumerate(LOW_ORDER)
        ),
    ],
)
def test_an_x25519_stanza_that_breaks_the_rules_is_refused(bad: bytes) -> None:
    with pytest.raises(AgeFormatError):
        decrypt(age_file(bad))


def test_a_malformed_x25519_stanza_is_refused_wherever_it_stands() -> None:
    bad = b"-> X25519\n" + b64(BODY) + b"\n"
    for stanzas in ((bad, x25519()), (x25519(), bad)):
        with pytest.raises(AgeFormatError):
            decrypt(age_file(*stanzas))


def test_a_share_that_is_not_canonical_is_refused() -> None:
    spoiled = SHARE[:-1] + bytes([SHARE[-1] + 1])
    assert base64.b64decode(spoiled + b"=") == base64.b64decode(SHARE + b"=")
    with pytest.raises(AgeFormatError):
        decrypt(age_file(x25519().replace(SHARE, spoiled)))


def test_a_stanza_for_someone_else_is_no_match() -> None:
    altered = b"-> X25519 " + SHARE + b"\n" + b64(BODY[:-1] + bytes([BODY[-1] ^ 1])) + b"\n"
    for other in (x25519(STRANGER), altered, GREASE, x25519().replace(b"X25519", b"x25519")):
        with pytest.raises(WrongKeyError, match="1 recipient"):
            decrypt(age_file(other))


# --- scrypt -----------------------------------------------------------------------------------


@pytest.mark.parametrize("log_n", [1, 4, 10])
def test_a_work_factor_that_is_allowed_is_tried(log_n: int) -> None:
    stanza = scrypt(b64(SALT) + b" %d" % log_n, scrypt_body(log_n=log_n))
    assert decrypt(age_file(stanza)) == TEXT


NO_NUMBER = ["0", "04", "-4", "+4", "0x4", "4.0", "4 ", "4a", "a", "1e1", "4_0", "\u0664"]
TOO_HIGH = ["23", "99", "18446744073709551620", "1" * 5000]  # The third is 4 to who overflows.


def test_a_work_factor_that_needs_more_memory_than_there_is_is_an_error() -> None:
    import cryptography.hazmat.primitives.kdf.scrypt  # noqa: F401  # the child has no room for it

    file = age_file(scrypt(b64(SALT) + b" 20"))  # a GiB

    def action() -> object:
        with open("/proc/self/statm") as statm:
            used = int(statm.read().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + 2**28, resource.RLIM_INFINITY))
        return decrypt(file)

    with pytest.raises(CryptoError, match="work factor 20 needs 1024 MiB of memory") as caught:
        in_child(action)
    assert "more memory" in caught.value.hint


@pytest.mark.parametrize("work_factor", [*NO_NUMBER, *TOO_HIGH])
def test_a_work_factor_that_is_too_high_or_no_number_is_refused(work_factor: str) -> None:
    with pytest.raises(AgeFormatError):
        decrypt(age_file(scrypt(b64(SALT) + b" " + work_factor.encode())))


@pytest.mark.parametrize(
    "bad",
    [
        pytest.param(scrypt(b64(SALT)), id="no work factor"),
        pytest.param(scrypt(b"4"), id="no salt"),
        pytest.param(b"-> scrypt\n" + b64(scrypt_body()) + b"\n", id="no argument"),
        pytest.param(scrypt(b64(SALT) + b" 4 4"), id="an extra argument"),
        pytest.param(scrypt(b64(SALT) + b"== 4"), id="a padded salt"),
        pytest.param(scrypt(b"AAAAA 4"), id="a salt of a length that base64 never has"),
        pytest.param(scrypt(b64(SALT[:15]) + b" 4", scrypt_body(SALT[:15])), id="a short salt"),
        pytest.param(scrypt(b64(SALT + b"x") + b" 4", scrypt_body(SALT + b"x")), id="a long salt"),
        pytest.param(scrypt(b64(SALT)[:-1] + b"B 4"), id="a salt that is not canonical"),
        pytest.param(scrypt(body=b""), id="an empty body"),
        pytest.param(scrypt(body=scrypt_body()[:-1]), id="a short body"),
        pytest.param(scrypt(body=scrypt_body(file_key=bytes(24))), id="a long file key"),
        pytest.param(scrypt(body=scrypt_body(file_key=bytes(15))), id="a short file key"),
    ],
)
def test_a_scrypt_stanza_that_breaks_the_rules_is_refused(bad: bytes) -> None:
    with pytest.raises(AgeFormatError):
        decrypt(age_file(bad))


@pytest.mark.parametrize(
    "stanzas",
    [[scrypt(), scrypt()], [scrypt(), x25519()], [x25519(), scrypt()], [GREASE, scrypt()]],
)
def test_a_scrypt_stanza_must_be_alone(stanzas: list[bytes]) -> None:
    file = age_file(*stanzas)
    with pytest.raises(AgeFormatError, match="only one"):
        decrypt(file)
    with pytest.raises(AgeFormatError, match="only one"):
        DecryptReader(io.BytesIO(file), identities=[IDENTITY])
    with pytest.raises(AgeFormatError, match="only one"):
        DecryptReader(io.BytesIO(file), passphrase=PASSPHRASE)


def test_an_altered_scrypt_body_is_no_match() -> None:
    body = scrypt_body()
    with pytest.raises(WrongKeyError, match="passphrase does not open"):
        decrypt(age_file(scrypt(body=body[:-1] + bytes([body[-1] ^ 1]))))


def test_scrypt_with_a_capital_is_another_type() -> None:
    with pytest.raises(WrongKeyError):
        decrypt(age_file(scrypt().replace(b"scrypt", b"Scrypt")))


# --- the payload ------------------------------------------------------------------------------

HEAD = header(x25519())
ONE = bytes(CHUNK)


@pytest.mark.parametrize(
    "chunks",
    [[b""], [b"x"], [ONE], [ONE, b"x"], [ONE, ONE], [ONE] * 16, [ONE] * 16 + [b"x"], [ONE] * 17],
)
def test_a_payload_that_keeps_the_rules_is_read(chunks: list[bytes]) -> None:
    file = HEAD + payload(*chunks)
    assert decrypt(file) == b"".join(chunks)
    assert decrypt(file, step=7777) == b"".join(chunks)


def test_a_nonce_that_is_missing_or_short_is_a_malformed_header() -> None:
    for size in (0, 1, 15):
        with pytest.raises(AgeFormatError, match="truncated"):
            decrypt(HEAD + NONCE[:size])


MIDDLE = chunk(0, ONE, final=False)
SECOND = chunk(1, b"end", final=True)


@pytest.mark.parametrize(
    ("chunks", "whole_chunks"),
    [
        pytest.param(b"", 0, id="no chunk"),
        pytest.param(chunk(0, b"", final=True)[:15], 0, id="a cut tag"),
        pytest.param(chunk(0, b"", final=False), 0, id="an empty chunk that is not final"),
        pytest.param(chunk(0, TEXT, final=False), 0, id="a short chunk that is not final"),
        pytest.param(chunk(1, TEXT, final=True), 0, id="a counter that begins at one"),
        pytest.param(chunk(0, TEXT, final=True)[:-16], 0, id="no tag"),
        pytest.param(chunk(0, TEXT, final=True)[:-1], 0, id="a tag cut by one"),
        pytest.param(chunk(0, TEXT, final=True) + b"x", 0, id="short garbage after a short end"),
        pytest.param(chunk(0, TEXT, final=True) + ONE * 2, 0, id="long garbage after a short end"),
        pytest.param(MIDDLE, 1, id="no final chunk"),
        pytest.param(MIDDLE + bytes(3), 1, id="a fragment after a full chunk"),
        pytest.param(MIDDLE + SECOND[:-1], 1, id="a cut final chunk"),
        pytest.param(MIDDLE + chunk(1, b"end", final=False), 1, id="a short last, not final"),
        pytest.param(MIDDLE + chunk(1, b"", final=True), 1, id="an empty final chunk"),
        pytest.param(MIDDLE + chunk(1, b"", final=False), 1, id="an empty chunk at the end"),
        pytest.param(MIDDLE + chunk(2, b"end", final=True), 1, id="a chunk left out"),
        pytest.param(MIDDLE + MIDDLE + SECOND, 1, id="a chunk twice"),
        pytest.param(SECOND + MIDDLE, 0, id="chunks in another order"),
        pytest.param(MIDDLE[:-1] + b"x" + SECOND, 0, id="a bad tag in the middle"),
        pytest.param(chunk(0, ONE, final=True) + b"x", 1, id="a byte after a full final chunk"),
        pytest.param(chunk(0, ONE, final=True) + ONE * 40, 1, id="much after a full final chunk"),
        pytest.param(
            chunk(0, ONE, final=True) + chunk(1, b"end", final=True), 1, id="two final chunks"
        ),
        pytest.param(
            chunk(0, ONE, final=True) + chunk(1, ONE, final=True), 1, id="two full final chunks"
        ),
        pytest.param(MIDDLE + SECOND + SECOND, 1, id="the end twice"),
        pytest.param(chunk(0, ONE + b"x", final=True), 0, id="a chunk that is too long"),
    ],
)
def test_only_what_authenticates_is_released(chunks: bytes, whole_chunks: int) -> None:
    file = HEAD + NONCE + chunks
    assert released(file) == ONE * whole_chunks
    with pytest.raises(DecryptionError):
        decrypt(file)


def test_a_payload_under_another_nonce_is_refused() -> None:
    assert released(HEAD + bytes(16) + payload(TEXT)[16:]) == b""


def test_a_bad_chunk_in_a_later_batch_is_refused_there() -> None:
    good = HEAD + payload(*[ONE] * 20)
    bad = bytearray(good)
    bad[len(HEAD) + 16 + 18 * (CHUNK + 16)] ^= 1
    assert released(bytes(bad)) == ONE * 18
