"""Which backup a name means, by the catalog alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from bakthat import models
from bakthat.errors import AmbiguousNameError, NoMatchError, UsageError
from bakthat.session.lookup import find_backup
from bakthat.session.session import Session


class FilledCatalog:
    """A catalog to fill, and the profile that looks at it."""

    def __init__(self, path: Path, **conf: Any) -> None:
        self.conf = {
            "database": str(path),
            "s3_bucket": "bucket",
            "glacier_vault": "vault",
            "access_key": "AK",
            **conf,
        }

    def add(
        self,
        stored: str,
        *,
        name: str | None = None,
        host: str = "box",
        backend: str = "s3",
        legacy: bool = False,
        date: int | None = None,
    ) -> None:
        container = {"s3": "bucket", "glacier": "vault"}[backend]
        digest = models.backend_hash(container)
        if legacy:
            digest = models.legacy_backend_hash("AK", container)
        with models.catalog(self.conf["database"], write=True):
            models.record(
                {
                    "backend": backend,
                    "backend_hash": digest,
                    "backup_date": date or int(stored.split(".")[-2][-14:]),
                    "filename": name or stored.split(".")[0].split("/")[-1],
                    "metadata": {"client": host},
                    "size": 1,
                    "stored_filename": stored,
                    "tags": "",
                }
            )

    def find(self, name: str, destination: str | None = None, **options: Any) -> str:
        session = Session("default", None, self.conf, destination)
        return str(find_backup(session, name, **options).stored_filename)


@pytest.fixture
def filled(tmp_path: Path) -> FilledCatalog:
    return FilledCatalog(tmp_path / "catalog.sqlite")


def test_a_stored_filename_is_that_backup(filled: FilledCatalog) -> None:
    filled.add("my.20130604191055.tgz")
    filled.add("my.20130605191055.tgz")
    assert filled.find("my.20130604191055.tgz") == "my.20130604191055.tgz"


def test_a_set_is_its_newest_backup(filled: FilledCatalog) -> None:
    filled.add("my.20130605191055.tgz")
    filled.add("my.20130604191055.tgz")
    assert filled.find("my") == "my.20130605191055.tgz"


def test_the_newest_is_by_the_date_in_the_name_not_by_060s_skewed_column(
    filled: FilledCatalog,
) -> None:
    # 0.6.0 recorded dates that were off by the time zone, and the zone may have changed.
    filled.add("my.20130604191055.tgz", legacy=True, date=1370373055 + 10 * 3600)
    filled.add("my.20130604201055.tgz", legacy=True, date=1370376655)
    for name in ("my", "my.2013"):
        assert filled.find(name) == "my.20130604201055.tgz"


def test_a_set_wins_over_a_beginning(filled: FilledCatalog) -> None:
    filled.add("my.20130604191055.tgz")
    filled.add("mysql.20130605191055.tgz")
    assert filled.find("my") == "my.20130604191055.tgz"


def test_a_beginning_is_the_newest_that_fits(filled: FilledCatalog) -> None:
    filled.add("bak.20120927120000.tgz")
    filled.add("bak.20120927130000.tgz")
    filled.add("bak.20120928120000.tgz")
    assert filled.find("bak.20120927") == "bak.20120927130000.tgz"
    assert filled.find("ba") == "bak.20120928120000.tgz"


def test_a_beginning_that_fits_several_sets_is_an_error_that_lists_them(
    filled: FilledCatalog,
) -> None:
    filled.add("mysql.20130604191055.tgz")
    filled.add("mydir.20130604191055.tgz")
    with pytest.raises(AmbiguousNameError) as caught:
        filled.find("my")
    assert "mydir of box on s3, mysql of box on s3" in str(caught.value)
    assert "--host" in caught.value.hint


def test_a_set_of_two_hosts_is_an_error_until_one_is_named(filled: FilledCatalog) -> None:
    filled.add("my.20130604191055.tgz", host="one")
    filled.add("my.20130605191055.tgz", host="two")
    with pytest.raises(AmbiguousNameError, match="my of one on s3, my of two on s3"):
        filled.find("my")
    assert filled.find("my", host="one") == "my.20130604191055.tgz"
    assert filled.find("my.20130604191055.tgz") == "my.20130604191055.tgz"


def test_another_hosts_only_set_is_found_without_naming_the_host(filled: FilledCatalog) -> None:
    filled.add("my.20130604191055.tgz", host="old-machine")
    assert filled.find("my") == "my.20130604191055.tgz"


def test_a_deletion_needs_the_whole_name_of_the_set(filled: FilledCatalog) -> None:
    filled.add("mysql.20130604191055.tgz")
    with pytest.raises(NoMatchError):
        filled.find("my", to_delete=True)
    with pytest.raises(NoMatchError):
        filled.find("mysq", to_delete=True)
    for name in ("mysql", "mysql.", "mysql.2013", "mysql.20130604191055.tgz"):
        assert filled.find(name, to_delete=True) == "mysql.20130604191055.tgz"


def test_a_dotted_set_is_not_reached_by_the_part_before_its_dot(filled: FilledCatalog) -> None:
    filled.add("my.sql.20130604191055.tgz", name="my.sql")
    with pytest.raises(NoMatchError):
        filled.find("my", to_delete=True)


def test_a_whole_name_deletes_nothing_else_of_its_second(filled: FilledCatalog) -> None:
    filled.add("my.20130604191055.tgz.age", name="my", date=1370373055)
    with pytest.raises(NoMatchError):
        filled.find("my.20130604191055.tgz", to_delete=True)


def test_a_whole_name_wins_over_a_beginning_elsewhere(filled: FilledCatalog) -> None:
    filled.add("my.20130604191055.tgz.age", name="my", date=1370373055)
    filled.add("my.20130604191055.tgz", backend="glacier")
    for to_delete in (False, True):
        found = filled.find("my.20130604191055.tgz", to_delete=to_delete)
        assert found == "my.20130604191055.tgz"


def test_deleting_a_set_stays_at_the_default_destination(filled: FilledCatalog) -> None:
    filled.add("my.20130604191055.tgz", backend="glacier")
    with pytest.raises(NoMatchError) as caught:
        filled.find("my", to_delete=True)
    assert caught.value.hint == "my is on glacier: name that with --destination"
    assert filled.find("my", "glacier", to_delete=True) == "my.20130604191055.tgz"


def test_deleted_backups_never_match(filled: FilledCatalog) -> None:
    filled.add("my.20130604191055.tgz")
    with models.catalog(filled.conf["database"], write=True):
        models.mark_deleted(models.Backups.get(), "by name")
    for name in ("my", "my.2013", "my.20130604191055.tgz"):
        with pytest.raises(NoMatchError):
            filled.find(name)


def test_rows_of_060_and_of_this_version_are_one_set(filled: FilledCatalog) -> None:
    filled.add("my.20130604191055.tgz", legacy=True)
    filled.add("my.20260604191055.tgz")
    assert filled.find("my") == "my.20260604191055.tgz"
    assert filled.find("my.2013") == "my.20130604191055.tgz"


def test_the_default_destination_is_searched_first(filled: FilledCatalog) -> None:
    filled.add("my.20130604191055.tgz")
    filled.add("my.20130605191055.tgz", backend="glacier")
    filled.add("cold.20130605191055.tgz", backend="glacier")
    assert filled.find("my") == "my.20130604191055.tgz"
    assert filled.find("my", "glacier") == "my.20130605191055.tgz"
    assert filled.find("cold") == "cold.20130605191055.tgz"
    with pytest.raises(NoMatchError):
        filled.find("cold", "s3")


def test_the_prefix_may_be_left_out(tmp_path: Path) -> None:
    filled = FilledCatalog(tmp_path / "catalog.sqlite", prefix="backups/")
    filled.add("backups/my.20130604191055.tgz")
    for name in ("my", "my.2013", "my.20130604191055.tgz", "backups/my.20130604191055.tgz"):
        assert filled.find(name, to_delete=True) == "backups/my.20130604191055.tgz"


def test_another_containers_backups_are_not_seen(filled: FilledCatalog) -> None:
    filled.add("my.20130604191055.tgz")
    filled.conf["s3_bucket"] = "another"
    with pytest.raises(NoMatchError) as caught:
        filled.find("my")
    assert caught.value.hint.startswith("bakthat backup makes the first one; ")


def test_a_misspelt_name_is_answered_with_the_nearest(filled: FilledCatalog) -> None:
    filled.add("mydir.20130604191055.tgz")
    with pytest.raises(NoMatchError, match="no backup matches 'mydri'") as caught:
        filled.find("mydri")
    assert "did you mean mydir" in caught.value.hint


def test_no_name_at_all_is_an_error(filled: FilledCatalog) -> None:
    with pytest.raises(UsageError):
        filled.find("")


@pytest.mark.parametrize("name", ["my%", "my_", "m?", "*", "my' OR 1=1 --", "\n"])
def test_wildcards_of_sql_and_the_shell_are_literal(filled: FilledCatalog, name: str) -> None:
    filled.add("my.20130604191055.tgz")
    with pytest.raises(NoMatchError):
        filled.find(name)


INCREMENTS = [
    "my.20260901030000.tgz",
    "my.20260902030000.inc.tgz",
    "my.20260903030000.inc.tgz.age",
    "mysql.20260904030000.inc.tgz",
]


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("my", INCREMENTS[2]),
        ("my.2026", INCREMENTS[2]),
        ("my.202609", INCREMENTS[2]),
        ("my.2026090203", INCREMENTS[1]),
        ("my.20260902030000.inc", INCREMENTS[1]),
        (INCREMENTS[0], INCREMENTS[0]),
        (INCREMENTS[1], INCREMENTS[1]),
        ("mysql", INCREMENTS[3]),
    ],
)
@pytest.mark.parametrize("to_delete", [False, True])
def test_an_increment_is_found_as_a_full_is(
    tmp_path: Path, name: str, found: str, to_delete: bool
) -> None:
    filled = FilledCatalog(tmp_path / "catalog.sqlite")
    for number, each in enumerate(INCREMENTS):
        filled.add(each, name=each.partition(".")[0], date=1788231600 + number)
    assert filled.find(name, to_delete=to_delete) == found


def test_the_name_of_an_increment_deletes_no_encrypted_one(tmp_path: Path) -> None:
    filled = FilledCatalog(tmp_path / "catalog.sqlite")
    filled.add(INCREMENTS[2], name="my", date=1788231600)
    with pytest.raises(NoMatchError):
        filled.find(INCREMENTS[2].removesuffix(".age"), to_delete=True)
