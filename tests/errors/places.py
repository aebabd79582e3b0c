"""Find the places of the code that make an error, and what each says, by its syntax tree.

A value that is known only when the code runs is a placeholder. Where a few texts are possible, such
as those that callers pass to a helper, each makes a message of its own.
"""

from __future__ import annotations

import ast
import functools
import itertools
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

PROJECT = Path(__file__).parents[2]
PACKAGE = PROJECT / "bakthat"

PARTS = {"Base64Error", "Bech32Error", "InvalidPatternError", "Problem", "Reason", "YamlError"}
"""Classes whose text becomes the end of the message of an error."""
_MOST_TEXTS = 40
"""A value with more texts than these is a placeholder."""
_MOST_CALLS = 5
"""How many calls a text is followed through."""

_OPEN, _CLOSE = "\ue000", "\ue001"
"""Stand around the name of a placeholder; for private use in Unicode, so in no message."""
_PLURALS = {frozenset({"", "s"}): "(s)", frozenset({"y", "ies"}): "(y/ies)"}
"""Endings of a noun after a number, and how both are shown."""
_PLACEHOLDER = re.compile(f"{_OPEN}([^{_CLOSE}]*){_CLOSE}")

_TRANSPARENT = {"printable", "str", "one_line", "fspath", "fsencode", "fsdecode", "decode"}
"""Functions that return what they are given, as text."""
_THINGS = {"about", "doing", "given", "kind", "missing", "name", "shown"}
"""What names a thing or a type: whatever the texts are, they make one message."""
_OVERRIDES = {"error"}
"""Methods that a library calls too, with texts of its own."""
_NAMES = {"exc": "reason", "error": "reason", "reason_of": "reason", "len": "number"}
"""What a reader calls a value of that name."""


class Text(str):
    """A text with placeholders."""

    __slots__ = ()

    @property
    def shown(self) -> str:
        """The text with ``<name>`` for each placeholder."""
        plurals = _PLURALS.values()
        return _PLACEHOLDER.sub(
            lambda found: found[1] if found[1] in plurals else f"<{found[1]}>", self
        )

    @property
    def fixed(self) -> str:
        """The text without its placeholders."""
        return _PLACEHOLDER.sub("", self)

    @property
    def ends_open(self) -> bool:
        """Whether it ends with a placeholder."""
        return self.rstrip("'").endswith(_CLOSE)

    def fits(self, text: str) -> bool:
        """Return whether *text* may be this one, with something for each placeholder."""
        return re.fullmatch(self._pattern, text, re.DOTALL) is not None

    def has_the_numbers_of(self, text: str) -> bool:
        """Return whether *text*, which fits, has the numbers that are written here."""
        return re.fullmatch(self._exact_pattern, text, re.DOTALL) is not None

    def ends(self, text: str) -> bool:
        """Return whether *text* may end with this one."""
        return re.search(rf"\W(?:{self._pattern})\Z", text, re.DOTALL) is not None

    @property
    def _pattern(self) -> str:
        return re.sub(r"\d+", r"\\d+", self._exact_pattern)  # a test may change a constant

    @property
    def _exact_pattern(self) -> str:
        pattern = ".*".join(map(re.escape, _PLACEHOLDER.split(self)[::2]))
        return pattern.replace("'.*'", ".*")  # repr() puts no quotes around a number


def _placeholder(name: str) -> Text:
    name = name.strip("_").lower()
    return Text(f"{_OPEN}{_NAMES.get(name, name).replace('_', ' ')}{_CLOSE}")


@dataclass(frozen=True)
class Place:
    """A place that makes an error with one message; a line may have several."""

    module: str
    """The path of the file, from the top of the clone."""
    function: str
    line: int
    kind: str
    """The class of the error, or of a part of a message."""
    message: Text
    hints: tuple[Text, ...] = field(compare=False)
    """The hints that it may have; none: it never has one."""

    @property
    def is_part(self) -> bool:
        """Whether it makes a part of a message only."""
        return self.kind in PARTS


