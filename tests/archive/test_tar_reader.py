from __future__ import annotations

import io
import os
import subprocess
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bakthat.archive.tar.fields import parse_number, parse_pax_records, parse_seconds
from bakthat.archive.tar.member import Member, MemberType
from bakthat.archive.tar.reader import MAX_EXTENDED_BYTES, TarReader
from bakthat.errors import CorruptArchiveError
from bakthat.system.text import quoted
from tests.support.tar_bytes import END, Pieces, header, member, octal, padded, pax

Read = list[tuple[Member, bytes]]


def read_tar(archive: bytes, piece: int = 1 << 20) -> Read:
    """Members with their content, holes filled."""
    reader = TarReader(Pieces(archive, piece))
    found = []
    for one in reader:
        content = bytearray(one.size)
        for offset, data in reader.read_content(one):
            content[offset : offset + len(data)] = data
        assert len(content) == one.size
        found.append((one, bytes(content)))
    return found


def only(archive: bytes) -> Member:
    [(one, _)] = read_tar(archive)
    return one


@pytest.mark.parametrize("piece", [1 << 20, 700, 512, 100])
@pytest.mark.parametrize("format_", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_every_format_of_pythons_tarfile_is_read(format_: int, piece: int) -> None:
    stream = io.BytesIO()
    names = ["short", "d/" * 40 + "n" * 90, "é/ü"]
    if format_ != tarfile.USTAR_FORMAT:
        names += ["x" * 300, "d/" * 2000 + "f"]
    with tarfile.open(fileobj=stream, mode="w", format=format_) as archive:
        for size, name in enumerate(names):
            info = tarfile.TarInfo(name)
            info.size, info.mtime, info.mode = size * 300, 1234567890, 0o640
            info.uid, info.gid, info.uname, info.gname = 1000, 2000, "someone", "some"
            archive.addfile(info, io.BytesIO(b"c" * info.size))
        link = tarfile.TarInfo("link")
        link.type, link.linkname = tarfile.SYMTYPE, names[-1]
        archive.addfile(link)
    found = read_tar(stream.getvalue(), piece)
    assert [one.name.decode() for one, _ in found] == [*names, "link"]
    for size, (one, content) in enumerate(found[:-1]):
        assert content == b"c" * size * 300
        assert (one.mode, one.mtime_ns, one.type) == (0o640, 1234567890 * 10**9, MemberType.FILE)
        assert (one.uid, one.gid, one.uname, one.gname) == (1000, 2000, b"someone", b"some")
    assert (found[-1][0].type, found[-1][0].linkname) == (MemberType.SYMLINK, names[-1].encode())


def test_large_and_negative_numbers_are_read_from_every_format() -> None:
    info = tarfile.TarInfo("f")
    info.uid = 2**32 - 2
    for format_ in (tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
        for mtime in (-1, -(10**10), 10**12):
            info.mtime = mtime
            one = only(info.tobuf(format_) + END)
            assert (one.uid, one.mtime_ns) == (2**32 - 2, mtime * 10**9)


@pytest.mark.parametrize("tar_format", ["v7", "oldgnu", "gnu", "ustar", "posix"])
def test_every_format_of_gnu_tar_is_read(tar_format: str, tmp_path: Path) -> None:
    source = tmp_path / "t"
    (source / "inner").mkdir(parents=True)
    (source / "file").write_bytes(b"content" * 1000)
    os.link(source / "file", source / "inner" / "hard")
    os.symlink("../file", source / "inner" / "soft")
    (source / ("n" * 90)).write_bytes(b"")
    if tar_format != "v7":
        os.mkfifo(source / "fifo")
    archive = subprocess.run(
        ["tar", "--format", tar_format, "--sort=name", "-cf", "-", "-C", str(tmp_path), "t"],
        capture_output=True,
        check=True,
    ).stdout
    found = {one.name.rstrip(b"/"): (one, content) for one, content in read_tar(archive)}
    assert found[b"t"][0].type is MemberType.DIRECTORY
    assert found[b"t/inner"][0].type is MemberType.DIRECTORY
    assert found[b"t/file"][1] == b"content" * 1000
    hard = found[b"t/inner/hard"][0]
    assert (hard.type, hard.linkname, hard.size) == (MemberType.HARDLINK, b"t/file", 0)
    assert found[b"t/inner/soft"][0].linkname == b"../file"
    assert found[b"t/" + b"n" * 90][1] == b""
    if tar_format != "v7":
        assert found[b"t/fifo"][0].type is MemberType.FIFO


@pytest.mark.parametrize(
    "options",
    [
        ["--format=oldgnu"],
        ["--format=gnu"],
        ["--format=posix", "--sparse-version=0.0"],
        ["--format=posix", "--sparse-version=0.1"],
        ["--format=posix", "--sparse-version=1.0"],
    ],
)
@pytest.mark.parametrize("extents", [0, 1, 4, 5, 60])
def test_every_form_of_sparse_file_is_read(
    options: list[str], extents: int, tmp_path: Path
) -> None:
    with open(tmp_path / "s", "wb") as stream:
        for index in range(extents):
            stream.seek((index * 3 + 1) * 65536)
            stream.write(os.urandom(5000))
        stream.truncate((extents * 3 + 7) * 65536)
    content = (tmp_path / "s").read_bytes()
    (tmp_path / "after").write_bytes(b"after")
    archive = subprocess.run(
        ["tar", *options, "--sparse", "-cf", "-", "-C", str(tmp_path), "s", "after"],
        capture_output=True,
        check=True,
    ).stdout
    assert len(archive) < len(content) or extents > 4
    [(one, read), (after, _)] = read_tar(archive)
    assert (one.name, one.size, after.name) == (b"s", len(content), b"after")
    assert read == content
    assert one.sparse is not None


def test_attributes_and_times_of_gnu_tar_are_read(tmp_path: Path) -> None:
    path = tmp_path / "f"
    path.write_bytes(b"")
    attributes = {b"user.a=b%": b"\0\nbinary=", b"user.empty": b""}
    for name, value in attributes.items():
        os.setxattr(path, name, value)
    os.utime(path, ns=(0, -1_000_000_001))
    archive = subprocess.run(
        ["tar", "--format=posix", "--xattrs", "-cf", "-", "-C", str(tmp_path), "f"],
        capture_output=True,
        check=True,
    ).stdout
    one = only(archive)
    assert one.xattrs == attributes
    assert one.mtime_ns == -1_000_000_001


def test_global_pax_headers_apply_until_a_member_overrides_them() -> None:
    archive = (
        pax([(b"comment", b"who"), (b"mtime", b"5"), (b"uname", b"all")], b"g")
        + member(b"a")
        + pax([(b"mtime", b"7"), (b"uname", b"")])
        + member(b"b")
        + pax([(b"mtime", b"6")], b"g")
        + member(b"c")
        + END
    )
    reader = TarReader(Pieces(archive))
    assert [one.mtime_ns for one in reader] == [5 * 10**9, 7 * 10**9, 6 * 10**9]
    assert reader.comment == b"who"


@pytest.mark.parametrize(
    ("text", "nanoseconds"),
    [
        (b"0", 0),
        (b"1.5", 1_500_000_000),
        (b"-1.5", -1_500_000_000),
        (b"-0.000000001", -1),
        (b"1700000000.123456789", 1_700_000_000_123_456_789),
        (b"1.1234567899", 1_123_456_789),
        (b"-1.0000000001", -1_000_000_001),
        (b"1.", 1_000_000_000),
        (b".25", 250_000_000),
    ],
)
def test_times_are_exact_to_the_nanosecond(text: bytes, nanoseconds: int) -> None:
    assert parse_seconds(text) == nanoseconds


@pytest.mark.parametrize("text", [b"", b".", b"-", b"1e5", b"nan", b"1_0", b" 1", b"9" * 30])
def test_an_invalid_time_is_refused(text: bytes) -> None:
    with pytest.raises(CorruptArchiveError):
        parse_seconds(text)


@given(st.integers(-(2**63), 2**63), st.integers(0, 999_999_999))
def test_any_time_round_trips_through_text(seconds: int, fraction: int) -> None:
    nanoseconds = seconds * 10**9 + (fraction if seconds >= 0 else -fraction)
    sign = "-" if seconds < 0 else ""
    text = f"{sign}{abs(seconds)}.{fraction:09d}"
    assert parse_seconds(text.encode()) == nanoseconds


def test_a_header_with_a_checksum_of_signed_bytes_is_read() -> None:
    assert only(header("é".encode(), signed=True) + END).name == "é".encode()


def test_a_v7_directory_is_known_by_its_slash() -> None:
    one = only(header(b"d/", b"\0", magic=b"") + END)
    assert one.type is MemberType.DIRECTORY


def test_a_name_of_any_bytes_is_read_from_a_pax_header() -> None:
    assert only(pax([(b"path", b"\xff\xfe=\n")]) + member(b"x") + END).name == b"\xff\xfe=\n"


def test_an_unknown_type_is_a_file_and_a_volume_label_is_skipped() -> None:
    [(one, content)] = read_tar(header(b"label", b"V") + member(b"f", b"data", b"Z") + END)
    assert (one.type, content) == (MemberType.FILE, b"data")


def test_content_that_is_not_read_is_skipped() -> None:
    archive = member(b"a", b"1" * 5000) + member(b"b", b"2") + END
    source = Pieces(archive, 600)
    reader = TarReader(source)
    names = []
    for one in reader:
        names.append(one.name)
        if one.name == b"a":
            next(reader.read_content(one))
    assert names == [b"a", b"b"]
    assert source.drained


def test_content_of_an_earlier_member_cannot_be_read() -> None:
    reader = TarReader(Pieces(member(b"a", b"1") + member(b"b", b"2") + END))
    first, second = reader
    for one in (first, second):
        with pytest.raises(ValueError, match="current member"):
            next(reader.read_content(one))


SMALL = (
    pax([(b"mtime", b"1.5")])
    + member(b"a", b"1" * 700)
    + member(b"././@LongLink", b"n" * 200 + b"\0", b"L")
    + member(b"n", b"")
    + header(b"d/", b"5")
    + member(b"b", b"end")
    + END
)


def test_an_archive_cut_anywhere_is_truncated() -> None:
    assert len(read_tar(SMALL)) == 4
    for length in range(0, len(SMALL), 64):
        with pytest.raises(CorruptArchiveError):
            read_tar(SMALL[:length])


def test_a_cut_at_a_header_is_noticed_too() -> None:
    with pytest.raises(CorruptArchiveError, match="truncated"):
        read_tar(member(b"a", b"1"))


def test_a_flipped_bit_in_a_header_is_refused() -> None:
    block = header(b"name", size=0)
    for at in range(512 * 8):
        altered = bytearray(block)
        altered[at // 8] ^= 1 << at % 8
        if 148 <= at // 8 < 156:
            continue  # the checksum itself may change its padding
        with pytest.raises(CorruptArchiveError):
            read_tar(bytes(altered) + END)


@pytest.mark.parametrize("gap", [512, 1024, 1536])
def test_zeros_in_the_middle_hide_no_members(gap: int) -> None:
    with pytest.raises(CorruptArchiveError):
        read_tar(member(b"a") + bytes(gap) + member(b"b") + END)


def test_zeros_after_the_end_are_padding() -> None:
    source = Pieces(member(b"a") + END + bytes(20000), 512)
    assert len(list(TarReader(source))) == 1
    assert source.drained


HUGE = b"\x80" + b"\xff" * 11
HOSTILE = {
    "text": b"no tar at all, but longer than a block" * 20,
    "huge size": header(b"f", size=HUGE) + END,
    "negative size": header(b"f", size=b"\xff" * 12) + END,
    "negative owner": header(b"f", uid=b"\xff" * 8) + END,
    "owner that means none": pax([(b"uid", b"4294967295")]) + header(b"f") + END,
    "number with a sign": header(b"f", mode=b"-000644\0") + END,
    "number that is none": header(b"f", size=b"0000000000x\0") + END,
    "number with eights": header(b"f", size=b"00000000008\0") + END,
    "other high bit": header(b"f", size=b"\x90" + bytes(11)) + END,
    "time out of range": header(b"f", mtime=HUGE) + END,
    "no name": header(b"") + END,
    "link without target": header(b"l", b"2") + END,
    "NUL in a name": pax([(b"path", b"a\0b")]) + header(b"f") + END,
    "NUL in a target": pax([(b"linkpath", b"a\0b")]) + header(b"f", b"2") + END,
    "long name": pax([(b"path", b"a" * 65537)]) + header(b"f") + END,
    "long GNU name": member(b"L", b"a/" * 40000, b"L") + header(b"f") + END,
    "long header": header(b"x", b"x", size=MAX_EXTENDED_BYTES + 1) + END,
    "huge GNU name": header(b"L", b"L", size=HUGE) + END,
    "header without member": pax([(b"path", b"a")]) + END,
    "another volume": member(b"f", b"rest", b"M") + END,
    "attribute without name": pax([(b"SCHILY.xattr.", b"v")]) + header(b"f") + END,
    "pax size of text": pax([(b"size", b"ten")]) + header(b"f") + END,
    "pax size too large": pax([(b"size", b"9" * 19)]) + header(b"f") + END,
    "pax mtime of text": pax([(b"mtime", b"now")]) + header(b"f") + END,
}
BAD_RECORDS = [
    *(b"8 path=x\n", b"0 path=x\n", b"99 path=x\n", b"path=x\n", b"9 path:x\n", b"-9 path=x\n"),
    *(b" 9 path=x\n", b"10 path=x\n0 a=b\n", b"9 path=x\n0 a=b\n", b"4 =\n", b"1", b"\n", b"2 "),
]
for text in BAD_RECORDS:
    HOSTILE[f"record {text!r}"] = member(b"x", text, b"x") + header(b"f") + END


def sparse_1_0(size: int, text: bytes, data: bytes = b"") -> bytes:
    records = [(b"major", b"1"), (b"minor", b"0"), (b"name", b"s"), (b"realsize", b"%d" % size)]
    keys = [(b"GNU.sparse." + key, value) for key, value in records]
    return pax(keys) + member(b"s", padded(text) + data) + END


def sparse_0_1(size: int, text: bytes, data: bytes = b"") -> bytes:
    keys = [(b"GNU.sparse.size", b"%d" % size), (b"GNU.sparse.map", text)]
    return pax(keys) + member(b"s", data) + END


HOSTILE |= {
    "map beyond the file": sparse_1_0(100, b"1\n99\n2\n", b"ab"),
    "map with too little data": sparse_1_0(100, b"1\n0\n2\n", b"abc"),
    "map out of order": sparse_1_0(100, b"2\n10\n1\n5\n1\n", b"ab"),
    "map that overlaps": sparse_1_0(100, b"2\n10\n2\n11\n1\n", b"abc"),
    "map of too many": sparse_1_0(100, b"99999999999999\n"),
    "map that never ends": sparse_1_0(100, b"100\n" + b"0\n" * 150),
    "map of text": sparse_1_0(100, b"one\n"),
    "map without lines": sparse_1_0(100, b"1" * 600),
    "map with half an entry": sparse_0_1(100, b"0,1,2", b"a"),
    "map with an empty number": sparse_0_1(100, b"0,,1", b"a"),
    "map with a sign": sparse_0_1(100, b"-1,2", b"ab"),
    "map with overflow": sparse_0_1(100, b"9223372036854775807,9223372036854775807", b""),
    "map without its offset": pax([(b"GNU.sparse.size", b"100"), (b"GNU.sparse.numbytes", b"1")])
    + member(b"s", b"a")
    + END,
    "map in no data": pax(
        [(b"GNU.sparse." + key, b"1") for key in (b"major", b"realsize")]
        + [(b"GNU.sparse.minor", b"0")]
    )
    + member(b"s")
    + END,
    "unknown sparse format": pax([(b"GNU.sparse.major", b"2")]) + member(b"s") + END,
    "sparse without size": pax([(b"GNU.sparse.map", b"0,1")]) + member(b"s", b"a") + END,
    "old map out of order": header(
        b"s", b"S", magic=b"ustar  \0", size=0, tail=bytes(41) + octal(5, 12) * 4 + b"\0" * 14
    )
    + END,
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_archive_raises_only_corrupt_archive_errors(name: str) -> None:
    with pytest.raises(CorruptArchiveError) as caught:
        read_tar(HOSTILE[name])
    assert "\n" not in str(caught.value)


def test_an_endless_sparse_map_stays_in_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bakthat.archive.tar.sparse.MAX_EXTENTS", 100)
    more = (octal(0, 12) * 2) * 21 + b"\1" + bytes(7)
    fields = bytes(41) + (octal(0, 12) * 2) * 4 + b"\1" + octal(0, 12)
    archive = header(b"s", b"S", magic=b"ustar  \0", tail=fields) + more * 20
    with pytest.raises(CorruptArchiveError, match="out of bounds"):
        read_tar(archive)


def test_global_headers_stay_in_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bakthat.archive.tar.reader.MAX_EXTENDED_BYTES", 10_000)
    archive = b"".join(pax([(b"key%d" % n, b"v" * 3000)], b"g") for n in range(9))
    with pytest.raises(CorruptArchiveError, match="global"):
        read_tar(archive)


@given(data=st.data())
@settings(max_examples=300, deadline=None)
def test_damage_raises_only_corrupt_archive_errors(data: st.DataObject) -> None:
    archive = bytearray(SMALL)
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(archive) - 1))
        archive[at] = data.draw(st.integers(0, 255))
    for at in range(0, len(archive), 512):  # make the headers valid again
        block = archive[at : at + 512]
        if block[257:262] == b"ustar":
            total = sum(block) - sum(block[148:156]) + 256
            archive[at + 148 : at + 156] = b"%06o\0 " % total
    message = "fine"
    try:
        read_tar(bytes(archive))
    except CorruptArchiveError as exc:
        message = str(exc)
    assert message.isprintable()


@given(st.binary(max_size=300))
def test_any_bytes_as_pax_records_or_numbers_are_parsed_or_refused(payload: bytes) -> None:
    parsers: list[Callable[[bytes], object]] = [parse_pax_records, parse_seconds]
    parsers.append(lambda field: parse_number(field + b"\0"))
    for parse in parsers:
        message = "fine"
        try:
            parse(payload)
        except CorruptArchiveError as exc:
            message = str(exc)
        assert message.isprintable()


def test_names_are_shown_without_control_characters() -> None:
    assert quoted(b"\x1b[2J\nx\xff") == "'\\x1b[2J\\nx\\xff'"
    assert len(quoted(b"n" * 5000)) < 300


@pytest.mark.parametrize("failure", [OSError("gone"), KeyboardInterrupt()])
def test_an_error_of_the_source_passes_unchanged(failure: BaseException) -> None:
    with pytest.raises(type(failure)) as caught:
        list(TarReader(Pieces(SMALL[:1500], 512, failure)))
    assert caught.value is failure


def test_an_archive_of_python_2s_tarfile_is_read() -> None:
    """0.6.0 wrote GNU_FORMAT: mode without type, user names, ././@LongLink, 10,240 byte records."""
    name = b"d/" * 60 + b"file"
    archive = (
        member(b"././@LongLink", name + b"\0", b"L", magic=b"ustar  \0", mode=0)
        + member(name[:100], b"content", magic=b"ustar  \0", mode=b"0000644\0")
        + END
    )
    archive += bytes(-len(archive) % 10240)
    [(one, content)] = read_tar(archive)
    assert (one.name, one.mode, content) == (name, 0o644, b"content")


def _usual_archive() -> bytes:
    parts = [pax([(b"comment", b"one")], b"g")]
    for number in range(6):
        time = [(b"mtime", b"170000000%d.12345678%d" % (number, number + 1))]
        kind = b"5" if number == 2 else b"0"
        parts.append(pax(time) + member(b"n%d" % number, b"c" * (0 if number == 2 else 5), kind))
    return b"".join(parts) + END


def _read(data: bytes, *, usual: bool) -> list[object]:
    """Return all members and their content, and the error that ended the iteration."""
    reader = TarReader(Pieces(data))
    found: list[object] = []
    with pytest.MonkeyPatch.context() as patched:
        if not usual:
            patched.setattr(TarReader, "_usual_member", lambda _self: None)
        try:
            for each in reader:
                found.append(
                    (each, b"".join(bytes(piece) for _, piece in reader.read_content(each)))
                )
        except CorruptArchiveError as exc:
            found.append(str(exc))
    return found


@settings(max_examples=1500, deadline=None)
@given(st.data())
@pytest.mark.slow
def test_the_fast_path_reads_the_same_as_the_general_one(data: st.DataObject) -> None:
    archive = bytearray(_usual_archive())
    for _ in range(data.draw(st.integers(0, 4))):
        block = data.draw(st.integers(2, len(archive) // 512 - 1)) * 512
        # Where headers have their fields, and pax headers their records.
        place = data.draw(
            st.one_of(st.integers(0, 40), st.integers(95, 180), st.integers(256, 360))
        )
        archive[block + place] = data.draw(st.sampled_from(list(b"\0 019x/=\n.5g\x80\xff")))
        if data.draw(st.booleans()):  # with a checksum that fits
            head = bytearray(archive[block : block + 512])
            head[148:156] = b" " * 8
            archive[block + 148 : block + 156] = b"%06o\0 " % sum(head)
    assert _read(bytes(archive), usual=True) == _read(bytes(archive), usual=False)


def test_of_two_damaged_headers_the_first_one_is_named() -> None:
    archive = bytearray(_usual_archive())
    second = archive.index(b"n1")
    archive[second + 108] = ord("9")  # the owner
    archive[second + 148 : second + 156] = b" " * 8
    archive[second + 148 : second + 156] = b"%06o\0 " % sum(archive[second : second + 512])
    archive[second - 512] = ord("x")  # the length of the record before it
    usual = _read(bytes(archive), usual=True)
    assert usual == _read(bytes(archive), usual=False)
    archive[second - 512] = ord("1")
    assert _read(bytes(archive), usual=True) == _read(bytes(archive), usual=False)


def test_most_members_take_the_fast_path(monkeypatch: pytest.MonkeyPatch) -> None:
    slow: list[Member | None] = []
    original = TarReader._next_member

    def noted(reader: TarReader) -> Member | None:
        slow.append(original(reader))
        return slow[-1]

    monkeypatch.setattr(TarReader, "_next_member", noted)
    assert len(list(TarReader(Pieces(_usual_archive())))) == 6
    assert len(slow) == 2  # the first, and the end


SPARSE = [
    ["--format=gnu"],
    *(["--format=pax", f"--sparse-version={version}"] for version in ("0.0", "0.1", "1.0")),
]


@pytest.mark.needs("GNU tar")
@pytest.mark.parametrize("options", SPARSE, ids=" ".join)
@pytest.mark.parametrize("piece", [1 << 20, 700])
def test_the_place_of_each_member_is_known(tmp_path: Path, options: list[str], piece: int) -> None:
    tree = tmp_path / "d"
    tree.mkdir()
    (tree / "plain").write_bytes(b"p" * 700)
    (tree / ("long" * 40)).write_bytes(b"l" * 512)
    with open(tree / "sparse", "wb") as stream:
        for extent in range(30):  # more than fit into one header of GNU's old format
            stream.seek(extent * 100_000)
            stream.write(b"s" * 4096)
        stream.truncate(4_000_000)
    (tree / "link").symlink_to("plain")
    packed = subprocess.run(
        ["tar", "-c", "-S", "--sort=name", *options, "-C", tmp_path, "d"],
        check=True,
        capture_output=True,
    ).stdout
    end = 0
    reader = TarReader(Pieces(packed, piece))
    for one in reader:
        assert reader.position == end
        content = reader.content_position
        assert (content - end) % 512 == 0
        assert content > end
        alone = packed[end : content + reader.stored_bytes]
        [(same, data)] = read_tar(padded(alone) + END)
        assert same == one
        if one.name == b"d/plain":
            assert packed[content:].startswith(data)
        end = content + reader.stored_bytes + -reader.stored_bytes % 512
    assert packed[end:].strip(b"\0") == b""


def test_global_headers_are_before_a_member_and_all_other_headers_are_its_own() -> None:
    comment = pax([(b"comment", b"c")], kind=b"g")
    own = pax([(b"mtime", b"1.5")])
    reader = TarReader(Pieces(comment + own + member(b"a", b"1") + member(b"b") + END))
    places = [(reader.position, reader.content_position, reader.stored_bytes) for _ in reader]
    assert places == [(1024, 1024 + 1536, 1), (1024 + 2048, 1024 + 2560, 0)]
