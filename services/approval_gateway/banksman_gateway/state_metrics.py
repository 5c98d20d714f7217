"""Numbers about runs, requests, the queue and the seal, read from PostgreSQL and the broker.

Every gateway says the same of the whole deployment, so a query over several of them takes the maximum, never the sum.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta

import redis
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from banksman.ledger import Connection, gauges
from banksman.ledger.gauges import Gauges
from banksman.states import Kind, RequestState, RunStatus, Tier
from banksman.wire import QUEUES
from banksman_gateway.fresh import Fresh
from banksman_gateway.parts import Parts

_FRESH_SECONDS = 5.0
_SETTLED = {f"request.{state.value}": state.value for state in RequestState if state is not RequestState.OPEN}
EVENTS = (
    *("run.submitted", "run.started", "run.resumed", "run.parked", "run.finished", "run.failed", "run.cancelled"),
    *("run.stuck", "run.doubted", "run.released", "run.postponed", "request.opened", "request.escalated"),
    *("vote.cast", "vote.refused", "vote.withdrawn", "decision.refused", "execution.started", "execution.finished"),
    *("execution.refused", "notice.sent", "notice.dead", "link.used"),
)
"""The actions whose events are counted."""


@dataclass(frozen=True, slots=True)
class _Read:
    gauges: Gauges
    unsealed: timedelta


class Counted(Collector):
    """Gauges, and counters that begin with this process; absent while PostgreSQL is away."""

    def __init__(self, here: Parts) -> None:
        self._here = here
        self._fresh = Fresh(here.pool, _FRESH_SECONDS, self._read)
        self._place: str | None = None
        self._happened = Counter(dict.fromkeys((*EVENTS, *_SETTLED), 0))
        self._redis = redis.Redis.from_url(
            here.settings.broker_url.get_secret_value(), socket_timeout=1, socket_connect_timeout=1
        )

    def collect(self) -> Iterator[Metric]:
        """The numbers as of now, or as of a few seconds ago."""
        yield GaugeMetricFamily(
            "banksman_broker_up", "Whether the broker tells of changes.", int(self._here.pulse.beats)
        )
        if self._here.pulse.beats:
            yield from self._queues()
        found = self._fresh.get()
        yield GaugeMetricFamily("banksman_postgresql_up", "Whether PostgreSQL answers.", int(found is not None))
        if found is not None:
            yield from _runs(found.gauges)
            yield from _requests(found.gauges)
            yield from self._seal(found.unsealed)
            yield from self._events()

    def _read(self, conn: Connection) -> _Read:
        head = self._here.seal.head
        read = _Read(gauges.read(conn), gauges.unsealed(conn, (0, 0) if head is None else head.cursor))
        self._place, happened = gauges.happened(conn, self._place)
        self._happened.update({action: number for action, number in happened.items() if action in self._happened})
        return read

    def _queues(self) -> Iterator[Metric]:
        waiting = GaugeMetricFamily(
            "banksman_queue_messages", "Wake-ups that nobody has taken yet; what they point at is found without them.",
            labels=["queue"],
        )  # fmt: skip
        try:
            for queue in QUEUES.values():
                waiting.add_metric([queue], int(str(self._redis.llen(queue))))
        except redis.RedisError:
            return
        yield waiting

    def _seal(self, unsealed: timedelta) -> Iterator[Metric]:
        seal = self._here.seal
        if seal.seals or seal.head is not None:
            yield _gauge("seal_lag_seconds", "Age of the oldest event that is not sealed.", _seconds(unsealed))
            yield _gauge("seal_events", "Events under the newest head.", 0 if seal.head is None else seal.head.size)

    def _events(self) -> Iterator[Metric]:
        settled = CounterMetricFamily(
            "banksman_requests_settled", "Requests by how they ended, since this gateway was first asked.",
            labels=["state"],
        )  # fmt: skip
        for action, state in _SETTLED.items():
            settled.add_metric([state], self._happened[action])
        yield settled
        events = CounterMetricFamily(
            "banksman_events", "What the audit log says has happened since this gateway was first asked.",
            labels=["action"],
        )  # fmt: skip
        for action in EVENTS:
            events.add_metric([action], self._happened[action])
        yield events


def _runs(found: Gauges) -> Iterator[Metric]:
    yield _labelled(
        "runs",
        "Runs that are not over, by status.",
        "status",
        {
            status.value: found.runs.get(status.value, 0)
            for status in (RunStatus.QUEUED, RunStatus.RUNNING, RunStatus.WAITING, RunStatus.STUCK)
        },
    )
    yield _gauge("runs_sent", "Queued runs whose wake-up is out.", found.sent)
    yield _gauge("runs_due_lag_seconds", "How long the run that is next in line has been due.", _seconds(found.due_lag))
    yield _gauge("runs_lease_over", "Runs whose worker is gone and that no other has taken up.", found.expired)
    yield _gauge("runs_resuming", "Runs that were decided and have not gone on.", found.resuming)
    yield _gauge(
        "runs_resuming_longest_seconds",
        "Since the last decision of the one that has waited longest.",
        _seconds(found.longest_resuming),
    )


def _requests(found: Gauges) -> Iterator[Metric]:
    number: Counter[tuple[str, str]] = Counter()
    oldest = {tier.value: timedelta() for tier in Tier}
    for item in found.waiting:
        number[item.kind, item.tier] = item.number
        oldest[item.tier] = max(oldest[item.tier], item.oldest)
    waiting = GaugeMetricFamily(
        "banksman_requests_open", "Requests that wait. Kind outcome: a call of which nobody knows whether it happened.",
        labels=["kind", "tier"],
    )  # fmt: skip
    for kind in Kind:
        for tier in Tier:
            waiting.add_metric([kind.value, tier.value], number[kind.value, tier.value])
    yield waiting
    yield _labelled(
        "requests_oldest_open_seconds",
        "Age of the request that has waited longest.",
        "tier",
        {tier: _seconds(age) for tier, age in oldest.items()},
    )
    yield _gauge(
        "requests_unreachable",
        "Requests that wait and that nobody, or too few people, may decide.",
        sum(item.unreachable for item in found.waiting),
    )


def _gauge(name: str, help_text: str, value: float) -> GaugeMetricFamily:
    return GaugeMetricFamily(f"banksman_{name}", help_text, value)


def _labelled(name: str, help_text: str, label: str, values: Mapping[str, float]) -> GaugeMetricFamily:
    made = GaugeMetricFamily(f"banksman_{name}", help_text, labels=[label])
    for value, number in values.items():
        made.add_metric([value], number)
    return made


def _seconds(age: timedelta) -> float:
    # Two readings of the clock may cross.
    return max(0.0, age.total_seconds())
