"""The operations, over a local directory and real S3 servers: round trips and failures."""

from __future__ import annotations

import contextlib
import io
import os
import re
import shutil
import sqlite3
import subprocess
import tarfile
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyrage  # type: ignore[import-untyped]  # it comes without types
import pytest

import bakthat
from bakthat import models
from bakthat.archive.create import content as archive_content
from bakthat.crypto import age
from bakthat.errors import (
    AgeFormatError,
    BakthatError,
    CatalogError,
    ConfigError,
    ContainerNotFoundError,
    CorruptArchiveError,
    DecryptionError,
    KeyExistsError,
    KeyFormatError,
    NoMatchError,
    NotFoundError,
    PasswordError,
    SourceError,
    StorageError,
    UsageError,
    WrongKeyError,
)
from tests.support.needs import as_root, program
from tests.support.profiles import Conf
from tests.support.trees import SPARSE_BYTES, fingerprint, make_every_kind

pytestmark = pytest.mark.usefixtures("cheap_passphrases")

IDENTITY = age.generate_identity()
RECIPIENT = age.recipient_of(IDENTITY)


@pytest.fixture
def tree(tree: Path) -> Path:
    (tree / "sub").mkdir()
    (tree / "sub" / "b.txt").write_text("world" * 10_000)
    return tree


def stored_path(conf: Conf, backup: models.Backups) -> Path:
    return Path(conf["local_path"]) / backup.stored_filename


def everything_in(directory: Path) -> list[str]:
    return sorted(str(path.relative_to(directory)) for path in directory.rglob("*"))


ENCRYPTIONS: dict[str, tuple[Conf, Conf, str]] = {
    # arguments to back up with, arguments to restore with, what the name ends with
    "plain": ({"password": ""}, {}, ""),
    "passphrase": ({"password": "pässword"}, {"password": "pässword"}, ".age"),
    "recipients": ({"recipients": [RECIPIENT]}, {"identity_file": "identity.txt"}, ".age"),
}


