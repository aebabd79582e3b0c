"""The columns of the catalog whose text is JSON. Whatever the text is, it can be read."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

import peewee


class JsonField(peewee.TextField):
    """A column that holds a mapping as JSON text. Any other text reads as {}."""

    def db_value(self, value: Any) -> str:
        """Return the JSON text of *value*."""
        return json.dumps(value, sort_keys=True)

    def python_value(self, value: Any) -> dict[str, Any]:
        """Return the mapping that *value* holds."""
        try:
            content = json.loads(value)
        except (TypeError, ValueError, RecursionError):
            return {}
        return content if isinstance(content, dict) else {}


class NamesField(peewee.TextField):
    """A column that holds names as a JSON list. Any other text reads as ()."""

    def db_value(self, value: Iterable[str]) -> str:
        """Return the JSON text of *value*."""
        return json.dumps(list(value))

    def python_value(self, value: Any) -> tuple[str, ...]:
        """Return the names that *value* holds."""
        try:
            content = json.loads(value)
        except (TypeError, ValueError, RecursionError):
            return ()
        names = content if isinstance(content, list) else ()
        return tuple(each for each in names if isinstance(each, str))


def json_value(column: JsonField, key: str) -> Any:
    """Return the SQL expression for a value in a mapping; NULL where the text is damaged."""
    extracted = peewee.fn.json_extract(column, f"$.{key}").coerce(False)
    return peewee.Case(None, [(peewee.fn.json_valid(column) == 1, extracted)])
