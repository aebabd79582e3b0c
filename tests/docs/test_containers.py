"""What the page on containers gives away works, as far as that shows without a container engine.

bubblewrap makes what an engine makes of the settings: another user, a file system that nobody can
write to, a process 1.
"""

from __future__ import annotations

import random
import re
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path

import pytest
import yaml

from bakthat.cli.exit_codes import ExitCode
from bakthat.conf import Profile
from tests.support.commandline import PATIENCE, PROJECT
from tests.support.containerfile import FILES, stages
from tests.support.servers import S3Server

pytestmark = pytest.mark.slow

COMPOSE = yaml.safe_load((FILES / "compose.yaml").read_text())
CRON_JOB = yaml.safe_load((FILES / "cronjob.yaml").read_text())
SERVICE_KEYS = {
    "cap_drop",
    "command",
    "environment",
    "image",
    "read_only",
    "secrets",
    "security_opt",
    "user",
    "volumes",
}
"""What the Compose specification calls them; another one would be a mistake."""
KEYS = {f"BAKTHAT_{key.name.upper()}" for key in fields(Profile)}


def test_the_image_is_made_of_known_instructions_from_a_version_that_bakthat_runs_on() -> None:
    known = {"FROM", "WORKDIR", "COPY", "RUN", "ENV", "VOLUME", "USER", "ENTRYPOINT", "CMD"}
    assert {each.word for stage in stages() for each in stage} <= known
    versions = re.findall(
        r"^FROM \S+/python:(\S+)-slim", (FILES / "Containerfile").read_text(), re.M
    )
    classifiers = (PROJECT / "pyproject.toml").read_text()
    assert len(versions) == 2
    assert all(f"Python :: {each}" in classifiers for each in versions)


def test_the_image_holds_the_program_and_not_the_clone_and_its_user_is_nobody_else() -> None:
    *_, last = stages()
    copied = [rest for word, rest in last if word == "COPY"]
    assert copied == ["--from=build /opt/bakthat /opt/bakthat"]
    ((_, user),) = [each for each in last if each[0] == "USER"]
    assert all(part.isdigit() and int(part) >= 1000 for part in user.split(":"))
    last_words = [word for word, _ in last]
    assert last_words.index("USER") > last_words.index("RUN")


def test_the_image_is_built_from_what_the_clone_has() -> None:
    build = stages()[0]
    copied = [path for word, rest in build if word == "COPY" for path in rest.split()[:-1]]
    assert copied
    assert all((PROJECT / path).exists() for path in copied)
    (install,) = [rest for word, rest in build if word == "RUN"]
    words = shlex.split(install)
    assert words[:4] == ["python", "-m", "venv", "/opt/bakthat"]
    extras = re.findall(r"\.\[(.+)\]", words[-1])[0].split(",")
    text = (PROJECT / "pyproject.toml").read_text()
    assert all(re.search(rf"^{each} = \[", text, re.MULTILINE) for each in extras)


def containers() -> Iterator[tuple[str, list[str], dict[str, str]]]:
    """Yield the name, the arguments and the variables of each container in the two files."""
    for name, service in COMPOSE["services"].items():
        yield name, service["command"], service["environment"]
    pod = CRON_JOB["spec"]["jobTemplate"]["spec"]["template"]["spec"]
    for each in (*pod["initContainers"], *pod["containers"]):
        yield each["name"], each["args"], {var["name"]: var["value"] for var in each["env"]}


@pytest.mark.parametrize(("name", "arguments", "variables"), list(containers()))
def test_a_container_runs_a_command_with_settings_that_exist(
    name: str, arguments: list[str], variables: dict[str, str]
) -> None:
    from bakthat.cli import run  # noqa: F401  # registers the commands
    from bakthat.cli.app import check_words, described_commands

    check_words(arguments)
    (command,) = [each for each in described_commands() if each.name == arguments[0]]
    command.parser.parse_args(arguments[1:])
    for variable, value in variables.items():
        assert variable.removesuffix("_FILE") in KEYS or variable in KEYS, f"{name}: {variable}"
        assert value


