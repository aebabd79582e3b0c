"""Check finds missing, damaged and unreadable backups, and writes nothing."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import bakthat
from bakthat.backends.base import Backend
from bakthat.crypto import age
from bakthat.errors import NoMatchError, UsageError
from bakthat.helper import KeyValue
from bakthat.operations.check import CheckResult, Verdict
from bakthat.session.session import Session
from bakthat.system import terminal
from tests.support.commandline import CommandLine, untimed
from tests.support.fault_proxy import FaultProxy, refusal
from tests.support.glacier_server import GlacierServer
from tests.support.legacy import PASSWORD, Legacy, beefish, tarball
from tests.support.profiles import Conf
from tests.support.servers import S3Server, plain, share_service_models

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("cheap_passphrases")]

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
            (str(path), path.stat().st_mtime_ns) for path in found if "sqlite" not in path.name
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
    if name == "tar":  # without compression and encryption nothing covers the contents of files
        assert found[name] in ("read", "damaged")
    else:
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
    with pytest.raises(UsageError, match="a sample must be a whole number from 1 on"):
        bakthat.check(conf=local, sample=0)


def test_many_backups_are_looked_up_in_one_listing(
    moto_conf: Conf, local: Conf, moto_proxy: FaultProxy, tree: Path
) -> None:
    share_service_models()
    conf = {**moto_conf, "database": local["database"]}
    for _ in range(22):
        bakthat.backup(tree / "b.txt", conf=conf, password="")
    gone = bakthat.ls(conf=conf)[7].stored_filename
    backend_of(conf).delete(gone)
    proxied = {**conf, "endpoint_url": moto_proxy.endpoint_url}
    found = bakthat.check(conf=proxied)
    assert [each.backup.stored_filename for each in found if not each.is_good] == [gone]
    # The one that the listing lacks is asked for itself, and the bucket with it.
    assert (moto_proxy.seen("GET"), moto_proxy.seen("HEAD")) == (1, 2)


def test_a_refusal_of_the_storage_is_reported_for_each_backup_and_stops_no_other(
    moto_conf: Conf, local: Conf, moto_proxy: FaultProxy, tree: Path
) -> None:
    share_service_models()
    both = {**moto_conf, "database": local["database"], "local_path": local["local_path"]}
    bakthat.backup(tree, "s3", conf=both, password="")
    bakthat.backup(tree, "local", conf=both, password="", custom_filename="here")
    moto_proxy.on("HEAD", "", refusal(403, "AccessDenied"))
    found = bakthat.check(conf={**both, "endpoint_url": moto_proxy.endpoint_url})
    assert verdicts(found) == {"mydir": "unknown", "here": "stored"}
    found = bakthat.check(conf={**both, "s3_bucket": "missing-bucket"})
    assert verdicts(found) == {"here": "stored"}  # another bucket's are not this profile's


def test_a_cold_backup_is_reported_and_not_thawed(
    moto_endpoint: S3Server, local: Conf, tree: Path, moto_proxy: FaultProxy
) -> None:
    share_service_models()
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
    share_service_models()
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
    share_service_models()
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
    read = user.run("check", "--read-data", "--sample", "3", env=env)
    assert (read.code, read.stdout.split()[7]) == (0, "read")
    no_key = user.run("check", "--read-data", "--json")
    assert no_key.code == 1
    [result] = json.loads(no_key.stdout)
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
    assert user.run("check", "--sample", "0").code == 2
    assert user.run("check", "nothing").code == 1
    assert user.run("check", "--read-data", "--prompt", "maybe").code == 2


def test_on_a_terminal_the_password_is_asked_for_once(user: CommandLine) -> None:
    for _ in range(2):
        assert user.run("backup", "mydir", env={"BAKTHAT_PASSWORD": "secret"}).code == 0
    code, screen = user.converse("check", "--read-data", answers=[("Password: ", "secret\n")])
    assert code == 0, screen
    assert screen.count("Password: ") == 1
    assert "2 good, 0 wrong" in " ".join(screen.split())
