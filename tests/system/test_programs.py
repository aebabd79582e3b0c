"""Programs run, their end is known, and nothing of them is left, however this process ends."""

from __future__ import annotations

import contextlib
import errno
import gc
import logging
import os
import select
import shlex
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from bakthat.system.programs import (
    SECRET_FILE,
    Ended,
    Program,
    RunningProgram,
    _supervisor,
    find_program,
    program,
    run_program,
    running,
    shell_program,
)
from bakthat.system.signals import held_back
from tests.docs.layers import imports_of

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("no_thread_stays")]

on_linux = pytest.mark.skipif(sys.platform != "linux", reason="reads Linux's /proc")


@pytest.fixture(autouse=True)
def nothing_stays() -> Iterator[None]:
    """No child, ended or not, and no open descriptor is left of a test."""
    gc.collect()  # garbage of other tests would be closed meanwhile
    before = children(), open_descriptors()
    yield
    assert children() <= before[0]
    assert open_descriptors() == before[1]


def children() -> set[int]:
    found = set()
    for entry in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):  # it has just gone
            if int(entry.read_text().rpartition(")")[2].split()[1]) == os.getpid():
                found.add(int(entry.parent.name))
    return found


def open_descriptors() -> int:
    return len(os.listdir("/dev/fd"))


class Witness:
    """A FIFO that processes hold open, so that its end is the end of the last of them."""

    def __init__(self, path: Path) -> None:
        os.mkfifo(path)
        self._descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
        self.begin = f"exec 9>{shlex.quote(str(path))}; echo begun >&9; "
        """Shell commands that let the shell, and all that it starts, hold the FIFO open."""

    def wait_for_begin(self) -> None:
        poll = select.poll()
        poll.register(self._descriptor, select.POLLIN)
        poll.poll()
        os.set_blocking(self._descriptor, True)
        assert os.read(self._descriptor, 100) == b"begun\n"

    def wait_for_end(self) -> None:
        assert os.read(self._descriptor, 100) == b""

    def close(self) -> None:
        os.close(self._descriptor)


@pytest.fixture
def witness(nothing_stays: None, tmp_path: Path) -> Iterator[Witness]:
    witness = Witness(tmp_path / "witness")
    yield witness
    witness.close()


@pytest.fixture
def short_grace(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(running, "GRACE", 0.2)


def write_for_ever(consumer: RunningProgram) -> None:
    while True:
        consumer.stdin.write(bytes(1 << 20))


def result_of(line: str, timeout: float | None = 60) -> Ended:
    return run_program(shell_program(line), timeout=timeout)[0]


def test_a_wait_says_what_a_signal_before_it_waits_for(caplog: pytest.LogCaptureFixture) -> None:
    def work() -> None:
        with held_back("finishing it"):
            with held_back("starting it"):
                signal.raise_signal(signal.SIGINT)
            with RunningProgram(shell_program("true")) as started:
                assert started.wait().succeeded

    with pytest.raises(KeyboardInterrupt):
        work()
    assert [each.partition(";")[0] for each in caplog.messages] == ["starting it", "finishing it"]


# How it ended


@pytest.mark.parametrize(("code", "more"), [(0, ""), (3, ""), (137, " (of a shell: SIGKILL)")])
def test_an_exit_code_is_known(code: int, more: str) -> None:
    ended = result_of(f"exit {code}")
    assert (ended.exit_code, ended.signal, ended.timed_out) == (code, None, False)
    assert ended.succeeded == (code == 0)
    assert ended.how() == f"ended with exit code {code}{more}"
    assert 0 < ended.seconds < 60


def test_a_line_of_standard_error_that_a_tab_indents_is_indented_by_spaces() -> None:
    ended = result_of("printf 'no server\\n\\tIs it running?\\tOr not?\\n' >&2; exit 1")
    assert ended.stderr == "no server\n    Is it running?\\tOr not?"
    assert ended.problem() == "ended with exit code 1: no server; Is it running?\\tOr not?"


def test_a_line_that_names_its_program_is_logged_as_it_is(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, "bakthat.programs")
    line = "echo 'pg_dump: error: no' >&2; echo 'detail: yes' >&2"
    with RunningProgram(Program("pg_dump", ("/bin/sh", "-c", line))) as program:
        assert program.wait().succeeded
    assert caplog.messages == ["pg_dump: error: no", "pg_dump: detail: yes"]


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGSEGV])
def test_a_signal_is_known(number: signal.Signals) -> None:
    ended = result_of(f"ulimit -c 0; kill -{int(number)} $$")
    assert (ended.exit_code, ended.signal, ended.timed_out) == (None, number, False)
    assert not ended.succeeded
    assert ended.how() == f"was ended by signal {number.name}"


