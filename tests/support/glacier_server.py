"""A small Glacier for the tests: vaults, archives, parts, jobs, and a clock that tests move.

It refuses what https://docs.aws.amazon.com/amazonglacier/latest/dev/amazon-glacier-api.html says
that the service refuses. Archives are files, so that a test's memory does not hold them. It has
its own tree hash, written from the documentation and independently of the package's.
"""

from __future__ import annotations

import hashlib
import http.server
import json
import re
import shutil
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

MIB = 1024 * 1024
HOUR = 3600.0
TIER_SECONDS = {"Expedited": 240.0, "Standard": 4 * HOUR, "Bulk": 8 * HOUR}
INVENTORY_SECONDS = 4 * HOUR
JOB_LIFE = 24 * HOUR
"""How long the output of a job can be read."""
LARGEST_PART = 4096 * MIB


class RefusalError(Exception):
    """A request that the service answers with an error."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status, self.code, self.message = status, code, message


def invalid(message: str) -> RefusalError:
    return RefusalError(400, "InvalidParameterValueException", message)


def missing(message: str) -> RefusalError:
    return RefusalError(404, "ResourceNotFoundException", message)


def leaf_hashes(path: Path, start: int, stop: int) -> list[bytes]:
    leaves = []
    with path.open("rb") as stream:
        stream.seek(start)
        while start < stop:
            piece = stream.read(min(MIB, stop - start))
            leaves.append(hashlib.sha256(piece).digest())
            start += len(piece)
    return leaves


def root_of(leaves: list[bytes]) -> str:
    """Return the root in hex, by splitting at the largest power of two below the count."""
    if len(leaves) == 1:
        return leaves[0].hex()
    half = 1
    while half * 2 < len(leaves):
        half *= 2
    both = bytes.fromhex(root_of(leaves[:half])) + bytes.fromhex(root_of(leaves[half:]))
    return hashlib.sha256(both).hexdigest()


@dataclass
class Archive:
    path: Path
    description: str
    created: float
    tree_hash: str

    @property
    def size(self) -> int:
        return self.path.stat().st_size


@dataclass
class PartUpload:
    description: str
    part_size: int
    directory: Path
    created: float
    parts: dict[int, int] = field(default_factory=dict)
    """The size of each part in bytes, by its first byte."""
    archive_id: str = ""
    """The archive id once the upload was completed; completing it again returns it again."""


@dataclass
class Job:
    job_id: str
    action: str
    archive_id: str
    description: str
    tier: str
    created: float
    seconds: float
    size: int
    tree_hash: str
    output: Path
    inventory: dict[str, Any] | None = None
    """The parameters of an inventory job: its format, and the part of the list."""


@dataclass
class Vault:
    archives: dict[str, Archive] = field(default_factory=dict)
    deleted: set[str] = field(default_factory=set)
    uploads: dict[str, PartUpload] = field(default_factory=dict)
    jobs: dict[str, Job] = field(default_factory=dict)


@dataclass
class GlacierServer:
    """The service; *now* is its clock, in epoch seconds UTC."""

    directory: Path
    endpoint_url: str = ""
    access_key: str = "glacier-access-key"
    """The only access key that is accepted."""
    instant: bool = False
    """Jobs are ready at once."""
    has_expedited_capacity: bool = True
    has_inventory: bool = True
    """False for a vault that has not made its first inventory yet."""
    now: float = field(default_factory=time.time)
    vaults: dict[str, Vault] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    """The key or the action of every job that was begun; each one is charged."""
    requests: list[tuple[str, str]] = field(default_factory=list)
    reported_size: int | None = None
    """What jobs report as the bytes of every archive; None: the truth."""
    corrupt: set[str] = field(default_factory=set)
    """Archive ids whose output comes with a wrong byte."""
    lock: threading.RLock = field(default_factory=threading.RLock)

    def conf(self, **more: Any) -> dict[str, Any]:
        """Return a flat profile with a vault name of its own; the vault is not created."""
        return {
            "access_key": self.access_key,
            "secret_key": "glacier-secret-key",
            "glacier_endpoint_url": self.endpoint_url,
            "glacier_vault": f"bakthat-{uuid.uuid4().hex[:16]}",
            "default_destination": "glacier",
            **more,
        }

    def advance(self, *, hours: float) -> None:
        self.now += hours * HOUR

    def archives(self, vault: str) -> dict[str, Archive]:
        return self.vaults[vault].archives if vault in self.vaults else {}

    def uploads_under_way(self, vault: str) -> list[str]:
        found = self.vaults[vault].uploads if vault in self.vaults else {}
        return [upload_id for upload_id, upload in found.items() if not upload.archive_id]

    # Requests. Each method returns a status, headers and a body.

    def vault(self, name: str) -> Vault:
        if name not in self.vaults:
            raise missing(f"Vault not found for ARN: arn:aws:glacier:us-east-1:012:vaults/{name}")
        return self.vaults[name]

    def put_archive(self, vault: Vault, headers: Headers, body: bytes) -> Answer:
        description = described(headers)
        if not body:
            raise invalid("Invalid Content-Length: 0")
        path = self.directory / uuid.uuid4().hex
        path.write_bytes(body)
        check_hashes(headers, body)
        return self.store(vault, path, description)

    def store(self, vault: Vault, path: Path, description: str) -> Answer:
        archive_id = uuid.uuid4().hex * 4 + "-_AbCdEfGh"
        root = root_of(leaf_hashes(path, 0, path.stat().st_size))
        vault.archives[archive_id] = Archive(path, description, self.now, root)
        return 201, {"x-amz-archive-id": archive_id, "x-amz-sha256-tree-hash": root}, b""

    def delete_archive(self, vault: Vault, archive_id: str) -> Answer:
        if archive_id in vault.archives:
            vault.archives.pop(archive_id).path.unlink()
            vault.deleted.add(archive_id)
        elif archive_id not in vault.deleted:
            raise missing(f"The archive ID was not found: {archive_id}")
        return 204, {}, b""

    def begin_upload(self, vault: Vault, headers: Headers) -> Answer:
        size = int(headers.get("x-amz-part-size", "0"))
        count = size // MIB
        if size % MIB or count < 1 or count & (count - 1) or size > LARGEST_PART:
            raise invalid(f"Invalid part size: {size}. Part size must be a power of two MiB")
        upload_id = uuid.uuid4().hex * 2
        directory = self.directory / upload_id
        directory.mkdir()
        vault.uploads[upload_id] = PartUpload(described(headers), size, directory, self.now)
        return 201, {"x-amz-multipart-upload-id": upload_id}, b""

    def upload(self, vault: Vault, upload_id: str) -> PartUpload:
        if upload_id not in vault.uploads:
            raise missing(f"The upload ID was not found: {upload_id}")
        return vault.uploads[upload_id]

    def list_uploads(self, vault: Vault, query: dict[str, list[str]]) -> Answer:
        limit, begin = int(query.get("limit", ["50"])[0]), int(query.get("marker", ["0"])[0])
        under_way = [each for each in vault.uploads.items() if not each[1].archive_id]
        listed = [
            {
                "MultipartUploadId": upload_id,
                "ArchiveDescription": upload.description,
                "PartSizeInBytes": upload.part_size,
                "CreationDate": moment(upload.created),
            }
            for upload_id, upload in under_way[begin : begin + limit]
        ]
        more = str(begin + limit) if begin + limit < len(under_way) else None
        return 200, {}, json.dumps({"UploadsList": listed, "Marker": more}).encode()

    def list_parts(self, vault: Vault, upload_id: str, query: dict[str, list[str]]) -> Answer:
        upload = self.upload(vault, upload_id)
        limit, begin = int(query.get("limit", ["50"])[0]), int(query.get("marker", ["0"])[0])
        parts = [
            {"RangeInBytes": f"{start}-{start + size - 1}", "SHA256TreeHash": "0" * 64}
            for start, size in sorted(upload.parts.items())
        ]
        more = str(begin + limit) if begin + limit < len(parts) else None
        listed = {"MultipartUploadId": upload_id, "Parts": parts[begin : begin + limit]}
        return 200, {}, json.dumps({**listed, "Marker": more}).encode()

    def put_part(self, vault: Vault, upload_id: str, headers: Headers, body: bytes) -> Answer:
        upload = self.upload(vault, upload_id)
        match = re.fullmatch(r"bytes (\d+)-(\d+)/\*", headers.get("content-range", ""))
        if match is None:
            raise invalid("Invalid Content-Range")
        start, last = int(match[1]), int(match[2])
        if last - start + 1 != len(body):
            raise invalid("The Content-Range does not match the Content-Length")
        if start % upload.part_size or not 0 < len(body) <= upload.part_size:
            raise invalid(f"The part {start}-{last} does not fit parts of {upload.part_size}")
        if start // upload.part_size >= 10_000:
            raise invalid("More than 10000 parts")
        check_hashes(headers, body)
        (upload.directory / str(start)).write_bytes(body)
        upload.parts[start] = len(body)
        return 204, {"x-amz-sha256-tree-hash": headers["x-amz-sha256-tree-hash"]}, b""

    def complete(self, vault: Vault, upload_id: str, headers: Headers) -> Answer:
        upload = self.upload(vault, upload_id)
        if upload.archive_id:
            root = vault.archives[upload.archive_id].tree_hash
            answered = {"x-amz-archive-id": upload.archive_id, "x-amz-sha256-tree-hash": root}
            return 201, answered, b""
        position = 0
        for start in sorted(upload.parts):
            if start != position or position % upload.part_size:
                raise invalid(f"Missing part, or one that is too short, before byte {start}")
            position += upload.parts[start]
        if position != int(headers.get("x-amz-archive-size", "-1")):
            raise invalid("The archive size does not match the parts")
        whole = upload.directory / "whole"
        with whole.open("wb") as target:
            for start in sorted(upload.parts):
                with (upload.directory / str(start)).open("rb") as part:
                    shutil.copyfileobj(part, target)
                (upload.directory / str(start)).unlink()
        if root_of(leaf_hashes(whole, 0, position)) != headers.get("x-amz-sha256-tree-hash"):
            raise invalid("Checksum mismatch")
        answer = self.store(vault, whole, upload.description)
        upload.archive_id = answer[1]["x-amz-archive-id"]
        return answer

    def abort(self, vault: Vault, upload_id: str) -> Answer:
        upload = self.upload(vault, upload_id)
        if upload.archive_id:
            raise missing(f"The upload ID was not found: {upload_id}")
        shutil.rmtree(vault.uploads.pop(upload_id).directory)
        return 204, {}, b""

    def begin_job(self, vault: Vault, body: bytes) -> Answer:
        asked = json.loads(body or b"{}")
        kind, tier = asked.get("Type"), asked.get("Tier", "Standard")
        description = asked.get("Description", "")
        check_description(description)
        if kind == "archive-retrieval":
            if asked.get("ArchiveId") not in vault.archives:
                raise missing(f"The archive ID was not found: {asked.get('ArchiveId')}")
            if tier not in TIER_SECONDS:
                raise invalid(f"Invalid tier: {tier}")
            if tier == "Expedited" and not self.has_expedited_capacity:
                raise RefusalError(
                    503, "InsufficientCapacityException", "Expedited retrievals: no capacity now"
                )
            archive = vault.archives[asked["ArchiveId"]]
            output = self.directory / f"output-{uuid.uuid4().hex}"
            output.hardlink_to(archive.path)
            job = Job(
                "",
                "ArchiveRetrieval",
                asked["ArchiveId"],
                description,
                tier,
                self.now,
                TIER_SECONDS[tier],
                archive.size,
                archive.tree_hash,
                output,
            )
        elif kind == "inventory-retrieval":
            if not self.has_inventory:
                raise missing("No inventory is available for the vault")
            output = self.directory / f"inventory-{uuid.uuid4().hex}"
            limits = asked.get("InventoryRetrievalParameters") or {}
            wanted = {"Format": asked.get("Format", "JSON"), **limits}
            output.write_text(self.inventory_text(vault, wanted))
            size = output.stat().st_size
            job = Job(
                "",
                "InventoryRetrieval",
                "",
                description,
                "",
                self.now,
                INVENTORY_SECONDS,
                size,
                "",
                output,
                wanted,
            )
        else:
            raise invalid(f"Invalid job type: {kind}")
        job.job_id = uuid.uuid4().hex * 2 + "_-job"
        if self.instant:
            job.seconds = 0.0
        vault.jobs[job.job_id] = job
        self.asked.append(job.archive_id or job.action)
        return 202, {"x-amz-job-id": job.job_id}, b""

    def inventory_text(self, vault: Vault, wanted: dict[str, Any]) -> str:
        answer = self.inventory(vault)
        answer["ArchiveList"] = answer["ArchiveList"][: int(wanted.get("Limit") or 1_000_000)]
        if wanted["Format"] == "JSON":
            return json.dumps(answer)
        rows = [",".join(f'"{value}"' for value in each.values()) for each in answer["ArchiveList"]]
        return "\n".join(["ArchiveId,ArchiveDescription,CreationDate,Size,SHA256TreeHash", *rows])

    def inventory(self, vault: Vault) -> dict[str, Any]:
        return {
            "VaultARN": "arn",
            "InventoryDate": moment(self.now),
            "ArchiveList": [
                {
                    "ArchiveId": archive_id,
                    "ArchiveDescription": archive.description,
                    "CreationDate": moment(archive.created),
                    "Size": archive.size,
                    "SHA256TreeHash": archive.tree_hash,
                }
                for archive_id, archive in vault.archives.items()
            ],
        }

    def is_done(self, job: Job) -> bool:
        return self.now >= job.created + job.seconds

    def describe_job(self, job: Job) -> dict[str, Any]:
        done = self.is_done(job)
        answer: dict[str, Any] = {
            "JobId": job.job_id,
            "Action": job.action,
            "JobDescription": job.description or None,
            "CreationDate": moment(job.created),
            "Completed": done,
            "StatusCode": "Succeeded" if done else "InProgress",
            "CompletionDate": moment(job.created + job.seconds) if done else None,
        }
        if job.inventory is not None:
            answer["InventoryRetrievalParameters"] = job.inventory
        if job.archive_id:
            answer |= {
                "ArchiveId": job.archive_id,
                "ArchiveSizeInBytes": job.size
                if self.reported_size is None
                else self.reported_size,
                "ArchiveSHA256TreeHash": job.tree_hash,
                "SHA256TreeHash": job.tree_hash if done else None,
                "RetrievalByteRange": f"0-{job.size - 1}" if self.reported_size != 0 else None,
                "Tier": job.tier,
            }
        return answer

    def living_jobs(self, vault: Vault) -> dict[str, Job]:
        return {
            job_id: job
            for job_id, job in vault.jobs.items()
            if self.now < job.created + job.seconds + JOB_LIFE
        }

    def job(self, vault: Vault, job_id: str) -> Job:
        jobs = self.living_jobs(vault)
        if job_id not in jobs:
            raise missing(f"The job ID was not found: {job_id}")
        return jobs[job_id]

    def list_jobs(self, vault: Vault, query: dict[str, list[str]]) -> Answer:
        limit = int(query.get("limit", ["50"])[0])
        if not 1 <= limit <= 50:
            raise invalid(f"Invalid limit: {limit}")
        jobs = sorted(self.living_jobs(vault).values(), key=lambda job: job.created)
        begin = int(query.get("marker", ["0"])[0])
        more = str(begin + limit) if begin + limit < len(jobs) else None
        listed = [self.describe_job(job) for job in jobs[begin : begin + limit]]
        return 200, {}, json.dumps({"JobList": listed, "Marker": more}).encode()

    def job_output(self, vault: Vault, job_id: str, headers: Headers) -> Answer:
        job = self.job(vault, job_id)
        if not self.is_done(job):
            raise invalid(f"The job is not currently available for download: {job_id}")
        start, stop = 0, job.size
        answered: dict[str, str] = {}
        if "range" in headers:
            match = re.fullmatch(r"bytes=(\d+)-(\d+)", headers["range"])
            if match is None or int(match[1]) > int(match[2]) or int(match[1]) >= job.size:
                raise invalid(f"Invalid range: {headers['range']}")
            start, stop = int(match[1]), min(int(match[2]) + 1, job.size)
            answered["Content-Range"] = f"bytes {start}-{stop - 1}/{job.size}"
        with job.output.open("rb") as stream:
            stream.seek(start)
            body = bytearray(stream.read(stop - start))
        if job.archive_id and has_node(start, stop, job.size):
            answered["x-amz-sha256-tree-hash"] = root_of(leaf_hashes(job.output, start, stop))
        if job.archive_id in self.corrupt:
            body[len(body) // 2] ^= 1
        return (206 if "range" in headers else 200), answered, bytes(body)

    def route(
        self,
        method: str,
        path: list[str],
        query: dict[str, list[str]],
        headers: Headers,
        body: bytes,
    ) -> Answer:
        """Answer one request; *path* begins after the account."""
        if headers.get("x-amz-glacier-version") != "2012-06-01":
            raise RefusalError(400, "MissingParameterValueException", "x-amz-glacier-version")
        if f"{self.access_key}/" not in headers.get("authorization", ""):
            raise RefusalError(403, "UnrecognizedClientException", "The access key is invalid")
        if method == "PUT" and len(path) == 2:
            self.vaults.setdefault(path[1], Vault())
            return 201, {}, b""
        vault = self.vault(path[1])
        match method, path[2:]:
            case "GET", []:
                return 200, {}, json.dumps({"VaultName": path[1]}).encode()
            case "POST", ["archives"]:
                return self.put_archive(vault, headers, body)
            case "DELETE", ["archives", archive_id]:
                return self.delete_archive(vault, archive_id)
            case "POST", ["multipart-uploads"]:
                return self.begin_upload(vault, headers)
            case "GET", ["multipart-uploads"]:
                return self.list_uploads(vault, query)
            case "GET", ["multipart-uploads", upload_id]:
                return self.list_parts(vault, upload_id, query)
            case "PUT", ["multipart-uploads", upload_id]:
                return self.put_part(vault, upload_id, headers, body)
            case "POST", ["multipart-uploads", upload_id]:
                return self.complete(vault, upload_id, headers)
            case "DELETE", ["multipart-uploads", upload_id]:
                return self.abort(vault, upload_id)
            case "POST", ["jobs"]:
                return self.begin_job(vault, body)
            case "GET", ["jobs"]:
                return self.list_jobs(vault, query)
            case "GET", ["jobs", job_id]:
                return 200, {}, json.dumps(self.describe_job(self.job(vault, job_id))).encode()
            case "GET", ["jobs", job_id, "output"]:
                return self.job_output(vault, job_id, headers)
        raise RefusalError(404, "UnknownOperationException", f"{method} {path}")


Headers = dict[str, str]
Answer = tuple[int, dict[str, str], bytes]


def described(headers: Headers) -> str:
    description = headers.get("x-amz-archive-description", "")
    check_description(description)
    return description


def check_description(description: str) -> None:
    if len(description) > 1024:
        raise invalid("Invalid description: longer than 1024 characters")
    if not all(" " <= char <= "~" for char in description):
        raise invalid("Invalid description: only printable ASCII is allowed")


def check_hashes(headers: Headers, body: bytes) -> None:
    if headers.get("x-amz-content-sha256") != hashlib.sha256(body).hexdigest():
        raise invalid("Checksum mismatch: x-amz-content-sha256")
    leaves = [hashlib.sha256(body[n : n + MIB]).digest() for n in range(0, len(body), MIB)]
    if headers.get("x-amz-sha256-tree-hash") != root_of(leaves):
        raise invalid("Checksum mismatch: x-amz-sha256-tree-hash")


def has_node(start: int, stop: int, size: int) -> bool:
    """Return whether a node of the whole tree covers exactly these bytes, by walking down to it."""
    low, high = 0, -(-size // MIB)
    while True:
        if (low * MIB, min(high * MIB, size)) == (start, stop):
            return True
        if high - low <= 1:
            return False
        half = 1
        while half * 2 < high - low:
            half *= 2
        if start < (low + half) * MIB:
            high = low + half
        else:
            low += half


def moment(when: float) -> str:
    return datetime.fromtimestamp(when, UTC).isoformat(timespec="milliseconds")[:-6] + "Z"


class _Handler(http.server.BaseHTTPRequestHandler):
    """HTTP/1.0: a connection carries one request, so that no thread waits for a second one."""

    glacier: GlacierServer

    def _serve(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        headers = {name.lower(): value for name, value in self.headers.items()}
        url = urlsplit(self.path)
        path = [unquote(part) for part in url.path.strip("/").split("/")][1:]
        self.glacier.requests.append((self.command, self.path))
        try:
            with self.glacier.lock:
                status, answered, content = self.glacier.route(
                    self.command, path, parse_qs(url.query), headers, body
                )
        except RefusalError as exc:
            status, answered = exc.status, {}
            answer = {"code": exc.code, "message": exc.message, "type": "Client"}
            content = json.dumps(answer).encode()
        self.close_connection = True
        self.send_response_only(status)
        self.send_header("Date", self.date_time_string(int(self.glacier.now)))
        # Tests may announce more than is sent, as a connection that breaks off does.
        for name, value in {"Content-Length": str(len(content)), **answered}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)

    # http.server looks for methods of these names.
    do_GET = do_PUT = do_POST = do_DELETE = _serve  # noqa: N815  (its names, not ours)

    def log_message(self, format: str, *args: Any) -> None:
        """Log nothing."""


class _Server(http.server.ThreadingHTTPServer):
    daemon_threads = False
    request_queue_size = 64

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Log nothing: some tests make clients stop reading early."""


@contextmanager
def glacier_server(directory: Path, *, instant: bool = False) -> Iterator[GlacierServer]:
    """Serve vaults on a loopback port until the block ends; archives are kept in *directory*."""
    glacier = GlacierServer(directory, instant=instant)
    server = _Server(("127.0.0.1", 0), type("_Handler", (_Handler,), {"glacier": glacier}))
    glacier.endpoint_url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield glacier
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
