"""What must not go unnoticed when an increment is made: lost archives, other keys and places."""

from __future__ import annotations

import contextlib
import logging
import os
import stat
import tarfile
import time
from pathlib import Path
from unittest import mock

import pyrage  # type: ignore[import-untyped]  # it comes without types
import pytest

import bakthat
from bakthat import models
from bakthat.archive.create import worker
from bakthat.archive.create.increment import archive, writer
from tests.support.commandline import CommandLine
from tests.support.incremental import BALLAST, DAY, Tracked, long_after, noting_what_is_read
from tests.support.indexes import lose_indexes
from tests.support.locales import german_latin1
from tests.support.profiles import Conf
from tests.support.trees import fingerprint

NOON = 1_704_715_200 + 12 * 3600
"""2024-01-08 12:00 UTC, a Monday."""


@pytest.fixture
def tracked(local: Conf, tree: Path) -> Tracked:
    return Tracked(tree, local)


def full_reasons(caplog: pytest.LogCaptureFixture) -> list[str]:
    """Return why fulls were made, and forget it."""
    start = "Making a full backup: "
    found = [each.removeprefix(start) for each in caplog.messages if each.startswith(start)]
    caplog.clear()
    return found


# A skipped backup.


def test_no_backup_is_skipped_when_the_newest_one_is_lost(
    tracked: Tracked, caplog: pytest.LogCaptureFixture
) -> None:
    """The newest is passed over by its level, so it is no parent."""
    caplog.set_level(logging.INFO)
    tracked.moment = time.time()
    tracked.back_up()
    (tracked.tree / "a.txt").write_text("changed")
    tracked.moment += 60
    daily = tracked.back_up()
    tracked.moment += 35 * DAY
    (Path(tracked.conf["local_path"]) / daily.stored_filename).unlink()
    made = tracked.back_up(skip_unchanged=True)
    assert not made.is_skipped
    assert tracked.state(made) == fingerprint(tracked.tree)


def test_no_backup_is_skipped_when_the_store_is_not_there(tracked: Tracked) -> None:
    tracked.moment = time.time()
    tracked.back_up()
    (tracked.tree / "a.txt").write_text("changed")
    tracked.moment += 60
    tracked.back_up()
    tracked.moment += 35 * DAY
    store = Path(tracked.conf["local_path"])
    store.rename(store.with_name("elsewhere"))
    assert not tracked.back_up(skip_unchanged=True).is_skipped


def test_a_dry_run_of_a_full_counts_what_it_stores(tracked: Tracked) -> None:
    tree = tracked.tree.parent / "kinds"
    tree.mkdir()
    (tree / "file").write_text("content")
    os.mkfifo(tree / "pipe")
    os.mknod(tree / "socket", stat.S_IFSOCK | 0o600)
    preview = bakthat.preview_backup(tree, conf=tracked.conf, password="", full=True, why="nofile")
    assert preview.report.files == 2
    assert preview.report.explanation == f"it is not stored: there is no 'nofile' in '{tree}'"
    made = bakthat.backup(tree, conf=tracked.conf, password="", full=True)
    restored = tracked.restore(made, tree.parent / "restored")
    assert sorted(os.listdir(restored)) == ["file", "pipe"]


def test_a_dry_run_skips_what_a_backup_skips(tracked: Tracked) -> None:
    """The parent is an older one, since when most has changed; the newest has it."""
    tracked.moment = NOON
    for name in ("more", "much more"):
        (tracked.tree / name).write_bytes(os.urandom(100_000))
    tracked.back_up()
    for name in (BALLAST, "more"):  # neither increment is large, both together are
        (tracked.tree / name).write_bytes(os.urandom(100_000))
        tracked.moment += 60
        newest = tracked.back_up()
        assert newest.is_increment
    tracked.moment += 35 * DAY
    with mock.patch.object(time, "time", return_value=tracked.moment):
        preview = bakthat.preview_backup(
            tracked.tree, conf=tracked.conf, password="", skip_unchanged=True, why=BALLAST
        )
    assert list(preview) == []
    assert preview.report.is_skipped
    assert preview.report.newest == newest.stored_filename
    assert preview.report.explanation.startswith("it is not stored: it is unchanged")
    assert tracked.back_up(skip_unchanged=True).is_skipped


# Keys.


