"""The events of every operation: their arguments, and the effect of a callback that raises."""

from __future__ import annotations

import logging
import time
import uuid
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import bakthat
from bakthat import conf as conf_module
from bakthat.errors import BakthatError, NoMatchError, SourceError
from bakthat.helper import BakHelper
from bakthat.hooks import EVENT_NAMES, OPERATIONS, Events
from bakthat.models import Backups
from bakthat.operations.backup import store
from tests.support.commandline import CommandLine
from tests.support.profiles import Conf

Call = tuple[Any, ...]


@pytest.fixture(autouse=True)
def an_hour_passes_between_backups(monkeypatch: pytest.MonkeyPatch) -> None:
    """Date backups to 2026, an hour apart, so that rotation has something to delete."""
    seconds = count(1_780_000_000, 3600)
    clock = SimpleNamespace(
        time=lambda: next(seconds), time_ns=time.time_ns, monotonic=time.monotonic
    )
    monkeypatch.setattr(store, "time", clock)


class Listener:
    """Listens to every event, and can be made to fail at some."""

    def __init__(self) -> None:
        self.calls: list[Call] = []
        self.failures: dict[str, BaseException] = {}
        self.hooked: dict[str, Callable[..., None]] = {
            name: self.listen(name) for name in EVENT_NAMES
        }

    def listen(self, name: str) -> Callable[..., None]:
        def callback(*arguments: Any) -> None:
            self.calls.append((name, *arguments))
            if name in self.failures:
                raise self.failures[name]

        return callback

    def names(self) -> list[str]:
        return [call[0] for call in self.calls]


@pytest.fixture
def listener() -> Iterator[Listener]:
    fired = Listener()
    for name, callback in fired.hooked.items():
        slot = getattr(bakthat.events, name)
        slot += callback
    yield fired
    for name, callback in fired.hooked.items():
        slot = getattr(bakthat.events, name)
        slot -= callback


ON_LOCAL = ("backup", "restore", "drill", "delete", "delete_older_than", "rotate_backups")
ON_LOCKS = ("hold", "release")
"""Those of a bucket with object lock; ``tests/operations/locks`` tests their events."""


def do(operation: str, tree: Path, conf: Conf, out: Path) -> Any:
    """Run one operation on the set mydir."""
    operations: dict[str, Callable[[], Any]] = {
        "backup": lambda: bakthat.backup(tree, conf=conf, password=""),
        "restore": lambda: bakthat.restore("mydir", conf=conf, output=out),
        "drill": lambda: bakthat.drill("mydir", conf=conf),
        "delete": lambda: bakthat.delete("mydir", conf=conf),
        "delete_older_than": lambda: bakthat.delete_older_than("mydir", "1s", conf=conf),
        "rotate_backups": lambda: bakthat.rotate_backups("mydir", conf=conf, last=1),
    }
    return operations[operation]()


# The object.


def test_the_events_are_those_of_the_guide_and_on_error() -> None:
    assert sorted([*ON_LOCAL, *ON_LOCKS]) == sorted(OPERATIONS)
    assert len(EVENT_NAMES) == 19
    assert set(Events.__annotations__) == set(EVENT_NAMES)
    assert bakthat.events is conf_module.events


def test_a_wrong_event_name_names_the_right_ones() -> None:
    with pytest.raises(AttributeError, match=r"'on_bakup'; the events are before_backup, on_back"):
        _ = bakthat.events.on_bakup  # type: ignore[attr-defined]  # what is tested
    assert not hasattr(bakthat.events, "before_lunch")


def test_a_callback_that_is_assigned_does_not_replace_the_others() -> None:
    with pytest.raises(AttributeError, match=r"with on_backup \+= callback"):
        bakthat.events.on_backup = print  # type: ignore[assignment]  # what is tested


def test_a_callback_must_be_callable() -> None:
    with pytest.raises(TypeError, match="on_backup"):
        bakthat.events.on_backup += "print"  # type: ignore[arg-type]  # what is tested


def test_removing_a_callback_removes_every_registration() -> None:
    own, calls = Events(), []

    def callback(session_id: str) -> None:
        calls.append(session_id)

    own.before_delete += callback
    own.before_delete += callback
    own.before_delete("one")
    own.before_delete -= callback
    own.before_delete -= callback
    own.before_delete("two")
    assert calls == ["one", "one"]
    assert len(own.before_delete) == 0
    assert "before_delete" in repr(own.before_delete)


# Around the operations.


@pytest.mark.parametrize("operation", ON_LOCAL)
def test_every_operation_fires_its_two_events_with_one_session_id_and_its_result(
    operation: str, local: Conf, tree: Path, tmp_path: Path, listener: Listener
) -> None:
    if operation != "backup":
        bakthat.backup(tree, conf=local, password="")
        listener.calls.clear()
    result = do(operation, tree, local, tmp_path / "out")
    before, after = listener.calls
    assert (before[0], after[0]) == (f"before_{operation}", f"on_{operation}")
    assert len(before) == 2
    assert str(uuid.UUID(before[1], version=4)) == before[1] == after[1]
    assert after[2] is result
    assert isinstance(result, list if operation in ON_LOCAL[4:] else Backups)


