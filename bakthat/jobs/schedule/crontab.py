"""The line of a job in the crontab of this user.

The line is between two comments of its own, and everything else stays as it is, byte for byte.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from bakthat.errors import NoMatchError, ScheduleError
from bakthat.jobs.schedule.service import Service, home_of_user
from bakthat.jobs.schedule.when import Daily
from bakthat.jobs.schedule.words import cron_command, job_of_unit, unit_name
from bakthat.system.paths import expanded
from bakthat.system.programs import Program, find_program, run_program
from bakthat.system.text import did_you_mean, printable, reason_of

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
"""As a service of systemd has it; that of cron is shorter."""
_LONGEST = 998
"""The most characters of a command that cron takes."""
_BEGIN = "# begin {name}, written by bakthat schedule for {config}"
_END = "# end {name}"
_EMPTY = ("no crontab for", "No such file or directory")
"""What ``crontab -l`` says when there is none: that of Debian and Fedora, and that of busybox."""


@dataclass(frozen=True, slots=True)
class Entry:
    """What the crontab has of a job."""

    name: str
    config: str
    line: str

    @property
    def text(self) -> str:
        """The line between its comments."""
        begin = _BEGIN.format(name=self.name, config=_shown(self.config))
        return f"{begin}\n{self.line}\n{_END.format(name=self.name)}\n"


def entry_of(service: Service, when: Daily, host: str) -> Entry:
    """Return the entry for a job on a host. Raises ScheduleError."""
    hour, minute = when.minute_of(host, service.job)
    home = home_of_user()
    variables = [each for each in service.environment if each != ("HOME", home)]
    # cron mails what is printed: with --quiet, only warnings and errors.
    command = cron_command(service.run("--quiet"), [*variables, ("PATH", PATH)])
    if len(command.encode()) > _LONGEST:
        raise ScheduleError(
            f"the command of the job '{printable(service.job)}' has more than {_LONGEST} "
            "characters, which cron does not take",
            hint="make symbolic links with short names, or use a timer of systemd",
        )
    return Entry(unit_name(service.job), service.config, f"{minute} {hour} * * * {command}")


def with_entry(text: bytes, entry: Entry) -> bytes:
    """Return the text of a crontab with *entry*, in place of the one of its name.

    Raises ScheduleError.
    """
    blocks = _blocks(text, entry.name, entry.config)
    new = entry.text.encode()
    if blocks:
        (start, end), *others = blocks
        return text[:start] + new + _without(text[end:], [(a - end, b - end) for a, b in others])
    return text + (b"\n" if text and not text.endswith(b"\n") else b"") + new


def without_entry(text: bytes, name: str, config: str) -> bytes:
    """Return the text of a crontab without the entry of a job. Raises ScheduleError."""
    return _without(text, _blocks(text, name, config))


def install_entry(entry: Entry) -> None:
    """Put *entry* into the crontab of this user. Raises ScheduleError."""
    _edit(entry.name, lambda text: with_entry(text, entry))


def remove_entry(job: str, config: str) -> None:
    """Remove the entry of a job from the crontab of this user.

    Raises NoMatchError when there is none, ScheduleError for that of another configuration.
    """
    name = unit_name(job)

    def changed(text: bytes) -> bytes:
        found = without_entry(text, name, config)
        if found == text:
            raise NoMatchError(
                f"the crontab has no line for the job '{printable(job)}'",
                hint=did_you_mean(job, _jobs_in(text)) or "for a timer of systemd: --remove",
            )
        return found

    _edit(name, changed)


def has(name: str) -> bool:
    """Return whether the crontab of this user has an entry *name*; False where it has none."""
    try:
        return name in map(unit_name, _jobs_in(_read()))
    except ScheduleError:
        return False


def _shown(config: str) -> str:
    return printable(config) if config else "the default configuration"


def _blocks(text: bytes, name: str, config: str) -> list[tuple[int, int]]:
    """Return where the entries *name* begin and end. Raises ScheduleError."""
    first = _BEGIN.format(name=name, config=_shown(config)).encode()
    last, any_config = _END.format(name=name).encode(), first.partition(b", ")[0] + b", "
    found, start, position = [], -1, 0
    for line in text.splitlines(keepends=True):
        bare = line.rstrip(b"\r\n")
        if bare.startswith(any_config):
            if bare != first:
                other = bare.rpartition(b" schedule for ")[2].decode(errors="replace")
                raise ScheduleError(
                    f"the crontab has a line for a job of that name in {printable(other)}",
                    hint="give one of the jobs another name, or use the same -c",
                )
            start = position if start < 0 else start
        position += len(line)
        if bare == last and start >= 0:
            found.append((start, position))
            start = -1
    if start >= 0:
        raise ScheduleError(
            f"the crontab has the line '{printable(first.decode())}', but not '{last.decode()}'",
            hint="add that after the job's line, with crontab -e, or remove both",
        )
    return found


def _without(text: bytes, blocks: list[tuple[int, int]]) -> bytes:
    for start, end in reversed(blocks):
        text = text[:start] + text[end:]
    return text


def _jobs_in(text: bytes) -> list[str]:
    before, after = _BEGIN.encode().split(b"{name}")
    after = after.partition(b"{")[0]
    lines = [line.removeprefix(before) for line in text.splitlines() if line.startswith(before)]
    names = [line.partition(after)[0] for line in lines if after in line]
    return [job_of_unit(each.decode(errors="surrogateescape")) for each in names]


def _edit(name: str, change: Callable[[bytes], bytes]) -> None:
    """Change the entry *name* in the crontab of this user. Raises ScheduleError."""
    with _alone():
        before = _read()
        text = change(before)
        if text == before:
            return
        if text:
            _crontab("-", input=text)
        else:
            _crontab("-r")
        if _read() != text:
            raise ScheduleError(
                f"another program has changed the crontab at the same time as {name}",
                hint="look at it with crontab -l, then try again",
            )


@contextlib.contextmanager
def _alone() -> Iterator[None]:
    """Let no other bakthat of this user change the crontab meanwhile.

    The lock is one of the home directory, so that no file is left. Where there is none, and on a
    network file system without locks for a directory, nothing is locked.
    """
    with contextlib.ExitStack() as opened:
        with contextlib.suppress(OSError):
            descriptor = os.open(expanded("~"), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            opened.callback(os.close, descriptor)
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield


def _read() -> bytes:
    """Return the crontab of this user; it is empty when there is none. Raises ScheduleError."""
    return _crontab("-l", or_empty=_EMPTY)


def _crontab(option: str, *, input: bytes = b"", or_empty: tuple[str, ...] = ()) -> bytes:
    """Run ``crontab`` and return what it prints. Raises ScheduleError."""
    if find_program("crontab") is None:
        raise ScheduleError(
            "there is no cron here: crontab is not on PATH",
            hint="install cron, or leave --cron out for a timer of systemd",
        )
    program = Program("crontab", ("crontab", option), {"LC_ALL": "C"})
    try:
        ended, output = run_program(program, input=input)
    except OSError as exc:
        raise ScheduleError(f"cannot run crontab: {reason_of(exc)}") from exc
    if ended.succeeded:
        return output
    if any(each in ended.stderr for each in or_empty):
        return b""
    raise ScheduleError(
        f"the crontab is as it was: crontab {ended.problem()}",
        hint="leave --cron out for a timer of systemd",
    )
