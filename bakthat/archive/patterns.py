"""Match paths against patterns with the rules of ``.gitignore``.

The rules are those of gitignore(5). Details that the manual leaves open follow what git does
(its ``dir.c`` and ``wildmatch.c``): patterns and names are bytes, so ``?`` is one byte, and
``[[:alpha:]]`` is ASCII.
"""

from __future__ import annotations

import os
import re
import string
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby

from bakthat.system.text import printable

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


class InvalidPatternError(ValueError):
    """A pattern that git ignores silently."""


@dataclass(frozen=True, slots=True)
class Pattern:
    """One pattern, translated."""

    regex: bytes
    """Matches the whole path, or the whole base name when *base_name* is set."""
    negated: bool
    directory_only: bool
    base_name: bool


_Match = Callable[[bytes], object]


@dataclass(frozen=True, slots=True)
class _Group:
    """Consecutive patterns that all have a "!" or all have none, joined into two expressions."""

    matches: bool
    base_name: _Match | None
    path: _Match | None


class PatternRules:
    """Several patterns, of which the last that matches decides."""

    def __init__(self, patterns: Sequence[Pattern]) -> None:
        self._for_directories = _compile(patterns)
        self._for_others = _compile([p for p in patterns if not p.directory_only])

    def match(self, path: bytes, *, is_dir: bool) -> bool | None:
        """Return whether the last pattern that matches *path* is one without "!"; None for none.

        *path* is separated by "/", without one at either end. Only the entry itself is matched, not
        the directories above it.
        """
        name = path[path.rfind(b"/") + 1 :]
        for group in self._for_directories if is_dir else self._for_others:
            if (group.base_name is not None and group.base_name(name)) or (
                group.path is not None and group.path(path)
            ):
                return group.matches
        return None


def parse_pattern(line: bytes) -> Pattern:
    """Translate the pattern *line*. Raises InvalidPatternError for one that can never match."""
    negated = line.startswith(b"!")
    glob = line[1:] if negated else line
    directory_only = glob.endswith(b"/")
    if directory_only:
        glob = glob[:-1]
    base_name = b"/" not in glob
    regex = _translate(glob.removeprefix(b"/"), base_name=base_name)
    return Pattern(regex, negated, directory_only, base_name)


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
                raise InvalidPatternError("ends with a backslash")
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
            raise InvalidPatternError("has a [ without its ]")
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
        raise InvalidPatternError(f"names the unknown class [:{shown}:]") from None


def _set_regex(members: set[int]) -> bytes:
    if not members:
        return b"(?!)"
    return b"[" + b"".join(b"\\x%02x" % member for member in sorted(members)) + b"]"


def _compile(patterns: Sequence[Pattern]) -> list[_Group]:
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
