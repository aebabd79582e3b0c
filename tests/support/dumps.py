"""Run the programs of a database's dumps and loads."""

from __future__ import annotations

import os
import subprocess

from bakthat.operations.sources.databases.base import Database, Load
from bakthat.system.programs import Program


def run(program: Program, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    """Run *program*, which has no secret file, to its end."""
    assert not program.secret
    return subprocess.run(
        program.arguments,
        input=stdin,
        capture_output=True,
        env={**os.environ, **program.environment},
    )


def dump_of(database: Database) -> bytes:
    """Return the dump of *database*, which must succeed."""
    database.check()
    done = run(database.dump())
    assert done.returncode == 0, done.stderr
    return done.stdout


def write_into(load: Load, dump: bytes) -> None:
    """Give *dump* to the program of *load*, which must succeed."""
    done = run(load.program, dump)
    assert done.returncode == 0, done.stderr
