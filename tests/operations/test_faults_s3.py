"""Operations on S3 when the network or the service fails at each of their stages.

In every case, earlier backups can be restored, the failure is reported in one line, and nothing is
left behind but what the message names.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

import bakthat
from bakthat import models
from bakthat.errors import BakthatError, CredentialsError, StorageError, UnreachableError
from bakthat.format.names import index_key, is_index_key
from tests.support.commandline import CommandLine
from tests.support.fault_proxy import (
    Alter,
    Answer,
    Cut,
    Fault,
    FaultProxy,
    LoseAnswer,
    Reset,
    Stall,
    refusal,
)
from tests.support.profiles import Conf, write_config
from tests.support.servers import S3_PART, parts_under_way, plain

pytestmark = pytest.mark.slow

LARGE = 2 * S3_PART + 1000
"""Bytes that take three parts, with their headers."""


@pytest.fixture(autouse=True)
def small_and_cheap(cheap_passphrases: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Cut the smallest parts, and spend no second on a passphrase."""
    monkeypatch.setattr("bakthat.backends.aws.part_plan.MIN_PART_SIZE", S3_PART)


@pytest.fixture
def conf(proxied_conf: Conf, isolated_environment: Path) -> Conf:
    """Return a profile that gives up soon, and whose requests go through the proxy."""
    return {
        **proxied_conf,
        "timeout": 30,
        "attempts": 1,
        "database": str(isolated_environment / "catalog.sqlite"),
    }


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    root = tmp_path / "mydir"
    root.mkdir()
    (root / "large").write_bytes(os.urandom(LARGE))
    return root


@pytest.fixture
def small(tmp_path: Path) -> Path:
    root = tmp_path / "mydir"
    root.mkdir()
    (root / "small").write_text("small")
    return root


def keys(conf: Conf) -> list[str]:
    """Return the keys of the archives, each of which has its index.

    Where the storage refuses everything, an index may stay without its archive until a cleanup.
    """
    found = plain(conf).list_objects_v2(Bucket=conf["s3_bucket"])
    stored = {each["Key"] for each in found.get("Contents", [])}
    archives = {key for key in stored if not is_index_key(key)}
    assert {index_key(key) for key in archives} <= stored
    return sorted(archives)


def listed(conf: Conf) -> list[str]:
    return [each.stored_filename for each in bakthat.ls(conf=conf)]


def check(error: BakthatError, conf: Conf) -> None:
    """See that an error names what failed, in one line and without a secret."""
    message = str(error)
    assert message.isprintable()
    assert "mydir" in message or conf["s3_bucket"] in message
    assert conf["secret_key"] not in message + error.hint


def refuse(conf: Conf, source: Path, kind: type[BakthatError] = StorageError) -> BakthatError:
    """Back up, expect a failure that leaves nothing behind, and return it."""
    before = keys(conf)
    with pytest.raises(kind) as caught:
        bakthat.backup(source, conf=conf, password="")
    check(caught.value, conf)
    assert sorted(listed(conf)) == before
    with models.catalog(conf["database"]):
        assert models.Reservations.select().count() == 0
    return caught.value


def heal(proxy: FaultProxy, conf: Conf, source: Path, out: Path) -> None:
    """End the faults; the next backup is stored, listed and comes back."""
    proxy.rules.clear()
    made = bakthat.backup(source, conf=conf, password="")
    assert made.stored_filename in keys(conf)
    bakthat.restore("mydir", conf=conf, output=out)
    for path in source.iterdir():
        assert (out / source.name / path.name).read_bytes() == path.read_bytes()
    assert sorted(listed(conf)) == sorted(keys(conf))


