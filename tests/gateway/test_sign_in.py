"""Signing in by a mailed code: the same answer for everybody, five tries, one browser, one session."""

from __future__ import annotations

import hashlib

import pytest
from starlette.testclient import TestClient

from banksman import ledger
from banksman.ledger import staff
from banksman.settings import GatewaySettings
from banksman.signing import unbase64
from banksman_gateway import app
from tests.gateway.browser import Browser, Form, code_of, form_in, forms_in, latest_sign_in
from tests.gateway.scenes import Site


def ask(browser: Browser, email: str, place: str = "/") -> Form:
    answer = browser.send(Form("/sign-in", {"email": email, "next": place}))
    assert answer.status_code == 200
    return form_in(answer.text)


def count(site: Site, table: str) -> int:
    with ledger.transaction(site.gateway) as conn:
        row = conn.execute(f"SELECT count(*) FROM {table}".encode()).fetchone()
    assert row is not None
    return row[0]


def test_a_person_signs_in_with_the_code_from_their_mail(site: Site, broker: str) -> None:
    browser = Browser(site)
    assert browser.get("/").headers["location"] == "/sign-in?next=/"

    form = ask(browser, "ana@example.org", "/runs")
    answer = browser.send(form, code=code_of(site, latest_sign_in(site)))

    assert (answer.status_code, answer.headers["location"]) == (303, "/runs")
    assert "ana@example.org" in browser.get("/").text


def test_the_code_may_be_typed_with_blanks_and_dashes(site: Site) -> None:
    browser = Browser(site)
    form = ask(browser, "ANA@example.org")
    code = code_of(site, latest_sign_in(site))

    assert browser.send(form, code=f" {code[:4]}-{code[4:]} ").status_code == 303


def test_the_answer_does_not_tell_whether_somebody_has_the_address(site: Site) -> None:
    known, unknown = Browser(site), Browser(site)

    one = known.send(Form("/sign-in", {"email": "ana@example.org"}))
    other = unknown.send(Form("/sign-in", {"email": "nobody@example.org"}))

    assert (one.status_code, one.text) == (other.status_code, other.text)
    assert one.headers["set-cookie"].partition("=")[0] == other.headers["set-cookie"].partition("=")[0]
    assert len(one.headers["set-cookie"]) == len(other.headers["set-cookie"])
    assert count(site, "notices") == 1
    assert unknown.send(form_in(other.text), code="12345678").status_code == 422


def test_after_five_wrong_codes_the_right_one_counts_no_more(site: Site) -> None:
    browser = Browser(site)
    form = ask(browser, "ana@example.org")
    code = code_of(site, latest_sign_in(site))
    wrong = f"{(int(code) + 1) % 10**8:08d}"

    for _ in range(5):
        assert browser.send(form, code=wrong).status_code == 422

    assert browser.send(form, code=code).status_code == 422
    assert count(site, "sessions") == 0


def test_what_could_be_no_code_uses_no_try_up(site: Site) -> None:
    browser = Browser(site)
    form = ask(browser, "ana@example.org")

    for text in ["", "x", "1234567", "٣٣٣٣٣٣٣٣", "1" * 500, "\x00"]:
        assert browser.send(form, code=text).status_code == 422

    assert browser.send(form, code=code_of(site, latest_sign_in(site))).status_code == 303


def test_a_code_works_only_in_the_browser_that_asked_for_it(site: Site) -> None:
    victim, thief = Browser(site), Browser(site)
    form = ask(victim, "ana@example.org")
    code = code_of(site, latest_sign_in(site))
    ask(thief, "nobody@example.org")

    assert thief.send(form, code=code).status_code == 422
    assert Browser(site).send(form, code=code).status_code == 422

    assert victim.send(form, code=code).status_code == 303


def test_a_code_signs_in_once(site: Site) -> None:
    browser = Browser(site)
    form = ask(browser, "ana@example.org")
    code = code_of(site, latest_sign_in(site))
    kept = dict(browser.http.cookies)
    assert browser.send(form, code=code).status_code == 303

    again = Browser(site)
    again.http.cookies.update(kept)

    assert again.send(form, code=code).status_code == 422


def test_a_disabled_person_does_not_sign_in(site: Site) -> None:
    browser = Browser(site)
    form = ask(browser, "ana@example.org")
    code = code_of(site, latest_sign_in(site))
    with ledger.transaction(site.gateway) as conn:
        staff.disable(conn, site.ana.id)

    assert browser.send(form, code=code).status_code == 422
    ask(browser, "ana@example.org")
    assert count(site, "notices") == 1


def test_disabling_a_person_ends_their_session_at_once(site: Site) -> None:
    browser = Browser(site)
    browser.sign_in(site.ana)
    assert browser.get("/").status_code == 200

    with ledger.transaction(site.gateway) as conn:
        staff.disable(conn, site.ana.id)

    assert browser.get("/").status_code == 303


def test_a_sixth_code_within_ten_minutes_is_not_sent(site: Site) -> None:
    browser = Browser(site)

    for _ in range(7):
        ask(browser, "ana@example.org")

    assert count(site, "notices") == 5


