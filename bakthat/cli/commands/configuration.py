"""Set up: ask for the configuration and write it; complete command lines."""

from __future__ import annotations

from bakthat.cli.app import SETUP, command, option
from bakthat.cli.options import with_profile
from bakthat.cli.output import print_listing, print_text
from bakthat.system import terminal
from bakthat.system.text import printable

SHELLS = ("bash", "zsh", "fish")
"""The shells that ``completion`` knows."""


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


@command(
    "completion",
    "print the script that completes commands in a shell",
    group=SETUP,
    example="bakthat completion bash > ~/.local/share/bash-completion/completions/bakthat",
    is_file=True,
)
@option("shell", metavar="SHELL", choices=SHELLS, help=", ".join(SHELLS))
def completion(*, shell: str) -> None:
    """Run ``bakthat completion``."""
    from bakthat.cli.completion.script import script

    print_text(script(shell))
