"""The progress on a terminal: what it says, that it fits, and that nothing of it is left."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len as cells

import bakthat
from bakthat.cli import output
from bakthat.cli.progress import ProgressLines, progress_bar, shortened
from bakthat.system.streams import ProgressState
from tests.support.commandline import CommandLine
from tests.support.profiles import Conf
from tests.support.screen import Terminal, shown, terminal

GB = 10**9
LONG = "mydir/some/very/deep/directory/日本語の名前/and a long file\nname that goes on and on.txt"


@pytest.fixture(autouse=True)
def usual_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.delenv("COLUMNS", raising=False)


@pytest.fixture
def screen() -> Iterator[Terminal]:
    with terminal() as opened:
        yield opened


# What it says.


class NoTerminal(io.StringIO):
    """Shows no colors."""

    encoding = "utf-8"


def lines_of(
    state: ProgressState, width: int, *, rate: int = 0, stream: io.StringIO | None = None
) -> list[str]:
    """What is said of *state* after two seconds with *rate* bytes each."""
    content = ProgressLines(stream or NoTerminal(), "Uploading", moved="stored")
    content.state = state._replace(done=state.done - 2 * rate)
    content.lines(width, 0.0)
    content.state = state
    return content.lines(width, 2.0)


@pytest.mark.parametrize(
    ("width", "lines"),
    [
        (
            79,
            [
                "Uploading 25 % ━━━━━━━─────────────────────── 1.0 GB of 4.0 GB, 812.3 MB stored",
                "50.0 MB/s, 1:00 left    mydir/some/very/deep/direct…ame that goes on and on.txt",
            ],
        ),
        (
            199,
            [
                f"Uploading 25 % {'━' * 12}{'─' * 38} 1.0 GB of 4.0 GB, 812.3 MB stored",
                r"50.0 MB/s, 1:00 left    mydir/some/very/deep/directory/日本語の名前/"
                r"and a long file\nname that goes on and on.txt",
            ],
        ),
        (
            40,
            ["25 % 1.0 GB of 4.0 GB, 812.3 MB stored", "50.0 MB/s, 1:00 left    mydir/s…d on.txt"],
        ),
        (25, ["25 % 1.0 GB of 4.0 GB", "50.0 MB/s, 1:00 left"]),
        (8, ["1.0 GB o", "50.0 MB/"]),
    ],
)
def test_what_fits_is_shown(width: int, lines: list[str]) -> None:
    state = ProgressState(GB, 4 * GB, 812_300_000, LONG)
    assert lines_of(state, width, rate=50_000_000) == lines


def test_there_is_no_rate_before_the_first_second() -> None:
    content = ProgressLines(NoTerminal(), "Downloading", moved="written")
    content.state = ProgressState(5, 10, 0, "a")
    assert content.lines(79, 0.0)[1:] == ["a"]
    content.state = ProgressState(6, 10, 0, "a")
    assert content.lines(79, 0.9)[1:] == ["a"]
    assert content.lines(79, 1.0)[1:] == ["1 B/s, 0:04 left        a"]


def test_a_storage_that_does_not_answer_has_no_time_left() -> None:
    content = ProgressLines(NoTerminal(), "Uploading")
    content.state = ProgressState(5, 10, 0, "a")
    content.lines(79, 0.0)
    assert content.lines(79, 5.0)[1:] == ["0 B/s                   a"]


def test_hours_are_shown_where_there_are_some() -> None:
    state = ProgressState(2000, 2000 + 3724 * 1000)
    assert lines_of(state, 79, rate=1000)[1] == "1.0 KB/s, 1:02:04 left"


def test_an_unknown_total_has_no_share_and_no_time_left() -> None:
    state = ProgressState(GB, 0, 5, "a")
    assert lines_of(state, 79, rate=1000) == [
        "Uploading 1.0 GB, 5 B stored",
        "1.0 KB/s                a",
    ]


def test_all_is_read_before_all_is_stored() -> None:
    assert lines_of(ProgressState(GB, GB, GB), 40)[0] == "99 % 1.0 GB of 1.0 GB, 1.0 GB stored"


def test_objects_are_counted_without_units() -> None:
    content = ProgressLines(NoTerminal(), "Checking", counts_bytes=False)
    content.state = ProgressState(0, 400)
    content.lines(60, 0.0)
    content.state = ProgressState(100, 400)
    assert content.lines(60, 10.0) == [
        f"Checking 25 % {'━' * 8}{'─' * 27} 100 of 400",
        "0:30 left",
    ]


def test_a_terminal_without_utf8_gets_ascii() -> None:
    class Latin(io.StringIO):
        encoding = "iso8859-1"

    first, second = lines_of(ProgressState(1, 2, 1, LONG), 79, stream=Latin())
    assert first.isascii()
    assert "=-" in first
    assert second.isascii()
    path = "mydir/日本" + "x" * 40
    assert lines_of(ProgressState(1, 2, 1, path), 54, stream=Latin())[1].endswith(
        r"  mydir/\u65e5\...xxxxxxxxxxxxxx"
    )


def test_colors_are_those_that_the_user_wants(
    screen: Terminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = ProgressLines(screen.stream, "Uploading")
    content.state = ProgressState(1, 2)
    colored = content.lines(79, 0.0)[0]
    assert "\x1b[32m━" in colored
    monkeypatch.setenv("NO_COLOR", "1")
    plain = content.lines(79, 0.0)[0]
    assert "\x1b" not in plain
    assert shown(colored, 80) == [plain]


@given(
    st.integers(1, 250),
    st.integers(0, 10**15),
    st.integers(0, 10**15),
    st.none() | st.integers(0, 10**15),
    st.text(),
)
def test_no_line_is_wider_than_the_terminal_or_holds_what_moves_the_cursor(
    width: int, done: int, total: int, moved: int | None, path: str
) -> None:
    for line in lines_of(ProgressState(done, total, moved, path), width, rate=done // 2):
        assert cells(line) <= width
        assert line.isprintable()


@given(st.text(st.characters(categories=("L", "M", "N", "P", "Zs"))), st.integers(0, 60))
def test_what_is_shortened_keeps_its_beginning_and_its_end(text: str, width: int) -> None:
    short = shortened(text, width)
    assert cells(short) <= width
    if short != text and short:
        head, _, tail = short.partition("…") if "…" not in text else ("", "", "")
        # A space stands for half of a wide character.
        assert text.startswith((head, head.removesuffix(" ")))
        assert text.endswith((tail, tail.removeprefix(" ")))
        assert cells(short) >= width - 2  # a wide character may not fit


# Where it is shown.


def test_an_exception_leaves_nothing_behind(
    screen: Terminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stderr", screen.stream)

    def work() -> None:
        with progress_bar("Uploading") as progress:
            assert progress is not None
            progress(1, 2)
            print("written meanwhile", file=sys.stderr)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        work()
    assert sys.stderr is screen.stream
    assert screen.lines() == ["written meanwhile"]


def test_nothing_is_measured_before_the_first_state(
    screen: Terminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Time that passed before, such as that of counting the tree, is no time of the backup."""
    monkeypatch.setattr(sys, "stderr", screen.stream)
    asked: list[float] = []
    real = ProgressLines.lines

    def lines(self: ProgressLines, width: int, now: float) -> list[str]:
        asked.append(now)
        return real(self, width, now)

    monkeypatch.setattr(ProgressLines, "lines", lines)
    with progress_bar("Uploading") as progress:
        assert progress is not None
        assert asked == []
        progress(1, 2)
        assert asked


