"""Store backups in a vault of Amazon Glacier.

A vault stores archives under ids of its own, and an archive can be read only hours after a
retrieval job was requested. :class:`VaultRecords` holds the archive of each key and the facts about
it.
"""

from __future__ import annotations

import io
import logging
import time
from collections.abc import Collection, Iterator, Mapping
from typing import Any, BinaryIO

from bakthat.backends.aws.answers import time_of
from bakthat.backends.aws.client import answer_of, foreign_errors
from bakthat.backends.aws.part_plan import doubled_plan
from bakthat.backends.aws.ranged_reader import PIECE
from bakthat.backends.aws.session import AwsSettings
from bakthat.backends.base import (
    BakthatBackend,
    Leftover,
    Metadata,
    StoredObject,
    ThawState,
    ThawStatus,
    check_key,
)
from bakthat.backends.glacier.client import Description, GlacierClient, epoch_seconds
from bakthat.backends.glacier.inventory import (
    VaultListing,
    VaultRecords,
    described_object,
    parse_listing,
)
from bakthat.backends.glacier.jobs import (
    INVENTORY,
    RETRIEVAL,
    best_of,
    has_succeeded,
    is_whole,
    reported_size,
    thaw_status_of,
)
from bakthat.backends.glacier.transfer import (
    GlacierUpload,
    JobReader,
    output_size,
)
from bakthat.backends.lock import Lock
from bakthat.errors import (
    ContainerNotFoundError,
    CorruptArchiveError,
    NotFoundError,
    NotReadyError,
    StorageError,
    UnreachableError,
    UsageError,
)
from bakthat.policy.storage_classes import VAULT, check_tier

log = logging.getLogger(__name__)

INVENTORY_JOB_KEY = "(inventory)"
"""The key in the :class:`ThawStatus` of a job for the vault's inventory; no archive has it."""


