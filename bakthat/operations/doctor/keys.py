"""Try the keys: what encrypts new backups, and what opens them on this machine."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Collection

from bakthat.conf.profile import SECRET_FILES
from bakthat.crypto import age
from bakthat.errors import BakthatError
from bakthat.passwords import encryption_keys, identity_text
from bakthat.policy.finding import Finding, advice, failed, good
from bakthat.session.session import Session
from bakthat.system.paths import expanded
from bakthat.system.text import counted, printable

TOPIC = "encryption"


def key_findings(session: Session) -> list[Finding]:
    """Find the keys as a backup without a terminal does, and read the private keys."""
    profile = session.profile
    recipients: list[str] = []
    findings = []
    try:
        # Nothing is asked: a program that waits for an answer is ended too.
        keys = encryption_keys(profile.as_mapping(), prompt=False, timeout=profile.timeout)
        recipients = [age.parse_recipient(each) for each in keys.recipients]
    except BakthatError as exc:
        findings.append(failed(TOPIC, exc))
    else:
        if recipients:
            to = counted(len(recipients), "public key")
            findings.append(good(TOPIC, f"new backups are encrypted to {to}"))
        elif keys.passphrase:
            findings.append(good(TOPIC, "new backups are encrypted with a passphrase"))
        else:
            findings.append(_unencrypted(is_explicit=profile.password == ""))
    findings += _about_mode(TOPIC, profile.identity_file)
    return findings + _about_identities(session, recipients)


def secret_findings(session: Session) -> list[Finding]:
    """Look at the files of secrets, and read the password of databases, which nothing else does."""
    findings = []
    values = session.profile.as_mapping()
    for key in SECRET_FILES:
        findings += _about_mode("secrets", values[key])
    try:
        session.secret("database_password")
    except BakthatError as exc:
        findings.append(failed("secrets", exc))
    return findings


def _unencrypted(*, is_explicit: bool) -> Finding:
    hint = "set recipients or password_file in the profile: bakthat configure asks for them"
    if is_explicit:
        return advice(TOPIC, "backups are not encrypted, as the profile says", hint)
    return advice(
        TOPIC,
        "no key is set: a backup asks for a password at the terminal, and fails without one",
        f"{hint}; bakthat backup --prompt no stores unencrypted",
    )


def _about_mode(topic: str, path: str | None) -> list[Finding]:
    if path is None:
        return []
    with contextlib.suppress(OSError):  # said by who reads the file
        file = expanded(path)
        mode = stat.S_IMODE(os.stat(file).st_mode)
        if mode & 0o077:
            shown = printable(file)
            return [
                advice(topic, f"others can read {shown} (mode {mode:04o})", f"chmod 600 {shown}")
            ]
    return []


def _about_identities(session: Session, recipients: Collection[str]) -> list[Finding]:
    if session.profile.identity_file is None:
        return []
    try:
        text = identity_text(session.profile.as_mapping())
        own = {age.recipient_of(each) for each in age.parse_identities(text)}
    except BakthatError as exc:
        return [failed("private key", exc)]
    shown = printable(expanded(session.profile.identity_file))
    if recipients and own.isdisjoint(recipients):
        return [
            advice(
                "private key",
                f"no private key in {shown} is of a recipient: new backups cannot be opened here",
                "add its public key to recipients, or set another identity_file",
            )
        ]
    if recipients:
        return [
            advice(
                "private key",
                f"a private key in {shown} opens new backups, and is on the machine itself",
                "keep a copy of it elsewhere, or backups are lost with this machine; only a "
                "restore needs it here",
            )
        ]
    return [good("private key", f"{shown} can be read")]