STAGES = {
    "looking": ("HEAD", "mydir."),
    "beginning": ("POST", "uploads"),
    "first part": ("PUT", "partNumber=1"),
    "second part": ("PUT", "partNumber=2"),
    "last part": ("PUT", "partNumber=3"),
    "publishing": ("POST", "uploadId="),
}
FAULTS: dict[str, tuple[Fault, type[BakthatError]]] = {
    "reset": (Reset(), UnreachableError),
    "busy": (refusal(503, "SlowDown"), StorageError),
    "silent": (Stall(), UnreachableError),
}


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("fault", FAULTS)
def test_a_backup_that_fails_at_any_stage_leaves_nothing(
    conf: Conf, moto_proxy: FaultProxy, tree: Path, tmp_path: Path, stage: str, fault: str
) -> None:
    kind, expected = FAULTS[fault]
    moto_proxy.on(*STAGES[stage], kind)
    began = time.monotonic()
    refuse({**conf, "timeout": 0.5 if fault == "silent" else 30}, tree, expected)
    assert time.monotonic() - began < 20
    assert parts_under_way(conf) == []
    assert keys(conf) == []
    if fault == "reset":
        heal(moto_proxy, conf, tree, tmp_path / "out")


ODD_ANSWERS: dict[str, tuple[tuple[str, str], Fault, str]] = {
    "publishing fails with status 200": (
        ("POST", "uploadId="),
        Answer(200, refusal(0, "InternalError").body),
        "InternalError",
    ),
    "publishing answers nonsense": (
        ("POST", "uploadId="),
        Answer(200, b"<html>Welcome to this hotel's network"),
        "mydir",
    ),
    "a part's wrong ETag": (
        ("PUT", "partNumber=1"),
        Alter({"etag": '"0123456789abcdef0123456789abcdef"'}),
        "InvalidPart",
    ),
    "a part's wrong checksum": (
        ("PUT", "partNumber=2"),
        Alter({"x-amz-checksum-crc32": "AAAAAA=="}),
        "altered in transit",
    ),
    "the wrong size in the end": (("HEAD", "mydir."), Alter({"content-length": "7"}), "7 bytes"),
    "an upload that is unknown in the end": (
        ("POST", "uploadId="),
        refusal(404, "NoSuchUpload"),
        "NoSuchUpload",
    ),
}


@pytest.mark.parametrize("name", ODD_ANSWERS)
def test_an_implausible_answer_is_no_confirmation(
    conf: Conf, moto_proxy: FaultProxy, tree: Path, name: str
) -> None:
    where, fault, message = ODD_ANSWERS[name]
    # Of the looks, only the last one finds the object.
    moto_proxy.on(*where, fault, after=2 if where[0] == "HEAD" else 0)
    assert message in str(refuse(conf, tree))
    assert parts_under_way(conf) == []
    assert keys(conf) == []


