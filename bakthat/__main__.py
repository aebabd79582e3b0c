"""Run bakthat from the command line: ``bakthat`` or ``python -m bakthat``."""

from __future__ import annotations

import sys
from collections.abc import Sequence


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command (by default the process's arguments) and return its exit code."""
    try:
        from bakthat import cli, commands

        commands.register()
    except KeyboardInterrupt:  # before the command line hears signals by itself
        return 130
    return cli.run(sys.argv[1:] if arguments is None else arguments)


if __name__ == "__main__":
    sys.exit(main())
