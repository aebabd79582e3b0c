"""The plugins that notify: real requests to a server on loopback, and failures that only warn."""

from __future__ import annotations

import json
import logging
import os
import re
import socket
import stat
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any
from urllib.parse import parse_qs, parse_qsl, unquote_plus, urlsplit

import pytest

import bakthat
from bakthat.errors import ConfigError, NoMatchError, SourceError
from bakthat.models import Backups
from bakthat.notify import base, prometheus, uptime_kuma
from tests.support.archives import unrestorable
from tests.support.commandline import CommandLine
from tests.support.http_listener import HttpListener, http_listener
from tests.support.needs import package
from tests.support.profiles import Conf, write_config

# Apprise loads hundreds of modules, one of which imports what Python 3.13 has not any more.
pytestmark = pytest.mark.filterwarnings("ignore:'imghdr' is deprecated:DeprecationWarning")


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "*")


@pytest.fixture
def server() -> Iterator[HttpListener]:
    with http_listener() as listener:
        yield listener


@pytest.fixture
def local(local: Conf, plugins_dir: Path) -> Conf:
    assert plugins_dir.is_dir()
    return local


def with_plugin(conf: Conf, name: str, **settings: Any) -> Conf:
    return {**conf, "plugins": [f"bakthat.notify.{name}"], section_of(name): settings}


def section_of(name: str) -> str:
    """Return the key of a plugin's settings: uptime_kuma of UptimeKuma."""
    return re.sub("(?<=[a-z])(?=[A-Z])", "_", name).lower()


