"""The sessions of the documentation: typed as a reader types them, and compared with the page.

A console block has commands after ``$`` and, below each, what it prints. ``laptop$`` is the prompt
of another machine. A block with a path as its caption is that file. A line ``…`` of a page stands
for any lines, and ``…`` in a line for any text. What is different each time, such as dates,
durations and compressed sizes, is not compared; a name with a date that was printed, or a public
key, is put into what follows. A command that fails is followed by ``echo $?``. With the environment
variable ``WRITE_PAGES`` set, the tests write what was printed into the pages instead.
"""

from __future__ import annotations

import itertools
import os
import pty
import re
import select
import shlex
import signal
import socket
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

from tests.support.commandline import PATIENCE, PROJECT, CommandLine

DOCS = PROJECT / "docs"
README = PROJECT / "README.rst"
HOST = "web1"
"""The name of the machine whose prompt is bare, on pages that do not set ``host``."""
SYSTEM = ("/etc", "/media", "/mnt", "/opt", "/srv", "/usr/local", "/var/backups", "/var/lib")
"""Directories of the pages that are below a directory of the test here."""
WRITES = "WRITE_PAGES" in os.environ
KEY = re.compile(r"\bage1[0-9a-z]{58}\b|\bAGE-SECRET-KEY-1[0-9A-Z]{58}\b")
DATE = re.compile(r"(?<!\d)\d{14}(?!\d)")
NEW = re.compile(f"{DATE.pattern}|{KEY.pattern}")
"""What is new each time, and used in later commands: dates in stored filenames, keys of age."""


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
    return [block for block in blocks_of(page, section) if PROMPT.match(block.text)]


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
    output: list[str] = field(hash=False)
    line: int
    machine: str
    """What the prompt names, or nothing."""


PROMPT = re.compile(r"([\w-]*)\$ ")


def commands_of(block: Block) -> list[Command]:
    """Return the commands of a session; one may go on after a backslash, or in a here-document."""
    found: list[Command] = []
    lines = block.text.splitlines()
    number = 0
    while number < len(lines):
        line = lines[number]
        number += 1
        prompt = PROMPT.match(line)
        if not prompt:
            assert found, f"line {block.line}: the session begins with no command"
            found[-1].output.append(line)
            continue
        typed = [line[prompt.end() :]]
        here = re.search(r"<<-? ?'?(\w+)'?", line)
        while typed[-1].endswith("\\") or (here and typed[-1] != here[1]):
            typed.append(lines[number])
            number += 1
        start = block.line + number - len(typed)
        found.append(Command("\n".join(typed), [], start, prompt[1]))
    return found


