"""The benchmark itself: what it computes, how it watches, and a rehearsal of all of it."""

from __future__ import annotations

import dataclasses
import os
import shutil
import socket
import tempfile
import threading
import time
from pathlib import Path
from xml.etree import ElementTree

import pytest

from tests.benchmarks import datasets, figures, measuring
from tests.benchmarks.__main__ import load, main, write
from tests.benchmarks.changes import ChangingTree, changing
from tests.benchmarks.chart import SHORT, draw
from tests.benchmarks.figures import CHANGED, NEWEST, SERIES, UNCHANGED, Report, Run
from tests.benchmarks.peers import BAKTHAT, PEERS, missing_tools
from tests.benchmarks.series_runs import check_changed
from tests.benchmarks.tables import render, simple_table
from tests.benchmarks.throttle import BURST, Lane, Link, throttled

MEBIBYTE = 1024 * 1024
TINY = datasets.Sizes(
    small_files=30,
    small_bytes=60_000,
    large_file=3 * MEBIBYTE,
    dump=MEBIBYTE,
    memory=(2048, 4096, 8192),
    memory_file=2048,
    rows=3,
    tiny_files=505,
)


@pytest.fixture
def report() -> Report:
    """Return a report of three tools; the one apart is the fastest."""
    made = Report(
        labels={"bakthat": "bakthat", "slow": "a <slow> tool", "other": "another"},
        cases={"A": "two files, 3 MB"},
        apart=["other"],
        gzip_bytes={"A": 100},
    )
    for tool, walls in (
        ("bakthat", (2.0, 9.0, 3.0)),
        ("slow", (6.0, 5.0, 7.0)),
        ("other", (1.0, 1.0, 2.0)),
    ):
        for wall in walls:
            run = Run("first", "A", tool, wall, cpu=1.0, memory=90 * MEBIBYTE, stored=110)
            made.runs += [run, dataclasses.replace(run, section="restore", wall=wall / 2)]
    return made


def target(report: Report, beginning: str) -> figures.Target:
    found = [each for each in figures.targets(report) if each.what.startswith(beginning)]
    assert len(found) == 1, found
    return found[0]


def test_the_ratio_is_that_of_medians_to_the_fastest_that_is_not_apart(report: Report) -> None:
    assert figures.wall(report, "first", "A", "bakthat") == 3.0
    assert figures.fastest_peer(report, "first", "A") == "slow"
    assert figures.ratio(report, "first", "A") == 0.5


def test_there_is_no_ratio_without_a_peer(report: Report) -> None:
    report.runs = report.of("first", tool="bakthat")
    assert figures.ratio(report, "first", "A") is None
    assert "takes" not in render(report)


def test_who_writes_to_a_local_directory_is_compared_with_its_like_too(report: Report) -> None:
    report.local = ["borg", "bakthat-local"]
    report.runs += [Run("first", "A", "borg", 2.0), Run("first", "A", "bakthat-local", 1.0)]
    measured = {each.what: each.measured for each in figures.targets(report)}
    assert measured["first backup of A against the fastest peer"] == 1.5
    assert measured["first backup of A against the fastest that sends to S3 too"] == 0.5
    assert measured["first backup of A against the fastest local one, local too"] == 0.5


def test_a_target_is_met_on_the_right_side_of_its_limit(report: Report) -> None:
    assert target(report, "first backup of A against the fastest peer").is_met
    assert target(report, "stored bytes of A").measured == pytest.approx(1.1)
    assert target(report, "peak memory").measured == 90
    report.runs.append(Run("link", "backup", "bakthat", 1.0, line_use=0.94))
    assert not target(report, "use of the line").is_met
    report.runs.append(Run("restore", "A", "bakthat", 1.0, memory=300 * MEBIBYTE))
    assert not target(report, "peak memory").is_met


def test_a_second_core_counts_by_the_throughput(report: Report) -> None:
    for cores, wall in ((1, 3.0), (2, 2.0)):
        case = figures.core_case("C", "S3", cores)
        report.runs.append(Run("cores", case, "bakthat", wall))
    assert target(report, "throughput of a second core, C").measured == 1.5


