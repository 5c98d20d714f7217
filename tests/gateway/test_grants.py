"""Standing grants over HTTP: given in person on an approved request at tier low, listed, and taken back."""

from __future__ import annotations

from typing import Any

from httpx2 import Response

from banksman import ids, ledger
from banksman.digest import Json
from banksman.ids import RequestId
from banksman.ledger import audit
from banksman.records import NewRequest, Person
from banksman.states import Tier
from tests.gateway.browser import Browser, Words, forms_in
from tests.gateway.scenes import Site, asking


def a_low_request(**more: Any) -> NewRequest:
    return asking(tier=Tier.LOW, **more)


def approved(site: Site) -> RequestId:
    _, [request_id] = site.a_waiting_run(a_low_request())
    assert site.vote(request_id, site.token(site.ana)).status_code == 200
    return request_id


def give(site: Site, request_id: RequestId, person: Person | None = None, **more: Any) -> Response:
    body: dict[str, Json] = {"request_id": ids.show("req", request_id), "most": 5, **more}
    headers = site.key("requests:read") if person is None else site.token(person)
    return site.client.post("/v1/grants", json=body, headers=headers)


def listed(site: Site) -> list[dict[str, Any]]:
    answer = site.client.get("/v1/grants", headers=site.token(site.ben))
    assert answer.status_code == 200, answer.text
    return answer.json()["items"]


def test_a_grant_is_given_listed_and_revoked_and_all_of_it_is_written_down(site: Site) -> None:
    made = give(site, approved(site), site.ana, free=["content"], lasts="2h")

    assert made.status_code == 200, made.text
    assert (made.json()["state"], made.json()["owner"], made.json()["used"]) == ("standing", "ana@example.org", 0)
    assert (made.json()["arguments"], made.json()["free"]) == ({"path": "/a.txt"}, ["content"])
    assert [item["id"] for item in listed(site)] == [made.json()["id"]]

    path = f"/v1/grants/{made.json()['id']}/revoke"
    assert site.client.post(path, headers=site.token(site.ben)).status_code == 403
    assert site.client.post(path, headers=site.key("runs:cancel")).status_code == 403
    operator = site.a_person("op@example.org", "operator")
    assert site.client.post(path, headers=site.token(operator)).json()["state"] == "revoked"
    assert site.client.post(path, headers=site.token(site.ana)).json()["state"] == "revoked"
    with ledger.transaction(site.gateway) as conn:
        told = [event.action for event in audit.since(conn, (0, 0)) if event.action.startswith("grant.")]
    assert told == ["grant.given", "grant.revoked"]


def test_a_key_gives_no_grant(site: Site) -> None:
    request_id = approved(site)

    assert give(site, request_id).status_code == 403
    assert give(site, request_id, site.a_person("x@example.org", "auditor")).status_code == 403
    assert listed(site) == []


def test_a_request_that_waits_or_was_denied_grants_nothing(site: Site) -> None:
    _, [request_id] = site.a_waiting_run(a_low_request())
    assert give(site, request_id, site.ana).status_code == 409
    site.vote(request_id, site.token(site.ana), verdict="deny")

    answer = give(site, request_id, site.ana)

    assert answer.status_code == 409
    assert answer.json()["current"] == {"state": "denied"}


def test_who_asked_for_the_run_gives_no_grant_for_it(site: Site) -> None:
    _, [request_id] = site.a_waiting_run(a_low_request(), requester=site.ben)
    assert site.vote(request_id, site.token(site.ana)).status_code == 200

    assert give(site, request_id, site.ben).status_code == 403
    assert give(site, request_id, site.ana).status_code == 200


def test_what_needs_more_than_one_person_is_nobodys_to_grant(site: Site) -> None:
    _, [request_id] = site.a_waiting_run(a_low_request(approvals=2))
    for person in (site.ana, site.ben):
        assert site.vote(request_id, site.token(person)).status_code == 200

    assert "More people than you" in give(site, request_id, site.ana).json()["detail"]


