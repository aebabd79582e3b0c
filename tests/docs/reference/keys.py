"""The keys of a profile: ``docs/reference/configuration-keys.rst``."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from bakthat.conf.environment import variable_of
from bakthat.conf.profile import KEYS, Key
from tests.docs.reference import rst

TYPES = {
    "string": "text",
    "integer": "whole number",
    "number": "number",
    "boolean": "true or false",
    "array": "list",
    "object": "mapping",
}
MORE = {
    "storage_class": "cold-storage",
    "endpoint_url": "storage",
    "password": "/how-to/encryption",
    "recipients": "/how-to/encryption",
    "rotation": "retention",
    "incremental": "/explanation/incremental",
    "plugins": "/developer_guide",
    "healthchecks": "/how-to/notify",
    "webhook": "/how-to/notify",
    "apprise": "/how-to/notify",
    "prometheus": "/how-to/notify",
}
"""The page that says more about a key."""


def page() -> str:
    """Return the page."""
    return rst.page(
        rst.NOTICE,
        rst.title("Configuration keys"),
        rst.prose(
            "The keys of a profile in ``~/.bakthat.yml`` (:doc:`configuration`). Each can be set "
            "by a variable of the environment too: by ``BAKTHAT_<KEY>``, or by "
            "``BAKTHAT_<KEY>_FILE``, which is the path of a file with the value."
        ),
        *(_entry(name, key) for name, key in KEYS.items()),
    )


def _entry(name: str, key: Key) -> str:
    lines = [f".. confval:: {name}", f"   :type: {_type(key.check.schema)}"]
    default = _default(key.default)
    if default:
        lines.append(f"   :default: {default}")
    about = f"{rst.escaped(key.about)}."
    if key.is_secret:
        about += " It may be a secret, so nothing shows it."
    more = f" More: :doc:`{MORE[name]}`." if name in MORE else ""
    return "\n".join([*lines, "", rst.prose(f"{about} {_variable(name)}{more}", "   ")])


def _type(schema: Mapping[str, Any]) -> str:
    if "enum" in schema:
        return f"one of {', '.join(map(rst.literal, schema['enum']))}"
    types = schema["type"]
    return " or ".join(TYPES[each] for each in ([types] if isinstance(types, str) else types))


def _default(value: object) -> str:
    return "" if value in (None, "", [], {}) else rst.literal(json.dumps(value).strip('"'))


def _variable(name: str) -> str:
    variable = rst.literal(variable_of(name))
    if name == "password":
        return f"{variable} is used before every key, also before those of ``conf=``."
    return f"Variable: {variable}."
