"""Let a job run every night: ``bakthat schedule``."""

from __future__ import annotations

import logging
import os
import shlex
import time
from typing import TYPE_CHECKING

from bakthat.cli.app import CONFIGURATION, SETUP, command, option
from bakthat.cli.exit_codes import ExitCode
from bakthat.cli.output import Line, Summary, print_listing, print_result
from bakthat.errors import UsageError
from bakthat.system import terminal
from bakthat.system.text import printable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bakthat.jobs.schedule.service import Service
    from bakthat.jobs.schedule.when import Daily, When

log = logging.getLogger("bakthat")

_WHEN = "when"
_DONE = "what is done (by default, it is printed)"


@command(
    "schedule",
    "run a job every night, by systemd or cron",
    group=SETUP,
    example="bakthat schedule nightly --at 04:30",
    exits={ExitCode.FAILED: "failed, or the timer was written but is not on"},
)
@option("job", metavar="JOB", help="name of a job in the configuration")
@option("--at", section=_WHEN, metavar="TIME", help="time of the day (default: 04:30)")
@option(
    "--calendar",
    section=_WHEN,
    metavar="TEXT",
    help="calendar of systemd in place of --at, such as 'Mon..Fri 12:00'",
)
@option(
    "--jitter",
    section=_WHEN,
    metavar="MINUTES",
    type=int,
    help="up to so many minutes later, each machine at its own time (default: 15)",
)
@option("--install", section=_DONE, action="store_true", help="write it, and start the timer")
@option("--remove", section=_DONE, action="store_true", help="remove what --install wrote")
@option("--cron", action="store_true", help="a line of this user's crontab, not a timer")
@option(
    "--user",
    action="store_true",
    help="a timer of this user, which is all that users but root can have",
)
@option(
    "-c",
    "--config",
    section=CONFIGURATION,
    metavar="FILE",
    help="configuration file (default: $BAKTHAT_CONFIG, or ~/.bakthat.yml)",
)
def schedule(
    *,
    job: str,
    at: str | None,
    calendar: str | None,
    jitter: int | None,
    install: bool,
    remove: bool,
    cron: bool,
    user: bool,
    config: str | None,
) -> None:
    """Run ``bakthat schedule``."""
    from bakthat import conf
    from bakthat.system.paths import expanded

    _check_options(at, calendar, jitter, install=install, remove=remove, cron=cron, user=user)
    config = config or conf.default_config()
    is_users = user or os.geteuid() != 0
    if remove:
        path = "" if config is None else str(expanded(config))
        _remove(job, path, cron=cron, is_users=is_users)
        return
    from bakthat.jobs.schedule import when as times

    minutes = times.DEFAULT_JITTER if jitter is None else jitter
    daily = times.daily(at or times.DEFAULT_TIME, minutes)
    if cron:
        _schedule_by_cron(_service(job, config), daily, install=install)
        return
    when = daily if calendar is None else times.calendar(calendar, minutes)
    _schedule_by_systemd(_service(job, config), when, install=install, is_users=is_users)


def _check_options(
    at: str | None,
    calendar: str | None,
    jitter: int | None,
    *,
    install: bool,
    remove: bool,
    cron: bool,
    user: bool,
) -> None:
    """Raise UsageError for options that exclude each other."""
    pairs = [
        ("--install", install, "--remove", remove),
        ("--at", at is not None, "--calendar", calendar is not None),
        ("--cron", cron, "--calendar", calendar is not None),
        ("--cron", cron, "--user", user),
        *[
            ("--remove", remove, name, value is not None)
            for name, value in (("--at", at), ("--calendar", calendar), ("--jitter", jitter))
        ],
    ]
    for one, has_one, other, has_other in pairs:
        if has_one and has_other:
            raise UsageError(f"{one} and {other} exclude each other", hint="give one of them")


