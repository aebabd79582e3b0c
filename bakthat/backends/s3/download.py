"""Read one object from S3 in ranges."""

from __future__ import annotations

import io
from typing import Any, BinaryIO

from bakthat.backends.aws.client import answer_of
from bakthat.backends.aws.ranged_reader import PIECE, RangedReader, extent_of
from bakthat.backends.s3.client import S3Client
from bakthat.errors import StorageError


def open_object(
    client: S3Client, key: str, start: int, end: int | None, *, range_size: int, ahead: int
) -> BinaryIO:
    """Open bytes *start* to *end* (excluded, after *start*; None: the last) of *key*.

    At most ``ahead + 1`` ranges of *range_size* bytes are held in memory. The caller closes the
    returned stream. Raises NotFoundError, NotReadyError and other StorageErrors, as reading does.
    """
    stop = start + range_size if end is None else min(end, start + range_size)
    try:
        first = client.call("get_object", key=key, Range=f"bytes={start}-{stop - 1}")
    except StorageError as exc:
        # The object ends before *start*, or is empty.
        if answer_of(exc)[0] == 416:
            return io.BytesIO()
        raise
    return io.BufferedReader(
        S3Reader(client, key, first, start, end, range_size=range_size, ahead=ahead),
        buffer_size=PIECE,
    )


class S3Reader(RangedReader):
    """The bytes of an object in order; every range must be of the same version of the object."""

    def __init__(
        self,
        client: S3Client,
        key: str,
        first: dict[str, Any],
        start: int,
        end: int | None,
        *,
        range_size: int,
        ahead: int,
    ) -> None:
        self._etag: str | None = first.get("ETag")
        super().__init__(client, key, first, start, end, range_size=range_size, ahead=ahead)

    def _request(self, start: int, stop: int) -> dict[str, Any]:
        condition: dict[str, Any] = {"IfMatch": self._etag} if self._etag else {}
        try:
            answer = self._client.call(
                "get_object",
                key=self._key,
                cancelled=self._cancelled,
                Range=f"bytes={start}-{stop - 1}",
                **condition,
            )
        except StorageError as exc:
            if answer_of(exc)[0] == 412:
                raise self._replaced_error() from exc
            raise
        try:
            if answer.get("ETag") != self._etag:
                raise self._replaced_error()
            if extent_of(answer, self._key)[0] != start:
                raise StorageError(
                    f"the storage sent another range of {self._key!r} than requested",
                    hint="check endpoint_url: a proxy, or the storage itself, does not send what "
                    "is asked for",
                )
        except StorageError:
            answer["Body"].close()
            raise
        return answer

    def _replaced_error(self) -> StorageError:
        return StorageError(f"{self._key!r} was replaced while it was read", hint="try again")
