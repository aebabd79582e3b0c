"""The text of services and timers: what they have, and that systemd takes them."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bakthat.errors import ScheduleError
from bakthat.jobs.schedule.service import Service
from bakthat.jobs.schedule.units import Units, first_line, units_of
from bakthat.jobs.schedule.when import Calendar, Daily
from tests.support.needs import as_root, program
from tests.support.schedules import NAMES, service

NIGHT = Daily(4, 30, 15)


def lines_of(made: Service, *, is_users: bool = False) -> list[str]:
    return units_of(made, NIGHT, is_users=is_users).service.splitlines()


def values(lines: list[str], setting: str) -> list[str]:
    return [each.partition("=")[2] for each in lines if each.startswith(f"{setting}=")]


@pytest.fixture
def directory() -> Iterator[Path]:
    """Make a directory whose path is short enough for sockets."""
    with tempfile.TemporaryDirectory(prefix="units") as made:
        yield Path(made)


def verified(units: Units, directory: Path, *, is_users: bool = False) -> str:
    """Return what ``systemd-analyze verify`` says of two units; "" is nothing."""
    for name, text in (("service", units.service), ("timer", units.timer)):
        (directory / f"{units.name}.{name}").write_text(text)
    done = subprocess.run(
        [
            program("systemd-analyze"),
            *(["--user"] if is_users else []),
            "verify",
            directory / f"{units.name}.timer",
            directory / f"{units.name}.service",
        ],
        env={**os.environ, "XDG_RUNTIME_DIR": str(directory)},
        capture_output=True,
        text=True,
    )
    return done.stderr if done.stderr or done.returncode == 0 else f"exit {done.returncode}"


def test_a_service_that_only_reads_has_every_protection() -> None:
    lines = lines_of(service())
    assert "Type=oneshot" in lines
    assert values(lines, "ExecStart") == ["/usr/bin/bakthat run nightly"]
    assert values(lines, "Environment") == ["HOME=/root"]
    assert values(lines, "CapabilityBoundingSet") == ["CAP_DAC_READ_SEARCH"]
    assert values(lines, "ReadWritePaths") == ["-/usr"]
    assert values(lines, "After") == ["network-online.target"]
    for setting in ("NoNewPrivileges", "PrivateTmp", "PrivateDevices", "ProtectKernelModules"):
        assert values(lines, setting) == ["yes"]
    assert values(lines, "ProtectSystem") == ["strict"]
    assert values(lines, "SuccessExitStatus") == ["5"], "3 is a failure of the service"
    assert not [each for each in lines if "# Not " in each]


def test_the_timer_makes_up_for_a_missed_night() -> None:
    timer = units_of(service(), NIGHT, is_users=False).timer.splitlines()
    assert values(timer, "OnCalendar") == ["*-*-* 04:30:00"]
    assert values(timer, "RandomizedDelaySec") == ["15min"]
    assert values(timer, "Persistent") == ["yes"]
    assert values(timer, "WantedBy") == ["timers.target"]
    timer = units_of(service(), Calendar("hourly", 0), is_users=False).timer.splitlines()
    assert values(timer, "OnCalendar") == ["hourly"]
    assert values(timer, "RandomizedDelaySec") == []


def test_a_job_with_commands_is_as_open_as_a_shell_and_says_why() -> None:
    lines = lines_of(service(commands=("before", "source 2"), secrets=(("password", "/p"),)))
    assert "(before, source 2)" in "\n".join(lines)
    assert values(lines, "LoadCredential") == ["bakthat.password:/p"]
    closing = r"(Protect|Private|Restrict|NoNew|Capability|SystemCall|MemoryDeny|ReadWrite|Device)"
    assert [each for each in lines if re.match(closing, each)] == []


@pytest.mark.parametrize(
    ("path", "left_out"),
    [
        ("/tmp/upload", ["PrivateTmp"]),
        ("/var/tmp", ["PrivateTmp"]),
        ("/var", ["PrivateTmp"]),
        ("/dev/shm/x", ["PrivateDevices"]),
        ("/usr", ["ProtectKernelModules"]),
        ("/lib/modules/6.1", ["ProtectKernelModules"]),
        ("/", ["PrivateTmp", "PrivateDevices", "ProtectKernelModules"]),
        ("/tmpfiles", []),
        ("/home/you/tmp", []),
    ],
)
def test_no_protection_hides_what_is_backed_up(path: str, left_out: list[str]) -> None:
    lines = lines_of(service(reads=("/etc", path)))
    assert re.findall(r"# Not (\w+)=", "\n".join(lines)) == left_out
    for setting in left_out:
        assert values(lines, setting) == []
        assert f"it would hide {path}, or a part of that." in "\n".join(lines)
    writes = ["-/tmp", "-/usr", "-/var/tmp"] if "PrivateTmp" in left_out else ["-/usr"]
    assert values(lines, "ReadWritePaths") == writes


def test_the_socket_of_a_database_may_be_in_tmp() -> None:
    lines = lines_of(service(has_databases=True))
    assert values(lines, "PrivateTmp") == []
    assert values(lines, "ReadWritePaths") == ["-/tmp", "-/usr", "-/var/tmp"]


def test_a_drill_may_give_files_away_but_open_no_disk() -> None:
    lines = lines_of(service(restores=True))
    (capabilities,) = values(lines, "CapabilityBoundingSet")
    assert {"CAP_CHOWN", "CAP_FOWNER", "CAP_MKNOD"} <= {*capabilities.split()}
    assert values(lines, "PrivateDevices") == values(lines, "RestrictSUIDSGID") == []
    assert values(lines, "DevicePolicy") == ["closed"]


@as_root
def test_a_store_of_another_user_can_be_written(directory: Path) -> None:
    (directory / "store").mkdir()
    made = service(writes=(str(directory / "store"), "/usr"))
    assert values(lines_of(made), "CapabilityBoundingSet") == ["CAP_DAC_READ_SEARCH"]
    os.chown(directory / "store", 1234, 1234)
    lines = lines_of(made)
    assert values(lines, "CapabilityBoundingSet") == ["CAP_DAC_READ_SEARCH CAP_DAC_OVERRIDE"]
    assert f"# CAP_DAC_OVERRIDE: {directory / 'store'} belongs to another user." in lines


def test_what_is_not_there_yet_is_made_by_the_first_run(directory: Path) -> None:
    lines = lines_of(service(writes=(f"{directory}/a/b", f"{directory}/c", "/usr/bin")))
    assert {*values(lines, "ReadWritePaths")} == {"-/usr/bin", f"-{directory}"}
    with pytest.raises(ScheduleError, match="writes to /no/such/store") as caught:
        lines_of(service(writes=("/no/such/store",)))
    assert caught.value.hint == "make it first: mkdir -p /no/such/store"
    assert values(lines_of(service(writes=("/",))), "ReadWritePaths") == ["-/"]


def test_a_service_of_a_user_has_no_mount_namespace() -> None:
    lines = lines_of(service(secrets=(("password", "/p"),)), is_users=True)
    assert values(lines, "NoNewPrivileges") == ["yes"]
    assert values(lines, "SystemCallFilter") == ["@system-service"]
    for setting in (
        "ProtectSystem",
        "PrivateTmp",
        "CapabilityBoundingSet",
        "LoadCredential",
        "After",
    ):
        assert values(lines, setting) == []


def test_the_first_line_says_for_which_configuration() -> None:
    units = units_of(service(config="/srv/my.yml"), NIGHT, is_users=False)
    for text in (units.service, units.timer):
        assert text.splitlines()[0] == first_line("/srv/my.yml")
    assert values(units.service.splitlines(), "ExecStart") == [
        "/usr/bin/bakthat run -c /srv/my.yml nightly"
    ]


@pytest.mark.parametrize("path", ["/etc/key", "/etc/my key:1", "/etc/100%"])
def test_a_secret_in_a_file_is_a_credential(path: str) -> None:
    lines = lines_of(service(secrets=(("password", path),)))
    shown = path.replace("%", "%%")
    assert values(lines, "LoadCredential") == [f"bakthat.password:{shown}"]


@pytest.mark.parametrize("path", ["/etc/key ", "/etc/key\\"])
def test_a_path_that_no_line_can_end_with_is_read_by_bakthat_itself(path: str) -> None:
    assert values(lines_of(service(secrets=(("password", path),))), "LoadCredential") == []


VARIANTS: list[dict[str, Any]] = [
    {},
    {"restores": True, "has_databases": True, "secrets": (("password", "/etc/a %b\\c"),)},
    {"reads": ("/",), "environment": (("HOME", "/a b'c\"d%n$e"), ("XDG_CACHE_HOME", "/ä"))},
    {"commands": ("before",), "config": "/srv/a b/100%.yml"},
]


@pytest.mark.needs("systemd-analyze")
@pytest.mark.parametrize("is_users", [False, True])
@pytest.mark.parametrize("variant", VARIANTS)
def test_systemd_takes_each_kind_of_unit(
    directory: Path, variant: dict[str, Any], is_users: bool
) -> None:
    made = service(words=(program("true"),), **variant)
    assert verified(units_of(made, NIGHT, is_users=is_users), directory, is_users=is_users) == ""


# systemd-analyze takes what follows a colon for an alias of the unit.
@pytest.mark.needs("systemd-analyze")
@pytest.mark.parametrize("job", [each for each in NAMES if ":" not in each])
def test_systemd_takes_the_units_of_every_name(directory: Path, job: str) -> None:
    assert (
        verified(units_of(in_directory(directory / "a", job), NIGHT, is_users=False), directory)
        == ""
    )


@pytest.mark.needs("systemd-analyze")
@pytest.mark.parametrize("name", ["a b", "100%d", "ä$x", "it's", 'a"b', "a\\b", "#x;"])
def test_systemd_takes_the_units_of_every_place(directory: Path, name: str) -> None:
    made = in_directory(directory / name, "nightly")
    assert verified(units_of(made, NIGHT, is_users=False), directory) == ""


def in_directory(directory: Path, job: str) -> Service:
    """Make a directory with the program; return the service of a job that has all there."""
    directory.mkdir()
    (directory / "bakthat").symlink_to(program("true"))
    return service(
        job=job,
        words=(str(directory / "bakthat"),),
        config=str(directory / "my.yml"),
        writes=(str(directory),),
    )


def test_a_command_to_type_in_a_comment_has_its_quotes() -> None:
    text = units_of(service(job="two words"), NIGHT, is_users=False).service
    (typed,) = re.findall(r"systemctl edit (.*)$", text, re.M)
    assert shlex.split(typed) == [r"bakthat-two\x20words.service"]
