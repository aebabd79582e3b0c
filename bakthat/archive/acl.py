"""Convert POSIX ACLs between the text that ``tar --acls`` stores and the binary form of Linux.

The text is the long or the short form of acl(5), with commas or line ends between entries; star
adds the number of the user or group as a fourth field. The binary form is that of
``include/uapi/linux/posix_acl_xattr.h``: a version, then tag, permissions and id of each entry.
"""

from __future__ import annotations

import struct
from collections.abc import Callable

from bakthat.system.text import printable

_VERSION = struct.pack("<I", 2)
_ENTRY = struct.Struct("<HHI")
_NO_ID = 0xFFFFFFFF
_TAGS = {"user": (0x01, 0x02), "group": (0x04, 0x08), "mask": (0x10, 0x10), "other": (0x20, 0x20)}
_KINDS = {tag: kind for kind, tags in _TAGS.items() for tag in tags}
_NAMED = (0x02, 0x08)
_SHORT = {"u": "user", "g": "group", "m": "mask", "o": "other"}
_BITS = {"r": 4, "w": 2, "x": 1, "-": 0}


def binary_acl(
    text: bytes, find_user: Callable[[bytes], int | None], find_group: Callable[[bytes], int | None]
) -> bytes:
    """Return the ACL *text* as the value of a ``system.posix_acl_…`` attribute.

    *find_user* and *find_group* return the id that a name has on this machine, or None. Raises
    ValueError for a text that is not an ACL or names an unknown user or group.
    """
    entries = []
    for line in text.decode("utf-8", "surrogateescape").replace(",", "\n").split("\n"):
        entry = line.partition("#")[0].strip()
        if entry:
            find = find_group if entry.startswith("g") else find_user
            entries.append(_parse_entry(entry, find))
    # The kernel requires the entries ordered by tag, then by id.
    return _VERSION + b"".join(_ENTRY.pack(*e) for e in sorted(entries, key=lambda e: (e[0], e[2])))


def _parse_entry(entry: str, find: Callable[[bytes], int | None]) -> tuple[int, int, int]:
    kind, qualifier, permissions, *number = (part.strip() for part in entry.split(":"))
    try:
        unnamed, named = _TAGS[_SHORT.get(kind, kind)]
        bits = sum(_BITS[letter] for letter in set(permissions))
    except KeyError as exc:
        raise ValueError(f"unknown tag or permission in '{printable(entry)}'") from exc
    if not qualifier:
        return unnamed, bits, _NO_ID
    identifier = find(qualifier.encode("utf-8", "surrogateescape"))
    if identifier is None:
        identifier = int(number[0] if number else qualifier)
    if not 0 <= identifier < _NO_ID:
        raise ValueError(f"invalid id {identifier}")
    return named, bits, identifier


def acl_text(value: bytes) -> bytes | None:
    """Return the ACL *value* in the long form of acl(5), with numeric ids; None if it is no ACL."""
    body = value[len(_VERSION) :]
    if not value.startswith(_VERSION) or len(body) % _ENTRY.size:
        return None
    lines = []
    for tag, permissions, identity in _ENTRY.iter_unpack(body):
        if tag not in _KINDS:
            return None
        qualifier = str(identity) if tag in _NAMED else ""
        bits = "".join(c if permissions & _BITS[c] else "-" for c in "rwx")
        lines.append(f"{_KINDS[tag]}:{qualifier}:{bits}\n")
    return "".join(lines).encode()
