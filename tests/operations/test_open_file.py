"""One file of a backup: opened with seeks, or written out, on every storage."""

from __future__ import annotations

import hashlib
import io
import os
import random
import socket
import stat
import tarfile
import threading
import zipfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import bakthat
from bakthat.errors import (
    AmbiguousNameError,
    BakthatError,
    CorruptArchiveError,
    CorruptIndexError,
    DecryptionError,
    NoMatchError,
    NotReadyError,
    PasswordError,
    StorageError,
    UsageError,
    WrongKeyError,
)
from bakthat.helper import KeyValue
from bakthat.operations.browse.open_file import CHECKED_BYTES, cat
from tests.support.changed_indexes import Contents, change_index, replaced
from tests.support.fault_proxy import Alter, Cut, FaultProxy
from tests.support.glacier_server import GlacierServer
from tests.support.legacy import PASSWORD, Legacy, beefish, tarball
from tests.support.needs import as_root
from tests.support.profiles import Conf
from tests.support.servers import S3Server
from tests.support.thaw_proxy import thaw_proxy

MIB = 1024 * 1024
NOISE = random.Random(8).randbytes(3 * MIB)
NOISE_BYTES = 200_000
TEXT = b"some text\n" * 100_000


@pytest.fixture(autouse=True)
def cheap_work(cheap_passphrases: None) -> None:
    """Spend no second on each passphrase."""


@pytest.fixture
def files(tmp_path: Path) -> dict[str, bytes]:
    """Make a tree, and return its files."""
    contents = {
        "a/noise": NOISE,
        "a/text": TEXT,
        "b/empty": b"",
        "b/small": b"small",
        "b/odd\n\udcff": b"odd",
        "[ab]?": b"a name that is a pattern",
        "ax": b"ax",
        "mydir/inner": b"inner",
    }
    root = tmp_path / "data"
    for name, content in contents.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    os.link(root / "a/noise", root / "hard")
    os.symlink("a/text", root / "soft")
    os.mkfifo(root / "pipe")
    with (root / "sparse").open("wb") as sparse:
        sparse.seek(2 * MIB)
        sparse.write(b"in the middle")
        sparse.truncate(5 * MIB)
    contents["hard"] = NOISE
    contents["sparse"] = (root / "sparse").read_bytes()
    return contents


def written(name: str, path: str, conf: Conf, **more: str) -> bytes:
    output = io.BytesIO()
    cat(name, path, output, conf=conf, **more)
    return output.getvalue()


