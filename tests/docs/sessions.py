"""The sessions of the documentation: typed as a reader types them, and compared with the page.

A console block has commands after ``$`` and, below each, what it prints. A block with a path as its
caption is that file. A line ``…`` of a page stands for any lines, and ``…`` in a line for any text.
What is different each time, such as dates, durations and compressed sizes, is not compared; a name
with a date that was printed is put into the commands that follow. A command that fails is followed
by ``echo $?``.
"""

from __future__ import annotations

import os
import pty
import re
import select
import shlex
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tests.support.commandline import PATIENCE, PROJECT, CommandLine

DOCS = PROJECT / "docs"
README = PROJECT / "README.rst"
DATE = re.compile(r"(?<!\d)\d{14}(?!\d)")
"""The date in a stored filename."""


@dataclass(frozen=True)
class Block:
    """An example of a page; *line* is the number of its first line there."""

    language: str
    """That of its directive, or nothing for a literal block."""
    caption: str
    line: int
    text: str
    is_interactive: bool = False
    """Whether somebody answers on a terminal: the page shows the answers behind the questions."""


def blocks_of(page: Path, section: str = "") -> list[Block]:
    """Return the blocks of *page*, or of its section with that heading."""
    found, lines = [], page.read_text().splitlines()
    first, last = _lines_of_section(lines, section) if section else (0, len(lines))
    number = first
    while number < last:
        line = lines[number]
        number += 1
        directive = re.fullmatch(r"( *)\.\. code-block:: (\w+)", line)
        is_literal = line.endswith("::") and not line.lstrip().startswith("..")
        if not directive and not is_literal:
            continue
        margin = len(line) - len(line.lstrip())
        end = next(
            (n for n in range(number, last) if lines[n].strip() and _margin(lines[n]) <= margin),
            last,
        )
        options = []
        while number < end and directive and re.match(r" +:[\w-]+:", lines[number]):
            options.append(lines[number].strip())
            number += 1
        while number < end and not lines[number].strip():
            number += 1
        text = textwrap.dedent("\n".join(lines[number:end])).strip("\n") + "\n"
        caption = "".join(re.findall(r":caption: (.+)", "\n".join(options)))
        language = directive[2] if directive else ""
        is_interactive = ":class: interactive" in options
        found.append(Block(language, caption, number + 1, text, is_interactive))
        number = end
    return found


def sessions_of(page: Path, section: str = "") -> list[Block]:
    """Return the blocks of *page*, or of its section, that show commands and what they print."""
    return [block for block in blocks_of(page, section) if block.text.startswith("$ ")]


def _margin(line: str) -> int:
    return len(line) - len(line.lstrip())


def _lines_of_section(lines: list[str], heading: str) -> tuple[int, int]:
    """Return where the section begins and where the next one of its level does."""
    start = lines.index(heading)
    rule = lines[start + 1][0]
    assert set(lines[start + 1]) == {rule}, f"{heading} is no heading"
    end = next(
        (
            number - 1
            for number in range(start + 2, len(lines))
            if lines[number] and set(lines[number]) == {rule} and len(lines[number]) > 3
        ),
        len(lines),
    )
    return start + 2, end


@dataclass(frozen=True)
class Command:
    """A command of a session, the lines that it prints, and its line on the page."""

    text: str
    output: list[str]
    line: int


def commands_of(block: Block) -> list[Command]:
    """Return the commands of a session; one may go on after a backslash, or in a here-document."""
    found: list[Command] = []
    lines = block.text.splitlines()
    number = 0
    while number < len(lines):
        line = lines[number]
        number += 1
        if not line.startswith("$ "):
            assert found, f"line {block.line}: the session begins with no command"
            found[-1].output.append(line)
            continue
        typed = [line[2:]]
        here = re.search(r"<<-? ?'?(\w+)'?", line)
        while typed[-1].endswith("\\") or (here and typed[-1] != here[1]):
            typed.append(lines[number])
            number += 1
        found.append(Command("\n".join(typed), [], block.line + number - len(typed)))
    return found


Handler = Callable[["Reader", str], None]
"""Checks a command that cannot run here in another way."""


