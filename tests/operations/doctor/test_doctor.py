"""What doctor says about this machine, and about all destinations of a profile."""

from __future__ import annotations

import json
import logging
import os
import sqlite3
import time
from pathlib import Path
from typing import Any

import pytest

import bakthat
from bakthat.conf.profile import SECRETS
from bakthat.crypto import age
from bakthat.errors import UsageError
from bakthat.policy.finding import Finding, Verdict
from tests.support.findings import finding, problems
from tests.support.needs import as_root, mounted
from tests.support.profiles import Conf, write_config
from tests.support.servers import free_port, plain


@pytest.fixture
def conf(local: Conf) -> Conf:
    """Return a profile that nothing is wrong with."""
    Path(local["local_path"]).mkdir()
    return {**local, "password": "secret"}


def doctor(conf: Conf, **more: Any) -> list[Finding]:
    return bakthat.doctor(conf={**conf, **more})


def bad(findings: list[Finding]) -> list[Finding]:
    return [each for each in findings if each.verdict is not Verdict.GOOD]


def the_problem(findings: list[Finding]) -> Finding:
    (found,) = problems(findings)
    assert "\n" not in f"{found.detail}{found.hint}"
    return found


def test_nothing_is_wrong_and_nothing_is_made(conf: Conf, isolated_environment: Path) -> None:
    before = sorted(isolated_environment.rglob("*"))
    findings = doctor(conf)
    assert bad(findings) == []
    assert {"configuration", "writing", "encryption", "catalog", "disk", "index cache"} <= {
        each.topic for each in findings
    }
    assert sorted(isolated_environment.rglob("*")) == before


def test_without_any_configuration_backups_work_and_could_be_better() -> None:
    findings = bakthat.doctor()
    assert problems(findings) == []
    assert finding(findings, "configuration").hint.startswith("bakthat configure")
    assert list(Path.home().iterdir()) == []


def test_a_finding_is_plain_values(conf: Conf) -> None:
    (found,) = [each for each in doctor(conf) if each.topic == "writing"]
    assert found.as_dict() == {
        "topic": "writing",
        "verdict": "good",
        "detail": f"a file was written to {conf['local_path']}",
        "hint": "",
    }


# Configuration


@pytest.mark.parametrize(
    ("more", "words", "hint"),
    [
        ({"s3_buckt": "x"}, "unknown key 's3_buckt'", "s3_bucket"),
        ({"timeout": "soon"}, "'timeout'", ""),
        ({"default_destination": "s3"}, "'s3_bucket' is not set", "add s3_bucket"),
    ],
)
def test_a_profile_that_is_wrong(conf: Conf, more: Conf, words: str, hint: str) -> None:
    found = the_problem(doctor(conf, **more))
    assert found.topic == "configuration"
    assert words in found.detail
    assert hint in found.hint


def test_a_file_that_is_missing_broken_or_open_to_others(conf: Conf, tmp_path: Path) -> None:
    path = tmp_path / "profiles.yml"
    assert "no such configuration file" in the_problem(bakthat.doctor(config=path)).detail
    path.write_text("default: [")
    assert str(path) in the_problem(bakthat.doctor(config=path)).detail
    write_config(path, default=conf).chmod(0o644)
    findings = bakthat.doctor(config=path)
    (found,) = bad(findings)
    assert (found.topic, found.hint) == ("configuration", f"chmod 600 {path}")
    path.chmod(0o600)
    assert bad(bakthat.doctor(config=path)) == []
    assert "no profile 'web'" in the_problem(bakthat.doctor(config=path, profile="web")).detail


