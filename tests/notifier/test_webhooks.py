"""Webhooks: signed as Standard Webhooks has it, to whoever receives badly too, and each event once in the outbox."""

from __future__ import annotations

import gzip
import json
import socket
import time
from base64 import b64encode
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta
from functools import partial
from pathlib import Path

import psycopg
import pytest
from standardwebhooks import Webhook, WebhookVerificationError

from banksman import ids, ledger
from banksman.ids import EndpointId, RequestId, RunId
from banksman.ledger import Connection, audit, endpoints, requests, staff, telling
from banksman.ledger import outbox as rows
from banksman.records import Event, Person
from banksman_notifier import outbox
from banksman_notifier.channels import ChannelError, webhook
from banksman_notifier.channels.webhook import Call, Outside
from banksman_notifier.deliver import Office
from banksman_notifier.outbox import Outbox
from tests.conftest import Database
from tests.notifier.conftest import HOME, AskFor, Door
from tests.notifier.receivers import Posted, Receiver, receiver, says
from tests.notifier.test_gathering import run_of
from tests.notifier.tls import Authority

SECRET, OLD = ("whsec_" + b64encode(letter * 32).decode() for letter in (b"n", b"o"))
BODY = b'{"type":"request.opened"}'


def verified(posted: Posted, secret: str = SECRET) -> object:
    return Webhook(secret).verify(posted.body, dict(posted.headers))


def test_a_call_verifies_with_an_independent_library_under_either_secret() -> None:
    with receiver(says(204)) as there, webhook.opened(Outside(there.free)) as way:
        way.send(Call("dlv_1", there.url, [SECRET, OLD], BODY))

    [posted] = there.posted
    assert verified(posted) == verified(posted, OLD) == {"type": "request.opened"}
    assert posted.headers["webhook-id"] == "dlv_1"
    assert posted.headers["accept-encoding"] == "identity"
    assert posted.line == "POST /hook HTTP/1.1"
    with pytest.raises(WebhookVerificationError):
        verified(posted, "whsec_" + b64encode(b"x" * 32).decode())
    with pytest.raises(WebhookVerificationError):
        verified(replace(posted, body=BODY + b" "))


def drips(text: bytes) -> Callable[[socket.socket], None]:
    def answer(line: socket.socket) -> None:
        with suppress(OSError):
            for letter in text * 1000:
                line.sendall(bytes([letter]))
                time.sleep(0.05)

    return answer


def sends(text: bytes, *, times: int = 1) -> Callable[[socket.socket], None]:
    def answer(line: socket.socket) -> None:
        with suppress(OSError):
            for _ in range(times):
                line.sendall(text)

    return answer


