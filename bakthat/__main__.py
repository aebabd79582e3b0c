"""Run bakthat from the command line: ``bakthat`` or ``python -m bakthat``."""

from __future__ import annotations

import gc
import sys
from collections.abc import Sequence


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command (by default the process's arguments) and return its exit code."""
    if arguments is None:
        _collect_rarely()
    try:
        from bakthat import cli, commands

        commands.register()
    except KeyboardInterrupt:  # before the command line hears signals by itself
        return 130
    if arguments is not None:
        return cli.run(arguments)
    try:
        return cli.run(sys.argv[1:])
    finally:
        # Nothing is to be searched for cycles once more when all of it goes.
        gc.freeze()


def _collect_rarely() -> None:
    """Let the modules come in without a search for cycles every few hundred objects.

    That is a third of the time that boto3 takes to load. What bakthat itself does makes hardly
    any cycles, so that memory stays as it was.
    """
    gc.set_threshold(50_000, 20, 20)


if __name__ == "__main__":
    sys.exit(main())