def test_a_file_of_the_name_conf_is_not_the_profile_of_a_call(
    conf: Conf, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("conf").touch(mode=0o644)
    assert bad(doctor(conf)) == []


def test_a_configuration_from_a_pipe_is_read_once(conf: Conf) -> None:
    reading, writing = os.pipe()
    try:
        os.write(writing, json.dumps({"default": conf}).encode())
        os.close(writing)
        assert bad(bakthat.doctor(config=f"/dev/fd/{reading}")) == []
    finally:
        os.close(reading)


def test_a_destination_that_does_not_exist_is_an_error(conf: Conf) -> None:
    with pytest.raises(UsageError, match="there is no destination 'dropbox'"):
        bakthat.doctor("dropbox", conf=conf)


def test_a_plugin_that_cannot_be_loaded_hides_nothing_else(
    conf: Conf, plugins_dir: Path, tmp_path: Path
) -> None:
    (plugins_dir / "broken.py").write_text("raise RuntimeError('no battery')\n")
    findings = doctor(conf, plugins=["broken.MyPlugin"])
    found = the_problem(findings)
    assert found.topic == "plugins"
    assert "no battery" in found.detail
    assert finding(findings, "writing").verdict is Verdict.GOOD


def test_settings_of_a_notification_that_nothing_reads(conf: Conf, plugins_dir: Path) -> None:
    url = "https://hc.example/secret"
    (found,) = bad(doctor(conf, healthchecks={"url": url}))
    assert (found.topic, found.verdict) == ("notifications", Verdict.ADVICE)
    assert found.hint == "add bakthat.notify.Healthchecks to plugins in the profile"
    findings = doctor(conf, healthchecks={"url": url}, plugins=["bakthat.notify.Healthchecks"])
    assert bad(findings) == []
    assert "nothing was sent" in finding(findings, "notifications").detail
    assert "secret" not in repr([each for each in findings if each.topic == "notifications"])


def test_a_notification_with_wrong_settings(conf: Conf, plugins_dir: Path) -> None:
    more = {"webhook": {"url": "secret"}, "plugins": ["bakthat.notify.Webhook"]}
    found = the_problem(doctor(conf, **more))
    assert found.topic == "plugins"
    assert "'url' below 'webhook' must be" in found.detail


def test_a_directory_of_metrics_that_is_missing(
    conf: Conf, plugins_dir: Path, tmp_path: Path
) -> None:
    more = {
        "prometheus": {"textfile": str(tmp_path / "missing" / "bakthat.prom")},
        "plugins": ["bakthat.notify.Prometheus"],
    }
    (found,) = bad(doctor(conf, **more))
    assert found.verdict is Verdict.ADVICE
    assert str(tmp_path / "missing") in found.detail


# Keys


def test_no_key_and_no_encryption_are_told_apart(conf: Conf) -> None:
    without = {key: value for key, value in conf.items() if key != "password"}
    (found,) = bad(doctor(without))
    assert (found.topic, found.verdict) == ("encryption", Verdict.ADVICE)
    assert "fails without one" in found.detail
    (found,) = bad(doctor(conf, password=""))
    assert "as the profile says" in found.detail


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("false", "failed with status 1"),
        ("true", "output of password_command is empty"),
        ("no-such-program-of-bakthat", "no such file"),
        (["printf", "two\\nlines"], "several lines"),
        ("sleep 60", "did not end within 1 seconds"),
        (["sh", "-c", "sleep 60 & echo secret; sleep 60"], "did not end within 1 seconds"),
    ],
)
def test_a_password_command_that_gives_no_password(
    local: Conf, command: str | list[str], words: str
) -> None:
    started = time.monotonic()
    found = the_problem(doctor(local, password_command=command, timeout=1))
    assert found.topic == "encryption"
    assert words in found.detail.lower()
    assert "secret" not in f"{found.detail}{found.hint}"
    assert time.monotonic() - started < 30


def test_a_password_command_that_works(local: Conf) -> None:
    assert bad(doctor(local, password_command="echo secret")) == []


