"""Plugins: finding, activating and calling them, and their errors."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import bakthat
from bakthat import models
from bakthat.errors import ConfigError
from bakthat.plugin import Plugin, activate_plugins, deactivate_plugins
from tests.support.commandline import PROJECT, CommandLine
from tests.support.profiles import Conf, write_config

DIARY = """
from bakthat.plugin import Plugin

class Diary(Plugin):
    def activate(self):
        self.write("activate")
        self.before_backup += self.before
        self.on_backup += self.after

    def before(self, session_id):
        self.write("before_backup")

    def after(self, session_id, backup):
        self.write("on_backup")

    def deactivate(self):
        self.write("deactivate")

    def write(self, word):
        with open(self.conf["plugin_settings"]["diary"], "a") as diary:
            diary.write(f"{type(self).__name__} {word}\\n")

class Second(Diary):
    pass
"""


@pytest.fixture
def diary(tmp_path: Path) -> Path:
    path = tmp_path / "diary.txt"
    path.touch()
    return path


@pytest.fixture
def conf(local: Conf, plugins_dir: Path, diary: Path) -> Conf:
    (plugins_dir / "diaries.py").write_text(DIARY)
    return {**local, "plugin_settings": {"diary": str(diary)}}


def write_plugin(directory: Path, name: str, body: str) -> Path:
    path = directory / f"{name}.py"
    path.write_text("from bakthat.plugin import Plugin\n\n" + textwrap.dedent(body))
    return path


def entries(diary: Path) -> list[str]:
    return diary.read_text().splitlines()


# Life and death.


def test_plugins_are_notified_of_a_backup_in_the_order_of_the_profile(
    conf: Conf, tree: Path, diary: Path
) -> None:
    conf["plugins"] = ["diaries.Second", "diaries.Diary"]
    bakthat.backup(tree, conf=conf, password="")
    deactivate_plugins()
    assert entries(diary) == [
        "Second activate",
        "Diary activate",
        "Second before_backup",
        "Diary before_backup",
        "Second on_backup",
        "Diary on_backup",
        "Diary deactivate",
        "Second deactivate",
    ]


def test_callbacks_on_bakthat_events_come_before_those_of_plugins(
    conf: Conf, tree: Path, diary: Path
) -> None:
    def callback(_session_id: str) -> None:
        diary.write_text("the script\n")

    bakthat.events.before_backup += callback
    try:
        bakthat.backup(tree, conf={**conf, "plugins": ["diaries.Diary"]}, password="")
    finally:
        bakthat.events.before_backup -= callback
    assert entries(diary)[:2] == ["the script", "Diary before_backup"]


def test_a_plugin_is_activated_once_for_one_profile(conf: Conf, tree: Path, diary: Path) -> None:
    for _ in range(2):
        bakthat.backup(tree, conf={**conf, "plugins": ["diaries.Diary"]}, password="")
        bakthat.ls(conf={**conf, "plugins": ["diaries.Diary"]})
    assert entries(diary).count("Diary activate") == 1
    assert entries(diary).count("Diary on_backup") == 2


def test_a_profile_is_the_same_wherever_its_operations_run(
    conf: Conf, diary: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bakthat.ls(conf={**conf, "plugins": ["diaries.Diary"]})
    monkeypatch.chdir(tmp_path)
    bakthat.ls(conf={**conf, "plugins": ["diaries.Diary"]})
    assert entries(diary) == ["Diary activate"]


def test_a_directory_in_an_unknown_home_is_not_looked_up_in_the_working_directory(
    conf: Conf, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "~no-such-user").mkdir()
    (tmp_path / "~no-such-user" / "stray.py").write_text(DIARY)
    stray = {**conf, "plugins_dir": "~no-such-user", "plugins": ["stray.Diary"]}
    with pytest.raises(ConfigError, match="there is no such user"):
        bakthat.ls(conf=stray)


def test_a_plugin_is_notified_of_its_own_profile_only(
    conf: Conf, tree: Path, tmp_path: Path, diary: Path
) -> None:
    other = tmp_path / "other.txt"
    other.touch()
    named = {**conf, "plugins": ["diaries.Diary"]}
    bakthat.backup(tree, conf=named, password="")
    bakthat.backup(tree, conf={**named, "plugin_settings": {"diary": str(other)}}, password="")
    bakthat.backup(tree, conf=conf, password="")
    expected = ["Diary activate", "Diary before_backup", "Diary on_backup"]
    assert entries(diary) == expected
    assert entries(other) == expected


def test_plugins_are_activated_once_when_many_threads_begin_at_once(
    conf: Conf, diary: Path
) -> None:
    barrier, listed = threading.Barrier(8), []

    def work() -> None:
        barrier.wait()
        listed.append(bakthat.ls(conf={**conf, "plugins": ["diaries.Diary", "diaries.Second"]}))

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert listed == [[]] * 8
    assert entries(diary) == ["Diary activate", "Second activate"]


def test_an_operation_that_a_plugin_calls_while_it_is_activated_works(
    conf: Conf, plugins_dir: Path
) -> None:
    write_plugin(
        plugins_dir,
        "looking",
        """
        import bakthat

        class Looking(Plugin):
            found = None

            def activate(self):
                type(self).found = bakthat.ls(conf=self.conf)
        """,
    )
    assert bakthat.ls(conf={**conf, "plugins": ["looking.Looking"]}) == []


def test_every_plugin_is_deactivated_although_one_fails_to(
    conf: Conf, plugins_dir: Path, diary: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write_plugin(
        plugins_dir,
        "stubborn",
        """
        class Stubborn(Plugin):
            def activate(self): pass
            def deactivate(self): raise RuntimeError("no")
        """,
    )
    bakthat.ls(conf={**conf, "plugins": ["diaries.Diary", "stubborn.Stubborn"]})
    deactivate_plugins()
    assert entries(diary) == ["Diary activate", "Diary deactivate"]
    assert "plugin Stubborn: deactivate failed: RuntimeError: no" in caplog.text
    deactivate_plugins()
    assert entries(diary).count("Diary deactivate") == 1


def test_an_operation_that_a_plugin_calls_while_it_is_deactivated_activates_none_again(
    conf: Conf, plugins_dir: Path, diary: Path
) -> None:
    text = DIARY.replace('self.write("deactivate")', "import bakthat; bakthat.ls(conf=self.conf)")
    (plugins_dir / "last_look.py").write_text(text)
    bakthat.ls(conf={**conf, "plugins": ["last_look.Diary", "last_look.Second"]})
    deactivate_plugins()
    assert entries(diary) == ["Diary activate", "Second activate"]


def test_what_a_plugin_changes_in_its_configuration_is_its_own(conf: Conf) -> None:
    class Greedy(Plugin):
        def activate(self) -> None:
            self.conf["plugin_settings"]["diary"] = "gone"

    greedy = Greedy(conf)
    greedy.activate()
    greedy.deactivate()
    assert conf["plugin_settings"]["diary"] != "gone"


def test_a_plugin_has_bakthats_log(conf: Conf) -> None:
    assert Plugin.log.name == "bakthat"


# Where they are found.


def test_an_installed_plugin_is_found(conf: Conf, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Installed, "active", 0)
    bakthat.ls(conf={**conf, "plugins": [f"{__name__}.Installed"]})
    assert Installed.active == 1


class Installed(Plugin):
    active = 0

    def activate(self) -> None:
        type(self).active += 1


def test_a_plugin_in_a_package_of_the_directory_is_found(
    conf: Conf, plugins_dir: Path, diary: Path
) -> None:
    package = plugins_dir / "mine"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "inner.py").write_text("from . import words\n" + DIARY)
    (package / "words.py").touch()
    bakthat.ls(conf={**conf, "plugins": ["mine.inner.Diary"]})
    assert entries(diary) == ["Diary activate"]


def test_a_plugin_may_import_its_neighbour(conf: Conf, plugins_dir: Path, diary: Path) -> None:
    (plugins_dir / "a_neighbour_of_plugins.py").write_text("WORD = 'hello'\n")
    (plugins_dir / "lonely.py").write_text("from a_neighbour_of_plugins import WORD\n" + DIARY)
    bakthat.ls(conf={**conf, "plugins": ["lonely.Diary"]})
    del sys.modules["a_neighbour_of_plugins"]
    assert entries(diary) == ["Diary activate"]


def test_the_directory_is_on_the_import_path_only_while_plugins_are_activated(
    conf: Conf, plugins_dir: Path
) -> None:
    before = list(sys.path)
    bakthat.ls(conf={**conf, "plugins": ["diaries.Diary"]})
    assert sys.path == before
    with pytest.raises(ConfigError):
        bakthat.ls(conf={**conf, "plugins": ["nowhere.Diary"]})
    assert sys.path == before


def test_a_plugin_called_like_a_standard_module_hides_nothing(
    conf: Conf, plugins_dir: Path, diary: Path
) -> None:
    (plugins_dir / "json.py").write_text(DIARY)
    import json

    bakthat.ls(conf={**conf, "plugins": ["json.Diary"]})
    assert entries(diary) == ["Diary activate"]
    assert sys.modules["json"] is json


def test_two_directories_may_hold_plugins_of_one_name(
    conf: Conf, tmp_path: Path, diary: Path
) -> None:
    for name in ("one", "two"):
        directory = tmp_path / name
        directory.mkdir()
        (directory / "diaries.py").write_text(DIARY.replace('"activate"', f'"{name}"'))
        bakthat.ls(
            conf={**conf, "plugins": ["diaries.Diary"], "plugins_dir": str(directory)},
        )
    assert entries(diary) == ["Diary one", "Diary two"]


# What can be wrong with them.

BROKEN = [
    ("nowhere.Diary", "", "there is no module 'nowhere' in {dir}, nor among the installed", ""),
    ("diaries.inner.Diary", "", "there is no module 'diaries.inner' in {dir}", ""),
    ("diaries.Dairy", "", "no class 'Dairy' in {dir}/diaries.py", "use one of: Diary, Second"),
    ("broken.Absent", "", "no class 'Absent' in {dir}/broken.py", ""),
    (
        "broken.Mine",
        "class Mine: pass",
        "in {dir}/broken.py is not a subclass of bakthat.plugin",
        "",
    ),
    ("broken.Plugin", "", "'Plugin' in {dir}/broken.py is not a subclass", ""),
    ("broken.number", "number = 3", "'number' in {dir}/broken.py is not a subclass", ""),
    ("broken.Mine", "1 / 0", "{dir}/broken.py:3: ZeroDivisionError: division by zero", ""),
    ("broken.Mine", "import nowhere", "{dir}/broken.py:3: ModuleNotFoundError: No module", ""),
    (
        "broken.Mine",
        "this is no Python",
        "{dir}/broken.py: SyntaxError: invalid syntax (broken",
        "",
    ),
    ("broken.Mine", "raise SystemExit(0)", "{dir}/broken.py:3: SystemExit: 0", ""),
    (
        "broken.Mine",
        "class Mine(Plugin): pass",
        "{dir}/broken.py: TypeError: Can't instantiate",
        "",
    ),
    (
        "broken.Mine",
        "class Mine(Plugin):\n    def activate(self):\n        raise OSError('no\\nluck')",
        "{dir}/broken.py:5: OSError: no luck",
        "",
    ),
    (
        "broken.Mine",
        "class Mine(Plugin):\n    def activate(self):\n        self.on_bakup += print",
        "{dir}/broken.py:5: AttributeError: Mine has no 'on_bakup'; the events are before_backup,",
        "",
    ),
    (
        "broken.Mine",
        "class Mine(Plugin):\n    def on_backup(self): pass",
        "TypeError: Mine.on_backup would hide the event on_backup: choose another name",
        "",
    ),
    ("broken", "", "it does not name a module and a class", ""),
    ("..broken.Mine", "", "it does not name a module and a class", ""),
    ("/tmp/broken.Mine", "", "it does not name a module and a class", ""),
]


@pytest.mark.parametrize(("name", "body", "message", "hint"), BROKEN)
def test_a_broken_plugin_stops_the_backup_with_one_line_that_names_it(
    name: str, body: str, message: str, hint: str, conf: Conf, plugins_dir: Path, tree: Path
) -> None:
    write_plugin(plugins_dir, "broken", body)
    with pytest.raises(ConfigError) as caught:
        bakthat.backup(tree, conf={**conf, "plugins": [name]}, password="")
    assert str(caught.value).startswith(f"conf: profile 'default': plugin '{name}': ")
    assert message.format(dir=plugins_dir) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert hint in caught.value.hint
    assert not Path(conf["local_path"]).exists()
    assert bakthat.ls(conf=conf) == []


def test_a_plugin_that_failed_is_tried_again_and_those_before_it_are_not(
    conf: Conf, plugins_dir: Path, diary: Path, tmp_path: Path
) -> None:
    write_plugin(
        plugins_dir,
        "patient",
        f"""
        import os

        class Patient(Plugin):
            def activate(self):
                os.stat({str(tmp_path / "ready")!r})
                self.on_backup += print
        """,
    )
    named = {**conf, "plugins": ["diaries.Diary", "patient.Patient", "diaries.Second"]}
    for _ in range(2):
        with pytest.raises(ConfigError, match=r"patient\.Patient.*No such file"):
            bakthat.ls(conf=named)
    (tmp_path / "ready").touch()
    assert bakthat.ls(conf=named) == []
    deactivate_plugins()
    assert entries(diary) == [
        "Diary activate",
        "Second activate",
        "Second deactivate",
        "Diary deactivate",
    ]


@pytest.mark.permissions
def test_a_directory_of_plugins_that_everyone_can_write_to_is_refused(
    conf: Conf, plugins_dir: Path, diary: Path
) -> None:
    plugins_dir.chmod(0o777)
    with pytest.raises(ConfigError, match="everyone can write to") as caught:
        bakthat.ls(conf={**conf, "plugins": ["diaries.Diary"]})
    assert caught.value.hint == f"chmod o-w {plugins_dir}"
    assert entries(diary) == []


# The guide's monkey patching.

CHANGE_MODEL = """
from bakthat.plugin import Plugin
from bakthat.models import Backups