class Machine:
    """A machine with a home directory, and a shell on it.

    The directories of the page are below *directory*. *name* is the machine's on the page.
    """

    def __init__(self, name: str, directory: Path) -> None:
        self.name = name
        self.root = root = directory / "root"
        self.home = root / "home" / "you"
        self.home.mkdir(parents=True)
        self.status = 0
        self.prefix: tuple[str, ...] = ()
        """Words before the shell: a program that starts it elsewhere."""
        self._state = directory / "shell"
        self._state.mkdir()
        self._directory = self._state / "directory"
        self._directory.write_text(str(self.home))
        self._variables = self._state / "variables"
        self._variables.write_text("")
        programs = self._state / "bin"
        programs.mkdir()
        for each in (*SYSTEM, "/usr/local/bin"):
            Path(f"{root}{each}").mkdir(parents=True)
        python = f"PYTHONPATH={shlex.quote(str(PROJECT))} exec {shlex.quote(sys.executable)}"
        for program, arguments in {"bakthat": " -m bakthat", "python3": ""}.items():
            (programs / program).write_text(f'#!/bin/sh\n{python}{arguments} "$@"\n')
            (programs / program).chmod(0o755)
        environment = CommandLine(self.home, self.home).environment
        self.environment = {
            **environment,
            "PATH": f"{root}/usr/local/bin:{programs}:{environment['PATH']}",
        }
        self.places = {each: f"{root}{each}" for each in SYSTEM} | {"/home/you": str(self.home)}

    def path(self, place: str) -> Path:
        """Return the file *place* of the page: in home, at the root, or where the shell is."""
        if place.startswith("~/"):
            return self.home / place[2:]
        if place.startswith("/"):
            return Path(f"{self.root}{place}")
        return Path(self._directory.read_text().strip(), place)

    def program(self, name: str) -> Path:
        """Return the path of ``bakthat`` or ``python3`` as they are found on this machine."""
        return self._state / "bin" / name

    def run(self, command: str) -> str:
        """Type *command*; return what it prints to either stream, and keep its exit code."""
        done = subprocess.run(
            [*self.prefix, "bash", "-c", f"exec 2>&1\n{self._script(command)}"],
            env=self.environment,
            stdout=subprocess.PIPE,
            stdin=subprocess.DEVNULL,
            check=False,
            timeout=PATIENCE,
            start_new_session=True,  # no terminal
        )
        self.status = done.returncode
        return done.stdout.decode()

    def run_on_terminal(self, command: str, answer: Callable[[str], str | None]) -> str:
        """Type *command* on a terminal, and what *answer* returns for the line before the cursor.

        It is asked when nothing more is printed, and returns None for a line that is no question.
        """
        pid, screen = pty.fork()
        if pid == 0:
            environment = {**self.environment, "TERM": "dumb"}
            os.execvpe("bash", ["bash", "-c", self._script(command)], environment)
        try:
            return _talk(screen, answer)
        except AssertionError:
            os.kill(pid, signal.SIGKILL)
            raise
        finally:
            os.close(screen)
            self.status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

    def _script(self, command: str) -> str:
        """Return *command* as a process of its own runs it that takes up where the last one was."""
        directory, variables = shlex.quote(str(self._directory)), shlex.quote(str(self._variables))
        return (
            f'cd "$(cat {directory})" && . {variables} && set -a && (exit {self.status})\n'
            f"{command}\n"
            f"status=$?; pwd > {directory}; export -p > {variables}; exit $status"
        )


def _talk(screen: int, answer: Callable[[str], str | None]) -> str:
    seen = ""
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
        typed = answer(seen.rpartition("\n")[2].strip())
        if typed is not None:
            os.write(screen, os.fsencode(f"{typed}\n"))
    raise AssertionError(f"no end in sight; the screen says:\n{seen}")


Handler = Callable[[Machine, str], None]
"""Checks a command that cannot run here in another way."""


