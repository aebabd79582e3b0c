"""What the lifecycle rules of a bucket do to backups: delete them, move them, abort their uploads.

The rules are those of
https://docs.aws.amazon.com/AmazonS3/latest/userguide/intro-lifecycle-rules.html.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from bakthat.policy.finding import Finding, advice, good, problem
from bakthat.policy.storage_classes import storage_class
from bakthat.system.text import counted, printable

TOPIC = "lifecycle rules"

FEW_DAYS = 7
"""How many days an upload should have before it is aborted: the first one of a slow link takes
days, and nothing is gained by less."""
LARGE_BYTES = 1024 * 1024
"""The limit of size from which a rule does not move the indexes of most backups."""


@dataclass(frozen=True, slots=True)
class LifecycleRule:
    """An enabled rule of a bucket."""

    name: str
    """Its id."""
    prefix: str = ""
    """What the keys begin with that it applies to."""
    more_than: int = 0
    """The bytes that an object must have more than."""
    less_than: int | None = None
    """The bytes that an object must have less than."""
    needs_tags: bool = False
    """Whether it applies to objects with tags of the storage only, which bakthat does not set."""
    expires_after: int | None = None
    """The days after which objects are deleted; 0 for a date."""
    expires_versions_after: int | None = None
    """The days after which what was deleted or replaced is removed."""
    aborts_after: int | None = None
    """The days after which an upload that was not finished is aborted."""
    moves: tuple[tuple[int, str], ...] = ()
    """Days and storage classes."""

    def applies_to(self, prefix: str) -> bool:
        """Return whether it may apply to objects whose keys begin with *prefix*."""
        overlaps = self.prefix.startswith(prefix) or prefix.startswith(self.prefix)
        return overlaps and not self.needs_tags

    @property
    def shown(self) -> str:
        """How messages name it."""
        return f"rule '{printable(self.name)}'"


def lifecycle_findings(
    rules: Iterable[LifecycleRule], prefix: str, *, kept_days: int, is_incremental: bool
) -> list[Finding]:
    """Return the findings about *rules*, for backups whose keys begin with *prefix*.

    *kept_days* is for how long rotation keeps a backup, 0 without one. *is_incremental* says that
    backups need earlier ones.
    """
    applying = [rule for rule in rules if rule.applies_to(prefix)]
    findings = [
        finding
        for rule in applying
        for finding in (
            _about_expiry(rule, kept_days, is_incremental),
            _about_moves(rule),
            _about_aborts(rule),
        )
        if finding is not None
    ]
    if findings:
        return findings
    return [good(TOPIC, "none of the bucket's deletes or moves backups")]


def days_of_versions(rules: Sequence[LifecycleRule], prefix: str) -> int | None:
    """Return the days after which the old versions of all backups are removed; None for never."""
    found = [
        rule.expires_versions_after
        for rule in rules
        if rule.expires_versions_after is not None
        and prefix.startswith(rule.prefix)
        and not (rule.needs_tags or rule.more_than or rule.less_than)
    ]
    return min(found, default=None)


def _about_expiry(rule: LifecycleRule, kept_days: int, is_incremental: bool) -> Finding | None:
    if rule.expires_after is None:
        return None
    after = f"after {counted(rule.expires_after, 'day')}" if rule.expires_after else "at a date"
    detail = f"{rule.shown} deletes {_what(rule)} {after}"
    hint = "remove the rule, and let bakthat rotate_backups delete: it keeps what is needed"
    if is_incremental:
        return problem(TOPIC, f"{detail}, also those that increments need", hint)
    if rule.expires_after < kept_days:
        kept = f"the rotation of the profile keeps some for {counted(kept_days, 'day')}"
        return problem(TOPIC, f"{detail}, but {kept}", hint)
    return advice(TOPIC, f"{detail}, also the last one when no new ones are made", hint)


def _about_moves(rule: LifecycleRule) -> Finding | None:
    cold = [(days, name) for days, name in rule.moves if storage_class(name).is_cold]
    if not cold or rule.more_than >= LARGE_BYTES:
        return None
    days, name = min(cold)
    return advice(
        TOPIC,
        f"{rule.shown} moves indexes to {name} with their backups, after {counted(days, 'day')}: "
        "looking into a backup then takes a thaw",
        f"set ObjectSizeGreaterThan: {LARGE_BYTES} in the rule, or replace it by "
        f"storage_class: {name} in the profile",
    )


def _about_aborts(rule: LifecycleRule) -> Finding | None:
    if rule.aborts_after is None or rule.aborts_after >= FEW_DAYS:
        return None
    return advice(
        TOPIC,
        f"{rule.shown} aborts uploads after {counted(rule.aborts_after, 'day')}: a backup that "
        "takes longer fails",
        f"let it wait {FEW_DAYS} days; bakthat cleanup removes what was left earlier",
    )


def _what(rule: LifecycleRule) -> str:
    if rule.less_than is not None:
        return f"indexes and backups of less than {rule.less_than} bytes"
    return f"backups of more than {rule.more_than} bytes" if rule.more_than else "backups"
