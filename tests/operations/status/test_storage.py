"""How the sets of all hosts are by what the storage knows."""

from __future__ import annotations

import json
import random
import tracemalloc
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import bakthat
from bakthat.backends.base import StoredObject
from bakthat.errors import (
    ContainerNotFoundError,
    CredentialsError,
    NoMatchError,
    UsageError,
)
from bakthat.format.description import source_id
from bakthat.format.names import parse_stored_name, stored_name
from bakthat.helper import KeyValue
from bakthat.operations.status.set_status import SetStatus
from bakthat.operations.status.storage import status_of_hosts
from bakthat.session.session import Session
from tests.docs.sessions import DOCS, blocks_of
from tests.support.fault_proxy import FaultProxy
from tests.support.fleet import DAY, ETC, Fleet, index_description
from tests.support.iam import CheckedServer, checked_server
from tests.support.profiles import Conf
from tests.support.servers import S3Server, s3_backend

NOW = 1_795_000_000
PAGE = DOCS / "how-to" / "fleet.rst"


class FleetSession(Session):
    """A session of a monitoring host, whose storage is a fleet's."""

    def __init__(self, fleet: Fleet, prefix: str) -> None:
        conf = {"s3_bucket": "fleet", "prefix": prefix, "host": "monitor", "database": "/none/db"}
        super().__init__("default", None, conf)
        self.fleet = fleet

    def backend(self, destination: str, **_: Any) -> Any:
        """Return the fleet's storage."""
        assert destination == "s3"
        return self.fleet


def look(
    fleet: Fleet,
    filename: str = "",
    host: str | None = None,
    *,
    prefix: str = "{host}/",
    max_age: int | None = None,
) -> list[SetStatus]:
    """Return the status of all hosts."""
    return status_of_hosts(
        FleetSession(fleet, prefix), filename, host, max_age=max_age, now=NOW, progress=None
    )


def shown(found: list[SetStatus]) -> list[tuple[str, str, int | None, int | None]]:
    """Return host, name, number of backups, and the days since the newest."""
    return [
        (each.host, each.name, each.backups, None if each.age is None else each.age // DAY)
        for each in found
    ]


# What is stored by real storages.


def test_every_storage_tells_what_backups_have_stored(
    conf: Conf, tree: Path, isolated_environment: Path
) -> None:
    conf = {**conf, "prefix": "backups/{host}/"}
    for host in ("web1", "web2"):
        for size in (1, 2):
            (tree / "a.txt").write_text("hello" * size)
            made = bakthat.backup(tree, conf={**conf, "host": host}, password="secret")
    bakthat.backup(tree, conf={**conf, "host": "web1"}, password="secret", custom_filename="named")
    Path(conf["database"]).unlink()
    monitor = {**conf, "host": "monitor", "database": str(isolated_environment / "not-made")}
    found = bakthat.status(conf=monitor, all_hosts=True, max_age="1h")
    assert [(each.host, each.name, each.backups) for each in found] == [
        ("web1", "mydir", 2),
        ("web1", "named", 1),
        ("web2", "mydir", 2),
    ]
    newest = found[2]
    assert (newest.stored_filename, newest.size) == (made.stored_filename, made.size)
    assert (newest.last_backup, newest.last_success) == (made.backup_date, made.backup_date)
    assert (newest.files, newest.content, newest.warnings, newest.is_estimate) == (1, 10, 0, False)
    # Its index was made a little before it ended.
    assert 0 <= (newest.seconds or 0) <= made.metadata["seconds"]
    assert newest.source == source_id(tree)
    assert found[1].source == ""
    assert len(newest.sizes) == 2
    assert all(each.is_good for each in found)
    assert not (isolated_environment / "not-made").exists()
    [only] = bakthat.status("mydir", conf=monitor, all_hosts=True, host="web2")
    _, same = bakthat.status("mydir", conf=monitor, all_hosts=True)
    assert replace(only, age=0) == replace(same, age=0)  # a second may have passed


def test_nothing_but_listings_and_heads_is_requested(
    moto_endpoint: S3Server, moto_proxy: FaultProxy, isolated_environment: Path, tree: Path
) -> None:
    conf = {
        **moto_endpoint.conf(endpoint_url=moto_proxy.endpoint_url),
        "prefix": "{host}/",
        "database": str(isolated_environment / "catalog.sqlite"),
    }
    for _ in range(2):
        bakthat.backup(tree, conf=conf, password="")
    moto_proxy.requests.clear()
    bakthat.status(conf=conf, all_hosts=True)
    bucket = conf["s3_bucket"]
    requests = [(method, path.partition("?")[0]) for method, path, _ in moto_proxy.requests]
    assert requests[0] == ("GET", f"/{bucket}")
    assert {method for method, _ in requests[1:]} == {"HEAD"}
    # One for each of the two backups: the description of its index is enough.
    assert all(path.endswith(".index") for _, path in requests[1:])
    assert len(requests) == 3


@pytest.fixture(scope="module")
def checked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CheckedServer]:
    with checked_server(tmp_path_factory.mktemp("checked")) as server:
        yield server


