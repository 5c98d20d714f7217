"""`kill -9` at each named point: of a worker's way from the claim to the end of a run, most of them around the journal;
of the gateway in a submission and a vote; of the notifier around a mail.

What counts is what a fake external system was made to do: the call that a person approved took effect once.
"""

from __future__ import annotations

import os
import signal
import time
from dataclasses import replace
from email import message_from_bytes

import httpx
import pytest

from tests.chaos import crashes
from tests.chaos.crashes import Crash
from tests.chaos.site import Site, until
from tests.journeys.outsider import Shape, problem

LONG = {"BANKSMAN_LEASE_SECONDS": "10"}


@pytest.mark.parametrize("crash", crashes.WORKER, ids=[crash.name for crash in crashes.WORKER])
def test_a_worker_dies_at_a_point_and_the_call_takes_effect_once(site: Site, crash: Crash) -> None:
    word = f"{crash.name}-{time.time_ns()}"
    program, ana = site.program(), site.reviewer()
    site.worker("victim", point=crash.point)
    run = program.submit("payer", word)

    asked = _carry_on_until_it_dies(site, word, run)
    left_behind = len(site.effects(word))
    site.worker("successor", settings=LONG)
    asked += _settle_the_rest(site, word, run, asked)

    assert left_behind == crash.effects
    assert [request["kind"] for request in asked] == ["approval", *(["outcome"] * crash.asked)]
    assert [effect.details["amount"] for effect in site.effects(word)] == [100]
    ended = program.run(run["id"])
    assert (ended["status"], ended["error"]) == ("finished", None)
    assert f"pay of {word} is done" in ended["output"]
    assert len(ana.requests(run["id"])) == len(asked)


def test_a_dispatcher_dies_before_it_sends_what_it_has_dispatched(site: Site) -> None:
    word = f"dispatched-{time.time_ns()}"
    program = site.program()
    run = program.submit("payer", word)
    site.flush()
    # Its wake-up is gone; when the row is due, the first look of the first worker finds it.
    until(lambda: site.query("SELECT 1 FROM runs WHERE due_at < now() AND status = 'queued'"), what="a due run")

    site.worker("victim", point=crashes.DISPATCHED)
    site.died("victim")
    site.worker("successor", settings=LONG)
    asked = _settle_the_rest(site, word, run, [])

    assert [request["kind"] for request in asked] == ["approval"]
    assert len(site.effects(word)) == 1


def test_a_worker_frozen_in_a_transaction_does_not_keep_its_runs_from_the_others(site: Site) -> None:
    word = f"frozen-{time.time_ns()}"
    program, ana = site.program(), site.reviewer()
    hold = site.yard / f"hold-{word}"
    hold.touch()
    now = site.yard / f"freeze-{word}"
    site.worker("victim", point=replace(crashes.FROZEN, once=str(now)), values={"banksman.ledger:IDLE_SECONDS": 1.0})
    run = program.submit("payer", word)
    [request] = ana.asked(run["id"])
    ana.decide(request, "approve")
    until(lambda: site.effects(word), what="the effect")
    now.touch()
    pid = site.stopped("victim")

    # It holds the lock on the run's row: without an end to its session nobody could ever take the run.
    site.worker("successor", settings=LONG)
    [doubt] = ana.asked(run["id"])
    hold.unlink()
    os.kill(pid, signal.SIGCONT)
    until(lambda: site.query("SELECT 1 FROM executions WHERE state = 'finished' AND run_id = %s", _id(run)))
    ana.decide(doubt, "rerun")

    assert doubt["kind"] == "outcome"
    assert f"pay of {word} is done" in program.ended(run["id"])["output"]
    assert [effect.pid for effect in site.effects(word)] == [pid]
    assert site.lives("victim")


def test_a_worker_that_thaws_after_its_lease_does_not_begin_what_it_had_recorded(site: Site) -> None:
    word = f"late-{time.time_ns()}"
    program, ana = site.program(), site.reviewer()
    site.worker("victim", point=crashes.LATE)
    run = program.submit("payer", word)
    [request] = ana.asked(run["id"])
    ana.decide(request, "approve")
    pid = site.stopped("victim")
    successor = site.worker("successor", settings=LONG)
    [doubt] = ana.asked(run["id"])
    before = site.said()

    # A person looks, finds nothing, and says rerun; then it thaws.
    os.kill(pid, signal.SIGCONT)
    until(lambda: "was lost to another worker" in site.said()[len(before) :], what="the end of its attempt")
    ana.decide(doubt, "rerun")
    program.ended(run["id"])

    assert [effect.pid for effect in site.effects(word)] == [successor]


@pytest.mark.parametrize("crash", crashes.SUBMITTING, ids=[crash.name for crash in crashes.SUBMITTING])
def test_a_gateway_dies_in_a_submission_and_the_same_key_makes_one_run(site: Site, crash: Crash) -> None:
    word = f"{crash.name}-{time.time_ns()}"
    program, body = site.program(), {"agent": "payer", "prompt": word}
    key = {"Idempotency-Key": word}
    site.kill("gateway")
    site.gateway(point=crash.point)

    with pytest.raises(httpx.TransportError):
        program.http.post("/v1/runs", json=body, headers=key)
    site.died("gateway")
    site.gateway()
    answer = program.http.post("/v1/runs", json=body, headers=key)

    assert answer.status_code == 201
    site.worker(settings=LONG)
    [request] = site.reviewer().asked(answer.json()["id"])
    site.reviewer().decide(request, "approve")
    program.ended(answer.json()["id"])
    assert len(site.effects(word)) == 1
    same = [run for run in program.http.get("/v1/runs").json()["items"] if run["prompt"] == word]
    assert [run["id"] for run in same] == [answer.json()["id"]]


