"""Trees of every kind of file for the tests, and a way to compare two of them."""

from __future__ import annotations

import contextlib
import hashlib
import os
import stat
from pathlib import Path
from typing import Any

SPARSE_BYTES = 3 * 1024 * 1024


def make_every_kind(root: Path) -> Path:
    """Fill *root* with every kind of file that a backup keeps; some only as root."""
    root.mkdir()
    (root / "empty").write_bytes(b"")
    (root / "text").write_text("some text\n" * 1000)
    (root / "random").write_bytes(os.urandom(300_000))
    (root / "empty directory").mkdir()
    deep = root / "deep" / ("d" * 200) / ("e" * 200)
    deep.mkdir(parents=True)
    (deep / ("f" * 200)).write_text("deep")
    (root / "link").symlink_to("text")
    (root / "absolute link").symlink_to("/etc/hostname")
    (root / "dangling").symlink_to("nowhere/at/all")
    os.link(root / "text", root / "hard link")
    os.link(root / "dangling", root / "dangling too", follow_symlinks=False)
    os.mkfifo(root / "fifo")
    os.link(root / "fifo", root / "the same fifo")
    with (root / "sparse").open("wb") as sparse:
        sparse.truncate(SPARSE_BYTES)
        sparse.seek(1024 * 1024)
        sparse.write(b"data in the middle")
    _make_odd_names(root)
    _make_odd_metadata(root)
    return root


def _make_odd_names(root: Path) -> None:
    for name in ("-rf", "new\nline", "ünï", "*?[x]", 'quo"te', "back\\slash", " space ", "x" * 255):
        (root / name).write_text(name)
    Path(os.fsdecode(os.fsencode(root) + b"/not-utf8-\xff\xfe")).write_text("bytes")


def _make_odd_metadata(root: Path) -> None:
    (root / "executable").write_text("#!/bin/sh\n")
    (root / "executable").chmod(0o4755)
    (root / "secret").write_text("secret")
    (root / "secret").chmod(0o400)
    with contextlib.suppress(OSError):  # not on every file system
        os.setxattr(root / "text", "user.colour", b"blue\0\xff=\n")
        os.setxattr(root / "empty directory", "user.colour", b"red")
    if os.geteuid() == 0:
        os.chown(root / "random", 12345, 54321)
        os.chown(root / "link", 12345, 54321, follow_symlinks=False)
    for number, name in enumerate(("text", "random", "dangling", "deep", "fifo")):
        when = 1_000_000_000_123_456_789 + number
        os.utime(root / name, ns=(when, when), follow_symlinks=False)
    os.utime(root / "empty", ns=(0, -1_500_000_000))
    read_only = root / "read-only"
    read_only.mkdir()
    (read_only / "inside").write_text("inside")
    read_only.chmod(0o555)
    os.utime(read_only, ns=(1, 1_234_567_890_987_654_321))
    os.utime(root, ns=(1, 1_234_567_890_000_000_001))


def fingerprint(root: Path) -> dict[bytes, Any]:
    """Return what a restore of *root* must restore, by path: all but inodes and access times."""
    found: dict[bytes, Any] = {b".": _fingerprint(os.fsencode(root))}
    groups: dict[int, list[bytes]] = {}
    for directory, directories, files in os.walk(os.fsencode(root)):
        for name in directories + files:
            path = os.path.join(directory, name)
            relative = os.path.relpath(path, os.fsencode(root))
            found[relative] = _fingerprint(path)
            status = os.lstat(path)
            if status.st_nlink > 1 and not stat.S_ISDIR(status.st_mode):
                groups.setdefault(status.st_ino, []).append(relative)
    for names in groups.values():
        for name in names:
            found[name] = (*found[name], min(names))
    return found


def _fingerprint(path: bytes) -> tuple[Any, ...]:
    status = os.lstat(path)
    content: str | bytes = ""
    if stat.S_ISREG(status.st_mode):
        with open(path, "rb") as stream:
            content = hashlib.file_digest(stream, "sha256").hexdigest()
    elif stat.S_ISLNK(status.st_mode):
        content = os.readlink(path)
    attributes = {}
    with contextlib.suppress(OSError):  # not on every file system
        for name in os.listxattr(path, follow_symlinks=False):
            attributes[name] = os.getxattr(path, name, follow_symlinks=False)
    size = status.st_size if stat.S_ISREG(status.st_mode) else 0
    return (
        stat.filemode(status.st_mode),
        status.st_uid,
        status.st_gid,
        status.st_mtime_ns,
        size,
        content,
        tuple(sorted(attributes.items())),
    )
