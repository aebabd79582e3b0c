"""Paths as users write them."""

from __future__ import annotations

import os
import re
from pathlib import Path

from bakthat.errors import ConfigError

_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
_HINT = "give the whole path, which begins with a slash"

PathLike = str | os.PathLike[str]
"""A path in an argument of the public API."""


def expanded(path: str | os.PathLike[str]) -> Path:
    """Return *path* as an absolute path, with ``~`` and ``~user`` expanded.

    Raises ConfigError when there is no such home directory, or when *path* holds a NUL.
    """
    text = os.path.expanduser(path)
    if text == "~" or text.startswith("~/"):
        raise ConfigError(
            f"cannot expand '{text}': there is no home directory",
            hint="set the variable HOME to a directory for the catalog and the cache",
        )
    if os.fspath(path).startswith("~") and text == os.fspath(path):
        raise ConfigError(f"cannot expand '{text}': there is no such user", hint=_HINT)
    if "\0" in text:
        raise ConfigError(f"no path can hold a NUL character: {text!r}", hint="remove it")
    return Path(os.path.abspath(text))


def is_url(text: object) -> bool:
    """Return whether *text* is a text that begins as a URL does, and no file's name."""
    return isinstance(text, str) and _URL.match(text) is not None and not os.path.lexists(text)


def cache_directory() -> Path | None:
    """Return the directory of bakthat's cache; None when the user has no home directory."""
    base = os.environ.get("XDG_CACHE_HOME", "")
    if os.path.isabs(base):  # as the XDG base directory specification says
        return Path(base, "bakthat")
    try:
        return expanded("~/.cache/bakthat")
    except ConfigError:
        return None
