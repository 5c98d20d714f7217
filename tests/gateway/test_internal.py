"""The notifier's door, and the probes."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from psycopg.conninfo import make_conninfo
from pydantic import SecretStr
from starlette.testclient import TestClient

from banksman import ids, ledger
from banksman.ids import NoticeId
from banksman.ledger import notices, sign_ins
from banksman.ledger.insights import RECEIPT_LIFE
from banksman.links import LinkKeys, point
from banksman.settings import GatewaySettings
from banksman_gateway import app, binding, health
from tests.conftest import Database
from tests.gateway.scenes import NOTIFIER_TOKEN, Site, notices_of

NOTIFIER = {"Authorization": f"Bearer {NOTIFIER_TOKEN}"}


def mint(site: Site, *names: str) -> list[dict[str, Any]]:
    answer = site.client.post("/internal/links", json={"notices": names}, headers=NOTIFIER)
    assert answer.status_code == 200, answer.text
    return answer.json()["items"]


def test_a_notice_has_one_link_and_one_code_however_often_it_is_asked(site: Site, link_key: str) -> None:
    _, [request_id] = site.a_waiting_run()
    with ledger.transaction(site.gateway) as conn:
        [notice] = notices_of(conn, request_id)

    [minted] = mint(site, notice.id.hex)
    [again] = mint(site, ids.show("ntc", notice.id))

    assert again == minted
    assert (minted["kind"], minted["code_digits"], len(minted["code"])) == ("request", 6, 6)
    token = minted["url"].removeprefix("http://localhost:8420/l/")
    LinkKeys.read(link_key).verify(point(token), binding.of(notice))


def test_a_sign_in_has_a_code_and_no_link_that_signs_in(site: Site) -> None:
    notice_id = a_sign_in(site)

    [minted] = mint(site, notice_id.hex)

    assert minted["url"] == "http://localhost:8420/sign-in"
    assert len(minted["code"]) == minted["code_digits"] == 8


def test_each_of_a_handful_gets_a_link_or_the_reason_why_not(site: Site) -> None:
    live, used, unknown = a_sign_in(site), a_sign_in(site), NoticeId(ids.new())
    with ledger.transaction(site.gateway) as conn:
        assert notices.use(conn, used)

    items = mint(site, used.hex, live.hex, unknown.hex)

    assert [item["notice"] for item in items] == [ids.show("ntc", n) for n in (used, live, unknown)]
    assert items[0].keys() == items[2].keys() == {"notice", "reason"}
    assert "counts no more" in items[0]["reason"]
    assert items[1]["code"]
    assert "no such notice" in items[2]["reason"]


def test_nothing_is_minted_for_who_is_not_the_notifier(site: Site) -> None:
    wanted = {"notices": [a_sign_in(site).hex]}

    for headers in ({}, {"Authorization": "Bearer wrong"}, site.token(site.ana)):
        answer = site.client.post("/internal/links", json=wanted, headers=headers)
        assert answer.status_code == 401
        assert "code_digits" not in answer.text


@pytest.mark.parametrize("names", [["nonsense"], ["0" * 32] * 101])
def test_what_names_no_handful_of_notices_is_refused(site: Site, names: list[str]) -> None:
    answer = site.client.post("/internal/links", json={"notices": names}, headers=NOTIFIER)

    assert answer.status_code == 422


def test_without_a_notice_the_notifier_learns_where_the_gateway_is(site: Site) -> None:
    answer = site.client.post("/internal/links", json={"notices": []}, headers=NOTIFIER)

    assert answer.json() == {"items": [], "home": "http://localhost:8420"}


@pytest.mark.parametrize("kind", ["remark", "test"])
def test_a_notice_that_decides_nothing_has_neither_link_nor_code(site: Site, kind: str) -> None:
    _, [request_id] = site.a_waiting_run()
    notice_id = NoticeId(ids.new())
    with ledger.transaction(site.gateway) as conn:
        about = request_id if kind == "remark" else None
        conn.execute(
            "INSERT INTO notices (id, kind, person_id, request_id, revision, due_at, expires_at)"
            " VALUES (%s, %s, %s, %s, %s, now(), now() + interval '1 hour')",
            (notice_id, kind, site.ana.id, about, None if about is None else 1),
        )

    [minted] = mint(site, notice_id.hex)

    place = f"requests/{ids.show('req', request_id)}" if kind == "remark" else ""
    assert minted["url"] == minted["page"] == f"http://localhost:8420/{place}"
    assert minted["code"] == ""


def test_a_receipts_day_is_that_of_utc_wherever_postgresql_is(
    site: Site, gateway_settings: GatewaySettings, database: Database
) -> None:
    abroad = make_conninfo(database.gateway, options="-c TimeZone=Etc/GMT+12")
    made = app.create(gateway_settings.model_copy(update={"database_url": SecretStr(abroad)}))
    until = datetime.now(UTC).replace(hour=7, minute=0, second=0, microsecond=0)
    notice_id = NoticeId(ids.new())
    with ledger.transaction(site.gateway) as conn:
        conn.execute(
            "INSERT INTO notices (id, kind, person_id, due_at, expires_at) VALUES (%s, 'receipt', %s, now(), %s)",
            (notice_id, site.ana.id, until + RECEIPT_LIFE),
        )

    with TestClient(made, base_url="http://localhost:8420") as client:
        answer = client.post("/internal/links", json={"notices": [notice_id.hex]}, headers=NOTIFIER)

    assert answer.json()["items"][0]["page"] == f"http://localhost:8420/receipts/{until:%Y-%m-%d}"


def a_sign_in(site: Site) -> NoticeId:
    notice_id = NoticeId(ids.new())
    with ledger.transaction(site.gateway) as conn:
        sign_ins.ask(conn, notice_id, site.ana.email, asker=b"", browser=None)
        assert sign_ins.grant(conn, notice_id, lifetime=timedelta(minutes=10), each=9, strangers=9)
    return notice_id


def test_probes_say_how_the_gateway_is(site: Site) -> None:
    site.a_waiting_run()

    health, ready = site.client.get("/healthz"), site.client.get("/readyz")
    numbers = site.client.get("/metrics").text

    assert (health.status_code, health.json()) == (200, {"status": "ok"})
    assert (ready.status_code, ready.json()["postgresql"]) == (200, True)
    assert 'banksman_runs{status="waiting"} 1.0' in numbers
    assert 'banksman_requests_open{kind="approval",tier="medium"} 1.0' in numbers
    assert "banksman_requests_oldest_open_seconds" in numbers


def test_a_gateway_whose_connections_are_all_at_work_and_whose_numbers_are_slow_is_ready(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    over = threading.Event()

    def slowly(_: object) -> bytes:
        over.wait(30)
        return b""

    monkeypatch.setattr(health, "generate_latest", slowly)
    with ThreadPoolExecutor(3) as threads, ExitStack() as stack:
        stack.callback(over.set)
        for _ in range(app.POOL_SIZE):
            stack.enter_context(site.parts.pool.connection())
        for _ in range(3):
            threads.submit(site.client.get, "/metrics")

        ready = [site.client.get("/readyz").status_code for _ in range(3)]

    assert ready == [200] * 3
