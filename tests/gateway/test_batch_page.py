"""The pages of batches: how far one has come, whom it waits for, what it has used, and the form that stops it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from banksman import ids, ledger
from banksman.digest import Json
from banksman.ids import NoticeId, RunId
from banksman.ledger import requests, runs
from banksman.records import Person
from banksman.states import Tier
from tests.gateway.browser import Browser, Form, Words, form_in, forms_in
from tests.gateway.scenes import LEASE, Site, asking, bound


@dataclass(frozen=True, slots=True)
class Lot:
    """A batch and its runs, oldest first."""

    id: str
    runs: list[RunId]

    @property
    def page(self) -> str:
        return f"/batches/{self.id}"


def test_a_batch_says_how_far_it_is_whom_it_waits_for_and_what_it_used(site: Site, ana: Browser) -> None:
    lot = a_batch(site, 4)
    finish(site, lot.runs[0], {"requests": 2, "input_tokens": 1000, "output_tokens": 10, "cost": "0.5"})
    finish(site, lot.runs[1], {"requests": 1, "input_tokens": 234, "output_tokens": 5})
    wait(site, lot.runs[2], tier=Tier.HIGH)

    text = text_of(ana, lot.page)

    assert "2 of 4 runs are over" in text
    assert "2 finished" in text
    assert "1 waiting" in text
    assert "1 queued" in text
    assert "runs a minute, from the 2 that came to an end" in text
    assert "Expected end" in text
    assert "1 tier high for reviewers" in text
    assert "1,234" in text
    assert "0.5 USD, as the agent library reckons it, for 1 of 4 runs" in text
    page = ana.get(lot.page).text
    assert f"/runs?batch={lot.id}&amp;status=waiting" in page
    assert f"/?q={lot.id}" in page


def test_its_links_lead_to_its_own_runs_and_requests(site: Site, ana: Browser) -> None:
    lot, other = a_batch(site, 2), site.a_waiting_run()[0]
    wait(site, lot.runs[0])

    listed = ana.get(f"/runs?batch={lot.id}").text
    inbox = ana.get(f"/?q={lot.id}").text

    assert all(ids.show("run", one) in listed for one in lot.runs)
    assert ids.show("run", other) not in listed
    assert inbox.count("<li data-request=") == 1
    assert f'href="{lot.page}"' in ana.get(f"/runs/{ids.show('run', lot.runs[0])}").text


def test_batches_are_listed_newest_first_with_their_progress(site: Site, ana: Browser) -> None:
    first, second = a_batch(site, 2, "first"), a_batch(site, 3, "second")
    finish(site, second.runs[0], {})

    page = ana.get("/batches").text

    assert page.index(second.page) < page.index(first.page)
    assert "1 of 3 over" in " ".join(Words(page).text.split())


def test_a_batch_is_stopped_from_its_page_by_who_may(site: Site, ana: Browser) -> None:
    lot = a_batch(site, 3)
    wait(site, lot.runs[0])
    aud = Browser(site)
    aud.sign_in(site.a_person("aud@example.org", "auditor"))
    forms = {form.action.rpartition("/")[2]: form for form in forms_in(ana.get(lot.page).text)}
    form = forms["cancel"]

    page = aud.get(lot.page)
    token = form_in(aud.get("/preferences").text).fields["form"]
    refused = aud.send(Form(form.action, {"form": token}))
    paused = ana.send(forms["pause"])
    said = text_of(ana, lot.page)
    done = ana.send(form)

    assert page.status_code == 200
    assert form.action not in page.text
    assert refused.status_code == 403
    assert (paused.status_code, done.status_code) == (303, 303)
    assert "Nothing of it starts until somebody lets it go on" in said
    text = text_of(ana, lot.page)
    assert "3 cancelled" in text
    assert "It was cancelled" in text
    assert form.action not in ana.get(lot.page).text


def test_who_has_no_role_sees_their_own_batches_alone(site: Site) -> None:
    guest = site.a_person("guest@example.org")
    own, foreign = a_batch(site, 1, requester=guest), a_batch(site, 1)
    browser = Browser(site)
    browser.sign_in(guest)

    listed = browser.get("/batches").text

    assert own.page in listed
    assert foreign.page not in listed
    assert browser.get(own.page).status_code == 200
    for path in (foreign.page, f"{foreign.page}/now"):
        assert browser.get(path).status_code == 404
    assert browser.get("/batches/x").status_code in (404, 422)


def test_the_changing_part_is_for_the_signed_in_and_keeps_no_session_alive(
    site: Site, ana: Browser, owner_pool: ledger.Pool
) -> None:
    lot = a_batch(site, 1)
    age = "UPDATE sessions SET seen_at = clock_timestamp() - interval '{} minutes' RETURNING seen_at"
    with ledger.transaction(owner_pool) as conn:
        before = conn.execute(age.format(50).encode()).fetchone()

    part = ana.get(f"{lot.page}/now")

    assert "0 of 1 runs are over" in part.text
    assert "<html" not in part.text
    with ledger.transaction(owner_pool) as conn:
        assert conn.execute("SELECT seen_at FROM sessions").fetchone() == before
        conn.execute(age.format(61).encode())
    assert ana.get(f"{lot.page}/now").status_code == 303
    assert Browser(site).get(f"{lot.page}/now").status_code == 303


def a_batch(site: Site, size: int, name: str = "refunds", *, requester: Person | None = None) -> Lot:
    """A batch of this many runs."""
    line = json.dumps({"agent": "plain", "prompt": "Do it."}) + "\n"
    headers = site.key("runs:submit") if requester is None else site.token(requester)
    answer = site.client.post(
        f"/v1/batches?name={name}", content=line * size, headers=headers | {"Content-Type": "application/x-ndjson"}
    )
    assert answer.status_code == 201, answer.text
    batch_id = answer.json()["id"]
    found = site.client.get(f"/v1/runs?batch_id={batch_id}", headers=site.key("runs:read")).json()["items"]
    return Lot(batch_id, [RunId(ids.read("run", item["id"])) for item in reversed(found)])


def finish(site: Site, run_id: RunId, usage: dict[str, Json]) -> None:
    with ledger.transaction(site.worker) as conn:
        claim = runs.claim(conn, run_id, 0, owner="w", lease=LEASE)
        assert claim is not None
        assert runs.finish(conn, run_id, claim.fence, output="done", version="1", usage=usage)


def wait(site: Site, run_id: RunId, **requirement: Any) -> None:
    """Queued → waiting behind one request."""
    with ledger.transaction(site.worker) as conn:
        claim = runs.claim(conn, run_id, 0, owner="w", lease=LEASE)
        assert claim is not None
        told = [(NoticeId(ids.new()), site.ana.id)]
        requests.open_request(conn, run_id, 0, bound(asking(**requirement), run_id, told))
        assert runs.park(conn, run_id, claim.fence, version="1", usage={})


def text_of(browser: Browser, path: str) -> str:
    page = browser.get(path)
    assert page.status_code == 200, page.text
    return " ".join(Words(page.text).text.split())
