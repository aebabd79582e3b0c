"""Set up: write a profile, prove that it can store backups, check and show it; completion."""

from __future__ import annotations

import contextlib
import json
import logging
import time
from typing import TYPE_CHECKING

from bakthat.cli import output
from bakthat.cli.app import SETUP, command, option
from bakthat.cli.commands.findings import STYLES, print_findings
from bakthat.cli.exit_codes import ExitCode
from bakthat.cli.options import options_of, with_profile
from bakthat.cli.output import Summary, print_error, print_listing, print_result, print_text
from bakthat.errors import UsageError
from bakthat.system import terminal
from bakthat.system.text import counted, printable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bakthat.cli.configure.profile import Configured
    from bakthat.policy.finding import Finding

log = logging.getLogger("bakthat")

SHELLS = ("bash", "zsh", "fish")
"""The shells that ``completion`` knows."""
_STORAGE = "storage (- removes a value)"
_ENCRYPTION = "encryption"


@command(
    "configure",
    "set up storage and encryption",
    group=SETUP,
    example="bakthat configure --bucket my-backups --new-key backup-key.txt",
    exits={
        ExitCode.FAILED: "failed, or the profile was written and backups cannot be stored with it"
    },
)
@option("--access-key", section=_STORAGE, metavar="KEY", help="AWS access key")
@option(
    "--secret-key-file",
    section=_STORAGE,
    metavar="FILE",
    help="file with the AWS secret key; - is standard input",
)
@option("--bucket", section=_STORAGE, metavar="NAME", help="bucket of S3")
@option("--vault", section=_STORAGE, metavar="NAME", help="vault of Glacier")
@option("--default-destination", section=_STORAGE, metavar="WHERE", help="s3, glacier or local")
@option("--region", section=_STORAGE, metavar="NAME", help="region of AWS")
@option(
    "--endpoint-url",
    section=_STORAGE,
    metavar="URL",
    help="address of S3-compatible storage that is not Amazon's",
)
@option("--local-path", section=_STORAGE, metavar="DIRECTORY", help="directory of local backups")
@option(
    "--new-key",
    section=_ENCRYPTION,
    metavar="FILE",
    help="encrypt to a new pair of age keys; FILE, which must be new, gets the private key",
)
@option(
    "--recipient",
    section=_ENCRYPTION,
    metavar="KEY",
    action="append",
    help="encrypt to an age public key; once for each",
)
@option(
    "--password-file",
    section=_ENCRYPTION,
    metavar="FILE",
    help="encrypt with the password in FILE",
)
@option(
    "--no-encryption",
    section=_ENCRYPTION,
    action="store_true",
    help="store backups as they are: whoever can read the storage can read them",
)
@option(
    "--identity-file",
    section=_ENCRYPTION,
    metavar="FILE",
    help="age private key, to restore here; - removes it from the profile",
)
@option(
    "--key-page",
    section=_ENCRYPTION,
    metavar="FILE",
    help="write an HTML page of the private key, to print; FILE must be new",
)
@option(
    "--no-proof",
    action="store_true",
    help="do not try whether backups can be stored",
)
@with_profile
def configure(
    *,
    access_key: str | None,
    secret_key_file: str | None,
    bucket: str | None,
    vault: str | None,
    default_destination: str | None,
    region: str | None,
    endpoint_url: str | None,
    local_path: str | None,
    new_key: str | None,
    recipient: list[str] | None,
    password_file: str | None,
    no_encryption: bool,
    identity_file: str | None,
    key_page: str | None,
    no_proof: bool,
    profile: str,
    config: str | None,
) -> int | None:
    """Run ``bakthat configure``."""
    from bakthat.cli.configure import profile as profiles
    from bakthat.cli.configure.options import Options

    options = Options(
        access_key=access_key,
        secret_key_file=secret_key_file,
        bucket=bucket,
        vault=vault,
        default_destination=default_destination,
        region=region,
        endpoint_url=endpoint_url,
        local_path=local_path,
        new_key=new_key,
        recipient=recipient,
        password_file=password_file,
        no_encryption=no_encryption,
        identity_file=identity_file,
        key_page=key_page,
    )
    done = profiles.configure(profile, config, options)
    named = options_of(profile, config)
    _print_written(done)
    done.write_page()
    _print_advice(done, named)
    started = time.monotonic()
    try:
        found = [] if no_proof else _prove(profile, config)
    except BaseException as exc:
        exc.add_note(f"profile '{profile}' was written to {done.config}")
        raise
    is_usable = not any(each.is_problem for each in found)
    if not is_usable and output.is_json():
        _print_problem(named)

    def show() -> None:
        print_findings(found)
        terminal.flush()
        if not is_usable:
            _print_problem(named)

    proved = ", which can store backups" if found and is_usable else ""
    print_result(
        Summary(
            f"Wrote profile '{profile}'{proved}",
            time.monotonic() - started,
            next_step=f"Next: bakthat backup DIRECTORY{named}" if is_usable else "",
            facts=_facts(done),
        ),
        show,
        (("check", each.as_dict()) for each in found),
    )
    return None if is_usable else ExitCode.FAILED


