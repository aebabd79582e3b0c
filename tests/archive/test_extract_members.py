"""Members in any order and with any metadata, restored under any umask."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bakthat.archive.extract.unpack import extract, verify
from bakthat.archive.report import KEPT_WARNINGS, ArchiveReport
from bakthat.errors import BakthatError
from tests.support.tar_bytes import END, Pieces, header, member, pax, reachable_directory, snapshot

pytestmark = pytest.mark.permissions


def restore(archive: bytes, destination: Path) -> ArchiveReport:
    report = ArchiveReport()
    extract(Pieces(archive, 100_000), destination, report=report)
    assert not list(destination.glob(".bakthat-restore-*"))
    return report


_name = st.sampled_from([b"a", b"b", b"a/b", b"a/b/c", b"d/", b"a/", b"./b", b"a//b", b"d/b"])
_content = st.sampled_from([b"", b"x", b"y" * 3000])
_members = st.one_of(
    st.builds(member, _name, _content),
    st.builds(lambda name, mode: header(name, b"5", mode=mode), _name, st.sampled_from([0o755, 0])),
    st.builds(lambda name, to: header(name, b"1", linkname=to), _name, _name),
    st.builds(lambda name, to: header(name, b"2", linkname=to), _name, _name),
    st.builds(lambda name: header(name, b"6"), _name),
)


@settings(max_examples=150, deadline=None)
@given(members=st.lists(_members, max_size=8))
def test_any_order_of_members_is_restored_or_refused_as_a_whole(members: list[bytes]) -> None:
    archive = b"".join(members) + END
    with reachable_directory() as parent:
        before = snapshot(parent)
        try:
            report = restore(archive, parent / "out")
        except BakthatError:
            assert snapshot(parent) == before
        else:
            counted = verify(Pieces(archive))
            assert counted.files == report.files


def test_large_files_many_empty_ones_and_long_names_are_restored(tmp_path: Path) -> None:
    large = os.urandom(1024) * (10 * 1024 + 1)
    names = [b"%d/" % number + b"n" * 200 + b"/" + b"m" * 200 for number in range(40)]
    parts = [member(b"%04d" % number) for number in range(2000)]
    for name in names:
        records = [(b"path", name), (b"SCHILY.xattr.user.long", b"v" * 3000)]
        parts.append(pax(records) + member(b"x", b"1"))
    archive = b"".join(parts) + member(b"large", large) + member(b"last", b"2") + END
    report = restore(archive, tmp_path / "out")
    assert report.files == 2042
    assert (tmp_path / "out" / "large").read_bytes() == large
    assert (tmp_path / "out" / os.fsdecode(names[-1])).read_bytes() == b"1"


def test_every_warning_is_logged_and_the_first_are_kept(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    odd = pax([(b"SCHILY.xattr.nowhere.colour", b"blue")])
    parts = [odd + member(b"%04d" % number) for number in range(3000)]
    report = restore(b"".join(parts) + END, tmp_path / "out")
    assert report.warning_count == 3000
    assert "'0000'" in report.warnings[0]
    assert len(caplog.records) == 3000
    assert len(report.warnings) == KEPT_WARNINGS


@pytest.mark.parametrize("umask", [0, 0o022, 0o027, 0o077])
def test_modes_do_not_depend_on_the_umask(tmp_path: Path, umask: int) -> None:
    modes = (0o644, 0o600, 0o444, 0, 0o666, 0o777, 0o4755, 0o2644, 0o1777)
    parts = [header(b"%o" % mode, mode=mode) for mode in modes]
    directories = (0o755, 0o700, 0o555, 0o2775)
    parts += [header(b"d%o/" % mode, b"5", mode=mode) for mode in directories]
    parts += [member(b"no member/directory/file")]
    before = os.umask(umask)
    try:
        restore(b"".join(parts) + END, tmp_path / "out")
    finally:
        os.umask(before)
    # The members are root's: nobody else gets them setuid and setgid.
    kept = 0o7777 if os.geteuid() == 0 else 0o1777
    for mode in modes:
        assert stat.S_IMODE((tmp_path / "out" / f"{mode:o}").stat().st_mode) == mode & kept
    for mode in directories:
        assert stat.S_IMODE((tmp_path / "out" / f"d{mode:o}").stat().st_mode) == mode & kept
    implied = (tmp_path / "out" / "no member").stat().st_mode
    assert stat.S_IMODE(implied) == 0o777 & ~umask


@pytest.mark.parametrize("mode", [0o755, 0o700, 0o600, 0o444])
def test_attributes_do_not_change_modes(tmp_path: Path, mode: int) -> None:
    """A file must be writable to set an attribute, and an ACL has a mode of its own."""
    attributes = (
        {b"SCHILY.xattr.user.k": b"v"},
        {b"SCHILY.acl.access": b"user::rwx,user:1234:r-x,group::r-x,mask::r-x,other::---"},
        {b"SCHILY.acl.default": b"user::rwx,group::r-x,other::---"},
    )
    parts = []
    for number, records in enumerate(attributes):
        for kind in (b"0", b"5"):
            if kind == b"0" and b"SCHILY.acl.default" in records:
                continue  # only directories have one
            name = b"%s%d" % (b"file" if kind == b"0" else b"directory", number)
            own = mode | 0o700 if kind == b"5" else mode
            parts.append(pax(list(records.items())) + header(name, kind, mode=own))
            if kind == b"5":
                parts.append(member(name + b"/in it"))
    # And one that comes again, with another mode.
    parts += [header(b"twice", b"5", mode=0o755), member(b"twice/x"), member(b"between")]
    parts += [header(b"twice", b"5", mode=mode | 0o700), member(b"twice/y")]
    restore(b"".join(parts) + END, tmp_path / "out")
    names = ("file0", "file1", "directory0", "directory1", "directory2", "twice")
    found = [stat.S_IMODE((tmp_path / "out" / name).stat().st_mode) for name in names]
    assert found == [mode, mode] + [mode | 0o700] * 4
