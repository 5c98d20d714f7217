"""The story of a call at tier high: two people, each in a session of their own, each with a reason."""

from __future__ import annotations

import time

from tests.journeys.browser import Browser, form_in, words
from tests.journeys.outsider import problem
from tests.journeys.stacks import Stack

DWELL = 6.5
"""A little more than the gateway's five seconds, which it counts whole."""


def test_a_call_at_tier_high_runs_when_two_people_have_agreed(calm: Stack) -> None:
    program, ana = calm.program(), calm.reviewer()
    run = program.submit("planner", "the high shelf")
    [request] = program.asked(run["id"])
    page = f"/sign-in?next=/requests/{request['id']}"

    by_token = problem(ana.vote(request, "approve", reason="Fine."), 403)
    with Browser(calm.url) as first, Browser(calm.url) as second:
        shown = first.sign_in("ana@example.org", calm.mail, page=page)
        hasty = first.send(form_in(shown, "approve"), status=403, read="whole", reason="I measured it.")
        time.sleep(DWELL)
        unreasoned = first.send(form_in(shown, "approve"), status=422, read="whole")
        first.send(form_in(shown, "approve"), read="whole", reason="I measured it.")
        twice = first.send(form_in(shown, "approve"), status=409, read="whole", reason="I measured it twice.")
        between = program.request(request["id"])
        shown = second.sign_in("ben@example.org", calm.mail, page=page)
        time.sleep(DWELL)
        second.send(form_in(shown, "approve"), read="whole", reason="So did I.")
    ended = program.ended(run["id"])

    assert request["tier"] == "high"
    assert request["requirement"]["approvals"] == 2
    assert "by a token" in by_token["detail"]
    assert "nobody agrees within 5 s" in words(hasty)
    assert "needs a reason" in words(unreasoned)
    assert "You have voted on revision 1 of this request already" in words(twice)
    assert between["state"] == "open"
    assert [vote["by"] for vote in between["votes"]] == ["ana@example.org"]
    assert "1 of 2 have agreed" in words(shown)
    assert "signed for the high shelf" in ended["output"]
    decision = program.request(request["id"])["decision"]
    assert sorted(decision["by"]) == ["ana@example.org", "ben@example.org"]
