"""Stand-ins: who votes for the groups of somebody who is away, when that counts, and when it ends."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest
from httpx2 import Response

from banksman import ids, ledger
from banksman.ids import PersonId, RequestId
from banksman.ledger import absences, decisions, people, staff
from banksman.records import Person, Requirement
from banksman.signing import Verifier
from banksman.states import Kind, Tier, Verdict
from banksman_gateway import decide, stand_ins
from tests.conftest import Database
from tests.gateway.browser import Browser, Form, Words, forms_in, page_of, stored
from tests.gateway.scenes import Site, asking

DAY = timedelta(days=1)


def in_groups(site: Site, person: Person, *groups: str, roles: Sequence[str] = ("reviewer",)) -> Person:
    with ledger.transaction(site.gateway) as conn:
        return staff.upsert(conn, person.email, name=person.name, roles=roles, groups=groups)


def somebody(site: Site, email: str, *groups: str, roles: Sequence[str] = ("reviewer",)) -> Person:
    return in_groups(site, site.a_person(email, *roles), *groups, roles=roles)


def away(site: Site, person: Person, other: Person, **said: Any) -> Response:
    body = {"stand_in": other.email, "until_at": (datetime.now(UTC) + DAY).isoformat()} | said
    return site.client.post("/v1/absences", json=body, headers=site.token(person))


def for_security(site: Site, *, requester: Person | None = None, **more: Any) -> RequestId:
    wanted: dict[str, Any] = {"groups": {"security": 1}, **more}
    _, [request_id] = site.a_waiting_run(asking(**wanted), requester=requester)
    return request_id


@pytest.fixture
def cast(site: Site) -> tuple[Person, Person]:
    """Ana of security, who is away, and Ben of sales, who stands in for her."""
    ana, ben = in_groups(site, site.ana, "security"), in_groups(site, site.ben, "sales")
    assert away(site, ana, ben).status_code == 200
    return ana, ben


def test_who_stands_in_decides_for_the_groups_of_whoever_is_away(
    site: Site, cast: tuple[Person, Person], verifier: Verifier
) -> None:
    ana, ben = cast
    request_id = for_security(site)

    decided = site.vote(request_id, site.token(ben)).json()

    assert decided["state"] == "approved"
    assert decided["votes"][0]["instead_of"] == ["ana@example.org"]
    with ledger.transaction(site.gateway) as conn:
        decision = decisions.get(conn, request_id)
    assert decision is not None
    [voter] = verifier.verify(decision.signed)["voters"]
    assert (voter["by"], voter["instead_of"]) == (ids.show("per", ben.id), [ids.show("per", ana.id)])
    browser = Browser(site)
    browser.sign_in(ben)
    page = Words(browser.get(page_of(request_id)).text).text
    assert "by Ben <ben@example.org>, for ana@example.org, who was away" in page


def test_it_waits_in_the_inbox_of_whoever_stands_in_and_no_longer(site: Site, cast: tuple[Person, Person]) -> None:
    _, ben = cast
    request_id = for_security(site)
    browser = Browser(site)
    browser.sign_in(ben)

    before = browser.get("/").text
    [absence] = site.client.get("/v1/absences", headers=site.token(ben)).json()["items"]
    ended = site.client.delete(f"/v1/absences/{absence['id']}", headers=site.token(ben))

    assert "1 waits for you" in Words(before).text
    assert page_of(request_id) in before
    assert (ended.status_code, ended.json()["live"]) == (200, False)
    assert "Nothing waits for you" in Words(browser.get("/").text).text


def test_an_absence_that_ended_lends_nothing_more(site: Site, cast: tuple[Person, Person]) -> None:
    ana, ben = cast
    request_id = for_security(site, approvals=2)
    assert site.vote(request_id, site.token(ben)).json()["quorum"]["waits_for"] == "one more person"
    [absence] = site.client.get("/v1/absences", headers=site.token(ana)).json()["items"]

    site.client.delete(f"/v1/absences/{absence['id']}", headers=site.token(ana))

    shown = site.request(request_id)
    assert shown["quorum"]["agreed"] == []
    assert shown["votes"][0]["void"] == "is of somebody who may not vote on this any more"
    assert site.vote(for_security(site), site.token(ben)).status_code == 403


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE people SET disabled_at = now() WHERE email = 'ana@example.org'",
        "UPDATE people SET roles = '{auditor}' WHERE email = 'ana@example.org'",
        "UPDATE people SET groups = '{}' WHERE email = 'ana@example.org'",
        "UPDATE people SET roles = '{admin}' WHERE email = 'ben@example.org'",
        "UPDATE absences SET until_at = now()",
        "UPDATE absences SET from_at = now() + interval '1 hour'",
    ],
)
def test_nothing_is_lent_once_this_has_happened(
    site: Site, cast: tuple[Person, Person], database: Database, change: str
) -> None:
    _, ben = cast
    request_id = for_security(site, approvals=2)
    headers = site.token(ben)
    site.vote(request_id, headers)
    with psycopg.connect(database.owner) as conn:
        conn.execute(change.encode())

    late = site.vote(for_security(site), headers)
    after = site.vote(request_id, site.token(somebody(site, "cleo@example.org", "security")))

    assert late.status_code == 403
    assert after.json()["state"] == "open"
    assert after.json()["quorum"]["agreed"] == ["cleo@example.org"]


def test_who_stands_in_fills_one_place(site: Site, cast: tuple[Person, Person]) -> None:
    _, ben = cast
    request_id = for_security(site, approvals=2, groups={"security": 1, "sales": 1})

    both = site.vote(request_id, site.token(ben)).json()

    assert both["state"] == "open"
    assert both["quorum"]["waits_for"] == "one of sales or security"
    cleo = somebody(site, "cleo@example.org", "sales")
    assert site.vote(request_id, site.token(cleo)).json()["state"] == "approved"


def test_whoever_is_away_and_votes_all_the_same_lends_nothing_there(site: Site, cast: tuple[Person, Person]) -> None:
    ana, ben = cast
    first, second = (for_security(site, approvals=2, groups={"security": 2}) for _ in range(2))

    assert site.vote(first, site.token(ana)).json()["state"] == "open"
    after_her = site.vote(first, site.token(ben))
    assert site.vote(second, site.token(ben)).json()["quorum"]["agreed"] == ["ben@example.org"]
    before_her = site.vote(second, site.token(ana)).json()

    assert after_her.status_code == 403
    assert before_her["state"] == "open"
    assert before_her["quorum"]["agreed"] == ["ana@example.org"]
    assert before_her["quorum"]["waits_for"] == "one of security"
    site.client.post(f"/v1/requests/{ids.show('req', first)}/withdraw", headers=site.token(ana))
    assert site.vote(first, site.token(ben)).json()["quorum"]["agreed"] == ["ben@example.org"]


def test_a_forged_withdrawal_makes_nobody_two(site: Site, cast: tuple[Person, Person], database: Database) -> None:
    ana, ben = cast
    request_id = for_security(site, approvals=2, groups={"security": 2})
    site.vote(request_id, site.token(ana))
    with psycopg.connect(database.owner) as conn:
        conn.execute("INSERT INTO withdrawals (vote_id, mac) SELECT id, mac FROM votes")

    assert site.vote(request_id, site.token(ben)).status_code == 403
    assert site.request(request_id)["state"] == "open"


def test_what_was_borrowed_is_not_lent_on(site: Site, cast: tuple[Person, Person]) -> None:
    _, ben = cast
    cleo = somebody(site, "cleo@example.org")
    assert away(site, ben, cleo).status_code == 200

    assert site.vote(for_security(site), site.token(cleo)).status_code == 403
    assert site.vote(for_security(site, groups={"sales": 1}), site.token(cleo)).json()["state"] == "approved"


def test_nobody_lends_to_two(site: Site, cast: tuple[Person, Person], database: Database) -> None:
    ana, _ = cast
    cleo = somebody(site, "cleo@example.org")

    refused = away(site, ana, cleo)
    with psycopg.connect(database.owner) as conn:  # whatever way it came there
        conn.execute(
            "INSERT INTO absences (id, person_id, stand_in_id, from_at, until_at)"
            " SELECT %s, person_id, %s, from_at, until_at FROM absences",
            (ids.new(), cleo.id),
        )

    assert refused.status_code == 409
    assert site.vote(for_security(site), site.token(cleo)).status_code == 403


@pytest.mark.parametrize("who", ["away", "stand-in"])
def test_nothing_is_lent_on_a_run_that_one_of_the_two_asked_for(
    site: Site, cast: tuple[Person, Person], who: str
) -> None:
    ana, ben = cast
    asked_by = ana if who == "away" else ben
    work = for_security(site, requester=asked_by)
    _, [question] = site.a_waiting_run(asking(kind=Kind.QUESTION, groups={"security": 1}), requester=asked_by)

    assert site.vote(work, site.token(ben)).status_code == 403
    assert site.vote(question, site.token(ben), verdict="answer", answer="Yes.").status_code == 403


def test_a_role_is_never_lent(site: Site) -> None:
    ana = in_groups(site, site.ana, "security", roles=["reviewer", "admin"])
    away(site, ana, site.ben)
    request_id = for_security(site, groups={"admins": 1})

    assert site.vote(request_id, site.token(site.ben)).status_code == 403


def test_at_tier_high_the_editor_lends_nothing_either(site: Site, cast: tuple[Person, Person]) -> None:
    ana, ben = cast
    request_id = for_security(site, approvals=2, tier=Tier.HIGH)
    shown = stored(site, request_id)
    ballot = decide.Ballot(Verdict.APPROVE, shown.digest, 1, reason="So.", arguments={"content": "other\n"})
    with ledger.transaction(site.gateway) as conn:
        edited = decide.vote(conn, request_id, decide.Voter("session", ana), ballot, site.parts.pen).request

        found = stand_ins.standing(conn, edited, [ben], [])[ben.id]

    assert found.groups == {"reviewers", "sales"}
    assert found.instead_of == []


def test_who_stands_in_is_told_what_whoever_is_away_is_told(site: Site, cast: tuple[Person, Person]) -> None:
    ana, ben = cast

    def told(except_for: PersonId | None) -> set[PersonId]:
        with ledger.transaction(site.worker) as conn:
            found = people.who_may_decide(conn, Requirement(groups={"security": 1}), except_for=except_for)
        return {person.id for person in found}

    assert told(None) == {ana.id, ben.id}
    assert told(ana.id) == set()
    assert told(ben.id) == {ana.id}
    with ledger.transaction(site.gateway) as conn:
        staff.disable(conn, ana.id)
    assert told(None) == set()


@pytest.mark.parametrize(
    ("said", "status"),
    [
        ({"stand_in": "ana@example.org"}, 422),
        ({"stand_in": "nobody@example.org"}, 422),
        ({"stand_in": "otto@example.org"}, 422),
        ({"until_at": "2020-01-01T00:00:00Z"}, 409),
        ({"until_at": "2999-01-01T00:00:00Z"}, 409),
        ({"from_at": "2999-01-01T00:00:00Z"}, 409),
        ({"until_at": "2026-12-24T18:00:00"}, 422),
        ({"until_at": "tomorrow"}, 422),
        ({"who": "ben"}, 422),
    ],
)
def test_an_absence_that_makes_no_sense_is_refused(site: Site, said: dict[str, Any], status: int) -> None:
    somebody(site, "otto@example.org", roles=["operator"])

    assert away(site, site.ana, site.ben, **said).status_code == status
    assert site.client.get("/v1/absences", headers=site.token(site.ana)).json()["items"] == []


def test_only_those_concerned_and_administrators_see_and_end_an_absence(
    site: Site, cast: tuple[Person, Person]
) -> None:
    ana, _ = cast
    cleo, root = somebody(site, "cleo@example.org"), somebody(site, "root@example.org", roles=["admin"])
    [absence] = site.client.get("/v1/absences", headers=site.token(ana)).json()["items"]
    url = f"/v1/absences/{absence['id']}"

    assert site.client.get("/v1/absences", headers=site.token(cleo)).json()["items"] == []
    assert site.client.get("/v1/absences", headers=site.key("votes")).status_code == 403
    assert site.client.delete(url, headers=site.token(cleo)).status_code == 403
    assert site.client.delete(url, headers=site.token(root)).status_code == 200
    assert site.client.delete(url, headers=site.token(root)).status_code == 409


def test_a_person_says_on_the_page_that_they_are_away_and_back(site: Site) -> None:
    browser = Browser(site)
    browser.sign_in(site.ana)
    until = f"{datetime.now(UTC) + DAY:%Y-%m-%dT%H:%M}"
    form = next(form for form in forms_in(browser.get("/away").text) if form.action == "/away")

    nonsense = browser.send(form, stand_in="ben@example.org", until="soon")
    before_time = browser.send(form, stand_in="ben@example.org", until="0001-01-01T00:00+10:00")
    said = browser.send(form, stand_in="ben@example.org", until=until)
    page = browser.get("/away").text
    [ending] = [form for form in forms_in(page) if form.action.endswith("/end")]
    ended = browser.send(ending)
    again = browser.send(ending)

    assert before_time.status_code == 422
    assert (nonsense.status_code, said.status_code, ended.status_code, again.status_code) == (422, 303, 303, 409)
    assert "ben@example.org stands in" in Words(page).text
    assert "Nobody that concerns you" in Words(browser.get("/away").text).text
    assert browser.send(Form("/away", {"stand_in": "ben@example.org", "until": until})).status_code == 403


def test_nobody_fills_the_table_with_absences_to_come(site: Site) -> None:
    now = datetime.now(UTC)

    answers = [
        away(
            site,
            site.ana,
            site.ben,
            from_at=f"{now + n * DAY:%Y-%m-%dT%H:%MZ}",
            until_at=f"{now + (n + 1) * DAY:%Y-%m-%dT%H:%MZ}",
        )
        for n in range(1, absences.MOST_COMING + 2)
    ]

    assert [answer.status_code for answer in answers] == [200] * absences.MOST_COMING + [409]
