"""The layers of the code: what a package, and what a module inside of it, may import.

``python -m tests.docs.layers`` draws them into ``docs/architecture/layers.svg``.
"""

from __future__ import annotations

import ast
import functools
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path

from tests.docs import svg

ROOT = Path(__file__).parents[2]
PICTURE = ROOT / "docs" / "architecture" / "layers.svg"

LAYERS: dict[str, list[str]] = {
    # The lowest first. A module imports from lower layers only, never from its own.
    "bakthat": [
        "errors",
        "system",
        "database",
        "columns format policy hooks",
        "archive crypto backends conf models",
        "passwords",
        "plugin pipeline reservations",
        "notify",
        "session",
        "operations",
        "drills helper",
        "jobs",
        "cli",
        "__main__",
    ],
    "bakthat.system": [
        "text",
        "bandwidth file_log files linux paths signals streams threads",
        "disks locks programs terminal",
    ],
    "bakthat.system.programs": ["_supervisor ended program", "_pipes", "running"],
    "bakthat.format": ["names description entry", "index"],
    "bakthat.format.index": ["values", "layout overlay", "packing parsing"],
    "bakthat.policy": [
        "defaults finding newest outcome week_days",
        "clock intervals rotation storage_classes",
        "object_lock",
        "levels lifecycle settings",
    ],
    "bakthat.policy.object_lock": ["rule", "until"],
    "bakthat.archive": [
        "report acl attributes content_hash patterns",
        "tar gzip worker",
        "index",
        "create extract",
    ],
    "bakthat.archive.tar": ["fields member", "header sparse", "reader"],
    "bakthat.archive.gzip": ["level members", "inflate", "reader writer"],
    "bakthat.archive.index": ["framing", "reader writer", "scan state", "removed"],
    "bakthat.archive.worker": ["messages", "process shared_memory"],
    "bakthat.archive.create": [
        "blocks excludes extents hard_links owners recorder xattrs",
        "digest walk",
        "writer",
        "content",
        "increment",
        "worker",
    ],
    "bakthat.archive.create.increment": [
        "directory later plan rule",
        "decision links",
        "compare",
        "writer",
        "archive",
    ],
    "bakthat.archive.extract": [
        "file_system links",
        "metadata",
        "staging",
        "tree",
        "index_check selection publish",
        "unpack",
    ],
    "bakthat.crypto": [
        "_base64 _bech32 _lookahead",
        "_armor _age_header",
        "_age_keys _age_payload",
        "_age_unlock",
        "age age_ranges beefish",
    ],
    "bakthat.backends": ["lock", "base", "aws protection ranges", "s3 glacier local"],
    "bakthat.backends.aws": [
        "answers limited_body network part_plan permissions",
        "session",
        "client part_buffer",
        "findings identity part_upload ranged_reader",
    ],
    "bakthat.backends.s3": [
        "features policies",
        "client",
        "locks",
        "download examination thaw upload",
        "versions",
        "backend proof",
        "probes",
    ],
    "bakthat.backends.s3.versions": ["listing", "backup deletion undeletion"],
    "bakthat.backends.s3.examination": ["usage", "exposure locks versions", "bucket"],
    "bakthat.backends.glacier": [
        "client tree_hash",
        "inventory jobs",
        "transfer",
        "backend",
        "probes",
    ],
    "bakthat.backends.local": ["files", "backend", "probes"],
    "bakthat.database": [
        "address",
        "base tables",
        "server_errors sqlite",
        "server",
        "opening",
    ],
    "bakthat.conf": [
        "machine profile",
        "files job job_keys",
        "checks job_checks schema",
        "configuration environment secrets",
        "loading",
        "saving",
    ],
    "bakthat.conf.files": ["content yaml_text", "config_file edit"],
    "bakthat.pipeline": [
        "legacy one_file ranges",
        "read write",
        "parts scan",
        "damage plan sample",
        "state",
    ],
    "bakthat.notify": ["base exposition", "desktop healthchecks prometheus uptime_kuma webhook"],
    "bakthat.session": [
        "records stat",
        "session",
        "container",
        "cold entries sets",
        "chains lookup",
        "reading vault",
        "indexes",
        "locks",
        "deletion versions",
    ],
    "bakthat.session.versions": ["choice", "past"],
    "bakthat.session.locks": ["retention", "extension holds"],
    "bakthat.session.indexes": ["cache home scanning", "opening pins upload"],
    "bakthat.operations": [
        "changes facts sources",
        "needed",
        "access_policy backup browse by_hand check cleanup cold configuration delete doctor hold"
        " key_values listing"
        " restore retention status sync undelete",
        "report",
    ],
    "bakthat.operations.backup": [
        "parent progress request",
        "facts",
        "store",
        "increment stream",
        "databases open_backup operation preview",
    ],
    "bakthat.operations.browse": ["comparison order disk", "contents diff find open_file"],
    "bakthat.operations.by_hand": ["script", "operation"],
    "bakthat.operations.check": ["result", "record stored", "needed", "data", "operation"],
    "bakthat.operations.configuration": ["check show"],
    "bakthat.operations.doctor": [
        "catalog configuration disk keys proof",
        "storage",
        "operation",
    ],
    "bakthat.operations.report": ["facts style", "days", "svg", "page", "operation"],
    "bakthat.operations.retention": ["plan", "operation"],
    "bakthat.operations.restore": ["options", "archive state", "stream", "operation"],
    "bakthat.operations.sources": [
        "base",
        "databases files stream_sizes streams",
        "expected servers",
    ],
    "bakthat.operations.sources.databases": [
        "base url_parts",
        "_sqlite_dump mysql_client mysql_dump mysql_privileges redis_load",
        "mysql postgresql redis sqlite",
        "url",
    ],
    "bakthat.operations.sources.databases.postgresql": [
        "archive client roles",
        "load",
        "server",
    ],
    "bakthat.operations.status": [
        "set_status sets",
        "findings metrics tally",
        "catalog",
        "storage",
        "operation",
    ],
    "bakthat.operations.sync": ["as_of known report", "indexes", "operation"],
    "bakthat.jobs": [
        "backup reach report schedule telling upkeep",
        "hooks preview",
        "run",
    ],
    "bakthat.jobs.schedule": ["when words", "service", "units crontab", "systemd"],
    "bakthat.cli": [
        "configure exit_codes messages process signals",
        "output",
        "log",
        "app progress",
        "completion options",
        "commands",
        "run",
    ],
    "bakthat.cli.commands": [
        "findings preview tar_listing",
        "backup browse cold configuration diagnosis jobs monitoring restore retention show storage"
        " upkeep",
    ],
    "bakthat.cli.commands.jobs": ["run schedule"],
    "bakthat.cli.commands.monitoring": ["report status"],
    "bakthat.cli.commands.storage": ["hold policy undelete"],
    "bakthat.cli.completion": ["names script"],
    "bakthat.cli.configure": [
        "asking files key_page",
        "encryption rotation",
        "answers",
        "options questions",
        "profile",
    ],
}

