"""Indexes that were altered by hand: every command gives the right answer, or one clear error."""

from __future__ import annotations

import logging
import os
import random
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest

import bakthat
from bakthat.crypto.age import EncryptWriter
from bakthat.errors import BakthatError
from tests.crypto.test_age import IDENTITY, RECIPIENT, Pieces
from tests.support.changed_indexes import RawIndex, index_by_reading, index_path
from tests.support.examples import rest_slow
from tests.support.indexes import forget_cache
from tests.support.profiles import Conf
from tests.support.trees import fingerprint

MIB = 1024 * 1024


def record(raw: RawIndex, path: str) -> list[object]:
    return next(
        line
        for lines in raw.segments
        for line in lines
        if isinstance(line, list) and line[0] == path
    )


def change(path: str, column: int, value: object) -> Callable[[RawIndex], object]:
    def hostile(raw: RawIndex) -> None:
        record(raw, path)[column] = value

    return hostile


def more(path: str, **extras: object) -> Callable[[RawIndex], object]:
    def hostile(raw: RawIndex) -> None:
        line = record(raw, path)
        line += [0] * (9 - len(line)) + [""] * (len(line) < 10)
        if len(line) < 11:
            line.append({})
        line[10] = extras

    return hostile


def footer(name: str, value: object) -> Callable[[RawIndex], object]:
    return lambda raw: raw.footer.__setitem__(name, value)


def header(name: str, value: object) -> Callable[[RawIndex], object]:
    return lambda raw: raw.header.__setitem__(name, value)


def place(column: int, value: object) -> Callable[[RawIndex], object]:
    return lambda raw: raw.places[0].__setitem__(column, value)


def swap(raw: RawIndex) -> None:
    lines = raw.segments[0]
    lines[3], lines[4] = lines[4], lines[3]


def double(raw: RawIndex) -> None:
    raw.segments[0].insert(4, list(raw.segments[0][3]))


def remove(raw: RawIndex) -> None:
    raw.segments[0].remove(record(raw, "mydir/etc/hosts"))
    raw.places[0][1] -= 1
    raw.segments[0][0]["segment"] -= 1
    raw.footer["records"] -= 1


def no_segments(raw: RawIndex) -> None:
    raw.segments.clear()
    raw.places.clear()
    raw.footer["records"] = 0


def no_members(raw: RawIndex) -> None:
    raw.header["member"] = 0
    raw.tables.clear()
    raw.table_places.clear()


def text(number: int, value: bytes) -> Callable[[RawIndex], object]:
    return lambda raw: raw.texts.__setitem__(number, value)


def lengths(edit: Callable[[list[int]], object]) -> Callable[[RawIndex], object]:
    return lambda raw: edit(raw.tables[0]["members"])