def test_a_password_file_that_is_missing_or_open_to_others(local: Conf, tmp_path: Path) -> None:
    path = tmp_path / "password"
    assert str(path) in the_problem(doctor(local, password_file=str(path))).detail
    path.write_text("")
    assert "is empty" in the_problem(doctor(local, password_file=str(path))).detail
    path.write_text("secret\n")
    path.chmod(0o640)
    (found,) = bad(doctor(local, password_file=str(path)))
    assert found.hint == f"chmod 600 {path}"


@pytest.mark.parametrize("key", SECRETS)
def test_a_file_of_a_secret_that_is_open_to_others(local: Conf, tmp_path: Path, key: str) -> None:
    path = tmp_path / "value"
    path.write_text(str(tmp_path / "catalog") if key == "database" else "{}")
    path.chmod(0o644)
    findings = bad(doctor({**local, "password": "secret"}, **{SECRETS[key].file: str(path)}))
    if key == "password":
        findings = bad(doctor(local, password_file=str(path)))
    (found,) = [each for each in findings if each.topic == "secrets"]
    assert found.detail == f"others can read {path} (mode 0644)"
    assert found.hint == f"chmod 600 {path}"
    path.chmod(0o600)
    findings = bad(doctor({**local, "password": "secret"}, **{SECRETS[key].file: str(path)}))
    assert "secrets" not in [each.topic for each in findings]


@pytest.mark.parametrize("key", ["secret_key", "database_password", "database", "plugin_settings"])
def test_a_program_that_does_not_end_is_ended(conf: Conf, key: str, tmp_path: Path) -> None:
    if key == "secret_key":
        conf |= {"default_destination": "s3", "s3_bucket": "b", "access_key": "AK"}
        conf["endpoint_url"] = "http://127.0.0.1:9"
    if key == "plugin_settings":
        conf |= {"plugins": ["mine.Mine"], "plugins_dir": str(tmp_path)}
        code = (
            "from bakthat.plugin import Plugin\nclass Mine(Plugin):\n    def activate(self): pass"
        )
        (tmp_path / "mine.py").write_text(code)
    conf.pop(key, None)
    started = time.monotonic()
    command = ["sh", "-c", "echo secret; sleep 60"]
    found = problems(doctor(conf, timeout=0.2, **{SECRETS[key].command: command}))
    assert found
    for each in found:
        assert each.detail.endswith(f"{key}_command did not end within 0.2 seconds")
        assert "it may wait for an answer" in each.hint
    assert time.monotonic() - started < 30


def test_the_password_of_databases_is_tried(conf: Conf) -> None:
    found = the_problem(doctor(conf, database_password_command="true"))
    assert (found.topic, found.detail) == (
        "secrets",
        "the output of database_password_command is empty",
    )
    assert bad(doctor(conf, database_password_command="echo secret")) == []


@pytest.mark.parametrize("way", ["file", "command"])
def test_settings_that_nothing_reads_are_named_by_their_key(
    conf: Conf, tmp_path: Path, way: str
) -> None:
    (tmp_path / "value").write_text("{}")
    (tmp_path / "value").chmod(0o600)
    given = {"file": str(tmp_path / "value"), "command": "false"}[way]
    (found,) = bad(doctor(conf, **{f"webhook_{way}": given}))
    assert found.detail == f"the profile has 'webhook_{way}', but nothing reads it"


