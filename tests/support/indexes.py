"""Indexes of backups for the tests: lose them, as earlier versions made none."""

from __future__ import annotations

import contextlib
import os
import shutil
from pathlib import Path

from bakthat.errors import ContainerNotFoundError
from bakthat.session.indexes.home import home_of_index
from bakthat.session.session import Session
from tests.support.profiles import Conf


def forget_cache() -> None:
    """Empty the cache of indexes of the user."""
    shutil.rmtree(Path(os.environ["HOME"], ".cache", "bakthat"), ignore_errors=True)


def lose_indexes(conf: Conf, *names: str) -> None:
    """Remove the indexes of backups from their storage, and empty the cache."""
    session = Session("default", None, conf)
    for name in names:
        home, key = home_of_index(session, session.backend(session.destination), name)
        with contextlib.suppress(ContainerNotFoundError):  # that of a vault's indexes
            home.delete(key)
    forget_cache()