def warnings_in(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [each.getMessage() for each in caplog.records if each.levelno >= logging.WARNING]


# Healthchecks.


def test_healthchecks_is_notified_of_the_start_and_of_the_success(
    local: Conf, tree: Path, server: HttpListener
) -> None:
    conf = with_plugin(local, "Healthchecks", url=f"{server.url}/secret-uuid")
    made = bakthat.backup(tree, conf=conf, password="")
    assert server.paths() == ["/secret-uuid/start", "/secret-uuid"]
    assert {each.method for each in server.requests} == {"POST"}
    runs = [parse_qs(urlsplit(each.path).query)["rid"] for each in server.requests]
    assert runs[0] == runs[1]
    assert server.requests[1].body.decode() == f"stored {made.stored_filename} ({made.size} B)"


def test_healthchecks_is_notified_of_a_failure_and_of_backups_only(
    local: Conf, tree: Path, server: HttpListener, tmp_path: Path
) -> None:
    conf = with_plugin(local, "Healthchecks", url=f"{server.url}/ping/key/slug?create=1")
    with pytest.raises(SourceError):
        bakthat.backup(tmp_path / "nothing", conf=conf, password="")
    with pytest.raises(NoMatchError):
        bakthat.restore("nothing", conf=conf)
    assert server.paths() == ["/ping/key/slug/start", "/ping/key/slug/fail"]
    assert "?create=1&rid=" in server.requests[1].path
    assert "no such file or directory" in server.requests[1].body.decode()


def test_healthchecks_reports_an_incomplete_backup_as_a_failure(
    local: Conf, tree: Path, server: HttpListener
) -> None:
    with socket.socket(socket.AF_UNIX) as left_out:
        left_out.bind(str(tree / "socket"))
        conf = with_plugin(local, "Healthchecks", url=f"{server.url}/uuid")
        made = bakthat.backup(tree, conf=conf, password="")
    assert made.metadata["warning_count"] == 1
    assert server.paths() == ["/uuid/start", "/uuid/fail"]
    said = server.requests[1].body.decode()
    assert said.startswith(f"incomplete: stored {made.stored_filename} (")
    assert said.endswith("), with 1 warning")


@pytest.mark.parametrize("name", ["Healthchecks", "UptimeKuma", "Webhook", "Apprise"])
@pytest.mark.parametrize("details", [None, False, True])
def test_a_warning_of_the_log_is_sent_to_nobody_unless_asked(
    name: str, details: bool | None, local: Conf, tree: Path, server: HttpListener
) -> None:
    need(name)
    more = {} if details is None else {"details": details}
    with socket.socket(socket.AF_UNIX) as left_out:
        left_out.bind(str(tree / "socket"))
        conf = with_plugin(local, name, **NAMES[name](server.url), **more)
        made = bakthat.backup(tree, conf=conf, password="")
    assert made.metadata["warnings"] == [f"{tree}/socket: is a socket; it is not stored"]
    sent = unquote_plus(server.requests[-1].path) + server.requests[-1].body.decode()
    assert "1 warning" in sent
    assert (f"1 warning: {tree}/socket: is a socket" in sent) is bool(details)
    assert ("/socket" in sent) is bool(details)


def test_a_webhook_gets_what_a_program_has_said_only_when_it_asks(
    local: Conf, server: HttpListener
) -> None:
    program = "echo SAID >&2; echo data"
    for details in (False, True):
        conf = with_plugin(local, "Webhook", url=f"{server.url}/x", details=details)
        made = bakthat.backup(command=program, custom_filename="dump", conf=conf, password="")
        assert made.metadata["producer"]["stderr"] == "SAID"
    bare, full = (json.loads(each.body)["backups"][0] for each in server.requests)
    assert "SAID" not in str(bare)
    assert bare["metadata"]["producer"].keys() == {"exit_code", "seconds"}
    assert full == made.as_dict()


@pytest.mark.parametrize("name", ["Healthchecks", "UptimeKuma", "Webhook", "Apprise"])
def test_details_are_true_or_false(name: str, local: Conf) -> None:
    need(name)
    conf = with_plugin(local, name, **NAMES[name]("http://h"), details="yes please")
    assert f"'details' below '{section_of(name)}' must be true or false" in str(refused(conf))


# Uptime Kuma.


def pushes(server: HttpListener) -> list[dict[str, str]]:
    """Return the parameters of each request."""
    assert {each.method for each in server.requests} <= {"GET"}
    assert {each.body for each in server.requests} <= {b""}
    return [
        dict(parse_qsl(urlsplit(each.path).query, keep_blank_values=True, strict_parsing=True))
        for each in server.requests
    ]


def test_uptime_kuma_is_up_after_a_complete_backup(
    local: Conf, tree: Path, server: HttpListener
) -> None:
    conf = with_plugin(local, "UptimeKuma", url=f"{server.url}/api/push/secret-token")
    made = bakthat.backup(tree, conf=conf, password="", custom_filename="ä & b")
    assert server.paths() == ["/api/push/secret-token"]
    [pushed] = pushes(server)
    assert pushed == {
        "status": "up",
        "msg": f"stored {made.stored_filename} ({made.size} B)",
        "ping": str(round(made.metadata["seconds"] * 1000)),
    }


def test_uptime_kuma_is_down_after_a_failed_backup_and_hears_of_nothing_else(
    local: Conf, tree: Path, server: HttpListener, tmp_path: Path
) -> None:
    conf = with_plugin(local, "UptimeKuma", url=f"{server.url}/api/push/token")
    with pytest.raises(SourceError) as failed:
        bakthat.backup(tmp_path / "nothing", conf=conf, password="")
    with pytest.raises(NoMatchError):
        bakthat.restore("nothing", conf=conf)
    assert pushes(server) == [{"status": "down", "msg": str(failed.value), "ping": ""}]


def test_uptime_kuma_is_down_after_an_incomplete_backup(
    local: Conf, tree: Path, server: HttpListener
) -> None:
    conf = with_plugin(local, "UptimeKuma", url=f"{server.url}/api/push/token")
    made = back_up_nothing(conf, tree)
    [pushed] = pushes(server)
    assert (pushed["status"], pushed["ping"]) == ("down", "")
    assert pushed["msg"].startswith(f"incomplete: stored {made.stored_filename} (")
    assert pushed["msg"].endswith(", with 1 warning")


def test_the_parameters_of_a_copied_url_are_replaced_and_others_kept(
    local: Conf, tree: Path, server: HttpListener
) -> None:
    copied = f"{server.url}/kuma/api/push/token/?status=up&msg=OK&ping=&key=a%26b#top"
    conf = with_plugin(local, "UptimeKuma", url=copied)
    bakthat.backup(tree, conf=conf, password="")
    back_up_nothing(conf, tree)
    assert server.paths() == ["/kuma/api/push/token/"] * 2
    assert [each.path.count("status=") for each in server.requests] == [1, 1]
    first, second = pushes(server)
    assert (first["status"], second["status"]) == ("up", "down")
    assert (first["key"], second["key"]) == ("a&b", "a&b")
    assert first["msg"] != "OK"


def test_a_long_message_for_uptime_kuma_is_cut(
    local: Conf, server: HttpListener, tmp_path: Path
) -> None:
    conf = with_plugin(local, "UptimeKuma", url=f"{server.url}/api/push/token")
    with pytest.raises(SourceError):
        bakthat.backup(tmp_path / ("ä" * 100) / ("ä" * 100), conf=conf, password="")
    [pushed] = pushes(server)
    assert len(pushed["msg"]) == uptime_kuma.MAX_MESSAGE
    assert pushed["msg"].startswith("no such file or directory: '/")
    assert pushed["msg"].endswith("ä…")


def test_the_text_of_an_exception_of_another_library_is_not_sent(
    local: Conf, tree: Path, server: HttpListener
) -> None:
    def refuse(_session_id: str) -> None:
        raise ValueError("the password is hunter2")

    bakthat.events.before_backup += refuse
    try:
        with pytest.raises(ValueError, match="hunter2"):
            bakthat.backup(
                tree, conf=with_plugin(local, "Healthchecks", url=server.url), password=""
            )
    finally:
        bakthat.events.before_backup -= refuse
    assert [each.body for each in server.requests] == [b"ValueError"]


# A server that does not want to.


def closed_port() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{probe.getsockname()[1]}"


NAMES: dict[str, Callable[[str], Conf]] = {
    "Healthchecks": lambda url: {"url": f"{url}/secret-uuid"},
    "UptimeKuma": lambda url: {"url": f"{url}/api/push/secret-token"},
    "Webhook": lambda url: {"url": f"{url}/secret-topic", "headers": {"Authorization": "secret"}},
    "Apprise": lambda url: {"urls": [url.replace("http:", "json:") + "/secret-path"]},
}


def need(name: str) -> None:
    if name == "Apprise":
        package("apprise")


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("trouble", ["closed", "404", "500", "302", "silent"])
def test_a_notification_that_fails_is_a_warning_without_secrets(
    name: str,
    trouble: str,
    local: Conf,
    tree: Path,
    server: HttpListener,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> None:
    need(name)
    if trouble.isdigit():
        server.status = int(trouble)
        server.headers["Location"] = f"{server.url}/elsewhere"
    server.answers = trouble != "silent"
    url = closed_port() if trouble == "closed" else server.url
    conf = with_plugin(local, name, **NAMES[name](url))
    caplog.set_level(logging.INFO)
    made = bakthat.backup(tree, conf=conf, password="")
    assert bakthat.ls(conf=conf) == [made]
    if (name, trouble) == ("Apprise", "302"):
        return  # Apprise follows redirects, to what answers 302 again, or not
    expected = 2 if name == "Healthchecks" else 1
    warned = warnings_in(caplog)
    beginning = f"{section_of(name)}: could not"
    assert len([each for each in warned if each.startswith(beginning)]) == expected
    if name != "Apprise" and trouble.isdigit():
        assert warned[0].endswith(f"the server answered {trouble}")
    assert "/elsewhere" not in server.paths()
    captured = capfd.readouterr()
    assert "secret" not in caplog.text + captured.out + captured.err


def test_a_server_that_never_answers_delays_a_backup_only_briefly(
    local: Conf, tree: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert base.TIMEOUT <= 10
    monkeypatch.setattr(base, "TIMEOUT", 0.05)
    with socket.socket() as deaf:
        deaf.bind(("127.0.0.1", 0))
        deaf.listen()
        url = f"http://127.0.0.1:{deaf.getsockname()[1]}/secret"
        bakthat.backup(tree, conf=with_plugin(local, "Webhook", url=url), password="")
    assert warnings_in(caplog) == ["webhook: could not notify: no answer within 0.05 seconds"]


# Webhook.


def entry_without_warnings(backup: Backups) -> dict[str, Any]:
    """Return an entry as a webhook gets it that did not ask for details."""
    metadata = {name: value for name, value in backup.metadata.items() if name != "warnings"}
    return {**backup.as_dict(), "metadata": metadata}


def test_a_webhook_gets_json_after_each_operation(
    local: Conf, tree: Path, server: HttpListener, tmp_path: Path
) -> None:
    conf = with_plugin(local, "Webhook", url=f"{server.url}/x?y=z", headers={"X-Token": "t"})
    made = bakthat.backup(tree, conf=conf, password="", tags=["ä"])
    bakthat.rotate_backups("mydir", conf=conf, last=1)
    with pytest.raises(NoMatchError):
        bakthat.delete("nothing", conf=conf)
    bodies = [json.loads(each.body) for each in server.requests]
    assert [(each["operation"], each["status"]) for each in bodies] == [
        ("backup", "success"),
        ("rotate_backups", "success"),
        ("delete", "failure"),
    ]
    assert bodies[0]["backups"] == [entry_without_warnings(made)]
    assert bodies[0]["message"] == f"backup: {made.stored_filename}"
    assert bodies[0]["host"] == socket.gethostname()
    assert len({each["session_id"] for each in bodies}) == 3
    assert bodies[1]["message"] == "rotate_backups: 0 deleted"
    assert bodies[2]["message"] == "delete failed: no backup matches 'nothing'"
    assert {each.path for each in server.requests} == {"/x?y=z"}
    assert server.requests[0].headers["x-token"] == "t"
    assert server.requests[0].headers["content-type"] == "application/json"


def test_a_notification_names_the_host_of_the_profile(
    local: Conf, tree: Path, server: HttpListener
) -> None:
    conf = with_plugin(local, "Webhook", url=server.url) | {"host": "shop"}
    bakthat.backup(tree, conf=conf, password="")
    assert json.loads(server.requests[0].body)["host"] == "shop"


def test_a_webhook_speaks_ntfy(local: Conf, tree: Path, server: HttpListener) -> None:
    conf = with_plugin(local, "Webhook", url=f"{server.url}/my_topic", format="ntfy")
    made = bakthat.backup(tree, conf=conf, password="")
    with pytest.raises(NoMatchError):
        bakthat.delete("nothing", conf=conf)
    title = f"bakthat on {socket.gethostname()}"
    assert server.paths() == ["/", "/"]
    assert [json.loads(each.body) for each in server.requests] == [
        {
            "topic": "my_topic",
            "title": title,
            "message": f"backup: {made.stored_filename}",
            "tags": ["white_check_mark"],
        },
        {
            "topic": "my_topic",
            "title": title,
            "message": "delete failed: no backup matches 'nothing'",
            "tags": ["warning"],
            "priority": 4,
        },
    ]


@pytest.mark.parametrize("name", ["Webhook", "Apprise"])
def test_a_plugin_set_to_failures_only_sends_nothing_else(
    name: str, local: Conf, tree: Path, server: HttpListener
) -> None:
    need(name)
    conf = with_plugin(local, name, when="failure", **NAMES[name](server.url))
    bakthat.backup(tree, conf=conf, password="")
    with pytest.raises(NoMatchError):
        bakthat.delete("nothing", conf=conf)
    assert len(server.requests) == 1
    assert b"no backup matches" in server.requests[0].body


def back_up_nothing(conf: Conf, tree: Path) -> Backups:
    for each in tree.iterdir():
        each.unlink()
    return bakthat.backup(tree, conf=conf, password="")


def restore_with_a_warning(conf: Conf, tree: Path) -> Backups:
    store = Path(conf["local_path"])
    store.mkdir()
    unrestorable(store / "mydir.20200101000000.tgz")
    bakthat.sync(conf=conf)
    restored = bakthat.restore("mydir", conf=conf, output=tree.parent / "out")
    assert restored is not None
    return restored


INCOMPLETE: dict[str, Callable[[Conf, Path], Backups]] = {
    "backup": back_up_nothing,
    "restore": restore_with_a_warning,
}


@pytest.mark.parametrize("operation", INCOMPLETE)
@pytest.mark.parametrize("when", ["always", "failure"])
def test_what_is_incomplete_is_told_as_such(
    operation: str, when: str, local: Conf, tree: Path, server: HttpListener
) -> None:
    conf = with_plugin(local, "Webhook", url=f"{server.url}/x", when=when)
    found = INCOMPLETE[operation](conf, tree)
    assert not found.is_complete
    assert found.warning_count == 1
    [body] = [json.loads(each.body) for each in server.requests]
    assert (body["operation"], body["status"]) == (operation, "incomplete")
    expected = f"{operation} incomplete: {found.stored_filename}, with 1 warning"
    assert body["message"].startswith(expected)
    assert body["backups"] == [entry_without_warnings(found)]


def test_what_is_incomplete_is_a_warning_for_ntfy(
    local: Conf, tree: Path, server: HttpListener
) -> None:
    conf = with_plugin(local, "Webhook", url=f"{server.url}/topic", format="ntfy", when="failure")
    conf["webhook"]["details"] = True
    made = back_up_nothing(conf, tree)
    [body] = [json.loads(each.body) for each in server.requests]
    assert body["message"] == (
        f"backup incomplete: {made.stored_filename}, with 1 warning: {tree}: nothing in it is "
        "stored: the directory is empty, or its disk is not mounted; "
        "--allow-empty says that this is meant"
    )
    assert (body["tags"], body["priority"]) == (["warning"], 4)


@pytest.mark.parametrize("when", ["always", "failure"])
def test_what_is_incomplete_is_a_warning_for_apprise(
    when: str, local: Conf, tree: Path, server: HttpListener
) -> None:
    need("Apprise")
    conf = with_plugin(local, "Apprise", when=when, **NAMES["Apprise"](server.url))
    back_up_nothing(conf, tree)
    [body] = [json.loads(each.body) for each in server.requests]
    assert body["type"] == "warning"
    assert body["message"].startswith("backup incomplete: ")


def test_what_is_incomplete_is_no_success_for_prometheus(local: Conf, tree: Path) -> None:
    textfile = tree.parent / "bakthat.prom"
    conf = with_plugin(local, "Prometheus", textfile=str(textfile))

    def samples() -> dict[str, float]:
        lines = [each.rpartition(" ") for each in textfile.read_text().splitlines()]
        return {name.partition("{")[0]: float(value) for name, _, value in lines if "{" in name}

    bakthat.backup(tree, conf=conf, password="")
    text = textfile.read_text()
    textfile.write_text(re.sub(r"(bakthat_last_\w+_seconds\{.*\}) \d+", r"\1 1700000000", text))
    back_up_nothing(conf, tree)
    found = samples()
    assert found["bakthat_last_success_timestamp_seconds"] == 1_700_000_000
    assert found["bakthat_last_backup_timestamp_seconds"] > 1_700_000_000
    assert found["bakthat_warnings"] == 1


# Apprise.


def test_apprise_notifies_of_success_and_failure(
    local: Conf, tree: Path, server: HttpListener
) -> None:
    need("Apprise")
    conf = with_plugin(local, "Apprise", **NAMES["Apprise"](server.url))
    made = bakthat.backup(tree, conf=conf, password="")
    with pytest.raises(NoMatchError):
        bakthat.delete("nothing", conf=conf)
    bodies = [json.loads(each.body) for each in server.requests]
    assert [each["type"] for each in bodies] == ["success", "failure"]
    assert bodies[0]["message"] == f"backup: {made.stored_filename}"
    assert bodies[0]["title"] == f"bakthat on {socket.gethostname()}"


def test_apprise_without_its_library_says_how_to_get_it(
    local: Conf, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "apprise", None)
    error = refused(with_plugin(local, "Apprise", urls=["dbus://"]))
    assert "the library 'apprise' is not installed" in str(error)
    assert error.hint == "pip install apprise, or with pipx: pipx inject bakthat apprise"


def test_an_address_that_apprise_does_not_know_is_refused_and_not_repeated(
    local: Conf, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    need("Apprise")
    error = refused(with_plugin(local, "Apprise", urls=["json://127.0.0.1", "secret://token"]))
    assert "does not know the address number 2 of 'urls'" in str(error)
    assert "token" not in str(error) + caplog.text + "".join(capfd.readouterr())


# Settings.


def refused(conf: Conf) -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        bakthat.ls(conf=conf)
    assert str(caught.value).startswith(f"conf: profile 'default': plugin '{conf['plugins'][0]}': ")
    return caught.value


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("Healthchecks", {}, "the profile has no 'url' below 'healthchecks'"),
        (
            "Healthchecks",
            {"url": "hc-ping.com/secret"},
            "'url' below 'healthchecks' must be an add",
        ),
        ("Healthchecks", {"url": "file:///etc/secret"}, "begins with https:// or http://"),
        ("Healthchecks", {"url": "https://me:secret@hc"}, "without a user name"),
        ("Healthchecks", {"url": "https://[secret"}, "must be an address"),
        ("Healthchecks", {"url": "https://hc/a secret"}, "must be an address"),
        ("Healthchecks", {"url": 5}, "must be an address"),
        (
            "Healthchecks",
            {"url": "https://hc", "ulr": "x"},
            "unknown key 'ulr' below 'healthchecks'",
        ),
        ("UptimeKuma", {}, "the profile has no 'url' below 'uptime_kuma'"),
        (
            "UptimeKuma",
            {"url": "https://kuma.example.com/secret"},
            "'url' below 'uptime_kuma' must be the push URL of a monitor, such as https://kuma.exa",
        ),
        ("UptimeKuma", {"url": "https://h/api/push/"}, "must be the push URL"),
        ("UptimeKuma", {"url": "ftp://h/api/push/secret"}, "must be the push URL"),
        ("UptimeKuma", {"url": "https://h/api/push/secret/more"}, "must be the push URL"),
        ("UptimeKuma", {"url": ["https://h/api/push/secret"]}, "must be the push URL"),
        ("Webhook", {"url": "https://x", "when": "never"}, "must be one of always, failure"),
        ("Webhook", {"url": "https://x", "format": "xml"}, "must be one of json, ntfy"),
        ("Webhook", {"url": "https://x", "headers": {"a": "secret\nb"}}, "mapping of text to text"),
        ("Webhook", {"url": "https://x/", "format": "ntfy"}, "must end with a topic of ntfy"),
        ("Webhook", {"url": "https://x/a?b=c", "format": "ntfy"}, "must end with a topic"),
        ("Apprise", {"urls": []}, "a list of Apprise's addresses"),
        ("Prometheus", {"textfil": "x"}, "unknown key 'textfil' below 'prometheus'"),
        ("Webhook", {"url https://secret": "x"}, "unknown key 'url…' below 'webhook'"),
        ("Prometheus", {"textfile": 3}, "'textfile' below 'prometheus' must be text"),
    ],
)
def test_a_wrong_setting_is_one_line_that_does_not_repeat_it(
    name: str, settings: Conf, message: str, local: Conf
) -> None:
    error = refused(with_plugin(local, name, **settings))
    assert message in str(error)
    assert "secret" not in str(error) + error.hint
    assert "\n" not in str(error)


def test_a_profile_without_the_settings_is_refused(local: Conf) -> None:
    error = refused({**local, "plugins": ["bakthat.notify.Webhook"]})
    assert "no 'url' below 'webhook'" in str(error)


def test_the_command_line_warns_and_exits_with_0(
    local: Conf, tree: Path, isolated_environment: Path
) -> None:
    user = CommandLine(isolated_environment, tree.parent)
    config = user.home / ".bakthat.yml"
    conf = with_plugin(local, "Healthchecks", url=f"{closed_port()}/secret")
    write_config(config, default=conf)
    done = user.run("backup", "mydir", "--prompt", "no", env={"no_proxy": "*"})
    assert done.code == 0
    warned = "bakthat: warning: healthchecks: could not notify: connection refused"
    assert done.stderr.splitlines().count(warned) == 2
    assert "secret" not in done.stderr


# Prometheus.

HOST = f'host="{socket.gethostname()}"'


@pytest.fixture
def textfile(tmp_path: Path) -> Path:
    directory = tmp_path / "textfile_collector"
    directory.mkdir()
    return directory / "bakthat.prom"


def samples(path: Path) -> dict[str, str]:
    lines = [line for line in path.read_text().splitlines() if not line.startswith("#")]
    return dict(line.rsplit(" ", 1) for line in lines)


def test_prometheus_finds_the_last_backup_of_each_set(
    local: Conf, tree: Path, textfile: Path
) -> None:
    conf = with_plugin(local, "Prometheus", textfile=str(textfile))
    began = int(time.time())
    bakthat.backup(tree, conf=conf, password="", custom_filename="other")
    bakthat.backup(tree, conf=conf, password="")
    made = bakthat.backup(tree, conf=conf, password="")
    labels = f'{{set="mydir",{HOST},destination="local",source="{tree}"}}'
    found = samples(textfile)
    assert len(found) == 2 * len(prometheus.METRICS)
    assert began <= int(found[f"bakthat_last_success_timestamp_seconds{labels}"]) <= time.time()
    assert float(found[f"bakthat_duration_seconds{labels}"]) >= 0
    assert found[f"bakthat_stored_bytes{labels}"] == str(made.size)
    assert found[f"bakthat_source_bytes{labels}"] == "5"
    assert found[f"bakthat_warnings{labels}"] == "0"
    assert f'bakthat_warnings{{set="other",{HOST},destination="local"}}' in found
    assert stat.S_IMODE(textfile.stat().st_mode) == 0o644
    assert os.listdir(textfile.parent) == ["bakthat.prom"]


def test_the_metrics_are_written_next_to_the_configuration_and_nowhere_else(
    local: Conf,
    tree: Path,
    textfile: Path,
    isolated_environment: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    conf = with_plugin(local, "Prometheus", textfile=os.path.relpath(textfile, tree.parent))
    config = tree.parent / "bakthat.yml"
    write_config(config, default=conf)
    monkeypatch.chdir(isolated_environment)
    bakthat.backup(tree, config=config, password="")
    assert samples(textfile)
    nowhere = with_plugin(local, "Prometheus", textfile="~no-such-user/bakthat.prom")
    with pytest.raises(ConfigError, match="there is no such user"):
        bakthat.backup(tree, conf=nowhere, password="")


def test_each_metric_is_described_once_before_its_samples(
    local: Conf, tree: Path, textfile: Path
) -> None:
    conf = with_plugin(local, "Prometheus", textfile=str(textfile))
    for name in ("a", "b"):
        bakthat.backup(tree, conf=conf, password="", custom_filename=name)
    lines = textfile.read_text().splitlines()
    assert textfile.read_text().endswith("\n")
    for start, metric in enumerate(prometheus.METRICS):
        described, typed, first, second = lines[start * 4 : start * 4 + 4]
        assert described.startswith(f"# HELP {metric} ")
        assert typed == f"# TYPE {metric} gauge"
        assert first.startswith(f'{metric}{{set="a",')
        assert second.startswith(f'{metric}{{set="b",')


def test_a_set_with_an_odd_name_is_escaped_and_replaced_by_itself(
    local: Conf, tree: Path, textfile: Path
) -> None:
    conf = with_plugin(local, "Prometheus", textfile=str(textfile))
    for _ in range(2):
        bakthat.backup(tree, conf=conf, password="", custom_filename='ä"b\\c} 5')
    found = samples(textfile)
    assert len(found) == len(prometheus.METRICS)
    assert f'bakthat_warnings{{set="ä\\"b\\\\c}} 5",{HOST},destination="local"}}' in found


def test_two_sources_of_one_name_have_samples_of_their_own(
    local: Conf, textfile: Path, tmp_path: Path
) -> None:
    conf = with_plugin(local, "Prometheus", textfile=str(textfile))
    paths = [tmp_path / os.fsdecode(name) / "my" for name in (b"a", b'b"\\', b"\xff")]
    for path in paths * 2:
        path.mkdir(parents=True, exist_ok=True)
        bakthat.backup(path, conf=conf, password="", allow_empty=True)
    assert len(samples(textfile)) == 3 * len(prometheus.METRICS)


def test_a_failed_backup_leaves_the_last_success(
    local: Conf, tree: Path, textfile: Path, tmp_path: Path
) -> None:
    conf = with_plugin(local, "Prometheus", textfile=str(textfile))
    bakthat.backup(tree, conf=conf, password="")
    before = textfile.read_text()
    with pytest.raises(SourceError):
        bakthat.backup(tmp_path / "nothing", conf=conf, password="")
    assert textfile.read_text() == before


def test_writers_at_the_same_time_keep_each_others_samples(textfile: Path) -> None:
    def write(number: int) -> None:
        labels = f'{{set="{number}",{HOST},destination="local"}}'
        prometheus._merge(str(textfile), labels, dict.fromkeys(prometheus.METRICS, number))

    threads = [threading.Thread(target=write, args=(number,)) for number in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(samples(textfile)) == 16 * len(prometheus.METRICS)


def test_lines_that_are_no_samples_of_ours_are_dropped(
    local: Conf, tree: Path, textfile: Path
) -> None:
    textfile.write_text('half a line\nbakthat_warnings{set="x\nforeign{set="a"} 1\n')
    bakthat.backup(tree, conf=with_plugin(local, "Prometheus", textfile=str(textfile)), password="")
    assert len(samples(textfile)) == len(prometheus.METRICS)


def test_a_textfile_that_cannot_be_written_is_a_warning_that_names_it(
    local: Conf, tree: Path, textfile: Path, caplog: pytest.LogCaptureFixture
) -> None:
    textfile.parent.rmdir()
    conf = with_plugin(local, "Prometheus", textfile=str(textfile))
    made = bakthat.backup(tree, conf=conf, password="")
    assert isinstance(made, Backups)
    assert warnings_in(caplog) == [
        f"prometheus: could not notify: no such file or directory: {textfile.parent}"
    ]


def test_the_plugins_are_what_the_package_names() -> None:
    import bakthat.notify

    assert isinstance(bakthat.notify, ModuleType)
    for name in bakthat.notify.__all__:
        plugin = getattr(bakthat.notify, name)
        assert plugin.section == section_of(name)


# Settings in a file, or of a program


@pytest.mark.parametrize("way", ["file", "command"])
def test_the_settings_may_be_in_a_file_or_come_from_a_program(
    local: Conf, tree: Path, server: HttpListener, tmp_path: Path, way: str
) -> None:
    path = tmp_path / "settings.yml"
    path.write_text(f"url: {server.url}/secret-uuid\n")
    value = str(path) if way == "file" else ["cat", str(path)]
    conf = {**local, "plugins": ["bakthat.notify.Healthchecks"], f"healthchecks_{way}": value}
    bakthat.backup(tree, conf=conf, password="")
    assert server.paths() == ["/secret-uuid/start", "/secret-uuid"]


def test_settings_of_a_file_are_checked_as_those_of_the_profile(
    local: Conf, tree: Path, tmp_path: Path
) -> None:
    path = tmp_path / "settings.yml"
    path.write_text("uri: https://h/secret-uuid\n")
    conf = {**local, "plugins": ["bakthat.notify.Webhook"], "webhook_file": str(path)}
    with pytest.raises(ConfigError, match="unknown key 'uri' below 'webhook'") as caught:
        bakthat.backup(tree, conf=conf, password="")
    assert "secret" not in str(caught.value) + caught.value.hint
    path.write_text("https://h/secret-uuid\n")
    with pytest.raises(ConfigError, match="must be a mapping of settings, not text") as caught:
        bakthat.backup(tree, conf=conf, password="")
    assert "secret" not in str(caught.value) + caught.value.hint
    assert not Path(local["local_path"]).exists()
