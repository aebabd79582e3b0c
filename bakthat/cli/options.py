"""Options that many commands have."""

from __future__ import annotations

import functools
import shlex
from typing import Any

from bakthat.cli.app import CONFIGURATION, KEYS, SELECTION, Command, option
from bakthat.errors import UsageError
from bakthat.policy.defaults import DESTINATIONS


def with_profile(function: Command) -> Command:
    """Add the options that select the profile; their defaults may be in the environment."""
    option(
        "-p",
        "--profile",
        section=CONFIGURATION,
        metavar="PROFILE",
        help="profile of the configuration (default: $BAKTHAT_PROFILE, or default)",
    )
    _with_config()

    @functools.wraps(function)
    def with_defaults(*, profile: str | None, config: str | None, **arguments: Any) -> int | None:
        from bakthat import conf  # --help needs none

        return function(
            profile=profile or conf.default_profile(),
            config=config or conf.default_config(),
            **arguments,
        )

    return with_defaults


def with_profiles(function: Command) -> Command:
    """Add the options that select the profile; without one, None: that of each job counts too."""
    option(
        "-p",
        "--profile",
        section=CONFIGURATION,
        metavar="PROFILE",
        help="profile of the configuration (default: $BAKTHAT_PROFILE, or default and those of the "
        "jobs)",
    )
    _with_config()

    @functools.wraps(function)
    def with_defaults(*, profile: str | None, config: str | None, **arguments: Any) -> int | None:
        from bakthat import conf  # --help needs none

        return function(
            profile=profile or conf.named_profile(),
            config=config or conf.default_config(),
            **arguments,
        )

    return with_defaults


def _with_config() -> None:
    option(
        "-c",
        "--config",
        section=CONFIGURATION,
        metavar="FILE",
        help="configuration file (default: $BAKTHAT_CONFIG, or ~/.bakthat.yml)",
    )


def with_destination(function: Command) -> Command:
    """Add the option that selects the destination."""
    option(
        "-d",
        "--destination",
        section=CONFIGURATION,
        metavar="WHERE",
        help=f"{', '.join(DESTINATIONS)} (default: the profile's)",
    )
    return function


def with_host(function: Command) -> Command:
    """Add the option that selects the host."""
    option("--host", section=SELECTION, metavar="HOST", help="made by HOST")
    return function


def with_source(function: Command) -> Command:
    """Add the option that selects one of several sets of the same name."""
    option(
        "--source",
        section=SELECTION,
        metavar="PATH",
        help="of this file or directory",
    )
    return function


def with_via(function: Command) -> Command:
    """Add the option that says how the programs of a database server are run."""
    option(
        "--via",
        section="databases",
        metavar="WORDS",
        help="put these before each program of the server, such as 'docker exec -i db'",
    )
    return function


def without_password(url: str | None) -> str | None:
    """Return *url*, the URL of a database or None. Raises UsageError when it has a password."""
    if url is None:
        return None
    # Imported here, as few commands need it.
    from bakthat.operations.sources.databases.url import url_password

    if url_password(url) is not None:
        raise UsageError(
            "the password in a URL on a command line can be read by every user of this machine",
            hint="leave it out of the URL, and put it into the profile as database_password_file "
            "or database_password_command",
        )
    return url


def with_prompt(function: Command) -> Command:
    """Add the option that says whether a password may be asked for."""
    option(
        "--prompt",
        section=KEYS,
        default="yes",
        choices=("yes", "no"),
        help="no: never ask for a password",
    )
    return function


def with_keys(function: Command) -> Command:
    """Add the options that say where the keys of a backup that is read come from."""
    option("--identity-file", section=KEYS, metavar="FILE", help="age private keys")
    return with_prompt(function)


def options_of(profile: str, config: str | None) -> str:
    """Return the options that name the same profile again, each after a space."""
    options = "" if profile == "default" else f" -p {shlex.quote(profile)}"
    return options if config is None else f"{options} -c {shlex.quote(config)}"
