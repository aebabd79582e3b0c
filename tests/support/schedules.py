"""Jobs for the tests of what runs them."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from bakthat.jobs.schedule.service import Service
from tests.support.needs import program

NAMES = [
    "nightly",
    "every-hour",
    "a.b_c:d",
    "web@1",
    "two words",
    " spaces ",
    "100% %n %%",
    "$HOME ${HOME} $$",
    "it's",
    'a "b" c',
    "back\\slash \\",
    "\\x41",
    ";",
    "#hash",
    "[Unit]",
    "Nächtlich",
    "夜間",
    "~&|<>()*?!`",
]
"""Names of jobs: all that the configuration accepts, and others take for their own signs."""

SERVICE = Service(
    job="nightly",
    words=("/usr/bin/bakthat",),
    config="",
    environment=(("HOME", "/root"),),
    reads=("/etc", "/etc/bakthat.yml"),
    writes=("/usr",),
    secrets=(),
    commands=(),
    has_databases=False,
    restores=False,
)
"""One that only reads."""


def service(**changes: Any) -> Service:
    """Return :data:`SERVICE` with changes."""
    return replace(SERVICE, **changes)


def with_mounts(places: Mapping[str, Path], *, read_only: str = "") -> tuple[str, ...]:
    """Return the words before a command that sees these directories in other places.

    In one of the places, *read_only*, nothing can be written. Only root can mount them.
    """
    mount = program("mount")  # the command may be given another PATH
    mounts = [f"{mount} --bind {shlex.quote(str(each))} {place}" for place, each in places.items()]
    if read_only:
        mounts.append(f"{mount} -o remount,bind,ro {read_only}")
    script = " && ".join([*mounts, 'exec "$@"'])
    return (program("unshare"), "--mount", "/bin/sh", "-c", script, "sh")
