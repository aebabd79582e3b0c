"""Write archives to a vault, and read the output of a job."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from bakthat.backends.aws.client import answer_of
from bakthat.backends.aws.part_buffer import PartBuffer
from bakthat.backends.aws.part_plan import PartPlan
from bakthat.backends.aws.part_upload import PartUpload
from bakthat.backends.aws.ranged_reader import RangedReader, extent_of
from bakthat.backends.base import StoredObject
from bakthat.backends.glacier.client import Description, GlacierClient, part_body
from bakthat.backends.glacier.inventory import VaultRecords, described_object
from bakthat.backends.glacier.tree_hash import join_hashes, tree_hash, tree_hash_of
from bakthat.errors import BakthatError, KeyExistsError, NotFoundError, StorageError

log = logging.getLogger(__name__)

_ALTERED = "try again; if it happens again, check the memory of this machine and the network"
_PLACEHOLDER = b"\0"
"""The content stored for an object without bytes, since Glacier refuses empty archives."""


class GlacierUpload(PartUpload):
    """An upload to a vault; see :class:`~bakthat.backends.base.Upload`.

    A vault has no names, so the inventory decides whether a key exists.
    """

    def __init__(
        self,
        client: GlacierClient,
        records: VaultRecords,
        description: Description,
        *,
        plan: PartPlan,
        workers: int,
        replace: bool,
    ) -> None:
        super().__init__(description.key, plan=plan, workers=workers)
        self._client = client
        self._records = records
        self._description = description
        # Check before sending: the longer of the two forms must not be too long.
        _of_empty(description).encode()
        self._replace = replace
        if not replace and self._key in records.inventory:
            raise self._key_exists_error()

    def _begin(self) -> str:
        answer = self._client.call(
            "initiate_multipart_upload",
            archiveDescription=self._description.encode(),
            partSize=str(self._plan.part_size),
        )
        return self._client.answer_member(answer, "uploadId")

    def _upload_part(self, number: int, start: int, part: PartBuffer) -> dict[str, Any]:
        digest = tree_hash_of(part.pieces())
        with part_body(part) as body:
            answer = self._client.call(
                "upload_multipart_part",
                key=self._key,
                cancelled=self._cancelled,
                uploadId=self._upload_id,
                checksum=digest.hex(),
                range=f"bytes {start}-{start + part.filled - 1}/*",
                body=body,
            )
        if answer.get("checksum") != digest.hex():
            raise StorageError(
                f"part {number} of {self._key!r} was altered in transit", hint=_ALTERED
            )
        self._spare.append(part)
        return {"number": number, "digest": digest}

    def _publish_parts(self) -> StoredObject:
        self._parts.sort(key=lambda part: int(part["number"]))
        root = join_hashes([part["digest"] for part in self._parts])
        # A repeated request is safe: for some time it returns the same archive id again.
        answer = self._client.call(
            "complete_multipart_upload",
            key=self._key,
            uploadId=self._upload_id,
            archiveSize=str(self._sent),
            checksum=root.hex(),
        )
        return self._record(answer, self._description, self._sent, root.hex())

    def _publish_whole(self, part: PartBuffer) -> StoredObject:
        size = part.filled
        description = self._description if size else _of_empty(self._description)
        if not size:
            part.write(memoryview(_PLACEHOLDER))
        root = tree_hash_of(part.pieces()).hex()
        with part_body(part) as stream:
            answer = self._client.call(
                "upload_archive",
                archiveDescription=description.encode(),
                checksum=root,
                body=stream,
            )
        return self._record(answer, description, size, root)

    def _record(
        self, answer: Mapping[str, Any], description: Description, size: int, root: str
    ) -> StoredObject:
        """Record the archive that *answer* names; delete it when that fails."""
        archive_id = self._client.answer_member(answer, "archiveId")
        facts = {
            "key": self._key,
            "size": size,
            "date": time.time(),
            "tree_hash": root,
            "description": description.encode(),
            "vault": self._client.container,
        }
        try:
            if answer.get("checksum", root) != root:
                raise StorageError(f"{self._key!r} was altered in transit", hint=_ALTERED)
            self._records.archives[archive_id] = facts
            replaced = self._claim(archive_id)
        except BaseException:
            # An archive without a record would be charged, and never be found again.
            self._remove(archive_id)
            raise
        if replaced is not None:
            self._remove(replaced)
        return described_object(self._key, archive_id, facts)

    def _claim(self, archive_id: str) -> str | None:
        """Record the archive as that of the key; return the id of the archive that it replaces."""
        inventory = self._records.inventory
        if self._replace:
            replaced = inventory.get(self._key)
            inventory[self._key] = archive_id
            self._records.jobs.pop(self._key, None)
            return replaced
        if inventory.setdefault(self._key, archive_id) != archive_id:
            raise self._key_exists_error()
        return None

    def _remove(self, archive_id: str) -> None:
        try:
            self._client.call("delete_archive", key=self._key, archiveId=archive_id)
        except NotFoundError:
            return
        except BakthatError as exc:
            log.warning("archive %s remains in %s: %s", archive_id, self._client.shown, exc)
            return
        # The archive may have been removed because the records could not be written.
        with contextlib.suppress(BakthatError):
            self._records.archives[archive_id] = {"key": self._key, "deleted": time.time()}

    def _key_exists_error(self) -> KeyExistsError:
        return KeyExistsError(
            f"{self._client.shown} has {self._key!r} already; it was left as it is",
            hint="run it again: a later second makes another name",
        )

    def _abort_parts(self, upload_id: str) -> None:
        try:
            self._client.call("abort_multipart_upload", key=self._key, uploadId=upload_id)
        except BakthatError as exc:
            if answer_of(exc)[0] != 404:
                log.warning(
                    "parts of %s may remain in %s, upload %s: %s",
                    self._key,
                    self._client.shown,
                    upload_id,
                    exc,
                )


def _of_empty(description: Description) -> Description:
    """Return *description* for an object without bytes."""
    return replace(description, is_empty=True)


def output_size(client: GlacierClient, key: str, job_id: str) -> int:
    """Return the bytes of the output of a job, from the range of its first byte."""
    answer = client.call("get_job_output", key=key, jobId=job_id, range="bytes=0-0")
    answer["body"].close()
    return extent_of({"ContentRange": answer.get("contentRange")}, key)[2]


class JobReader(RangedReader):
    """The output of a retrieval job, in order.

    Ranges end at multiples of their size, a power of two in MiB, so each is a node of the tree.
    Glacier sends its hash, and a range with another hash is refused.
    """

    def __init__(
        self,
        client: GlacierClient,
        key: str,
        job_id: str,
        start: int,
        end: int,
        size: int,
        *,
        range_size: int,
        ahead: int,
    ) -> None:
        self._vault = client
        self._name = key
        self._job_id = job_id
        self._size = size
        self._hashes: dict[int, tuple[int, str]] = {}
        stop = min((start // range_size + 1) * range_size, end)
        first = self._request_output(start, stop)
        super().__init__(client, key, first, start, end, range_size=range_size, ahead=ahead)

    def _request_output(self, start: int, stop: int, **options: Any) -> dict[str, Any]:
        answer = self._vault.call(
            "get_job_output",
            key=self._name,
            jobId=self._job_id,
            range=f"bytes={start}-{stop - 1}",
            **options,
        )
        if answer.get("checksum"):
            self._hashes[start] = (stop, str(answer["checksum"]))
        whole = f"bytes 0-{self._size - 1}/{self._size}"
        return {"Body": answer["body"], "ContentRange": answer.get("contentRange") or whole}

    def _request(self, start: int, stop: int) -> dict[str, Any]:
        return self._request_output(start, stop, cancelled=self._cancelled)

    def _fetch(self, start: int, stop: int, answer: dict[str, Any] | None) -> bytearray:
        data = super()._fetch(start, stop, answer)
        expected = self._hashes.pop(start, None)
        if expected is not None and expected[0] == stop and tree_hash(data).hex() != expected[1]:
            raise StorageError(
                f"bytes {start} to {stop} of {self._name!r} were altered in transit",
                hint=_ALTERED,
            )
        return data
