"""What a service has to know of a job."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from bakthat.conf import load_profile, read_configuration
from bakthat.jobs.schedule.service import Service, foreign_variables, own_words, service_of


def service_for(directory: Path, profile: str, job: str = "{sources: [/etc]}") -> Service:
    path = directory / "my.yml"
    path.write_text(f"default: {profile}\njobs: {{nightly: {job}}}\n")
    path.chmod(0o600)
    configuration = read_configuration(path)
    loaded = configuration.job("nightly")
    return service_of(configuration, loaded, load_profile("default", config=path))


LOCAL = "{default_destination: local, local_path: /srv/store}"


def test_it_writes_to_the_catalog_the_cache_and_the_store(
    isolated_environment: Path, tmp_path: Path
) -> None:
    home = isolated_environment.resolve()
    cache = str(home / ".cache" / "bakthat")
    made = service_for(tmp_path, LOCAL)
    assert made.writes == (str(home), cache, "/srv/store")
    made = service_for(tmp_path, "{s3_bucket: b, database: /var/lib/b/c.sqlite}")
    assert made.writes == ("/var/lib/b", cache)
    made = service_for(tmp_path, "{s3_bucket: b, prometheus: {textfile: /var/lib/p/b.prom}}")
    assert made.writes == (str(home), cache, "/var/lib/p")


def test_a_catalog_on_a_server_has_its_files_in_the_home_directory(
    isolated_environment: Path, tmp_path: Path
) -> None:
    (tmp_path / "url").write_text("postgresql://b@db/catalog\n")
    for given in ("database: postgresql://b@db/catalog", "database_file: url"):
        made = service_for(tmp_path, f"{{s3_bucket: b, {given}}}")
        assert made.writes[0] == str(isolated_environment.resolve())
        assert made.has_databases


def test_it_writes_beside_a_database_of_sqlite_and_where_a_drill_restores(tmp_path: Path) -> None:
    sources = "['sqlite:////srv/app/a.db', 'postgresql://h/d']"
    job = f"{{sources: {sources}, drill: {{every: 1M, scratch: /big}}}}"
    made = service_for(tmp_path, "{s3_bucket: b}", job)
    assert made.writes[-2:] == ("/big", "/srv/app")
    assert made.has_databases
    assert made.restores
    assert "/srv/app/a.db" in made.reads
    assert not service_for(
        tmp_path, "{s3_bucket: b}", "{sources: ['sqlite:////a.db']}"
    ).has_databases


def test_it_reads_sources_files_with_secrets_and_where_links_lead(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("/usr/share")
    profile = "{s3_bucket: b, password_file: key, identity_file: /etc/id}"
    job = f"{{sources: [{{path: {tmp_path / 'link'}, exclude_file: not}}]}}"
    made = service_for(tmp_path, profile, job)
    assert {
        str(tmp_path / "my.yml"),
        str(tmp_path / "key"),
        str(tmp_path / "not"),
        str(tmp_path / "link"),
        "/usr/share",
        "/etc/id",
    } <= {*made.reads}


def test_a_variable_of_this_shell_gives_no_credential(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BAKTHAT_PASSWORD_FILE", "/run/mine")
    assert service_for(tmp_path, "{s3_bucket: b}").secrets == ()
    assert foreign_variables() == ["BAKTHAT_PASSWORD_FILE"]


def test_the_program_is_that_which_was_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "bakthat"
    program.write_text("")
    monkeypatch.setattr(sys, "argv", [str(program)])
    beside = Path(sys.executable).with_name("bakthat")
    assert own_words() == (str(beside),), "it is not executable"
    program.chmod(0o755)
    assert own_words() == (str(program),)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["./bakthat"])
    assert own_words() == (str(program),)


def test_without_a_program_python_runs_the_package_and_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    python = tmp_path / "python"
    python.symlink_to(sys.executable)
    monkeypatch.setattr(sys, "argv", [str(tmp_path / "bakthat" / "__main__.py")])
    monkeypatch.setattr(sys, "executable", str(python))
    assert own_words() == (str(python), "-P", "-m", "bakthat")
    assert os.path.isabs(own_words()[0])
