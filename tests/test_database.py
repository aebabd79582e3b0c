"""The file of the catalog: whose errors are whose, nested blocks, and disks that refuse."""

from __future__ import annotations

import errno
import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path

import peewee
import pytest

from bakthat import errors, models
from bakthat.errors import CatalogError
from bakthat.system import disks
from tests.support.needs import as_root, missing, mounted
from tests.support.tar_bytes import as_nobody
from tests.test_models import HERE, add, row

pytestmark = pytest.mark.permissions


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "catalog.sqlite"


def names_in(path: Path | str) -> list[str]:
    with models.catalog(path):
        return [each.stored_filename for each in models.Backups.search("", HERE)]


# Whose error it is


def every_exception() -> Iterator[Exception]:
    for number in sorted(errno.errorcode):
        yield OSError(number, os.strerror(number), "a file of the caller")
    for module in (errors, peewee, sqlite3):
        for kind in vars(module).values():
            if isinstance(kind, type) and issubclass(kind, Exception):
                yield kind("the caller's own")
    yield from (ValueError("x"), KeyError("x"), RuntimeError("x"), MemoryError("x"))


@contextmanager
def blocks(path: Path | str, *writing: bool) -> Iterator[None]:
    """Open nested blocks of one catalog."""
    with ExitStack() as stack:
        for write in writing:
            stack.enter_context(models.catalog(path, write=write))
        yield


@pytest.mark.parametrize("writing", [(False,), (True,), (True, True), (False, True)])
def test_an_error_of_the_block_is_no_error_of_the_catalog(
    catalog: str, writing: tuple[bool, ...]
) -> None:
    add(catalog, row("a.1"))
    mine = list(every_exception())
    assert len(mine) > 150
    for each in mine:
        with pytest.raises(type(each)) as caught, blocks(catalog, *writing):
            raise each
        assert caught.value is each
    assert names_in(catalog) == ["a.1"]


def test_an_error_of_another_database_is_no_error_of_the_catalog(catalog: str) -> None:
    with (
        closing(sqlite3.connect(":memory:")) as mine,
        pytest.raises(sqlite3.OperationalError, match="no such table: mine"),
        models.catalog(catalog, write=True),
    ):
        mine.execute("SELECT * FROM mine")


def test_an_error_of_the_catalogs_own_statement_is_a_catalog_error(catalog: str) -> None:
    add(catalog, row("a.1"))
    with (
        pytest.raises(CatalogError, match=r"(?i)unique|duplicate"),
        models.catalog(catalog, write=True),
    ):
        models.Backups.create(**row("a.1"), last_updated=0)
    assert names_in(catalog) == ["a.1"]


