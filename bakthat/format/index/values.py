"""JSON in the lines of an index: packed, and parsed without trust."""

from __future__ import annotations

import base64
import json
import re
from typing import Any

from bakthat.errors import CorruptIndexError

MAX_NUMBER = 1 << 63
MAX_NS = (1 << 63) * 10**9
MAX_ID = (1 << 32) - 1
MAX_BLOCKS = 1 << 53
"""The most blocks of a tar archive, and so the largest position in it."""
MAX_PATH_BYTES = 64 * 1024
"""The longest path, and the longest target of a link; that of the tar reader."""
BAD_PATH = re.compile(r"(?:\A|/)\.{0,2}(?:/|\Z)|\0")
"""An empty component, one that is "." or "..", or a NUL; also what an absolute path begins with."""


def pack_line(value: object) -> bytes:
    """Return *value* as a line of JSON."""
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode() + b"\n"


def pack_text(text: str) -> str | dict[str, str]:
    """Return *text* as JSON can hold it: bytes that are not UTF-8 in base64."""
    try:
        text.encode()
    except UnicodeEncodeError:
        raw = text.encode("utf-8", "surrogateescape")
        return {"b64": base64.b64encode(raw).decode()}
    return text


def parse_text(value: object) -> str:
    """Return the text that :func:`pack_text` packed. Raises CorruptIndexError."""
    if isinstance(value, dict):
        try:
            return base64.b64decode(value["b64"], validate=True).decode("utf-8", "surrogateescape")
        except (KeyError, TypeError, ValueError) as exc:
            raise CorruptIndexError("the index has text that cannot be decoded") from exc
    if not isinstance(value, str):
        raise CorruptIndexError("the index has no text where one must be")
    try:
        value.encode()
    except UnicodeEncodeError as exc:
        raise CorruptIndexError("the index has text that is not Unicode") from exc
    return value


def parse_names(value: object) -> dict[int, str]:
    """Return names of owners by their numbers. Raises CorruptIndexError."""
    if not isinstance(value, dict):
        raise CorruptIndexError("a segment of the index has no names of owners")
    names = {}
    for number, name in value.items():
        if not number.isdecimal() or len(number) > 10:
            raise CorruptIndexError("the index has the name of an owner without a number")
        names[int(number)] = parse_text(name)
    return names


def parse_number(value: object, lowest: int, highest: int) -> int:
    """Return *value*, a whole number from *lowest* to *highest*. Raises CorruptIndexError."""
    if type(value) is not int or not lowest <= value <= highest:
        raise CorruptIndexError("a number in the index is missing or out of its range")
    return value


def parse_list(value: object) -> list[Any]:
    """Return *value*, a list. Raises CorruptIndexError."""
    if not isinstance(value, list):
        raise CorruptIndexError("the index has no list where one must be")
    return value


def parse_object(line: bytes, what: str) -> dict[str, Any]:
    """Return the object in *line*; *what* names it in a message. Raises CorruptIndexError."""
    found = parse_json(line, what)
    if not isinstance(found, dict):
        raise CorruptIndexError(f"the {what} of the index is not an object")
    return found


def parse_json(text: bytes, what: str) -> Any:
    """Return the value in *text*; *what* names it in a message. Raises CorruptIndexError."""
    try:
        return json.loads(text.decode())  # or else it would be guessed how it is encoded
    except (ValueError, RecursionError) as exc:
        raise CorruptIndexError(f"the {what} of the index is not JSON") from exc


def sort_key(path: str) -> bytes:
    """Return what sorts paths as an index does: component by component, in their bytes."""
    return path.encode("utf-8", "surrogateescape").replace(b"/", b"\0")
