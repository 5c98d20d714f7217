"""Turns: slow messages before it neither delay a notice beyond its claim nor have it told twice or in vain."""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import timedelta
from functools import partial

import pytest

from banksman import ledger
from banksman.ids import NoticeId
from banksman.ledger import notices, requests
from banksman.records import Person
from banksman.states import NoticeState
from banksman_notifier import gathering, turns
from banksman_notifier.channels import Message
from banksman_notifier.deliver import Office, deliver
from tests.notifier.conftest import AskFor
from tests.notifier.test_deliver import make_due, state
from tests.notifier.test_gathering import TEN, pass_time


@dataclass(slots=True)
class Slow:
    """A channel on which something happens while its first message is sent."""

    meanwhile: Callable[[Message], object]
    told: list[NoticeId] = field(default_factory=list[NoticeId])

    @contextmanager
    def opened(self) -> Generator[Slow]:
        yield self

    def send(self, message: Message, /) -> None:
        self.told.append(message.notice_id)
        if len(self.told) == 1:
            self.meanwhile(message)


def slowly(office: Office, meanwhile: Callable[[Message], object], *, lease: float = 300) -> tuple[Office, Slow]:
    slow = Slow(meanwhile)
    return replace(office, channels={"email": slow.opened}, lease=timedelta(seconds=lease)), slow


def test_what_comes_after_slow_messages_is_put_back_before_the_claim_runs_out(
    asked: AskFor, office: Office, owner_pool: ledger.Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(turns, "SECONDS", 60.0)
    told = [notice for _ in range(3) for notice in asked()]
    late, slow = slowly(office, lambda _: threading.Event().wait(1.1), lease=3)

    assert deliver(late, told) == 6

    [first] = slow.told
    with ledger.transaction(owner_pool) as conn:
        rest = [notices.get(conn, notice) for notice in told if notice != first]
    assert {(notice.state, notice.attempts) for notice in rest} == {(NoticeState.DUE, 0)}
    assert deliver(late, told) == 5
    assert sorted(slow.told) == sorted(told)


def test_what_another_took_over_or_was_decided_meanwhile_is_not_sent(
    asked: AskFor,
    office: Office,
    owner_pool: ledger.Pool,
    reviewers: tuple[Person, Person],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(turns, "SECONDS", 0.0)
    told = [notice for _ in range(4) for notice in asked(tell=reviewers[:1])]
    taken: list[NoticeId] = []
    decided: list[NoticeId] = []

    def meanwhile(_: Message) -> None:
        rest = [notice for notice in told if notice not in slow.told]
        taken.append(rest[0])
        decided.append(rest[1])
        take_over(owner_pool, rest[0])
        settle(owner_pool, rest[1])

    now, slow = slowly(office, meanwhile)
    assert deliver(now, told) == 4

    assert sorted(slow.told) == sorted(set(told) - {*taken, *decided})
    assert [state(owner_pool, notice) for notice in taken + decided] == [NoticeState.CLAIMED, NoticeState.DROPPED]


def test_a_summary_names_nothing_that_was_taken_over_or_decided_while_another_was_sent(
    asked: AskFor,
    office: Office,
    owner_pool: ledger.Pool,
    reviewers: tuple[Person, Person],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(turns, "SECONDS", 0.0)
    gathers, first = slowly(office, lambda _: None)
    gathers = replace(gathers, sort=partial(gathering.sort, gathers, gathering.Windows()))
    asked()
    deliver(gathers)
    waiting = {person.email: [notice for _ in range(4) for notice in asked(tell=[person])] for person in reviewers}
    deliver(gathers)
    pass_time(owner_pool, TEN)

    def meanwhile(message: Message) -> None:
        later.extend(next(mine for email, mine in waiting.items() if email != message.to))
        take_over(owner_pool, later[0])
        settle(owner_pool, later[1])

    later: list[NoticeId] = []
    now, slow = slowly(gathers, meanwhile)
    now = replace(now, sort=partial(gathering.sort, now, gathering.Windows()))
    deliver(now)

    assert (len(first.told), len(slow.told)) == (2, 2)
    assert [state(owner_pool, notice).value for notice in later] == ["claimed", "dropped", "sent", "sent"]


def take_over(pool: ledger.Pool, notice: NoticeId) -> None:
    make_due(pool, notice)
    with ledger.transaction(pool) as conn:
        assert notices.claim(conn, only=[notice], lease=timedelta(minutes=5))


def settle(pool: ledger.Pool, notice: NoticeId) -> None:
    with ledger.transaction(pool) as conn:
        request = notices.get(conn, notice).request_id
        assert request is not None
        run = requests.get(conn, request).run_id
        requests.cancel_open(conn, [run])
