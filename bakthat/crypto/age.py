"""Write and read files in the age format, version 1.

The format is that of https://age-encryption.org/v1 (https://c2sp.org/age), with X25519 recipients
or a scrypt passphrase. Any age tool opens the files of :class:`EncryptWriter`, and
:class:`DecryptReader` opens the files that any age tool wrote for these, binary or armored::

    identity = generate_identity()
    with EncryptWriter(sink, recipients=[recipient_of(identity)]) as writer:
        writer.write(b"text")
    with DecryptReader(source, identities=[identity]) as reader:
        text = reader.read()

Both work in constant memory, some 3 MiB, whatever the size of the file; a passphrase takes
``2**work_factor`` KiB more for a moment at the beginning (256 MiB by default).
"""

from __future__ import annotations

import io
import os
import time
from collections.abc import Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Self

from bakthat.crypto import _age_keys as keys
from bakthat.crypto._age_header import MAX_HEADER_SIZE, encode_header
from bakthat.crypto._age_payload import (
    CHUNK_SIZE,
    NONCE_SIZE,
    SEALED_SIZE,
    TAG_SIZE,
    Opener,
    Sealer,
    chunk_error,
)
from bakthat.crypto._age_unlock import FileKeys, known_identities, read_start, refuse_bare_text
from bakthat.crypto._armor import without_armor
from bakthat.errors import CryptoError, DecryptionError, KeyFormatError, PasswordError
from bakthat.system.streams import Buffer, Sink, Source

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

__all__ = [
    "DecryptReader",
    "EncryptWriter",
    "FileKeys",
    "SharedHeader",
    "generate_identity",
    "identity_file",
    "parse_identities",
    "parse_identity",
    "parse_recipient",
    "recipient_of",
]

_BATCH = 16
"""Chunks that are written to a sink, or read from a source, at once: 1 MiB."""


def load() -> None:
    """Import the ciphers now instead of at the first use; this takes some 20 ms."""
    import cryptography.hazmat.primitives.asymmetric.x25519
    import cryptography.hazmat.primitives.ciphers.aead
    import cryptography.hazmat.primitives.kdf.hkdf  # noqa: F401


class SharedHeader:
    """An age header for two files that belong together, such as an archive and its index.

    With a passphrase, writing and reading both costs one scrypt instead of two. Each file has a
    nonce of its own, from which and from the file key its payload's key is derived, so no two
    payloads have one key (docs/explanation/threat-model.rst). It holds a secret: *file_key*, that
    of *encoded*.
    """

    def __init__(self, encoded: bytes, file_key: bytes) -> None:
        """*encoded* and *file_key* are those of a header that was opened: :attr:`FileKeys.last`."""
        self.encoded = encoded
        self.file_key = file_key

    @classmethod
    def make(
        cls,
        *,
        passphrase: str | None = None,
        recipients: Sequence[str] = (),
        work_factor: int = 18,
    ) -> Self:
        """Make a header with a new file key; arguments and errors as of :class:`EncryptWriter`."""
        file_key = os.urandom(keys.FILE_KEY_SIZE)
        stanzas = [
            recipient.wrap(file_key)
            for recipient in _recipients(passphrase, recipients, work_factor)
        ]
        encoded = encode_header(stanzas, file_key)
        if len(encoded) > MAX_HEADER_SIZE:
            raise CryptoError(
                f"{len(stanzas)} recipients are more than an age header can hold",
                hint="give fewer to --recipient, or as recipients in the profile",
            )
        return cls(encoded, file_key)


