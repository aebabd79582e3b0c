"""The service and the timer of a job, as files of systemd.

A service of the system gets every protection that a job does without: bakthat reads everything and
writes to few places. Commands of the user (hooks, commands as sources, plugins of his own) may do
all that their author does, so a job that has some gets none of those that could stop one. Nor does
a service of the user get those that need a mount namespace: without privileges, that comes with a
user namespace, in which the files of all others belong to nobody, and backups would say so.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from bakthat.errors import ScheduleError
from bakthat.jobs.schedule.service import Service
from bakthat.jobs.schedule.when import When
from bakthat.jobs.schedule.words import exec_line, unit_name, unit_text, unit_word
from bakthat.system.text import enumerate_some, printable

WRITTEN = "# Written by bakthat schedule for "
"""How the first line of each unit begins; the rest of it is the configuration."""


class Protection(NamedTuple):
    """A setting that takes something away from the service."""

    setting: str
    hides: tuple[str, ...] = ()
    """What the service does not see with it, or sees empty."""


_TEMPORARY = ("/tmp", "/var/tmp")  # nothing is written there
_DEVICES = ("/dev",)
_FILES = (
    Protection("ProtectSystem=strict"),
    Protection("ProtectHome=read-only"),
    Protection("PrivateTmp=yes", _TEMPORARY),
    Protection("PrivateDevices=yes", _DEVICES),
    Protection("DevicePolicy=closed"),
    Protection("ProtectKernelTunables=yes"),
    Protection("ProtectKernelModules=yes", ("/usr/lib/modules", "/lib/modules")),
    Protection("ProtectKernelLogs=yes"),
    Protection("ProtectControlGroups=yes"),
    Protection("ProtectClock=yes"),
    Protection("ProtectHostname=yes"),
)
"""What needs a mount namespace, or privileges."""
_CALLS = (
    "NoNewPrivileges=yes",
    "RestrictAddressFamilies=AF_INET AF_INET6 AF_UNIX AF_NETLINK",
    "RestrictNamespaces=yes",
    "RestrictRealtime=yes",
    "LockPersonality=yes",
    "MemoryDenyWriteExecute=yes",
    "SystemCallArchitectures=native",
    "SystemCallFilter=@system-service",
    "SystemCallErrorNumber=EPERM",
)
"""What any user may take away from a process."""
_READ = "CAP_DAC_READ_SEARCH"
_WRITE = "CAP_DAC_OVERRIDE"
_RESTORE = f"CAP_CHOWN {_WRITE} CAP_FOWNER CAP_FSETID CAP_MKNOD CAP_SETFCAP"
"""What a restore needs to give files their owners, modes and attributes."""


@dataclass(frozen=True, slots=True)
class Units:
    """The two files of a job."""

    name: str
    """Without a type: ``bakthat-nightly``."""
    service: str
    timer: str


def units_of(service: Service, when: When, *, is_users: bool) -> Units:
    """Return the units of a job: for the user's own systemd, or that of the system.

    Looks which of the directories exist that the service writes to. Raises ScheduleError.
    """
    name = unit_name(service.job)
    return Units(
        name,
        _text(_service_lines(service, name, is_users=is_users)),
        _text(_timer_lines(service, when)),
    )


def first_line(config: str) -> str:
    """Return the first line of the units for the jobs of a configuration; "" is the default one."""
    return f"{WRITTEN}{printable(config) if config else 'the default configuration'}."


def _text(lines: Iterator[str]) -> str:
    return "".join(f"{line}\n" for line in lines)


def _timer_lines(service: Service, when: When) -> Iterator[str]:
    yield first_line(service.config)
    yield "[Unit]"
    yield f"Description=Time of {_described(service)}"
    yield ""
    yield "[Timer]"
    yield f"OnCalendar={when.calendar}"
    if when.jitter:
        yield "# Not all machines at once, and each at its own time every day."
        yield f"RandomizedDelaySec={when.jitter}min"
        yield "FixedRandomDelay=yes"
    yield "# A run that was missed, since the machine was off, is made up for."
    yield "Persistent=yes"
    yield ""
    yield "[Install]"
    yield "WantedBy=timers.target"


def _service_lines(service: Service, name: str, *, is_users: bool) -> Iterator[str]:
    edit = f"systemctl {'--user ' if is_users else ''}edit {shlex.quote(f'{name}.service')}"
    yield first_line(service.config)
    yield f"# --install replaces it; your own settings stay with: {edit}"
    yield "[Unit]"
    yield f"Description={_described(service)}"
    if not is_users:  # the user's systemd has no such target
        yield "Wants=network-online.target"
        yield "After=network-online.target"
    yield ""
    yield "[Service]"
    yield "Type=oneshot"
    yield f"ExecStart={exec_line(service.run())}"
    for variable, value in service.environment:
        yield f"Environment={unit_word(f'{variable}={value}')}"
    yield "# 5: another run of the same set still goes, which is no failure. 3, incomplete, is one."
    yield "SuccessExitStatus=5"
    yield "TimeoutStartSec=infinity"
    yield "# bakthat ends its programs itself, and runs the commands of 'after' then."
    yield "KillMode=mixed"
    yield "TimeoutStopSec=5min"
    yield "Nice=10"
    yield "IOSchedulingClass=idle"
    if not is_users:
        yield from _credential_lines(service)
    yield ""
    if service.commands:
        yield from _open_lines(service)
    elif is_users:
        yield from _calls(service)
    else:
        yield from _closed_lines(service)


def _described(service: Service) -> str:
    # The name is not the end, where a backslash would continue the line.
    return f"bakthat (job {unit_text(service.job)})"


def _credential_lines(service: Service) -> Iterator[str]:
    for key, path in service.secrets:
        # systemd takes the rest of the line as it is, but for white space and a backslash there.
        if path == path.rstrip().rstrip("\\"):
            yield f"LoadCredential=bakthat.{key}:{unit_text(path)}"


def _open_lines(service: Service) -> Iterator[str]:
    commands = enumerate_some([printable(each) for each in service.commands])
    yield f"# The job has commands or plugins of yours ({commands}), which run in this service."
    yield "# They may need to write, mount, change the user or send a mail. So it is as open as a"
    yield "# shell; if yours only read, add protections with systemctl edit (systemd.exec(5))."


def _calls(service: Service) -> Iterator[str]:
    yield from _CALLS
    if not service.restores:  # a drill gives files all of their modes
        yield "RestrictSUIDSGID=yes"


def _closed_lines(service: Service) -> Iterator[str]:
    writes = [_existing(each) for each in service.writes]
    yield "# bakthat reads everything, and writes only here."
    for protection in _FILES:
        problem = _problem_with(protection, service)
        yield f"# Not {protection.setting}: {problem}." if problem else protection.setting
        if problem and protection.hides == _TEMPORARY:
            writes += [each for each in _TEMPORARY if os.path.isdir(each)]
    for path in _outermost(writes):
        # Without the hyphen, a missing directory would keep bakthat from telling of it.
        yield f"ReadWritePaths={unit_word(f'-{path}')}"
    yield from _calls(service)
    if service.restores:
        yield "# A drill restores files with their owners and modes."
        yield f"CapabilityBoundingSet={_READ} {_RESTORE}"
        return
    foreign = [each for each in _outermost(writes) if os.stat(each).st_uid != 0]
    if foreign:
        yield f"# {_WRITE}: {printable(foreign[0])} belongs to another user."
    yield f"CapabilityBoundingSet={_READ} {_WRITE if foreign else ''}".rstrip()


def _problem_with(protection: Protection, service: Service) -> str:
    """Return why the job does not run with a protection; "" when it does."""
    for path in service.reads:
        for hidden in protection.hides:
            if os.path.commonpath([path, hidden]) in (path, hidden):
                return f"it would hide {printable(path)}, or a part of that"
    if protection.hides == _TEMPORARY and service.has_databases:
        return "the socket of a database may be there"
    if protection.hides == _DEVICES and service.restores:
        return "a drill makes all kinds of files"
    return ""


def _existing(path: str) -> str:
    """Return *path* or, where it does not exist yet, what exists above it. Raises ScheduleError."""
    found = next(str(each) for each in (Path(path), *Path(path).parents) if each.is_dir())
    if found == "/" != path:
        raise ScheduleError(
            f"the job writes to {printable(path)}, which does not exist: only a service that may "
            "write everywhere could make it",
            hint=f"make it first: mkdir -p {shlex.quote(path)}",
        )
    return found


def _outermost(paths: list[str]) -> list[str]:
    """Return *paths* without those that are inside of others."""
    kept = [
        each
        for each in dict.fromkeys(paths)
        if not any(other != each and Path(each).is_relative_to(other) for other in paths)
    ]
    return sorted(kept)
