"""Exclude entries of a tree by the patterns of a file, with the rules of ``.gitignore``.

The file's format is gitignore(5); :mod:`bakthat.archive.patterns` matches its patterns.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from bakthat.archive.patterns import InvalidPatternError, Pattern, PatternRules, parse_pattern
from bakthat.archive.report import logger
from bakthat.errors import UsageError
from bakthat.system.text import printable, reason_of

BAKTHAT_EXCLUDE = ".bakthatexclude"
GIT_IGNORE = ".gitignore"

_UTF8_BOM = b"\xef\xbb\xbf"


class ExcludeRules(PatternRules):
    """The compiled patterns of one exclude file.

    *path* is the file that they came from, and *shown* its name for people; *patterns* have the
    number and the text of their lines.
    """

    def __init__(
        self, path: Path, shown: str, patterns: Sequence[tuple[int, bytes, Pattern]]
    ) -> None:
        super().__init__([pattern for _, _, pattern in patterns])
        self.path = path
        self._shown = shown
        self._patterns = patterns

    def excludes(self, relative: str, *, is_dir: bool) -> bool:
        """Return whether the last pattern that matches *relative* excludes it.

        *relative* is the path below the backed-up root, separated by "/", without one at either
        end; bytes that are not UTF-8 come as surrogate escapes. Only the entry itself is
        matched: the caller walks from the root down and does not enter an excluded directory.
        """
        return bool(self.match(os.fsencode(relative), is_dir=is_dir))

    def why(self, relative: str, *, is_dir: bool) -> str:
        """Return the line that excludes *relative*: ``.bakthatexclude:3: *.o``.

        The arguments are those of :meth:`excludes`, which has returned True.
        """
        path = os.fsencode(relative)
        name = path[path.rfind(b"/") + 1 :]
        for number, line, pattern in reversed(self._patterns):
            if pattern.directory_only and not is_dir:
                continue
            if re.fullmatch(pattern.regex, name if pattern.base_name else path, re.DOTALL):
                return f"{self._shown}:{number}: {printable(os.fsdecode(line))}"
        raise AssertionError("no pattern excludes it")


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
            raise UsageError(
                "the exclude file has an empty name",
                hint="name a file after --exclude-file (exclude_file= in Python), or leave it out",
            )
        rules = _read(Path(exclude_file), printable(exclude_file), lenient=False)
        return rules if os.path.isdir(root) else None
    if automatic and os.path.isdir(root):
        for name in (BAKTHAT_EXCLUDE, GIT_IGNORE):
            path = Path(root, name)
            if os.path.isfile(path):
                return _read(path, name, lenient=name == GIT_IGNORE)
    return None


def _read(path: Path, shown: str, *, lenient: bool) -> ExcludeRules:
    try:
        data = path.read_bytes()
    except ValueError as exc:
        raise UsageError(
            f"cannot read the exclude file '{printable(path)}': no file can have that name",
            hint="name a readable file",
        ) from exc
    except OSError as exc:
        raise UsageError(
            f"cannot read the exclude file '{printable(path)}': {reason_of(exc)}",
            hint="name a readable file, or make this one readable",
        ) from exc
    patterns = []
    for number, line in _lines(data):
        try:
            patterns.append((number, line, parse_pattern(line)))
        except InvalidPatternError as exc:
            quoted = printable(os.fsdecode(line))
            text = f"{printable(path)}, line {number}: the pattern '{quoted}' {exc}"
            if not lenient:
                raise UsageError(
                    text, hint="put a backslash before a character that is meant literally"
                ) from exc
            logger.warning("%s; it matches nothing", text)
    return ExcludeRules(path, shown, patterns)


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
