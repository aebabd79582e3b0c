"""Units under a real systemd: installed, run with all their protections, removed."""

from __future__ import annotations

import json
import os
import pwd
import re
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
import yaml

from bakthat.jobs.schedule.systemd import SYSTEM_UNITS
from bakthat.jobs.schedule.units import Units, units_of
from bakthat.jobs.schedule.when import Daily
from bakthat.jobs.schedule.words import unit_name
from tests.support.commandline import PATIENCE, PROJECT, CommandLine, Done
from tests.support.databases import postgresql_server, redis_server
from tests.support.needs import as_root
from tests.support.schedules import NAMES, service, with_mounts
from tests.support.servers import S3Server
from tests.support.systemd import Systemd, running_systemd

pytestmark = [pytest.mark.slow, as_root]

PROGRAM = """\
#!/opt/environment/bin/python
import sys
sys.path.insert(0, "/opt/project")
from bakthat.__main__ import main
sys.exit(main())
"""
LISTING = """\
#!/opt/environment/bin/python
import json, os, sys
with open("/srv/listing", "w") as file:
    json.dump([os.path.abspath(sys.argv[0]), *sys.argv[1:]], file)
"""


class Server:
    """A machine with systemd. Its user is root, with the home directory /srv/home."""

    def __init__(self, directory: Path, systemd: Systemd) -> None:
        self.directory = directory
        """What is /srv there."""
        self.systemd = systemd
        self.user = CommandLine(Path("/srv/home"), Path("/"))
        self.user.prefix = systemd.enter
        self.user.environment["PATH"] = f"/opt/bin:{os.environ['PATH']}"

    def configure(self, text: str) -> None:
        """Write the configuration of the user."""
        path = self.directory / "home" / ".bakthat.yml"
        path.write_text(text)
        path.chmod(0o600)

    def bakthat(self, *arguments: str) -> Done:
        """Run ``bakthat`` as a shell of root does."""
        return self.user.run_program("bakthat", *arguments)

    def start_instead(self, unit: str, *lines: str) -> int:
        """Start a service with other settings; return the exit code of its program."""
        settings = ["StandardOutput=append:/srv/log", "StandardError=append:/srv/log", *lines]
        place = self.systemd.units / f"{unit}.service.d"
        place.mkdir(exist_ok=True)
        (place / "test.conf").write_text("\n".join(["[Service]", *settings, ""]))
        self.systemd.systemctl("daemon-reload")
        self.systemd.run("systemctl", "start", f"{unit}.service")
        return int(self.systemd.property(f"{unit}.service", "ExecMainStatus"))

    def log(self) -> str:
        """Return what services have written, and forget it."""
        path = self.directory / "log"
        text = path.read_text()
        path.write_text("")
        return text


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    """Start a machine whose paths are those of a server, where PrivateTmp hides nothing."""
    for name in ("srv/home", "bin"):
        (tmp_path / name).mkdir(parents=True)
    program = tmp_path / "bin" / "bakthat"
    program.write_text(PROGRAM)
    program.chmod(0o755)
    places = {
        "/opt/environment": Path(sys.prefix),
        "/opt/project": PROJECT,
        "/opt/bin": tmp_path / "bin",
        "/srv": tmp_path / "srv",
    }
    with running_systemd(places) as systemd:
        yield Server(tmp_path / "srv", systemd)


SPOOL = Path("/var/spool/cron/crontabs")
ONE_JOB = """\
default: {default_destination: local, local_path: /srv/store, password: ""}
jobs:
  nightly: {sources: [/srv/data]}
  weekly: {sources: [/srv/data]}
"""