def test_the_result_of_a_rotation_is_the_deleted_backups(
    local: Conf, tree: Path, tmp_path: Path, listener: Listener
) -> None:
    made = [bakthat.backup(tree, conf=local, password="") for _ in range(3)]
    bakthat.rotate_backups("mydir", conf=local, last=1)
    assert [str(each) for each in listener.calls[-1][2]] == [str(each) for each in made[:2]]


def test_the_result_is_recorded_when_on_backup_fires(
    local: Conf, tree: Path, listener: Listener
) -> None:
    listed: list[list[Backups]] = []

    def look(_session_id: str, _backup: Backups) -> None:
        listed.append(bakthat.ls(conf=local))

    bakthat.events.on_backup += look
    try:
        made = bakthat.backup(tree, conf=local, password="")
    finally:
        bakthat.events.on_backup -= look
    assert [str(each) for each in listed[0]] == [str(made)]


def test_listing_fires_nothing(local: Conf, listener: Listener) -> None:
    bakthat.ls(conf=local)
    assert listener.calls == []


def test_a_helper_fires_the_events_of_its_operations(
    local: Conf, tmp_path: Path, listener: Listener
) -> None:
    with BakHelper("mydump", conf=local, password="") as helper:
        Path("dump.sql").write_text("--")
        helper.backup()
        helper.restore("mydump", output=tmp_path / "out")
        helper.delete_older_than("1D")
        helper.rotate(last=1)
    assert listener.names() == [
        f"{moment}_{operation}"
        for operation in ("backup", "restore", "delete_older_than", "rotate_backups")
        for moment in ("before", "on")
    ]


# Callbacks that fail.


@pytest.mark.parametrize("operation", ON_LOCAL)
@pytest.mark.parametrize("failure", [RuntimeError("not today"), BakthatError("not today")])
def test_a_before_callback_that_raises_stops_before_anything_happens(
    operation: str,
    failure: Exception,
    local: Conf,
    tree: Path,
    tmp_path: Path,
    listener: Listener,
) -> None:
    if operation != "backup":
        for _ in range(2):
            bakthat.backup(tree, conf=local, password="")
    store = Path(local["local_path"])
    before = [str(each) for each in bakthat.ls(conf=local)], list(tmp_path.rglob("*"))
    stored = sorted(store.rglob("*"))
    listener.calls.clear()
    listener.failures[f"before_{operation}"] = failure
    with pytest.raises(type(failure), match="not today") as caught:
        do(operation, tree, local, tmp_path / "out")
    assert caught.value is failure
    assert ([str(each) for each in bakthat.ls(conf=local)], list(tmp_path.rglob("*"))) == before
    assert sorted(store.rglob("*")) == stored
    session_id = listener.calls[0][1]
    assert listener.calls[1:] == [("on_error", session_id, operation, failure)]


@pytest.mark.parametrize("operation", ON_LOCAL)
def test_an_on_callback_that_raises_is_raised_after_all_is_done_and_nothing_is_undone(
    operation: str, local: Conf, tree: Path, tmp_path: Path, listener: Listener
) -> None:
    if operation != "backup":
        for _ in range(2):
            bakthat.backup(tree, conf=local, password="")
    listener.failures[f"on_{operation}"] = RuntimeError("too late")
    with pytest.raises(RuntimeError, match="too late"):
        do(operation, tree, local, tmp_path / "out")
    left = {"backup": 1, "restore": 2, "drill": 2}
    assert len(bakthat.ls(conf=local)) == left.get(operation, 1)
    assert (tmp_path / "out" / "mydir" / "a.txt").exists() == (operation == "restore")
    assert "on_error" not in listener.names()


def test_every_on_callback_gets_the_result_although_one_fails(
    local: Conf, tree: Path, listener: Listener, caplog: pytest.LogCaptureFixture
) -> None:
    fired: list[str] = []

    def fail_too(_session_id: str, _backup: Backups) -> None:
        fired.append("second")
        raise ValueError("me too")

    listener.failures["on_backup"] = RuntimeError("first")
    bakthat.events.on_backup += fail_too
    try:
        with pytest.raises(RuntimeError, match="first"):
            bakthat.backup(tree, conf=local, password="")
    finally:
        bakthat.events.on_backup -= fail_too
    assert fired == ["second"]
    assert "another callback failed: ValueError: me too" in caplog.text
    assert "fail_too, a callback of on_backup" in caplog.text


