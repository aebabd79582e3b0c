"""Look at the configuration: the file, the plugins, and what notifies."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Mapping
from typing import Any

from bakthat.conf import LoadedProfile, load_profile
from bakthat.conf.profile import SECRETS
from bakthat.conf.secrets import way_of
from bakthat.errors import ConfigError
from bakthat.policy.finding import Finding, advice, failed, good
from bakthat.session.session import Session
from bakthat.system import disks
from bakthat.system.paths import PathLike, expanded
from bakthat.system.text import counted, printable

_NOTIFIERS = {
    "healthchecks": "Healthchecks",
    "uptime_kuma": "UptimeKuma",
    "webhook": "Webhook",
    "apprise": "Apprise",
    "prometheus": "Prometheus",
}
"""The keys of the profile that only a plugin reads, and its class in bakthat.notify."""


def open_session(
    profile: str,
    config: PathLike | None,
    conf: Mapping[str, Any] | None,
    destination: str | None,
) -> tuple[Session | None, list[Finding]]:
    """Return a session, and the findings about what it was made from; None when none can be made.

    When a plugin cannot be loaded, the session has none. Raises UsageError.
    """
    try:
        loaded = load_profile(profile, config=config, conf=conf)
    except ConfigError as exc:
        return None, [failed("configuration", exc)]
    findings = [_about_file(loaded)]
    try:
        # No program is waited for that does not end.
        patience = loaded.profile.timeout
        session = Session(profile, config, conf, destination, loaded=loaded, patience=patience)
    except ConfigError as exc:
        findings.append(failed("plugins", exc))
        without = loaded.with_plugins([])
        session = Session(profile, None, without, destination, patience=patience)
    else:
        names = loaded.profile.plugins
        if names:
            shown = ", ".join(map(printable, names))
            findings.append(good("plugins", f"{counted(len(names), 'plugin')} loaded: {shown}"))
    return session, [*findings, *_about_notifications(loaded)]


def _about_file(loaded: LoadedProfile) -> Finding:
    topic, shown = "configuration", printable(loaded.origin)
    if loaded.is_unconfigured:
        return advice(
            topic,
            f"there is no file {shown}: backups go to a directory of this machine",
            "bakthat configure sets up another destination",
        )
    if loaded.origin == "conf":  # the paths of files are absolute
        return good(topic, f"profile '{printable(loaded.name)}' of conf is valid")
    with contextlib.suppress(OSError):  # without a file, all is from the environment
        mode = stat.S_IMODE(os.stat(loaded.origin).st_mode)
        if mode & 0o077:
            return advice(topic, f"others can read {shown} (mode {mode:04o})", f"chmod 600 {shown}")
    number = sum(source.kind == "variable" for source in loaded.sources.values())
    variables = counted(number, "variable") + " of the environment"
    if number and not os.path.exists(loaded.origin):
        return good(topic, f"valid: {variables}, and no file {shown}")
    also = f", with {variables}," if number else ""
    return good(topic, f"profile '{printable(loaded.name)}' of {shown}{also} is valid")


def _about_notifications(loaded: LoadedProfile) -> list[Finding]:
    topic, findings = "notifications", []
    active = [
        name for name in _NOTIFIERS.values() if f"bakthat.notify.{name}" in loaded.profile.plugins
    ]
    for key, name in _NOTIFIERS.items():
        given = way_of(loaded, key) if key in SECRETS else getattr(loaded.profile, key)
        if given and name not in active:
            findings.append(
                advice(
                    topic,
                    f"the profile has '{given if key in SECRETS else key}', but nothing reads it",
                    f"add bakthat.notify.{name} to plugins in the profile",
                )
            )
    textfile = loaded.profile.prometheus.get("textfile")
    if _NOTIFIERS["prometheus"] in active and isinstance(textfile, str):
        found = disks.problem_of_directory(expanded(textfile).parent)
        if found is not None:
            # Metrics are missing then, but backups are made.
            detail = f"Prometheus: the textfile cannot be written: {found.reason}"
            findings.append(advice(topic, detail, found.hint))
    if active and not findings:
        shown = ", ".join(active)
        findings.append(good(topic, f"the settings of {shown} are valid; nothing was sent"))
    return findings
