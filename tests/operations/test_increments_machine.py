"""Whatever happens to a tree and its backups, each kept backup is the tree as it was."""

from __future__ import annotations

import pytest
from hypothesis.stateful import run_state_machine_as_test

from tests.increment_histories.machine import Histories, figures, settings_for
from tests.support.examples import rest_heavy

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:This process .* is multi-threaded"),
    pytest.mark.needs("GNU tar"),
]


@pytest.mark.parametrize("part", rest_heavy(range(4), 2))  # for as many workers
def test_bakthat_and_tar_restore_every_state_of_random_histories(part: int) -> None:
    """``tox -e increments`` runs many more."""
    before = figures["states"]
    run_state_machine_as_test(Histories, settings=settings_for(5, database=None))
    assert figures["states"] > before
