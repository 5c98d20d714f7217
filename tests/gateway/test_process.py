"""The gateway as a process: event streams, an orderly stop, and servers that go away and come back."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import httpx
import psycopg
import pytest

from banksman import ids, ledger, signing, tokens
from banksman.embedded import ports, postgres, valkey
from banksman.errors import ConfigurationError
from banksman.ids import RunId
from banksman.ledger import audit, keys, migrate, staff
from banksman.records import Event
from banksman.settings import GatewaySettings
from banksman_gateway import app
from tests.conftest import PASSWORDS, VAULT_KEYS, Database
from tests.gateway.scenes import NOTIFIER_TOKEN, Site


@dataclass(frozen=True, slots=True)
class Process:
    """A gateway that runs on its own."""

    url: str
    popen: subprocess.Popen[bytes]
    log: Path

    def get(self, path: str, **headers: str) -> httpx.Response:
        return httpx.get(self.url + path, headers=headers, timeout=20)


@contextmanager
def a_gateway(tmp_path: Path, database_url: str, broker_url: str, link_key: str) -> Generator[Process]:
    port = ports.free()
    env = {
        "PATH": os.environ["PATH"],
        "BANKSMAN_DATABASE_URL": database_url,
        "BANKSMAN_BROKER_URL": broker_url,
        "BANKSMAN_PUBLIC_URL": f"http://localhost:{port}",
        "BANKSMAN_PORT": str(port),
        "BANKSMAN_SIGNING_KEY": "k1:" + signing.base64url(bytes([1] * 32)),
        "BANKSMAN_LINK_KEYS": link_key,
        "BANKSMAN_VAULT_KEYS": VAULT_KEYS,
        "BANKSMAN_NOTIFIER_TOKEN": NOTIFIER_TOKEN,
        "BANKSMAN_SWEEP_SECONDS": "0.2",
        "BANKSMAN_LOG_FORMAT": "json",
    }
    log = tmp_path / "gateway.log"
    with log.open("wb") as out:
        popen = subprocess.Popen([sys.executable, "-m", "banksman_gateway"], env=env, stderr=out)
    try:
        found = Process(f"http://localhost:{port}", popen, log)
        until(lambda: answers(found, "/healthz") == 200, "the gateway answers")
        yield found
    finally:
        popen.kill()
        popen.wait()


@pytest.fixture
def process(tmp_path: Path, database: Database, broker: str, link_key: str) -> Iterator[Process]:
    with a_gateway(tmp_path, database.gateway, broker, link_key) as found:
        yield found


def until(holds: Callable[[], bool], what: str, seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, f"never: {what}"
        time.sleep(0.02)


def answers(process: Process, path: str, **headers: str) -> int:
    try:
        return process.get(path, **headers).status_code
    except httpx.TransportError:
        return 0


def stream_of(lines: Iterator[str]) -> Iterator[tuple[str, str]]:
    """(id, event) of each server-sent event."""
    found = {"id": "", "event": ""}
    for line in lines:
        name, _, value = line.partition(": ")
        found[name] = value
        if name == "data":
            json.loads(value)
            yield found["id"], found["event"]


def test_a_run_is_watched_to_its_end_and_nothing_is_missed_in_between(process: Process, site: Site) -> None:
    run_id, [request_id] = site.a_waiting_run()
    headers = site.key("runs:read")
    url = f"{process.url}/v1/runs/{ids.show('run', run_id)}/events"

    with httpx.stream("GET", url, headers=headers, timeout=20) as answer:
        events = stream_of(answer.iter_lines())
        first_id, first = next(events)
        voted_at = time.monotonic()
        site.vote(request_id, site.token(site.ana))
        told = next(events)
        heard_after = time.monotonic() - voted_at
    with ledger.transaction(site.gateway) as conn:
        audit.append(conn, Event("gateway", "run.noted", run_id))
    site.finish(run_id)
    with httpx.stream("GET", url, headers=headers | {"Last-Event-ID": told[0]}, timeout=20) as rest:
        later = [event for _, event in stream_of(rest.iter_lines())]
    last = httpx.get(url, headers=headers | {"Last-Event-ID": _newest(site, run_id)}, timeout=20)

    assert answer.headers["content-type"].startswith("text/event-stream")
    assert (first, told[1]) == ("run.submitted", "request.approved")
    assert first_id != told[0]
    assert later == ["run.noted", "over"]
    assert last.status_code == 204
    assert heard_after < 5.0


def test_the_inbox_hears_of_requests_from_now_on(process: Process, site: Site) -> None:
    _, [before] = site.a_waiting_run()
    site.vote(before, site.token(site.ana))
    _, [after] = site.a_waiting_run()

    with httpx.stream(
        "GET", f"{process.url}/v1/requests/events", headers=site.key("requests:read"), timeout=20
    ) as answer:
        lines = answer.iter_lines()
        assert next(lines) == "retry: 1000"
        site.vote(after, site.token(site.ben), verdict="deny")
        _, told = next(stream_of(lines))

    assert told == "request.denied"


def test_a_watcher_whose_key_is_revoked_is_cut_off(process: Process, site: Site) -> None:
    run_id, [request_id] = site.a_waiting_run()
    headers = site.token(site.ben)
    url = f"{process.url}/v1/runs/{ids.show('run', run_id)}/events"

    with httpx.stream("GET", url, headers=headers, timeout=20) as answer:
        events = stream_of(answer.iter_lines())
        next(events)
        with ledger.transaction(site.gateway) as conn:
            staff.disable(conn, site.ben.id)
        site.vote(request_id, site.token(site.ana))
        rest = list(events)

    assert rest == []


def test_a_term_signal_ends_streams_and_the_process_at_once(process: Process, site: Site) -> None:
    run_id, _ = site.a_waiting_run()
    url = f"{process.url}/v1/runs/{ids.show('run', run_id)}/events"

    with httpx.stream("GET", url, headers=site.key("runs:read"), timeout=20) as answer:
        events = stream_of(answer.iter_lines())
        next(events)
        began = time.monotonic()
        process.popen.send_signal(signal.SIGTERM)
        assert list(events) == []
    code = process.popen.wait(timeout=10)

    assert code in (0, -signal.SIGTERM)
    assert time.monotonic() - began < 5
    assert "Traceback" not in process.log.read_text()


def test_no_secret_is_in_the_log(process: Process, site: Site) -> None:
    headers = site.key("runs:read")
    link = "/l/bk1.k1.AAAAAAAAAAAAAAAAAAAAAA.BBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBB"

    process.get(link)
    process.get("/v1/runs?cursor=canary", **headers)

    until(lambda: '"route": "/v1/runs"' in process.log.read_text(), "the call is logged")
    said = process.log.read_text()
    assert "bk1." not in said
    assert "bk_key_" not in said
    assert "canary" not in said


def test_the_gateway_outlives_postgresql_and_the_broker(tmp_path: Path, link_key: str) -> None:
    home, broker_home = tmp_path / "pg", tmp_path / "vk"
    pg_port, broker_port = ports.free(), ports.free()
    body = {"agent": "plain", "prompt": "x"}
    with postgres.running(home, durable=True, port=pg_port, password="owner") as server:
        migrate.migrate(server.url(), passwords=PASSWORDS)
        with psycopg.connect(server.url()) as conn:
            conn.execute("INSERT INTO agents (name, version, tools) VALUES ('plain', '1', '{}')")
        headers = _a_key(server.url())
        database_url = server.url(user="banksman_gateway", password=PASSWORDS["banksman_gateway"])
        broker_url = f"redis://owner:broker@127.0.0.1:{broker_port}/0"
        gateway = a_gateway(tmp_path, database_url, broker_url, link_key)
        process = gateway.__enter__()
        ready = process.get("/readyz")
        without_broker = httpx.post(f"{process.url}/v1/runs", json=body, headers=headers, timeout=20)
    try:
        until(lambda: answers(process, "/readyz") == 503, "unready without PostgreSQL")
        refused = httpx.post(f"{process.url}/v1/runs", json=body, headers=headers, timeout=20)
        alive = process.get("/healthz")
        with (
            postgres.running(home, durable=True, port=pg_port, password="owner"),
            valkey.running(broker_home, durable=False, port=broker_port, password="broker"),
        ):
            until(lambda: answers(process, "/readyz") == 200, "ready again")
            until(lambda: process.get("/readyz").json()["broker"] is True, "the broker is heard again")
            again = [httpx.post(f"{process.url}/v1/runs", json=body, headers=headers, timeout=20) for _ in range(5)]
    finally:
        gateway.__exit__(None, None, None)

    assert (ready.status_code, ready.json()["broker"]) == (200, False)
    assert without_broker.status_code == 201
    assert (refused.status_code, alive.status_code) == (503, 200)
    assert refused.headers["retry-after"] == "2"
    assert refused.json()["type"] == "urn:banksman:problem:unavailable"
    assert [answer.status_code for answer in again] == [201] * 5


def test_a_missing_setting_stops_the_start_with_its_name() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "banksman_gateway"], env={"PATH": os.environ["PATH"]}, capture_output=True, text=True
    )

    assert done.returncode == 1
    assert "BANKSMAN_SIGNING_KEY: is missing." in done.stderr
    assert "Traceback" not in done.stderr


def test_a_signing_key_that_is_revoked_stops_the_start(gateway_settings: GatewaySettings) -> None:
    own = signing.Signer.read(gateway_settings.signing_key.get_secret_value())
    revoked = gateway_settings.model_copy(update={"verify_keys": own.public().replace("current", "revoked")})

    with pytest.raises(ConfigurationError, match="calls revoked"):
        app.create(revoked)


def _newest(site: Site, run_id: RunId) -> str:
    with ledger.transaction(site.gateway) as conn:
        cursor = audit.of_run(conn, run_id)[-1].cursor
    assert cursor is not None
    return f"{cursor[0]}-{cursor[1]}"


def _a_key(owner_url: str) -> dict[str, str]:
    minted = tokens.mint("key")
    pool = ledger.open_pool(owner_url, size=1, name="test")
    with ledger.transaction(pool) as conn:
        keys.store(
            conn, minted, kind="key", name="ci", scopes=["runs:submit"], person=None,
            lifetime=timedelta(days=1),
        )  # fmt: skip
    pool.close()
    return {"Authorization": f"Bearer {minted.text}"}
