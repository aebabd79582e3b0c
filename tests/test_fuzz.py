"""Any bytes from the storage or from a file raise only bakthat's own errors."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.fuzz.targets import TARGETS

FOUND_INPUTS: list[tuple[str, bytes]] = [
    ("configuration", b"\xff\xfe*" + b"\xff" * 10 + b"%"),  # UTF-16 that cannot be decoded
]
"""Inputs that once made a target raise another error. Never remove one."""


@pytest.mark.parametrize("target", TARGETS)
def test_every_seed_and_every_find_is_read(target: str) -> None:
    function, seeds = TARGETS[target]
    for data in [*seeds, *(find for name, find in FOUND_INPUTS if name == target)]:
        function(data)


@st.composite
def mutations(draw: st.DrawFn, seeds: list[bytes]) -> bytes:
    """Return a seed of which a few pieces were replaced, or any bytes at all."""
    data = draw(st.sampled_from(seeds))
    for _ in range(draw(st.integers(1, 3))):
        start = draw(st.integers(0, len(data)))
        end = draw(st.integers(start, min(len(data), start + 40)))
        data = data[:start] + draw(st.binary(max_size=20)) + data[end:]
    return data


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(["set", "host", "date", "kind", "mode", "uid", "gid", "tags", "name"])
            | st.sampled_from(
                ["bytes", "files", "KeyValue", "sha256", "encryption", "key", "about"]
            )
            | st.text(max_size=5),
            inner,
            max_size=6,
        )
    ),
    max_leaves=12,
)


@pytest.mark.parametrize("target", [name for name in TARGETS if name != "beefish"])
@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_a_mutation_raises_documented_errors_only(target: str, data: st.DataObject) -> None:
    function, seeds = TARGETS[target]
    function(data.draw(mutations(seeds)))


@settings(max_examples=150, deadline=None)
@given(JSON)
def test_any_json_as_a_self_description_raises_documented_errors_only(description: Any) -> None:
    import json

    TARGETS["metadata"][0](json.dumps(description).encode())


@settings(max_examples=100, deadline=None)
@given(JSON, st.sampled_from(["default", "other", "1"]))
def test_any_yaml_as_a_configuration_raises_documented_errors_only(profile: Any, name: str) -> None:
    import yaml

    TARGETS["configuration"][0](yaml.safe_dump({name: profile}, allow_unicode=True).encode())