class EncryptWriter:
    """Encrypt the written bytes and pass them to *sink*, in pieces of about 1 MiB.

    *recipients* are public keys (``age1…``), *passphrase* is any text; exactly one of the two is
    given, or else *header*. *work_factor* is the base-two logarithm of the cost of trying a
    passphrase, 1 to 22.

    Only :meth:`close` makes the file complete: it writes the chunk that marks the end, without
    which no reader accepts the file. It never closes *sink*; the caller finishes or aborts that.
    As a context manager it closes, or aborts after an exception. It is not an ``io.IOBase``,
    whose destructor would close, and so authenticate, half a file.

    Raises KeyFormatError for an invalid recipient, PasswordError for an empty passphrase or when
    neither is given, TypeError when both are, ValueError for a work factor out of range.
    """

    def __init__(
        self,
        sink: Sink,
        *,
        passphrase: str | None = None,
        recipients: Sequence[str] = (),
        work_factor: int = 18,
        header: SharedHeader | None = None,
    ) -> None:
        if header is None:
            header = SharedHeader.make(
                passphrase=passphrase, recipients=recipients, work_factor=work_factor
            )
        elif passphrase is not None or recipients:
            raise TypeError("give a header, or a passphrase or recipients, not both")
        nonce = os.urandom(NONCE_SIZE)
        start = header.encoded + nonce
        self._sink = sink
        self._sealer = Sealer(header.file_key, nonce)
        # A full chunk waits here until further data shows that it is not the final one.
        self._waiting = memoryview(bytearray(CHUNK_SIZE))
        self._waiting_size = 0
        self._sealed = memoryview(bytearray(len(start) + _BATCH * SEALED_SIZE))
        self._sealed[: len(start)] = start
        self._sealed_size = len(start)
        self._state = "open"

    def write(self, data: Buffer, /) -> int:
        """Encrypt all of *data* and return its length in bytes; the caller may reuse the buffer.

        Raises what *sink* raises; the file can then only be aborted. Raises ValueError after close,
        abort or an error.
        """
        with memoryview(data) as view, view.cast("B") as octets:
            self._enter()
            self._write(octets)
            self._state = "open"
            return len(octets)

    def close(self) -> None:
        """Write the buffered bytes and the final chunk; *sink* stays open.

        A second call does nothing. Raises what *sink* raises, and ValueError when the writer was
        aborted or failed before: the file is then incomplete.
        """
        if self._state == "closed":
            return
        self._enter()
        self._seal(self._waiting[: self._waiting_size], final=True)
        self._flush()
        self._state = "closed"

    def abort(self) -> None:
        """Write nothing more, so that *sink* has no valid file.

        May be called again, and after :meth:`close` it does nothing. *sink* stays open.
        """
        if self._state != "closed":
            self._state = "aborted"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if exc_type is not None:
            self.abort()
        elif self._state != "aborted":
            self.close()

    def _enter(self) -> None:
        """Begin a step. After an exception in it, only abort is possible."""
        if self._state != "open":
            raise ValueError(f"the age writer is not open: {self._state}")
        self._state = "failed"

    def _write(self, data: memoryview) -> None:
        at = 0
        while at < len(data):
            if self._waiting_size == CHUNK_SIZE:
                self._seal(self._waiting, final=False)
                self._waiting_size = 0
            if self._waiting_size == 0 and len(data) - at > CHUNK_SIZE:
                self._seal(data[at : at + CHUNK_SIZE], final=False)
                at += CHUNK_SIZE
                continue
            start = self._waiting_size
            size = min(CHUNK_SIZE - start, len(data) - at)
            self._waiting[start : start + size] = data[at : at + size]
            self._waiting_size += size
            at += size

    def _seal(self, chunk: memoryview, *, final: bool) -> None:
        if len(self._sealed) - self._sealed_size < SEALED_SIZE:
            self._flush()
        target = self._sealed[self._sealed_size :]
        self._sealed_size += self._sealer.seal(chunk, target, final=final)

    def _flush(self) -> None:
        self._sink.write(self._sealed[: self._sealed_size])
        self._sealed_size = 0


