"""Read the headers of an archive with bakthat, tarfile and GNU tar."""

from __future__ import annotations

import io
import os
import re
import subprocess
import tarfile
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path

from bakthat.archive.tar.member import MemberType
from bakthat.archive.tar.reader import TarReader
from bakthat.errors import CorruptArchiveError
from tests.support.tar_bytes import Pieces
from tests.tar_headers.values import (
    BLOCK_DEVICE,
    CHARACTER_DEVICE,
    DIRECTORY,
    FIFO,
    FILE,
    HARD_LINK,
    NS,
    SYMBOLIC_LINK,
    Fields,
)

_TYPES = {
    MemberType.FILE: FILE,
    MemberType.HARDLINK: HARD_LINK,
    MemberType.SYMLINK: SYMBOLIC_LINK,
    MemberType.CHARDEV: CHARACTER_DEVICE,
    MemberType.BLOCKDEV: BLOCK_DEVICE,
    MemberType.DIRECTORY: DIRECTORY,
    MemberType.FIFO: FIFO,
}
_XATTR = "SCHILY.xattr."


class UnreadableError(Exception):
    """A reader refuses an archive, or stops before its last member."""


def by_bakthat(archive: Path, count: int) -> list[Fields]:
    """Return the headers as bakthat reads them."""
    found: list[Fields] = []
    try:
        for member in TarReader(Pieces(archive.read_bytes())):
            name = member.name
            if member.type is MemberType.DIRECTORY:
                name = name.removesuffix(b"/")
            found.append(
                Fields(
                    _TYPES[member.type],
                    name,
                    member.linkname,
                    member.mode,
                    member.uid,
                    member.gid,
                    member.uname,
                    member.gname,
                    member.size,
                    member.mtime_ns,
                    (member.major, member.minor),
                    member.xattrs,
                )
            )
    except CorruptArchiveError as exc:
        if len(found) != count:  # the content of the last member is missing on purpose
            raise UnreadableError(str(exc)) from exc
    return found


def by_tarfile(archive: Path, count: int) -> list[Fields]:
    """Return the headers as Python's tarfile reads them."""
    found: list[Fields] = []
    try:
        # tarfile follows the archive to its end by offsets, which may be beyond any file.
        with tarfile.open(
            fileobj=io.BytesIO(archive.read_bytes()), mode="r:", encoding="utf-8"
        ) as tar:
            found.extend(_of_tarinfo(info) for info in iter(tar.next, None))
    except (tarfile.TarError, OverflowError, ValueError) as exc:
        if len(found) != count:
            raise UnreadableError(str(exc)) from exc
    return found


def _of_tarinfo(info: tarfile.TarInfo) -> Fields:
    is_device = info.type in (CHARACTER_DEVICE, BLOCK_DEVICE)
    # As the float that it becomes it loses its nanoseconds.
    mtime = Decimal(info.pax_headers["mtime"] if "mtime" in info.pax_headers else int(info.mtime))
    kind = info.type
    if kind in (tarfile.AREGTYPE, tarfile.GNUTYPE_SPARSE):
        kind = FILE
    return Fields(
        kind,
        os.fsencode(info.name),
        os.fsencode(info.linkname),
        info.mode & 0o7777,
        info.uid,
        info.gid,
        os.fsencode(info.uname),
        os.fsencode(info.gname),
        info.size if kind == FILE else 0,
        int(mtime * NS),
        (info.devmajor, info.devminor) if is_device else (0, 0),
        {
            _unquoted(os.fsencode(key[len(_XATTR) :])): os.fsencode(value)
            for key, value in info.pax_headers.items()
            if key.startswith(_XATTR)
        },
    )


def _unquoted(name: bytes) -> bytes:
    return name.replace(b"%3D", b"=").replace(b"%25", b"%")


# GNU tar

_LINE = re.compile(
    rb"""(?P<kind>.)(?P<mode>[-rwxsStT]{9})[*.+]?[ ]+
    (?P<owner>.*?)[ ]+(?P<size>\d+(?:,\d+)?)[ ]
    (?P<time>-?\d+(?:-\d\d-\d\d[ ]\d\d:\d\d:\d\d)?(?:\.\d+)?)[ ]+
    "(?P<name>(?:[^"\\]|\\.)*)"(?:[ ](?:->|link[ ]to)[ ]"(?P<link>(?:[^"\\]|\\.)*)")?""",
    re.VERBOSE | re.DOTALL,
)
_KINDS = {
    b"-": FILE,
    b"h": HARD_LINK,
    b"l": SYMBOLIC_LINK,
    b"c": CHARACTER_DEVICE,
    b"b": BLOCK_DEVICE,
    b"d": DIRECTORY,
    b"p": FIFO,
}
_ESCAPE = re.compile(rb"\\([0-7]{3}|.)", re.DOTALL)
_ESCAPED = dict(zip(b'abfnrtv?"\\', b'\a\b\f\n\r\t\v?"\\', strict=True))
_EXPECTED_COMPLAINTS = re.compile(
    r"tar: (Unexpected EOF in archive|Error is not recoverable: exiting now|"
    r"Exiting with failure status due to previous errors|"
    # Of POSIX, as tarfile writes it for names that are not UTF-8: both take the bytes as they are.
    r"Ignoring unknown extended header keyword 'hdrcharset')"
)


