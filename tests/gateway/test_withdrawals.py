"""Votes taken back: by whom, until when, what counts then, and what a row that somebody else wrote does not do."""

from __future__ import annotations

from collections.abc import Mapping

import psycopg
import pytest
from httpx2 import Response

from banksman import ids, ledger
from banksman.ids import RequestId
from banksman.ledger import audit, decisions, staff, votes
from banksman.signing import Verifier
from banksman.states import RequestState
from banksman_gateway import decide
from tests.conftest import Database
from tests.gateway.browser import Browser, Words, forms_in, page_of, stored
from tests.gateway.scenes import Site, asking


def withdraw(site: Site, request_id: RequestId, headers: Mapping[str, str]) -> Response:
    return site.client.post(f"/v1/requests/{ids.show('req', request_id)}/withdraw", headers=headers)


def told(site: Site, request_id: RequestId) -> list[str]:
    run_id = stored(site, request_id).run_id
    with ledger.transaction(site.gateway) as conn:
        return [event.action for event in audit.of_run(conn, run_id) if event.request_id == request_id]


def test_a_vote_that_was_taken_back_does_not_count(site: Site) -> None:
    _, [request_id] = site.a_waiting_run(asking(approvals=2))
    ana = site.token(site.ana)
    assert site.vote(request_id, ana).json()["quorum"]["agreed"] == ["ana@example.org"]

    taken_back = withdraw(site, request_id, ana)
    after = site.vote(request_id, site.token(site.ben))

    assert taken_back.status_code == 200
    assert taken_back.json()["quorum"]["agreed"] == []
    [vote] = taken_back.json()["votes"]
    assert (vote["counts"], vote["void"]) == (False, "was taken back")
    assert after.json()["state"] == "open"
    assert after.json()["quorum"]["waits_for"] == "one more person"
    assert "vote.withdrawn" in told(site, request_id)


def test_who_took_their_vote_back_may_vote_again_and_counts_once(site: Site, verifier: Verifier) -> None:
    _, [request_id] = site.a_waiting_run(asking(approvals=2))
    ana = site.token(site.ana)
    for _ in range(3):
        assert site.vote(request_id, ana).status_code == 200
        assert site.vote(request_id, ana).status_code == 409
        assert withdraw(site, request_id, ana).status_code == 200

    assert site.vote(request_id, ana).json()["state"] == "open"
    decided = site.vote(request_id, site.token(site.ben)).json()

    assert decided["state"] == "approved"
    assert decided["decision"]["by"] == ["ana@example.org", "ben@example.org"]
    with ledger.transaction(site.gateway) as conn:
        decision = decisions.get(conn, request_id)
        assert decision is not None
        cast = votes.of_request(conn, request_id)
    said = verifier.verify(decision.signed)
    assert [voter["vote"] for voter in said["voters"]] == [ids.show("vot", item.id) for item in cast[-2:]]
    assert len(cast) == 5


def test_who_took_an_approval_back_may_deny(site: Site) -> None:
    _, [request_id] = site.a_waiting_run(asking(approvals=2))
    ana = site.token(site.ana)
    site.vote(request_id, ana)
    withdraw(site, request_id, ana)

    denied = site.vote(request_id, ana, verdict="deny", reason="I looked again.").json()

    assert (denied["state"], denied["decision"]["by"]) == ("denied", ["ana@example.org"])


def test_a_denial_names_who_denied_and_not_who_had_approved(site: Site) -> None:
    _, [request_id] = site.a_waiting_run(asking(approvals=2))
    site.vote(request_id, site.token(site.ana))

    denied = site.vote(request_id, site.token(site.ben), verdict="deny").json()
    late = site.vote(request_id, site.token(site.ana)).json()

    assert denied["decision"]["by"] == ["ben@example.org"]
    assert [who["person"] for who in late["current"]["decided_by"]] == ["ben@example.org"]


