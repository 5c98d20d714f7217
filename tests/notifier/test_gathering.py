"""Gathering: the first at once, the rest in one summary, high always, nothing about what was decided meanwhile."""

from __future__ import annotations

from datetime import UTC, datetime, time, timedelta

import pytest

from banksman import ids, ledger
from banksman.ids import NoticeId, RunId
from banksman.ledger import notices, preferences, requests
from banksman.records import Person, Preferences, Quiet
from banksman.states import NoticeState, Tier
from banksman_notifier.deliver import HANDFUL, Office, deliver
from tests.notifier.conftest import HOME, AskFor, Catcher, Door
from tests.notifier.test_deliver import LINK, body, state

TEN = timedelta(minutes=10)


@pytest.fixture
def ana(reviewers: tuple[Person, Person]) -> Person:
    return reviewers[0]


def pass_time(pool: ledger.Pool, by: timedelta) -> None:
    """Let time pass: everything that happened is longer ago, and what was to come is nearer."""
    with ledger.transaction(pool) as conn:
        conn.execute("UPDATE notices SET due_at = due_at - %s, sent_at = sent_at - %s", (by, by))
        conn.execute("UPDATE inboxes SET told_at = told_at - %s", (by,))


def prefer(pool: ledger.Pool, person: Person, wanted: Preferences) -> None:
    with ledger.transaction(pool) as conn:
        preferences.put(conn, person.id, wanted)


def held(pool: ledger.Pool) -> list[str]:
    with ledger.transaction(pool) as conn:
        rows = conn.execute("SELECT held FROM notices WHERE state = 'due' AND held IS NOT NULL ORDER BY id").fetchall()
    return [row[0] for row in rows]


def delays(pool: ledger.Pool) -> list[float]:
    """In how many minutes held notices are due, the first one of them first."""
    with ledger.transaction(pool) as conn:
        rows = conn.execute(
            "SELECT extract(epoch FROM due_at - clock_timestamp())::float / 60 FROM notices"
            " WHERE held IS NOT NULL AND state = 'due' ORDER BY due_at"
        ).fetchall()
    return [row[0] for row in rows]


def drain(office: Office) -> None:
    while deliver(office):
        pass


def run_of(pool: ledger.Pool, notice: NoticeId) -> RunId:
    with ledger.transaction(pool) as conn:
        request = notices.get(conn, notice).request_id
        assert request is not None
        return requests.get(conn, request).run_id


def test_the_first_message_to_a_quiet_inbox_goes_at_once_with_its_link(
    asked: AskFor, gathering_office: Office, catcher: Catcher, ana: Person
) -> None:
    asked(tell=[ana])

    drain(gathering_office)

    assert len(LINK.findall(body(catcher))) == 1


def test_what_comes_soon_after_is_told_in_one_summary_when_the_window_ends(
    asked: AskFor, gathering_office: Office, catcher: Catcher, ana: Person, owner_pool: ledger.Pool
) -> None:
    asked(tell=[ana])
    drain(gathering_office)
    told = [*asked(tell=[ana]), *asked(tell=[ana], tool="execute"), *asked(tell=[ana])]
    drain(gathering_office)
    assert len(catcher.raw) == 1
    assert [reason[:10] for reason in held(owner_pool)] == ["Gathered: "] * 3

    pass_time(owner_pool, TEN)
    drain(gathering_office)

    assert len(catcher.raw) == 2
    assert [state(owner_pool, notice) for notice in told] == [NoticeState.SENT] * 3
    text = body(catcher, 1)
    assert catcher.mails[1]["Subject"] == "3 requests wait for your decision"
    assert "2 x write_file of sysadmin (medium)" in text
    assert "1 x execute of sysadmin (medium)" in text
    assert f"{HOME}/\n" in text
    assert text.count("http") == 1
    assert b"canary" not in catcher.raw[1]


def test_a_batch_of_a_thousand_requests_is_one_summary_that_names_the_batch(
    asked: AskFor, gathering_office: Office, catcher: Catcher, ana: Person, owner_pool: ledger.Pool, door: Door
) -> None:
    first = asked(tell=[ana])
    drain(gathering_office)
    run = run_of(owner_pool, first[0])
    with ledger.transaction(owner_pool) as conn:
        batch = ids.new()
        conn.execute(
            "INSERT INTO batches (id, name, requester) VALUES (%s, 'nightly refunds', 'key nightly')", (batch,)
        )
        conn.execute("UPDATE runs SET batch_id = %s", (batch,))
    told = [asked(tell=[ana], run=run, call=f"c{number}")[0] for number in range(1000)]
    drain(gathering_office)
    door.calls = 0

    pass_time(owner_pool, TEN)
    drain(gathering_office)

    assert len(catcher.raw) == 2
    assert "1000 x write_file of sysadmin (medium), batch nightly refunds" in body(catcher, 1)
    assert {state(owner_pool, notice) for notice in told} == {NoticeState.SENT}
    assert door.calls == 1


