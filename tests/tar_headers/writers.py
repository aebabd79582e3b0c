"""Write archives of random headers with bakthat, tarfile and GNU tar."""

from __future__ import annotations

import contextlib
import io
import os
import stat
import subprocess
import tarfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Literal

from bakthat.archive.create.writer import TreeWriter
from bakthat.archive.create.xattrs import attribute_record
from bakthat.archive.report import ArchiveReport
from bakthat.archive.tar import header as tar_header
from bakthat.archive.tar.header import MemberHeader
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
    Values,
)

Written = list[Fields]
"""What an archive should hold."""

_END = bytes(10_240)


def by_bakthat(values: Values, archive: Path, count: int) -> Written:
    """Write *count* headers as a backup writes them; the last one announces any size."""
    written = []
    sink = io.BytesIO()
    writer = TreeWriter("", sink, ArchiveReport(), lambda _: None, lambda *_: None)
    for number in range(count):
        fields = values.fields()
        if values.random.random() < 0.1:
            fields.xattrs = values.xattrs()
        if fields.kind == FILE and number == count - 1:
            fields.size = values.size()
        elif fields.kind == FILE and values.random.random() < 0.1:
            values.sparse(fields)
        member = _member(fields)
        if fields.extents is not None:
            writer._put_sparse_header(member, fields.extents, fields.size)
            stored = sum(length for _, length in fields.extents)
        else:
            writer._blocks.put(values.random.choice(_headers(member)))
            stored = fields.size
        if number < count - 1:
            writer._blocks.zeros(stored)
            writer._blocks.pad(512)
        written.append(fields)
    writer.finish()
    archive.write_bytes(sink.getvalue())
    return written


def _member(fields: Fields) -> MemberHeader:
    name = fields.name + b"/" * (fields.kind == DIRECTORY)
    member = MemberHeader(
        name,
        fields.kind,
        fields.mode,
        fields.uid,
        fields.gid,
        fields.mtime_ns,
        fields.size,
        fields.link,
        fields.uname,
        fields.gname,
        fields.device,
    )
    member.records = [attribute_record(key, value) for key, value in fields.xattrs.items()]
    return member


def _headers(member: MemberHeader) -> list[bytes]:
    """Return the header from every function that packs it."""
    found = [tar_header.pack_member_header(member)]
    shared = tar_header.shared_pieces(member)
    if shared is not None:
        usual = tar_header.pack_usual_header(member.name, shared, member.size, member.mtime_ns)
        found += [usual] if usual is not None else []
    return found


def by_tarfile(form: Literal[0, 1, 2]) -> Callable[[Values, Path, int], Written]:
    """Return a writer that uses tarfile with one of its formats."""

    def write(values: Values, archive: Path, count: int) -> Written:
        written: Written = []
        pieces = []
        while len(written) < count:
            last = len(written) == count - 1
            # tarfile has no form for larger numbers of devices.
            fields = values.fields(most_devices=0o7777777)
            if form == tarfile.USTAR_FORMAT:
                _narrow(fields)
            if last and fields.kind == FILE:
                fields.size = values.size()
            try:
                info = _tarinfo(fields, form)
                pieces.append(info.tobuf(form, "utf-8", "surrogateescape"))
            except ValueError:
                continue  # the format has no room for it
            if not last:
                pieces.append(bytes(fields.size + -fields.size % 512))
            written.append(_kept(fields, form))
        archive.write_bytes(b"".join(pieces) + _END)
        return written

    return write


def _tarinfo(fields: Fields, form: int) -> tarfile.TarInfo:
    info = tarfile.TarInfo(os.fsdecode(fields.name))
    info.type = fields.kind
    info.linkname = os.fsdecode(fields.link)
    info.mode, info.uid, info.gid, info.size = fields.mode, fields.uid, fields.gid, fields.size
    info.uname, info.gname = os.fsdecode(fields.uname), os.fsdecode(fields.gname)
    info.devmajor, info.devminor = fields.device
    seconds, fraction = divmod(fields.mtime_ns, NS)
    info.mtime = seconds
    if form == tarfile.PAX_FORMAT and fraction:
        info.pax_headers = {"mtime": tar_header.decimal_seconds(fields.mtime_ns).decode()}
    return info