@pytest.mark.parametrize("fault", [refusal(503, "SlowDown"), refusal(500, "x"), Reset()])
def test_a_short_burst_of_failures_is_retried(
    conf: Conf,
    moto_proxy: FaultProxy,
    tree: Path,
    tmp_path: Path,
    fault: Fault,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # How long a pause is drawn anew each time; here it is always short.
    monkeypatch.setattr(
        "botocore.retries.standard.ExponentialBackoff.delay_amount", lambda *_: 0.01
    )
    for where in (*STAGES.values(), ("GET", "mydir.")):
        moto_proxy.on(*where, fault, times=2)
    patient = {**conf, "attempts": 4}
    bakthat.backup(tree, conf=patient, password="")
    bakthat.restore("mydir", conf=patient, output=tmp_path / "out")
    assert (tmp_path / "out/mydir/large").read_bytes() == (tree / "large").read_bytes()
    assert parts_under_way(conf) == []


def test_an_upload_whose_confirmation_was_lost_is_listed(
    conf: Conf, moto_proxy: FaultProxy, tree: Path
) -> None:
    moto_proxy.on("POST", "uploadId=", LoseAnswer())
    bakthat.backup(tree, conf=conf, password="")
    assert listed(conf) == keys(conf) != []


def test_an_object_that_is_stored_but_cannot_be_checked_is_reported_as_stored(
    conf: Conf, moto_proxy: FaultProxy, small: Path, tmp_path: Path
) -> None:
    moto_proxy.on("HEAD", ".tgz", Reset(), after=3)  # those before: two for the index
    with pytest.raises(UnreachableError, match="confirmed by the storage") as caught:
        bakthat.backup(small, conf=conf, password="")
    assert "bakthat sync" in caught.value.hint
    moto_proxy.rules.clear()
    # Whole, and found by its name.
    (key,) = keys(conf)
    bakthat.restore(key, conf=conf, output=tmp_path / "out")
    assert (tmp_path / "out/mydir/small").read_text() == "small"


def test_an_index_that_is_stored_but_cannot_be_checked_is_left_for_cleanup(
    conf: Conf, moto_proxy: FaultProxy, small: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    moto_proxy.on("HEAD", ".index", Reset(), after=1)
    with pytest.raises(UnreachableError, match="confirmed by the storage") as caught:
        bakthat.backup(small, conf=conf, password="")
    assert "bakthat cleanup" in caught.value.hint
    moto_proxy.rules.clear()
    assert keys(conf) == []
    assert bakthat.sync(conf=conf).changes == []
    tomorrow = time.time() + 100_000
    monkeypatch.setattr(time, "time", lambda: tomorrow)
    [left] = bakthat.cleanup(conf=conf)
    assert (left.kind, left.name[-10:]) == ("index", ".tgz.index")
    assert bakthat.cleanup(conf=conf) == []


def test_credentials_that_expire_half_way_name_what_remains(
    conf: Conf,
    moto_proxy: FaultProxy,
    tree: Path,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    for where in (("PUT", "partNumber=2"), ("POST", "uploadId="), ("DELETE", "uploadId=")):
        moto_proxy.on(*where, refusal(400, "ExpiredToken"))
    assert "ExpiredToken" in str(refuse(conf, tree, CredentialsError))
    (remaining,) = parts_under_way(conf)
    assert f"parts of {remaining} may remain" in caplog.text
    heal(moto_proxy, conf, tree, tmp_path / "out")


def test_a_bucket_that_turns_read_only_can_still_be_restored_from(
    conf: Conf,
    moto_proxy: FaultProxy,
    tree: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    old, made = (bakthat.backup(tree, conf=conf, password="") for _ in range(2))
    for verb in ("PUT", "POST", "DELETE"):
        moto_proxy.on(verb, "/", refusal(403, "AccessDenied"))
    assert refuse(conf, tree, CredentialsError).hint
    with pytest.raises(CredentialsError) as caught:
        bakthat.delete("mydir", conf=conf)
    check(caught.value, conf)
    monkeypatch.setattr(
        "bakthat.operations.retention.plan.time.time", lambda: made.backup_date + 3600.0
    )
    with pytest.raises(CredentialsError):
        bakthat.delete_older_than("mydir", "1s", conf=conf)
    assert listed(conf) == [made.stored_filename, old.stored_filename]
    assert sorted(keys(conf)) == [old.stored_filename, made.stored_filename]
    bakthat.restore("mydir", conf=conf, output=tmp_path / "out")
    assert (tmp_path / "out/mydir/large").read_bytes() == (tree / "large").read_bytes()


RESTORE_FAULTS: dict[str, tuple[tuple[str, str], Fault]] = {
    "looking is reset": (("HEAD", "mydir."), Reset()),
    "looking is refused": (("HEAD", "mydir."), Answer(403)),
    "reading is reset": (("GET", "mydir."), Reset()),
    "reading is busy": (("GET", "mydir."), refusal(503, "SlowDown")),
    "reading breaks": (("GET", "mydir."), refusal(500, "InternalError")),
    "reading stalls": (("GET", "mydir."), Stall()),
    "reading is cut": (("GET", "mydir."), Cut(100_000)),
    "keys expire": (("GET", "mydir."), refusal(400, "ExpiredToken")),
    "altered at the beginning": (("GET", "mydir."), Alter(flip=30)),
    "altered in the middle": (("GET", "mydir."), Alter(flip=1_000_000)),
}


HALF_WAY = ("reading is reset", "reading stalls", "altered in the middle")
"""These also befall the second of two ranges, when the first is being unpacked already."""


@pytest.mark.parametrize(
    ("name", "after"), [*((name, 0) for name in RESTORE_FAULTS), *((name, 1) for name in HALF_WAY)]
)
def test_a_restore_that_fails_leaves_the_destination_as_it_was(
    conf: Conf, moto_proxy: FaultProxy, tree: Path, tmp_path: Path, name: str, after: int
) -> None:
    where, fault = RESTORE_FAULTS[name]
    bakthat.backup(tree, conf=conf, password="pw" if after else "")
    moto_proxy.on(*where, fault, after=after)
    out = tmp_path / "out"
    out.mkdir()
    (out / "mine").write_text("mine")
    impatient = {**conf, "timeout": 0.5 if isinstance(fault, Stall) else 30}
    with pytest.raises(BakthatError) as caught:
        bakthat.restore("mydir", conf=impatient, output=out, password="pw")
    assert str(caught.value).isprintable()
    assert [path.name for path in out.iterdir()] == ["mine"]
    if after:
        moto_proxy.rules.clear()
        bakthat.restore("mydir", conf=conf, output=out, password="pw")
        assert (out / "mydir/large").read_bytes() == (tree / "large").read_bytes()


@pytest.mark.parametrize("fault", [Reset(), refusal(503, "SlowDown"), refusal(403, "AccessDenied")])
def test_a_deletion_that_fails_keeps_what_it_could_not_delete(
    conf: Conf, moto_proxy: FaultProxy, small: Path, fault: Fault
) -> None:
    bakthat.backup(small, conf=conf, password="")
    moto_proxy.on("DELETE", "mydir.", fault)
    with pytest.raises(StorageError) as caught:
        bakthat.delete("mydir", conf=conf)
    check(caught.value, conf)
    assert listed(conf) == keys(conf) != []


def test_a_deletion_whose_answer_was_lost_can_be_repeated(
    conf: Conf, moto_proxy: FaultProxy, small: Path
) -> None:
    bakthat.backup(small, conf=conf, password="")
    moto_proxy.on("DELETE", "mydir.", LoseAnswer(), times=1)
    with pytest.raises(UnreachableError):
        bakthat.delete("mydir", conf=conf)
    assert len(listed(conf)) == 1
    bakthat.delete("mydir", conf=conf)
    assert listed(conf) == keys(conf) == []


COMMANDS: dict[str, Callable[[FaultProxy], None]] = {
    "silent": lambda proxy: proxy.on("PUT", "mydir.", Stall()),
    "read-only": lambda proxy: proxy.on("PUT", "mydir.", refusal(403, "AccessDenied")),
}


@pytest.mark.parametrize("name", COMMANDS)
def test_the_command_line_reports_an_error_in_two_lines_and_exits_with_1(
    conf: Conf, moto_proxy: FaultProxy, small: Path, isolated_environment: Path, name: str
) -> None:
    path = isolated_environment / ".bakthat.yml"
    write_config(path, default={**conf, "timeout": 1})
    user = CommandLine(isolated_environment, small.parent)
    COMMANDS[name](moto_proxy)
    done = user.run("backup", "mydir", "--prompt", "no", "--quiet")
    assert done.code == 1
    error, hint = done.stderr.splitlines()
    assert error.startswith("bakthat: error: bucket '")
    assert hint.startswith(("bakthat: hint: check ", "bakthat: hint: allow s3:PutObject on "))
    assert done.stdout == ""
