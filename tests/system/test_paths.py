"""Paths that users write."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from bakthat.errors import ConfigError
from bakthat.system.paths import expanded, is_url


def test_the_home_directory_is_expanded(isolated_environment: Path) -> None:
    assert expanded("~/store") == isolated_environment / "store"
    assert expanded("~root/store") == Path(os.path.expanduser("~root")) / "store"


def test_a_relative_path_becomes_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert expanded("a/../b") == tmp_path / "b"


def test_without_a_home_directory_an_error_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def nobody(_uid: int) -> None:
        raise KeyError("no such user")

    monkeypatch.delenv("HOME")
    monkeypatch.setattr("pwd.getpwuid", nobody)
    with pytest.raises(ConfigError, match="there is no home directory") as caught:
        expanded("~/.bakthat.yml")
    assert "HOME" in str(caught.value.hint)


def test_an_unknown_user_and_a_nul_are_errors() -> None:
    with pytest.raises(ConfigError, match="there is no such user"):
        expanded("~no-such-user/store")
    with pytest.raises(ConfigError, match="NUL"):
        expanded("a\0b")


def test_a_url_is_told_from_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert is_url("postgresql://db/shop")
    assert is_url("s3://bucket")
    for other in ("shop", "://shop", "dir/s3://bucket", None, Path("s3://bucket"), b"s3://bucket"):
        assert not is_url(other)
    (tmp_path / "postgresql:" / "db").mkdir(parents=True)
    assert not is_url("postgresql://db")