def _print_problem(named: str) -> None:
    print_error(
        "the profile was written, but it cannot store backups yet",
        f"mend what was found, then try again: bakthat doctor{named}",
    )


def _facts(done: Configured) -> dict[str, str]:
    facts = {"file": str(done.config)}
    if done.new_key is not None:
        facts |= {"recipient": done.new_key.recipient, "identity_file": done.new_key.file}
    if done.page is not None:
        facts["key_page"] = str(done.page)
    return facts


def _print_written(done: Configured) -> None:
    """Print what was written; a new private key to a person at a terminal, never to a log."""
    key = done.new_key
    if terminal.is_interactive():
        terminal.say("")
    if not output.is_json():
        lines = [f"profile '{printable(done.profile)}' written to {printable(done.config)}"]
        if key is not None:
            lines += [f"private key written to {key.file}", f"public key: {key.recipient}"]
        # The page and the proof come all the same, and then the error is found again.
        with contextlib.suppress(terminal.OutputError):
            terminal.print_line("\n".join(lines))
            terminal.flush()
    if key is not None and terminal.is_interactive():
        terminal.say(f"\nThe private key, shown this once:\n\n    {key.identity}\n")


def _print_advice(done: Configured, named: str) -> None:
    lines = []
    if done.new_key is not None:
        lines += [
            "Keep a copy of the private key elsewhere: without it nobody can restore, not",
            "even you. A machine that only makes backups does not need it: there, move the",
            "file away, and take it out of the profile:",
            f"    bakthat configure{named} --identity-file -",
        ]
        if done.page is None:
            lines += [
                "A page of it, to print:",
                f"    bakthat configure{named} --key-page key.html",
            ]
    if done.page is not None:
        lines += ["Print this page, then delete the file:", f"    {printable(done.page)}"]
    for line in lines:
        log.info("%s", line)
    for note in done.notes:
        log.warning("%s", note)
    from bakthat.conf import load_profile

    sources = load_profile(done.profile, config=done.config).sources.values()
    variables = sorted(each.name for each in sources if each.kind == "variable")
    if variables:
        log.warning("variables of the environment win over the profile: %s", ", ".join(variables))


def _prove(profile: str, config: str | None) -> list[Finding]:
    from bakthat.operations.doctor.proof import prove_container
    from bakthat.session.session import Session

    session = Session(profile, config, None)
    log.info("Trying to write, read and delete on %s...", session.destination)
    return prove_container(session, create=True)


_ANSWERS = "what is kept (- removes a value)"


