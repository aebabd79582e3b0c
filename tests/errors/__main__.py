"""Keep the listing of errors, and prove it.

``python -m tests.errors`` runs the tests that the listing names, and says which of them does not
cause its error. ``python -m tests.errors --write`` brings the listing up to date with the code;
``python -m tests.errors --write TEST…`` also runs these tests, files or directories, and names one
of them for each error that has none.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from tests.errors.listing import (
    MISSING,
    Entry,
    causes_of,
    listed,
    made,
    updated,
    with_tests,
    write,
)
from tests.errors.places import PROJECT
from tests.errors.recorder import FILE_VARIABLE


def record(tests: Sequence[str], file: Path) -> bool:
    """Run *tests* with two workers, and record the errors in *file*; return whether all pass."""
    command = [sys.executable, "-m", "pytest", "-p", "tests.errors.recorder", "-n", "2", "-q"]
    environment = {**os.environ, FILE_VARIABLE: str(file)}
    markers = ["-m", "not heavy", "--disable-warnings"]
    done = subprocess.run([*command, *markers, *tests], cwd=PROJECT, env=environment, check=False)
    file.touch()
    return done.returncode == 0


def prove(entries: Sequence[Entry], records: Path) -> int:
    """Run the tests of *entries*; return the exit code."""
    passed = record(sorted({entry.test for entry in entries if entry.test != MISSING}), records)
    causes, unknown = causes_of(records)
    wrong = [entry for entry in entries if entry.test not in causes.get(entry.identity, ())]
    for entry in wrong:
        print(f"{entry.module}: {entry.message}\n    is not caused by {entry.test}")
    for line in unknown:
        print(f"not in the listing: {line}")
    return int(not passed or bool(wrong or unknown))


def renew(tests: Sequence[str], records: Path) -> int:
    """Bring the listing up to date, with *tests* where one is missing; return the exit code."""
    entries = updated(listed(), made())
    if tests:
        record(tests, records)
    if records.exists():
        causes, unknown = causes_of(records)
        entries = with_tests(entries, causes)
        for line in unknown:
            print(f"not in the listing: {line}")
    write(entries)
    missing = [entry for entry in entries if entry.test == MISSING]
    for entry in missing:
        print(f"{entry.module}: {entry.message}\n    has no test")
    print(f"{len(entries)} errors, {len(missing)} without a test")
    return int(bool(missing))


def main() -> int:
    """Run the command; return its exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.errors", description=__doc__)
    parser.add_argument("--write", action="store_true", help="bring the listing up to date")
    parser.add_argument("--records", type=Path, help="keep what is recorded in this file")
    parser.add_argument("tests", nargs="*", help="what to run to find tests; with --write")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        records = arguments.records or Path(directory) / "records.jsonl"
        if arguments.write:
            return renew(arguments.tests, records)
        return prove(listed(), records)


if __name__ == "__main__":
    sys.exit(main())
