"""What a bucket with object lock holds, and which requests should never have been sent to it.

It knows only what :mod:`tests.support.clocked_moto` wrote down, and judges as Amazon S3 would. moto
refuses to delete a locked version by its id, and lets through what S3 refuses: a retention that
ends earlier than before or is of a weaker mode. S3 itself lets a delete marker hide what is locked.
bakthat must send none of these, not even to be refused.
"""

from __future__ import annotations

import json
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote

_MODES = ("", "GOVERNANCE", "COMPLIANCE")
"""The weakest first."""


@dataclass
class Stored:
    """A version of a key, or a delete marker."""

    version_id: str
    by: str
    """The access key that made it."""
    is_marker: bool = False
    until: float = 0
    """Until when it is locked, in epoch seconds UTC."""
    mode: str = ""
    is_held: bool = False
    is_copy: bool = False
    """Whether it was copied from another version."""

    def is_locked(self, now: float) -> bool:
        """Return whether S3 would refuse to delete it at *now*."""
        return self.is_held or self.until > now


@dataclass
class Ledger:
    """The versions of each key of one bucket, and what was wrong with the requests of the host."""

    log: Path
    bucket: str
    host: str
    """The access key of whom the requests are judged."""
    versions: dict[str, list[Stored]] = field(default_factory=dict)
    """By key; the newest last."""
    wrong: list[str] = field(default_factory=list)
    """The requests of the host that must not be."""
    _read: int = 0

    def catch_up(self) -> None:
        """Read what was written down since the last time."""
        with self.log.open() as log:
            log.seek(self._read)
            for line in log:
                self._enter(json.loads(line))
            self._read = log.tell()

    def latest(self, key: str) -> Stored | None:
        """Return what the storage answers for *key*; None for nothing or a delete marker."""
        last = self.versions.get(key, [])[-1:]
        return last[0] if last and not last[0].is_marker else None

    def of_host(self, key: str) -> Stored | None:
        """Return the version of *key* that the host wrote, even where another one is before it."""
        found = (
            each
            for each in self.versions.get(key, [])
            if each.by == self.host and not each.is_marker
        )
        return next(found, None)

    def has(self, key: str) -> bool:
        """Return whether the host has written *key* and not deleted it, whatever others did."""
        of_host = [each for each in self.versions.get(key, []) if each.by == self.host]
        return bool(of_host) and not of_host[-1].is_marker

    def is_held(self, key: str) -> bool:
        """Return whether any version of *key* is on hold."""
        return any(each.is_held for each in self.versions.get(key, []))

    def keys(self) -> set[str]:
        """Return the keys that a listing shows."""
        return {key for key in self.versions if self.latest(key) is not None}

    def _enter(self, record: dict[str, Any]) -> None:
        bucket, _, key = unquote(record["path"]).removeprefix("/").partition("/")
        if bucket != self.bucket:
            return
        query = {name: each[0] for name, each in parse_qs(record["query"], True).items()}
        by = record["authorization"].partition("Credential=")[2].partition("/")[0]
        is_done = record["status"] < 300
        if record["bypass"]:
            self._blame(record, by, "it bypasses governance")
        match record["method"], *sorted(query.keys() - {"versionId", "x-id"}):
            case ["PUT"] if not key:
                pass  # the bucket itself
            case ["PUT"]:
                self._put(record, key, by) if is_done else None
            case ["DELETE"]:
                self._delete(record, key, query.get("versionId", ""), by)
            case ["POST", "delete"]:
                self._delete_many(record, by)
            case ["PUT", "retention"]:
                self._retain(record, key, query.get("versionId", ""), by)
            case ["PUT", "legal-hold"]:
                version = self._version(key, query.get("versionId", ""))
                if is_done and version is not None:
                    version.is_held = ET.fromstring(record["body"]).findtext("{*}Status") == "ON"
            case _:
                self._blame(record, by, "the ledger does not know it")

    def _blame(self, record: dict[str, Any], by: str, why: str) -> None:
        if by == self.host:
            self.wrong.append(
                f"{record['method']} {record['path']}?{record['query']} {record['body']}: {why}"
            )

    def _version(self, key: str, version_id: str) -> Stored | None:
        versions = self.versions.get(key, [])
        if not version_id:
            return self.latest(key)
        return next((each for each in versions if each.version_id == version_id), None)

    def _put(self, record: dict[str, Any], key: str, by: str) -> None:
        if self.versions.get(key) and not record["source"]:
            self._blame(record, by, "it overwrites")
        self.versions.setdefault(key, []).append(
            Stored(
                record["version"],
                by,
                until=_seconds(record["until"]),
                mode=record["mode"],
                is_held=record["hold"] == "ON",
                is_copy=bool(record["source"]),
            )
        )

    def _retain(self, record: dict[str, Any], key: str, version_id: str, by: str) -> None:
        version = self._version(key, version_id)
        body = ET.fromstring(record["body"])
        mode = body.findtext("{*}Mode") or ""
        until = _seconds(body.findtext("{*}RetainUntilDate") or "")
        if version is None:
            self._blame(record, by, "there is no such version")
            return
        if until < version.until:
            self._blame(record, by, f"it was locked until {version.until}")
        if _MODES.index(mode) < _MODES.index(version.mode) and version.is_locked(record["at"]):
            self._blame(record, by, f"it was locked in {version.mode}")
        if record["status"] < 300:
            version.until, version.mode = until, mode

    def _delete(self, record: dict[str, Any], key: str, version_id: str, by: str) -> None:
        self._judge_deletion(record, key, version_id, by)
        if record["status"] < 300:
            self._remove(key, version_id, record["version"], by)

    def _delete_many(self, record: dict[str, Any], by: str) -> None:
        for each in ET.fromstring(record["body"]).findall("{*}Object"):
            key, version_id = each.findtext("{*}Key") or "", each.findtext("{*}VersionId") or ""
            self._judge_deletion(record, key, version_id, by)
        for each in ET.fromstring(record["answer"]).findall("{*}Deleted"):
            key, version_id = each.findtext("{*}Key") or "", each.findtext("{*}VersionId") or ""
            self._remove(key, version_id, each.findtext("{*}DeleteMarkerVersionId") or "", by)

    def _judge_deletion(self, record: dict[str, Any], key: str, version_id: str, by: str) -> None:
        for each in self.versions.get(key, []):
            if version_id in ("", each.version_id) and each.is_locked(record["at"]):
                what = "is on hold" if each.is_held else f"is locked until {each.until}"
                self._blame(record, by, f"{key} {what} at {record['at']}")

    def _remove(self, key: str, version_id: str, marker_id: str, by: str) -> None:
        versions = self.versions.get(key, [])
        if version_id:
            self.versions[key] = [each for each in versions if each.version_id != version_id]
        else:
            self.versions.setdefault(key, []).append(Stored(marker_id, by, is_marker=True))
        if not self.versions.get(key):
            self.versions.pop(key, None)

    def listed(self) -> Iterator[tuple[str, str, bool]]:
        """Yield key, version and whether it is a delete marker, as a listing of versions does."""
        for key, versions in self.versions.items():
            for each in versions:
                yield key, each.version_id, each.is_marker


def _seconds(shown: str) -> float:
    return datetime.fromisoformat(shown).timestamp() if shown else 0
