"""The outbox of webhooks, which is the audit log: read on from a cursor, below the horizon of running transactions.

An event's deliveries are written in the transaction that moves the endpoint's cursor past it, under the endpoint's
lock, so that none is skipped and none is written twice, whatever is killed.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from datetime import timedelta

from banksman import ids, vault
from banksman.errors import NotGenuine, NotHere
from banksman.ids import BatchId, DeliveryId, EndpointId, RequestId, RunId
from banksman.ledger import Connection
from banksman.records import Parcel

log = logging.getLogger(__name__)


def tail(conn: Connection, *, limit: int) -> bool:
    """What each live endpoint has not been told yet → due, at most `limit` events on; whether there may be more.

    An endpoint that another notifier is at is left to it. What was purged meanwhile is told to nobody.
    """
    more = False
    behind = conn.execute(
        """
        SELECT id, events, xid::text, number
        FROM endpoints
        WHERE disabled_at IS NULL
        ORDER BY id
        FOR UPDATE SKIP LOCKED
        """
    ).fetchall()
    for endpoint, wanted, xid, number in behind:
        news = conn.execute(
            """
            SELECT xid::text, id, at, action, run_id, request_id
            FROM audit_events
            WHERE (xid, id) > (%s::xid8, %s) AND xid < audit_horizon()
            ORDER BY audit_events.xid, audit_events.id
            LIMIT %s
            """,
            (xid, number, limit),
        ).fetchall()
        if not news:
            continue
        told = [row for row in news if row[3] in wanted]
        if told:
            conn.execute(
                """
                INSERT INTO deliveries (id, endpoint_id, xid, number, happened_at, event, run_id, request_id)
                SELECT delivery, %s, its_xid::xid8, its_number, its_time, its_name, its_run, its_request
                FROM unnest(%s::uuid[], %s::text[], %s::bigint[], %s::timestamptz[], %s::text[], %s::uuid[], %s::uuid[])
                     AS told (delivery, its_xid, its_number, its_time, its_name, its_run, its_request)
                WHERE (its_run IS NULL OR EXISTS (SELECT FROM runs WHERE runs.id = its_run))
                  AND (its_request IS NULL OR EXISTS (SELECT FROM requests WHERE requests.id = its_request))
                """,
                [endpoint, [ids.new() for _ in told], *(list(column) for column in zip(*told, strict=True))],
            )
        conn.execute(
            "UPDATE endpoints SET xid = %s::xid8, number = %s WHERE id = %s", (news[-1][0], news[-1][1], endpoint)
        )
        more = more or len(news) == limit
    return more


def claim(conn: Connection, *, lease: timedelta, limit: int) -> Sequence[Parcel]:
    """Due, or claimed by one who died → claimed, all for one endpoint that nobody sends to at the moment."""
    rows = conn.execute(
        """
        WITH waiting AS (
            SELECT id, (SELECT min(due_at) FROM deliveries
                        WHERE endpoint_id = endpoints.id AND state IN ('due', 'claimed')) AS first_due
            FROM endpoints
            WHERE disabled_at IS NULL
              AND NOT EXISTS (
                  SELECT FROM deliveries
                  WHERE endpoint_id = endpoints.id AND state = 'claimed' AND due_at > statement_timestamp())
        ), next AS (
            SELECT id AS endpoint_id
            FROM waiting
            WHERE first_due <= statement_timestamp()
            ORDER BY first_due
            LIMIT 1
        ), picked AS (
            SELECT id
            FROM deliveries
            WHERE endpoint_id = (SELECT endpoint_id FROM next)
              AND state IN ('due', 'claimed') AND due_at <= statement_timestamp()
            ORDER BY due_at, id
            LIMIT %(limit)s
            FOR UPDATE SKIP LOCKED
        )
        UPDATE deliveries
        SET state = 'claimed', due_at = clock_timestamp() + %(lease)s, fence = fence + 1, attempts = attempts + 1
        FROM picked, endpoints
        WHERE deliveries.id = picked.id AND endpoints.id = deliveries.endpoint_id
        RETURNING deliveries.id, deliveries.endpoint_id, deliveries.fence, deliveries.attempts, event, happened_at,
                  deliveries.run_id, request_id, endpoints.url, endpoints.secret,
                  CASE WHEN old_until > clock_timestamp() THEN old_secret END,
                  (SELECT batch_id FROM runs WHERE runs.id = deliveries.run_id),
                  tried_from + interval '1 day' - clock_timestamp()
        """,
        {"lease": lease, "limit": limit},
    ).fetchall()
    found: list[Parcel] = []
    for delivery, endpoint, fence, attempts, event, at, run, request, url, secret, old, batch, left in sorted(
        rows, key=lambda row: row[0]
    ):
        sealed = [secret] if old is None else [secret, old]
        try:
            place = vault.open_sealed(url, ("endpoints.url", endpoint)).decode()
            secrets = tuple(vault.open_sealed(text, ("endpoints.secret", endpoint)).decode() for text in sealed)
        except (NotGenuine, NotHere) as error:
            # It fails like one that does not answer: the other endpoints go on.
            log.error("The endpoint %s cannot be read: %s", ids.show("end", endpoint), error)  # noqa: TRY400
            place, secrets = "", ()
        found.append(
            Parcel(
                id=DeliveryId(delivery),
                endpoint_id=EndpointId(endpoint),
                fence=fence,
                attempts=attempts,
                event=event,
                happened_at=at,
                run_id=run and RunId(run),
                request_id=request and RequestId(request),
                batch_id=batch and BatchId(batch),
                url=place,
                secrets=secrets,
                left=left,
            )
        )
    return found


def sent(conn: Connection, parcel: Parcel) -> bool:
    """Claimed → sent; whatever ailed the endpoint is over."""
    conn.execute(
        "UPDATE endpoints SET failing_since = NULL WHERE id = %s AND failing_since IS NOT NULL", (parcel.endpoint_id,)
    )
    return (
        conn.execute(
            """
            UPDATE deliveries SET state = 'sent', due_at = NULL, sent_at = clock_timestamp(), last_error = NULL
            WHERE id = %s AND fence = %s AND state = 'claimed'
            """,
            (parcel.id, parcel.fence),
        ).rowcount
        == 1
    )


def failed(conn: Connection, parcel: Parcel, *, error: str, delay: timedelta | None) -> timedelta:
    """Claimed → due again after `delay`, or dead without one; how long the endpoint has been failing."""
    conn.execute(
        """
        UPDATE deliveries
        SET state = CASE WHEN %(delay)s::interval IS NULL THEN 'dead' ELSE 'due' END,
            due_at = clock_timestamp() + %(delay)s::interval, last_error = %(error)s
        WHERE id = %(id)s AND fence = %(fence)s AND state = 'claimed'
        """,
        {"delay": delay, "error": error[:500], "id": parcel.id, "fence": parcel.fence},
    )
    row = conn.execute(
        """
        UPDATE endpoints SET failing_since = COALESCE(failing_since, clock_timestamp())
        WHERE id = %s
        RETURNING clock_timestamp() - failing_since
        """,
        (parcel.endpoint_id,),
    ).fetchone()
    assert row is not None
    return row[0]


def put_back(conn: Connection, parcels: Sequence[Parcel], *, delay: timedelta) -> None:
    """Claimed → due after a while; these were not tried."""
    conn.execute(
        """
        UPDATE deliveries SET state = 'due', due_at = clock_timestamp() + %s, attempts = attempts - 1
        FROM unnest(%s::uuid[], %s::integer[]) AS claimed (delivery, its_fence)
        WHERE id = delivery AND fence = its_fence AND state = 'claimed'
        """,
        (delay, [parcel.id for parcel in parcels], [parcel.fence for parcel in parcels]),
    )


def purge(conn: Connection, *, limit: int = 1000) -> bool:
    """Sent or dead for a month → gone, at most `limit` of them; whether there may be more."""
    return (
        conn.execute(
            """
            DELETE FROM deliveries
            WHERE id IN (
                SELECT id
                FROM deliveries
                WHERE state IN ('sent', 'dead') AND happened_at < clock_timestamp() - interval '30 days'
                ORDER BY happened_at
                LIMIT %s
                FOR UPDATE SKIP LOCKED)
            """,
            (limit,),
        ).rowcount
        == limit
    )