def test_a_timer_is_on_until_it_is_removed(server: Server) -> None:
    server.configure(ONE_JOB)
    (server.directory / "store").mkdir()
    done = server.bakthat("schedule", "nightly", "--at", "3:07", "--jitter", "5", "--install")
    assert (done.code, done.stdout) == (0, "")
    first, second = done.stderr.splitlines()
    assert first.startswith("bakthat-nightly.timer runs the job daily at 03:07, up to 5 min later")
    assert second == "Try it now: systemctl start bakthat-nightly.service"
    timer, systemd = "bakthat-nightly.timer", server.systemd
    assert systemd.systemctl("is-enabled", timer) == "enabled\n"
    assert systemd.systemctl("is-active", timer) == "active\n"
    assert re.search(r" 03:(0[7-9]|1[0-2]):", systemd.property(timer, "NextElapseUSecRealtime"))
    files = sorted(systemd.units.glob("bakthat-*"))
    assert [each.name for each in files] == ["bakthat-nightly.service", timer]
    assert [each.stat().st_mode & 0o777 for each in files] == [0o644, 0o644]

    assert server.bakthat("schedule", "nightly", "--at", "5:00", "--install").code == 0
    assert re.search(r" 05:(0\d|1[0-5]):", systemd.property(timer, "NextElapseUSecRealtime"))

    done = server.bakthat("schedule", "nightly", "--remove")
    assert done.code == 0, done.stderr
    assert done.stderr.startswith(f"Removed {files[0].name} and {timer} from /etc/systemd/system")
    assert systemd.property(timer, "LoadState") == "not-found"
    assert [*systemd.units.rglob("bakthat-*")] == []

    done = server.bakthat("schedule", "nightly", "--remove")
    assert done.code == 1
    assert "there is no timer of the job 'nightly' in /etc/systemd/system" in done.stderr


def test_a_run_that_goes_on_is_not_stopped_by_removing_its_timer(server: Server) -> None:
    server.configure(ONE_JOB)
    (server.directory / "store").mkdir()
    assert server.bakthat("schedule", "nightly", "--install").code == 0
    os.mkfifo(server.directory / "go")
    place = server.systemd.units / "bakthat-.service.d"
    place.mkdir()
    (place / "test.conf").write_text("[Service]\nExecStart=\nExecStart=/bin/cat /srv/go\n")
    server.systemd.systemctl("daemon-reload")
    server.systemd.systemctl("start", "--no-block", "bakthat-nightly.service")
    with open(server.directory / "go", "wb"):  # it has opened the other end
        assert server.bakthat("schedule", "nightly", "--remove").code == 0
        state = server.systemd.property("bakthat-nightly.service", "ActiveState")
    assert state == "activating"


@pytest.mark.parametrize(
    "place", ["/srv/bin", "/srv/a b", "/srv/100%d", "/srv/ä$HOME", "/srv/it's"]
)
def test_the_program_gets_the_words_that_were_meant(server: Server, place: str) -> None:
    directory = server.directory / Path(place).name
    directory.mkdir()
    program = directory / "bakthat"
    program.write_text(LISTING)
    program.chmod(0o755)
    for job in NAMES:
        made = service(
            job=job,
            words=(f"{place}/bakthat",),
            config=f"{place}/my 100% $x.yml",
            reads=(place,),
            writes=("/srv",),
        )
        install(server, units_of(made, Daily(4, 30, 0), is_users=False))
        server.systemd.systemctl("start", "--", f"{unit_name(job)}.service")
        assert json.loads((server.directory / "listing").read_text()) == [*made.run()]
        (server.directory / "listing").unlink()


def install(server: Server, units: Units) -> None:
    (server.systemd.units / f"{units.name}.service").write_text(units.service)
    (server.systemd.units / f"{units.name}.timer").write_text(units.timer)
    server.systemd.systemctl("daemon-reload")


def test_a_backup_needs_nothing_that_a_service_lacks(
    server: Server, moto_endpoint: S3Server
) -> None:
    """Run backups, a check and drills with every protection: to a directory, and to S3."""
    fill(server.directory / "data")
    (server.directory / "home" / "key").write_text("correct horse\n")
    (server.directory / "home" / "key").chmod(0o600)
    store = server.directory / "store"
    store.mkdir()
    os.chown(store, 1234, 1234)
    cloud = {**moto_endpoint.conf(), "password": ""}
    local = {"default_destination": "local", "local_path": "/srv/store", "password_file": "key"}
    sources = ["/srv/data", "sqlite:////srv/data/app.db"]
    check = {"every": "1D", "sample": "100%"}
    jobs = {
        "nightly": {"sources": sources, "check": check},
        "cloud": {"sources": sources, "profile": "cloud", "check": check},
        "drilled": {"sources": sources, "drill": {"every": "1D"}, "tags": "drilled"},
    }
    server.configure(yaml.safe_dump({"default": local, "cloud": cloud, "jobs": jobs}))
    for job in jobs:
        assert server.bakthat("schedule", job, "--install").code == 0
        code = server.start_instead(f"bakthat-{job}")
        log = server.log()
        assert code == 0, log
        assert "warning" not in log
        assert "2 of 2 sources stored" in log
    shown = server.bakthat("show", "data", "--json").lines("backup")
    assert [each["metadata"]["job"] for each in shown] == ["drilled", "nightly"]
    assert shown[0]["metadata"]["drill"]["passed"]
    assert shown[1]["metadata"]["check"]["verdict"] == "read"
    name = shown[0]["stored_filename"]

    restored = server.bakthat("restore", name, "-o", "/srv/restored")
    assert restored.code == 0, restored.stderr
    found = server.directory / "restored" / "data"
    assert (found / "private" / "a").read_text() == "hello"
    assert (found / "private" / "a").stat().st_uid == 1000


