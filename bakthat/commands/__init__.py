"""The subcommands, grouped into a module for each subject; importing one registers its commands."""

from __future__ import annotations

from importlib import import_module

SUBJECTS = ("backups", "retention", "upkeep", "cold", "configuration")
"""In the order in which ``--help`` lists them."""


def register() -> None:
    """Register every subcommand; again does nothing."""
    for subject in SUBJECTS:
        import_module(f"{__name__}.{subject}")
