"""One character changed anywhere in anything that opens a door, and the door stays shut, without a 500."""

from __future__ import annotations

import string
from collections.abc import Iterator

import pytest
from starlette.testclient import TestClient

from banksman import ids, ledger
from banksman.ids import NoticeId
from banksman.ledger import notices
from banksman_gateway import binding
from tests.gateway.browser import Browser, Form, code_of, form_in, forms_in, latest_sign_in, link_of, notice_of, page_of
from tests.gateway.scenes import Site, asking

ORDINARY = string.ascii_letters + string.digits


def mutants(text: str, letters: str = ORDINARY) -> Iterator[str]:
    """Each position: its neighbour in the alphabet, another letter, one left out, one doubled, one that is no ASCII."""
    for place, letter in enumerate(text):
        where = letters.find(letter)
        for other in {letters[(where + 1) % len(letters)], letters[(where + 32) % len(letters)], "~", "é"} - {letter}:
            yield text[:place] + other + text[place + 1 :]
        yield text[:place] + text[place + 1 :]
        yield text[:place] + letter + text[place:]


def tell(capsys: pytest.CaptureFixture[str], kind: str, tried: int) -> None:
    with capsys.disabled():
        print(f"\nmutations of {kind}: {tried}, none of them taken")  # noqa: T201


@pytest.mark.parametrize("kind", ["key", "token"])
def test_no_changed_credential_is_taken(site: Site, kind: str, capsys: pytest.CaptureFixture[str]) -> None:
    headers = site.key("runs:read") if kind == "key" else site.token(site.ana)
    text = headers["Authorization"].removeprefix("Bearer ")

    def status(sent: str) -> int:
        header = {b"Authorization": b"Bearer " + sent.encode("latin-1")}
        return site.client.get("/v1/runs", headers=list(header.items())).status_code

    tried = list(mutants(text))
    assert status(text) == 200
    assert {status(sent) for sent in tried} == {401}
    tell(capsys, f"a {kind}", len(tried))