@pytest.mark.slow
def test_the_policy_of_the_page_is_enough(
    checked: CheckedServer, isolated_environment: Path, tree: Path
) -> None:
    [policy] = [each for each in blocks_of(PAGE) if each.caption == "monitor-policy.json"]
    statements = json.loads(policy.text.replace("my-backups", "{bucket}"))["Statement"]
    conf = checked.conf(*statements, prefix="{host}/")
    writer = {
        **conf,
        "access_key": checked.server.access_key,
        "secret_key": checked.server.secret_key,
        "database": str(isolated_environment / "catalog.sqlite"),
    }
    with checked.unchecked():
        bakthat.backup(tree, conf={**writer, "host": "web1"}, password="")
    [found] = bakthat.status(conf=conf, all_hosts=True)
    assert (found.host, found.name, found.files) == ("web1", "mydir", 1)


@pytest.mark.slow
@pytest.mark.parametrize("actions", [["s3:ListBucket"], ["s3:GetObject"]])
def test_a_key_that_may_do_less_is_refused(
    checked: CheckedServer, isolated_environment: Path, tree: Path, actions: list[str]
) -> None:
    conf = checked.allowing(actions, prefix="{host}/")
    writer = {
        **conf,
        "access_key": checked.server.access_key,
        "secret_key": checked.server.secret_key,
        "database": str(isolated_environment / "catalog.sqlite"),
    }
    with checked.unchecked():
        bakthat.backup(tree, conf=writer, password="")
    with pytest.raises(CredentialsError):
        bakthat.status(conf=conf, all_hosts=True)


def test_a_missing_bucket_is_an_error_and_is_not_made(moto_conf: Conf) -> None:
    for _ in range(2):
        with pytest.raises(ContainerNotFoundError):
            bakthat.status(conf=moto_conf, all_hosts=True)


def test_an_empty_container_is_an_error(moto_conf: Conf) -> None:
    s3_backend(moto_conf).create_container()
    with pytest.raises(NoMatchError, match="there are no backups of any set in bakthat-") as caught:
        bakthat.status(conf=moto_conf, all_hosts=True)
    assert caught.value.hint.startswith("check the profile's prefix and container")


def test_a_vault_is_refused_with_what_can_be_done(local: Conf) -> None:
    conf = {**local, "glacier_vault": "v", "default_destination": "glacier"}
    with pytest.raises(UsageError, match="a vault tells what it holds after hours") as caught:
        bakthat.status(conf=conf, all_hosts=True)
    assert "bakthat sync -d glacier" in caught.value.hint


def test_objects_that_are_no_backups_are_left_out(conf: Conf, tree: Path) -> None:
    made = bakthat.backup(tree, conf=conf, password="")
    KeyValue(conf=conf).set_key("mykey", "value")
    backend = Session("default", None, conf).backend(Session("default", None, conf).destination)
    for key in ("photo.jpg", "photo.20260101000000", "other/photo.20260101000000"):
        upload = backend.upload(key, metadata={})
        upload.write(b"x")
        upload.commit()
    found = bakthat.status(conf=conf, all_hosts=True)
    assert [each.stored_filename for each in found] == [made.stored_filename]


# Whose a backup is.


