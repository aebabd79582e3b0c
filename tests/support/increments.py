"""Increments for the tests, made by hand: what changed of a tree, its index, and its entry.

The rule of change is simple: a file that was changed has another time, size, inode or mode.
"""

from __future__ import annotations

import contextlib
import io
import os
import secrets
import stat
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import bakthat
from bakthat import models
from bakthat.archive.attributes import attribute_records
from bakthat.archive.gzip.members import MEMBER_BYTES
from bakthat.archive.gzip.writer import GzipWriter
from bakthat.archive.index.scan import TarScan
from bakthat.archive.index.writer import SegmentWriter
from bakthat.archive.tar import header
from bakthat.format.description import ARCHIVE, INDEX, archive_identity, describe
from bakthat.format.entry import BLOCK, Entry, EntryType
from bakthat.format.index.layout import IndexHeader, NeededArchive
from bakthat.format.index.values import sort_key
from bakthat.format.names import parse_stored_name, stored_name
from bakthat.passwords import encryption_keys
from bakthat.pipeline.write import encrypted, shared_header
from bakthat.session.entries import entry_of
from bakthat.session.indexes.opening import open_state
from bakthat.session.indexes.upload import NewIndex
from bakthat.session.reading import KeyFinder
from bakthat.session.session import Session
from bakthat.system.streams import Sink
from bakthat.system.text import from_native, to_native
from tests.support.profiles import Conf
from tests.support.tar_bytes import Pieces

_KINDS = {
    stat.S_IFREG: header.REGULAR,
    stat.S_IFDIR: header.DIRECTORY,
    stat.S_IFLNK: header.SYMBOLIC_LINK,
    stat.S_IFIFO: header.FIFO,
    stat.S_IFCHR: header.CHARACTER_DEVICE,
    stat.S_IFBLK: header.BLOCK_DEVICE,
}