def test_no_changed_link_is_taken(site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    _, [request_id] = site.a_waiting_run(asking())
    token = link_of(site, notice_of(site, request_id)).removeprefix("/l/")
    browser = Browser(site)

    tried = list(mutants(token, ORDINARY + "-_"))
    assert browser.get(f"/l/{token}").status_code == 303
    assert {browser.get(f"/l/{sent}").status_code for sent in tried} == {404}
    tell(capsys, "a link", len(tried))


def test_no_changed_session_is_taken(site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    browser = Browser(site)
    browser.sign_in(site.ana)
    value = browser.http.cookies["session"]

    def status(sent: str) -> int:
        cookie = [(b"cookie", b"session=" + sent.encode("latin-1"))]
        return plain.get("/", headers=cookie).status_code

    plain = TestClient(site.client.app, base_url="http://localhost:8420", follow_redirects=False)
    tried = list(mutants(value, ORDINARY + "-_"))
    assert status(value) == 200
    assert {status(sent) for sent in tried} == {303}
    tell(capsys, "a session", len(tried))


def test_no_changed_form_token_is_taken(site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    browser = Browser(site)
    browser.sign_in(site.ana)
    [form] = [item for item in forms_in(browser.get("/account").text) if item.action == "/sign-out"]
    text = form.fields["form"]

    tried = list(mutants(text, ORDINARY + "-_"))
    assert {browser.send(Form("/sign-out", {"form": sent})).status_code for sent in tried} == {403}
    assert browser.get("/").status_code == 200
    assert browser.send(form).status_code == 303
    tell(capsys, "a form token", len(tried))


@pytest.mark.parametrize("use", ["pre", "known"])
def test_no_changed_sign_in_cookie_is_taken(site: Site, use: str, capsys: pytest.CaptureFixture[str]) -> None:
    browser = Browser(site)
    if use == "known":
        browser.sign_in(site.ana)
    form = form_in(browser.send(Form("/sign-in", {"email": "ana@example.org"})).text)
    code = code_of(site, latest_sign_in(site))
    value = browser.http.cookies[use]
    plain = TestClient(site.client.app, base_url="http://localhost:8420", follow_redirects=False)

    def sent(value: str) -> int:
        cookie = [(b"cookie", f"{use}=".encode() + value.encode("latin-1"))]
        if use == "pre":
            return plain.post("/sign-in/code", data=form.fields | {"code": code}, headers=cookie).status_code
        return plain.post("/sign-in", data={"email": "ben@example.org"}, headers=cookie).status_code

    tried = list(mutants(value))
    answers = {sent(value) for value in tried}
    assert answers == {422 if use == "pre" else 200}
    with ledger.transaction(site.gateway) as conn:
        known = conn.execute("SELECT count(*) FROM sign_ins WHERE known").fetchone()
    assert known == ((1,) if use == "known" else (0,))
    tell(capsys, f"the cookie {use}", len(tried))


def test_no_changed_view_of_a_link_is_taken(site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    _, [request_id] = site.a_waiting_run(asking())
    browser = Browser(site)
    browser.get(link_of(site, notice_of(site, request_id)))
    [name] = [name for name in browser.http.cookies if name.startswith("view-")]
    value = browser.http.cookies[name]
    plain = TestClient(site.client.app, base_url="http://localhost:8420", follow_redirects=False)

    def status(sent: str) -> int:
        cookie = [(b"cookie", f"{name}=".encode() + sent.encode("latin-1"))]
        return plain.get(page_of(request_id), headers=cookie).status_code

    tried = list(mutants(value))
    assert status(value) == 200
    assert {status(sent) for sent in tried} == {303}
    tell(capsys, "a view", len(tried))


@pytest.mark.parametrize("kind", ["request", "sign_in"])
def test_no_changed_code_is_taken(site: Site, kind: str, capsys: pytest.CaptureFixture[str]) -> None:
    if kind == "sign_in":
        Browser(site).send(Form("/sign-in", {"email": "ana@example.org"}))
        notice_id = latest_sign_in(site)
    else:
        _, [request_id] = site.a_waiting_run(asking())
        notice_id: NoticeId = notice_of(site, request_id)
    code = code_of(site, notice_id)
    with ledger.transaction(site.gateway) as conn:
        notice = notices.get(conn, notice_id)
    digits, bound = binding.digits(kind), binding.of(notice)

    def holds(sent: str) -> bool:
        return site.parts.link_keys.code_holds(sent, notice_id, bound, digits=digits)

    tried = [
        *mutants(code, string.digits),
        *(code[:n] + d + code[n + 1 :] for n in range(digits) for d in "0123456789"),
    ]
    tried = [sent for sent in tried if sent != code]
    assert len(code) == digits
    assert holds(code)
    assert not any(map(holds, tried))
    tell(capsys, f"a code of kind {kind}", len(tried))


def test_no_changed_attempt_makes_a_token(site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    attempt = site.client.post("/v1/tokens", json={"email": "ana@example.org"}).json()["attempt"]
    code = code_of(site, latest_sign_in(site))

    def status(sent: str) -> int:
        return site.client.post("/v1/tokens/redeem", json={"attempt": sent, "code": code}).status_code

    tried = list(mutants(attempt))
    assert {status(sent) for sent in tried} == {422}
    assert status(attempt) == 201
    tell(capsys, "an attempt", len(tried))


@pytest.mark.parametrize("where", ["/v1/runs", "/v1/requests"])
def test_a_changed_cursor_breaks_nothing(site: Site, where: str, capsys: pytest.CaptureFixture[str]) -> None:
    for _ in range(3):
        site.a_waiting_run(asking())
    headers = site.token(site.ana)
    cursor = site.client.get(where, params={"limit": 1}, headers=headers).json()["next_cursor"]

    tried = list(mutants(cursor))
    answers = {site.client.get(where, params={"cursor": sent}, headers=headers).status_code for sent in tried}
    assert answers <= {200, 422}  # a cursor is no secret: another id is another place in the same list
    tell(capsys, f"a cursor of {where}", len(tried))


def test_a_vote_on_a_changed_digest_does_not_count(site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    _, [request_id] = site.a_waiting_run(asking())
    shown, headers = site.request(request_id), site.token(site.ana)
    url = f"/v1/requests/{ids.show('req', request_id)}/votes"

    def status(sent: str) -> int:
        body = {"verdict": "approve", "digest": sent, "revision": 1}
        return site.client.post(url, json=body, headers=headers).status_code

    tried = list(mutants(shown["digest"], "0123456789abcdef"))
    assert {status(sent) for sent in tried} <= {409, 422}
    assert site.request(request_id)["state"] == "open"
    assert status(shown["digest"]) == 200
    tell(capsys, "a digest", len(tried))
