"""The listing of all errors: its files, and how it is kept up with the code."""

from __future__ import annotations

import ast
import functools
import json
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from tests.errors.places import PARTS, PROJECT, Place, find_places

DIRECTORY = Path(__file__).parent / "listing"

_REMADE = "bakthat/archive/worker/messages.py"
"""Makes an error of another process again."""
MISSING = "?"
"""Stands for what somebody has to add: a test, or the reason why there is no hint."""

NO_HINT = {
    "said": "the message says what to change",
    "named": "it becomes a part of another error, which names the backup and has the hint",
    "handled": "bakthat catches it, and goes on or tells of it in other words",
    "program": "only a program that uses bakthat as a library can cause it",
    "answer": "the storage, the server or a program says itself what is wrong",
}
"""The reasons why an error has no hint."""


@dataclass(frozen=True)
class Entry:
    """One message of the listing."""

    module: str
    function: str
    kind: str
    message: str
    hints: tuple[str, ...] = ()
    no_hint: str = ""
    """One of :data:`NO_HINT` where there is no hint, else ""."""
    test: str = MISSING
    """The name by which pytest knows the test that causes it, without its parameters.

    Those are often texts, and change with the messages."""

    @property
    def identity(self) -> tuple[str, str, str, str]:
        """What tells it from all others."""
        return self.module, self.function, self.kind, self.message

    @property
    def is_part(self) -> bool:
        """Whether it is a part of a message only."""
        return self.kind in PARTS


def listed() -> list[Entry]:
    """Return the listing as it is in its files."""
    return [entry for path in sorted(DIRECTORY.glob("*.txt")) for entry in _parse(path)]


def _parse(path: Path) -> Iterator[Entry]:
    module = ""
    blocks = re.split(r"\n\n+", path.read_text().strip())
    for block in blocks:
        first, *rest = block.splitlines()
        if rest and set(rest[0]) == {"="}:
            module = first
            continue
        fields = defaultdict(list)
        for line in rest:
            name, _, value = line.strip().partition(": ")
            fields[name].append(value)
        kind, _, function = fields["error"][0].partition(" in ")
        yield Entry(
            module,
            function,
            kind,
            first,
            tuple(fields["hint"]),
            "".join(fields["no hint"]),
            "".join(fields["test"]),
        )


def write(entries: Iterable[Entry]) -> None:
    """Write the listing, a file for each package and each module at the top."""
    files: dict[str, list[str]] = {}
    for entry in entries:
        name = Path(entry.module).relative_to("bakthat").parts[0].removesuffix(".py")
        lines = files.setdefault(name, [])
        if f"{entry.module}\n{'=' * len(entry.module)}" not in lines:
            lines.append(f"{entry.module}\n{'=' * len(entry.module)}")
        lines.append("\n    ".join([entry.message, *_fields(entry)]))
    for old in DIRECTORY.glob("*.txt"):
        old.unlink()
    DIRECTORY.mkdir(exist_ok=True)
    for name, lines in files.items():
        (DIRECTORY / f"{name}.txt").write_text("\n\n".join(lines) + "\n")


def _fields(entry: Entry) -> Iterator[str]:
    yield f"error: {entry.kind} in {entry.function}"
    yield from (f"hint: {hint}" for hint in entry.hints)
    if not entry.hints:
        yield f"no hint: {entry.no_hint or MISSING}"
    yield f"test: {entry.test}"


def made() -> list[Entry]:
    """Return an entry without a test for each message in the code, in the order of the code."""
    entries = [_entry_of(place) for place in find_places() if _has_words(place)]
    return list({entry.identity: entry for entry in entries}.values())


def _entry_of(place: Place) -> Entry:
    hints = tuple(dict.fromkeys(hint.shown for hint in place.hints))
    return Entry(place.module, place.function, place.kind, place.message.shown, hints)


def _has_words(place: Place) -> bool:
    """A part without words of its own is no message."""
    return not place.is_part or re.search("[a-z]", place.message.fixed) is not None


def updated(old: Sequence[Entry], new: Sequence[Entry]) -> list[Entry]:
    """Return *new* with the tests and the reasons of *old*.

    An entry whose message was changed takes those of the one that it replaces.
    """
    known = {entry.identity: entry for entry in old}
    identities = {entry.identity for entry in new}
    replaced: dict[tuple[str, ...], list[Entry]] = defaultdict(list)
    for entry in old:
        if entry.identity not in identities:
            replaced[entry.module, entry.function, entry.kind].append(entry)
    result = []
    for entry in new:
        before = known.get(entry.identity)
        others = replaced[entry.module, entry.function, entry.kind]
        if before is None and others:
            before = others.pop(0)
        if before is not None:
            no_hint = "" if entry.hints else before.no_hint
            entry = replace(entry, test=before.test, no_hint=no_hint)
        result.append(entry)
    return result


Causes = dict[tuple[str, str, str, str], set[str]]
"""The tests that caused each message, by the identity of its entry."""


def causes_of(records: Path) -> tuple[Causes, list[str]]:
    """Return the tests that caused each message, and the lines that are at no known place.

    *records* is the file of :mod:`tests.errors.recorder`, of the code as it is now.
    """
    places: dict[tuple[str, int], list[Place]] = defaultdict(list)
    parts = []
    for place in find_places():
        places[place.module, place.line].append(place)
        if place.is_part and _has_words(place):
            parts.append(place)
    causes: Causes = defaultdict(set)
    unknown = {}
    for line in records.read_text().splitlines():
        record = json.loads(line)
        if record["module"] == _REMADE:
            continue
        fitting = [
            place
            for place in places[record["module"], record["line"]]
            if place.message.fits(record["message"])
        ]
        if not fitting:
            where = f"{record['module']}:{record['line']}"
            unknown[where] = f"{where}: {record['message']}"
            continue
        said, test = record["message"], record["test"].partition("[")[0]
        ranks = [
            (place.message.has_the_numbers_of(said), len(place.message.fixed)) for place in fitting
        ]
        # Several may differ only in what a placeholder is called.
        best = [each for each, rank in zip(fitting, ranks, strict=True) if rank == max(ranks)]
        for each in best:
            causes[_entry_of(each).identity].add(test)
        if best[0].message.ends_open:
            for part in parts:
                if part.message.ends(record["message"]):
                    causes[_entry_of(part).identity].add(test)
    return causes, list(unknown.values())


def with_tests(entries: Sequence[Entry], causes: Causes) -> list[Entry]:
    """Return *entries* with a test for each that has none, where one is known.

    The one that makes the fewest other errors is about this one.
    """
    others = Counter(test for tests in causes.values() for test in tests)

    def chosen(entry: Entry) -> Entry:
        tests = causes.get(entry.identity, set())
        if entry.test != MISSING or not tests:
            return entry
        best = min(tests, key=lambda test: (others[test], len(test), test))
        return replace(entry, test=best)

    return list(map(chosen, entries))


@functools.cache
def functions_in(path: str) -> frozenset[str]:
    """Return the names of the tests in the file *path*, from the top of the clone."""
    file = PROJECT / path
    tree = ast.parse(file.read_text()) if file.exists() else ast.Module([], [])
    return frozenset(node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef))