@pytest.mark.parametrize(
    ("ended", "expected"),
    [
        (Ended(None, 15, True, 7200, ""), "did not end within 2 hours"),
        (Ended(0, None, True, 60, ""), "did not end within 1 minute"),
        (Ended(None, 15, True, 90, ""), "did not end within 90 seconds"),
        (Ended(None, 15, True, 0.5, ""), "did not end within 0.5 seconds"),
        (Ended(None, 99, False, 1, ""), "was ended by signal 99"),
        (Ended(141, None, False, 1, ""), "ended with exit code 141 (of a shell: SIGPIPE)"),
        (Ended(2, None, False, 1, "\na\n\n b\n"), "ended with exit code 2: a; b"),
        (Ended(2, None, False, 1, "1\n2\n3\n4\n5\n6"), "ended with exit code 2: 2; 3; 4; 5; 6"),
        (Ended(2, None, False, 1, "x" * 999), f"ended with exit code 2: …{'x' * 500}"),
    ],
)
def test_a_problem_is_one_line(ended: Ended, expected: str) -> None:
    assert ended.problem() == expected
    assert not ended.succeeded


def test_a_pipe_fails_when_any_of_its_programs_fails() -> None:
    assert result_of("false | cat").exit_code == 1
    assert result_of("set +o pipefail; false | cat").exit_code == 0


