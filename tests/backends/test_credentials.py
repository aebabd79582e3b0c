"""Where the keys of AWS may come from: each place is tried by a backup and a restore."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tests.support.commandline import CommandLine
from tests.support.fault_proxy import Answer, FaultProxy, fault_proxy, refusal
from tests.support.glacier_server import GlacierServer
from tests.support.metadata_server import ACCESS_KEY, MetadataServer, metadata_server
from tests.support.profiles import Conf, write_config

pytestmark = pytest.mark.slow

ROLE_ARN = "arn:aws:iam::123456789012:role/backup"
START_URL = "https://sso.example.com/start"


@dataclass
class Machine:
    """The machine of a user: its files, its environment, and the services that give out keys."""

    user: CommandLine
    storage: FaultProxy
    sts: FaultProxy
    metadata: MetadataServer
    conf: Conf
    """The profile, without keys."""
    environment: dict[str, str] = field(default_factory=dict)

    def write(self, path: str, text: str) -> Path:
        target = self.user.home / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text)
        return target

    def run(self, *arguments: str) -> tuple[int, str]:
        write_config(self.user.home / ".bakthat.yml", default=self.conf)
        done = self.user.run(*arguments, env=self.environment)
        return done.code, done.stderr

    def used_keys(self) -> set[str]:
        """Return the access keys that the storage saw."""
        return {
            found[1]
            for _, _, headers in self.storage.requests
            if (found := re.search(r"Credential=([^/]+)/", headers.get("authorization", "")))
        }


@pytest.fixture
def machine(
    user: CommandLine, moto_proxy: FaultProxy, proxied_conf: Conf, tree: Path
) -> Iterator[Machine]:
    keyless = {
        key: value for key, value in proxied_conf.items() if key not in ("access_key", "secret_key")
    }
    with metadata_server() as metadata, fault_proxy(moto_proxy.upstream) as sts:
        machine = Machine(user, moto_proxy, sts, metadata, {**keyless, "attempts": 2})
        machine.environment["AWS_ENDPOINT_URL_STS"] = sts.endpoint_url
        yield machine


def static_keys(machine: Machine) -> str:
    machine.conf |= {"access_key": "AKIASTATIC", "secret_key": "secret"}
    return "AKIASTATIC"


def environment(machine: Machine) -> str:
    machine.environment |= {
        "AWS_ACCESS_KEY_ID": "ASIAENVIRONMENT",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_SESSION_TOKEN": "token",
    }
    return "ASIAENVIRONMENT"


def credentials_file(machine: Machine) -> str:
    machine.write(
        ".aws/credentials", "[default]\naws_access_key_id=AKIAFILE\naws_secret_access_key=secret\n"
    )
    return "AKIAFILE"


def named_profile(machine: Machine) -> str:
    machine.write(
        ".aws/credentials", "[backup]\naws_access_key_id=AKIANAMED\naws_secret_access_key=secret\n"
    )
    machine.environment["AWS_PROFILE"] = "backup"
    return "AKIANAMED"


def credential_process(machine: Machine) -> str:
    answer = {"Version": 1, "AccessKeyId": "AKIAPROCESS", "SecretAccessKey": "secret"}
    program = machine.write("keys.json", json.dumps(answer))
    machine.write(".aws/config", f"[default]\ncredential_process = cat {program}\n")
    return "AKIAPROCESS"


def assumed_role(machine: Machine) -> str:
    credentials_file(machine)
    machine.write(
        ".aws/config",
        f"[profile backup]\nrole_arn = {ROLE_ARN}\nsource_profile = default\n",
    )
    machine.environment["AWS_PROFILE"] = "backup"
    return "ASIA"


def role_of_profile(machine: Machine) -> str:
    static_keys(machine)
    machine.conf["role_arn"] = ROLE_ARN
    return "ASIA"


def role_of_a_file(machine: Machine) -> str:
    credentials_file(machine)
    machine.conf["role_arn"] = ROLE_ARN
    return "ASIA"


def role_of_a_role(machine: Machine) -> str:
    assumed_role(machine)
    machine.conf["role_arn"] = f"{ROLE_ARN}-of-another-account"
    return "ASIA"


def web_identity(machine: Machine) -> str:
    token = machine.write("token", "a-token-of-the-cluster")
    machine.environment |= {
        "AWS_ROLE_ARN": ROLE_ARN,
        "AWS_WEB_IDENTITY_TOKEN_FILE": str(token),
    }
    return "ASIA"


def container(machine: Machine) -> str:
    machine.environment["AWS_CONTAINER_CREDENTIALS_FULL_URI"] = (
        f"{machine.metadata.endpoint_url}/container"
    )
    return ACCESS_KEY


def instance_role(machine: Machine) -> str:
    machine.environment |= {
        "AWS_EC2_METADATA_DISABLED": "false",
        "AWS_EC2_METADATA_SERVICE_ENDPOINT": machine.metadata.endpoint_url,
    }
    return ACCESS_KEY


def single_sign_on(machine: Machine) -> str:
    machine.write(
        ".aws/config",
        f"[default]\nsso_start_url = {START_URL}\nsso_region = us-east-1\n"
        "sso_account_id = 123456789012\nsso_role_name = backup\n",
    )
    cached = {
        "startUrl": START_URL,
        "accessToken": "token",
        "expiresAt": (datetime.now(UTC) + timedelta(hours=1)).strftime("%Y-%m-%dT%H:%M:%SZ"),
    }
    name = hashlib.sha1(START_URL.encode(), usedforsecurity=False).hexdigest()
    machine.write(f".aws/sso/cache/{name}.json", json.dumps(cached))
    machine.environment["AWS_ENDPOINT_URL_SSO"] = machine.metadata.endpoint_url
    return ACCESS_KEY


@pytest.mark.parametrize(
    "place",
    [
        static_keys,
        environment,
        credentials_file,
        named_profile,
        credential_process,
        assumed_role,
        role_of_profile,
        role_of_a_file,
        role_of_a_role,
        web_identity,
        container,
        instance_role,
        single_sign_on,
    ],
)
def test_the_keys_are_found(machine: Machine, place: Callable[[Machine], str]) -> None:
    beginning = place(machine)
    assert machine.run("backup", "mydir", "--prompt", "no")[0] == 0
    assert machine.run("restore", "mydir", "-o", "out")[0] == 0
    assert (machine.user.directory / "out" / "mydir" / "a.txt").read_text() == "hello"
    used = machine.used_keys()
    assert used
    assert all(key.startswith(beginning) for key in used), used


def test_keys_of_the_profile_win_over_all_others(machine: Machine) -> None:
    environment(machine)
    credentials_file(machine)
    static_keys(machine)
    assert machine.run("backup", "mydir", "--prompt", "no")[0] == 0
    assert machine.used_keys() == {"AKIASTATIC"}


def test_keys_that_expire_during_an_upload_are_renewed(machine: Machine) -> None:
    container(machine)
    # botocore renews keys some minutes before they expire: these, before each request.
    machine.metadata.lifetime = timedelta(minutes=5)
    source = machine.user.directory / "mydir" / "large"
    source.write_bytes(os.urandom(40 * 1024 * 1024))
    assert machine.run("backup", "mydir", "--prompt", "no")[0] == 0
    assert machine.storage.seen("PUT", "partNumber=") > 1
    assert len(machine.used_keys()) > 1


def gave_out(number: int, expires: datetime) -> Answer:
    """Return STS's answer to the request of a role's keys."""
    keys = {
        "AccessKeyId": f"ASIANUMBER{number}",
        "SecretAccessKey": "secret",
        "SessionToken": "token",
        "Expiration": expires.strftime("%Y-%m-%dT%H:%M:%SZ"),
    }
    fields = "".join(f"<{name}>{value}</{name}>" for name, value in keys.items())
    result = f"<AssumeRoleResult><Credentials>{fields}</Credentials></AssumeRoleResult>"
    return Answer(200, f"<AssumeRoleResponse>{result}</AssumeRoleResponse>".encode())


def test_keys_of_a_role_that_expire_during_an_upload_are_renewed(machine: Machine) -> None:
    role_of_profile(machine)
    for number in range(100):  # botocore renews these before each request
        soon = datetime.now(UTC) + timedelta(minutes=5)
        machine.sts.on("POST", "", gave_out(number, soon), times=1)
    source = machine.user.directory / "mydir" / "large"
    source.write_bytes(os.urandom(40 * 1024 * 1024))
    code, printed = machine.run("backup", "mydir", "--prompt", "no")
    assert code == 0, printed
    used = machine.used_keys()
    assert len(used) > 4
    assert all(key.startswith("ASIANUMBER") for key in used), used


def test_one_role_is_assumed_once_by_a_command(machine: Machine) -> None:
    role_of_profile(machine)
    machine.conf["host"] = "wéb 1"
    assert machine.run("backup", "mydir", "--prompt", "no")[0] == 0
    assert machine.sts.seen("POST") == 1
    assert len(machine.used_keys()) == 1


def test_the_storage_gives_out_keys_where_no_other_service_is_named(machine: Machine) -> None:
    role_of_profile(machine)
    machine.environment.clear()
    assert machine.run("backup", "mydir", "--prompt", "no")[0] == 0
    asked = [headers for _, path, headers in machine.storage.requests if path == "/"]
    assert ["/sts/aws4_request" in each["authorization"] for each in asked] == [True]
    rest = machine.used_keys() - {"AKIASTATIC"}
    assert len(rest) == 1
    assert rest.pop().startswith("ASIA")


def test_a_vault_is_reached_by_the_role_too(machine: Machine, glacier: GlacierServer) -> None:
    role_of_profile(machine)
    machine.sts.on("POST", "", gave_out(1, datetime.now(UTC) + timedelta(hours=1)))
    glacier.access_key = "ASIANUMBER1"  # which it insists on
    machine.conf |= {key: value for key, value in glacier.conf().items() if "glacier" in key}
    code, printed = machine.run("backup", "mydir", "--prompt", "no", "-d", "glacier")
    assert code == 0, printed
    assert machine.used_keys() == {"ASIANUMBER1"}  # of the bucket with the vault's indexes


def test_doctor_says_which_role_is_used(machine: Machine) -> None:
    role_of_profile(machine)
    machine.conf["host"] = "web1"
    assert machine.run("backup", "mydir", "--prompt", "no")[0] == 0
    write_config(machine.user.home / ".bakthat.yml", default=machine.conf)
    done = machine.user.run("doctor", env=machine.environment)
    assert (
        f"from access_key of the profile, which ends in ATIC, which have assumed {ROLE_ARN}, of "
        "arn:aws:sts::123456789012:assumed-role/backup/bakthat-web1"
    ) in done.stdout


@dataclass(frozen=True)
class Refusal:
    """A place of keys that gives none, and what the user reads."""

    spoil: Callable[[Machine], object]
    message: str


def _no_token(machine: Machine) -> None:
    web_identity(machine)
    machine.environment["AWS_WEB_IDENTITY_TOKEN_FILE"] = "/nonexistent/token"


def _refused_role(place: Callable[[Machine], str]) -> Callable[[Machine], None]:
    def spoil(machine: Machine) -> None:
        place(machine)
        error = "<Code>AccessDenied</Code><Message>not authorized to assume it</Message>"
        body = f"<ErrorResponse><Error>{error}</Error></ErrorResponse>"
        machine.sts.on("POST", "", Answer(403, body.encode()))

    return spoil


def _silent_metadata(place: Callable[[Machine], str]) -> Callable[[Machine], None]:
    def spoil(machine: Machine) -> None:
        place(machine)
        machine.metadata.status = 500

    return spoil


def _answered(answer: Answer) -> Callable[[Machine], None]:
    def spoil(machine: Machine) -> None:
        role_of_profile(machine)
        machine.sts.on("POST", "", answer)

    return spoil


def _unreachable_sts_of_role(machine: Machine) -> None:
    role_of_profile(machine)
    machine.environment["AWS_ENDPOINT_URL_STS"] = "http://127.0.0.1:9"


def _role_without_keys(machine: Machine) -> None:
    machine.conf["role_arn"] = ROLE_ARN


def _refused_without_words(machine: Machine) -> None:
    assumed_role(machine)
    machine.sts.on("POST", "", Answer(403, b"<ErrorResponse/>"))


def _portal_for_sts(machine: Machine) -> None:
    assumed_role(machine)
    machine.sts.on("POST", "", Answer(200, b"<html>Welcome to this hotel"))


def _unreachable_sts(machine: Machine) -> None:
    web_identity(machine)
    machine.environment["AWS_ENDPOINT_URL_STS"] = "http://127.0.0.1:9"


def _no_profile(machine: Machine) -> None:
    machine.environment["AWS_PROFILE"] = "nowhere"


def _no_source_profile(machine: Machine) -> None:
    assumed_role(machine)
    machine.write(".aws/credentials", "")


def _broken_config(machine: Machine) -> None:
    machine.write(".aws/config", "not an INI file\n")


def _unknown_mode(machine: Machine) -> None:
    environment(machine)
    machine.environment["AWS_DEFAULTS_MODE"] = "nonsense"


def _broken_process(machine: Machine) -> None:
    machine.write(".aws/config", "[default]\ncredential_process = false\n")


def _no_sso_login(machine: Machine) -> None:
    single_sign_on(machine)
    for each in (machine.user.home / ".aws" / "sso" / "cache").iterdir():
        each.unlink()


def _expired(machine: Machine) -> None:
    environment(machine)
    machine.storage.on("*", "", refusal(400, "ExpiredToken", "The provided token has expired."))


REFUSALS: Mapping[str, Refusal] = {
    "no keys": Refusal(lambda _: None, "no usable keys"),
    "no token file": Refusal(_no_token, "/nonexistent/token"),
    "role refused": Refusal(_refused_role(assumed_role), "not authorized to assume it"),
    "web identity refused": Refusal(_refused_role(web_identity), "not authorized to assume it"),
    "role refused without words": Refusal(_refused_without_words, "AssumeRole: refused"),
    "a portal for STS": Refusal(_portal_for_sts, "one that cannot be read"),
    "role_arn refused": Refusal(
        _refused_role(role_of_profile),
        f"role_arn {ROLE_ARN} cannot be assumed: AccessDenied: not authorized to assume it",
    ),
    "role_arn refused, the hint": Refusal(
        _refused_role(role_of_profile), f"allow the keys sts:AssumeRole on {ROLE_ARN}"
    ),
    "no keys for role_arn": Refusal(_role_without_keys, "no usable keys"),
    "wrong role_arn": Refusal(
        _answered(refusal(400, "ValidationError", "Request ARN is invalid")), "hint: check role_arn"
    ),
    "no STS there": Refusal(
        _answered(refusal(405, "MethodNotAllowed")), "AWS_ENDPOINT_URL_STS is the address"
    ),
    "STS of role_arn unreachable": Refusal(
        _unreachable_sts_of_role, f"127.0.0.1:9, which gives out the keys of role_arn {ROLE_ARN}"
    ),
    "no keys from STS": Refusal(
        _answered(Answer(200, b"<AssumeRoleResponse/>")), f"the answer to {ROLE_ARN} has no keys"
    ),
    "expired keys from STS": Refusal(
        _answered(gave_out(1, datetime(2020, 1, 1, tzinfo=UTC))),
        f"those of {ROLE_ARN} have expired already",
    ),
    "container": Refusal(_silent_metadata(container), "no usable keys"),
    "instance": Refusal(_silent_metadata(instance_role), "no usable keys"),
    "STS unreachable": Refusal(_unreachable_sts, "127.0.0.1:9"),
    "no profile": Refusal(_no_profile, "nowhere"),
    "no source profile": Refusal(_no_source_profile, "default"),
    "broken config": Refusal(_broken_config, ".aws/config"),
    "unknown mode": Refusal(_unknown_mode, "failed: Client configured with invalid defaults mode"),
    "broken process": Refusal(_broken_process, "no usable keys"),
    "no SSO login": Refusal(_no_sso_login, "aws sso login"),
    "expired": Refusal(_expired, "expired"),
}


@pytest.mark.parametrize("name", REFUSALS)
@pytest.mark.parametrize("arguments", ["backup mydir --prompt no", "sync"])
def test_keys_that_cannot_be_had_are_a_plain_error(
    machine: Machine, name: str, arguments: str
) -> None:
    refusal_of = REFUSALS[name]
    refusal_of.spoil(machine)
    code, printed = machine.run(*arguments.split())
    assert code == 1
    assert refusal_of.message in printed
    assert "bakthat: error: " in printed
    assert "bakthat: hint: " in printed
    assert "unexpected" not in printed
    assert "Traceback" not in printed
    assert machine.storage.seen("PUT", "mydir.") == 0


def test_a_storage_that_does_not_know_the_keys_of_the_role_is_a_plain_error(
    machine: Machine,
) -> None:
    role_of_profile(machine)
    machine.storage.on("*", "", refusal(403, "InvalidAccessKeyId", "It does not exist."))
    code, printed = machine.run("backup", "mydir", "--prompt", "no")
    assert code == 1
    assert "refused: InvalidAccessKeyId (It does not exist)" in printed
    assert "hint: the storage does not accept the keys of the role: check role_arn" in printed


@pytest.mark.parametrize(
    ("name", "reason"),
    [("rclone", "AuthorizationParameterserror: "), ("seaweedfs", "ServiceUnavailable: ")],
)
def test_a_storage_that_gives_out_no_keys_is_a_plain_error(
    request: pytest.FixtureRequest, user: CommandLine, tree: Path, name: str, reason: str
) -> None:
    conf = {**request.getfixturevalue(f"{name}_conf"), "role_arn": ROLE_ARN, "attempts": 1}
    write_config(user.home / ".bakthat.yml", default=conf)
    done = user.run("backup", "mydir", "--prompt", "no")
    assert done.code == 1
    assert f"role_arn {ROLE_ARN} cannot be assumed: {reason}" in done.stderr
    assert "hint: check role_arn; AWS_ENDPOINT_URL_STS is the address" in done.stderr


def test_what_the_role_may_not_do_is_named_as_the_roles(machine: Machine) -> None:
    role_of_profile(machine)
    machine.storage.on("PUT", "", refusal(403, "AccessDenied", "Access Denied"))
    code, printed = machine.run("backup", "mydir", "--prompt", "no")
    assert code == 1
    assert "hint: allow s3:PutObject on " in printed
    assert "in the policy of the role" in printed