def fill(data: Path) -> None:
    """Make what only root can read, and a database whose journal SQLite writes to read it."""
    (data / "private").mkdir(parents=True)
    (data / "private" / "a").write_text("hello")
    os.mkfifo(data / "fifo")
    (data / "link").symlink_to("fifo")
    os.mknod(data / "null", 0o600 | 0o020000, os.makedev(1, 3))
    with closing(sqlite3.connect(data / "app.db")) as database:
        database.execute("PRAGMA journal_mode = wal")
        database.execute("CREATE TABLE t (x)")
    for path in (data / "private" / "a", data / "private"):
        os.chown(path, 1000, 1000)
        path.chmod(0o700)


def test_databases_are_dumped_and_loaded_with_all_protections(
    server: Server, tmp_path: Path
) -> None:
    (server.directory / "home" / "secret").write_text("horse")
    (tmp_path / "redis").mkdir()
    with (
        postgresql_server("horse") as postgresql,
        redis_server(tmp_path / "redis", password="horse") as redis,
    ):
        address = f"postgresql://postgres@127.0.0.1:{postgresql['PGPORT']}"
        jobs = {
            "rows": {"sources": [f"{address}/postgres"], "drill": {"every": "1D", "into": address}},
            "keys": {"sources": [f"redis://127.0.0.1:{redis}"], "drill": {"every": "1D"}},
        }
        default = {"default_destination": "local", "local_path": "/srv/store", "password": ""}
        default["database_password_file"] = "secret"
        server.configure(yaml.safe_dump({"default": default, "jobs": jobs}))
        (server.directory / "store").mkdir()
        for job in jobs:
            assert server.bakthat("schedule", job, "--install").code == 0
            code = server.start_instead(f"bakthat-{job}")
            log = server.log()
            assert (code, "warning" in log) == (0, False), log
            assert re.search("Restoring .*\\n(.*\\n)*Ran 1 job: 1 of 1 source stored", log)


def test_a_service_can_write_nowhere_else(server: Server) -> None:
    server.configure(f"{ONE_JOB}  hooked: {{sources: [/srv/data], before: ['true']}}\n")
    for name in ("store", "data", "other"):
        (server.directory / name).mkdir()
    (server.directory / "mine").write_text("")
    os.chown(server.directory / "mine", 1000, 1000)
    script = (
        "for each in /etc /usr /opt /srv/data /srv/other /root; do touch $$each/x; done; "
        "touch /srv/home/x /srv/store/x /tmp/x /var/tmp/x; echo > /srv/mine; "
        "grep -E 'CapBnd|NoNewPrivs' /proc/self/status; ls /srv/home/.bakthat.yml"
    )
    for job in ("nightly", "hooked"):
        assert server.bakthat("schedule", job, "--install").code == 0
        server.start_instead(f"bakthat-{job}", "ExecStart=", f'ExecStart=/bin/sh -c "{script}"')
        written = {str(each) for each in server.directory.rglob("x")}
        log = server.log()
        if job == "nightly":
            assert written == {str(server.directory / each) for each in ("home/x", "store/x")}
            assert "touch: cannot touch '/etc/x': Read-only file system" in log
            assert "/srv/mine: Read-only file system" in log
            assert "NoNewPrivs:\t1" in log
            assert "CapBnd:\t0000000000000004" in log
        else:
            assert str(server.directory / "other" / "x") in written
            assert "NoNewPrivs:\t0" in log


def test_a_secret_comes_as_a_credential(server: Server) -> None:
    server.configure(ONE_JOB.replace('password: ""', "password_file: /srv/home/my key"))
    (server.directory / "store").mkdir()
    (server.directory / "home" / "my key").write_text("correct horse")
    assert server.bakthat("schedule", "nightly", "--install").code == 0
    show = "ExecStart=/bin/sh -c 'cat $$CREDENTIALS_DIRECTORY/bakthat.password'"
    assert server.start_instead("bakthat-nightly", "ExecStart=", show) == 0
    assert server.log() == "correct horse"


