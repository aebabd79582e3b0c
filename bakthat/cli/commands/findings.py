"""Print what was tried, and how it went: for ``doctor`` and ``configure``."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from itertools import zip_longest
from typing import TYPE_CHECKING

from bakthat.cli.output import print_text
from bakthat.system import terminal
from bakthat.system.text import printable

if TYPE_CHECKING:
    from bakthat.policy.finding import Finding

STYLES = {"good": "green", "advice": "yellow", "problem": "red"}
"""The verdicts in the order in which they are printed: what matters most is next to the prompt."""
_GAP = 2


def print_findings(findings: Sequence[Finding]) -> None:
    """Print findings to standard output, by their verdict. Raises OutputError."""
    print_text("".join(f"{line}\n" for line in _lines(findings)))


def _lines(findings: Sequence[Finding]) -> Iterator[str]:
    """Yield the findings for people, by their verdict."""
    indent = max((len(each.topic) for each in findings), default=0) + 2 * _GAP
    for verdict, style in STYLES.items():
        found = [each for each in findings if each.verdict == verdict]
        if found:
            yield terminal.styled(sys.stdout, verdict, style)
        for each in found:
            hint = _wrapped(f"hint: {each.hint}", indent) if each.hint else []
            lines = [*_wrapped(each.detail, indent), *hint]
            for topic, line in zip_longest([each.topic], lines, fillvalue=""):
                yield f"{' ' * _GAP}{topic:<{indent - _GAP}}{line}"


def _wrapped(text: str, indent: int) -> list[str]:
    """Return *text* in lines that fit beside *indent* on a terminal; as it is when piped."""
    text = printable(text)
    if not sys.stdout.isatty():
        return [text]
    import textwrap  # only a terminal needs it

    width = max(terminal.output_width() - indent, 20)
    return textwrap.wrap(text, width, break_long_words=False, break_on_hyphens=False)
