"""Restoring from cold storage in two steps: vaults, and the archive classes of S3."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import bakthat
from bakthat import models
from bakthat.backends.base import ThawState, ThawStatus
from bakthat.backends.glacier.backend import GlacierBackend
from bakthat.errors import (
    BakthatError,
    ConfigError,
    ContainerNotFoundError,
    CorruptArchiveError,
    NoMatchError,
    NotFoundError,
    StorageError,
    UnreachableError,
    UsageError,
)
from bakthat.session import cold as thawing
from tests.support.glacier_server import GlacierServer
from tests.support.indexes import forget_cache
from tests.support.profiles import Conf
from tests.support.servers import S3Server
from tests.support.thaw_proxy import ThawProxy, thaw_proxy

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def cheap_work(cheap_passphrases: None) -> None:
    """Spend no second on each passphrase."""


@pytest.fixture
def frozen_s3(moto_endpoint: S3Server) -> Iterator[ThawProxy]:
    with thaw_proxy(moto_endpoint.endpoint_url) as proxy:
        yield proxy


@dataclass
class Cold:
    """A cold storage under test."""

    conf: Conf
    storage_class: str
    advance: Callable[[float], None]
    """Moves the storage's clock, in hours."""
    paid: Callable[[], int]
    """How many thaws were begun."""
    set_capacity: Callable[[bool], None]


def vault(server: GlacierServer) -> Cold:
    def set_capacity(has: bool) -> None:
        server.has_expedited_capacity = has

    return Cold(
        server.conf(),
        "VAULT",
        lambda hours: server.advance(hours=hours),
        lambda: len(server.asked),
        set_capacity,
    )


def bucket(proxy: ThawProxy, server: S3Server, storage_class: str) -> Cold:
    def set_capacity(has: bool) -> None:
        proxy.has_expedited_capacity = has

    return Cold(
        server.conf(endpoint_url=proxy.endpoint_url, storage_class=storage_class),
        storage_class,
        lambda hours: proxy.advance(hours=hours),
        lambda: len(proxy.asked),
        set_capacity,
    )


@pytest.fixture(params=["VAULT", "GLACIER", "DEEP_ARCHIVE"])
def cold(request: pytest.FixtureRequest) -> Cold:
    if request.param == "VAULT":
        return vault(request.getfixturevalue("glacier"))
    proxy = request.getfixturevalue("frozen_s3")
    return bucket(proxy, request.getfixturevalue("moto_endpoint"), request.param)


@pytest.fixture
def tree(tree: Path) -> Path:
    (tree / "b.bin").write_bytes(os.urandom(50_000))
    return tree


def at_once(_seconds: float) -> None:
    """Wait for a storage that is ready at the next look."""


def another_machine(cold: Cold, tmp_path: Path) -> Conf:
    """Return a profile that shares credentials and containers, but no catalog."""
    return {**cold.conf, "database": str(tmp_path / "elsewhere.sqlite")}


@pytest.mark.parametrize("password", ["", "secret"])
def test_a_restore_requests_a_thaw_waits_and_restores(
    cold: Cold, tree: Path, out: Path, password: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "bakthat")
    made = bakthat.backup(tree, conf=cold.conf, password=password)
    caplog.clear()

    def restore() -> models.Backups | None:
        caplog.clear()
        return bakthat.restore("mydir", conf=cold.conf, output=out, password=password)

    assert restore() is None
    assert f"Requested the thaw of {made.stored_filename} ({cold.storage_class}" in caplog.text
    assert f"bakthat restore {made.stored_filename} -d {made.backend}" in caplog.text
    assert not out.exists()
    assert restore() is None
    assert f"{made.stored_filename} is thawing ({cold.storage_class}, tier standard)" in caplog.text
    assert "requested 0 minutes ago, expected by 2" in caplog.text
    assert cold.paid() == 1
    cold.advance(12)
    restored = restore()
    assert restored is not None
    assert restored.stored_filename == made.stored_filename
    assert (out / "mydir" / "a.txt").read_text() == "hello"
    assert (out / "mydir" / "b.bin").read_bytes() == (tree / "b.bin").read_bytes()
    assert cold.paid() == 1