@dataclass
class Reader:
    """Somebody who types the sessions of a page, one after the other, in one shell.

    *places* are texts of the page and what stands for them here, such as the endpoint of a storage.
    The page's home directory is ``/home/you``. *secrets* are questions whose answers no terminal
    shows, and these answers. *otherwise* has, by the beginning of a command, what checks it instead
    of running it.
    """

    user: CommandLine
    places: dict[str, str] = field(default_factory=dict)
    secrets: dict[str, str] = field(default_factory=dict)
    otherwise: Mapping[str, Handler] = field(default_factory=dict)
    dates: dict[str, str] = field(default_factory=dict)
    """The dates in the names of the page, and those in the names that were stored here."""

    def __post_init__(self) -> None:
        self._state = self.user.home / ".session"
        self._state.mkdir()
        self._directory = self._state / "directory"
        self._directory.write_text(str(self.user.directory))
        self._variables = self._state / "variables"
        self._variables.write_text("")
        self._status = 0
        programs = self.user.home / "bin"
        programs.mkdir(exist_ok=True)
        python = shlex.quote(sys.executable)
        for name, arguments in {"bakthat": " -m bakthat", "python3": ""}.items():
            program = programs / name
            program.write_text(f'#!/bin/sh\nexec {python}{arguments} "$@"\n')
            program.chmod(0o755)
        self._environment = {
            **self.user.environment,
            "PATH": f"{programs}:{self.user.environment['PATH']}",
        }
        self.places["/home/you"] = str(self.user.home)

    def here(self, text: str) -> str:
        """Return a text of the page with what stands here for its places and dates."""
        for place in sorted(self.places, key=len, reverse=True):
            text = re.sub(rf"(?<![\w.]){re.escape(place)}(?![\w])", self.places[place], text)
        return DATE.sub(lambda found: self.dates.get(found[0], found[0]), text)

    def on_page(self, text: str) -> str:
        """Return what was printed with the places of the page."""
        for place in sorted(self.places, key=lambda each: len(self.places[each]), reverse=True):
            text = text.replace(self.places[place], place)
        return text

    def path(self, place: str) -> Path:
        """Return the file that a caption names."""
        if place.startswith("~/"):
            return self.user.home / place[2:]
        return Path(self._directory.read_text(), self.here(place))

    def follow(self, blocks: Iterable[Block]) -> None:
        """Type the sessions of *blocks*, and write their files, from top to bottom."""
        for block in blocks:
            if block.language in ("console", ""):
                self.type(block)
            elif block.caption:
                file = self.path(block.caption)
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_text(self.here(block.text))

    def type(self, block: Block) -> None:
        """Type a session, and compare what it prints."""
        commands = commands_of(block)
        for command, following in zip(commands, [*commands[1:], None], strict=True):
            handler = next(
                (check for name, check in self.otherwise.items() if command.text.startswith(name)),
                None,
            )
            if handler is not None:
                handler(self, self.here(command.text))
                continue
            printed = self._run(self.here(command.text), command.output, block.is_interactive)
            lines = self.on_page(printed).splitlines()
            where = f"line {command.line}: {command.text}"
            self._compare(command.output, lines, where)
            shows_status = following is not None and following.text == "echo $?"
            assert self._status == 0 or shows_status, (
                f"{where}: exit code {self._status}\n{printed}"
            )

    def _run(self, command: str, expected: list[str], is_interactive: bool) -> str:
        script = (
            f'cd "$(cat {shlex.quote(str(self._directory))})" && '
            f". {shlex.quote(str(self._variables))} && set -a && (exit {self._status})\n"
            f"{command}\n"
            f"status=$?; pwd > {shlex.quote(str(self._directory))}; "
            f"export -p > {shlex.quote(str(self._variables))}; exit $status"
        )
        if is_interactive:
            return self._run_on_terminal(script, expected)
        done = subprocess.run(
            ["bash", "-c", f"exec 2>&1\n{script}"],
            env=self._environment,
            stdout=subprocess.PIPE,
            stdin=subprocess.DEVNULL,
            check=False,
            timeout=PATIENCE,
            start_new_session=True,  # no terminal
        )
        self._status = done.returncode
        return done.stdout.decode()

    def _run_on_terminal(self, script: str, expected: list[str]) -> str:
        """Run *script* on a terminal; type what the page shows behind each question."""
        pid, screen = pty.fork()
        if pid == 0:
            os.execvpe("bash", ["bash", "-c", script], {**self._environment, "TERM": "dumb"})
        try:
            return self._talk(screen, expected)
        except AssertionError:
            os.kill(pid, signal.SIGKILL)
            raise
        finally:
            os.close(screen)
            self._status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

    def _talk(self, screen: int, expected: list[str]) -> str:
        seen, answered = "", 0
        questions = [line for line in expected if _question_of(line)]
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            if select.select([screen], [], [], 0.2)[0]:
                try:
                    piece = os.read(screen, 65536)
                except OSError:  # the other end is closed
                    piece = b""
                if not piece:
                    return seen.replace("\r", "")
                seen += piece.decode()
                continue
            waiting = self.on_page(seen.rpartition("\n")[2])
            for number, line in enumerate(questions[answered:], answered + 1):
                question = _question_of(line)
                if waiting.strip() == question:
                    answer = self.secrets.get(question, self.here(line[len(question) :].strip()))
                    os.write(screen, os.fsencode(f"{answer}\n"))
                    answered = number
                    break
        raise AssertionError(f"no end in sight; the screen says:\n{seen}")

    def _compare(self, expected: list[str], printed: list[str], where: str) -> None:
        """Compare the lines of the page with those printed, and learn the dates in names."""
        said = "\n".join(["", where, *printed])
        left = list(printed)
        for number, line in enumerate(expected):
            if line.strip() == "…":
                following = expected[number + 1 : number + 2]
                while left and not (following and is_same(following[0], left[0])):
                    left.pop(0)
                continue
            assert left, f"the page goes on with {line!r}:{said}"
            shown = left.pop(0)
            assert is_same(line, shown), f"the page has {line!r}, and not {shown!r}:{said}"
            for on_page, here in zip(DATE.findall(line), DATE.findall(shown), strict=False):
                known = self.dates.setdefault(on_page, here)
                assert known == here, f"{on_page} stands for two dates:{said}"
        assert not left, f"the page lacks {left}:{said}"


