"""What cannot be read now, but could be before: its earlier content stays, and never silently."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

from bakthat import models
from tests.support.incremental import DAY, Tracked
from tests.support.tar_bytes import NOBODY, as_nobody, reachable_directory
from tests.support.trees import fingerprint

pytestmark = pytest.mark.filterwarnings("ignore:This process .* is multi-threaded")

MONDAY = 1_704_715_200 + 12 * 3600
"""2024-01-08 12:00 UTC, the second Monday of its month."""
ROTATION = {"days": 7, "weeks": 4, "months": 6}


@pytest.fixture(scope="module", autouse=True)
def all_is_imported(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Import what a backup and a restore need: another user may not read the packages."""
    place = tmp_path_factory.mktemp("imports")
    with mock.patch.dict(os.environ, HOME=str(place)):
        tracked = make(place)
        back_up(tracked)
        tracked.state(back_up(tracked))


@pytest.fixture
def place() -> Iterator[Path]:
    with reachable_directory(NOBODY if os.geteuid() == 0 else 0) as path:
        yield path


def unprivileged(action: Callable[[Path], None], place: Path) -> None:
    """Call *action* as a user whom modes keep from reading."""

    def call() -> None:
        os.environ["HOME"] = str(place)
        action(place)

    if os.geteuid() == 0:
        as_nobody(call)
    else:
        call()


def make(place: Path) -> Tracked:
    tree = place / "mydir"
    (tree / "directory" / "deep").mkdir(parents=True)
    (tree / "file").write_text("first")
    (tree / "directory" / "inside").write_text("inside")
    (tree / "directory" / "deep" / "deepest").write_text("deepest")
    conf = {
        "default_destination": "local",
        "local_path": str(place / "store"),
        "database": str(place / "catalog.sqlite"),
        "rotation": ROTATION,
    }
    tracked = Tracked(tree, conf)
    tracked.moment = MONDAY
    return tracked


def back_up(tracked: Tracked, days: int = 0, **options: Any) -> models.Backups:
    """Make a backup, some days later."""
    assert tracked.moment is not None
    tracked.moment += days * DAY + 1
    return tracked.back_up(**options)


def test_a_file_that_cannot_be_read_keeps_its_earlier_content(place: Path) -> None:
    def act(place: Path) -> None:
        tracked = make(place)
        path = tracked.tree / "file"
        back_up(tracked)
        before = fingerprint(tracked.tree)
        path.write_text("second")
        path.chmod(0)
        for _ in range(2):
            made = back_up(tracked, 1)
            assert made.is_increment
            assert not made.is_complete
            assert made.metadata["warnings"] == [
                f"{path}: permission denied; its earlier content stays in the backup"
            ]
            assert tracked.content(made, "file") == b"first"
            assert set(tracked.state(made)) == set(before)
        path.chmod(0o644)
        made = back_up(tracked, 1)
        assert made.is_complete
        assert tracked.state(made) == fingerprint(tracked.tree)

    unprivileged(act, place)


def test_a_file_that_is_readable_again_is_read_though_nothing_else_changed(place: Path) -> None:
    def act(place: Path) -> None:
        tracked = make(place)
        path = tracked.tree / "file"
        back_up(tracked)
        status = path.stat()
        path.write_text("other")
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
        path.chmod(0)
        back_up(tracked, 1)
        path.chmod(0o644)
        made = back_up(tracked, 1)
        assert made.is_complete
        assert tracked.content(made, "file") == b"other"

    unprivileged(act, place)


def test_a_new_file_that_cannot_be_read_is_a_warning(place: Path) -> None:
    def act(place: Path) -> None:
        tracked = make(place)
        back_up(tracked)
        path = tracked.tree / "new"
        path.write_text("new")
        path.chmod(0)
        made = back_up(tracked, 1)
        assert made.metadata["warnings"] == [f"{path}: permission denied; it is not stored"]
        assert tracked.content(made, "new") is None
        path.chmod(0o644)
        assert tracked.content(back_up(tracked, 1), "new") == b"new"

    unprivileged(act, place)


@pytest.mark.parametrize("name", ["file", "directory"])
def test_most_of_the_bytes_may_be_what_cannot_be_read(name: str, place: Path) -> None:
    """No full is made for their size: it would lack them."""

    def act(place: Path) -> None:
        tracked = make(place)
        path = tracked.tree / name
        large = path if name == "file" else path / "deep" / "deepest"
        content = os.urandom(300_000)
        large.write_bytes(content)
        first = back_up(tracked)
        assert not first.is_increment
        kept = str(large.relative_to(tracked.tree))
        for days in (1, 7):
            path.chmod(0)
            (tracked.tree / "small").write_text(str(days))
            kept_of = tracked.explanation(kept)
            assert kept_of.startswith("it cannot be read: its earlier content in mydir.")
            made = back_up(tracked, days)
            path.chmod(0o755)
            assert made.is_increment
            assert not made.is_complete
            restored = tracked.restore(made, place / f"after {days}")
            (restored / name).chmod(0o755)
            assert (restored / kept).read_bytes() == content

    unprivileged(act, place)


@pytest.mark.parametrize("mode", [0o300, 0o400])
def test_what_a_directory_held_stays_when_it_cannot_be_listed_or_entered(
    mode: int, place: Path
) -> None:
    def act(place: Path) -> None:
        tracked = make(place)
        path = tracked.tree / "directory"
        back_up(tracked)
        (path / "inside").write_text("changed")
        path.chmod(mode)
        made = back_up(tracked, 1)
        assert made.is_increment
        assert not made.is_complete
        path.chmod(0o755)
        restored = place / "made"
        tracked.restore(made, restored)
        (restored / "mydir" / "directory").chmod(0o755)
        assert (restored / "mydir" / "directory" / "inside").read_text() == "inside"
        assert (restored / "mydir" / "directory" / "deep" / "deepest").read_text() == "deepest"
        after = back_up(tracked, 1)
        assert after.is_complete
        assert tracked.state(after) == fingerprint(tracked.tree)

    unprivileged(act, place)