class Reader:
    """Somebody who types the sessions of a page, one after the other, in one shell a machine.

    *places* are texts of the page and what stands for them here, such as the endpoint of a storage.
    *unseen* are texts that are printed here, and not on the page.
    *secrets* are questions whose answers no terminal shows, and these answers. *otherwise* has, by
    the beginning of a command, what checks it instead of running it. A prompt or a caption may name
    a machine; one is made for each name, in *directory*.
    """

    def __init__(self, directory: Path) -> None:
        self.places: dict[str, str] = {}
        self.unseen: list[str] = []
        self.secrets: dict[str, str] = {}
        self.otherwise: dict[str, Handler] = {}
        self._directory = directory
        self._machines: dict[str, Machine] = {}
        self._new: dict[str, str] = {}
        self._used: set[str] = set()
        self._corrections: dict[Command, list[str]] = {}

    def machine(self, name: str = "") -> Machine:
        """Return the machine that a prompt names."""
        if name not in self._machines:
            self._machines[name] = Machine(name or HOST, self._directory / f"machine-{name}")
        return self._machines[name]

    def here(self, text: str, machine: Machine) -> str:
        """Return a text of the page with what stands here for its places and for what is new."""
        known = {**self.places, **machine.places}
        places = "|".join(map(re.escape, sorted(known, key=len, reverse=True)))
        text = re.sub(rf"(?<![\w.~/-])(?:{places})(?!\w)", lambda found: known[found[0]], text)
        return self._renewed(text)

    def _renewed(self, text: str) -> str:
        self._used |= self._new.keys() & set(NEW.findall(text))
        return NEW.sub(lambda found: self._new.get(found[0], found[0]), text)

    def _on_page(self, text: str, machine: Machine) -> str:
        pages = dict.fromkeys(self.unseen, "")
        pages |= {here: place for place, here in {**self.places, **machine.places}.items()}
        places = "|".join(map(re.escape, sorted(pages, key=len, reverse=True)))
        text = re.sub(places, lambda found: pages[found[0]], text)
        # A column of a table has the name of this machine.
        return re.sub(
            rf"\b{re.escape(socket.gethostname())} +(?=\d)",
            lambda found: f"{machine.name} ".ljust(len(found[0])),
            text,
        )

    def follow(self, blocks: Iterable[Block]) -> None:
        """Type the sessions of *blocks*, and write their files, from top to bottom."""
        for block in blocks:
            if block.language in ("console", ""):
                self._type(block)
            elif block.caption:
                name, colon, place = block.caption.rpartition(":")
                machine = self.machine(name if colon else "")
                file = machine.path(place)
                file.parent.mkdir(parents=True, exist_ok=True)
                unknown = [key for key in NEW.findall(block.text) if key not in self._new]
                assert not unknown, f"line {block.line}: nothing before has made {unknown}"
                file.write_text(self.here(block.text, machine))

    def _type(self, block: Block) -> None:
        commands = commands_of(block)
        for command, following in zip(commands, [*commands[1:], None], strict=True):
            machine = self.machine(command.machine)
            text = self.here(command.text, machine)
            names = [name for name in self.otherwise if command.text.startswith(name)]
            if names:
                assert not command.output, f"line {command.line}: {command.text} is not run here"
                self.otherwise[names[0]](machine, text)
                continue
            if block.is_interactive:
                answer = self._answers(command.output, machine)
                printed = machine.run_on_terminal(text, answer)
                printed = re.sub(r"\x1b\[[\d;]*[A-Za-z]", "", printed)
                # Where the bar has been.
                printed = re.sub(r"^\n(?=Stored as |Restored )", "", printed, flags=re.M)
            else:
                printed = machine.run(text)
            lines = without_percentages(self._on_page(printed, machine).splitlines())
            where = f"line {command.line}: {command.text}"
            if WRITES and "…" not in "".join(command.output):
                self._correct(command, lines)
            else:
                self._compare(command.output, lines, where)
            if machine.status and not (following and following.text == "echo $?"):
                raise AssertionError(f"{where}: exit code {machine.status}\n{printed}")

    def _answers(self, expected: list[str], machine: Machine) -> Callable[[str], str | None]:
        """Return what types the text that the page shows behind each question."""
        left = [line for line in expected if _question_of(line)]

        def answer(waiting: str) -> str | None:
            shown = self._on_page(waiting, machine)
            for number, line in enumerate(left):
                question = _question_of(line)
                if question == shown:
                    del left[: number + 1]
                    typed = line[len(question) :].strip()
                    return self.secrets.get(question, self.here(typed, machine))
            return None

        return answer

    def _compare(self, expected: list[str], printed: list[str], where: str) -> None:
        """Compare the lines of the page with those printed, and learn what is new."""
        said = "\n".join(["", where, *printed])
        expected = _in_one_order([line for line in without_percentages(expected) if line.strip()])
        left = _in_one_order([line for line in printed if line.strip()])
        for number, line in enumerate(expected):
            if line.strip() == "…":
                following = expected[number + 1 : number + 2]
                while left and not (following and is_same(following[0], left[0])):
                    left.pop(0)
                continue
            assert left, f"the page goes on with {line!r}:{said}"
            shown = left.pop(0)
            assert is_same(line, shown), f"the page has {line!r}, and not {shown!r}:{said}"
            for on_page, here in zip(NEW.findall(line), NEW.findall(shown), strict=False):
                is_other = on_page in self._used and self._new[on_page] != here
                assert not is_other, f"{on_page} stands for two:{said}"
                self._new[on_page] = here
        assert not left, f"the page lacks {left}:{said}"

    def _correct(self, command: Command, printed: list[str]) -> None:
        while printed and not printed[-1]:
            printed.pop()
        old, new = (NEW.findall("\n".join(lines)) for lines in (command.output, printed))
        if len(old) == len(new):
            self._new.update(zip(old, new, strict=True))
        # Keys stay those of the page, since its files have them too.
        keys = {here: page for page, here in self._new.items() if KEY.fullmatch(page)}
        self._corrections[command] = [
            KEY.sub(lambda found: keys.get(found[0], found[0]), line) for line in printed
        ]

    def write(self, page: Path) -> None:
        """Write what was printed into the page that the sessions are from."""
        lines = page.read_text().splitlines()
        for command in sorted(self._corrections, key=lambda each: -each.line):
            start = command.line - 1
            margin = " " * _margin(lines[start])
            end = start + len(command.text.splitlines()) + len(command.output)
            renewed = DATE.sub(lambda found: self._new.get(found[0], found[0]), command.text)
            typed = f"{command.machine}$ {renewed}".splitlines()
            new = [*typed, *self._corrections[command]]
            lines[start:end] = [f"{margin}{line}".rstrip() for line in new]
        page.write_text("\n".join(lines) + "\n")


