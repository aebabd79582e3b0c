"""What is fuzzed: each target takes any bytes and may raise nothing but bakthat's own errors.

The seeds are small valid inputs, from which mutations reach deep.
"""

from __future__ import annotations

import gzip
import io
import json
import os
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from bakthat.archive.create.excludes import find_rules
from bakthat.archive.extract.unpack import verify
from bakthat.archive.gzip.reader import GzipReader
from bakthat.archive.gzip.writer import GzipWriter, compress_member
from bakthat.archive.index.framing import pack_tail
from bakthat.archive.index.reader import IndexReader
from bakthat.archive.index.writer import IndexSpool, SegmentWriter
from bakthat.backends.base import decode_metadata
from bakthat.backends.glacier.client import Description
from bakthat.conf import load_profile
from bakthat.crypto import age
from bakthat.crypto.age import DecryptReader, EncryptWriter
from bakthat.crypto.beefish import BeefishReader
from bakthat.errors import BakthatError
from bakthat.format.description import sanitized
from bakthat.format.entry import Entry, EntryType
from bakthat.format.index.layout import IndexHeader
from bakthat.format.names import parse_stored_name
from bakthat.models import Backups
from bakthat.session.reading import expected_of
from bakthat.system.streams import Source
from tests.support.tar_bytes import END, header, member, pax

Target = Callable[[bytes], None]

MOST_OUTPUT = 8 * 1024 * 1024
"""Bytes after which a target has seen enough."""


def drain(source: Source) -> None:
    """Read up to the end, or a few megabytes."""
    left = MOST_OUTPUT
    while left > 0 and (piece := source.read(65536)):
        left -= len(piece)


def age_file(data: bytes) -> None:
    """Decrypt with an identity and, unless that would take a second of scrypt, a passphrase."""
    with suppress(BakthatError):
        drain(DecryptReader(io.BytesIO(data), identities=[_IDENTITY]))
    if b"-> scrypt" not in data and b"BEGIN AGE" not in data:
        with suppress(BakthatError):
            drain(DecryptReader(io.BytesIO(data), passphrase="pw"))


def age_keys(data: bytes) -> None:
    """Read the text of keys."""
    text = data.decode("utf-8", "surrogateescape")
    for parse in (age.parse_recipient, age.parse_identities):
        with suppress(BakthatError):
            parse(text)


def legacy_encryption(data: bytes) -> None:
    """Decrypt what 0.6.0 would have written."""
    with suppress(BakthatError):
        drain(BeefishReader(io.BytesIO(data), password="pw"))


def gzip_file(data: bytes) -> None:
    """Inflate."""
    with suppress(BakthatError), GzipReader(io.BytesIO(data), threads=1) as reader:
        drain(reader)


def tar_archive(data: bytes) -> None:
    """Walk through a tar archive."""
    with suppress(BakthatError):
        verify(io.BytesIO(data))


def index_file(data: bytes) -> None:
    """Read an index: its ends, all entries, and where the gzip members are."""
    with suppress(BakthatError):
        reader = IndexReader(_Memory(data), key="key")
        for entry in reader.entries():
            entry.as_dict()
            json.dumps([entry.path, entry.target])
        list(reader.entries([reader.top, "set/a"]))
        members = reader.members()
        if members is not None:
            members.locate(0, reader.footer.tar_bytes)


def index_lines(data: bytes) -> None:
    """Read an index whose lines are hostile, but not its gzip members.

    *data* holds the header, a segment, a table and the footer with NUL between them. In the footer,
    O1, L1, O2 and L2 stand for where the segment and the table are, and how long.
    """
    lines = (data.split(b"\0") + [b""] * 4)[:4]
    members = [compress_member(line, 3) for line in lines[:3]]
    offsets = [0]
    for member_ in members:
        offsets.append(offsets[-1] + len(member_))
    footer = lines[3]
    for name, number in (
        (b"O1", offsets[1]),
        (b"L1", len(members[1])),
        (b"O2", offsets[2]),
        (b"L2", len(members[2])),
    ):
        footer = footer.replace(name, b"%d" % number)
    index_file(b"".join([*members, compress_member(footer, 3), pack_tail(offsets[3])]))


