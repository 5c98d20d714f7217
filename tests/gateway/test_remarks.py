"""What people do around a vote: look, ask back, answer. None of it decides, and none of it is taken for more."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import psycopg
import pytest
from httpx2 import Response

from banksman import ids, ledger
from banksman.ids import RemarkId, RequestId
from banksman.ledger import audit, remarks, staff
from banksman.records import Person
from tests.conftest import Database
from tests.gateway.browser import Browser, Words, forms_in, page_of, stored
from tests.gateway.scenes import Site, asking, notices_of

HOSTILE = "<script>alert(1)</script>\u202e {{7*7}}\x1b[31m\r\nSubject: x"


def ask(site: Site, request_id: RequestId, headers: Mapping[str, str], text: Any = "Why there?") -> Response:
    url = f"/v1/requests/{ids.show('req', request_id)}/remarks"
    return site.client.post(url, json={"text": text}, headers=headers)


def look(site: Site, request_id: RequestId, headers: Mapping[str, str], method: str = "POST") -> Response:
    return site.client.request(method, f"/v1/requests/{ids.show('req', request_id)}/looking", headers=headers)


def told(site: Site, request_id: RequestId) -> list[Person]:
    """Who is told of a remark, in the order of their notices."""
    with ledger.transaction(site.gateway) as conn:
        found = [notice for notice in notices_of(conn, request_id) if notice.kind == "remark"]
        people = {person.id: person for person in staff.everybody(conn)}
    return [people[notice.person_id] for notice in found]


def actions(site: Site, request_id: RequestId) -> list[str]:
    with ledger.transaction(site.gateway) as conn:
        return [event.action for event in audit.of_run(conn, stored(site, request_id).run_id)]


def test_a_reviewer_asks_back_and_whoever_asked_for_the_run_answers(site: Site) -> None:
    otto = site.a_person("otto@example.org")
    _, [request_id] = site.a_waiting_run(requester=otto)
    before = stored(site, request_id)

    asked = ask(site, request_id, site.token(site.ana))
    after_asking = told(site, request_id)
    answered = ask(site, request_id, site.token(otto), "Because it is empty.")

    assert (asked.status_code, answered.status_code) == (200, 200)
    assert [(item["by"], item["text"]) for item in answered.json()["remarks"]] == [
        ("ana@example.org", "Why there?"),
        ("otto@example.org", "Because it is empty."),
    ]
    assert after_asking == [otto]
    assert told(site, request_id)[1:] == [site.ana]
    after = stored(site, request_id)
    assert (after.digest, after.revision, after.expires_at) == (before.digest, before.revision, before.expires_at)
    assert actions(site, request_id).count("remark.added") == 2


def test_another_reviewer_may_answer_and_everybody_who_wrote_is_told(site: Site) -> None:
    _, [request_id] = site.a_waiting_run()

    ask(site, request_id, site.token(site.ana))
    ask(site, request_id, site.token(site.ben), "It is the only writable one.")

    assert told(site, request_id) == [site.ana]


def test_many_questions_at_once_are_one_message(site: Site) -> None:
    otto = site.a_person("otto@example.org")
    _, [request_id] = site.a_waiting_run(requester=otto)

    for _ in range(5):
        ask(site, request_id, site.token(site.ana))

    assert told(site, request_id) == [otto]


def test_what_people_write_is_inert_on_the_page_and_sealed_in_the_row(site: Site, database: Database) -> None:
    _, [request_id] = site.a_waiting_run()
    ask(site, request_id, site.token(site.ana), HOSTILE)
    browser = Browser(site)
    browser.sign_in(site.ben)

    page = browser.get(page_of(request_id)).text

    words = Words(page)
    assert words.tags.count("script") == 1  # the page's own
    assert "alert(1)" in words.text
    assert "⟦U+202E⟧" in words.text
    assert "⟦U+001B⟧" in words.text
    with psycopg.connect(database.owner) as conn:
        [(body,)] = conn.execute("SELECT body FROM remarks").fetchall()
    assert b"alert" not in body


@pytest.mark.parametrize("text", ["", "   ", "x" * 4001, None, 7])
def test_a_remark_that_says_nothing_or_too_much_is_refused(site: Site, text: Any) -> None:
    _, [request_id] = site.a_waiting_run()

    assert ask(site, request_id, site.token(site.ana), text).status_code == 422


def test_strangers_machines_and_latecomers_write_nothing(site: Site) -> None:
    _, [request_id] = site.a_waiting_run()
    stranger, auditor = site.a_person("stranger@example.org"), site.a_person("auditor@example.org", "auditor")

    answers = [
        ask(site, request_id, site.token(stranger)),
        ask(site, request_id, site.token(auditor)),
        ask(site, request_id, site.key("votes", "requests:read", owner=site.ana.id)),
        ask(site, request_id, site.token(site.ana, "requests:read")),
        ask(site, RequestId(ids.new()), site.token(site.ana)),
    ]
    site.vote(request_id, site.token(site.ben))
    late = ask(site, request_id, site.token(site.ana))

    assert [answer.status_code for answer in answers] == [404, 403, 403, 403, 404]
    assert (late.status_code, late.json()["type"]) == (409, "urn:banksman:problem:already-decided")
    assert site.request(request_id)["remarks"] == []


def test_a_request_takes_a_hundred_remarks_and_no_more(site: Site) -> None:
    _, [request_id] = site.a_waiting_run()
    with ledger.transaction(site.gateway) as conn:
        for number in range(99):
            remarks.add(conn, RemarkId(ids.new()), request_id, site.ana.id, f"Number {number}.", most=100)

    assert ask(site, request_id, site.token(site.ana)).status_code == 200
    assert ask(site, request_id, site.token(site.ben)).status_code == 422


def test_people_ask_and_answer_on_the_page(site: Site) -> None:
    otto = site.a_person("otto@example.org")
    _, [request_id] = site.a_waiting_run(requester=otto)
    ana, ottos = Browser(site), Browser(site)
    ana.sign_in(site.ana)
    ottos.sign_in(otto)

    for browser, text in ((ana, "Why there?"), (ottos, "It is empty.")):
        [form] = [form for form in forms_in(browser.get(page_of(request_id)).text) if form.action.endswith("/remarks")]
        assert browser.send(form, text=text).status_code == 303

    page = Words(ana.get(page_of(request_id)).text).text
    assert "Why there?" in page
    assert "It is empty." in page
    assert stored(site, request_id).state.value == "open"


def test_who_is_looking_is_shown_everywhere_until_they_stop_or_the_lease_is_over(
    site: Site, database: Database
) -> None:
    _, [request_id] = site.a_waiting_run()
    ana, browser = site.token(site.ana), Browser(site)
    browser.sign_in(site.ben)

    [seen] = look(site, request_id, ana).json()["looking"]
    page, inbox = (Words(browser.get(path).text).text for path in (page_of(request_id), "/"))
    stopped = look(site, request_id, ana, "DELETE").json()["looking"]
    look(site, request_id, ana)
    with psycopg.connect(database.owner) as conn:
        row = conn.execute("SELECT until_at - clock_timestamp() FROM lookings").fetchone()
        conn.execute("UPDATE lookings SET until_at = clock_timestamp()")

    assert seen["by"] == "Ana"
    assert row is not None
    assert 110 < row[0].total_seconds() <= 120
    assert "Ana is looking" in page
    assert "Ana is looking" in inbox
    assert stopped == site.request(request_id)["looking"] == []
    assert not any("look" in action for action in actions(site, request_id))


def test_looking_again_is_one_longer_look_and_keeps_nobody_from_voting(site: Site, database: Database) -> None:
    _, [request_id] = site.a_waiting_run()
    ana = site.token(site.ana)
    look(site, request_id, ana)
    with psycopg.connect(database.owner) as conn:
        conn.execute("UPDATE lookings SET until_at = clock_timestamp() + interval '1 s'")
    look(site, request_id, ana)

    assert len(site.request(request_id)["looking"]) == 1
    assert site.vote(request_id, site.token(site.ben)).json()["state"] == "approved"
    assert site.request(request_id)["looking"] == []
    assert look(site, request_id, ana).status_code == 409


def test_only_who_may_vote_says_that_they_look(site: Site) -> None:
    otto, auditor = site.a_person("otto@example.org"), site.a_person("auditor@example.org", "auditor")
    _, [request_id] = site.a_waiting_run(requester=otto)

    answers = [
        look(site, request_id, site.token(otto)),
        look(site, request_id, site.token(auditor)),
        look(site, request_id, site.key("votes")),
        look(site, request_id, site.token(site.a_person("stranger@example.org"))),
        look(site, RequestId(ids.new()), site.token(site.ana)),
    ]

    assert [answer.status_code for answer in answers] == [403, 403, 403, 404, 404]


def test_a_person_looks_and_stops_on_the_page(site: Site) -> None:
    _, [request_id] = site.a_waiting_run(asking())
    browser = Browser(site)
    browser.sign_in(site.ana)

    [begin] = [form for form in forms_in(browser.get(page_of(request_id)).text) if form.action.endswith("/looking")]
    assert browser.send(begin, look="yes").status_code == 303
    page = browser.get(page_of(request_id)).text
    assert "You are looking" in Words(page).text
    assert browser.send(begin, look="no").status_code == 303
    assert "You are looking" not in Words(browser.get(page_of(request_id)).text).text


def test_a_list_leaves_out_what_people_wrote(site: Site) -> None:
    _, [request_id] = site.a_waiting_run()
    ask(site, request_id, site.token(site.ana))

    [listed] = site.client.get("/v1/requests", headers=site.key("requests:read")).json()["items"]

    assert (listed["remarks"], len(site.request(request_id)["remarks"])) == ([], 1)
