"""Try everything that a backup needs, and say what is wrong or could be better."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any

from bakthat.conf import DEFAULT_PROFILE
from bakthat.errors import BakthatError
from bakthat.operations.doctor.catalog import catalog_findings
from bakthat.operations.doctor.configuration import open_session
from bakthat.operations.doctor.disk import cache_findings, disk_findings
from bakthat.operations.doctor.keys import key_findings, secret_findings
from bakthat.operations.doctor.storage import destination_findings, other_findings
from bakthat.policy.finding import Finding, failed, problem
from bakthat.system.paths import PathLike

log = logging.getLogger("bakthat")


def doctor(
    destination: str | None = None,
    profile: str = DEFAULT_PROFILE,
    config: PathLike | None = None,
    *,
    conf: Mapping[str, Any] | None = None,
) -> list[Finding]:
    """Try everything that a backup needs; return the findings, good ones too.

    It tries the configuration, the destination (the profile's, or *destination*), the keys, the
    catalog, the disks and the cache. A finding is a problem only where a backup to that destination
    or a restore from it fails, or where the bucket will delete what rotation keeps. What could be
    better, what could not be looked at, and what is wrong with the other destinations of the
    profile is advice. What is tried on a storage leaves nothing behind, and a missing bucket is not
    made. A request waits as long as the profile's ``timeout`` says, and is sent at most twice.

    Whatever is wrong is a finding, and is not raised. Raises UsageError for an unknown destination.
    """
    session, findings = open_session(profile, config, conf, destination or None)
    if session is None:
        return findings
    tries: dict[str, Callable[[], list[Finding]]] = {
        "storage": lambda: destination_findings(session),
        "encryption": lambda: key_findings(session),
        "secrets": lambda: secret_findings(session),
        "catalog": lambda: catalog_findings(session),
        "disk": lambda: disk_findings(session),
        "index cache": cache_findings,
        "other destinations": lambda: other_findings(session),
    }
    for topic, find in tries.items():
        findings += _guarded(topic, find)
    return findings


def _guarded(topic: str, find: Callable[[], list[Finding]]) -> list[Finding]:
    """Return the findings of *find*, or the one that it failed."""
    try:
        return find()
    except BakthatError as exc:
        return [failed(topic, exc)]
    except Exception as exc:  # the other findings are wanted all the more then
        log.debug("doctor failed to look at %s", topic, exc_info=exc)
        detail = f"unexpected {type(exc).__name__}: {exc}"
        return [problem(topic, detail, "this is a defect in bakthat; --debug shows where")]