def _question_of(line: str) -> str:
    """Return the question that a line of a page begins with, if it does."""
    found = re.match(r"(.*?[:?\]])(?= |$)", line)
    return found[1].strip() if found else ""


def is_same(on_page: str, printed: str) -> bool:
    """Tell whether two lines differ only in what is different each time."""
    parts = map(re.escape, changeless(on_page).split("…"))
    return re.fullmatch(".*".join(parts), changeless(printed)) is not None


def changeless(line: str) -> str:
    """Put words in the place of what is different each time, and one space between words."""
    line = re.sub(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", "ID", line)
    line = re.sub(r"\bage1[0-9a-z]{58}\b", "RECIPIENT", line)
    line = re.sub(r"\bAGE-SECRET-KEY-1[0-9A-Z]{58}\b", "IDENTITY", line)
    line = DATE.sub("DATE", line)
    line = re.sub(r"\d{4}-\d\d-\d\d[ T]\d\d:\d\d(:\d\d)?(\.\d+)?Z?( UTC)?", "TIME", line)
    line = re.sub(r"\b\d+\.\d+(e-\d+)? ?s\b", "SECONDS", line)
    line = re.sub(r"\(\d+(\.\d)? K?B\)(?= on| from|:|$)", "(SIZE)", line)
    line = re.sub(r"^(\S{10}) \S+/\S+ ", r"\1 OWNER ", line)
    row = re.match(r"(?:(?:stored|read|cold|keep|delete) +)?TIME +(?:local|s3|glacier|keep|delete)",
                   line)  # fmt: skip
    if row:
        line = re.sub(r"\b\d+(\.\d)? K?B", "SIZE", re.sub(r"((?:local|s3|glacier) +)[^ ]+(?= +\d)",
                                                        r"\1HOST", line))  # fmt: skip
    return " ".join(line.split())
