"""One sealed value that was moved, changed or replaced: it is refused and named, and keeps nothing else from view."""

from __future__ import annotations

import json
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from banksman import ids, ledger, signing, vault
from banksman.errors import NotGenuine
from banksman.ids import RequestId, RunId
from banksman.ledger import resealing
from tests.conftest import VAULT_KEYS, Database
from tests.gateway.browser import Browser, Words, forms_in, page_of
from tests.gateway.scenes import Site, asking

NEW = f"v2:{signing.base64url(bytes([8] * 32))}"


def replace_action(database: Database, request_id: RequestId, body: bytes) -> None:
    """As somebody does who may write to the database, whatever its triggers say."""
    with ledger.once(database.owner, name="test") as conn:
        conn.execute("ALTER TABLE revisions DISABLE TRIGGER ALL")
        conn.execute("UPDATE revisions SET action = %s WHERE request_id = %s", (body, request_id))
        conn.execute("ALTER TABLE revisions ENABLE TRIGGER ALL")


def test_a_plain_value_in_place_of_a_sealed_one_is_refused_and_named(site: Site, database: Database) -> None:
    _, [good, bad] = site.a_waiting_run(asking(), asking(call_id="c2"))
    with ledger.transaction(site.gateway) as conn:
        row = conn.execute("SELECT action FROM revisions WHERE request_id = %s", (good,)).fetchone()
    assert row is not None
    plain = vault.open_sealed(row[0], ("revisions.action", good, 1))
    replace_action(database, bad, b"\x00" + plain)

    answer = site.client.get(f"/v1{page_of(bad)}", headers=site.key("requests:read"))

    assert answer.status_code == 409
    assert f"revisions.action of {bad}" in answer.json()["detail"]
    assert "is not encrypted" in answer.json()["detail"]


@pytest.mark.parametrize("how", ["plain", "moved", "changed", "lost key"])
def test_a_value_that_cannot_be_read_is_said_and_the_others_are_listed(
    site: Site, database: Database, how: str
) -> None:
    run_id, [good, bad] = site.a_waiting_run(
        asking(arguments={"path": "/good", "content": "x"}),
        asking(call_id="c2", arguments={"path": "/bad", "content": "x"}),
    )
    with ledger.transaction(site.gateway) as conn:
        stored = dict(conn.execute("SELECT request_id, action FROM revisions").fetchall())
    vault.use(NEW)
    other = vault.seal(b"{}", ("revisions.action", bad, 1))
    vault.use(VAULT_KEYS)
    body = {
        "plain": b"\x00{}",
        "moved": stored[good],
        "changed": stored[bad][:-1] + bytes([stored[bad][-1] ^ 1]),
        "lost key": other,
    }[how]
    replace_action(database, bad, body)
    browser = Browser(site)
    browser.sign_in(site.ana)
    headers = site.key("requests:read", "runs:read")

    listed = site.client.get("/v1/requests", headers=headers)
    pages = {path: browser.get(path) for path in ("/", f"/runs/{ids.show('run', run_id)}", page_of(good), "/groups")}
    alone = site.client.get(f"/v1{page_of(bad)}", headers=headers)
    voted = site.client.post(
        f"/v1{page_of(bad)}/votes",
        json={"verdict": "approve", "revision": 1, "digest": listed.json()["items"][1]["digest"]},
        headers=site.token(site.ana),
    )

    assert listed.status_code == 200, listed.text
    first, second = listed.json()["items"]
    assert first["arguments"] == {"path": "/good", "content": "x"}
    assert list(second["arguments"]) == ["cannot be read"]
    assert {path: page.status_code for path, page in pages.items()} == dict.fromkeys(pages, 200)
    inbox = Words(pages["/"].text).text
    assert "/good" in inbox
    assert "cannot be read" in inbox
    assert alone.status_code == voted.status_code == (503 if how == "lost key" else 409)
    assert site.vote(good, site.token(site.ana)).status_code == 200


def test_a_run_that_cannot_be_read_is_said_and_the_others_are_listed(site: Site, database: Database) -> None:
    good, bad = site.a_run(), site.a_run()
    with ledger.once(database.owner, name="test") as conn:
        conn.execute("UPDATE runs SET prompt = '\\x00616263' WHERE id = %s", (bad,))
        conn.execute("UPDATE runs SET metadata = (SELECT metadata FROM runs WHERE id = %s) WHERE id = %s", (good, bad))
    browser = Browser(site)
    browser.sign_in(site.ana)

    listed = site.client.get("/v1/runs", headers=site.key("runs:read"))
    pages = [browser.get(path) for path in ("/runs", f"/runs/{ids.show('run', bad)}")]

    assert listed.status_code == 200, listed.text
    found = {item["id"]: item for item in listed.json()["items"]}
    assert found[ids.show("run", good)]["prompt"] == "Do it."
    assert found[ids.show("run", bad)]["prompt"].startswith("cannot be read: runs.prompt of")
    assert list(found[ids.show("run", bad)]["metadata"]) == ["cannot be read"]
    assert [page.status_code for page in pages] == [200, 200]
    assert "cannot be read" in pages[0].text


