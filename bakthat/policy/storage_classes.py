"""Storage classes: the minimum days that they are charged for, and the time that a thaw takes.

The figures are AWS's, as of 2026: minimum days from
https://docs.aws.amazon.com/AmazonS3/latest/userguide/storage-class-intro.html, thaw times from
https://docs.aws.amazon.com/AmazonS3/latest/userguide/restoring-objects-retrieval-options.html,
those of vaults from
https://docs.aws.amazon.com/amazonglacier/latest/dev/downloading-an-archive-two-steps.html and
https://aws.amazon.com/s3/glacier/pricing/. Prices are those of https://aws.amazon.com/s3/pricing/
in us-east-1; other regions have others.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

from bakthat.errors import UsageError

EXPEDITED, STANDARD, BULK = TIERS = ("expedited", "standard", "bulk")
"""The speeds of a thaw; a faster one costs more."""

DEFAULT_DAYS = 3
"""Days for which a thawed copy stays on S3 by default."""

VAULT = "VAULT"
"""The class of archives in Glacier's vaults, which have no storage classes."""

_MINUTE, _HOUR, _DAY = 60, 3600, 86400


class StorageClass(NamedTuple):
    """One storage class, or an archive tier of intelligent tiering."""

    name: str
    minimum_days: int = 0
    """The least number of days that are charged, even if the object is deleted earlier."""
    thaw_seconds: Mapping[str, tuple[int, int]] = MappingProxyType({})
    """The least and the most seconds that a thaw usually takes, by tier; the least is 0 where AWS
    gives no figure. Empty for a class that needs no thaw."""
    thaw_prices: Mapping[str, tuple[float, float]] = MappingProxyType({})
    """Dollars for each GiB and for each request of a thaw, by tier."""

    @property
    def is_cold(self) -> bool:
        """Whether an object must be thawed before it can be read."""
        return bool(self.thaw_seconds)


_FLEXIBLE = {
    EXPEDITED: (1 * _MINUTE, 5 * _MINUTE),
    STANDARD: (3 * _HOUR, 5 * _HOUR),
    BULK: (5 * _HOUR, 12 * _HOUR),
}
_DEEP = {STANDARD: (0, 12 * _HOUR), BULK: (0, 48 * _HOUR)}

_FLEXIBLE_PRICES = {EXPEDITED: (0.03, 0.01), STANDARD: (0.01, 0.00005), BULK: (0.0, 0.0)}
_DEEP_PRICES = {STANDARD: (0.02, 0.0001), BULK: (0.0025, 0.000025)}
_VAULT_PRICES = {EXPEDITED: (0.03, 0.01), STANDARD: (0.01, 0.00005)}
_TIERING_PRICES = {EXPEDITED: (0.03, 0.01), STANDARD: (0.0, 0.0), BULK: (0.0, 0.0)}

_CLASSES = {
    each.name: each
    for each in (
        StorageClass("STANDARD_IA", 30),
        StorageClass("ONEZONE_IA", 30),
        StorageClass("GLACIER_IR", 90),
        StorageClass("GLACIER", 90, _FLEXIBLE, _FLEXIBLE_PRICES),
        StorageClass("DEEP_ARCHIVE", 180, _DEEP, _DEEP_PRICES),
        StorageClass("ARCHIVE_ACCESS", 0, _FLEXIBLE, _TIERING_PRICES),
        StorageClass("DEEP_ARCHIVE_ACCESS", 0, _DEEP, _TIERING_PRICES),
        StorageClass(VAULT, 90, _FLEXIBLE, _VAULT_PRICES),
    )
}

NAMES = frozenset(_CLASSES) | {"STANDARD", "REDUCED_REDUNDANCY", "INTELLIGENT_TIERING"}
"""The classes of AWS; other storages may have more."""

LONGEST_MINIMUM_DAYS = max(each.minimum_days for each in _CLASSES.values())


def storage_class(name: str) -> StorageClass:
    """Return a storage class; an unknown one has no minimum and is not cold."""
    return _CLASSES.get(name) or StorageClass(name)


def check_tier(name: str, tier: str) -> None:
    """Raise UsageError unless an object of class *name* can be thawed by *tier*."""
    offered = storage_class(name).thaw_seconds
    if tier not in offered:
        raise UsageError(
            f"there is no tier '{tier}' for {name}", hint=f"use one of: {', '.join(offered)}"
        )


def thaw_price(name: str, tier: str, size: int) -> float | None:
    """Return what the thaw of *size* bytes of class *name* costs, in dollars; None if not known.

    Without the copy that S3 keeps for some days, and without the download.
    """
    price = storage_class(name).thaw_prices.get(tier)
    return None if price is None else price[0] * size / 2**30 + price[1]


def days_left(name: str, stored_at: float, now: float) -> int:
    """Return how many more days an object of class *name* is charged for if it is deleted now.

    Both times are epoch seconds UTC. A part of a day counts as a day.
    """
    seconds = stored_at + storage_class(name).minimum_days * _DAY - now
    return max(0, -int(-seconds // _DAY))
