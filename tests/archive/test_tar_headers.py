"""Tar headers of every writer as every reader reads them; ``tox -e headers`` takes a million."""

from __future__ import annotations

import os
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest

from tests.support.needs import gnu_tar
from tests.tar_headers import comparison
from tests.tar_headers.comparison import Findings, compare
from tests.tar_headers.readers import READERS
from tests.tar_headers.values import Fields
from tests.tar_headers.writers import WRITERS

HEADERS = 300


@pytest.mark.parametrize("writer", WRITERS)
def test_three_readers_agree_with_what_was_written(writer: str) -> None:
    gnu_tar()
    if writer.startswith("GNU tar") and os.geteuid() != 0:
        pytest.skip("only root reads files of any mode, gives them away and makes devices")
    findings = Findings()
    compare(writer, HEADERS, 1, findings)
    assert findings.headers > HEADERS * 0.9  # a file system may refuse a few files
    assert findings.unexplained == []


CHANGED: dict[str, Any] = {
    "kind": b"x",
    "mode": -1,
    "uid": -1,
    "gid": -1,
    "size": -1,
    "mtime_ns": 1,
    "device": (-1, 0),
    "xattrs": {b"user.x": b"y"},
    "extents": [],
}


@pytest.mark.parametrize("name", [each.name for each in fields(Fields) if each.name != "extents"])
def test_a_difference_in_any_field_is_noticed(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong(archive: Path, count: int) -> list[Fields]:
        found = READERS["bakthat"](archive, count)
        return [replace(each, **{name: CHANGED.get(name, b"other")}) for each in found]

    monkeypatch.setattr(comparison, "READERS", {"wrong": wrong})
    findings = Findings()
    compare("bakthat", 10, 1, findings)
    assert len(findings.unexplained) == 10
