"""Endpoints: where webhooks go, who made them, and what became of each delivery. Only the notifier sends (`outbox`)."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

from banksman import ids, vault
from banksman.errors import NotFound
from banksman.ids import DeliveryId, EndpointId, PersonId, RequestId, RunId
from banksman.ledger import Connection
from banksman.records import Delivery, Endpoint

EVENTS = (
    *("request.opened", "request.approved", "request.denied", "request.answered", "request.expired"),
    *("request.cancelled", "request.superseded", "request.revised"),
    *("run.finished", "run.failed", "run.cancelled", "run.stuck"),
)
"""What an endpoint can be told: the audit log's own names."""


def create(
    conn: Connection, endpoint_id: EndpointId, *, url: str, secret: str, events: Sequence[str], by: PersonId
) -> None:
    """Nothing → live: told of everything that is committed from now on."""
    conn.execute(
        """
        INSERT INTO endpoints (id, url, secret, events, created_by)
        VALUES (%s, %s, %s, %s, %s)
        """,
        (
            endpoint_id,
            vault.seal(url.encode(), ("endpoints.url", endpoint_id)),
            vault.seal(secret.encode(), ("endpoints.secret", endpoint_id)),
            list(events),
            by,
        ),
    )


def everything(conn: Connection) -> Sequence[Endpoint]:
    """All endpoints that were not removed, oldest first."""
    rows = conn.execute(f"{_SELECT} WHERE endpoints.removed_at IS NULL ORDER BY endpoints.id").fetchall()
    return [_endpoint(row) for row in rows]


def get(conn: Connection, endpoint_id: EndpointId) -> Endpoint:
    """The endpoint, or `NotFound`."""
    row = conn.execute(f"{_SELECT} WHERE endpoints.id = %s AND endpoints.removed_at IS NULL", (endpoint_id,)).fetchone()
    if row is None:
        raise NotFound(f"There is no endpoint {ids.show('end', endpoint_id)}.")
    return _endpoint(row)


def disable(conn: Connection, endpoint_id: EndpointId, because: str) -> bool:
    """Live → disabled: nothing more is sent there, and nothing more is written down for it."""
    return (
        conn.execute(
            """
            UPDATE endpoints SET disabled_at = clock_timestamp(), disabled_because = %s
            WHERE id = %s AND disabled_at IS NULL
            """,
            (because, endpoint_id),
        ).rowcount
        == 1
    )


def enable(conn: Connection, endpoint_id: EndpointId) -> bool:
    """Disabled → live: it is told what it missed, from where it was told last."""
    return (
        conn.execute(
            """
            UPDATE endpoints SET disabled_at = NULL, disabled_because = NULL, failing_since = NULL
            WHERE id = %s AND disabled_at IS NOT NULL AND removed_at IS NULL
            """,
            (endpoint_id,),
        ).rowcount
        == 1
    )


def remove(conn: Connection, endpoint_id: EndpointId) -> None:
    """Whatever it was → removed, for good; its secrets are forgotten, and what is due for it is given up."""
    nothing = vault.seal(b"", ("endpoints.secret", endpoint_id))
    conn.execute(
        """
        UPDATE endpoints
        SET removed_at = clock_timestamp(), disabled_at = COALESCE(disabled_at, clock_timestamp()),
            disabled_because = COALESCE(disabled_because, 'removed'), secret = %s, old_secret = NULL, old_until = NULL
        WHERE id = %s AND removed_at IS NULL
        """,
        (nothing, endpoint_id),
    )
    conn.execute(
        "UPDATE deliveries SET state = 'dead', due_at = NULL WHERE endpoint_id = %s AND state IN ('due', 'claimed')",
        (endpoint_id,),
    )


def rotate(conn: Connection, endpoint_id: EndpointId, secret: str, *, overlap: timedelta) -> None:
    """One secret → a new one; the old one signs as well for a while."""
    conn.execute(
        """
        UPDATE endpoints SET old_secret = secret, old_until = clock_timestamp() + %s, secret = %s
        WHERE id = %s AND removed_at IS NULL
        """,
        (overlap, vault.seal(secret.encode(), ("endpoints.secret", endpoint_id)), endpoint_id),
    )


def deliveries(
    conn: Connection,
    endpoint_id: EndpointId,
    *,
    state: str | None = None,
    before: DeliveryId | None = None,
    limit: int = 50,
) -> Sequence[Delivery]:
    """What was written down for an endpoint, newest first."""
    rows = conn.execute(
        """
        SELECT id, event, run_id, request_id, happened_at, state, attempts, due_at, sent_at, last_error
        FROM deliveries
        WHERE endpoint_id = %(endpoint)s AND (%(state)s::text IS NULL OR state = %(state)s)
          AND (%(before)s::uuid IS NULL OR id < %(before)s)
        ORDER BY id DESC
        LIMIT %(limit)s
        """,
        {"endpoint": endpoint_id, "state": state, "before": before, "limit": limit},
    ).fetchall()
    return [
        Delivery(
            DeliveryId(row[0]), row[1], row[2] and RunId(row[2]), row[3] and RequestId(row[3]), row[4], row[5], *row[6:]
        )
        for row in rows
    ]


def redeliver(conn: Connection, endpoint_id: EndpointId, delivery_id: DeliveryId | None) -> int:
    """Sent or dead → due once more, for another day, under the same webhook-id; without an id all that are dead."""
    return conn.execute(
        """
        UPDATE deliveries
        SET state = 'due', due_at = clock_timestamp(), tried_from = clock_timestamp(), attempts = 0
        WHERE endpoint_id = %(endpoint)s
          AND (state = 'dead' AND %(one)s::uuid IS NULL OR state IN ('sent', 'dead') AND id = %(one)s)
        """,
        {"endpoint": endpoint_id, "one": delivery_id},
    ).rowcount


_SELECT = """
        SELECT endpoints.id, url, events, email, endpoints.created_at, endpoints.disabled_at, disabled_because,
               failing_since, old_until > clock_timestamp(),
               (SELECT count(*) FROM deliveries WHERE endpoint_id = endpoints.id AND state = 'dead')
        FROM endpoints
        JOIN people ON people.id = created_by"""


def _endpoint(row: Sequence[Any]) -> Endpoint:
    endpoint, url, events, by, created_at, disabled_at, because, failing_since, rotating, dead = row
    return Endpoint(
        id=EndpointId(endpoint),
        url=vault.open_sealed(url, ("endpoints.url", endpoint)).decode(),
        events=tuple(events),
        created_by=by,
        created_at=created_at,
        disabled_at=disabled_at,
        disabled_because=because,
        failing_since=failing_since,
        rotating=bool(rotating),
        dead=dead,
    )
