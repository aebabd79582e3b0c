"""The jobs of a vault: select the one to read an archive from, and return its thaw status."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from bakthat.backends.base import ThawState, ThawStatus
from bakthat.backends.glacier.client import epoch_seconds
from bakthat.policy.storage_classes import VAULT, storage_class

RETRIEVAL, INVENTORY = "ArchiveRetrieval", "InventoryRetrieval"

READABLE_SECONDS = 24 * 3600
"""The least time for which the output of a job can be read, by
https://docs.aws.amazon.com/amazonglacier/latest/dev/api-initiate-job-post.html."""


def is_whole(job: Mapping[str, Any]) -> bool:
    """Return whether the output of a job is a whole archive, or a whole inventory as JSON."""
    if job.get("Action") == INVENTORY:
        # Other programs request CSV, or a part of the list.
        parameters = job.get("InventoryRetrievalParameters") or {}
        limits = ("StartDate", "EndDate", "Limit", "Marker")
        return parameters.get("Format") in (None, "JSON") and not any(map(parameters.get, limits))
    return job.get("RetrievalByteRange") in (None, f"0-{reported_size(job) - 1}")


def reported_size(job: Mapping[str, Any]) -> int:
    """Return the bytes of the archive that a job reports; 0 when it reports none.

    An archive has at least one byte, but some services report 0 for all of them.
    """
    return max(0, int(job.get("ArchiveSizeInBytes") or 0))


def has_succeeded(job: Mapping[str, Any]) -> bool:
    """Return whether the output of a job can be read."""
    return job.get("StatusCode") == "Succeeded"


def best_of(jobs: Sequence[Mapping[str, Any]]) -> Mapping[str, Any] | None:
    """Return the successful job that ended last, or else the running job that will end first."""
    ended = [job for job in jobs if has_succeeded(job)]
    if ended:
        return max(ended, key=lambda job: epoch_seconds(job.get("CompletionDate")) or 0)
    running = [job for job in jobs if job.get("StatusCode") == "InProgress"]
    return min(running, key=_expected_end, default=None)


def _expected_end(job: Mapping[str, Any]) -> float:
    _, seconds = storage_class(VAULT).thaw_seconds.get(str(job.get("Tier") or "").lower(), (0, 0))
    return (epoch_seconds(job.get("CreationDate")) or 0) + seconds


def thaw_status_of(key: str, job: Mapping[str, Any]) -> ThawStatus:
    """Return the thaw status of *key* from its job."""
    completed = epoch_seconds(job.get("CompletionDate"))
    is_ready = has_succeeded(job)
    return ThawStatus(
        key,
        ThawState.READY if is_ready else ThawState.ASKED,
        VAULT,
        str(job.get("Tier") or "").lower(),
        epoch_seconds(job.get("CreationDate")),
        completed + READABLE_SECONDS if is_ready and completed is not None else None,
        str(job["JobId"]),
    )
