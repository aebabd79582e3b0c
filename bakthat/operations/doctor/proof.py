"""Prove that a container can be written, read and deleted from, and leave nothing behind."""

from __future__ import annotations

import uuid

from bakthat.backends import make_prober
from bakthat.backends.base import Prober
from bakthat.errors import ConfigError
from bakthat.format.names import probe_name
from bakthat.policy.finding import Finding, failed
from bakthat.session.session import Session

MAX_ATTEMPTS = 2
"""How many times a request is sent: whoever waits for the answer can try again."""


def prove_container(
    session: Session, *, destination: str | None = None, create: bool = False
) -> list[Finding]:
    """Write, read and delete a small object where backups would be stored; return the findings.

    *destination* is by default the session's. With *create*, a missing bucket, vault or directory
    is made first; without, it is a problem, but for a directory that the first backup can make.
    Nothing else stays behind: neither the object, which no other command takes for a backup, nor an
    upload. ``bakthat cleanup`` removes what a killed process has left.

    The destination can be used unless one of the findings is a problem. Each request waits as long
    as the profile's ``timeout`` says, and is sent at most twice. Raises nothing; a signal ends it
    when the object is removed again.
    """
    try:
        prober = prober_of(session, destination or session.destination)
    except ConfigError as exc:
        return [failed("configuration", exc)]
    return prober.prove(probe_key(session), create=create)


def prober_of(session: Session, destination: str) -> Prober:
    """Return what tries the container of a destination. Raises ConfigError."""
    attempts = min(session.profile.attempts, MAX_ATTEMPTS)
    return make_prober(destination, {**session.profile.as_mapping(), "attempts": attempts})


def probe_key(session: Session) -> str:
    """Return a new key beside those of backups, which nothing else has."""
    return session.prefix + probe_name(uuid.uuid4().hex)