def test_with_one_prefix_a_host_few_descriptions_are_read() -> None:
    fleet = Fleet()
    for host in range(50):
        for number in range(100):
            fleet.add("etc", NOW - 60 - number * DAY - host, f"host{host:02}")
    found = look(fleet, max_age=DAY)
    assert shown(found) == [(f"host{host:02}", "etc", 100, 0) for host in range(50)]
    assert all(each.is_good and each.last_success == each.last_backup for each in found)
    assert fleet.listings == [""]
    assert len(fleet.requested) == len(set(fleet.requested)) == 50 * 5
    assert all(each.endswith(".index") for each in fleet.requested)


def test_a_host_that_stopped_is_seen_beside_others_under_one_prefix() -> None:
    fleet = Fleet()
    for number in range(60):
        fleet.add("etc", NOW - 60 - number * DAY, "alive", prefix="")
        if number >= 40:
            fleet.add("etc", NOW - 70 - number * DAY, "dead", prefix="")
    found = look(fleet, prefix="", max_age=2 * DAY)
    assert shown(found) == [("alive", "etc", 60, 0), ("dead", "etc", 20, 40)]
    assert [each.is_good for each in found] == [True, False]
    assert fleet.listings == ["", "etc"]


def test_two_directories_of_one_name_are_two_sets() -> None:
    fleet = Fleet()
    other = source_id("/srv/etc")
    for number in range(30):
        fleet.add("etc", NOW - 60 - number * DAY, "web1")
        fleet.add("etc", NOW - 90 - number * DAY, "web1", source=other)
    found = look(fleet)
    assert {each.source for each in found} == {ETC, other}
    assert [each.backups for each in found] == [30, 30]


@pytest.mark.parametrize("begun", [0, 7])
@pytest.mark.parametrize("stopped", [3, 10, 40])
def test_the_one_of_two_directories_of_one_name_that_stopped_is_seen(
    stopped: int, begun: int
) -> None:
    fleet = Fleet()
    other = source_id("/srv/etc")
    for number in range(100):
        fleet.add("etc", NOW - 60 - number * DAY, "web1")
        if stopped <= number < 100 - begun:
            fleet.add("etc", NOW - 30 - number * DAY, "web1", source=other)
    found = look(fleet, max_age=2 * DAY)
    assert [each.source for each in found if not each.is_good] == [other]


def test_a_longer_name_that_begins_alike_is_another_set() -> None:
    fleet = Fleet()
    for number in range(20):
        for seconds, host in ((60, "a"), (61, "b")):
            fleet.add("my", NOW - seconds - number * DAY, host, prefix="")
            fleet.add("my.db", NOW - seconds - number * DAY, host, prefix="")
    assert shown(look(fleet, prefix="")) == [
        (host, name, 20, 0) for host in ("a", "b") for name in ("my", "my.db")
    ]
    assert shown(look(fleet, "my", "b", prefix="")) == [("b", "my", 20, 0)]


def test_one_set_below_two_prefixes_is_one() -> None:
    fleet = Fleet()
    fleet.add("etc", NOW - 60, "web1", prefix="new/")
    fleet.add("etc", NOW - 3 * DAY, "web1", prefix="old/")
    [found] = look(fleet, prefix="")
    assert (found.stored_filename.partition("/")[0], found.backups) == ("new", 2)


def test_the_key_says_the_host_and_not_the_description_where_they_differ() -> None:
    fleet = Fleet()
    fleet.add("etc", NOW - 5 * DAY, "web1")
    # web2 may write below its own prefix only, and says that it was web1.
    fleet.add("etc", NOW - 60, "web1", prefix="web2/")
    false, old = sorted(look(fleet, max_age=DAY), key=lambda each: each.age or 0)
    assert (old.host, [each.topic for each in old.findings]) == ("web1", ["age"])
    assert (false.host, false.is_good) == ("web2", True)
    assert [each.detail for each in false.findings] == [
        "the description names the host web1, but the key is not below its prefix"
    ]


