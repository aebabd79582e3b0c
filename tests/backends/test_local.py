"""The local backend: the files in its directory, and a disk that fails."""

from __future__ import annotations

import errno
import json
import os
import socket
import stat
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bakthat.backends import make_backend
from bakthat.backends.local import files
from bakthat.backends.local.backend import LocalBackend
from bakthat.backends.local.files import SIDECAR_SUFFIX, FileRange
from bakthat.errors import (
    ContainerNotFoundError,
    KeyExistsError,
    NotFoundError,
    StorageError,
    UsageError,
)
from bakthat.system import disks
from tests.support.needs import as_root

pytestmark = pytest.mark.permissions

Call = Callable[..., Any]


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return tmp_path / "deep" / "store"


@pytest.fixture
def backend(store: Path) -> LocalBackend:
    backend = LocalBackend({"local_path": str(store)})
    backend.create_container()
    return backend


def put(backend: LocalBackend, key: str, data: bytes, **options: Any) -> None:
    upload = backend.upload(key, metadata={"of": key}, **options)
    try:
        upload.write(data)
        upload.commit()
    finally:
        upload.abort()


def everything(store: Path) -> list[str]:
    return sorted(str(path.relative_to(store)) for path in store.rglob("*"))


def failing(error: int, call: Call, *, on_call: int = 1) -> Call:
    """Return *call* as it behaves on a disk that fails with *error* at the given call."""
    calls = iter(range(1, 1_000_000))

    def fail(*args: Any, **options: Any) -> Any:
        if next(calls) == on_call:
            raise OSError(error, os.strerror(error))
        return call(*args, **options)

    return fail


def test_the_default_container_is_in_the_home_directory(isolated_environment: Path) -> None:
    backend = make_backend("local", {})
    assert backend.container == str(isolated_environment / ".bakthat_store")
    assert backend.name == "local"
    assert not os.path.exists(backend.container)


def test_the_error_for_an_unknown_destination_lists_the_known_ones() -> None:
    with pytest.raises(UsageError, match="'ftp'") as caught:
        make_backend("ftp", {})
    assert "s3" in caught.value.hint
    assert "local" in caught.value.hint


def test_an_object_is_a_plain_file_with_its_description_in_a_second_file(
    backend: LocalBackend, store: Path
) -> None:
    put(backend, "host/set.tgz", b"data")
    assert everything(store) == ["host", "host/set.tgz", "host/set.tgz.bakthat.json"]
    assert (store / "host/set.tgz").read_bytes() == b"data"
    assert json.loads((store / "host/set.tgz.bakthat.json").read_text()) == {"of": "host/set.tgz"}
    assert [found.metadata for found in backend.ls()] == [{"of": "host/set.tgz"}]


def test_only_the_owner_may_read_stored_files(backend: LocalBackend, store: Path) -> None:
    put(backend, "host/set.tgz", b"data")
    for path in (store.parent, store, store / "host"):
        assert stat.S_IMODE(path.stat().st_mode) == 0o700
    for path in (store / "host/set.tgz", store / "host/set.tgz.bakthat.json"):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_writer_that_was_killed_leaves_only_a_recognisable_file(
    backend: LocalBackend, store: Path
) -> None:
    upload = backend.upload("set.tgz", metadata={})
    upload.write(b"data")
    (name,) = everything(store)
    assert name.startswith(".bakthat-")
    assert name.endswith(".tmp")
    assert stat.S_IMODE((store / name).stat().st_mode) == 0o600
    assert list(backend.ls()) == []
    upload.abort()


def test_the_claim_of_a_killed_writer_blocks_the_key_until_it_is_deleted(
    backend: LocalBackend, store: Path
) -> None:
    (store / ("set.tgz" + SIDECAR_SUFFIX)).write_text('{"of": "a dead')
    assert list(backend.ls()) == []
    with pytest.raises(NotFoundError):
        backend.stat("set.tgz")
    with pytest.raises(KeyExistsError):
        backend.upload("set.tgz", metadata={})
    backend.delete("set.tgz")
    put(backend, "set.tgz", b"data")
    assert backend.stat("set.tgz").metadata == {"of": "set.tgz"}


