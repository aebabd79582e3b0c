"""``sync --as-of`` and ``undelete``, as somebody uses them after an attack, on a new machine."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from bakthat.format.names import index_key
from tests.support.attacker import Attacker
from tests.support.commandline import CommandLine
from tests.support.profiles import Conf, write_config
from tests.support.trees import fingerprint

pytestmark = pytest.mark.slow


@pytest.fixture(params=["moto", "seaweedfs"])
def conf(request: pytest.FixtureRequest) -> Conf:
    found: Conf = request.getfixturevalue(f"{request.param}_conf")
    Attacker(found).make_bucket()
    return {**found, "incremental": True, "default_destination": "s3"}


def test_everything_comes_back_on_a_new_machine(user: CommandLine, conf: Conf) -> None:
    write_config(user.home / ".bakthat.yml", default=conf)
    attacker = Attacker(conf)
    tree = user.directory / "etc"
    tree.mkdir()
    (tree / "large").write_bytes(os.urandom(100_000))
    names, states = [], []
    for number in range(3):
        (tree / f"file-{number}").write_text(f"{number}\n" * 100)
        done = user.run("backup", "etc", "--prompt", "no", "--json")
        assert done.code == 0, done.stderr
        names.append(done.lines("backup")[0]["stored_filename"])
        states.append(fingerprint(tree))
    moment = attacker.now()

    for key in (names[0], index_key(names[1])):
        attacker.delete(key)
    attacker.overwrite(names[2])
    attacker.overwrite(index_key(names[2]), forged=True)
    attacker.delete(names[2])
    (user.home / ".bakthat.sqlite").unlink()
    shutil.rmtree(user.home / ".cache", ignore_errors=True)
    shutil.rmtree(tree)

    done = user.run("sync", "--as-of", _iso(moment), "--json")
    assert done.code == 0, done.stderr
    listed = {each["stored_filename"]: each for each in done.lines("backup")}
    found = [(listed[name]["state"], listed[name]["index_state"]) for name in names]
    assert found == [("deleted", "intact"), ("intact", "deleted"), ("deleted", "overwritten")]
    (summary,) = done.lines("summary")
    assert (summary["backups"], summary["intact"], summary["hidden"]) == (3, 0, 3)
    assert not (user.home / ".bakthat.sqlite").exists()

    shown = user.run("sync", "--as-of", _iso(moment))
    assert shown.stdout.splitlines()[0].split()[0] == "STATE"
    assert [line.split("  ")[0] for line in shown.stdout.splitlines()[1:]] == [
        "deleted",
        "index deleted",
        "deleted",
    ]
    assert "bakthat undelete --all --as-of" in shown.stderr

    planned = user.run("undelete", "--all", "--as-of", _iso(moment), "--dry-run")
    assert "Would bring back 3 of 3 backups" in planned.stderr
    done = user.run("undelete", "--all", "--as-of", _iso(moment))
    assert done.code == 0, done.stderr
    assert "Brought back 3 of 3 backups" in done.stderr
    assert "bakthat check --read-data" in done.stderr
    again = user.run("undelete", "--all", "--as-of", _iso(moment), "--json")
    assert {each["action"] for each in again.lines("change")} <= {"there"}
    assert again.lines("summary")[0]["changed"] == 0

    assert user.run("check", "--read-data").code == 0
    for name, state in zip(names, states, strict=True):
        done = user.run("restore", name, "-o", f"restored-{name}")
        assert done.code == 0, done.stderr
        assert fingerprint(user.directory / f"restored-{name}" / "etc") == state


def test_what_cannot_be_brought_back_is_said(user: CommandLine, conf: Conf) -> None:
    write_config(user.home / ".bakthat.yml", default=conf)
    attacker = Attacker(conf)
    (user.directory / "etc").mkdir()
    done = user.run("backup", "etc", "--prompt", "no", "--json")
    name = done.lines("backup")[0]["stored_filename"]
    moment = attacker.now()
    attacker.overwrite(index_key(name))
    for each in attacker.versions(index_key(name)):
        if each["Size"] != len(b"garbage"):
            attacker.client.delete_object(
                Bucket=attacker.bucket, Key=index_key(name), VersionId=each["VersionId"]
            )
    done = user.run("undelete", name)
    assert done.code == 3
    assert "bakthat sync --indexes makes it again" in done.stderr

    attacker.purge(name)
    done = user.run("sync", "--as-of", "1m")
    assert done.code == 0  # then, there was nothing
    done = user.run("undelete", name, "--json")
    assert done.code == 1, done.stderr
    attacker.purge(index_key(name))
    done = user.run("undelete", name)
    assert done.code == 1
    assert "nothing that the bucket keeps matches" in done.stderr
    assert _iso(moment) not in done.stderr


def test_usage(user: CommandLine, conf: Conf) -> None:
    write_config(user.home / ".bakthat.yml", default=conf)
    assert user.run("undelete").code == 2
    assert user.run("undelete", "--all").code == 2
    assert user.run("sync", "--as-of", "yesterday").code == 2
    done = user.run("sync", "--as-of", "2D", "--indexes")
    assert done.code == 2
    assert "--as-of only lists" in done.stderr
    done = user.run("undelete", "etc", "-d", "local")
    assert (done.code, Path(user.home / ".bakthat_store").exists()) == (2, False)


def _iso(moment: float) -> str:
    from bakthat.system.text import utc_time

    return utc_time(moment)
