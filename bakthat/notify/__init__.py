"""Plugins that send notifications: Healthchecks, UptimeKuma, Webhook, Apprise and Prometheus.

Each has its settings under its own key of the profile. A notification that fails is a warning in
the log; the backup is not affected.
"""

from __future__ import annotations

from bakthat.notify.desktop import Apprise
from bakthat.notify.healthchecks import Healthchecks
from bakthat.notify.prometheus import Prometheus
from bakthat.notify.uptime_kuma import UptimeKuma
from bakthat.notify.webhook import Webhook

__all__ = ["Apprise", "Healthchecks", "Prometheus", "UptimeKuma", "Webhook"]
