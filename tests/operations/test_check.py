"""Check finds missing, damaged and unreadable backups, and writes nothing."""

from __future__ import annotations

import io
import os
from collections.abc import Callable
from pathlib import Path

import pytest

import bakthat
from bakthat.backends.base import Backend
from bakthat.backends.ranges import ObjectRanges
from bakthat.crypto import age
from bakthat.crypto.age import EncryptWriter
from bakthat.errors import NoMatchError, UnreachableError, UsageError
from bakthat.helper import KeyValue
from bakthat.operations.check.result import CheckResult, Verdict
from bakthat.session.indexes.home import home_of_index
from bakthat.session.session import Session
from bakthat.system import terminal
from tests.support.changed_indexes import Contents, change_index, index_by_reading, replaced
from tests.support.commandline import CommandLine, untimed
from tests.support.fault_proxy import FaultProxy, refusal
from tests.support.glacier_server import GlacierServer
from tests.support.indexes import forget_cache, lose_indexes
from tests.support.legacy import PASSWORD, Legacy, beefish, tarball
from tests.support.profiles import Conf
from tests.support.servers import S3Server, plain

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("cheap_passphrases")]

KIB, MIB = 1024, 1024 * 1024
IDENTITY = age.generate_identity()


@pytest.fixture
def tree(tree: Path) -> Path:
    (tree / "a.txt").write_bytes(bytes(range(256)) * 2000)
    (tree / "b.txt").write_text("hello")
    return tree


@pytest.fixture
def identity_file(tmp_path: Path) -> Path:
    path = tmp_path / "identity.txt"
    path.write_text(f"{IDENTITY}\n")
    return path


@pytest.fixture
def filled(conf: Conf, tree: Path) -> Conf:
    """Store one backup of each kind, and a value."""
    bakthat.backup(tree, conf=conf, password="", custom_filename="clear")
    bakthat.backup(tree, conf=conf, password="secret", custom_filename="phrase")
    recipients = [age.recipient_of(IDENTITY)]
    bakthat.backup(tree, conf=conf, recipients=recipients, custom_filename="keys")
    bakthat.backup(tree / "a.txt", conf={**conf, "compress": False}, password="")
    bakthat.backup(tree, conf={**conf, "compress": False}, password="", custom_filename="tar")
    KeyValue(conf=conf).set_key("mykey", {"some": "data"})
    return conf


def backend_of(conf: Conf) -> Backend:
    made = Session("default", None, conf, None)
    return made.backend(made.destination)


def verdicts(found: list[CheckResult]) -> dict[str, str]:
    return {each.backup.filename: each.verdict.value for each in found}


def replace(conf: Conf, key: str, content: bytes) -> None:
    backend = backend_of(conf)
    upload = backend.upload(key, metadata=dict(backend.stat(key).metadata or {}), replace=True)
    upload.write(content)
    upload.commit()


def content_of(conf: Conf, key: str) -> bytes:
    with backend_of(conf).download(key) as stream:
        return stream.read()


def stored(conf: Conf, name: str) -> str:
    return bakthat.ls(name, conf=conf)[0].stored_filename


def test_intact_backups_are_good(filled: Conf, identity_file: Path) -> None:
    found = bakthat.check(conf=filled)
    assert set(verdicts(found).values()) == {"stored"}
    assert len(found) == 6
    found = bakthat.check(
        conf=filled, read_data=True, password="secret", identity_file=identity_file
    )
    assert set(verdicts(found).values()) == {"read"}
    assert all(each.is_good for each in found)


def test_nothing_is_written(filled: Conf, tmp_path: Path, identity_file: Path) -> None:
    def everything() -> list[tuple[str, int]]:
        roots = (tmp_path, Path(filled["database"]).parent)
        found = [path for root in roots for path in root.rglob("*")]
        return sorted(
            (str(path), path.stat().st_mtime_ns)
            for path in found
            if "sqlite" not in path.name and ".cache" not in path.parts
        )

    before = everything()
    bakthat.check(conf=filled, read_data=True, password="secret", identity_file=identity_file)
    assert everything() == before


