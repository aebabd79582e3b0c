"""Stored names: pure functions, under hypothesis."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bakthat.errors import UsageError
from bakthat.format import names

DATES = st.integers(min_value=0, max_value=253402300799)  # to the end of the year 9999
STEMS = st.text(min_size=1).filter(lambda text: "\0" not in text)


@given(stem=STEMS, date=DATES, extension=st.sampled_from(["", ".tgz", ".tar"]), enc=st.booleans())
def test_a_stored_name_is_parsed_into_its_parts(
    stem: str, date: int, extension: str, enc: bool
) -> None:
    name = names.stored_name(stem, date, extension, encrypted=enc)
    parsed = names.parse_stored_name(name)
    assert parsed == names.StoredName(stem, date, extension, ".age" if enc else "")


def test_the_name_in_the_guide_is_reproduced_exactly() -> None:
    name = names.stored_name("mydir", 1370373055, ".tgz", encrypted=False)
    assert name == "mydir.20130604191055.tgz"
    assert names.stored_name("mydir", 1370373055, ".tgz", encrypted=True) == f"{name}.age"


def test_the_encrypted_names_of_060_are_known() -> None:
    parsed = names.parse_stored_name("mydir.20130604191055.tgz.enc")
    assert parsed == names.StoredName("mydir", 1370373055, ".tgz", ".enc")


@pytest.mark.parametrize(
    "name",
    [
        "",
        "mydir",
        "mydir.tgz",
        ".20130604191055.tgz",
        "mydir.2013060419105.tgz",
        "mydir.20131304191055.tgz",
        "mydir.20130604191060.tgz",
        "mydir.20130604191055.zip",
        "mydir.20130604191055.tgz.gpg",
        "mydir.20130604191055.tgz.bakthat.json",
    ],
)
def test_other_names_are_not_parsed_as_stored_names(name: str) -> None:
    assert names.parse_stored_name(name) is None


@given(st.text())
def test_parsing_never_raises_and_accepts_only_reproducible_names(name: str) -> None:
    parsed = names.parse_stored_name(name)
    if parsed is not None and parsed.encryption != ".enc" and name.isascii():
        made = names.stored_name(
            parsed.stem, parsed.backup_date, parsed.extension, encrypted=bool(parsed.encryption)
        )
        assert made == name


def test_a_taken_name_is_followed_by_the_next_second() -> None:
    taken = names.stored_names("my", 1370373059, ".tgz", encrypted=False)
    assert [next(taken) for _ in range(3)] == [
        ("my.20130604191059.tgz", 1370373059),
        ("my.20130604191100.tgz", 1370373060),
        ("my.20130604191101.tgz", 1370373061),
    ]


@pytest.mark.parametrize(
    "name", ["mydir", "-rf", ".hidden", "with space", "ünï", "a'b\"c", "100%", "x" * 255, "my*"]
)
def test_odd_but_valid_names_are_accepted_unchanged(name: str) -> None:
    assert names.check_set_name(name) == name


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("", "cannot be the name"),
        (".", "cannot be the name"),
        ("..", "cannot be the name"),
        ("a/b", "slash"),
        ("a\nb", "control characters"),
        ("a\x1b[31mb", "control characters"),
        ("a\u202eb", "control characters"),
        ("a\0b", "control characters"),
        ("caf\udce9", "not UTF-8"),
        ("x" * 256, "too long"),
        ("é" * 128, "too long"),
    ],
)
def test_invalid_names_are_refused_with_a_hint(name: str, reason: str) -> None:
    with pytest.raises(UsageError, match=reason) as caught:
        names.check_set_name(name)
    assert "--name" in caught.value.hint
    assert "\n" not in str(caught.value)
    assert "\x1b" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "is_one"),
    [
        ("a.tgz", True),
        ("a.tar.gz", True),
        ("A.TGZ", True),
        (".tgz", False),
        ("a.gz", False),
        ("a.tgz.age", False),
    ],
)
def test_tarballs_are_known_by_name(name: str, is_one: bool) -> None:
    assert names.is_tarball(name) is is_one


def test_the_stem_of_a_tarball_has_no_extension() -> None:
    assert names.tarball_stem("site.tar.gz") == "site"
    assert names.tarball_stem("custom") == "custom"


@pytest.mark.parametrize(
    "key",
    [
        "mydir.20130604191055.tgz",
        "hosts/one/mydir.20130604191055.tgz.age",
        "data.csv.20130604191055",
        "mydir20130604191055.tgz.enc",
        "bakthat_glacier_indexes/vault/mydir.20130604191055.tar",
    ],
)
def test_the_key_of_an_index_is_that_of_its_archive_and_an_extension(key: str) -> None:
    assert names.index_key(key) == f"{key}.index"
    assert names.is_index_key(names.index_key(key))
    assert not names.is_index_key(key)


@pytest.mark.parametrize(
    "key",
    [".index", "book.index", "a.index/mydir.20130604191055.tgz", "mydir.20130604191055.index.age"],
)
def test_other_keys_are_not_those_of_indexes(key: str) -> None:
    assert not names.is_index_key(key)


@given(token=st.text("0123456789abcdef", min_size=32, max_size=32))
def test_the_name_of_a_probe_is_that_of_nothing_else(token: str) -> None:
    name = names.probe_name(token)
    assert names.is_probe_name(name)
    assert names.parse_any_name(name) is None
    assert names.parse_key(name, "") is None
    assert not names.is_index_key(name)
    assert not name.endswith(names.KEY_VALUE_EXTENSION)


@pytest.mark.parametrize(
    "name",
    [
        "bakthat-0.probe",
        "my.probe",
        f"bakthat-{'g' * 32}.probe",
        f"x/bakthat-{'0' * 32}.probe",
        f"bakthat-{'0' * 32}.probe.20130604191055.tgz",
    ],
)
def test_other_names_are_not_those_of_probes(name: str) -> None:
    assert not names.is_probe_name(name)
