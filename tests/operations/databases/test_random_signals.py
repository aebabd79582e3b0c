"""A signal at a random moment leaves no scratch database, no directory and no half of a load."""

from __future__ import annotations

import os
import random
import signal
import subprocess
from pathlib import Path

import pytest

import bakthat
from tests.support.commandline import PATIENCE, CommandLine
from tests.support.profiles import Conf, write_config
from tests.support.shops import ORDERS, PASSWORD, Shop

pytestmark = pytest.mark.slow

ROUNDS = 5


@pytest.mark.parametrize("command", ["drill", "restore", "replace"])
def test_a_signal_at_any_moment_leaves_nothing(
    shop: Shop, local: Conf, user: CommandLine, command: str, tmp_path: Path
) -> None:
    conf = {**local, "password": "", "database_password": PASSWORD}
    write_config(user.home / ".bakthat.yml", default=conf)
    bakthat.backup_databases(shop.of("shop"), conf=conf)
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    words = {
        "drill": ["drill", "shop", "--into", shop.url, "--check", "SELECT 1"],
        "restore": ["restore", "shop", "--into", shop.of("shop_new")],
        "replace": ["restore", "shop", "--into", shop.of("shop_copy"), "--replace"],
    }[command]
    for _ in range(ROUNDS):
        shop.make("shop_copy", ORDERS)
        before = shop.names()
        process = user.start(*words, env={"TMPDIR": str(temporary)})
        try:
            process.wait(random.uniform(0.2, 2))
        except subprocess.TimeoutExpired:
            process.send_signal(random.choice([signal.SIGINT, signal.SIGTERM]))
        errors = process.communicate(timeout=PATIENCE)[1].decode()
        is_done = "Restored " in errors or "the whole dump was loaded into" in errors
        changed = {"restore": "shop_new", "replace": "shop_copy"}.get(command, "")
        assert shop.names() == before | ({changed} if is_done else set()), errors
        assert shop.orders("shop_copy") == (
            shop.orders("shop") if is_done and command == "replace" else []
        ), errors
        assert os.listdir(temporary) == []
        shop.drop("shop_copy", "shop_new")
