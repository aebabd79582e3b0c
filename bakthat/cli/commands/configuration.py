"""Ask for the configuration and write it."""

from __future__ import annotations

from bakthat.cli.app import SETUP, command, with_profile
from bakthat.cli.output import print_listing
from bakthat.system import terminal
from bakthat.system.text import printable


@command(
    "configure",
    "set up keys and destinations in ~/.bakthat.yml",
    group=SETUP,
    example="bakthat configure",
)
@with_profile
def configure(*, profile: str, config: str | None) -> None:
    """Run ``bakthat configure``."""
    from bakthat.cli import questions

    path = questions.configure(profile, config)
    done = f"profile '{printable(profile)}' written to {path}"
    print_listing(lambda: terminal.print_line(done), (), file=str(path))


@command(
    "configure_backups_rotation",
    "set how many backups rotation keeps",
    group=SETUP,
    example="bakthat configure_backups_rotation",
)
@with_profile
def configure_backups_rotation(*, profile: str, config: str | None) -> None:
    """Run ``bakthat configure_backups_rotation``."""
    from bakthat.cli import questions

    path = questions.configure_rotation(profile, config)
    done = f"rotation of profile '{printable(profile)}' written to {path}"
    print_listing(lambda: terminal.print_line(done), (), file=str(path))
