"""Two directories of one base name are two sets, on every storage and after a lost catalog."""

from __future__ import annotations

import hashlib
import os
import sqlite3
import tempfile
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import bakthat
from bakthat import models
from bakthat.errors import AmbiguousNameError, CorruptArchiveError, NoMatchError
from bakthat.helper import BakHelper
from tests.support.commandline import CommandLine
from tests.support.filled_catalog import DAY, HOST, NOW, FilledCatalog, using_catalog
from tests.support.profiles import Conf, write_config


@pytest.fixture
def sites(tmp_path: Path) -> list[Path]:
    """Make two directories that share a base name."""
    made = [tmp_path / site / "htdocs" for site in ("site1", "site2")]
    for each in made:
        each.mkdir(parents=True)
        (each / "index.html").write_text(each.parent.name)
    return made


Backup = Callable[..., models.Backups]


@pytest.fixture
def back_up(conf: Conf, monkeypatch: pytest.MonkeyPatch) -> Backup:
    """Return a function that backs up a path some days ago."""

    def back_up(path: Path, days: int, **options: Any) -> models.Backups:
        with monkeypatch.context() as patch:
            now = time.time() - days * DAY
            patch.setattr(time, "time", lambda: now)
            return bakthat.backup(path, conf=conf, password="", **options)

    return back_up


def stored(conf: Conf) -> set[str]:
    return {each.stored_filename for each in bakthat.ls(conf=conf)}


def lose_catalog(conf: Conf) -> None:
    for path in Path(conf["database"]).parent.glob("catalog.sqlite*"):
        path.unlink()
    bakthat.sync(conf=conf)


@pytest.mark.parametrize("lost", [False, True], ids=["catalog kept", "catalog lost"])
def test_two_directories_of_one_name_are_never_thinned_out_as_one(
    conf: Conf, sites: list[Path], back_up: Backup, lost: bool, tmp_path: Path
) -> None:
    one, two = sites
    made = {path: [back_up(path, days) for days in (5, 4, 3, 2, 1)] for path in sites}
    if lost:
        lose_catalog(conf)
    before = stored(conf)
    for call in (
        lambda: bakthat.rotate_backups("htdocs", conf=conf, last=1),
        lambda: bakthat.delete_older_than("htdocs", "1s", conf=conf),
        lambda: bakthat.delete("htdocs", conf=conf),
        lambda: bakthat.restore("htdocs", conf=conf, output=tmp_path / "out"),
    ):
        with pytest.raises(AmbiguousNameError, match="'htdocs' fits several sets") as caught:
            call()
        assert "--source" in caught.value.hint
        for path in sites:
            known = made[path][-1].metadata["source_id"] if lost else str(path)
            assert known in str(caught.value)
    assert stored(conf) == before

    deleted = bakthat.rotate_backups("htdocs", conf=conf, source=two, last=2)
    assert {str(each) for each in deleted} == {str(each) for each in made[two][:3]}
    deleted = bakthat.delete_older_than("htdocs", "2D1h", conf=conf, source=one)
    assert {str(each) for each in deleted} == {str(each) for each in made[one][:3]}

    bakthat.restore("htdocs", conf=conf, source=one, output=tmp_path / "out")
    assert (tmp_path / "out/htdocs/index.html").read_text() == "site1"
    by_id = made[two][0].metadata["source_id"]
    bakthat.restore("htdocs", conf=conf, source=by_id, output=tmp_path / "out")
    assert (tmp_path / "out/htdocs/index.html").read_text() == "site2"
    assert str(bakthat.delete("htdocs", conf=conf, source=one)) == str(made[one][-1])
    assert len(stored(conf)) == 3


@pytest.fixture(params=["local", "moto"])
def conf(request: pytest.FixtureRequest, local: Conf) -> Conf:
    if request.param == "local":
        return local
    return {**request.getfixturevalue("moto_conf"), "database": local["database"]}


def test_backups_with_one_given_name_are_one_set_whatever_their_sources(
    local: Conf, sites: list[Path]
) -> None:
    made = [
        bakthat.backup(path, conf=local, password="", custom_filename="web") for path in sites * 2
    ]
    deleted = bakthat.rotate_backups("web", conf=local, last=1)
    assert {str(each) for each in deleted} == {str(each) for each in made[:3]}
    lose_catalog(local)
    assert [str(each) for each in bakthat.ls("web", conf=local)] == [str(made[3])]