def test_a_long_line_of_the_log_is_not_broken(
    screen: Terminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stderr", screen.stream)
    with progress_bar("Uploading") as progress:
        assert progress is not None
        progress(1, 2)
        print("y" * 200, file=sys.stderr)
    assert "y" * 200 in screen.output()


def test_a_terminal_that_becomes_narrow_is_left_clean() -> None:
    script = (
        "import sys\n"
        "from bakthat.cli import progress as module\n"
        "from bakthat.system.streams import ProgressState\n"
        "module.DRAWS_PER_SECOND = 0.001  # it draws at the beginning and at the end\n"
        "print('before', file=sys.stderr)\n"
        "with module.progress_bar('Uploading', moved='stored') as progress:\n"
        "    progress.on_state(ProgressState(5, 10, 5, 'mydir/' + 'x' * 200))\n"
        "    sys.stdin.readline()\n"
        "print('after', file=sys.stderr)\n"
    )
    with terminal(150) as screen:
        command = subprocess.Popen(
            [sys.executable, "-c", script], stdin=subprocess.PIPE, stderr=screen.stream
        )
        try:
            screen.wait_for("xxx")
            assert screen.lines()[0] == "before"
            assert all(len(line) < 150 for line in screen.lines()), "it does not wrap"
            screen.narrow(40)
        finally:
            command.communicate(b"\n", timeout=60)
        assert screen.lines() == ["before", "after"]


@pytest.mark.parametrize("term", ["dumb", "unknown", ""])
def test_a_terminal_that_cannot_redraw_gets_percentages(
    screen: Terminal, monkeypatch: pytest.MonkeyPatch, term: str
) -> None:
    monkeypatch.setattr(sys, "stderr", screen.stream)
    monkeypatch.setenv("TERM", term)
    with progress_bar("Uploading") as progress:
        assert progress is None


def test_quiet_shows_nothing(screen: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", screen.stream)
    output.start("backup", quiet=True)
    try:
        with progress_bar("Uploading") as progress:
            assert progress is None
    finally:
        output.start()


# Whole commands.


@pytest.fixture
def names(tree: Path) -> list[str]:
    """What the tree holds: also names that a terminal must not see as they are."""
    found = ["a.txt", "b\x1b[31mred", "c\nd", "e\u202ef", "日本語" * 20]
    for name in found[1:]:
        (tree / name).write_bytes(os.urandom(5000))
    return ["a.txt", r"b\x1b[31mred", r"c\nd", r"e\u202ef", "日本語" * 20]


@pytest.mark.parametrize("columns", [20, 80, 200])
def test_nothing_of_it_is_left_on_the_screen(
    user: CommandLine, names: list[str], columns: int
) -> None:
    assert names
    for arguments, label, before, after in (
        (("backup", "mydir", "--prompt", "no"), "Uploading", "Uploading...", "Stored as mydir."),
        (("restore", "mydir", "-o", "out"), "Downloading", "Uncompressing...", "Restored mydir."),
    ):
        code, said = user.converse(*arguments, columns=columns)
        assert code == 0
        assert "\x1b[31m" not in said
        assert (f"{label}  0 %" if columns > 20 else "0 B") in said, "it was there"
        assert before + after in "".join(shown(said, columns))


def test_verbose_names_files_instead_of_it(user: CommandLine, names: list[str]) -> None:
    code, said = user.converse("backup", "mydir", "-v", "--prompt", "no", columns=200)
    assert code == 0
    assert "\x1b[" not in said
    lines = shown(said, 200)
    assert [line for line in lines if line.startswith("stored ")] == [
        "stored mydir",
        *(f"stored mydir/{name}" for name in names),
    ]
    assert lines[-2].startswith("Stored as mydir.")


def test_off_a_terminal_and_on_a_dumb_one_the_log_is_that_of_0_6_0(
    user: CommandLine, tree: Path
) -> None:
    assert tree.parent == user.directory
    piped = user.run("backup", "mydir", "--prompt", "no").stderr.splitlines()
    assert "Upload completion: 0%" in piped
    code, said = user.converse("backup", "mydir", "--prompt", "no", env={"TERM": "dumb"})
    assert code == 0
    assert "\x1b" not in said
    lines = said.replace("\r\n", "\n").splitlines()
    assert lines[:-2] == piped[:-2]
    assert lines[-2].startswith("Stored as mydir.")


def test_with_json_on_the_terminal_the_lines_are_whole(user: CommandLine, tree: Path) -> None:
    assert tree.parent == user.directory
    code, said = user.converse("backup", "mydir", "--json", "--prompt", "no", columns=200)
    assert code == 0
    assert "\x1b" not in said


# What it is told.


class Recorder:
    """A function of progress that wants to know all."""

    def __init__(self) -> None:
        self.states: list[ProgressState] = []

    def __call__(self, done: int, total: int) -> None:
        raise AssertionError("its method is there")

    def on_state(self, state: ProgressState) -> None:
        self.states.append(state)


@pytest.mark.parametrize("incremental", [False, True])
def test_a_backup_tells_what_it_reads_and_how_much_it_stored(
    local: Conf, tree: Path, out: Path, incremental: bool
) -> None:
    def back_up(recorder: Recorder) -> bakthat.models.Backups:
        return bakthat.backup(
            tree, conf=local, password="", incremental=incremental, progress=recorder
        )

    for name in "bcd":
        (tree / name).write_bytes(os.urandom(3_000_000))
    recorder = Recorder()
    made = back_up(recorder)
    assert recorder.states[-1][:2] == (9_000_005, 9_000_005)
    assert {each.path for each in recorder.states} >= {f"mydir/{name}" for name in "bcd"}
    stored = [each.moved for each in recorder.states if each.moved is not None]
    assert stored == sorted(stored)
    assert len(stored) == len(recorder.states)
    assert stored[-1] == made.size
    (tree / "c").write_bytes(os.urandom(2_000_000))
    recorder = Recorder()
    back_up(recorder)
    assert recorder.states[-1].done == (2_000_000 if incremental else 8_000_005)
    assert "mydir/c" in {each.path for each in recorder.states}
    recorder = Recorder()
    bakthat.restore("mydir", conf=local, output=out, progress=recorder)
    assert {each.path for each in recorder.states} & {f"mydir/{name}" for name in "bcd"}
    written = [each.moved for each in recorder.states if each.moved is not None]
    assert written == sorted(written)
    assert 0 < written[-1] <= 8_000_005
    assert recorder.states[-1].done == recorder.states[-1].total


def test_a_stream_has_a_total_once_its_size_can_be_expected(local: Conf) -> None:
    command = "head -c 3000000 /dev/zero"

    def states() -> list[ProgressState]:
        recorder = Recorder()
        bakthat.backup(
            command=command, custom_filename="zero", conf=local, password="", progress=recorder
        )
        return recorder.states

    *running, last = states()
    assert max(state.done for state in running) == 3_000_000
    assert {state.total for state in running} == {0}
    assert last[:2] == (3_000_000, 3_000_000)
    assert {state.total for state in states()} == {3_000_000}


def test_a_single_file_is_named_too(local: Conf, tmp_path: Path, out: Path) -> None:
    path = tmp_path / "dump.tgz"
    path.write_bytes(os.urandom(3_000_000))
    recorder = Recorder()
    bakthat.backup(path, conf=local, password="", progress=recorder)
    assert recorder.states[-1] == ProgressState(3_000_000, 3_000_000, 3_000_000, "dump.tgz")
    recorder = Recorder()
    bakthat.restore("dump", conf=local, output=out, progress=recorder)
    assert {each.path for each in recorder.states[1:]} == {"dump.tgz"}
