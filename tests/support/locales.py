"""Locales that are not UTF-8, as a process gets them: variables of its environment."""

from __future__ import annotations

import subprocess
from pathlib import Path

from tests.support.needs import missing, program

ASCII = {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}
"""The C locale, without Python's own ways to use UTF-8 there."""


def german_latin1(directory: Path) -> dict[str, str]:
    """Make the locale de_DE, whose encoding is ISO 8859-1, in *directory*; return its variables."""
    compiled = subprocess.run(
        [program("localedef"), "-i", "de_DE", "-f", "ISO-8859-1", directory / "de_DE"],
        capture_output=True,
        text=True,
    )
    if compiled.returncode:
        missing(f"localedef cannot make de_DE, from the package locales: {compiled.stderr}")
    return {"LOCPATH": str(directory), "LC_ALL": "de_DE"}