def test_nobody_takes_back_what_is_decided_or_what_another_said(site: Site) -> None:
    _, [request_id] = site.a_waiting_run(asking(approvals=2))
    site.vote(request_id, site.token(site.ana))

    anothers = withdraw(site, request_id, site.token(site.ben))
    machines = withdraw(site, request_id, site.key("votes", owner=site.ana.id))
    site.vote(request_id, site.token(site.ben))
    late = withdraw(site, request_id, site.token(site.ana))

    assert (anothers.status_code, anothers.json()["type"]) == (409, "urn:banksman:problem:conflict")
    assert machines.status_code == 403
    assert (late.status_code, late.json()["type"]) == (409, "urn:banksman:problem:already-decided")
    assert {who["person"] for who in late.json()["current"]["decided_by"]} == {"ana@example.org", "ben@example.org"}
    assert stored(site, request_id).state is RequestState.APPROVED


def test_a_withdrawal_that_was_not_made_here_takes_nothing_back_and_is_told(site: Site, database: Database) -> None:
    _, [request_id] = site.a_waiting_run(asking(approvals=2))
    ana = site.token(site.ana)
    site.vote(request_id, ana)
    with ledger.transaction(site.gateway) as conn:
        [vote] = votes.of_request(conn, request_id)
    with psycopg.connect(database.owner) as conn:
        conn.execute("INSERT INTO withdrawals (vote_id, mac) VALUES (%s, %s)", (vote.id, vote.mac))

    still = site.request(request_id)
    again = site.vote(request_id, ana)
    decided = site.vote(request_id, site.token(site.ben)).json()

    assert still["quorum"]["agreed"] == ["ana@example.org"]
    assert again.status_code == 409
    assert (decided["state"], decided["decision"]["by"]) == ("approved", ["ana@example.org", "ben@example.org"])
    assert "withdrawal.refused" in told(site, request_id)


def test_a_withdrawal_that_was_not_made_here_keeps_nobody_from_one(site: Site, database: Database) -> None:
    _, [request_id] = site.a_waiting_run(asking(approvals=2))
    ana = site.token(site.ana)
    vote = site.vote(request_id, ana).json()["votes"][0]["id"]
    with psycopg.connect(database.owner) as conn:
        conn.execute("INSERT INTO withdrawals (vote_id, mac) VALUES (%s, 'k1.x')", (ids.read("vot", vote),))

    assert withdraw(site, request_id, ana).status_code == 200

    assert site.vote(request_id, site.token(site.ben)).json()["state"] == "open"


def test_the_schema_itself_keeps_two_standing_votes_of_one_person_out(site: Site, owner_pool: ledger.Pool) -> None:
    _, [request_id] = site.a_waiting_run(asking(approvals=3))
    site.vote(request_id, site.token(site.ana))
    site.vote(request_id, site.token(site.ben))
    withdraw(site, request_id, site.token(site.ben))
    with ledger.transaction(owner_pool) as conn:
        [anas, bens] = votes.of_request(conn, request_id)
    again = """
        INSERT INTO votes (id, request_id, revision, digest, verdict, person_id, channel, mac, replaces)
        VALUES (%s, %s, 1, '', 'approve', %s, 'token', '', %s)
    """

    for replaced in (anas.id, bens.id, ids.new()):
        with pytest.raises(psycopg.errors.InsufficientPrivilege), ledger.transaction(owner_pool) as conn:
            conn.execute(again, (ids.new(), request_id, site.ana.id, replaced))
    with pytest.raises(psycopg.errors.UniqueViolation), ledger.transaction(owner_pool) as conn:
        conn.execute(again, (ids.new(), request_id, site.ana.id, None))
    with ledger.transaction(owner_pool) as conn:
        conn.execute(again, (ids.new(), request_id, site.ben.id, bens.id))
    with pytest.raises(psycopg.errors.UniqueViolation), ledger.transaction(owner_pool) as conn:
        conn.execute(again, (ids.new(), request_id, site.ben.id, bens.id))


def test_a_vote_is_taken_back_on_the_page_too(site: Site) -> None:
    _, [request_id] = site.a_waiting_run(asking(approvals=2))
    browser = Browser(site)
    browser.sign_in(site.ana)
    browser.send(browser.form(page_of(request_id), "approve"))
    page = browser.get(page_of(request_id)).text
    assert "1 of 2 have agreed. It waits for one more person." in Words(page).text
    [form] = [form for form in forms_in(page) if form.action.endswith("/withdraw")]

    assert browser.send(form).status_code == 303
    twice = browser.send(form)

    assert twice.status_code == 409
    assert "You have no vote on revision 1" in Words(twice.text).text
    assert "it was taken back" in Words(twice.text).text
    assert page_of(request_id) in browser.get("/").text
    assert browser.send(browser.form(page_of(request_id), "approve")).status_code == 303


