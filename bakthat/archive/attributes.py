"""Extended attributes and POSIX ACLs of a file, as records of a PAX header."""

from __future__ import annotations

import errno
import os
import struct

_ACL_RECORDS = {
    "system.posix_acl_access": b"SCHILY.acl.access",
    "system.posix_acl_default": b"SCHILY.acl.default",
}
# linux/posix_acl_xattr.h: version 2, then tag, permissions and id of each entry, little endian.
_ACL_VERSION = struct.pack("<I", 2)
_ACL_ENTRY = struct.Struct("<HHI")
_ACL_TAGS = {0x01: "user", 0x02: "user", 0x04: "group", 0x08: "group", 0x10: "mask", 0x20: "other"}
_ACL_NAMED = (0x02, 0x08)


class AttributeReader:
    """Read extended attributes, and remember which file systems have none."""

    def __init__(self) -> None:
        self._without: set[int] = set()

    def records(self, target: int | str, device: int) -> list[tuple[bytes, bytes]]:
        """Return the attributes of *target* as keys and values of PAX records.

        *target* is an open file or a path, of which a symbolic link is not followed; *device* is
        its ``st_dev``. What cannot be read is left out. Keys are ``SCHILY.xattr.`` and the
        attribute's name, in which GNU tar writes "%" and "=" as ``%25`` and ``%3D``; the values
        are raw bytes. An ACL also comes as text, ``SCHILY.acl.access`` or ``.default``, which is
        what ``tar --acls`` restores.
        """
        if device in self._without:
            return []
        follow = isinstance(target, int)
        try:
            names = os.listxattr(target, follow_symlinks=follow)
        except OSError as exc:
            if exc.errno == errno.EOPNOTSUPP:
                self._without.add(device)
            return []
        records = []
        for name in sorted(names):
            try:
                value = os.getxattr(target, name, follow_symlinks=follow)
            except OSError:
                continue
            encoded = os.fsencode(name).replace(b"%", b"%25").replace(b"=", b"%3D")
            records.append((b"SCHILY.xattr." + encoded, value))
            if name in _ACL_RECORDS and (text := acl_text(value)) is not None:
                records.append((_ACL_RECORDS[name], text))
        return records


def acl_text(value: bytes) -> bytes | None:
    """Return the long text form (acl(5)) of an ACL, with numeric ids; None if *value* is none."""
    body = value[len(_ACL_VERSION) :]
    if not value.startswith(_ACL_VERSION) or len(body) % _ACL_ENTRY.size:
        return None
    lines = []
    for tag, permissions, identity in _ACL_ENTRY.iter_unpack(body):
        if tag not in _ACL_TAGS:
            return None
        who = str(identity) if tag in _ACL_NAMED else ""
        bits = "".join(c if permissions & bit else "-" for c, bit in (("r", 4), ("w", 2), ("x", 1)))
        lines.append(f"{_ACL_TAGS[tag]}:{who}:{bits}\n")
    return "".join(lines).encode()
