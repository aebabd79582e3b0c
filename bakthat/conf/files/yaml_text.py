"""Read YAML: its encoding, its keys with their lines, and what is wrong with it in plain words.

The messages of the library quote the text, which may be a secret.
"""

from __future__ import annotations

import codecs
import functools
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import yaml

_NOT_TEXT = "not valid YAML: a byte that is not UTF-8, or a control character"
_SAVE_IT = "save it as UTF-8, without control characters"
_QUOTE_IT = "put the whole value in quotes"
_PROBLEMS = (
    (r"found character '\\t'", "a tab", "indent with spaces"),
    (r"found character '(.)'", "a value that begins with {}", _QUOTE_IT),
    (r"found undefined alias|while scanning an alias", "a value that begins with *", _QUOTE_IT),
    (r"could not determine a constructor", "a value that begins with !", _QUOTE_IT),
    (
        r"mapping values are not allowed",
        "a colon within a value, or a wrong indentation",
        f"{_QUOTE_IT}, or align the keys",
    ),
    (r"unexpected end of stream", "a quote that is not closed", "close it"),
    (r"but got '<stream end>'", "a bracket that is not closed", "close it"),
    (r"could not find expected ':'", "a line without a colon", "write it as key: value"),
    (r"expected <block end>, but found '<block mapping", "a wrong indentation", "align the keys"),
    (r"expected (<block end>|'[,}\]]|[,}\]])", "text after the end of a value", _QUOTE_IT),
    (r"a value that is impossible", "a value that is impossible for its type", _QUOTE_IT),
    (r"a colon without a space", "a colon without a space behind it", "write it as key: value"),
    (r"recursive", "a value that contains itself", "write it out in place of the alias"),
    (r"a key that occurs twice", "a key that occurs twice", "remove one of the two"),
)
"""Beginnings of the messages of yaml, what they mean, and what to do."""


class YamlError(Exception):
    """A text is not valid YAML."""

    def __init__(self, problem: str, *, line: int | None = None, hint: str = "") -> None:
        super().__init__(problem)
        self.line = line
        """The number of the line, from 1 on, where it is known."""
        self.hint = hint


@dataclass(frozen=True)
class Document:
    """The content of a YAML text, and in which lines its keys are."""

    content: Any = field(repr=False)
    root: yaml.Node | None = field(repr=False)
    """The node of the content, in which merge keys (``<<``) are resolved."""

    def items(self, key: str | None = None) -> dict[str, Any]:
        """Return the items of the content, or of a *key* of it; their keys as they are written.

        That is a mapping. Raises YamlError.
        """
        node, content = self.root, self.content
        if key is not None:
            node, content = _keys_of(node)[key][1], content[key]
        names = _keys_of(node)
        if len(names) != len(content):  # 1 and 0x1 are the same number
            raise YamlError("a key that occurs twice", hint="remove one of the two")
        return dict(zip(names, content.values(), strict=True))

    def line_of(self, *path: str | int) -> int | None:
        """Return the number of the line with what *path* leads to; None without that.

        A number in it is that of an entry of a list, from 0 on.
        """
        node, line = self.root, None
        for name in path:
            line, node = _children_of(node).get(name, (None, None))
        return line


def _children_of(node: yaml.Node | None) -> Mapping[str | int, tuple[int, yaml.Node]]:
    """Return the line and the value of each key of a mapping, or of each entry of a list."""
    import yaml

    if isinstance(node, yaml.SequenceNode):
        return dict(enumerate((each.start_mark.line + 1, each) for each in node.value))
    return dict(_keys_of(node).items())


def _keys_of(node: yaml.Node | None) -> dict[str, tuple[int, yaml.Node]]:
    """Return the line and the value of each key of a mapping; of other nodes, nothing."""
    import yaml

    if not isinstance(node, yaml.MappingNode):
        return {}
    return {
        str(key.value): (key.start_mark.line + 1, value)
        for key, value in node.value  # of a key that was merged and overridden, the last is valid
    }


def decoded(data: bytes) -> tuple[str, str]:
    """Decode *data* as YAML requires: as UTF-8, or as UTF-16 after its byte order mark.

    Return the text without the mark, and the encoding for :func:`encoded`. Raises YamlError with
    the line of the first byte that cannot be decoded.
    """
    encoding = next((name for mark, name in _ENCODINGS.items() if data.startswith(mark)), "utf-8")
    mark = _MARKS[encoding]
    rest = data[len(mark) :]
    try:
        return rest.decode(_CODECS[encoding]), encoding
    except UnicodeDecodeError as exc:
        line = rest[: exc.start].decode(_CODECS[encoding], "ignore").count("\n") + 1
        raise YamlError(_NOT_TEXT, line=line, hint=_SAVE_IT) from exc


