"""A disk that fails at each change that a command makes to it."""

from __future__ import annotations

import ctypes
import errno
import os
import shutil
import subprocess
from pathlib import Path

from bakthat.__main__ import main
from tests.reliability.world import SET, World, in_child

ERRORS = {
    # What happens, and whether it goes on: a disk that is full stays full.
    "ENOSPC": (errno.ENOSPC, True),
    "EIO": (errno.EIO, False),
    "EACCES": (errno.EACCES, True),
    "EROFS": (errno.EROFS, True),
}
SHIM = Path(__file__).with_name("failing_disk.c")


def build(directory: Path) -> Path | None:
    """Compile what is to be preloaded; None without a compiler."""
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None:
        return None
    library = directory / "failing_disk.so"
    subprocess.run([compiler, "-shared", "-fPIC", "-O1", "-o", library, SHIM, "-ldl"], check=True)
    return library


def is_preloaded() -> bool:
    """Return whether this process runs on the failing disk."""
    return hasattr(ctypes.CDLL(None), "changes_made")


def fail(world: World, *, every: int, offset: int = 0) -> int:
    """Fail each change of a backup, a deletion and a restore, or only one of *every*.

    Returns how many commands met a fault.
    """
    faults = 0
    for name in ("backup", "delete", "restore"):
        world.back_up()
        total = _changes(world, name)
        for number in range(1 + offset, total + 1, every):
            for error in ERRORS:
                faults += _fail_once(world, name, number, error)
    return faults


def _command(world: World, name: str) -> tuple[str, ...]:
    out = str(world.home.parent / "out")
    return {
        "backup": ("backup", str(world.source)),
        "delete": ("delete", SET),
        "restore": ("restore", SET, "-o", out),
    }[name]


def _below(world: World, name: str) -> str:
    return str(world.home.parent / "out") if name == "restore" else str(world.home)


def _changes(world: World, name: str) -> int:
    """Return how many changes a command makes when nothing fails."""

    def count() -> int:
        assert main(list(_command(world, name))) == 0
        made: int = ctypes.CDLL(None).changes_made()
        return made

    environment = {"HOME": str(world.home), "FAIL_BELOW": _below(world, name), "FAIL_AT": "0"}
    total: int = in_child(count, environment=environment).result
    shutil.rmtree(world.home.parent / "out", ignore_errors=True)
    return total


def _fail_once(world: World, name: str, number: int, error: str) -> int:
    if len(world.keys()) < 2:
        world.back_up()
    code, goes_on = ERRORS[error]
    stored = world.keys()
    must_remain = stored - {max(stored)} if name == "delete" else stored
    ended = world.run(
        *_command(world, name),
        environment={
            "FAIL_BELOW": _below(world, name),
            "FAIL_AT": str(number),
            "FAIL_ERRNO": str(code),
            "FAIL_ON": "1" if goes_on else "0",
        },
    )
    what = f"{name} with {error} at change {number}"
    if ended.result not in (0, 1) or "Traceback" in ended.output or "unexpected" in ended.output:
        world.problems.append(f"{what}: exit {ended.result}, and it says {ended.output}")
    if ended.result == 1:
        lines = [line for line in ended.output.splitlines() if "bakthat: error: " in line]
        # SQLite does not pass on the system's message.
        named = os.strerror(code).lower() in ended.output.lower() or "the catalog " in ended.output
        if len(lines) != 1 or not named:
            world.problems.append(f"{what}: it does not say what is wrong: {ended.output}")
    out = world.home.parent / "out"
    if name == "restore" and ended.result == 1 and out.exists() and os.listdir(out):
        world.problems.append(f"{what}: something appeared: {os.listdir(out)}")
    shutil.rmtree(out, ignore_errors=True)
    world.examine(must_remain, what)
    if len(world.keys()) > 4:
        world.tidy(2)
    return 1