def test_an_expired_thaw_is_requested_again_and_a_ready_one_is_not(
    cold: Cold, tree: Path, out: Path
) -> None:
    bakthat.backup(tree, conf=cold.conf, password="")
    assert bakthat.restore("mydir", conf=cold.conf, output=out, days=1) is None
    cold.advance(12)
    for _ in range(2):
        assert bakthat.restore("mydir", conf=cold.conf, output=out) is not None
    assert cold.paid() == 1
    cold.advance(25)
    assert bakthat.restore("mydir", conf=cold.conf, output=out) is None
    assert cold.paid() == 2


def test_a_thaw_requested_by_one_machine_serves_another(
    cold: Cold, tree: Path, out: Path, tmp_path: Path
) -> None:
    made = bakthat.backup(tree, conf=cold.conf, password="")
    assert bakthat.restore("mydir", conf=cold.conf, output=out) is None
    elsewhere = another_machine(cold, tmp_path)
    assert bakthat.restore(made.stored_filename, conf=elsewhere, output=out) is None
    cold.advance(12)
    assert bakthat.restore(made.stored_filename, conf=elsewhere, output=out) is not None
    assert (out / "mydir" / "a.txt").read_text() == "hello"
    assert cold.paid() == 1


def test_another_host_restores_by_the_stored_filename_of_the_first(
    cold: Cold, tree: Path, out: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    conf = {**cold.conf, "prefix": "backups/{host}/"}
    made = bakthat.backup(tree, conf=conf, password="")
    assert made.stored_filename.startswith(f"backups/{made.host}/mydir.")
    assert bakthat.restore("mydir", conf=conf, output=out) is None
    monkeypatch.setattr("socket.gethostname", lambda: "another-host")
    elsewhere = {**another_machine(cold, tmp_path), "prefix": "backups/{host}/"}
    (thaw,) = bakthat.thaws(conf=elsewhere)
    assert thaw.status.key == made.stored_filename
    cold.advance(12)
    restored = bakthat.restore(made.stored_filename, conf=elsewhere, output=out)
    assert restored is not None
    assert (restored.filename, restored.host) == ("mydir", made.host)
    assert (out / "mydir" / "a.txt").read_text() == "hello"
    assert cold.paid() == 1


def test_a_thaw_requested_but_not_recorded_is_found(
    cold: Cold, tree: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bakthat.backup(tree, conf=cold.conf, password="")

    def die(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("bakthat.session.records.CatalogMapping.__setitem__", die)
        with pytest.raises(KeyboardInterrupt):
            bakthat.restore("mydir", conf=cold.conf, output=out)
    assert cold.paid() == 1
    assert bakthat.restore("mydir", conf=cold.conf, output=out) is None
    cold.advance(12)
    assert bakthat.restore("mydir", conf=cold.conf, output=out) is not None
    assert cold.paid() == 1


def test_events_fire_only_around_a_restore_that_happens(
    cold: Cold, tree: Path, out: Path, fired: list[tuple[Any, ...]]
) -> None:
    bakthat.backup(tree, conf=cold.conf, password="")
    fired.clear()
    bakthat.restore("mydir", conf=cold.conf, output=out)
    bakthat.restore("mydir", conf=cold.conf, output=out)
    bakthat.thaw_status("mydir", conf=cold.conf)
    assert fired == []
    cold.advance(12)
    bakthat.restore("mydir", conf=cold.conf, output=out)
    assert [call[0] for call in fired] == ["before_restore", "on_restore"]


def test_the_status_of_a_thaw_requests_nothing(
    cold: Cold, tree: Path, out: Path, isolated_environment: Path
) -> None:
    bakthat.backup(tree, conf=cold.conf, password="")

    def state() -> ThawState:
        return bakthat.thaw_status("mydir", conf=cold.conf).state

    assert state() is ThawState.FROZEN
    assert cold.paid() == 0
    bakthat.restore("mydir", conf=cold.conf, output=out)
    checked = bakthat.thaw_status("mydir", conf=cold.conf)
    assert bakthat.restore("mydir", conf=cold.conf, job_check=True) == checked
    assert (checked.state, checked.tier) == (ThawState.ASKED, "standard")
    assert abs((checked.requested_at or 0) - time.time()) < 60
    cold.advance(12)
    assert state() is ThawState.READY
    assert not out.exists()
    local = {"default_destination": "local", "local_path": str(isolated_environment / "store")}
    bakthat.backup(tree, conf=local, password="")
    assert bakthat.thaw_status("mydir", conf=local).state is ThawState.WARM


def test_wait_polls_until_the_backup_can_be_restored(cold: Cold, tree: Path, out: Path) -> None:
    bakthat.backup(tree, conf=cold.conf, password="")
    pauses: list[float] = []

    def wait(seconds: float) -> None:
        pauses.append(seconds)
        cold.advance(seconds / 3600)

    assert bakthat.restore("mydir", conf=cold.conf, output=out, wait=wait) is not None
    assert (out / "mydir" / "a.txt").read_text() == "hello"
    assert set(pauses) == {thawing.LONG_PAUSE}
    assert 3 * 3600 <= sum(pauses) <= 13 * 3600
    assert cold.paid() == 1


def test_only_a_restore_requests_a_thaw(cold: Cold, tree: Path) -> None:
    made = bakthat.backup(tree, conf=cold.conf, password="")
    bakthat.backup(tree, conf=cold.conf, password="", custom_filename="other")
    bakthat.ls(conf=cold.conf)
    bakthat.show(conf=cold.conf)
    assert bakthat.thaws(conf=cold.conf) == []
    bakthat.delete_older_than("mydir", "1s", conf=cold.conf, dry_run=True)
    bakthat.rotate_backups("mydir", conf=cold.conf, dry_run=True, days=1)
    bakthat.delete(made.stored_filename, conf=cold.conf)
    assert cold.paid() == 0


def test_thaws_lists_what_is_thawing_and_until_when_it_can_be_read(
    cold: Cold, tree: Path, out: Path, tmp_path: Path
) -> None:
    made = bakthat.backup(tree, conf=cold.conf, password="")
    bakthat.restore("mydir", conf=cold.conf, output=out, tier="bulk", days=2)
    (thaw,) = bakthat.thaws(conf=cold.conf)
    assert (thaw.backend, thaw.status.key) == (made.backend, made.stored_filename)
    assert (thaw.status.state, thaw.status.tier) == (ThawState.ASKED, "bulk")
    assert abs((thaw.status.requested_at or 0) - time.time()) < 60
    elsewhere = another_machine(cold, tmp_path)
    assert [each.status.key for each in bakthat.thaws(conf=elsewhere)] == [made.stored_filename]
    # A vault keeps for a day what took eight hours, a copy on S3 stays for the days asked for.
    cold.advance(9 if cold.storage_class == "VAULT" else 41)
    (thaw,) = bakthat.thaws(conf=elsewhere)
    assert thaw.as_dict()["state"] == "ready"
    assert thaw.status.ready_until is not None
    days = (thaw.status.ready_until - time.time()) / 86400
    assert 1 < days < 4
    cold.advance(49)
    assert bakthat.thaws(conf=cold.conf) == []


def test_expedited_without_capacity_says_what_else_to_try(
    cold: Cold, tree: Path, out: Path
) -> None:
    bakthat.backup(tree, conf=cold.conf, password="")
    cold.set_capacity(False)
    with pytest.raises(BakthatError) as caught:
        bakthat.restore("mydir", conf=cold.conf, output=out, tier="expedited")
    if cold.storage_class == "DEEP_ARCHIVE":
        assert isinstance(caught.value, UsageError)
        assert caught.value.hint == "use one of: standard, bulk"
    else:
        assert isinstance(caught.value, StorageError)
        assert "--tier standard" in caught.value.hint
    assert cold.paid() == 0
    assert bakthat.restore("mydir", conf=cold.conf, output=out, tier="standard") is None


def test_an_expedited_thaw_is_polled_every_half_minute(
    glacier: GlacierServer, tree: Path, out: Path
) -> None:
    cold = vault(glacier)
    bakthat.backup(tree, conf=cold.conf, password="")
    pauses: list[float] = []

    def wait(seconds: float) -> None:
        pauses.append(seconds)
        cold.advance(seconds / 3600)

    bakthat.restore("mydir", conf=cold.conf, output=out, tier="expedited", wait=wait)
    assert set(pauses) == {thawing.SHORT_PAUSE}
    assert len(pauses) == 8


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"tier": "fast"}, "there is no tier 'fast'"),
        ({"tier": ""}, "there is no tier ''"),
        ({"days": 0}, "not 0"),
        ({"days": True}, "not True"),
    ],
)
def test_invalid_options_are_refused_first(
    glacier: GlacierServer, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        bakthat.restore("mydir", conf=glacier.conf(), **options)
    assert glacier.requests == []


def test_a_thaw_that_failed_ends_the_wait(glacier: GlacierServer, tree: Path, out: Path) -> None:
    cold = vault(glacier)
    bakthat.backup(tree, conf=cold.conf, password="")

    def fail(_seconds: float) -> None:
        glacier.vaults[cold.conf["glacier_vault"]].jobs.clear()

    with pytest.raises(StorageError, match="failed or expired"):
        bakthat.restore("mydir", conf=cold.conf, output=out, wait=fail)
    assert cold.paid() == 1


def _passing_failure() -> StorageError:
    error = StorageError("the vault answered 503; it cannot be reached")
    error.may_pass = True
    return error


@pytest.mark.parametrize(
    "failure", [lambda: UnreachableError("the vault cannot be reached"), _passing_failure]
)
def test_a_wait_survives_an_outage_of_the_network_or_of_the_storage(
    failure: Callable[[], StorageError],
    glacier: GlacierServer,
    tree: Path,
    out: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    cold = vault(glacier)
    bakthat.backup(tree, conf=cold.conf, password="")
    thaw_status, outage = GlacierBackend.thaw_status, False

    def look(backend: GlacierBackend, key: str) -> ThawStatus:
        if outage:
            raise failure()
        return thaw_status(backend, key)

    def wait(_seconds: float) -> None:
        nonlocal outage
        outage = not outage
        glacier.advance(hours=2)

    monkeypatch.setattr(GlacierBackend, "thaw_status", look)
    assert bakthat.restore("mydir", conf=cold.conf, output=out, wait=wait) is not None
    assert caplog.text.count("cannot be reached; still waiting") == 1
    assert cold.paid() == 1


def test_no_thaw_is_requested_for_a_backup_that_cannot_be_restored(
    glacier: GlacierServer, tmp_path: Path, out: Path
) -> None:
    (tmp_path / "file").write_text("content")
    conf = glacier.conf(compress=False)
    made = bakthat.backup(tmp_path / "file", conf=conf, password="")
    with models.catalog("~/.bakthat.sqlite", write=True):
        models.Backups.update(filename="..").execute()
    with pytest.raises(CorruptArchiveError, match="which no file can have"):
        bakthat.restore(made.stored_filename, conf=conf, output=out)
    assert glacier.asked == []


@pytest.mark.parametrize("password", ["", "secret"])
def test_a_part_is_looked_for_in_the_index_before_a_thaw_is_paid(
    cold: Cold, tree: Path, tmp_path: Path, out: Path, password: str
) -> None:
    (tree / "large.bin").write_bytes(os.urandom(3_000_000))
    made = bakthat.backup(tree, conf=cold.conf, password=password)
    forget_cache()
    options: dict[str, Any] = {"conf": cold.conf, "output": out, "password": password}
    with pytest.raises(NoMatchError, match="the backup holds no 'nothing'"):
        bakthat.restore(made.stored_filename, only=["b.bin", "nothing"], **options)
    assert cold.paid() == 0
    assert bakthat.restore(made.stored_filename, only="*.bin", **options) is None
    assert cold.paid() == 1
    cold.advance(12)
    for number, only in enumerate(("b.bin", "*.bin")):
        options["output"] = tmp_path / f"part{number}"
        assert bakthat.restore(made.stored_filename, only=only, **options) is not None
        restored = {path.name for path in (tmp_path / f"part{number}/mydir").iterdir()}
        assert restored == {"b.bin"} | ({"large.bin"} if number else set())
        found = tmp_path / f"part{number}/mydir/b.bin"
        assert found.read_bytes() == (tree / "b.bin").read_bytes()


# Bad input, on vaults.


def test_no_vault_in_the_profile_is_named(tree: Path) -> None:
    conf = {"access_key": "a", "secret_key": "b", "default_destination": "glacier"}
    with pytest.raises(ConfigError, match="glacier_vault"):
        bakthat.backup(tree, conf=conf, password="")
    assert bakthat.thaws(conf=conf) == []
    with pytest.raises(ConfigError, match="glacier_vault"):
        bakthat.thaws("glacier", conf=conf)


def test_a_missing_vault_on_restore_is_named_and_not_made(
    glacier: GlacierServer, tree: Path, out: Path
) -> None:
    conf = glacier.conf()
    made = bakthat.backup(tree, conf=conf, password="")
    del glacier.vaults[conf["glacier_vault"]]
    with pytest.raises(ContainerNotFoundError, match=conf["glacier_vault"]):
        bakthat.restore("mydir", conf=conf, output=out)
    with pytest.raises(ContainerNotFoundError, match=conf["glacier_vault"]):
        bakthat.restore("other.20130604191055.tgz", conf=conf, output=out)
    assert glacier.vaults == {}
    assert made.stored_filename
    assert bakthat.thaws(conf=conf) == []


def test_an_archive_unknown_to_the_inventory_says_how_to_get_it_back(
    glacier: GlacierServer, tree: Path, out: Path
) -> None:
    conf = glacier.conf()
    made = bakthat.backup(tree, conf=conf, password="")
    with models.catalog("~/.bakthat.sqlite", write=True):
        models.Inventory.delete().execute()
    for name in ("mydir", made.stored_filename, "never.20130604191055.tgz"):
        with pytest.raises(NotFoundError, match="not known here") as caught:
            bakthat.restore(name, conf=conf, output=out)
        assert "restore_glacier_inventory" in caught.value.hint
    with pytest.raises(NoMatchError):
        bakthat.restore("never", conf=conf, output=out)
    # Deleting it from the catalog alone would leave an archive that costs on.
    with pytest.raises(NotFoundError, match="cannot be deleted"):
        bakthat.delete("mydir", conf=conf)
    assert [each.stored_filename for each in bakthat.ls(conf=conf)] == [made.stored_filename]


def test_an_archive_deleted_by_another_program_is_an_error(
    glacier: GlacierServer, tree: Path, out: Path
) -> None:
    conf = glacier.conf()
    made = bakthat.backup(tree, conf=conf, password="")
    glacier.archives(conf["glacier_vault"]).clear()
    with pytest.raises(NotFoundError, match=made.stored_filename) as caught:
        bakthat.restore("mydir", conf=conf, output=out)
    assert "bakthat delete" in caught.value.hint
    bakthat.delete("mydir", conf=conf)
    assert bakthat.ls(conf=conf) == []


def test_an_archive_that_was_deleted_from_here_is_neither_restored_nor_listed(
    glacier: GlacierServer, tree: Path, out: Path
) -> None:
    conf = glacier.conf()
    made = bakthat.backup(tree, conf=conf, password="")
    assert bakthat.restore("mydir", conf=conf, output=out) is None
    bakthat.delete("mydir", conf=conf)
    assert bakthat.thaws(conf=conf) == []
    with pytest.raises(NotFoundError, match="was deleted from vault") as caught:
        bakthat.restore(made.stored_filename, conf=conf, output=out)
    assert caught.value.hint == ""


@pytest.mark.parametrize("size", [0, 1, 8 * 2**20, 8 * 2**20 + 1])
def test_files_of_every_size_around_a_part_come_back_from_a_vault(
    glacier: GlacierServer, tmp_path: Path, out: Path, size: int
) -> None:
    source = tmp_path / "file.bin"
    source.write_bytes((os.urandom(1 << 16) * (size // (1 << 16) + 1))[:size])
    conf = glacier.conf(compress=False)
    for password in ("", "secret"):
        glacier.instant = True
        made = bakthat.backup(source, conf=conf, password=password, custom_filename=f"f{password}")
        assert made.size >= size
        bakthat.restore(
            made.stored_filename, conf=conf, output=out, password=password, wait=at_once
        )
        assert (out / "file.bin").read_bytes() == source.read_bytes()
        (out / "file.bin").unlink()


@pytest.mark.heavy
@pytest.mark.parametrize("password", ["", "secret"])
def test_two_hundred_mebibytes_come_back_from_a_vault(
    glacier: GlacierServer, tmp_path: Path, out: Path, password: str
) -> None:
    glacier.instant = True
    source = tmp_path / "file.bin"
    block = os.urandom(1 << 20)
    with source.open("wb") as stream:
        for number in range(200):
            stream.write(number.to_bytes(4, "big") + block[4:])
    conf = glacier.conf()
    bakthat.backup(source, conf=conf, password=password)
    bakthat.restore("file.bin", conf=conf, output=out, password=password, wait=at_once)
    assert (out / "file.bin").read_bytes() == source.read_bytes()


@pytest.mark.parametrize("name", ["ж" * 127, "漢字" * 42, "🎉" * 63, '"' * 255, "a" * 255])
def test_backups_with_the_longest_names_come_back_from_a_vault(
    glacier: GlacierServer, tmp_path: Path, out: Path, name: str
) -> None:
    glacier.instant = True
    (tmp_path / "file.txt").write_text("hello")
    conf = glacier.conf(compress=False)
    elsewhere = {**conf, "database": str(tmp_path / "elsewhere.sqlite")}
    made = bakthat.backup(
        tmp_path / "file.txt", conf=conf, password="", custom_filename=name, tags="büro täglich"
    )
    bakthat.restore(name, conf=conf, output=out)
    restored = bakthat.restore(made.stored_filename, conf=elsewhere, output=out)
    assert restored is not None
    assert (restored.filename, restored.tags) == (name, "büro täglich")
    assert (out / "file.txt").read_text() == "hello"


# Classes of S3.


def test_instant_retrieval_restores_at_once(
    frozen_s3: ThawProxy, moto_endpoint: S3Server, tree: Path, out: Path
) -> None:
    cold = bucket(frozen_s3, moto_endpoint, "GLACIER_IR")
    bakthat.backup(tree, conf=cold.conf, password="")
    assert bakthat.restore("mydir", conf=cold.conf, output=out) is not None
    assert cold.paid() == 0


@pytest.mark.parametrize("tier", ["ARCHIVE_ACCESS", "DEEP_ARCHIVE_ACCESS"])
def test_the_archive_tiers_of_intelligent_tiering_are_thawed(
    frozen_s3: ThawProxy, moto_endpoint: S3Server, tree: Path, out: Path, tier: str
) -> None:
    cold = bucket(frozen_s3, moto_endpoint, "INTELLIGENT_TIERING")
    made = bakthat.backup(tree, conf=cold.conf, password="")
    assert bakthat.restore("mydir", conf=cold.conf, output=out) is not None
    path = f"/{cold.conf['s3_bucket']}/{made.stored_filename}"
    frozen_s3.tiers[path] = tier
    frozen_s3.lists_thaws = False
    for _ in range(2):
        assert bakthat.restore("mydir", conf=cold.conf, output=out) is None
    (thaw,) = bakthat.thaws(conf=cold.conf)
    assert (thaw.status.storage_class, thaw.status.tier) == (tier, "standard")
    cold.advance(12)
    assert bakthat.restore("mydir", conf=cold.conf, output=out) is not None
    assert bakthat.thaws(conf=cold.conf) == []
    assert frozen_s3.asked == [(path, "Standard")]


def test_after_a_lost_answer_of_s3_the_thaw_is_looked_up(
    frozen_s3: ThawProxy, moto_endpoint: S3Server, tree: Path, out: Path
) -> None:
    cold = bucket(frozen_s3, moto_endpoint, "GLACIER")
    bakthat.backup(tree, conf=cold.conf, password="")
    frozen_s3.loses_next_answer = True
    assert bakthat.restore("mydir", conf=cold.conf, output=out) is None
    assert cold.paid() == 1
    cold.advance(5)
    assert bakthat.restore("mydir", conf=cold.conf, output=out) is not None


def test_moto_thaws_a_requested_object(moto_conf: Conf, tree: Path, out: Path) -> None:
    conf = {**moto_conf, "storage_class": "GLACIER"}
    bakthat.backup(tree, conf=conf, password="")
    bakthat.restore("mydir", conf=conf, output=out, wait=at_once)
    assert (out / "mydir" / "a.txt").read_text() == "hello"
