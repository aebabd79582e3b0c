"""The JSON schema of the configuration file, for editors that check and complete YAML."""

from __future__ import annotations

from typing import Any

from bakthat.conf.files.config_file import JOBS
from bakthat.conf.job_keys import JOB_KEYS, schema_of
from bakthat.conf.profile import KEYS, NEVER_EMPTY, Key


def json_schema() -> dict[str, Any]:
    """Return the JSON schema (draft 2020-12) of the file.

    It has the types, the words and the ranges of the keys. What it accepts may still be refused,
    such as a rotation that keeps nothing; what it refuses is wrong.
    """
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "The configuration of bakthat",
        "description": "Profiles by name, and jobs. bakthat uses the profile default unless -p "
        "names another",
        "type": ["object", "null"],
        "properties": {
            JOBS: {
                "description": "Jobs by name: what bakthat run backs up",
                "type": ["object", "null"],
                "additionalProperties": {"$ref": "#/$defs/job"},
            }
        },
        "additionalProperties": {"$ref": "#/$defs/profile"},
        "$defs": {
            "job": {
                **schema_of(JOB_KEYS, "sources"),
                "description": "What is backed up, and what happens around it",
            },
            "profile": {
                "description": "Where and how backups are stored",
                "type": ["object", "null"],
                "properties": {name: _schema_of(name, key) for name, key in KEYS.items()},
                "additionalProperties": False,
            },
        },
    }


def _schema_of(name: str, key: Key) -> dict[str, Any]:
    schema = {"description": key.about, **key.check.schema}
    if key.default not in (None, "", [], {}):
        schema["default"] = key.default
    if key.is_secret:
        schema["writeOnly"] = True
    if name in NEVER_EMPTY:
        return {**schema, "minItems": 1} if "array" in schema["type"] else schema
    # Without a value, any other key has its default.
    types = schema["type"]
    schema["type"] = [*([types] if isinstance(types, str) else types), "null"]
    if "enum" in schema:
        schema["enum"] = [*schema["enum"], None]
    return schema
