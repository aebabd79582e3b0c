"""The sessions and the files of docs/reference/configuration.rst."""

from __future__ import annotations

from pathlib import Path

import yaml
from jsonschema import Draft202012Validator  # type: ignore[import-untyped]  # ships no types

from bakthat.conf import KEYS, json_schema
from bakthat.conf.environment import variable_of
from bakthat.conf.profile import SECRETS
from tests.docs.sessions import DOCS, Reader, blocks_of

PAGE = DOCS / "reference" / "configuration.rst"


def test_the_sessions_are_what_happens(tmp_path: Path) -> None:
    reader = Reader(tmp_path)
    for section in ("Check and show", "Secrets", "Editors"):
        reader.follow(blocks_of(PAGE, section))
    written = reader.machine().path("~/.bakthat.schema.json")
    assert yaml.safe_load(written.read_text()) == json_schema()


def test_the_files_are_as_valid_as_the_page_says() -> None:
    files = [yaml.safe_load(each.text) for each in blocks_of(PAGE) if each.language == "yaml"]
    validator = Draft202012Validator(json_schema())
    found = [[each.message for each in validator.iter_errors(file)] for file in files]
    assert [bool(messages) for messages in found] == [False, True, False, False]


def test_every_variable_of_the_page_is_one() -> None:
    words = set(PAGE.read_text().replace("=", " ").replace("``", " ").split())
    named = {word.strip(".,:;()") for word in words if word.startswith("BAKTHAT_")}
    known = {f"{variable_of(key)}{suffix}" for key in KEYS for suffix in ("", "_FILE")}
    known |= {
        "BAKTHAT_CONFIG",
        "BAKTHAT_PROFILE",
        "BAKTHAT_",
        "BAKTHAT_<KEY>",
        "BAKTHAT_<KEY>_FILE",
    }
    assert named <= known


def test_every_secret_is_named() -> None:
    text = PAGE.read_text()
    section = text[text.index(".. _secrets:") : text.index("can be given in six ways")]
    assert {key for key in KEYS if f"``{key}``" in section} == set(SECRETS)
