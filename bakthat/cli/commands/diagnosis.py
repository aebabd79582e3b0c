"""Say what is wrong, and what could be better: ``bakthat doctor``."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Sequence
from itertools import zip_longest
from typing import TYPE_CHECKING

import bakthat
from bakthat.cli.app import SETUP, command
from bakthat.cli.exit_codes import ExitCode
from bakthat.cli.options import with_destination, with_profile
from bakthat.cli.output import Summary, print_result, print_text
from bakthat.system import terminal
from bakthat.system.text import counted, printable

if TYPE_CHECKING:
    from bakthat.policy.finding import Finding

_STYLES = {"good": "green", "advice": "yellow", "problem": "red"}
"""The verdicts in the order in which they are printed: what matters most is next to the prompt."""
_GAP = 2


@command(
    "doctor",
    "try everything that a backup needs",
    group=SETUP,
    example="bakthat doctor -d s3",
    exits={ExitCode.FAILED: "a backup there, or a restore from there, would fail"},
)
@with_destination
@with_profile
def doctor(*, destination: str | None, profile: str, config: str | None) -> int | None:
    """Run ``bakthat doctor``."""
    started = time.monotonic()
    findings = bakthat.doctor(destination, profile, config)
    counts = {name: sum(each.verdict == name for each in findings) for name in _STYLES}
    good, advice, problems = counts.values()
    done = (
        f"Tried {counted(len(findings), 'thing')}: {good} good, {advice} to consider, "
        f"{counted(problems, 'problem')}"
    )
    print_result(
        Summary(
            done,
            time.monotonic() - started,
            facts={"good": good, "advice": advice, "problems": problems},
        ),
        lambda: print_text("".join(f"{line}\n" for line in _lines(findings))),
        (("check", each.as_dict()) for each in findings),
    )
    return ExitCode.FAILED if problems else None


def _lines(findings: Sequence[Finding]) -> Iterator[str]:
    """Yield the findings for people, by their verdict."""
    indent = max((len(each.topic) for each in findings), default=0) + 2 * _GAP
    for verdict, style in _STYLES.items():
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
