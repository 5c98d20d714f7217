"""The audit log over HTTP and on its page: auditors read everything and change nothing."""

from __future__ import annotations

import json
import socket
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr
from starlette.testclient import TestClient

from banksman import ids, ledger, logs, signing
from banksman.errors import ConfigurationError, NotGenuine
from banksman.ledger import migrate, roster
from banksman.sealing import anchors, heads, proof, tree
from banksman.settings import GatewaySettings
from banksman.signing import Signer, Verifier
from banksman.states import Tier
from banksman_gateway import app, key_changes, parts
from banksman_gateway.seal import Seal
from tests.conftest import PASSWORDS, Database
from tests.gateway.browser import Browser, forms_in, page_of
from tests.gateway.scenes import Site, asking
from tests.sealing import outsider
from tests.sealing.logs import as_attacker, roll_back

VERIFIER = Verifier.read(Signer("s1", bytes([5] * 32)).public())


def lines(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


@pytest.fixture
def auditor(site: Site) -> dict[str, str]:
    return site.token(site.a_person("aud@example.org", "auditor"), "audit:read")


def test_the_log_is_read_in_pages_and_each_line_is_what_was_hashed(site: Site, auditor: dict[str, str]) -> None:
    site.a_waiting_run()
    site.a_waiting_run()
    site.parts.seal.turn()

    seen: list[dict[str, Any]] = []
    hashes: list[bytes] = []
    wanted: dict[str, Any] = {"limit": 2}
    while True:
        answer = site.client.get("/v1/audit", params=wanted, headers=auditor)
        assert answer.status_code == 200, answer.text
        assert answer.headers["content-type"] == "application/x-ndjson"
        seen += lines(answer.text)
        hashes += [tree.leaf_hash(line) for line in answer.content.splitlines()]
        if "next-cursor" not in answer.headers:
            break
        wanted["cursor"] = answer.headers["next-cursor"]

    frontier = tree.Frontier()
    frontier.extend(hashes)
    head = site.parts.seal.head
    assert head is not None
    assert frontier.root() == head.root
    assert head.size == len(seen)
    assert [event["id"] for event in seen] == sorted(event["id"] for event in seen)


def test_filters_leave_out_everything_else(site: Site, auditor: dict[str, str]) -> None:
    first = site.a_run(site.ana)
    site.a_run(site.ben)
    boss = ids.show("per", site.ana.id)

    def found(**wanted: str) -> list[dict[str, Any]]:
        answer = site.client.get("/v1/audit", params=wanted, headers=auditor)
        assert answer.status_code == 200, answer.text
        return lines(answer.text)

    assert {event["run_id"] for event in found(run_id=ids.show("run", first))} == {ids.show("run", first)}
    assert {event["actor"] for event in found(actor=boss)} == {boss}
    assert {event["action"] for event in found(action="run.submitted")} == {"run.submitted"}
    assert found(since="2999-01-01T00:00:00Z") == found(until="2000-01-01T00:00:00Z") == []
    assert found(request_id="req_" + "0" * 32) == []
    assert site.client.get("/v1/audit", params={"cursor": "x"}, headers=auditor).status_code == 422


def test_heads_and_proofs_hold_with_the_public_key_alone(site: Site, auditor: dict[str, str]) -> None:
    _, [request_id] = site.a_waiting_run(asking(tier=Tier.LOW))
    site.parts.seal.turn()
    assert site.vote(request_id, site.token(site.ana)).status_code == 200
    site.parts.seal.turn()

    page = site.client.get("/v1/audit/heads", headers=auditor).json()["items"]
    old, new = (heads.verify(VERIFIER, heads.from_json(item)) for item in page)
    proven = site.client.get(f"/v1/audit/prove/{ids.show('req', request_id)}", headers=auditor).json()
    grown = site.client.get(
        "/v1/audit/consistency", params={"first": old.size, "second": new.size}, headers=auditor
    ).json()

    assert proof.check(proven, VERIFIER).events >= 1
    assert [item["event"]["action"] for item in proven["events"]][-1] == "request.approved"
    path = [bytes.fromhex(step) for step in grown["path"]]
    assert outsider.extends(old.size, new.size, old.root, new.root, path)
    assert (
        site.client.get(
            "/v1/audit/consistency", params={"first": 1, "second": new.size + 1}, headers=auditor
        ).status_code
        == 404
    )


def test_the_votes_answer_and_the_receipt_name_the_newest_head(site: Site) -> None:
    _, [request_id] = site.a_waiting_run(asking(tier=Tier.LOW))
    site.parts.seal.turn()
    head = site.parts.seal.head
    assert head is not None

    voted = site.vote(request_id, site.token(site.ana)).json()
    receipt = site.client.get("/v1/me/receipt", headers=site.token(site.ana)).json()
    browser = Browser(site)
    browser.sign_in(site.ana)

    for said in (voted, receipt):
        assert (said["audit_head"]["size"], said["audit_head"]["root"]) == (head.size, head.root.hex())
    assert head.root.hex() in browser.get(page_of(request_id)).text


@pytest.mark.parametrize("path", ["", "/heads", "/consistency?first=1&second=1", "/prove/req_" + "0" * 32])
def test_only_auditors_administrators_and_keys_with_the_scope_read_it(
    path: str, site: Site, auditor: dict[str, str]
) -> None:
    site.a_run()
    site.parts.seal.turn()

    def status(headers: dict[str, str]) -> int:
        return site.client.get(f"/v1/audit{path}", headers=headers).status_code

    expected = 404 if "prove" in path else 200
    assert status(auditor) == expected
    assert status(site.token(site.a_person("boss@example.org", "admin"))) == expected
    assert status(site.key("audit:read")) == expected
    assert status(site.token(site.ana)) == 403
    assert status(site.token(site.a_person("op@example.org", "operator"))) == 403
    assert status(site.key("runs:read", "requests:read")) == 403
    assert status({}) == 401


def test_an_auditor_opens_every_page_that_reads_and_finds_no_form_that_writes(site: Site) -> None:
    run_id, [request_id] = site.a_waiting_run(asking(tier=Tier.LOW))
    site.parts.seal.turn()
    browser = Browser(site)
    browser.sign_in(site.a_person("aud@example.org", "auditor"))
    pages = [
        *("/", "/runs", f"/runs/{ids.show('run', run_id)}", page_of(request_id), "/agents", "/policy", "/audit"),
        *("/people", f"/people/{ids.show('per', site.ana.id)}", "/keys"),
    ]

    for path in pages:
        page = browser.get(path)
        assert page.status_code == 200, path
        writing = {form.action for form in forms_in(page.text) if form.fields.get("form")} - {"/sign-out"}
        assert writing == set(), path
    with ledger.transaction(site.gateway) as conn:
        before = conn.execute("SELECT count(*) FROM audit_events").fetchone()
    for path, fields in (
        ("/people", {"email": "x@example.org", "name": "x", "role-admin": "yes"}),
        ("/keys", {"name": "x", "scope-runs:submit": "yes"}),
        ("/agents/plain/pause", {}),
        (f"/runs/{ids.show('run', run_id)}/cancel", {}),
        (
            f"{page_of(request_id)}/vote",
            {"verdict": "approve", "revision": "1", "digest": site.request(request_id)["digest"]},
        ),
    ):
        form = forms_in(browser.get("/account").text)[-1]
        answer = browser.http.post(
            path, data={"form": form.fields["form"], **fields}, headers={"Sec-Fetch-Site": "same-origin"}
        )
        assert answer.status_code in (403, 404, 409, 422), (path, answer.status_code)
    with ledger.transaction(site.gateway) as conn:
        assert conn.execute("SELECT count(*) FROM audit_events").fetchone() == before


def test_the_page_shows_who_did_what_and_how_far_it_is_sealed(site: Site) -> None:
    run_id = site.a_run(site.ana)
    browser = Browser(site)
    browser.sign_in(site.a_person("aud@example.org", "auditor"))

    unsealed = browser.get("/audit").text
    site.parts.seal.turn()
    sealed = browser.get("/audit").text
    narrowed = browser.get(f"/audit?actor=ana@example.org&action=run.submitted&run={ids.show('run', run_id)}").text
    nothing = browser.get("/audit?since=2999-01-01").text

    head = site.parts.seal.head
    assert head is not None
    assert "Nothing has been sealed yet" in unsealed
    assert head.root.hex() in sealed
    assert "run.submitted" in narrowed
    assert "session.started</td>" not in narrowed
    assert "Nothing of that kind happened." in nothing
    assert browser.get("/audit?since=yesterday").status_code == 422
    other = Browser(site)
    other.sign_in(site.ana)
    assert other.get("/audit").status_code == 403
    assert "/audit" not in other.get("/").text


def test_the_page_finds_what_somebody_did_by_their_address_however_it_is_written_and_after_they_are_gone(
    site: Site,
) -> None:
    site.a_run(site.ana)
    browser = Browser(site)
    browser.sign_in(site.a_person("aud@example.org", "auditor"))
    loud = browser.get("/audit?actor=ANA@Example.org").text
    with ledger.transaction(site.gateway) as conn:
        roster.remove(conn, "owner", site.ana.id)

    gone = browser.get("/audit?actor=ana@example.org").text

    for page in (loud, gone):
        assert "Nothing of that kind happened." not in page
        assert "run.submitted" in page
        assert "ana@example.org" in page


def test_every_head_gets_into_the_anchor_and_a_rolled_back_one_is_noticed(
    site: Site, gateway_settings: GatewaySettings, tmp_path: Path, database: Database
) -> None:
    anchor = tmp_path / "heads.jsonl"
    anchored = Seal(gateway_settings.model_copy(update={"audit_anchor": str(anchor)}), site.parts.pool)
    try:
        for _ in range(2):
            site.a_run()
            site.parts.seal.turn()
        anchored.turn()
        site.a_run()
        anchored.turn()
        anchored.turn()
        with as_attacker(database.owner) as conn:
            roll_back(conn, heads=2)

        with pytest.raises(ConfigurationError, match="rolled back"):
            anchored.turn()
    finally:
        anchored.close()
    assert [heads.verify(VERIFIER, signed).number for signed in anchors.read(anchor)] == [1, 2, 3]
    assert anchor.stat().st_mode & 0o777 == 0o640


def test_heads_that_go_back_are_not_anchored_again_and_again(
    site: Site, gateway_settings: GatewaySettings, tmp_path: Path, database: Database
) -> None:
    anchor = tmp_path / "heads.jsonl"
    keyless = {"audit_anchor": str(anchor), "sealing_key": None, "sealer_database_url": None}
    anchored = Seal(gateway_settings.model_copy(update=keyless), site.parts.pool)
    try:
        site.a_run()
        site.parts.seal.turn()
        anchored.turn()
        site.a_run()
        site.parts.seal.turn()
        with as_attacker(database.owner) as conn:
            conn.execute(
                "UPDATE audit_heads SET (statement, signature) = (first.statement, first.signature)"
                " FROM audit_heads AS first WHERE first.number = 1 AND audit_heads.number = 2"
            )

        with pytest.raises(NotGenuine, match="Head 1 of the audit log stands after head 1"):
            anchored.turn()
    finally:
        anchored.close()
    assert [heads.verify(VERIFIER, signed).number for signed in anchors.read(anchor)] == [1]


def test_other_keys_are_told_once_and_no_secret_is(site: Site, gateway_settings: GatewaySettings) -> None:
    def told() -> list[Any]:
        with ledger.transaction(site.gateway) as conn:
            rows = conn.execute("SELECT body FROM audit_events WHERE action = 'keys.changed' ORDER BY id").fetchall()
        return [row[0] for row in rows]

    assert [key_changes.tell(site.parts), key_changes.tell(site.parts)] == [True, False]
    both = f"k2:current:{signing.base64url(bytes(32))},{Signer('k1', bytes([1] * 32)).public()}"
    rotated = replace(site.parts, verifier=Verifier.read(both))
    assert [key_changes.tell(rotated), key_changes.tell(rotated)] == [True, False]

    before, after = told()
    assert list(before["signing"]) == ["k1"]
    assert set(after["signing"]) == {"k1", "k2"}
    assert (before["sealing"].keys(), before["link"], before["vault"]) == ({"s1"}, ["k1"], ["v1"])
    for secret in (gateway_settings.link_keys, gateway_settings.vault_keys, gateway_settings.signing_key):
        assert secret.get_secret_value().partition(":")[2] not in json.dumps([before, after])


def test_a_migration_is_told_where_there_was_a_log_before(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    known = migrate._files()  # pyright: ignore[reportPrivateUsage]
    monkeypatch.setattr(migrate, "_files", lambda: [*known, (9999, "9999_next.sql", b"SELECT 1")])

    migrate.migrate(database.owner, passwords=PASSWORDS)

    with ledger.once(database.owner, name="test") as conn:
        rows = conn.execute("SELECT action, body FROM audit_events").fetchall()
    assert rows == [("schema.migrated", {"applied": ["9999_next.sql"]})]


def test_a_syslog_gets_each_new_head_and_not_all_of_them_again_after_a_restart(
    site: Site, gateway_settings: GatewaySettings
) -> None:
    def sealed() -> None:
        site.a_run()
        site.parts.seal.turn()

    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind(("127.0.0.1", 0))
        server.settimeout(30)
        settings = gateway_settings.model_copy(
            update={"audit_anchor": f"syslog://127.0.0.1:{server.getsockname()[1]}", "sealing_key": None}
            | {"sealer_database_url": None}
        )
        heard: list[list[int]] = []
        for _ in range(2):
            sealed()
            sealed()
            anchored = Seal(settings, site.parts.pool)
            try:
                anchored.turn()
                sealed()
                anchored.turn()
                anchored.turn()
            finally:
                anchored.close()
            lines = [server.recv(65536).decode() for _ in range(2)]
            heard.append([heads.read(heads.from_json(json.loads(line[line.index("{") :]))).number for line in lines])

    assert heard == [[2, 3], [5, 6]]


def test_a_gateway_without_the_key_seals_nothing_and_says_so_once(
    gateway_settings: GatewaySettings, capsys: pytest.CaptureFixture[str]
) -> None:
    keyless = gateway_settings.model_copy(update={"sealing_key": None, "sealer_database_url": None})
    logs.configure("gateway", level="info")
    try:
        with TestClient(app.create(keyless), base_url="http://localhost:8420") as client:
            here = parts.of(client.app)  # pyright: ignore[reportArgumentType]
            here.seal.turn()
            here.seal.turn()
    finally:
        logs.configure("test")

    assert here.seal.head is None
    assert capsys.readouterr().err.count("does not seal") + capsys.readouterr().out.count("does not seal") <= 1
    with pytest.raises(ConfigurationError, match="both"):
        app.create(gateway_settings.model_copy(update={"sealing_key": None}))
    with pytest.raises(ConfigurationError, match="BANKSMAN_SEALING_KEY"):
        app.create(gateway_settings.model_copy(update={"sealing_key": SecretStr("x")}))
