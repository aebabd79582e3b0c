"""A configuration of several files."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from bakthat.conf import configuration as conf_module
from bakthat.conf import (
    load_profile,
    profile_in,
    read_configuration,
    read_raw_profile,
    save_profile,
)
from bakthat.errors import ConfigError


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    path.chmod(0o600)
    return path


@pytest.fixture
def home(isolated_environment: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(conf_module, "SYSTEM_DIRECTORY", str(tmp_path / "etc"))
    return isolated_environment


def test_the_files_of_the_directory_belong_to_the_configuration(home: Path) -> None:
    write(home / ".bakthat.yml", "default: {default_destination: local, local_path: a}\n")
    write(home / ".bakthat.d/20-b.yml", "jobs: {b: {sources: [data], profile: far}}\n")
    write(home / ".bakthat.d/10-a.yml", "far: {s3_bucket: b}\njobs: {a: {sources: [/etc]}}\n")
    write(home / ".bakthat.d/notes.txt", "not: [yaml\n")
    write(home / ".bakthat.d/.hidden.yml", "not: [yaml\n")
    found = read_configuration()
    assert list(found.profiles) == ["default", "far"]
    assert list(found.jobs) == ["a", "b"]
    assert found.job("b").job.sources[0].path == str(home / ".bakthat.d/data")
    assert load_profile("far").origin == str(home / ".bakthat.d/10-a.yml")
    assert load_profile().profile.local_path == str(home / "a")


def test_a_file_that_is_named_is_the_only_one(home: Path) -> None:
    write(home / ".bakthat.d/a.yml", "far: {s3_bucket: b}\n")
    alone = write(home / "alone.yml", "default: {s3_bucket: c}\n")
    assert list(read_configuration(alone).profiles) == ["default"]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root has the files of the system")
def test_root_has_the_files_of_the_system_first(home: Path, tmp_path: Path) -> None:
    write(tmp_path / "etc/a.yml", "far: {s3_bucket: b}\n")
    write(home / ".bakthat.yml", "default: {s3_bucket: c}\n")
    assert list(read_configuration().profiles) == ["far", "default"]


def test_another_user_has_not(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "etc/a.yml", "far: {s3_bucket: b}\n")
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert not read_configuration().profiles


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("default: {s3_bucket: c}\n", "profile 'default'"),
        ("jobs: {mine: {sources: [/a]}}\n", "job 'mine'"),
    ],
)
def test_a_name_in_two_files_is_refused(home: Path, text: str, what: str) -> None:
    first = write(home / ".bakthat.yml", f"\n{text}")
    second = write(home / ".bakthat.d/a.yml", text)
    with pytest.raises(ConfigError) as raised:
        read_configuration()
    message = str(raised.value)
    assert f"the {what} is in {first}:2 too" in message
    assert message.startswith(f"{second}:1: ")
    assert raised.value.hint == "give one of them another name, or remove it"


def test_broken_yaml_in_the_directory_is_named_with_its_file(home: Path) -> None:
    path = write(home / ".bakthat.d/a.yml", "default: [\n")
    with pytest.raises(ConfigError, match="its structure is broken") as raised:
        read_configuration()
    assert str(raised.value).startswith(f"{path}:")


def test_a_directory_that_is_a_file_is_an_error(home: Path) -> None:
    write(home / ".bakthat.d", "default: {}\n")
    with pytest.raises(ConfigError, match=r"cannot read .*\.bakthat\.d") as raised:
        read_configuration()
    assert "a directory of files" in raised.value.hint


@pytest.mark.parametrize("kind", ["pipe", "directory", "link to nothing", "link in a circle"])
def test_what_is_no_file_in_the_directory_is_an_error(home: Path, kind: str) -> None:
    """None may be left out, since a job may be in it, and a pipe would be waited for."""
    path = home / ".bakthat.d/web.yml"
    path.parent.mkdir()
    match kind:
        case "pipe":
            os.mkfifo(path)
        case "directory":
            path.mkdir()
        case "link to nothing":
            path.symlink_to(home / "missing")
        case "link in a circle":
            path.symlink_to(path)
    with pytest.raises(ConfigError) as raised:
        read_configuration()
    assert str(raised.value).startswith(f"cannot read {path}: ")
    assert "remove it" in raised.value.hint


def test_a_link_to_a_file_in_the_directory_is_read(home: Path) -> None:
    path = write(home / "web.yml", "jobs: {web: {sources: [/a]}}\n")
    (home / ".bakthat.d").mkdir()
    (home / ".bakthat.d/web.yml").symlink_to(path)
    assert list(read_configuration().unchecked_jobs) == ["web"]


def test_a_file_that_is_replaced_after_it_was_read_has_no_mode(home: Path) -> None:
    write(home / ".bakthat.yml", "default: {s3_bucket: a}\n")
    path = write(home / ".bakthat.d/jobs.yml", "far: {s3_bucket: b}\n")
    configuration = read_configuration()
    path.unlink()
    assert profile_in(configuration, "default").profile.s3_bucket == "a"


def test_a_file_whose_name_ends_otherwise_is_told_of(
    home: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = write(home / ".bakthat.d/web.yaml", "jobs: {web: {sources: [/a]}}\n")
    assert not read_configuration().unchecked_jobs
    assert caplog.messages == [f"{path} is not read: its name does not end in .yml"]


@pytest.mark.parametrize("name", ["on", "yes", "1_0", "0x10", "12:30", "2024-01-01", "null"])
def test_a_job_has_the_name_that_is_written(home: Path, name: str) -> None:
    write(home / ".bakthat.yml", f"default: {{}}\njobs:\n  {name}: {{sources: [/a]}}\n")
    found = read_configuration()
    assert list(found.jobs) == [name]
    assert found.job(name).place.endswith(":3")


def test_two_jobs_with_names_of_one_value_are_refused(home: Path) -> None:
    text = "default: {}\njobs:\n  1: {sources: [/a]}\n  0x1: {sources: [/b]}\n"
    write(home / ".bakthat.yml", text)
    with pytest.raises(ConfigError, match="a key that occurs twice"):
        read_configuration()


def test_a_job_without_a_profile_needs_the_default_one(home: Path) -> None:
    path = write(home / ".bakthat.yml", "other: {}\njobs: {nightly: {sources: [/a]}}\n")
    with pytest.raises(ConfigError) as raised:
        read_configuration().job("nightly")
    assert str(raised.value) == (
        f"{path}:2: job 'nightly': it names no profile, and there is no profile 'default' "
        "(there are: other)"
    )
    assert raised.value.hint == "name one, such as profile: other"


def test_a_job_beside_no_profile_at_all_is_an_error(home: Path) -> None:
    write(home / ".bakthat.yml", "jobs: {nightly: {sources: [/a]}}\n")
    with pytest.raises(ConfigError, match=r"\(there are: none\)") as raised:
        read_configuration().job("nightly")
    assert raised.value.hint == "write one that says where to, or create it with: bakthat configure"


def test_a_job_that_there_is_not_is_named_with_the_nearest(home: Path) -> None:
    path = write(home / ".bakthat.yml", "default: {}\njobs: {nightly: {sources: [/a]}}\n")
    with pytest.raises(ConfigError) as raised:
        read_configuration().job("nigthly")
    assert str(raised.value) == f"{path}: no job 'nigthly' (there are: nightly)"
    assert raised.value.hint == "did you mean nightly?"


def test_without_any_job_the_error_says_where_jobs_are(home: Path) -> None:
    write(home / ".bakthat.yml", "default: {}\n")
    with pytest.raises(ConfigError, match=r"no job 'nightly' \(there are: none\)") as raised:
        read_configuration().job("nightly")
    assert raised.value.hint == "write it below 'jobs' in the configuration"


def test_no_profile_is_called_jobs(home: Path) -> None:
    write(home / ".bakthat.yml", "default: {}\njobs: {nightly: {sources: [/a]}}\n")
    with pytest.raises(ConfigError, match="a profile cannot be called 'jobs'"):
        load_profile("jobs")
    with pytest.raises(ConfigError, match="a profile cannot have the name 'jobs'"):
        save_profile({"s3_bucket": "b"}, name="jobs")


def test_a_profile_is_changed_in_the_file_that_has_it(home: Path) -> None:
    first = write(home / ".bakthat.yml", "default: {s3_bucket: a}\n")
    second = write(home / ".bakthat.d/far.yml", "# mine\nfar:\n  s3_bucket: b\n")
    assert save_profile({"s3_bucket": "c"}, name="far") == second
    assert second.read_text() == "# mine\nfar:\n  s3_bucket: c\n"
    assert read_raw_profile("far") == {"s3_bucket": "c"}
    assert save_profile({"s3_bucket": "d"}, name="new") == first
    assert load_profile("new").profile.s3_bucket == "d"


def test_the_jobs_stay_as_they_are_when_a_profile_is_saved(home: Path) -> None:
    jobs = "jobs:\n  nightly: {sources: [/a]}  # every night\n"
    path = write(home / ".bakthat.yml", f"default:\n  s3_bucket: a\n{jobs}")
    save_profile({"s3_bucket": "b"})
    assert path.read_text() == f"default:\n  s3_bucket: b\n{jobs}"


def test_jobs_that_would_change_with_a_profile_are_refused(home: Path) -> None:
    text = "default: &all\n  s3_bucket: a\njobs:\n  nightly: *all\n"
    path = write(home / ".bakthat.yml", text)
    with pytest.raises(ConfigError, match="the jobs would change with it") as raised:
        save_profile({"s3_bucket": "b"})
    assert "by hand" in raised.value.hint
    assert path.read_text() == text


def test_a_loaded_profile_can_be_passed_on(home: Path) -> None:
    path = write(home / ".bakthat.yml", "default:\n  s3_bucket: a\n  plugins: [a.B]\n")
    loaded = load_profile()
    assert load_profile(conf=loaded) is loaded
    assert dict(loaded) == {"s3_bucket": "a", "plugins": ["a.B"]}
    other = loaded.with_plugins(["c.D"])
    assert (other.profile.plugins, other["plugins"]) == (["c.D"], ["c.D"])
    assert other.place("s3_bucket") == f"{path}:2: profile 'default'"
    assert loaded.profile.plugins == ["a.B"]
