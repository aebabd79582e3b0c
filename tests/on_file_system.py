"""Run the tests with all their files on a file system that is made for it.

    python -m tests.on_file_system btrfs -n 2

The first argument is a kind of ``tests/support/file_systems.py``, the others are pytest's.
"""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tests.support.file_systems import KINDS, mounted_file_system

IMAGE_BYTES = 16 * 1024**3
"""The size of the file system; its file is sparse, and only what is written takes space."""


def main(arguments: list[str]) -> int | str:
    """Mount the file system, run pytest there, and return its exit code or an error."""
    if not arguments or arguments[0] not in KINDS:
        return f"usage: python -m tests.on_file_system {{{','.join(KINDS)}}} [pytest's arguments]"
    kind, *others = arguments
    try:
        with mounted_file_system(kind, image_bytes=IMAGE_BYTES) as made:
            temporary = made.path / "tmp"
            temporary.mkdir()
            temporary.chmod(0o1777)
            base = made.path / "base"
            command = [sys.executable, "-m", "pytest", f"--basetemp={base}", *others]
            environment = {**os.environ, "TMPDIR": str(temporary)}
            return subprocess.run(command, env=environment).returncode
    except (pytest.skip.Exception, pytest.fail.Exception) as exc:
        return f"cannot run on {kind}: {exc}"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