@command(
    "configure_backups_rotation",
    "set how many backups rotation keeps",
    group=SETUP,
    example="bakthat configure_backups_rotation --days 7 --weeks 4 --months 6",
)
@option("--days", section=_ANSWERS, metavar="N", help="keep one backup for each of N days")
@option("--weeks", section=_ANSWERS, metavar="N", help="likewise for weeks")
@option("--months", section=_ANSWERS, metavar="N", help="likewise for months")
@option(
    "--first-week-day",
    section=_ANSWERS,
    metavar="DAY",
    help="day on which a week begins: its name, or 0 (monday) to 6",
)
@with_profile
def configure_backups_rotation(
    *,
    days: str | None,
    weeks: str | None,
    months: str | None,
    first_week_day: str | None,
    profile: str,
    config: str | None,
) -> None:
    """Run ``bakthat configure_backups_rotation``."""
    from bakthat.cli.configure.rotation import configure_rotation

    given = {"days": days, "weeks": weeks, "months": months, "first_week_day": first_week_day}
    path = configure_rotation(profile, config, given)
    done = f"rotation of profile '{printable(profile)}' written to {path}"
    print_listing(lambda: terminal.print_line(done), (), file=str(path))


CHECK, SHOW, SCHEMA = ACTIONS = ("check", "show", "schema")
"""What ``config`` does."""


@command(
    "config",
    "check or show the configuration, or its schema",
    group=SETUP,
    example="bakthat config check",
    exits={ExitCode.FAILED: "a profile or a variable is wrong, or failed"},
)
@option(
    "action",
    metavar="ACTION",
    choices=ACTIONS,
    help="check (all profiles and jobs, and the environment), show (one profile, its secrets "
    "hidden, and where each value comes from) or schema (a JSON schema of the file, for editors)",
)
@with_profile
def config_command(*, action: str, profile: str, config: str | None) -> int | None:
    """Run ``bakthat config``."""
    if action == CHECK:
        return _check(profile, config)
    if action == SHOW:
        _show(profile, config)
    else:
        from bakthat.conf import json_schema

        if output.is_json():
            raise UsageError("config schema takes no --json: its output is a file")
        print_text(f"{json.dumps(json_schema(), indent=2, ensure_ascii=False)}\n")
    return None


def _check(profile: str, config: str | None) -> int | None:
    from bakthat.operations.configuration.check import check_configuration

    started = time.monotonic()
    report = check_configuration(profile, config)
    verdicts = [each.verdict.value for each in report.findings]
    counts = {verdict: verdicts.count(verdict) for verdict in STYLES}
    good, warnings, problems = counts.values()
    done = "Checked the environment; there is no configuration file"
    if report.files:
        number = counted(len(report.profiles), "profile")
        if report.jobs:
            number += f" and {counted(len(report.jobs), 'job')}"
        where = str(report.files[0]) if len(report.files) == 1 else f"{len(report.files)} files"
        done = f"Checked {number} of {where} and the environment"
    facts = {
        "profiles": len(report.profiles),
        "jobs": len(report.jobs),
        "good": good,
        "advice": warnings,
    }
    if problems:
        print_error(f"{counted(problems, 'problem')} found")
    print_result(
        Summary(
            f"{done}: {counted(problems, 'problem')}",
            time.monotonic() - started,
            warnings=warnings,
            facts={**facts, "problems": problems},
        ),
        lambda: _print_report(report.findings),
        (("check", each.as_dict()) for each in report.findings),
    )
    return ExitCode.FAILED if problems else None


def _print_report(findings: Sequence[Finding]) -> None:
    """Print a line for each problem and warning, as compilers do, and below it what to do."""
    for each in findings:
        if each.verdict != "good":
            start = "" if each.is_problem else "warning: "
            terminal.print_line(f"{start}{each.detail}")
            if each.hint:
                terminal.print_line(f"  hint: {each.hint}")


def _show(profile: str, config: str | None) -> None:
    from bakthat.operations.configuration.show import as_yaml, effective_settings

    loaded, settings = effective_settings(profile, config)

    def show() -> None:
        for line in as_yaml(loaded, settings):
            terminal.print_line(line)

    print_listing(
        show,
        (("setting", each.as_dict()) for each in settings),
        profile=loaded.name,
    )


@command(
    "completion",
    "print a script that completes commands in a shell",
    group=SETUP,
    example="bakthat completion bash > bakthat.bash",
    is_file=True,
)
@option("shell", metavar="SHELL", choices=SHELLS, help=", ".join(SHELLS))
def completion(*, shell: str) -> None:
    """Run ``bakthat completion``."""
    from bakthat.cli.completion.script import script

    print_text(script(shell))
