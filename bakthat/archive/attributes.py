"""The hash by which an index knows the extended attributes and ACLs of an entry."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping

XATTR_KEYWORD = b"SCHILY.xattr."
ACL_KEYWORD = b"SCHILY.acl."
"""What the keywords of the pax records begin with that hold them."""

_DIGITS = 16


def attributes_digest(records: Collection[tuple[bytes, bytes]]) -> str:
    """Return the first 16 hexadecimal digits of the SHA-256 of attributes; "" for none.

    *records* are the keywords and values of a pax header that hold them. Their order makes no
    difference. Each is hashed as its record in the header: ``<length> <keyword>=<value>`` and a
    line feed, the length that of the keyword and the value.
    """
    if not records:
        return ""
    digest = hashlib.sha256()
    for keyword, value in sorted(records):
        digest.update(b"%d %b=%b\n" % (len(keyword) + len(value), keyword, value))
    return digest.hexdigest()[:_DIGITS]


def attribute_records(
    xattrs: Mapping[bytes, bytes], acls: Mapping[bytes, bytes]
) -> list[tuple[bytes, bytes]]:
    """Return the pax records that hold these attributes and ACLs, as GNU tar names them."""
    return [
        *((xattr_keyword(name), value) for name, value in xattrs.items()),
        *((ACL_KEYWORD + name, value) for name, value in acls.items()),
    ]


def xattr_keyword(name: bytes) -> bytes:
    """Return the keyword of the record of an extended attribute.

    In the name GNU tar writes "%" and "=" as ``%25`` and ``%3D``.
    """
    return XATTR_KEYWORD + name.replace(b"%", b"%25").replace(b"=", b"%3D")
