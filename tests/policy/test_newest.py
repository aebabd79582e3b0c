"""Which backup is the newest, for any dates and any clock."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from bakthat.policy.newest import CLOCK_TOLERANCE, is_in_the_future, newest_key
from bakthat.policy.rotation import NEWEST, RotationPolicy, decide, decide_by_age

NOW = 1796515200
dates = st.lists(
    st.one_of(
        st.integers(NOW - 10, NOW + 10),
        st.integers(NOW + CLOCK_TOLERANCE - 2, NOW + CLOCK_TOLERANCE + 2),
        st.integers(0, 2 * NOW),
    ),
    min_size=1,
)


@given(dates, st.integers(1, 5))
def test_rotation_expiry_and_the_order_of_backups_agree_on_the_newest(
    drawn: list[int], last: int
) -> None:
    newest = max(drawn, key=lambda date: newest_key(date, NOW))
    rotated = decide(drawn, RotationPolicy(last=last), NOW)
    expired = decide_by_age(drawn, 1, NOW)
    for decisions in (rotated, expired):
        by_reason = {d for d, why in zip(drawn, decisions, strict=True) if NEWEST in why.reasons}
        assert by_reason == ({newest} if not is_in_the_future(newest, NOW) else set())
        assert all(why.keep for d, why in zip(drawn, decisions, strict=True) if d == newest)


def test_a_date_in_the_future_is_older_than_every_other_one() -> None:
    ahead = NOW + CLOCK_TOLERANCE + 1
    oldest_first = sorted([NOW, ahead, 0, NOW + 5, ahead + 1], key=lambda d: newest_key(d, NOW))
    assert oldest_first == [ahead, ahead + 1, 0, NOW, NOW + 5]


def test_where_the_clock_is_slow_the_latest_date_is_the_newest() -> None:
    assert max([NOW, NOW + 5, NOW - 5], key=lambda date: newest_key(date, 0)) == NOW + 5
