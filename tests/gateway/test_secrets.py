"""Secrets in requests: covered wherever they are shown, told to one voter at a time, and unharmed by an edit."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from banksman import digest, ids, ledger, masks
from banksman.digest import Json
from banksman.ids import NoticeId
from banksman.ledger import requests, staff
from banksman.records import NewRequest
from banksman.states import Kind, Tier
from tests.gateway.browser import Browser, Form, Words, form_in, forms_in, page_of, stored, with_context
from tests.gateway.scenes import Site, asking, bound

TOKEN = "ghp_aB3dE6gH9jK2mN5pQ8sT1vW4yZ7bC0dF3gH6"
PIN = "open sesame please"
SCHEMA: dict[str, Json] = {
    "type": "object",
    "properties": {"url": {"type": "string"}, "pin": {"type": "string", "maxLength": 30}, "note": {"type": "string"}},
}


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    yield
    masks.follow(masks.nothing)


def secretly(**more: Any) -> NewRequest:
    """A request with a token in a URL, and an argument that its author calls secret."""
    arguments: dict[str, Json] = {"url": f"https://x:{TOKEN}@h.example/a", "pin": PIN, "note": "hello"}
    new = with_context(asking(tool="login", arguments=arguments, **more), said=f"I log in with {PIN}.")
    action = json.loads(new.action) | {"schema": digest.of_schema(SCHEMA).hex(), "sensitive": ["pin"]}
    return replace(
        new,
        action=digest.canonical(action),
        digest=digest.of_action(action),
        schema=digest.canonical(SCHEMA),
        schema_hash=digest.of_schema(SCHEMA),
    )


def events(site: Site, action: str) -> list[tuple[str, dict[str, Any]]]:
    with ledger.transaction(site.gateway) as conn:
        rows = conn.execute("SELECT actor, body FROM audit_events WHERE action = %s ORDER BY id", (action,)).fetchall()
    return [(actor, body) for actor, body in rows]


def typed(form: Form, name: str, text: str) -> Form:
    return replace(form, fields=form.fields | {name: text})


def test_nothing_that_shows_a_request_shows_its_secrets(site: Site) -> None:
    run_id, [request_id, _] = site.a_waiting_run(secretly(), replace(secretly(call_id="c2")))
    site.vote(request_id, site.token(site.ana), arguments={"note": "bye"})
    browser = Browser(site)
    browser.sign_in(site.ana)
    shown, headers = ids.show("req", request_id), site.key("requests:read", "runs:read")

    pages = [
        browser.get(path).text
        for path in ("/", f"/requests/{shown}", "/?queue=done", f"/runs/{ids.show('run', run_id)}")
    ]
    told = [site.client.get(path, headers=headers).text for path in (f"/v1/requests/{shown}", "/v1/requests")]

    for text in [*pages, *told]:
        assert TOKEN not in text
        assert "sesame" not in text
    assert "⟦secret: GitHub token, 33 to 64 characters, " in pages[1]
    assert "⟦secret: named by its author, 17 to 32 characters, " in pages[1]
    found = json.loads(told[0])
    assert (
        found["arguments"]["url"]
        == f"https://x:⟦secret: GitHub token, 33 to 64 characters, {masks.fingerprint(TOKEN)}⟧@h.example/a"
    )
    assert {item["fingerprint"] for item in found["masked"]} == {masks.fingerprint(TOKEN), masks.fingerprint(PIN)}
    assert found["decision"]["statement_masked"] is True
    assert stored(site, request_id).action.find(TOKEN.encode()) > 0


def test_a_secret_of_one_call_is_covered_in_the_words_around_the_other_calls_of_its_turn(site: Site) -> None:
    other = with_context(asking(call_id="c2"), said=f"I log in with {PIN}, and write.", why_again=f"It was {PIN}.")
    _, [_, request_id] = site.a_waiting_run(secretly(), other)
    browser = Browser(site)
    browser.sign_in(site.ana)

    told = site.client.get("/v1/requests", headers=site.key("requests:read")).text

    for text in (browser.get(page_of(request_id)).text, json.dumps(site.request(request_id)), told):
        assert "I log in with" in text
        assert "sesame" not in text


def test_the_files_of_a_run_are_covered_as_its_calls_are(site: Site) -> None:
    run_id = site.a_run_with_files({"/a.txt": f"pin: {PIN}\nnote: hello\n".encode()})
    with ledger.transaction(site.worker) as conn:
        new = bound(secretly(), run_id, [(NoticeId(ids.new()), site.ana.id)])
        requests.open_request(conn, run_id, 0, new)
    browser = Browser(site)
    browser.sign_in(site.ana)

    page = browser.get(f"/runs/{ids.show('run', run_id)}").text

    assert "note: hello" in page
    assert "sesame" not in page


def test_a_policy_that_names_an_argument_covers_it_at_once(site: Site) -> None:
    _, [request_id] = site.a_waiting_run(asking(tool="write_file", arguments={"path": "/a", "content": "green tea"}))
    assert "green tea" in site.request(request_id)["rendered"]
    admin = site.a_person("kim@example.org", "admin")

    text = '[[sensitive]]\nagent = "pl*"\ntool = "write_*"\nargs = ["content"]\n'
    answer = site.client.post("/v1/policy", json={"text": text}, headers=site.token(admin))

    assert answer.status_code == 200, answer.text
    assert "green tea" not in json.dumps(site.request(request_id))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('[[sensitive]]\nargs = ["a"]\n', "[[sensitive]] 1, line 1: `tool` is missing"),
        ('[[sensitive]]\ntool = "t"\nargs = ["command"]\n', "always has to be read"),
        ('[[sensitive]]\ntool = "t"\nargs = ["a b"]\n', "which is no argument"),
        ('[[sensitive]]\ntool = "t"\nargs = []\n', "`args`"),
        ('[[sensitive]]\ntool = "t"\nargs = ["a"]\nwhen = "true"\n', "`when` is not known here"),
    ],
)
def test_what_is_wrong_with_a_list_of_secrets_is_said(site: Site, text: str, said: str) -> None:
    admin = site.a_person("kim@example.org", "admin")

    answer = site.client.post("/v1/policy", json={"text": text}, headers=site.token(admin))

    assert answer.status_code == 422
    assert said in answer.json()["detail"]


def test_who_may_decide_is_told_a_secret_and_the_log_says_so(site: Site) -> None:
    _, [request_id] = site.a_waiting_run(secretly())
    wish = {"fingerprint": masks.fingerprint(TOKEN), "reason": "Is it the old one?"}

    answer = site.client.post(f"/v1{page_of(request_id)}/reveal", json=wish, headers=site.token(site.ana))

    assert answer.status_code == 200, answer.text
    assert answer.json() == {"value": TOKEN, "what": "GitHub token", "fingerprint": masks.fingerprint(TOKEN)}
    assert answer.headers["cache-control"] == "no-store"
    [(actor, body)] = events(site, "request.revealed")
    assert actor == ids.show("per", site.ana.id)
    assert body == {
        "revision": 1,
        "what": "GitHub token",
        "why": "Is it the old one?",
        "fingerprint": wish["fingerprint"],
    }


def test_a_secret_that_was_told_is_kept_nowhere_and_each_repetition_is_checked_and_written_down(site: Site) -> None:
    _, [request_id] = site.a_waiting_run(secretly())
    headers = site.token(site.ana) | {"Idempotency-Key": "a"}
    wish = {"fingerprint": masks.fingerprint(TOKEN), "reason": "Is it the old one?"}

    def ask() -> int:
        return site.client.post(f"/v1{page_of(request_id)}/reveal", json=wish, headers=headers).status_code

    told = [ask(), ask()]
    with ledger.transaction(site.gateway) as conn:
        kept = conn.execute("SELECT count(*) FROM answers WHERE key = 'a'").fetchone()
        staff.upsert(conn, site.ana.email, name="Ana", roles=())

    assert (told, kept) == ([200, 200], (0,))
    assert ask() in {403, 404}
    assert len(events(site, "request.revealed")) == 2


def test_nobody_else_is_told_a_secret(site: Site) -> None:
    _, [request_id] = site.a_waiting_run(secretly(), requester=site.ben)
    _, [high] = site.a_waiting_run(secretly(tier=Tier.HIGH, approvals=2))
    auditor = site.a_person("aud@example.org", "auditor")
    nobody = site.a_person("no@example.org")
    wish = {"fingerprint": masks.fingerprint(TOKEN), "reason": "Why not."}

    def asked(headers: dict[str, str], request: Any = request_id, **more: str) -> int:
        return site.client.post(f"/v1{page_of(request)}/reveal", json=wish | more, headers=headers).status_code

    assert asked(site.token(auditor)) == 403
    assert asked(site.token(site.ben)) == 403  # who asked for the run
    assert asked(site.token(nobody)) == 404
    assert asked(site.token(site.ana, "requests:read")) == 403
    assert asked(site.token(site.ana), high) == 403  # tier high takes a session
    assert asked(site.key("requests:read", "requests:answer")) == 403
    assert asked(site.token(site.ana), fingerprint="0000-0000-0000") == 422
    assert asked(site.token(site.ana), reason=" ") == 422
    assert events(site, "request.revealed") == []


def test_who_does_the_work_elsewhere_is_told_what_the_work_takes(site: Site) -> None:
    _, [request_id] = site.a_waiting_run(secretly(kind=Kind.EXTERNAL))
    wish = {"fingerprint": masks.fingerprint(PIN), "reason": "to do it"}

    answer = site.client.post(f"/v1{page_of(request_id)}/reveal", json=wish, headers=site.key("requests:answer"))

    assert (answer.status_code, answer.json()["value"]) == (200, PIN)


def test_a_secret_is_shown_on_a_page_of_its_own(site: Site) -> None:
    _, [request_id] = site.a_waiting_run(secretly(tier=Tier.HIGH, approvals=2))
    browser = Browser(site)
    browser.sign_in(site.ana)
    page = browser.get(page_of(request_id)).text
    form = next(
        one
        for one in forms_in(page)
        if one.action.endswith("/reveal") and one.fields["fingerprint"] == masks.fingerprint(TOKEN)
    )

    refused = browser.send(form, why="")
    shown = browser.send(form, why="To compare it.")

    assert refused.status_code == 422
    assert TOKEN not in refused.text
    assert TOKEN in Words(shown.text).text
    assert shown.headers["cache-control"] == "no-store"
    assert TOKEN not in browser.get(page_of(request_id)).text
    assert len(events(site, "request.revealed")) == 1


def test_an_edit_on_the_page_leaves_what_is_covered_as_it_was(site: Site) -> None:
    _, [request_id] = site.a_waiting_run(secretly())
    browser = Browser(site)
    browser.sign_in(site.ana)
    page = browser.get(f"{page_of(request_id)}/edit").text

    sure = browser.send(typed(form_in(page), "arg-note", "bye"))
    browser.send(form_in(sure.text))

    for text in (page, sure.text):
        assert TOKEN not in text
        assert "sesame" not in text
    action = json.loads(stored(site, request_id).action)
    assert action["arguments"] == {"url": f"https://x:{TOKEN}@h.example/a", "pin": PIN, "note": "bye"}


def test_an_edit_may_replace_what_is_covered_and_never_sends_a_mask(site: Site) -> None:
    _, [request_id] = site.a_waiting_run(secretly())
    browser = Browser(site)
    browser.sign_in(site.ana)
    page = browser.get(f"{page_of(request_id)}/edit").text
    mask = site.request(request_id)["arguments"]["pin"]

    cut = browser.send(typed(form_in(page), "arg-pin", mask[:-3]))
    long = browser.send(typed(form_in(page), "arg-pin", PIN * 2))
    as_json = form_in(browser.get(f"{page_of(request_id)}/edit?as=json").text)
    changed = json.loads(as_json.fields["arguments"]) | {"pin": "new one"}
    sure = browser.send(as_json, arguments=json.dumps(changed))
    browser.send(form_in(sure.text))
    over_api = site.vote(request_id, site.token(site.ben), arguments={"note": mask})

    assert "holds the text of a mask" in cut.text
    assert "it must satisfy maxLength" in long.text
    assert "is too long" not in long.text
    assert json.loads(stored(site, request_id).action)["arguments"]["pin"] == "new one"
    assert (over_api.status_code, "mask" in over_api.text) != (200, True)


def test_a_program_may_send_back_the_masks_that_it_was_given(site: Site) -> None:
    _, [request_id] = site.a_waiting_run(secretly())
    given = site.request(request_id)["arguments"]

    answer = site.vote(request_id, site.token(site.ana), arguments_exact=given | {"note": "bye"})
    refused = site.vote(request_id, site.token(site.ana), arguments={"note": given["pin"]})

    assert answer.status_code == 200, answer.text
    assert json.loads(stored(site, request_id).action)["arguments"]["pin"] == PIN
    assert refused.status_code in (409, 422)
