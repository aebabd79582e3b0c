"""Record which test makes which error: a plugin of pytest, and a launcher of ``bakthat``.

The file that the records are added to, one JSON object a line, is named by an environment variable.
Forked processes write to it too, and so do the commands of :mod:`tests.support.commandline`.
"""

from __future__ import annotations

import json
import os
import runpy
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from bakthat.errors import BakthatError

PROJECT = Path(__file__).parents[2]
FILE_VARIABLE = "RECORDED_ERRORS"
"""Names the file of the records."""
_PACKAGE = str(PROJECT / "bakthat") + os.sep
_ERRORS = str(PROJECT / "bakthat" / "errors.py")
_write = os.write  # a test may replace it
_MOST_MESSAGES = 50
"""How many messages of one place and one test are recorded."""


class Recorder:
    """Adds a record to *file* for each error that bakthat makes during *test*."""

    def __init__(self, file: str, test: str = "") -> None:
        self.test = test
        # Open from the start: a forked process may have become another user.
        self._out = os.open(file, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        self._seen: dict[tuple[str, str, int], set[str]] = {}

    def start(self) -> None:
        """Record errors from now on, for the life of the process."""
        make = BakthatError.__init__

        def recording(error: BakthatError, message: str, *, hint: str = "") -> None:
            make(error, message, hint=hint)
            frame = sys._getframe(1)
            # A class of errors that takes more than these has a constructor of its own.
            while frame.f_code.co_filename == _ERRORS and frame.f_back is not None:
                frame = frame.f_back
            self._record(error, frame)

        setattr(BakthatError, "__init__", recording)  # noqa: B010  # mypy forbids to assign to it

    def _record(self, error: BakthatError, frame: Any) -> None:
        file = frame.f_code.co_filename
        if not self.test or not file.startswith(_PACKAGE):
            return
        place = self.test, file, frame.f_lineno
        messages = self._seen.setdefault(place, set())
        if str(error) in messages or len(messages) >= _MOST_MESSAGES:
            return
        messages.add(str(error))
        record = {
            "test": self.test,
            "module": os.path.relpath(file, PROJECT),
            "line": frame.f_lineno,
            "message": str(error),
            "hint": error.hint,
        }
        line = json.dumps(record) + "\n"
        _write(self._out, line.encode())  # one call, so that those of processes do not mix


def pytest_configure(config: pytest.Config) -> None:
    """Begin to record, also the commands that tests start."""
    from tests.support.commandline import CommandLine

    recorder = Recorder(os.environ[FILE_VARIABLE])
    recorder.start()
    config.pluginmanager.register(_CurrentTest(recorder))

    def command(arguments: Sequence[str | Path]) -> list[str]:
        launcher = [sys.executable, "-m", __name__, os.environ[FILE_VARIABLE], recorder.test]
        return [*launcher, *map(str, arguments)]

    CommandLine._command = staticmethod(command)  # type: ignore[method-assign]  # starts it here


class _CurrentTest:
    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_call(self, item: pytest.Item) -> Iterator[None]:
        self._recorder.test = item.nodeid
        try:
            return (yield)
        finally:
            self._recorder.test = ""


def _main() -> None:
    file, test, *arguments = sys.argv[1:]
    Recorder(file, test).start()
    sys.argv[1:] = arguments
    runpy.run_module("bakthat", run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    _main()