@pytest.mark.parametrize(("name", "arguments", "variables"), list(containers()))
def test_no_secret_stands_in_a_file(
    name: str, arguments: list[str], variables: dict[str, str]
) -> None:
    secret = [variable for variable in variables if re.search("KEY|PASSWORD", variable)]
    assert secret, name
    assert all(variable.endswith("_FILE") for variable in secret)
    assert all(variables[variable].startswith("/") for variable in secret)


def test_the_compose_file_has_the_settings_that_it_says() -> None:
    assert COMPOSE.keys() == {"services", "volumes", "secrets"}
    for service in COMPOSE["services"].values():
        assert service.keys() <= SERVICE_KEYS
        assert service["read_only"] is True
        assert service["cap_drop"] == ["ALL"]
        assert not service["user"].startswith("0")
        named = {volume.split(":")[0] for volume in service["volumes"]}
        assert named == set(COMPOSE["volumes"])
        assert set(service["secrets"]) == set(COMPOSE["secrets"])
        paths = {f"/run/secrets/{each}" for each in service["secrets"]}
        assert paths <= set(service["environment"].values())


def test_the_cron_job_has_the_settings_that_it_says() -> None:
    assert (CRON_JOB["apiVersion"], CRON_JOB["kind"]) == ("batch/v1", "CronJob")
    assert CRON_JOB["spec"]["concurrencyPolicy"] == "Forbid"
    assert len(CRON_JOB["spec"]["schedule"].split()) == 5
    pod = CRON_JOB["spec"]["jobTemplate"]["spec"]["template"]["spec"]
    assert pod["restartPolicy"] == "Never"
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["automountServiceAccountToken"] is False
    (rule,) = CRON_JOB["spec"]["jobTemplate"]["spec"]["podFailurePolicy"]["rules"]
    assert rule["onExitCodes"]["values"] == [ExitCode.USAGE, ExitCode.INCOMPLETE]
    assert rule["onExitCodes"]["containerName"] == pod["initContainers"][0]["name"]
    volumes = {each["name"] for each in pod["volumes"]}
    for each in (*pod["initContainers"], *pod["containers"]):
        context = each["securityContext"]
        assert context["readOnlyRootFilesystem"] is True
        assert context["allowPrivilegeEscalation"] is False
        assert context["capabilities"] == {"drop": ["ALL"]}
        assert {mount["name"] for mount in each["volumeMounts"]} <= volumes


class Container:
    """A process 1 of another user, in a file system where only its home can be written to."""

    def __init__(self, home: Path, variables: dict[str, str], *, without: str = "") -> None:
        home.chmod(0o777)
        settings = {
            "PATH": "/usr/local/bin:/usr/bin:/bin",
            "PYTHONPATH": str(PROJECT),
            "HOME": str(home),
            "TMPDIR": str(home),
            "PYTHONDONTWRITEBYTECODE": "1",
            "AWS_EC2_METADATA_DISABLED": "true",
            **variables,
        }
        settings.pop(without, None)
        self.command = [
            "bwrap",
            *("--ro-bind", "/", "/", "--dev", "/dev", "--proc", "/proc"),
            *("--bind", str(home), str(home), "--chdir", str(home)),
            *("--unshare-user", "--uid", "10001", "--gid", "10001"),
            *("--unshare-pid", "--as-pid-1", "--die-with-parent", "--clearenv"),
            *(word for name, value in settings.items() for word in ("--setenv", name, value)),
            *(sys.executable, "-m", "bakthat"),
        ]

    def run(self, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*self.command, *map(str, arguments)],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=PATIENCE,
        )


@pytest.fixture
def data(tmp_path: Path) -> Path:
    for directory in (tmp_path, *tmp_path.parents[:3]):  # pytest's own are for one user only
        directory.chmod(directory.stat().st_mode | 0o055)
    source = tmp_path / "uploads"
    source.mkdir()
    (source / "file").write_text("hello\n")
    (source / "unchanged").write_bytes(random.randbytes(100_000))
    return source