class MyBackups(Backups):
    @classmethod
    def my_custom_method(self):
        return True


class ChangeModelPlugin(Plugin):
    \"\"\" A basic plugin implementation. \"\"\"
    def activate(self):
        global Backups
        self.log.info("Replace Backups")
        Backups = MyBackups
"""

CHANGE_MODEL_DIRECTLY = """
import bakthat.models
from bakthat.plugin import Plugin


class MyBackups(bakthat.models.Backups):
    def my_custom_method(self):
        return True


class ChangeModelPlugin(Plugin):
    def activate(self):
        bakthat.models.Backups = MyBackups
"""


@pytest.mark.parametrize("text", [CHANGE_MODEL, CHANGE_MODEL_DIRECTLY])
def test_a_model_that_a_plugin_replaced_is_what_every_operation_returns(
    text: str, conf: Conf, plugins_dir: Path, tree: Path, tmp_path: Path
) -> None:
    bakthat.backup(tree, conf=conf, password="")
    (plugins_dir / "filename.py").write_text(text)
    conf["plugins"] = ["filename.ChangeModelPlugin"]
    (listed,) = bakthat.ls(conf=conf)
    made = bakthat.backup(tree, conf=conf, password="")
    restored = bakthat.restore("mydir", conf=conf, output=tmp_path / "out")
    deleted = bakthat.delete(made.stored_filename, conf=conf)
    for each in (listed, made, restored, deleted):
        assert type(each).__name__ == "MyBackups"
        assert each.my_custom_method() is True  # type: ignore[union-attr]  # the plugin's
    assert [str(each) for each in bakthat.ls(conf=conf)] == [str(listed)]


def test_a_second_plugin_builds_on_the_model_of_the_first(
    conf: Conf, plugins_dir: Path, tree: Path
) -> None:
    (plugins_dir / "first.py").write_text(CHANGE_MODEL)
    (plugins_dir / "second.py").write_text(CHANGE_MODEL.replace("my_custom", "another"))
    conf["plugins"] = ["first.ChangeModelPlugin", "second.ChangeModelPlugin"]
    made: Any = bakthat.backup(tree, conf=conf, password="")
    assert made.my_custom_method()
    assert made.another_method()


def test_another_thing_that_a_plugin_calls_backups_is_left_alone(
    conf: Conf, plugins_dir: Path
) -> None:
    text = CHANGE_MODEL.replace("Backups = MyBackups", "Backups = dict")
    (plugins_dir / "filename.py").write_text(text)
    known = models.Backups
    bakthat.ls(conf={**conf, "plugins": ["filename.ChangeModelPlugin"]})
    assert models.Backups is known


# As a user meets them.


def test_a_script_deactivates_its_plugins_once_when_it_ends(
    conf: Conf, diary: Path, isolated_environment: Path, tree: Path
) -> None:
    config = isolated_environment / ".bakthat.yml"
    write_config(config, default={**conf, "plugins": ["diaries.Diary"]})
    script = f"import bakthat\nbakthat.backup({str(tree)!r}, password='')\nbakthat.ls()\n1 / 0\n"
    done = subprocess.run(
        [sys.executable, "-c", script],
        env={"HOME": str(isolated_environment), "PYTHONPATH": str(PROJECT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stderr.splitlines()[-1] == "ZeroDivisionError: division by zero"
    assert entries(diary) == [
        "Diary activate",
        "Diary before_backup",
        "Diary on_backup",
        "Diary deactivate",
    ]


@pytest.fixture
def user(user: CommandLine, tree: Path) -> CommandLine:
    assert tree.parent == user.directory  # where the commands run
    return user


@pytest.fixture
def configure(user: CommandLine, conf: Conf) -> Callable[..., Path]:
    def write(**more: Any) -> Path:
        path = user.home / ".bakthat.yml"
        write_config(path, default={**conf, **more})
        return path

    return write


def test_a_broken_plugin_is_exit_code_1_and_nothing_is_backed_up(
    user: CommandLine, configure: Callable[..., Path], conf: Conf
) -> None:
    config = configure(plugins=["nowhere.Mine"])
    done = user.run("backup", "mydir", "--prompt", "no")
    assert (done.code, done.stdout) == (1, "")
    assert done.stderr == (
        f"bakthat: error: {config}:7: profile 'default': plugin 'nowhere.Mine': there is no module "
        f"'nowhere' in {user.home}/.bakthat_plugins, nor among the installed packages\n"
        "bakthat: hint: put it there, install it, or set another plugins_dir\n"
    )
    assert not Path(conf["local_path"]).exists()


@pytest.mark.parametrize("command", [["show"], ["delete", "x"], ["rotate", "x", "--dry-run"]])
def test_every_command_on_a_profile_needs_its_plugins(
    command: list[str], user: CommandLine, configure: Callable[..., Path]
) -> None:
    configure(plugins=["nowhere.Mine"])
    done = user.run(*command)
    assert done.code == 1
    assert "plugin 'nowhere.Mine'" in done.stderr


def test_a_profile_without_plugins_activates_none(conf: Conf) -> None:
    from bakthat.conf import load_profile

    assert activate_plugins(load_profile(conf=conf)) == ()


def test_importing_the_module_loads_nothing_heavy() -> None:
    code = "import sys, bakthat.plugin\nprint(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(PROJECT)},
    )
    assert not {"boto3", "cryptography", "yaml", "isal"} & set(done.stdout.split())


# Settings in a file, or of a program


@pytest.mark.parametrize("way", ["file", "command"])
def test_a_plugin_gets_its_settings_also_from_a_file_or_a_program(
    conf: Conf, tree: Path, diary: Path, tmp_path: Path, way: str
) -> None:
    (tmp_path / "settings").write_text(f"diary: {conf.pop('plugin_settings')['diary']}\n")
    path = str(tmp_path / "settings")
    keys = {"plugin_settings_file": path, "plugin_settings_command": ["cat", path]}
    conf |= {"plugins": ["diaries.Diary"], f"plugin_settings_{way}": keys[f"plugin_settings_{way}"]}
    bakthat.backup(tree, conf=conf, password="")
    assert entries(diary) == ["Diary activate", "Diary before_backup", "Diary on_backup"]


def test_settings_that_cannot_be_read_are_an_error_with_the_place_of_the_plugin(
    conf: Conf, tree: Path, plugins_dir: Path, isolated_environment: Path
) -> None:
    config = isolated_environment / ".bakthat.yml"
    conf |= {"plugins": ["diaries.Diary"], "plugin_settings_file": "nowhere"}
    del conf["plugin_settings"]
    write_config(config, default=conf)
    with pytest.raises(ConfigError) as caught:
        bakthat.backup(tree, password="")
    message = str(caught.value)
    assert message.startswith(f"{config}:")
    assert message.endswith(
        f": profile 'default': plugin 'diaries.Diary': cannot read the plugin settings file "
        f"'{isolated_environment / 'nowhere'}': no such file or directory"
    )
    assert caught.value.hint == "check the name and that this user may read it"
    assert plugins_dir.exists()
    assert not Path(conf["local_path"]).exists()


def test_a_plugin_is_given_no_other_secret_than_its_settings(
    conf: Conf, tree: Path, plugins_dir: Path, tmp_path: Path
) -> None:
    write_plugin(
        plugins_dir,
        "curious",
        """
        class Curious(Plugin):
            section = "webhook"

            def activate(self):
                assert self.conf["webhook"] == {"url": "https://h/x"}
                assert "secret_key" not in self.conf
        """,
    )
    conf |= {
        "plugins": ["curious.Curious"],
        "webhook_command": ["echo", "{url: https://h/x}"],
        "secret_key_command": ["touch", str(tmp_path / "ran")],
    }
    bakthat.backup(tree, conf=conf, password="")
    assert not (tmp_path / "ran").exists()
