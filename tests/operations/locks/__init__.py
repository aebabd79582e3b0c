"""Locks, holds and versions of a bucket, as operations use them."""

import pytest

pytest.register_assert_rewrite("tests.operations.locks.year")