@pytest.mark.parametrize("prefix", ["{host}-", "{host}", "all/{host}-"])
def test_no_host_is_taken_for_one_whose_name_it_begins_with(prefix: str) -> None:
    fleet = Fleet()
    fleet.add("etc", NOW - 5 * DAY, "web", prefix=prefix)
    # web-1 may write below its own prefix only, and says that it was web.
    fleet.add("etc", NOW - 60, "web", prefix=prefix.replace("{host}", "web-1"))
    found = {each.age: each for each in look(fleet, prefix=prefix, max_age=DAY)}
    assert [each.topic for each in found[5 * DAY].findings] == ["age"]
    assert [each.topic for each in found[60].findings] == ["host"]


def test_profiles_of_one_host_may_have_prefixes_below_its_own() -> None:
    fleet = Fleet()
    fleet.add("etc", NOW - 60, "web1")
    fleet.add("shop", NOW - 60, "web1", prefix="{host}/db/")
    assert shown(look(fleet)) == [("web1", "etc", 1, 0), ("web1", "shop", 1, 0)]


# Descriptions that are missing, wrong or hostile.


def test_a_backup_without_a_description_is_of_the_host_in_its_key() -> None:
    fleet = Fleet()
    key = fleet.add("etc", NOW - 60, "web1", index=False)
    fleet.descriptions[key] = {}
    [found] = look(fleet)
    assert (found.host, found.name, found.backups, found.age) == ("web1", "etc", 1, 60)
    assert (found.files, found.warnings, found.is_good) == (None, None, True)
    fleet = Fleet()
    key = fleet.add("etc", NOW - 60, "web1", prefix="", index=False)
    fleet.descriptions[key] = {}
    assert shown(look(fleet, prefix="")) == [("", "etc", 1, 0)]


def test_a_lost_description_beside_others_makes_no_set_of_its_own() -> None:
    fleet = Fleet()
    for number in range(6):
        fleet.add("etc", NOW - 60 - number * DAY, "web1")
    oldest = fleet.add("etc", NOW - 60 - 9 * DAY, "web1", index=False)
    fleet.descriptions[oldest] = {}
    [found] = look(fleet)
    assert (found.host, found.backups) == ("web1", 7)


def test_without_an_index_the_counts_are_estimates_and_warnings_unknown() -> None:
    fleet = Fleet()
    fleet.add("etc", NOW - 60, "web1", index=False)
    [found] = look(fleet)
    assert (found.files, found.content, found.is_estimate) == (10, 900, True)
    assert (found.warnings, found.last_success, found.is_good) == (None, NOW - 60, True)


def test_the_index_of_another_archive_is_not_believed() -> None:
    fleet = Fleet()
    key = fleet.add("etc", NOW - 60, "web1", files=9999)
    fleet.descriptions[f"{key}.index"]["date"] += 1
    [found] = look(fleet)
    assert (found.files, found.is_estimate) == (10, True)


def test_warnings_and_sizes_of_the_index_are_told() -> None:
    fleet = Fleet()
    fleet.add("etc", NOW - 2 * DAY, "web1")
    fleet.add("etc", NOW - DAY, "web1", warning_count=2)
    fleet.add("etc", NOW - 60, "web1", warning_count=3, suspicious=True, stored=99)
    [found] = look(fleet)
    assert [each.topic for each in found.findings] == ["size", "size", "warnings"]
    assert (found.warnings, found.last_success) == (3, NOW - 2 * DAY)


def test_a_backup_dated_in_the_future_is_told_and_is_not_the_newest() -> None:
    fleet = Fleet()
    fleet.add("etc", NOW + 2 * DAY, "web1")
    newest = fleet.add("etc", NOW - 60, "web1")
    [found] = look(fleet)
    assert found.stored_filename == newest
    assert [each.topic for each in found.findings] == ["date"]


def add_increment(
    fleet: Fleet, date: int, needs: list[int], *, host: str = "web1", prefix: str = "{host}/"
) -> None:
    """Add an increment of a host."""
    key = fleet.add("etc", date, host, prefix=prefix, needs=needs, level=3, format=2)
    moved = key.replace(".tgz", ".inc.tgz")
    fleet.sizes[moved] = fleet.sizes.pop(key)
    for each in ("", ".index"):
        fleet.descriptions[moved + each] = fleet.descriptions.pop(key + each)


