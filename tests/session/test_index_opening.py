"""Open the index of a backup: from the cache, from the storage, or by reading the archive."""

from __future__ import annotations

import os
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest

import bakthat
from bakthat.archive.index.reader import IndexReader
from bakthat.backends import LocalBackend
from bakthat.crypto import age
from bakthat.errors import (
    CorruptArchiveError,
    CorruptIndexError,
    CryptoError,
    NotReadyError,
    StorageError,
)
from bakthat.helper import KeyValue
from bakthat.models import Backups
from bakthat.session.indexes import cache, opening
from bakthat.session.indexes.cache import IndexCache
from bakthat.session.indexes.opening import open_index
from bakthat.session.reading import KeyFinder
from bakthat.session.session import Session
from tests.support.indexes import forget_cache, lose_indexes
from tests.support.profiles import Conf

IDENTITY = age.generate_identity()
KEYS: dict[str, dict[str, Any]] = {
    "plain": {"password": ""},
    "password": {"password": "secret"},
    "recipients": {"recipients": [age.recipient_of(IDENTITY)]},
}


class Made:
    """A backup with an index on the storage, and none in the cache."""

    def __init__(self, conf: Conf, backup: Backups) -> None:
        self.conf = conf
        self.backup = backup
        self.session = Session("default", None, conf)
        self.file = Path(conf["local_path"], f"{backup.stored_filename}.index")

    def open(
        self, *, whole: bool = True, **options: Any
    ) -> AbstractContextManager[IndexReader | None]:
        keys = KeyFinder(self.session, "secret", prompt=False)
        return open_index(self.session, self.backup, keys, whole=whole, **options)

    def paths(self, *, whole: bool = True, **options: Any) -> list[str] | None:
        with self.open(whole=whole, **options) as index:
            return None if index is None else [each.path for each in index.entries()]

    def is_cached(self) -> bool:
        found = IndexCache().open(self.backup)
        if found is not None:
            found.close()
        return found is not None


EXPECTED = ["mydir", "mydir/a.txt"]


@pytest.fixture(params=KEYS)
def made(
    request: pytest.FixtureRequest,
    local: Conf,
    tree: Path,
    tmp_path: Path,
    cheap_passphrases: None,
    caplog: pytest.LogCaptureFixture,
) -> Made:
    (tmp_path / "id").write_text(IDENTITY)
    conf = {**local, "identity_file": str(tmp_path / "id")}
    backup = bakthat.backup(tree, conf=conf, **KEYS[request.param])
    bakthat.sync(conf=conf, indexes=True, password="secret")
    forget_cache()
    caplog.clear()
    caplog.set_level("INFO", "bakthat")
    return Made(conf, backup)


