"""A storage that checks the rights of keys."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.iam import CheckedServer, checked_server


@pytest.fixture(scope="module")
def checked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CheckedServer]:
    with checked_server(tmp_path_factory.mktemp("checked")) as server:
        yield server
