"""The name of this machine."""

from __future__ import annotations

import socket

from bakthat.policy import settings
from bakthat.system.text import from_native, printable


def machine_name() -> str:
    """Return the name of this machine, changed where it cannot be the name of a host.

    An empty one becomes "localhost": the backups of an unknown host are not this machine's.
    """
    name = from_native(socket.gethostname())
    if settings.host(name) is not None:
        name = printable(name).replace("/", "-").strip(". ")
        name = name.encode()[: settings.MAX_HOST_BYTES].decode(errors="ignore")
    return name if settings.host(name) is None else "localhost"
