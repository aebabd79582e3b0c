"""docs/how-to/fleet.rst: what its snippets write is a configuration, and its commands exist."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from bakthat import models
from bakthat.cli.app import described_commands
from bakthat.cli.run import SUBJECTS
from bakthat.conf import configuration as conf_module
from bakthat.conf import load_profile, read_configuration
from bakthat.database.address import location_of
from bakthat.errors import CatalogError
from bakthat.operations.configuration.check import check_configuration
from tests.docs.sessions import DOCS, blocks_of
from tests.support.catalogs import PostgresqlCatalogs
from tests.test_models import HERE, add, row

PAGE = DOCS / "how-to" / "fleet.rst"
assert SUBJECTS  # they are registered
PROGRAM = "/opt/bakthat/bin/bakthat"


def snippet(caption: str) -> Any:
    (text,) = (each.text for each in blocks_of(PAGE) if each.caption == caption)
    return yaml.safe_load(text)


def files_of_ansible() -> Iterator[tuple[str, str, str]]:
    """Yield path, mode and content of each file that the play writes."""
    (play,) = snippet("backup.yml")
    for task in play["tasks"]:
        copy = task.get("ansible.builtin.copy")
        if copy is not None:
            content = copy["content"]
            for name, value in {**play["vars"], **VARIABLES}.items():
                content = content.replace(f"{{{{ {name} }}}}", value)
            yield copy["dest"], copy["mode"], content


def files_of_cloud_init() -> Iterator[tuple[str, str, str]]:
    """Yield path, permissions and content of each file that is written."""
    for file in snippet("user-data")["write_files"]:
        yield file["path"], file["permissions"], file["content"]


VARIABLES = {"bakthat_access_key": "AKIAEXAMPLE", "bakthat_secret_key": "a-secret"}
WAYS = pytest.mark.parametrize("files", [files_of_ansible, files_of_cloud_init])


@WAYS
def test_the_files_are_a_configuration_without_problems(
    files: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = tmp_path / "etc/bakthat"
    directory.mkdir(parents=True)
    for path, mode, content in files():
        assert mode == "0600"
        assert "{{" not in content
        written = directory / Path(path).name
        written.write_text(content.replace("/etc/bakthat", str(directory)))
        written.chmod(0o600)
    monkeypatch.setattr(conf_module, "SYSTEM_DIRECTORY", str(directory))
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    report = check_configuration()
    assert [each.detail for each in report.findings if each.verdict != "good"] == []
    assert (report.profiles, report.jobs) == (("default",), ("nightly",))
    assert load_profile().profile.prefix == "{host}/"
    job = read_configuration().job("nightly").job
    assert [each.path for each in job.sources] == ["/etc", "/srv"]


def commands() -> list[list[str]]:
    (play,) = snippet("backup.yml")
    lines = [task.get("ansible.builtin.command") for task in play["tasks"]]
    run: list[list[str]] = snippet("user-data")["runcmd"]
    return [shlex.split(each) for each in lines if each] + run


@pytest.mark.parametrize("words", commands(), ids=" ".join)
def test_the_commands_exist(words: list[str]) -> None:
    program, name, *rest = words
    assert program == PROGRAM
    (found,) = (each for each in described_commands() if each.name == name)
    arguments = [each for section in found.sections.values() for each in section]
    known = {flag for each in arguments for flag in each.option_strings}
    assert {each for each in rest if each.startswith("-")} <= known


def test_each_task_of_the_play_has_a_name_and_one_module() -> None:
    (play,) = snippet("backup.yml")
    for task in play["tasks"]:
        assert task["name"]
        assert len([key for key in task if key.startswith("ansible.builtin.")]) == 1


@pytest.mark.slow
@pytest.mark.needs("postgres", "psql")
def test_the_roles_of_a_shared_catalog_may_what_they_should(
    postgresql_catalogs: PostgresqlCatalogs,
) -> None:
    (script,) = (each.text for each in blocks_of(PAGE) if each.caption == "shared-catalog.sql")
    postgresql_catalogs.sql("postgres", script)
    owner = postgresql_catalogs.address("bakthat", "bakthat", "YOURPASSWORD")
    reader = postgresql_catalogs.address("bakthat", "bakthat_monitor", "ANOTHERPASSWORD")
    add(owner, row("my.1"))
    with models.catalog(reader):
        assert [each.stored_filename for each in models.Backups.search("", HERE)] == ["my.1"]
    with pytest.raises(CatalogError, match="permission denied"):
        add(reader, row("my.2"))


def test_the_address_of_a_shared_catalog_is_valid() -> None:
    (profile,) = snippet("/etc/bakthat/10-storage.yml, with the other keys").values()
    address = location_of(profile["database"])
    assert str(address) == "postgresql://bakthat@db.example.com/bakthat"


def test_user_data_begins_as_cloud_init_demands() -> None:
    (text,) = (each.text for each in blocks_of(PAGE) if each.caption == "user-data")
    assert text.startswith("#cloud-config\n")