@pytest.mark.parametrize("change", ["disabled", "role", "group"])
def test_a_vote_of_somebody_who_may_not_vote_any_more_does_not_count(site: Site, change: str) -> None:
    with ledger.transaction(site.gateway) as conn:
        for person in (site.ana, site.ben):
            staff.upsert(conn, person.email, name=person.name, groups=["security"])
    _, [request_id] = site.a_waiting_run(asking(approvals=2, groups={"security": 1}))
    cleo = site.a_person("cleo@example.org", "reviewer")
    with ledger.transaction(site.gateway) as conn:
        staff.upsert(conn, "cleo@example.org", name="Cleo", groups=["security"])
    site.vote(request_id, site.token(site.ana))
    with ledger.transaction(site.gateway) as conn:
        if change == "disabled":
            staff.disable(conn, site.ana.id)
        else:
            roles, groups = (["operator"], ["security"]) if change == "role" else (["reviewer"], ["sales"])
            staff.upsert(conn, "ana@example.org", name="Ana", roles=roles, groups=groups)
    shown = site.request(request_id)

    second = site.vote(request_id, site.token(site.ben))
    third = site.vote(request_id, site.token(cleo))

    assert shown["quorum"]["agreed"] == []
    assert shown["votes"][0]["void"].startswith("is of somebody")
    assert second.json()["state"] == "open"
    assert third.json()["state"] == "approved"
    assert third.json()["decision"]["by"] == ["ben@example.org", "cleo@example.org"]


def test_where_one_vote_is_enough_it_must_still_fill_every_place(site: Site) -> None:
    with ledger.transaction(site.gateway) as conn:
        staff.upsert(conn, "ana@example.org", name="Ana", groups=["engineering"])
        staff.upsert(conn, "ben@example.org", name="Ben", groups=["security"])
    _, [request_id] = site.a_waiting_run(asking(approvals=1, groups={"engineering": 0, "security": 1}))

    first = site.vote(request_id, site.token(site.ana)).json()
    second = site.vote(request_id, site.token(site.ben)).json()

    assert (first["state"], first["quorum"]["waits_for"]) == ("open", "one of security")
    assert second["state"] == "approved"


def test_what_a_mark_says_cannot_be_moved_to_another_vote(site: Site) -> None:
    _, [request_id] = site.a_waiting_run(asking(approvals=3))
    for person in (site.ana, site.ben):
        site.vote(request_id, site.token(person))
    marks = site.parts.link_keys
    with ledger.transaction(site.gateway) as conn:
        [one, other] = votes.of_request(conn, request_id)
    stolen = marks.mark(one.id, decide.withdrawing(one))

    assert marks.mark_holds(stolen, one.id, decide.withdrawing(one))
    assert not marks.mark_holds(stolen, other.id, decide.withdrawing(other))
    assert not marks.mark_holds(one.mac, one.id, decide.withdrawing(one))


def test_nobody_changes_their_mind_for_ever(site: Site) -> None:
    _, [request_id] = site.a_waiting_run(asking(approvals=2))
    ana = site.token(site.ana)
    for _ in range(decide.MOST_VOTES):
        assert site.vote(request_id, ana).status_code == 200
        assert withdraw(site, request_id, ana).status_code == 200

    once_more = site.vote(request_id, ana)

    assert (once_more.status_code, once_more.json()["type"]) == (409, "urn:banksman:problem:already-voted")
    assert "taken your vote back 20 times" in once_more.json()["detail"]
    assert site.request(request_id)["quorum"]["agreed"] == []


def test_a_stranger_learns_nothing_from_voting_or_taking_back(site: Site) -> None:
    _, [request_id] = site.a_waiting_run()
    site.vote(request_id, site.token(site.ana))
    stranger = site.token(site.a_person("stranger@example.org"))

    voted = site.vote(request_id, stranger)
    back = withdraw(site, request_id, stranger)

    assert (voted.status_code, back.status_code) == (403, 404)
    assert "ana@example.org" not in voted.text + back.text
