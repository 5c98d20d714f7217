"""Rows chosen in the inbox are decided together: each by its own vote, on what a table showed whole."""

from __future__ import annotations

import pytest

from banksman import ids
from banksman.ids import RequestId
from banksman.states import Kind, RequestState, Tier
from tests.gateway.browser import Browser, form_in, page_of, stored
from tests.gateway.scenes import Site, asking


def test_rows_of_different_tools_are_one_table_each_and_each_gets_its_own_vote(site: Site, ana: Browser) -> None:
    asked = [waiting(site, "refund", amount=20 + number) for number in range(2)] + [
        waiting(site, "mail", to="x@y.test")
    ]
    page = ana.get(address(asked, "deny")).text
    form = form_in(page, "deny")

    done = ana.send(form, sure="3", reason="Not now.")

    assert page.count("<table") == 2
    assert "3 of 3 votes counted" in done.text
    for one in asked:
        [vote] = site.request(one)["votes"]
        assert (vote["verdict"], vote["reason"]) == ("deny", "Not now.")
        assert stored(site, one).state is RequestState.DENIED


def test_what_is_decided_one_by_one_is_said_to_be_left_out(site: Site, ana: Browser) -> None:
    plain = waiting(site, "refund", amount=20)
    high = waiting(site, "refund", tier=Tier.HIGH, amount=20)
    question = waiting(site, "ask", kind=Kind.QUESTION, question="When?")
    long = waiting(site, "refund", reason="x" * 300)
    over = waiting(site, "refund", amount=21)
    own = site.a_waiting_run(asking(), requester=site.ana)[1][0]
    assert site.vote(over, site.token(site.ben), verdict="deny").status_code == 200

    page = ana.get(address([plain, high, question, long, over, own], "approve")).text

    assert list(picked(page)) == [ids.show("req", plain)]
    for why in ("is of tier high", "is of kind question", "is too long for this table", "waits for you no longer"):
        assert why in page
    assert "Nothing of this can be decided together" in ana.get(address([high], "approve")).text


@pytest.mark.parametrize("tier", [Tier.HIGH, Tier.LOW])
def test_a_forged_row_is_not_counted(site: Site, ana: Browser, tier: Tier) -> None:
    honest = waiting(site, "refund", amount=20)
    other = waiting(site, "refund", tier=tier, reason="x" * 300)
    form = form_in(ana.get(address([honest], "approve")).text, "approve")
    shown = site.request(other)
    mark = form.fields[f"pick-{ids.show('req', honest)}"].split(":")
    form.fields[f"pick-{ids.show('req', other)}"] = f"{shown['revision']}:{shown['digest']}:{mark[2]}"

    done = ana.send(form, sure="2")

    assert "1 of 2 votes counted" in done.text
    assert (stored(site, honest).state, stored(site, other).state) == (RequestState.APPROVED, RequestState.OPEN)


def test_a_row_that_is_not_shown_whole_is_not_decided_there(site: Site, ana: Browser) -> None:
    honest, long = waiting(site, "refund", amount=20), waiting(site, "refund", reason="x" * 300)
    form = form_in(ana.get(address([honest], "approve")).text, "approve")
    whole = ana.form(page_of(long), "approve").fields
    form.fields[f"pick-{ids.show('req', long)}"] = f"{whole['revision']}:{whole['digest']}:{whole['rendered']}"

    done = ana.send(form, sure="2")

    assert "1 of 2 votes counted" in done.text
    assert stored(site, long).state is RequestState.OPEN


def test_a_row_counts_only_as_it_was_shown(site: Site, ana: Browser) -> None:
    asked = [waiting(site, "refund", amount=20 + number) for number in range(2)]
    form = form_in(ana.get(address(asked, "approve")).text, "approve")
    first, second = (f"pick-{ids.show('req', one)}" for one in asked)
    form.fields[second] = ":".join([*form.fields[second].split(":")[:2], form.fields[first].split(":")[2]])

    done = ana.send(form, sure="2")

    assert "1 of 2 votes counted" in done.text
    assert stored(site, asked[1]).state is RequestState.OPEN


def test_one_that_changed_since_it_was_shown_fails_alone(site: Site, ana: Browser) -> None:
    asked = [waiting(site, "refund", path="/a", content=f"{number}") for number in range(3)]
    form = form_in(ana.get(address(asked, "approve")).text, "approve")
    assert site.vote(asked[0], site.token(site.ben), verdict="deny").status_code == 200

    done = ana.send(form, sure="3")

    assert "2 of 3 votes counted" in done.text
    assert [stored(site, one).state.value for one in asked] == ["denied", "approved", "approved"]


def test_all_of_them_must_be_meant_and_a_look_decides_nothing(site: Site, ana: Browser) -> None:
    asked = [waiting(site, "refund", amount=20 + number) for number in range(3)]
    form = form_in(ana.get(address(asked, "approve")).text, "approve")

    for said in ("", "2", "yes"):
        assert ana.send(form, sure=said).status_code == 422

    assert {stored(site, one).state for one in asked} == {RequestState.OPEN}
    assert ana.get("/groups/chosen?" + "&".join(["pick=req_x"] * 101)).status_code == 422
    assert ana.get("/groups/chosen").status_code == 200


def test_an_argument_that_one_call_leaves_out_is_not_shown_as_null(site: Site, ana: Browser) -> None:
    asked = [waiting(site, "refund", amount=1), waiting(site, "refund", amount=1, note=None)]

    page = ana.get(address(asked, "approve")).text

    assert ">not given<" in page
    assert ">null<" in page


def address(asked: list[RequestId], verdict: str) -> str:
    picks = "&".join(f"pick={ids.show('req', one)}" for one in asked)
    return f"/groups/chosen?{picks}&verdict={verdict}"


def picked(page: str) -> list[str]:
    return [name.removeprefix("pick-") for name in form_in(page, "approve").fields if name.startswith("pick-")]


def waiting(
    site: Site, tool: str, *, kind: Kind = Kind.APPROVAL, tier: Tier = Tier.LOW, **arguments: object
) -> RequestId:
    _, [request_id] = site.a_waiting_run(asking(kind=kind, tool=tool, tier=tier, arguments=dict(arguments)))
    return request_id
