"""Looking into increments: what is listed, compared and read is the state, not the archive."""

from __future__ import annotations

import io
import os
import random
from pathlib import Path
from typing import Any

import pytest

import bakthat
from bakthat.backends.local.backend import LocalBackend
from bakthat.errors import NoMatchError, NotFoundError, StorageError
from bakthat.operations.browse.open_file import cat
from tests.support.commandline import CommandLine
from tests.support.increments import Chain
from tests.support.indexes import forget_cache, lose_indexes
from tests.support.profiles import Conf, write_config

MIB = 1024 * 1024


@pytest.fixture
def chain(local: Conf, tmp_path: Path) -> Chain:
    """Store a tree and two increments of it."""
    tree = tmp_path / "mydir"
    (tree / "d").mkdir(parents=True)
    (tree / "d/a").write_text("a")
    (tree / "d/b").write_text("b")
    (tree / "d/gone").write_text("gone")
    (tree / "large").write_bytes(random.Random(1).randbytes(3 * MIB))
    chain = Chain(tree, local)
    chain.full()
    (tree / "d/b").write_text("changed")
    os.link(tree / "d/a", tree / "link")
    chain.increment()
    (tree / "d/gone").unlink()
    (tree / "d/new").write_text("new")
    chain.increment(stale=["mydir/d/b"])
    return chain


@pytest.fixture(params=[True, False])
def is_cached(request: pytest.FixtureRequest, chain: Chain) -> bool:
    """Look both at indexes in the cache of this machine and at those on the storage."""
    if not request.param:
        forget_cache()
    return bool(request.param)


def paths(chain: Chain, number: int, *patterns: str) -> list[str]:
    name = chain.names[number]
    return [each.path for each in bakthat.contents(name, patterns, conf=chain.conf)]


@pytest.mark.usefixtures("is_cached")
def test_contents_are_those_of_the_state(chain: Chain) -> None:
    full = ["mydir", "mydir/d", "mydir/d/a", "mydir/d/b", "mydir/d/gone", "mydir/large"]
    assert paths(chain, 0) == full
    assert paths(chain, 1) == [*full, "mydir/link"]
    newest = ["mydir", "mydir/d", "mydir/d/a", "mydir/d/b", "mydir/d/new", "mydir/large"]
    assert paths(chain, 2) == [*newest, "mydir/link"]
    assert paths(chain, 2, "d") == newest[1:5]
    assert paths(chain, 2, "n*") == ["mydir/d/new"]
    with pytest.raises(NoMatchError):
        paths(chain, 2, "d/gone")


def test_only_a_stale_entry_says_that_it_is(chain: Chain, user: CommandLine) -> None:
    found = {each.path: each.as_dict() for each in bakthat.contents("mydir", conf=chain.conf)}
    assert found["mydir/d/b"]["stale"] is True
    assert [path for path, each in found.items() if "stale" in each] == ["mydir/d/b"]
    write_config(user.home / ".bakthat.yml", default=chain.conf)
    done = user.run("contents", "mydir", "--json")
    assert done.stdout.count('"stale"') == 1


@pytest.mark.usefixtures("is_cached")
def test_increments_are_compared_by_their_states(chain: Chain) -> None:
    changes = bakthat.diff(chain.names[0], chain.names[2], conf=chain.conf)
    assert {each.path: each.kind.value for each in changes} == {
        "mydir": "changed",
        "mydir/d": "changed",
        "mydir/d/b": "changed",
        "mydir/d/gone": "removed",
        "mydir/d/new": "added",
        "mydir/link": "added",
    }
    assert list(bakthat.diff(chain.names[2], conf=chain.conf, read_files=True)) == []
    (chain.tree / "d/a").write_text("after the backup")
    found = {each.path for each in bakthat.diff("mydir", conf=chain.conf, read_files=True)}
    assert found == {"mydir/d/a", "mydir/link"}