class DecryptReader(io.BufferedIOBase):
    """Decrypt the age file that *source* holds, armored or not.

    *identities* are private keys (``AGE-SECRET-KEY-1…``); they and *passphrase* may both be given,
    and those that match the file are used. The constructor reads and checks the header; one that
    *file_keys* knows is not opened again. *source* is read, up to 1 MiB at once, and never closed;
    the caller closes it.

    It is a binary file that cannot seek, so tarfile and gzip accept it as ``fileobj``. What
    :meth:`read` returns is authenticated; only after ``b""`` is the file known to be complete.

    Raises AgeFormatError for a file that is not age or breaks the specification, WrongKeyError
    when no key matches, DecryptionError for an altered header, KeyFormatError for an invalid
    identity, PasswordError for an empty passphrase or without any key, and what *source* raises.
    """

    def __init__(
        self,
        source: Source,
        *,
        passphrase: str | None = None,
        identities: Sequence[str] = (),
        file_keys: FileKeys | None = None,
    ) -> None:
        self._failure: Exception | None = None
        self._plain = memoryview(b"")
        self._start = 0
        self._end = 0
        known = known_identities(passphrase, identities)
        self._source = without_armor(source)
        _, file_key, nonce = read_start(self._source, known, file_keys)
        self._opener = Opener(file_key, nonce)
        # One byte more than the chunks shows whether another chunk follows.
        self._sealed = memoryview(bytearray(_BATCH * SEALED_SIZE + 1))
        self._sealed_size = 0
        self._plain = memoryview(bytearray(_BATCH * CHUNK_SIZE))
        self._ended = False

    def readable(self) -> bool:
        """Return True."""
        return True

    def read(self, size: int | None = -1, /) -> bytes:
        """Return *size* bytes, all that are left if it is negative or None, and ``b""`` at the end.

        Fewer bytes mean the end of the file or a bad chunk after them; the next call shows which.
        Raises DecryptionError at the first chunk that was altered, reordered or cut off and for
        data after the last one, AgeFormatError for malformed armor, and what the source raises;
        then every further call raises the same.
        """
        everything = size is None or size < 0
        wanted = _BATCH * CHUNK_SIZE if size is None or size < 0 else size
        pieces: list[bytes] = []
        while wanted and self._fill(raising=everything or not pieces):
            piece = bytes(self._plain[self._start : min(self._end, self._start + wanted)])
            self._start += len(piece)
            if not everything:
                wanted -= len(piece)
            pieces.append(piece)
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def read1(self, size: int = -1, /) -> bytes:
        """Return up to *size* bytes, at most 1 MiB; raises as :meth:`read`."""
        if size < 0:
            size = _BATCH * CHUNK_SIZE
        if not size or not self._fill(raising=True):
            return b""
        return self.read(min(size, self._end - self._start))

    def readinto(self, target: WriteableBuffer, /) -> int:
        """Fill *target* and return the number of bytes; ends and raises as :meth:`read`."""
        with memoryview(target) as view, view.cast("B") as octets:
            filled = 0
            while filled < len(octets) and self._fill(raising=not filled):
                size = min(self._end - self._start, len(octets) - filled)
                octets[filled : filled + size] = self._plain[self._start : self._start + size]
                self._start += size
                filled += size
        return filled

    def close(self) -> None:
        """Stop reading; the source stays open. Data that was not read is not checked."""
        self._plain = memoryview(b"")
        self._start = self._end = 0
        super().close()

    def _fill(self, *, raising: bool) -> bool:
        """Return whether plaintext is buffered; decrypt more chunks if there is none.

        False at the end of the file. A failure is raised with *raising*; otherwise it gives False.
        """
        if self.closed:
            raise ValueError("the age reader is closed")
        if self._start == self._end and not self._ended and self._failure is None:
            try:
                self._open_batch()
            except Exception as exc:  # noqa: BLE001  # kept, so that every later call raises it
                self._failure = exc
            except BaseException:
                self.close()  # after an interrupt, the position in the source is unknown
                raise
        if self._start < self._end:
            return True
        if self._failure is not None and raising:
            raise self._failure
        return False

    def _open_batch(self) -> None:
        """Decrypt the next chunks; those before a bad one stay readable."""
        self._sealed_size += self._source.readinto(self._sealed[self._sealed_size :])
        size = self._sealed_size
        self._start = self._end = at = 0
        while size - at > SEALED_SIZE:
            self._open_middle(self._sealed[at : at + SEALED_SIZE])
            at += SEALED_SIZE
        if size < len(self._sealed):
            self._open_last(self._sealed[at:size])
            self._ended = True
        else:
            self._sealed[: size - at] = self._sealed[at:size]
            self._sealed_size = size - at

    def _open_middle(self, sealed: memoryview) -> None:
        if self._open(sealed, final=False):
            return
        if self._open(sealed, final=True):
            raise DecryptionError(
                f"data follows the final chunk of the age file, number {self._opener.counter}"
            )
        raise self._chunk_error("altered or reordered")

    def _open_last(self, sealed: memoryview) -> None:
        if len(sealed) < TAG_SIZE:
            raise self._chunk_error("truncated")
        if len(sealed) == TAG_SIZE and self._opener.counter:
            raise DecryptionError("the final chunk of the age file is empty")
        if self._open(sealed, final=True):
            return
        if len(sealed) == SEALED_SIZE and self._open(sealed, final=False):
            raise self._chunk_error("truncated")
        raise self._chunk_error("altered or truncated")

    def _open(self, sealed: memoryview, *, final: bool) -> bool:
        authentic = self._opener.open(sealed, self._plain[self._end :], final=final)
        if authentic:
            self._end += len(sealed) - TAG_SIZE
        return authentic

    def _chunk_error(self, how: str) -> DecryptionError:
        return chunk_error(self._opener.counter, how)


