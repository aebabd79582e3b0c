"""The layers of the code: what a package, and what a module inside of it, may import.

``python -m tests.docs.layers`` draws them into ``docs/architecture/layers.svg``.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path
from xml.sax.saxutils import escape

ROOT = Path(__file__).parents[2]
PICTURE = ROOT / "docs" / "architecture" / "layers.svg"

LAYERS: dict[str, list[str]] = {
    # The lowest first. A module imports from lower layers only, never from its own.
    "bakthat": [
        "errors",
        "system",
        "format policy hooks",
        "archive crypto backends conf models passwords",
        "plugin pipeline",
        "notify",
        "session",
        "operations",
        "helper",
        "cli",
        "__main__",
    ],
    "bakthat.system": ["files paths signals streams text", "terminal"],
    "bakthat.format": ["names description"],
    "bakthat.policy": ["defaults week_days", "intervals rotation storage_classes"],
    "bakthat.archive": ["report acl", "tar gzip worker", "create extract"],
    "bakthat.archive.tar": ["fields member", "header sparse", "reader"],
    "bakthat.archive.gzip": ["level members", "reader writer"],
    "bakthat.archive.worker": ["messages", "process shared_memory"],
    "bakthat.archive.create": [
        "blocks excludes extents hard_links xattrs",
        "walk",
        "writer",
        "content",
        "worker",
    ],
    "bakthat.archive.extract": [
        "metadata",
        "staging",
        "tree",
        "selection publish",
        "unpack",
    ],
    "bakthat.crypto": [
        "_base64 _bech32 _lookahead",
        "_armor _age_header",
        "_age_keys _age_payload",
        "age beefish",
    ],
    "bakthat.backends": ["base", "aws", "s3 glacier local"],
    "bakthat.backends.aws": ["client part_upload", "ranged_reader"],
    "bakthat.backends.s3": ["client", "download thaw upload", "backend"],
    "bakthat.backends.glacier": [
        "client tree_hash",
        "inventory jobs",
        "transfer",
        "backend",
    ],
    "bakthat.backends.local": ["files", "backend"],
    "bakthat.pipeline": ["legacy", "read write"],
    "bakthat.notify": ["base", "desktop healthchecks prometheus webhook"],
    "bakthat.session": [
        "records stat",
        "session",
        "entries lookup cold deletion",
        "reading vault",
        "changes",
    ],
    "bakthat.operations": [
        "sources",
        "store",
        "backup check cleanup cold delete key_values listing restore retention sync",
    ],
    "bakthat.operations.sources": ["files"],
    "bakthat.operations.sync": ["report", "operation"],
    "bakthat.cli": [
        "log process progress questions signals",
        "app",
        "run",
        "backups cold configuration retention upkeep",
    ],
}

EXCEPTIONS = {
    # For annotations only: the callbacks of an event get entries of the catalog.
    ("bakthat.hooks", "bakthat.models"),
}

LIBRARIES = {
    # Where each library is used, so that replacing it is one change.
    "aaargh": ("bakthat.cli.app",),
    "botocore": ("bakthat.backends.aws",),
    "cryptography": ("bakthat.crypto",),
    "events": ("bakthat.hooks",),
    "grandfatherson": ("bakthat.policy.rotation",),
    "isal": ("bakthat.archive.gzip", "bakthat.backends.s3.upload"),  # gzip; CRC-32 of a part
    "peewee": ("bakthat.models",),
    "rich": ("bakthat.cli.progress",),
    "yaml": ("bakthat.conf",),
}


def modules() -> dict[str, Path]:
    """Return the file of each module, by its dotted name; of a package, that of its __init__."""
    found = {}
    for path in sorted((ROOT / "bakthat").rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imports_of(path: Path) -> Iterator[str]:
    """Yield the dotted names that a file imports, in functions too."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def layer_of(package: str, child: str) -> int | None:
    """Return the number of the layer of *package* on which its module *child* is."""
    for number, layer in enumerate(LAYERS[package]):
        if child in layer.split():
            return number
    return None


def violations() -> list[str]:
    """Return each import that goes up, or sideways, as a sentence."""
    known = modules()
    found = []
    for module, path in known.items():
        for name in imports_of(path):
            target = name if name in known else name.rpartition(".")[0]
            if target not in known or (module, target) in EXCEPTIONS:
                continue
            package, source, destination = _meeting(module, target)
            if not source or not destination:  # a package's own __init__, which holds only names
                continue
            below, above = layer_of(package, destination), layer_of(package, source)
            if below is None or above is None or below >= above:
                found.append(f"{module} imports {target}")
    return found


def _meeting(module: str, target: str) -> tuple[str, str, str]:
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


def picture() -> str:
    """Draw the layers as SVG, the highest at the top; a package shows the layers inside of it."""
    left = 2 * MARGIN + 12
    parts: list[str] = []
    y = MARGIN
    for number, layer in reversed(list(enumerate(LAYERS["bakthat"]))):
        parts.append(_text(MARGIN, y + LINE, str(number), "number"))
        for row in _rows(layer.split(), WIDTH - MARGIN - left):
            height = LINE * (1 + max(len(_lines(name)) for name in row)) + 2 * PAD
            spare = WIDTH - MARGIN - left - sum(_width(name) + PAD for name in row) + PAD
            x = float(left)
            for name in row:
                width = _width(name) + spare / len(row)
                parts.append(
                    f'<rect x="{x:.0f}" y="{y}" width="{width:.0f}" height="{height}" rx="4"/>'
                )
                parts.append(_text(x + PAD, y + LINE, name, "name"))
                for line_number, line in enumerate(_lines(name), 2):
                    parts.append(_text(x + PAD, y + LINE * line_number, line, "inside"))
                x += width + PAD
            y += height + PAD
    body = "\n".join(parts)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {y + MARGIN}">\n'
        "<style>text{font-family:sans-serif;fill:#222}.name{font-size:14px;font-weight:bold}"
        ".inside{font-size:11px}.number{font-size:12px;fill:#666}"
        "rect{fill:#f4f6fa;stroke:#8899bb}</style>\n"
        f'<rect width="{WIDTH}" height="{y + MARGIN}" style="fill:#fff;stroke:none"/>\n'
        f"{body}\n</svg>\n"
    )


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


def _text(x: float, y: float, text: str, style: str) -> str:
    return f'<text x="{x:.0f}" y="{y:.0f}" class="{style}">{escape(text)}</text>'


if __name__ == "__main__":
    PICTURE.parent.mkdir(exist_ok=True)
    PICTURE.write_text(picture())