HOSTS = "mydir/etc/hosts"
DIGEST = "A" * 43
HOSTILE: dict[str, Callable[[RawIndex], object]] = {
    # paths
    "absolute path": change(HOSTS, 0, "/etc/hosts"),
    "path that leads out": change(HOSTS, 0, "mydir/../../hosts"),
    "path with a NUL": change(HOSTS, 0, "mydir/etc/ho\0sts"),
    "path of another directory": change(HOSTS, 0, "other/etc/hosts"),
    "path that is no text": change(HOSTS, 0, {"b64": "!"}),
    "longest path": change(HOSTS, 0, "mydir/" + "x" * 70_000),
    "paths not ascending": swap,
    "path twice": double,
    "first path of the footer": place(0, "mydir/zz"),
    "first path absolute": place(0, "/mydir"),
    # positions
    "position outside": place(2, 2**50),
    "position shifted": place(2, 2048),
    "position of the segment": lambda raw: raw.segments[0][0].__setitem__("at", 0),
    "position negative": place(2, -512),
    "position no number": place(2, "1024"),
    "tar too short": footer("tar", 4096),
    "tar too long": footer("tar", 2**40),
    "tar endless": footer("tar", 2**80),
    "headers too long": more(HOSTS, n=100),
    "headers missing": more(HOSTS, n=0),
    "content too long": more(HOSTS, k=2**60),
    "overlapping": more(HOSTS, n=1),
    # counts
    "more records": footer("records", 99),
    "fewer records": footer("records", 1),
    "more records in the segment": lambda raw: raw.segments[0][0].__setitem__("segment", 99),
    "more records in its place": place(1, 99),
    "record missing": remove,
    "records without a header": lambda raw: raw.segments[0].pop(0),
    "no segments": no_segments,
    # what they say of a file
    "another kind": change(HOSTS, 1, "d"),
    "unknown kind": change(HOSTS, 1, "z"),
    "setuid": change(HOSTS, 2, 0o4755),
    "owner": change(HOSTS, 3, 4242),
    "time": change(HOSTS, 5, 1),
    "size": change(HOSTS, 8, 10**6),
    "hash": change(HOSTS, 9, DIGEST),
    "hash cut off": change(HOSTS, 9, "AAAA"),
    "device": more("mydir/etc/hosts", d=[1, 1]),
    "link elsewhere": more("mydir/link", t="../../outside"),
    "hard link elsewhere": more("mydir/linked", t="mydir/other"),
    "hard link leads out": more("mydir/linked", t="../etc/passwd"),
    # gzip members of the archive
    "members missing": lengths(list.pop),
    "member too long": lengths(lambda found: found.__setitem__(0, 2**40)),
    "members shifted": lengths(
        lambda found: (found.__setitem__(0, found[0] + 9), found.__setitem__(1, found[1] - 9))
    ),
    "member of no length": lengths(lambda found: found.__setitem__(0, 0)),
    "table elsewhere": lambda raw: raw.table_places[0].__setitem__(1, 99),
    "size of members": header("member", 4096),
    "no members": no_members,
    "stored size": footer("stored", 99),
    # the whole
    "of another archive": header("key", "mydir.20200101000000.tgz"),
    "of a file": header("kind", "file"),
    "said to be out of order": header("sorted", False),
    "of another format": header("format", 2),
    "no index": header("bakthat", "catalog"),
    "header is a list": text(0, b"[]\n"),
    "header without end": text(0, b'{"bakthat"'),
    "header is deep": text(0, b"[" * 100_000 + b"]" * 100_000),
    "segment not JSON": text(1, b"\0" * 100),
    "segment empty": text(1, b""),
    "segment unpacks to a lot": text(1, b" " * (64 * MIB)),
    "numbers without end": text(1, b'{"segment":' + b"9" * 10_000 + b"}\n"),
    "footer elsewhere": lambda raw: setattr(raw, "footer_at", 0),
    "footer behind the end": lambda raw: setattr(raw, "footer_at", 2**60),
}


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    tree = tmp_path / "mydir"
    (tree / "etc").mkdir(parents=True)
    for name in ("etc/hosts", "etc/hosts.bak", "z"):
        (tree / name).write_text(name)
    noise = random.Random(1)
    for number in range(4):
        (tree / f"large{number}").write_bytes(noise.randbytes(MIB // 2))
    os.link(tree / "etc/hosts", tree / "linked")
    (tree / "link").symlink_to("z")
    return tree


@pytest.mark.parametrize("what", rest_slow(HOSTILE, 10))
@pytest.mark.parametrize("is_encrypted", rest_slow([False, True]))
def test_every_command_is_right_or_refuses(
    what: str,
    is_encrypted: bool,
    tree: Path,
    local: Conf,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    conf = local
    if is_encrypted:
        (tmp_path / "key.txt").write_text(IDENTITY)
        conf = {**local, "recipients": [RECIPIENT], "identity_file": str(tmp_path / "key.txt")}
    name = bakthat.backup(tree, conf=conf, password=None if is_encrypted else "").stored_filename
    data = index_by_reading(conf, name)
    raw = RawIndex.parse(data)
    HOSTILE[what](raw)
    _store(conf, name, raw.packed(), is_encrypted=is_encrypted)
    wanted = {
        (): fingerprint(tree),
        ("etc/hosts",): {b"etc/hosts": fingerprint(tree)[b"etc/hosts"][:7]},
        ("z", "*.bak"): {path: fingerprint(tree)[path][:7] for path in (b"z", b"etc/hosts.bak")},
        ("linked",): {b"linked": fingerprint(tree)[b"linked"][:7]},
    }
    for number, (only, expected) in enumerate(wanted.items()):
        forget_cache()
        out = tmp_path / f"out{number}"
        try:
            bakthat.restore(name, conf=conf, output=out, only=only)
        except BakthatError as exc:
            _check_message(exc)
            assert not out.exists()
        else:
            found = fingerprint(out / "mydir")
            if only:
                files = {p: state[:7] for p, state in found.items() if state[0][0] != "d"}
                assert files == expected
            else:
                assert found == expected
        assert os.listdir(tmp_path).count("hosts") == 0
    for command in (
        lambda: [entry.path for entry in bakthat.contents(name, conf=conf)],
        lambda: [entry.path for entry in bakthat.contents(name, "etc/hosts", conf=conf)],
        lambda: _read(name, conf),
        lambda: list(bakthat.diff(name, conf=conf)),
        lambda: list(bakthat.find("hosts", conf=conf)),
    ):
        forget_cache()
        try:
            result = command()
        except BakthatError as exc:
            _check_message(exc)
        else:
            if isinstance(result, bytes):
                assert result == b"etc/hosts"
    with caplog.at_level(logging.INFO, "bakthat"):
        bakthat.restore(name, conf=conf, output=tmp_path / "whole", use_index=False)
    assert fingerprint(tmp_path / "whole/mydir") == wanted[()]


def test_an_index_without_a_change_is_used(
    tree: Path, local: Conf, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    name = bakthat.backup(tree, conf=local, password="").stored_filename
    raw = RawIndex.parse(index_by_reading(local, name))
    _store(local, name, raw.packed(), is_encrypted=False)
    with caplog.at_level(logging.INFO, "bakthat"):
        bakthat.restore(name, conf=local, output=tmp_path / "out", only=["etc/hosts"])
        bakthat.restore(name, conf=local, output=tmp_path / "all")
    assert "Reading 2.0 KB of 2.1 MB" in caplog.text
    assert not [each for each in caplog.records if each.levelname == "WARNING"]
    assert fingerprint(tmp_path / "all/mydir") == fingerprint(tree)


def _read(name: str, conf: Conf) -> bytes:
    with bakthat.open_file(name, "etc/hosts", conf=conf) as opened:
        return opened.read()


def _check_message(error: BakthatError) -> None:
    assert "\n" not in str(error)
    assert len(str(error)) < 500
    assert "internal" not in str(error)


def _store(conf: Conf, name: str, index: bytes, *, is_encrypted: bool) -> None:
    if is_encrypted:
        sink = Pieces()
        with EncryptWriter(sink, recipients=[RECIPIENT]) as writer:
            writer.write(index)
        index = sink.getvalue()
    index_path(conf, name).write_bytes(index)
    with sqlite3.connect(conf["database"]) as catalog:
        catalog.execute(
            "UPDATE backups SET metadata = json_set(metadata, '$.index', 1, '$.index_size', ?) "
            "WHERE stored_filename = ?",
            (len(index), name),
        )
    catalog.close()
    forget_cache()
