"""How little of an archive on S3 is fetched for one file of it, counted at a proxy."""

from __future__ import annotations

import io
import os
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import bakthat
from bakthat.archive.gzip.members import MEMBER_BYTES
from bakthat.crypto import age
from bakthat.operations.browse.open_file import cat
from tests.support.fault_proxy import FaultProxy, fault_proxy
from tests.support.profiles import Conf
from tests.support.servers import S3Server

MIB = 1024 * 1024
LIMIT = 2 * MIB
FILE_BYTES = 10 * 1024
IDENTITY = age.generate_identity()

Encryption = dict[str, Any]


@pytest.fixture
def proxy(rclone_endpoint: S3Server) -> Iterator[FaultProxy]:
    with fault_proxy(rclone_endpoint.endpoint_url) as made:
        yield made


@pytest.fixture(params=["plain", "recipients", "passphrase"])
def conf(request: pytest.FixtureRequest, rclone_conf: Conf, local: Conf, tmp_path: Path) -> Conf:
    """Return a profile that encrypts in each way in turn."""
    conf = {**rclone_conf, "database": local["database"]}
    if request.param == "plain":
        return {**conf, "password": ""}
    if request.param == "passphrase":
        request.getfixturevalue("cheap_passphrases")
        return {**conf, "password": "a passphrase"}
    (tmp_path / "key.txt").write_text(IDENTITY + "\n")
    return {
        **conf,
        "recipients": [age.recipient_of(IDENTITY)],
        "identity_file": str(tmp_path / "key.txt"),
    }


def make_tree(root: Path, size: int) -> None:
    """Fill *root* with *size* bytes of files of 10 KiB that do not compress, and some text."""
    noise = random.Random(size)
    for number in range(size // FILE_BYTES):
        directory = root / f"{number // 500:03}"
        if number % 500 == 0:
            directory.mkdir(parents=True)
            (directory / "text").write_bytes(b"the quick brown fox\n" * 500)
        (directory / f"{number:06}").write_bytes(noise.randbytes(FILE_BYTES))


def crossing(name: str, conf: Conf) -> Iterator[str]:
    """Yield the files whose content crosses the end of a gzip member."""
    for entry in bakthat.contents(name, conf=conf):
        start, end = entry.content_position, entry.content_position + entry.size
        if entry.size == FILE_BYTES and start // MEMBER_BYTES < (end - 1) // MEMBER_BYTES:
            yield entry.path


def check_all_ways(
    name: str, paths: list[str], root: Path, conf: Conf, proxy: FaultProxy, out: Path
) -> None:
    """Read each path as ``cat``, ``open_file`` and ``restore --only`` do, without the cache."""

    def by_cat(path: str) -> bytes:
        output = io.BytesIO()
        cat(name, path, output, conf=behind)
        return output.getvalue()

    def by_open_file(path: str) -> bytes:
        with bakthat.open_file(name, path, conf=behind) as file:
            return file.read()

    def by_restore(path: str) -> bytes:
        bakthat.restore(name, conf=behind, only=path, output=out)
        return (out / path).read_bytes()

    behind = {**conf, "endpoint_url": proxy.endpoint_url}
    ways: list[Callable[[str], bytes]] = [by_cat, by_open_file, by_restore]
    for path in paths:
        for number, way in enumerate(ways):
            with pytest.MonkeyPatch.context() as patch:
                cache = out.parent / f"cache-{number}-{os.path.basename(path)}"
                patch.setenv("XDG_CACHE_HOME", str(cache))
                proxy.answered_bytes = 0
                proxy.requests.clear()
                assert way(path) == (root.parent / path).read_bytes()
                seen = proxy.answered_bytes, [verb for verb, _, _ in proxy.requests]
                assert FILE_BYTES < seen[0] < LIMIT, (way.__name__, path, seen)


@pytest.mark.slow
def test_a_file_of_10_kib_costs_less_than_2_mib(
    conf: Conf, proxy: FaultProxy, tmp_path: Path
) -> None:
    root = tmp_path / "data"
    make_tree(root, 12 * MIB)
    bakthat.backup(root, conf=conf)
    paths = list(crossing("data", conf))
    assert len(paths) > 8
    check_all_ways(
        "data", [paths[7], "data/001/000777", "data/002/text"], root, conf, proxy, tmp_path / "out"
    )


def test_so_it_does_where_only_parts_of_the_index_are_fetched(
    conf: Conf, proxy: FaultProxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bakthat.session.indexes.opening.WHOLE_BYTES", 0)
    root = tmp_path / "data"
    make_tree(root, 6 * MIB)
    bakthat.backup(root, conf=conf)
    (path, *_) = crossing("data", conf)
    check_all_ways("data", [path], root, conf, proxy, tmp_path / "out")


@pytest.mark.heavy
def test_a_file_of_10_kib_out_of_1_gib_costs_less_than_2_mib(
    conf: Conf, proxy: FaultProxy, tmp_path: Path
) -> None:
    root = tmp_path / "data"
    make_tree(root, 1024 * MIB)
    made = bakthat.backup(root, conf=conf)
    assert made.size > 1024 * MIB
    paths = list(crossing("data", conf))
    assert len(paths) > 900
    chosen = [paths[0], paths[500], paths[-1], "data/100/050123"]
    check_all_ways("data", chosen, root, conf, proxy, tmp_path / "out")