@pytest.mark.parametrize("is_there", [True, False])
def test_an_increment_whose_full_is_gone_is_wrong(is_there: bool) -> None:
    fleet = Fleet()
    for number in range(20):
        fleet.add("etc", NOW - (number + 5) * DAY, "web1")
    full = fleet.add("etc", NOW - 2 * DAY, "web1")
    # What others made in the same second is not it.
    fleet.add("etc", NOW - 2 * DAY, "web2")
    fleet.add("etc", NOW - 2 * DAY, "web1", prefix="{host}/db/", source=source_id("/srv/etc"))
    add_increment(fleet, NOW - DAY, [NOW - 2 * DAY])
    if not is_there:
        del fleet.sizes[full]
    found = next(each for each in look(fleet) if (each.host, each.source) == ("web1", ETC))
    assert found.is_increment
    assert [each.topic for each in found.findings] == ([] if is_there else ["check"])


@pytest.mark.parametrize("before", ["", "{host}/", "old/{host}-"])
@pytest.mark.parametrize("is_there", [True, False])
def test_what_an_increment_needs_may_be_below_a_former_prefix(before: str, is_there: bool) -> None:
    fleet = Fleet()
    full = fleet.add("etc", NOW - 3 * DAY, "web1", prefix=before)
    dates = [NOW - (3 - number) * DAY for number in range(3)]
    add_increment(fleet, dates[1], dates[:1], prefix="all/{host}/")
    add_increment(fleet, dates[2], dates[:2], prefix="all/{host}/")
    if not is_there:
        del fleet.sizes[full]
    [found] = look(fleet, prefix="all/{host}/")
    assert [each.topic for each in found.findings] == ([] if is_there else ["check"])


def test_all_sets_are_looked_for_below_a_former_prefix_in_one_listing() -> None:
    fleet = Fleet()
    for host in ("web1", "web2", "web3"):
        full = fleet.add("etc", NOW - 2 * DAY, host, prefix="{host}/")
        add_increment(fleet, NOW - DAY, [NOW - 2 * DAY], host=host, prefix="all/{host}/")
    del fleet.sizes[full]
    found = look(fleet, prefix="all/{host}/")
    assert {each.host: len(each.findings) for each in found} == {"web1": 0, "web2": 0, "web3": 1}
    assert fleet.listings.count("") == 1


def test_a_key_that_may_not_list_all_does_not_hide_what_is_gone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fleet = Fleet()
    add_increment(fleet, NOW - DAY, [NOW - 2 * DAY], prefix="all/{host}/")
    listed = fleet.ls

    def only_below(prefix: str = "", **options: Any) -> Iterator[StoredObject]:
        if not prefix.startswith("all/"):
            raise CredentialsError("the key may not list the bucket")
        return listed(prefix, **options)

    monkeypatch.setattr(fleet, "ls", only_below)
    [found] = look(fleet, prefix="all/{host}/")
    assert [each.topic for each in found.findings] == ["check"]


def test_an_increment_is_compared_with_increments() -> None:
    fleet = Fleet()
    for number, (size, kind) in enumerate([(9000, ""), (10, ".inc"), (30, ".inc")]):
        date = NOW - (3 - number) * DAY
        key = fleet.add("etc", date, "web1", size=size)
        if kind:
            moved = key.replace(".tgz", ".inc.tgz")
            fleet.sizes[moved] = fleet.sizes.pop(key)
            for each in ("", ".index"):
                described = fleet.descriptions.pop(key + each)
                fleet.descriptions[moved + each] = {**described, "needs": [NOW - 3 * DAY]}
    [found] = look(fleet)
    assert (found.is_increment, found.sizes, found.trend) == (True, (10, 30), 200)


def test_what_was_deleted_meanwhile_is_passed_over() -> None:
    fleet = Fleet()
    keys = [fleet.add("etc", NOW - 60 - number * DAY, "web1") for number in range(20)]
    gone = fleet.add("gone", NOW - 60, "web1")
    fleet.gone = {*keys[:5], gone}
    [found] = look(fleet)
    assert (found.name, found.stored_filename) == ("etc", keys[5])


