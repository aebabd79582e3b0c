"""The password of a database is in no command line, log, error, catalog or stored object."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import bakthat
from bakthat.errors import BakthatError
from tests.support.processes import own_processes
from tests.support.profiles import Conf
from tests.support.shops import PASSWORD, Shop

pytestmark = pytest.mark.slow

NEEDLE = PASSWORD[-5:]
"""A part of the password that looks the same however it is quoted."""


@pytest.fixture
def conf(local: Conf) -> Conf:
    return {**local, "password": "", "database_password": PASSWORD}


@contextmanager
def watched() -> Iterator[set[bytes]]:
    """Collect the command lines of all processes below this one until the block ends."""
    found, stop = set[bytes](), threading.Event()

    def watch() -> None:
        while not stop.is_set():
            for process in own_processes():
                try:
                    found.add((process / "cmdline").read_bytes())
                except OSError:  # it has ended
                    continue

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield found
    finally:
        stop.set()
        thread.join()


def test_the_password_is_seen_nowhere(
    conf: Conf, shop: Shop, caplog: pytest.LogCaptureFixture, isolated_environment: Path
) -> None:
    caplog.set_level("DEBUG")
    shop.make("large", "CREATE TABLE noise (what TEXT);")
    shop.sql("INSERT INTO noise VALUES " + ",".join(["(repeat('text', 10000))"] * 500), "large")
    errors = []
    with watched() as command_lines:
        try:
            entries = bakthat.backup_databases(shop.url, conf=conf)
            bakthat.restore("large", conf=conf, into=shop.of("shop_copy"))
            bakthat.restore("large", conf=conf, into=shop.of("shop_copy"), replace=True)
            bakthat.drill(
                "large",
                conf=conf,
                into=shop.url,
                check="SELECT 1",
                check_command='test -n "$PGPASSFILE$MYSQL_PWD"',
            )
            for call in (
                lambda: bakthat.backup_databases(shop.of("none"), conf=conf),
                lambda: bakthat.restore("large", conf=conf, into=shop.of("shop_copy")),
                lambda: bakthat.drill("large", conf=conf, into=shop.url, check="SELECT none"),
                lambda: bakthat.backup_databases(
                    shop.url, conf=conf, database_password=PASSWORD + "x"
                ),
            ):
                with pytest.raises(BakthatError) as caught:
                    call()
                errors.append(f"{caught.value!r} {caught.value.hint} {caught.value.__cause__!r}")
        finally:
            shop.drop("large", "shop_copy")
    seen = b"\n".join(command_lines).decode(errors="replace")
    dump = {"postgresql": "pg_dump", "mariadb": "mariadb-dump"}[shop.kind]
    load = {"postgresql": "pg_restore", "mariadb": "--max-allowed-packet"}[shop.kind]
    assert dump in seen
    assert load in seen
    assert NEEDLE not in seen
    assert NEEDLE not in caplog.text
    assert NEEDLE not in "\n".join(errors)
    assert NEEDLE not in str([each.as_dict() for each in entries])
    files = [each for each in isolated_environment.rglob("*") if each.is_file()]
    assert Path(conf["database"]) in files
    assert [each for each in files if NEEDLE.encode() in each.read_bytes()] == []