def changed(tracked: Tracked) -> Path:
    (tracked.tree / "file").write_text("newer")
    return tracked.tree / "file"


def new(tracked: Tracked) -> Path:
    (tracked.tree / "new").write_text("newer")
    return tracked.tree / "new"


@pytest.mark.parametrize("change", [changed, new])
def test_the_newest_backup_is_the_parent_when_only_that_has_what_cannot_be_read_now(
    change: Callable[[Tracked], Path], place: Path
) -> None:
    """On Mondays, increments are made from the Monday before, and pass over those in between."""

    def act(place: Path) -> None:
        tracked = make(place)
        full = back_up(tracked)
        path = change(tracked)
        daily = back_up(tracked, 1)
        assert daily.needs == (full.date,)
        path.chmod(0)
        weekly = back_up(tracked, 6)
        assert weekly.needs == (full.date, daily.date)
        assert not weekly.is_complete
        assert tracked.content(weekly, path.name) == b"newer"
        path.chmod(0o644)
        after = back_up(tracked, 7)
        assert tracked.state(after) == fingerprint(tracked.tree)

    unprivileged(act, place)


def test_a_weekly_backup_passes_over_dailies_when_it_can_read_all(place: Path) -> None:
    def act(place: Path) -> None:
        tracked = make(place)
        full = back_up(tracked)
        changed(tracked)
        back_up(tracked, 1)
        assert back_up(tracked, 6).needs == (full.date,)

    unprivileged(act, place)


def changed_inside(directory: Path) -> None:
    (directory / "inside").write_text("newer")


def new_inside(directory: Path) -> None:
    (directory / "new").write_text("newer")


def new_below(directory: Path) -> None:
    (directory / "deep" / "new").write_text("newer")


def removed_inside(directory: Path) -> None:
    (directory / "inside").unlink()


def removed_below(directory: Path) -> None:
    (directory / "deep" / "deepest").unlink()


@pytest.mark.parametrize("mode", [0o300, 0o400])
@pytest.mark.parametrize(
    "change", [changed_inside, new_inside, new_below, removed_inside, removed_below]
)
def test_the_newest_backup_is_the_parent_when_only_that_has_what_a_closed_directory_held(
    change: Callable[[Path], None], mode: int, place: Path
) -> None:
    def act(place: Path) -> None:
        tracked = make(place)
        path = tracked.tree / "directory"
        full = back_up(tracked)
        change(path)
        daily = back_up(tracked, 1)
        state = fingerprint(path)
        path.chmod(mode)
        weekly = back_up(tracked, 6)
        path.chmod(0o755)
        restored = place / "weekly"
        tracked.restore(weekly, restored)
        (restored / "mydir" / "directory").chmod(0o755)
        found = fingerprint(restored / "mydir" / "directory")
        # Its own metadata can be read, whatever it holds.
        del found[b"."], state[b"."]
        assert found == state
        # Of a directory that can be listed, it is known what is gone.
        assert mode == 0o400 or weekly.needs == (full.date, daily.date)

    unprivileged(act, place)


# Names of one file: the earlier content of a link is that of what it is a link to.


def test_what_remains_of_a_link_that_cannot_be_read_is_no_link_to_nothing(place: Path) -> None:
    def act(place: Path) -> None:
        tracked = make(place)
        os.link(tracked.tree / "file", tracked.tree / "link")
        back_up(tracked)
        (tracked.tree / "file").unlink()
        (tracked.tree / "link").chmod(0)
        made = back_up(tracked, 1)
        assert not made.is_complete
        assert tracked.content(made, "directory/inside") == b"inside"
        (tracked.tree / "link").chmod(0o644)
        assert tracked.state(back_up(tracked, 1)) == fingerprint(tracked.tree)

    unprivileged(act, place)


def test_what_a_closed_directory_held_is_no_link_to_what_has_changed(place: Path) -> None:
    def act(place: Path) -> None:
        tracked = make(place)
        (tracked.tree / "b file").write_text("first")
        os.link(tracked.tree / "b file", tracked.tree / "directory" / "link")
        back_up(tracked)
        (tracked.tree / "b file").write_text("second")
        (tracked.tree / "directory").chmod(0o300)
        made = back_up(tracked, 1)
        assert not made.is_complete
        restored = tracked.restore(made, place / "made")
        (tracked.tree / "directory").chmod(0o755)
        (restored / "directory").chmod(0o755)
        assert (restored / "b file").read_bytes() == b"second"
        assert tracked.state(back_up(tracked, 1)) == fingerprint(tracked.tree)

    unprivileged(act, place)


def test_a_file_of_which_no_name_can_be_read_keeps_its_content_and_its_names(place: Path) -> None:
    def act(place: Path) -> None:
        tracked = make(place)
        os.link(tracked.tree / "file", tracked.tree / "link")
        back_up(tracked)
        (tracked.tree / "file").write_text("second")
        (tracked.tree / "file").chmod(0)
        made = back_up(tracked, 1)
        assert made.is_increment
        assert not made.is_complete
        for name in ("file", "link"):
            assert tracked.content(made, name) == b"first"
        (tracked.tree / "file").chmod(0o644)
        assert tracked.state(back_up(tracked, 1)) == fingerprint(tracked.tree)

    unprivileged(act, place)