class _Memory:
    """A source of any bytes, which may be asked for what it does not have."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self.size = len(data)

    def read_at(self, offset: int, size: int, /) -> bytes:
        assert 0 <= offset <= offset + size <= self.size
        return self._data[offset : offset + size]


def self_description(data: bytes) -> None:
    """Read what an object says of itself, as restoring and listing do."""
    description = decode_metadata(data)
    text = data.decode("utf-8", "surrogateescape")
    Description.decode(text)
    valid = sanitized(description)
    json.dumps(valid).encode()
    for name in ("set.20200202020202.tgz", "set.20200202020202", "key.keyvalue", text):
        parse_stored_name(name)
        entry = Backups(
            backend="s3", filename="set", backup_date=1, size=10, stored_filename=name, tags=""
        )
        for metadata in (dict(description), valid):
            entry.metadata = metadata
            with suppress(BakthatError):
                expected_of(entry)


def configuration(data: bytes) -> None:
    """Read a configuration file."""
    with suppress(BakthatError):
        load_profile(config=_file_of(data))


def exclude_rules(data: bytes) -> None:
    """Read an exclude file and match names by it."""
    path = _file_of(data)
    with suppress(BakthatError):
        rules = find_rules(path.parent, exclude_file=str(path), automatic=False)
        if rules is not None:
            rules.excludes("dir/keep.pyc", is_dir=False)


def _file_of(data: bytes) -> Path:
    path = Path(tempfile.gettempdir()) / f"bakthat-fuzz-{os.getpid()}.yml"
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
    return path


_IDENTITY = age.generate_identity()


def _age_seed(text: bytes, **key: object) -> bytes:
    sink = io.BytesIO()
    with EncryptWriter(sink, **key) as writer:  # type: ignore[arg-type]  # recipients or passphrase
        writer.write(text)
    return sink.getvalue()


def _gzip_seed(data: bytes) -> bytes:
    sink = io.BytesIO()
    with GzipWriter(sink, level=1) as writer:
        writer.write(data)
    return sink.getvalue()


_TAR = (
    pax([(b"comment", b"bakthat set=s date=1 host=h")], b"g")
    + header(b"d", b"5")
    + pax([(b"path", b"d/" + b"n" * 120), (b"mtime", b"1.5"), (b"SCHILY.xattr.user.x", b"v")])
    + member(b"d/n", b"content")
    + header(b"l", b"2", linkname=b"d/n")
    + pax([(b"GNU.sparse.size", b"100"), (b"GNU.sparse.map", b"0,1,50,2")])
    + member(b"s", b"abc")
    + member(b"L", b"a/long/name\0", b"L")
    + header(b"h", b"1", linkname=b"d/n")
    + END
)
_DESCRIPTION = {
    "bakthat": "1.0.0",
    "format": 1,
    "set": "s",
    "date": 1580608922,
    "host": "h",
    "kind": "file",
    "encryption": "none",
    "compression": "gzip",
    "tags": "a b",
    "mode": 420,
    "mtime_ns": 1,
    "uid": 0,
    "gid": 0,
    "bytes": 5,
    "KeyValue": False,
    "is_enc": False,
}

_INDEX_LINES = b"\0".join(
    [
        IndexHeader("key", "set", "host", "/set", "named", 1, member_bytes=1 << 20).pack(),
        b'{"segment":4,"at":1024,"owners":{"0":"root"},"groups":{}}\n'
        b'["set","d",493,0,0,1,1,2]\n'
        b'["set/a","f",420,0,0,1,1,1,5,"' + b"A" * 43 + b'"]\n'
        b'["set/b","h",420,0,0,1,1,1,0,"",{"t":"set/a"}]\n'
        b'["set/c","c",420,0,0,1,null,1,0,"",{"d":[1,3],"n":1,"x":"0123456789abcdef","v":1}]\n',
        b'{"members":[9000]}\n',
        b'{"footer":1,"records":4,"files":3,"directories":1,"bytes":5,"tar":10240,"stored":9000,'
        b'"removed":[],"segments":[["set",4,1024,O1,L1]],"members":[[1,0,O2,L2]]}\n',
    ]
)


def _index_seed() -> bytes:
    sink = io.BytesIO()
    with IndexSpool() as spool:
        writer = SegmentWriter(spool.add_segment)
        writer.add(Entry("set", EntryType.DIRECTORY, 0o755, 0, 0, 1, 1, 2, position=1024))
        writer.close()
        spool.add_member(9000)
        header = IndexHeader("key", "set", "host", "/set", "named", 1, member_bytes=1 << 20)
        spool.write_to(sink, header, tar_bytes=10240)
    return sink.getvalue()


TARGETS: dict[str, tuple[Target, list[bytes]]] = {
    "age": (age_file, [_age_seed(b"text", recipients=[age.recipient_of(_IDENTITY)])]),
    "age-keys": (age_keys, [_IDENTITY.encode(), age.recipient_of(_IDENTITY).encode()]),
    "beefish": (legacy_encryption, [bytes(64)]),
    "gzip": (gzip_file, [_gzip_seed(b"text" * 50), gzip.compress(b"text" * 50)]),
    "tar": (tar_archive, [_TAR]),
    "index": (index_file, [_index_seed()]),
    "index-lines": (index_lines, [_INDEX_LINES]),
    "metadata": (
        self_description,
        [json.dumps(_DESCRIPTION).encode(), b'{"key": "s.20200202020202", "about": {}}'],
    ),
    "configuration": (
        configuration,
        [b"default:\n  s3_bucket: b\n  rotation: {days: 7}\n  recipients: [age1x]\n"],
    ),
    "excludes": (exclude_rules, [b"*.pyc\n!keep\n/dir/**/x\n[a-z]?\n\\#\n"]),
}
"""Each target with the seeds that it starts from."""