@pytest.mark.parametrize(
    ("code", "state"), [(0, "inactive"), (1, "failed"), (3, "failed"), (5, "inactive")]
)
def test_only_a_run_that_goes_elsewhere_is_no_failure(
    server: Server, code: int, state: str
) -> None:
    server.configure(ONE_JOB)
    (server.directory / "store").mkdir()
    assert server.bakthat("schedule", "nightly", "--install").code == 0
    line = f"ExecStart=/bin/sh -c 'exit {code}'"
    assert server.start_instead("bakthat-nightly", "ExecStart=", line) == code
    assert server.systemd.property("bakthat-nightly.service", "ActiveState") == state


APP = "[Service]\nType=oneshot\nRemainAfterExit=yes\nExecStart=/bin/true\n"


def test_hooks_stop_a_service_and_start_it_again_also_when_the_job_is_stopped(
    server: Server,
) -> None:
    server.configure(
        ONE_JOB + "  hooked:\n"
        "    sources: [{command: cat /srv/slow, name: slow}]\n"
        "    before: [systemctl stop app.service]\n"
        "    after:\n"
        "    - systemctl is-active app.service > /srv/state || true\n"
        "    - systemctl start app.service\n"
    )
    (server.directory / "store").mkdir()
    os.mkfifo(server.directory / "slow")
    (server.systemd.units / "app.service").write_text(APP)
    assert server.bakthat("schedule", "hooked", "--install").code == 0
    for is_stopped in (False, True):
        server.systemd.systemctl("start", "app.service")
        start = [*server.systemd.enter, "systemctl", "start", "bakthat-hooked.service"]
        with subprocess.Popen(start, stderr=subprocess.DEVNULL) as starting:
            with open(server.directory / "slow", "w") as slow:  # the command has opened it
                if is_stopped:
                    server.systemd.systemctl("stop", "bakthat-hooked.service")
                else:
                    slow.write("hello")
            assert (starting.wait(PATIENCE) != 0) == is_stopped
        assert (server.directory / "state").read_text() == "inactive\n"
        assert server.systemd.property("app.service", "ActiveState") == "active"
    assert len(server.bakthat("show", "slow", "--json").lines("backup")) == 1


def test_systemctl_works_with_all_protections(server: Server) -> None:
    server.configure(ONE_JOB)
    (server.directory / "store").mkdir()
    (server.systemd.units / "app.service").write_text(APP)
    assert server.bakthat("schedule", "nightly", "--install").code == 0
    server.systemd.systemctl("start", "app.service")
    systemctl = server.systemd.run("which", "systemctl").stdout.strip()
    line = f"ExecStart={systemctl} stop app.service"
    assert server.start_instead("bakthat-nightly", "ExecStart=", line) == 0, server.log()
    assert server.systemd.property("app.service", "ActiveState") == "inactive"


def test_what_systemd_refuses_is_said_with_what_is_left_to_type(server: Server) -> None:
    server.configure(ONE_JOB)
    (server.directory / "store").mkdir()
    broken = server.systemd.units / "bakthat-nightly.timer.d"
    broken.mkdir()
    (broken / "test.conf").write_text("[Timer]\nOnCalendar=\n")
    done = server.user.run("schedule", "nightly", "--install")
    assert done.code == 1
    assert "were written, but the timer is not on: systemctl ended with exit code 1" in done.stderr
    typed = "systemctl daemon-reload && systemctl enable bakthat-nightly.timer"
    assert f"hint: change that, then type: {typed}" in done.stderr
    (broken / "test.conf").unlink()
    assert server.user.run("schedule", "nightly", "--install").code == 0

    server.systemd.run("mount", "-o", "remount,bind,ro", "/etc/systemd/system")
    done = server.user.run("schedule", "nightly", "--remove")
    assert done.code == 1
    assert "systemd still has bakthat-nightly.timer: systemctl ended with" in done.stderr
    assert "Read-only file system" in done.stderr
    assert server.systemd.systemctl("is-active", "bakthat-nightly.timer") == "active\n"


