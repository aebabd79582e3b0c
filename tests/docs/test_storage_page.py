"""The policy in docs/reference/storage.rst is enough for everything, and names what it should."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import bakthat
from bakthat.policy.finding import Verdict
from tests.docs.sessions import DOCS, blocks_of
from tests.support.iam import checked_server
from tests.support.profiles import Conf

SECTION = "The rights of the keys"
PAGE = DOCS / "reference" / "storage.rst"


def statements() -> list[dict[str, Any]]:
    (block,) = blocks_of(PAGE, SECTION)
    found: list[dict[str, Any]] = json.loads(block.text.replace("my-backups", "{bucket}"))[
        "Statement"
    ]
    return found


def test_the_page_says_what_each_right_is_for() -> None:
    section = PAGE.read_text().partition(SECTION)[2].partition("\nWhat a storage may lack")[0]
    table = section.partition(".. list-table::")[2]
    for action in (each for statement in statements() for each in statement["Action"]):
        assert action in table


@pytest.mark.slow
def test_the_policy_is_enough_for_everything(
    local: Conf, tree: Path, out: Path, tmp_path: Path
) -> None:
    home = tmp_path / "moto"
    home.mkdir()
    with checked_server(home) as server:
        conf = {
            **server.conf(*statements()),
            "database": local["database"],
            "rotation": {"days": 7},
            "password": "secret",
        }
        findings = bakthat.doctor(conf=conf)
        assert [each for each in findings if each.verdict is not Verdict.GOOD] == []
        (tree / "large").write_bytes(bytes(range(256)) * 100_000)
        bakthat.backup(tree, conf={**conf, "compress": False})
        bakthat.backup(tree, conf=conf, incremental=True)
        assert bakthat.restore("mydir", conf=conf, output=out) is not None
        assert (out / "mydir" / "a.txt").read_text() == "hello"
        assert all(each.is_good for each in bakthat.check(conf=conf, read_data=True))
        assert bakthat.sync(conf=conf, indexes=True).is_complete
        assert list(bakthat.find("a.txt", conf=conf))
        bakthat.rotate_backups("mydir", conf=conf, last=1)
        bakthat.cleanup(conf=conf, older_than="1s")
        bakthat.delete("mydir", conf=conf, with_dependents=True)
        for action in (each for statement in statements() for each in statement["Action"]):
            # A bucket without versions has no object lock, and moto takes others for ListBucket.
            if any(each in action for each in ("ObjectLock", "AccessBlock", "Encryption")):
                continue
            less = [
                {**each, "Action": [other for other in each["Action"] if other != action]}
                for each in statements()
            ]
            findings = bakthat.doctor(conf={**conf, **server.conf(*less)})
            assert f"{action} is not allowed" in repr(findings)
