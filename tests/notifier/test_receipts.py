"""Receipts by mail: what somebody's votes of a day came to, in counts, and where to see each of them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from banksman import ids, ledger
from banksman.ids import NoticeId, RequestId, VoteId
from banksman.ledger import insights, notices, requests, votes
from banksman.records import Person, Vote
from banksman.states import Verdict
from banksman_notifier.deliver import Office, deliver
from tests.notifier.conftest import AskFor, Catcher

EVIL = "pay\r\nBcc: evil@example.org"


def test_a_receipt_tells_in_counts_what_the_votes_of_a_day_came_to(
    gathering_office: Office,
    catcher: Catcher,
    asked: AskFor,
    reviewers: tuple[Person, Person],
    gateway_pool: ledger.Pool,
    owner_pool: ledger.Pool,
) -> None:
    ana, ben = reviewers
    for tool, verdict in (("refund", Verdict.APPROVE), ("refund", Verdict.APPROVE), (EVIL, Verdict.DENY)):
        [notice] = asked(tell=[ana], tool=tool)
        said(gateway_pool, notice, ana, verdict)
    the_day_is_over(gateway_pool, owner_pool)

    while deliver(gathering_office):
        pass

    [receipt] = [mail for mail in catcher.mails if mail["Subject"].startswith("What your votes did")]
    part = receipt.get_body(("plain",))
    assert part is not None
    text = part.get_content()
    assert receipt["To"] == ana.email
    assert "You voted 3 times" in text
    assert "2 x approve refund of sysadmin: has not run" in text
    assert "1 x deny pay??Bcc: evil@example.org of sysadmin: has not run" in text
    assert receipt["Bcc"] is None
    assert ben.email not in text


def said(pool: ledger.Pool, notice: NoticeId, who: Person, verdict: Verdict) -> None:
    with ledger.transaction(pool) as conn:
        request_id = notices.get(conn, notice).request_id
        assert request_id is not None
        digest = requests.get(conn, RequestId(request_id)).digest
        vote = Vote(VoteId(ids.new()), request_id, 1, digest, verdict, "session", who.id, mac="of no matter here")
        assert votes.cast(conn, vote)


def the_day_is_over(gateway: ledger.Pool, owner: ledger.Pool) -> None:
    with ledger.transaction(owner) as conn:
        conn.execute("ALTER TABLE votes DISABLE TRIGGER USER")
        conn.execute("UPDATE votes SET created_at = created_at - interval '1 hour'")
        conn.execute("ALTER TABLE votes ENABLE TRIGGER USER")
    with ledger.transaction(gateway) as conn:
        [notice] = insights.queue_receipts(conn, hour=datetime.now(UTC).hour)
        assert notices.get(conn, notice).expires_at > datetime.now(UTC) + timedelta(days=6)
