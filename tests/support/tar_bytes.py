"""Helpers of the tests that read archives: sources, headers, other users."""

from __future__ import annotations

import os
import pickle
import shutil
import stat
import tempfile
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

NOBODY = 65534
END = bytes(1024)


class Pieces:
    """A source that hands out *data* in pieces of at most *size* bytes, then raises *failure*."""

    def __init__(
        self, data: bytes, size: int = 1 << 20, failure: BaseException | None = None
    ) -> None:
        self._data = memoryview(data)
        self._size = size
        self._failure = failure
        self.drained = False

    def read(self, size: int, /) -> bytes:
        taken, self._data = self._data[: min(size, self._size)], self._data[min(size, self._size) :]
        if not taken:
            if self._failure is not None:
                raise self._failure
            self.drained = True
        return bytes(taken)


def octal(number: int, width: int) -> bytes:
    return b"%0*o\0" % (width - 1, number)


def header(
    name: bytes,
    kind: bytes = b"0",
    *,
    size: int | bytes = 0,
    linkname: bytes = b"",
    mode: int | bytes = 0o644,
    uid: int | bytes = 0,
    mtime: int | bytes = 1_000_000_000,
    magic: bytes = b"ustar\x0000",
    tail: bytes = b"",
    signed: bool = False,
) -> bytes:
    """One header block, made by hand from POSIX's table; *tail* is what follows the devices."""

    def number(value: int | bytes, width: int) -> bytes:
        return value.ljust(width, b"\0") if isinstance(value, bytes) else octal(value, width)

    block = b"".join(
        (
            name.ljust(100, b"\0"),
            number(mode, 8),
            number(uid, 8),
            octal(0, 8),
            number(size, 12),
            number(mtime, 12),
            b" " * 8,
            kind,
            linkname.ljust(100, b"\0"),
            magic.ljust(8, b"\0"),
            bytes(64),
            octal(1, 8),
            octal(3, 8),
            tail.ljust(167, b"\0"),
        )
    )
    assert len(block) == 512
    total = sum(block) - (256 * sum(byte > 127 for byte in block) if signed else 0)
    return block[:148] + b"%06o\0 " % total + block[156:]


def padded(content: bytes) -> bytes:
    return content + bytes(-len(content) % 512)


def member(name: bytes, content: bytes = b"", kind: bytes = b"0", **fields: object) -> bytes:
    return header(name, kind, size=len(content), **fields) + padded(content)  # type: ignore[arg-type]  # passed on


def pax(records: list[tuple[bytes, bytes]], kind: bytes = b"x") -> bytes:
    """A pax header with *records*."""
    payload = b"".join(map(pax_record, records))
    return member(b"PaxHeaders/x", payload, kind)


def pax_record(record: tuple[bytes, bytes]) -> bytes:
    rest = b" %s=%s\n" % record
    length = len(rest) + len(str(len(rest)))
    return b"%d%s" % (len(rest) + len(str(length)), rest)


@contextmanager
def reachable_directory(owner: int = 0) -> Iterator[Path]:
    """Yield a directory that other users can reach, unlike pytest's."""
    path = Path(tempfile.mkdtemp(prefix="bakthat-test-"))
    try:
        path.chmod(0o755)
        if owner:
            os.chown(path, owner, owner)
        yield path
    finally:
        path.chmod(0o700)
        for directory, names, _ in os.walk(path):  # a user must be able to remove what is in them
            for name in names:
                inner = os.path.join(directory, name)
                if not os.path.islink(inner):
                    os.chmod(inner, 0o700)
        shutil.rmtree(path)


def as_nobody(action: Callable[[], object]) -> object:
    """Call *action* in a child process without privileges; return or raise what it does."""

    def as_other_user() -> object:
        os.setgroups([])
        os.setgid(NOBODY)
        os.setuid(NOBODY)
        return action()

    return in_child(as_other_user)


def in_child(action: Callable[[], object]) -> object:
    """Call *action* in a child process; return or raise what it does."""
    readable, writable = os.pipe()
    with warnings.catch_warnings():
        # The child uses none of the threads that pytest may have, and never returns.
        warnings.simplefilter("ignore", DeprecationWarning)
        child = os.fork()
    if child == 0:
        try:
            with open(writable, "wb") as stream:
                stream.write(_outcome(action))
        finally:
            os._exit(0)  # whatever happened: it must not go on as a second pytest
    os.close(writable)
    with open(readable, "rb") as stream:
        content = stream.read()
    _, status = os.waitpid(child, 0)
    assert content, f"the child ended with {os.waitstatus_to_exitcode(status)} and told nothing"
    succeeded, result = pickle.loads(content)
    if not succeeded:
        raise result
    return result


def _outcome(action: Callable[[], object]) -> bytes:
    """Call *action*; return whether it succeeded and its result or its exception, pickled."""
    try:
        outcome: tuple[bool, object] = (True, action())
    except BaseException as exc:  # noqa: BLE001  # raised again in the parent
        outcome = (False, exc)
    try:
        return pickle.dumps(outcome)
    except Exception as exc:  # noqa: BLE001  # pickle raises what the object's own code raises
        return pickle.dumps((False, TypeError(f"{outcome[1]!r} cannot be pickled: {exc}")))


Snapshot = dict[str, tuple[object, ...]]


def snapshot(root: Path, *, owners: bool = True) -> Snapshot:
    """Everything about the tree below *root* that a restore must bring back."""
    found: Snapshot = {}
    links: dict[int, str] = {}
    for directory, directories, files in os.walk(root):
        directories.sort()  # or which link is the first would be as the file system lists them
        for name in sorted([*directories, *files]):
            path = os.path.join(directory, name)
            relative = os.path.relpath(path, root)
            st = os.lstat(path)
            content: object = None
            if stat.S_ISREG(st.st_mode):
                content = Path(path).read_bytes()
            elif stat.S_ISLNK(st.st_mode):
                content = os.readlink(path)
            elif stat.S_ISCHR(st.st_mode) or stat.S_ISBLK(st.st_mode):
                content = st.st_rdev
            xattrs = {
                key: os.getxattr(path, key, follow_symlinks=False)
                for key in os.listxattr(path, follow_symlinks=False)
            }
            first = relative
            if not stat.S_ISDIR(st.st_mode) and st.st_nlink > 1:
                first = links.setdefault(st.st_ino, relative)
            ids = (st.st_uid, st.st_gid) if owners else ()
            found[relative] = (oct(st.st_mode), st.st_mtime_ns, ids, content, xattrs, first)
    return found
