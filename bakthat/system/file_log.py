"""The log that names each file of a backup or a restore, for those who ask for it."""

from __future__ import annotations

import logging

log = logging.getLogger("bakthat.files")
"""Where a file is named at INFO, also why one was left out. It costs time, so a level of another
logger does not turn it on: only ``log.setLevel("INFO")`` does."""


def is_wanted() -> bool:
    """Return whether somebody listens."""
    return log.level != logging.NOTSET and log.isEnabledFor(logging.INFO)