def test_a_missing_or_truncated_object_is_found_without_reading(filled: Conf) -> None:
    backend_of(filled).delete(stored(filled, "tar"))
    key = stored(filled, "clear")
    replace(filled, key, content_of(filled, key)[:-1])
    found = bakthat.check(conf=filled)
    assert verdicts(found) == {
        "clear": "wrong size",
        "phrase": "stored",
        "keys": "stored",
        "a.txt": "stored",
        "tar": "missing",
        "mykey": "stored",
    }
    [cut] = [each for each in found if each.verdict is Verdict.WRONG_SIZE]
    assert (
        cut.detail
        == f"{cut.backup.size - 1} bytes on the storage, {cut.backup.size} in the catalog"
    )


@pytest.mark.parametrize("name", ["clear", "phrase", "keys", "a.txt", "tar", "mykey"])
def test_one_altered_byte_is_found_by_reading(filled: Conf, identity_file: Path, name: str) -> None:
    key = stored(filled, name)
    content = bytearray(content_of(filled, key))
    content[len(content) // 2] ^= 0x55
    replace(filled, key, bytes(content))
    assert verdicts(bakthat.check(conf=filled))[name] == "stored"
    found = verdicts(
        bakthat.check(conf=filled, read_data=True, password="secret", identity_file=identity_file)
    )
    assert found.pop(name) == "damaged"
    assert set(found.values()) == {"read"}


@pytest.mark.parametrize("cut", [1, 5, 9, 20, 700])
@pytest.mark.parametrize("name", ["clear", "phrase"])
def test_an_object_truncated_before_it_was_listed_is_found_by_reading(
    local: Conf, tree: Path, name: str, cut: int
) -> None:
    password = "secret" if name == "phrase" else ""
    bakthat.backup(tree, conf=local, password=password, custom_filename=name)
    key = stored(local, name)
    path = Path(local["local_path"]) / key
    path.write_bytes(path.read_bytes()[:-cut])
    for file in Path(local["database"]).parent.glob("catalog*"):
        file.unlink()
    bakthat.sync(conf=local)
    assert verdicts(bakthat.check(conf=local)) == {name: "stored"}
    assert verdicts(bakthat.check(conf=local, read_data=True, password="secret")) == {
        name: "damaged"
    }


def test_a_swapped_backup_is_found_by_reading(local: Conf, tree: Path) -> None:
    for _ in range(2):
        bakthat.backup(tree, conf={**local, "compress": False}, password="secret")
    newer, older = bakthat.ls("mydir", conf=local)
    store = Path(local["local_path"])
    content = (store / older.stored_filename).read_bytes()
    assert newer.size == older.size == len(content)
    (store / newer.stored_filename).write_bytes(content)
    found = bakthat.check(conf=local, read_data=True, password="secret")
    assert [each.verdict.value for each in found] == ["damaged", "read"]
    assert "the archive says" in found[0].detail


def test_a_wrong_key_and_damage_are_different_verdicts(filled: Conf) -> None:
    found = bakthat.check(conf=filled, read_data=True, password="wrong")
    assert {name: verdict for name, verdict in verdicts(found).items() if verdict != "read"} == {
        "phrase": "no key",
        "keys": "no key",
    }


def test_a_password_is_asked_for_once(
    local: Conf, tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for _ in range(3):
        bakthat.backup(tree, conf=local, password="secret")
    asked: list[str] = []
    answers = ["", "secret"]

    def ask() -> str:
        asked.append("password")
        return answers.pop(0)

    monkeypatch.setattr(terminal, "is_interactive", lambda: True)
    monkeypatch.setattr(terminal, "ask_password", ask)
    found = bakthat.check(conf=local, read_data=True)
    assert ([each.verdict.value for each in found], len(asked)) == (["no key"] * 3, 1)
    found = bakthat.check(conf=local, read_data=True)
    assert ([each.verdict.value for each in found], len(asked)) == (["read"] * 3, 2)


def test_a_name_means_one_backup_or_all_of_a_set(local: Conf, tree: Path) -> None:
    for name in ("my", "my", "mysql"):
        bakthat.backup(tree, conf=local, password="", custom_filename=name)
    assert len(bakthat.check("my", conf=local)) == 2
    key = stored(local, "mysql")
    assert [each.backup.stored_filename for each in bakthat.check(key, conf=local)] == [key]
    assert len(bakthat.check("mys", conf=local)) == 1
    with pytest.raises(NoMatchError, match="no backup matches 'nothing'"):
        bakthat.check("nothing", conf=local)


@pytest.mark.parametrize(
    ("host", "destination", "where"),
    [
        (None, None, "no backup in the profile's containers"),
        ("box", None, "no backup of box in the profile's containers"),
        (None, "local", "no backup in local"),
        ("box", "local", "no backup of box in local"),
    ],
)
def test_it_is_said_where_nothing_was_found_to_check(
    local: Conf, host: str | None, destination: str | None, where: str
) -> None:
    with pytest.raises(NoMatchError, match=f"nothing to check: .*{where}"):
        bakthat.check(conf=local, host=host, destination=destination)


def test_a_sample_has_the_given_size(local: Conf, tree: Path) -> None:
    for _ in range(6):
        bakthat.backup(tree, conf=local, password="")
    picked = set()
    for _ in range(30):
        found = bakthat.check(conf=local, sample=2)
        assert len(found) == 2
        picked |= {each.backup.stored_filename for each in found}
    assert len(picked) > 2
    assert len(bakthat.check(conf=local, sample=100)) == 6
    for invalid in (0, True, "0", "0%", "101%", "-5%", "5 %", "some", "5.%", ""):
        with pytest.raises(UsageError, match="neither a number from 1 on nor a share"):
            bakthat.check(conf=local, sample=invalid)


def test_many_backups_are_looked_up_in_one_listing(
    moto_conf: Conf, local: Conf, moto_proxy: FaultProxy, tree: Path
) -> None:
    conf = {**moto_conf, "database": local["database"]}
    for _ in range(22):
        bakthat.backup(tree / "b.txt", conf=conf, password="")
    gone = bakthat.ls(conf=conf)[7].stored_filename
    backend_of(conf).delete(gone)
    proxied = {**conf, "endpoint_url": moto_proxy.endpoint_url}
    found = bakthat.check(conf=proxied)
    assert [each.backup.stored_filename for each in found if not each.is_good] == [gone]
    # The one that the listing lacks is asked for itself, and the bucket with it. The other listing
    # is that of the indexes.
    assert (moto_proxy.seen("GET"), moto_proxy.seen("HEAD")) == (2, 2)


def test_a_refusal_of_the_storage_is_reported_for_each_backup_and_stops_no_other(
    moto_conf: Conf, local: Conf, moto_proxy: FaultProxy, tree: Path
) -> None:
    both = {**moto_conf, "database": local["database"], "local_path": local["local_path"]}
    bakthat.backup(tree, "s3", conf=both, password="")
    bakthat.backup(tree, "local", conf=both, password="", custom_filename="here")
    moto_proxy.on("HEAD", "", refusal(400, "InvalidRequest"))
    found = bakthat.check(conf={**both, "endpoint_url": moto_proxy.endpoint_url})
    assert verdicts(found) == {"mydir": "unknown", "here": "stored"}
    moto_proxy.rules.clear()
    # A key that may write and list, but not read.
    moto_proxy.on("HEAD", "", refusal(403, "AccessDenied"))
    found = bakthat.check(conf={**both, "endpoint_url": moto_proxy.endpoint_url})
    assert {each.verdict: each.detail for each in found if each.backup.backend == "s3"} == {
        Verdict.STORED: "the access key may not read it: only its size was compared"
    }
    # Nor list.
    moto_proxy.on("GET", "", refusal(403, "AccessDenied"))
    found = bakthat.check(conf={**both, "endpoint_url": moto_proxy.endpoint_url})
    assert verdicts(found) == {"mydir": "unknown", "here": "stored"}
    found = bakthat.check(conf={**both, "s3_bucket": "missing-bucket"})
    assert verdicts(found) == {"here": "stored"}  # another bucket's are not this profile's


def test_a_cold_backup_is_reported_and_not_thawed(
    moto_endpoint: S3Server, local: Conf, tree: Path, moto_proxy: FaultProxy
) -> None:
    conf = {**moto_endpoint.conf(storage_class="DEEP_ARCHIVE"), "database": local["database"]}
    bakthat.backup(tree, conf=conf, password="")
    conf["endpoint_url"] = moto_proxy.endpoint_url
    for read_data in (False, True):
        [found] = bakthat.check(conf=conf, read_data=read_data)
        assert (found.verdict, found.is_good) == (Verdict.COLD, True)
        assert "DEEP_ARCHIVE" in found.detail
    assert moto_proxy.seen("POST") == 0
    # moto thaws at once; what is thawed can be read.
    key = stored(conf, "mydir")
    plain(conf).restore_object(Bucket=conf["s3_bucket"], Key=key, RestoreRequest={"Days": 1})
    assert verdicts(bakthat.check(conf=conf, read_data=True)) == {"mydir": "read"}


def test_archives_of_a_vault_are_cold_until_they_are_thawed(
    glacier: GlacierServer, local: Conf, tree: Path
) -> None:
    conf = {**glacier.conf(), "database": local["database"]}
    bakthat.backup(tree, conf=conf, password="")
    for read_data in (False, True):
        [found] = bakthat.check(conf=conf, read_data=read_data)
        assert found.verdict is Verdict.COLD
    assert glacier.asked == []
    assert bakthat.restore("mydir", conf=conf) is None
    glacier.advance(hours=6)
    assert verdicts(bakthat.check(conf=conf, read_data=True)) == {"mydir": "read"}


def test_backups_of_060_are_read_too(moto_endpoint: S3Server, local: Conf) -> None:
    legacy = Legacy(moto_endpoint.conf(), Path(local["database"]))
    metadata = {"is_enc": True, "client": "oldhost"}
    body = beefish(tarball("mydir", {"a.txt": b"hello"}))
    legacy.store("mydir.20130604191055.tgz.enc", "mydir", body, metadata, 1370373055)
    assert verdicts(bakthat.check(conf=legacy.conf, read_data=True, password=PASSWORD)) == {
        "mydir": "read"
    }
    assert verdicts(bakthat.check(conf=legacy.conf, read_data=True, password="wrong")) == {
        "mydir": "no key"
    }


def test_a_value_that_another_machine_replaced_is_no_damage(conf: Conf, tmp_path: Path) -> None:
    KeyValue(conf=conf).set_key("mykey", "one")
    there = {**conf, "database": str(tmp_path / "there.sqlite")}
    KeyValue(conf=there).set_key("mykey", ["two"] * 50, password="secret")
    assert verdicts(bakthat.check(conf=conf)) == {"mykey": "stored"}
    assert verdicts(bakthat.check(conf=conf, read_data=True, password="secret")) == {
        "mykey": "read"
    }


# Indexes.


def home_of(conf: Conf, key: str) -> tuple[Backend, str]:
    session = Session("default", None, conf)
    return home_of_index(session, session.backend(session.destination), key)


def index_problems(found: list[CheckResult]) -> dict[str, str]:
    return {each.backup.filename: each.index_problem for each in found if each.index_problem}


def test_a_missing_index_is_told_without_reading_and_is_no_damage(
    filled: Conf, identity_file: Path
) -> None:
    assert index_problems(bakthat.check(conf=filled)) == {}
    missing = dict.fromkeys(
        ("phrase", "a.txt"), "its index is missing; bakthat sync --indexes makes it again"
    )
    lose_indexes(filled, *(stored(filled, name) for name in missing))
    found = bakthat.check(conf=filled)
    assert all(each.is_good for each in found)
    assert index_problems(found) == missing
    found = bakthat.check(
        conf=filled, read_data=True, password="secret", identity_file=identity_file
    )
    assert set(verdicts(found).values()) == {"read"}
    assert index_problems(found) == missing
    as_json = {each["filename"]: each["index_problem"] for each in map(CheckResult.as_dict, found)}
    assert as_json == {**dict.fromkeys(verdicts(found), ""), **missing}


def test_an_index_of_another_archive_is_told(filled: Conf) -> None:
    for name, other, sizes in (("clear", "tar", True), ("a.txt", "phrase", False)):
        home, key = home_of(filled, stored(filled, name))
        _, wrong = home_of(filled, stored(filled, other))
        content = home.download(wrong).read()
        upload = home.upload(
            key, metadata=dict(home.stat(wrong if sizes else key).metadata or {}), replace=True
        )
        upload.write(content)
        upload.commit()
    forget_cache()
    another = "its index says that it is that of another archive"
    problems = index_problems(bakthat.check(conf=filled))
    assert [each.split(";")[0] for each in problems.values()] == [another]
    assert list(problems) == ["clear"]
    # What says that it is the right one is found by reading it.
    problems = index_problems(bakthat.check("a.txt", conf=filled, read_data=True, prompt="no"))
    assert problems["a.txt"].startswith("its index cannot be used; ")


def test_a_damaged_index_is_told_by_reading(local: Conf, tree: Path) -> None:
    made = bakthat.backup(tree, conf=local, password="secret")
    path = Path(local["local_path"], f"{made.stored_filename}.index")
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    forget_cache()
    for sample in (None, "50%"):
        [found] = bakthat.check(conf=local, read_data=not sample, sample=sample, password="secret")
        assert (found.verdict.value, found.is_good) == ("stored" if sample else "read", True)
        assert found.index_problem.startswith("its index cannot be used; ")


def test_the_indexes_of_many_backups_are_looked_up_in_one_listing(
    moto_conf: Conf, local: Conf, moto_proxy: FaultProxy, tree: Path
) -> None:
    conf = {**moto_conf, "database": local["database"]}
    made = [bakthat.backup(tree / "b.txt", conf=conf, password="") for _ in range(22)]
    lose_indexes(conf, made[5].stored_filename)
    found = bakthat.check(conf={**conf, "endpoint_url": moto_proxy.endpoint_url})
    assert [each.backup.stored_filename for each in found if each.index_problem] == [
        made[5].stored_filename
    ]
    # The listing of the archives, that of the indexes, and a look at what that lacks.
    assert (moto_proxy.seen("GET"), moto_proxy.seen("HEAD")) == (2, 2)


def test_no_index_is_missed_that_was_never_made(moto_endpoint: S3Server, local: Conf) -> None:
    legacy = Legacy(moto_endpoint.conf(), Path(local["database"]))
    body = tarball("mydir", {"a.txt": b"hello"})
    legacy.store("mydir.20130604191055.tgz", "mydir", body, {"client": "oldhost"}, 1370373055)
    KeyValue(conf=legacy.conf).set_key("mykey", "value")
    for sample, verdict in ((None, "read"), ("50%", "stored")):
        found = bakthat.check(conf=legacy.conf, read_data=sample is None, sample=sample)
        assert set(verdicts(found).values()) == {verdict}
        assert index_problems(found) == {}


@pytest.fixture
def large(tree: Path) -> Path:
    """Return a tree of 20 members of random bytes, in files of several sizes."""
    for number in range(300):
        (tree / f"small{number}").write_bytes(os.urandom(16 * KIB))
    for number in range(3):
        (tree / f"large{number}").write_bytes(os.urandom(5 * MIB))
    return tree


@pytest.mark.parametrize("password", ["", "secret"])
@pytest.mark.parametrize("compress", [True, False])
def test_files_that_differ_from_the_index_are_named(
    local: Conf, tree: Path, password: str, compress: bool
) -> None:
    """The archive was replaced by whoever has the keys, or the index was."""
    conf = {**local, "compress": compress}
    for number in range(25):
        (tree / f"{number:02}").write_text(f"{number}\n")
    first = bakthat.backup(tree, conf=conf, password=password)
    for name in ("03", "b.txt"):
        (tree / name).write_text((tree / name).read_text().swapcase().replace("3", "8"))
    second = bakthat.backup(tree, conf=conf, password=password)
    store = Path(local["local_path"])
    plain_index = index_by_reading(conf, second.stored_filename, password)
    contents = Contents.of(plain_index, second.stored_filename)
    old = Contents.of(
        index_by_reading(conf, first.stored_filename, password), first.stored_filename
    )
    hashes = {each.path: each.digest for each in old.entries}
    contents.entries = [each._replace(digest=hashes[each.path]) for each in contents.entries]
    if password:
        sink = io.BytesIO()
        with EncryptWriter(sink, passphrase=password, work_factor=1) as stage:
            stage.write(contents.packed())
        (store / f"{second.stored_filename}.index").write_bytes(sink.getvalue())
    else:
        (store / f"{second.stored_filename}.index").write_bytes(contents.packed())
    forget_cache()
    [found] = bakthat.check(second.stored_filename, conf=conf, read_data=True, password=password)
    assert (found.verdict, found.is_good) == (Verdict.DAMAGED, False)
    assert found.detail == ("2 files differ from the SHA-256 in the index: mydir/03, mydir/b.txt")


def test_of_many_files_that_differ_some_are_named(local: Conf, tree: Path) -> None:
    for number in range(30):
        (tree / f"{number:02}").write_text(f"{number}\n")
    made = bakthat.backup(tree, conf=local, password="")

    def forge(contents: Contents) -> None:
        contents.entries = [
            each._replace(digest=bytes(32)) if each.digest and each.path[6:7] in "012" else each
            for each in contents.entries
        ]

    change_index(local, made.stored_filename, forge)
    [found] = bakthat.check(conf=local, read_data=True)
    assert found.detail.startswith("30 files differ from the SHA-256 in the index: mydir/00, ")
    assert found.detail.endswith(", mydir/19 and 10 more")


@pytest.fixture
def mixed(tree: Path) -> Path:
    """Return a tree of which one file is more than the half, with hard links."""
    (tree / "big").write_bytes(os.urandom(7 * MIB))
    for number in range(20):
        (tree / f"small{number:02}").write_bytes(os.urandom(200 * KIB))
        os.link(tree / f"small{number:02}", tree / f"z{number:02}")
    return tree


@pytest.fixture
def tiny(tree: Path) -> Path:
    """Return a tree that is stored in less than 1 MiB."""
    for number in range(30):
        (tree / f"small{number:02}").write_bytes(os.urandom(10 * KIB))
    return tree


@pytest.mark.parametrize("compress", [True, False])
@pytest.mark.parametrize("encrypt", [True, False])
@pytest.mark.parametrize("kind", ["large", "mixed", "tiny"])
def test_the_files_that_a_damaged_archive_has_lost_are_named(
    request: pytest.FixtureRequest,
    local: Conf,
    tmp_path: Path,
    identity_file: Path,
    compress: bool,
    encrypt: bool,
    kind: str,
) -> None:
    """Each file is named that cannot be restored alone, and no other."""
    tree: Path = request.getfixturevalue(kind)
    conf = {**local, "compress": compress, "identity_file": str(identity_file)}
    if encrypt:
        conf["recipients"] = [age.recipient_of(IDENTITY)]
    made = bakthat.backup(tree, conf=conf, password=None if encrypt else "")
    assert made.stored_filename.endswith(".age") == encrypt
    path = Path(local["local_path"], made.stored_filename)
    content = bytearray(path.read_bytes())
    for place in (0.5, 0.51, 0.7):
        content[int(len(content) * place)] ^= 1
    path.write_bytes(content)
    [found] = bakthat.check(conf=conf, read_data=True)
    assert found.verdict == Verdict.DAMAGED
    named = found.detail.rpartition(": ")[2].partition(" and ")[0].split(", ")
    assert named, found.detail
    paths = [each.path for each in bakthat.contents(made.stored_filename, conf=conf)]
    numbers = [paths.index(each) for each in named]
    near = {number + step for number in numbers for step in (-2, -1, 0, 1, 2)}
    near.update(range(0, len(paths), 50))
    for path_in_it in [paths[number] for number in sorted(near) if 0 < number < len(paths)]:
        try:
            bakthat.restore(
                made.stored_filename, conf=conf, output=tmp_path / "out", only=path_in_it
            )
        except bakthat.BakthatError:
            assert path_in_it in named or " and " in found.detail
        else:
            assert path_in_it not in named


def test_damage_is_told_also_when_the_storage_fails_while_its_files_are_looked_for(
    local: Conf, large: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = bakthat.backup(large, conf=local, password="")
    path = Path(local["local_path"], made.stored_filename)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    read_at = ObjectRanges.read_at

    def fail(ranges: ObjectRanges, offset: int, size: int, /) -> bytes:
        if size > MIB:
            raise UnreachableError("the storage stopped answering")
        return read_at(ranges, offset, size)

    monkeypatch.setattr(ObjectRanges, "read_at", fail)
    [found] = bakthat.check(conf=local, read_data=True)
    assert found.verdict == Verdict.DAMAGED
    assert found.detail.endswith("could not be found out: the storage stopped answering")


def test_an_archive_of_which_nothing_is_left_says_so(local: Conf, large: Path) -> None:
    made = bakthat.backup(large, conf=local, password="")
    Path(local["local_path"], made.stored_filename).write_bytes(os.urandom(made.size))
    [found] = bakthat.check(conf=local, read_data=True)
    assert found.verdict == Verdict.DAMAGED
    count = len(list(large.iterdir())) + 1
    assert f"; {count} files cannot be restored: mydir, mydir/" in found.detail


# A share of the data.


def positions(monkeypatch: pytest.MonkeyPatch, share: float) -> Callable[[int], None]:
    """Return a function that chooses where the next check begins, in shares."""

    def choose(number: int) -> None:
        monkeypatch.setattr(
            "bakthat.pipeline.sample.random.randrange", lambda count: round(number * count * share)
        )

    return choose


@pytest.mark.parametrize("name", ["clear", "phrase", "keys", "tar", "file"])
def test_a_share_of_the_data_is_read_by_ranges(
    moto_conf: Conf,
    moto_proxy: FaultProxy,
    local: Conf,
    large: Path,
    identity_file: Path,
    name: str,
) -> None:
    conf = {**moto_conf, "database": local["database"], "compress": name not in ("tar", "file")}
    made = bakthat.backup(
        large / "large0" if name == "file" else large,
        conf=conf,
        password="secret" if name == "phrase" else "",
        recipients=[age.recipient_of(IDENTITY)] if name == "keys" else [],
    )
    conf = {**conf, "endpoint_url": moto_proxy.endpoint_url}
    for share in (5, 30):
        before = moto_proxy.answered_bytes
        [found] = bakthat.check(
            conf=conf, sample=f"{share}%", password="secret", identity_file=identity_file
        )
        assert (found.verdict.value, found.is_good) == ("sampled", True), found.detail
        assert found.detail == f"{share} % of it was read"
        received = moto_proxy.answered_bytes - before
        # Two members more, where the share begins and ends; and the index.
        assert 0.6 * share / 100 < received / made.size < share / 100 + 2.5 * MIB / made.size


@pytest.mark.parametrize("compress", [True, False])
@pytest.mark.parametrize("password", ["", "secret"])
def test_shares_one_after_the_other_read_everything(
    local: Conf, large: Path, monkeypatch: pytest.MonkeyPatch, compress: bool, password: str
) -> None:
    """What is damaged is found by the share that it is in, and by no other."""
    conf = {**local, "compress": compress}
    made = bakthat.backup(large, conf=conf, password=password)
    path = Path(local["local_path"], made.stored_filename)
    intact = path.read_bytes()
    choose = positions(monkeypatch, 0.25)
    for place in (0.1, 0.4, 0.6, 0.9):
        content = bytearray(intact)
        content[int(len(content) * place)] ^= 1
        path.write_bytes(content)
        verdicts = []
        for number in range(4):
            choose(number)
            [found] = bakthat.check(conf=conf, sample="25%", password=password)
            verdicts.append(found.verdict.value)
        expected = ["sampled"] * 4
        # Without compression and encryption, a hash covers only files that are whole in a share.
        if compress or password:
            expected[int(place * 4)] = "damaged"
            assert verdicts == expected, place
        path.write_bytes(intact)


def test_a_file_in_the_share_that_differs_from_the_index_is_named(
    local: Conf, large: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = bakthat.backup(large, conf=local, password="")
    wrong = "mydir/small77"

    def forge(contents: Contents) -> None:
        contents.entries = replaced(contents.entries, wrong, digest=bytes(32))

    change_index(local, made.stored_filename, forge)
    choose, details = positions(monkeypatch, 0.1), []
    for number in range(10):
        choose(number)
        [found] = bakthat.check(conf=local, sample="10%")
        details.append(found.detail)
    assert sorted(set(details)) == [
        "1 file differs from the SHA-256 in the index: mydir/small77",
        "10 % of it was read",
    ]


# The command line.


@pytest.fixture
def user(user: CommandLine, tree: Path) -> CommandLine:
    assert tree.parent == user.directory  # where the commands run
    return user


def test_the_exit_code_is_0_for_good_backups_and_1_for_bad_ones(user: CommandLine) -> None:
    env = {"BAKTHAT_PASSWORD": "secret"}
    assert user.run("backup", "mydir", env=env).code == 0
    good = user.run("check")
    assert good.code == 0
    header, row = good.stdout.splitlines()
    assert header.split() == ["FOUND", "DATE", "(UTC)", "WHERE", "SIZE", "NAME", "DETAIL"]
    assert row.startswith("stored  20")
    assert untimed(good.stderr) == "Checked 1 backup: 1 good, 0 wrong\n"
    share = user.run("check", "--sample", "5%", env=env)
    assert (share.code, share.stdout.split()[7]) == (0, "sampled")
    [index] = (user.home / ".bakthat_store").glob("*.index")
    index.rename(index.with_name("elsewhere"))
    without = user.run("check")
    assert (without.code, without.stdout.count("its index is missing; bakthat sync")) == (0, 1)
    assert untimed(without.stderr) == (
        "Checked 1 backup: 1 good, 0 wrong; 1 backup without a good index\n"
    )
    index.with_name("elsewhere").rename(index)
    read = user.run("check", "--read-data", "--sample", "3", env=env)
    assert (read.code, read.stdout.split()[7]) == (0, "read")
    no_key = user.run("check", "--read-data", "--json")
    assert no_key.code == 1
    [result] = no_key.lines("check")
    assert (result["good"], result["verdict"]) == (False, "no key")
    assert "none was given" in result["detail"]
    [path] = (user.home / ".bakthat_store").glob("*.age")
    path.unlink()
    bad = user.run("check")
    assert bad.code == 1
    assert bad.stdout.splitlines()[1].startswith("missing  20")
    assert untimed(bad.stderr) == (
        "bakthat: error: 1 of 1 backup failed the check\nChecked 1 backup: 0 good, 1 wrong\n"
    )
    for sample in ("0", "0%", "x"):
        assert user.run("check", "--sample", sample).code == 2
    assert user.run("check", "nothing").code == 1
    assert user.run("check", "--read-data", "--prompt", "maybe").code == 2


def test_on_a_terminal_the_password_is_asked_for_once(user: CommandLine) -> None:
    for _ in range(2):
        assert user.run("backup", "mydir", env={"BAKTHAT_PASSWORD": "secret"}).code == 0
    code, screen = user.converse("check", "--read-data", answers=[("Password: ", "secret\n")])
    assert code == 0, screen
    assert screen.count("Password: ") == 1
    assert "2 good, 0 wrong" in " ".join(screen.split())
