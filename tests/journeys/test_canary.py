"""The story of a secret: in a prompt, arguments, a file, results, reasons and remarks, and in nothing that leaks."""

from __future__ import annotations

import json
import secrets
import threading
from collections.abc import Generator
from contextlib import contextmanager
from datetime import timedelta
from typing import cast

import pytest
import redis

from banksman import ledger, tokens, vault
from banksman.errors import NotGenuine
from banksman.ledger import keys, resealing, staff
from tests.journeys.outsider import Outsider
from tests.journeys.stacks import Stack
from tests.notifier.receivers import Receiver, receiver, says


@contextmanager
def overheard(stack: Stack) -> Generator[list[bytes]]:
    """Every command that the broker is given meanwhile: what is queued, published and kept."""
    heard: list[bytes] = []
    with redis.Redis.from_url(str(stack.facts["broker_url"]), decode_responses=False) as owner:
        connection = owner.connection_pool.get_connection()
        connection.send_command("MONITOR")
        assert connection.read_response() == b"OK"

        def listen() -> None:
            try:
                while True:
                    heard.append(repr(cast("object", connection.read_response())).encode())
            except (redis.ConnectionError, OSError, ValueError):
                return

        thread = threading.Thread(target=listen, daemon=True)
        thread.start()
        yield heard
        connection.disconnect()
        thread.join(timeout=5)
        owner.close()


def stored(stack: Stack) -> str:
    """Every row of every table, as text; bytes are in hex."""
    tables = stack.query("SELECT tablename FROM pg_tables WHERE schemaname = 'public' ORDER BY 1")
    rows = [row[0] for (table,) in tables for row in stack.query(f'SELECT t::text FROM "{table}" AS t')]
    assert len(rows) > 50
    return "\n".join(rows)


def an_admin(stack: Stack) -> Outsider:
    minted = tokens.mint("tok")
    with ledger.once(stack.facts["database_url"], name="test") as conn:
        kim = staff.upsert(conn, "kim@example.org", name="Kim", roles=["admin"])
        keys.store(conn, minted, kind="tok", name="t", scopes=(), person=kim.id, lifetime=timedelta(hours=1))
    return stack.caller(minted.text)


def tell_me(ana: Outsider, there: Receiver, admin: Outsider) -> None:
    answer = ana.http.put(
        "/v1/me/preferences", json={"email": True, "apprise": [there.url.replace("http://", "json://")]}
    )
    assert answer.status_code == 200, answer.text
    made = admin.http.post("/v1/endpoints", json={"url": there.url})
    assert made.status_code == 200, made.text


def test_a_secret_is_found_in_nothing_that_others_read(calm: Stack) -> None:
    canary = f"canary-{secrets.token_hex(8)}"
    program, ana, admin = calm.program(), calm.reviewer(), an_admin(calm)
    with receiver(says(204)) as there, overheard(calm) as heard:
        tell_me(ana, there, admin)
        try:
            run = program.submit("keeper", canary, metadata={"note": canary})
            broken = program.submit("keeper", f"break {canary}")
            [request] = ana.asked(run["id"])
            calm.wait_for(lambda: calm.mail.about("log_in", to="ben@example.org"), what="the mail")
            ana.http.post(f"/v1/requests/{request['id']}/remarks", json={"text": f"Is it {canary}?"})
            ana.decide(request, "approve", reason=f"It is {canary}.")
            ended = program.ended(run["id"])
            [other] = ana.asked(broken["id"])
            ana.decide(other, "approve")
            failed = program.ended(broken["id"], "failed")
            calm.wait_for(lambda: len(there.posted) >= 4, what="webhooks and chats")
        finally:
            ana.http.put("/v1/me/preferences", json={"email": True, "apprise": []})
            for one in admin.http.get("/v1/endpoints").json()["items"]:
                admin.http.post(f"/v1/endpoints/{one['id']}/remove")
        metrics = program.http.get("/metrics").text

    # It was there: what ran had it, and who asked for the run is told it.
    assert canary in ended["output"]
    assert canary in failed["error"]
    assert program.files(run["id"])["/workspace/pin.txt"] == f"{canary}\n"
    # What shows it to reviewers covers it.
    assert canary not in str(request)
    assert "⟦secret: named by its author, " in request["rendered"]
    # And nothing else has it, on any way out or on any disk.
    posted = b"\n".join(one.body + str(one.headers).encode() + one.line.encode() for one in there.posted)
    rows = stored(calm)
    assert canary not in rows
    assert canary.encode().hex() not in rows
    assert canary.encode() not in posted
    assert heard
    assert all(canary.encode() not in one for one in heard)
    assert canary not in metrics
    assert canary not in calm.said()
    assert "A segment broke." in calm.said()
    files = [path for path in calm.data.rglob("*") if path.is_file()]
    assert any(path.suffix == "" and "base" in path.parts for path in files)  # PostgreSQL's own among them
    assert [path for path in files if canary.encode() in path.read_bytes()] == []


def test_every_value_that_a_stack_has_stored_opens_in_its_own_row_alone(calm: Stack) -> None:
    run = calm.program().submit("keeper", "a pin")
    [request] = calm.reviewer().asked(run["id"])
    calm.reviewer().decide(request, "approve", reason="Fine.")
    calm.program().ended(run["id"])
    vault.use(json.loads((calm.data / "secrets.json").read_text())["vault_keys"])

    seen: set[str] = set()
    for column in resealing.SEALED:
        by = ", ".join(column.by or column.key)
        rows = calm.query(
            f"SELECT {column.name}, {by} FROM {column.table} WHERE {column.name} IS NOT NULL"
            f" AND length({column.name}) > 0 LIMIT 20"
        )
        named = [(stored, column.row(key)) for stored, *key in rows]
        for place, (stored, own) in enumerate(named):
            assert stored[:1] == b"\x01", column.title
            vault.open_sealed(stored, own)
            seen.add(column.title)
            _, neighbour = named[place - 1]
            if neighbour != own:
                with pytest.raises(NotGenuine):
                    vault.open_sealed(stored, neighbour)
    most = {"runs.prompt", "runs.output", "snapshots.messages", "snapshots.state", "blobs.body", "requests.context"}
    assert most | {"revisions.action", "decisions.statement", "executions.result", "votes.reason"} <= seen
