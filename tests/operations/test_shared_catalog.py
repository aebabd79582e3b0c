"""A catalog on a server: many processes, several hosts, and a server that is restarted."""

from __future__ import annotations

import random
import subprocess
import threading
from pathlib import Path

import pytest

import bakthat
from bakthat import models
from bakthat.errors import CatalogError
from bakthat.operations.configuration.check import check_configuration
from bakthat.policy.finding import Finding
from tests.support.catalogs import ON_SERVERS, PASSWORD, NewCatalog, PostgresqlCatalogs
from tests.support.commandline import CommandLine
from tests.support.profiles import Conf, write_config
from tests.support.servers import S3Server, plain

pytestmark = [pytest.mark.slow, pytest.mark.needs("postgres", "psql")]

PROCESSES = 20


@pytest.fixture(params=ON_SERVERS)
def catalog(request: pytest.FixtureRequest) -> str:
    make: NewCatalog = request.getfixturevalue(f"{request.param}_catalogs")
    return make()


@pytest.fixture
def conf(moto_endpoint: S3Server, catalog: str) -> Conf:
    conf = moto_endpoint.conf()
    plain(conf).create_bucket(Bucket=conf["s3_bucket"])
    return {**conf, "database": catalog}


@pytest.fixture
def user(user: CommandLine, tree: Path, conf: Conf) -> CommandLine:
    assert tree.parent == user.directory  # where the commands run
    write_config(user.home / ".bakthat.yml", default=conf)
    return user


def ended(processes: list[subprocess.Popen[bytes]]) -> list[tuple[int, str]]:
    """Wait for processes; return their exit codes and what they said."""
    said = [each.communicate(timeout=300)[1].decode() for each in processes]
    return [(each.returncode, text) for each, text in zip(processes, said, strict=True)]


def listed(conf: Conf) -> set[str]:
    return {each.stored_filename for each in bakthat.ls(conf=conf)}


def stored(conf: Conf) -> set[str]:
    """Return the names of the archives in the bucket."""
    pages = plain(conf).get_paginator("list_objects_v2").paginate(Bucket=conf["s3_bucket"])
    keys = {each["Key"] for page in pages for each in page.get("Contents", ())}
    return {key for key in keys if not key.endswith(".index")}


def test_twenty_processes_lose_no_backup(user: CommandLine, conf: Conf) -> None:
    started = [user.start("backup", "mydir", "--prompt", "no") for _ in range(PROCESSES)]
    results = ended(started)
    assert [code for code, _ in results] == [0] * PROCESSES, results
    assert len(listed(conf)) == PROCESSES
    assert bakthat.sync(conf=conf).changes == []
    assert all(each.is_good for each in bakthat.check(conf=conf, read_data=True))


def test_backups_rotations_syncs_and_cleanups_at_once(user: CommandLine, conf: Conf) -> None:
    assert user.run("backup", "mydir", "--prompt", "no").code == 0
    commands = [
        ("backup", "mydir", "--prompt", "no"),
        ("backup", "mydir", "--prompt", "no", "--incremental"),
        ("rotate", "mydir", "--last", "1"),
        ("sync",),
        ("cleanup",),
    ]
    results = ended([user.start(*words) for words in commands * 4])
    assert [code for code, _ in results] == [0] * PROCESSES, results
    newest = max(listed(conf))
    assert bakthat.sync(conf=conf).changes == []
    assert listed(conf) == stored(conf)
    assert all(each.is_good for each in bakthat.check(conf=conf, read_data=True))
    bakthat.rotate_backups("mydir", conf=conf, last=1)
    assert newest in listed(conf)


# A server that is restarted


