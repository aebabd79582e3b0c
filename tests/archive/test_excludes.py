"""Exclude files, compared with git."""

from __future__ import annotations

import logging
import os
import subprocess
import tempfile
from collections.abc import Iterator
from itertools import product
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bakthat.archive.create.excludes import ExcludeRules, find_rules
from bakthat.archive.create.walk import WalkOptions, walk
from bakthat.archive.extract.selection import Selection
from bakthat.archive.report import ArchiveReport
from bakthat.errors import UsageError
from bakthat.format.entry import Entry, EntryType
from tests.support.entries import EntryList

pytestmark = pytest.mark.needs("git")  # the oracle of these tests

_LEAVES = ["a", "b", "ab", "abc", "a b", "a ", "A", "-", "]", "[", "\\", "!a", "#a", "*", "^"]
_LEAVES += ["é", "\udcff", "a\nb", "a.txt", "b.txt", ".a", "1", "\t"]
_FEW = ["a", "b", "ab", "é", "a.txt"]


class Oracle:
    """A repository with a fixed tree, and the entries that git ignores in it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.rules_file = path / ".gitignore"
        # The user's own configuration and global ignore file must not take part.
        self.environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(path.parent),
            "GIT_CONFIG_NOSYSTEM": "1",
        }
        path.mkdir()
        self._git("init", "-q")
        self.names: list[str] = []

    def _git(self, *arguments: str, data: bytes = b"") -> bytes:
        command = ["git", "-C", str(self.path), *arguments]
        done = subprocess.run(
            command, input=data, capture_output=True, env=self.environment, check=False
        )
        assert done.returncode in (0, 1), done.stderr
        return done.stdout

    def grow(self, names: Iterator[str]) -> None:
        """Make *names*; one that ends in a slash is an empty directory."""
        for name in names:
            target = self.path / name
            target.parent.mkdir(parents=True, exist_ok=True)
            if name.endswith("/"):
                target.mkdir(exist_ok=True)
            elif not target.exists():
                target.touch()
        below = walk(self.path, WalkOptions(), ArchiveReport())
        self.names = [
            entry.name for entry in below if entry.name and not entry.name.startswith(".git")
        ]

    def kept(self) -> list[str]:
        data = b"\0".join(map(os.fsencode, self.names))
        out = self._git("check-ignore", "--no-index", "-z", "--stdin", data=data)
        ignored = set(out.split(b"\0"))
        return [name for name in self.names if os.fsencode(name) not in ignored]

    def kept_by_walk(self) -> list[str]:
        options = WalkOptions(rules=find_rules(self.path))
        entries = walk(self.path, options, ArchiveReport())
        names = set(self.names)
        return [entry.name for entry in entries if entry.name in names]


@pytest.fixture(scope="module")
def oracle() -> Iterator[Oracle]:
    with tempfile.TemporaryDirectory() as directory:
        result = Oracle(Path(directory, "tree"))
        deep = ("/".join(parts) for parts in product(_FEW, ["a", "b", "ab"], ["a", "é", "x/a"]))
        files = (f"{d}/{leaf}" for d in ("d", "a/d") for leaf in _LEAVES)
        result.grow(iter([*deep, *files, *(f"top{leaf}" for leaf in _LEAVES), "e/", "a/e/"]))
        yield result


_literals = ["a", "b", "ab", "é", "x", "d", "e", "top", ".txt", "A", "1", "-", "]", "^", "!", "#"]
_escapes = [" ", "\\ ", "\\*", "\\\\", "\\a", "\\/", "\\", "\t", "\r", "\0", "\udcff"]
_wildcards = ["*", "**", "***", "?", "/", "/", "/", "**/", "/**", "/**/"]
_sets = ["[ab]", "[!a]", "[^b]", "[a-c]", "[]]", "[]-a]", "[[:alpha:]]", "[![:space:]x]", "[\\]]"]
_sets += ["[[:digit:]-z]", "[*-\\]]", "[a-]", "[a/b]", "[\\\\]", "[--1]", "[\udcff]", "[[:punct:]]"]
_broken = ["[", "[[:nope:]]", "[:alpha:]", "[[:]", "[z-a]"]
_pieces = st.sampled_from([*_literals, *_escapes, *_wildcards, *_sets, *_broken])
_patterns = st.lists(_pieces, max_size=6).map("".join)
_files = st.lists(_patterns, min_size=1, max_size=5).map("\n".join)


@settings(max_examples=250, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(text=_files)
@pytest.mark.slow
def test_any_patterns_keep_the_files_that_git_keeps(oracle: Oracle, text: str) -> None:
    oracle.rules_file.write_bytes(os.fsencode(text))
    assert oracle.kept_by_walk() == oracle.kept()


_selecting = _patterns.filter(
    lambda text: text.strip("/") and not (text[0] in "#!" or text[-1] in " \r" or "\0" in text)
)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(text=_selecting)
@pytest.mark.slow
def test_a_selection_by_a_pattern_has_what_git_ignores(oracle: Oracle, text: str) -> None:
    oracle.rules_file.write_bytes(os.fsencode(text))
    path = "/".join(part for part in text.split("/") if part)
    at_path = [name for name in oracle.names if f"{name}/".startswith(f"{path}/")]
    ignored = sorted(set(oracle.names) - set(oracle.kept()))
    index = EntryList([_entry("T", is_directory=True)])
    for name in sorted(oracle.names):
        is_directory = (oracle.path / name).is_dir()
        index.all.append(_entry(f"T/{name}", is_directory=is_directory))
    found = [entry.path.removeprefix("T/") for entry in Selection([text]).entries(index)]
    assert found == (sorted(at_path) or ignored)


def _entry(path: str, *, is_directory: bool) -> Entry:
    return Entry(path, EntryType.DIRECTORY if is_directory else EntryType.FILE, 0, 0, 0, 0)


_names = st.lists(st.sampled_from(["a", "b", "c", "ab"]), min_size=1, max_size=4).map("/".join)
_simple = st.lists(
    st.sampled_from(["a", "b", "c", "ab", "*", "**", "?", "a*"]), min_size=1, max_size=4
).map("/".join)


@settings(max_examples=60, deadline=None)
@given(
    names=st.lists(_names, min_size=1, max_size=12),
    lines=st.lists(
        st.builds("{}{}{}{}".format, st.sampled_from(["", "", "!"]), st.sampled_from(["", "/"]),
                  _simple, st.sampled_from(["", "/", "/**"])),
        min_size=1, max_size=6,
    ),
)  # fmt: skip
@pytest.mark.slow
def test_any_tree_keeps_the_files_that_git_keeps(names: list[str], lines: list[str]) -> None:
    with tempfile.TemporaryDirectory() as directory:
        oracle = Oracle(Path(directory, "tree"))
        fitting = [n for n in names if not any(m.startswith(n + "/") for m in names)]
        oracle.grow(iter(fitting))
        oracle.rules_file.write_text("\n".join(lines))
        assert oracle.kept_by_walk() == oracle.kept()


def rules(tmp_path: Path, text: str | bytes) -> ExcludeRules:
    path = tmp_path / ".bakthatexclude"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    found = find_rules(tmp_path)
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("text", "out", "kept"),
    [
        ("*.pyc", ["a.pyc", "b/a.pyc"], ["a.py", "a.pyc.txt"]),
        ("/dist", ["dist"], ["a/dist"]),
        ("docs/_build", ["docs/_build"], ["a/docs/_build", "_build"]),
        ("**/cache/*.tmp", ["cache/a.tmp", "a/b/cache/c.tmp"], ["cache/a/b.tmp"]),
        ("a/**/z", ["a/z", "a/b/z", "a/b/c/z"], ["z", "b/z"]),
        ("a/**", ["a/b", "a/b/c"], ["a"]),
        ("*.log\n!keep.log", ["a.log"], ["keep.log", "x/keep.log"]),
        ("!keep.log\n*.log", ["keep.log"], []),
        ("# a comment\n\\#notes", ["#notes"], ["# a comment", "notes"]),
        ("\\!important", ["!important"], ["important"]),
        ("spaces   ", ["spaces"], ["spaces   "]),
        ("space\\ ", ["space "], ["space"]),
        ("windows\r\nlines\r\n", ["windows", "lines"], []),
        ("\ufefffirst", ["first"], []),
        ("[!a-c]x", ["dx"], ["ax", "/x"]),
        ("no newline\nin name", ["no newline"], ["no newline\nin name"]),
        ("n*e", ["new\nline"], ["new\nlines"]),
    ],
)
def test_patterns_match_as_gitignore_documents(
    tmp_path: Path, text: str, out: list[str], kept: list[str]
) -> None:
    found = rules(tmp_path, text)
    assert [name for name in out if not found.excludes(name, is_dir=False)] == []
    assert [name for name in kept if found.excludes(name, is_dir=False)] == []


def test_a_pattern_that_ends_in_a_slash_leaves_out_directories_only(tmp_path: Path) -> None:
    found = rules(tmp_path, "build/")
    assert found.excludes("a/build", is_dir=True)
    assert not found.excludes("a/build", is_dir=False)


def test_bytes_that_are_not_utf8_match_themselves(tmp_path: Path) -> None:
    found = rules(tmp_path, b"caf\xe9\n*.\xff")
    assert found.excludes(os.fsdecode(b"caf\xe9"), is_dir=False)
    assert found.excludes(os.fsdecode(b"x.\xff"), is_dir=False)
    assert not found.excludes("café", is_dir=False)


def test_many_stars_do_not_take_exponential_time(tmp_path: Path) -> None:
    found = rules(tmp_path, "*a" * 60 + "b")
    assert not found.excludes("a" * 200, is_dir=False)
    assert found.excludes("a" * 200 + "b", is_dir=False)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("a[b", "has a [ without its ]"),
        ("a[", "has a [ without its ]"),
        ("[a-\\", "has a [ without its ]"),
        ("back\\", "ends with a backslash"),
        ("[[:vowel:]]", "unknown class [:vowel:]"),
    ],
)
def test_a_pattern_that_can_never_match_is_an_error_with_its_line(
    tmp_path: Path, line: str, message: str
) -> None:
    with pytest.raises(UsageError) as caught:
        rules(tmp_path, f"fine\n# fine\n{line}\n")
    assert message in str(caught.value)
    assert f"{tmp_path / '.bakthatexclude'}, line 3: " in str(caught.value)
    assert caught.value.hint


def test_a_gitignore_that_git_accepts_does_not_stop_a_backup(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / ".gitignore").write_text("a[b\n*.o\n")
    with caplog.at_level(logging.WARNING, "bakthat.archive"):
        found = find_rules(tmp_path)
    assert found is not None
    assert found.excludes("x.o", is_dir=False)
    assert "line 1: the pattern 'a[b' has a [ without its ]; it matches nothing" in caplog.text


def test_a_named_file_precedes_bakthatexclude_and_that_gitignore(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path / "root"
    root.mkdir()
    assert find_rules(root) is None
    (root / ".gitignore").write_text("git\n")
    assert getattr(find_rules(root), "path", None) == root / ".gitignore"
    (root / ".bakthatexclude").write_text("bakthat\n")
    assert getattr(find_rules(root), "path", None) == root / ".bakthatexclude"
    (tmp_path / "mine").write_text("mine\n")
    monkeypatch.chdir(tmp_path)
    named = find_rules(root, exclude_file="mine", automatic=False)
    assert named is not None
    assert named.path == Path("mine")
    assert named.excludes("mine", is_dir=False)
    assert not named.excludes("bakthat", is_dir=False)
    assert find_rules(root, automatic=False) is None


def test_a_missing_exclude_file_is_named(tmp_path: Path) -> None:
    missing = tmp_path / "missing"
    with pytest.raises(UsageError, match="no such file or directory") as caught:
        find_rules(tmp_path, exclude_file=missing)
    assert str(missing) in str(caught.value)


def test_a_directory_is_no_exclude_file(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="is a directory"):
        find_rules(tmp_path, exclude_file=tmp_path)


@pytest.mark.parametrize(
    ("name", "problem"), [("", "an empty name"), ("a\0b", "no file can have that name")]
)
def test_no_exclude_file_has_such_a_name(tmp_path: Path, name: str, problem: str) -> None:
    with pytest.raises(UsageError, match=problem) as caught:
        find_rules(tmp_path, exclude_file=name)
    assert caught.value.hint


def test_a_single_file_has_no_rules(tmp_path: Path) -> None:
    (tmp_path / ".gitignore").write_text("*\n")
    (tmp_path / "file").touch()
    assert find_rules(tmp_path / "file") is None
