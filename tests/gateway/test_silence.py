"""Silence: reminders, the escalation ladder, and deadlines that move on, by the database's clock."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta
from typing import Any

import psycopg
import pytest

from banksman import ids, ledger
from banksman.digest import parse
from banksman.ids import NoticeId, RequestId, RunId
from banksman.ledger import audit, decisions, notices, people, requests, runs
from banksman.records import NewRequest, Notice, Person, Rung
from banksman.states import Kind, RunStatus, Tier
from banksman_gateway import decide, silence
from tests.conftest import Database
from tests.gateway.browser import code_of, page_of
from tests.gateway.scenes import Site, asking, notices_of
from tests.gateway.test_link_page import opened

HOUR = 3600
LADDER: dict[str, Any] = {
    "reminders": (HOUR, 2 * HOUR),
    "escalation": (Rung(3 * HOUR, ("security",)), Rung(4 * HOUR, ("admins",))),
}


def later(database: Database, request_id: RequestId, seconds: int) -> None:
    """The request as if it had been opened so much earlier."""
    with psycopg.connect(database.owner) as conn:
        conn.execute(
            """
            UPDATE requests
            SET created_at = created_at - %(by)s, expires_at = expires_at - %(by)s, due_at = due_at - %(by)s
            WHERE id = %(id)s
            """,
            {"by": timedelta(seconds=seconds), "id": request_id},
        )


def told(site: Site, request_id: RequestId) -> Counter[tuple[str, str]]:
    """Which messages were written about a request, and to whom."""
    with ledger.transaction(site.gateway) as conn:
        found = notices_of(conn, request_id)
        names = people.named(conn, [item.person_id for item in found])
    return Counter((item.kind, names[item.person_id].name) for item in found)


def sent(database: Database) -> None:
    """The notifier has sent everything."""
    with psycopg.connect(database.owner) as conn:
        conn.execute("UPDATE notices SET state = 'sent', due_at = NULL WHERE state = 'due'")


def heard(site: Site, run_id: RunId) -> list[str]:
    """What the run's timeline says of its requests."""
    with ledger.transaction(site.gateway) as conn:
        return [event.action for event in audit.of_run(conn, run_id) if event.action.startswith("request.")]


def in_group(database: Database, person: Person, *groups: str, roles: Sequence[str] = ("reviewer",)) -> None:
    with psycopg.connect(database.owner) as conn:
        conn.execute("UPDATE people SET groups = %s, roles = %s WHERE id = %s", (list(groups), list(roles), person.id))


def test_a_reminder_goes_to_who_may_decide_and_has_not_voted(site: Site, database: Database) -> None:
    cyn = site.a_person("cyn@example.org", "reviewer")
    site.a_person("aud@example.org", "auditor")
    _, [asked] = site.a_waiting_run(asking(approvals=2, **LADDER), requester=cyn)
    sent(database)
    assert site.vote(asked, site.token(site.ana)).status_code == 200

    assert silence.act(site.parts) == 0
    later(database, asked, HOUR)
    assert silence.act(site.parts) == 1
    assert silence.act(site.parts) == 0

    assert told(site, asked) == {("request", "Ana"): 1, ("reminder", "Ben"): 1}


def test_each_rung_lets_its_groups_vote_tells_them_and_shows_it_to_them(site: Site, database: Database) -> None:
    sec = site.a_person("sec@example.org", "reviewer")
    boss = site.a_person("boss@example.org", "admin")
    in_group(database, site.ana, "finance")
    in_group(database, sec, "security")
    run_id, [asked] = site.a_waiting_run(asking(groups={"finance": 1}, **LADDER))
    sent(database)
    assert site.request(asked)["audience"] == ["finance"]
    assert site.vote(asked, site.token(sec)).status_code == 403

    later(database, asked, 3 * HOUR)
    silence.act(site.parts)

    assert told(site, asked) == {("request", "Ana"): 1, ("escalation", "sec"): 1, ("reminder", "Ana"): 1}
    assert site.request(asked)["audience"] == ["finance", "security"]
    with ledger.transaction(site.gateway) as conn:
        row = conn.execute("SELECT audience FROM requests WHERE id = %s", (asked,)).fetchone()
    assert row == (["finance", "security"],)
    later(database, asked, HOUR)
    silence.act(site.parts)
    assert told(site, asked)["escalation", boss.name] == 1
    assert heard(site, run_id) == ["request.escalated", "request.reminded", "request.escalated"]
    assert site.vote(asked, site.token(sec)).status_code == 200


