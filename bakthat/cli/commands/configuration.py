"""Ask for the configuration and write it."""

from __future__ import annotations

from bakthat.cli.app import command, with_profile
from bakthat.system import terminal
from bakthat.system.text import printable


@command("configure", "ask for keys and containers, and write ~/.bakthat.yml")
@with_profile
def configure(*, profile: str, config: str | None) -> None:
    """Run ``bakthat configure``."""
    from bakthat.cli import questions

    path = questions.configure(profile, config)
    terminal.print_line(f"profile '{printable(profile)}' written to {path}")


@command(
    "configure_backups_rotation", "ask how many backups rotation keeps, and write ~/.bakthat.yml"
)
@with_profile
def configure_backups_rotation(*, profile: str, config: str | None) -> None:
    """Run ``bakthat configure_backups_rotation``."""
    from bakthat.cli import questions

    path = questions.configure_rotation(profile, config)
    terminal.print_line(f"rotation of profile '{printable(profile)}' written to {path}")