def waits(line: socket.socket) -> None:
    with suppress(OSError):
        line.recv(1)


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        pytest.param(waits, "did not answer within", id="silent"),
        pytest.param(drips(b"HTTP/1.1 200 OK\r\nX-A: b\r\n"), "did not answer within", id="drips headers"),
        pytest.param(drips(b"H"), "did not answer within", id="drips a status"),
        pytest.param(sends(b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 4000), "made no sense", id="endless headers"),
        pytest.param(sends(b"HTTP/1.1 200 " + b"x" * 100_000), "made no sense", id="endless status"),
        pytest.param(sends(b"HTTP/1.1 100 Continue\r\n\r\n", times=5000), "made no sense", id="endless continuing"),
        pytest.param(sends(b""), "made no sense", id="hangs up"),
        pytest.param(sends(b"\x16\x03\x01 not http"), "made no sense", id="speaks something else"),
        pytest.param(sends(b"SSH-2.0-OpenSSH_9\r\n"), "made no sense", id="is a server of another kind"),
        pytest.param(says(302, head="Location: http://169.254.169.254/latest\r\n"), "not followed", id="redirects"),
        pytest.param(says(307, head="Location: /elsewhere\r\n"), "not followed", id="redirects to itself"),
        pytest.param(says(500), "answered 500", id="is broken"),
        pytest.param(says(401), "answered 401", id="refuses"),
    ],
)
def test_a_bad_receiver_is_a_failure_that_takes_no_longer_than_a_call_may(
    answer: Callable[[socket.socket], None], words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(webhook, "SECONDS", 0.6)
    began = time.monotonic()

    with receiver(answer) as there:
        with webhook.opened(Outside(there.free)) as way, pytest.raises(ChannelError, match=words) as caught:
            way.send(Call("dlv_1", there.url, [SECRET], BODY))
        took = time.monotonic() - began

    assert caught.value.retryable
    assert took < 20
    assert len(there.posted) == 1


def agrees_and_drips(line: socket.socket) -> None:
    line.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
    drips(b"x")(line)


BOMB = gzip.compress(b"\0" * 50_000_000)


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(says(200, head="Content-Length: 99999999999\r\n", body=b"short"), id="says it is longer"),
        pytest.param(says(200, head="Content-Length: 1\r\n", body=b"x" * 1000), id="says it is shorter"),
        pytest.param(says(200, head="Content-Length: -5\r\n"), id="says it is negative"),
        pytest.param(says(200, head="Content-Length: 1\r\nContent-Length: 2\r\n", body=b"ab"), id="says two lengths"),
        pytest.param(says(200, head="Content-Encoding: gzip\r\n", body=BOMB), id="is a bomb"),
        pytest.param(says(200, head="Transfer-Encoding: chunked\r\n", body=b"ffffffff\r\n"), id="is chunked for ever"),
        pytest.param(agrees_and_drips, id="drips a body"),
    ],
)
def test_what_a_receiver_says_after_it_said_yes_is_not_read(
    answer: Callable[[socket.socket], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(webhook, "SECONDS", 30.0)
    began = time.monotonic()

    with receiver(answer) as there, webhook.opened(Outside(there.free)) as way:
        way.send(Call("dlv_1", there.url, [SECRET], BODY))
        took = time.monotonic() - began

    assert took < 15


def test_over_tls_the_certificate_must_be_the_hosts_own_wherever_its_address_is(tmp_path: Path) -> None:
    authority = Authority(tmp_path)

    def to_us(_host: str, _port: int, _within: float) -> list[str]:
        return ["127.0.0.1"]

    with receiver(says(200), authority.server("hooks.acme.org")) as there:
        free = frozenset({("hooks.acme.org", there.port), ("other.acme.org", there.port)})
        outside = Outside(free, to_us, authority.trust)
        with webhook.opened(outside) as way:
            way.send(Call("dlv_1", f"https://hooks.acme.org:{there.port}/x", [SECRET], BODY))
            with pytest.raises(ChannelError, match="certificate") as caught:
                way.send(Call("dlv_2", f"https://other.acme.org:{there.port}/x", [SECRET], BODY))
        assert caught.value.retryable
        with webhook.opened(replace(outside, trust=None)) as way, pytest.raises(ChannelError, match="certificate"):
            way.send(Call("dlv_3", f"https://hooks.acme.org:{there.port}/x", [SECRET], BODY))

    assert [posted.headers["host"] for posted in there.posted] == [f"hooks.acme.org:{there.port}"]


def test_a_name_that_leads_inside_is_not_connected_to() -> None:
    def rebound(_host: str, _port: int, _within: float) -> list[str]:
        return ["127.0.0.1"]

    with receiver(says(200)) as there, webhook.opened(Outside(resolve=rebound)) as way:
        with pytest.raises(ChannelError, match="no public address") as caught:
            way.send(Call("dlv_1", "https://hooks.acme.org/x", [SECRET], BODY))
        with pytest.raises(ChannelError, match="port 443") as never:
            way.send(Call("dlv_1", f"https://hooks.acme.org:{there.port}/x", [SECRET], BODY))

    assert caught.value.retryable
    assert not never.value.retryable
    assert there.posted == []


@pytest.fixture
def there() -> Iterator[Receiver]:
    with receiver(says(204)) as found:
        yield found


@pytest.fixture
def box(office: Office, there: Receiver) -> Outbox:
    return Outbox(office.pool, office.gateway, partial(webhook.opened, Outside(there.free)))


@pytest.fixture
def endpoint(gateway_pool: ledger.Pool, there: Receiver) -> EndpointId:
    return an_endpoint(gateway_pool, there.url)


def an_endpoint(pool: ledger.Pool, url: str, *events: str) -> EndpointId:
    made = EndpointId(ids.new())
    with ledger.transaction(pool) as conn:
        admin = staff.upsert(conn, "ada@example.org", name="Ada", roles=["admin"])
        endpoints.create(conn, made, url=url, secret=SECRET, events=events or endpoints.EVENTS, by=admin.id)
    return made


def say(pool: ledger.Pool, *actions: str) -> None:
    with ledger.transaction(pool) as conn:
        audit.append(conn, *(Event("somebody", action) for action in actions))


def drain(box: Outbox) -> None:
    outbox.tail(box)
    while parcels := outbox.claim(box):
        outbox.send(box, parcels)


def heard(there: Receiver) -> list[str]:
    return [json.loads(posted.body)["type"] for posted in there.posted]


def test_an_endpoint_hears_what_it_wants_to_hear_from_now_on_and_nothing_of_content(
    box: Outbox, there: Receiver, asked: AskFor, gateway_pool: ledger.Pool, owner_pool: ledger.Pool,
    reviewers: tuple[Person, Person],
) -> None:  # fmt: skip
    say(gateway_pool, "run.finished")
    an_endpoint(gateway_pool, there.url, "request.opened", "request.cancelled")
    [notice] = asked(tell=reviewers[:1])
    run = run_of(owner_pool, notice)
    with ledger.transaction(gateway_pool) as conn:
        _, request = requests.cancel_open(conn, [run])[0]
        told = [Event("x", action, run, request) for action in ("request.opened", "run.parked", "request.cancelled")]
        audit.append(conn, *told)

    drain(box)

    assert heard(there) == ["request.opened", "request.cancelled"]
    said = json.loads(there.posted[1].body)
    shown_run, shown_request = ids.show("run", run), ids.show("req", request)
    assert said["data"] == {
        "state": "cancelled",
        "request_id": shown_request,
        "run_id": shown_run,
        "links": {
            "request": f"{HOME}/v1/requests/{shown_request}",
            "request_page": f"{HOME}/requests/{shown_request}",
            "run": f"{HOME}/v1/runs/{shown_run}",
            "run_page": f"{HOME}/runs/{shown_run}",
        },
    }
    assert verified(there.posted[0])
    assert b"canary" not in there.posted[0].body


@pytest.mark.usefixtures("endpoint")
def test_what_was_purged_meanwhile_is_told_to_nobody_and_stops_nothing(
    box: Outbox, there: Receiver, gateway_pool: ledger.Pool
) -> None:
    with ledger.transaction(gateway_pool) as conn:
        purged = RunId(ids.new())
        audit.append(
            conn, Event("x", "run.finished", purged), Event("x", "request.denied", purged, RequestId(ids.new()))
        )
    say(gateway_pool, "run.failed")

    drain(box)

    assert heard(there) == ["run.failed"]


def test_an_endpoint_that_cannot_be_read_fails_alone(
    box: Outbox, there: Receiver, endpoint: EndpointId, gateway_pool: ledger.Pool, owner_pool: ledger.Pool,
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    other = an_endpoint(gateway_pool, there.url)
    with ledger.transaction(owner_pool) as conn:
        conn.execute("UPDATE endpoints SET url = secret WHERE id = %s", (endpoint,))
    say(gateway_pool, "run.finished")

    drain(box)

    with ledger.transaction(gateway_pool) as conn:
        [broken], [told] = (endpoints.deliveries(conn, one) for one in (endpoint, other))
    assert heard(there) == ["run.finished"]
    assert (told.state, broken.state, broken.attempts) == ("sent", "due", 1)
    assert "cannot be read" in str(broken.last_error)
    assert ids.show("end", endpoint) in caplog.text


@pytest.mark.usefixtures("endpoint")
def test_a_transaction_that_commits_late_is_neither_skipped_nor_told_twice(
    box: Outbox, there: Receiver, gateway_pool: ledger.Pool
) -> None:
    with ledger.transaction(gateway_pool) as slow:
        audit.append(slow, Event("slow", "run.failed"))
        say(gateway_pool, "run.finished")
        drain(box)
        before = heard(there)
    drain(box)
    drain(box)

    assert before == []
    assert heard(there) == ["run.failed", "run.finished"]


@pytest.mark.usefixtures("endpoint")
def test_events_are_told_in_the_order_of_numbers_and_not_of_their_spelling(
    box: Outbox, there: Receiver, database: Database, notifier_pool: ledger.Pool
) -> None:
    with psycopg.connect(database.owner) as conn:
        conn.execute("UPDATE endpoints SET xid = '5'")
        for xid, action in (("9", "run.failed"), ("10", "run.finished"), ("11", "run.finished")):
            conn.execute("INSERT INTO audit_events (xid, actor, action) VALUES (%s, 'x', %s)", (xid, action))

    for _ in range(3):
        with ledger.transaction(notifier_pool) as conn:
            rows.tail(conn, limit=2)
    drain(box)

    assert heard(there) == ["run.failed", "run.finished", "run.finished"]


@pytest.mark.usefixtures("endpoint")
def test_what_was_written_down_and_not_committed_is_written_down_again(
    box: Outbox, there: Receiver, gateway_pool: ledger.Pool, notifier_pool: ledger.Pool
) -> None:
    say(gateway_pool, *["run.finished"] * 5)

    def dies(conn: Connection) -> None:
        rows.tail(conn, limit=3)
        raise RuntimeError("killed")

    with pytest.raises(RuntimeError, match="killed"), ledger.transaction(notifier_pool) as conn:
        dies(conn)
    drain(box)

    assert len(heard(there)) == len({posted.headers["webhook-id"] for posted in there.posted}) == 5


@pytest.mark.usefixtures("endpoint")
def test_two_notifiers_write_each_event_down_once(
    box: Outbox, there: Receiver, gateway_pool: ledger.Pool, notifier_pool: ledger.Pool
) -> None:
    say(gateway_pool, *["run.finished"] * 3)
    with ledger.transaction(notifier_pool) as first:
        rows.tail(first, limit=100)
        with ledger.transaction(notifier_pool) as second:
            rows.tail(second, limit=100)
    drain(box)

    assert len(there.posted) == 3


@pytest.mark.usefixtures("endpoint")
def test_a_failure_is_tried_again_under_the_same_id_and_given_up_after_a_day(
    box: Outbox, there: Receiver, gateway_pool: ledger.Pool, owner_pool: ledger.Pool
) -> None:
    there.answer = says(503)
    say(gateway_pool, "run.finished", "run.failed")
    for _ in range(2):
        drain(box)
        with ledger.transaction(owner_pool) as conn:
            conn.execute("UPDATE deliveries SET due_at = now() WHERE state = 'due'")
    assert heard(there) == ["run.finished"] * 2
    assert len({posted.headers["webhook-id"] for posted in there.posted}) == 1

    with ledger.transaction(owner_pool) as conn:
        conn.execute("UPDATE deliveries SET tried_from = tried_from - interval '25 hours'")
    drain(box)
    with ledger.transaction(owner_pool) as conn:
        conn.execute("UPDATE deliveries SET due_at = now() WHERE state = 'due'")
    drain(box)

    with ledger.transaction(owner_pool) as conn:
        found = conn.execute("SELECT state, last_error FROM deliveries").fetchall()
    assert found == [("dead", "The receiver answered 503.")] * 2


def test_a_dead_delivery_is_sent_once_more_when_somebody_asks(
    box: Outbox, there: Receiver, gateway_pool: ledger.Pool, owner_pool: ledger.Pool, endpoint: EndpointId
) -> None:
    say(gateway_pool, "run.finished")
    outbox.tail(box)
    with ledger.transaction(owner_pool) as conn:
        conn.execute("UPDATE deliveries SET state = 'dead', due_at = NULL, tried_from = now() - interval '9 days'")
    with ledger.transaction(gateway_pool) as conn:
        assert endpoints.get(conn, endpoint).dead == 1
        assert endpoints.redeliver(conn, endpoint, None) == 1

    drain(box)

    assert heard(there) == ["run.finished"]
    with ledger.transaction(gateway_pool) as conn:
        [kept] = endpoints.deliveries(conn, endpoint)
    assert (kept.state, ids.show("dlv", kept.id)) == ("sent", there.posted[0].headers["webhook-id"])


@pytest.mark.parametrize(("answer", "earlier"), [(says(410), timedelta()), (says(500), timedelta(days=4))])
def test_an_endpoint_that_is_gone_or_fails_for_days_is_disabled_and_can_be_enabled(
    answer: Callable[[socket.socket], None], earlier: timedelta, box: Outbox, there: Receiver, endpoint: EndpointId,
    gateway_pool: ledger.Pool, owner_pool: ledger.Pool,
) -> None:  # fmt: skip
    there.answer = answer
    if earlier:
        with ledger.transaction(owner_pool) as conn:
            conn.execute("UPDATE endpoints SET failing_since = now() - %s::interval", (earlier,))
    say(gateway_pool, "run.finished")
    drain(box)
    with ledger.transaction(gateway_pool) as conn:
        found = endpoints.get(conn, endpoint)
        told = [event.action for event in audit.since(conn, (0, 0))]
    assert found.disabled_because
    assert "endpoint.disabled" in told

    say(gateway_pool, "run.failed")
    there.answer = says(200)
    drain(box)
    assert len(there.posted) == 1
    with ledger.transaction(gateway_pool) as conn:
        assert endpoints.enable(conn, endpoint)
    drain(box)

    assert heard(there)[1:] == ["run.failed"] if not earlier else "run.failed" in heard(there)


def test_what_was_due_and_dead_for_a_removed_endpoint_is_counted_no_more(
    box: Outbox, gateway_pool: ledger.Pool, owner_pool: ledger.Pool, endpoint: EndpointId
) -> None:
    say(gateway_pool, *["run.finished"] * 3)
    outbox.tail(box)
    assert outbox.claim(box)
    with ledger.transaction(owner_pool) as conn:
        conn.execute(
            "UPDATE deliveries SET state = 'dead', due_at = NULL"
            " WHERE id IN (SELECT id FROM deliveries ORDER BY id LIMIT 1)"
        )
    with ledger.transaction(gateway_pool) as conn:
        before = telling.counts(conn).webhooks
        endpoints.remove(conn, endpoint)

    with ledger.transaction(gateway_pool) as conn:
        after = telling.counts(conn).webhooks

    assert (before, sum(after.values())) == ({"claimed": 2, "dead": 1}, 0)


def test_a_slow_endpoint_has_one_sender_and_keeps_no_other_waiting(
    box: Outbox, there: Receiver, gateway_pool: ledger.Pool, endpoint: EndpointId
) -> None:
    other = an_endpoint(gateway_pool, there.url)
    say(gateway_pool, *["run.finished"] * 30)
    outbox.tail(box)

    first, second, none = outbox.claim(box), outbox.claim(box), outbox.claim(box)

    assert {first[0].endpoint_id, second[0].endpoint_id} == {endpoint, other}
    assert (len(first), len(second), len(none)) == (outbox.HANDFUL, outbox.HANDFUL, 0)


@pytest.mark.usefixtures("endpoint")
def test_a_gateway_that_is_away_costs_no_attempt(
    box: Outbox, there: Receiver, door: Door, gateway_pool: ledger.Pool, owner_pool: ledger.Pool
) -> None:
    door.status = 503
    say(gateway_pool, "run.finished")
    drain(box)

    with ledger.transaction(owner_pool) as conn:
        found = conn.execute("SELECT state, attempts FROM deliveries").fetchall()
    assert (found, there.posted) == ([("due", 0)], [])


def test_what_has_been_over_for_a_month_is_forgotten_and_nothing_else(
    box: Outbox, endpoint: EndpointId, gateway_pool: ledger.Pool, owner_pool: ledger.Pool,
) -> None:  # fmt: skip
    say(gateway_pool, *["run.finished"] * 6)
    outbox.tail(box)
    with ledger.transaction(owner_pool) as conn:
        found = [row[0] for row in conn.execute("SELECT id FROM deliveries ORDER BY id").fetchall()]
        for delivery, state, days in zip(
            found, ("sent", "dead", "sent", "dead", "due", "claimed"), (31, 31, 29, 29, 31, 31), strict=True
        ):
            conn.execute(
                "UPDATE deliveries SET state = %(state)s, happened_at = now() - %(days)s * interval '1 day',"
                " due_at = CASE WHEN %(state)s IN ('due', 'claimed') THEN due_at END WHERE id = %(id)s",
                {"state": state, "days": days, "id": delivery},
            )
        assert found

    with ledger.transaction(box.pool) as conn:
        more = rows.purge(conn, limit=1)
    outbox.purge(box)

    assert more
    with ledger.transaction(owner_pool) as conn:
        left = conn.execute("SELECT id FROM deliveries WHERE endpoint_id = %s ORDER BY id", (endpoint,)).fetchall()
    assert [row[0] for row in left] == found[2:]
