"""Programs that produce what is backed up, or take what is restored."""

from __future__ import annotations

from bakthat.system.programs.ended import Ended
from bakthat.system.programs.program import SECRET_FILE, Program, find_program, shell_program
from bakthat.system.programs.running import RunningProgram, run_program

__all__ = [
    "SECRET_FILE",
    "Ended",
    "Program",
    "RunningProgram",
    "find_program",
    "run_program",
    "shell_program",
]
