"""Hosts that share a storage: two hosts, one whose name changes, and one name for all."""

from __future__ import annotations

import logging
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import bakthat
from bakthat import models
from bakthat.errors import AmbiguousNameError, ConfigError, NoMatchError, UsageError
from bakthat.helper import BakHelper, KeyValue
from tests.support.commandline import CommandLine
from tests.support.examples import rest_slow
from tests.support.filled_catalog import DAY
from tests.support.profiles import Conf, write_config

Machine = Callable[..., Conf]


@pytest.fixture
def machine(
    request: pytest.FixtureRequest, local: Conf, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Machine:
    """Return a function that makes a machine with a catalog of its own and returns its profile.

    *name* is the name of the machine from then on. All share one storage.
    """
    made: list[Conf] = []
    is_local = getattr(request, "param", "local") == "local"
    shared: Conf = local if is_local else request.getfixturevalue("moto_conf")

    def machine(name: str, **keys: Any) -> Conf:
        made.append({**shared, "database": str(tmp_path / f"catalog{len(made)}.sqlite"), **keys})
        monkeypatch.setattr(socket, "gethostname", lambda: name)
        return made[-1]

    return machine


def back_up(conf: Conf, tree: Path, age: int = 0, **options: Any) -> models.Backups:
    with pytest.MonkeyPatch.context() as patch:
        now = time.time() - age * DAY
        patch.setattr(time, "time", lambda: now)
        return bakthat.backup(tree, conf=conf, password="", **options)


def names(backups: list[models.Backups]) -> list[str]:
    return [each.stored_filename for each in backups]


@pytest.mark.parametrize("machine", ["local", "moto"], indirect=True)
@pytest.mark.parametrize("prefix", rest_slow(["", "{host}/", "{host}-"], 2))
def test_two_hosts_have_sets_of_their_own(
    machine: Machine, tree: Path, out: Path, prefix: str
) -> None:
    hosts = {name: machine("box", host=name, prefix=prefix) for name in ("alpha", "beta")}
    made = {name: [back_up(conf, tree, age) for age in (3, 2, 1)] for name, conf in hosts.items()}
    for conf in hosts.values():
        bakthat.sync(conf=conf)
        assert len(bakthat.ls(conf=conf)) == 6
    with pytest.raises(AmbiguousNameError, match=r"of alpha on \w+, mydir of beta") as caught:
        bakthat.restore("mydir", conf=hosts["alpha"], output=out)
    assert "set host in the profile" in caught.value.hint
    for name in hosts:
        found = bakthat.restore("mydir", conf=hosts["alpha"], output=out, host=name)
        assert str(found) == str(made[name][-1])
        # Without its prefix, the stored filename is that of the named host.
        short = made[name][0].stored_filename.removeprefix(prefix.replace("{host}", name))
        found = bakthat.restore(short, conf=hosts["alpha"], output=out, host=name)
        assert str(found) == str(made[name][0])
    assert names(bakthat.rotate_backups("mydir", conf=hosts["alpha"], last=1)) == names(
        made["alpha"][:2]
    )
    assert names(bakthat.delete_older_than("mydir", "1D12h", conf=hosts["beta"])) == names(
        made["beta"][:2]
    )
    bakthat.sync(conf=hosts["alpha"])
    assert set(names(bakthat.ls(conf=hosts["alpha"]))) == {
        made["alpha"][2].stored_filename,
        made["beta"][2].stored_filename,
    }


def test_a_host_whose_name_changes_is_told_of_its_other_names(
    machine: Machine, tree: Path, out: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for number in range(3):
        conf = machine(f"run{number}")
        back_up(conf, tree, 3 - number)
        bakthat.sync(conf=conf)
        caplog.clear()
        assert bakthat.rotate_backups("mydir", conf=conf, last=1) == []
        told = [each.message for each in caplog.records if each.levelno >= logging.WARNING]
        assert [("run0" in each, "set host in the profile" in each) for each in told] == (
            [(True, True)] if number else []
        )
    with pytest.raises(AmbiguousNameError) as caught:
        bakthat.restore("mydir", conf=conf, output=out)
    assert "set host in the profile" in caught.value.hint
    another = machine("run3")
    bakthat.sync(conf=another)
    with pytest.raises(NoMatchError) as missing:
        bakthat.rotate_backups("mydir", conf=another, last=1)
    assert "set host in the profile" in missing.value.hint


@pytest.mark.parametrize("prefix", ["", "{host}/"])
def test_with_a_host_in_the_profile_a_changing_name_makes_one_set(
    machine: Machine, tree: Path, out: Path, prefix: str, caplog: pytest.LogCaptureFixture
) -> None:
    for number in range(4):
        conf = machine(f"run{number}", host="shop", prefix=prefix)
        if number:
            bakthat.sync(conf=conf)
        last = back_up(conf, tree, 4 - number)
        assert len(bakthat.rotate_backups("mydir", conf=conf, last=1)) == (number > 0)
    assert str(bakthat.restore("mydir", conf=conf, output=out)) == str(last)
    assert names(bakthat.ls(conf=conf)) == [last.stored_filename]
    assert "set host" not in caplog.text


def test_one_name_for_all_machines_makes_one_set(machine: Machine, tree: Path, out: Path) -> None:
    confs = [machine("localhost"), machine("localhost")]
    made = [back_up(conf, tree, 3 - number) for number, conf in enumerate(confs * 2)]
    for conf in confs:
        bakthat.sync(conf=conf)
        assert str(bakthat.restore("mydir", conf=conf, output=out)) == str(made[3])
    assert len(bakthat.delete_older_than("mydir", "1D12h", conf=confs[1])) == 2
    bakthat.sync(conf=confs[0])
    assert len(bakthat.rotate_backups("mydir", conf=confs[0], last=1)) == 1
    assert names(bakthat.ls(conf=confs[0])) == names(made[3:])


@pytest.mark.parametrize(
    ("name", "host"),
    [
        ("", "localhost"),
        ("localhost", "localhost"),
        ("(none)", "(none)"),
        (".", "localhost"),
        ("..", "localhost"),
        ("a/b", "a-b"),
        (" box ", "box"),
        ("b\nx", "b\\nx"),
        ("b\udcffx", "b\\xffx"),
        ("böx", "böx"),
        ("x" * 100, "x" * 64),
        ("/", "-"),
        (" ", "localhost"),
    ],
)
@pytest.mark.parametrize("prefix", rest_slow(["{host}/", ""]))
def test_an_odd_name_of_the_machine_works(
    machine: Machine, tree: Path, out: Path, name: str, host: str, prefix: str
) -> None:
    conf = machine(name, prefix=prefix)
    made = [back_up(conf, tree, age) for age in (2, 1)]
    assert made[0].host == host
    conf = machine(name, prefix=prefix)
    bakthat.sync(conf=conf)
    assert {each.host for each in bakthat.ls(conf=conf)} == {host}
    assert names(bakthat.rotate_backups("mydir", conf=conf, last=1)) == names(made[:1])
    assert str(bakthat.restore("mydir", conf=conf, output=out, host=host)) == str(made[1])


def test_the_host_of_an_argument_wins_over_the_profiles_and_the_machines(
    machine: Machine, tree: Path
) -> None:
    conf = machine("box", prefix="{host}/")
    assert back_up(conf, tree).stored_filename.startswith("box/mydir.")
    conf["host"] = "shop"
    assert back_up(conf, tree).host == "shop"
    assert KeyValue(conf=conf).set_key("key", 1).stored_filename == "shop/key.keyvalue"
    made = back_up(conf, tree, host="web")
    assert (made.host, made.stored_filename.partition("/")[0]) == ("web", "web")
    assert BakHelper("dump", conf=conf, password="").backup(tree, host="db").host == "db"


@pytest.mark.parametrize("host", ["", " ", "a/b", "..", "x" * 65, "a\nb", "\udcff", "web "])
def test_an_invalid_host_is_refused(machine: Machine, tree: Path, host: str) -> None:
    why = "(is|holds|cannot be) "
    with pytest.raises(UsageError, match=f"the name of the host {why}"):
        back_up(machine("box"), tree, host=host)
    with pytest.raises(ConfigError, match=f"'host' {why}"):
        bakthat.ls(conf=machine("box", host=host))


@pytest.mark.parametrize(
    "prefix", ["{hots}/", "{Host}/", "{host}/{date}/", "{host", "host}/", "{}", "{{host}}/"]
)
def test_an_unknown_placeholder_in_the_prefix_is_refused(
    machine: Machine, tree: Path, prefix: str
) -> None:
    with pytest.raises(ConfigError, match="'prefix' holds the unknown placeholder") as caught:
        back_up(machine("box", prefix=prefix), tree)
    assert caught.value.hint == "did you mean {host}?"


@pytest.mark.slow
def test_the_command_line_names_the_host(
    user: CommandLine, isolated_environment: Path, tree: Path
) -> None:
    write_config(
        isolated_environment / ".bakthat.yml",
        default={"default_destination": "local", "host": "shop"},
    )
    for arguments in ((), (), ("--host", "web")):
        assert user.run("backup", tree, "--prompt", "no", *arguments).code == 0
    shown = user.run("show").stdout
    assert (shown.count(" shop "), shown.count(" web ")) == (2, 1)
    done = user.run("rotate", "mydir", "--last", "1")
    assert "Other hosts have backups of mydir too, which stay: web" in done.stderr
    assert user.run("restore", "mydir", "-o", "out").code == 1
    assert user.run("restore", "mydir", "-o", "out", "--host", "web").code == 0
    assert user.run("backup", tree, "--prompt", "no", "--host", "a/b").code == 2
