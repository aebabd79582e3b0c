"""The types of callbacks, plugins and helpers: mypy --strict reads this file.

``assert_type`` and the ignored errors are checked by ``tox -e types``: an ignore of an error that
mypy does not find is an error itself.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, assert_type

import bakthat
from bakthat import Entry, events
from bakthat.format.entry import EntryType
from bakthat.helper import BakHelper, KeyValue
from bakthat.hooks import EventSlot
from bakthat.models import Backups
from bakthat.operations.browse.comparison import Aspect, ChangeKind, EntryChange
from bakthat.plugin import Plugin
from tests.support.commandline import PROJECT


def receive_start(_session_id: str) -> None: ...


def receive_backup(_session_id: str, _backup: Backups) -> None: ...


def receive_deletions(_session_id: str, _deleted: list[Backups]) -> None: ...


def receive_error(_session_id: str, _operation: str, _exception: BaseException) -> None: ...


class TypedPlugin(Plugin):
    def activate(self) -> None:
        assert_type(self.log, logging.Logger)
        assert_type(self.conf, dict[str, Any])
        assert_type(self.on_restore, EventSlot[[str, Backups]])
        self.on_backup += self.listen
        self.on_backup -= self.listen
        self.on_error += receive_error

    def listen(self, _session_id: str, backup: Backups) -> None:
        assert_type(backup.stored_filename, str)
        assert_type(backup.size, int)
        assert_type(backup.tags, str)


if TYPE_CHECKING:  # never run: what is wrong here must be found by reading

    def use_events() -> None:
        assert_type(events.before_backup, EventSlot[[str]])
        assert_type(events.on_backup, EventSlot[[str, Backups]])
        assert_type(bakthat.events.on_rotate_backups, EventSlot[[str, list[Backups]]])
        assert_type(bakthat.events.on_error, EventSlot[[str, str, BaseException]])
        events.before_delete += receive_start
        events.on_delete += receive_backup
        events.on_delete_older_than += receive_deletions
        events.on_error += receive_error
        events.on_backup += receive_start  # type: ignore[arg-type]  # must be refused
        events.on_rotate_backups += receive_backup  # type: ignore[arg-type]  # must be refused
        events.on_bakup += receive_backup  # type: ignore[attr-defined]  # must be refused
        events.on_backup = receive_backup  # type: ignore[assignment]  # must be refused

    def use_helpers() -> None:
        with BakHelper("mybackup", tags=["mybackup"]) as bh:
            assert_type(bh, BakHelper)
            assert_type(bh.directory, Path)
            assert_type(bh.backup(), Backups)
            assert_type(bh.restore(), Backups | None)
            assert_type(bh.rotate(), list[Backups])
            assert_type(bh.delete_older_than("1M"), list[Backups])
            bh.backup(pasword="x")  # type: ignore[call-arg]  # must be refused
            bh.rotate(day=7)  # type: ignore[call-arg]  # must be refused
        assert_type(KeyValue().set_key("mykey", {"some": "data"}), Backups)
        assert_type(KeyValue().get_key_url("mykey", 60), str)
        assert_type(KeyValue().delete_key("mykey"), bool)

    def use_operations() -> None:
        assert_type(bakthat.backup("mydir"), Backups)
        assert_type(bakthat.ls(), list[Backups])
        assert_type(bakthat.rotate("mydir"), list[Backups])
        assert_type(bakthat.restore("mydir", only=["etc/hosts", "*.conf"]), Backups | None)
        assert_type(bakthat.restore("mydir", only="etc/hosts"), Backups | None)

    def look_into_backups() -> None:
        entries: Iterator[Entry] = bakthat.contents("mydir", ["*.conf"])
        for entry in entries:
            assert_type(entry, Entry)
            assert_type(entry.sha256, str)
            assert_type(entry.type, EntryType)
            assert_type(entry.device, tuple[int, int] | None)
        assert_type(bakthat.contents("mydir").backup, Backups)
        bakthat.contents("mydir", pattern="*.conf")  # type: ignore[call-arg]  # must be refused
        for match in bakthat.find("*.conf", since="1W"):
            assert_type(match.entry, Entry)
            assert_type(match.backups, tuple[Backups, ...])
        changes: Iterator[EntryChange] = bakthat.diff("mydir", path="/srv/mydir")
        for change in changes:
            assert_type(change.kind, ChangeKind)
            assert_type(change.aspects, tuple[Aspect, ...])
            assert_type(change.before, Entry | None)
        assert_type(bakthat.diff("mydir", "mydir").report.totals.differs, bool)
        with bakthat.open_file("mydir", "etc/hosts") as file:
            assert_type(file, BinaryIO)
            assert_type(file.read(), bytes)


def test_the_typed_plugin_works() -> None:
    plugin = TypedPlugin({})
    plugin.activate()
    assert (len(plugin.on_backup), len(plugin.on_error)) == (0, 1)


def test_the_package_is_marked_as_typed() -> None:
    assert (PROJECT / "bakthat" / "py.typed").read_bytes() == b""
