"""The types of callbacks, plugins and helpers: mypy --strict reads this file.

``assert_type`` and the ignored errors are checked by ``tox -e types``: an ignore of an error that
mypy does not find is an error itself.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any, assert_type

import bakthat
from bakthat import events
from bakthat.helper import BakHelper, KeyValue
from bakthat.hooks import EventSlot
from bakthat.models import Backups
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


def test_the_typed_plugin_works() -> None:
    plugin = TypedPlugin({})
    plugin.activate()
    assert (len(plugin.on_backup), len(plugin.on_error)) == (0, 1)


def test_the_package_is_marked_as_typed() -> None:
    assert (PROJECT / "bakthat" / "py.typed").read_bytes() == b""
