"""The descriptions of services: those of botocore itself, and of the user's own directories."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from botocore.loaders import create_loader

from bakthat.backends.aws.loader import make_loader


@pytest.mark.parametrize("service", ["s3", "glacier"])
def test_the_descriptions_are_those_of_botocore(service: str) -> None:
    ours, theirs = make_loader(service, None), create_loader()
    for what in ("service-2", "endpoint-rule-set-1", "paginators-1"):
        assert ours.load_service_model(service, what) == theirs.load_service_model(service, what)
    for name in ("endpoints", "partitions", "_retry", "sdk-default-configuration"):
        assert ours.load_data(name) == theirs.load_data(name)


def test_a_directory_of_the_user_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MODELS", str(tmp_path))
    (tmp_path / "mine.json").write_text(json.dumps({"of": "the user"}))
    loader = make_loader("s3", f"{tmp_path / 'missing'}:$MODELS")
    assert loader.load_data("mine") == {"of": "the user"}
