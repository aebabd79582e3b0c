"""Exclude entries of a tree by the patterns of a file, with the rules of ``.gitignore``.

The file's format is gitignore(5). Details that the manual leaves open follow what git does
(its ``dir.c`` and ``wildmatch.c``): patterns and names are bytes, so ``?`` is one byte, and
``[[:alpha:]]`` is ASCII.
"""

from __future__ import annotations

import os
import re
import string
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

from bakthat.archive.report import logger
from bakthat.errors import UsageError
from bakthat.system.text import printable, reason_of

BAKTHAT_EXCLUDE = ".bakthatexclude"
GIT_IGNORE = ".gitignore"

_UTF8_BOM = b"\xef\xbb\xbf"
_LITERAL = re.compile(rb"[^*?\[\\]*")
_CLASS = re.compile(rb"\[:([^\]]*):\]")
_BACKSLASH = ord("\\")
_CLASSES = {
    b"alnum": string.ascii_letters + string.digits,
    b"alpha": string.ascii_letters,
    b"blank": " \t",
    b"cntrl": "".join(map(chr, [*range(0x20), 0x7F])),
    b"digit": string.digits,
    b"graph": "".join(map(chr, range(0x21, 0x7F))),
    b"lower": string.ascii_lowercase,
    b"print": "".join(map(chr, range(0x20, 0x7F))),
    b"punct": string.punctuation,
    b"space": " \t\n\r",
    b"upper": string.ascii_uppercase,
    b"xdigit": string.hexdigits,
}


class _BrokenPatternError(ValueError):
    """A pattern that git ignores silently."""


@dataclass(frozen=True, slots=True)
class _Pattern:
    regex: bytes
    """Matches the whole path, or the whole base name when *base_name* is set."""
    negated: bool
    directory_only: bool
    base_name: bool


_Match = Callable[[bytes], object]


@dataclass(frozen=True, slots=True)
class _Group:
    """Consecutive patterns that all exclude or all include, joined into two expressions."""

    excludes: bool
    base_name: _Match | None
    path: _Match | None


class ExcludeRules:
    """The compiled patterns of one exclude file.

    *path* is the file that they came from.
    """

    def __init__(self, path: Path, patterns: Sequence[_Pattern]) -> None:
        self.path = path
        self._for_directories = _compile(patterns)
        self._for_others = _compile([p for p in patterns if not p.directory_only])

    def excludes(self, relative: str, *, is_dir: bool) -> bool:
        """Return whether the last pattern that matches *relative* excludes it.

        *relative* is the path below the backed-up root, separated by "/", without one at either
        end; bytes that are not UTF-8 come as surrogate escapes. Only the entry itself is
        matched: the caller walks from the root down and does not enter an excluded directory.
        """
        path = os.fsencode(relative)
        name = path[path.rfind(b"/") + 1 :]
        for group in self._for_directories if is_dir else self._for_others:
            if (group.base_name is not None and group.base_name(name)) or (
                group.path is not None and group.path(path)
            ):
                return group.excludes
        return False


def find_rules(
    root: Path, *, exclude_file: str | Path | None = None, automatic: bool = True
) -> ExcludeRules | None:
    """Return the exclude rules for *root*, or None where there are none.

    *exclude_file*, relative to the working directory, takes precedence. Without it, and unless
    *automatic* is false, the rules are those of ``.bakthatexclude`` in *root*, or else of
    ``.gitignore``. A *root* that is not a directory has no rules. Raises UsageError when the file
    cannot be read or has a pattern that can never match. Such a pattern in a ``.gitignore`` is
    only logged, since git ignores it too.
    """
    if exclude_file is not None:
        if not os.fspath(exclude_file):
            raise UsageError("the exclude file has an empty name")
        rules = _read(Path(exclude_file), lenient=False)
        return rules if os.path.isdir(root) else None
    if automatic and os.path.isdir(root):
        for name in (BAKTHAT_EXCLUDE, GIT_IGNORE):
            path = Path(root, name)
            if os.path.isfile(path):
                return _read(path, lenient=name == GIT_IGNORE)
    return None


def _read(path: Path, *, lenient: bool) -> ExcludeRules:
    try:
        data = path.read_bytes()
    except ValueError as exc:
        raise UsageError(f"invalid file name: {printable(path)}") from exc
    except OSError as exc:
        raise UsageError(
            f"cannot read the exclude file {printable(path)}: {reason_of(exc)}",
            hint="name a readable file, or make this one readable",
        ) from exc
    patterns = []
    for number, line in _lines(data):
        try:
            patterns.append(_parse(line))
        except _BrokenPatternError as exc:
            shown = printable(os.fsdecode(line))
            text = f"{printable(path)}, line {number}: the pattern {shown} {exc}"
            if not lenient:
                raise UsageError(
                    text, hint="put a backslash before a character that is meant literally"
                ) from exc
            logger.warning("%s; it matches nothing", text)
    return ExcludeRules(path, patterns)


