"""A token for a terminal, by the mailed code: the same answer for everybody, five tries, one terminal, one token."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from httpx2 import Response

from banksman import ids, ledger
from banksman.ids import KeyId
from banksman.ledger import audit, keys, staff
from banksman.states import Tier
from tests.gateway.browser import Browser, Form, code_of, form_in, latest_sign_in
from tests.gateway.scenes import Site, asking


def ask(site: Site, email: str = "ana@example.org") -> str:
    answer = site.client.post("/v1/tokens", json={"email": email})
    assert answer.status_code == 200, answer.text
    assert answer.json().keys() == {"attempt"}
    return answer.json()["attempt"]


def redeem(site: Site, attempt: str, code: str, **more: str) -> Response:
    return site.client.post("/v1/tokens/redeem", json={"attempt": attempt, "code": code, **more})


def count(site: Site, table: str, where: str = "true") -> int:
    with ledger.transaction(site.gateway) as conn:
        row = conn.execute(f"SELECT count(*) FROM {table} WHERE {where}".encode()).fetchone()
    assert row is not None
    return row[0]


def a_token(site: Site) -> dict[str, str]:
    attempt = ask(site)
    answer = redeem(site, attempt, code_of(site, latest_sign_in(site)))
    return {"Authorization": f"Bearer {answer.json()['token']}"}


def test_a_person_gets_a_token_for_the_code_from_their_mail(site: Site) -> None:
    attempt = ask(site, "ANA@example.org")

    answer = redeem(site, attempt, code_of(site, latest_sign_in(site)), name="Ana's laptop")

    assert answer.status_code == 201
    assert answer.json()["person"] == "ana@example.org"
    assert answer.json()["token"].startswith("bk_tok_")
    left = datetime.fromisoformat(answer.json()["expires_at"]) - datetime.now(UTC)
    assert timedelta(days=89) < left < timedelta(days=91)
    with ledger.transaction(site.gateway) as conn:
        [made] = [event for event in audit.since(conn, (0, 0)) if event.action == "token.made"]
        kept = keys.get(conn, KeyId(ids.read("key", str(made.body["key"]))))
    assert made.actor == ids.show("per", site.ana.id)
    assert (kept.kind, kept.name, kept.owner) == ("tok", "Ana's laptop", "ana@example.org")


@pytest.mark.parametrize(("tier", "status"), [("low", 200), ("medium", 200), ("high", 403)])
def test_the_token_reads_and_votes_as_its_person_below_tier_high(site: Site, tier: str, status: int) -> None:
    run_id, [request_id] = site.a_waiting_run(asking(tier=Tier(tier)))
    headers = a_token(site)

    read = site.client.get(f"/v1/runs/{ids.show('run', run_id)}", headers=headers)
    voted = site.vote(request_id, headers, reason="I looked.")

    assert read.status_code == 200
    assert voted.status_code == status, voted.text
    if status == 200:
        assert [vote["by"] for vote in voted.json()["votes"]] == ["ana@example.org"]
        assert voted.json()["votes"][0]["channel"] == "token"


def test_the_token_submits_as_its_person(site: Site) -> None:
    answer = site.client.post("/v1/runs", json={"agent": "plain", "prompt": "x"}, headers=a_token(site))

    assert answer.status_code == 201
    assert answer.json()["requester"] == "ana@example.org"


def test_the_answer_does_not_tell_whether_somebody_has_the_address(site: Site) -> None:
    known, unknown = ask(site), ask(site, "nobody@example.org")

    assert len(known) == len(unknown)
    assert count(site, "notices") == 1
    assert redeem(site, unknown, "12345678").status_code == 422


def test_after_five_wrong_codes_the_right_one_counts_no_more(site: Site) -> None:
    attempt = ask(site)
    code = code_of(site, latest_sign_in(site))
    wrong = f"{(int(code) + 1) % 10**8:08d}"

    for _ in range(5):
        assert redeem(site, attempt, wrong).status_code == 422

    assert redeem(site, attempt, code).status_code == 422
    assert count(site, "keys", "kind = 'tok'") == 0


def test_what_could_be_no_code_uses_no_try_up(site: Site) -> None:
    attempt = ask(site)

    for text in ["", "x", "1234567", "٣٣٣٣٣٣٣٣"] * 2:
        assert redeem(site, attempt, text).status_code == 422

    assert redeem(site, attempt, code_of(site, latest_sign_in(site))).status_code == 201


def test_a_code_makes_one_token(site: Site) -> None:
    attempt = ask(site)
    code = code_of(site, latest_sign_in(site))

    assert [redeem(site, attempt, code).status_code for _ in range(2)] == [201, 422]
    assert count(site, "keys", "kind = 'tok'") == 1


def test_a_code_works_only_with_the_attempt_that_asked_for_it(site: Site) -> None:
    attempt = ask(site)
    code = code_of(site, latest_sign_in(site))
    other = ask(site, "nobody@example.org")

    for forged in (other, attempt[:-1], attempt.replace(".", "x"), "", "ä." * 9, f"{attempt}."):
        assert redeem(site, forged, code).status_code == 422

    assert redeem(site, attempt, code).status_code == 201


def test_a_browsers_code_makes_no_token_and_a_terminals_code_no_session(site: Site) -> None:
    browser = Browser(site)
    form = form_in(browser.send(Form("/sign-in", {"email": "ana@example.org"})).text)
    browsers_code, cookie = code_of(site, latest_sign_in(site)), browser.http.cookies["pre"]
    attempt = ask(site)
    terminals_code = code_of(site, latest_sign_in(site))

    stolen = redeem(site, cookie, browsers_code)
    browser.http.cookies["pre"] = attempt
    signed_in = browser.send(form, code=terminals_code)

    assert (stolen.status_code, signed_in.status_code) == (422, 422)
    assert count(site, "sessions") == count(site, "keys", "kind = 'tok'") == 0


def test_five_codes_in_ten_minutes_are_all_wherever_they_are_asked_for(site: Site) -> None:
    browser = Browser(site)
    for _ in range(4):
        browser.send(Form("/sign-in", {"email": "ana@example.org"}))

    for _ in range(3):
        ask(site)

    assert count(site, "notices") == 5


def test_a_disabled_person_gets_no_token(site: Site) -> None:
    attempt = ask(site)
    code = code_of(site, latest_sign_in(site))
    with ledger.transaction(site.gateway) as conn:
        staff.disable(conn, site.ana.id)

    assert redeem(site, attempt, code).status_code == 422
    ask(site)
    assert count(site, "notices") == 1


@pytest.mark.parametrize("body", [{}, {"email": "ana"}, {"email": "a@b.c", "x": 1}, {"email": 1}])
def test_what_is_no_address_is_refused(site: Site, body: dict[str, object]) -> None:
    assert site.client.post("/v1/tokens", json=body).status_code == 422
    assert count(site, "notices") == 0


def test_a_form_of_another_site_asks_for_nothing(site: Site) -> None:
    answer = site.client.post(
        "/v1/tokens", content='{"email": "ana@example.org"}', headers={"Content-Type": "text/plain"}
    )

    assert answer.status_code == 415
    assert count(site, "notices") == 0