def test_strangers_who_ask_for_somebodys_codes_do_not_keep_them_out(site: Site) -> None:
    own = Browser(site)
    own.sign_in(site.ana)
    own.http.cookies.delete("session")
    for address in ("198.51.100.1", "198.51.100.2", "198.51.100.3", "198.51.100.4"):
        stranger = TestClient(site.client.app, base_url="http://localhost:8420", client=(address, 1))
        for _ in range(6):
            stranger.post("/sign-in", data={"email": "ana@example.org"})
    assert count(site, "notices") == 15

    own.sign_in(site.ana)

    assert "ana@example.org" in own.get("/").text


def test_a_browser_that_knows_one_person_is_a_stranger_to_another(site: Site) -> None:
    browser = Browser(site)
    browser.sign_in(site.ben)
    for _ in range(7):
        Browser(site).send(Form("/sign-in", {"email": "ana@example.org"}))

    ask(browser, "ana@example.org")

    with ledger.transaction(site.gateway) as conn:
        rows = conn.execute("SELECT known FROM sign_ins ORDER BY created_at DESC LIMIT 1").fetchall()
    assert rows == [(False,)]


def test_every_address_costs_the_same_statements(site: Site, owner_pool: ledger.Pool) -> None:
    known, unknown = Browser(site), Browser(site)
    forms = ask(known, "ana@example.org"), ask(unknown, "nobody@example.org")
    for browser, form in zip((known, unknown), forms, strict=True):
        for _ in range(6):
            assert browser.send(form, code="12345678").status_code == 422

    with ledger.transaction(owner_pool) as conn:
        rows = conn.execute("SELECT person_id IS NOT NULL, tries FROM sign_ins ORDER BY created_at").fetchall()
    assert rows == [(True, 5), (False, 5)]


def test_the_database_holds_only_the_hash_of_a_session(site: Site) -> None:
    browser = Browser(site)
    browser.sign_in(site.ana)
    value = browser.http.cookies["session"]

    with ledger.transaction(site.gateway) as conn:
        [(stored,)] = conn.execute("SELECT id_hash FROM sessions").fetchall()

    assert stored == hashlib.sha256(unbase64(value)).digest()
    assert len(unbase64(value)) == 32


@pytest.mark.parametrize("ago", ["61 minutes", "13 hours"])
def test_a_session_ends_by_itself(site: Site, owner_pool: ledger.Pool, ago: str) -> None:
    browser = Browser(site)
    browser.sign_in(site.ana)

    column = "seen_at" if "minutes" in ago else "expires_at"
    with ledger.transaction(owner_pool) as conn:
        conn.execute(f"UPDATE sessions SET {column} = {column} - interval '{ago}'".encode())

    assert browser.get("/").status_code == 303


def test_signing_out_ends_the_session_for_good(site: Site) -> None:
    browser = Browser(site)
    browser.sign_in(site.ana)
    kept = dict(browser.http.cookies)
    page = browser.get("/").text
    [form] = [found for found in forms_in(page) if found.action == "/sign-out"]

    assert browser.send(form).status_code == 303

    again = Browser(site)
    again.http.cookies.update(kept)
    assert again.get("/").status_code == 303


def test_after_signing_in_nobody_is_sent_elsewhere(site: Site) -> None:
    elsewhere = ["//evil.example", "https://evil.example", "/\\evil.example", "javascript:alert(1)", "/x\r\ny", "evil"]
    signed_in = Browser(site)
    signed_in.sign_in(site.ana)

    for place in elsewhere:
        assert signed_in.http.get("/sign-in", params={"next": place}).headers["location"] == "/"
    browser = Browser(site)
    form = ask(browser, "ana@example.org", elsewhere[0])
    assert form.fields["next"] == "/"
    answer = browser.send(form, code=code_of(site, latest_sign_in(site)), next=elsewhere[0])
    assert answer.headers["location"] == "/"


def test_on_localhost_cookies_go_without_secure_and_elsewhere_with_it(
    site: Site, gateway_settings: GatewaySettings
) -> None:
    browser = Browser(site)
    ours = browser.send(Form("/sign-in", {"email": "ana@example.org"})).headers["set-cookie"]
    made = app.create(gateway_settings.model_copy(update={"public_url": "https://b.example.org"}))
    with TestClient(made, base_url="https://b.example.org", follow_redirects=False) as http:
        answer = http.post("/sign-in", data={"email": "ana@example.org"})
        code = code_of(site, latest_sign_in(site))
        session = http.post("/sign-in/code", data={"code": code})

    assert ours.startswith("pre=")
    assert "secure" not in ours.lower()
    for cookie in (answer.headers["set-cookie"], session.headers.get_list("set-cookie")[0]):
        assert cookie.startswith(("__Host-pre=", "__Host-session="))
        flags = {part.strip().lower() for part in cookie.split(";")[1:]}
        assert {"secure", "httponly", "samesite=lax", "path=/"} <= flags
        assert not any(flag.startswith("domain") for flag in flags)
