"""Prove that a bucket can be listed, written to, read and deleted from, and leave nothing behind.

A probe that could not be removed again is not stored. So a deletion and an abort are tried first,
on a key and an upload that do not exist. Where they are refused, or where versions or object lock
would keep the probe, only what leaves nothing is tried: an upload that is aborted, and reading a
key that does not exist.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from http import HTTPStatus
from typing import Any

from bakthat.backends.aws.client import answer_of
from bakthat.backends.aws.findings import MEND, Tried, clock_of, refused, try_request, unusable
from bakthat.backends.protection import NULL_VERSION
from bakthat.backends.s3.client import S3Client
from bakthat.backends.s3.download import open_object
from bakthat.backends.s3.examination.exposure import ENCRYPTION, other_owner_finding
from bakthat.backends.s3.examination.usage import UNKNOWN_THERE
from bakthat.backends.s3.upload import METADATA_KEY, checksum_headers, crc32, describe
from bakthat.errors import BakthatError, ContainerNotFoundError, NotFoundError, UnreachableError
from bakthat.policy.finding import CONTAINER, Finding, Verdict, advice, failed, good, problem
from bakthat.system.signals import held_back

CONTENT = b"bakthat doctor tries whether it can write here; this may be deleted\n"
_NO_UPLOAD = "0" * 32
"""The id of an upload that does not exist."""

_UNREMOVABLE = "the bucket has versions, and s3:DeleteObjectVersion is not allowed"


class BucketProof:
    """One proof, with the probe *key*, which nothing else has. *make_bucket* makes the bucket.

    *listed_prefix* is what sync lists: keys may be allowed to list other ones only.
    *storage_class* is that of backups, None for the storage's own. Without *deletes*, nothing that
    bakthat is configured for deletes from the bucket.
    """

    def __init__(
        self,
        client: S3Client,
        key: str,
        *,
        make_bucket: Callable[[], object],
        listed_prefix: str,
        storage_class: str | None,
        deletes: bool,
    ) -> None:
        self.findings: list[Finding] = []
        self._make_bucket = make_bucket
        self._listing: dict[str, Any] = {"Prefix": listed_prefix, "MaxKeys": 1}
        self._client = client
        self._key = key
        self._storage_class = storage_class
        self._deletes = deletes
        self._is_listable = False
        self._is_unconditional = False
        self._hint_of_unseen = ""
        """What to try where a setting of the bucket that could keep the probe is not known."""
        self._keeps_versions = False
        """Whether the bucket keeps versions, or may do so."""
        self._versions: list[str] = []
        """The versions to remove: those that were made."""

    def run(self, *, create: bool) -> list[Finding]:
        """Try everything; return the findings. With *create*, make a missing bucket first."""
        try:
            if self._is_usable(create=create):
                kept = self._why_kept()
                if kept:
                    self._read_nothing(kept)
                    self._try_parts(kept)
                elif self._store_and_remove():
                    self._try_parts("")
        except UnreachableError as exc:
            self._add(failed("connection", exc))
        return self.findings

    # Before anything is written

    def _is_usable(self, *, create: bool) -> bool:
        """Look whether there is a bucket, and whether the keys are known there."""
        listed = self._list()
        clock = clock_of(listed)
        if clock is not None:
            self._add(clock)
        if isinstance(listed.error, ContainerNotFoundError) and create:
            try:
                self._make_bucket()
            except UnreachableError:
                raise
            except BakthatError as exc:
                self._refused(CONTAINER, exc)
                return False
            self._add(good(CONTAINER, f"{self._client.shown} was made"))
            listed = self._list()
        error = listed.error
        if error is None:
            self._is_listable = True
            self._add(good("listing", f"{self._client.shown} can be listed"))
            return True
        if self._client.missing_action(error):
            other = other_owner_finding(self._client, "list_objects_v2", **self._listing)
            if other is not None:
                self._add(other)
                return False
            # The keys of one host may be allowed to list its own prefix only.
            if self._try("list_objects_v2", Prefix=self._key, MaxKeys=1).error is None:
                self._is_listable = True
                found = f"{self._client.shown} can be listed below the prefix of this host"
                self._add(good("listing", found))
            else:
                self._refused("listing", error)
            return True
        if not listed.is_about_clock:
            self._add(unusable(error))
        return False

    def _list(self) -> Tried:
        return self._try("list_objects_v2", **self._listing)

    def _why_kept(self) -> str:
        """Return why a probe could not be removed again without a trace; "" when it could."""
        versioning = self._try("get_bucket_versioning")
        unseen = self._why_unseen("versions", versioning)
        status = versioning.answer.get("Status")
        if status == "Suspended":  # SeaweedFS cannot remove what a deletion leaves there
            return "the bucket's versions are suspended, and a deletion leaves a mark"
        if status == "Enabled" or unseen:
            self._keeps_versions = True
            lock = self._try("get_object_lock_configuration")
            unseen = unseen or self._why_unseen("object lock", lock)
            if lock.error is not None and lock.status not in UNKNOWN_THERE:
                return unseen
            rule = lock.answer.get("ObjectLockConfiguration", {}).get("Rule", {})
            if rule.get("DefaultRetention"):
                self._hint_of_unseen = ""
                return "the bucket's object lock would keep a probe"
            # Of a new key there is no such version, so this changes nothing.
            if not self._remove_versions(NULL_VERSION):
                return unseen or _UNREMOVABLE
        # In a bucket with versions, the deletion leaves a mark.
        with held_back(f"finishing a request to {self._client.shown}"):
            deleted = self._try("delete_object", key=self._key)
            is_gone = self._remove_all_versions(_marker_of(deleted))
        if deleted.error is not None and not isinstance(deleted.error, NotFoundError):
            self._refused("deleting", deleted.error, self._verdict_of_deletion)
            return "a probe could not be deleted"
        if not is_gone:
            return _UNREMOVABLE
        return ""

    def _why_unseen(self, what: str, tried: Tried) -> str:
        """Return why it is not known whether the bucket has *what*; "" when it is known."""
        if tried.error is None or tried.status in UNKNOWN_THERE:
            return ""
        action = self._client.missing_action(tried.error)
        self._hint_of_unseen = tried.error.hint
        reason = f"{action} is not allowed" if action else str(tried.error)
        return f"it is not known whether the bucket has {what} ({reason})"

    @property
    def _verdict_of_deletion(self) -> Verdict:
        return Verdict.PROBLEM if self._deletes else Verdict.ADVICE

    # With a probe

    def _store_and_remove(self) -> bool:
        """Write, read and delete the probe; return whether it could be written."""
        is_written = False
        try:
            is_written = self._write()
            if is_written:
                self._read()
                self._write_again()
        finally:
            self._remove(is_written=is_written)
        return is_written

    def _write(self) -> bool:
        written = self._put()
        if written.error is not None and not _is_taken(written):
            self._refused("writing", written.error)
            return False
        # The key is random: if it is taken, an answer was lost, and the request was repeated.
        self._add(good("writing", "an object was written"))
        if written.error is None:
            self._check_encryption(written.answer)
        return True

    def _check_encryption(self, answer: Mapping[str, Any]) -> None:
        """Look whether an upload, or the beginning of one, is encrypted as the profile says."""
        sse = self._client.settings.sse
        if sse is None or any(each.topic == ENCRYPTION for each in self.findings):
            return
        try:
            self._client.check_encryption(self._key, answer)
        except BakthatError as exc:
            self._add(failed(ENCRYPTION, exc))
        else:
            self._add(good(ENCRYPTION, f"objects are stored with {sse}, as the profile says"))

    def _put(self) -> Tried:
        def remember() -> None:
            self._is_unconditional = True

        # So that it is known afterwards whether there is something to remove.
        with held_back(f"finishing a request to {self._client.shown}", mend=MEND):
            written = self._try(
                "put_object",
                key=self._key,
                Body=CONTENT,
                Metadata={METADATA_KEY: '{"probe":true}'},
                IfNoneMatch="*",
                before_unconditional=remember,
                **checksum_headers(crc32([CONTENT])),
            )
            if written.answer.get("VersionId"):
                self._versions.append(str(written.answer["VersionId"]))
        return written

    def _read(self) -> None:
        try:
            settings = self._client.settings
            size, ahead = settings.range_size, settings.read_ahead
            with open_object(
                self._client, self._key, 0, None, range_size=size, ahead=ahead
            ) as stream:
                content = stream.read()
            described = describe(self._key, self._client.call("head_object", key=self._key))
        except UnreachableError:
            raise
        except BakthatError as exc:
            self._refused("reading", exc)
            return
        if content != CONTENT:
            self._add(problem("reading", "the object came back altered"))
        elif not described.metadata:
            self._add(
                problem(
                    "reading",
                    "the object came back without its metadata, which says what a backup is",
                    "let the storage, or the proxy before it, keep headers x-amz-meta-*",
                )
            )
        else:
            self._add(good("reading", "the object came back as it was written"))

    def _write_again(self) -> None:
        """Write the probe a second time, on the condition that its key is free."""
        topic = "conditional writes"
        again = Tried({}) if self._is_unconditional else self._put()
        if _is_taken(again):
            self._add(good(topic, "the storage refuses to overwrite an object (If-None-Match)"))
        elif again.error is None:
            self._add(
                advice(
                    topic,
                    "the storage overwrites an object in spite of If-None-Match; bakthat looks "
                    "before it writes, but two hosts could meet in one name",
                    'give each host keys of its own, with prefix: "{host}/" in the profile',
                )
            )
        else:
            self._add(failed(topic, again.error, Verdict.ADVICE))

    def _remove(self, *, is_written: bool) -> None:
        where = f"{self._key!r} in {self._client.shown}"
        with held_back(f"removing {where}", mend=MEND):
            try:
                deleted = self._try("delete_object", key=self._key)
                is_gone = self._remove_all_versions(*self._versions, _marker_of(deleted))
            except UnreachableError as exc:
                self._add(advice("deleting", f"{where} may be left behind: {exc}", MEND))
                return
        error = deleted.error
        if error is not None and not isinstance(error, NotFoundError):
            self._add(
                Finding(
                    "deleting",
                    self._verdict_of_deletion,
                    f"{where} could not be removed: {error}",
                    error.hint,
                )
            )
        elif not is_gone:
            self._add(
                advice(
                    "deleting",
                    f"{where} was deleted, but the bucket keeps an old version of it",
                    "let a lifecycle rule of the bucket expire noncurrent versions",
                )
            )
        elif is_written:
            self._add(good("deleting", "the object was deleted"))
        else:
            self._add(good("deleting", "deleting is allowed"))

    def _remove_versions(self, *versions: str) -> bool:
        """Remove versions of the probe; return whether all are gone."""
        tries = [
            self._try("delete_object", key=self._key, VersionId=each)
            for each in filter(None, versions)
        ]
        return all(each.error is None or each.status == HTTPStatus.NOT_FOUND for each in tries)

    def _remove_all_versions(self, *known: str) -> bool:
        """Remove versions of the probe, those too whose request was answered by nothing."""
        is_gone = self._remove_versions(*known)
        if not self._keeps_versions:
            return is_gone
        listed = self._try("list_object_versions", Prefix=self._key).answer
        left = [*listed.get("Versions", ()), *listed.get("DeleteMarkers", ())]
        ids = [str(each.get("VersionId") or "") for each in left if each.get("Key") == self._key]
        return self._remove_versions(*ids) and is_gone

    # Without a trace

    def _read_nothing(self, kept: str) -> None:
        """Read a key that does not exist, which is refused where reading is."""
        error = self._try("get_object", key=self._key).error
        if isinstance(error, NotFoundError):
            self._add(good("reading", f"reading is allowed; no object was stored, since {kept}"))
        elif error is not None and self._is_listable:
            self._refused("reading", error)
        else:  # without the right to list, S3 does not say whether a key exists
            self._add(advice("reading", f"not tried, since {kept}"))
        if not any(each.topic == "deleting" for each in self.findings):
            self._add(advice("deleting", f"not tried, since {kept}", self._hint_of_unseen))

    def _try_parts(self, kept: str) -> None:
        """Begin an upload, send a part, list it and abort it."""
        topic = "multipart upload"
        aborted = self._try("abort_multipart_upload", key=self._key, UploadId=_NO_UPLOAD)
        if aborted.error is not None and (action := self._client.missing_action(aborted.error)):
            detail = f"not tried: {action} is not allowed, so that parts would be left behind"
            self._add(advice(topic, detail, aborted.error.hint))
            if kept:
                self._write_nothing(kept)
            return
        upload_id = ""
        try:
            with held_back(f"finishing a request to {self._client.shown}", mend=MEND):
                begun = self._try(
                    "create_multipart_upload",
                    key=self._key,
                    ChecksumAlgorithm="CRC32",
                    **({"StorageClass": self._storage_class} if self._storage_class else {}),
                )
                upload_id = str(begun.answer.get("UploadId") or "")
            if upload_id:
                self._check_encryption(begun.answer)
            sent = self._send_part(upload_id) if upload_id else begun
            if sent.error is None and upload_id:
                self._add(good(topic, "an upload was begun, got a part, and was aborted"))
                if kept:
                    detail = f"a part was written; no object was stored, since {kept}"
                    self._add(good("writing", detail))
                self._look_for(upload_id)
            elif sent.error is not None:
                is_class = answer_of(sent.error)[1] == "InvalidStorageClass"
                self._refused("storage class" if is_class else topic, sent.error)
        finally:
            self._abort(upload_id)

    def _write_nothing(self, kept: str) -> None:
        """Send a part of an upload that does not exist, which is refused where writing is."""
        error = self._send_part(_NO_UPLOAD).error
        if error is not None and answer_of(error)[0] == HTTPStatus.NOT_FOUND:
            self._add(good("writing", f"writing is allowed; no object was stored, since {kept}"))
        elif error is not None and self._client.missing_action(error):
            self._refused("writing", error)
        else:
            self._add(advice("writing", f"not tried, since {kept}, nor could parts be removed"))

    def _send_part(self, upload_id: str) -> Tried:
        return self._try(
            "upload_part",
            key=self._key,
            UploadId=upload_id,
            PartNumber=1,
            Body=CONTENT,
            **checksum_headers(crc32([CONTENT])),
        )

    def _look_for(self, upload_id: str) -> None:
        """Look whether unfinished uploads and their parts are listed, which cleanup needs."""
        topic = "unfinished uploads"
        listed = self._try("list_multipart_uploads", Prefix=self._key)
        parts = self._try("list_parts", key=self._key, UploadId=upload_id)
        error = listed.error or parts.error
        ids = {str(each.get("UploadId")) for each in listed.answer.get("Uploads", ())}
        if error is not None:
            action = self._client.missing_action(error)
            detail = f"{action} is not allowed: {error}" if action else str(error)
            self._add(advice(topic, f"bakthat cleanup cannot look for them: {detail}", error.hint))
        elif upload_id not in ids:
            self._add(
                advice(
                    topic,
                    "the storage does not list them, so bakthat cleanup cannot remove those that "
                    "killed backups leave behind",
                    "let a lifecycle rule of the bucket abort them after some days",
                )
            )
        else:
            self._add(good(topic, "they are listed, so bakthat cleanup finds them"))

    def _abort(self, upload_id: str) -> None:
        """Abort the upload, and those whose beginning was answered by nothing."""
        with held_back(f"aborting an upload to {self._client.shown}", mend=MEND):
            try:
                if upload_id:
                    self._try("abort_multipart_upload", key=self._key, UploadId=upload_id)
                listed = self._try("list_multipart_uploads", Prefix=self._key)
                for each in listed.answer.get("Uploads", ()):
                    if each.get("Key") == self._key:  # some storages ignore the prefix
                        left = str(each.get("UploadId"))
                        self._try("abort_multipart_upload", key=self._key, UploadId=left)
            except UnreachableError as exc:
                detail = f"an upload to {self._client.shown} may be left behind: {exc}"
                self._add(advice("multipart upload", detail, MEND))

    # Shared

    def _try(self, operation: str, *, key: str | None = None, **parameters: Any) -> Tried:
        return try_request(self._client, operation, key=key, **parameters)

    def _add(self, finding: Finding) -> None:
        self.findings.append(finding)

    def _refused(self, topic: str, error: BakthatError, verdict: Verdict = Verdict.PROBLEM) -> None:
        """Add the finding for an error."""
        self._add(refused(self._client, topic, error, verdict))


def _is_taken(written: Tried) -> bool:
    """Return whether a write was refused because its key was taken."""
    return (
        written.error is not None and answer_of(written.error)[0] == HTTPStatus.PRECONDITION_FAILED
    )


def _marker_of(deleted: Tried) -> str:
    """Return the version of the mark that a deletion has left; "" for none."""
    return str(deleted.answer.get("VersionId") or "")
