"""Restoring all that a file system can hold, and naming what it cannot."""

from __future__ import annotations

import errno
import os
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bakthat.archive.extract.unpack import Reading, extract
from bakthat.archive.report import ArchiveReport
from bakthat.errors import DestinationError
from tests.support.tar_bytes import END, Pieces, header, member

ABOUT_ONE = [
    errno.ENAMETOOLONG,
    errno.EILSEQ,
    errno.EINVAL,
    errno.ENOENT,
    errno.EFBIG,
    errno.EMLINK,
    errno.ENOSYS,
    errno.EOPNOTSUPP,
]
ABOUT_ALL = [errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS, errno.ENOMEM, errno.ENOTCONN]
CALLS = {
    "open": member(b"d/odd", b"text"),
    "mkdir": member(b"d/odd/", kind=b"5"),
    "symlink": header(b"d/odd", b"2", linkname=b"target"),
    "mkfifo": header(b"d/odd", b"6"),
    "mknod": header(b"d/odd", b"3"),
}


def keep_going(archive: bytes, out: Path) -> ArchiveReport:
    @contextmanager
    def read_again(_: Collection[bytes]) -> Iterator[Reading]:
        yield Reading(Pieces(archive))

    report = ArchiveReport()
    extract(Pieces(archive), out, report=report, keep_going=True, read_again=read_again)
    return report


@contextmanager
def refused_names(call: str, names: set[bytes], error: int) -> Iterator[None]:
    """Let the file system refuse to make the *names* by the system call *call*."""
    real = getattr(os, call)

    def refusing(path: Any, *arguments: Any, **keywords: Any) -> Any:
        made = call != "open" or (arguments and arguments[0] & os.O_CREAT)
        name = arguments[0] if call in ("link", "symlink") else path
        if made and name in names:
            raise OSError(error, os.strerror(error))
        return real(path, *arguments, **keywords)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, call, refusing)
        yield


@pytest.mark.parametrize("error", ABOUT_ONE, ids=errno.errorcode.get)
@pytest.mark.parametrize("call", CALLS)
def test_a_member_that_cannot_be_held_is_left_out_and_named(
    call: str, error: int, tmp_path: Path
) -> None:
    archive = member(b"d/before", b"1") + CALLS[call] + member(b"d/after", b"2") + END
    with refused_names(call, {b"odd"}, error):
        with pytest.raises(DestinationError, match="d/odd") as caught:
            extract(Pieces(archive), tmp_path / "out", report=ArchiveReport())
        assert "--keep-going" in caught.value.hint
        assert not (tmp_path / "out").exists()
        report = keep_going(archive, tmp_path / "out")
    assert sorted(os.listdir(tmp_path / "out/d")) == ["after", "before"]
    [warning] = report.warnings
    assert warning.startswith("left out the ")
    assert "'d/odd" in warning
    assert os.strerror(error).lower() in warning


@pytest.mark.parametrize("error", ABOUT_ALL, ids=errno.errorcode.get)
@pytest.mark.parametrize("call", ["open", "mkdir", "symlink"])
def test_a_disk_that_is_full_or_fails_ends_the_restore(
    call: str, error: int, tmp_path: Path
) -> None:
    archive = member(b"d/before", b"1") + CALLS[call] + member(b"d/after", b"2") + END
    with (
        refused_names(call, {b"odd"}, error),
        pytest.raises(DestinationError, match="d/odd") as caught,
    ):
        keep_going(archive, tmp_path / "out")
    assert caught.value.hint == ""
    assert not (tmp_path / "out").exists()


def test_an_error_of_the_source_is_no_error_of_a_member(tmp_path: Path) -> None:
    failure = OSError(errno.EINVAL, "the network")
    source = Pieces(member(b"before") + header(b"file", size=100), failure=failure)
    with pytest.raises(OSError, match="the network"):
        extract(source, tmp_path / "out", report=ArchiveReport(), keep_going=True)
    assert not (tmp_path / "out").exists()


def test_a_file_that_fails_half_way_leaves_nothing_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = os.write

    def write_some(fd: int, data: bytes) -> int:
        if os.lseek(fd, 0, os.SEEK_CUR) + len(data) > 1000:
            raise OSError(errno.EFBIG, os.strerror(errno.EFBIG))
        return write(fd, data)

    monkeypatch.setattr(os, "write", write_some)
    links = header(b"b", b"1", linkname=b"a") + header(b"c", b"1", linkname=b"a")
    archive = member(b"a", bytes(5000)) + links + member(b"last", b"text") + END
    report = keep_going(archive, tmp_path / "out")
    assert os.listdir(tmp_path / "out") == ["last"]
    assert [text.partition(":")[0] for text in report.warnings] == [
        "left out the file 'a'",
        "left out the file 'b'",
        "left out the hard link 'c'",
    ]


def test_names_that_differ_only_in_case_lose_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # As a file system that does not keep them apart: the second is found by its name.
    from bakthat.archive.extract import tree

    monkeypatch.setattr(tree, "folds_names", lambda directory: True)
    monkeypatch.setattr(tree, "names_in", lambda directory: ["Name", "other"])
    archive = member(b"name", b"1") + member(b"name", b"2") + member(b"other", b"3") + END
    report = keep_going(archive, tmp_path / "out")
    assert (tmp_path / "out/name").read_text() == "1"
    [warning] = report.warnings
    assert "differ only in case" in warning


@st.composite
def members(draw: st.DrawFn) -> list[tuple[str, str]]:
    """Files with their content, and links to files before them."""
    found: list[tuple[str, str]] = []
    for number in range(draw(st.integers(1, 8))):
        name = f"{draw(st.sampled_from('pq'))}/{draw(st.sampled_from('abc'))}"
        taken = {each for each, _ in found}
        contents = sorted({each for each, text in found if text.startswith("content")})
        target = draw(st.sampled_from(["", *contents])) if name not in taken else ""
        if name in taken and any(text == name for _, text in found):
            continue  # a link to what is replaced later is another test's
        found.append((name, target or f"content {number}"))
    return found


def files(root: Path) -> dict[str, str]:
    return {str(path.relative_to(root)): path.read_text() for path in root.glob("*/*")}


@settings(max_examples=150, deadline=None)
@given(members(), st.sets(st.sampled_from([b"a", b"b", b"c"]), min_size=1, max_size=2))
@pytest.mark.slow
def test_all_but_the_refused_names_comes_back(
    tmp_path_factory: pytest.TempPathFactory,
    described: list[tuple[str, str]],
    refused: set[bytes],
) -> None:
    whole, part = tmp_path_factory.mktemp("whole"), tmp_path_factory.mktemp("part")
    archive = b"".join(
        member(name.encode(), text.encode())
        if text.startswith("content")
        else header(name.encode(), b"1", linkname=text.encode())
        for name, text in described
    )
    extract(Pieces(archive + END), whole, report=ArchiveReport())
    expected = {
        name: text for name, text in files(whole).items() if name[2:].encode() not in refused
    }
    with refused_names("open", refused, errno.EILSEQ), refused_names("link", refused, errno.EILSEQ):
        if not expected and not any(name[2:].encode() not in refused for name, _ in described):
            with pytest.raises(DestinationError):
                keep_going(archive + END, part)
            return
        report = keep_going(archive + END, part)
    assert files(part) == expected
    for name in files(whole).keys() - expected.keys():
        assert any(f"'{name}'" in warning for warning in report.warnings)
