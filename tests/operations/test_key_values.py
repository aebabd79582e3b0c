"""KeyValue stores, returns and refuses values, on a local directory and on real S3 servers."""

from __future__ import annotations

import gzip
import json
import threading
from pathlib import Path
from typing import Any

import pytest
import requests
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import bakthat
from bakthat import models
from bakthat.crypto import age
from bakthat.errors import (
    AmbiguousNameError,
    BakthatError,
    CatalogError,
    ConfigError,
    ContainerNotFoundError,
    CorruptArchiveError,
    KeyFormatError,
    NoMatchError,
    NotFoundError,
    PasswordError,
    StorageError,
    UsageError,
    WrongKeyError,
)
from bakthat.helper import KeyValue
from tests.support.commandline import CommandLine
from tests.support.profiles import Conf, write_config

pytestmark = pytest.mark.usefixtures("cheap_passphrases")

VALUE = {"some": ["data", 1, -0.5, None, True, "ü\ud800"], "nested": {"": []}}


def stored_files(conf: Conf) -> list[str]:
    store = Path(conf["local_path"])
    return sorted(each.name for each in store.iterdir()) if store.exists() else []


def body_of(conf: Conf, name: str) -> bytes:
    return (Path(conf["local_path"]) / name).read_bytes()


def listed(conf: Conf) -> list[str]:
    return [each.stored_filename for each in bakthat.ls(conf=conf)]


@pytest.mark.parametrize("password", ["", "pässword"])
@pytest.mark.parametrize("compress", [True, False])
def test_a_value_comes_back(conf: Conf, compress: bool, password: str, tmp_path: Path) -> None:
    kv = KeyValue(conf=conf)
    made = kv.set_key("mykey", VALUE, password=password, compress=compress)
    assert made.stored_filename == "mykey.keyvalue"
    assert (made.filename, made.size > 0, made.is_key_value) == ("mykey", True, True)
    assert made.is_encrypted == bool(password)
    assert kv.get_key("mykey", password=password or None) == VALUE
    assert listed(conf) == ["mykey.keyvalue"]
    bakthat.restore("mykey", conf=conf, output=tmp_path / "out", password=password or None)
    assert [each.name for each in (tmp_path / "out").iterdir()] == ["mykey.json"]
    assert json.loads((tmp_path / "out" / "mykey.json").read_text()) == VALUE
    assert kv.delete_key("mykey")
    assert listed(conf) == []
    assert kv.get_key("mykey") is None


def test_the_object_alone_is_enough(conf: Conf, tmp_path: Path) -> None:
    KeyValue(conf=conf).set_key("mykey", VALUE, password="pw")
    lost = {**conf, "database": str(tmp_path / "another.sqlite")}
    assert KeyValue(conf=lost).get_key("mykey", password="pw") == VALUE
    for name in ("mykey", "mykey.keyvalue"):
        bakthat.restore(name, conf=lost, output=tmp_path / name, password="pw")
        assert json.loads((tmp_path / name / "mykey.json").read_text()) == VALUE
    assert KeyValue(conf=lost).delete_key("mykey")
    assert KeyValue(conf=conf).get_key("mykey", default="gone") == "gone"


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)  # fmt: skip


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(value=json_values, compress=st.booleans(), password=st.sampled_from(["", "pw"]))
def test_any_json_comes_back_and_replaces_the_former_value(
    local: Conf, value: object, compress: bool, password: str
) -> None:
    kv = KeyValue(conf=local)
    kv.set_key("mykey", value, compress=compress, password=password)
    found = kv.get_key("mykey", password=password or None, default="absent")
    assert json.dumps(found) == json.dumps(value)
    assert listed(local) == ["mykey.keyvalue"]


def recursive() -> list[Any]:
    value: list[Any] = []
    value.append(value)
    return value


