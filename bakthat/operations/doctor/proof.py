"""Prove that a container can be written, read and deleted from, and leave nothing behind."""

from __future__ import annotations

import uuid

from bakthat.backends import make_prober
from bakthat.backends.base import Prober
from bakthat.errors import BakthatError, CatalogError, ConfigError
from bakthat.format.names import probe_name
from bakthat.policy.finding import CONTAINER, Finding, failed
from bakthat.session.container import has_container
from bakthat.session.session import Session

MAX_ATTEMPTS = 2
"""How many times a request is sent: whoever waits for the answer can try again."""


def prove_container(
    session: Session, *, destination: str | None = None, create: bool = False
) -> list[Finding]:
    """Write, read and delete a small object where backups would be stored; return the findings.

    *destination* is by default the session's. With *create*, a missing bucket, vault or directory
    is made first; without, it is a problem, but for a directory that the first backup can make.
    Where the catalog lists backups in what is missing, that is a problem, and nothing is made.
    Nothing else stays behind: neither the object, which no other command takes for a backup, nor an
    upload. ``bakthat cleanup`` removes what a killed process has left.

    The destination can be used unless one of the findings is a problem. Each request waits as long
    as the profile's ``timeout`` says, and is sent at most twice. Raises nothing; a signal ends it
    when the object is removed again.
    """
    destination = destination or session.destination
    try:
        prober = prober_of(session, destination)
    except ConfigError as exc:
        return [failed("configuration", exc)]
    key = probe_key(session)
    if destination != "local":
        findings = prober.prove(key)
        if not create or not any(each.topic == CONTAINER and each.is_problem for each in findings):
            return findings
    missing = missing_container(session, destination)
    return prober.prove(key, create=create) if missing is None else [missing]


def missing_container(session: Session, destination: str) -> Finding | None:
    """Return the problem with a container that is missing though the catalog lists backups in it.

    Without a catalog none is made, and what is wrong with it is said elsewhere.
    """
    if not session.may_have_catalog:
        return None
    try:
        has_container(session, session.backend(destination))
    except CatalogError:
        return None
    except BakthatError as exc:
        return failed(CONTAINER, exc)
    return None


def prober_of(session: Session, destination: str) -> Prober:
    """Return what tries the container of a destination. Raises ConfigError."""
    attempts = min(session.profile.attempts, MAX_ATTEMPTS)
    return make_prober(destination, session.storage_conf(destination, attempts=attempts))


def probe_key(session: Session) -> str:
    """Return a new key beside those of backups, which nothing else has."""
    return session.prefix + probe_name(uuid.uuid4().hex)
