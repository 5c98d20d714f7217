"""Figures over HTTP: how reviewers decide, what rules ask for, and a receipt of what one's approvals did."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from banksman import durations, ids, ledger, rule_file
from banksman.errors import InvalidInput
from banksman.ids import RequestId
from banksman.ledger import insights as rows
from banksman.records import Requirement
from banksman.states import Kind
from banksman_gateway import insights, receipts, silence
from tests.gateway.browser import Browser, Words
from tests.gateway.scenes import Site, asking


def test_each_reviewer_has_figures_and_each_rule(site: Site) -> None:
    approved, denied, _ = a_day(site)
    admin = site.token(site.a_person("ada@example.org", "admin"))

    body = read(site, "/v1/insights?since=1d", admin)

    ana, ben = (by_address(body)[person.email] for person in (site.ana, site.ben))
    assert (ana["votes"], ana["approve_share"], ana["open"]) == (2, 0.5, 1)
    assert 0 <= ana["median_seconds"] < 60
    assert (ben["votes"], ben["approve_share"], ben["median_seconds"], ben["open"]) == (0, None, None, 1)
    rules = {rule["rule"]: rule for rule in body["rules"]}
    assert (rules["refunds"]["opened"], rules["refunds"]["states"]) == (2, {"approved": 1, "denied": 1})
    assert rules["refunds"]["approve_share"] == 0.5
    assert rules["quiet"]["states"] == {"open": 1}
    assert rules["quiet"]["median_seconds"] is None
    assert approved != denied


def test_the_page_shows_whoever_oversees_everybody_and_a_reviewer_themselves(site: Site) -> None:
    a_day(site)
    chosen = dict[str, str]()
    for name, person in (("ana", site.ana), ("ada", site.a_person("ada@example.org", "admin"))):
        browser = Browser(site)
        browser.sign_in(person)
        page = browser.get("/insights?since=24h")
        assert page.status_code == 200
        chosen[name] = page.text

    assert site.ana.email in chosen["ada"]
    assert site.ben.email in chosen["ada"]
    assert "50%" in chosen["ana"]
    assert "<td>" + site.ben.email not in chosen["ana"]
    assert all("refunds" in text and "quiet" in text for text in chosen.values())


def test_the_page_of_figures_is_not_for_who_has_no_role_and_says_what_is_wrong_with_a_span(site: Site) -> None:
    nobody, reviewer = Browser(site), Browser(site)
    nobody.sign_in(site.a_person("no@example.org"))
    reviewer.sign_in(site.ana)

    assert nobody.get("/insights").status_code == 404
    wrong = reviewer.get("/insights?since=soon")
    assert wrong.status_code == 422
    assert "is not a duration" in wrong.text


def test_votes_in_a_row_too_fast_to_have_read_anything_are_counted(site: Site) -> None:
    waiting = [site.a_waiting_run()[1][0] for _ in range(4)]

    for request_id in waiting:
        assert site.vote(request_id, site.token(site.ana)).status_code == 200

    [ana] = [row for row in read(site, "/v1/insights", site.token(site.ana))["reviewers"] if row["votes"]]
    assert ana["fast_streak"] == 4


def test_one_vote_after_another_at_leisure_is_no_streak(site: Site, owner_pool: ledger.Pool) -> None:
    for _ in range(3):
        site.vote(site.a_waiting_run()[1][0], site.token(site.ana))
    with ledger.transaction(owner_pool) as conn:
        conn.execute("ALTER TABLE votes DISABLE TRIGGER USER")
        conn.execute(
            """
            UPDATE votes SET created_at = created_at + place * interval '4 seconds'
            FROM (SELECT id, row_number() OVER (ORDER BY id) AS place FROM votes) AS placed
            WHERE placed.id = votes.id
            """
        )
        conn.execute("ALTER TABLE votes ENABLE TRIGGER USER")

    with ledger.transaction(site.gateway) as conn:
        [ana] = [item for item in rows.of_people(conn, ago(days=1), ago(days=-1)) if item.person.id == site.ana.id]

    assert (ana.votes, ana.streak) == (3, 0)


def test_what_nobody_decided_counts_for_those_who_could_have(site: Site) -> None:
    site.a_waiting_run(asking(expires_after=0, groups={"finance": 1}))
    site.a_waiting_run(asking(expires_after=0))
    silence.act(site.parts)

    found = by_address(read(site, "/v1/insights", site.token(site.a_person("olga@example.org", "operator"))))

    assert found[site.ana.email]["expired"] == 1


def test_a_receipt_says_what_my_votes_of_the_day_came_to(site: Site) -> None:
    approved, denied, open_ = a_day(site)

    mine = read(site, "/v1/me/receipt", site.token(site.ana))
    of_ben = read(site, "/v1/me/receipt?zone=Pacific/Auckland", site.token(site.ben))

    assert [(item["verdict"], item["request_id"], item["state"], item["outcome"]) for item in mine["items"]] == [
        ("approve", shown(approved), "approved", None),
        ("deny", shown(denied), "denied", None),
    ]
    assert mine["figures"]["votes"] == 2
    assert shown(open_) not in str(mine)
    assert of_ben["items"] == []


def test_who_may_see_whose_figures(site: Site) -> None:
    a_day(site)

    assert {row["person"] for row in read(site, "/v1/insights", site.token(site.ana))["reviewers"]} == {site.ana.email}
    of_a_program = read(site, "/v1/insights", site.key("requests:read"))
    assert of_a_program["reviewers"] == []
    assert of_a_program["rules"]
    for role in ("operator", "admin", "auditor"):
        seen = read(site, "/v1/insights", site.token(site.a_person(f"{role}@example.org", role)))
        assert {site.ana.email, site.ben.email} <= {row["person"] for row in seen["reviewers"]}
    assert site.client.get("/v1/insights", headers=site.key("runs:read")).status_code == 403
    assert site.client.get("/v1/insights", headers=site.token(site.a_person("none@example.org"))).status_code == 403
    assert site.client.get("/v1/me/receipt", headers=site.key("requests:read")).status_code == 403


@pytest.mark.parametrize(
    "query",
    ["insights?since=", "insights?since=9", "insights?since=-1d", "insights?since=367d", "insights?since=٣d",
     "me/receipt?day=2026-13-01", "me/receipt?zone=Mars", "me/receipt?zone=../../etc/passwd",
     "me/receipt?zone=%00", "me/receipt?day=0001-01-01&zone=Pacific/Auckland", "me/receipt?day=9999-12-31",
     "me/receipt?day=1526-05-17"],
)  # fmt: skip
def test_a_time_that_is_none_is_refused_in_words(site: Site, query: str) -> None:
    answer = site.client.get(f"/v1/{query}", headers=site.token(site.ana))

    assert answer.status_code in (400, 422), answer.text
    assert answer.json()["detail"]


def test_a_day_is_as_long_as_it_is_there() -> None:
    begins, ends = insights.bounds(datetime(2026, 10, 25, tzinfo=UTC).date(), "Europe/Vienna")
    assert ends - begins == timedelta(hours=25)
    begins, ends = insights.bounds(datetime(2026, 3, 29, tzinfo=UTC).date(), "Europe/Vienna")
    assert ends - begins == timedelta(hours=23)


def test_a_duration_is_numbers_with_their_units() -> None:
    assert durations.read("36h") == timedelta(hours=36)
    assert durations.read("2w") == timedelta(days=14)
    assert durations.read("1d12h") == timedelta(hours=36)
    assert rule_file.read('[default]\nexpires_after = "2w"').default.expires_after == 14 * 86400
    for text in ("", "0d", "0d0s", "12h1", "999999w" * 9, "1", "d", "1.5h", "1 d", "1d\n", "99999999d", "600000w"):
        with pytest.raises(InvalidInput):
            durations.read(text)


def a_day(site: Site) -> tuple[RequestId, RequestId, RequestId]:
    """Ana approves one and denies one; one more waits."""
    held = Requirement(rule="refunds")
    _, [approved] = site.a_waiting_run(asking(rule=held.rule))
    _, [denied] = site.a_waiting_run(asking(rule=held.rule))
    _, [waits] = site.a_waiting_run(asking(rule="quiet"))
    site.vote(approved, site.token(site.ana))
    site.vote(denied, site.token(site.ana), verdict="deny")
    return approved, denied, waits


def read(site: Site, path: str, headers: dict[str, str]) -> Any:
    answer = site.client.get(path, headers=headers)
    assert answer.status_code == 200, answer.text
    return answer.json()


def by_address(body: Any) -> dict[str, Any]:
    return {row["person"]: row for row in body["reviewers"]}


def shown(request_id: RequestId) -> str:
    return ids.show("req", request_id)


def ago(*, days: int) -> datetime:
    return datetime.now(UTC) - timedelta(days=days)


def test_whoever_voted_gets_one_receipt_a_day_and_nobody_else(site: Site, owner_pool: ledger.Pool) -> None:
    a_day(site)
    with ledger.transaction(owner_pool) as conn:
        conn.execute("ALTER TABLE votes DISABLE TRIGGER USER")
        conn.execute("UPDATE votes SET created_at = created_at - interval '1 hour'")
        conn.execute("ALTER TABLE votes ENABLE TRIGGER USER")
    now = site.parts.settings.model_copy(update={"receipt_hour": datetime.now(UTC).hour})
    never = site.parts.settings.model_copy(update={"receipt_hour": None})

    counts = [receipts.queue(replace(site.parts, settings=chosen)) for chosen in (never, now, now)]

    assert counts == [0, 1, 0]
    with ledger.transaction(site.gateway) as conn:
        rows_ = conn.execute("SELECT person_id, request_id FROM notices WHERE kind = 'receipt'").fetchall()
    assert rows_ == [(site.ana.id, None)]


def test_the_page_of_a_receipt_says_what_became_of_each_vote(site: Site) -> None:
    a_day(site)
    browser = Browser(site)
    browser.sign_in(site.ana)
    hour = site.parts.settings.receipt_hour
    assert hour is not None
    next_one = f"{datetime.now(UTC) + timedelta(hours=24 - hour):%Y-%m-%d}"

    page = Words(browser.get(f"/receipts/{next_one}").text).text

    assert page.count("has not run") == 2
    assert "approve" in page
    assert "deny" in page
    assert "did not vote" in Words(browser.get("/receipts/2026-01-31").text).text
    for day in ("0001-01-01", "9999-12-31", "yesterday", "2026-02-30"):
        assert browser.get(f"/receipts/{day}").status_code in (200, 400, 422)


def test_a_receipt_says_of_an_answer_that_it_is_no_call_and_of_an_outcome_that_nothing_ran_again(site: Site) -> None:
    _, [question] = site.a_waiting_run(asking(kind=Kind.QUESTION))
    _, [outcome] = site.a_waiting_run(asking(kind=Kind.OUTCOME))
    headers = site.token(site.ana)
    site.vote(question, headers, verdict="answer", answer="Blue.")
    site.vote(outcome, headers, verdict="happened", answer="It went out.")

    now = datetime.now(UTC)
    with ledger.transaction(site.gateway) as conn:
        lines = rows.receipt(conn, site.ana.id, now - timedelta(hours=1), now + timedelta(hours=1))

    assert [rows.became(line.verdict, line.outcome) for line in lines] == ["no call", "has not run again"]


def test_what_was_taken_back_is_in_no_figure_and_on_no_receipt(site: Site) -> None:
    _, [request_id] = site.a_waiting_run(asking(approvals=2))
    ana = site.token(site.ana)
    site.vote(request_id, ana)
    site.client.post(f"/v1/requests/{ids.show('req', request_id)}/withdraw", headers=ana)

    now = datetime.now(UTC)
    with ledger.transaction(site.gateway) as conn:
        line = rows.receipt(conn, site.ana.id, now - timedelta(hours=1), now + timedelta(hours=1))
        people = rows.of_people(conn, now - timedelta(hours=1), now + timedelta(hours=1))

    assert line == []
    assert [one.votes for one in people if one.person.id == site.ana.id] == [0]