def _kept(fields: Fields, form: int) -> Fields:
    """Return what a format of tarfile keeps of *fields*."""
    if form == tarfile.PAX_FORMAT:
        return fields
    return replace(
        fields,
        mtime_ns=fields.mtime_ns // NS * NS,
        uname=fields.uname[:32],
        gname=fields.gname[:32],
    )


def by_gnu_tar(form: str, *options: str) -> Callable[[Values, Path, int], Written]:
    """Return a writer that archives real files with GNU tar in one of its formats."""

    def write(values: Values, archive: Path, count: int) -> Written:
        tree = archive.with_suffix(".tree")
        tree.mkdir()
        made = _make_files(values, tree, count, narrow=form in ("ustar", "v7"))
        owners = {fields.uid: fields.uname for fields in made}
        groups = {fields.gid: fields.gname for fields in made}
        maps = {"owner": owners, "group": groups}
        for what, names in maps.items():
            lines = [b"+%d %b:%d\n" % (number, name, number) for number, name in names.items()]
            archive.with_suffix(f".{what}").write_bytes(b"".join(lines))
        archive.with_suffix(".list").write_bytes(b"".join(each.name + b"\0" for each in made))
        subprocess.run(
            [
                *("tar", "-c", "-f", archive, f"--format={form}", "-C", tree, "--no-recursion"),
                *(f"--{what}-map={archive.with_suffix(f'.{what}')}" for what in maps),
                *("--null", "--verbatim-files-from", "-T", archive.with_suffix(".list")),
                *options,
            ],
            check=True,
            env={**os.environ, "TZ": "UTC0", "LC_ALL": "C"},
        )
        subprocess.run(["rm", "-rf", tree], check=True)
        return [
            _kept_by_gnu_tar(replace(each, uname=owners[each.uid], gname=groups[each.gid]), form)
            for each in made
        ]

    return write


