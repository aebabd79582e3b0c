"""The SHA-256 tree hash, with which Glacier checks archives, parts and ranges.

The format is that of
https://docs.aws.amazon.com/amazonglacier/latest/dev/checksum-calculations.html: the leaves are
the SHA-256 of each mebibyte, a parent is the SHA-256 of its two children, and a node without a
sibling moves up unchanged.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence

from bakthat.system.streams import Buffer

LEAF_BYTES = 1024 * 1024


def tree_hash(data: Buffer) -> bytes:
    """Return the tree hash of *data*, 32 bytes."""
    with memoryview(data) as view, view.cast("B") as flat:
        return tree_hash_of(
            flat[start : start + LEAF_BYTES] for start in range(0, len(flat), LEAF_BYTES)
        )


def tree_hash_of(pieces: Iterable[Buffer]) -> bytes:
    """Return the tree hash of *pieces*, each of :data:`LEAF_BYTES` but the last."""
    leaves = [hashlib.sha256(piece).digest() for piece in pieces]
    return join_hashes(leaves) if leaves else hashlib.sha256().digest()


def join_hashes(nodes: Sequence[bytes]) -> bytes:
    """Return the root over *nodes*, all the hashes of one level of the tree, in order.

    *nodes* may be the leaves, or the hashes of parts whose size is a power of two in mebibytes; the
    last part may be smaller.
    """
    while len(nodes) > 1:
        nodes = [
            hashlib.sha256(b"".join(nodes[n : n + 2])).digest() if n + 1 < len(nodes) else nodes[n]
            for n in range(0, len(nodes), 2)
        ]
    return nodes[0]
