"""Every path and every name that docs/development/architecture.rst mentions exists."""

from __future__ import annotations

import ast
import re
from pathlib import Path

from tests.docs import layers

PAGE = (layers.ROOT / "docs" / "development" / "architecture.rst").read_text()
LITERALS = set(re.findall(r"``([^`\n]+)``", PAGE))
KNOWN = layers.modules()


def test_every_path_exists() -> None:
    roots = (layers.ROOT, layers.ROOT / "bakthat")
    paths = {each for each in LITERALS if re.fullmatch(r"[\w./]+(/|\.py)", each)}
    assert len(paths) > 30
    assert {each for each in paths if not any((root / each).exists() for root in roots)} == set()


def test_every_name_exists() -> None:
    short = {each.removeprefix("bakthat.") for each in LITERALS if not each.endswith(".py")}
    names = {
        f"bakthat.{each}"
        for each in short
        if re.fullmatch(r"\w+(\.\w+)+", each) and f"bakthat.{each.split('.')[0]}" in KNOWN
    }
    assert len(names) > 30
    assert {each for each in names if not exists(each)} == set()


def test_every_package_stands_on_its_layer() -> None:
    rows = re.findall(r"^(\d+) +(``.*?``)(?:  |$)", PAGE, re.MULTILINE)
    shown = {name: int(number) for number, names in rows for name in re.findall(r"\w+", names)}
    assert shown == {
        name: number
        for number, layer in enumerate(layers.LAYERS["bakthat"])
        for name in layer.split()
    }


def exists(name: str) -> bool:
    """Whether *name* is a module, or a function, class or method in one."""
    module, inside = name, list[str]()
    while module not in KNOWN:
        module, _, last = module.rpartition(".")
        inside.insert(0, last)
    return is_defined(ast.parse(Path(KNOWN[module]).read_text()).body, inside)


def is_defined(body: list[ast.stmt], names: list[str]) -> bool:
    """Whether *body* defines the first of *names*, and that one the next."""
    if not names:
        return True
    for node in body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef) and node.name == names[0]:
            return is_defined(node.body, names[1:])
        if isinstance(node, ast.Assign) and names == [getattr(node.targets[0], "id", "")]:
            return True
    return False