def test_the_tables_say_where_another_format_wins(report: Report) -> None:
    text = render(report)
    assert "bakthat takes 0.50 of the time of a <slow> tool." in text
    assert "another, another format, wins here: 0.33 of bakthat's time" in text
    lines = [
        line for line in text.splitlines() if line.startswith(("bakthat  ", "a <slow>", "another"))
    ]
    names = [line.split("  ")[0] for line in lines[:3]]
    assert names == ["bakthat", "a <slow> tool", "another [apart]"]


def test_a_table_is_aligned() -> None:
    assert simple_table(("what", "s"), (("one", "12.5"), ("another", "3"))) == "\n".join(
        (
            "=======  ====",
            "what        s",
            "=======  ====",
            "one      12.5",
            "another     3",
            "=======  ====",
        )
    )


def test_the_chart_is_xml_and_its_bars_are_as_long_as_the_times(report: Report) -> None:
    root = ElementTree.fromstring(draw(report))
    bars = {
        bar.get("class"): float(bar.get("width", ""))
        for bar in root.iter("{http://www.w3.org/2000/svg}rect")
    }
    assert bars["subject"] == pytest.approx(bars["peer"] / 2, abs=0.1)
    assert bars["apart"] == pytest.approx(bars["peer"] / 6, abs=0.1)
    assert "a <slow> tool" in "".join(root.itertext())


def test_the_short_chart_has_one_set(report: Report) -> None:
    chart = draw(report, SHORT, "A")
    assert "First backup: two files, 3 MB" in chart
    assert "Restore: two files, 3 MB" in chart
    assert ", A:" not in chart
    assert chart.count('class="subject"') == 2
    assert 'class="subject"' not in draw(report, SHORT, "B")


def test_results_can_be_drawn_again(report: Report, tmp_path: Path) -> None:
    write(report, tmp_path)
    assert load(tmp_path / "results.json") == report
    (tmp_path / "results.inc").unlink()
    assert main(["--render", "--output", str(tmp_path)]) == 0
    assert (tmp_path / "results.inc").read_text() == render(report)


@pytest.fixture
def again(report: Report) -> Report:
    """Return *report* with backups of A again and again by bakthat and restic."""
    report.labels["restic"] = "restic to S3"
    for section, walls in ((UNCHANGED, (1.0, 2.0)), (CHANGED, (3.0, 4.0)), (NEWEST, (5.0, 2.5))):
        for tool, wall in zip(("bakthat", "restic"), walls, strict=True):
            report.runs.append(Run(section, "A", tool, wall, traffic=50_000, stored=20_000))
    return report


def test_backups_of_what_changed_have_targets(again: Report) -> None:
    assert target(again, "no change of A against restic to S3").is_met
    assert target(again, "1 % changed of A against restic to S3").measured == 0.75
    assert not target(again, "1 % changed of A against restic to S3").is_met
    assert target(again, "sent when nothing of A changed").measured == pytest.approx(0.05)
    again.runs += [dataclasses.replace(run, case="D", wall=run.wall / 10) for run in again.runs]
    assert target(again, "no change of D against restic to S3").measured == 0.5
    again.runs = [run for run in again.runs if run.tool != "restic"]
    assert not [each for each in figures.targets(again) if "restic" in each.what]


def test_the_page_and_the_picture_have_backups_of_what_changed(again: Report) -> None:
    again.history = 7
    text, chart = render(again), draw(again)
    titles = (
        "No change since the last backup",
        "1 % of the files changed",
        "Restore of the newest of 7 backups",
    )
    for title in titles:
        assert f".. rubric:: {title}: A" in text
        assert f"{title}, A: two files, 3 MB" in chart
    lines = [line.split() for line in text.splitlines() if line.startswith("bakthat  ")]
    assert [line[-3:-1] for line in lines[-3:]] == [["0.05", "0.02"]] * 3  # sent, stored
    assert text.count("received MB") == 2  # restores
    assert text.count("sent MB") == 3


def contents(tree: ChangingTree) -> dict[str, bytes]:
    root = tree.tree.path
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*.*")}