@pytest.mark.slow
def test_a_full_is_made_after_the_passphrase_has_changed(
    tracked: Tracked, caplog: pytest.LogCaptureFixture, out: Path
) -> None:
    caplog.set_level(logging.INFO)
    conf = tracked.conf
    bakthat.backup(tracked.tree, conf=conf, password="old")
    assert full_reasons(caplog) == ["it is the first of its set"]
    assert bakthat.backup(tracked.tree, conf=conf, password="old").is_increment
    made = bakthat.backup(tracked.tree, conf=conf, password="new")
    assert full_reasons(caplog) == ["the passphrase has changed"]
    assert bakthat.backup(tracked.tree, conf=conf, password="new").is_increment
    bakthat.restore("mydir", conf=conf, password="new", output=out)
    assert fingerprint(out / "mydir") == fingerprint(tracked.tree)
    assert not made.is_increment
    assert not bakthat.backup(tracked.tree, conf=conf, password="").is_increment
    assert full_reasons(caplog) == ["the encryption has changed"]


def test_a_full_is_made_when_the_stored_index_cannot_be_opened(tracked: Tracked) -> None:
    """It is in the cache; the passphrase is tried on what is stored."""
    first = bakthat.backup(tracked.tree, conf=tracked.conf, password="secret")
    index = Path(tracked.conf["local_path"], f"{first.stored_filename}.index")
    index.write_bytes(b"\0" * index.stat().st_size)
    assert not bakthat.backup(tracked.tree, conf=tracked.conf, password="secret").is_increment


@pytest.mark.parametrize("is_archive_readable", [False, True])
@pytest.mark.slow
def test_without_the_stored_index_the_archive_tells_whether_the_passphrase_has_changed(
    is_archive_readable: bool, tracked: Tracked, caplog: pytest.LogCaptureFixture
) -> None:
    """The index is in the cache."""
    caplog.set_level(logging.INFO)
    first = bakthat.backup(tracked.tree, conf=tracked.conf, password="old")
    path = Path(tracked.conf["local_path"], first.stored_filename)
    path.with_name(f"{path.name}.index").unlink()
    if is_archive_readable:
        made = bakthat.backup(tracked.tree, conf=tracked.conf, password="old")
        assert made.is_increment
        path.with_name(f"{made.stored_filename}.index").unlink()
    full_reasons(caplog)
    assert not bakthat.backup(tracked.tree, conf=tracked.conf, password="new").is_increment
    assert full_reasons(caplog) == ["the passphrase has changed"]


