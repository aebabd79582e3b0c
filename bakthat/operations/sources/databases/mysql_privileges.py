"""What a user of MySQL cannot see of a database, so that a dump leaves it out without an error."""

from __future__ import annotations

import re
from collections.abc import Sequence

_GRANT = re.compile(
    r"GRANT (?P<held>.+?) ON (?:\*\.\*|`(?P<name>(?:[^`]|``)*)`\.\*) TO (?P<grantee>\S+)"
)
_ROLE_OF_MYSQL = re.compile(r"GRANT `[^`]*`@")
_ROUTINES_OF_MARIADB = re.compile(r"GRANT .*\bSELECT\b.* ON `mysql`\.(?:`proc`|\*) TO ")
_SEE_ROUTINES = {
    "EXECUTE",
    "CREATE ROUTINE",
    "ALTER ROUTINE",
    "SHOW CREATE ROUTINE",
    "SHOW_ROUTINE",
}


def unseen(grants: Sequence[str], database: str) -> dict[str, str]:
    """Return what of *database* may be missing in a dump, with the privilege that shows it.

    *grants* are the lines of ``SHOW GRANTS``. The programs fail for other privileges that a user
    lacks, such as EVENT. MySQL does not tell what a role may do: then nothing is returned.
    """
    if any(_ROLE_OF_MYSQL.match(line) for line in grants):
        return {}
    everywhere: set[str] = set()
    here: dict[str, tuple[int, set[str]]] = {}
    for line in grants:
        found = _GRANT.match(line)
        if found is None:
            continue
        held = set(found["held"].split(", "))
        if found["name"] is None:
            everywhere |= held
            continue
        name = found["name"].replace("``", "`")
        if _pattern(name).fullmatch(database):
            # Of the names that match, the server takes only the one with the latest wildcard.
            rank = _wildcard(name)
            if rank > here.get(found["grantee"], (-1, held))[0]:
                here[found["grantee"]] = rank, held
    held = everywhere.union(*(held for _, held in here.values()))
    if "ALL PRIVILEGES" in held:
        return {}
    missing = {}
    if "SELECT" not in held:
        missing["tables and views"] = "SELECT"
    if "TRIGGER" not in held:
        missing["triggers"] = "TRIGGER"
    # Who may run a routine but not read it makes the programs fail, and that is told.
    reads = "SELECT" in everywhere or any(map(_ROUTINES_OF_MARIADB.match, grants))
    if not reads and not held & _SEE_ROUTINES:
        missing["routines"] = "SELECT ON mysql.proc or SHOW_ROUTINE"
    return missing


def _pattern(name: str) -> re.Pattern[str]:
    r"""Return what a name in a grant matches: ``%`` and ``_`` are wildcards, ``\_`` is none."""
    parts = re.findall(r"\\.|.", name, re.S)
    wild = {"%": ".*", "_": "."}
    return re.compile("".join(wild.get(part, re.escape(part[-1])) for part in parts), re.S)


def _wildcard(name: str) -> int:
    """Return where the first wildcard of a name in a grant is; behind its end for none."""
    found = re.search(r"(?<!\\)[%_]", name)
    return found.start() if found else len(name)