MAY_IMPORT: dict[str, str] = {
    # What each package or module at the top imports; "bakthat" is bakthat/__init__.py.
    "bakthat": "drills errors format hooks jobs operations",
    "errors": "",
    "system": "errors",
    "format": "errors system",
    "policy": "errors system database",
    "hooks": "",
    "columns": "",
    "database": "errors system",
    "archive": "errors system format",
    "crypto": "errors system",
    "backends": "errors system format policy",
    "conf": "errors system policy hooks database",
    "models": "errors format policy columns database",
    "passwords": "errors system conf",
    "reservations": "errors models",
    "plugin": "errors system hooks conf models",
    "pipeline": "errors system format archive crypto passwords",
    "notify": "errors system hooks conf models plugin",
    "session": "errors system format policy hooks archive crypto backends conf database models"
    " passwords plugin pipeline",
    "operations": "errors system format policy archive crypto backends conf database models"
    " passwords pipeline notify reservations session",
    "drills": "errors system archive conf models passwords session operations",
    "jobs": "errors system format policy hooks conf models session operations drills",
    "helper": "errors system format conf models operations",
    "cli": "bakthat errors system format policy archive crypto backends conf database models"
    " passwords session operations jobs",
    "__main__": "cli",
}

ONLY_FROM: dict[str, str] = {
    # Who else imports a module, or what is inside of a package; ".*" is everything inside of one.
    # Without "bakthat."; the longest name that fits is the rule. Names with an underscore need no
    # entry: only their own package imports them.
    "system.terminal": "cli.* passwords operations.listing operations.sources.streams",
    "columns": "models",
    "database": "models",
    "database.address": "database.* policy.settings conf.* models session.* operations.*"
    " cli.completion.names",
    "database.sqlite": "database.* models operations.doctor.catalog",
    "backends.aws": "backends.glacier.* backends.s3.*",
    "backends.glacier": "",
    "backends.glacier.backend": "backends backends.glacier.probes session.vault",
    "backends.glacier.inventory": "backends backends.glacier.* session.records session.vault"
    " operations.cold cli.commands.cold",
    "backends.glacier.probes": "backends",
    "backends.local": "",
    "backends.local.backend": "backends backends.local.probes",
    "backends.local.probes": "backends",
    "backends.s3": "",
    "backends.s3.backend": "backends backends.s3.probes operations.key_values session.vault",
    "backends.s3.policies": "operations.access_policy",
    "backends.s3.probes": "backends",
    "operations.sources": "drills jobs.* operations.backup.* operations.restore.*"
    " operations.status.*",
    "operations.sources.databases.url": "operations.sources.expected operations.sources.servers"
    " operations.restore.* operations.configuration.check jobs.schedule.* cli.options",
}

