"""The Glacier backend: tree hashes, parts of one size, jobs, lost answers."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from typing import Any

import pytest

from bakthat.backends import make_backend
from bakthat.backends.base import ThawState, ThawStatus
from bakthat.backends.glacier.backend import INVENTORY_JOB_KEY, GlacierBackend
from bakthat.backends.glacier.client import Description
from bakthat.backends.glacier.inventory import VaultRecords
from bakthat.backends.glacier.jobs import best_of
from bakthat.errors import (
    ConfigError,
    ContainerNotFoundError,
    CorruptArchiveError,
    CredentialsError,
    NotFoundError,
    NotReadyError,
    StorageError,
    UnreachableError,
    UsageError,
)
from tests.support.fault_proxy import Alter, Answer, Cut, FaultProxy, LoseAnswer, Reset, fault_proxy
from tests.support.glacier_server import GlacierServer
from tests.support.own_threads import own_threads
from tests.support.servers import GLACIER_PART, S3Server, free_port, glacier_backend

KEY = "my.20130604191055.tgz"


@pytest.fixture
def proxy(glacier: GlacierServer) -> Iterator[FaultProxy]:
    with fault_proxy(glacier.endpoint_url) as proxy:
        yield proxy


@pytest.fixture
def conf(glacier: GlacierServer, proxy: FaultProxy) -> dict[str, Any]:
    return glacier.conf(glacier_endpoint_url=proxy.endpoint_url)


@pytest.fixture
def backend(conf: dict[str, Any]) -> GlacierBackend:
    backend = glacier_backend(conf)
    backend.create_container()
    return backend


def test_the_hint_for_a_service_that_is_away_names_the_key_of_its_endpoint(
    conf: dict[str, Any],
) -> None:
    away = glacier_backend({**conf, "glacier_endpoint_url": f"http://127.0.0.1:{free_port()}"})
    with pytest.raises(UnreachableError) as caught:
        away.check_container()
    assert caught.value.hint.startswith("check the host and port of glacier_endpoint_url, and")


def another(backend: GlacierBackend, records: VaultRecords | None = None) -> GlacierBackend:
    """Return the backend of another machine, with the same credentials and other records."""
    return glacier_backend(dict(backend.conf), records)


def put(backend: GlacierBackend, data: bytes = b"data", key: str = KEY) -> None:
    upload = backend.upload(key, metadata={"set": "my"}, size_hint=len(data))
    try:
        upload.write(data)
        upload.commit()
    finally:
        upload.abort()


def thaw(backend: GlacierBackend, tier: str = "standard") -> ThawStatus:
    return backend.thaw(KEY, tier=tier, days=1)


def get(backend: GlacierBackend) -> bytes:
    with backend.download(KEY) as stream:
        return stream.read()


def content(parts: float) -> bytes:
    pattern = bytes(range(251))
    size = int(parts * GLACIER_PART)
    return (pattern * (size // len(pattern) + 1))[:size]


def test_a_profile_without_a_vault_or_with_half_of_the_keys_names_what_is_missing() -> None:
    with pytest.raises(ConfigError, match="glacier_vault") as caught:
        make_backend("glacier", {"s3_bucket": "bucket"})
    assert "glacier_vault" in caught.value.hint
    with pytest.raises(ConfigError, match="secret_key"):
        make_backend("glacier", {"glacier_vault": "vault", "access_key": "AK"})


def test_the_endpoint_of_s3_is_not_used_for_glacier() -> None:
    backend = GlacierBackend(
        {"glacier_vault": "vault", "endpoint_url": "http://127.0.0.1:1", "region_name": "eu-west-1"}
    )
    assert backend._client.place == "in eu-west-1"


def test_a_small_object_takes_one_request_and_a_large_one_parts(
    backend: GlacierBackend, proxy: FaultProxy
) -> None:
    put(backend, content(1))
    assert (proxy.seen("POST", "/archives"), proxy.seen("POST", "multipart")) == (1, 0)
    put(backend, content(1) + b"x", "two.20130604191055.tgz")
    assert proxy.seen("PUT", "/multipart-uploads/") == 2


def test_an_archive_in_the_vault_has_its_description(
    backend: GlacierBackend, glacier: GlacierServer
) -> None:
    put(backend)
    (archive,) = glacier.archives(backend.container).values()
    assert Description.decode(archive.description) == Description(KEY, {"set": "my"})
    assert len(archive.description) <= 1024


def test_a_description_of_060_is_the_stored_name() -> None:
    assert Description.decode("my.20130604191055.tgz.enc").key == "my.20130604191055.tgz.enc"
    for foreign in ("[1]", '{"key": 3}', '"text"', "1"):
        assert Description.decode(foreign).key == ""


def test_an_object_without_bytes_is_stored_as_one_byte_and_needs_no_thaw(
    backend: GlacierBackend, glacier: GlacierServer
) -> None:
    put(backend, b"")
    (archive,) = glacier.archives(backend.container).values()
    assert archive.size == 1
    assert backend.stat(KEY).size == 0
    assert thaw(backend).state is ThawState.WARM
    assert get(backend) == b""
    assert glacier.asked == []


def test_a_part_that_arrived_altered_is_refused_and_nothing_stays(
    backend: GlacierBackend, glacier: GlacierServer, proxy: FaultProxy
) -> None:
    proxy.on("PUT", "multipart-uploads", Answer(204))  # without the hash that says what arrived
    with pytest.raises(StorageError, match="altered in transit"):
        put(backend, content(3))
    assert glacier.uploads_under_way(backend.container) == []
    assert glacier.archives(backend.container) == {}
    assert dict(backend.records.inventory) == {}


@pytest.mark.parametrize("size", [0.5, 3])
def test_an_archive_that_arrived_altered_is_refused_and_removed(
    backend: GlacierBackend, glacier: GlacierServer, proxy: FaultProxy, size: float
) -> None:
    proxy.on("POST", "", Alter({"x-amz-sha256-tree-hash": "0" * 64}))
    with pytest.raises(StorageError, match="altered in transit"):
        put(backend, content(size))
    assert glacier.archives(backend.container) == {}
    assert dict(backend.records.inventory) == {}


def test_a_description_of_too_many_characters_stores_nothing(
    backend: GlacierBackend, glacier: GlacierServer
) -> None:
    tags = "".join(hashlib.sha512(b"%d" % number).hexdigest() for number in range(20))
    with pytest.raises(StorageError, match="characters, more than 1024") as caught:
        backend.upload(KEY, metadata={"tags": [tags[at : at + 9] for at in range(0, 2560, 3)]})
    assert "shorter" in caught.value.hint
    assert glacier.archives(backend.container) == {}


@pytest.mark.parametrize("parts", [0.5, 3.5])
def test_an_upload_survives_connections_that_break_now_and_then(
    backend: GlacierBackend, glacier: GlacierServer, proxy: FaultProxy, parts: float
) -> None:
    glacier.instant = True
    proxy.on("PUT", "multipart-uploads/", Reset(), times=1)
    proxy.on("POST", "/archives", Reset(), times=1)
    put(backend, content(parts))
    thaw(backend)
    assert get(backend) == content(parts)


def test_an_answer_lost_after_the_parts_were_joined_makes_no_second_archive(
    backend: GlacierBackend, glacier: GlacierServer, proxy: FaultProxy
) -> None:
    proxy.on("POST", "/multipart-uploads/", LoseAnswer(), times=1)
    put(backend, content(2))
    (archive_id,) = glacier.archives(backend.container)
    assert dict(backend.records.inventory) == {KEY: archive_id}


def test_an_archive_that_cannot_be_recorded_is_deleted_again(
    conf: dict[str, Any], glacier: GlacierServer
) -> None:
    class Broken(dict[str, str]):
        def setdefault(self, *_: Any) -> str:
            raise StorageError("the disk is full")

    backend = glacier_backend(conf, VaultRecords(inventory=Broken()))
    backend.create_container()
    for parts in (0.5, 2):
        with pytest.raises(StorageError, match="disk is full"):
            put(backend, content(parts))
        assert glacier.archives(backend.container) == {}


def test_a_missing_vault_is_named_by_every_method_of_thaws(conf: dict[str, Any]) -> None:
    backend = glacier_backend({**conf, "glacier_vault": "missing"})
    with pytest.raises(ContainerNotFoundError, match="'missing'"):
        backend.thaw_status(KEY)
    with pytest.raises(ContainerNotFoundError, match="'missing'"):
        list(backend.thaws())
    backend.records.inventory[KEY] = "an-archive"
    with pytest.raises(ContainerNotFoundError, match="'missing'"):
        thaw(backend)


def test_keys_that_are_refused_are_an_error_of_credentials(conf: dict[str, Any]) -> None:
    backend = glacier_backend({**conf, "access_key": "another"})
    with pytest.raises(CredentialsError) as caught:
        backend.create_container()
    assert "access_key" in caught.value.hint


def test_a_new_customer_gets_a_hint_to_the_storage_class(
    glacier: GlacierServer, conf: dict[str, Any], proxy: FaultProxy
) -> None:
    proxy.on("PUT", "/vaults/", Answer(400, b'{"code": "PolicyEnforced", "message": "closed"}'))
    with pytest.raises(StorageError, match="closed") as caught:
        glacier_backend(conf).create_container()
    assert "storage_class: GLACIER" in caught.value.hint


# Thawing


def test_an_archive_is_frozen_then_asked_then_ready_then_frozen_again(
    backend: GlacierBackend, glacier: GlacierServer
) -> None:
    put(backend, content(2.5))
    assert backend.thaw_status(KEY).state is ThawState.FROZEN
    with pytest.raises(NotReadyError, match="thawed"):
        backend.download(KEY)
    begun = glacier.now
    assert thaw(backend).state is ThawState.ASKED
    waiting = backend.thaw_status(KEY)
    assert (waiting.state, waiting.tier) == (ThawState.ASKED, "standard")
    assert waiting.requested_at == pytest.approx(begun, abs=0.01)
    with pytest.raises(NotReadyError):
        backend.download(KEY)
    glacier.advance(hours=5)
    ready = backend.thaw_status(KEY)
    assert ready.state is ThawState.READY
    assert ready.ready_until == pytest.approx(begun + 28 * 3600, abs=0.01)
    assert get(backend) == content(2.5)
    glacier.advance(hours=24)
    assert backend.thaw_status(KEY).state is ThawState.FROZEN
    assert dict(backend.records.jobs) == {}
    assert len(glacier.asked) == 1
    assert thaw(backend).state is ThawState.ASKED
    assert len(glacier.asked) == 2


def test_a_thaw_is_requested_only_once(backend: GlacierBackend, glacier: GlacierServer) -> None:
    put(backend)
    for _ in range(3):
        thaw(backend)
    glacier.advance(hours=5)
    assert thaw(backend).state is ThawState.READY
    assert len(glacier.asked) == 1


def test_a_machine_that_shares_only_credentials_finds_the_job_and_reads_the_archive(
    backend: GlacierBackend, glacier: GlacierServer
) -> None:
    put(backend, content(1.5))
    thaw(backend, "bulk")
    elsewhere = another(backend)
    assert elsewhere.thaw_status(KEY).state is ThawState.ASKED
    assert thaw(elsewhere, "expedited").tier == "bulk"
    glacier.advance(hours=9)
    found = elsewhere.stat(KEY)
    assert (found.size, found.metadata) == (len(content(1.5)), {"set": "my"})
    assert get(elsewhere) == content(1.5)
    assert len(glacier.asked) == 1


def test_a_job_that_was_requested_but_not_recorded_is_found(
    backend: GlacierBackend, glacier: GlacierServer
) -> None:
    put(backend)
    thaw(backend)
    backend.records.jobs.clear()  # killed between the request and its record
    assert thaw(backend).state is ThawState.ASKED
    assert len(glacier.asked) == 1
    assert list(backend.records.jobs) == [KEY]


@pytest.mark.parametrize("fault", [LoseAnswer(), Reset()], ids=["after", "before"])
def test_a_request_that_is_charged_is_never_repeated_blindly(
    backend: GlacierBackend, glacier: GlacierServer, proxy: FaultProxy, fault: LoseAnswer | Reset
) -> None:
    put(backend)
    proxy.on("POST", "/jobs", fault, times=1)
    if isinstance(fault, LoseAnswer):
        assert thaw(backend).state is ThawState.ASKED
        assert len(glacier.asked) == 1
    else:
        with pytest.raises(UnreachableError):
            thaw(backend)
        assert glacier.asked == []
    assert proxy.seen("POST", "/jobs") == 1


def test_many_jobs_of_other_archives_hide_none(
    backend: GlacierBackend, glacier: GlacierServer
) -> None:
    put(backend)
    thaw(backend)
    for number in range(60):
        name = f"other{number}.20130604191055.tgz"
        put(backend, b"x", name)
        backend.thaw(name, tier="bulk", days=1)
    elsewhere = another(backend)
    assert len(list(elsewhere.thaws())) == 61
    assert [each.key for each in elsewhere.thaws("my")] == [KEY]
    assert elsewhere.thaw_status(KEY).state is ThawState.ASKED


def test_a_job_for_a_part_of_the_archive_is_not_taken_for_the_whole(
    backend: GlacierBackend, proxy: FaultProxy, glacier: GlacierServer
) -> None:
    put(backend)
    thaw(backend)
    (job,) = glacier.vaults[backend.container].jobs.values()
    described = glacier.describe_job(job) | {"RetrievalByteRange": "0-1"}
    body = json.dumps({"JobList": [described], "Marker": None}).encode()
    proxy.on("GET", "/jobs", Answer(200, body), times=1)
    backend.records.jobs.clear()
    assert backend.thaw_status(KEY).state is ThawState.FROZEN


def test_the_faster_of_two_running_jobs_is_waited_for() -> None:
    bulk = {"JobId": "bulk", "Tier": "Bulk", "CreationDate": "2013-06-04T01:00:00.000Z"}
    fast = {"JobId": "fast", "Tier": "Expedited", "CreationDate": "2013-06-04T02:00:00.000Z"}
    running = [{**job, "StatusCode": "InProgress"} for job in (bulk, fast)]
    best = best_of(running)
    assert best is not None
    assert best["JobId"] == "fast"


def test_the_job_to_read_from_or_to_wait_for_is_selected(
    backend: GlacierBackend, proxy: FaultProxy
) -> None:
    put(backend)
    archive_id = backend.records.inventory[KEY]

    def listed(*jobs: tuple[str, str, str, str | None]) -> ThawStatus:
        described = [
            {
                "JobId": job_id,
                "Action": "ArchiveRetrieval",
                "ArchiveId": archive_id,
                "ArchiveSizeInBytes": 4,
                "StatusCode": status,
                "CreationDate": f"2013-06-04T{created}:00:00.000Z",
                "CompletionDate": f"2013-06-04T{ended}:00:00.000Z" if ended else None,
            }
            for job_id, status, created, ended in jobs
        ]
        body = json.dumps({"JobList": described, "Marker": None}).encode()
        proxy.on("GET", "/jobs", Answer(200, body), times=1)
        backend.records.jobs.clear()
        return backend.thaw_status(KEY)

    running = ("running", "InProgress", "01", None)
    later = ("later", "InProgress", "02", None)
    failed = ("failed", "Failed", "03", "09")
    ended = ("ended", "Succeeded", "04", "05")
    newest = ("newest", "Succeeded", "00", "06")
    assert listed(failed).state is ThawState.FROZEN
    assert listed(failed, later, running).job_id == "running"
    assert listed(running, ended, failed).job_id == "ended"
    assert listed(ended, newest, later).job_id == "newest"
    assert listed(newest).ready_until == 1370412000.0  # a day after 2013-06-04 06:00


def test_a_refused_expedited_thaw_has_a_hint(
    backend: GlacierBackend, glacier: GlacierServer, proxy: FaultProxy
) -> None:
    glacier.has_expedited_capacity = False
    put(backend)
    with pytest.raises(StorageError, match="no capacity") as caught:
        thaw(backend, "expedited")
    assert "--tier standard" in caught.value.hint
    assert proxy.seen("POST", "/jobs") == 1
    with pytest.raises(UsageError, match="'fast'"):
        thaw(backend, "fast")


def test_an_archive_that_another_program_deleted_can_be_deleted_but_not_thawed(
    backend: GlacierBackend, glacier: GlacierServer
) -> None:
    put(backend)
    glacier.vaults[backend.container].archives.clear()
    with pytest.raises(NotFoundError, match="archive ID was not found"):
        thaw(backend)
    backend.delete(KEY)
    assert dict(backend.records.inventory) == {}
    assert not backend.is_unknown(KEY)


def test_deleting_removes_the_records_and_the_job(
    backend: GlacierBackend, glacier: GlacierServer
) -> None:
    glacier.instant = True
    put(backend)
    thaw(backend)
    backend.delete(KEY)
    assert (dict(backend.records.inventory), dict(backend.records.jobs)) == ({}, {})
    # The job still names the key, and yet it is gone.
    with pytest.raises(NotFoundError):
        backend.stat(KEY)


def test_the_error_for_an_unknown_archive_says_how_to_restore_the_inventory(
    backend: GlacierBackend,
) -> None:
    with pytest.raises(NotFoundError, match=KEY) as caught:
        backend.stat(KEY)
    assert "restore_glacier_inventory" in caught.value.hint
    assert "show_glacier_inventory" in caught.value.hint
    assert backend.is_unknown(KEY)


# Reading


def test_a_wrong_byte_is_noticed_by_the_tree_hash_of_its_range(
    backend: GlacierBackend, glacier: GlacierServer
) -> None:
    glacier.instant = True
    put(backend, content(3.5))
    thaw(backend)
    glacier.corrupt = set(glacier.archives(backend.container))
    with pytest.raises(StorageError, match="altered in transit"):
        get(backend)


def test_ranges_after_an_odd_beginning_are_checked_too(
    backend: GlacierBackend, glacier: GlacierServer
) -> None:
    glacier.instant = True
    put(backend, content(3.5))
    thaw(backend)
    with backend.download(KEY, start=7) as stream:
        assert stream.read() == content(3.5)[7:]
    glacier.corrupt = set(glacier.archives(backend.container))
    with backend.download(KEY, start=7) as stream, pytest.raises(StorageError, match="altered"):
        stream.read()


def test_an_archive_with_another_tree_hash_is_refused_before_reading(
    backend: GlacierBackend, glacier: GlacierServer
) -> None:
    glacier.instant = True
    put(backend, content(1))
    thaw(backend)
    (archive_id,) = backend.records.archives
    backend.records.archives[archive_id] = {
        **backend.records.archives[archive_id],
        "tree_hash": "00" * 32,
    }
    with pytest.raises(CorruptArchiveError, match="tree hash"):
        backend.download(KEY)


@pytest.mark.parametrize("knows_size", [True, False], ids=["recorded", "not recorded"])
@pytest.mark.parametrize("parts", [0.5, 1, 2.5])
def test_a_job_that_reports_no_bytes_is_not_believed(
    backend: GlacierBackend, glacier: GlacierServer, parts: float, knows_size: bool
) -> None:
    glacier.instant, glacier.reported_size = True, 0
    put(backend, content(parts))
    reader = another(backend, backend.records if knows_size else None)
    if not knows_size:
        reader.records.inventory.update(backend.records.inventory)
    reader.thaw(KEY, tier="standard", days=1)
    assert reader.thaw_status(KEY).state is ThawState.READY
    assert reader.stat(KEY).size in (len(content(parts)), -1)
    assert get(reader) == content(parts)


def test_a_job_that_reports_other_bytes_than_were_stored_says_so(
    backend: GlacierBackend, glacier: GlacierServer
) -> None:
    glacier.instant = True
    put(backend, content(2))
    thaw(backend)
    (archive_id,) = backend.records.archives
    recorded = {**backend.records.archives[archive_id], "size": 307_499}
    backend.records.archives[archive_id] = recorded
    with pytest.raises(CorruptArchiveError, match=r"by its job, but 307499 were stored"):
        backend.download(KEY)


@pytest.mark.slow
def test_reading_resumes_after_a_broken_connection(
    backend: GlacierBackend, glacier: GlacierServer, proxy: FaultProxy
) -> None:
    glacier.instant = True
    put(backend, content(2.5))
    thaw(backend)
    proxy.on("GET", "/output", Cut(1000), times=2)
    assert get(backend) == content(2.5)


def test_a_thaw_that_expires_while_reading_says_so_and_leaves_no_thread(
    backend: GlacierBackend, glacier: GlacierServer
) -> None:
    glacier.instant = True
    put(backend, content(30))
    thaw(backend)
    with backend.download(KEY) as stream:
        stream.read(10)
        glacier.advance(hours=25)
        with pytest.raises(NotReadyError, match="expired"):
            stream.read()
    assert own_threads() == []


# The vault's own inventory


def test_the_inventory_takes_hours_and_is_requested_once(
    backend: GlacierBackend, glacier: GlacierServer
) -> None:
    put(backend, content(1.5))
    put(backend, b"", "empty.20130604191055")
    assert backend.inventory_status().state is ThawState.FROZEN
    for _ in range(2):
        assert another(backend).request_inventory().state is ThawState.ASKED
    with pytest.raises(NotReadyError):
        backend.read_inventory(backend.inventory_status().job_id)
    glacier.advance(hours=5)
    state = another(backend).request_inventory()
    assert (state.key, state.state) == (INVENTORY_JOB_KEY, ThawState.READY)
    listed = {each.key: each for each in backend.read_inventory(state.job_id).archives}
    assert set(listed) == {KEY, "empty.20130604191055"}
    assert listed[KEY].size == len(content(1.5))
    assert listed["empty.20130604191055"].facts()["size"] == 0
    assert listed[KEY].date == pytest.approx(glacier.now - 5 * 3600, abs=1)
    assert glacier.asked == ["InventoryRetrieval"]


def test_a_vault_has_no_inventory_on_its_first_day(
    backend: GlacierBackend, proxy: FaultProxy
) -> None:
    body = b'{"code": "ResourceNotFoundException", "message": "no inventory", "type": "Client"}'
    proxy.on("POST", "/jobs", Answer(404, body))
    with pytest.raises(NotFoundError, match="has no inventory yet") as caught:
        backend.request_inventory()
    assert "tomorrow" in caught.value.hint


@pytest.mark.parametrize(
    "body", [b"", b"{", b"[]", b'{"ArchiveList": [{}]}', b'{"ArchiveList": 1}']
)
def test_an_inventory_that_cannot_be_read_is_an_error_of_the_storage(
    backend: GlacierBackend, glacier: GlacierServer, proxy: FaultProxy, body: bytes
) -> None:
    glacier.instant = True
    state = backend.request_inventory()
    proxy.on("GET", "/output", Answer(200, body))
    with pytest.raises(StorageError, match="inventory"):
        backend.read_inventory(state.job_id)


# A vault that no one here wrote; it knows no parts, and its jobs take seconds of real time.


def test_motos_vault_accepts_archives_and_jobs(moto_endpoint: S3Server) -> None:
    conf = {
        "access_key": moto_endpoint.access_key,
        "secret_key": moto_endpoint.secret_key,
        "glacier_endpoint_url": moto_endpoint.endpoint_url,
        "glacier_vault": "a-vault-of-moto",
    }
    backend = glacier_backend(conf)
    with pytest.raises(ContainerNotFoundError):
        list(backend.ls())
    backend.create_container()
    put(backend)
    assert [each.key for each in backend.ls()] == [KEY]
    asked = thaw(backend)
    assert asked.state is ThawState.ASKED
    assert thaw(another(backend, backend.records)).job_id == asked.job_id
    backend.delete(KEY)
    assert list(backend.ls()) == []