def by_gnu_tar(archive: Path, count: int) -> list[Fields]:
    """Return the headers as GNU tar lists them.

    A listing names each owner by name or by number, so there are two. Of an extended attribute it
    tells only the length: here the value is as many zeros.
    """
    found: list[Fields] = []
    for line in _listing(archive, "--numeric-owner"):
        found.append(_of_line(line))
    at = 0
    for line in _listing(archive, "-v", "--xattrs", "--xattrs-include=*"):
        if line.startswith(b"  x: "):
            length, _, name = line[5:].partition(b" ")
            found[at - 1].xattrs[name] = bytes(int(length))
        elif not line.startswith(b"  "):
            match = _LINE.fullmatch(line)
            if match is None:
                raise UnreadableError(f"a line of another form: {line!r}")
            found[at].uname, _, found[at].gname = match["owner"].partition(b"/")
            at += 1
    if at != len(found) or at < count:
        raise UnreadableError(f"{len(found)} and {at} of {count} members are listed")
    return found


def _listing(archive: Path, *options: str) -> list[bytes]:
    command = ["tar", "-tvvf", str(archive), "--full-time", "--quoting-style=c", *options]
    environment = {**os.environ, "TZ": "UTC0", "LC_ALL": "C"}
    done = subprocess.run(command, capture_output=True, env=environment)
    complaints = [
        line
        for line in done.stderr.decode("ascii", "replace").splitlines()
        if not _EXPECTED_COMPLAINTS.fullmatch(line)
    ]
    if complaints:
        raise UnreadableError("; ".join(complaints[:3]))
    return done.stdout.split(b"\n")[:-1]


def _of_line(line: bytes) -> Fields:
    match = _LINE.fullmatch(line)
    if match is None:
        raise UnreadableError(f"a line of another form: {line!r}")
    kind = _KINDS[match["kind"]]
    uid, _, gid = match["owner"].partition(b"/")
    found = Fields(kind, _unescaped(match["name"]), mode=_mode(match["mode"]))
    found.uid, found.gid = int(uid), int(gid)
    if kind == DIRECTORY:
        found.name = found.name.removesuffix(b"/")
    if match["link"] is not None:
        found.link = _unescaped(match["link"])
    if kind in (CHARACTER_DEVICE, BLOCK_DEVICE):
        major, _, minor = match["size"].partition(b",")
        found.device = int(major), int(minor)
    elif kind == FILE:
        found.size = int(match["size"])
    found.mtime_ns = _time(match["time"])
    return found


def _unescaped(text: bytes) -> bytes:
    def character(match: re.Match[bytes]) -> bytes:
        escape = match[1]
        return bytes([int(escape, 8) if escape.isdigit() else _ESCAPED[ord(escape)]])

    return _ESCAPE.sub(character, text)


def _mode(shown: bytes) -> int:
    bits = 0
    for letter, bit in zip(shown, range(8, -1, -1), strict=True):
        bits |= (chr(letter) not in "-ST") << bit
    special = ((2, 0o4000), (5, 0o2000), (8, 0o1000))
    return bits | sum(bit for at, bit in special if chr(shown[at]) in "sStT")


def _time(shown: bytes) -> int:
    """Return the time of a listing, in nanoseconds. Its year may have up to ten digits."""
    seconds, _, fraction = shown.partition(b".")
    nanoseconds = int(fraction.ljust(9, b"0") or 0)
    if b":" not in seconds:
        return int(seconds) * NS + nanoseconds
    date, _, clock = seconds.partition(b" ")
    year, month, day = (int(part) for part in date.rsplit(b"-", 2))
    if year < -(2**31) + 1900:
        year += 2**32  # the number of the year is kept in 32 bits
    hours, minutes, rest = map(int, clock.split(b":"))
    days = _days(year, month, day)
    return (((days * 24 + hours) * 60 + minutes) * 60 + rest) * NS + nanoseconds


def _days(year: int, month: int, day: int) -> int:
    """Return the days from 1970-01-01 to a date of the Gregorian calendar, of any year."""
    year -= month <= 2
    era, of_era = divmod(year, 400)
    of_year = (153 * ((month + 9) % 12) + 2) // 5 + day - 1
    return era * 146_097 + of_era * 365 + of_era // 4 - of_era // 100 + of_year - 719_468


READERS: dict[str, Callable[[Path, int], list[Fields]]] = {
    "bakthat": by_bakthat,
    "tarfile": by_tarfile,
    "GNU tar": by_gnu_tar,
}
