"""The SHA-256 tree hash against its documentation and two independent implementations."""

from __future__ import annotations

import hashlib
import io
from pathlib import Path

from botocore.utils import calculate_tree_hash

from bakthat.backends.glacier.tree_hash import LEAF_BYTES, join_hashes, tree_hash
from tests.support.glacier_server import leaf_hashes, root_of


def content(size: int) -> bytes:
    pattern = bytes(range(251))
    return (pattern * (size // len(pattern) + 1))[:size]


def sha256(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()


SIZES = [0, 1, LEAF_BYTES - 1, LEAF_BYTES, LEAF_BYTES + 1, 3 * LEAF_BYTES, 13 * LEAF_BYTES // 2]


def test_tree_hashes_equal_those_of_botocore() -> None:
    for size in SIZES:
        data = content(size)
        assert tree_hash(data).hex() == calculate_tree_hash(io.BytesIO(data))  # type: ignore[arg-type]  # its stub is wrong: it reads a file


def test_tree_hashes_equal_those_of_the_test_server(tmp_path: Path) -> None:
    path = tmp_path / "archive"
    for size in SIZES[1:]:
        path.write_bytes(content(size))
        assert tree_hash(content(size)).hex() == root_of(leaf_hashes(path, 0, size))


def test_three_mebibytes_are_hashed_as_the_aws_command_line_guide_hashes_them() -> None:
    # https://docs.aws.amazon.com/cli/latest/userguide/cli-services-glacier.html, step by step:
    # its file is random, so its steps are repeated.
    data = content(3 * LEAF_BYTES)
    hash1, hash2, hash3 = (sha256(data[n * LEAF_BYTES : (n + 1) * LEAF_BYTES]) for n in range(3))
    hash12 = sha256(hash1 + hash2)
    assert tree_hash(data) == sha256(hash12 + hash3)


def test_an_archive_of_six_and_a_half_mebibytes_has_the_tree_of_the_developer_guide() -> None:
    # https://docs.aws.amazon.com/amazonglacier/latest/dev/checksum-calculations.html, example 1.
    data = content(13 * LEAF_BYTES // 2)
    a, b, c, d, e, f, g = (
        sha256(data[n : n + LEAF_BYTES]) for n in range(0, len(data), LEAF_BYTES)
    )
    left = sha256(sha256(a + b) + sha256(c + d))
    right = sha256(sha256(e + f) + g)
    assert tree_hash(data) == sha256(left + right)


def test_the_hash_of_parts_is_the_hash_of_the_whole() -> None:
    data = content(25 * LEAF_BYTES // 2)
    for part in (LEAF_BYTES, 2 * LEAF_BYTES, 4 * LEAF_BYTES, 8 * LEAF_BYTES):
        parts = [tree_hash(data[n : n + part]) for n in range(0, len(data), part)]
        assert join_hashes(parts) == tree_hash(data)


def test_any_buffer_is_hashed() -> None:
    data = content(LEAF_BYTES + 5)
    assert tree_hash(bytearray(data)) == tree_hash(memoryview(data)) == tree_hash(data)