@pytest.mark.parametrize("catalog", ["postgresql"], indirect=True)
def test_a_server_that_is_restarted_again_and_again_loses_nothing(
    user: CommandLine, conf: Conf, postgresql_catalogs: PostgresqlCatalogs
) -> None:
    """Some stops are crashes. Each command either succeeds or says what happened."""
    assert user.run("backup", "mydir", "--prompt", "no").code == 0
    chance = random.Random(19)
    started: list[subprocess.Popen[bytes]] = []
    for number in range(5):
        started += [user.start("backup", "mydir", "--prompt", "no") for _ in range(4)]
        threading.Event().wait(chance.uniform(0.2, 1.5))
        postgresql_catalogs.stop("immediate" if number % 2 else "fast")
        threading.Event().wait(chance.uniform(0, 1))
        postgresql_catalogs.start()
    results = ended(started)
    for code, said in results:
        assert "Traceback" not in said
        assert PASSWORD not in said
        assert code == 0 or (code == 1 and "does not answer" in said), said
    succeeded = sum(code == 0 for code, _ in results)
    assert succeeded > 0
    assert succeeded <= len(stored(conf)) - 1
    bakthat.sync(conf=conf)
    assert listed(conf) == stored(conf)
    assert bakthat.sync(conf=conf).changes == []
    assert all(each.is_good for each in bakthat.check(conf=conf, read_data=True))