def test_one_file_in_a_hundred_changes_in_the_same_way_each_time(tmp_path: Path) -> None:
    original = tmp_path / "A"
    (original / "sub").mkdir(parents=True)
    for number in range(250):
        (original / "sub" / f"{number}.txt").write_bytes(bytes([number]) * 50 * number)
    tree = datasets.described("A", original)
    seen = []
    for workspace in (tmp_path / "one", tmp_path / "two"):
        workspace.mkdir()
        with changing(tree, workspace) as copy:
            before = contents(copy)
            copy.change(1)
            first = contents(copy)
            changed = {name for name in before if first[name] != before[name]}
            assert changed == {str(name) for name in copy.changed}
            assert len(changed) == 2
            copy.change(2)
            seen.append((first, contents(copy)))
            assert seen[-1][1] != first
            assert copy.described().bytes == sum(map(len, seen[-1][1].values()))
            check_changed(workspace / "changing", copy)
            copy.reset()
            assert contents(copy) == before
            copy.change(1)
            assert contents(copy) == first
        assert list(workspace.iterdir()) == []
    assert seen[0] == seen[1]
    assert tree == datasets.described("A", original)


def test_one_large_file_changes_a_little(tmp_path: Path) -> None:
    tree = datasets.make("C", tmp_path / "sets", TINY)
    with changing(tree, tmp_path) as copy:
        for number in range(2):
            before = next(iter(contents(copy).values()))
            copy.change(number)
            after = next(iter(contents(copy).values()))
            growth = len(after) - len(before)
            assert growth in (0, len(before) // 100)
            assert (growth == 0) == (number == 0)  # rewritten, and appended to
            differing = sum(a != b for a, b in zip(after, before, strict=False))
            assert differing <= len(before) // 100


def test_a_restore_of_an_older_state_is_noticed(tmp_path: Path) -> None:
    tree = datasets.make("C", tmp_path / "sets", TINY)
    with changing(tree, tmp_path) as copy:
        copy.change(1)
        for root in ("", copy.tree.path.parent.relative_to("/")):
            target = tmp_path / "restored" / root
            shutil.copytree(tree.path, target / "C")
            with pytest.raises(measuring.CommandFailedError, match="was not restored as it was"):
                check_changed(tmp_path / "restored", copy)
            shutil.rmtree(tmp_path / "restored")


def test_those_that_store_what_changed_take_part() -> None:
    able = [peer.name for peer in (BAKTHAT, *PEERS) if peer.again]
    assert able == ["bakthat", "bakthat-local", "restic", "borg", "duplicity", "kopia"]


@pytest.mark.parametrize("name", ["A", "B", "C", "D", "E"])
def test_a_set_is_the_same_each_time(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    library = tmp_path / "library"
    library.mkdir()
    for number in range(7):
        (library / f"module{number}.py").write_text(f"value = {number}\n" * 50 * number)
    found = [(library, path, path.stat().st_size) for path in sorted(library.iterdir())]
    monkeypatch.setattr(datasets, "python_library", lambda: list(found))
    made = [datasets.make(name, tmp_path / directory, TINY) for directory in ("one", "two")]
    contents = [
        {path.relative_to(tree.path): path.read_bytes() for path in tree.path.rglob("*.*")}
        for tree in made
    ]
    assert contents[0] == contents[1]
    assert sum(map(len, contents[0].values())) == made[0].bytes
    assert made[0].files == {"A": 30, "B": 4, "C": 1, "D": 505, "E": 1}[name]
    expected = {"A": made[0].bytes, "B": 12 * MEBIBYTE, "C": MEBIBYTE, "D": 505 * 100}
    expected["E"] = MEBIBYTE
    assert made[0].bytes == expected[name]
    assert len(set(contents[0].values())) >= made[0].files - 1  # module0 is empty


def test_each_tree_for_memory_holds_the_one_before(tmp_path: Path) -> None:
    trees = datasets.make_for_memory(tmp_path, TINY)
    assert [size for size, _ in trees] == [2048, 4096, 8192]
    assert [measuring.tree_bytes(path) for _, path in trees] == [2048, 4096, 8192]


def run(script: str, directory: Path) -> measuring.Measurement:
    environment = {"PATH": os.environ["PATH"]}
    log = directory / "log"
    return measuring.measure(script, environment=environment, directory=directory, log=log)


def test_all_processes_of_a_pipeline_are_measured(tmp_path: Path) -> None:
    # The first is busy only once the second holds its memory, and that one stays until it ends.
    os.mkfifo(tmp_path / "ready")
    hold = "held = bytearray(40 << 20)"
    first = f"{hold}; open('ready').read(); sum(range(20_000_000))"
    second = f"import sys; {hold}; open('ready', 'w').close(); sys.stdin.read()"
    done = run(f'python3 -c "{first}" | python3 -c "{second}"', tmp_path)
    assert done.cpu > 0.1
    assert done.wall > 0.05
    assert 80 * MEBIBYTE < done.memory < 200 * MEBIBYTE


def test_what_begins_a_session_of_its_own_is_measured(tmp_path: Path) -> None:
    held = "held = bytearray(40 << 20); sum(range(20_000_000))"
    done = run(f'setsid --wait python3 -c "{held}"', tmp_path)
    assert done.memory > 40 * MEBIBYTE


def test_a_failure_within_a_pipeline_is_one(tmp_path: Path) -> None:
    with pytest.raises(measuring.CommandFailedError, match="exit code 3: oh dear"):
        run("{ echo oh dear >&2; exit 3; } | cat", tmp_path)


def test_a_file_without_a_name_takes_disk_too(tmp_path: Path) -> None:
    before = measuring.unnamed_bytes(os.getpid())
    with tempfile.TemporaryFile(dir=tmp_path) as stream:
        stream.write(b"x" * MEBIBYTE)
        stream.flush()
        os.fsync(stream.fileno())  # else the blocks may not be given yet
        assert measuring.unnamed_bytes(os.getpid()) - before >= MEBIBYTE
    assert measuring.tree_bytes(tmp_path) == 0


def test_a_lane_lets_no_more_through_than_its_rate() -> None:
    lane = Lane(rate=1000.0)
    assert lane.book(500, now=10.0) == pytest.approx(10.5 - BURST)
    assert lane.book(500, now=10.1) == pytest.approx(11.0 - BURST)
    assert lane.book(100, now=20.0) == pytest.approx(20.1 - BURST)
    assert lane.passed == 1100


def test_a_throttled_connection_takes_as_long_as_the_line_would() -> None:
    link = Link(rate=10e6, latency=0.05)
    data = os.urandom(1_000_000)
    with socket.create_server(("127.0.0.1", 0)) as server:

        def echo() -> None:
            connection, _ = server.accept()
            with connection:
                received = bytearray()
                while piece := connection.recv(65536):
                    received += piece
                connection.sendall(received)

        thread = threading.Thread(target=echo)
        thread.start()
        with throttled(server.getsockname()[1], link) as line:
            began = time.monotonic()
            with socket.create_connection(("127.0.0.1", line.port)) as client:
                client.sendall(data)
                client.shutdown(socket.SHUT_WR)
                came = b"".join(iter(lambda: client.recv(65536), b""))
            took = time.monotonic() - began
            assert (line.up.passed, line.down.passed) == (len(data), len(data))
        thread.join()
    assert came == data
    # The handshake, then both ways one after the other.
    assert took >= 2 * len(data) / link.rate + 2 * link.latency - 2 * BURST


def test_a_tool_that_is_not_installed_is_named(tmp_path: Path) -> None:
    assert missing_tools(PEERS[1], {"PATH": str(tmp_path)}) == ["tar", "pigz", "age", "rclone"]


@pytest.mark.slow
def test_a_rehearsal_runs_every_part(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--quick", "--sets", "A", "--peers", "pigz", "--output", str(tmp_path)]
    assert main(arguments) == 0
    text = capsys.readouterr().out
    for title in (
        "Targets",
        "First backup: A",
        "Restore: A",
        "One file",
        "Backup of a stream: E",
        "No change since the last backup: A",
        "1 % of the files changed: A",
        "Restore of the newest of 4 backups: A",
        "Start-up",
        "A slow link",
    ):
        assert title in text
    assert "Memory against size" in text
    assert "bakthat.cli.app" in text  # of importtime
    found = load(tmp_path / "results.json")
    assert [run for run in found.of("first", "A", "bakthat") if run.stored and run.traffic]
    for section in SERIES:
        assert [run.wall for run in found.of(section, "A", "bakthat")]
    assert not list(Path("/dev/shm").glob(f"bakthat-{os.getpid()}"))
