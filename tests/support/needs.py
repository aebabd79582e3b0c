"""Requirements of the tests: programs, packages, root, file systems to mount.

A developer's machine may lack a program: the test is skipped and says why. In CI, where the
environment variable ``CI`` is set, the test fails, so that no comparison is lost unnoticed.
"""

from __future__ import annotations

import gc
import importlib.util
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

import pytest

as_root = pytest.mark.skipif(
    os.geteuid() != 0, reason="only root mounts, gives files away and acts as another user"
)

# Debian has servers and the programs of file systems outside of an ordinary user's PATH.
PROGRAMS = os.pathsep.join(
    [
        os.environ.get("PATH", os.defpath),
        "/usr/sbin",
        *(str(path) for path in sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)),
    ]
)


def missing(what: str) -> NoReturn:
    """Skip the test because the machine lacks *what*; in CI, fail it."""
    if os.environ.get("CI"):
        pytest.fail(f"{what}; in CI nothing may be missing, see .ci/run")
    pytest.skip(what)


def program(*names: str) -> str:
    """Return the path of a program that may have one of several names."""
    for name in names:
        path = shutil.which(name, path=PROGRAMS)
        if path is not None:
            return path
    missing(f"{' or '.join(names)} is not installed")


def package(name: str) -> None:
    """Require a package that belongs to an extra."""
    # A module that is imported need not say where it came from: the package sh takes its place.
    if name not in sys.modules and importlib.util.find_spec(name) is None:
        missing(f"the package {name} is not installed")


def gnu_tar() -> None:
    """Require that ``tar`` is GNU tar."""
    version = subprocess.run([program("tar"), "--version"], capture_output=True, text=True)
    if "GNU tar" not in version.stdout:
        missing("tar is not GNU tar")


@contextmanager
def mounted(place: Path, *options: str) -> Iterator[None]:
    """Mount on *place* as ``mount *options place`` does; skip where the machine forbids it."""
    # A container may forbid to mount whatever is installed, in CI too.
    done = subprocess.run(["mount", *options, place], capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"cannot mount here: {done.stderr.strip()}")
    try:
        yield
    finally:
        gc.collect()  # an exception that the test has caught may hold a file open
        subprocess.run(["umount", place], check=True)
