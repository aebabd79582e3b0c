"""Run bakthat as a user does: as a process of its own, with or without a terminal."""

from __future__ import annotations

import json
import os
import pty
import re
import select
import shlex
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.support.screen import set_size

PROJECT = Path(__file__).parents[2]
PATIENCE = 120.0
"""Seconds that a command may take before the test fails."""

INTERRUPT = "\x03"
"""What a terminal sends when somebody presses Ctrl-C."""


def unmeasured() -> dict[str, str]:
    """Return the environment without the variables that load coverage into a process."""
    return {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE")}


@dataclass(frozen=True)
class Done:
    """A command that ended."""

    code: int
    stdout: str
    stderr: str

    def lines(self, message_type: str) -> list[dict[str, Any]]:
        """Return what ``--json`` printed: the lines of one type."""
        lines = map(json.loads, self.stdout.splitlines())
        return [line for line in lines if line.pop("message_type") == message_type]


class CommandLine:
    """A user with a home directory and a working directory, and nothing else."""

    def __init__(self, home: Path, directory: Path) -> None:
        self.home = home
        self.directory = directory
        self.prefix: tuple[str, ...] = ()
        """Words before each command without a terminal: a program that starts it elsewhere."""
        self.environment = {
            "HOME": str(home),
            "PATH": os.environ["PATH"],
            "PYTHONPATH": str(PROJECT),
            "AWS_EC2_METADATA_DISABLED": "true",
            "LANG": "C.UTF-8",
            # Where coverage is measured, the processes get its settings this way.
            **{name: value for name, value in os.environ.items() if name.startswith("COVERAGE_")},
        }

    def run(
        self, *arguments: str | Path, stdin: str = "", env: Mapping[str, str] | None = None
    ) -> Done:
        """Run ``bakthat`` with *arguments* and without a terminal."""
        return self._run(self._command(arguments), stdin, env)

    def run_measured(
        self, *arguments: str | Path, env: Mapping[str, str] | None = None
    ) -> tuple[Done, int]:
        """Run ``bakthat`` likewise; return also the most memory it held, in bytes."""
        report = self.home / "peak-memory"
        launcher = [sys.executable, str(Path(__file__).with_name("peak_memory.py")), str(report)]
        done = self._run(launcher + self._command(arguments), "", env)
        peak = int(report.read_text())
        report.unlink()
        return done, peak

    def shell(self, arguments: str) -> Done:
        """Run ``bakthat`` with *arguments* as a shell reads them."""
        line = f"{shlex.join(self._command(()))} {arguments}"
        return self._run(["bash", "-c", line], "", None)

    def run_program(self, *words: str | Path, stdin: str = "") -> Done:
        """Run another program."""
        return self._run([*map(str, words)], stdin, None)

    def start(
        self, *arguments: str | Path, env: Mapping[str, str] | None = None
    ) -> subprocess.Popen[bytes]:
        """Start ``bakthat`` with *arguments*; the caller waits for it and closes its pipes."""
        return subprocess.Popen(
            self._command(arguments),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd=self.directory,
            env={**self.environment, **(env or {})},
            start_new_session=True,  # no terminal, not even the tests' own
        )

    def _run(self, command: list[str], stdin: str, env: Mapping[str, str] | None) -> Done:
        ended = subprocess.run(
            [*self.prefix, *command],
            input=stdin.encode(),
            capture_output=True,
            cwd=self.directory,
            env={**self.environment, **(env or {})},
            start_new_session=True,  # no terminal, not even the tests' own
            timeout=PATIENCE * 5,
            check=False,
        )
        return Done(ended.returncode, ended.stdout.decode(), ended.stderr.decode())

    @staticmethod
    def _command(arguments: Sequence[str | Path]) -> list[str]:
        return [sys.executable, "-m", "bakthat", *map(str, arguments)]

    def converse(
        self,
        *arguments: str | Path,
        answers: Sequence[tuple[str, str]] = (),
        env: Mapping[str, str] | None = None,
        columns: int = 0,
    ) -> tuple[int, str]:
        """Run ``bakthat`` on a terminal; return its exit code and its output.

        *answers* are pairs: a text to wait for, and what is typed then (with its line end). The
        terminal has a size where its *columns* are given.
        """
        pid, screen = pty.fork()
        if pid == 0:
            if columns:
                set_size(0, columns, rows=50)
            os.chdir(self.directory)
            os.execve(
                sys.executable,
                self._command(arguments),
                {**self.environment, "TERM": "xterm", "NO_COLOR": "1", **(env or {})},
            )
        try:
            seen = self._talk(screen, list(answers))
        finally:
            os.close(screen)
            _, status = os.waitpid(pid, 0)
        return os.waitstatus_to_exitcode(status), seen

    @staticmethod
    def _talk(screen: int, answers: list[tuple[str, str]]) -> str:
        seen, searched = "", 0
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            if select.select([screen], [], [], 1)[0]:
                try:
                    piece = os.read(screen, 65536)
                except OSError:  # the other end is closed
                    return seen
                if not piece:
                    return seen
                seen += piece.decode(errors="replace")
            while answers and (found := seen.find(answers[0][0], searched)) >= 0:
                searched = found + len(answers[0][0])
                os.write(screen, os.fsencode(answers.pop(0)[1]))
        raise AssertionError(f"no end in sight; the screen says:\n{seen}")


def stored_names(text: str) -> list[str]:
    """Return the stored filenames that *text* mentions."""
    return re.findall(r"\S+\.\d{14}\S*", text)


def untimed(text: str) -> str:
    """Return *text* without the seconds in summaries."""
    return re.sub(r", \d+\.\d s(?=$|,)", "", text, flags=re.MULTILINE)
