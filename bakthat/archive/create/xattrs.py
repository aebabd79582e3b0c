"""Extended attributes and POSIX ACLs of a file, as records of a PAX header."""

from __future__ import annotations

import errno
import os

from bakthat.archive.acl import acl_text
from bakthat.archive.attributes import xattr_keyword
from bakthat.system import linux

_ACL_RECORDS = {
    "system.posix_acl_access": b"SCHILY.acl.access",
    "system.posix_acl_default": b"SCHILY.acl.default",
}


def attribute_record(name: bytes, value: bytes) -> tuple[bytes, bytes]:
    """Return the key and the value of the record of an extended attribute; raw bytes."""
    return xattr_keyword(name), value


class AttributeReader:
    """Read extended attributes, and remember which file systems have none."""

    def __init__(self) -> None:
        self._without: set[int] = set()

    def records(self, target: int | str, device: int) -> list[tuple[bytes, bytes]]:
        """Return the attributes of *target* as keys and values of PAX records.

        *target* is an open file or a path; a symbolic link is not followed. *device* is its
        ``st_dev``. Attributes that cannot be read are left out. An ACL is also returned as
        text, ``SCHILY.acl.access`` or ``.default``, which is what ``tar --acls`` restores.
        """
        if not linux.HAS_XATTRS or device in self._without:
            return []
        follow = isinstance(target, int)
        try:
            names = linux.listxattr(target, follow_symlinks=follow)
        except OSError as exc:
            if exc.errno == errno.EOPNOTSUPP:
                self._without.add(device)
            return []
        records = []
        for name in sorted(names):
            try:
                value = linux.getxattr(target, name, follow_symlinks=follow)
            except OSError:
                continue
            records.append(attribute_record(os.fsencode(name), value))
            if name in _ACL_RECORDS and (text := acl_text(value)) is not None:
                records.append((_ACL_RECORDS[name], text))
        return records