EXCEPTIONS = {
    # For annotations only: the callbacks of an event get entries of the catalog.
    ("bakthat.hooks", "bakthat.models.Backups"),
    # An object says which version of bakthat wrote it.
    ("bakthat.format.description", "bakthat.__version__"),
    ("bakthat.format.index.layout", "bakthat.__version__"),
    # So does a report.
    ("bakthat.operations.report.operation", "bakthat.__version__"),
}

LIBRARIES: dict[str, str] = {
    # Where each library is used, so that replacing it is one change.
    "aaargh": "cli.app",
    "apprise": "notify.desktop",
    "boto3": "",  # bakthat loads only its core, botocore
    "botocore": "backends.aws.client backends.aws.session",
    "cryptography": "crypto.*",
    "events": "hooks",
    "grandfatherson": "policy.rotation",
    "isal": "archive.gzip.* backends.s3.upload",  # gzip; CRC-32 of a part
    "peewee": "columns database.* models",
    "playhouse": "database.server",
    "psycopg": "database.server",
    "pymysql": "database.server",
    "redis": "operations.sources.databases.redis_load",
    "rich": "cli.progress",
    "segno": "cli.configure.key_page",
    "shtab": "cli.completion.script",
    "urllib3": "backends.aws.client",
    "yaml": "conf.*",
}