@pytest.fixture
def read_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fetch no index whole, however small."""
    monkeypatch.setattr(opening, "WHOLE_BYTES", -1)


@pytest.mark.parametrize("whole", [True, False])
def test_a_small_index_is_fetched_once_and_kept(made: Made, whole: bool) -> None:
    assert made.paths(whole=whole) == EXPECTED
    assert made.is_cached()
    made.file.unlink()
    assert made.paths(whole=whole) == EXPECTED


@pytest.mark.usefixtures("read_in_parts")
def test_of_a_large_one_only_the_parts_are_read(made: Made) -> None:
    assert made.paths(whole=False) == EXPECTED
    assert not made.is_cached()


def test_one_that_is_larger_than_the_cache_is_never_fetched_whole(
    made: Made, monkeypatch: pytest.MonkeyPatch, read_in_parts: None
) -> None:
    monkeypatch.setattr(cache, "MAX_BYTES", 50)
    assert made.paths(whole=True) == EXPECTED
    assert not made.is_cached()


def test_a_missing_one_is_said_and_made_by_reading_the_archive(
    made: Made, caplog: pytest.LogCaptureFixture
) -> None:
    name = made.backup.stored_filename
    lose_indexes(made.conf, name)
    assert made.paths(may_read_archive=False) is None
    line = f"{name} has no index, so all of it is read; bakthat sync --indexes makes one"
    assert [each.getMessage() for each in caplog.records] == [line]
    caplog.clear()
    assert made.paths(may_read_archive=False, is_quiet=True) is None
    assert caplog.text == ""
    done: list[tuple[int, int]] = []
    assert made.paths(progress=lambda *each: done.append(each)) == EXPECTED
    assert done[-1] == (made.backup.size, made.backup.size)
    assert [each.getMessage() for each in caplog.records] == [line]
    assert made.is_cached()
    assert not made.file.exists()


@pytest.mark.parametrize("damage", ["truncated", "altered", "empty"])
@pytest.mark.parametrize("whole", [True, False])
def test_a_damaged_one_is_a_warning_and_then_as_if_there_were_none(
    made: Made,
    whole: bool,
    damage: str,
    caplog: pytest.LogCaptureFixture,
    read_in_parts: None,
) -> None:
    good = made.file.read_bytes()
    altered = good[:-30] + bytes([good[-30] ^ 1]) + good[-29:]
    bad = {"truncated": good[:-9], "altered": altered, "empty": b""}[damage]
    made.file.write_bytes(bad)
    assert made.paths(whole=whole, may_read_archive=False) is None
    (warning,) = (each.getMessage() for each in caplog.records)
    assert warning.startswith(f"the index of {made.backup.stored_filename} cannot be used: ")
    assert warning.endswith("; bakthat sync --indexes makes it again")
    assert not made.is_cached()
    assert made.paths(whole=whole) == EXPECTED


def test_one_of_another_archive_is_not_used(
    made: Made, tree: Path, caplog: pytest.LogCaptureFixture
) -> None:
    keys: dict[str, Any] = {"password": ""}
    if made.backup.is_encrypted:
        keys = {"recipients": [age.recipient_of(IDENTITY)]}
        if made.backup.metadata["encryption"] == "passphrase":
            keys = {"password": "secret"}
    other = bakthat.backup(tree, conf=made.conf, custom_filename="other", **keys)
    bakthat.sync(conf=made.conf, indexes=True, password="secret")
    made.file.write_bytes((made.file.parent / f"{other.stored_filename}.index").read_bytes())
    forget_cache()
    caplog.clear()
    assert made.paths() == EXPECTED
    assert f"it is of {other.stored_filename}, not of {made.backup.stored_filename}" in caplog.text


def test_one_that_was_replaced_by_a_longer_object_is_not_fetched_to_its_end(
    made: Made, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Whoever may write to the storage must not fill the disk of whoever reads an index."""
    size = made.file.stat().st_size
    made.file.write_bytes(bytes(5_000_000))
    monkeypatch.setattr(opening._StoredIndex, "stat_size", lambda _: size)
    assert made.paths(whole=True, may_read_archive=False) is None
    assert made.backup.is_encrypted or "longer than it was" in caplog.text
    assert not made.is_cached()


def test_one_that_was_made_again_elsewhere_is_used(
    made: Made, caplog: pytest.LogCaptureFixture, read_in_parts: None
) -> None:
    for size in (made.file.stat().st_size + 7, made.file.stat().st_size - 7):
        made.backup.metadata["index_size"] = size
        assert made.paths(whole=False) == EXPECTED
    assert "WARNING" not in caplog.text


def test_damage_that_shows_later_is_an_error_and_empties_the_cache(made: Made) -> None:
    def read_on() -> None:
        with made.open() as index:
            assert index is not None
            assert made.is_cached()
            raise CorruptIndexError("the paths in the index are not in order")

    with pytest.raises(CorruptIndexError) as caught:
        read_on()
    assert caught.value.hint == "bakthat sync --indexes makes it again"
    assert not made.is_cached()


def test_in_the_cache_damage_is_as_if_it_were_not_there(made: Made) -> None:
    IndexCache().keep(made.backup, lambda sink: sink.write(b"nonsense")).close()
    assert made.paths() == EXPECTED


def test_one_in_cold_storage_is_as_if_there_were_none(
    made: Made, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    download = LocalBackend.download

    def frozen(self: LocalBackend, key: str, **span: Any) -> Any:
        if key.endswith(".index"):
            raise NotReadyError("it is frozen")
        return download(self, key, **span)

    monkeypatch.setattr(LocalBackend, "download", frozen)
    assert made.paths() == EXPECTED
    assert "is in cold storage, where a rule of the bucket moved it" in caplog.text


def test_another_failure_of_the_storage_is_an_error(
    made: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise StorageError("the storage failed")

    monkeypatch.setattr(LocalBackend, "download", fail)
    with pytest.raises(StorageError, match="the storage failed"):
        made.paths()


def test_a_damaged_archive_gives_no_index(made: Made) -> None:
    lose_indexes(made.conf, made.backup.stored_filename)
    os.truncate(made.file.with_suffix(""), made.backup.size - 10)
    with pytest.raises((CorruptArchiveError, CryptoError)):
        made.paths()
    assert not made.is_cached()


def test_a_value_has_none(local: Conf) -> None:
    KeyValue(conf=local).set_key("mykey", "value")
    session = Session("default", None, local)
    (backup,) = bakthat.ls(conf=local)
    with open_index(session, backup, KeyFinder(session), whole=True) as index:
        assert index is None
