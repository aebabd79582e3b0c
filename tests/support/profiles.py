"""Profiles, and the configuration file that holds them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

Conf = dict[str, Any]
"""One profile, flat."""


def write_config(path: Path, **profiles: Conf) -> Path:
    """Write a configuration file that only its owner reads, and return *path*."""
    path.write_text(yaml.safe_dump(profiles, sort_keys=False))
    path.chmod(0o600)
    return path