@functools.cache
def modules() -> dict[str, Path]:
    """Return the file of each module, by its dotted name; of a package, that of its __init__."""
    found = {}
    for path in sorted((ROOT / "bakthat").rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imports_of(source: str) -> Iterator[str]:
    """Yield the dotted names that a module imports: in functions too, and by strings."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"relative import of {node.module}"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Call) and _called(node) == "import_module":
            yield from (str(each.value) for each in node.args if isinstance(each, ast.Constant))
        elif isinstance(node, ast.Dict):  # such as _HOMES in bakthat/__init__.py
            strings = [str(each.value) for each in node.values if isinstance(each, ast.Constant)]
            yield from (each for each in strings if each.startswith("bakthat."))


def _called(node: ast.Call) -> str:
    return getattr(node.func, "attr", "") or getattr(node.func, "id", "")


def violations() -> list[str]:
    """Return each import that a rule forbids, as a sentence."""
    return [
        sentence
        for module, path in modules().items()
        for sentence in violations_of(module, path.read_text())
    ]


def violations_of(module: str, source: str) -> list[str]:
    """Return each import in the source of *module* that a rule forbids, as a sentence."""
    return [
        f"{module} imports {name}"
        for name in imports_of(source)
        if (module, name) not in EXCEPTIONS and not _may_import(module, name)
    ]


def target_of(name: str) -> str | None:
    """Return the module of bakthat that an import loads or takes a name from."""
    known = modules()
    return next((each for each in (name, name.rpartition(".")[0]) if each in known), None)


def _may_import(module: str, name: str) -> bool:
    library = name.split(".")[0]
    if library in LIBRARIES:
        return is_one_of(module, LIBRARIES[library])
    target = target_of(name)
    if target is None or target == module:
        return True
    package, source, destination = meeting(module, target)
    if package == "bakthat":
        if (destination or package) not in MAY_IMPORT[source or package].split():
            return False
    elif not destination:  # a module does not import the package that it is in
        return False
    if source and destination and not _is_lower(package, destination, source):
        return False
    return _is_public(module, name) and _is_open(module, target)


def _is_lower(package: str, below: str, above: str) -> bool:
    lower, higher = layer_of(package, below), layer_of(package, above)
    return lower is not None and higher is not None and lower < higher


def layer_of(package: str, child: str) -> int | None:
    """Return the number of the layer of *package* on which its module *child* is."""
    for number, layer in enumerate(LAYERS[package]):
        if child in layer.split():
            return number
    return None


def _is_public(module: str, name: str) -> bool:
    """Whether *module* is in the package of each part of *name* that has an underscore."""
    parts = name.split(".")
    return all(
        f"{module}.".startswith(".".join(parts[:number]) + ".")
        for number, part in enumerate(parts)
        if part.startswith("_") and not part.startswith("__")
    )


def _is_open(module: str, target: str) -> bool:
    rule = rule_of(target)
    return rule is None or is_one_of(module, f"{rule}.* {ONLY_FROM[rule]}")


def rule_of(target: str) -> str | None:
    """Return the entry of ``ONLY_FROM`` that says who imports *target*."""
    fitting = (each for each in ONLY_FROM if f"{target}.".startswith(f"bakthat.{each}."))
    return max(fitting, key=len, default=None)


def is_one_of(module: str, names: str) -> bool:
    """Whether *names* has *module*, or its package with ``.*``."""
    return any(fnmatch(module, f"bakthat.{each}") for each in names.split())


def meeting(module: str, target: str) -> tuple[str, str, str]:
    """Return the package in which two modules part, and the child of it that leads to each."""
    ours, theirs = module.split("."), target.split(".")
    depth = 0
    while depth < min(len(ours), len(theirs)) and ours[depth] == theirs[depth]:
        depth += 1
    child = [parts[depth] if depth < len(parts) else "" for parts in (ours, theirs)]
    return ".".join(ours[:depth]), child[0], child[1]


# The picture

WIDTH, MARGIN, LINE, PAD = 1000, 16, 18, 8
LETTER, BOLD_LETTER = 6.4, 9.0
"""How wide a letter is, at most, on the average of a line."""
STYLE = (
    ".name{font-size:14px;font-weight:bold}\n"
    ".inside{font-size:11px}\n"
    ".number{font-size:12px;fill:@faint}\n"
    ".package{fill:@panel;stroke:@edge}\n"
)


def picture() -> str:
    """Draw the layers as SVG, the highest at the top; a package shows the layers inside of it."""
    left = 2 * MARGIN + 12
    parts: list[str] = []
    y = MARGIN
    for number, layer in reversed(list(enumerate(LAYERS["bakthat"]))):
        parts.append(svg.text(MARGIN, y + LINE, str(number), "number"))
        for row in _rows(layer.split(), WIDTH - MARGIN - left):
            height = LINE * (1 + max(len(_lines(name)) for name in row)) + 2 * PAD
            spare = WIDTH - MARGIN - left - sum(_width(name) + PAD for name in row) + PAD
            x = float(left)
            for name in row:
                width = _width(name) + spare / len(row)
                parts.append(svg.box(round(x), y, round(width), height, "package"))
                parts.append(svg.text(round(x + PAD), y + LINE, name, "name"))
                for line_number, line in enumerate(_lines(name), 2):
                    parts.append(svg.text(round(x + PAD), y + LINE * line_number, line, "inside"))
                x += width + PAD
            y += height + PAD
    said = "; ".join(
        f"{number}: {', '.join(layer.split())}"
        for number, layer in reversed(list(enumerate(LAYERS["bakthat"])))
    )
    title = "The layers of the code, the highest at the top"
    return svg.document(WIDTH, y + MARGIN - PAD, title, f"{said}.", STYLE, parts)


def _rows(names: list[str], room: float) -> list[list[str]]:
    """Put the packages of one layer side by side, in as many rows as they need."""
    rows: list[list[str]] = [[]]
    for name in sorted(names, key=_width, reverse=True):
        taken = sum(_width(each) + PAD for each in rows[-1])
        if rows[-1] and taken + _width(name) > room:
            rows.append([])
        rows[-1].append(name)
    return rows


def _width(name: str) -> float:
    longest = max((len(line) for line in _lines(name)), default=0)
    return max(longest * LETTER, len(name) * BOLD_LETTER) + 2 * PAD


def _lines(name: str) -> list[str]:
    """Return the layers inside of a package, the highest first, a line each."""
    package = f"bakthat.{name}"
    lines = [" · ".join(layer.split()) for layer in reversed(LAYERS.get(package, []))]
    for child in sorted(LAYERS):
        if child.startswith(f"{package}."):
            inside = " > ".join(" · ".join(each.split()) for each in reversed(LAYERS[child]))
            lines.append(f"{child.removeprefix(package)[1:]}: {inside}")
    return lines


if __name__ == "__main__":
    PICTURE.parent.mkdir(exist_ok=True)
    PICTURE.write_text(picture())