def test_rows_that_cannot_be_read_are_an_error_of_the_catalog(path: Path) -> None:
    add(path, *(row(f"a.{number}", tags="x" * 200) for number in range(1000)))
    size = path.stat().st_size
    with path.open("r+b") as damaged:
        damaged.seek(size // 2)
        damaged.write(bytes(size // 2))
    with pytest.raises(CatalogError, match="damaged"):
        names_in(path)


# Nested blocks


def test_a_nested_block_sees_what_the_outer_one_wrote(catalog: str) -> None:
    with models.catalog(catalog, write=True):
        models.record(row("a.1"))
        assert names_in(catalog) == ["a.1"]
        add(catalog, row("b.1"))
    assert sorted(names_in(catalog)) == ["a.1", "b.1"]


def add_and_fail(path: Path | str, name: str) -> None:
    with models.catalog(path, write=True):
        add(path, row(name))
        raise ValueError(name)


def test_a_nested_block_that_fails_undoes_its_own_changes_only(catalog: str) -> None:
    with models.catalog(catalog, write=True):
        models.record(row("a.1"))
        with pytest.raises(ValueError, match="b"):
            add_and_fail(catalog, "b.1")
        models.record(row("c.1"))
    assert sorted(names_in(catalog)) == ["a.1", "c.1"]


def test_an_outer_block_that_fails_undoes_the_nested_ones_too(catalog: str) -> None:
    with pytest.raises(ValueError, match="a"):
        add_and_fail(catalog, "a.1")
    assert names_in(catalog) == []


def test_a_block_that_writes_may_be_inside_of_one_that_reads(catalog: str) -> None:
    add(catalog, row("a.1"))
    with models.catalog(catalog):
        add(catalog, row("b.1"))
        assert len(models.Backups.search("", HERE)) == 2


def test_blocks_of_two_catalogs_may_be_nested(catalog: str, tmp_path: Path) -> None:
    other = tmp_path / "other.sqlite"
    with models.catalog(catalog, write=True):
        models.record(row("a.1"))
        add(other, row("b.1"))
        assert names_in(other) == ["b.1"]
        models.record(row("c.1"))
    assert sorted(names_in(catalog)) == ["a.1", "c.1"]
    assert names_in(other) == ["b.1"]


def test_two_names_of_one_catalog_are_one_catalog(path: Path, tmp_path: Path) -> None:
    add(path)
    link = tmp_path / "link.sqlite"
    link.symlink_to(path)
    with models.catalog(path, write=True):
        add(link, row("a.1"))
    assert names_in(link) == ["a.1"]


def test_a_block_after_one_that_failed_to_open_works(catalog: str, tmp_path: Path) -> None:
    with models.catalog(catalog, write=True):
        with pytest.raises(CatalogError):
            names_in(tmp_path)
        models.record(row("a.1"))
    assert names_in(catalog) == ["a.1"]


# Disks that refuse


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """Mount a disk that holds a catalog and little more."""
    disk = tmp_path / "disk"
    disk.mkdir()
    with mounted(disk, "-t", "tmpfs", "-o", "size=1m", "tmpfs"):
        yield disk


def fill(disk: Path) -> None:
    """Write to a file until the disk is full."""
    with (disk / "filler").open("ab", buffering=0) as filler, suppress(OSError):
        while True:
            filler.write(bytes(4096))


@as_root
@pytest.mark.parametrize("left_by", ["an end", "a crash"])
def test_a_catalog_on_a_full_disk_can_be_read(small_disk: Path, left_by: str) -> None:
    path = small_disk / "catalog.sqlite"
    if left_by == "an end":
        add(path, row("a.1"))
    else:
        crashed = (
            "import os, sys; from bakthat import models; from tests.test_models import add, row\n"
            "with models.catalog(sys.argv[1]):\n"
            "    add(sys.argv[1], row('a.1')); os._exit(0)"
        )
        subprocess.run([sys.executable, "-c", crashed, path], check=True)
        assert path.with_name("catalog.sqlite-wal").stat().st_size > 0
        path.with_name("catalog.sqlite-shm").unlink()
    fill(small_disk)
    before = sorted(each.name for each in small_disk.iterdir())
    assert names_in(path) == ["a.1"]
    assert set(before) <= {each.name for each in small_disk.iterdir()} | {"catalog.sqlite-wal"}


@as_root
def test_a_catalog_that_cannot_be_written_names_the_full_disk(small_disk: Path) -> None:
    path = small_disk / "catalog.sqlite"
    add(path, row("a.1"))
    fill(small_disk)
    with pytest.raises(CatalogError) as caught:
        add(path, row("b.1"))
    assert str(caught.value) == f"cannot write the catalog {path}: {small_disk}: the disk is full"
    assert "free some space" in caught.value.hint
    (small_disk / "filler").unlink()
    add(path, row("b.1"))
    assert sorted(names_in(path)) == ["a.1", "b.1"]


@as_root
def test_a_catalog_that_cannot_be_made_reads_as_empty_and_says_so(
    small_disk: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = small_disk / "catalog.sqlite"
    subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)
    assert names_in(path) == []
    assert f"there is no catalog {path}, and it cannot be made" in caplog.text
    with pytest.raises(CatalogError, match="is mounted read-only"):
        add(path, row("a.1"))


def told_to_nobody(function: Callable[[], object]) -> str:
    """Return what *function* returns to another user, or its error and hint, as text."""

    def told() -> str:
        try:
            return str(function())
        except CatalogError as exc:
            return f"{exc}\n{exc.hint}"

    return str(as_nobody(told))


@as_root
def test_the_owner_of_a_catalog_that_may_not_be_written_is_named(path: Path) -> None:
    add(path, row("a.1"))
    path.chmod(0o644)
    for above in path.parents:
        if not above.stat().st_mode & 0o077:  # made by pytest
            above.chmod(0o711)
    assert told_to_nobody(lambda: names_in(path)) == "['a.1']"
    assert told_to_nobody(lambda: add(path, row("b.1"))) == (
        f"cannot write the catalog {path}: {path} belongs to root and has the mode 0644\n"
        "run it as root, or name another catalog as database in the profile"
    )


@as_root
def test_an_owner_without_a_name_is_shown_by_the_number(path: Path) -> None:
    add(path, row("a.1"))
    path.chmod(0o644)
    os.chown(path, 54321, 54321)
    for above in path.parents:
        if not above.stat().st_mode & 0o077:  # made by pytest
            above.chmod(0o711)
    assert told_to_nobody(lambda: add(path, row("b.1"))).startswith(
        f"cannot write the catalog {path}: {path} belongs to the user 54321 and has the mode 0644\n"
        "run it as the user 54321, or name"
    )


def test_a_file_system_without_locks_is_no_place_for_a_catalog(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    add(path, row("a.1"))

    def refuse(*_: object) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    # SQLite reports the same of such a file system as of a lock that another process holds.
    monkeypatch.setattr("fcntl.lockf", refuse)
    with closing(sqlite3.connect(path)) as other:
        other.execute("BEGIN EXCLUSIVE")
        with (
            pytest.raises(CatalogError, match="its file system has no locks") as caught,
            models.catalog(path, write=True, patience=0),
        ):
            models.record(row("b.1"))
    assert "local disk" in caught.value.hint


@as_root
def test_an_immutable_catalog_is_read_and_named(path: Path) -> None:
    add(path, row("a.1"))
    if subprocess.run(["chattr", "+i", path], capture_output=True).returncode:
        pytest.skip("the file system has no immutable files")
    try:
        assert names_in(path) == ["a.1"]
        with pytest.raises(CatalogError, match="is immutable") as caught:
            add(path, row("b.1"))
    finally:
        subprocess.run(["chattr", "-i", path], check=True)
    assert "chattr -i" in caught.value.hint


@contextmanager
def read_only_view(path: Path) -> Iterator[Path]:
    """Yield the catalog as a process sees it that may not write to its file system."""
    view = path.parent / "view"
    view.mkdir()
    path.parent.joinpath("real").mkdir()
    real = path.rename(path.parent / "real" / path.name)
    with mounted(view, "--bind", "-o", "ro", str(real.parent)):
        yield view / path.name


def write_elsewhere(view: Path) -> None:
    """Write to the catalog as another process does."""
    with closing(sqlite3.connect(view.parent.parent / "real" / view.name)) as other, other:
        other.execute("UPDATE backups SET tags = 'changed'")


@as_root
@pytest.mark.parametrize("is_written", [True, False])
def test_a_catalog_that_is_read_without_locks_is_not_believed_if_it_was_written_meanwhile(
    path: Path, is_written: bool
) -> None:
    add(path, row("a.1"))
    with read_only_view(path) as view:
        if not is_written:
            assert names_in(view) == ["a.1"]
            return
        with (
            pytest.raises(CatalogError, match="was written while it was read"),
            models.catalog(view),
        ):
            write_elsewhere(view)


@as_root
@pytest.mark.parametrize("error", [OSError(errno.EIO, "x"), KeyboardInterrupt(), ValueError("x")])
def test_nor_is_an_error_of_its_block_then_an_error_of_the_catalog(
    path: Path, error: BaseException
) -> None:
    add(path, row("a.1"))

    def use(view: Path) -> None:
        with models.catalog(view):
            write_elsewhere(view)
            raise error

    with read_only_view(path) as view, pytest.raises(type(error)) as caught:
        use(view)
    assert caught.value is error


def test_a_circle_of_links_is_named(path: Path) -> None:
    path.symlink_to(path)
    with pytest.raises(CatalogError, match="too many levels of symbolic links"):
        names_in(path)


def test_a_pipe_in_its_place_is_named(path: Path) -> None:
    os.mkfifo(path)
    with pytest.raises(CatalogError, match="not a regular file"):
        names_in(path)


def test_a_file_system_without_locks_is_not_called_locked_by_another(
    path: Path, tmp_path: Path
) -> None:
    """Such as NFS without its lock service. SQLite calls that busy."""
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None:
        missing("a compiler of C is not installed")
    source, library = tmp_path / "nolocks.c", tmp_path / "nolocks.so"
    source.write_text(
        "#include <errno.h>\n#include <unistd.h>\n#include <sys/syscall.h>\n"
        "static int call(int fd, int c, void *a) {\n"  # F_GETLK, F_SETLK and F_SETLKW are 5 to 7
        "if (c >= 5 && c <= 7) { errno = ENOLCK; return -1; }\n"
        "return syscall(SYS_fcntl, fd, c, a); }\n"
        "int fcntl(int fd, int c, void *a) { return call(fd, c, a); }\n"
        "int fcntl64(int fd, int c, void *a) { return call(fd, c, a); }\n"
    )
    subprocess.run([compiler, "-shared", "-fPIC", "-o", library, source], check=True)
    add(path, row("a.1"))
    script = (
        "import sys; from bakthat import models; from tests.test_models import add, row\n"
        "models.BUSY_TIMEOUT = 0\n"
        "try: add(sys.argv[1], row('b.1'))\n"
        "except models.CatalogError as exc: print(exc, exc.hint, sep='\\n')"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, path],
        capture_output=True,
        text=True,
        env={**os.environ, "LD_PRELOAD": str(library)},
    )
    assert done.stdout.startswith(
        f"cannot use the catalog {path}: its file system has no locks\nname a catalog on a local"
    ), done.stderr


def test_a_directory_that_cannot_be_made_either_is_an_error_with_a_hint() -> None:
    with pytest.raises(CatalogError, match="/proc/no home: no such file or directory") as caught:
        add(Path("/proc/no home/.bakthat.sqlite"), row("a.1"))
    assert caught.value.hint == (
        "create it: mkdir -p '/proc/no home', or name another catalog as database in the profile"
    )


@as_root  # to others it is a directory of root
def test_a_file_system_in_which_no_file_can_be_made() -> None:
    problem = disks.problem_of_directory("/proc")
    assert problem is not None
    assert problem.reason == "no file can be made in /proc"
    assert problem.hint == "use another directory; what this one is on says findmnt -T /proc"
    with pytest.raises(CatalogError, match="no file can be made in /proc"):
        add(Path("/proc/catalog.sqlite"), row("a.1"))


@as_root
@pytest.mark.needs("setpriv")
def test_a_mode_binds_root_without_the_capability(tmp_path: Path) -> None:
    tmp_path.chmod(0o555)
    tried = "import sys; from bakthat.system import disks; " + (
        "found = disks.problem_of_directory(sys.argv[1]); print(found.reason, found.hint, sep='; ')"
    )
    limits = ("--bounding-set=-dac_override", "--inh-caps=-dac_override")
    done = subprocess.run(
        ["setpriv", *limits, sys.executable, "-c", tried, tmp_path],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == (
        f"{tmp_path} belongs to root and has the mode 0555; chmod u+w {tmp_path}\n"
    )


@pytest.mark.parametrize("number", [errno.EDQUOT, errno.ESTALE, errno.EIO, errno.EFBIG])
def test_each_refusal_of_a_disk_has_a_hint(
    path: Path, number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    add(path, row("a.1"))

    def refuse(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("tempfile.TemporaryFile", refuse)

    problem = disks.problem_of_directory(path.parent)
    assert problem is not None
    assert os.strerror(number)[1:] in problem.reason
    assert problem.hint
