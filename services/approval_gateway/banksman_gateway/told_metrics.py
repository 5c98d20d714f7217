"""Numbers about what people and programs are told: notices and webhooks by state, read at most once in a while."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from banksman.ledger import telling
from banksman_gateway.fresh import Fresh
from banksman_gateway.parts import Parts

_FRESH_SECONDS = 15.0
_NOTICES = ("due", "held", "failed", "claimed", "dead")
_WEBHOOKS = ("due", "claimed", "dead")


class Counted(Collector):
    """Gauges; absent while PostgreSQL is away."""

    def __init__(self, here: Parts) -> None:
        self._fresh = Fresh(here.pool, _FRESH_SECONDS, telling.counts)

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """The numbers as of now, or of some seconds ago."""
        found = self._fresh.get()
        if found is None:
            return
        notices = GaugeMetricFamily("banksman_notices", "Notices that are not over, and dead ones.", labels=["state"])
        for state in _NOTICES:
            notices.add_metric([state], found.notices.get(state, 0))
        yield notices
        yield GaugeMetricFamily(
            "banksman_notices_sent_in_an_hour", "Notices sent within the last hour.", found.notices.get("sent", 0)
        )
        webhooks = GaugeMetricFamily(
            "banksman_webhooks", "Webhooks that are not over, and dead ones.", labels=["state"]
        )
        for state in _WEBHOOKS:
            webhooks.add_metric([state], found.webhooks.get(state, 0))
        yield webhooks
        yield GaugeMetricFamily("banksman_endpoints_disabled", "Endpoints that hear nothing.", found.disabled)