def test_what_was_missed_while_the_gateway_was_down_happens_once(site: Site, database: Database) -> None:
    in_group(database, site.ben, "security")
    run_id, [asked] = site.a_waiting_run(asking(**LADDER))
    sent(database)

    later(database, asked, 10 * HOUR)
    assert silence.act(site.parts) == 1

    assert told(site, asked) == {("request", "Ana"): 1, ("escalation", "Ben"): 1, ("reminder", "Ana"): 1}
    assert heard(site, run_id) == ["request.escalated", "request.escalated", "request.reminded"]
    assert silence.act(site.parts) == 0


def test_past_a_deadline_nobody_is_reminded_of_anything(site: Site, database: Database) -> None:
    run_id, [asked] = site.a_waiting_run(asking(expires_after=5 * HOUR, **LADDER))
    sent(database)

    later(database, asked, 10 * HOUR)
    silence.act(site.parts)

    assert told(site, asked) == {("request", "Ana"): 1}
    assert heard(site, run_id) == ["request.expired"]


def test_nobody_is_reminded_whose_first_message_has_not_gone_out(site: Site, database: Database) -> None:
    _, [asked] = site.a_waiting_run(asking(**LADDER))

    later(database, asked, HOUR)
    silence.act(site.parts)

    assert told(site, asked) == {("request", "Ana"): 1, ("reminder", "Ben"): 1}


def test_a_deadline_that_extends_moves_on_tells_all_and_allows_nothing(site: Site, database: Database) -> None:
    run_id, [asked] = site.a_waiting_run(asking(expires_after=HOUR, on_expiry="extend"))
    sent(database)

    later(database, asked, HOUR)
    before = site.request(asked)
    silence.act(site.parts)
    once = site.request(asked)
    sent(database)
    later(database, asked, 3 * HOUR)
    silence.act(site.parts)
    often = site.request(asked)

    assert [item["extended"] for item in (before, once, often)] == [0, 1, 3 + 1]
    assert (before["state"], often["state"], often["decision"]) == ("open", "open", None)
    assert told(site, asked) == {("request", "Ana"): 1, ("reminder", "Ana"): 2, ("reminder", "Ben"): 2}
    assert heard(site, run_id) == ["request.extended", "request.extended"]
    with ledger.transaction(site.gateway) as conn:
        assert runs.get(conn, run_id).status is RunStatus.WAITING
        assert all(item.live for item in notices_of(conn, asked))


def test_a_vote_between_a_deadline_that_extends_and_the_sweep_counts(site: Site, database: Database) -> None:
    _, [asked] = site.a_waiting_run(asking(expires_after=HOUR, on_expiry="extend"))

    later(database, asked, 40 * HOUR)
    answer = site.vote(asked, site.token(site.ana))

    assert (answer.status_code, answer.json()["state"]) == (200, "approved")
    with ledger.transaction(site.gateway) as conn:
        row = conn.execute("SELECT start_by > clock_timestamp() + interval '23 h' FROM decisions").fetchone()
    assert row == (True,)


def test_between_a_deadline_that_extends_and_the_sweep_everything_else_counts_too(
    site: Site, database: Database
) -> None:
    opens = asking(expires_after=HOUR, on_expiry="extend", tier=Tier.LOW, approvals=2)
    _, [asked] = site.a_waiting_run(opens)
    [notice] = heard_by(site, asked)
    ana = site.token(site.ana)
    assert site.vote(asked, ana).status_code == 200

    later(database, asked, 40 * HOUR)
    passed(database, notice.id)
    path = f"/v1/requests/{ids.show('req', asked)}"
    looks = site.client.post(f"{path}/looking", headers=ana)
    says = site.client.post(f"{path}/remarks", json={"text": "Why?"}, headers=ana)
    back = site.client.post(f"{path}/withdraw", headers=ana)
    browser = opened(site, asked, notice.id)
    typed = browser.send(browser.form(page_of(asked), "approve"), code=code_of(site, notice.id))

    assert [item.status_code for item in (looks, says, back, typed)] == [200, 200, 200, 303], typed.text
    with ledger.transaction(site.gateway) as conn:
        assert notices.matters(conn, [notice.id])[notice.id].wanted is False  # used now
        assert notices.get(conn, notice.id).used_at is not None


