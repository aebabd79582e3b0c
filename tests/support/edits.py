"""Random edits of a tree: what people and programs do to files between two backups."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import stat
from pathlib import Path

NAMES = ("a", "b", "c", "a-b", "a b", "a.b", "b\nc", "\udcff", "\udcc3", "é", "z" * 200)
"""Few, so that paths are used again as another kind of file. They sort differently with what lies
below them, and some are not UTF-8."""
BALLAST = "ballast"
"""A file that no edit touches; it keeps an increment small beside a full backup."""
BALLAST_BYTES = 300_000

_MODES = (0o644, 0o600, 0o755, 0o4755)
_SIZES = (0, 1, 600, 5000)
_HOLE_BYTES = 200_000
_MAX_DEPTH = 4
_MAX_TIME = 1_600_000_000


class Edits:
    """Edits below *root*, which is made with its ballast. *rng* chooses, and contents differ."""

    def __init__(self, root: Path) -> None:
        root.mkdir(parents=True)
        self._root = root
        self._contents = random.Random(1)
        (root / BALLAST).write_bytes(self._contents.randbytes(BALLAST_BYTES))

    def make(self, rng: random.Random) -> str:
        """Make one edit, and return its name. What does not fit the tree changes nothing."""
        name = rng.choice(_EDITS)
        getattr(self, f"_{name}")(rng)
        return name

    # The paths that there are, in an order that the disk does not decide.

    def _directories(self, *, but_the_root: bool = False) -> list[Path]:
        found = [self._root]
        for each in found:
            found += sorted(path for path in each.iterdir() if _is_directory(path))
        return found[1:] if but_the_root else found

    def _others(self, *kinds: int) -> list[Path]:
        """Return what is no directory and, with *kinds*, is one of these."""
        return [
            path
            for directory in self._directories()
            for path in sorted(directory.iterdir())
            if not _is_directory(path)
            and path.name != BALLAST
            and (not kinds or stat.S_IFMT(path.lstat().st_mode) in kinds)
        ]

    def _new(self, rng: random.Random) -> Path | None:
        """Return a path where nothing is; None where there is none in the directory chosen."""
        directory = rng.choice(self._directories())
        free = [each for each in NAMES if not os.path.lexists(directory / each)]
        if not free or len(directory.relative_to(self._root).parts) >= _MAX_DEPTH:
            return None
        return directory / rng.choice(free)

    def _content(self, size: int) -> bytes:
        return self._contents.randbytes(size)

    # The edits.

    def _create(self, rng: random.Random) -> None:
        if path := self._new(rng):
            path.write_bytes(self._content(rng.choice(_SIZES)))

    def _make_directory(self, rng: random.Random) -> None:
        if path := self._new(rng):
            path.mkdir(mode=rng.choice((0o755, 0o700)))

    def _make_symlink(self, rng: random.Random) -> None:
        if path := self._new(rng):
            path.symlink_to(rng.choice((*NAMES[:3], "../b", "/nowhere", "\udcff")))

    def _make_fifo(self, rng: random.Random) -> None:
        if path := self._new(rng):
            os.mkfifo(path)

    def _make_sparse(self, rng: random.Random) -> None:
        if path := self._new(rng):
            with path.open("wb") as stream:
                stream.truncate(_HOLE_BYTES)
                stream.seek(rng.choice((0, _HOLE_BYTES // 2)))
                stream.write(self._content(600))

    def _edit(self, rng: random.Random) -> None:
        if files := self._others(stat.S_IFREG):
            rng.choice(files).write_bytes(self._content(rng.choice(_SIZES)))

    def _edit_with_the_time_set_back(self, rng: random.Random) -> None:
        if files := self._others(stat.S_IFREG):
            path = rng.choice(files)
            status = path.stat()
            path.write_bytes(self._content(status.st_size))
            os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))

    def _replace(self, rng: random.Random) -> None:
        """Write as editors do: a new file, renamed to the path."""
        if paths := self._others(stat.S_IFREG, stat.S_IFLNK, stat.S_IFIFO):
            path = rng.choice(paths)
            new = path.with_name("new")
            new.write_bytes(self._content(rng.choice(_SIZES)))
            new.rename(path)

    def _touch(self, rng: random.Random) -> None:
        if paths := [*self._others(), *self._directories()]:
            when = rng.randint(0, _MAX_TIME) * 10**9 + rng.choice((0, 123_456_789))
            os.utime(rng.choice(paths), ns=(when, when), follow_symlinks=False)

    def _change_mode(self, rng: random.Random) -> None:
        if paths := self._others(stat.S_IFREG, stat.S_IFIFO):
            rng.choice(paths).chmod(rng.choice(_MODES))

    def _change_mode_of_directory(self, rng: random.Random) -> None:
        if paths := self._directories(but_the_root=True):
            rng.choice(paths).chmod(rng.choice((0o755, 0o700, 0o2750)))

    def _change_mode_and_back(self, rng: random.Random) -> None:
        """Move the ctime and nothing else."""
        if paths := [*self._others(stat.S_IFREG), *self._directories()]:
            path = rng.choice(paths)
            mode = stat.S_IMODE(path.stat().st_mode)
            path.chmod(0o700)
            path.chmod(mode)

    def _change_owner(self, rng: random.Random) -> None:
        if os.geteuid() == 0 and (paths := self._others()):
            os.chown(rng.choice(paths), rng.choice((0, 12345)), 54321, follow_symlinks=False)

    def _change_attributes(self, rng: random.Random) -> None:
        if paths := self._others(stat.S_IFREG):
            path = rng.choice(paths)
            with contextlib.suppress(OSError):  # not on every file system
                if "user.colour" in os.listxattr(path):
                    os.removexattr(path, "user.colour")
                else:
                    os.setxattr(path, "user.colour", self._content(5))

    def _link(self, rng: random.Random) -> None:
        if (paths := self._others()) and (new := self._new(rng)):
            os.link(rng.choice(paths), new, follow_symlinks=False)

    def _replace_by_link(self, rng: random.Random) -> None:
        if len(paths := self._others()) > 1:
            path, new = rng.choice(paths), rng.choice(paths)
            if path != new:
                new.unlink()
                os.link(path, new, follow_symlinks=False)

    def _break_link(self, rng: random.Random) -> None:
        """Give a name of a file with several names a copy of its own."""
        if paths := [each for each in self._others(stat.S_IFREG) if each.stat().st_nlink > 1]:
            path = rng.choice(paths)
            new = path.with_name("new")
            shutil.copy2(path, new)
            new.rename(path)

    def _rename(self, rng: random.Random) -> None:
        if (paths := self._others()) and (new := self._new(rng)):
            rng.choice(paths).rename(new)

    def _rename_over(self, rng: random.Random) -> None:
        if len(paths := self._others()) > 1:
            rng.choice(paths).rename(rng.choice(paths))

    def _rename_directory(self, rng: random.Random) -> None:
        if (paths := self._directories(but_the_root=True)) and (new := self._new(rng)):
            path = rng.choice(paths)
            if not new.is_relative_to(path):
                path.rename(new)

    def _exchange_directories(self, rng: random.Random) -> None:
        if len(paths := self._directories(but_the_root=True)) > 1:
            one, other = rng.choice(paths), rng.choice(paths)
            if not (one.is_relative_to(other) or other.is_relative_to(one)):
                aside = one.with_name("aside")
                one.rename(aside)
                other.rename(one)
                aside.rename(other)

    def _remove(self, rng: random.Random) -> None:
        if paths := self._others():
            rng.choice(paths).unlink()

    def _remove_directory(self, rng: random.Random) -> None:
        if paths := self._directories(but_the_root=True):
            shutil.rmtree(rng.choice(paths))

    def _directory_becomes_file(self, rng: random.Random) -> None:
        if paths := self._directories(but_the_root=True):
            path = rng.choice(paths)
            shutil.rmtree(path)
            path.write_bytes(self._content(5))

    def _directory_becomes_symlink(self, rng: random.Random) -> None:
        if paths := self._directories(but_the_root=True):
            path = rng.choice(paths)
            shutil.rmtree(path)
            path.symlink_to(rng.choice((".", "..", *NAMES[:3])))

    def _file_becomes_directory(self, rng: random.Random) -> None:
        if paths := self._others():
            path = rng.choice(paths)
            path.unlink()
            path.mkdir()
            (path / "a").write_bytes(self._content(5))


_EDITS = (
    "create",
    "edit",
    "edit_with_the_time_set_back",
    "remove",
    "make_directory",
    "make_symlink",
    "make_fifo",
    "make_sparse",
    "replace",
    "touch",
    "change_mode",
    "change_mode_of_directory",
    "change_mode_and_back",
    "change_owner",
    "change_attributes",
    "link",
    "replace_by_link",
    "break_link",
    "rename",
    "rename_over",
    "rename_directory",
    "exchange_directories",
    "remove_directory",
    "directory_becomes_file",
    "directory_becomes_symlink",
    "file_becomes_directory",
)


def _is_directory(path: Path) -> bool:
    return path.is_dir() and not path.is_symlink()