def encoded(text: str, encoding: str) -> bytes:
    """Encode *text* as :func:`decoded` found it. Raises UnicodeEncodeError."""
    return _MARKS[encoding] + text.encode(_CODECS[encoding])


_ENCODINGS = {
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF16_LE: "utf-16-le",
    codecs.BOM_UTF16_BE: "utf-16-be",
}
_MARKS = {"utf-8": b"", **{name: mark for mark, name in _ENCODINGS.items()}}
_CODECS = {
    "utf-8": "utf-8",
    "utf-8-sig": "utf-8",
    "utf-16-le": "utf-16-le",
    "utf-16-be": "utf-16-be",
}


def parse(text: str) -> Document:
    """Parse *text*, with the meaning that YAML 1.1 gives it. Raises YamlError.

    A key that occurs twice in one mapping is refused, a value that contains itself, and
    ``{key:value}``, which YAML takes for a key without a value.
    """
    import yaml

    try:
        root = compose(text)
        if root is not None:
            _check_keys(root)
        loader = _loader_class()("")
        loader.deep_construct = True  # which refuses what contains itself
        try:
            content = None if root is None else loader.construct_document(root)
        finally:
            loader.dispose()
    except yaml.YAMLError as exc:
        raise _plain(text, exc) from None  # that exception quotes the line
    except RecursionError as exc:
        raise YamlError("not valid YAML: nested too deeply", hint="remove some brackets") from exc
    return Document(content, root)


@functools.cache
def _loader_class() -> type[yaml.SafeLoader]:
    """Return the loader that says where a value is that its type does not have."""
    import yaml

    class Loader(yaml.SafeLoader):
        def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
            try:
                return super().construct_object(node, deep=deep)
            except (ValueError, LookupError, AttributeError, OverflowError):
                # The month 13, or !!int, !!bool and !!timestamp before other text. Not "from exc":
                # that exception holds the value.
                raise yaml.constructor.ConstructorError(
                    problem="a value that is impossible", problem_mark=node.start_mark
                ) from None

    return Loader


def compose(text: str) -> yaml.Node | None:
    """Return the root node of *text*, with merge keys as they are; None of an empty text."""
    import yaml

    node: yaml.Node | None = yaml.compose(text, yaml.SafeLoader)
    return node


def _check_keys(root: yaml.Node) -> None:
    import yaml

    for node in _mappings_of(root):
        seen = set()
        for key, value in node.value:
            is_alone = _is_plain(key) and _is_plain(value) and not value.value
            if node.flow_style and is_alone and ":" in key.value:
                raise yaml.constructor.ConstructorError(
                    problem="a colon without a space", problem_mark=key.start_mark
                )
            if isinstance(key, yaml.ScalarNode) and key.tag != "tag:yaml.org,2002:merge":
                if key.value in seen:
                    raise yaml.constructor.ConstructorError(
                        problem="a key that occurs twice", problem_mark=key.start_mark
                    )
                seen.add(key.value)


def _is_plain(node: yaml.Node) -> bool:
    """Return whether a node is text without quotes."""
    import yaml

    return isinstance(node, yaml.ScalarNode) and node.style is None


def _mappings_of(root: yaml.Node) -> Iterator[yaml.MappingNode]:
    """Yield each mapping below *root*, once, in the order of the text."""
    import yaml

    waiting, seen = [root], set()
    while waiting:
        node = waiting.pop()
        if id(node) in seen:  # an alias is the node that it stands for
            continue
        seen.add(id(node))
        if isinstance(node, yaml.MappingNode):
            yield node
            waiting += [each for pair in reversed(node.value) for each in reversed(pair)]
        elif isinstance(node, yaml.SequenceNode):
            waiting += reversed(node.value)


def _plain(text: str, exc: Exception) -> YamlError:
    """Return the error with the line's number. It does not quote the line: that may be a secret."""
    position = getattr(exc, "position", None)
    if position is not None:  # the reader failed, not the parser
        number = text.count("\n", 0, position) + 1
        return YamlError(_NOT_TEXT, line=number, hint=_SAVE_IT)
    mark = getattr(exc, "problem_mark", None)
    problem = str(getattr(exc, "problem", None) or "")
    for pattern, meaning, hint in _PROBLEMS:
        found = re.search(pattern, problem)
        if found:
            if hint == "close it":  # the end of the file is not where it is missing
                mark = getattr(exc, "context_mark", None) or mark
            line = mark.line + 1 if mark is not None else None
            return YamlError(meaning.format(*found.groups()), line=line, hint=hint)
    line = mark.line + 1 if mark is not None else None
    hint = "put values with special characters in quotes"
    return YamlError("not valid YAML: its structure is broken", line=line, hint=hint)