@pytest.mark.parametrize("crash", crashes.VOTING, ids=[crash.name for crash in crashes.VOTING])
def test_a_gateway_dies_in_a_vote_and_nothing_of_it_counts(site: Site, crash: Crash) -> None:
    word = f"{crash.name}-{time.time_ns()}"
    run, request = _asked(site, word)
    site.kill("gateway")
    site.gateway(point=crash.point)

    with pytest.raises(httpx.TransportError):
        site.reviewer().vote(request, "approve")
    site.died("gateway")
    site.gateway()

    # Nothing was answered and nothing counts: the same person may as well say no now.
    site.reviewer().decide(request, "deny", reason="On second thoughts, no.")
    assert "On second thoughts, no." in site.program().ended(run["id"])["output"]
    assert site.effects(word) == []


def test_a_gateway_dies_after_a_decision_and_it_stands_and_the_run_goes_on(site: Site) -> None:
    word = f"decided-{time.time_ns()}"
    run, request = _asked(site, word)
    site.kill("gateway")
    site.gateway(point=crashes.DECIDED)

    with pytest.raises(httpx.TransportError):
        site.reviewer().vote(request, "approve")
    site.died("gateway")
    site.gateway()
    late = problem(site.reviewer().vote(request, "deny"), 409)

    assert "already approved, by ana@example.org" in late["detail"]
    site.program().ended(run["id"])
    assert len(site.effects(word)) == 1


@pytest.mark.parametrize("crash", crashes.NOTIFYING, ids=[crash.name for crash in crashes.NOTIFYING])
def test_a_notifier_dies_before_a_mail_is_on_record_and_the_repeat_is_the_same_mail(site: Site, crash: Crash) -> None:
    word = f"{crash.name}-{time.time_ns()}"
    before = len(site.mails())
    site.notifier(point=crash.point, lease=1)
    run, _ = _asked(site, word)
    site.died("notifier")
    left_behind = len(site.mails()) - before
    site.notifier(lease=60)

    until(lambda: len(site.mails()) - before == 2 + crash.effects, what="the mails")
    until(lambda: _all_recorded(site, run), what="their record")

    mails = site.mails()[before:]
    assert left_behind == crash.effects
    # Two reviewers, two messages; what was sent twice is one mail to the byte.
    assert len({message_from_bytes(raw)["Message-ID"] for raw in mails}) == 2
    assert len(set(mails)) == 2


def test_a_notifier_dies_once_a_mail_is_on_record_and_it_is_not_sent_again(site: Site) -> None:
    word = f"recorded-{time.time_ns()}"
    before = len(site.mails())
    site.notifier(point=crashes.MAIL_RECORDED, lease=1)
    run, _ = _asked(site, word)
    site.died("notifier")
    site.notifier(lease=60)

    until(lambda: _all_recorded(site, run), what="their record")

    assert len(site.mails()[before:]) == 2


def _carry_on_until_it_dies(site: Site, word: str, run: Shape) -> list[Shape]:
    """The person approves what is asked while the victim lives; what they were asked."""
    asked: list[Shape] = []
    until(lambda: not site.lives("victim") or _answer(site, word, run, asked), what=f"a request or the end of {word}")
    site.died("victim")
    return asked


def _settle_the_rest(site: Site, word: str, run: Shape, before: list[Shape]) -> list[Shape]:
    """The person answers whatever is asked until the run is over."""
    asked: list[Shape] = []
    program = site.program()

    def over() -> bool:
        _answer(site, word, run, asked, known={request["id"] for request in before})
        return program.run(run["id"])["status"] in {"finished", "failed", "cancelled", "stuck"}

    until(over, within=30, what=f"the end of {word}")
    return asked


def _answer(
    site: Site, word: str, run: Shape, asked: list[Shape], *, known: frozenset[str] | set[str] = frozenset()
) -> bool:
    """Approve, or settle an unknown outcome by the effect log alone; whether anything was asked."""
    ana = site.reviewer()
    found = [item for item in ana.requests(run["id"], state="open") if item["id"] not in known]
    for request in found:
        asked.append(request)
        if request["kind"] == "approval":
            ana.decide(request, "approve")
        elif site.effects(word):
            ana.decide(request, "happened", answer=f"pay of {word} is done; I looked.")
        else:
            ana.decide(request, "rerun")
    return bool(found)


def _asked(site: Site, word: str) -> tuple[Shape, Shape]:
    """A parked run, a worker that will take it on, and what it asks."""
    site.worker(settings=LONG)
    run = site.program().submit("payer", word)
    [request] = site.reviewer().asked(run["id"])
    return run, request


def _all_recorded(site: Site, run: Shape) -> bool:
    sent = "SELECT notices.state FROM notices JOIN requests ON requests.id = request_id WHERE run_id = %s"
    return {row[0] for row in site.query(sent, _id(run))} == {"sent"}


def _id(run: Shape) -> str:
    return run["id"].removeprefix("run_")