def generate_identity() -> str:
    """Return a new private key, ``AGE-SECRET-KEY-1…``, from the system's random numbers."""
    return keys.generate()


def recipient_of(identity: str) -> str:
    """Return the public key, ``age1…``, of a private key. Raises KeyFormatError."""
    return keys.X25519Identity(identity).recipient


def identity_file(identity: str, *, created: float) -> str:
    """Return the text of a file for a private key, as ``age-keygen`` writes it.

    *created* is when the key was made, in epoch seconds. Raises KeyFormatError.
    """
    date = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(created))
    return f"# created: {date}\n# public key: {recipient_of(identity)}\n{identity}\n"


def parse_recipient(text: str) -> str:
    """Check a public key and return it without the whitespace around it.

    Raises KeyFormatError, which quotes *text* unless it is a private key.
    """
    return str(keys.X25519Recipient(text))


def parse_identity(text: str) -> str:
    """Check a private key and return it without the whitespace around it.

    Raises KeyFormatError, which never quotes *text*.
    """
    keys.X25519Identity(text)
    return text.strip()


def parse_identities(text: str) -> list[str]:
    """Return the private keys in the text of an identity file, one or more.

    The format is that of age-keygen: a key a line, blank lines, and comments that begin with
    ``#``. Raises KeyFormatError, which names the line and never quotes it.
    """
    identities = []
    for number, line in enumerate(text.split("\n"), start=1):
        line = line.strip()
        if not line or line.startswith("#"):
            continue
        try:
            identities.append(parse_identity(line))
        except KeyFormatError as exc:
            raise KeyFormatError(
                f"line {number} of the identity file: {exc}", hint=exc.hint
            ) from exc
    if not identities:
        raise KeyFormatError(
            "the identity file holds no identity", hint="age-keygen -o FILE makes one"
        )
    return identities


def _recipients(
    passphrase: str | None, recipients: Sequence[str], work_factor: int
) -> list[keys.Recipient]:
    refuse_bare_text("recipients", recipients)
    if passphrase is not None and recipients:
        raise TypeError("give a passphrase or recipients, not both")
    if passphrase is not None:
        return [keys.ScryptPassphrase(passphrase, work_factor=work_factor)]
    if not recipients:
        raise PasswordError(
            "neither a passphrase nor recipients to encrypt to", hint="give one of the two"
        )
    return [keys.X25519Recipient(recipient) for recipient in recipients]