@pytest.fixture
def in_home(isolated_environment: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(isolated_environment)
    (isolated_environment / "identity.txt").write_text(f"# a comment\n{IDENTITY}\n")
    return isolated_environment


@pytest.mark.permissions
@pytest.mark.parametrize("encryption", ENCRYPTIONS)
@pytest.mark.parametrize("compress", [True, False])
def test_every_kind_of_file_comes_back_as_it_was(
    conf: Conf, compress: bool, encryption: str, in_home: Path, tmp_path: Path, out: Path
) -> None:
    source = make_every_kind(tmp_path / "mydir")
    before = fingerprint(source)
    with_keys, to_open, suffix = ENCRYPTIONS[encryption]
    made = bakthat.backup(source, conf={**conf, "compress": compress}, **with_keys)
    assert made.stored_filename.endswith((".tgz" if compress else ".tar") + suffix)
    assert made.metadata["warning_count"] == 0
    assert fingerprint(source) == before

    restored = bakthat.restore("mydir", conf=conf, output=out, **to_open)
    assert restored is not None
    assert restored.stored_filename == made.stored_filename
    assert fingerprint(out / "mydir") == before
    sparse = (out / "mydir" / "sparse").stat()
    assert sparse.st_blocks * 512 < SPARSE_BYTES / 2


@pytest.mark.parametrize("content", [b"", b"x", os.urandom(70_000)])
@pytest.mark.parametrize("compress", [True, False, 9])
@pytest.mark.parametrize("encryption", ENCRYPTIONS)
def test_a_single_file_comes_back_as_it_was(
    local: Conf, content: bytes, compress: bool | int, encryption: str, in_home: Path, out: Path
) -> None:
    source = in_home / "a file.txt"
    source.write_bytes(content)
    source.chmod(0o640)
    os.utime(source, ns=(1, 1_234_567_890_123_456_789))
    with_keys, to_open, suffix = ENCRYPTIONS[encryption]
    made = bakthat.backup(source, conf={**local, "compress": compress}, **with_keys)
    assert made.stored_filename.endswith((".tgz" if compress else "") + suffix)
    bakthat.restore("a file.txt", conf=local, output=out, **to_open)
    assert everything_in(out) == ["a file.txt"]
    assert fingerprint(out / "a file.txt") == fingerprint(source)


def test_an_empty_directory_comes_back(conf: Conf, tmp_path: Path, out: Path) -> None:
    (tmp_path / "nothing").mkdir()
    bakthat.backup(tmp_path / "nothing", conf=conf, password="")
    bakthat.restore("nothing", conf=conf, output=out)
    assert everything_in(out) == ["nothing"]


@pytest.mark.parametrize("name", ["site.tar.gz", "site.tgz"])
def test_a_tarball_is_stored_as_it_is_and_comes_back_as_that_file(
    local: Conf, name: str, tree: Path, tmp_path: Path, out: Path
) -> None:
    tarball = tmp_path / name
    subprocess.run(["tar", "czf", tarball, "-C", tree, "."], check=True)
    made = bakthat.backup(tarball, conf=local, password="")
    assert made.filename == name
    assert made.stored_filename.startswith("site.2")
    assert made.stored_filename.endswith(".tgz")
    assert stored_path(local, made).read_bytes() == tarball.read_bytes()
    for query in (name, "site", made.stored_filename):
        bakthat.restore(query, conf=local, output=out)
        assert everything_in(out) == [name]
        assert (out / name).read_bytes() == tarball.read_bytes()


@pytest.mark.permissions
def test_gnu_tar_opens_what_was_stored(local: Conf, tmp_path: Path, out: Path) -> None:
    source = make_every_kind(tmp_path / "mydir")
    made = bakthat.backup(source, conf=local, password="")
    out.mkdir()
    subprocess.run(
        ["tar", "xzpf", stored_path(local, made), "-C", out, "--xattrs", "--xattrs-include=*"],
        check=True,
        capture_output=True,
    )
    assert fingerprint(out / "mydir") == fingerprint(source)


@pytest.mark.parametrize("encryption", ["passphrase", "recipients"])
def test_an_independent_age_opens_what_was_stored(local: Conf, encryption: str, tree: Path) -> None:
    made = bakthat.backup(tree, conf=local, **ENCRYPTIONS[encryption][0])
    stored = stored_path(local, made).read_bytes()
    if encryption == "passphrase":
        plain = pyrage.passphrase.decrypt(stored, "pässword")
    else:
        plain = pyrage.decrypt(stored, [pyrage.x25519.Identity.from_str(IDENTITY)])
    with tarfile.open(fileobj=io.BytesIO(plain), mode="r:gz") as archive:
        assert archive.getnames() == ["mydir", "mydir/a.txt", "mydir/sub", "mydir/sub/b.txt"]


def test_the_age_command_opens_what_was_stored(local: Conf, tree: Path, in_home: Path) -> None:
    age_command = program("age")
    made = bakthat.backup(tree, conf=local, recipients=[RECIPIENT])
    listed = subprocess.run(
        f"'{age_command}' -d -i identity.txt '{stored_path(local, made)}' | tar tz",
        shell=True,
        check=True,
        capture_output=True,
        text=True,
    )
    assert "mydir/sub/b.txt" in listed.stdout.split("\n")


def test_an_object_encrypted_again_by_another_age_tool_is_restored(
    local: Conf, tree: Path, in_home: Path, out: Path
) -> None:
    made = bakthat.backup(tree, conf=local, password="pw")
    path = stored_path(local, made)
    plain = pyrage.passphrase.decrypt(path.read_bytes(), "pw")
    # Encrypted again to a key, under a name that the catalog does not know.
    again = pyrage.encrypt(plain, [pyrage.x25519.Recipient.from_str(RECIPIENT)])
    name = path.name.replace("mydir", "by-hand")
    (path.parent / name).write_bytes(again)
    bakthat.restore(name, conf=local, output=out, identity_file="identity.txt")
    assert everything_in(out / "mydir") == ["a.txt", "sub", "sub/b.txt"]


def test_the_object_describes_itself_without_a_password(conf: Conf, tree: Path) -> None:
    from bakthat.backends import make_backend

    made = bakthat.backup(tree, conf=conf, password="pw", tags=["daily", "wëb"])
    backend = make_backend(made.backend, conf)
    (stored,) = [each for each in backend.ls() if each.key == made.stored_filename]
    assert stored.size == made.size
    description = backend.stat(made.stored_filename).metadata
    assert description is not None
    assert description["set"] == "mydir"
    assert description["date"] == made.backup_date
    assert description["tags"] == "daily wëb"
    assert description["kind"] == "archive"
    assert description["encryption"] == "passphrase"
    assert description["host"] == made.host


def test_a_backup_is_restored_by_its_whole_name_without_the_catalog(
    conf: Conf, tree: Path, out: Path
) -> None:
    made = bakthat.backup(tree, conf=conf, password="pw", custom_filename="site")
    lost = {**conf, "database": str(tree.parent / "another.sqlite")}
    with pytest.raises(NoMatchError):
        bakthat.restore("site", conf=lost, output=out, password="pw")
    found = bakthat.restore(made.stored_filename, conf=lost, output=out, password="pw")
    assert found is not None
    assert found.filename == "site"
    assert everything_in(out / "mydir") == ["a.txt", "sub", "sub/b.txt"]
    assert bakthat.ls(conf=lost) == []


def test_the_catalog_entry_has_what_the_backup_counted(local: Conf, tree: Path) -> None:
    made = bakthat.backup(tree, conf=local, password="", tags="a, b  a")
    assert str(made) == f"<Backup: {made.stored_filename}>"
    assert made["stored_filename"] == made.stored_filename
    assert made.tags == "a b"
    assert made.backend == "local"
    assert abs(made.backup_date - time.time()) < 60
    assert made.metadata["source"] == str(tree)
    assert made.metadata["files"] == 2
    assert made.metadata["directories"] == 2
    assert made.metadata["bytes"] == 5 + 50_000
    assert made.metadata["is_enc"] is False
    assert bakthat.ls(conf=local) == [made]


def test_two_backups_in_one_second_have_two_names(
    conf: Conf, tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bakthat.operations.backup.store.time.time", lambda: 1370373055.0)
    first = bakthat.backup(tree, conf=conf, password="")
    second = bakthat.backup(tree, conf=conf, password="")
    assert first.stored_filename == "mydir.20130604191055.tgz"
    assert second.stored_filename == "mydir.20130604191056.tgz"
    assert second.backup_date == first.backup_date + 1


def test_a_key_that_another_host_took_is_never_overwritten(
    conf: Conf, tree: Path, monkeypatch: pytest.MonkeyPatch, out: Path
) -> None:
    monkeypatch.setattr("bakthat.operations.backup.store.time.time", lambda: 1370373055.0)
    first = bakthat.backup(tree, conf=conf, password="")
    (tree / "a.txt").write_text("changed")
    elsewhere = {**conf, "database": str(tree.parent / "another.sqlite")}
    second = bakthat.backup(tree, conf=elsewhere, password="")
    assert second.stored_filename == "mydir.20130604191056.tgz" != first.stored_filename
    bakthat.restore(first.stored_filename, conf=conf, output=out)
    assert (out / "mydir" / "a.txt").read_text() == "hello"


def test_a_backup_does_not_contain_the_local_store(local: Conf, isolated_environment: Path) -> None:
    (isolated_environment / "mine").write_text("mine")
    for _ in range(2):
        made = bakthat.backup(isolated_environment, conf=local, password="", custom_filename="my")
        with tarfile.open(stored_path(local, made)) as archive:
            inside = [name for name in archive.getnames() if "/store/" in name]
            assert archive.getmember(f"{isolated_environment.name}/mine").size == 4
        assert inside == []
    for source in (local["local_path"], stored_path(local, made)):
        with pytest.raises(UsageError, match="is inside of"):
            bakthat.backup(source, conf=local, password="")


def test_a_backup_does_not_contain_the_cache_of_indexes(
    local: Conf, isolated_environment: Path
) -> None:
    """Otherwise an increment of the home directory would have the index of the backup before."""
    (isolated_environment / "mine").write_bytes(os.urandom(100_000))
    conf = {**local, "incremental": True}
    made = [
        bakthat.backup(isolated_environment, conf=conf, password="", custom_filename="my")
        for _ in range(3)
    ]
    assert [each.is_increment for each in made] == [False, True, True]
    cache = isolated_environment / ".cache" / "bakthat"
    assert len([each for each in cache.iterdir() if each.suffix == ".index"]) == 3
    top = isolated_environment.name
    found = bakthat.contents(made[-1].stored_filename, conf=conf)
    paths = [each.path for each in found]
    assert f"{top}/mine" in paths
    assert [each for each in paths if each.startswith(f"{top}/.cache/bakthat/")] == []
    changes = list(bakthat.diff(made[-1].stored_filename, conf=conf, path=isolated_environment))
    assert [each for each in changes if ".cache/bakthat/" in each.path] == []
    # Whoever names it gets it.
    alone = bakthat.backup(cache, conf=local, password="", custom_filename="cache")
    with tarfile.open(stored_path(local, alone)) as archive:
        assert len([each for each in archive.getnames() if each.endswith(".index")]) == 3


def test_the_local_path_does_not_matter_to_another_destination(s3_conf: Conf, tree: Path) -> None:
    conf = {**s3_conf, "local_path": "~no-such-user/store"}
    assert bakthat.backup(tree, "s3", conf=conf, password="").backend == "s3"


def test_excluded_files_are_left_out_and_reported(
    local: Conf, tree: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "bakthat")
    (tree / ".gitignore").write_text("*.log\n/sub/\n")
    (tree / "big.log").write_text("x" * 1000)
    made = bakthat.backup(tree, conf=local, password="")
    with tarfile.open(stored_path(local, made)) as archive:
        assert archive.getnames() == ["mydir", "mydir/.gitignore", "mydir/a.txt"]
    assert f"Left out 1 file and 1 directory by {tree}/.gitignore" in caplog.text
    assert (made.metadata["excluded_files"], made.metadata["excluded_directories"]) == (1, 1)
    everything = bakthat.backup(tree, conf=local, password="", ignore_files=False)
    assert everything.metadata["files"] == 4


def test_a_named_exclude_file_wins_and_must_exist(
    local: Conf, tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tree / ".bakthatexclude").write_text("a.txt\n")
    (tmp_path / "patterns").write_text("sub\n")
    monkeypatch.chdir(tmp_path)
    made = bakthat.backup(tree, conf=local, password="", exclude_file="patterns")
    with tarfile.open(stored_path(local, made)) as archive:
        assert archive.getnames() == ["mydir", "mydir/.bakthatexclude", "mydir/a.txt"]
    for source in (tree, tree / "a.txt"):
        with pytest.raises(UsageError, match="missing-patterns"):
            bakthat.backup(source, conf=local, password="", exclude_file="missing-patterns")


@pytest.mark.permissions
def test_a_file_that_cannot_be_read_is_reported_and_the_rest_is_stored(
    local: Conf, tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real_open = os.open

    def refuse(path: Any, *arguments: Any, **options: Any) -> int:
        if os.fspath(path).endswith("a.txt"):
            raise PermissionError(13, "Permission denied", os.fspath(path))
        return real_open(path, *arguments, **options)

    with monkeypatch.context() as patched:
        patched.setattr(os, "open", refuse)
        made = bakthat.backup(tree, conf=local, password="")
    assert made.metadata["warning_count"] == 1
    assert "a.txt" in made.metadata["warnings"][0]
    with tarfile.open(stored_path(local, made)) as archive:
        assert archive.getnames() == ["mydir", "mydir/sub", "mydir/sub/b.txt"]


def test_deleting_removes_the_object_and_marks_the_entry(conf: Conf, tree: Path) -> None:
    from bakthat.backends import make_backend

    made = bakthat.backup(tree, conf=conf, password="")
    kept = bakthat.backup(tree, conf=conf, password="", custom_filename="mydir2")
    gone = bakthat.delete("mydir", conf=conf)
    assert gone.stored_filename == made.stored_filename
    assert gone.is_deleted
    stored = {each.key for each in make_backend(made.backend, conf).ls()}
    assert stored == {kept.stored_filename}
    assert bakthat.ls(conf=conf) == [kept]
    with pytest.raises(NoMatchError):
        bakthat.delete("mydir", conf=conf)


def test_deleting_a_missing_object_is_no_error(conf: Conf, tree: Path) -> None:
    from bakthat.backends import make_backend

    made = bakthat.backup(tree, conf=conf, password="")
    make_backend(made.backend, conf).delete(made.stored_filename)
    assert bakthat.delete("mydir", conf=conf).stored_filename == made.stored_filename
    assert bakthat.ls(conf=conf) == []


def test_a_failed_deletion_leaves_the_entry(
    local: Conf, tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from bakthat.backends.local.backend import LocalBackend

    made = bakthat.backup(tree, conf=local, password="")

    def fail(_self: LocalBackend, key: str) -> None:
        raise StorageError(f"cannot delete {key}")

    monkeypatch.setattr(LocalBackend, "delete", fail)
    with pytest.raises(StorageError):
        bakthat.delete("mydir", conf=local)
    assert bakthat.ls(conf=local) == [made]


def test_a_locked_catalog_prevents_a_deletion(
    local: Conf, tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = bakthat.backup(tree, conf=local, password="")
    monkeypatch.setattr(models, "BUSY_TIMEOUT", 0)
    other = sqlite3.connect(local["database"], isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    try:
        with pytest.raises(CatalogError, match="locked"):
            bakthat.delete("mydir", conf=local)
    finally:
        other.close()
    assert stored_path(local, made).exists()
    assert bakthat.ls(conf=local) == [made]


def test_a_backup_is_recorded_when_the_last_progress_call_raises(local: Conf, tree: Path) -> None:
    def fail(done: int, total: int) -> None:
        if done == total:
            raise ValueError("no room on the screen")

    with pytest.raises(ValueError, match="no room"):
        bakthat.backup(tree, conf=local, password="", progress=fail)
    stored = {each.stored_filename for each in bakthat.ls(conf=local)}
    on_disk = {path.name for path in Path(local["local_path"]).glob("*.tgz")}
    assert stored == on_disk


# Failures: what is asked for cannot be done. Nothing is stored, nothing recorded.


@pytest.fixture
def fails(conf: Conf, tmp_path: Path) -> Callable[..., str]:
    """Expect a backup to fail and to leave nothing; return its message."""
    from bakthat.backends import make_backend

    def expect(error: type[BakthatError], *arguments: Any, **options: Any) -> str:
        given = {**conf, **options.pop("conf", {})}
        with pytest.raises(error) as caught:
            bakthat.backup(*arguments, conf=given, **{"password": "", **options})
        assert "\n" not in str(caught.value)
        assert bakthat.ls(conf=conf) == []
        backend = make_backend(conf.get("default_destination", "s3"), conf)
        with contextlib.suppress(ContainerNotFoundError):
            assert list(backend.ls()) == []
        return str(caught.value)

    return expect


def test_a_missing_source_is_an_error(fails: Callable[..., str]) -> None:
    assert fails(SourceError, "/no/such/thing") == "no such file or directory: '/no/such/thing'"


def test_a_directory_without_a_name_is_refused(local: Conf, tree: Path) -> None:
    bakthat.backup(tree, conf=local, password="")
    with pytest.raises(UsageError, match="to restore into has an empty name") as caught:
        bakthat.restore("mydir", conf=local, output="")
    assert "-o" in caught.value.hint


def test_an_empty_name_is_refused(fails: Callable[..., str]) -> None:
    fails(UsageError, "")


def test_the_root_needs_a_name(fails: Callable[..., str]) -> None:
    assert fails(UsageError, "/") == "'/' has no name of its own"


def test_names_that_would_break_keys_are_refused(fails: Callable[..., str], tmp_path: Path) -> None:
    for name in (b"new\nline", b"not-utf8-\xff"):
        path = os.fsencode(tmp_path) + b"/" + name
        os.mkdir(path)
        fails(UsageError, os.fsdecode(path))


def test_a_fifo_is_refused_as_a_source(fails: Callable[..., str], tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    assert "neither a file nor a directory" in fails(SourceError, tmp_path / "fifo")


def test_no_terminal_and_no_password_stores_nothing(fails: Callable[..., str], tree: Path) -> None:
    fails(PasswordError, tree, password=None)


def test_a_wrong_recipient_stores_nothing(fails: Callable[..., str], tree: Path) -> None:
    fails(KeyFormatError, tree, password=None, recipients=["age1nonsense"])


def test_a_wrong_recipient_is_found_before_the_storage_is_touched(local: Conf, tree: Path) -> None:
    with pytest.raises(KeyFormatError, match="age1nonsense"):
        bakthat.backup(tree, conf=local, recipients="age1nonsense")
    assert not Path(local["local_path"]).exists()


def test_a_tag_that_cannot_be_kept_stores_nothing(fails: Callable[..., str], tree: Path) -> None:
    fails(UsageError, tree, tags=["x" * 1000])
    fails(UsageError, tree, tags=["\x1b[31m"])


def test_a_catalog_that_cannot_be_written_stores_nothing(
    fails: Callable[..., str], tree: Path, tmp_path: Path
) -> None:
    (tmp_path / "letter").write_text("this is no database at all, but a letter " * 30)
    fails_with = {"database": str(tmp_path / "letter")}
    assert "not a SQLite database" in fails(CatalogError, tree, conf=fails_with)


def test_unusual_names_work(
    local: Conf, tmp_path: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("-rf", ".hidden", "with space", "ünï", "100%", "a'b", "a.tgz"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").write_text(name)
        made = bakthat.backup(f"{name}/", conf=local, password="")
        assert made.filename == name
        bakthat.restore(name, conf=local, output=out)
        assert (out / name / "file").read_text() == name


def test_a_dot_means_the_current_directory(
    local: Conf, tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tree)
    assert bakthat.backup(".", conf=local, password="").filename == "mydir"
    assert bakthat.backup(conf=local, password="").filename == "mydir"


def test_a_name_too_long_for_the_storage_says_so(local: Conf, tmp_path: Path) -> None:
    long = tmp_path / ("x" * 255)
    long.mkdir()
    with pytest.raises((UsageError, StorageError), match="too long") as caught:
        bakthat.backup(long, conf=local, password="")
    assert bakthat.ls(conf=local) == []
    assert len(str(caught.value)) < 500
    assert bakthat.backup(long, conf=local, password="", custom_filename="short").size


def test_a_broken_upload_leaves_nothing_behind(
    conf: Conf, tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from bakthat.backends import make_backend

    def fail(*_arguments: Any, **_options: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("bakthat.archive.create.worker.may_fork", lambda: False)
        patched.setattr(archive_content, "write_tree", fail)
        with pytest.raises(KeyboardInterrupt):
            bakthat.backup(tree, conf=conf, password="pw")
    assert list(make_backend(conf.get("default_destination", "s3"), conf).ls()) == []
    assert bakthat.ls(conf=conf) == []
    with models.catalog(conf.get("database", "~/.bakthat.sqlite")):
        assert models.Reservations.select().count() == 0


# Failures when restoring: nothing appears, nothing is half-written.


@pytest.fixture
def stored(local: Conf, tree: Path) -> models.Backups:
    return bakthat.backup(tree, conf=local, password="pw")


def expect_no_restore(
    error: type[BakthatError] | tuple[type[BakthatError], ...], conf: Conf, out: Path, **more: Any
) -> str:
    out.mkdir(exist_ok=True)
    (out / "mine").write_text("mine")
    with pytest.raises(error) as caught:
        bakthat.restore("mydir", conf=conf, output=out, **{"password": "pw", **more})
    assert "\n" not in str(caught.value)
    assert everything_in(out) == ["mine"]
    return str(caught.value)


@pytest.mark.usefixtures("stored")
def test_a_wrong_password_restores_nothing(local: Conf, out: Path) -> None:
    expect_no_restore(WrongKeyError, local, out, password="wrong")


@pytest.mark.usefixtures("stored")
def test_a_missing_password_restores_nothing(local: Conf, out: Path) -> None:
    expect_no_restore(PasswordError, local, out, password=None)


def test_a_wrong_identity_restores_nothing(local: Conf, tree: Path, out: Path) -> None:
    bakthat.backup(tree, conf=local, recipients=[RECIPIENT])
    other = out.parent / "other-identity"
    other.write_text(age.generate_identity())
    expect_no_restore(WrongKeyError, local, out, identity_file=other)
    expect_no_restore(PasswordError, local, out)
    other.write_text("no key at all")
    expect_no_restore(KeyFormatError, local, out, identity_file=other)
    with pytest.raises(KeyFormatError, match=f"^'{other}': "):
        bakthat.restore("mydir", conf=local, output=out, identity_file=other)


def test_a_missing_object_and_a_missing_entry_are_different_errors(
    local: Conf, stored: models.Backups, out: Path
) -> None:
    stored_path(local, stored).unlink()
    message = expect_no_restore(NotFoundError, local, out)
    assert "in the catalog, but not in" in message


def test_a_missing_container_restores_nothing(
    local: Conf, stored: models.Backups, out: Path
) -> None:
    shutil.rmtree(local["local_path"])
    expect_no_restore(ContainerNotFoundError, local, out)
    assert not Path(local["local_path"]).exists()


@pytest.mark.parametrize("encrypted", [True, False])
@pytest.mark.parametrize("where", [0.0, 0.3, 0.6, 0.99])
def test_an_altered_object_restores_nothing(
    local: Conf, tree: Path, out: Path, where: float, encrypted: bool
) -> None:
    # What repeats itself deflates in many ways, so that an altered bit need not alter anything.
    (tree / "sub" / "b.txt").write_bytes(os.urandom(50_000))
    made = bakthat.backup(tree, conf=local, password="pw" if encrypted else "")
    path = stored_path(local, made)
    content = bytearray(path.read_bytes())
    content[int(len(content) * where)] ^= 0x10
    path.write_bytes(content)
    expect_no_restore(
        (AgeFormatError, DecryptionError, WrongKeyError, CorruptArchiveError), local, out
    )


@pytest.mark.parametrize("encrypted", [True, False])
def test_a_truncated_object_restores_nothing(
    local: Conf, tree: Path, out: Path, encrypted: bool
) -> None:
    made = bakthat.backup(tree, conf=local, password="pw" if encrypted else "")
    path = stored_path(local, made)
    os.truncate(path, made.size - 1)
    assert "truncated or replaced" in expect_no_restore(CorruptArchiveError, local, out)


def test_a_swapped_object_restores_nothing(
    local: Conf, tree: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Of the same set, the same size and under the same password: an old one for a new one.
    monkeypatch.setattr("bakthat.operations.backup.store.time.time", lambda: 1370373055.0)
    conf = {**local, "compress": False}
    old = bakthat.backup(tree, conf=conf, password="pw")
    new = bakthat.backup(tree, conf=conf, password="pw")
    assert old.size == new.size
    shutil.copy(stored_path(local, old), stored_path(local, new))
    assert "date=1370373055" in expect_no_restore(CorruptArchiveError, local, out)
    bakthat.restore(old.stored_filename, conf=local, output=out, password="pw")


def test_a_plain_file_that_was_altered_restores_nothing(
    local: Conf, tmp_path: Path, out: Path
) -> None:
    (tmp_path / "mydir").write_bytes(b"content")
    made = bakthat.backup(tmp_path / "mydir", conf={**local, "compress": False}, password="")
    stored_path(local, made).write_bytes(b"CONTENT")
    expect_no_restore(CorruptArchiveError, local, out)


@pytest.mark.parametrize("with_description", [True, False])
def test_without_the_catalog_the_name_wins_over_the_description(
    local: Conf,
    tree: Path,
    out: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    with_description: bool,
) -> None:
    monkeypatch.setattr("bakthat.operations.backup.store.time.time", lambda: 1370373055.0)
    old = bakthat.backup(tree, conf=local, password="pw")
    new = bakthat.backup(tree, conf=local, password="pw")
    for suffix in ("", ".bakthat.json"):
        source, target = (f"{stored_path(local, each)}{suffix}" for each in (old, new))
        shutil.copy(source, target)
    if not with_description:
        Path(f"{stored_path(local, new)}.bakthat.json").unlink()
    lost = {**local, "database": str(tree.parent / "another.sqlite")}
    if with_description:
        with pytest.raises(CorruptArchiveError, match="date=1370373055"):
            bakthat.restore(new.stored_filename, conf=lost, output=out, password="pw")
        assert not out.exists()
    else:  # perhaps renamed by hand
        bakthat.restore(new.stored_filename, conf=lost, output=out, password="pw")
        assert "the archive says that it is" in caplog.text


def test_a_plain_file_keeps_every_time_that_its_file_system_can_hold(
    local: Conf, tmp_path: Path, out: Path
) -> None:
    base = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=base if base.is_dir() else tmp_path) as directory:
        source, target = Path(directory) / "plain", Path(directory) / "out"
        source.write_text("content")
        os.utime(source, ns=(0, 2**62 * 10**9))
        made = bakthat.backup(source, conf={**local, "compress": False}, password="")
        bakthat.restore(made.stored_filename, conf=local, output=target)
        assert (target / "plain").stat().st_mtime_ns == source.stat().st_mtime_ns


HOSTILE: list[dict[str, Any]] = [
    {"mode": 2**70},
    {"mode": -1},
    {"mtime_ns": 2**63 * 10**9},
    {"name": "\ud800"},
    {"name": "../../etc/passwd"},
    {"name": ["x"]},
    {"name": "new\nline"},
    {"set": "\ud800"},
    {"host": "\ud800"},
    {"uid": -1, "gid": 2**40},
    {"kind": 7, "format": "x", "date": "yesterday", "tags": {}},
]


@pytest.mark.parametrize("lie", HOSTILE, ids=range(len(HOSTILE)))
def test_a_hostile_description_is_not_trusted(
    local: Conf, tmp_path: Path, out: Path, lie: dict[str, Any]
) -> None:
    import json

    (tmp_path / "plain").write_text("content")
    made = bakthat.backup(tmp_path / "plain", conf={**local, "compress": False}, password="")
    sidecar = Path(f"{stored_path(local, made)}.bakthat.json")
    sidecar.write_text(json.dumps({**json.loads(sidecar.read_text()), **lie}))
    lost = {**local, "database": str(tmp_path / "another.sqlite")}
    try:
        bakthat.restore(made.stored_filename, conf=lost, output=out)
    except BakthatError:
        assert not out.exists()
    else:
        assert everything_in(out) == ["plain"]
        assert (out / "plain").read_text() == "content"


@as_root
def test_a_plain_file_comes_back_setuid_only_to_its_owner(
    local: Conf, tmp_path: Path, out: Path
) -> None:
    (tmp_path / "tool").write_text("#!/bin/sh\n")
    os.chown(tmp_path / "tool", 1234, 4321)
    (tmp_path / "tool").chmod(0o4755)
    made = bakthat.backup(tmp_path / "tool", conf={**local, "compress": False}, password="")
    bakthat.restore("tool", conf=local, output=out)
    assert fingerprint(out / "tool") == fingerprint(tmp_path / "tool")
    Path(f"{stored_path(local, made)}.bakthat.json").write_text('{"mode": 2541, "kind": "file"}')
    lost = {**local, "database": str(tmp_path / "another.sqlite")}
    bakthat.restore(made.stored_filename, conf=lost, output=out)
    assert (out / "tool").stat().st_mode & 0o7777 == 0o755


def test_a_plain_file_that_changes_while_it_is_read_is_reported(
    local: Conf, tmp_path: Path
) -> None:
    path = tmp_path / "growing"
    path.write_bytes(bytes(3_000_000))

    def grow(_done: int, _total: int) -> None:
        with path.open("ab") as stream:
            stream.write(b"x")

    made = bakthat.backup(path, conf={**local, "compress": False}, password="", progress=grow)
    assert made.metadata["warning_count"] == 1
    assert "changed while it was read" in made.metadata["warnings"][0]


def test_another_hosts_name_is_not_found_on_the_storage(
    local: Conf, stored: models.Backups, tmp_path: Path
) -> None:
    lost = {**local, "database": str(tmp_path / "another.sqlite")}
    with pytest.raises(NoMatchError):
        bakthat.restore(stored.stored_filename, conf=lost, host="elsewhere", password="pw")


def test_a_name_that_matches_nothing_is_an_error(local: Conf, out: Path) -> None:
    with pytest.raises(NoMatchError):
        bakthat.restore("nothing", conf=local, output=out)
    assert not out.exists()


def test_a_missing_bucket_on_restore_is_named_and_not_made(
    s3_conf: Conf, tree: Path, out: Path
) -> None:
    made = bakthat.backup(tree, conf=s3_conf, password="")
    with models.catalog("~/.bakthat.sqlite", write=True):
        models.Backups.update(backend_hash=models.backend_hash("missing-bucket")).execute()
    missing = {**s3_conf, "s3_bucket": "missing-bucket"}
    for name in ("mydir", made.stored_filename):
        with pytest.raises(ContainerNotFoundError, match="missing-bucket"):
            bakthat.restore(name, conf=missing, output=out)
    assert not out.exists()


def test_a_profile_without_a_bucket_names_the_key(tree: Path) -> None:
    with pytest.raises(ConfigError, match="s3_bucket"):
        bakthat.backup(tree, conf={"access_key": "a", "secret_key": "b"}, password="")


def test_an_unknown_destination_names_the_known_ones(local: Conf, tree: Path) -> None:
    with pytest.raises(UsageError, match="'tape'") as caught:
        bakthat.backup(tree, "tape", conf=local, password="")
    assert "s3, glacier, local" in caught.value.hint


def test_a_backup_stored_but_not_recorded_is_reported_with_its_name(
    local: Conf, tree: Path, monkeypatch: pytest.MonkeyPatch, out: Path
) -> None:
    def fail(_row: object) -> models.Backups:
        raise CatalogError("the disk is full")

    monkeypatch.setattr(models, "record", fail)
    with pytest.raises(CatalogError, match=r"stored as (mydir\.\d+\.tgz) on local, but not") as got:
        bakthat.backup(tree, conf=local, password="")
    (name,) = re.findall(r"mydir\.\d+\.tgz", str(got.value))
    assert "bakthat sync" in got.value.hint
    bakthat.restore(name, conf=local, output=out)
    assert (out / "mydir" / "a.txt").read_text() == "hello"


def test_too_many_taken_keys_are_an_error(
    local: Conf, tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from bakthat.backends.local.backend import LocalBackend

    def taken(_self: LocalBackend, key: str, **_options: Any) -> None:
        raise KeyExistsError(f"'{key}' exists")

    monkeypatch.setattr(LocalBackend, "upload", taken)
    with pytest.raises(StorageError, match="100 names in a row"):
        bakthat.backup(tree, conf=local, password="")


def test_a_source_is_read_again_when_its_key_is_taken_at_the_last_moment(
    local: Conf, tree: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from bakthat.backends.local.backend import LocalUpload

    commit = LocalUpload.commit
    refused: list[LocalUpload] = []

    def late(self: LocalUpload) -> Any:
        if len(refused) < 2:
            refused.append(self)
            raise KeyExistsError("somebody was faster")
        return commit(self)

    monkeypatch.setattr(LocalUpload, "commit", late)
    made = bakthat.backup(tree, conf=local, password="")
    assert len(refused) == 2
    bakthat.restore(made.stored_filename, conf=local, output=out)  # which checks whose it is
    assert (out / "mydir" / "a.txt").read_text() == "hello"
    # The process that read for the first try is gone, and so are the names that were taken.
    with models.catalog(Path(local["database"])):
        assert not models.Reservations.select().count()


# Events.


def test_events_fire_around_each_operation_with_one_session_id(
    local: Conf, tree: Path, out: Path, fired: list[tuple[Any, ...]]
) -> None:
    made = bakthat.backup(tree, conf=local, password="")
    bakthat.restore("mydir", conf=local, output=out)
    bakthat.delete("mydir", conf=local)
    assert [call[0] for call in fired] == [
        "before_backup",
        "on_backup",
        "before_restore",
        "on_restore",
        "before_delete",
        "on_delete",
    ]
    for before, after in zip(fired[::2], fired[1::2], strict=True):
        assert before[1] == after[1]
        assert str(after[2]) == str(made)
    assert len({call[1] for call in fired}) == 3


def test_a_callback_that_raises_before_a_backup_stops_it(
    local: Conf, tree: Path, fired: list[tuple[Any, ...]]
) -> None:
    def refuse(_session_id: str) -> None:
        raise RuntimeError("not today")

    bakthat.events.before_backup += refuse
    try:
        with pytest.raises(RuntimeError, match="not today"):
            bakthat.backup(tree, conf=local, password="")
    finally:
        bakthat.events.before_backup -= refuse
    assert bakthat.ls(conf=local) == []
    assert not Path(local["local_path"]).exists()
    assert [call[0] for call in fired] == ["before_backup", "on_error"]


def test_a_failure_fires_on_error_with_the_exception(
    local: Conf, fired: list[tuple[Any, ...]]
) -> None:
    with pytest.raises(SourceError) as caught:
        bakthat.backup("/no/such/thing", conf=local, password="")
    event, session_id, operation, exception = fired[-1]
    assert (event, operation, exception) == ("on_error", "backup", caught.value)
    assert session_id == fired[0][1]


def test_progress_reaches_the_total(local: Conf, tree: Path, out: Path) -> None:
    calls: list[tuple[int, int]] = []
    made = bakthat.backup(
        tree, conf=local, password="", progress=lambda done, total: calls.append((done, total))
    )
    assert calls[-1] == (50_005, 50_005)
    assert [done for done, _ in calls] == sorted(done for done, _ in calls)
    calls.clear()
    bakthat.restore(
        "mydir", conf=local, output=out, progress=lambda done, total: calls.append((done, total))
    )
    assert calls[-1] == (made.size, made.size)


def test_without_a_progress_callback_percentages_are_logged(
    local: Conf, tree: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "bakthat")
    bakthat.backup(tree, conf=local, password="pw")
    lines = [record.getMessage() for record in caplog.records]
    assert lines[:4] == [
        f"Backing up {tree}",
        "Compressing...",
        "Encrypting...",
        "Uploading...",
    ]
    assert lines[4] == "Upload completion: 0%"
    assert lines[-2] == "Upload completion: 100%"
    percent_loggers = {r.name for r in caplog.records if "completion" in r.getMessage()}
    assert percent_loggers == {"bakthat.backends"}
