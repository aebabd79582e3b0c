"""Kill or interrupt a process before the n-th step that others can see.

Steps are files, requests and statements that change something.
"""

from __future__ import annotations

import os
import signal
import sqlite3
import sys
from collections.abc import Callable
from types import FrameType
from typing import Any

_CHANGES = frozenset(
    {"http.client.send", "os.link", "os.mkdir", "os.remove", "os.rename", "os.rmdir", "os.symlink"}
)
"""Audit events of steps; ``os.replace`` raises that of a rename."""
_CALLS = ("open", "os.", "http.", "socket.")
"""How audit events begin that are raised where bakthat calls the system."""
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT
_READING = ("SELECT", "PRAGMA")


def kill_before_step(number: int) -> None:
    """Let this process die by SIGKILL before its step *number*, counted from 1.

    What it starts is not killed with it, and has no steps. This cannot be undone.
    """
    pid = os.getpid()
    _call_before_step(number, lambda: os.kill(pid, signal.SIGKILL))


def interrupt_before_step(number: int) -> None:
    """Let this process get SIGINT before its step *number*, or soon after it, as above.

    An exception cannot leave SQLite's callback, and it must not be raised within an import.
    """
    pid = os.getpid()
    is_due = False

    def be_due() -> None:
        nonlocal is_due
        is_due = True

    def hear(event: str, _: tuple[Any, ...]) -> None:
        nonlocal is_due
        if not is_due or os.getpid() != pid or not event.startswith(_CALLS):
            return
        frame: FrameType | None = sys._getframe(1)
        while frame is not None:
            if frame.f_code.co_filename.startswith("<frozen importlib"):
                return
            frame = frame.f_back
        is_due = False
        signal.raise_signal(signal.SIGINT)

    _call_before_step(number, be_due)
    sys.addaudithook(hear)


def _call_before_step(number: int, action: Callable[[], None]) -> None:
    pid, count = os.getpid(), 0

    def step() -> None:
        nonlocal count
        if os.getpid() != pid:
            return
        count += 1
        if count == number:
            action()

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