def test_high_goes_at_once_whatever_was_told_before(
    asked: AskFor, gathering_office: Office, catcher: Catcher, ana: Person
) -> None:
    for _ in range(3):
        asked(tell=[ana], tier=Tier.HIGH)
        drain(gathering_office)

    assert [mail["Subject"] for mail in catcher.mails] == ["write_file waits for your decision (high)"] * 3


def test_low_is_gathered_longer_than_medium_and_goes_along_with_it(
    asked: AskFor, gathering_office: Office, catcher: Catcher, ana: Person, owner_pool: ledger.Pool
) -> None:
    asked(tell=[ana])
    drain(gathering_office)
    asked(tell=[ana], tier=Tier.LOW, expires_after=86_400)
    drain(gathering_office)
    assert 59 < delays(owner_pool)[0] <= 60
    pass_time(owner_pool, TEN)
    drain(gathering_office)
    assert len(catcher.raw) == 1

    asked(tell=[ana], tool="execute")
    drain(gathering_office)

    assert catcher.mails[1]["Subject"] == "2 requests wait for your decision"


def test_a_request_that_was_decided_meanwhile_is_told_to_nobody(
    asked: AskFor,
    gathering_office: Office,
    catcher: Catcher,
    ana: Person,
    owner_pool: ledger.Pool,
    gateway_pool: ledger.Pool,
) -> None:
    asked(tell=[ana])
    drain(gathering_office)
    gone, stays = asked(tell=[ana])[0], asked(tell=[ana], tool="execute")[0]
    drain(gathering_office)
    with ledger.transaction(gateway_pool) as conn:
        requests.cancel_open(conn, [run_of(owner_pool, gone)])

    pass_time(owner_pool, TEN)
    drain(gathering_office)

    assert len(catcher.raw) == 2
    assert catcher.mails[1]["Subject"] == "execute waits for your decision (medium)"
    assert (state(owner_pool, gone), state(owner_pool, stays)) == (NoticeState.DROPPED, NoticeState.SENT)


def test_where_all_of_it_was_decided_no_summary_is_sent(
    asked: AskFor, gathering_office: Office, catcher: Catcher, ana: Person, owner_pool: ledger.Pool
) -> None:
    asked(tell=[ana])
    drain(gathering_office)
    told = [asked(tell=[ana])[0] for _ in range(3)]
    drain(gathering_office)
    with ledger.transaction(owner_pool) as conn:
        requests.cancel_open(conn, [run_of(owner_pool, notice) for notice in told])

    pass_time(owner_pool, TEN)
    drain(gathering_office)

    assert len(catcher.raw) == 1
    asked(tell=[ana])  # and who was told nothing has not been told of late: the next one goes out at once
    drain(gathering_office)
    assert len(catcher.raw) == 2


def test_each_further_unanswered_message_about_one_run_doubles_its_window(
    asked: AskFor, gathering_office: Office, catcher: Catcher, ana: Person, owner_pool: ledger.Pool
) -> None:
    first = asked(tell=[ana], expires_after=10 * 86_400)
    drain(gathering_office)
    run, waits = run_of(owner_pool, first[0]), list[float]()

    for number in range(4):
        asked(tell=[ana], run=run, call=f"c{number}", expires_after=10 * 86_400)
        drain(gathering_office)
        waits.append(round(delays(owner_pool)[0]))
        pass_time(owner_pool, timedelta(minutes=waits[-1] + 1))
        drain(gathering_office)

    assert waits == [10, 20, 40, 80]
    assert len(catcher.raw) == 5


def test_nothing_is_held_longer_than_a_quarter_of_the_time_to_decide(
    asked: AskFor, gathering_office: Office, ana: Person, owner_pool: ledger.Pool
) -> None:
    asked(tell=[ana])
    drain(gathering_office)
    asked(tell=[ana], expires_after=20 * 60)

    drain(gathering_office)

    assert 4.8 < delays(owner_pool)[0] <= 5


def test_a_mail_server_that_is_away_turns_the_first_message_into_no_later_one(
    asked: AskFor, gathering_office: Office, catcher: Catcher, ana: Person, owner_pool: ledger.Pool
) -> None:
    asked(tell=[ana])
    catcher.on_data = "451 later"
    drain(gathering_office)
    catcher.on_data = "250 OK"

    pass_time(owner_pool, timedelta(seconds=10))
    drain(gathering_office)

    assert len(catcher.raw) == 1


