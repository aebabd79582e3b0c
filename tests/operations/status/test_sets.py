"""Which sets are watched, and which job makes each."""

from __future__ import annotations

from pathlib import Path

import pytest

import bakthat
from bakthat import models
from bakthat.conf import JobSource, machine_name
from bakthat.errors import NoMatchError
from bakthat.format.description import NAMED, source_id
from bakthat.operations.sources.expected import fits
from bakthat.operations.status.sets import WatchedSet, expected_sets
from bakthat.session.sets import BackupSet

JOBS = """\
jobs:
  nightly:
    sources:
      - {etc}
      - {www}
      - {{path: {www}, name: web}}
      - {{command: "true", name: out.txt}}
      - sqlite://{home}/app.db
    max_age: 26h
    check: {{every: 1W}}
  weekly:
    profile: second
    sources: [{www}]
    max_age: 8D
    drill: {{every: 1M}}
  often:
    sources: [{etc}]
    max_age: 2h
"""
PROFILES = """\
default:
  default_destination: local
  local_path: {home}/store
  password: ""
second:
  default_destination: local
  local_path: {home}/second
  password: ""
"""


@pytest.fixture
def home(isolated_environment: Path) -> Path:
    """Make a home directory with two profiles, three jobs and two directories to back up."""
    home = isolated_environment
    for name in ("etc", "www"):
        (home / name).mkdir()
        (home / name / "a").write_text(name)
    places = {"home": home, "etc": home / "etc", "www": home / "www"}
    (home / ".bakthat.yml").write_text((PROFILES + JOBS).format(**places))
    return home


def shown(watched: list[WatchedSet]) -> list[tuple[str, int, list[str]]]:
    """Return the names of the sets, their numbers of backups, and the names of their jobs."""
    return [(each.name, len(each.backups), [job.name for job in each.jobs]) for each in watched]


def test_each_source_of_each_job_is_watched_also_before_its_first_backup(home: Path) -> None:
    watched = expected_sets()
    assert shown(watched) == [
        ("app.db", 0, ["nightly"]),
        ("etc", 0, ["nightly", "often"]),
        ("out.txt", 0, ["nightly"]),
        ("web", 0, ["nightly"]),
        ("www", 0, ["nightly"]),
        ("www", 0, ["weekly"]),
    ]
    etc = watched[1]
    assert (etc.found, etc.host, etc.backend) == (None, machine_name(), "local")
    assert etc.source == str(home / "etc")
    assert (etc.max_age, etc.check_every, etc.drill_every) == (2 * 3600, 7 * 86400, None)


def test_a_backup_is_found_under_the_jobs_that_make_it(home: Path) -> None:
    bakthat.backup(home / "etc")
    bakthat.backup(home / "etc")
    bakthat.backup(home / "www", profile="second")
    bakthat.backup(home / "etc", custom_filename="web")
    (home / "mine").write_text("by hand")
    bakthat.backup(home / "mine")
    watched = expected_sets()
    assert shown(watched)[1:] == [
        ("etc", 2, ["nightly", "often"]),
        ("mine", 1, []),
        ("out.txt", 0, ["nightly"]),
        ("web", 1, ["nightly"]),
        ("www", 1, ["weekly"]),
        ("www", 0, ["nightly"]),
    ]
    assert watched[2].max_age is None
    assert watched[5].session.loaded.name == "second"
    assert watched[5].drill_every == 30 * 86400


def test_another_source_of_the_same_name_is_a_set_without_a_job(home: Path) -> None:
    other = home / "other" / "etc"
    other.mkdir(parents=True)
    bakthat.backup(other)
    sets = [each for each in expected_sets("etc") if each.name == "etc"]
    assert [(each.source, [job.name for job in each.jobs]) for each in sets] == [
        (str(home / "etc"), ["nightly", "often"]),
        (str(other), []),
    ]


def test_a_profile_narrows_the_sets_and_the_jobs(home: Path) -> None:
    bakthat.backup(home / "etc")
    bakthat.backup(home / "www", profile="second")
    assert shown(expected_sets(profile="second")) == [("www", 1, ["weekly"])]
    assert shown(expected_sets("www", profile="default")) == [("www", 0, ["nightly"])]
    conf = {"default_destination": "local", "local_path": str(home / "store")}
    assert shown(expected_sets(conf=conf)) == [("etc", 1, [])]


def test_another_host_has_sets_and_no_jobs(home: Path) -> None:
    conf = {
        "default_destination": "local",
        "local_path": str(home / "store"),
        "host": "web2",
        "password": "",
    }
    bakthat.backup(home / "etc", conf=conf)
    assert [each.name for each in expected_sets("etc") if each.backups] == []
    assert shown(expected_sets(host="web2")) == [("etc", 1, [])]


