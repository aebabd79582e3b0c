"""Delete objects from a bucket with all their versions, and nothing that is locked.

A deletion without a version only hides an object behind a delete marker, where it still costs
money; it succeeds for a locked object too, which then seems to be gone. So in a bucket that keeps
versions each of them is deleted by its id, the one that a key shows last: a deletion that is
interrupted shows no older content.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from http import HTTPStatus
from typing import Any, NamedTuple

from bakthat.backends.aws.answers import details_of
from bakthat.backends.aws.client import answer_of
from bakthat.backends.aws.permissions import action_of
from bakthat.backends.base import check_key
from bakthat.backends.lock import Lock, locked_error
from bakthat.backends.protection import Version
from bakthat.backends.s3.client import S3Client
from bakthat.backends.s3.locks import BucketLocks
from bakthat.backends.s3.versions.listing import has_versions, list_versions, list_versions_of
from bakthat.errors import (
    BakthatError,
    ContainerNotFoundError,
    CredentialsError,
    LockedObjectError,
    NotFoundError,
    StorageError,
    UnreachableError,
    UsageError,
)
from bakthat.system.threads import ThreadPool

log = logging.getLogger(__name__)

BATCH_SIZE = 1000
"""By https://docs.aws.amazon.com/AmazonS3/latest/API/API_DeleteObjects.html."""
_WORKERS = 8
"""How many locks are looked at at once. More would only wait for a connection."""
_WHOLE = (ContainerNotFoundError, UnreachableError)
"""Errors after which it is not known what was deleted."""


class _Target(NamedTuple):
    """What one deletion names: a version, or with None what the key shows."""

    key: str
    version_id: str | None = None


