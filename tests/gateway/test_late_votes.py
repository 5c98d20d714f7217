"""A vote that comes after its run was stopped is told so: by whom and when, wherever it was cast."""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest

from banksman import ids, ledger, quorum
from banksman.ids import RequestId
from banksman.ledger import votes
from banksman.states import RequestState, Tier
from banksman_gateway import late, silence, voters
from banksman_gateway.stand_ins import Standing
from tests.gateway.browser import Browser, Words, code_of, form_in, link_of, notice_of, page_of, stored
from tests.gateway.scenes import Site, asking

WHEN = r"on \d{4}-\d\d-\d\d at \d\d:\d\d:\d\d UTC"
TOLD = f"The run was cancelled by ana@example.org {WHEN}, and this request with it. Your vote was not counted."


def a_late_vote(site: Site, request_id: RequestId) -> Any:
    answer = site.vote(request_id, site.token(site.ben))
    assert answer.status_code == 409
    assert answer.json()["type"] == "urn:banksman:problem:already-decided"
    return answer.json()


def cancel(site: Site, run_id: ids.RunId, headers: dict[str, str]) -> None:
    answer = site.client.post(f"/v1/runs/{ids.show('run', run_id)}/cancel", headers=headers)
    assert answer.status_code == 200


def test_a_late_vote_is_told_who_cancelled_the_run_and_when(site: Site) -> None:
    run_id, [request_id] = site.a_waiting_run()
    cancel(site, run_id, site.token(site.ana))

    problem = a_late_vote(site, request_id)

    assert re.fullmatch(TOLD, problem["detail"])
    settled_at = stored(site, request_id).settled_at
    assert settled_at is not None
    current = problem["current"]
    assert {name: current[name] for name in ("state", "run", "by")} == {
        "state": "cancelled",
        "run": "cancelled",
        "by": "ana@example.org",
    }
    assert current["at"][:16] == settled_at.isoformat()[:16]
    with ledger.transaction(site.gateway) as conn:
        assert votes.of_request(conn, request_id) == []


def test_moments_are_told_in_utc_wherever_postgresql_says_they_are(site: Site) -> None:
    _, [request_id] = site.a_waiting_run()
    tokyo = datetime(2026, 1, 1, 3, tzinfo=timezone(timedelta(hours=9)))
    request = replace(stored(site, request_id), state=RequestState.EXPIRED, expires_at=tokyo)
    fresh = replace(site.ana, fresh={quorum.REVIEWERS: (tokyo, tokyo)})

    with ledger.transaction(site.gateway) as conn:
        expired = late.answer(conn, request)
    refused = voters.hindrance(request, request.requirement, Standing(fresh, frozenset()), "session")

    assert "2025-12-31 18:00:00 UTC" in str(expired)
    assert "before 2025-12-31 18:00 UTC" in str(refused)


def test_one_of_many_late_votes_is_told_the_same(site: Site) -> None:
    run_id, [late] = site.a_waiting_run()
    _, [open_] = site.a_waiting_run()
    cancel(site, run_id, site.key("runs:cancel", name="night watch"))
    ballots: list[dict[str, Any]] = []
    for request_id in (late, open_):
        shown = site.request(request_id)
        ballots.append(
            {"request_id": shown["id"], "verdict": "approve", "digest": shown["digest"], "revision": shown["revision"]}
        )

    rows = site.client.post("/v1/votes", json={"votes": ballots}, headers=site.token(site.ben)).json()["items"]

    assert [row["status"] for row in rows] == [409, 200]
    assert "cancelled by night watch on" in rows[0]["problem"]["detail"]


def test_siblings_of_a_call_that_stopped_the_run_are_cancelled_and_say_so(site: Site) -> None:
    _, [first, second, third] = site.a_waiting_run(asking("c1"), asking("c2"), asking("c3"))
    assert site.vote(third, site.token(site.ben)).status_code == 200

    denied = site.vote(first, site.token(site.ana), verdict="deny", stop_run=True)

    assert denied.status_code == 200
    assert [stored(site, item).state for item in (first, second, third)] == [
        RequestState.DENIED,
        RequestState.CANCELLED,
        RequestState.APPROVED,
    ]
    assert re.fullmatch(TOLD, a_late_vote(site, second)["detail"])
    assert "already denied, by ana@example.org, on" in a_late_vote(site, first)["detail"]


def test_silence_that_stopped_the_run_is_named(site: Site) -> None:
    _, [first, second] = site.a_waiting_run(
        asking("c1", on_expiry="stop", expires_after=0), asking("c2", on_expiry="stop")
    )

    assert silence.act(site.parts) == 1

    assert "by the system, because nobody decided on another" in a_late_vote(site, second)["detail"]
    assert "Nobody decided in time" in a_late_vote(site, first)["detail"]


def test_the_page_and_the_link_page_say_who_cancelled_the_run(site: Site) -> None:
    run_id, [request_id] = site.a_waiting_run(asking(tier=Tier.LOW))
    notice = notice_of(site, request_id)
    code = code_of(site, notice)
    signed_in, by_link = Browser(site), Browser(site)
    signed_in.sign_in(site.ben)
    by_link.get(link_of(site, notice))
    forms = [browser.form(page_of(request_id), "approve") for browser in (signed_in, by_link)]
    cancel(site, run_id, site.token(site.ana))

    in_session = signed_in.send(forms[0])
    in_link = by_link.send(forms[1], code=code)

    for answer in (in_session, in_link):
        said = " ".join(Words(answer.text).text.split())
        assert answer.status_code == 409
        assert re.search(TOLD, said)
        assert "Nobody decided: the run was cancelled by ana@example.org" in said
    with pytest.raises(AssertionError):
        form_in(signed_in.get(page_of(request_id)).text, "approve")
    again = Browser(site)
    again.get(link_of(site, notice))
    assert "cancelled by ana@example.org" in " ".join(Words(again.get(page_of(request_id)).text).text.split())
