"""Plugins that tell somebody of backups: Healthchecks, Webhook, Apprise and Prometheus.

Each takes its settings from a key of the profile that is called like it. One that cannot reach
anybody logs a warning, and the backup is none the worse for it.
"""

from __future__ import annotations

from bakthat.notify.desktop import Apprise
from bakthat.notify.healthchecks import Healthchecks
from bakthat.notify.prometheus import Prometheus
from bakthat.notify.webhook import Webhook

__all__ = ["Apprise", "Healthchecks", "Prometheus", "Webhook"]