@dataclass
class Chain:
    """A full backup of *tree* and increments, each made from the state of the one before it."""

    tree: Path
    conf: Conf
    password: str = ""
    options: dict[str, Any] = field(default_factory=dict)
    """Further arguments of the full backup."""
    backups: list[models.Backups] = field(default_factory=list)
    _state: dict[str, tuple[Any, ...]] = field(default_factory=dict)
    _targets: dict[str, str] = field(default_factory=dict)

    @property
    def names(self) -> list[str]:
        """The stored filenames, that of the full first."""
        return [each.stored_filename for each in self.backups]

    def full(self) -> models.Backups:
        """Store the tree as a full backup; an earlier one begins another chain."""
        keys: dict[str, Any] = {} if "recipients" in self.conf else {"password": self.password}
        made = bakthat.backup(self.tree, conf=self.conf, **keys, **self.options)
        self.backups, self._state = [made], {}
        self._state, self._targets = self._look()
        return made

    def increment(
        self, *, seen: Collection[str] = (), stale: Collection[str] = ()
    ) -> models.Backups:
        """Store what changed since the backup before.

        *seen* are paths whose content did not change though their time of change did, and *stale*
        those that could not be read.
        """
        before = self._state
        after, targets = self._look()
        stored = {name for name in after if before.get(name) != after[name]}
        stored |= {os.path.dirname(name) for name in stored if os.path.dirname(name) in after}
        removed = [
            name
            for name in before
            if name not in after and (os.path.dirname(name) in after or "/" not in name)
        ]
        self._state, self._targets = after, targets
        return self._store(stored, removed, targets, seen, stale)

    def _look(self) -> tuple[dict[str, tuple[Any, ...]], dict[str, str]]:
        """Return what tells a changed path, and the targets of hard links by their paths."""
        found: dict[str, tuple[Any, ...]] = {}
        holders: dict[int, str] = {}
        targets: dict[str, str] = {}
        paths = list(self._paths())
        for name, path in paths:  # names that hold their content already
            status = os.lstat(path)
            before = self._state.get(name)
            if before is not None and name not in self._targets and before[2] == status.st_ino:
                holders.setdefault(status.st_ino, name)
        for name, path in paths:
            status = os.lstat(path)
            target = ""
            if not stat.S_ISDIR(status.st_mode) and status.st_nlink > 1:
                target = holders.setdefault(status.st_ino, name)
                target = "" if target == name else target
            if target:
                targets[name] = target
            is_link = stat.S_ISLNK(status.st_mode)
            found[name] = (
                status.st_mode,
                (status.st_uid, status.st_gid),
                status.st_ino,
                0 if stat.S_ISDIR(status.st_mode) else status.st_size,
                status.st_mtime_ns,
                os.readlink(path) if is_link else "",
                _attributes(path),
                target,
            )
        return found, targets

    def _paths(self) -> Iterator[tuple[str, Path]]:
        waiting = [self.tree]
        found = []
        while waiting:
            path = waiting.pop()
            found.append((str(path.relative_to(self.tree.parent)), path))
            if path.is_dir() and not path.is_symlink():
                waiting += path.iterdir()
        yield from sorted(found, key=lambda each: sort_key(from_native(each[0])))

    def _store(
        self,
        stored: Collection[str],
        removed: Collection[str],
        targets: dict[str, str],
        seen: Collection[str],
        stale: Collection[str],
    ) -> models.Backups:
        session = Session("default", None, self.conf)
        backend = session.backend(session.destination)
        full, parent = self.backups[0], self.backups[-1]
        keys = encryption_keys(
            session.profile.as_mapping(),
            password=None if "recipients" in self.conf else self.password,
            prompt=False,
        )
        date = parent.date + 1
        compressed = ".tgz" in full.stored_filename
        extension = ".tgz" if compressed else ".tar"
        key = session.prefix + stored_name(
            full.filename, date, extension, encrypted=bool(keys), increment=True
        )
        identity = archive_identity(full.filename, date, session.host, full.source_id)
        tar = self._tar(stored, targets, identity)
        archive_id = secrets.token_hex(8)
        needs = [each.date for each in self.backups]
        described: dict[str, Any] = {
            "encryption": keys.kind,
            "source_id": full.source_id,
            "archive_id": archive_id,
            "needs": needs,
            "level": 5,
        }
        description = describe(
            ARCHIVE, full.filename, date, session.host, compressed=compressed, **described
        )
        description |= {"index": 1, "bytes": len(tar), "files": len(stored), "directories": 0}
        shared = shared_header(keys)
        index = NewIndex(session, backend, key)
        with contextlib.closing(index):
            upload = backend.upload(key, metadata=description)
            with contextlib.ExitStack() as stages:
                sink: Sink = stages.enter_context(encrypted(upload, keys, shared))
                if compressed:
                    writer = GzipWriter(sink, level=1, on_member=index.spool.add_member)
                    sink = stages.enter_context(writer)
                sink.write(tar)
            entries = self._entries(tar, removed, seen, stale)
            segments = SegmentWriter(index.spool.add_segment)
            for entry in entries:
                segments.add(entry)
            segments.close()
            index.send(
                describe(INDEX, full.filename, date, session.host, compressed=True, **described),
                IndexHeader(
                    key,
                    full.filename,
                    session.host,
                    full.source,
                    full.source_id,
                    date,
                    member_bytes=MEMBER_BYTES if compressed else 0,
                    archive_id=archive_id,
                    needs=tuple(
                        NeededArchive(each.stored_filename, each.date, each.size, each.archive_id)
                        for each in self.backups
                    ),
                    level=5,
                ),
                tar_bytes=len(tar),
                keys=keys,
                shared=shared,
            )
            index.commit()
            upload.commit()
            index.keep()
            made = self._record(session, key, index.size)
            index.remember(made)
        self.backups.append(made)
        return made

    def _record(self, session: Session, key: str, index_size: int | None) -> models.Backups:
        backend = session.backend(session.destination)
        parsed = parse_stored_name(key.rpartition("/")[2])
        assert parsed is not None
        found = entry_of(backend, backend.stat(key), parsed)
        found.metadata |= {"source": self.backups[0].source, "index_size": index_size}
        with models.catalog(session.catalog, write=True):
            found.save()
        return found

    def _tar(self, stored: Collection[str], targets: dict[str, str], identity: str) -> bytes:
        out = io.BytesIO()
        out.write(header.pack_comment(identity.encode()))
        for name, path in self._paths():
            if name not in stored:
                continue
            status = os.lstat(path)
            is_directory = stat.S_ISDIR(status.st_mode)
            kind = header.HARD_LINK if name in targets else _KINDS[stat.S_IFMT(status.st_mode)]
            content = path.read_bytes() if kind == header.REGULAR else b""
            link = targets.get(name) or (os.readlink(path) if path.is_symlink() else "")
            is_link = kind == header.HARD_LINK
            member = header.MemberHeader(
                os.fsencode(name) + (b"/" if is_directory else b""),
                kind,
                status.st_mode,
                status.st_uid,
                status.st_gid,
                status.st_mtime_ns,
                size=len(content),
                link=os.fsencode(link),
                records=() if is_link else attribute_records(dict(_attributes(path)), {}),
            )
            if is_directory:
                listing = _listing(path, name, stored)
                more = () if listing is None else ((b"GNU.dumpdir", listing),)
                member = replace(member, records=(*member.records, *more))
            if kind in (header.CHARACTER_DEVICE, header.BLOCK_DEVICE):
                device = os.major(status.st_rdev), os.minor(status.st_rdev)
                member = replace(member, device=device)
            out.write(header.pack_member_header(member))
            out.write(content + bytes(-len(content) % BLOCK))
        out.write(bytes(2 * BLOCK))
        out.write(bytes(-out.tell() % header.RECORD_BYTES))
        return out.getvalue()

    def _entries(
        self, tar: bytes, removed: Collection[str], seen: Collection[str], stale: Collection[str]
    ) -> list[Entry]:
        found: dict[bytes, Entry] = {}
        for entry in TarScan(Pieces(tar)):
            status = os.lstat(self.tree.parent / to_native(entry.path))
            found[sort_key(entry.path)] = entry._replace(
                ctime_ns=status.st_ctime_ns, inode=status.st_ino
            )
        others = [(name, EntryType.REMOVED) for name in removed]
        others += [(name, EntryType.SEEN) for name in (*seen, *stale)]
        for name, kind in others:
            path = from_native(name)
            entry = Entry(path, kind, 0, 0, 0, 0, header_bytes=0)
            if kind is EntryType.SEEN:
                entry = entry._replace(
                    archive=self._archive_of(path), is_stale=name in stale, ctime_ns=1, inode=1
                )
            found[sort_key(path)] = entry
        position = 0
        entries = []
        for key in sorted(found):
            entry = found[key]
            if not entry.type.is_member:
                entry = entry._replace(position=position)
            position = entry.end
            entries.append(entry)
        return entries

    def _archive_of(self, path: str) -> int:
        session = Session("default", None, self.conf)
        keys = KeyFinder(session, self.password)
        with open_state(session, self.backups[-1], keys, whole=True) as state:
            assert state is not None
            (entry,) = (each for each in state.entries([path]) if each.path == path)
            return entry.archive


def _listing(directory: Path, name: str, stored: Collection[str]) -> bytes | None:
    """Return what GNU tar's record of a directory says; None for no record."""
    names = b""
    for path in sorted(directory.iterdir(), key=os.fsencode):
        letter = "Y" if f"{name}/{path.name}" in stored else "N"
        if path.is_dir() and not path.is_symlink():
            letter = "D"
        names += os.fsencode(f"{letter}{path.name}\0")
    return names + b"\0"


def _attributes(path: Path) -> tuple[tuple[bytes, bytes], ...]:
    try:
        names = os.listxattr(path, follow_symlinks=False)
    except OSError:
        return ()
    return tuple(
        (os.fsencode(name), os.getxattr(path, name, follow_symlinks=False)) for name in names
    )