def test_one_container_of_two_profiles_is_read_once(home: Path) -> None:
    text = (home / ".bakthat.yml").read_text()
    (home / ".bakthat.yml").write_text(text.replace("/second\n", "/store\n"))
    bakthat.backup(home / "www", profile="second")
    assert shown(expected_sets("www")) == [("www", 1, ["nightly", "weekly"])]


def test_of_profiles_with_one_container_that_of_the_job_is_the_one(home: Path) -> None:
    """Its rotation and its increments are those of the set."""
    text = PROFILES.format(home=home).replace("/second\n", "/store\n")
    jobs = f"jobs: {{weekly: {{profile: second, sources: [{home}/www]}}}}\n"
    (home / ".bakthat.yml").write_text(text + jobs)
    bakthat.backup(home / "www", profile="second")
    bakthat.backup(home / "etc")
    found = {each.name: each.session.loaded.name for each in expected_sets()}
    assert found == {"etc": "default", "www": "second"}


def test_what_was_deleted_is_only_returned_when_it_is_wanted(home: Path) -> None:
    first = bakthat.backup(home / "etc")
    bakthat.backup(home / "etc")
    bakthat.delete(first.stored_filename)
    date = first.backup_date
    assert shown(expected_sets("etc")) == [("etc", 1, ["nightly", "often"])]
    assert shown(expected_sets("etc", deleted_since=date)) == [("etc", 2, ["nightly", "often"])]
    later = date + 3600
    assert shown(expected_sets("etc", deleted_since=later)) == [("etc", 1, ["nightly", "often"])]


def test_another_host_is_only_watched_when_it_is_wanted(home: Path) -> None:
    bakthat.backup(home / "etc")
    bakthat.backup(home / "etc", host="web9")
    assert {each.host for each in expected_sets("etc")} == {machine_name()}
    every = expected_sets("etc", all_hosts=True)
    assert {each.host: [job.name for job in each.jobs] for each in every} == {
        machine_name(): ["nightly", "often"],
        "web9": [],
    }
    assert [each.host for each in expected_sets("etc", host="web9", all_hosts=True)] == ["web9"]


def test_nothing_to_watch_is_an_error(home: Path) -> None:
    bakthat.backup(home / "etc")
    with pytest.raises(NoMatchError, match="has no set 'ect', and no job makes one") as caught:
        expected_sets("ect")
    assert caught.value.hint == "did you mean etc?"
    with pytest.raises(NoMatchError, match="has no backup of web9"):
        expected_sets(host="web9")
    (home / ".bakthat.yml").write_text(f"default: {{local_path: {home}/other}}\n")
    with pytest.raises(NoMatchError, match=f"has no backup of {machine_name()}") as caught:
        expected_sets()
    assert caught.value.hint == "bakthat sync lists what is stored; --host names another host"


def test_values_and_other_containers_are_not_watched(home: Path) -> None:
    (home / ".bakthat.yml").write_text(PROFILES.format(home=home))
    bakthat.backup(home / "etc")
    bakthat.backup(home / "www", profile="second")
    assert shown(expected_sets()) == [("etc", 1, [])]


SERVER = "postgresql://db.example.com"


def of_database(name: str, origin: str) -> BackupSet:
    """Return the set of a database of the server; *origin* is what its id is made from."""
    own = source_id(origin) if origin else NAMED
    metadata = {"source": origin.rpartition(" ")[2] or f"{SERVER}/shop", "source_id": own}
    backup = models.Backups(filename=name, stored_filename=f"{name}.gz", metadata=metadata)
    return BackupSet(name, "web1", "s3", False, "" if own == NAMED else own, False, (backup,))


@pytest.mark.parametrize(
    ("source", "fitting"),
    [
        (JobSource(path=f"{SERVER}/*"), ["shop", "copy-shop, a database"]),
        (JobSource(path=f"{SERVER}/*", via="docker exec -i a"), ["shop in a"]),
        (JobSource(path=f"{SERVER}/*", name="copy"), ["copy-shop"]),
        (JobSource(path="postgresql://db.example.co/*"), []),
    ],
)
def test_the_sets_of_a_server_are_not_those_of_another_source_of_it(
    source: JobSource, fitting: list[str]
) -> None:
    """Else the backups of one would hide that the other makes none."""
    sets = {
        "shop": of_database("shop", f"{SERVER}/shop"),
        "shop in a": of_database("shop", f"docker exec -i a {SERVER}/shop"),
        "shop in b": of_database("shop", f"docker exec -i b {SERVER}/shop"),
        "copy-shop": of_database("copy-shop", ""),
        "other": of_database("other", ""),
        "copy-shop, a database": of_database("copy-shop", f"{SERVER}/copy-shop"),
    }
    assert [name for name, each in sets.items() if fits(source, each)] == fitting
