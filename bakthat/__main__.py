"""Run bakthat from the command line: ``bakthat`` or ``python -m bakthat``."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Sequence

from bakthat.cli import process

_NO_MEMORY = b"bakthat: error: there is not enough memory\n"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command (by default the process's arguments) and return its exit code."""
    if arguments is not None:
        return _run(arguments)
    process.use_utf8()
    process.collect_rarely()
    try:
        if sys.argv[1:3] == ["completion", "--names"]:
            return _print_names(*sys.argv[3:])
        code = _run(sys.argv[1:])
        if code > 128:  # stopped by a signal
            process.end_without_threads(code)
        return code
    finally:
        process.skip_final_collection()


def _print_names(kind: str = "", beginning: str = "", *words: str) -> int:
    """Print what a shell completes, without the parser: somebody is typing."""
    from bakthat.cli.completion.names import names

    with contextlib.suppress(BrokenPipeError):
        sys.stdout.writelines(f"{name}\n" for name in names(kind, beginning, words))
        sys.stdout.flush()
    return 0


def _run(arguments: Sequence[str]) -> int:
    try:
        from bakthat.cli.run import run
    except KeyboardInterrupt:  # before the command line handles signals itself
        return 130
    except (MemoryError, OSError) as exc:  # no module can be loaded
        why = getattr(exc, "strerror", None) or "there is not enough memory"
        sys.stderr.write(f"bakthat: error: cannot start: {why}\n")
        return 1
    try:
        return run(arguments)
    except MemoryError:  # too little is left to tell the error in the usual way
        os.write(2, _NO_MEMORY)
        return 1


if __name__ == "__main__":
    sys.exit(main())