def test_a_deadline_that_does_not_extend_ends_all_of_it(site: Site, database: Database) -> None:
    _, [asked] = site.a_waiting_run(asking(expires_after=HOUR, tier=Tier.LOW, approvals=2))
    [notice] = heard_by(site, asked)
    ana = site.token(site.ana)
    assert site.vote(asked, ana).status_code == 200

    later(database, asked, 2 * HOUR)
    passed(database, notice.id)
    path = f"/v1/requests/{ids.show('req', asked)}"
    calls = [("looking", None), ("remarks", {"text": "Why?"}), ("withdraw", None)]
    answers = [site.client.post(f"{path}/{move}", json=body, headers=ana) for move, body in calls]

    assert [item.status_code for item in answers] == [409] * 3
    [unusable] = heard_by(site, asked)
    assert not unusable.live


def heard_by(site: Site, request_id: RequestId) -> Sequence[Notice]:
    with ledger.transaction(site.gateway) as conn:
        return notices_of(conn, request_id)


def passed(database: Database, notice: NoticeId) -> None:
    """The notice as if its time were over."""
    with psycopg.connect(database.owner) as conn:
        conn.execute("UPDATE notices SET expires_at = clock_timestamp() - interval '1 h' WHERE id = %s", (notice,))


def test_an_approval_that_waits_for_an_extended_sibling_is_signed_again(
    site: Site, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decide, "START_GRACE", timedelta(hours=-30))  # it was decided long ago
    opened = asking("c1", expires_after=HOUR), asking("c2", expires_after=HOUR, on_expiry="extend")
    run_id, [agreed, waited] = site.a_waiting_run(*opened)
    assert site.vote(agreed, site.token(site.ana)).status_code == 200
    with ledger.transaction(site.gateway) as conn:
        first = decisions.get(conn, agreed)
    assert first is not None

    for _ in range(2):
        later(database, waited, 30 * HOUR)
        silence.act(site.parts)

    with ledger.transaction(site.gateway) as conn:
        again, deadline = decisions.get(conn, agreed), requests.get(conn, waited).expires_at
        events = [event.action for event in audit.of_run(conn, run_id)]
        kept = conn.execute("SELECT count(*) FROM decisions").fetchone()
    assert again is not None
    assert again.start_by - deadline == timedelta(hours=24)
    assert (again.start_by > first.start_by, kept) == (True, (1,))
    said, was = parse(again.signed.statement), parse(first.signed.statement)
    assert said.pop("renewed") == {"decided": was.pop("start_by"), "for": ids.show("req", waited)}
    assert said.pop("start_by") != was.get("start_by")
    assert said == was
    assert events.count("decision.renewed") == 1  # a second one would say no more than the first


def test_a_forged_approval_is_not_signed_again(site: Site, database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decide, "START_GRACE", timedelta(hours=-30))  # it was decided long ago
    opened = asking("c1", expires_after=HOUR), asking("c2", expires_after=HOUR, on_expiry="extend")
    _, [agreed, waited] = site.a_waiting_run(*opened)
    assert site.vote(agreed, site.token(site.ana)).status_code == 200
    with psycopg.connect(database.owner) as conn:
        conn.execute("ALTER TABLE decisions DISABLE TRIGGER USER")
        conn.execute("UPDATE decisions SET signature = ''")

    later(database, waited, 30 * HOUR)
    silence.act(site.parts)

    with ledger.transaction(site.gateway) as conn:
        assert conn.execute("SELECT count(*) FROM renewals").fetchone() == (0,)
        assert requests.get(conn, waited).extended == 30


