"""Try the destinations of a profile: the one that backups go to by default, and the others."""

from __future__ import annotations

import re

from bakthat.backends.base import Prober
from bakthat.errors import BakthatError, ConfigError
from bakthat.operations.doctor.proof import missing_container, probe_key, prober_of
from bakthat.policy.defaults import DESTINATIONS
from bakthat.policy.finding import CONTAINER, Finding, Verdict, advice, failed, good, problem
from bakthat.policy.rotation import RotationPolicy
from bakthat.session.session import Session
from bakthat.system.text import printable

_NAMES = {
    "s3": (
        re.compile(r"(?!.*\.\.)[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]"),
        "3 to 63 lower-case letters, digits, hyphens and dots, with a letter or a digit at both "
        "ends",
    ),
    "glacier": (
        re.compile(r"[A-Za-z0-9_.-]{1,255}"),
        "1 to 255 letters of ASCII, digits, underscores, hyphens and dots",
    ),
}
"""What the names of new buckets and vaults must be, and the same in words."""


def destination_findings(session: Session) -> list[Finding]:
    """Prove the session's destination, and look at how it is set up."""
    try:
        prober = prober_of(session, session.destination)
    except ConfigError as exc:
        return [failed("configuration", exc)]
    if session.destination == "local":
        missing = missing_container(session, session.destination)  # without a request
        if missing is not None:
            return [missing]
    findings = prober.prove(probe_key(session))
    if not any(each.verdict is Verdict.GOOD and each.topic != "clock" for each in findings):
        return [_expected(session, each) for each in findings]
    try:
        kept_days = _kept_days(session)
    except BakthatError as exc:
        findings.append(failed("rotation", exc))
        kept_days = 0
    return findings + prober.examine(session.prefix, kept_days=kept_days)


def other_findings(session: Session) -> list[Finding]:
    """Prove the other destinations that the profile has; their problems are advice."""
    if session.named_destination is not None:
        return []
    findings = []
    for destination in DESTINATIONS:
        if destination != session.destination and _has(session, destination):
            try:
                prober = prober_of(session, destination)
            except ConfigError as exc:
                findings.append(failed("other destinations", exc, Verdict.ADVICE))
            else:
                findings += _about_other(session, destination, prober)
    return findings


def _about_other(session: Session, destination: str, prober: Prober) -> list[Finding]:
    shown = f"{destination} {printable(prober.container)}"
    topic = "other destinations"
    found = [
        advice(topic, f"{shown}: {each.topic}: {each.detail}", each.hint)
        for each in prober.prove(probe_key(session))
        if each.verdict is not Verdict.GOOD
    ]
    return found or [good(topic, f"{shown} can be used too")]


def _has(session: Session, destination: str) -> bool:
    if destination == "local":  # which has a default
        return "local_path" in session.loaded.mapping
    return bool(session.containers(destination))


def _kept_days(session: Session) -> int:
    """Return for how many days rotation keeps a backup; 0 without one. Raises ConfigError."""
    rotation = session.profile.rotation
    return RotationPolicy.from_mapping(rotation).longest_days if rotation else 0


def _expected(session: Session, finding: Finding) -> Finding:
    """Return *finding*, changed where it is about a container that the first backup makes."""
    if finding.topic != CONTAINER or finding.verdict is not Verdict.PROBLEM:
        return finding
    if session.destination not in _NAMES:  # a directory was tried, and cannot be made
        return finding
    missing = missing_container(session, session.destination)
    if missing is not None:
        return missing
    pattern, rule = _NAMES[session.destination]
    if not pattern.fullmatch(session.backend(session.destination).container):
        detail = f"{finding.detail}, and cannot be made: its name is refused"
        return problem(CONTAINER, detail, f"choose a name of {rule}")
    detail = f"{finding.detail} yet: whether backups can be stored there cannot be tried"
    return advice(CONTAINER, detail, finding.hint)
