"""The sizes of the parts of an upload, whatever is known about the object."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from bakthat.backends.aws.part_buffer import MEMORY_PART
from bakthat.backends.aws.part_plan import (
    FEWEST_EQUAL_PARTS,
    LARGEST_OBJECT,
    MAX_DOUBLED_PART_SIZE,
    MAX_PART_SIZE,
    MAX_PARTS,
    MIB,
    MIN_PART_SIZE,
    PartPlan,
    doubled_plan,
    equal_plan,
    growing_plan,
)

GIB = 1024 * MIB
SMALLEST_OF_S3 = 5 * MIB
LARGEST_ARCHIVE = 40_000 * 10**9
"""Bytes that Glacier takes."""

sizes = st.integers(0, LARGEST_OBJECT) | st.integers(0, 8 * 42).map(lambda e: int(2 ** (e / 8)))
"""Of all magnitudes, not only of the largest one."""
hints = st.none() | sizes
PlanFor = Callable[..., PartPlan]
plans = st.sampled_from([growing_plan, equal_plan, doubled_plan])


def parts_of(plan: PartPlan, total: int) -> list[int]:
    """Return the sizes of the parts of an object of *total* bytes."""
    parts: list[int] = []
    while total:
        parts.append(min(plan.size_of(len(parts) + 1), total))
        total -= parts[-1]
    return parts


@given(hint=hints, total=sizes)
@example(hint=None, total=LARGEST_OBJECT)
@example(hint=0, total=LARGEST_OBJECT)
@example(hint=1, total=LARGEST_OBJECT)
@example(hint=61 * GIB, total=LARGEST_OBJECT)
@example(hint=LARGEST_OBJECT, total=LARGEST_OBJECT)
def test_an_object_of_any_size_fits_whatever_its_hint_was(hint: int | None, total: int) -> None:
    parts = parts_of(growing_plan(hint), total)
    assert len(parts) <= MAX_PARTS
    assert sum(parts) == total
    assert all(SMALLEST_OF_S3 <= size <= MAX_PART_SIZE for size in parts[:-1])
    assert parts[:-1] == sorted(parts[:-1])


@given(st.integers(LARGEST_OBJECT, MAX_PARTS * MAX_PART_SIZE))
def test_an_object_as_large_as_s3_takes_fits_when_its_hint_was_right(hint: int) -> None:
    assert growing_plan(hint).capacity >= hint
    assert equal_plan(hint).capacity >= hint


@given(plans, hints, st.integers(1, MAX_PARTS - 1))
def test_parts_are_whole_mebibytes_and_never_shrink(
    plan_for: PlanFor, hint: int | None, number: int
) -> None:
    plan = plan_for(hint)
    size, following = plan.size_of(number), plan.size_of(number + 1)
    assert size % MIB == 0
    assert MIN_PART_SIZE <= size <= following <= MAX_PART_SIZE


@given(plans, hints)
def test_the_capacity_is_the_sum_of_all_parts(plan_for: PlanFor, hint: int | None) -> None:
    plan = plan_for(hint)
    assert plan.capacity == sum(plan.size_of(number) for number in range(1, MAX_PARTS + 1))


@given(sizes)
def test_an_object_as_large_as_its_hint_has_equal_parts(hint: int) -> None:
    plan = growing_plan(hint)
    assert len(set(parts_of(plan, hint * 21 // 20)[:-1])) <= 1
    assert plan.equal_parts >= FEWEST_EQUAL_PARTS


@given(st.integers(0, 31 * GIB))
def test_a_moderate_object_has_equal_parts_up_to_twice_its_hint(hint: int) -> None:
    parts = parts_of(growing_plan(hint), 2 * hint)
    assert set(parts[:-1]) <= {MIN_PART_SIZE}


@given(st.integers(0, 59 * GIB))
def test_an_object_of_a_known_moderate_size_has_the_smallest_parts(size: int) -> None:
    assert growing_plan(size).part_size == MIN_PART_SIZE


@given(st.integers(0, 475 * GIB))
def test_an_object_as_large_as_its_hint_needs_no_file_for_its_parts(size: int) -> None:
    assert max(parts_of(growing_plan(size), size), default=0) <= MEMORY_PART


@given(st.none() | st.integers(0, 7 * GIB), st.integers(0, 64 * GIB))
def test_an_object_whose_hint_said_little_needs_no_file_up_to_64_gib(
    hint: int | None, size: int
) -> None:
    assert max(parts_of(growing_plan(hint), size), default=0) <= MEMORY_PART


@given(st.none() | st.integers(0, 7 * GIB))
def test_parts_stay_below_a_gibibyte_where_the_hint_says_little(hint: int | None) -> None:
    assert growing_plan(hint).largest < GIB


def test_parts_double_after_the_equal_ones_up_to_the_largest() -> None:
    plan = growing_plan(None)
    step = (MAX_PARTS - 2000) // 18
    numbers = [1, 2000, 2001, 2000 + step, 2001 + step, 2001 + 5 * step, MAX_PARTS]
    assert [plan.size_of(number) // MIB for number in numbers] == [16, 16, 32, 32, 64, 826, 826]


def test_the_documentation_has_the_sizes_of_the_plans() -> None:
    text = (Path(__file__).parents[2] / "docs" / "reference" / "storage.rst").read_text()
    rows = re.findall(
        r"^(\d+) ([GT]iB) +([\d,]+) MiB +(\d+) MiB +(\d+) MiB +([\d,]+) MiB$", text, re.M
    )
    assert len(rows) == 6
    for count, unit, *documented in rows:
        total = int(count) * (GIB if unit == "GiB" else 1024 * GIB)
        largest = [
            max(parts_of(growing_plan(hint), total)[:-1]) // MIB
            for hint in (total, None, 1, total // 10)
        ]
        assert [int(number.replace(",", "")) for number in documented] == largest


@given(hints)
def test_an_equal_plan_has_one_size_and_holds_four_times_its_hint(hint: int | None) -> None:
    plan = equal_plan(hint)
    assert {plan.size_of(number) for number in (1, 5000, MAX_PARTS)} == {plan.part_size}
    wanted = LARGEST_OBJECT if hint is None else min(4 * hint, LARGEST_OBJECT)
    assert plan.capacity >= max(wanted, 78 * GIB)


@given(st.none() | st.integers(0, LARGEST_ARCHIVE))
def test_parts_for_glacier_are_powers_of_two_and_hold_what_it_takes(hint: int | None) -> None:
    plan = doubled_plan(hint)
    count = plan.part_size // MIB
    assert count & (count - 1) == 0
    assert plan.part_size <= MAX_DOUBLED_PART_SIZE
    assert plan.size_of(MAX_PARTS) == plan.part_size
    wanted = LARGEST_OBJECT if hint is None else max(hint, min(4 * hint, LARGEST_OBJECT))
    assert plan.capacity >= wanted


@pytest.mark.parametrize("plan_for", [growing_plan, equal_plan, doubled_plan])
@pytest.mark.parametrize("hint", [None, 0, 3 * MIB])
def test_the_smallest_part_of_the_settings_replaces_that_of_the_plan(
    plan_for: PlanFor, hint: int | None
) -> None:
    assert plan_for(hint, 4 * MIB).part_size == 4 * MIB