def _service(job: str, config: str | None) -> Service:
    """Return what runs a job. Raises ConfigError, and UsageError for a configuration in a pipe."""
    from bakthat import conf
    from bakthat.jobs.schedule.service import foreign_variables, service_of

    configuration = conf.read_configuration(config)
    if configuration.is_named and not configuration.path.is_file():
        raise UsageError(
            f"the configuration {printable(configuration.path)} is no file, so it is gone when "
            "the job runs",
            hint="write it into a file",
        )
    loaded = configuration.job(job)
    service = service_of(
        configuration, loaded, conf.load_profile(loaded.job.profile, config=config)
    )
    for variable in foreign_variables():
        log.warning("%s is set here, but not when the job runs: put it into the profile", variable)
    return service


def _schedule_by_systemd(service: Service, when: When, *, install: bool, is_users: bool) -> None:
    from bakthat.jobs.schedule import crontab, systemd
    from bakthat.jobs.schedule.units import units_of

    started = time.monotonic()
    missing = when.missing_day(time.time())
    if missing:
        log.warning(
            "that time does not come on %s, so there is no run; 04:30 always comes", missing
        )
    units = units_of(service, when, is_users=is_users)
    place = systemd.Place(is_users=is_users)
    paths = place.files(units.name)
    texts = dict(zip(paths, (units.service, units.timer), strict=True))
    lines = [
        ("schedule", {"kind": path.suffix[1:], "path": str(path), "text": text})
        for path, text in texts.items()
    ]
    if not install:
        shown = "\n".join(f"# {path}\n{text}" for path, text in texts.items())
        _print(shown, lines)
        return
    systemd.install_units(place, units, service.config)
    if crontab.has(units.name):
        log.warning("the crontab runs the job too: %s", _removal(service, "--cron"))
    if is_users:
        log.info("It runs while you are logged in; loginctl enable-linger makes it run always")
    done = Summary(
        f"{paths[1].name} runs the job {when}",
        time.monotonic() - started,
        next_step=f"Try it now: {place.start_line(units.name)}",
        facts={"installed": True},
    )
    print_result(done, None, lines)


def _schedule_by_cron(service: Service, when: Daily, *, install: bool) -> None:
    from bakthat import conf
    from bakthat.jobs.schedule import crontab, systemd

    started = time.monotonic()
    entry = crontab.entry_of(service, when, conf.machine_name())
    lines = [("schedule", {"kind": "crontab", "path": None, "text": entry.text})]
    if not install:
        _print(entry.text, lines)
        return
    crontab.install_entry(entry)
    for user in ((), ("--user",)):
        place = systemd.Place(is_users=bool(user))
        if place.has(entry.name):
            timer = place.files(entry.name)[1]
            log.warning("%s runs the job too: %s", timer, _removal(service, *user))
    minute, hour = entry.line.split()[:2]
    done = Summary(
        f"The crontab runs the job daily at {int(hour):02d}:{int(minute):02d}",
        time.monotonic() - started,
        facts={"installed": True},
    )
    print_result(done, None, lines)


def _removal(service: Service, *options: str) -> str:
    """Return what to type to remove what else runs a job."""
    config = ("-c", service.config) if service.config else ()
    return shlex.join(["bakthat", "schedule", service.job, *config, *options, "--remove"])


def _print(text: str, lines: Sequence[Line]) -> None:
    print_listing(lambda: terminal.print_line(text.rstrip("\n")), lines, installed=False)


def _remove(job: str, config: str, *, cron: bool, is_users: bool) -> None:
    from bakthat.jobs.schedule import crontab, systemd

    started = time.monotonic()
    if cron:
        crontab.remove_entry(job, config)
        done = "Removed the line of the job from the crontab"
    else:
        paths = systemd.remove_units(systemd.Place(is_users=is_users), job, config)
        names = " and ".join(each.name for each in paths)
        done = f"Removed {names} from {paths[0].parent}"
    print_result(Summary(done, time.monotonic() - started, facts={"installed": False}))
