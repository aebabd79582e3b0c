"""The notes in the listing: which backups may not be what is wanted back."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import bakthat
from tests.support.commandline import CommandLine
from tests.support.filled_catalog import DAY, NOW, FilledCatalog, using_catalog
from tests.support.profiles import Conf, write_config

HEADER = ["DATE", "(UTC)", "WHERE", "HOST", "SIZE"]


@pytest.fixture
def filled(tmp_path: Path) -> Iterator[FilledCatalog]:
    made = FilledCatalog(tmp_path / "catalog.sqlite")
    with using_catalog(made):
        yield made


@pytest.mark.parametrize(
    ("metadata", "note"),
    [
        ({"warning_count": 1, "suspicious": True}, "suspicious size"),
        ({"warning_count": 3}, "incomplete"),
        ({"warning_count": 2, "suspicious": True}, "suspicious size, incomplete"),
    ],
)
def test_a_backup_with_a_warning_has_a_note_in_the_table(
    filled: FilledCatalog,
    capsys: pytest.CaptureFixture[str],
    metadata: dict[str, Any],
    note: str,
) -> None:
    good = filled.add(NOW - 2 * DAY)
    other = filled.add(NOW - DAY, metadata=metadata)
    bakthat.show(conf=filled.conf)
    header, newest, oldest = capsys.readouterr().out.splitlines()
    assert header.split() == [*HEADER, "NOTE", "NAME", "TAGS"]
    column, end = header.index("NOTE"), header.index("NAME")
    assert newest[column:end].rstrip() == note
    assert newest[end:].startswith(other)
    assert oldest[column:end].strip() == ""
    assert oldest[end:].startswith(good)


def test_the_note_follows_the_columns_of_increments(
    filled: FilledCatalog, capsys: pytest.CaptureFixture[str]
) -> None:
    filled.add(NOW - 2 * DAY, metadata={"warning_count": 1})
    filled.add_increment(NOW - DAY, [NOW - 2 * DAY])
    bakthat.show(conf=filled.conf)
    header = capsys.readouterr().out.splitlines()[0]
    assert header.split()[5:] == ["KIND", "NEEDS", "FREES", "NOTE", "NAME", "TAGS"]


def test_the_command_line_marks_a_suspicious_backup(user: CommandLine, local: Conf) -> None:
    write_config(user.home / ".bakthat.yml", default=local)
    for size, code in ((1000, 0), (9, 3)):
        line = f"head -c {size} /dev/zero"
        done = user.run("backup", "--name", "shop.sql", "--prompt", "no", "--command", line)
        assert done.code == code
    for name in ("show", "ls"):
        header, newest, oldest = user.run(name).stdout.splitlines()
        assert header.split() == [*HEADER, "NOTE", "NAME", "TAGS"]
        assert "  suspicious size  shop.sql." in newest
        assert "suspicious" not in oldest