def find_places() -> list[Place]:
    """Return all places, in the order of the code."""
    return [place for module in _modules().values() for place in module.places()]


@functools.cache
def _modules() -> dict[str, _Module]:
    return {_name_of(path): _Module(path) for path in sorted(PACKAGE.rglob("*.py"), key=_order_of)}


def _order_of(path: Path) -> tuple[str, ...]:
    return path.parts


def _name_of(path: Path) -> str:
    return ".".join(path.relative_to(PROJECT).with_suffix("").parts).removesuffix(".__init__")


@functools.cache
def error_classes() -> frozenset[str]:
    """Return the names of the classes of errors."""
    found = {"BakthatError"}
    classes = [
        (node.name, {base.id for base in node.bases if isinstance(base, ast.Name)})
        for module in _modules().values()
        for node in ast.walk(module.tree)
        if isinstance(node, ast.ClassDef)
    ]
    for _ in classes:
        found |= {name for name, bases in classes if bases & found}
    return frozenset(found)


_Function = ast.FunctionDef | ast.AsyncFunctionDef


class _Module:
    """A file of the code, and how the texts in it can be followed."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.tree = ast.parse(path.read_text())
        self.parents = {
            child: node for node in ast.walk(self.tree) for child in ast.iter_child_nodes(node)
        }
        self.constants = {
            target.id: statement.value
            for statement in self.tree.body
            if isinstance(statement, ast.Assign)
            for target in statement.targets
            if isinstance(target, ast.Name)
        }
        self.imports = {
            alias.asname or alias.name: (statement.module or "", alias.name)
            for statement in ast.walk(self.tree)
            if isinstance(statement, ast.ImportFrom)
            for alias in statement.names
        }
        self.calls: dict[str, list[ast.Call]] = {}
        self.functions: dict[str, list[_Function]] = {}
        for node in ast.walk(self.tree):
            if isinstance(node, ast.Call):
                self.calls.setdefault(_last_name(node.func), []).append(node)
            elif isinstance(node, _Function):
                self.functions.setdefault(node.name, []).append(node)

    def places(self) -> Iterator[Place]:
        calls = [call for calls in self.calls.values() for call in calls]
        for call in sorted(calls, key=lambda call: (call.lineno, call.col_offset)):
            kind = self._kind_of(call)
            if kind:
                yield from self._places_of(call, kind)

    def _kind_of(self, call: ast.Call) -> str:
        """Return the class of the error that *call* makes; "" when it makes none."""
        name = _last_name(call.func)
        if name in PARTS or name in error_classes():
            return name
        if isinstance(call.func, ast.Call) and _last_name(call.func.func) == "type":
            return "the same class"
        # One of several classes, perhaps in a variable.
        values: list[ast.expr] = [call.func] if isinstance(call.func, ast.IfExp) else []
        values += self._assigned(call.func, name) if isinstance(call.func, ast.Name) else []
        named = {name for value in values for name in _names_in(value)}
        return " or ".join(sorted(named & error_classes()))

    def _places_of(self, call: ast.Call, kind: str) -> Iterator[Place]:
        if not call.args or isinstance(call.args[0], ast.Starred):
            return
        given = [each.value for each in call.keywords if each.arg == "hint"] + call.args[1:2]
        hints = tuple(
            hint for value in given for hint in self._texts(value, 0, most=50) if hint.strip()
        )
        function = ".".join(
            each.name for each in reversed(self._around(call)) if not isinstance(each, ast.Module)
        )
        function = function or "the module"
        module = str(self.path.relative_to(PROJECT))
        for message in self._texts(call.args[0], 0):
            yield Place(module, function, call.lineno, kind, message, hints)

    def _around(self, node: ast.AST) -> list[_Function | ast.ClassDef]:
        """Return the functions and the classes around *node*, the innermost first."""
        found: list[_Function | ast.ClassDef] = []
        parent = self.parents.get(node)
        while parent is not None:
            if isinstance(parent, _Function | ast.ClassDef):
                found.append(parent)
            parent = self.parents.get(parent)
        return found

    def _texts(self, node: ast.expr, calls: int, most: int = _MOST_TEXTS) -> list[Text]:
        """Return the texts that the value of *node* may be.

        What has no words of its own is a value, and not one of several messages.
        """
        texts = list(dict.fromkeys(self._any_texts(node, calls)))
        if not 0 < len(texts) <= most:
            return [_placeholder(_name_in(node))]
        if isinstance(node, ast.Name | ast.Call):
            worded = [text for text in texts if not text or re.search("[a-z]", text.fixed)]
            if len(worded) < len(texts) and any(_PLACEHOLDER.search(text) for text in texts):
                texts = [*worded, _placeholder(_name_in(node))]
        return texts

    def _any_texts(self, node: ast.expr, calls: int) -> list[Text]:
        match node:
            case ast.Constant(value=None):
                return []
            case ast.Constant(value=bytes(value)):
                return [Text(value.decode())]
            case ast.Constant(value=value):
                return [Text(value)]
            case ast.JoinedStr(values=values):
                return _joined([self._texts(each, calls) for each in values])
            case ast.FormattedValue(value=value, conversion=conversion):
                quote = "'" if conversion == ord("r") else ""
                return [Text(f"{quote}{each}{quote}") for each in self._texts(value, calls)]
            case ast.BinOp() if _is_arithmetic(node):
                return [Text(eval(ast.unparse(node)))]  # only numbers
            case ast.BinOp(left=left, op=ast.Add(), right=right):
                sides = [self._texts(left, calls), self._texts(right, calls)]
                worded = any(re.search("[a-z]", text.fixed) for side in sides for text in side)
                return _joined(sides) if worded else []
            case ast.IfExp(body=ast.Constant(value=one), orelse=ast.Constant(value=other)) if (
                ending := _PLURALS.get(frozenset((str(one), str(other))))
            ):
                return [_placeholder(ending)]
            case ast.IfExp(body=body, orelse=orelse):
                return self._texts(body, calls) + self._texts(orelse, calls)
            case ast.BoolOp(values=values):
                found = [text for each in values for text in self._texts(each, calls) if text]
                phrases = [text for text in found if re.search("[a-z]", text.fixed)]
                return phrases + [text for text in found if text not in phrases][:1]
            case ast.Name(id=name):
                return self._texts_of_name(node, name, calls)
            case ast.Subscript(value=ast.Name(id=name)) if name in self.constants:
                return self._texts_in(self.constants[name], calls)
            case ast.Call():
                return self._texts_of_call(node, calls)
        return []

    def _texts_in(self, table: ast.expr, calls: int) -> list[Text]:
        values = table.values if isinstance(table, ast.Dict) else []
        return [text for value in values for text in self._texts(value, calls)]

    def _texts_of_name(self, node: ast.Name, name: str, calls: int) -> list[Text]:
        if calls >= _MOST_CALLS or name in _THINGS:
            return []
        functions = [each for each in self._around(node) if isinstance(each, _Function)]
        assigned = self._assigned(node, name)
        if assigned:
            if len(assigned) > 1:  # the first may only begin an "if"
                assigned = [each for each in assigned if ast.unparse(each) not in ("''", "None")]
            if any(isinstance(each, ast.Constant) and each.value == 0 for each in assigned):
                return []  # a number that changes
            if calls:  # once around what contains itself
                assigned = [each for each in assigned if name not in _names_in(each)]
            found = [text for each in assigned for text in self._texts(each, calls + 1)]
            return found + self._longer(found, functions[0], name, calls + 1)
        for function in functions:
            if name in _parameters(function) and function.name not in _OVERRIDES:
                return [
                    text
                    for home, each in self._given(function, name)
                    if function not in home._around(each) or calls == 0
                    for text in home._texts(each, calls + 1)
                ]
        if name in self.constants:
            return self._texts(self.constants[name], calls + 1)
        module, original = self.imports.get(name, ("", ""))
        home = _modules().get(module)
        if home is not None and original in home.constants:
            return home._texts(home.constants[original], calls + 1)
        return []

    def _assigned(self, node: ast.AST, name: str) -> list[ast.expr]:
        """Return what the function around *node* assigns to *name*."""
        functions = [each for each in self._around(node) if isinstance(each, _Function)]
        found: list[ast.expr] = []
        for statement in ast.walk(functions[0]) if functions else ():
            if isinstance(statement, ast.For):
                found += self._values_in_loop(statement, name)
            if not isinstance(statement, ast.Assign):
                continue
            for target in statement.targets:
                if isinstance(target, ast.Name) and target.id == name:
                    found.append(statement.value)
                elif isinstance(target, ast.Tuple):
                    found += _unpacked(target, statement.value, name)
        return found

    def _longer(self, texts: list[Text], function: _Function, name: str, calls: int) -> list[Text]:
        """Return *texts*, those in *name*, with what *function* adds to them."""
        added = [
            each.value
            for each in ast.walk(function)
            if isinstance(each, ast.AugAssign) and _last_name(each.target) == name
        ]
        ends = [text for each in added for text in self._texts(each, calls)]
        return _joined([texts, ends]) if ends else []

    def _values_in_loop(self, loop: ast.For, name: str) -> list[ast.expr]:
        """Return what a loop over a table of this module assigns to *name*."""
        targets = loop.target.elts if isinstance(loop.target, ast.Tuple) else []
        names = [_last_name(each) for each in targets]
        if name not in names:
            return []
        match loop.iter:
            case ast.Call(func=ast.Attribute(value=ast.Name(id=table), attr="items")):
                found = self.constants.get(table)
                return list(found.values) if isinstance(found, ast.Dict) else []
            case ast.Name(id=table):
                rows = getattr(self.constants.get(table), "elts", [])
                number = names.index(name)
                return [row.elts[number] for row in rows if isinstance(row, ast.Tuple)]
        return []

    def _given(self, function: _Function, parameter: str) -> list[tuple[_Module, ast.expr]]:
        """Return what calls give for *parameter* of *function*, and the modules of the calls."""
        names = _parameters(function)
        if names[:1] in (["self"], ["cls"]):
            names = names[1:]
        name = function.name
        if name == "__init__":
            around = self._around(function)
            name = around[0].name if around else name
        callers = [self]
        if function in self.tree.body or name != function.name:
            module = _name_of(self.path)
            package, _, last = module.rpartition(".")
            callers += [
                each
                for each in _modules().values()
                if each.imports.get(name) == (module, name)
                or each.imports.get(last) == (package, last)
            ]
        found = [(self, each) for each in _default_of(function, parameter)]
        for home in callers:
            for call in home.calls.get(name, []):
                values = [each.value for each in call.keywords if each.arg == parameter]
                if parameter in names:
                    position = names.index(parameter)
                    values += call.args[position : position + 1]
                found += [(home, value) for value in values]
        return found

    def _texts_of_call(self, node: ast.Call, calls: int) -> list[Text]:
        name = _last_name(node.func)
        if name.removeprefix("_") in _THINGS or name == "_number_or_kind":
            return []
        if name == "quoted" and node.args:
            return [Text(f"'{each}'") for each in self._texts(node.args[0], calls)]
        if name in _TRANSPARENT and len(node.args) == 1:
            return self._texts(node.args[0], calls)
        if name in _TRANSPARENT and isinstance(node.func, ast.Attribute):
            return self._texts(node.func.value, calls)
        if name == "format" and isinstance(node.func, ast.Attribute):
            value = str(_placeholder("value"))
            return [Text(text.replace("{}", value)) for text in self._texts(node.func.value, calls)]
        if name == "get" and isinstance(node.func, ast.Attribute):
            table = node.func.value
            if isinstance(table, ast.Name) and table.id in self.constants:
                return self._texts_in(self.constants[table.id], calls)
        functions = self.functions.get(name, [])
        if len(functions) == 1 and calls < _MOST_CALLS and _returns_text(functions[0]):
            returned = [
                text
                for each in ast.walk(functions[0])
                if isinstance(each, ast.Return) and each.value is not None
                for text in self._texts(each.value, calls + 1)
            ]
            return [text for text in returned if text] or returned
        return []


def _names_in(node: ast.AST) -> set[str]:
    return {each.id for each in ast.walk(node) if isinstance(each, ast.Name)}


def _is_arithmetic(node: ast.AST) -> bool:
    kinds = ast.BinOp | ast.operator | ast.Constant
    numbers = [each.value for each in ast.walk(node) if isinstance(each, ast.Constant)]
    return all(isinstance(each, kinds) for each in ast.walk(node)) and all(
        isinstance(number, int | float) for number in numbers
    )


def _returns_text(function: _Function) -> bool:
    return isinstance(function.returns, ast.Name) and function.returns.id == "str"


def _joined(parts: Sequence[list[Text]]) -> list[Text]:
    return [Text("".join(each)) for each in itertools.product(*parts)]


def _parameters(function: _Function) -> list[str]:
    arguments = function.args
    return [each.arg for each in arguments.posonlyargs + arguments.args + arguments.kwonlyargs]


def _default_of(function: _Function, parameter: str) -> list[ast.expr]:
    """Return the default of *parameter*, unless it is no text."""
    arguments = function.args
    positional = [each.arg for each in arguments.posonlyargs + arguments.args]
    defaults = dict(zip(reversed(positional), reversed(arguments.defaults), strict=False))
    keywords = zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True)
    defaults |= {each.arg: default for each, default in keywords if default is not None}
    found = defaults.get(parameter)
    return [found] if isinstance(found, ast.Constant) and isinstance(found.value, str) else []


def _unpacked(target: ast.Tuple, value: ast.expr, name: str) -> list[ast.expr]:
    """Return what is assigned to *name* by ``a, b = (x, y) if … else (v, w)``."""
    if isinstance(value, ast.IfExp):
        return _unpacked(target, value.body, name) + _unpacked(target, value.orelse, name)
    if not isinstance(value, ast.Tuple):
        return []
    pairs = zip(target.elts, value.elts, strict=False)
    return [each for to, each in pairs if isinstance(to, ast.Name) and to.id == name]


def _last_name(node: ast.expr) -> str:
    if isinstance(node, ast.Name):
        return node.id
    return node.attr if isinstance(node, ast.Attribute) else ""


def _name_in(node: ast.expr) -> str:
    """Return the name of a value for its placeholder."""
    match node:
        case ast.Name(id=name) | ast.Attribute(attr=name):
            return name
        case ast.FormattedValue(value=value) | ast.Subscript(value=value):
            return _name_in(value)
        case ast.Starred(value=value) | ast.UnaryOp(operand=value):
            return _name_in(value)
        case ast.Call(func=func, args=args):
            name = _last_name(func)
            if name in _NAMES:
                return name
            if not args and isinstance(func, ast.Attribute):
                return _name_in(func.value) if name in _TRANSPARENT else name
            if not args:
                return name
            return _name_in(args[0])
        case ast.BinOp(left=left):
            return _name_in(left)
        case ast.IfExp(body=body):
            return _name_in(body)
        case ast.BoolOp(values=values):
            return _name_in(values[0])
        case ast.GeneratorExp(elt=elt) | ast.ListComp(elt=elt):
            return _name_in(elt)
    return "text"
