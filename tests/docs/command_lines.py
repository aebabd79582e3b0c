"""Every command line of ``bakthat`` that a page, a docstring or an error's hint shows.

A block that shows commands of an older version is marked with ``:class: old-version``.
"""

from __future__ import annotations

import ast
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from tests.docs.sessions import DOCS, PROMPT, README
from tests.support.commandline import PROJECT

PAGES = [README, *sorted(DOCS.rglob("*.rst"))]
MODULES = sorted((PROJECT / "bakthat").rglob("*.py"))
OLD = ":class: old-version"

PROGRAM = re.compile(r"(?:^|(?<=[\s=`|&;(!]))(?:[\w./~$()-]*/)?bakthat (?=-|[a-zA-Z_-]+(?![\w=]))")
"""The name of the program with a word behind it; perhaps in a directory."""
ARGUMENT = re.compile(r"\b(install|inject|man|build|create|import|from)\s+(\S+\s+)*$")
"""What stands before the name where it is an argument of another program."""
VERBS = {"stores", "writes", "on"}
"""What stands behind the name in a hint where bakthat is the subject of a sentence."""
PLACEHOLDER = re.compile(r"…|\.\.\.|[\[\]<>]|\b[A-Z_]{2,}\b|{}")
"""What stands for something else; such a line cannot be parsed as it is."""


class CommandLine(NamedTuple):
    """A command line without the name of the program."""

    place: str
    """The file and the line."""
    words: list[str]
    is_whole: bool
    """Whether it can be typed as it is; otherwise only its names are to be checked."""


def of_page(page: Path) -> Iterator[CommandLine]:
    """Yield the command lines of a page."""
    return of_text(str(page.relative_to(PROJECT)), page.read_text())


def of_text(name: str, text: str) -> Iterator[CommandLine]:
    """Yield the command lines of a page: of its blocks, and of the literals in its sentences."""
    for number, block in _blocks(text):
        for offset, line in _typed(block):
            for words in _commands(line):
                yield _command_line(f"{name}:{number + offset}", words)
    yield from _of_literals(name, _without_blocks(text))


def of_module(module: Path) -> Iterator[CommandLine]:
    """Yield the command lines of a module's docstrings, and of its hints."""
    name = str(module.relative_to(PROJECT))
    for node in ast.walk(ast.parse(module.read_text())):
        if isinstance(node, ast.keyword) and node.arg == "hint":
            for text in _texts(node.value):
                for found in PROGRAM.finditer(text):
                    words = _beginning(text[found.end() :])
                    is_argument = ARGUMENT.search(text[: found.start()])
                    if words[0] not in VERBS and not is_argument:
                        yield CommandLine(f"{name}:{node.value.lineno}", words, False)
        elif isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef):
            yield from _of_literals(f"{name} ({getattr(node, 'name', 'module')})", _docstring(node))


def _docstring(node: ast.Module | ast.ClassDef | ast.FunctionDef) -> str:
    return ast.get_docstring(node) or ""


def _texts(node: ast.expr) -> Iterator[str]:
    """Yield the texts of an expression; ``{}`` stands for what is put into one."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        yield node.value
    elif isinstance(node, ast.JoinedStr):
        parts = (
            str(part.value) if isinstance(part, ast.Constant) else "{}" for part in node.values
        )
        yield "".join(parts)
    else:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.expr):
                yield from _texts(child)


def _beginning(text: str) -> list[str]:
    """Return the words of a command line in a sentence, up to the end of its clause."""
    clause = re.split(r"[,;:()…]| (?:lists|shows|or|and|to) ", text)[0]
    return clause.replace("'", "").split()


def _of_literals(place: str, text: str) -> Iterator[CommandLine]:
    for literal in re.findall(r"``(.+?)``", text, re.DOTALL):
        for words in _commands(" ".join(literal.split())):
            # One without an argument only names a command or an option of it.
            names_only = all(word.startswith("-") for word in words[1:])
            yield _command_line(place, words, names_only=names_only)


def _command_line(place: str, words: list[str], *, names_only: bool = False) -> CommandLine:
    has_placeholder = any(PLACEHOLDER.search(word) for word in words)
    return CommandLine(place, words, not has_placeholder and not names_only)


def _blocks(text: str) -> Iterator[tuple[int, list[str]]]:
    """Yield the number of the first line of each block that is no code, and its lines."""
    lines = text.splitlines()
    number = 0
    while number < len(lines):
        line = lines[number]
        number += 1
        directive = re.fullmatch(r" *\.\. (?:code-block|parsed-literal):: ?(\w*)", line)
        is_literal = line.endswith("::") and not line.lstrip().startswith("..")
        if not directive and not is_literal:
            continue
        margin = len(line) - len(line.lstrip())
        start = number
        while number < len(lines) and (
            not lines[number].strip() or _margin(lines[number]) > margin
        ):
            number += 1
        block = lines[start:number]
        is_shell = not directive or directive[1] in SHELLS
        if is_shell and not any(OLD in each for each in block):
            yield start + 1, block


SHELLS = ("", "console", "bash", "sh", "shell", "text", "ini", "none")
"""The languages of blocks that may have command lines; systemd's units are ``ini``."""


def _margin(line: str) -> int:
    return len(line) - len(line.lstrip())


def _without_blocks(text: str) -> str:
    lines = text.splitlines()
    for number, block in list(_blocks(text)):
        lines[number - 1 : number - 1 + len(block)] = [""] * len(block)
    return "\n".join(lines)


def _typed(block: list[str]) -> Iterator[tuple[int, str]]:
    """Yield the lines that are typed, and where; a session's are those behind a prompt."""
    is_session = any(PROMPT.match(line.lstrip()) for line in block)
    number = 0
    while number < len(block):
        start, line = number, block[number].strip()
        while line.endswith("\\") and number + 1 < len(block):
            number += 1
            line = f"{line[:-1]} {block[number].strip()}"
        number += 1
        prompt = PROMPT.match(line)
        if not is_session or prompt:
            yield start, line[prompt.end() :] if prompt else line


def _commands(line: str) -> Iterator[list[str]]:
    """Yield the arguments of each ``bakthat`` that a shell would run of *line*."""
    for found in PROGRAM.finditer(line):
        if ARGUMENT.search(line[: found.start()]):
            continue
        lexer = shlex.shlex(line[found.end() :], posix=True, punctuation_chars=True)
        lexer.whitespace_split = True
        words = []
        try:
            for word in lexer:
                if set(word) <= set("();<>|&"):
                    break
                words.append(word)
        except ValueError:  # a quote that is not closed: a sentence
            continue
        yield words