def test_what_is_listed_and_is_not_there_is_wrong_and_not_left_out() -> None:
    fleet = Fleet()
    keys = [fleet.add("etc", NOW - 60 - number * DAY, "web1") for number in range(20)]
    fleet.add("etc", NOW - 60, "web2")
    fleet.lost = {*keys}
    for prefix in ("{host}/", ""):
        lost, good = look(fleet, prefix=prefix)
        assert (good.host, good.is_good, lost.backups) == ("web2", True, 20)
        [finding] = lost.findings
        assert finding.detail.startswith(f"the storage lists {keys[0]}, but does not have it")
        assert (lost.stored_filename, lost.age, lost.last_success) == (keys[0], None, None)


@pytest.mark.parametrize(
    "wrong",
    [
        {"host": 5},
        {"host": "x" * 2000},
        {"host": "web1\n", "set": "../etc"},
        {"set": ["etc"], "files": -1, "warning_count": "many"},
        {"source_id": "ZZZ"},
        {"date": "today", "stored": -5},
        {"kind": "keyvalue"},
        {"needs": "everything", "format": 10**9},
    ],
)
def test_a_hostile_description_breaks_nothing(wrong: dict[str, Any]) -> None:
    fleet = Fleet()
    key = fleet.add("etc", NOW - 60, "web1")
    fleet.add("etc", NOW - 60, "web2")
    for each in (key, f"{key}.index"):
        fleet.descriptions[each] = {**fleet.descriptions[each], **wrong}
    found = look(fleet)
    assert [(each.host, each.name) for each in found] == [("web1", "etc"), ("web2", "etc")]
    assert json.dumps([each.as_dict() for each in found])


def test_keys_that_no_backend_accepts_are_passed_over() -> None:
    fleet = Fleet()
    fleet.add("etc", NOW - 60, "web1")
    for key in ("a//etc.20260101000000.tgz", "../etc.20260101000000.tgz"):
        fleet.sizes[key] = 5
    assert shown(look(fleet)) == [("web1", "etc", 1, 0)]


def test_random_fleets_are_told_as_they_are() -> None:
    numbers = random.Random(19)
    for _ in range(20):
        fleet, expected = Fleet(), {}
        for host in ("a", "b", "c"):
            for name, source in (("etc", ETC), ("www", source_id("/w")), ("www", source_id("/v"))):
                dates = {NOW - numbers.randrange(60, 20 * DAY) for _ in range(numbers.randrange(4))}
                for date in dates:
                    fleet.add(name, date, host, prefix="", source=source)
                if dates:
                    expected[host, name, source] = (len(dates), NOW - max(dates))
        if expected:
            found = look(fleet, prefix="")
            told = {(each.host, each.name, each.source): (each.backups, each.age) for each in found}
            assert told == expected


# Memory.


class Unheld(Fleet):
    """Lists a number of backups of each of 20 hosts without holding them."""

    def __init__(self, backups: int) -> None:
        super().__init__()
        self.backups = backups

    def ls(self, prefix: str = "", *, indexes: bool = False) -> Iterator[StoredObject]:
        for host in range(20):
            for number in reversed(range(self.backups)):
                name = fleet_key(host, NOW - 60 - number * 3600)
                yield StoredObject(name, 100)

    def stat(self, key: str) -> StoredObject:
        host, _, name = key.removesuffix(".index").partition("/")
        parsed = parse_stored_name(name)
        assert parsed is not None
        described = index_description("etc", parsed.backup_date, host)
        return StoredObject(key, 5, metadata=described)


def fleet_key(host: int, date: int) -> str:
    """Return the key of a backup of a host by its number."""
    return f"host{host:03}/{stored_name('etc', date, '.tgz', encrypted=True)}"


@pytest.mark.slow
def test_more_backups_of_the_same_hosts_need_no_more_memory() -> None:
    peaks = []
    for backups in (50, 500):
        tracemalloc.start()
        found = look(Unheld(backups))
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        assert {each.backups for each in found} == {backups}
    # What is kept of a backup takes hundreds of bytes.
    assert (peaks[1] - peaks[0]) / (20 * 450) < 20