class BucketDeletion:
    """The deletion of the objects of one bucket, whose objects have *locks*.

    With *keeps_versions*, it only hides them, where the bucket keeps versions.
    """

    def __init__(
        self, client: S3Client, locks: BucketLocks, *, keeps_versions: bool, page_size: int
    ) -> None:
        self._client = client
        self._locks = locks
        self._keeps_versions = keeps_versions
        self._page_size = page_size
        self._has_versions: bool | None = None
        self._unlocked: set[_Target] = set()
        """Versions that were seen without a lock, for the deletion that follows."""
        self._has_warned = False

    def has_versions(self) -> bool:
        """Return whether the bucket keeps versions; see :class:`~.protection.VersionedStorage`."""
        if self._has_versions is None:
            self._has_versions = has_versions(self._client)
        return self._has_versions

    def forget(self) -> None:
        """Look again the next time: the bucket was just made."""
        self._has_versions = None

    def locked(self, keys: Collection[str]) -> dict[str, LockedObjectError]:
        """Return an error for each locked key; see :class:`~.protection.LockingStorage`."""
        try:
            stored = self._that_may_have_versions(keys)
            if not stored or self._has_versions is False or self._has_locks() is False:
                return {}
            found = self._versions_of(stored)
        except CredentialsError as exc:
            log.debug("the locks in %s cannot be looked at: %s", self._client.shown, exc)
            return {}
        return self._locked(found)

    def delete(self, keys: Sequence[str], *, one_by_one: bool = False) -> dict[str, BakthatError]:
        """Remove *keys*; see :meth:`.base.Backend.delete_many`.

        With *one_by_one*, the request for an object without versions names no other. Raises also
        CredentialsError, when the storage refuses a whole request.
        """
        failures: dict[str, BakthatError] = {}
        sound = []
        for key in keys:
            try:
                check_key(key)
                sound.append(key)
            except UsageError as exc:
                failures[key] = exc
        stored = self._that_may_have_versions(sound)
        if self._has_versions is False:
            targets = [_Target(key) for key in stored]
            return failures | self._remove(targets, in_batches=not one_by_one)
        return failures | self._delete_versions(stored)

    # What is known of the bucket

    def _that_may_have_versions(self, keys: Collection[str]) -> list[str]:
        """Find out whether the bucket keeps versions; return those of *keys* that may be stored.

        Where the bucket may not be asked, the first object that is stored shows it. Raises
        CredentialsError when that may not be looked at either.
        """
        left = list(keys)
        try:
            if left:
                self.has_versions()
        except CredentialsError as refusal:
            if not self._client.missing_action(refusal):
                raise  # the keys are wrong
            has_locks = self._has_locks()
            if has_locks:
                self._has_versions = True
            while left and self._has_versions is None:
                try:
                    seen = self._seen_versions(left[0])
                except CredentialsError:
                    if has_locks is None:
                        raise refusal from refusal.__cause__
                    break  # a delete marker is all that may come of it
                if seen is None:
                    del left[0]
                else:
                    self._has_versions = seen
        return left

    def _seen_versions(self, key: str) -> bool | None:
        """Return whether *key* shows that the bucket keeps versions; None when it has none."""
        try:
            return "VersionId" in self._client.call("head_object", key=key)
        except NotFoundError as exc:
            answer = getattr(exc.__cause__, "response", {})
            headers = answer.get("ResponseMetadata", {}).get("HTTPHeaders", {})
            return True if "x-amz-delete-marker" in headers else None

    def _has_locks(self) -> bool | None:
        """Return whether the bucket has object lock; None when that may not be looked at."""
        try:
            return self._locks.are_enabled()
        except CredentialsError as exc:
            if not self._client.missing_action(exc):
                raise
            return None

    # Versions

    def _versions_of(self, keys: Collection[str]) -> dict[str, list[Version]]:
        """Return the versions and markers of those of *keys* that have any, the newest first.

        They are listed below the common prefix of *keys*, as long as that takes no more requests
        than to list those of each key. Raises CredentialsError, StorageError.
        """
        wanted = frozenset(keys)
        found: dict[str, list[Version]] = {}
        prefix = os.path.commonprefix(list(wanted))  # noqa: RUF071  # keys are not paths
        others = 0
        for each in list_versions(self._client, prefix, page_size=self._page_size):
            if each.key in wanted:
                found.setdefault(each.key, []).append(each)
                continue
            others += 1
            if others > len(wanted) * self._page_size:
                break
        else:
            return found
        for key in wanted - found.keys():
            versions = list(list_versions_of(self._client, key, page_size=self._page_size))
            if versions:
                found[key] = versions
        return found

    def _locked(self, found: Mapping[str, Sequence[Version]]) -> dict[str, LockedObjectError]:
        """Return an error for each key with a version that is locked, as far as that is seen."""
        targets = [
            _Target(each.key, each.version_id)
            for versions in found.values()
            for each in versions
            if not each.is_marker
        ]
        locked: dict[str, LockedObjectError] = {}
        for target, error in self._looks([each for each in targets if each not in self._unlocked]):
            if error is not None:
                locked.setdefault(target.key, error)
        return locked

    def _looks(
        self, targets: Sequence[_Target]
    ) -> Iterator[tuple[_Target, LockedObjectError | None]]:
        """Look at the locks of *targets*; yield the error of those that cannot be deleted now."""
        if len(targets) < 2:
            yield from ((each, self._look(each)) for each in targets)
            return
        pool = ThreadPool(_WORKERS, thread_name_prefix="bakthat-locks")
        try:
            yield from zip(targets, pool.map(self._look, targets), strict=True)
        finally:
            pool.shutdown(wait=True, cancel_futures=True)

    def _look(self, target: _Target) -> LockedObjectError | None:
        """Return the error of deleting a version that is locked; None when it is not, or not seen.

        The clock of the storage decides.
        """
        try:
            lock, now = self._locks.look_at(target.key, target.version_id)
        except NotFoundError:
            lock, now = Lock(), 0.0
        if lock is None:
            return None
        if lock.holds_at(now):
            return locked_error(repr(target.key), lock)
        # The storage refuses to delete what is on hold, but not to hide it.
        if self._keeps_versions and self._locks.may_be_held(*target):
            return None
        self._unlocked.add(target)
        return None

    def _delete_versions(self, keys: Sequence[str]) -> dict[str, BakthatError]:
        if not keys:
            return {}
        may_be_locked = self._has_locks() is not False
        try:
            found = self._versions_of(keys)
        except StorageError as exc:
            if not self._cannot_list(exc):
                raise
            if may_be_locked:
                return {key: self._perhaps_locked_error(key, exc) for key in keys}
            return self._hide(keys, exc, exc.hint)
        if self._keeps_versions:
            return self._hide_unlocked(found, may_be_locked=may_be_locked)
        failures: dict[str, BakthatError] = {}
        if may_be_locked:
            failures |= self._locked(found)
        deletable = {key: of_key for key, of_key in found.items() if key not in failures}
        versions = [each for of_key in deletable.values() for each in reversed(of_key)]
        failed = self._remove(_targets(each for each in versions if not each.is_latest))
        latest = [each for each in versions if each.is_latest and each.key not in failed]
        failed |= self._remove(_targets(latest))
        refused = {
            key: exc
            for key, exc in failed.items()
            if isinstance(exc, CredentialsError | LockedObjectError)
        }
        if may_be_locked:
            return failures | failed | self._explained(refused, deletable)
        hidden = [key for key in refused if not deletable[key][0].is_marker]
        failed = {key: exc for key, exc in failed.items() if key not in refused}
        if refused:
            why = next(iter(refused.values()))
            failed |= self._hide(hidden, why, _hint_of_version(why))
        return failures | failed

    def _cannot_list(self, exc: StorageError) -> bool:
        """Return whether versions may not be listed, or cannot be on this storage."""
        is_unknown = answer_of(exc)[0] in (
            HTTPStatus.METHOD_NOT_ALLOWED,
            HTTPStatus.NOT_IMPLEMENTED,
        )
        return is_unknown or bool(self._client.missing_action(exc))

    def _explained(
        self, refused: Mapping[str, BakthatError], found: Mapping[str, Sequence[Version]]
    ) -> dict[str, BakthatError]:
        """Return why versions were refused: a lock that was set meanwhile, or a permission."""
        versions = {key: found[key] for key in refused}
        self._unlocked.clear()
        locked = self._locked(versions)
        errors: dict[str, BakthatError] = {}
        for key, exc in refused.items():
            if key in locked:
                errors[key] = locked[key]
            elif isinstance(exc, LockedObjectError) or self._is_unlocked(versions[key]):
                exc.hint = _hint_of_version(exc)
                errors[key] = exc
            else:
                errors[key] = self._perhaps_locked_error(key, exc)
        return errors

    def _is_unlocked(self, versions: Sequence[Version]) -> bool:
        """Return whether all *versions* were seen without a lock."""
        return self._unlocked.issuperset(_targets(each for each in versions if not each.is_marker))

    def _perhaps_locked_error(self, key: str, exc: BakthatError) -> CredentialsError:
        error = CredentialsError(
            f"{key!r} may be locked, so it was not deleted: {exc}", hint=_hint_of_version(exc)
        )
        error.__cause__ = exc.__cause__
        return error

    # Delete markers

    def _hide_unlocked(
        self, found: Mapping[str, Sequence[Version]], *, may_be_locked: bool
    ) -> dict[str, BakthatError]:
        """Put a delete marker on each key that shows an object and has no locked version."""
        failures: dict[str, BakthatError] = {}
        if may_be_locked:
            self._unlocked.clear()  # a marker is not refused where the lock came after the look
            failures |= self._locked(found)
            for key, versions in found.items():
                if key not in failures and not self._is_unlocked(versions):
                    failures[key] = CredentialsError(
                        f"{key!r} may be locked, so it was not deleted: its lock cannot be seen",
                        hint="allow s3:GetObjectVersion, s3:GetObjectRetention and "
                        "s3:GetObjectLegalHold, in the policy of the access keys",
                    )
        shown = [key for key, of_key in found.items() if not of_key[0].is_marker]
        return failures | self._remove([_Target(key) for key in shown if key not in failures])

    def _hide(self, keys: Sequence[str], exc: BakthatError, hint: str) -> dict[str, BakthatError]:
        """Put a delete marker on *keys*, whose versions cannot be removed, and say so once."""
        if not self._keeps_versions and not self._has_warned:
            self._has_warned = True
            log.warning(
                "%s keeps versions, which these keys may not remove: what is deleted is only "
                "hidden, and still costs money (%s; %s)",
                self._client.shown,
                exc,
                hint or "let a lifecycle rule of the bucket remove them",
            )
        return self._remove([_Target(key) for key in keys])

    # Requests

    def _remove(
        self, targets: Sequence[_Target], *, in_batches: bool = False
    ) -> dict[str, BakthatError]:
        """Delete *targets*, a thousand in one request; return the error of each key that is left.

        Those that the storage does not report as deleted are deleted one by one: some succeed this
        time, and each failure gets its own error.
        """
        # XML cannot hold most control characters, and parsers may confuse the others.
        fitting = [each for each in targets if each.key.isprintable()]
        deleted: set[_Target] = set()
        denied: set[str] = set()
        if in_batches or len(targets) > 1:
            for start in range(0, len(fitting), BATCH_SIZE):
                done, refused = self._remove_batch(fitting[start : start + BATCH_SIZE])
                deleted |= done
                denied |= refused
        failures: dict[str, BakthatError] = {}
        refusal: CredentialsError | None = None
        for each in targets:
            if each in deleted or each.key in failures:
                continue
            if refusal is not None and each.key in denied:
                failures[each.key] = refusal
                continue
            try:
                self._remove_one(each)
            except _WHOLE:
                raise
            except StorageError as exc:
                failures[each.key] = exc
                if isinstance(exc, CredentialsError):
                    refusal = exc
        return failures

    def _remove_one(self, target: _Target) -> None:
        try:
            self._client.call("delete_object", key=target.key, **_version_of(target))
        except NotFoundError:
            return

    def _remove_batch(self, targets: Sequence[_Target]) -> tuple[set[_Target], set[str]]:
        """Return those of *targets* that the storage reports as deleted, and the refused keys.

        None are deleted if it has no batches.
        """
        objects = [{"Key": each.key, **_version_of(each)} for each in targets]
        try:
            answer = self._client.call("delete_objects", Delete={"Objects": objects})
        except ContainerNotFoundError:
            raise
        except CredentialsError as exc:
            if targets[0].version_id is None or not self._client.missing_action(exc):
                raise
            return set(), {each.key for each in targets}
        except StorageError as exc:
            status, code = answer_of(exc)
            if not (400 <= status < 500 or status == HTTPStatus.NOT_IMPLEMENTED):
                raise
            log.debug("%s deletes no batches: %s %s", self._client.shown, status, code)
            return set(), set()
        denied = {
            each["Key"] for each in answer.get("Errors", ()) if each.get("Code") == "AccessDenied"
        }
        if targets[0].version_id is None:
            return {_Target(each["Key"]) for each in answer.get("Deleted", ())}, denied
        # Of a delete marker, some storages name only the second.
        ids = ("VersionId", "DeleteMarkerVersionId")
        done = {
            _Target(one["Key"], one.get(name)) for one in answer.get("Deleted", ()) for name in ids
        }
        return done, denied


def _targets(versions: Iterable[Version]) -> list[_Target]:
    return [_Target(each.key, each.version_id) for each in versions]


def _version_of(target: _Target) -> dict[str, Any]:
    """Return botocore's parameter that names the version, where one is meant."""
    return {} if target.version_id is None else {"VersionId": target.version_id}


def _hint_of_version(exc: BakthatError) -> str:
    """Return the hint of an error, which names the action on versions where one was refused."""
    action = action_of("s3", "DeleteObject", details_of(exc), of_version=True)
    return exc.hint if action in exc.hint else exc.hint.replace("s3:DeleteObject ", f"{action} ")
