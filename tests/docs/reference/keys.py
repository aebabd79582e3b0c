"""The keys: ``docs/reference/configuration-keys.rst`` and ``docs/reference/job-keys.rst``."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from bakthat.conf import HOOK_VARIABLES
from bakthat.conf.environment import variable_of
from bakthat.conf.job_keys import CHECK_KEYS, DRILL_KEYS, JOB_KEYS, SOURCE_KEYS
from bakthat.conf.profile import KEYS, PATHS, Key
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
    "bandwidth": "storage",
    "password": "/how-to/encryption",
    "recipients": "/how-to/encryption",
    "rotation": "retention",
    "incremental": "/explanation/incremental",
    "plugins": "/developer_guide",
    "healthchecks": "/how-to/notify",
    "uptime_kuma": "/how-to/notify",
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


def jobs_page() -> str:
    """Return the page of the keys of jobs."""
    parts = [
        rst.NOTICE,
        rst.title("Job keys"),
        rst.prose(
            "The keys of a job below ``jobs`` in ``~/.bakthat.yml``. :doc:`/how-to/jobs` shows how "
            "they work together."
        ),
        *(_entry(name, key, is_variable=False) for name, key in JOB_KEYS.items()),
    ]
    for title, about, keys in (
        (
            "Sources",
            "An entry of ``sources`` is a path, the URL of a database, or a mapping with "
            "``path`` or ``command``:",
            SOURCE_KEYS,
        ),
        ("Checks", "Below ``check``:", CHECK_KEYS),
        ("Drills", "Below ``drill``; ``every`` is required:", DRILL_KEYS),
    ):
        parts += [f"{title}\n{'-' * len(title)}", rst.prose(about)]
        parts += [
            _entry(f"{title.lower()[:-1]}.{name}", key, is_variable=False)
            for name, key in keys.items()
        ]
    title = "Variables of the commands"
    parts += [
        f".. _hook-variables:\n\n{title}\n{'-' * len(title)}",
        rst.prose(
            "The lines of ``before``, ``after`` and ``on_error`` have these variables in their "
            "environment. A list has a line for each entry, as many as 64 KiB hold. A command of "
            "bakthat among them takes none of these for a setting."
        ),
        *(
            f".. envvar:: {name}\n\n{rst.prose(f'{about}.', '   ')}"
            for name, about in HOOK_VARIABLES.items()
        ),
    ]
    return rst.page(*parts)


def _entry(name: str, key: Key, *, is_variable: bool = True) -> str:
    lines = [f".. confval:: {name}", f"   :type: {_type(key.check.schema)}"]
    default = _default(key.default)
    if default:
        lines.append(f"   :default: {default}")
    about = f"{rst.escaped(key.about)}."
    if key.is_secret and name in PATHS:
        about += " A password in it is not shown anywhere."
    elif key.is_secret:
        about += " It may be a secret, so nothing shows it."
    more = f" More: :doc:`{MORE[name]}`." if name in MORE else ""
    variable = f" {_variable(name)}" if is_variable else ""
    return "\n".join([*lines, "", rst.prose(f"{about}{variable}{more}", "   ")])


def _type(schema: Mapping[str, Any]) -> str:
    if "enum" in schema:
        return f"one of {', '.join(map(rst.literal, schema['enum']))}"
    types = schema["type"]
    return " or ".join(TYPES[each] for each in ([types] if isinstance(types, str) else types))


def _default(value: object) -> str:
    return "" if value in (None, "", [], {}, ()) else rst.literal(json.dumps(value).strip('"'))


def _variable(name: str) -> str:
    variable = rst.literal(variable_of(name))
    if name == "password":
        return f"{variable} is used before every key, also before those of ``conf=``."
    return f"Variable: {variable}."
