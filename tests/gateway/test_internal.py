"""The notifier's door, and the probes."""

from __future__ import annotations

from datetime import timedelta

from banksman import ids, ledger
from banksman.ids import NoticeId
from banksman.ledger import notices
from banksman.links import LinkKeys, point
from banksman_gateway import binding
from tests.gateway.conftest import NOTIFIER_TOKEN
from tests.gateway.scenes import Site

NOTIFIER = {"Authorization": f"Bearer {NOTIFIER_TOKEN}"}


def test_a_notice_has_one_link_and_one_code_however_often_it_is_asked(
    site: Site, link_key: str
) -> None:
    _, [request_id] = site.a_waiting_run()
    with ledger.transaction(site.gateway) as conn:
        [notice] = notices.of_request(conn, request_id)

    first = site.client.post("/internal/links", json={"notice": notice.id.hex}, headers=NOTIFIER)
    again = site.client.post(
        "/internal/links", json={"notice": ids.show("ntc", notice.id)}, headers=NOTIFIER
    )

    minted = first.json()
    assert again.json() == minted
    assert (minted["kind"], minted["code_digits"], len(minted["code"])) == ("request", 6, 6)
    token = minted["url"].removeprefix("http://localhost:8420/l/")
    LinkKeys.read(link_key).verify(point(token), binding.of(notice))


def test_a_sign_in_has_a_code_and_no_link_that_signs_in(site: Site) -> None:
    notice_id = NoticeId(ids.new())
    with ledger.transaction(site.gateway) as conn:
        notices.create_sign_in(conn, notice_id, site.ana.id, lifetime=timedelta(minutes=10))

    minted = site.client.post(
        "/internal/links", json={"notice": notice_id.hex}, headers=NOTIFIER
    ).json()

    assert minted["url"] == "http://localhost:8420/sign-in"
    assert len(minted["code"]) == minted["code_digits"] == 8


def test_nothing_is_minted_for_who_is_not_the_notifier(site: Site) -> None:
    for headers in ({}, {"Authorization": "Bearer wrong"}, site.token(site.ana)):
        answer = site.client.post("/internal/links", json={"notice": "0" * 32}, headers=headers)
        assert answer.status_code == 401


def test_nothing_is_minted_for_a_notice_that_is_not_there_or_counts_no_more(site: Site) -> None:
    used = NoticeId(ids.new())
    with ledger.transaction(site.gateway) as conn:
        notices.create_sign_in(conn, used, site.ana.id, lifetime=timedelta(minutes=10))
        assert notices.use(conn, used)

    statuses = [
        site.client.post("/internal/links", json={"notice": name}, headers=NOTIFIER).status_code
        for name in (used.hex, ids.new().hex, "nonsense")
    ]

    assert statuses == [409, 404, 422]


def test_probes_say_how_the_gateway_is(site: Site) -> None:
    site.a_waiting_run()

    health, ready = site.client.get("/healthz"), site.client.get("/readyz")
    numbers = site.client.get("/metrics").text

    assert (health.status_code, health.json()) == (200, {"status": "ok"})
    assert (ready.status_code, ready.json()["postgresql"]) == (200, True)
    assert 'banksman_runs{status="waiting"} 1.0' in numbers
    assert "banksman_requests_open 1.0" in numbers
    assert "banksman_requests_oldest_open_seconds" in numbers