def without_percentages(lines: list[str]) -> list[str]:
    """Leave out what the readers of a page do not see: on a terminal a bar takes its place."""
    return [line for line in lines if not line.startswith("Upload completion: ")]


def _in_one_order(lines: list[str]) -> list[str]:
    """Sort the rows that begin with a time: two backups may have been made in one second."""
    found: list[str] = []
    for is_row, group in itertools.groupby(lines, key=lambda line: bool(ROW.match(line))):
        several = list(group)
        found += sorted(several, key=lambda row: (changeless(row), row)) if is_row else several
    return found


def _question_of(line: str) -> str:
    """Return the question that a line of a page begins with, if it does."""
    found = re.match(r"(.*?[:?\]])(?= |$)", line)
    return found[1].strip() if found else ""


ROW = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d ")


def is_same(on_page: str, printed: str) -> bool:
    """Tell whether two lines differ only in what is different each time."""
    parts = map(re.escape, changeless(on_page).split("…"))
    return re.fullmatch(".*".join(parts), changeless(printed)) is not None


def changeless(line: str) -> str:
    """Put words in the place of what is different each time, and one space between words."""
    line = re.sub(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", "ID", line)
    line = NEW.sub("NEW", line)
    line = re.sub(r"\d{4}-\d\d-\d\d[ T]\d\d:\d\d(:\d\d)?(\.\d+)?Z?( UTC)?", "TIME", line)
    line = re.sub(r"\b\d+\.\d+(e-\d+)? ?s\b", "SECONDS", line)
    line = re.sub(r"\(\d+(\.\d)? K?B\)", "(SIZE)", line)
    line = re.sub(r"\d+(\.\d)? .B free", "SIZE free", line)
    line = re.sub(r"^(\S{10}) \S+/\S+ ", r"\1 OWNER ", line)
    row = re.match(r"(?:(?:stored|read|cold|keep|delete) +)?TIME +(?:local|s3|glacier|keep|delete)",
                   line)  # fmt: skip
    if row:
        line = re.sub(r"\b\d+(\.\d)? K?B", "SIZE", re.sub(r"((?:local|s3|glacier) +)[^ ]+(?= +\d)",
                                                        r"\1HOST", line))  # fmt: skip
    # What became of a backup, or what was done to bring it back.
    if re.match(r"(index )?(deleted|overwritten|intact|shown|copied|there) +TIME ", line):
        line = re.sub(r"\b\d+(\.\d)? K?B", "SIZE", line)
    if re.match(r"(ok|WRONG) ", line):  # a set of status: its size, trend and bars
        line = re.sub(r"\b\d+(\.\d)? K?B( +[+-]\d+%)?( +[▁-█]+)?", "SIZE", line)
        line = re.sub(r"\b\d+ min\b", "AGE", line)
    return " ".join(line.split())