def _kept_by_gnu_tar(fields: Fields, form: str) -> Fields:
    if form == "posix":
        return fields
    kept = replace(fields, mtime_ns=fields.mtime_ns // NS * NS, xattrs={})
    if form == "v7":
        kept.uname = kept.gname = b""
    return kept


def _make_files(values: Values, tree: Path, count: int, *, narrow: bool) -> Written:
    """Make files with random metadata below *tree*; return what the file system keeps of them.

    *narrow* leaves out what ustar and v7 have no room for.
    """
    pick = values.random
    root = os.open(tree, os.O_RDONLY | os.O_DIRECTORY)
    made: Written = []
    try:
        for number in range(count):
            fields = values.fields()
            if narrow:
                _narrow(fields)
                if fields.kind in (CHARACTER_DEVICE, BLOCK_DEVICE, FIFO):
                    fields.kind = FILE
            fields.name = _name(values, number, narrow=narrow)
            fields.uname, fields.gname = (
                b"%b%d" % (bytes(values.text(pick.randint(0, 24), odd=False)), number % 97)
                for _ in range(2)
            )
            directory = os.path.dirname(fields.name)
            if directory:
                os.makedirs(os.fsencode(tree) + b"/" + directory, exist_ok=True)
            if _make(values, root, fields, made, narrow=narrow):
                made.append(_read_back(root, fields))
        # The time of a directory changes with its entries, the number of links too.
        return [_read_back(root, each) for each in made]
    finally:
        os.close(root)


def _narrow(fields: Fields) -> None:
    """Change what ustar and v7 have no room for, except the name."""
    fields.uid, fields.gid = fields.uid % 8**7, fields.gid % 8**7
    fields.mtime_ns = fields.mtime_ns % (8**11 * NS)
    fields.link = fields.link[-100:].lstrip(b"/")


def _name(values: Values, number: int, *, narrow: bool) -> bytes:
    name = values.path()
    if narrow:
        name = name[-99:].strip(b"/")
    parts = [part[:250] for part in name.split(b"/") if part not in (b"", b".", b"..")]
    unique = b"%d" % number
    return b"/".join([unique, *parts])[: 99 if narrow else 4000].rstrip(b"/")


def _make(values: Values, root: int, fields: Fields, made: Written, *, narrow: bool) -> bool:
    """Make the file of *fields*; return False where the file system refuses it."""
    name, kind = fields.name, fields.kind
    try:
        if kind == DIRECTORY:
            os.mkdir(name, dir_fd=root)
        elif kind == SYMBOLIC_LINK:
            os.symlink(fields.link, name, dir_fd=root)
        elif kind == FIFO:
            os.mkfifo(name, dir_fd=root)
        elif kind in (CHARACTER_DEVICE, BLOCK_DEVICE):
            form = stat.S_IFCHR if kind == CHARACTER_DEVICE else stat.S_IFBLK
            device = os.makedev(fields.device[0] % 4096, fields.device[1] % 2**20)
            os.mknod(name, form | 0o600, device, dir_fd=root)
        elif kind == HARD_LINK:
            files = [each for each in made if each.kind == FILE]
            if not files:
                return False
            fields.link = values.random.choice(files[-50:]).name
            os.link(fields.link, name, src_dir_fd=root, dst_dir_fd=root)
            return True
        else:
            _make_file(values, root, fields, narrow=narrow)
    except OSError:
        return False
    follow = {"dir_fd": root, "follow_symlinks": False}
    with contextlib.suppress(OSError):  # only root gives files away
        os.chown(name, fields.uid, fields.gid, **follow)  # type: ignore[arg-type]  # the options
    if kind != SYMBOLIC_LINK:
        os.chmod(name, fields.mode, dir_fd=root)
    with contextlib.suppress(OSError, OverflowError):
        os.utime(name, ns=(0, fields.mtime_ns), **follow)  # type: ignore[arg-type]  # the options
    return True


def _make_file(values: Values, root: int, fields: Fields, *, narrow: bool) -> None:
    fd = os.open(fields.name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600, dir_fd=root)
    try:
        if not narrow and values.random.random() < 0.1:
            size = 2 ** values.random.randint(13, 40)
            os.ftruncate(fd, size)
            begin = values.random.randrange(size - 4)
            os.pwrite(fd, b"data", begin)
            fields.extents = [(begin, 4)]
        else:
            os.write(fd, bytes(fields.size))
        if values.random.random() < 0.1:
            for key, value in values.xattrs().items():
                os.setxattr(fd, key, value)
    finally:
        os.close(fd)


def _read_back(root: int, fields: Fields) -> Fields:
    """Return *fields* as the file system has them."""
    status = os.stat(fields.name, dir_fd=root, follow_symlinks=False)
    found = replace(fields, mode=stat.S_IMODE(status.st_mode), mtime_ns=status.st_mtime_ns)
    found.uid, found.gid = status.st_uid, status.st_gid
    found.device = os.major(status.st_rdev), os.minor(status.st_rdev)
    found.size = status.st_size if found.kind == FILE else 0
    found.xattrs = {}
    if found.kind == FILE:
        path = b"/proc/self/fd/%d/%b" % (root, found.name)
        found.xattrs = {
            os.fsencode(key): os.getxattr(path, key)
            for key in os.listxattr(path)
            if key.startswith("user.")
        }
    return found


SPARSE = ("--sparse", "--xattrs")
WRITERS: dict[str, Callable[[Values, Path, int], Written]] = {
    "bakthat": by_bakthat,
    "tarfile pax": by_tarfile(tarfile.PAX_FORMAT),
    "tarfile gnu": by_tarfile(tarfile.GNU_FORMAT),
    "tarfile ustar": by_tarfile(tarfile.USTAR_FORMAT),
    "GNU tar posix": by_gnu_tar("posix", *SPARSE),
    "GNU tar posix 0.1": by_gnu_tar("posix", *SPARSE, "--sparse-version=0.1"),
    "GNU tar posix 0.0": by_gnu_tar("posix", *SPARSE, "--sparse-version=0.0"),
    "GNU tar gnu": by_gnu_tar("gnu", "--sparse"),
    "GNU tar oldgnu": by_gnu_tar("oldgnu", "--sparse"),
    "GNU tar ustar": by_gnu_tar("ustar"),
    "GNU tar v7": by_gnu_tar("v7"),
}