def test_a_full_is_made_where_an_index_does_not_say_the_recipients(
    tracked: Tracked, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    """Such an index was made again from its archive."""
    caplog.set_level(logging.INFO)
    identities = [pyrage.x25519.Identity.generate() for _ in range(2)]
    one, two = (str(each.to_public()) for each in identities)
    key = tmp_path / "key.txt"
    key.write_text(f"{identities[0]}\n")
    conf = {**tracked.conf, "recipients": [one], "identity_file": str(key)}
    full = bakthat.backup(tracked.tree, conf=conf)
    lose_indexes(conf, full.stored_filename)
    bakthat.sync(conf=conf, indexes=True)
    full_reasons(caplog)
    assert not bakthat.backup(tracked.tree, conf={**conf, "recipients": [two]}).is_increment
    assert full_reasons(caplog) == ["the recipients have changed"]


@pytest.mark.slow
def test_no_backup_is_skipped_after_the_passphrase_has_changed(
    tracked: Tracked, caplog: pytest.LogCaptureFixture
) -> None:
    """The newest is passed over by its level, so it is no parent."""
    caplog.set_level(logging.INFO)

    def back_up(password: str, days: int) -> models.Backups:
        with mock.patch.object(time, "time", return_value=begun + days * DAY):
            return bakthat.backup(
                tracked.tree, conf=tracked.conf, password=password, skip_unchanged=True
            )

    begun = time.time()
    back_up("old", 0)
    (tracked.tree / "a.txt").write_text("changed")
    assert back_up("old", 1).is_increment
    assert back_up("old", 36).is_skipped
    full_reasons(caplog)
    assert not back_up("new", 36).is_skipped
    assert full_reasons(caplog) == ["the passphrase has changed"]


def test_a_full_is_made_for_other_recipients(
    tracked: Tracked, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    one, two = (
        "age1zvkyg2lqzraa2lnjvqej32nkuu0ues2s82hzrye869xeexvn73equnujwj",
        "age1lvyvwawkr0mcnnnncaghunadrqkmuf9e6507x9y920xxpp866cnql7dp2z",
    )
    conf = {**tracked.conf, "recipients": [one]}
    bakthat.backup(tracked.tree, conf=conf)
    assert bakthat.backup(tracked.tree, conf=conf).is_increment
    full_reasons(caplog)
    bakthat.backup(tracked.tree, conf=conf, recipients=[one, two])
    assert full_reasons(caplog) == ["the recipients have changed"]


# Between the comparison and the archive.


@pytest.mark.parametrize("kind", ["symbolic link", "file", "nothing"])
def test_nothing_is_stored_below_a_directory_that_was_replaced(
    tracked: Tracked, tmp_path: Path, kind: str
) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "f").write_text("from outside")
    inside = tracked.tree / "d"
    inside.mkdir()
    (inside / "f").write_text("before")
    (tracked.tree / "e").write_text("before")
    tracked.back_up()
    (inside / "f").write_text("changed")
    (tracked.tree / "e").write_text("changed")
    real = writer.write_increment

    def replace_first(*arguments: object, **options: object) -> int:
        inside.rename(tmp_path / "moved")
        if kind == "symbolic link":
            inside.symlink_to(outside)
        elif kind == "file":
            inside.write_text("a file")
            with contextlib.suppress(OSError):  # not on every file system
                os.setxattr(inside, "user.colour", b"red")
        return real(*arguments, **options)  # type: ignore[arg-type]  # as they came

    with (
        mock.patch.object(worker, "may_fork", return_value=False),
        mock.patch.object(archive, "write_increment", replace_first),
    ):
        made = tracked.back_up()
    assert not made.is_complete
    assert tracked.content(made, "d/f") == b"before"
    assert tracked.content(made, "e") == b"changed"
    assert not [key for key in tracked.members(made)["d"].pax_headers if "xattr" in key]


# The limit of what an archive may unpack to.


def test_the_listings_of_directories_count_in_the_limit_of_a_restore(
    tracked: Tracked, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bakthat.session.reading.SLACK_BYTES", 0)
    with long_after():
        for number in range(5):
            directory = tracked.tree / f"directory {number}"
            directory.mkdir()
            for name in range(400):
                (directory / f"{name:03}{'n' * 100}").touch()
        tracked.back_up()
        for number in range(5):
            (tracked.tree / f"directory {number}" / "new").touch()
        made = tracked.back_up()
    assert made.is_increment
    assert tracked.state(made) == fingerprint(tracked.tree)


# What other programs read.


def test_the_archive_of_an_increment_without_changes_has_its_root(tracked: Tracked) -> None:
    with long_after():
        tracked.back_up()
        made = tracked.back_up()
    path = Path(tracked.conf["local_path"], made.stored_filename)
    with tarfile.open(path, errorlevel=2) as found:
        assert found.getnames() == ["mydir"]
    assert made.metadata["unchanged"] == 2
    with long_after():
        preview = bakthat.preview_backup(tracked.tree, conf=tracked.conf, password="")
        assert list(preview) == []
        assert tracked.back_up(skip_unchanged=True).is_skipped


# Names and dates.


def test_a_removed_file_is_gone_in_any_locale(
    user: CommandLine, tree: Path, tmp_path: Path
) -> None:
    config = user.home / ".bakthat.yml"
    config.write_text("default: {default_destination: local, incremental: true}\n")
    config.chmod(0o600)
    (tree / "ballast").write_bytes(os.urandom(100_000))
    directory = tree / "d"
    directory.mkdir()
    name = directory / "caf\u00e9"
    name.write_text("x")
    locale = german_latin1(tmp_path)
    for _ in range(2):
        done = user.run("backup", "mydir", "--prompt", "no", env=locale)
        assert done.code == 0, done.stderr
        name.unlink(missing_ok=True)
    assert user.run("restore", "mydir", "-o", "out", env=locale).code == 0
    assert fingerprint(user.directory / "out" / "mydir") == fingerprint(tree)


def test_a_full_never_has_the_date_of_an_increment(tracked: Tracked) -> None:
    tracked.moment = time.time()
    entries = [tracked.back_up(), tracked.back_up(), tracked.back_up(full=True)]
    assert [each.is_increment for each in entries] == [False, True, False]
    assert len({each.date for each in entries[1:]}) == 2


def test_a_preview_takes_no_turn_of_the_files_that_are_read_again(tracked: Tracked) -> None:
    for number in range(30):
        (tracked.tree / f"file {number}").write_text("content")
    read: list[set[str]] = []
    with long_after():
        tracked.back_up()
        for _ in range(4):
            preview = bakthat.preview_backup(
                tracked.tree, conf=tracked.conf, password="", recheck=25
            )
            preview.close()
            read.append(read_by(tracked))
    names = {each.name for each in tracked.tree.iterdir()}
    assert set().union(*read) == names
    assert sum(map(len, read)) == len(names)


def read_by(tracked: Tracked) -> set[str]:
    """Make a backup that reads a quarter of the unchanged files; return their names."""
    with noting_what_is_read() as found:
        tracked.back_up(recheck=25)
    return set(found)