def test_a_run_that_cannot_be_read_is_stopped_all_the_same(site: Site, database: Database) -> None:
    first, second = (f"/runs/{ids.show('run', site.a_run())}" for _ in range(2))
    with ledger.once(database.owner, name="test") as conn:
        conn.execute("UPDATE runs SET prompt = '\\x00616263', error = '\\x00616263'")
    browser = Browser(site)
    browser.sign_in(site.ana)
    [form] = [form for form in forms_in(browser.get(first).text) if form.action == f"{first}/cancel"]

    clicked = browser.send(form)
    called = site.client.post(f"/v1{second}/cancel", json={}, headers=site.key("runs:cancel"))

    assert [clicked.status_code, called.status_code] == [303, 200], called.text
    assert called.json()["error"].startswith("cannot be read: runs.error of")
    listed = site.client.get("/v1/runs", headers=site.key("runs:read")).json()["items"]
    assert {run["status"] for run in listed} == {"cancelled"}


def test_the_word_plain_lets_what_was_stored_without_a_key_open_until_it_is_given_up(
    site: Site, owner_pool: ledger.Pool
) -> None:
    vault.use("")
    before = site.a_run()
    vault.use(f"{VAULT_KEYS},plain")

    def read() -> int:
        return site.client.get(f"/v1/runs/{ids.show('run', before)}", headers=site.key("runs:read")).status_code

    assert read() == 200
    vault.use(VAULT_KEYS)
    assert read() == 409
    with ledger.transaction(owner_pool) as conn:
        _, done, refused = resealing.step(conn, resealing.SEALED[0], "v1", None)
    assert (done, len(refused)) == (0, 1)
    assert refused[0].startswith(f"runs.prompt: runs.prompt of {before} is not encrypted")
    vault.use(f"{VAULT_KEYS},plain")
    with ledger.transaction(owner_pool) as conn:
        for column in resealing.SEALED:
            _, _, wrong = resealing.step(conn, column, "v1", None)
            assert wrong == []
    vault.use(VAULT_KEYS)
    assert read() == 200


def a_stored_row(column: resealing.Column) -> vault.Row:
    return column.row([f"key {number}" for number in range(len(column.by or column.key))])


@pytest.mark.parametrize("column", resealing.SEALED, ids=lambda column: column.title)
def test_what_is_sealed_for_one_column_or_row_opens_in_no_other(column: resealing.Column) -> None:
    """Every sealed column there is, against every other one and against another row of its own."""
    own = a_stored_row(column)
    stored = vault.seal(json.dumps({"secret": 1}).encode(), own)

    others = {a_stored_row(other) for other in resealing.SEALED} - {own}
    name, *key = own
    others |= {(name, *key[:place], f"{key[place]}x", *key[place + 1 :]) for place in range(len(key))}
    for row in others:
        with pytest.raises(NotGenuine):
            vault.open_sealed(stored, row)
    assert vault.open_sealed(stored, own)


def test_a_key_is_changed_under_load_and_nothing_is_lost(site: Site, owner_pool: ledger.Pool) -> None:
    settled: list[tuple[RunId, RequestId]] = []
    earlier = [site.a_waiting_run() for _ in range(3)]
    vault.use(f"{NEW},{VAULT_KEYS}")
    voter, over = site.token(site.ana), threading.Event()

    def work() -> None:
        for _ in range(6):
            run_id, [request_id] = site.a_waiting_run()
            assert site.vote(request_id, voter).status_code == 200
            site.finish(run_id)
            settled.append((run_id, request_id))

    def reseal() -> int:
        done = 0
        while True:
            last = over.is_set()
            for column in resealing.SEALED:
                after, more = None, True
                while more:
                    with ledger.transaction(owner_pool) as conn:
                        after, part, refused = resealing.step(conn, column, "v2", after, limit=3)
                    assert refused == []
                    done, more = done + part, after is not None
            if last:
                return done

    with ThreadPoolExecutor(4) as pool:
        moving = pool.submit(reseal)
        working = [pool.submit(work) for _ in range(3)]
        for one in working:
            one.result()
        over.set()
        done = moving.result()

    assert done >= 3 * len(earlier)  # prompt, metadata and action of each at least
    with ledger.transaction(owner_pool) as conn:
        assert resealing.under(conn, "v1") == {}
    vault.use(NEW)
    runs = {
        item["id"]: item
        for item in site.client.get("/v1/runs?limit=100", headers=site.key("runs:read")).json()["items"]
    }
    assert len(settled) == 18
    assert {runs[ids.show("run", run_id)]["output"] for run_id, _ in settled} == {"done"}
    for _, [request_id] in earlier:
        assert site.vote(request_id, voter).status_code == 200
    headers = site.token(site.a_person("kim@example.org", "admin"))
    rule = '[[rule]]\nname = "none"\ntool = "write_file"\nthen = "deny"\n'
    replayed = site.client.post("/v1/policy/replay", json={"policy": rule, "since": "1d"}, headers=headers).json()
    assert (replayed["examined"], replayed["unreadable"]) == (21, 0)
    browser = Browser(site)
    browser.sign_in(site.ben)
    assert "hello" in browser.get(page_of(settled[0][1])).text