USERS = """\
[Service]
Type=notify
User=%i
ExecStart=/lib/systemd/systemd --user
Environment=HOME=/srv/home XDG_RUNTIME_DIR=/run/user/%i
RuntimeDirectory=user/%i
Delegate=yes
"""
"""What pam_systemd starts when a user logs in: a systemd of that user."""


def start_users(server: Server, number: int) -> None:
    (server.systemd.units / "users@.service").write_text(USERS)
    server.systemd.systemctl("daemon-reload")
    server.systemd.systemctl("start", f"users@{number}.service")
    server.user.environment["XDG_RUNTIME_DIR"] = f"/run/user/{number}"


def test_a_timer_of_the_user_is_on_until_it_is_removed(server: Server) -> None:
    server.configure(ONE_JOB)
    start_users(server, 0)
    done = server.bakthat("schedule", "nightly", "--user", "--install")
    assert done.code == 0, done.stderr
    assert "It runs while you are logged in; loginctl enable-linger makes it run" in done.stderr
    assert "Try it now: systemctl --user start bakthat-nightly.service" in done.stderr
    place = server.directory / "home" / ".config" / "systemd" / "user"
    assert len([*place.glob("bakthat-nightly.*")]) == 2
    timer = "bakthat-nightly.timer"
    done = server.user.run_program("systemctl", "--user", "is-enabled", "--", timer)
    assert done.stdout == "enabled\n"
    assert server.user.run_program("systemctl", "--user", "is-active", timer).stdout == "active\n"
    assert server.bakthat("schedule", "nightly", "--user", "--remove").code == 0
    done = server.user.run_program("systemctl", "--user", "is-active", timer)
    assert done.stdout == "inactive\n"
    assert [*place.rglob("bakthat-nightly*")] == []


def test_a_service_of_a_user_without_privileges_sees_who_owns_a_file(server: Server) -> None:
    number = pwd.getpwnam("nobody").pw_uid
    server.configure(ONE_JOB)
    (server.directory / "theirs").write_text("")
    os.chown(server.directory / "theirs", 1234, 1234)
    units = server.bakthat("schedule", "nightly", "--user", "--json").lines("schedule")
    place = server.directory / "home" / ".config" / "systemd" / "user"
    place.mkdir(parents=True)
    for each in units:
        (place / Path(each["path"]).name).write_text(each["text"])
    (place / "bakthat-nightly.service.d").mkdir()
    script = "stat -c %%u /srv/theirs; grep NoNewPrivs /proc/self/status; unshare --user true"
    (place / "bakthat-nightly.service.d" / "test.conf").write_text(
        f"[Service]\nExecStart=\nExecStart=-/bin/sh -c '{script}'\n"
        "StandardOutput=append:/srv/home/log\nStandardError=append:/srv/home/log\n"
    )
    for path in (server.directory / "home", *(server.directory / "home").rglob("*")):
        os.chown(path, number, number)
    start_users(server, number)
    words = ("setpriv", f"--reuid={number}", f"--regid={number}", "--clear-groups", "systemctl")
    done = server.user.run_program(*words, "--user", "start", "bakthat-nightly.service")
    assert (done.code, done.stderr) == (0, "")
    log = (server.directory / "home" / "log").read_text().splitlines()
    assert log[:2] == ["1234", "NoNewPrivs:\t1"]
    assert "Operation not permitted" in log[2]


@pytest.fixture
def without_systemd(user: CommandLine, tmp_path: Path) -> CommandLine:
    """Return a user on a machine where systemd is installed and does not run."""
    (tmp_path / "units").mkdir()
    (tmp_path / "run").mkdir()
    (tmp_path / "spool").mkdir()
    places = {str(SYSTEM_UNITS): tmp_path / "units", "/run": tmp_path / "run"}
    if SPOOL.is_dir():
        places[str(SPOOL)] = tmp_path / "spool"
    user.prefix = with_mounts(places)
    (user.home / ".bakthat.yml").write_text(ONE_JOB.replace("/srv", str(tmp_path)))
    (user.home / ".bakthat.yml").chmod(0o600)
    return user


def test_without_a_running_systemd_the_units_are_written_and_the_rest_is_said(
    without_systemd: CommandLine, tmp_path: Path
) -> None:
    done = without_systemd.run("schedule", "nightly", "--install")
    assert done.code == 1
    assert "were written, but the timer is not on: systemd does not run here" in done.stderr
    typed = (
        "systemctl daemon-reload && systemctl enable bakthat-nightly.timer && "
        "systemctl restart bakthat-nightly.timer"
    )
    assert f"hint: where it runs, type: {typed}\n" in done.stderr
    names = ["bakthat-nightly.service", "bakthat-nightly.timer"]
    assert sorted(each.name for each in (tmp_path / "units").iterdir()) == names

    assert without_systemd.run("schedule", "nightly", "--remove").code == 0
    assert [*(tmp_path / "units").iterdir()] == []


