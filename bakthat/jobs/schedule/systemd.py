"""Install the units of a job, and remove them."""

from __future__ import annotations

import os
import shlex
from pathlib import Path

from bakthat.errors import NoMatchError, ScheduleError
from bakthat.jobs.schedule.units import WRITTEN, Units, first_line
from bakthat.jobs.schedule.words import job_of_unit, unit_name
from bakthat.system.files import replace_file, sync_directory
from bakthat.system.paths import expanded
from bakthat.system.programs import Program, find_program, run_program
from bakthat.system.text import did_you_mean, printable, reason_of

SYSTEM_UNITS = Path("/etc/systemd/system")
_RUNS = Path("/run/systemd/system")
"""Exists while systemd is the init system, as :manpage:`sd_booted(3)` says."""
_MODE = 0o644
_PATIENCE = 120.0
"""Seconds that systemd may take."""


class Place:
    """The systemd of the system or of this user, and the directory of its units."""

    def __init__(self, *, is_users: bool) -> None:
        self.is_users = is_users
        base = os.environ.get("XDG_CONFIG_HOME", "")
        home = Path(base) if os.path.isabs(base) else expanded("~/.config")
        self.directory = home / "systemd" / "user" if is_users else SYSTEM_UNITS

    @property
    def systemctl(self) -> tuple[str, ...]:
        """The words with which a command for this systemd begins."""
        return ("systemctl", "--user") if self.is_users else ("systemctl",)

    def files(self, name: str) -> tuple[Path, Path]:
        """Return the service and the timer of the units *name*."""
        return self.directory / f"{name}.service", self.directory / f"{name}.timer"

    def has(self, name: str) -> bool:
        """Return whether a timer of that name is there which bakthat has written.

        One that cannot be read is none.
        """
        try:
            return _beginning(self.files(name)[1]).startswith(WRITTEN)
        except OSError:
            return False

    def start_line(self, name: str) -> str:
        """Return what to type to run the job now, as the timer does."""
        return shlex.join([*self.systemctl, "start", f"{name}.service"])


def install_units(place: Place, units: Units, config: str) -> None:
    """Write the units of a job of the configuration *config*, and start the timer.

    Units that bakthat has written for the same configuration are replaced. Raises ScheduleError:
    before anything is written when other units have the names, and afterwards when systemd does not
    run or refuses; the message says so.
    """
    if find_program("systemctl") is None:
        raise ScheduleError(
            "there is no systemd here: systemctl is not on PATH",
            hint="--cron makes a line of a crontab instead",
        )
    service, timer = place.files(units.name)
    for path in (service, timer):
        _check_owner(path, config)
    try:
        place.directory.mkdir(parents=True, exist_ok=True)
        replace_file(service, units.service.encode(), mode=_MODE)
        replace_file(timer, units.timer.encode(), mode=_MODE)
    except OSError as exc:
        raise ScheduleError(
            f"cannot write the units of the job in {printable(place.directory)}: {reason_of(exc)}",
            hint="" if place.is_users else "--user makes a timer of this user",
        ) from exc
    # A timer that runs already takes a new time only when it is started again.
    commands = [["daemon-reload"], ["enable", timer.name], ["restart", timer.name]]
    state = f"{service} and {timer.name} were written, but the timer is not on"
    if not _RUNS.is_dir():
        raise ScheduleError(
            f"{printable(state)}: systemd does not run here",
            hint=f"where it runs, type: {_typed(place, commands)}",
        )
    _run_all(place, commands, state)


def remove_units(place: Place, job: str, config: str) -> tuple[Path, ...]:
    """Stop the timer of a job of the configuration *config*; remove its units, and return them.

    A run that goes on is not stopped. Raises NoMatchError when there are none, ScheduleError for
    those of others and when systemd refuses.
    """
    name = unit_name(job)
    found = tuple(each for each in place.files(name) if os.path.lexists(each))
    if not found:
        names = [each.stem for each in place.directory.glob("bakthat-*.timer")]
        jobs = [job_of_unit(each) for each in names if place.has(each)]
        raise NoMatchError(
            f"there is no timer of the job '{printable(job)}' in {printable(place.directory)}",
            hint=did_you_mean(job, jobs) or "for a line of the crontab: --cron --remove",
        )
    for path in found:
        _check_owner(path, config)
    timer = f"{name}.timer"
    if _RUNS.is_dir():
        _run_all(place, [["disable", "--now", timer]], f"systemd still has {timer}")
    try:
        for path in (place.directory / "timers.target.wants" / timer, *found):
            path.unlink(missing_ok=True)
        sync_directory(place.directory)
    except OSError as exc:
        raise ScheduleError(
            f"cannot remove {timer} from {printable(place.directory)}: {reason_of(exc)}"
        ) from exc
    if _RUNS.is_dir():
        _run_all(place, [["daemon-reload"]], f"systemd still has {timer}")
    return found


def _check_owner(path: Path, config: str) -> None:
    """Raise ScheduleError for a file that bakthat has not written for *config*."""
    try:
        beginning = _beginning(path)
    except OSError as exc:
        raise ScheduleError(f"cannot read {printable(path)}: {reason_of(exc)}") from exc
    if not os.path.lexists(path) or beginning == first_line(config):
        return
    if beginning.startswith(WRITTEN):
        raise ScheduleError(
            f"{printable(path)} is for a job of that name in "
            f"{beginning.removeprefix(WRITTEN).removesuffix('.')}",
            hint="give one of the jobs another name, or use the same -c",
        )
    raise ScheduleError(
        f"{printable(path)} was not written by bakthat schedule, so it stays as it is",
        hint="move it away, or give the job another name",
    )


def _beginning(path: Path) -> str:
    """Return the first line of a file; "" when there is none. Raises OSError."""
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.readline(4096).rstrip("\n")
    except FileNotFoundError:
        return ""


def _run_all(place: Place, commands: list[list[str]], state: str) -> None:
    """Let systemd do *commands*. Raises ScheduleError, which says the *state* that is left."""
    for each in commands:
        problem = _problem_of((*place.systemctl, *each))
        if problem:
            raise ScheduleError(
                f"{printable(state)}: {problem}",
                hint=f"change that, then type: {_typed(place, commands)}",
            )


def _typed(place: Place, commands: list[list[str]]) -> str:
    return " && ".join(shlex.join([*place.systemctl, *each]) for each in commands)


def _problem_of(words: tuple[str, ...]) -> str:
    """Run a command of systemctl; return why it has failed, or ""."""
    try:
        ended, _ = run_program(Program("systemctl", words), timeout=_PATIENCE)
    except OSError as exc:
        return f"systemctl cannot be run: {reason_of(exc)}"
    return "" if ended.succeeded else f"systemctl {ended.problem()}"
