"""Which examples of a test run in the README's suite, and which among the slow tests."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest


def rest_slow(values: Iterable[Any], count: int = 1) -> list[Any]:
    """Return *values* for ``parametrize``; all but the first *count* are marked as slow.

    For examples of one kind: a few show the behaviour, the others are there for completeness.
    """
    return _marked(values, count, pytest.mark.slow)


def rest_heavy(values: Iterable[Any], count: int = 1) -> list[Any]:
    """Do what :func:`rest_slow` does for a test that is slow: its other examples are heavy."""
    return _marked(values, count, pytest.mark.heavy)


def _marked(values: Iterable[Any], count: int, mark: pytest.MarkDecorator) -> list[Any]:
    return [
        pytest.param(value, marks=mark) if number >= count else value
        for number, value in enumerate(values)
    ]
