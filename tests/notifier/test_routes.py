"""Several ways to one person: one that takes the message is enough, and its row says which ways there were."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import partial

import pytest

from banksman import ids, ledger
from banksman.ledger import telling
from banksman.records import Person, Preferences
from banksman.states import Tier
from banksman_notifier import gathering, routes
from banksman_notifier.channels import email, webhook
from banksman_notifier.deliver import Office, deliver
from tests.notifier.conftest import HOME, SENDER, AskFor, Catcher
from tests.notifier.receivers import Receiver, receiver, says
from tests.notifier.test_gathering import prefer


@pytest.fixture
def there() -> Iterator[Receiver]:
    with receiver(says(200)) as found:
        yield found


@pytest.fixture
def routed(office: Office, catcher: Catcher, there: Receiver) -> Office:
    mail = partial(email.opened, email.Server("127.0.0.1", catcher.port, tls=False), SENDER)
    channels = routes.channels(office.pool, mail, webhook.Outside(there.free))
    plain = replace(office, channels=channels)
    return replace(plain, sort=partial(gathering.sort, plain, gathering.Windows()))


def chat(there: Receiver) -> str:
    return there.url.replace("http://", "json://")


def became(pool: ledger.Pool) -> list[tuple[str, str, str | None]]:
    with ledger.transaction(pool) as conn:
        return [(item.channel, item.state, item.last_error) for item in telling.listed(conn)]


def test_a_person_with_two_ways_is_told_by_both_and_a_chat_gets_words_and_an_address_alone(
    routed: Office, asked: AskFor, catcher: Catcher, there: Receiver, reviewers: tuple[Person, Person],
    owner_pool: ledger.Pool,
) -> None:  # fmt: skip
    prefer(owner_pool, reviewers[0], Preferences(urls=(chat(there),)))
    [notice] = asked(tell=reviewers[:1], tool="a.b@everyone", tier=Tier.LOW)

    deliver(routed)

    assert len(catcher.raw) == 1
    [posted] = there.posted
    text = posted.body.decode()
    assert f"{HOME}/requests/req_" in text
    assert "a b everyone waits for your decision (low)" in text
    for hidden in ("/l/bk1", "canary", "key nightly", "wants it"):
        assert hidden not in text
    assert became(owner_pool) == [("email,apprise", "sent", None)]
    assert ids.show("ntc", notice)


def test_whose_urls_cannot_be_read_is_told_by_mail_and_nobody_else_waits_for_it(
    routed: Office, asked: AskFor, catcher: Catcher, there: Receiver, reviewers: tuple[Person, Person],
    owner_pool: ledger.Pool, caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    prefer(owner_pool, reviewers[0], Preferences(email=False, urls=(chat(there),)))
    with ledger.transaction(owner_pool) as conn:
        conn.execute("UPDATE preferences SET urls = urls || '\\x00'")
    asked(tell=reviewers)

    deliver(routed)

    assert {mail["To"] for mail in catcher.mails} == {person.email for person in reviewers}
    assert there.posted == []
    assert ids.show("per", reviewers[0].id) in caplog.text


def test_one_way_that_fails_keeps_nobody_uninformed(
    routed: Office, asked: AskFor, catcher: Catcher, there: Receiver, reviewers: tuple[Person, Person],
    owner_pool: ledger.Pool,
) -> None:  # fmt: skip
    prefer(owner_pool, reviewers[0], Preferences(urls=(chat(there),)))
    there.answer = says(500)
    catcher.on_data = "250 OK"
    asked(tell=reviewers[:1])
    deliver(routed)
    there.answer = says(200)
    catcher.on_data = "451 later"
    asked(tell=reviewers[:1], tier=Tier.HIGH)
    deliver(routed)

    assert {state for _, state, _ in became(owner_pool)} == {"sent"}
    assert (len(catcher.raw), len(there.posted)) == (1, 2)


def test_where_every_way_fails_each_says_why(
    routed: Office, asked: AskFor, catcher: Catcher, there: Receiver, reviewers: tuple[Person, Person],
    owner_pool: ledger.Pool,
) -> None:  # fmt: skip
    prefer(owner_pool, reviewers[0], Preferences(urls=(chat(there),)))
    there.answer = says(500)
    catcher.on_data = "451 later"
    asked(tell=reviewers[:1])

    deliver(routed)

    [(_, state, error)] = became(owner_pool)
    assert state == "failed"
    assert error is not None
    assert "email: " in error
    assert "451 later" in error
    assert "apprise: json://… did not take the message" in error


def test_a_sign_in_code_goes_by_mail_whatever_else_is_preferred(
    routed: Office, catcher: Catcher, there: Receiver, reviewers: tuple[Person, Person], owner_pool: ledger.Pool
) -> None:
    prefer(owner_pool, reviewers[0], Preferences(email=False, urls=(chat(there),)))
    with ledger.transaction(owner_pool) as conn:
        conn.execute(
            "INSERT INTO notices (id, kind, person_id, due_at, expires_at)"
            " VALUES (%s, 'sign_in', %s, now(), now() + interval '10 minutes')",
            (ids.new(), reviewers[0].id),
        )

    deliver(routed)

    assert (len(catcher.raw), there.posted) == (1, [])


def test_who_wants_no_mail_gets_none(
    routed: Office, asked: AskFor, catcher: Catcher, there: Receiver, reviewers: tuple[Person, Person],
    owner_pool: ledger.Pool,
) -> None:  # fmt: skip
    prefer(owner_pool, reviewers[0], Preferences(email=False, urls=(chat(there),)))
    for _ in range(3):
        asked(tell=reviewers[:1])

    deliver(routed)

    assert catcher.raw == []
    assert "3 requests wait for your decision" in there.posted[0].body.decode()