def test_a_summary_that_was_refused_is_tried_again_as_one_and_buried_as_one(
    asked: AskFor, gathering_office: Office, catcher: Catcher, ana: Person, owner_pool: ledger.Pool
) -> None:
    told = [asked(tell=[ana])[0] for _ in range(3)]
    catcher.on_data = "451 later"
    for _ in range(2):
        drain(gathering_office)
        assert {state(owner_pool, notice) for notice in told} == {NoticeState.DUE}
        pass_time(owner_pool, timedelta(minutes=1))
    drain(gathering_office)

    assert {state(owner_pool, notice) for notice in told} == {NoticeState.DEAD}
    with ledger.transaction(owner_pool) as conn:
        rows = conn.execute("SELECT DISTINCT last_error, attempts FROM notices").fetchall()
    assert [(error, attempts) for error, attempts in rows if "451" in error] == rows
    assert [row[1] for row in rows] == [3]


def test_a_summary_that_was_sent_but_not_recorded_is_sent_again_byte_for_byte(
    asked: AskFor, gathering_office: Office, catcher: Catcher, ana: Person, owner_pool: ledger.Pool
) -> None:
    [first] = asked(tell=[ana])
    run = run_of(owner_pool, first)
    for number in range(HANDFUL + 10):
        asked(tell=[ana], run=run, call=f"c{number}")
    drain(gathering_office)
    with ledger.transaction(owner_pool) as conn:  # as if the notifier had died before it could record
        conn.execute("UPDATE notices SET state = 'claimed', due_at = clock_timestamp(), sent_at = NULL")

    drain(gathering_office)

    assert len(catcher.raw) == 2
    assert catcher.raw[0] == catcher.raw[1]


def test_a_gateway_that_is_away_costs_a_summary_no_attempt(
    asked: AskFor, gathering_office: Office, catcher: Catcher, door: Door, ana: Person, owner_pool: ledger.Pool
) -> None:
    for _ in range(3):
        asked(tell=[ana])
    door.status = 503
    for _ in range(gathering_office.max_attempts + 2):
        drain(gathering_office)
        pass_time(owner_pool, timedelta(seconds=10))
    door.status = 200

    drain(gathering_office)

    assert len(catcher.raw) == 1


def test_quiet_hours_hold_everything_but_high_until_they_end(
    asked: AskFor, gathering_office: Office, catcher: Catcher, ana: Person, owner_pool: ledger.Pool
) -> None:
    now = datetime.now(UTC)
    quiet = Quiet((now - timedelta(hours=1)).time(), (now + timedelta(hours=1)).time(), "UTC")
    prefer(owner_pool, ana, Preferences(quiet=quiet))
    for tier in (Tier.LOW, Tier.MEDIUM, Tier.HIGH):
        asked(tell=[ana], tier=tier)

    drain(gathering_office)

    assert [mail["Subject"] for mail in catcher.mails] == ["write_file waits for your decision (high)"]
    assert [reason[:12] for reason in held(owner_pool)] == ["Quiet hours:"] * 2
    prefer(owner_pool, ana, Preferences())
    pass_time(owner_pool, timedelta(hours=2))
    drain(gathering_office)
    assert catcher.mails[1]["Subject"] == "2 requests wait for your decision"


def test_who_says_so_is_left_in_peace_by_high_too_but_never_by_a_sign_in_code(
    asked: AskFor, gathering_office: Office, catcher: Catcher, ana: Person, owner_pool: ledger.Pool
) -> None:
    now = datetime.now(UTC)
    quiet = Quiet((now - timedelta(hours=1)).time(), (now + timedelta(hours=1)).time(), "UTC")
    prefer(owner_pool, ana, Preferences(quiet=quiet, hold_high=True))
    asked(tell=[ana], tier=Tier.HIGH)
    with ledger.transaction(owner_pool) as conn:
        conn.execute(
            "INSERT INTO notices (id, kind, person_id, due_at, expires_at)"
            " VALUES (%s, 'sign_in', %s, now(), now() + interval '10 minutes')",
            (ids.new(), ana.id),
        )

    drain(gathering_office)

    assert [mail["Subject"] for mail in catcher.mails] == ["Your sign-in code"]


def test_a_person_may_want_everything_at_once_or_later_than_others(
    asked: AskFor, gathering_office: Office, catcher: Catcher, reviewers: tuple[Person, Person], owner_pool: ledger.Pool
) -> None:
    ana, ben = reviewers
    prefer(owner_pool, ana, Preferences(gather_medium=timedelta()))
    prefer(owner_pool, ben, Preferences(gather_medium=timedelta(minutes=14)))
    for _ in range(3):
        asked()
        drain(gathering_office)

    assert sorted(to for [to] in catcher.recipients) == ["ana@example.org"] * 3 + ["ben@example.org"]
    assert 13 < delays(owner_pool)[0] <= 14


