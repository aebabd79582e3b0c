"""Run bakthat from the command line: ``bakthat`` or ``python -m bakthat``."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from bakthat import own_process


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command (by default the process's arguments) and return its exit code."""
    if arguments is not None:
        return _run(arguments)
    own_process.collect_rarely()
    try:
        return _run(sys.argv[1:])
    finally:
        own_process.leave_uncollected()


def _run(arguments: Sequence[str]) -> int:
    try:
        from bakthat import cli, commands

        commands.register()
    except KeyboardInterrupt:  # before the command line hears signals by itself
        return 130
    return cli.run(arguments)


if __name__ == "__main__":
    sys.exit(main())