def test_a_given_name_and_the_base_name_of_a_source_are_two_sets(
    local: Conf, sites: list[Path], tmp_path: Path
) -> None:
    one, two = sites
    of_source = bakthat.backup(one, conf=local, password="")
    named = bakthat.backup(two, conf=local, password="", custom_filename="htdocs")
    with pytest.raises(AmbiguousNameError, match=f"without a source .*{named.stored_filename}"):
        bakthat.rotate_backups("htdocs", conf=local, last=1)
    assert bakthat.rotate_backups("htdocs", conf=local, source="", last=1) == []
    found = bakthat.restore("htdocs", conf=local, source="", output=tmp_path / "out")
    assert str(found) == str(named)
    found = bakthat.restore("htdocs", conf=local, source=one, output=tmp_path / "out")
    assert str(found) == str(of_source)


def test_a_moved_directory_is_a_new_set_and_the_error_names_both(
    local: Conf, sites: list[Path], tmp_path: Path
) -> None:
    one, _two = sites
    bakthat.backup(one, conf=local, password="")
    moved = tmp_path / "elsewhere" / "htdocs"
    moved.parent.mkdir()
    one.rename(moved)
    bakthat.backup(moved, conf=local, password="")
    with pytest.raises(AmbiguousNameError) as caught:
        bakthat.rotate_backups("htdocs", conf=local, last=1)
    assert f"from {one}" in str(caught.value)
    assert f"from {moved}" in str(caught.value)
    assert "--name" in caught.value.hint


def test_a_source_that_has_no_backup_is_an_error_that_names_those_that_have(
    local: Conf, sites: list[Path], tmp_path: Path
) -> None:
    one, two = sites
    made = bakthat.backup(one, conf=local, password="")
    for call in (
        lambda: bakthat.rotate_backups("htdocs", conf=local, source=two, last=1),
        lambda: bakthat.restore("htdocs", conf=local, source=two, output=tmp_path / "out"),
        lambda: bakthat.restore(str(made.stored_filename), conf=local, source=two),
    ):
        with pytest.raises(NoMatchError, match=f"is from {two}") as caught:
            call()
        assert f"from {one}" in caught.value.hint
    with pytest.raises(NoMatchError, match="is from no source") as caught:
        bakthat.restore("htdocs", conf=local, source="", output=tmp_path / "out")
    assert f"from {one}" in caught.value.hint


def test_the_id_of_a_source_is_that_of_the_documentation(local: Conf, sites: list[Path]) -> None:
    made = bakthat.backup(sites[0], conf=local, password="")
    expected = hashlib.sha256(os.fsencode(sites[0])).hexdigest()[:16]
    assert made.metadata["source_id"] == made.source_id == expected
    assert made.metadata["source"] == made.source == str(sites[0])
    lose_catalog(local)
    (found,) = bakthat.ls(conf=local)
    assert (found.source_id, found.source) == (expected, "")