def test_an_edited_request_grants_what_was_approved(site: Site) -> None:
    _, [request_id] = site.a_waiting_run(a_low_request())
    edited = site.vote(request_id, site.token(site.ana), arguments={"path": "/b.txt"})
    assert edited.status_code == 200, edited.text

    assert give(site, request_id, site.ana).json()["arguments"]["path"] == "/b.txt"


def test_bad_wishes_are_refused_in_words(site: Site) -> None:
    request_id = approved(site)
    for wish in ({"most": 0}, {"most": 1001}, {"lasts": "1y"}, {"lasts": "30d"}, {"free": ["nothing"]}, {"more": 1}):
        assert give(site, request_id, site.ana, **wish).status_code == 422, wish
    assert give(site, RequestId(ids.new()), site.ana).status_code == 404
    assert site.client.post(f"/v1/grants/gra_{'0' * 32}/revoke", headers=site.token(site.ana)).status_code == 404


def test_a_repeated_wish_under_one_key_gives_one_grant(site: Site) -> None:
    request_id = approved(site)
    headers = site.token(site.ana) | {"Idempotency-Key": "once"}
    body = {"request_id": ids.show("req", request_id), "most": 1}

    first, second = (site.client.post("/v1/grants", json=body, headers=headers) for _ in range(2))

    assert first.json() == second.json()
    assert len(listed(site)) == 1


def test_the_live_ones_alone_are_listed_where_that_is_asked(site: Site) -> None:
    request_id = approved(site)
    first, second = (give(site, request_id, site.ana).json()["id"] for _ in range(2))
    site.client.post(f"/v1/grants/{first}/revoke", headers=site.token(site.ana))

    live = site.client.get("/v1/grants?live=true", headers=site.token(site.ben)).json()["items"]

    assert [grant["id"] for grant in live] == [second]
    assert [grant["id"] for grant in listed(site)] == [second, first]


def test_the_page_shows_what_each_covers_and_who_may_takes_it_back_there(site: Site) -> None:
    made = give(site, approved(site), site.ana, free=["content"]).json()
    ben, olga = Browser(site), Browser(site)
    ben.sign_in(site.ben)
    olga.sign_in(site.a_person("olga@example.org", "operator"))

    page = ben.get("/grants").text
    [form] = [form for form in forms_in(olga.get("/grants").text) if form.action.startswith("/grants/")]
    [out] = forms_in(page)

    for said in ("<dd>0 of 5 times</dd>", "by ana@example.org", "<dt>May differ</dt><dd>content</dd>", made["id"]):
        assert said in page, said
    assert '"/a.txt"' in Words(page).text
    assert form.action == f"/grants/{made['id']}/revoke"
    assert ben.http.post(form.action, data=out.fields).status_code == 403
    assert olga.http.post(form.action, data=out.fields).status_code == 403
    assert olga.send(form).status_code == 303
    assert listed(site)[0]["state"] == "revoked"
    assert "None is live." in ben.get("/grants").text


def test_what_hides_in_an_argument_is_shown_as_a_number(site: Site) -> None:
    _, [request_id] = site.a_waiting_run(a_low_request(arguments={"path": "/a\u202e.txt", "<b>, x": "1"}))
    assert site.vote(request_id, site.token(site.ana)).status_code == 200
    assert give(site, request_id, site.ana, free=["<b>, x"]).status_code == 200
    ben = Browser(site)
    ben.sign_in(site.ben)

    page = ben.get("/grants").text

    assert "U+202E" in page
    assert "\u202e" not in page
    assert "&#34;&lt;b&gt;, x&#34;" in page


def test_who_has_no_role_does_not_see_the_page(site: Site) -> None:
    give(site, approved(site), site.ana)
    nobody = Browser(site)
    nobody.sign_in(site.a_person("nobody@example.org"))

    assert nobody.get("/grants").status_code == 404