class GlacierBackend(BakthatBackend):
    """One vault; ``conf`` is a flat profile.

    It reads access_key and secret_key (both absent: botocore looks for keys), region_name,
    glacier_vault, glacier_endpoint_url, timeout and attempts. botocore is imported, and the storage
    contacted, by the first request. Without *records*, uploaded keys are known only as long as the
    backend exists.

    Memory: as for S3. All parts are equal, a power of two in MiB; 1 GiB when the size is not known.
    *settings* replaces the access keys, container, region, endpoint, attempts and timeouts of the
    profile; its ``part_size`` and ``range_size``, in bytes, are powers of two in MiB. If the answer
    to the upload of an archive smaller than a part is lost, a second copy of the archive stays in
    the vault. Raises ConfigError when glacier_vault, or one of the two access keys, is missing.
    """

    name = "glacier"

    def __init__(
        self,
        conf: Mapping[str, Any],
        records: VaultRecords | None = None,
        *,
        settings: AwsSettings | None = None,
    ) -> None:
        super().__init__(conf)
        self._settings = settings or self.settings_of(conf)
        self.container = self._settings.container
        self.records = VaultRecords() if records is None else records
        self._client = GlacierClient(self._settings)

    @staticmethod
    def settings_of(conf: Mapping[str, Any]) -> AwsSettings:
        """Return the settings in the flat profile *conf*. Raises ConfigError."""
        return AwsSettings.from_profile(
            conf, container="glacier_vault", endpoint_url="glacier_endpoint_url"
        )

    def check_container(self, keys: Collection[str] = ()) -> None:
        """Raise ContainerNotFoundError when the vault does not exist; *keys* are not looked for."""
        self._client.call("describe_vault")

    def create_container(self) -> None:
        """Create the vault in the profile's region; one that exists is no error."""
        try:
            self._client.call("create_vault")
        except StorageError as exc:
            exc.hint = exc.hint or (
                "AWS creates vaults only for accounts that had one before 2025-12-15; with any "
                "other, set default_destination: s3 and storage_class: GLACIER"
            )
            raise

    def upload(
        self,
        key: str,
        *,
        metadata: Metadata,
        size_hint: int | None = None,
        replace: bool = False,
        content_type: str | None = None,
        content_encoding: str | None = None,
        lock: Lock | None = None,
    ) -> GlacierUpload:
        """Begin to write *key*; see :class:`~bakthat.backends.base.Backend`."""
        check_key(key)
        return GlacierUpload(
            self._client,
            self.records,
            Description(key, metadata),
            plan=doubled_plan(size_hint, self._settings.part_size),
            workers=self._settings.upload_workers,
            replace=replace,
        )

    def download(self, key: str, *, start: int = 0, end: int | None = None) -> BinaryIO:
        """Open bytes *start* to *end* of *key*, which must be thawed.

        See :class:`~bakthat.backends.base.Backend`.
        """
        check_key(key)
        if start < 0:
            raise UsageError(f"a download cannot start at byte {start}")
        archive_id = self._archive_id(key)
        if self._is_empty(archive_id) or (end is not None and end <= start):
            return io.BytesIO()
        job = self._best_job(key, archive_id)
        if job is None or not has_succeeded(job):
            raise NotReadyError(
                f"{key!r} in {self._client.shown} must be thawed before it can be read",
                hint="bakthat restore requests its thaw; try again when it is ready",
            )
        self._check_hash(key, archive_id, job)
        size = self._size_of(key, archive_id, job)
        stop = size if end is None else min(end, size)
        if start >= stop:
            return io.BytesIO()
        return io.BufferedReader(
            JobReader(
                self._client,
                key,
                str(job["JobId"]),
                start,
                stop,
                size,
                range_size=self._settings.range_size,
                ahead=self._settings.read_ahead,
            ),
            buffer_size=PIECE,
        )

    def stat(self, key: str) -> StoredObject:
        """Return *key* as the records describe it, or else one of its retrieval jobs."""
        check_key(key)
        archive_id = self._archive_id(key)
        facts = self.records.archives.get(archive_id, {})
        if "size" not in facts and (job := self._best_job(key, archive_id)) is not None:
            facts = self._record(key, job)
        return described_object(key, archive_id, facts)

    def ls(self, prefix: str = "", *, indexes: bool = False) -> Iterator[StoredObject]:
        """Yield every archive of the inventory whose key begins with *prefix*; it has no index."""
        self._client.call("describe_vault")
        if indexes:
            return
        facts = dict(self.records.archives.items())
        for key, archive_id in list(self.records.inventory.items()):
            recorded = facts.get(archive_id, {})
            if key.startswith(prefix) and self._may_have(recorded):
                yield described_object(key, archive_id, recorded)

    def delete(self, key: str) -> None:
        """Remove *key* and its records. A missing key is not an error."""
        check_key(key)
        archive_id = self._recorded_archive(key)
        if archive_id is None:
            self._client.call("describe_vault")
            return
        try:
            self._client.call("delete_archive", key=key, archiveId=archive_id)
        except NotFoundError:
            log.debug("archive %s of %s was gone already", archive_id, key)
        self.records.archives[archive_id] = {"key": key, "deleted": time.time()}
        self.records.jobs.pop(key, None)
        self.records.inventory.pop(key, None)

    def is_unknown(self, key: str) -> bool:
        """Return whether *key* has no record, neither of an archive nor of a deleted one."""
        if self._recorded_archive(key) is not None:
            return False
        return not any(
            facts.get("key") == key and "deleted" in facts
            for facts in self.records.archives.values()
        )

    def leftovers(self, prefix: str = "") -> Iterator[Leftover]:
        """Yield every multipart upload that was neither completed nor aborted."""
        for page in self._client.pages("list_multipart_uploads"):
            now = time_of(page)
            for found in page.get("UploadsList", ()):
                key = Description.decode(found.get("ArchiveDescription")).key
                begun_at = epoch_seconds(found.get("CreationDate"))
                if key.startswith(prefix) and begun_at is not None:
                    upload_id = str(found["MultipartUploadId"])
                    yield Leftover(
                        "upload",
                        key,
                        begun_at,
                        now - begun_at,
                        handle=upload_id,
                        progress=f"{self._count_parts(upload_id)} parts",
                    )

    def _count_parts(self, upload_id: str) -> int:
        # A vault lists the parts without their times.
        try:
            pages = self._client.pages("list_parts", uploadId=upload_id)
            return sum(len(page.get("Parts", ())) for page in pages)
        except ContainerNotFoundError:  # a 404: the upload has ended meanwhile
            return 0

    def remove_leftover(self, leftover: Leftover) -> bool:
        """Abort a multipart upload, which removes its parts."""
        try:
            self._client.call("abort_multipart_upload", key=leftover.key, uploadId=leftover.handle)
        except NotFoundError:
            return False
        return True

    def forget_expired_jobs(self, keys: Collection[str], *, dry_run: bool = False) -> list[str]:
        """Remove the records of retrieval jobs of *keys* that have expired; return their keys."""
        recorded = {key: job for key, job in self.records.jobs.items() if key in keys}
        if not recorded:
            return []
        alive = {str(job["JobId"]) for job in self._jobs(RETRIEVAL)}
        expired = sorted(key for key, job_id in recorded.items() if job_id not in alive)
        for key in expired if not dry_run else ():
            self.records.jobs.pop(key, None)
        return expired

    # Thawing

    def thaw_status(self, key: str) -> ThawStatus:
        """Return the thaw status of *key*; see :class:`~bakthat.backends.base.ColdStorage`."""
        check_key(key)
        archive_id = self._archive_id(key)
        if self._is_empty(archive_id):
            return ThawStatus(key, ThawState.WARM)
        job = self._best_job(key, archive_id)
        if job is None:
            return ThawStatus(key, ThawState.FROZEN, VAULT)
        self._record(key, job)
        return thaw_status_of(key, job)

    def thaw(self, key: str, *, tier: str, days: int) -> ThawStatus:
        """Request a retrieval job of *key*; see :class:`~bakthat.backends.base.ColdStorage`.

        *days* has no effect: the output of a job can be read for a day.
        """
        status = self.thaw_status(key)
        if status.state is not ThawState.FROZEN:
            return status
        check_tier(VAULT, tier)
        archive_id = self._archive_id(key)
        facts = self.records.archives.get(archive_id, {})
        # The description tells a machine without the inventory which key the job is for.
        described = Description.decode(facts.get("description"))
        described = described if described.key == key else Description(key, {})
        job = {
            "Type": "archive-retrieval",
            "ArchiveId": archive_id,
            "Tier": tier.capitalize(),
            "Description": described.encode(),
        }
        try:
            job_id = self._begin_job(key, job)
        except NotFoundError as exc:
            exc.hint = (
                "another program, or bakthat on another machine, deleted it there; bakthat delete "
                "removes it from the catalog"
            )
            raise
        if job_id is None:
            return self.thaw_status(key)
        self.records.jobs[key] = job_id
        return ThawStatus(key, ThawState.ASKED, VAULT, tier, time.time(), job_id=job_id)

    def thaws(self, prefix: str = "") -> Iterator[ThawStatus]:
        """Yield the archives with a retrieval job, whoever requested it."""
        keys = {archive_id: key for key, archive_id in self.records.inventory.items()}
        facts = dict(self.records.archives.items())
        jobs_of: dict[str, list[Mapping[str, Any]]] = {}
        for job in self._jobs(RETRIEVAL):
            jobs_of.setdefault(str(job["ArchiveId"]), []).append(job)
        for archive_id, jobs in jobs_of.items():
            described = Description.decode(jobs[0].get("JobDescription"))
            key = keys.get(archive_id) or described.key or archive_id
            best = best_of(jobs)
            is_gone = "deleted" in facts.get(archive_id, {})
            if best is not None and key.startswith(prefix) and not is_gone:
                yield thaw_status_of(key, best)

    def _archive_id(self, key: str) -> str:
        """Return the archive id of *key*, from the records or a job. Raises NotFoundError."""
        archive_id = self._recorded_archive(key)
        if archive_id is not None:
            return archive_id
        for job in self._jobs(RETRIEVAL):
            described = Description.decode(job.get("JobDescription"))
            found = str(job["ArchiveId"])
            if described.key == key and "deleted" not in self.records.archives.get(found, {}):
                self._record(key, job)
                return self.records.inventory.setdefault(key, found)
        for facts in self.records.archives.values():
            if facts.get("key") == key and "deleted" in facts:
                date = time.strftime("%Y-%m-%d", time.gmtime(facts["deleted"]))
                raise NotFoundError(f"{key!r} was deleted from {self._client.shown} on {date}")
        raise NotFoundError(
            f"the archive of {key!r} in {self._client.shown} is not known here",
            hint="bakthat restore_glacier_inventory brings the inventory back from the bucket, "
            "bakthat show_glacier_inventory asks the vault for its own",
        )

    def _recorded_archive(self, key: str) -> str | None:
        archive_id = self.records.inventory.get(key)
        if archive_id is None or not self._may_have(self.records.archives.get(archive_id, {})):
            return None
        return archive_id

    def _may_have(self, facts: Mapping[str, Any]) -> bool:
        """Return whether an archive with *facts* may be in this vault."""
        return facts.get("vault") in (None, self.container)

    def _is_empty(self, archive_id: str) -> bool:
        return self.records.archives.get(archive_id, {}).get("size") == 0

    def _best_job(self, key: str, archive_id: str) -> Mapping[str, Any] | None:
        """Return the job to read *key* from, or to wait for; None when there is none."""
        recorded = self._recorded_job(key, archive_id)
        if recorded is not None and has_succeeded(recorded):
            return recorded
        listed = [job for job in self._jobs(RETRIEVAL) if job["ArchiveId"] == archive_id]
        best = best_of([*listed, recorded] if recorded is not None else listed)
        if best is not None:
            self.records.jobs[key] = str(best["JobId"])
        return best

    def _recorded_job(self, key: str, archive_id: str) -> Mapping[str, Any] | None:
        job_id = self.records.jobs.get(key)
        if job_id is None:
            return None
        try:
            job = self._client.call("describe_job", key=key, jobId=job_id)
        except (NotFoundError, NotReadyError):  # the job has expired
            self.records.jobs.pop(key, None)
            return None
        return job if job.get("ArchiveId") == archive_id and is_whole(job) else None

    def _jobs(self, action: str) -> Iterator[Mapping[str, Any]]:
        for page in self._client.pages("list_jobs"):
            for job in page.get("JobList", ()):
                if job.get("Action") == action and is_whole(job):
                    yield job

    def _begin_job(self, key: str, job: Mapping[str, Any]) -> str | None:
        """Request a job and return its id; None when the answer was lost, but the job exists.

        Each request that arrives is charged, so it is sent once.
        """
        try:
            answer = self._client.call("initiate_job", key=key, once=True, jobParameters=job)
        except StorageError as exc:
            is_lost = isinstance(exc, UnreachableError) or answer_of(exc)[0] in (500, 504)
            action = RETRIEVAL if "ArchiveId" in job else INVENTORY
            exists = is_lost and any(
                each.get("ArchiveId") == job.get("ArchiveId") for each in self._jobs(action)
            )
            if not exists:
                raise
            log.info("the answer was lost, but the job has begun")
            return None
        return self._client.answer_member(answer, "jobId")

    def _record(self, key: str, job: Mapping[str, Any]) -> Mapping[str, Any]:
        """Record the facts about the archive of *job*, unless there is a record; return it."""
        archive_id = str(job["ArchiveId"])
        known = self.records.archives.get(archive_id)
        if known is not None:
            return known
        described = Description.decode(job.get("JobDescription"))
        size = 0 if described.is_empty else reported_size(job)
        facts: dict[str, Any] = {
            "key": key,
            "tree_hash": str(job.get("ArchiveSHA256TreeHash") or ""),
            "description": described.encode() if described.key == key else key,
            "vault": self.container,
        }
        if size or described.is_empty:
            facts["size"] = size
        self.records.archives[archive_id] = facts
        return facts

    def _size_of(self, key: str, archive_id: str, job: Mapping[str, Any]) -> int:
        """Return the bytes of the output of *job*: those of the record, which are surer.

        Raises CorruptArchiveError when the job reports others.
        """
        recorded = self.records.archives.get(archive_id, {}).get("size")
        stored = recorded if isinstance(recorded, int) and recorded > 0 else 0
        reported = reported_size(job)
        if stored and reported and stored != reported:
            raise CorruptArchiveError(
                f"{key!r} in {self._client.shown} has {reported} bytes by its job, but {stored} "
                "were stored: it was replaced",
                hint="restore another backup: bakthat show lists them",
            )
        return stored or reported or output_size(self._client, key, str(job["JobId"]))

    def _check_hash(self, key: str, archive_id: str, job: Mapping[str, Any]) -> None:
        stored = self.records.archives.get(archive_id, {}).get("tree_hash")
        retrieved = job.get("ArchiveSHA256TreeHash")
        if stored and retrieved and stored != retrieved:
            raise CorruptArchiveError(
                f"{key!r} in {self._client.shown} was altered: its tree hash differs",
                hint="restore another backup: bakthat show lists them",
            )

    # The vault's own inventory

    def inventory_status(self) -> ThawStatus:
        """Return whether the vault's inventory was requested or is ready; request nothing."""
        best = best_of(list(self._jobs(INVENTORY)))
        if best is None:
            return ThawStatus(INVENTORY_JOB_KEY, ThawState.FROZEN)
        return thaw_status_of(INVENTORY_JOB_KEY, best)

    def request_inventory(self) -> ThawStatus:
        """Request the vault's inventory, unless it was requested; return the status afterwards."""
        status = self.inventory_status()
        if status.state is not ThawState.FROZEN:
            return status
        job = {"Type": "inventory-retrieval", "Format": "JSON"}
        try:
            job_id = self._begin_job(INVENTORY_JOB_KEY, job)
        except NotFoundError as exc:
            raise NotFoundError(
                f"{self._client.shown} has no inventory yet",
                hint="try again tomorrow: a vault makes its first one within a day of its first "
                "archive",
            ) from exc
        if job_id is None:
            return self.inventory_status()
        return ThawStatus(
            INVENTORY_JOB_KEY, ThawState.ASKED, requested_at=time.time(), job_id=job_id
        )

    def read_inventory(self, job_id: str) -> VaultListing:
        """Return the vault's inventory, the output of job *job_id*. Raises NotReadyError."""
        answer = self._client.call("get_job_output", key=INVENTORY_JOB_KEY, jobId=job_id)
        with answer["body"] as body:
            try:
                content = body.read()
            except foreign_errors() as exc:
                raise self._client.translated_error(exc, INVENTORY_JOB_KEY) from exc
        return parse_listing(content, self._client.shown)