def test_a_systemctl_that_cannot_be_run(without_systemd: CommandLine, tmp_path: Path) -> None:
    (tmp_path / "run" / "systemd" / "system").mkdir(parents=True)
    (tmp_path / "bin").mkdir()
    broken = tmp_path / "bin" / "systemctl"
    broken.write_text("#!/no/such/shell\n")
    broken.chmod(0o755)
    without_systemd.environment["PATH"] = str(broken.parent)
    done = without_systemd.run("schedule", "nightly", "--install")
    assert done.code == 1
    problem = "systemctl cannot be run: no such file or directory\n"
    assert f"were written, but the timer is not on: {problem}" in done.stderr
    done = without_systemd.run("schedule", "nightly", "--remove")
    assert done.code == 1
    assert f"systemd still has bakthat-nightly.timer: {problem}" in done.stderr
    assert len([*(tmp_path / "units").iterdir()]) == 2


def test_units_of_others_stay_as_they_are(without_systemd: CommandLine, tmp_path: Path) -> None:
    run, units = without_systemd.run, tmp_path / "units"
    mine = units / "bakthat-nightly.timer"
    mine.write_text("[Timer]\nOnCalendar=daily\n")
    for action in ("--install", "--remove"):
        done = run("schedule", "nightly", action)
        assert done.code == 1
        assert "bakthat-nightly.timer was not written by bakthat schedule" in done.stderr
    assert [*units.iterdir()] == [mine]
    assert mine.read_text() == "[Timer]\nOnCalendar=daily\n"

    mine.unlink()
    mine.symlink_to("/dev/null")  # as systemctl mask does
    assert "was not written by bakthat" in run("schedule", "nightly", "--install").stderr
    assert mine.is_symlink()

    mine.unlink()
    mine.mkdir()
    done = run("schedule", "nightly", "--install")
    assert (done.code, f"cannot read {SYSTEM_UNITS / mine.name}: is a" in done.stderr) == (1, True)


def test_units_of_another_configuration_stay_as_they_are(
    without_systemd: CommandLine, tmp_path: Path
) -> None:
    run = without_systemd.run
    run("schedule", "nightly", "--install")
    before = {each: each.read_text() for each in (tmp_path / "units").iterdir()}
    shutil.copy(without_systemd.home / ".bakthat.yml", tmp_path / "my.yml")
    for action in ("--install", "--remove"):
        done = run("schedule", "nightly", action, "-c", "my.yml")
        assert done.code == 1
        assert "is for a job of that name in the default configuration" in done.stderr
        assert "hint: give one of the jobs another name, or use the same -c" in done.stderr
    assert {each: each.read_text() for each in (tmp_path / "units").iterdir()} == before


def test_a_typing_error_in_what_is_removed_names_the_nearest(
    without_systemd: CommandLine,
) -> None:
    without_systemd.run("schedule", "nightly", "--install")
    done = without_systemd.run("schedule", "nigthly", "--remove")
    assert done.code == 1
    assert "hint: did you mean nightly?" in done.stderr


def test_a_directory_that_cannot_be_written_is_named(
    without_systemd: CommandLine, tmp_path: Path
) -> None:
    units = {str(SYSTEM_UNITS): tmp_path / "units", "/run": tmp_path / "run"}
    without_systemd.prefix = with_mounts(units, read_only=str(SYSTEM_UNITS))
    done = without_systemd.run("schedule", "nightly", "--install")
    assert done.code == 1
    assert f"cannot write the units of the job in {SYSTEM_UNITS}: read-only" in done.stderr

    without_systemd.prefix = with_mounts(units)
    without_systemd.run("schedule", "nightly", "--install")
    without_systemd.prefix = with_mounts(units, read_only=str(SYSTEM_UNITS))
    done = without_systemd.run("schedule", "nightly", "--remove")
    assert done.code == 1
    assert f"cannot remove bakthat-nightly.timer from {SYSTEM_UNITS}: read-only" in done.stderr
    assert len([*(tmp_path / "units").iterdir()]) == 2