@pytest.mark.parametrize(("kind", "words"), [("reminder", "Reminder: "), ("escalation", "Nobody has decided yet: ")])
def test_a_reminder_is_an_answer_to_the_first_mail_with_a_link_of_its_own(
    kind: str, words: str, asked: AskFor, office: Office, gathering_office: Office, catcher: Catcher, ana: Person,
    owner_pool: ledger.Pool,
) -> None:  # fmt: skip
    [first] = asked(tell=[ana])
    drain(gathering_office)
    add(owner_pool, first, kind)
    pass_time(owner_pool, TEN)

    drain(gathering_office)

    assert catcher.mails[1]["Subject"] == f"{words}write_file waits for your decision (medium)"
    assert catcher.mails[1]["In-Reply-To"] == catcher.mails[1]["References"] == catcher.mails[0]["Message-ID"]
    assert LINK.findall(body(catcher, 1)) != LINK.findall(body(catcher, 0))
    assert catcher.mails[0]["In-Reply-To"] is None


def test_a_remark_leads_to_the_page_and_brings_neither_link_nor_code(
    asked: AskFor, gathering_office: Office, catcher: Catcher, ana: Person, owner_pool: ledger.Pool
) -> None:
    [first] = asked(tell=[ana], tier=Tier.LOW)
    drain(gathering_office)
    add(owner_pool, first, "remark")
    pass_time(owner_pool, timedelta(hours=1))

    drain(gathering_office)

    text = body(catcher, 1)
    assert f"{HOME}/requests/req_" in text
    assert "/l/" not in text
    assert catcher.mails[1]["In-Reply-To"] == catcher.mails[0]["Message-ID"]


def test_a_remark_is_told_though_somebody_changed_the_call_after_it(
    asked: AskFor, gathering_office: Office, gateway_pool: ledger.Pool, catcher: Catcher, ana: Person,
    owner_pool: ledger.Pool,
) -> None:  # fmt: skip
    [first] = asked(tell=[ana])
    drain(gathering_office)
    add(owner_pool, first, "remark")
    with ledger.transaction(gateway_pool) as conn:
        request_id = notices.get(conn, first).request_id
        assert request_id is not None
        was = requests.hold(conn, request_id)
        requests.revise(conn, request_id, 2, action=was.action, digest=was.digest, author=ana.id)
    pass_time(owner_pool, timedelta(hours=1))

    drain(gathering_office)

    assert len(catcher.mails) == 2


def test_a_reminder_takes_the_place_of_the_message_that_was_not_sent_yet(
    asked: AskFor, gathering_office: Office, catcher: Catcher, ana: Person, owner_pool: ledger.Pool
) -> None:
    asked(tell=[ana])
    drain(gathering_office)
    [second] = asked(tell=[ana], tool="execute")
    drain(gathering_office)
    add(owner_pool, second, "reminder")
    drain(gathering_office)

    pass_time(owner_pool, TEN)
    drain(gathering_office)

    assert [mail["Subject"] for mail in catcher.mails[1:]] == ["Reminder: execute waits for your decision (medium)"]


def test_a_receipt_and_a_test_message_have_words(
    gathering_office: Office, catcher: Catcher, ana: Person, owner_pool: ledger.Pool
) -> None:
    for kind in ("receipt", "test"):
        with ledger.transaction(owner_pool) as conn:
            conn.execute(
                "INSERT INTO notices (id, kind, person_id, due_at, expires_at)"
                " VALUES (%s, %s, %s, now(), now() + interval '1 day')",
                (ids.new(), kind, ana.id),
            )
        drain(gathering_office)

    assert f"{datetime.now(UTC):%Y}" in catcher.mails[0]["Subject"]
    assert catcher.mails[1]["Subject"] == "A test message from Banksman"
    assert all(f"{HOME}/\n" in body(catcher, number) for number in (0, 1))


def add(pool: ledger.Pool, first: NoticeId, kind: str) -> None:
    """One more notice about the same request to the same person, as the gateway's sweep writes them."""
    with ledger.transaction(pool) as conn:
        conn.execute(
            "INSERT INTO notices (id, kind, person_id, request_id, revision, due_at, expires_at)"
            " SELECT %s, %s, person_id, request_id, revision, now(), expires_at FROM notices WHERE id = %s",
            (ids.new(), kind, first),
        )


def test_the_hours_of_a_day_are_kept_as_they_were_given(ana: Person, owner_pool: ledger.Pool) -> None:
    wanted = Preferences(
        email=False,
        urls=("slack://a/b/c",),
        quiet=Quiet(time(22), time(6, 30), "Europe/Berlin"),
        hold_high=True,
        gather_low=timedelta(hours=4),
    )
    prefer(owner_pool, ana, wanted)

    with ledger.transaction(owner_pool) as conn:
        kept = preferences.get(conn, ana.id)

    assert kept == wanted
    assert kept.channel == "apprise"
    assert "slack" not in repr(kept)