@pytest.mark.parametrize(
    "value",
    [
        object(),
        {1, 2},
        b"bytes",
        float("nan"),
        [float("inf")],
        {(1, 2): 3},
        {1: "a", "1": "b"},
        recursive(),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_is_not_json_is_refused_before_anything_is_stored(local: Conf, value: object) -> None:
    with pytest.raises(UsageError, match="the value of 'mykey' is not JSON"):
        KeyValue(conf=local).set_key("mykey", value)
    assert stored_files(local) == []


@pytest.mark.parametrize(
    "key", ["", ".", "..", "a/b", "a\nb", "x" * 256, "\ud800", "a.keyvalue", "\x1b[31m"]
)
def test_names_that_cannot_be_keys_are_refused(local: Conf, key: str) -> None:
    with pytest.raises(UsageError, match="key"):
        KeyValue(conf=local).set_key(key, 1)
    assert stored_files(local) == []


@pytest.mark.parametrize("key", ["", "a//b", "..", "\ud800"])
def test_an_invalid_key_is_refused_by_every_method(local: Conf, key: str) -> None:
    kv = KeyValue(conf=local)
    kv.set_key("mykey", 1)
    with pytest.raises(UsageError):
        kv.get_key(key)
    if key in ("a//b", "\ud800"):
        with pytest.raises(UsageError):
            kv.delete_key(key)
    assert kv.get_key("mykey") == 1


def test_the_file_on_disk_is_gzip_of_json_or_age_of_that(local: Conf) -> None:
    import pyrage  # type: ignore[import-untyped]  # it comes without types

    kv = KeyValue(conf=local)
    kv.set_key("zipped", VALUE)
    assert json.loads(gzip.decompress(body_of(local, "zipped.keyvalue"))) == VALUE
    kv.set_key("plain", VALUE, compress=False)
    assert json.loads(body_of(local, "plain.keyvalue")) == VALUE
    kv.set_key("secret", VALUE, password="pw")
    opened = pyrage.passphrase.decrypt(body_of(local, "secret.keyvalue"), "pw")
    assert json.loads(gzip.decompress(opened)) == VALUE


def test_a_missing_key_gives_the_default(conf: Conf) -> None:
    kv = KeyValue(conf=conf)
    kv.set_key("there", False)
    assert kv.get_key("missing") is None
    assert kv.get_key("missing", default=7) == 7
    assert kv.get_key("there", default=7) is False
    assert not kv.delete_key("missing")


def test_a_missing_container_is_no_missing_key(conf: Conf) -> None:
    kv = KeyValue(conf=conf)
    for operation in (kv.get_key, kv.delete_key):
        with pytest.raises(ContainerNotFoundError):
            operation("mykey")
    if conf.get("default_destination") == "local":
        assert stored_files(conf) == []


def test_a_deleted_key_can_be_set_again(conf: Conf) -> None:
    kv = KeyValue(conf=conf)
    kv.set_key("mykey", 1)
    assert kv.delete_key("mykey")
    kv.set_key("mykey", 2, password="pw")
    assert kv.get_key("mykey", password="pw") == 2
    assert listed(conf) == ["mykey.keyvalue"]
    bakthat.delete("mykey", conf=conf)
    assert kv.get_key("mykey") is None
    kv.set_key("mykey", 3)
    assert kv.get_key("mykey") == 3
    with models.catalog(conf.get("database", "~/.bakthat.sqlite")):
        assert models.Backups.select().count() == 1


def test_a_value_that_another_machine_replaced_is_restored_as_it_is_now(
    local: Conf, tmp_path: Path
) -> None:
    KeyValue(conf=local).set_key("mykey", 1, password="old")
    elsewhere = {**local, "database": str(tmp_path / "another.sqlite")}
    KeyValue(conf=elsewhere).set_key("mykey", "something longer", compress=False)
    bakthat.restore("mykey", conf=local, output=tmp_path)
    assert (tmp_path / "mykey.json").read_text() == '"something longer"'


def test_rotation_and_expiry_ignore_keys(
    local: Conf, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mykey").mkdir()
    kv = KeyValue(conf=local)
    kv.set_key("mykey", 1)
    with monkeypatch.context() as patch:
        # Three backups in one second take the next two, which must not be in the future.
        patch.setattr("bakthat.operations.backup.store.time.time", lambda: 1370373055.0)
        for _ in range(3):
            bakthat.backup(tmp_path / "mykey", conf=local, password="")
    assert len(bakthat.rotate_backups("mykey", conf=local, last=1)) == 2
    assert kv.get_key("mykey") == 1
    assert "mykey.keyvalue" in listed(local)
    kv.set_key("alone", 1)
    with pytest.raises(NoMatchError) as caught:
        bakthat.rotate_backups("alone", conf=local, last=1)
    assert "KeyValue.delete_key" in caught.value.hint
    with pytest.raises(NoMatchError, match="has no backups of 'alone'"):
        bakthat.delete_older_than("alone", "1s", conf=local)


def test_a_key_and_a_set_of_the_same_name_are_never_confused(local: Conf, tmp_path: Path) -> None:
    (tmp_path / "both").mkdir()
    made = bakthat.backup(tmp_path / "both", conf=local, password="")
    KeyValue(conf=local).set_key("both", 1)
    for operation in (bakthat.restore, bakthat.delete):
        with pytest.raises(AmbiguousNameError, match="the key both"):
            operation("both", conf=local)
    assert bakthat.delete("both.keyvalue", conf=local).is_key_value
    assert listed(local) == [made.stored_filename]


def test_setting_from_many_threads_leaves_one_whole_value(local: Conf) -> None:
    kv = KeyValue(conf=local)
    failures: list[BaseException] = []

    def work(number: int) -> None:
        try:
            kv.set_key("shared", [number] * 1000)
            kv.set_key(f"own-{number}", number)
        except BaseException as exc:  # noqa: BLE001  # reported below
            failures.append(exc)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert len(set(kv.get_key("shared"))) == 1
    assert len(listed(local)) == 9
    assert [kv.get_key(f"own-{number}") for number in range(8)] == list(range(8))


# Encryption.


def test_values_use_the_encryption_that_is_configured_for_backups(
    local: Conf, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    identity = age.generate_identity()
    (tmp_path / "identity").write_text(identity)
    to_key = {**local, "recipients": [age.recipient_of(identity)]}
    assert KeyValue(conf=to_key).set_key("mykey", 1).metadata["encryption"] == "recipients"
    opening = {**local, "identity_file": str(tmp_path / "identity")}
    assert KeyValue(conf=opening).get_key("mykey") == 1
    with pytest.raises(PasswordError, match="no private key"):
        KeyValue(conf=local).get_key("mykey")

    by_password = KeyValue(conf={**local, "password": "pw"})
    assert by_password.set_key("mykey", 2).is_encrypted
    assert by_password.get_key("mykey") == 2
    assert not by_password.set_key("mykey", 2, password="").is_encrypted

    monkeypatch.setenv("BAKTHAT_PASSWORD", "from the environment")
    assert KeyValue(conf=local).set_key("mykey", 3).is_encrypted
    assert KeyValue(conf=local).get_key("mykey") == 3


def test_a_wrong_password_or_none_opens_nothing(conf: Conf) -> None:
    kv = KeyValue(conf=conf)
    kv.set_key("mykey", VALUE, password="pw")
    with pytest.raises(WrongKeyError):
        kv.get_key("mykey", password="wrong", default="never")
    with pytest.raises(PasswordError):
        kv.get_key("mykey", default="never")


def test_a_wrong_recipient_stores_nothing(local: Conf) -> None:
    with pytest.raises(KeyFormatError):
        KeyValue(conf={**local, "recipients": ["age1nonsense"]}).set_key("mykey", 1)
    assert stored_files(local) == []


# URLs.


@pytest.mark.parametrize("compress", [True, False])
def test_a_url_gives_json_to_a_browser(moto_conf: Conf, compress: bool) -> None:
    kv = KeyValue(conf=moto_conf)
    kv.set_key("mykey", VALUE, compress=compress)
    answer = requests.get(kv.get_key_url("mykey", 60), timeout=30)
    assert answer.status_code == 200
    assert answer.headers["Content-Type"] == "application/json"
    assert answer.headers.get("Content-Encoding") == ("gzip" if compress else None)
    assert answer.json() == VALUE


def test_a_url_is_signed_and_gives_the_object(rclone_conf: Conf) -> None:
    kv = KeyValue(conf=rclone_conf)
    kv.set_key("mykey", VALUE, password="pw")
    url = kv.get_key_url("mykey", 60)
    assert "X-Amz-Expires=60" in url
    assert "X-Amz-Signature=" in url
    answer = requests.get(url, timeout=30)
    assert answer.content.startswith(b"age-encryption.org/v1\n")
    assert requests.get(url.replace("Signature=", "Signature=0"), timeout=30).status_code >= 400


def test_impossible_urls_are_refused(moto_conf: Conf, local: Conf) -> None:
    kv = KeyValue(conf=moto_conf)
    kv.set_key("mykey", 1)
    for seconds in (0, -1, 604801):
        with pytest.raises(UsageError, match="cannot be valid for"):
            kv.get_key_url("mykey", seconds)
    with pytest.raises(NotFoundError):
        kv.get_key_url("missing", 60)
    on_disk = KeyValue(conf=local)
    on_disk.set_key("mykey", 1)
    with pytest.raises(UsageError, match="local serves no URLs"):
        on_disk.get_key_url("mykey", 60)


# Where values go.


def test_a_vault_holds_no_values(moto_conf: Conf) -> None:
    with pytest.raises(UsageError, match="cannot hold values"):
        KeyValue(conf=moto_conf, destination="glacier")
    kv = KeyValue(conf={**moto_conf, "default_destination": "glacier", "glacier_vault": "v"})
    assert kv.set_key("mykey", 1).backend == "s3"


def test_values_work_with_a_prefix_and_a_cold_storage_class(moto_conf: Conf) -> None:
    conf = {**moto_conf, "prefix": "hosts/{host}/", "storage_class": "DEEP_ARCHIVE"}
    kv = KeyValue(conf=conf)
    made = kv.set_key("mykey", 1)
    assert made.stored_filename.startswith("hosts/")
    assert kv.get_key("mykey") == 1
    assert KeyValue(conf=moto_conf).get_key("mykey", default="none") == "none"
    assert bakthat.delete("mykey", conf=conf).filename == "mykey"


def test_one_key_in_two_containers_is_two_values(
    local: Conf, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    other = {**local, "local_path": str(tmp_path / "other")}
    KeyValue(conf=local).set_key("mykey", "here")
    KeyValue(conf=other).set_key("mykey", "there")
    assert "is not listed" in caplog.text
    assert KeyValue(conf=local).get_key("mykey") == "here"
    assert KeyValue(conf=other).get_key("mykey") == "there"
    bakthat.restore("mykey", conf=other, output=tmp_path)
    assert (tmp_path / "mykey.json").read_text() == '"there"'
    assert KeyValue(conf=other).delete_key("mykey")
    assert listed(local) == ["mykey.keyvalue"]
    assert KeyValue(conf=local).delete_key("mykey")
    KeyValue(conf=other).set_key("mykey", "there again")
    assert listed(other) == ["mykey.keyvalue"]


def test_without_a_configuration_values_are_local(isolated_environment: Path) -> None:
    kv = KeyValue()
    kv.set_key("mykey", 1)
    assert kv.get_key("mykey") == 1
    assert (isolated_environment / ".bakthat_store" / "mykey.keyvalue").exists()


def test_unknown_keywords_and_profiles_are_named(local: Conf) -> None:
    with pytest.raises(TypeError, match="compres"):
        KeyValue(conf=local).set_key("a", 1, compres=False)  # type: ignore[call-arg]  # the test
    with pytest.raises(ConfigError, match="'s3_bukket'"):
        KeyValue(conf={"s3_bukket": "b"})
    with pytest.raises(ConfigError, match="nonsense"):
        KeyValue(profile="nonsense")


# Failures.


def test_an_altered_value_is_refused(local: Conf, tmp_path: Path) -> None:
    kv = KeyValue(conf=local)
    kv.set_key("mykey", VALUE)
    path = Path(local["local_path"]) / "mykey.keyvalue"
    path.write_bytes(gzip.compress(b"no JSON at all"))
    with pytest.raises(CorruptArchiveError, match=r"mykey.keyvalue is damaged: .* is not JSON"):
        kv.get_key("mykey")
    with pytest.raises(BakthatError):
        bakthat.restore("mykey", conf=local, output=tmp_path / "out")
    assert not list((tmp_path / "out").glob("*"))


def test_a_large_object_is_no_value_of_0_6_0(local: Conf) -> None:
    kv = KeyValue(conf=local)
    kv.set_key("mykey", VALUE)
    with (Path(local["local_path"]) / "film").open("wb") as film:
        film.truncate(2**40)
    assert kv.get_key("film", default="none") == "none"


def test_a_failed_upload_leaves_the_former_value(
    local: Conf, monkeypatch: pytest.MonkeyPatch
) -> None:
    from bakthat.backends.local.backend import LocalUpload

    kv = KeyValue(conf=local)
    kv.set_key("mykey", "former")
    before = stored_files(local)

    def fail(_self: LocalUpload) -> None:
        raise StorageError("the disk is full")

    with monkeypatch.context() as patch:
        patch.setattr(LocalUpload, "commit", fail)
        with pytest.raises(StorageError, match="full"):
            kv.set_key("mykey", "latter", password="pw")
    assert kv.get_key("mykey") == "former"
    assert stored_files(local) == before


def test_a_value_stored_but_not_recorded_is_reported(
    local: Conf, monkeypatch: pytest.MonkeyPatch
) -> None:
    kv = KeyValue(conf=local)
    kv.set_key("mykey", 1)

    def fail(*_arguments: object) -> None:
        raise CatalogError("the disk is full")

    monkeypatch.setattr(KeyValue, "_replace_entry", fail)
    with pytest.raises(CatalogError, match=r"stored as mykey\.keyvalue on local, but not recorded"):
        kv.set_key("mykey", 2)
    assert kv.get_key("mykey") == 2


def test_an_object_that_is_no_value_is_left_alone(local: Conf, tmp_path: Path) -> None:
    kv = KeyValue(conf=local)
    kv.set_key("other", 1)
    path = Path(local["local_path"]) / "mine.keyvalue"
    path.write_text("my own file")
    assert kv.get_key("mine", default="none") == "none"
    assert not kv.delete_key("mine")
    with pytest.raises(NoMatchError):
        bakthat.restore("mine", conf=local, output=tmp_path)
    assert path.read_text() == "my own file"


def test_the_command_line_shows_restores_and_deletes_keys(
    local: Conf, isolated_environment: Path, tmp_path: Path
) -> None:
    config = isolated_environment / ".bakthat.yml"
    write_config(config, default=local)
    KeyValue().set_key("mykey", VALUE)
    user = CommandLine(isolated_environment, tmp_path)
    assert "mykey.keyvalue" in user.run("show").stdout
    assert user.run("restore", "mykey").code == 0
    assert json.loads((tmp_path / "mykey.json").read_text()) == VALUE
    assert user.run("delete", "mykey").code == 0
    assert user.run("show").stdout.count("mykey") == 0
    assert stored_files(local) == []


def test_a_backup_is_no_value(local: Conf, tmp_path: Path) -> None:
    (tmp_path / "secret.json").write_text('{"db_password": "s3cret"}')
    made = bakthat.backup(tmp_path / "secret.json", conf={**local, "compress": False}, password="")
    assert KeyValue(conf=local).get_key(made.stored_filename, default="nothing") == "nothing"
