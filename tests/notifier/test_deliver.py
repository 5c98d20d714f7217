"""Delivery: at least once, a repeat being the same mail; nobody is told what nobody needs to know any more."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta

import psycopg
import pytest

from banksman import ids, ledger
from banksman.ids import NoticeId
from banksman.ledger import audit, notices, requests, sign_ins, staff
from banksman.records import Person
from banksman.states import Kind, NoticeState, Tier
from banksman_notifier.deliver import Office, deliver
from tests.conftest import Database
from tests.notifier.conftest import AskFor, Catcher, Door

LINK = re.compile(r"http://localhost:8420/l/bk1\.k1\.[\w-]{22}\.[\w-]{43}")


def state(pool: ledger.Pool, notice: NoticeId) -> NoticeState:
    with ledger.transaction(pool) as conn:
        return notices.get(conn, notice).state


def make_due(pool: ledger.Pool, notice: NoticeId) -> None:
    """Let time pass, for one notice."""
    with ledger.transaction(pool) as conn:
        conn.execute("UPDATE notices SET due_at = clock_timestamp() WHERE id = %s", (notice,))


def body(catcher: Catcher, number: int = 0, form: str = "plain") -> str:
    part = catcher.mails[number].get_body((form,))
    assert part is not None
    return part.get_content().replace("\r\n", "\n")


def test_each_reviewer_gets_one_mail_with_a_link_of_their_own(
    asked: AskFor, office: Office, catcher: Catcher, owner_pool: ledger.Pool
) -> None:
    told = asked()

    assert deliver(office, told) == 2

    assert sorted(catcher.recipients) == [["ana@example.org"], ["ben@example.org"]]
    assert len({found[0] for number in (0, 1) if (found := LINK.findall(body(catcher, number)))}) == 2
    assert [state(owner_pool, notice) for notice in told] == [NoticeState.SENT] * 2
    assert catcher.connections == 1


def test_the_links_of_a_handful_are_asked_for_in_one_call(
    asked: AskFor, office: Office, door: Door, catcher: Catcher
) -> None:
    told = [*asked(), *asked(), *asked()]

    assert deliver(office, told) == 6

    assert (door.calls, sorted(door.asked)) == (1, sorted(told))
    assert len(catcher.raw) == 6


def test_one_notice_without_a_link_does_not_hold_up_the_others(
    asked: AskFor, office: Office, door: Door, catcher: Catcher, owner_pool: ledger.Pool
) -> None:
    told = asked()
    door.refused.add(told[0])

    deliver(office, told)

    assert catcher.recipients == [["ben@example.org"]]
    assert [state(owner_pool, notice) for notice in told] == [NoticeState.DUE, NoticeState.SENT]


def test_the_mail_says_who_wants_what_until_when_and_never_the_arguments(
    asked: AskFor, office: Office, catcher: Catcher, reviewers: tuple[Person, Person]
) -> None:
    asked(tell=reviewers[:1], on_expiry="stop", approvals=2)

    deliver(office)

    assert catcher.mails[0]["Subject"] == "write_file waits for your decision (medium)"
    for form in ("plain", "html"):
        text = body(catcher, form=form)
        for word in ("write_file", "medium", "sysadmin", "key nightly", "UTC", "the run ends", "2 people"):
            assert word in text
        assert len(LINK.findall(text)) == 1
        assert text.count("http") == 1
    assert b"canary" not in catcher.raw[0]


def test_only_a_low_tier_mail_brings_the_typed_code(
    asked: AskFor, office: Office, catcher: Catcher, reviewers: tuple[Person, Person]
) -> None:
    for tier in (Tier.LOW, Tier.MEDIUM):
        asked(tell=reviewers[:1], tier=tier)
        deliver(office)

    assert re.search(r"^ {4}\d{6}$", body(catcher, 0), re.MULTILINE)
    assert "only for low tier. For medium, sign in" in body(catcher, 0)
    assert not re.search(r"\b\d{6}\b", body(catcher, 1))


def test_a_sign_in_mail_has_a_code_of_eight_digits_and_nothing_to_click(
    office: Office, catcher: Catcher, gateway_pool: ledger.Pool, reviewers: tuple[Person, Person]
) -> None:
    with ledger.transaction(gateway_pool) as conn:
        notice_id = NoticeId(ids.new())
        sign_ins.ask(conn, notice_id, reviewers[0].email, asker=b"", browser=None)
        assert sign_ins.grant(conn, notice_id, lifetime=timedelta(minutes=10), each=1, strangers=1)

    deliver(office)

    assert re.search(r"^ {4}\d{8}$", body(catcher), re.MULTILINE)
    assert not re.search(r"\d{8}", catcher.mails[0]["Subject"])
    for form in ("plain", "html"):
        assert not re.search(r"https?:|href|<form|localhost", body(catcher, form=form))


def test_a_repeat_is_byte_for_byte_the_same_mail(
    asked: AskFor, office: Office, catcher: Catcher, reviewers: tuple[Person, Person], owner_pool: ledger.Pool
) -> None:
    (notice,) = asked(tell=reviewers[:1], tier=Tier.LOW)
    deliver(office)
    with ledger.transaction(owner_pool) as conn:  # as if the notifier had died before it could record
        conn.execute("UPDATE notices SET state = 'claimed', due_at = clock_timestamp(), sent_at = NULL")

    deliver(office)

    assert catcher.raw[0] == catcher.raw[1]
    assert catcher.mails[0]["Message-ID"] == f"<{notice.hex}@example.org>"
    assert catcher.mails[0]["Auto-Submitted"] == "auto-generated"


def test_what_a_later_claim_took_over_is_not_recorded_twice(
    asked: AskFor, office: Office, reviewers: tuple[Person, Person], notifier_pool: ledger.Pool
) -> None:
    (notice,) = asked(tell=reviewers[:1])
    with ledger.transaction(notifier_pool) as conn:
        ((_, slow),) = notices.claim(conn, lease=timedelta(seconds=-1))
    deliver(office)

    with ledger.transaction(notifier_pool) as conn:
        moved = notices.sent(conn, [(notice, slow)])

    assert not moved


def test_nobody_is_told_of_a_request_that_is_settled(
    asked: AskFor, office: Office, catcher: Catcher, gateway_pool: ledger.Pool, owner_pool: ledger.Pool
) -> None:
    told = asked()
    with ledger.transaction(gateway_pool) as conn:
        request = notices.get(conn, told[0]).request_id
        assert request is not None
        requests.cancel_open(conn, [requests.get(conn, request).run_id])

    deliver(office, told)

    assert catcher.raw == []
    assert [state(owner_pool, notice) for notice in told] == [NoticeState.DROPPED] * 2


def test_nobody_is_told_of_a_revision_that_was_replaced(
    asked: AskFor, office: Office, catcher: Catcher, gateway_pool: ledger.Pool, reviewers: tuple[Person, Person]
) -> None:
    told = asked()
    with ledger.transaction(gateway_pool) as conn:
        request = notices.get(conn, told[0]).request_id
        assert request is not None
        requests.revise(conn, request, 2, action=b"{}", digest=b"\1" * 32, author=reviewers[0].id)

    deliver(office)

    assert catcher.raw == []


def test_a_disabled_person_is_told_nothing(
    asked: AskFor, office: Office, catcher: Catcher, gateway_pool: ledger.Pool, reviewers: tuple[Person, Person]
) -> None:
    asked()
    with ledger.transaction(gateway_pool) as conn:
        staff.disable(conn, reviewers[0].id)

    deliver(office)

    assert catcher.recipients == [["ben@example.org"]]


def test_a_passing_refusal_is_tried_again_and_the_last_one_leaves_it_dead(
    asked: AskFor, office: Office, catcher: Catcher, owner_pool: ledger.Pool, reviewers: tuple[Person, Person]
) -> None:
    (notice,) = asked(tell=reviewers[:1])
    catcher.on_data = "451 try later"

    for expected in (NoticeState.DUE, NoticeState.DUE, NoticeState.DEAD):
        make_due(owner_pool, notice)
        deliver(office)
        assert state(owner_pool, notice) is expected

    catcher.on_data = "250 OK"
    assert deliver(office) == 0
    with ledger.transaction(owner_pool) as conn:
        row = conn.execute("SELECT last_error FROM notices").fetchone()
    assert row is not None
    assert "451 try later" in row[0]


def test_it_waits_longer_after_each_failure(
    asked: AskFor, office: Office, catcher: Catcher, owner_pool: ledger.Pool, reviewers: tuple[Person, Person]
) -> None:
    (notice,) = asked(tell=reviewers[:1])
    catcher.on_data = "451 try later"
    waits: list[float] = []

    for _ in range(2):
        make_due(owner_pool, notice)
        deliver(office)
        with ledger.transaction(owner_pool) as conn:
            row = conn.execute("SELECT extract(epoch FROM due_at - clock_timestamp())::float FROM notices").fetchone()
        assert row is not None
        waits.append(row[0])

    assert 3 < waits[0] < 7
    assert waits[1] > 2 * waits[0]


def test_a_refusal_for_good_buries_at_once(
    asked: AskFor, office: Office, catcher: Catcher, owner_pool: ledger.Pool, reviewers: tuple[Person, Person]
) -> None:
    (notice,) = asked(tell=reviewers[:1])
    catcher.on_recipient = "550 no such mailbox"

    deliver(office)

    assert state(owner_pool, notice) is NoticeState.DEAD


def test_one_bad_address_does_not_hold_up_the_others(
    asked: AskFor, office: Office, catcher: Catcher, gateway_pool: ledger.Pool, reviewers: tuple[Person, Person]
) -> None:
    with ledger.transaction(gateway_pool) as conn:
        odd = staff.upsert(conn, "a@example.org\r\nBcc: evil@example.org", name="Odd")
    told = asked(tell=[odd, *reviewers])

    deliver(office)

    assert sorted(catcher.recipients) == [["ana@example.org"], ["ben@example.org"]]
    assert state(gateway_pool, told[0]) is NoticeState.DEAD


def test_a_gateway_that_is_away_buries_nothing(
    asked: AskFor, office: Office, door: Door, catcher: Catcher, owner_pool: ledger.Pool
) -> None:
    told = asked()
    door.status = 503

    for _ in range(office.max_attempts + 2):
        for notice in told:
            make_due(owner_pool, notice)
        deliver(office)
    door.status = 200
    for notice in told:
        make_due(owner_pool, notice)
    deliver(office)

    assert len(catcher.raw) == 2


def test_a_notice_whose_delivery_always_breaks_off_ends_dead(
    asked: AskFor, office: Office, catcher: Catcher, notifier_pool: ledger.Pool, reviewers: tuple[Person, Person]
) -> None:
    (notice,) = asked(tell=reviewers[:1])
    for _ in range(office.max_attempts):  # claimed by processes that died
        with ledger.transaction(notifier_pool) as conn:
            notices.claim(conn, lease=timedelta(seconds=-1))

    deliver(office)

    assert state(notifier_pool, notice) is NoticeState.DEAD
    assert catcher.raw == []


def test_the_log_tells_that_a_reviewer_was_told(
    asked: AskFor, office: Office, gateway_pool: ledger.Pool, reviewers: tuple[Person, Person]
) -> None:
    (notice,) = asked(tell=reviewers[:1])

    deliver(office)

    with ledger.transaction(gateway_pool) as conn:
        events = audit.since(conn, (0, 0))
    (event,) = [event for event in events if event.action == "notice.sent"]
    assert event.actor == "notifier"
    assert event.run_id is not None
    assert event.body == {
        "notice": ids.show("ntc", notice),
        "person": ids.show("per", reviewers[0].id),
        "channel": "email",
    }


def test_the_network_is_never_inside_a_transaction(
    asked: AskFor, office: Office, catcher: Catcher, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked()
    seen: list[int] = []

    def look(notice_ids: Sequence[NoticeId]) -> object:
        with psycopg.connect(database.owner) as conn:
            row = conn.execute(
                "SELECT count(*) FROM pg_stat_activity"
                " WHERE usename = 'banksman_notifier' AND datname = current_database() AND state LIKE 'idle in%'"
            ).fetchone()
        assert row is not None
        seen.append(row[0])
        return office.gateway.links(notice_ids)

    class Looking:
        links = staticmethod(look)

    deliver(replace(office, gateway=Looking()))

    assert seen == [0]
    assert len(catcher.raw) == 2


@pytest.mark.parametrize("kind", list(Kind))
def test_every_kind_of_request_has_words(
    kind: Kind, asked: AskFor, office: Office, catcher: Catcher, reviewers: tuple[Person, Person]
) -> None:
    asked(tell=reviewers[:1], kind=kind)

    deliver(office)

    assert len(LINK.findall(body(catcher))) == 1