@pytest.mark.parametrize("catalog", ["postgresql"], indirect=True)
def test_an_upload_that_ends_while_the_server_is_away_waits_for_it(
    tree: Path,
    conf: Conf,
    postgresql_catalogs: PostgresqlCatalogs,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(models, "AWAY_PAUSE", 0.1)
    returned: list[threading.Timer] = []

    def go_away(done: int, total: int) -> None:
        if not returned:
            postgresql_catalogs.stop()
            returned.append(threading.Timer(1, postgresql_catalogs.start))
            returned[0].start()

    made = bakthat.backup(tree, conf=conf, password="", progress=go_away)
    returned[0].join()
    assert listed(conf) == {made.stored_filename}


@pytest.mark.parametrize("catalog", ["postgresql"], indirect=True)
def test_one_that_stays_away_leaves_a_backup_that_sync_lists(
    tree: Path,
    conf: Conf,
    postgresql_catalogs: PostgresqlCatalogs,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(models, "AWAY_PAUSE", 0.1)
    monkeypatch.setattr(models, "RECORD_PATIENCE", 1)
    monkeypatch.setattr("bakthat.database.server.CONNECT_SECONDS", 1)
    stopped = threading.Event()

    def go_away(done: int, total: int) -> None:
        if not stopped.is_set():
            stopped.set()
            postgresql_catalogs.stop()

    try:
        with pytest.raises(CatalogError, match=r"^stored as .* on s3, but not recorded") as caught:
            bakthat.backup(tree, conf=conf, password="", progress=go_away)
    finally:
        postgresql_catalogs.start()
    assert "bakthat sync lists it" in caught.value.hint
    (key,) = stored(conf)
    assert key in str(caught.value)
    assert listed(conf) == set()
    assert [each.action.value for each in bakthat.sync(conf=conf).changes] == ["adopted"]
    assert listed(conf) == {key}
    assert all(each.is_good for each in bakthat.check(conf=conf, read_data=True))


@pytest.mark.parametrize("catalog", ["postgresql"], indirect=True)
def test_a_file_takes_its_place_while_it_is_away(
    user: CommandLine, tree: Path, out: Path, postgresql_catalogs: PostgresqlCatalogs
) -> None:
    assert user.run("backup", "mydir", "--prompt", "no").code == 0
    meanwhile = {"BAKTHAT_DATABASE": str(user.home / "meanwhile.sqlite")}
    postgresql_catalogs.stop()
    try:
        done = user.run("restore", "mydir", "-o", out)
        assert (done.code, "Traceback" in done.stderr) == (1, False)
        assert "does not answer" in done.stderr
        assert not out.exists()
        assert user.run("sync", env=meanwhile).code == 0
        done = user.run("restore", "mydir", "-o", out, env=meanwhile)
        assert done.code == 0, done.stderr
    finally:
        postgresql_catalogs.start()
    assert (out / "mydir" / "a.txt").read_text() == "hello"


# Several hosts


def test_hosts_see_each_others_backups_at_once(tree: Path, conf: Conf) -> None:
    hosts = [{**conf, "host": name} for name in ("alpha", "beta")]
    made = [bakthat.backup(tree, conf=each, password="") for each in hosts]
    assert listed(hosts[0]) == {each.stored_filename for each in made}
    assert [each.host for each in bakthat.ls(conf=hosts[1])] == ["beta", "alpha"]
    bakthat.backup(tree, conf=hosts[0], password="")
    bakthat.rotate_backups("mydir", conf=hosts[0], last=1)
    assert sorted(each.host for each in bakthat.ls(conf=hosts[1])) == ["alpha", "beta"]
    assert all(bakthat.sync(conf=each).changes == [] for each in hosts)


def test_local_stores_of_two_hosts_at_one_path_are_two_stores(
    tree: Path, tmp_path: Path, local: Conf, catalog: str
) -> None:
    """Each host has a directory of its own there, so none of them may miss the other's files."""
    store = tmp_path / "store"
    alpha, beta = (
        {**local, "local_path": str(store), "database": catalog, "host": name}
        for name in ("alpha", "beta")
    )
    first = bakthat.backup(tree, conf=alpha, password="")
    store.rename(tmp_path / "store of alpha")
    second = bakthat.backup(tree, conf=beta, password="")
    assert bakthat.sync(conf=beta).changes == []
    assert listed(beta) == {second.stored_filename}
    store.rename(tmp_path / "store of beta")
    (tmp_path / "store of alpha").rename(store)
    assert bakthat.sync(conf=alpha).changes == []
    assert listed(alpha) == {first.stored_filename}


def test_a_local_store_that_moved_is_recognized(
    tree: Path, tmp_path: Path, local: Conf, catalog: str
) -> None:
    conf = {**local, "database": catalog, "host": "alpha"}
    made = bakthat.backup(tree, conf=conf, password="")
    Path(conf["local_path"]).rename(tmp_path / "moved")
    assert listed({**conf, "local_path": str(tmp_path / "moved"), "host": "beta"}) == set()
    assert listed({**conf, "local_path": str(tmp_path / "moved")}) == {made.stored_filename}


# What says how it is


def about(topic: str, findings: list[Finding]) -> list[Finding]:
    return [each for each in findings if each.topic == topic]


def test_doctor_tries_the_catalog(conf: Conf, catalog: str, tree: Path) -> None:
    bakthat.backup(tree, conf=conf, password="")
    (found,) = about("catalog", bakthat.doctor(conf=conf))
    assert not found.is_problem
    assert found.detail.endswith("can be written and lists 1 backup")
    assert PASSWORD not in found.detail


@pytest.mark.parametrize("catalog", ["postgresql"], indirect=True)
def test_doctor_says_what_is_wrong_with_it(
    conf: Conf,
    catalog: str,
    postgresql_catalogs: PostgresqlCatalogs,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with models.catalog(catalog):
        pass
    name = catalog.rpartition("/")[2]
    reader = f"reader_{name}"
    postgresql_catalogs.sql(
        name,
        f"CREATE ROLE {reader} LOGIN PASSWORD 'look';"
        f"GRANT SELECT ON ALL TABLES IN SCHEMA public TO {reader}",
    )
    address = postgresql_catalogs.address(name, reader, "look")
    (found,) = about("catalog", bakthat.doctor(conf={**conf, "database": address}))
    assert found.is_problem
    assert "permission denied" in found.detail
    monkeypatch.setattr("bakthat.database.server.CONNECT_SECONDS", 1)
    away = "postgresql://127.0.0.1:1/c"
    (found,) = about("catalog", bakthat.doctor(conf={**conf, "database": away}))
    assert found.is_problem
    assert f"the server of the catalog {away} does not answer" in found.detail


def test_the_command_line_shows_no_password(user: CommandLine, catalog: str) -> None:
    assert user.run("backup", "mydir", "--prompt", "no").code == 0
    for words in (
        ("config", "show"),
        ("config", "show", "--json"),
        ("config", "check"),
        ("show", "--debug"),
        ("check", "--host", "nobody"),
        ("status",),
        ("doctor",),
        ("cleanup", "--debug"),
    ):
        done = user.run(*words)
        said = done.stdout + done.stderr
        assert "Traceback" not in said
        assert PASSWORD not in said, words
        assert catalog.partition("@")[0].rpartition(":")[2] not in said, words


def test_an_address_is_checked_as_strictly_as_a_path(tmp_path: Path) -> None:
    config = tmp_path / "bakthat.yml"
    write_config(config, default={"database": "postgrsql://u:secret@db/c"})
    found = [each for each in check_configuration(config=config).findings if each.is_problem]
    assert "'database' is no valid address: postgrsql:// is no server" in found[0].detail
    assert found[0].hint == "did you mean postgresql://?"
    assert "secret" not in str(found)
