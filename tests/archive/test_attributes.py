"""The hash of the extended attributes and ACLs of an entry."""

from __future__ import annotations

import hashlib

from bakthat.archive.attributes import attribute_records, attributes_digest


def test_without_attributes_there_is_no_hash() -> None:
    assert attributes_digest([]) == ""


def test_the_hash_depends_on_names_and_values_and_not_on_their_order() -> None:
    records = attribute_records({b"user.a=%": b"1", b"user.b": b"\0"}, {b"access": b"user::rw-"})
    assert records == [
        (b"SCHILY.xattr.user.a%3D%25", b"1"),
        (b"SCHILY.xattr.user.b", b"\0"),
        (b"SCHILY.acl.access", b"user::rw-"),
    ]
    digest = attributes_digest(records)
    assert attributes_digest(list(reversed(records))) == digest
    assert (
        digest
        == (
            hashlib.sha256(
                b"26 SCHILY.acl.access=user::rw-\n"
                b"26 SCHILY.xattr.user.a%3D%25=1\n"
                b"20 SCHILY.xattr.user.b=\0\n"
            ).hexdigest()[:16]
        )
    )
    assert len({attributes_digest(records[:2]), attributes_digest(records[1:]), digest}) == 3
