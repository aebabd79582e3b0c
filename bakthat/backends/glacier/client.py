"""Access a vault of Glacier: its errors translated to bakthat's, and archive descriptions."""

from __future__ import annotations

import base64
import contextlib
import io
import json
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any, BinaryIO

from bakthat.backends.aws.answers import one_line
from bakthat.backends.aws.client import AwsClient
from bakthat.backends.aws.part_buffer import PartBuffer
from bakthat.backends.base import Metadata, encode_metadata
from bakthat.errors import (
    BakthatError,
    ContainerNotFoundError,
    CredentialsError,
    NotFoundError,
    NotReadyError,
    StorageError,
)

DESCRIPTION_LIMIT = 1024
"""The most printable characters of a description, by
https://docs.aws.amazon.com/amazonglacier/latest/dev/api-archive-post.html."""

_PACKED = "bakthat+zlib+b85:"
"""The beginning of a description whose JSON would be too long. The JSON follows, compressed with
zlib and encoded as base85, as in git's binary patches."""
_LONGEST_JSON = 16 * DESCRIPTION_LIMIT

# Codes of https://docs.aws.amazon.com/amazonglacier/latest/dev/api-error-responses.html.
_CREDENTIALS_CODES = frozenset(
    {
        "AccessDeniedException",
        "ExpiredTokenException",
        "InvalidSignatureException",
        "MissingAuthenticationTokenException",
        "UnrecognizedClientException",
    }
)
_REFUSED_TIERS = {
    "InsufficientCapacityException": "there is no capacity for expedited thaws now: try again "
    "later, or use --tier standard",
    "PolicyEnforcedException": "the account's data retrieval policy forbids it: try again "
    "tomorrow, use --tier bulk, or change that policy",
}


class GlacierClient(AwsClient):
    """One vault."""

    service = "glacier"
    container_word = "vault"
    endpoint_key = "glacier_endpoint_url"
    profile_keys = "glacier_vault, region_name and glacier_endpoint_url"

    def _in_container(self, key: str | None) -> dict[str, Any]:
        # "-" is the account of the access keys.
        return {"accountId": "-", "vaultName": self.container}

    def _answer_error(self, exc: Any, key: str | None) -> BakthatError:
        detail = exc.response.get("Error", {})
        code, message = str(detail.get("Code", "")), one_line(detail.get("Message", ""))
        status = exc.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
        about = f"{key!r} in {self.shown}" if key is not None else self.shown
        if "vault not found" in message.lower() or (status == 404 and key is None):
            return ContainerNotFoundError(
                f"{self.shown} does not exist",
                hint=f"check {self.profile_keys}; the first backup makes the vault",
            )
        if status == 404 and "job id" in message.lower():
            return NotReadyError(
                f"the thaw of {about} has expired", hint="bakthat restore requests it again"
            )
        if status == 404:
            return NotFoundError(f"{self.shown} has no {key!r}: {message}")
        if "not currently available for download" in message:
            return NotReadyError(f"{about} is not thawed yet", hint="try again later")
        if code in _REFUSED_TIERS:
            return StorageError(f"{about}: {message or code}", hint=_REFUSED_TIERS[code])
        if status in (401, 403) or code in _CREDENTIALS_CODES:
            return CredentialsError(
                f"{self.shown} refused: {code} ({message})",
                hint=self._refusal_hint(exc, key),
            )
        return StorageError(f"{about}: the storage answered {status} {code} ({message})")


@contextlib.contextmanager
def part_body(part: PartBuffer) -> Iterator[BinaryIO | PartBody]:
    """Give *part* as a file object, which botocore needs for Glacier's requests, without a copy."""
    content = part.body()
    if not isinstance(content, bytearray):
        yield content
        return
    with PartBody(content) as body:
        yield body


class PartBody(io.RawIOBase):
    """A part in memory as a file object.

    The caller closes it before the size of the part's buffer changes.
    """

    def __init__(self, part: bytearray) -> None:
        super().__init__()
        self._view = memoryview(part)
        self._position = 0

    def __len__(self) -> int:
        return len(self._view)

    def readable(self) -> bool:
        """Return True."""
        return True

    def seekable(self) -> bool:
        """Return True: a repeated request reads the part again."""
        return True

    def readinto(self, buffer: Any, /) -> int:
        """Fill *buffer* with the next bytes, and return how many."""
        piece = self._view[self._position : self._position + len(buffer)]
        buffer[: len(piece)] = piece
        self._position += len(piece)
        return len(piece)

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        """Move to *offset*, counted as *whence* says; return the position."""
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: len(self._view)}[whence]
        self._position = base + offset
        return self._position

    def tell(self) -> int:
        """Return the position."""
        return self._position

    def close(self) -> None:
        """Release the part."""
        self._view.release()
        super().close()


@dataclass(frozen=True, slots=True)
class Description:
    """The content of the description of an archive or of a job."""

    key: str
    """The stored name; "" when the description is not bakthat's."""
    metadata: Metadata
    is_empty: bool = False
    """Whether the object has no bytes. Glacier refuses empty archives, so one byte is stored."""

    def encode(self) -> str:
        """Return the description as printable ASCII. Raises StorageError when it is too long."""
        fields = {"key": self.key, "about": dict(self.metadata)}
        text = encode_metadata(
            {**fields, "empty": True} if self.is_empty else fields, limit=_LONGEST_JSON
        )
        if len(text) <= DESCRIPTION_LIMIT:
            return text
        # ASCII JSON takes six characters for each that is not ASCII, and has the name twice.
        packed = _PACKED + base64.b85encode(zlib.compress(text.encode(), 9)).decode()
        if len(packed) > DESCRIPTION_LIMIT:
            raise StorageError(
                f"the description of {self.key!r} takes {len(packed)} characters, more than "
                f"{DESCRIPTION_LIMIT}",
                hint="use fewer or shorter tags, or a shorter name",
            )
        return packed

    @classmethod
    def decode(cls, text: str | None) -> Description:
        """Return the description in *text*; those of 0.6.0 are the stored name alone."""
        text = text or ""
        try:
            content = json.loads(_unpacked(text))
        except (ValueError, RecursionError):
            return cls(text, {})
        if not isinstance(content, dict) or not isinstance(content.get("key"), str):
            return cls("", {})
        about = content.get("about")
        metadata = about if isinstance(about, dict) else {}
        return cls(content["key"], metadata, bool(content.get("empty")))


def _unpacked(text: str) -> str:
    """Return the JSON of a description. Raises ValueError when the packed form is damaged."""
    if not text.startswith(_PACKED):
        return text
    try:
        return zlib.decompress(base64.b85decode(text.removeprefix(_PACKED))).decode()
    except zlib.error as exc:
        raise ValueError(str(exc)) from exc


def epoch_seconds(moment: str | None) -> float | None:
    """Return one of Glacier's dates, ISO 8601 in UTC, as epoch seconds; None when there is none."""
    try:
        return datetime.fromisoformat(moment).timestamp() if moment else None
    except ValueError:
        return None
