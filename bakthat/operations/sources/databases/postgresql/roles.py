"""Give psql the SQL of ``pg_dumpall --globals-only``, with roles that may exist already.

Run as a script with the command of psql as its arguments and the SQL on standard input. It uses
the standard library only, so that it starts quickly and is found by its path.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Sequence
from typing import BinaryIO

_CREATE_ROLE = re.compile(rb'CREATE ROLE (?:"(?:[^"\n]|"")+"|[a-z_][a-z0-9_]*);\n')


def made_if_missing(line: bytes) -> bytes:
    """Return a line of the SQL; one that makes a role is no error if the role exists.

    CREATE ROLE knows no IF NOT EXISTS.
    """
    if not _CREATE_ROLE.fullmatch(line):
        return line
    tag = b"$bakthat$"
    while tag in line:
        tag = b"$" + tag.strip(b"$") + b"t$"
    caught = b"EXCEPTION WHEN duplicate_object THEN NULL; END "
    return b"DO " + tag + b" BEGIN " + line.rstrip(b"\n") + b" " + caught + tag + b";\n"


def run(command: Sequence[str], lines: BinaryIO) -> int:
    """Run psql with the SQL; return its exit code, or 128 and the number of its signal."""
    # psql needs the file of passwords, which this process has got as an open file.
    with subprocess.Popen(command, stdin=subprocess.PIPE, close_fds=False) as process:
        assert process.stdin is not None
        try:
            for line in lines:
                process.stdin.write(made_if_missing(line))
            process.stdin.close()
        except BrokenPipeError:  # psql has ended at an error, and says so
            pass
    return process.returncode if process.returncode >= 0 else 128 - process.returncode


if __name__ == "__main__":
    sys.exit(run(sys.argv[1:], sys.stdin.buffer))