def test_a_failing_before_callback_keeps_later_ones_from_being_called(
    local: Conf, tree: Path, listener: Listener
) -> None:
    called: list[str] = []
    listener.failures["before_backup"] = RuntimeError("no")
    bakthat.events.before_backup += called.append
    try:
        with pytest.raises(RuntimeError, match="no"):
            bakthat.backup(tree, conf=local, password="")
    finally:
        bakthat.events.before_backup -= called.append
    assert called == []


def test_on_error_gets_the_operation_and_the_exception(
    local: Conf, tmp_path: Path, listener: Listener
) -> None:
    with pytest.raises(SourceError) as caught:
        bakthat.backup(tmp_path / "nothing", conf=local, password="")
    session_id = listener.calls[0][1]
    assert listener.calls == [
        ("before_backup", session_id),
        ("on_error", session_id, "backup", caught.value),
    ]


def test_an_on_error_callback_that_fails_hides_neither_the_error_nor_the_others(
    local: Conf, listener: Listener, caplog: pytest.LogCaptureFixture
) -> None:
    fired: list[BaseException] = []

    def listen(_session_id: str, _operation: str, exception: BaseException) -> None:
        fired.append(exception)

    listener.failures["on_error"] = RuntimeError("worse")
    bakthat.events.on_error += listen
    try:
        with pytest.raises(NoMatchError) as caught:
            bakthat.delete("nothing", conf=local)
    finally:
        bakthat.events.on_error -= listen
    assert fired == [caught.value]
    assert "an on_error callback failed: RuntimeError: worse" in caplog.text
    assert caplog.records[-1].levelno == logging.WARNING


# The command line.


@pytest.fixture
def user(user: CommandLine, tree: Path, plugins_dir: Path) -> CommandLine:
    assert tree.parent == user.directory  # where the commands run
    (plugins_dir / "spy.py").write_text(
        "from bakthat import events\n"
        "from bakthat.hooks import EVENT_NAMES\n"
        "from bakthat.plugin import Plugin\n\n\n"
        "class Spy(Plugin):\n"
        "    def activate(self):\n"
        "        for name in EVENT_NAMES:\n"
        "            slot = getattr(events, name)\n"
        "            slot += self.listen(name)\n\n"
        "    def listen(self, name):\n"
        "        def callback(session_id, *arguments):\n"
        "            self.log.info('%s %s %s', name, session_id, *arguments or ' ')\n"
        "            if name == self.conf['plugin_settings'].get('fail'):\n"
        "                raise ValueError('the spy is ill')\n"
        "        return callback if name != 'on_error' else print\n"
    )
    configure(user, "")
    return user


def configure(user: CommandLine, failing: str) -> None:
    path = user.home / ".bakthat.yml"
    path.write_text(
        "default:\n  default_destination: local\n  plugins: [spy.Spy]\n"
        f"  plugin_settings: {{fail: '{failing}'}}\n"
    )
    path.chmod(0o600)


def test_every_subcommand_fires_its_events(user: CommandLine, tmp_path: Path) -> None:
    commands = {
        "backup": ["backup", "mydir", "--prompt", "no"],
        "restore": ["restore", "mydir", "-o", str(tmp_path / "out")],
        "drill": ["drill", "mydir"],
        "rotate_backups": ["rotate_backups", "mydir", "--last", "1"],
        "delete_older_than": ["delete_older_than", "mydir", "1D"],
        "delete": ["delete", "mydir"],
    }
    assert set(commands) == set(ON_LOCAL)
    for operation, arguments in commands.items():
        done = user.run(*arguments)
        assert done.code == 0, done.stderr
        lines = [line.split(" ", 2) for line in done.stderr.splitlines()]
        fired = [line for line in lines if line[0].endswith(operation)]
        assert [line[0] for line in fired] == [f"before_{operation}", f"on_{operation}"]
        assert fired[0][1] == fired[1][1]
        single = operation in ("backup", "restore", "drill", "delete")
        assert fired[1][2].startswith("<Backup: mydir.") if single else fired[1][2] == "[]"


def test_a_failing_callback_is_one_line_that_names_it(user: CommandLine) -> None:
    configure(user, "before_backup")
    done = user.run("backup", "mydir", "--prompt", "no")
    assert done.code == 1
    assert done.stderr.splitlines()[1:] == [
        "bakthat: error: unexpected ValueError: the spy is ill",
        "bakthat: hint: raised by Spy.listen.<locals>.callback, a callback of before_backup; "
        "--debug shows where",
    ]
    assert "ValueError" not in done.stdout.replace("ValueError('the spy is ill')", "")
    assert user.run("show", "--json").lines("backup") == []


def test_a_backup_is_listed_although_a_callback_failed_after_it(user: CommandLine) -> None:
    configure(user, "on_backup")
    assert user.run("backup", "mydir", "--prompt", "no").code == 1
    assert "mydir.2" in user.run("show").stdout