def test_a_file_that_someone_else_put_there_is_an_object_without_self_description(
    backend: LocalBackend, store: Path
) -> None:
    (store / "foreign.tgz").write_bytes(b"theirs")
    (found,) = backend.ls()
    assert (found.key, found.size, found.metadata) == ("foreign.tgz", 6, {})
    with pytest.raises(KeyExistsError):
        backend.upload("foreign.tgz", metadata={})
    with backend.download("foreign.tgz") as source:
        assert source.read() == b"theirs"


def test_a_foreign_file_that_appears_during_the_upload_is_left_as_it_is(
    backend: LocalBackend, store: Path
) -> None:
    upload = backend.upload("set.tgz", metadata={})
    upload.write(b"ours")
    (store / "set.tgz").write_bytes(b"theirs")
    with pytest.raises(KeyExistsError):
        upload.commit()
    assert everything(store) == ["set.tgz"]
    assert (store / "set.tgz").read_bytes() == b"theirs"


def test_a_foreign_file_that_appears_after_the_claim_is_left_as_it_is(
    backend: LocalBackend, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    link = os.link

    def too_late(source: str, target: str, **options: Any) -> None:
        Path(target).write_bytes(b"theirs")
        link(source, target, **options)

    monkeypatch.setattr(os, "link", too_late)
    upload = backend.upload("set.tgz", metadata={})
    upload.write(b"ours")
    with pytest.raises(KeyExistsError):
        upload.commit()
    assert everything(store) == ["set.tgz"]
    assert (store / "set.tgz").read_bytes() == b"theirs"


def test_the_claim_of_a_writer_at_work_is_never_removed(
    backend: LocalBackend, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    link = os.link
    removed: list[bool] = []

    def clean_up_before(source: str, target: str, **options: Any) -> None:
        claims = [each for each in backend.leftovers() if each.kind == "claim"]
        removed.extend(backend.remove_leftover(each) for each in claims)
        link(source, target, **options)

    monkeypatch.setattr(os, "link", clean_up_before)
    put(backend, "set.tgz", b"data")
    assert removed == [False]
    assert backend.stat("set.tgz").metadata == {"of": "set.tgz"}


def test_a_claim_that_a_cleanup_removes_before_it_is_locked_is_made_again(
    backend: LocalBackend, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    create = files.create
    removed: list[bool] = []

    def clean_up_after(path: str) -> int:
        descriptor = create(path)
        if not removed and path.endswith(SIDECAR_SUFFIX):
            claims = [each for each in backend.leftovers() if each.kind == "claim"]
            removed.extend(backend.remove_leftover(each) for each in claims)
        return descriptor

    monkeypatch.setattr(files, "create", clean_up_after)
    put(backend, "set.tgz", b"data")
    assert removed == [True]
    assert backend.stat("set.tgz").metadata == {"of": "set.tgz"}


def test_an_object_that_appears_before_its_claim_is_removed_keeps_it(
    backend: LocalBackend, store: Path
) -> None:
    (store / ("set.tgz" + SIDECAR_SUFFIX)).write_text("{}")
    (claim,) = backend.leftovers()
    (store / "set.tgz").write_bytes(b"data")
    assert not backend.remove_leftover(claim)
    assert everything(store) == ["set.tgz", "set.tgz" + SIDECAR_SUFFIX]


@as_root
def test_an_immutable_object_says_how_to_delete_it(backend: LocalBackend, store: Path) -> None:
    put(backend, "set.tgz", b"data")
    if subprocess.run(["chattr", "+i", store / "set.tgz"], capture_output=True).returncode:
        pytest.skip("the file system has no immutable files")
    try:
        with pytest.raises(StorageError, match="operation not permitted") as caught:
            backend.delete("set.tgz")
    finally:
        subprocess.run(["chattr", "-i", store / "set.tgz"], check=True)
    assert "chattr -i" in caught.value.hint
    backend.delete("set.tgz")


@pytest.mark.parametrize("error", sorted(disks.HINTS), ids=errno.errorcode.get)
def test_each_error_of_a_disk_has_a_hint(
    backend: LocalBackend, error: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "fsync", failing(error, os.fsync))
    with pytest.raises(StorageError) as caught:
        put(backend, "set.tgz", b"data")
    assert caught.value.hint


@pytest.mark.parametrize("damage", [b"", b"{", b"[1]", b"\xff\xfe", b"[" * 50_000, None])
def test_a_damaged_self_description_does_not_hide_the_object(
    backend: LocalBackend, store: Path, damage: bytes | None
) -> None:
    put(backend, "set.tgz", b"data")
    sidecar = store / ("set.tgz" + SIDECAR_SUFFIX)
    sidecar.unlink()
    if damage is None:
        sidecar.mkdir()
    else:
        sidecar.write_bytes(damage)
    assert backend.stat("set.tgz").metadata == {}
    assert [found.key for found in backend.ls()] == ["set.tgz"]


def test_only_regular_files_are_objects_and_links_are_not_followed(
    backend: LocalBackend, store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "secret.tgz").write_bytes(b"secret")
    (store / "link.tgz").symlink_to(outside / "secret.tgz")
    (store / "dir").symlink_to(outside)
    os.mkfifo(store / "fifo.tgz")
    with socket.socket(socket.AF_UNIX) as listener:
        # By its name alone: the path of a socket has at most 107 bytes.
        monkeypatch.chdir(store)
        listener.bind("socket.tgz")
    put(backend, "set.tgz", b"data")
    assert [found.key for found in backend.ls()] == ["set.tgz"]
    for key in ("link.tgz", "fifo.tgz", "socket.tgz"):
        with pytest.raises(NotFoundError):
            backend.download(key)
        with pytest.raises(StorageError, match="not a regular file"):
            backend.delete(key)
        with pytest.raises(KeyExistsError):
            backend.upload(key, metadata={})
    for refused in (backend.stat, backend.download, backend.delete):
        with pytest.raises(StorageError, match="not a directory"):
            refused("dir/secret.tgz")
    with pytest.raises(StorageError, match="not a directory"):
        backend.upload("dir/new.tgz", metadata={})
    assert everything(outside) == ["secret.tgz"]


def test_a_key_cannot_pass_through_another_object(backend: LocalBackend) -> None:
    put(backend, "set", b"data")
    with pytest.raises(StorageError, match="not a directory"):
        backend.upload("set/below.tgz", metadata={})
    with pytest.raises(StorageError, match="not a directory"):
        backend.stat("set/below.tgz")


def test_a_file_whose_name_cannot_be_a_key_is_left_out_of_listings(
    backend: LocalBackend, store: Path
) -> None:
    Path(os.fsdecode(os.fsencode(store) + b"/\xff.tgz")).write_bytes(b"x")
    put(backend, "set.tgz", b"data")
    assert [found.key for found in backend.ls()] == ["set.tgz"]


@pytest.mark.parametrize("key", ["a.bakthat.json", "below/a.bakthat.json", ".bakthat-0.tmp"])
def test_the_names_of_private_files_are_no_keys(backend: LocalBackend, key: str) -> None:
    with pytest.raises(UsageError, match="reserves such names"):
        backend.upload(key, metadata={})


def test_the_longest_name_fits_and_a_longer_one_is_refused_before_writing(
    backend: LocalBackend, store: Path
) -> None:
    longest = "é" * ((255 - len(SIDECAR_SUFFIX)) // 2)
    put(backend, longest, b"data")
    assert backend.stat(longest).size == 4
    before = everything(store)
    for key in (longest + "é", "x" * 256, "d" * 256 + "/set.tgz"):
        with pytest.raises(UsageError, match="too long"):
            backend.upload(key, metadata={})
    assert everything(store) == before


def test_a_path_that_is_too_long_is_a_storage_error(backend: LocalBackend) -> None:
    with pytest.raises(StorageError, match="too long"):
        backend.upload("/".join(["d" * 200] * 30), metadata={})
    assert list(backend.ls()) == []


@pytest.mark.parametrize(
    ("call", "error"),
    [
        ("write", errno.ENOSPC),
        ("write", errno.EIO),
        ("write", errno.EDQUOT),
        ("fsync", errno.EIO),
        ("open", errno.EROFS),
        ("open", errno.EACCES),
        ("mkdir", errno.ENOSPC),
    ],
)
def test_a_disk_that_fails_is_named_and_nothing_stays(
    backend: LocalBackend,
    store: Path,
    monkeypatch: pytest.MonkeyPatch,
    call: str,
    error: int,
) -> None:
    monkeypatch.setattr(os, call, failing(error, getattr(os, call)))
    with pytest.raises(StorageError, match=f"(?i){os.strerror(error)}") as caught:
        put(backend, "host/set.tgz", b"data" * 1000)
    monkeypatch.undo()
    assert str(store) in str(caught.value)
    assert caught.value.hint
    assert everything(store) == []


@pytest.mark.parametrize("on_call", range(1, 6))
@pytest.mark.parametrize("replace", [False, True])
def test_a_sync_that_fails_at_any_step_publishes_nothing_new(
    backend: LocalBackend,
    store: Path,
    monkeypatch: pytest.MonkeyPatch,
    on_call: int,
    replace: bool,
) -> None:
    # The file, its self-description, and two directories; a fifth sync there is not.
    monkeypatch.setattr(os, "fsync", failing(errno.EIO, os.fsync, on_call=on_call))
    if on_call == 5:
        put(backend, "host/set.tgz", b"data", replace=replace)
        assert backend.stat("host/set.tgz").size == 4
        return
    with pytest.raises(StorageError, match="input/output error"):
        put(backend, "host/set.tgz", b"data", replace=replace)
    monkeypatch.undo()
    if not replace:
        assert everything(store) == []
    assert not [name for name in everything(store) if name.endswith(".tmp")]


@pytest.mark.parametrize(
    "error", [errno.EPERM, errno.EINVAL, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK]
)
def test_a_file_system_without_hard_links_works_too(
    backend: LocalBackend, store: Path, monkeypatch: pytest.MonkeyPatch, error: int
) -> None:
    def no_links(*_: Any, **__: Any) -> None:
        raise OSError(error, os.strerror(error))

    monkeypatch.setattr(os, "link", no_links)
    put(backend, "set.tgz", b"first")
    with pytest.raises(KeyExistsError):
        backend.upload("set.tgz", metadata={})
    upload = backend.upload("other.tgz", metadata={})
    (store / "other.tgz").write_bytes(b"theirs")
    with pytest.raises(KeyExistsError):
        upload.commit()
    assert everything(store) == ["other.tgz", "set.tgz", "set.tgz.bakthat.json"]
    assert (store / "other.tgz").read_bytes() == b"theirs"


def test_a_link_whose_answer_was_lost_is_recognised(
    backend: LocalBackend, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    link = os.link

    def link_twice(source: str, target: str, **options: Any) -> None:
        link(source, target, **options)
        link(source, target, **options)

    monkeypatch.setattr(os, "link", link_twice)
    put(backend, "set.tgz", b"data")
    assert everything(store) == ["set.tgz", "set.tgz.bakthat.json"]


def test_a_directory_that_another_writer_removes_is_created_again(
    backend: LocalBackend, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mkdir = os.mkdir
    taken_away = iter([True, False])

    def mkdir_and_lose(path: str, mode: int) -> None:
        mkdir(path, mode)
        if next(taken_away):
            os.rmdir(path)

    monkeypatch.setattr(os, "mkdir", mkdir_and_lose)
    put(backend, "host/set.tgz", b"data")
    assert backend.stat("host/set.tgz").size == 4


def test_a_container_that_vanishes_is_not_created_again(backend: LocalBackend, store: Path) -> None:
    # Otherwise a backup would go below the mount point of a disk that is not mounted.
    os.rmdir(store)
    with pytest.raises(ContainerNotFoundError):
        backend.upload("host/set.tgz", metadata={})
    assert not store.exists()


def test_a_file_that_is_cut_while_it_is_read_is_an_error(
    backend: LocalBackend, store: Path
) -> None:
    put(backend, "set.tgz", bytes(1_000_000))
    with backend.download("set.tgz") as source:
        source.read(10)
        os.truncate(store / "set.tgz", 300_000)
        with pytest.raises(StorageError, match="was truncated"):
            source.read()


def test_a_file_that_another_program_writes_to_is_not_stored(
    backend: LocalBackend, store: Path
) -> None:
    upload = backend.upload("set.tgz", metadata={})
    upload.write(b"data")
    (temporary,) = (each for each in store.iterdir() if each.name.startswith(".bakthat-"))
    with temporary.open("ab") as file:
        file.write(b"more")
    with pytest.raises(StorageError, match="holds 8 bytes instead of 4"):
        upload.commit()
    assert everything(store) == []


def test_a_file_that_becomes_a_fifo_before_it_is_opened_is_no_object(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "set.tgz")
    descriptor = os.open(tmp_path / "set.tgz", os.O_RDONLY | os.O_NONBLOCK)
    with pytest.raises(NotFoundError, match="is not a regular file any more"):
        FileRange(descriptor, str(tmp_path / "set.tgz"), 0, None)
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(descriptor)


def test_a_read_that_fails_is_an_error_that_names_the_file(
    backend: LocalBackend, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(backend, "set.tgz", b"data")
    monkeypatch.setattr(os, "preadv", failing(errno.EIO, os.preadv))
    with (
        backend.download("set.tgz") as source,
        pytest.raises(StorageError, match=r"set\.tgz: input/output error"),
    ):
        source.read()


def test_deleting_many_keys_waits_for_the_disk_once_per_directory(
    backend: LocalBackend, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = [f"{host}/set{number}.tgz" for host in ("a", "b") for number in range(4)]
    for key in keys:
        put(backend, key, b"data")
    (store / "a" / "set1.tgz").unlink()
    (store / "a" / "set1.tgz").mkdir()
    # The second of the two directories cannot be written down.
    monkeypatch.setattr(os, "fsync", failing(errno.EIO, os.fsync, on_call=2))
    failed = backend.delete_many([*keys, "c/gone.tgz", "../outside"])
    assert [*failed] == ["a/set1.tgz", "../outside", *keys[4:]]
    assert "input/output error" in str(failed[keys[4]])
    monkeypatch.undo()
    assert everything(store) == ["a", "a/set1.tgz", "a/set1.tgz.bakthat.json", "b"]
    assert backend.delete_many(keys[4:]) == {}


@pytest.mark.parametrize("path", ["file", "file/below"])
def test_a_file_where_the_container_should_be_is_named(tmp_path: Path, path: str) -> None:
    (tmp_path / "file").write_text("in the way")
    backend = LocalBackend({"local_path": str(tmp_path / path)})
    with pytest.raises(StorageError, match="file") as caught:
        backend.create_container()
    assert caught.value.hint
    with pytest.raises(ContainerNotFoundError):
        list(backend.ls())


def test_a_directory_that_vanishes_during_a_listing_is_skipped(
    backend: LocalBackend, store: Path
) -> None:
    put(backend, "a/set.tgz", b"1")
    put(backend, "b/set.tgz", b"2")
    listing = backend.ls()
    assert next(listing).key == "a/set.tgz"
    backend.delete("b/set.tgz")
    os.rmdir(store / "b")
    assert list(listing) == []