def test_an_empty_password_of_the_environment(conf: Conf, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BAKTHAT_PASSWORD", "")
    assert "BAKTHAT_PASSWORD is set, but empty" in the_problem(doctor(conf)).detail


def test_a_recipient_that_is_none(local: Conf) -> None:
    found = the_problem(doctor(local, recipients=["age1secret"]))
    assert found.topic == "encryption"


def test_a_private_key_on_the_machine(local: Conf, tmp_path: Path) -> None:
    identity, other = age.generate_identity(), age.generate_identity()
    path = tmp_path / "key.txt"
    conf = {**local, "recipients": [age.recipient_of(identity)], "identity_file": str(path)}
    found = the_problem(doctor(conf))
    assert found.topic == "private key"
    assert str(path) in found.detail
    path.write_text("nonsense\n")
    path.chmod(0o600)
    assert the_problem(doctor(conf)).topic == "private key"
    path.write_text(f"# a comment\n{identity}\n")
    (found,) = bad(doctor(conf))
    assert (found.topic, found.verdict) == ("private key", Verdict.ADVICE)
    assert "keep a copy of it elsewhere" in found.hint
    (found,) = bad(doctor(conf, recipients=[age.recipient_of(other)]))
    assert "new backups cannot be opened here" in found.detail
    path.chmod(0o644)
    assert f"chmod 600 {path}" in [each.hint for each in bad(doctor(conf))]
    assert identity not in repr(doctor(conf))


# The catalog


def test_a_catalog_that_is_whole(conf: Conf, tree: Path) -> None:
    bakthat.backup(tree, conf=conf)
    assert "is whole and lists 1 backup" in finding(doctor(conf), "catalog").detail


def damage(path: Path) -> None:
    """Overwrite a page of a table; the file still opens."""
    with sqlite3.connect(path) as database:
        database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        size = database.execute("PRAGMA page_size").fetchone()[0]
        (page,) = database.execute(
            "SELECT rootpage FROM sqlite_master WHERE name = 'backups_of_set'"
        ).fetchone()
    database.close()
    with path.open("r+b") as file:
        file.seek((page - 1) * size)
        file.write(b"\xff" * size)


def test_a_catalog_that_is_damaged(conf: Conf, tree: Path) -> None:
    bakthat.backup(tree, conf=conf)
    damage(Path(conf["database"]))
    findings = doctor(conf)
    found = the_problem(findings)
    assert found.topic == "catalog"
    assert "damaged" in found.detail
    assert "bakthat sync rebuilds it" in found.hint
    assert finding(findings, "writing").verdict is Verdict.GOOD


def test_a_catalog_that_is_something_else(conf: Conf) -> None:
    Path(conf["database"]).write_text("my diary")
    findings = doctor(conf)
    assert the_problem(findings).topic == "catalog"
    assert Path(conf["database"]).read_text() == "my diary"
    assert finding(findings, "writing").verdict is Verdict.GOOD


def test_a_catalog_of_a_later_version(conf: Conf, tree: Path) -> None:
    bakthat.backup(tree, conf=conf)
    with sqlite3.connect(conf["database"]) as database:
        database.execute("PRAGMA user_version = 99")
    database.close()
    assert "newer bakthat" in the_problem(doctor(conf)).detail


def test_a_catalog_that_another_process_has_locked(conf: Conf, tree: Path) -> None:
    bakthat.backup(tree, conf=conf)
    database = sqlite3.connect(conf["database"], isolation_level=None)
    try:
        database.execute("BEGIN IMMEDIATE")
        assert "locked by another process" in the_problem(doctor(conf, timeout=1)).detail
    finally:
        database.close()
    assert bad(doctor(conf))[0].topic == "disk"  # the store is beside the tree


def test_a_catalog_that_others_can_read(conf: Conf, tree: Path) -> None:
    bakthat.backup(tree, conf=conf)
    Path(conf["database"]).chmod(0o644)
    found = [each for each in bad(doctor(conf)) if each.topic == "catalog"]
    assert [each.hint for each in found] == [f"chmod 600 {conf['database']}"]


def test_a_catalog_that_cannot_be_made(conf: Conf) -> None:
    found = the_problem(doctor(conf, database="/proc/bakthat/catalog.sqlite"))
    assert found.topic == "catalog"
    assert "cannot be made" in found.detail


# Disks


def test_a_store_beside_its_sources_is_advice(conf: Conf, tree: Path) -> None:
    bakthat.backup(tree, conf=conf)
    (found,) = bad(doctor(conf))
    assert (found.topic, found.verdict) == ("disk", Verdict.ADVICE)
    assert f"same file system as {tree}" in found.detail


def test_links_that_lead_nowhere_are_no_defect(conf: Conf, tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to(tmp_path / "unplugged")
    for more in ({"local_path": str(link)}, {"database": str(link / "catalog.sqlite")}):
        findings = doctor(conf, **more)
        assert problems(findings)
        assert "unexpected" not in repr(findings)
        assert finding(findings, "disk").verdict is Verdict.GOOD


@as_root
def test_a_store_on_its_own_disk_that_has_too_little_room(
    conf: Conf, tree: Path, tmp_path: Path
) -> None:
    place = tmp_path / "disk"
    place.mkdir()
    (tree / "big").write_bytes(os.urandom(700_000))
    with mounted(place, "-t", "tmpfs", "-o", "size=1200k", "tmpfs"):
        conf["local_path"] = str(place / "store")
        bakthat.backup(tree, conf=conf)
        found = the_problem(doctor(conf))
        assert found.topic == "disk"
        assert "but the last backup there took" in found.detail
        assert "rotate_backups" in found.hint


@as_root
def test_a_store_whose_disk_is_not_mounted(conf: Conf, tree: Path, tmp_path: Path) -> None:
    place = tmp_path / "disk"
    place.mkdir()
    with mounted(place, "-t", "tmpfs", "-o", "size=2m", "tmpfs"):
        conf["local_path"] = str(place / "store")
        bakthat.backup(tree, conf=conf)
    found = the_problem(doctor(conf))
    assert found.topic == "container"
    assert f"not mounted on {place}" in found.detail
    assert list(place.iterdir()) == []


@as_root
def test_little_room_for_temporary_files(
    conf: Conf, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = tmp_path / "disk"
    place.mkdir()
    with mounted(place, "-t", "tmpfs", "-o", "size=1m", "tmpfs"):
        monkeypatch.setattr("tempfile.tempdir", str(place))
        (found,) = bad(doctor(conf))
        assert "free for temporary files" in found.detail


def test_no_directory_for_temporary_files(conf: Conf, monkeypatch: pytest.MonkeyPatch) -> None:
    def none() -> str:
        raise FileNotFoundError

    monkeypatch.setattr("tempfile.gettempdir", none)
    assert the_problem(doctor(conf)).hint == "set TMPDIR to a directory with room"


def test_a_cache_that_cannot_be_used_is_advice(
    conf: Conf, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = tmp_path / "cache"
    monkeypatch.setenv("XDG_CACHE_HOME", str(cache))
    assert bad(doctor(conf)) == []
    (cache / "bakthat").mkdir(parents=True, mode=0o700)
    assert bad(doctor(conf)) == []
    (cache / "bakthat").chmod(0o755)
    (found,) = bad(doctor(conf))
    assert found.hint == f"chmod 700 {cache / 'bakthat'}"
    (cache / "bakthat").rmdir()
    (cache / "bakthat").symlink_to("unplugged")
    (found,) = bad(doctor(conf))
    assert (found.topic, found.verdict) == ("index cache", Verdict.ADVICE)
    (cache / "bakthat").unlink()
    cache.rmdir()
    cache.write_text("")
    (found,) = bad(doctor(conf))
    assert (found.topic, found.verdict) == ("index cache", Verdict.ADVICE)
    monkeypatch.setenv("XDG_CACHE_HOME", "/proc/bakthat")
    (found,) = bad(doctor(conf))
    assert "cannot be made" in found.detail


# Destinations


def test_a_store_that_is_gone_though_the_catalog_lists_backups(conf: Conf, tree: Path) -> None:
    bakthat.backup(tree, conf=conf)
    Path(conf["local_path"]).rename(tree.parent / "elsewhere")
    with sqlite3.connect(conf["database"]) as database:  # as on another machine's catalog
        database.execute("DELETE FROM config")
    database.close()
    found = the_problem(doctor(conf))
    assert found.topic == "container"
    assert "the catalog lists backups in it" in found.detail
    assert "--create" in found.hint


def test_a_bucket_that_the_first_backup_makes_is_no_problem(
    moto_conf: Conf, conf: Conf, tree: Path
) -> None:
    both = {**moto_conf, "database": conf["database"], "password": "secret"}
    findings = doctor(both)
    assert problems(findings) == []
    missing = finding(findings, "container")
    assert missing.verdict is Verdict.ADVICE
    assert "does not exist yet" in missing.detail
    bakthat.backup(tree, conf=both)
    assert bad(doctor(both)) == []
    client = plain(both)
    for each in client.list_objects_v2(Bucket=both["s3_bucket"])["Contents"]:
        client.delete_object(Bucket=both["s3_bucket"], Key=each["Key"])
    client.delete_bucket(Bucket=both["s3_bucket"])
    gone = the_problem(doctor(both))
    assert gone.topic == "container"
    assert "the catalog lists backups in it" in gone.detail


def test_a_bucket_that_no_backup_can_make_is_a_problem(moto_conf: Conf, conf: Conf) -> None:
    found = the_problem(
        doctor({**moto_conf, "database": conf["database"], "s3_bucket": "My_Bucket"})
    )
    assert found.topic == "container"
    assert found.detail.endswith("does not exist, and cannot be made: its name is refused")
    assert found.hint.startswith("choose a name of 3 to 63 lower-case letters")


def test_a_directory_that_no_backup_can_make_is_a_problem(conf: Conf) -> None:
    findings = doctor(conf, local_path="/proc/store")
    found = the_problem(findings)
    assert found.topic == "container"
    assert found.detail.startswith("directory /proc/store does not exist, and cannot be made: ")
    assert not [each for each in findings if each.detail.startswith("0 B free")]


def test_other_destinations_are_tried_and_only_advice(rclone_conf: Conf, conf: Conf) -> None:
    both = {**conf, **rclone_conf}
    assert both["default_destination"] == "local"
    (found,) = bad(doctor(both))
    assert (found.topic, found.verdict) == ("other destinations", Verdict.ADVICE)
    assert found.detail.startswith(f"s3 {both['s3_bucket']}: container: ")
    plain(both).create_bucket(Bucket=both["s3_bucket"])
    findings = doctor({**both, "secret_key": "wrong-secret-key"})
    (found,) = bad(findings)
    assert "SignatureDoesNotMatch" in found.detail
    findings = doctor(both)
    assert problems(findings) == []
    # With -d it is the one that counts, and the other is not tried.
    wrong = bakthat.doctor("s3", conf={**both, "secret_key": "wrong-secret-key"})
    assert the_problem(wrong).topic == "credentials"
    assert [each for each in wrong if each.topic == "other destinations"] == []


def test_a_vault_beside_it_that_is_not_there(conf: Conf) -> None:
    more = {
        "glacier_vault": "vault",
        "glacier_endpoint_url": f"http://127.0.0.1:{free_port()}",
        "access_key": "a",
        "secret_key": "b",
    }
    (found,) = bad(doctor(conf, **more, timeout=1))
    assert found.topic == "other destinations"
    assert "nothing accepts connections" in found.detail


def test_a_defect_of_one_look_hides_no_other(
    conf: Conf, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_arguments: object) -> None:
        raise ZeroDivisionError("oops")

    monkeypatch.setattr("shutil.disk_usage", fail)
    with caplog.at_level(logging.DEBUG, "bakthat"):
        findings = doctor(conf)
    found = the_problem(findings)
    assert (found.topic, found.detail) == ("disk", "unexpected ZeroDivisionError: oops")
    assert finding(findings, "index cache").verdict is Verdict.GOOD
    assert "doctor failed to look at disk" in caplog.text
