"""The guard against bombs, for streams: their size is known at their end only."""

from __future__ import annotations

from pathlib import Path

import pytest

import bakthat
from bakthat.errors import ArchiveError
from bakthat.session import reading
from tests.support.profiles import Conf

SIZE = 8 * 1024 * 1024


@pytest.fixture
def stored(conf: Conf, monkeypatch: pytest.MonkeyPatch) -> str:
    """Store zeros, which unpack to a thousand times what is stored; lower the limits for them."""
    made = bakthat.backup(
        command=f"head -c {SIZE} /dev/zero", custom_filename="zeros", password="", conf=conf
    )
    monkeypatch.setattr(reading, "UNANNOUNCED_BYTES", 0)
    monkeypatch.setattr(reading, "SLACK_BYTES", 0)
    return made.stored_filename


def without_catalog(conf: Conf, tmp_path: Path) -> Conf:
    return {**conf, "database": str(tmp_path / "another.sqlite")}


@pytest.mark.parametrize("is_synced", [True, False])
def test_another_machine_knows_the_size_of_a_stream_by_its_index(
    conf: Conf, tmp_path: Path, stored: str, *, is_synced: bool
) -> None:
    other = without_catalog(conf, tmp_path)
    if is_synced:
        bakthat.sync(conf=other)
    bakthat.restore(stored, conf=other, output=tmp_path / "out")
    assert (tmp_path / "out" / "zeros").stat().st_size == SIZE
    counted = tmp_path / "counted"
    bakthat.restore(stored, conf=other, to_command=f"wc -c >{counted}")
    assert int(counted.read_text()) == SIZE


def test_without_an_index_a_stream_that_unpacks_to_too_much_is_refused(
    conf: Conf, tmp_path: Path, stored: str
) -> None:
    other = without_catalog(conf, tmp_path)
    for arguments in ({"output": tmp_path / "out"}, {"to_command": f"cat >{tmp_path / 'got'}"}):
        with pytest.raises(ArchiveError, match="unpacks to more than"):
            bakthat.restore(stored, conf=other, use_index=False, **arguments)
    assert not list((tmp_path / "out").glob("*"))
    bakthat.restore(stored, conf=other, use_index=False, any_size=True, output=tmp_path / "out")
    assert (tmp_path / "out" / "zeros").stat().st_size == SIZE


def test_this_machine_lets_no_more_pass_than_it_stored(
    conf: Conf, tmp_path: Path, stored: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading, "SLACK_FACTOR", 0.5)
    with pytest.raises(ArchiveError, match="unpacks to more than"):
        bakthat.restore(stored, conf=conf, output=tmp_path / "out", use_index=False)
