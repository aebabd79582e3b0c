"""Change keys of one profile in the text of the file; all other text stays as it is.

Comments, the order of the keys, quotes, alignment and line ends are kept. The library says where
each token is, and renders the new values, so that what is written is what it reads.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from bakthat.conf.files.yaml_text import compose

if TYPE_CHECKING:
    import yaml

REMOVED = object()
"""The value of a key that is to be removed."""
_INDENTATION = 2
_WIDE = 10**9
"""A width that no line reaches, so that none is broken."""


class EditError(Exception):
    """The text cannot be changed in place."""


def edited(text: str, name: str, current: Mapping[str, Any], changes: Mapping[str, Any]) -> str:
    """Return *text* with *changes* to the profile *name*, which is made where it is missing.

    *text* is valid YAML, with profiles by name or nothing, and *current* is what it says about this
    one. A value of REMOVED removes its key. The caller checks what the new text means: an anchor
    of a replaced value, for one, is lost. Raises EditError.
    """
    editor = _Editor(text)
    editor.change_profile(name, current, changes)
    return editor.result()


class _Pair(NamedTuple):
    """A key and its value, by their places in the text."""

    name: str
    value: yaml.Node
    begin: int
    colon: int
    """The place behind the colon."""
    first: int
    """Where the value begins; that of an empty one at the colon."""
    end: int
    """Behind the last token of the value."""


class _Editor:
    """Collects replacements of parts of a text."""

    def __init__(self, text: str) -> None:
        import yaml

        self._text = text
        self._newline = "\r\n" if "\r\n" in text else "\n"
        self._tokens: list[yaml.Token] = [
            token
            for token in yaml.scan(text, yaml.SafeLoader)
            if token.end_mark.index > token.start_mark.index  # others stand for an indentation
        ]
        self._replacements: list[tuple[int, int, str]] = []

    def result(self) -> str:
        """Return the text with all replacements; those at one place in the order of the calls."""
        parts, place = [], 0
        for begin, end, new in sorted(self._replacements, key=lambda each: each[:2]):
            parts += [self._text[place:begin], new]
            place = max(place, end)
        return "".join([*parts, self._text[place:]])

    def change_profile(
        self, name: str, current: Mapping[str, Any], changes: Mapping[str, Any]
    ) -> None:
        """Change the profile *name*, or add it."""
        import yaml

        kept = {key: value for key, value in changes.items() if value is not REMOVED}
        root = compose(self._text)
        if not isinstance(root, yaml.MappingNode):  # nothing but comments
            self._append(name, kept, 0)
            return
        pairs = self._pairs(root)
        pair = next((each for each in pairs if each.name == name), None)
        own = None if pair is None else _own_mapping(pair)
        if own is not None:
            self._change(own, current, changes)
        elif root.flow_style and pair is None:
            self._add(root, pairs, {name: kept})
        elif root.flow_style and pair is not None:
            self._set(root, pair, kept)
        elif pair is None:
            self._append(name, kept, self._column(root))
        else:
            self._begin(pair, kept, self._column(root) + _INDENTATION)

    def _pairs(self, mapping: yaml.MappingNode) -> list[_Pair]:
        """Return the keys and values of a mapping. Raises EditError."""
        import yaml

        begins = [key.start_mark.index for key, _ in mapping.value]
        closing = mapping.end_mark.index - (1 if mapping.flow_style else 0)
        found = []
        for (key, value), begin, limit in zip(
            mapping.value, begins, [*begins, closing][1:], strict=True
        ):
            inside = [each for each in self._tokens if begin <= each.start_mark.index < limit]
            while inside and isinstance(inside[-1], (yaml.FlowEntryToken, yaml.KeyToken)):
                inside.pop()
            behind = [each for each in inside if each.start_mark.index >= key.end_mark.index]
            if not behind or not isinstance(behind[0], yaml.ValueToken):
                raise EditError
            colon = behind[0].end_mark.index
            first = behind[1].start_mark.index if len(behind) > 1 else colon
            name = str(key.value)
            found.append(_Pair(name, value, begin, colon, first, behind[-1].end_mark.index))
        return found

    def _change(
        self, mapping: yaml.MappingNode, current: Mapping[str, Any], changes: Mapping[str, Any]
    ) -> None:
        """Change, add and remove keys of a mapping."""
        pairs = self._pairs(mapping)
        own = {pair.name: pair for pair in pairs}
        removed = [pair for pair in pairs if changes.get(pair.name) is REMOVED]
        if mapping.flow_style and removed:
            pairs = self._remove_from_flow(mapping, pairs, removed)
        elif removed:
            for pair in removed:
                self._remove_lines(pair.begin, pair.end)
        for key, value in changes.items():
            if key in own and value is not REMOVED:
                self._replace_value(mapping, own[key], current.get(key), value)
        new = {
            # One that is removed came from a mapping that was merged.
            key: None if value is REMOVED else value
            for key, value in changes.items()
            if key not in own
        }
        if new:
            self._add(mapping, pairs, new)

    def _replace_value(
        self, mapping: yaml.MappingNode, pair: _Pair, current: object, value: object
    ) -> None:
        if is_same(current, value):
            return
        own = _own_mapping(pair)
        if (
            own is not None
            and value
            and isinstance(current, Mapping)
            and isinstance(value, Mapping)
        ):
            removed = {key: REMOVED for key in current if key not in value}
            self._change(own, current, {**removed, **value})
        elif not (
            isinstance(current, list)
            and isinstance(value, list)
            and self._change_items(pair, current, value)
        ):
            self._set(mapping, pair, value)

    def _change_items(self, pair: _Pair, current: Sequence[Any], value: Sequence[Any]) -> bool:
        """Remove and add items of a list that has each on a line of its own.

        Return False, with nothing done, where that is not enough or nothing of the list stays.
        """
        import yaml

        if not _is_block_sequence(pair.value) or pair.value.start_mark.index < pair.colon:
            return False
        column = self._column(pair.value)
        begins = [
            each.start_mark.index
            for each in self._tokens
            if isinstance(each, yaml.BlockEntryToken)
            and each.start_mark.column == column
            and pair.first <= each.start_mark.index < pair.end
        ]
        if len(begins) != len(current):
            return False
        kept = 0
        removed = []
        for item, begin, limit in zip(current, begins, [*begins[1:], pair.end], strict=True):
            if kept < len(value) and is_same(item, value[kept]):
                kept += 1
            else:
                inside = [each for each in self._tokens if begin <= each.start_mark.index < limit]
                removed.append((begin, inside[-1].end_mark.index))
        if not kept:
            return False
        for begin, end in removed:
            self._remove_lines(begin, end)
        if kept < len(value):
            self._insert_below(pair.end, _block(list(value[kept:])), column)
        return True

    def _set(self, mapping: yaml.MappingNode, pair: _Pair, value: object) -> None:
        """Put a value in the place of another one. Raises EditError."""
        gap = self._text[pair.colon : pair.first]
        # The comments in a block go with its items; others may be about what stays.
        if ("\n" not in gap or _is_flow(pair.value)) and self._has_comment(pair.first, pair.end):
            raise EditError
        if mapping.flow_style:
            self._replace(pair.first, pair.end, ("" if gap else " ") + _in_flow(value))
        elif "\n" not in gap:
            space = "" if gap else " "
            # A block of text ends with its last line end.
            end = self._newline if self._text[: pair.end].endswith("\n") else ""
            self._replace(pair.first, pair.end, f"{space}{in_line(value)}{end}")
        elif isinstance(value, list) and value and _is_block_sequence(pair.value):
            column = self._column(pair.value)
            lines = _block(value).split("\n")
            self._replace(pair.first, pair.end, self._indented(lines, column).lstrip(" "))
        else:
            self._replace(pair.colon, pair.colon, f" {in_line(value)}")
            self._replace(pair.colon + len(gap.rstrip()), pair.end, "")

    def _add(
        self, mapping: yaml.MappingNode, pairs: Sequence[_Pair], new: Mapping[str, Any]
    ) -> None:
        """Add keys behind the last one."""
        if mapping.flow_style:
            text = _in_flow(new)[1:-1]
            place = pairs[-1].end if pairs else mapping.end_mark.index - 1
            self._replace(place, place, f", {text}" if pairs else text)
        else:
            self._insert_below(pairs[-1].end, _block(new), self._column(mapping))

    def _remove_lines(self, begin: int, end: int) -> None:
        """Remove the lines from *begin* to *end*, with the comments in them. Raises EditError."""
        start = self._text.rfind("\n", 0, begin) + 1
        if self._text[start:begin].strip() not in ("", "?"):  # of an explicit key
            raise EditError
        self._replace(start, self._line_end(end), "")

    def _remove_from_flow(
        self, mapping: yaml.MappingNode, pairs: Sequence[_Pair], removed: Sequence[_Pair]
    ) -> list[_Pair]:
        """Remove keys between braces, and return the pairs that are left. Raises EditError."""
        left = [pair for pair in pairs if pair not in removed]
        closing = mapping.end_mark.index - 1
        nexts = [*(pair.begin for pair in pairs[1:]), closing]
        if any("#" in self._text[pair.end : end] for pair, end in zip(pairs, nexts, strict=True)):
            raise EditError  # a comment may be about what stands before it or behind it
        for pair, end in zip(pairs, nexts, strict=True):
            if pair in removed:
                self._replace(pair.begin, end, "")
        if left and pairs[-1] in removed:
            self._replace(left[-1].end, closing, "")  # with the comma
        return left

    def _begin(self, pair: _Pair, content: Mapping[str, Any], column: int) -> None:
        """Write a block of keys where a profile has none of its own: nothing, {} or an alias."""
        import yaml

        if not content:
            return
        token = next((each for each in self._tokens if each.start_mark.index == pair.first), None)
        lines = _block(dict(content))
        if isinstance(token, yaml.AliasToken):
            lines = f"<<: {self._text[pair.first : pair.end]}\n{lines}"
        self._replace(pair.colon, pair.end, "")
        self._insert_below(pair.end, lines, column)

    def _append(self, name: str, content: Mapping[str, Any], column: int) -> None:
        """Write a profile at the end of the document."""
        import yaml

        ends = [
            each.start_mark.index
            for each in self._tokens
            if isinstance(each, yaml.DocumentEndToken)
        ]
        place = ends[0] if ends else len(self._text)
        text = self._indented(_block({name: dict(content)}).split("\n"), column)
        if place and not self._text[:place].endswith("\n"):
            text = f"{self._newline}{text}"
        self._replace(place, place, f"{text}{self._newline}")

    def _insert_below(self, place: int, block: str, column: int) -> None:
        """Write the lines of *block* below the line with *place*."""
        end = self._line_end(place)
        text = self._indented(block.split("\n"), column)
        if self._text[:end].endswith("\n"):
            self._replace(end, end, f"{text}{self._newline}")
        else:
            self._replace(end, end, f"{self._newline}{text}")

    def _column(self, block: yaml.Node) -> int:
        """Return the column of the first key or item, before which an anchor or a tag may stand."""
        import yaml

        properties = (yaml.AnchorToken, yaml.TagToken)
        column: int = next(
            each.start_mark.column
            for each in self._tokens
            if each.start_mark.index >= block.start_mark.index and not isinstance(each, properties)
        )
        return column

    def _has_comment(self, begin: int, end: int) -> bool:
        """Return whether a comment stands between the tokens of a part of the text."""
        inside = [each for each in self._tokens if begin <= each.start_mark.index < end]
        return any(
            "#" in self._text[one.end_mark.index : other.start_mark.index]
            for one, other in itertools.pairwise(inside)
        )

    def _line_end(self, place: int) -> int:
        """Return where the line after that with *place* begins."""
        if self._text[:place].endswith("\n"):  # behind a block of text
            return place
        return self._text.find("\n", place) + 1 or len(self._text)

    def _indented(self, lines: Sequence[str], column: int) -> str:
        return self._newline.join(" " * column + line for line in lines)

    def _replace(self, begin: int, end: int, new: str) -> None:
        self._replacements.append((begin, end, new))


def is_same(one: object, other: object) -> bool:
    """Return whether two values are the same in YAML: true is not 1, and .nan is .nan.

    The order of keys means nothing. Raises EditError for a value that YAML does not have.
    """
    return _dumped(one, sort_keys=True) == _dumped(other, sort_keys=True)


def _own_mapping(pair: _Pair) -> yaml.MappingNode | None:
    """Return the value if it is a mapping with keys that stands here, not elsewhere by an alias."""
    import yaml

    node = pair.value
    is_here = pair.colon <= node.start_mark.index
    return node if is_here and isinstance(node, yaml.MappingNode) and node.value else None


def _is_flow(node: yaml.Node) -> bool:
    import yaml

    return isinstance(node, yaml.CollectionNode) and bool(node.flow_style)


def _is_block_sequence(node: yaml.Node) -> bool:
    import yaml

    return isinstance(node, yaml.SequenceNode) and not node.flow_style


def _block(value: object) -> str:
    """Return the lines of a list or a mapping."""
    return _dumped(value, default_flow_style=False).removesuffix("\n")


def in_line(value: object) -> str:
    """Return a value as one line, behind a key of a block."""
    return _dumped(value, default_flow_style=True).removesuffix("\n").removesuffix("\n...")


def _in_flow(value: object) -> str:
    """Return a value as one line, within braces."""
    return _dumped([value], default_flow_style=True).removesuffix("\n")[1:-1]


def _dumped(value: object, *, sort_keys: bool = False, **style: Any) -> str:
    import yaml

    style |= {"allow_unicode": True, "width": _WIDE, "sort_keys": sort_keys}
    try:
        text: str = yaml.dump(value, Dumper=_dumper(), **style)
    except yaml.YAMLError as exc:  # YAML has no such value
        raise EditError from exc
    return text


@functools.cache
def _dumper() -> type[yaml.SafeDumper]:
    """Return the safe dumper, made to write each value as one line and without aliases."""
    import yaml

    class Dumper(yaml.SafeDumper):
        def ignore_aliases(self, data: object) -> bool:
            return True

        def represent_str(self, data: str) -> yaml.ScalarNode:
            style = '"' if len(f"{data}.".splitlines()) > 1 else None
            return self.represent_scalar("tag:yaml.org,2002:str", data, style)

    Dumper.add_representer(str, Dumper.represent_str)
    return Dumper