@pytest.mark.needs("bwrap")
def test_a_container_backs_up_by_its_environment_alone(
    data: Path, tmp_path: Path, rclone_endpoint: S3Server
) -> None:
    conf = rclone_endpoint.conf()
    secrets = tmp_path / "secrets"
    secrets.mkdir()
    for key in ("access_key", "secret_key"):
        (secrets / key).write_text(f"{conf[key]}\n")
    home = tmp_path / "state"
    home.mkdir()
    (secrets / "password").write_text("correct horse\n")
    container = Container(
        home,
        {
            "BAKTHAT_HOST": "shop",
            "BAKTHAT_S3_BUCKET": conf["s3_bucket"],
            "BAKTHAT_ENDPOINT_URL": conf["endpoint_url"],
            "BAKTHAT_ACCESS_KEY_FILE": str(secrets / "access_key"),
            "BAKTHAT_SECRET_KEY_FILE": str(secrets / "secret_key"),
            "BAKTHAT_PASSWORD_FILE": str(secrets / "password"),
            "BAKTHAT_ROTATION": "{days: 7}",
        },
    )
    made = container.run("backup", data, "--incremental", "--prompt", "no")
    assert made.returncode == 0, made.stderr
    assert ".tgz.age (" in made.stderr
    assert " on s3 " in made.stderr
    (data / "file").write_text("changed\n")
    again = container.run("backup", data, "--incremental", "--prompt", "no")
    assert again.returncode == 0, again.stderr
    assert ".inc.tgz.age (" in again.stderr
    rotated = container.run("rotate_backups", "uploads")
    assert rotated.returncode == 0, rotated.stderr
    back = container.run("restore", "uploads", "--prompt", "no", "-o", home / "out")
    assert back.returncode == 0, back.stderr
    assert (home / "out" / "uploads" / "file").read_text() == "changed\n"


@pytest.mark.needs("bwrap")
def test_a_home_that_cannot_be_written_to_is_one_clear_line(data: Path, tmp_path: Path) -> None:
    home = tmp_path / "state"
    home.mkdir()
    container = Container(home, {})
    read_only = [each if each != "--bind" else "--ro-bind" for each in container.command]
    container.command = read_only
    done = container.run("backup", data, "--prompt", "no")
    assert done.returncode == 1
    errors = [line for line in done.stderr.splitlines() if "error" in line]
    assert len(errors) == 1
    assert str(home) in errors[0]
    assert "read-only" in errors[0].lower()


@pytest.mark.needs("bwrap")
def test_a_user_without_a_home_learns_what_to_set(data: Path, tmp_path: Path) -> None:
    """Such as one whose number is in no file of users, as OpenShift picks it."""
    home = tmp_path / "state"
    home.mkdir()
    container = Container(home, {}, without="HOME")
    done = container.run("backup", data, "--prompt", "no")
    assert done.returncode == 1
    assert done.stderr.splitlines() == [
        "bakthat: error: cannot expand '~/.bakthat.yml': there is no home directory",
        "bakthat: hint: set the variable HOME to a directory for the catalog and the cache",
    ]
    assert container.run("--version").returncode == 0


@pytest.mark.needs("bwrap")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_process_1_ends_by_a_signal_as_any_other(
    data: Path, tmp_path: Path, number: signal.Signals
) -> None:
    home = tmp_path / "state"
    home.mkdir()
    container = Container(home, {})
    # The command waits for a password that never comes, as a mounted secret may.
    config = home / ".bakthat.yml"
    config.write_text("default: {default_destination: local, password_command: [sleep, '600']}\n")
    config.chmod(0o644)
    process = subprocess.Popen(
        [*container.command, "backup", str(data)],
        stdin=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    with process, process.stderr:
        for line in process.stderr:
            if line.startswith("Backing up"):
                break
        (inside,) = children_of(process.pid)
        subprocess.run(
            [shutil.which("kill") or "kill", f"-{number.value}", str(inside)], check=True
        )
        assert process.wait(PATIENCE) == 128 + number


def children_of(pid: int) -> list[int]:
    return [int(each) for each in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