@pytest.mark.usefixtures("is_cached")
def test_a_search_finds_what_the_states_have(chain: Chain) -> None:
    def backups(pattern: str) -> list[list[int]]:
        found = bakthat.find(pattern, conf=chain.conf)
        assert found.is_complete
        assert found.searched == 3
        return [
            [chain.names.index(each.stored_filename) for each in match.backups] for match in found
        ]

    assert backups("large") == [[2, 1, 0]]
    assert backups("gone") == [[1, 0]]
    assert backups("new") == [[2]]
    assert backups("d/b") == [[2, 1], [0]]
    (match,) = bakthat.find("link", conf=chain.conf)
    assert match.entry.size == 1  # that of the file in the full, of which it is another name


def test_a_search_goes_on_without_a_needed_archive_that_is_not_known(chain: Chain) -> None:
    lose_indexes(chain.conf, chain.names[1])
    found = bakthat.find("large", conf=chain.conf)
    assert [len(each.backups) for each in found] == [1]
    assert {each.backup.stored_filename for each in found.unsearched} == set(chain.names[1:])


@pytest.mark.usefixtures("is_cached")
@pytest.mark.parametrize(
    ("path", "content"),
    [("d/a", b"a"), ("d/b", b"changed"), ("d/new", b"new"), ("link", b"a"), ("n?w", b"new")],
)
def test_a_file_is_read_from_the_archive_that_has_its_content(
    path: str, content: bytes, chain: Chain
) -> None:
    output = io.BytesIO()
    cat("mydir", path, output, conf=chain.conf)
    assert output.getvalue() == content
    with bakthat.open_file("mydir", path, conf=chain.conf) as stream:
        assert stream.read() == content
        stream.seek(1)
        assert stream.read() == content[1:]


def test_a_link_at_the_front_of_its_archive_has_the_content_from_the_end_of_another(
    chain: Chain,
) -> None:
    os.link(chain.tree / "large", chain.tree / "a link")
    chain.increment()
    output = io.BytesIO()
    cat("mydir", "a link", output, conf=chain.conf)
    assert output.getvalue() == (chain.tree / "large").read_bytes()


def test_only_that_archive_is_read(chain: Chain, monkeypatch: pytest.MonkeyPatch) -> None:
    keys: list[str] = []
    real = LocalBackend.download

    def download(self: LocalBackend, key: str, **options: Any) -> Any:
        keys.append(key)
        return real(self, key, **options)

    monkeypatch.setattr(LocalBackend, "download", download)
    cat("mydir", "large", io.BytesIO(), conf=chain.conf)
    assert set(keys) == {chain.names[0]}


def test_reading_a_file_of_an_archive_that_is_gone_names_that_archive(chain: Chain) -> None:
    Path(chain.conf["local_path"], chain.names[0]).unlink()
    with pytest.raises(NotFoundError, match=chain.names[0]):
        cat("mydir", "large", io.BytesIO(), conf=chain.conf)
    output = io.BytesIO()
    cat("mydir", "d/new", output, conf=chain.conf)
    assert output.getvalue() == b"new"


@pytest.mark.usefixtures("cheap_passphrases")
def test_one_password_opens_all_archives(local: Conf, tmp_path: Path) -> None:
    tree = tmp_path / "mydir"
    tree.mkdir()
    (tree / "old").write_text("old")
    chain = Chain(tree, local, "secret")
    chain.full()
    (tree / "new").write_text("new")
    chain.increment()
    forget_cache()
    for name in ("old", "new"):
        output = io.BytesIO()
        cat("mydir", name, output, conf=local, password="secret")
        assert output.getvalue() == name.encode()


def test_a_truncated_archive_is_an_error(chain: Chain) -> None:
    path = Path(chain.conf["local_path"], chain.names[0])
    os.truncate(path, path.stat().st_size - 1)
    with pytest.raises(StorageError, match=f"{chain.names[0]} has fewer than"):
        cat("mydir", "large", io.BytesIO(), conf=chain.conf)