def test_the_same_path_written_in_another_way_is_the_same_source(
    local: Conf, sites: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(sites[0].parent)
    paths = ["htdocs", "./htdocs/", "../site1/htdocs", str(sites[0]), f"/{sites[0]}"]
    assert len({bakthat.backup(p, conf=local, password="").source_id for p in paths}) == 1
    assert len(bakthat.rotate_backups("htdocs", conf=local, source="htdocs", last=1)) == 4


def test_a_path_that_is_not_utf_8_tells_sets_apart(
    conf: Conf, tmp_path: Path, back_up: Backup
) -> None:
    paths = [tmp_path / os.fsdecode(name) / "my" for name in (b"\xff", b"\xfe")]
    for path in paths:
        path.mkdir(parents=True)
        back_up(path, 0)
        back_up(path, 0)
    with pytest.raises(AmbiguousNameError, match=r"\\xff/my"):
        bakthat.rotate_backups("my", conf=conf, last=1)
    lose_catalog(conf)
    assert len(bakthat.rotate_backups("my", conf=conf, source=paths[0], last=1)) == 1
    assert len(stored(conf)) == 3


def test_a_swapped_archive_of_another_source_is_refused(
    local: Conf, sites: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both have the same name, host and second, in stores of their own."""
    monkeypatch.setattr(time, "time", lambda: float(NOW))
    confs = [
        {
            **local,
            "local_path": str(tmp_path / f"store{n}"),
            "database": str(tmp_path / f"{n}.sqlite"),
        }
        for n in (1, 2)
    ]
    made = [
        bakthat.backup(path, conf=each, password="")
        for path, each in zip(sites, confs, strict=True)
    ]
    key = made[0].stored_filename
    assert key == made[1].stored_filename
    (tmp_path / "store1" / key).write_bytes((tmp_path / "store2" / key).read_bytes())
    bakthat.sync(conf=confs[0])  # it learns the size of the other one
    with pytest.raises(CorruptArchiveError, match="source="):
        bakthat.restore("htdocs", conf=confs[0], output=tmp_path / "out")


# Backups of an unknown source: those of bakthat 0.6.0.


@pytest.fixture
def filled(tmp_path: Path) -> Any:
    made = FilledCatalog(tmp_path / "catalog.sqlite")
    with using_catalog(made):
        yield made


X, Y = "0" * 15 + "1", "0" * 15 + "2"


def metadata(source_id: str, host: str = HOST) -> dict[str, Any]:
    known: dict[str, Any] = {"format": 1, "source_id": source_id} if source_id else {}
    return {"client": host, "is_enc": False, **known}


def names(backups: list[models.Backups]) -> list[str]:
    return [each.stored_filename for each in backups]


def test_backups_of_an_unknown_source_belong_to_the_only_source_of_their_name(
    filled: FilledCatalog, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "bakthat")
    old = [filled.add(NOW - age * DAY) for age in (9, 8, 7)]
    new = [filled.add(NOW - age * DAY, metadata=metadata(X)) for age in (2, 1)]
    assert names(bakthat.rotate_backups("my", conf=filled.conf, last=1)) == [*old[:2], new[0]]
    # It may be of another source.
    assert f"Keeping {old[2]}: it is the newest of its source" in caplog.text
    assert bakthat.delete_older_than("my", "1s", conf=filled.conf) == []


@pytest.mark.parametrize("other", [Y, "named"])
def test_where_a_name_has_several_sources_the_unknown_one_is_thinned_out_with_none(
    filled: FilledCatalog, other: str
) -> None:
    for age in (9, 8, 7):
        filled.add(NOW - age * DAY)
    new = [filled.add(NOW - age * DAY, metadata=metadata(X)) for age in (2, 1)]
    filled.add(NOW, metadata=metadata(other))
    with pytest.raises(AmbiguousNameError, match="without a source"):
        bakthat.rotate_backups("my", conf=filled.conf, last=1)
    assert names(bakthat.rotate_backups("my", conf=filled.conf, source=X, last=1)) == new[:1]


def test_a_source_fits_where_no_source_is_known(filled: FilledCatalog) -> None:
    old = [filled.add(NOW - age * DAY) for age in (9, 8, 7)]
    deleted = bakthat.rotate_backups("my", conf=filled.conf, source="/home/me/my", last=1)
    assert names(deleted) == old[:2]


@st.composite
def catalogs(draw: st.DrawFn) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Draw a catalog of a few names, hosts and sources, and what is asked of one of them."""
    entry = st.fixed_dictionaries(
        {
            "name": st.sampled_from(["my", "mysql"]),
            "host": st.sampled_from([HOST, HOST, "other", ""]),
            "source": st.sampled_from(draw(st.sampled_from([["", X], ["", X, Y, "named"]]))),
            "age": st.integers(-3, 40),
        }
    )
    request = st.fixed_dictionaries(
        {
            "host": st.sampled_from([None, "other"]),
            "source": st.sampled_from([None, None, "", X, Y]),
            "act": st.sampled_from(["rotate", "expire"]),
            "count": st.integers(1, 3),
        }
    )
    return draw(st.lists(entry, max_size=30)), draw(request)


@settings(max_examples=60, deadline=None)
@given(catalogs())
@pytest.mark.slow
def test_whatever_is_asked_the_newest_of_every_name_host_and_source_stays(
    drawn: tuple[list[dict[str, Any]], dict[str, Any]],
) -> None:
    entries, request = drawn
    with tempfile.TemporaryDirectory() as directory:
        filled = FilledCatalog(Path(directory) / "catalog.sqlite")
        with using_catalog(filled):
            newest: dict[tuple[str, str, str], tuple[int, str]] = {}
            identity = {}
            for number, entry in enumerate(entries):
                date = NOW - entry["age"] * DAY + number
                found = metadata(entry["source"], entry["host"])
                key = filled.add(date, entry["name"], metadata=found)
                of = identity[key] = (entry["name"], entry["host"], entry["source"])
                if entry["age"] >= 0:
                    newest[of] = max(newest.get(of, (0, "")), (date, key))
            options = {"conf": filled.conf, "host": request["host"], "source": request["source"]}
            try:
                if request["act"] == "rotate":
                    deleted = bakthat.rotate_backups("my", last=request["count"], **options)
                else:
                    deleted = bakthat.delete_older_than("my", f"{request['count']}D", **options)
            except (NoMatchError, AmbiguousNameError):
                deleted = []
            left = filled.living()
            assert set(identity) - left == set(names(deleted))
            assert {key for _date, key in newest.values()} <= left
            touched = {identity[each] for each in names(deleted)}
            sources = {source for _name, _host, source in touched} - {""}
            assert {name for name, _host, _source in touched} <= {"my"}
            assert {host for _name, host, _source in touched} <= {request["host"] or HOST}
            assert len(sources) <= 1
            if request["source"] in (X, Y):
                assert sources <= {request["source"]}
            if sources and ("" in {source for _name, _host, source in touched}):
                place = next(iter(touched))[:2]
                among = {each[2] for each in identity.values() if each[:2] == place}
                assert among == {"", *sources} or sources == {"named"}


# Scripts and the command line.


def test_an_unnamed_helpers_blocks_make_one_set_though_their_directories_differ(
    local: Conf,
) -> None:
    for _ in range(3):
        with BakHelper(conf=local, password="") as bh:
            Path("dump.sql").write_text("data")
            bh.backup("dump.sql")
            bh.rotate("dump.sql", last=1)
    assert len(stored(local)) == 1


def test_a_helper_selects_one_of_several_sources(
    local: Conf, sites: list[Path], tmp_path: Path
) -> None:
    bh = BakHelper(conf=local, password="")
    for path in sites * 2:
        bh.backup(path)
    with pytest.raises(AmbiguousNameError):
        bh.rotate("htdocs", last=1)
    assert len(bh.rotate("htdocs", source=sites[0], last=1)) == 1
    assert len(bh.delete_older_than("1s", "htdocs", source=sites[1], dry_run=True)) == 0
    found = bh.restore("htdocs", source=sites[1], output=tmp_path / "out")
    assert found is not None
    assert found.source == str(sites[1])


def test_show_tells_two_sources_of_one_name_apart(
    local: Conf, sites: list[Path], capsys: pytest.CaptureFixture[str]
) -> None:
    bakthat.backup(sites[0], conf=local, password="")
    bakthat.show(conf=local)
    assert "SOURCE" not in capsys.readouterr().out
    other = bakthat.backup(sites[1], conf=local, password="")
    bakthat.show(conf=local)
    shown = capsys.readouterr().out
    assert "SOURCE" in shown
    assert all(str(path) in shown for path in sites)
    lose_catalog(local)
    bakthat.show(conf=local)
    assert other.source_id in capsys.readouterr().out


@pytest.mark.slow
def test_the_command_line_selects_a_source(
    user: CommandLine, isolated_environment: Path, sites: list[Path]
) -> None:
    write_config(isolated_environment / ".bakthat.yml", default={"default_destination": "local"})
    for path in sites * 2:
        assert user.run("backup", path, "--prompt", "no").code == 0
    done = user.run("rotate", "htdocs", "--last", "1")
    assert done.code == 1
    assert str(sites[0]) in done.stderr
    assert "--source" in done.stderr
    for command in (
        ("rotate", "htdocs", "--last", "1"),
        ("delete_older_than", "htdocs", "1s"),
        ("restore", "htdocs", "-o", "out"),
        ("restore", "htdocs", "--job-check"),
        ("delete", "htdocs"),
    ):
        done = user.run(*command, "--source", sites[0])
        assert done.code == 0, done.stderr
    assert (user.directory / "out/htdocs/index.html").read_text() == "site1"
    shown = user.run("show").stdout
    assert shown.count("htdocs.") == 2


def test_entries_from_before_there_were_ids_are_told_apart_by_their_paths(
    local: Conf, tmp_path: Path
) -> None:
    sources = [tmp_path / site / "htdocs" for site in ("site1", "site2")]
    for number in range(3):
        for source in sources:
            source.mkdir(parents=True, exist_ok=True)
            (source / "file").write_text(f"{source.parent.name} {number}")
            bakthat.backup(source, conf=local, password="")
    bakthat.backup(sources[0], conf=local, password="", custom_filename="given")
    with closing(sqlite3.connect(local["database"])) as catalog, catalog:
        catalog.execute("UPDATE backups SET metadata = json_remove(metadata, '$.source_id')")
    before = {str(each) for each in bakthat.ls(conf=local)}
    with pytest.raises(AmbiguousNameError, match="site2/htdocs"):
        bakthat.rotate_backups("htdocs", conf=local, last=1)
    assert {str(each) for each in bakthat.ls(conf=local)} == before
    deleted = bakthat.rotate_backups("htdocs", conf=local, last=1, source=sources[0])
    assert {each.source for each in deleted} == {str(sources[0])}
    assert len(deleted) == 2
    assert bakthat.rotate_backups("given", conf=local, last=1, source="none") == []