def test_two_gateways_that_sweep_at_once_double_no_message(site: Site, database: Database) -> None:
    in_group(database, site.ben, "security")
    parked = [site.a_waiting_run(asking(on_expiry="extend", **LADDER))[1][0] for _ in range(10)]
    sent(database)
    for asked in parked:
        later(database, asked, 80 * HOUR)

    with ThreadPoolExecutor(4) as pool:
        moved = sum(item.result() for item in [pool.submit(silence.act, site.parts) for _ in range(4)])

    assert moved == len(parked)
    assert all(
        told(site, asked) == {("request", "Ana"): 1, ("escalation", "Ben"): 1, ("reminder", "Ana"): 1}
        for asked in parked
    )


DIES = """
import os, signal, sys
from banksman import ledger
from banksman.ledger import silence as rows
from banksman_gateway import app, silence
from banksman.settings import GatewaySettings

tell = rows.tell
def dies(*args):
    tell(*args)
    os.kill(os.getpid(), signal.SIGKILL)
rows.tell = dies
silence.act(app.build(GatewaySettings()))
"""


def test_a_gateway_killed_between_a_step_and_its_messages_leaves_both_undone(
    site: Site, database: Database, gateway_settings: Any
) -> None:
    run_id, [asked] = site.a_waiting_run(asking(**LADDER))
    sent(database)
    later(database, asked, HOUR)
    values = gateway_settings.model_dump(exclude_defaults=True)
    secret = {name: getattr(value, "get_secret_value", lambda v=value: v)() for name, value in values.items()}

    env = os.environ | {f"BANKSMAN_{name.upper()}": str(value) for name, value in secret.items()}
    died = subprocess.run([sys.executable, "-c", DIES], env=env, check=False, timeout=60)
    assert died.returncode == -signal.SIGKILL
    assert told(site, asked) == {("request", "Ana"): 1}
    assert heard(site, run_id) == []

    assert silence.act(site.parts) == 1
    assert told(site, asked) == {("request", "Ana"): 1, ("reminder", "Ana"): 1, ("reminder", "Ben"): 1}


@pytest.mark.parametrize("kind", [Kind.QUESTION, Kind.EXTERNAL, Kind.OUTCOME])
def test_every_kind_of_request_follows_the_ladder(site: Site, database: Database, kind: Kind) -> None:
    in_group(database, site.ben, "security")
    run_id, [asked] = site.a_waiting_run(asking(kind=kind, expires_after=5 * HOUR, **LADDER))
    sent(database)

    for _ in range(5):
        later(database, asked, HOUR)
        silence.act(site.parts)
        sent(database)

    assert told(site, asked)["escalation", "Ben"] == 1
    assert told(site, asked)["reminder", "Ana"] == 2
    assert heard(site, run_id)[-1] == "request.expired"


def unreachable(site: Site, asked: NewRequest) -> tuple[RunId, RequestId]:
    """A request as the worker opens it when those who may decide are too few."""
    run_id, [opened] = site.a_waiting_run(replace(asked, reachable=False))
    silence.act(site.parts)
    return run_id, opened


def test_a_request_that_nobody_may_decide_says_so_at_once_and_no_longer_than_it_is_true(
    site: Site, database: Database
) -> None:
    run_id, asked = unreachable(site, asking(groups={"legal": 1}))

    assert site.request(asked)["unreachable_since"] is not None
    assert "banksman_requests_unreachable 1.0" in site.client.get("/metrics").text
    assert heard(site, run_id) == ["request.unreachable"]
    in_group(database, site.ana, "legal")
    later(database, asked, HOUR)
    silence.act(site.parts)
    assert site.request(asked)["unreachable_since"] is None
    assert heard(site, run_id) == ["request.unreachable", "request.reachable"]


def test_two_people_are_not_enough_where_one_of_them_asked(site: Site) -> None:
    _, asked = unreachable(site, asking(approvals=3))

    with ledger.transaction(site.gateway) as conn:
        why = silence.unreachable(conn, requests.get(conn, asked))

    assert why is not None
    assert why.startswith("It needs 3 people of reviewers besides whoever asked for the run, and too few people here")


def test_work_elsewhere_is_reachable_while_a_key_may_answer_it(site: Site) -> None:
    _, asked = unreachable(site, asking(kind=Kind.EXTERNAL, groups={"legal": 1}))
    assert site.request(asked)["unreachable_since"] is not None

    site.key("requests:answer")

    with ledger.transaction(site.gateway) as conn:
        assert silence.unreachable(conn, requests.get(conn, asked)) is None