@pytest.fixture
def no_bash(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    monkeypatch.setenv("PATH", str(tmp_path))
    program._shell.cache_clear()
    yield
    program._shell.cache_clear()


@pytest.mark.usefixtures("no_bash")
def test_a_pipe_whose_failures_are_not_noticed_is_a_warning(
    caplog: pytest.LogCaptureFixture,
) -> None:
    silent = shell_program("true || secret")
    assert caplog.text == ""
    line = "echo secret | cat"
    warned = shell_program(line)
    if "pipefail" in warned.arguments:
        assert caplog.text == ""
    else:
        assert "no shell here has pipefail" in caplog.text
        assert "secret" not in caplog.text
        assert warned.arguments == ("/bin/sh", "-c", line)
        assert silent.arguments[0] == "/bin/sh"


def test_a_program_that_is_not_found_cannot_be_started(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError) as raised:
        RunningProgram(Program("none", ("no-such-program",)), stdin=True, stdout=True)
    assert (raised.value.errno, raised.value.filename) == (errno.ENOENT, "no-such-program")
    plain = tmp_path / "plain"
    plain.write_text("no program")
    with pytest.raises(PermissionError):
        run_program(Program("plain", (str(plain),)))
    plain.chmod(0o755)
    with pytest.raises(OSError, match="Exec format error"):
        run_program(Program("plain", (str(plain),)))
    with pytest.raises(OSError, match="NUL character"):
        run_program(Program("the command", ("echo", "a\0b")))
    with pytest.raises(OSError, match="NUL character"):
        run_program(Program("echo", ("echo",), {"NAME": "a\0b"}))
    assert find_program("no-such-program", "cat", "sh") == "cat"
    assert find_program("no-such-program") is None


# Its standard error


def test_lines_of_the_standard_error_are_logged_and_the_end_is_kept(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, "bakthat.programs")
    line = r"printf 'one\n\ntw\303\266 \377\033[1m\nrest' >&2"
    with RunningProgram(shell_program(line)) as program:
        ended = program.wait()
    assert caplog.messages == [
        "the command: one",
        "the command: twö \ufffd\\x1b[1m",
        "the command: rest",
    ]
    assert ended.stderr == "one\n\ntwö \ufffd\\x1b[1m\nrest"


def test_the_standard_error_of_a_query_is_for_its_caller(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "bakthat.programs")
    assert result_of("echo why >&2; exit 3").stderr == "why"
    assert caplog.messages == []


def test_the_standard_output_of_a_consumer_is_treated_as_its_standard_error() -> None:
    with RunningProgram(shell_program("echo out; echo err >&2")) as consumer:
        assert consumer.wait().stderr == "out\nerr"


@pytest.mark.parametrize("lines", ["", "| fold -w 99"], ids=["one line", "lines"])
@pytest.mark.parametrize("level", ["INFO", "WARNING"])
def test_any_amount_of_standard_error_takes_little_memory(
    lines: str, level: str, tmp_path: Path
) -> None:
    script = (
        "import logging, sys\n"
        "from bakthat.system.programs import run_program, shell_program\n"
        "log = logging.getLogger('bakthat.programs')\n"
        f"log.setLevel('{level}')\n"
        "log.addHandler(logging.NullHandler())\n"
        "log.propagate = False\n"
        "ended, _ = run_program(shell_program(sys.argv[1]))\n"
        "assert ended.succeeded\n"
        "print(len(ended.stderr) <= 2048, ended.stderr.endswith('end'))\n"
    )
    line = f"head -c 100000000 /dev/zero | tr '\\0' x {lines} >&2; printf '\\nend' >&2"
    measure = Path(__file__).parents[1] / "support" / "peak_memory.py"
    peak = tmp_path / "peak"
    done = subprocess.run(
        [sys.executable, measure, peak, sys.executable, "-c", script, line],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    assert done.stdout == "True True\n"
    assert int(peak.read_text()) < 60_000_000


# Its input and output


def test_a_small_input_is_read_whole_before_or_after_the_output_is_written() -> None:
    data = bytes(range(256)) * 10_000
    ended, output = run_program(Program("cat", ("cat",)), input=data)
    assert ended.succeeded
    assert output == data
    assert run_program(Program("true", ("true",)), input=data)[0].succeeded
    assert run_program(Program("cat", ("cat",)))[1] == b""


def test_an_output_that_is_too_large_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(running, "MAX_OUTPUT", 1_000_000)
    with pytest.raises(OSError, match=r"it writes more than 1\.0 MB"):
        run_program(Program("yes", ("yes",)))


def test_what_is_written_arrives_and_what_arrives_is_read(tmp_path: Path) -> None:
    data = bytes(range(256)) * 4096
    copy = shlex.quote(str(tmp_path / "copy"))
    with RunningProgram(shell_program(f"cat > {copy}"), stdin=True) as consumer:
        for _ in range(20):
            consumer.stdin.write(memoryview(data))
        consumer.stdin.close()
        consumer.stdin.close()
        assert consumer.wait().succeeded
    received = bytearray()
    buffer = bytearray(len(data))
    with RunningProgram(shell_program(f"cat {copy}"), stdout=True) as producer:
        while size := producer.stdout.readinto(buffer):
            received += buffer[:size]
        assert producer.stdout.read(1) == b""
        assert producer.wait().succeeded
    assert received == data * 20


def test_a_program_that_stops_reading_breaks_the_pipe_and_may_succeed() -> None:
    with RunningProgram(shell_program("head -c 1 > /dev/null"), stdin=True) as consumer:
        with pytest.raises(BrokenPipeError):
            write_for_ever(consumer)
        consumer.stdin.close()
        assert consumer.wait().succeeded


def test_who_is_blocked_by_a_full_pipe_hears_of_the_time_limit(witness: Witness) -> None:
    line = witness.begin + "sleep 1000"
    with RunningProgram(shell_program(line), stdin=True, timeout=0.5) as consumer:
        with pytest.raises(BrokenPipeError):
            write_for_ever(consumer)
        assert consumer.wait().how() == "did not end within 0.5 seconds"
        witness.wait_for_begin()
        witness.wait_for_end()


# The environment


@on_linux
def test_a_secret_is_in_a_file_that_only_the_program_can_read() -> None:
    line = (
        'cat "$1" "$1"; echo; cat "$VARIABLE"; echo; stat -Lc %a "$1"; '
        "cat /proc/$$/cmdline /proc/$$/environ /proc/$PPID/cmdline /proc/$PPID/environ"
    )
    secret = Program(
        "the command",
        ("sh", "-c", line, "sh", SECRET_FILE),
        {"VARIABLE": SECRET_FILE},
        secret="pass wörd",
    )
    ended, output = run_program(secret)
    twice, once, mode, rest = output.decode().split("\n", 3)
    assert (twice, once, mode) == ("pass wördpass wörd", "pass wörd", "600")
    assert "/dev/fd/" in rest
    assert "wörd" not in rest
    assert "wörd" not in repr(secret)
    assert ended.succeeded
    assert run_program(Program("echo", ("echo", SECRET_FILE)))[1].decode() == f"{SECRET_FILE}\n"


def test_the_environment_is_this_one_without_passwords(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BAKTHAT_PASSWORD", "secret")
    monkeypatch.setenv("BAKTHAT_DATABASE_PASSWORD", "secret")
    monkeypatch.setenv("KEPT", "a")
    monkeypatch.setenv("CHANGED", "b")
    _, output = run_program(Program("env", ("env",), {"CHANGED": "c", "ADDED": "d"}))
    lines = output.decode().splitlines()
    assert {"KEPT=a", "CHANGED=c", "ADDED=d"} <= set(lines)
    assert "secret" not in output.decode()


@on_linux
def test_a_program_gets_no_other_descriptor() -> None:
    readable, writable = os.pipe()
    try:
        ls = Program("ls", ("ls", "/proc/self/fd"))
        with RunningProgram(ls, stdin=True, stdout=True) as producer:
            assert producer.stdout.read(100) == b"0\n1\n2\n3\n"  # the last one is of ls itself
            assert producer.wait().succeeded
    finally:
        os.close(readable)
        os.close(writable)


@on_linux
def test_a_program_starts_with_default_signals_and_in_a_session_of_its_own() -> None:
    script = (
        "import signal\n"
        "from bakthat.system.programs import Program, run_program\n"
        "signal.signal(signal.SIGCHLD, signal.SIG_IGN)\n"
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])\n"
        "grep = Program('grep', ('grep', '-E', 'Sig(Blk|Ign)', '/proc/self/status'))\n"
        "print(run_program(grep)[1].decode())\n"
    )
    done = subprocess.run([sys.executable, "-c", script], stdout=subprocess.PIPE, check=True)
    blocked, ignored = (int(each, 16) for each in done.stdout.split()[1::2])
    assert blocked == 0
    # Others may be ignored by whoever runs the tests, as SIGQUIT is in a background job.
    assert ignored & sum(1 << (each - 1) for each in (signal.SIGCHLD, signal.SIGTERM)) == 0
    session = int(run_program(Program("cut", ("cut", "-d ", "-f6", "/proc/self/stat")))[1])
    assert session != os.getsid(0)


def test_a_program_that_ignores_sigchld_hears_of_a_failure_in_any_thread() -> None:
    before = signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    try:
        assert result_of("exit 3").exit_code == 3
        with ThreadPoolExecutor(1) as pool:
            assert pool.submit(result_of, "exit 4").result().exit_code == 4
            assert pool.submit(result_of, "false | cat").result().exit_code == 1
    finally:
        signal.signal(signal.SIGCHLD, before)


def test_several_threads_run_programs_at_once() -> None:
    with ThreadPoolExecutor(8) as pool:
        codes = [each.exit_code for each in pool.map(result_of, [f"exit {n}" for n in range(24)])]
    assert codes == list(range(24))


def test_closed_standard_descriptors_are_no_hindrance(tmp_path: Path) -> None:
    script = (
        "import os, sys\n"
        "os.closerange(0, 3)\n"
        "from bakthat.system.programs import Program, RunningProgram\n"
        "cat = Program('cat', ('cat', '{secret-file}', '-'), secret='secret ')\n"
        "with RunningProgram(cat, stdin=True, stdout=True) as running:\n"
        "    running.stdin.write(b'input')\n"
        "    running.stdin.close()\n"
        "    output = running.stdout.read(100) + running.stdout.read(100)\n"
        "    ended = running.wait()\n"
        "    text = f'{ended.exit_code} {ended.stderr} {output.decode()}'\n"
        "with open(sys.argv[1], 'w') as file:\n"
        "    file.write(text)\n"
    )
    result = tmp_path / "result"
    subprocess.run([sys.executable, "-c", script, result], check=False)
    assert result.read_text() == "0  secret input"


# The end of what is left


def test_what_a_program_has_started_ends_with_it(witness: Witness) -> None:
    line = witness.begin + "sleep 1000 >/dev/null & echo done"
    with RunningProgram(shell_program(line), stdout=True) as producer:
        assert producer.stdout.read(100) == b"done\n"
        assert producer.stdout.read(100) == b""
        ended = producer.wait()
        assert ended.succeeded
        witness.wait_for_begin()
    witness.wait_for_end()
    assert producer.wait() == ended


def test_the_output_goes_on_while_anything_holds_it(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "go")
    go = shlex.quote(str(tmp_path / "go"))
    line = f"(cat {go}; echo late) & echo early"
    with RunningProgram(shell_program(line), stdout=True, timeout=60) as producer:
        assert producer.stdout.read(100) == b"early\n"
        assert producer.wait().succeeded
        (tmp_path / "go").write_bytes(b"go ")
        output = b"".join(iter(lambda: producer.stdout.read(100), b""))
        assert output == b"go late\n"
        assert producer.wait().succeeded


@pytest.mark.parametrize(
    ("line", "how"),
    [
        ("sleep 1000 & kill $$", "was ended by signal SIGTERM"),
        ("sleep 1000 & exit 3", "ended with exit code 3"),
        ("cat /dev/zero & exit 3", "ended with exit code 3"),
    ],
)
def test_a_failure_ends_all_that_hold_the_output(line: str, how: str, witness: Witness) -> None:
    with RunningProgram(shell_program(witness.begin + line), stdout=True, timeout=60) as producer:
        while producer.stdout.read(1 << 16):
            pass
        ended = producer.wait()
    assert ended.how() == how
    witness.wait_for_begin()
    witness.wait_for_end()


def test_a_failure_ends_all_that_hold_the_input(witness: Witness) -> None:
    line = f"{witness.begin} sleep 1000 <&0 & exit 3"
    with RunningProgram(shell_program(line), stdin=True, timeout=60) as consumer:
        with pytest.raises(BrokenPipeError):
            write_for_ever(consumer)
        assert consumer.wait().how() == "ended with exit code 3"
        witness.wait_for_begin()
        witness.wait_for_end()


def starting_daemon(fifo: Path) -> str:
    """Return shell commands that start a process in a session of its own, and set ``pid``.

    It holds what the shell holds, also its standard input.
    """
    os.mkfifo(fifo)
    leave = f"import os; os.setsid(); print(os.getpid(), file=open({str(fifo)!r}, 'w')); "
    leave += "os.execvp('sleep', ['sleep', '1000'])"
    program = f"{shlex.quote(sys.executable)} -c {shlex.quote(leave)}"
    return f"{program} <&0 & read pid <{shlex.quote(str(fifo))};"


def test_a_failure_ends_the_input_that_another_group_holds(
    witness: Witness, tmp_path: Path
) -> None:
    line = f"{witness.begin} {starting_daemon(tmp_path / 'left')} echo $pid >&2; exit 3"
    with RunningProgram(shell_program(line), stdin=True, timeout=60) as consumer:
        with pytest.raises(BrokenPipeError):
            write_for_ever(consumer)
        ended = consumer.wait()
        assert ended.how() == "ended with exit code 3"
        os.kill(int(ended.stderr), signal.SIGKILL)
    witness.wait_for_begin()
    witness.wait_for_end()


@pytest.mark.parametrize("line", ["sleep 1000 | cat", "sleep 1000 & echo x"])
def test_the_time_limit_ends_all_that_hold_the_output(line: str, witness: Witness) -> None:
    ended = result_of(witness.begin + line, timeout=0.5)
    assert ended.timed_out
    assert not ended.succeeded
    assert ended.how() == "did not end within 0.5 seconds"
    witness.wait_for_begin()
    witness.wait_for_end()


def test_the_time_limit_ends_the_output_that_another_group_holds(witness: Witness) -> None:
    """Such as a daemon that makes a session of its own."""
    leave = f"{shlex.quote(sys.executable)} -c 'import os; os.setsid(); os.execvp(*ARGS)'"
    leave = leave.replace("ARGS", '("sleep", ["sleep", "1000"])')
    line = f"{witness.begin} {leave} & echo $!"
    with RunningProgram(shell_program(line), stdout=True, timeout=1) as producer:
        daemon = int(producer.stdout.read(100))
        try:
            assert producer.stdout.read(100) == b""
            assert producer.wait().timed_out
        finally:
            os.kill(daemon, signal.SIGKILL)
    witness.wait_for_begin()
    witness.wait_for_end()


def test_the_last_line_is_logged_though_another_group_holds_the_standard_error(
    witness: Witness, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    daemon = starting_daemon(tmp_path / "left")
    line = f"{witness.begin} {daemon} echo $pid; printf partial >&2; exit 3"
    with (
        caplog.at_level(logging.INFO, "bakthat.programs"),
        RunningProgram(shell_program(line), stdout=True, timeout=60) as producer,
    ):
        left = int(producer.stdout.read(100))
        try:
            assert producer.stdout.read(100) == b""
            assert producer.wait().stderr == "partial"
        finally:
            os.kill(left, signal.SIGKILL)
    assert caplog.messages == ["the command: partial"]
    witness.wait_for_begin()
    witness.wait_for_end()


def test_the_time_limit_ends_a_program_whose_output_nobody_reads(witness: Witness) -> None:
    with RunningProgram(shell_program(witness.begin + "yes"), stdout=True, timeout=0.5) as producer:
        witness.wait_for_begin()
        witness.wait_for_end()
        while producer.stdout.read(1 << 20):
            pass
        assert producer.wait().timed_out


def test_an_output_that_was_whole_in_time_may_be_read_later() -> None:
    with RunningProgram(shell_program("printf %060000d 1"), stdout=True, timeout=0.5) as producer:
        assert producer.wait().succeeded
        (watcher,) = (each for each in threading.enumerate() if each.name.startswith("bakthat-"))
        watcher.join()  # the time limit has passed
        assert len(producer.stdout.read(100_000)) == 60_000
        assert producer.stdout.read(1) == b""
        assert producer.wait().succeeded


@pytest.mark.usefixtures("short_grace")
@pytest.mark.parametrize(
    "line",
    [
        "trap '' TERM; BEGIN sleep 1000",
        "trap : TERM; BEGIN while :; do sleep 1000; done",
        "BEGIN kill -STOP $$",
    ],
)
def test_nothing_is_left_after_close(line: str, witness: Witness) -> None:
    line = line.replace("BEGIN", witness.begin)
    with RunningProgram(shell_program(line), stdin=True, stdout=True) as both:
        witness.wait_for_begin()
    witness.wait_for_end()
    assert both.wait().signal in (signal.SIGTERM, signal.SIGKILL)
    both.close()


def test_a_program_that_was_killed_has_failed_whatever_it_does() -> None:
    line = "trap 'exit 0' TERM; echo begun; while :; do sleep 0.01; done"
    with RunningProgram(shell_program(line), stdout=True) as producer:
        assert producer.stdout.read(100) == b"begun\n"
        with ThreadPoolExecutor(1) as pool:
            pool.submit(producer.kill).result()
        assert producer.stdout.read(100) == b""
        ended = producer.wait()
        assert not ended.succeeded
        assert ended.how() == "was ended by signal SIGTERM"


def test_a_result_is_known_after_close_too() -> None:
    with RunningProgram(shell_program("echo x"), stdout=True) as producer:
        assert producer.stdout.read(100) == b"x\n"
        assert producer.stdout.read(100) == b""
        before = producer.wait()
    assert producer.wait() == before
    assert before.succeeded


def test_an_interrupt_ends_all(witness: Witness) -> None:
    def read() -> None:
        with RunningProgram(shell_program(witness.begin + "sleep 1000 | cat"), stdout=True) as it:
            witness.wait_for_begin()
            signal.raise_signal(signal.SIGINT)
            it.stdout.read(1)

    with pytest.raises(KeyboardInterrupt):
        read()
    witness.wait_for_end()


IMPATIENT = """
import os, signal, sys
from bakthat.system import signals
from bakthat.system.programs import RunningProgram, running, shell_program
signals.REPEAT_SECONDS = 0
running.GRACE = 3
line = f"trap 'kill -INT {os.getpid()}' TERM; {sys.argv[1]} echo $$; while :; do sleep 0.1; done"
try:
    with RunningProgram(shell_program(line), stdout=True) as program:
        shell = int(program.stdout.read(100))
        signal.raise_signal(signal.SIGINT)
except KeyboardInterrupt:
    os.kill(shell, 0)
    print("still running", flush=True)
    os._exit(0)
"""


def test_a_second_interrupt_ends_the_wait_and_the_program_ends_nevertheless(
    witness: Witness,
) -> None:
    command = [sys.executable, "-c", IMPATIENT, witness.begin]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True)
    assert done.stdout == b"still running\n"
    witness.wait_for_begin()
    witness.wait_for_end()


# The end of bakthat, or of the supervisor

PARENT = """
import signal, sys
from bakthat.system.programs import RunningProgram, running, shell_program
running.GRACE = float(sys.argv[2])
program = RunningProgram(shell_program(sys.argv[1]), stdin=True, stdout=True)
program.stdin.write(b"begin of the input")
signal.pause()
"""


def kill_parent_of(line: str, witness: Witness, grace: float) -> float:
    """Return how many seconds after the death of bakthat the whole group was gone."""
    with subprocess.Popen([sys.executable, "-c", PARENT, line, str(grace)]) as parent:
        witness.wait_for_begin()
        parent.kill()
        parent.wait()
        killed = time.monotonic()
        witness.wait_for_end()
    return time.monotonic() - killed


@pytest.mark.parametrize(
    "line", ["sleep 1000", "sleep 1000 | cat", "sleep 1000 & sleep 1000 & wait"]
)
def test_a_program_does_not_outlive_a_bakthat_that_is_killed(line: str, witness: Witness) -> None:
    assert kill_parent_of(witness.begin + line, witness, grace=60) < 30


def test_a_program_that_ignores_sigterm_does_not_either(witness: Witness) -> None:
    assert (
        kill_parent_of(f"trap '' TERM; {witness.begin} sleep 1000 | cat", witness, grace=0.5) >= 0.5
    )


def test_an_input_that_was_cut_never_looks_complete(witness: Witness, tmp_path: Path) -> None:
    complete = tmp_path / "complete"
    line = f"trap '' TERM; {witness.begin} cat > /dev/null; touch {shlex.quote(str(complete))}"
    kill_parent_of(line, witness, grace=0.5)
    assert not complete.exists()


@pytest.mark.parametrize("line", ["echo $PPID; exec cat", "echo $PPID; sleep 1000 & exit 0"])
def test_a_supervisor_that_is_killed_is_a_failure(line: str, witness: Witness) -> None:
    shell = shell_program(witness.begin + line)
    with RunningProgram(shell, stdin=True, stdout=True, timeout=60) as both:
        supervisor = int(both.stdout.read(100))
        witness.wait_for_begin()
        os.kill(supervisor, signal.SIGTERM)  # which does nothing
        os.kill(supervisor, signal.SIGKILL)
        assert both.stdout.read(100) == b""
        witness.wait_for_end()
        ended = both.wait()
        assert (ended.exit_code, ended.signal, ended.timed_out) == (None, None, False)
        assert not ended.succeeded
        assert ended.how() == "ended in an unknown way: the process that watched it was killed"


def test_a_supervisor_that_is_stopped_is_killed(
    witness: Witness, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(running, "_END_SECONDS", 0.2)
    line = witness.begin + "echo $PPID; exec sleep 1000"
    with RunningProgram(shell_program(line), stdout=True) as producer:
        supervisor = int(producer.stdout.read(100))
        witness.wait_for_begin()
        os.kill(supervisor, signal.SIGSTOP)
    witness.wait_for_end()
    assert not producer.wait().succeeded


@on_linux
def test_a_process_that_only_waits_for_its_parent_does_not_run() -> None:
    """In a container, the first process may wait for none of those that it inherits."""
    process = os.posix_spawnp("true", ["true"], os.environ, setpgroup=0)
    os.waitid(os.P_PID, process, os.WEXITED | os.WNOWAIT)
    os.killpg(process, 0)
    assert not _supervisor.is_running(process)
    os.waitpid(process, 0)
    assert _supervisor.is_running(os.getpgrp())


def test_the_supervisor_is_of_the_standard_library_alone() -> None:
    """Python starts it without all else, and it must start fast."""
    source = Path(_supervisor.__file__).read_text()
    imported = {name.split(".")[0] for name in imports_of(source)}
    assert imported <= {"__future__", *sys.stdlib_module_names}
    assert not imported & {"subprocess", "socket", "json", "logging", "typing", "threading"}
