"""Kill a process before the n-th step that others can see: a file, a request, a statement."""

from __future__ import annotations

import os
import signal
import sqlite3
import sys
from typing import Any

_CHANGES = frozenset(
    {"http.client.send", "os.link", "os.mkdir", "os.remove", "os.rename", "os.rmdir", "os.symlink"}
)
"""Audit events of steps; ``os.replace`` raises that of a rename."""
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT
_READING = ("SELECT", "PRAGMA")


def kill_before_step(number: int) -> None:
    """Let this process die by SIGKILL before its step *number*, counted from 1.

    What it starts is not killed with it, and has no steps. This cannot be undone.
    """
    pid, count = os.getpid(), 0

    def step() -> None:
        nonlocal count
        if os.getpid() != pid:
            return
        count += 1
        if count == number:
            os.kill(pid, signal.SIGKILL)

    def run(statement: str) -> None:
        if not statement.startswith(_READING):
            step()

    def hear(event: str, arguments: tuple[Any, ...]) -> None:
        if event == "open":
            flags = arguments[2]
            if isinstance(flags, int) and flags & _WRITING:
                step()
        elif event in _CHANGES:
            step()

    def connect(*arguments: Any, **options: Any) -> sqlite3.Connection:
        connection: sqlite3.Connection = real_connect(*arguments, **options)
        connection.set_trace_callback(run)
        return connection

    real_connect = sqlite3.connect
    sqlite3.connect = connect  # type: ignore[assignment]  # of this process, which is about to die
    sys.addaudithook(hear)
