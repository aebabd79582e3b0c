"""Say what is wrong, and what could be better: ``bakthat doctor``."""

from __future__ import annotations

import time

import bakthat
from bakthat.cli.app import SETUP, command
from bakthat.cli.commands.findings import STYLES, print_findings
from bakthat.cli.exit_codes import ExitCode
from bakthat.cli.options import with_destination, with_profile
from bakthat.cli.output import Summary, print_error, print_result
from bakthat.system.text import counted


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
    counts = {name: sum(each.verdict == name for each in findings) for name in STYLES}
    good, advice, problems = counts.values()
    done = (
        f"Tried {counted(len(findings), 'thing')}: {good} good, {advice} to consider, "
        f"{counted(problems, 'problem')}"
    )
    if problems:
        print_error(f"{counted(problems, 'problem')} found")
    print_result(
        Summary(
            done,
            time.monotonic() - started,
            facts={"good": good, "advice": advice, "problems": problems},
        ),
        lambda: print_findings(findings),
        (("check", each.as_dict()) for each in findings),
    )
    return ExitCode.FAILED if problems else None
