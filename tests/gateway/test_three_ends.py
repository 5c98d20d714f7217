"""Denied, expired, cancelled: a person said no, nobody said anything, the run ended first. Nothing mixes them up."""

from __future__ import annotations

import itertools
from collections.abc import Mapping

import pytest

from banksman import ids, ledger
from banksman.cli import show
from banksman.ids import RequestId, RunId
from banksman.ledger import notices, requests
from banksman.shapes import Request as Shown
from banksman_gateway import fresh, silence
from banksman_worker.results import denial
from banksman_worker.resuming import resolve
from tests.gateway.browser import Browser
from tests.gateway.scenes import Site, asking, notices_of

ENDS = ("denied", "expired", "cancelled")


@pytest.fixture
def ended(site: Site, monkeypatch: pytest.MonkeyPatch) -> Mapping[str, tuple[RunId, RequestId]]:
    """Three requests, one for each end; the metrics were read before."""
    monkeypatch.setattr(fresh, "_SHARE", 0)
    monkeypatch.setattr(fresh.Fresh, "clock", staticmethod(itertools.count(0, 3600).__next__))
    assert site.client.get("/metrics").status_code == 200
    parked = {end: site.a_waiting_run(asking(expires_after=0 if end == "expired" else 3600)) for end in ENDS}
    found = {end: (run_id, request_id) for end, (run_id, [request_id]) in parked.items()}
    assert site.vote(found["denied"][1], site.token(site.ana), verdict="deny").status_code == 200
    silence.act(site.parts)
    url = f"/v1/runs/{ids.show('run', found['cancelled'][0])}/cancel"
    assert site.client.post(url, headers=site.token(site.ana)).status_code == 200
    return found


def test_the_api_keeps_them_apart(site: Site, ended: Mapping[str, tuple[RunId, RequestId]]) -> None:
    for end, (_, request_id) in ended.items():
        found, late = site.request(request_id), site.vote(request_id, site.token(site.ben))
        assert found["state"] == end
        assert (found["decision"] is None) == (end != "denied")
        assert (late.status_code, late.json()["current"]["state"]) == (409, end)
        listed = site.client.get("/v1/requests", params={"state": end}, headers=site.token(site.ana)).json()["items"]
        assert [item["id"] for item in listed] == [ids.show("req", request_id)]


def test_pages_and_timelines_keep_them_apart(site: Site, ended: Mapping[str, tuple[RunId, RequestId]]) -> None:
    browser = Browser(site)
    browser.sign_in(site.ana)
    told = {
        "denied": "<strong>Denied</strong>",
        "expired": "Nobody decided in time",
        "cancelled": "the run was cancelled by",
    }
    happened = {
        "denied": "denied",
        "expired": "let the deadline pass: nobody decided",
        "cancelled": "closed the request",
    }
    for end, (run_id, request_id) in ended.items():
        page = browser.get(f"/requests/{ids.show('req', request_id)}").text
        assert [other for other, words in told.items() if words in page] == [end]
        run = browser.get(f"/runs/{ids.show('run', run_id)}").text
        said = [other for other, words in happened.items() if f"<td>{words}" in run]
        assert said == [end]


def test_the_terminal_keeps_them_apart(
    site: Site, ended: Mapping[str, tuple[RunId, RequestId]], capsys: pytest.CaptureFixture[str]
) -> None:
    told = {"denied": "said deny", "expired": "It was not denied", "cancelled": "Its run ended before anybody decided"}
    for end, (_, request_id) in ended.items():
        show.request(Shown.model_validate(site.request(request_id)))
        printed = capsys.readouterr().out
        assert f", {end}\n" in printed
        assert [other for other, words in told.items() if words in printed] == [end]


def test_the_metrics_keep_them_apart(site: Site, ended: Mapping[str, tuple[RunId, RequestId]]) -> None:
    metrics = site.client.get("/metrics").text

    assert all(f'banksman_requests_settled_total{{state="{end}"}} 1.0' in metrics for end in ended)
    assert 'banksman_requests_settled_total{state="approved"} 0.0' in metrics


def test_no_mail_asks_anybody_any_more(site: Site, ended: Mapping[str, tuple[RunId, RequestId]]) -> None:
    with ledger.transaction(site.gateway) as conn:
        found = [item.id for _, request_id in ended.values() for item in notices_of(conn, request_id)]
        matters = notices.matters(conn, found)

    assert len(found) == len(ENDS)
    assert not any(item.wanted for item in matters.values())


def test_the_agent_is_told_which_it_was(site: Site, ended: Mapping[str, tuple[RunId, RequestId]]) -> None:
    told: dict[str, str] = {}
    for end, (run_id, _) in ended.items():
        with ledger.transaction(site.gateway) as conn:
            [settled] = requests.settled(conn, run_id, 1)
        told[end] = denial(resolve(site.parts.verifier, settled))

    assert told["denied"] == "A person denied this call. It was not executed."
    assert told["expired"].startswith("Nobody decided in time")
    assert "cancelled before anybody decided" in told["cancelled"]
    assert all("was not denied" in told[end] for end in ("expired", "cancelled"))
