"""Which entries of an archive texts mean: paths that are there, or else patterns."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator

import pytest

from bakthat.archive.extract.selection import Selection
from bakthat.errors import NoMatchError, UsageError
from bakthat.format.entry import Entry, EntryType

PATHS = [
    "mydir/",
    "mydir/*.txt",
    "mydir/a.txt",
    "mydir/etc/",
    "mydir/etc/hosts",
    "mydir/etc/hosts.bak",
    "mydir/etc/ssl/",
    "mydir/etc/ssl/a.pem",
    "mydir/etc/ssl/b.pem",
    "mydir/mydir/",
    "mydir/mydir/inner",
    "mydir/old/",
    "mydir/old/etc/",
    "mydir/old/etc/hosts",
    "mydir/x\udcff",
]


class FakeIndex:
    """Lists *paths*; one with a slash at its end is a directory. Counts what it yields."""

    def __init__(self, paths: Collection[str] = PATHS) -> None:
        self.yielded = 0
        self._entries = [_entry(path) for path in paths]
        self.top = self._entries[0].path.partition("/")[0] if paths else ""

    def entries(
        self,
        paths: Collection[str] | None = None,
        *,
        where: Callable[[str], bool] | None = None,
    ) -> Iterator[Entry]:
        for entry in self._entries:
            parts = entry.path.split("/")
            above = {"/".join(parts[:end]) for end in range(1, len(parts) + 1)}
            if (paths is None or above & set(paths)) and (where is None or where(entry.path)):
                self.yielded += 1
                yield entry


def _entry(path: str) -> Entry:
    kind = EntryType.DIRECTORY if path.endswith("/") else EntryType.FILE
    return Entry(path.rstrip("/"), kind, 0o644, 0, 0, 0)


def selected(*texts: str, paths: Collection[str] = PATHS) -> list[str]:
    """Return what *texts* select of *paths*: by an index, and the same in a stream."""
    selection = Selection(texts)
    found = [entry.path for entry in selection.entries(FakeIndex(paths))]
    selection.check()
    assert in_a_stream(*texts, paths=paths) == found
    return [path.removeprefix("mydir/") for path in found]


def in_a_stream(*texts: str, paths: Collection[str] = PATHS) -> list[str]:
    selection = Selection(texts)
    found: list[str] = []
    for _ in range(2):
        found = [
            path.rstrip("/")
            for path in paths
            if selection.includes(path.rstrip("/"), is_directory=path.endswith("/"))
        ]
        if selection.settle():
            break
    selection.check()
    return found


ETC = ["etc", "etc/hosts", "etc/hosts.bak", "etc/ssl", "etc/ssl/a.pem", "etc/ssl/b.pem"]


@pytest.mark.parametrize(
    ("texts", "expected"),
    [
        (["etc/hosts"], ["etc/hosts"]),
        (["mydir/etc/hosts"], ["etc/hosts"]),
        (["/etc//hosts/"], ["etc/hosts"]),
        (["./etc/./hosts"], ["etc/hosts"]),
        (["etc"], ETC),
        (["mydir/inner"], ["mydir/inner"]),
        (["mydir"], [path.rstrip("/").removeprefix("mydir/") for path in PATHS]),
        (["x\udcff"], ["x\udcff"]),
        # a path that is there and looks like a pattern
        (["*.txt"], ["*.txt"]),
        (["mydir/*.txt"], ["*.txt"]),
        # patterns
        (["/*.txt"], ["*.txt"]),
        (["hosts"], ["etc/hosts", "old/etc/hosts"]),
        (["host*"], ["etc/hosts", "etc/hosts.bak", "old/etc/hosts"]),
        (["etc/*"], ETC[1:]),
        (["mydir/etc/host*"], ["etc/hosts", "etc/hosts.bak"]),
        (["/mydir/etc/host*"], ["etc/hosts", "etc/hosts.bak"]),
        (["ssl/"], ["etc/ssl", "etc/ssl/a.pem", "etc/ssl/b.pem"]),
        (["**/etc/"], [*ETC, "old/etc", "old/etc/hosts"]),
        (["a.*"], ["a.txt", "etc/ssl/a.pem"]),
        (["[ab].pem", "a.txt"], ["a.txt", "etc/ssl/a.pem", "etc/ssl/b.pem"]),
        # what is left out
        (["etc", "!*.pem"], ["etc", "etc/hosts", "etc/hosts.bak", "etc/ssl"]),
        (["etc", "!ssl"], ["etc", "etc/hosts", "etc/hosts.bak"]),
        (["etc", "!*.pem", "a.pem"], ["etc", "etc/hosts", "etc/hosts.bak", "etc/ssl", ETC[4]]),
        (["!etc", "!mydir/old", "!/mydir"], ["mydir", "*.txt", "a.txt", "x\udcff"]),
    ],
)
def test_a_text_is_a_path_that_is_there_or_else_a_pattern(
    texts: list[str], expected: list[str]
) -> None:
    assert selected(*texts) == expected


@pytest.mark.parametrize("text", ["etc/host", "*.pdf", "hosts/", "mydir/hosts", "[", "a\\"])
def test_a_text_without_an_entry_is_named(text: str) -> None:
    for texts in ([text], ["etc", text], [text, "a.*"]):
        with pytest.raises(NoMatchError, match="the backup holds no '") as caught:
            selected(*texts)
        assert f"'{text}'" in str(caught.value).replace("\\\\", "\\")
        with pytest.raises(NoMatchError):
            in_a_stream(*texts)


def test_leaving_everything_out_is_an_error() -> None:
    for texts in (["etc", "!etc"], ["a.txt", "!*"], ["etc", "!ssl", "a.pem"]):
        with pytest.raises(NoMatchError):
            selected(*texts)
        with pytest.raises(NoMatchError):
            in_a_stream(*texts)


@pytest.mark.parametrize("text", ["", "/", ".", "..", "etc/../x", "nul\0"])
def test_what_no_entry_can_have_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="no path in a backup can be"):
        Selection([text])


def test_a_backup_of_one_file_answers_too() -> None:
    for text in ("notes.txt", "*.txt", "/notes*"):
        assert selected(text, paths=["notes.txt"]) == ["notes.txt"]


def test_several_directories_at_the_top_are_told_apart() -> None:
    paths = ["a/", "a/x", "b/", "b/x", "c"]
    assert selected("b/x", paths=paths) == ["b/x"]
    assert selected("c", paths=paths) == ["c"]
    assert selected("x", paths=paths) == ["a/x"]


def test_the_whole_path_goes_before_the_same_below_the_top() -> None:
    paths = ["t/", "t/t/", "t/t/x", "t/x"]
    assert selected("t/x", paths=paths) == ["t/x"]
    assert selected("t/t", paths=paths) == ["t/t", "t/t/x"]
    assert selected("x", paths=paths) == ["t/x"]


def test_an_archive_may_have_no_directory_at_its_top() -> None:
    paths = ["a", "b/", "b/x"]
    assert selected("a", "b/x", paths=paths) == ["a", "b/x"]
    assert selected("x", paths=paths) == ["b/x"]
    assert selected("*", paths=paths) == ["a", "b", "b/x"]
    assert selected("!b", paths=paths) == ["a"]


def test_directories_need_no_entry_of_their_own() -> None:
    paths = ["t/a/b/c", "t/a/d"]
    assert selected("a/b", paths=paths) == ["t/a/b/c"]
    assert selected("b/", paths=paths) == ["t/a/b/c"]


def test_only_what_can_match_is_asked_of_the_index() -> None:
    index = FakeIndex()
    selection = Selection(["etc/ssl", "a.txt", "!*.bak"])
    assert len(list(selection.entries(index))) == 4
    assert sorted(selection.literal_paths() or ()) == [
        "mydir/a.txt",
        "mydir/etc/ssl",
    ]
    assert index.yielded <= 8
    selection = Selection(["etc/ssl", "*.p?m"])
    list(selection.entries(index))
    assert selection.literal_paths() is None


def test_a_selection_can_be_resolved_again() -> None:
    selection = Selection(["x*"])
    for paths, expected in ((["t/", "t/x*"], ["t/x*"]), (["t/", "t/xy"], ["t/xy"])):
        assert [entry.path for entry in selection.entries(FakeIndex(paths))] == expected
        selection.check()
    assert not list(selection.entries(FakeIndex(["t/", "t/y"])))
    with pytest.raises(NoMatchError):
        selection.check()


def test_a_stream_is_read_again_when_a_path_was_taken_for_a_pattern() -> None:
    selection = Selection(["hosts"])
    for path in ("t/sub/hosts", "t/hosts"):
        assert selection.includes(path, is_directory=False)
    assert not selection.settle()
    assert not selection.includes("t/sub/hosts", is_directory=False)
    assert selection.includes("t/hosts", is_directory=False)
    assert selection.settle()
    selection.check()