@pytest.mark.parametrize("password", ["", "a passphrase"])
def test_each_file_is_what_was_backed_up(
    files: dict[str, bytes], conf: Conf, tmp_path: Path, password: str
) -> None:
    bakthat.backup(tmp_path / "data", conf=conf, password=password)
    keys = {"password": password} if password else {}
    before = threading.active_count()
    for name, content in files.items():
        with bakthat.open_file("data", name, conf=conf, **keys) as file:
            assert file.read() == content
            assert file.seek(len(content) // 2) == len(content) // 2
            assert file.read(10) == content[len(content) // 2 :][:10]
        assert written("data", f"data/{name}", conf, **keys) == content
    assert threading.active_count() <= before


def test_a_path_wins_over_a_pattern_and_a_pattern_must_match_one_file(
    files: dict[str, bytes], local: Conf, tmp_path: Path
) -> None:
    bakthat.backup(tmp_path / "data", conf=local, password="")
    assert written("data", "[ab]?", local) == files["[ab]?"]
    assert written("data", "mydir/inner", local) == b"inner"
    assert written("data", "sma*", local) == b"small"
    assert written("data", "/b/sma??", local) == b"small"
    assert written("data", "**/mydir/**", local) == b"inner"
    for path, error, message in (
        ("*", UsageError, "matches more than one file, such as 'data/"),
        ("b/*", UsageError, "more than one"),
        ("*.pdf", NoMatchError, "holds no"),
        ("b/missing", NoMatchError, "holds no"),
        ("b", UsageError, "is a directory"),
        ("data/b", UsageError, "is a directory"),
        ("data/", UsageError, "is a directory"),
        ("soft", UsageError, "is a symbolic link to 'a/text'"),
        ("pipe", UsageError, "is a fifo"),
        ("../x", UsageError, "no path in a backup can be"),
        ("", UsageError, "no path in a backup can be"),
    ):
        with pytest.raises(error, match=message):
            written("data", path, local)
        with pytest.raises(error, match=message):
            bakthat.open_file("data", path, conf=local)


@as_root
def test_a_device_is_called_one(local: Conf, tmp_path: Path) -> None:
    root = tmp_path / "nodes"
    root.mkdir()
    os.mknod(root / "null", 0o600 | stat.S_IFCHR, os.makedev(1, 3))
    os.mknod(root / "loop", 0o600 | stat.S_IFBLK, os.makedev(7, 0))
    bakthat.backup(root, conf=local, password="")
    with pytest.raises(UsageError, match="is a character device in the backup"):
        bakthat.open_file("nodes", "null", conf=local)
    with pytest.raises(UsageError, match="is a block device in the backup"):
        bakthat.open_file("nodes", "loop", conf=local)


def test_the_directory_at_the_top_wins_over_a_file_of_its_name(local: Conf, tmp_path: Path) -> None:
    (tmp_path / "x").mkdir()
    (tmp_path / "x/x").write_bytes(b"the file")
    bakthat.backup(tmp_path / "x", conf=local, password="")
    assert written("x", "x/x", local) == b"the file"
    with pytest.raises(UsageError, match="is a directory"):
        written("x", "x", local)


def test_files_that_are_stored_as_they_are(conf: Conf, tmp_path: Path) -> None:
    (tmp_path / "image.iso").write_bytes(NOISE)
    with tarfile.open(tmp_path / "ready.tar.gz", "w:gz") as archive:
        archive.add(tmp_path / "image.iso", "inside")
    for name in ("image.iso", "ready.tar.gz"):
        content = (tmp_path / name).read_bytes()
        for password in ("", "a passphrase"):
            made = bakthat.backup(tmp_path / name, conf=conf, password=password)
            stored = made.stored_filename
            keys: dict[str, Any] = {"password": password or None}
            assert written(stored, name, conf, **keys) == content
            with bakthat.open_file(stored, name, conf=conf, **keys) as file:
                file.seek(-100, os.SEEK_END)
                assert file.read() == content[-100:]
            bakthat.delete(stored, conf=conf)


def test_the_keys_are_checked(files: dict[str, bytes], local: Conf, tmp_path: Path) -> None:
    made = bakthat.backup(tmp_path / "data", conf=local, password="right")
    for password, error in (("wrong", WrongKeyError), (None, PasswordError)):
        with pytest.raises(error):
            bakthat.open_file("data", "ax", conf=local, password=password, prompt=False)
    assert written("data", "ax", local, password="right") == b"ax"
    with pytest.raises(NoMatchError):
        written(made.stored_filename + "x", "ax", local)


def test_another_host_and_another_source_are_told_apart(local: Conf, tmp_path: Path) -> None:
    for source in ("one/data", "two/data"):
        (tmp_path / source).mkdir(parents=True)
        (tmp_path / source / "file").write_text(source)
        bakthat.backup(tmp_path / source, conf=local, password="")
    with pytest.raises(AmbiguousNameError):
        written("data", "file", local)
    assert written("data", "file", local, source=str(tmp_path / "one/data")) == b"one/data"


def test_a_value_has_no_files(conf: Conf) -> None:
    KeyValue(conf=conf).set_key("settings", {"a": 1}, password="")
    with pytest.raises(UsageError, match="is a value"):
        bakthat.open_file("settings", "settings.json", conf=conf)


def flip(path: Path, at: int) -> None:
    with path.open("r+b") as file:
        file.seek(at)
        byte = file.read(1)
        file.seek(at)
        file.write(bytes([byte[0] ^ 1]))


def stored_file(conf: Conf, name: str) -> Path:
    return Path(conf["local_path"], name)


class Refusing:
    """A sink that takes nothing."""

    def write(self, data: object, /) -> None:
        raise AssertionError("bytes were written")


@pytest.mark.parametrize("password", ["", "a passphrase"])
def test_damage_is_found_before_a_small_file_is_written(
    local: Conf, tmp_path: Path, password: str
) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data/noise").write_bytes(NOISE)
    made = bakthat.backup(tmp_path / "data", conf=local, password=password)
    flip(stored_file(local, made.stored_filename), made.size // 2)
    with pytest.raises(BakthatError):
        cat("data", "noise", Refusing(), conf=local, password=password or None)
    with (
        bakthat.open_file("data", "noise", conf=local, password=password or None) as file,
        pytest.raises(BakthatError),
    ):
        file.read()


def test_a_pattern_that_only_a_directory_matches_is_refused(local: Conf, tmp_path: Path) -> None:
    (tmp_path / "data/inner").mkdir(parents=True)
    bakthat.backup(tmp_path / "data", conf=local, password="")
    with pytest.raises(UsageError, match="'inne\\[r\\]' matches directories only"):
        cat("data", "inne[r]", Refusing(), conf=local)


@pytest.mark.parametrize(
    ("targets", "problem"),
    [
        (lambda number: "data/gone", "is a hard link to 'data/gone', which is not before it"),
        (lambda number: f"data/{number - 1:02}", "is a hard link through too many others"),
    ],
)
def test_hard_links_that_lead_nowhere_are_refused(
    local: Conf, tmp_path: Path, targets: Callable[[int], str], problem: str
) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data/00").write_text("content")
    for number in range(1, 50):
        os.link(tmp_path / "data/00", tmp_path / f"data/{number:02}")
    made = bakthat.backup(tmp_path / "data", conf=local, password="")

    def change(contents: Contents) -> None:
        for number in range(2, 50):
            contents.entries = replaced(
                contents.entries, f"data/{number:02}", target=targets(number)
            )

    change_index(local, made.stored_filename, change)
    with pytest.raises(CorruptIndexError, match=problem):
        cat("data", "49", Refusing(), conf=local)


@pytest.mark.parametrize("size", [100, NOISE_BYTES])
def test_another_object_in_the_place_of_the_archive_is_refused(
    local: Conf, tmp_path: Path, size: int
) -> None:
    made = []
    for content in (NOISE[:NOISE_BYTES], NOISE[-size:]):
        (tmp_path / "data").mkdir(exist_ok=True)
        (tmp_path / "data/file").write_bytes(content)
        made.append(bakthat.backup(tmp_path / "data", conf=local, password="").stored_filename)
        (tmp_path / "data/file").unlink()
    first, other = (stored_file(local, name) for name in made)
    first.write_bytes(other.read_bytes())
    with pytest.raises((CorruptArchiveError, StorageError)):
        cat(made[0], "file", Refusing(), conf=local)


def test_a_large_file_is_written_as_it_is_read_and_checked_at_its_end(
    local: Conf, tmp_path: Path
) -> None:
    (tmp_path / "data").mkdir()
    with (tmp_path / "data/large").open("wb") as large:
        large.write(NOISE)
        large.seek(CHECKED_BYTES)
        large.write(NOISE)
    content = (tmp_path / "data/large").read_bytes()
    made = bakthat.backup(tmp_path / "data", conf=local, password="")
    assert written("data", "large", local) == content
    path = stored_file(local, made.stored_filename)
    whole = path.read_bytes()
    # The last noise is stored as it is, in deflate blocks.
    flip(path, whole.rindex(NOISE[2 * MIB + 5000 : 2 * MIB + 5100]))
    output = io.BytesIO()
    with pytest.raises(CorruptArchiveError):
        cat("data", "large", output, conf=local)
    assert len(output.getvalue()) > MIB


def test_a_large_stream_that_was_altered_is_never_written_to_its_end(
    local: Conf, tmp_path: Path
) -> None:
    size = CHECKED_BYTES + 1
    conf = {**local, "compress": False}  # only the SHA-256 shows the change
    line = f"head -c {size} /dev/zero"
    made = bakthat.backup(conf=conf, command=line, custom_filename="shop.raw", password="")
    with (tmp_path / "whole").open("wb") as output:
        cat("shop.raw", None, output, conf=local)
    assert (tmp_path / "whole").stat().st_size == size
    flip(stored_file(local, made.stored_filename), MIB)
    with (tmp_path / "got").open("wb") as output, pytest.raises(CorruptArchiveError):
        cat("shop.raw", None, output, conf=local)
    assert 0 < (tmp_path / "got").stat().st_size < size


def test_an_archive_of_060_and_one_of_another_gzip_are_read_from_their_beginning(
    moto_endpoint: S3Server, tmp_path: Path
) -> None:
    old = Legacy(moto_endpoint.conf(), tmp_path / "bakthat.sqlite")
    contents = {"a.txt": b"hello", "big": bytes(range(256)) * 3000}
    host = socket.gethostname()
    plain = {"is_enc": False, "client": host}
    old.store("www.20130604200000.tgz", "www", tarball("www", contents), plain, 1370376000)
    secret = beefish(tarball("mydir", contents))
    encrypted = {"is_enc": True, "client": host}
    old.store("mydir.20130604191055.tgz.enc", "mydir", secret, encrypted, 1370373055)
    for name, keys in (("www", {}), ("mydir", {"password": PASSWORD})):
        for path, content in contents.items():
            assert written(name, path, old.conf, **keys) == content
            with bakthat.open_file(name, path, conf=old.conf, **keys) as file:
                file.seek(3)
                assert file.read() == content[3:]


@dataclass
class Cold:
    """A cold storage."""

    conf: Conf
    advance: Callable[..., None]
    """Moves its clock by *hours*."""
    asked: Sequence[object]
    """The thaws that were requested; each costs money."""


@pytest.fixture(params=["VAULT", "GLACIER"])
def cold(request: pytest.FixtureRequest) -> Iterator[Cold]:
    if request.param == "VAULT":
        server: GlacierServer = request.getfixturevalue("glacier")
        server.asked.clear()
        yield Cold(server.conf(), server.advance, server.asked)
        return
    moto: S3Server = request.getfixturevalue("moto_endpoint")
    with thaw_proxy(moto.endpoint_url) as proxy:
        conf = moto.conf(endpoint_url=proxy.endpoint_url, storage_class=request.param)
        yield Cold(conf, proxy.advance, proxy.asked)


@pytest.mark.parametrize("password", ["", "a passphrase"])
def test_what_is_in_cold_storage_must_be_thawed_first(
    cold: Cold, local: Conf, tmp_path: Path, files: dict[str, bytes], password: str
) -> None:
    conf = {**cold.conf, "database": local["database"]}
    keys = {"password": password} if password else {}
    bakthat.backup(tmp_path / "data", conf=conf, password=password)
    with pytest.raises(NotReadyError, match=r"must be thawed|in cold storage") as raised:
        bakthat.open_file("data", "a/text", conf=conf, **keys)
    assert "bakthat restore" in raised.value.hint
    with pytest.raises(NoMatchError):  # the index can be read all the same
        bakthat.open_file("data", "a/missing", conf=conf, **keys)
    assert not cold.asked
    out = tmp_path / "out"
    assert bakthat.restore("data", conf=conf, output=out, password=password or None) is None
    cold.advance(hours=6)
    with bakthat.open_file("data", "a/text", conf=conf, **keys) as file:
        assert file.read() == TEXT
    assert written("data", "a/noise", conf, **keys) == NOISE
    assert len(cold.asked) == 1


def test_it_closes_what_it_opened(files: dict[str, bytes], conf: Conf, tmp_path: Path) -> None:
    bakthat.backup(tmp_path / "data", conf=conf, password="")
    file = bakthat.open_file("data", "a/noise", conf=conf)
    file.read(2 * MIB)
    file.close()
    file.close()
    with pytest.raises(ValueError, match="closed"):
        file.read(1)
    names = [each.name for each in threading.enumerate()]
    assert not [name for name in names if name.startswith("bakthat")]


def test_the_sha256_of_the_entry_is_that_of_the_content(
    files: dict[str, bytes], local: Conf, tmp_path: Path
) -> None:
    bakthat.backup(tmp_path / "data", conf=local, password="")
    entry = cat("data", "a/text", io.BytesIO(), conf=local)
    assert entry.path == "data/a/text"
    assert entry.sha256 == hashlib.sha256(TEXT).hexdigest()


@pytest.mark.slow
def test_connections_that_break_are_made_again(
    proxied_conf: Conf, moto_proxy: FaultProxy, local: Conf, tmp_path: Path
) -> None:
    conf = {**proxied_conf, "database": local["database"]}
    (tmp_path / "data").mkdir()
    (tmp_path / "data/noise").write_bytes(NOISE)
    bakthat.backup(tmp_path / "data", conf=conf, password="a passphrase")
    moto_proxy.on("GET", ".tgz.age", Cut(after=30_000), times=3)
    assert written("data", "noise", conf, password="a passphrase") == NOISE
    moto_proxy.on("GET", ".tgz.age", Alter(flip=20_000), times=3)
    with pytest.raises(DecryptionError):
        written("data", "noise", conf, password="a passphrase")
    assert written("data", "noise", conf, password="a passphrase") == NOISE


@pytest.mark.parametrize("password", ["", "a passphrase"])
def test_a_small_archive_costs_one_request_where_the_index_is_known(
    proxied_conf: Conf, moto_proxy: FaultProxy, local: Conf, tree: Path, password: str
) -> None:
    conf = {**proxied_conf, "database": local["database"]}
    bakthat.backup(tree, conf=conf, password=password)
    moto_proxy.requests.clear()
    assert (
        written("mydir", "a.txt", conf, **({"password": password} if password else {})) == b"hello"
    )
    assert [verb for verb, _, _ in moto_proxy.requests] == ["GET"]


def test_other_libraries_read_from_it(local: Conf, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    with zipfile.ZipFile(tmp_path / "data/a.zip", "w") as made:
        made.writestr("noise", NOISE)
        made.writestr("text", TEXT, zipfile.ZIP_DEFLATED)
    with tarfile.open(tmp_path / "data/a.tar.gz", "w:gz") as archive:
        archive.add(tmp_path / "data/a.zip", "inside.zip")
    (tmp_path / "data/lines").write_bytes(TEXT)
    bakthat.backup(tmp_path / "data", conf=local, password="")
    with bakthat.open_file("data", "a.zip", conf=local) as file, zipfile.ZipFile(file) as found:
        assert found.read("text") == TEXT
        assert found.read("noise") == NOISE
    with (
        bakthat.open_file("data", "a.tar.gz", conf=local) as file,
        tarfile.open(fileobj=file) as archive,
        archive.extractfile("inside.zip") or io.BytesIO() as member,
    ):
        assert member.read() == (tmp_path / "data/a.zip").read_bytes()
    with io.TextIOWrapper(bakthat.open_file("data", "lines", conf=local)) as lines:
        assert sum(1 for _ in lines) == 100_000