def _lines(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield the number and the pattern of each line that has one."""
    for number, line in enumerate(data.removeprefix(_UTF8_BOM).split(b"\n"), start=1):
        if line.startswith(b"#"):
            continue
        # git reads C strings, which end at a NUL.
        pattern = _strip_spaces(line.removesuffix(b"\r").partition(b"\0")[0])
        if pattern:
            yield number, pattern


def _strip_spaces(line: bytes) -> bytes:
    """Remove trailing spaces, but keep one that a backslash escapes."""
    stripped = line.rstrip(b" ")
    backslashes = len(stripped) - len(stripped.rstrip(b"\\"))
    if backslashes % 2 and len(stripped) < len(line):
        stripped += b" "
    return stripped


def _parse(line: bytes) -> _Pattern:
    negated = line.startswith(b"!")
    glob = line[1:] if negated else line
    directory_only = glob.endswith(b"/")
    if directory_only:
        glob = glob[:-1]
    base_name = b"/" not in glob
    regex = _translate(glob.removeprefix(b"/"), base_name=base_name)
    return _Pattern(regex, negated, directory_only, base_name)


def _translate(glob: bytes, *, base_name: bool) -> bytes:
    """Return a regular expression that matches the same names as git's wildmatch with *glob*."""
    # git compares the literal beginning by itself, so that a "**" after it counts as one that
    # follows a slash: "a**/b" matches "ax/b".
    literal = _LITERAL.match(glob)
    start = 0 if base_name or literal is None else literal.end()
    parts: list[bytes] = []
    star: int | None = None
    at = 0
    while at < len(glob):
        char = glob[at : at + 1]
        if char == b"*":
            end = at + len(glob[at:]) - len(glob[at:].lstrip(b"*"))
            if not base_name and end - at > 1 and _spans(glob, at, end, start):
                star = None
                at = end + (glob[end : end + 1] == b"/")
                parts.append(b"(?:.*/)?" if at > end else b".*")
                continue
            if star is not None:
                # An atomic group prevents exponential backtracking. The first match between two
                # stars is enough.
                parts[star:] = [b"(?>[^/]*?", *parts[star + 1 :], b")"]
            star = len(parts)
            parts.append(b"[^/]*")
            at = end
            continue
        if char == b"[":
            members, at = _read_set(glob, at)
            parts.append(_set_regex(members))
            continue
        if char == b"\\":
            at += 1
            char = glob[at : at + 1]
            if not char:
                raise _BrokenPatternError("ends with a backslash")
            parts.append(re.escape(char))
        else:
            parts.append(b"[^/]" if char == b"?" else re.escape(char))
        if char == b"/":
            star = None
        at += 1
    return b"".join(parts)


def _spans(glob: bytes, at: int, end: int, start: int) -> bool:
    """Return whether the stars of *glob* from *at* to *end* stand alone between slashes."""
    before = at == start or glob[at - 1 : at] == b"/"
    return before and (end == len(glob) or glob.startswith((b"/", b"\\/"), end))


def _read_set(glob: bytes, at: int) -> tuple[set[int], int]:
    """Read the bracket expression that begins at *at*; return its bytes and where it ends."""
    # Append NULs, like the end of the C string that git reads; no pattern contains one.
    text = glob + b"\0\0"
    at += 1
    negated = text[at] in b"!^"
    at += negated
    members: set[int] = set()
    previous = 0
    first = at
    while at == first or text[at] != ord("]"):
        if text[at] == ord("-") and previous and text[at + 1] not in b"\0]":
            at += 2 if text[at + 1] == _BACKSLASH else 1
            members.update(range(previous, text[at] + 1))
            previous = 0
        elif named := _CLASS.match(text, at):
            members.update(_class_members(named[1]))
            at = named.end() - 1
            previous = 0
        else:
            at += text[at] == _BACKSLASH
            previous = text[at]
            members.add(previous)
        if at >= len(glob):
            raise _BrokenPatternError("has a [ without its ]")
        at += 1
    if negated:
        members = set(range(256)) - members
    # A set never matches the separator.
    return members - {ord("/")}, at + 1


def _class_members(name: bytes) -> Iterable[int]:
    try:
        return map(ord, _CLASSES[name])
    except KeyError:
        shown = printable(os.fsdecode(name))
        raise _BrokenPatternError(f"names the unknown class [:{shown}:]") from None


def _set_regex(members: set[int]) -> bytes:
    if not members:
        return b"(?!)"
    return b"[" + b"".join(b"\\x%02x" % member for member in sorted(members)) + b"]"


def _compile(patterns: Sequence[_Pattern]) -> list[_Group]:
    """Join consecutive patterns of one kind; the last comes first, since the last match decides."""
    groups = []
    for negated, run in groupby(reversed(patterns), key=lambda pattern: pattern.negated):
        members = list(run)
        names = [pattern.regex for pattern in members if pattern.base_name]
        paths = [pattern.regex for pattern in members if not pattern.base_name]
        groups.append(_Group(not negated, _alternatives(names), _alternatives(paths)))
    return groups


def _alternatives(expressions: Sequence[bytes]) -> _Match | None:
    if not expressions:
        return None
    return re.compile(b"|".join(expressions), re.DOTALL).fullmatch
