"""A gateway on a port of its own, and both clients behind one face."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Coroutine, Iterator
from contextlib import ExitStack
from typing import Any, Self, cast

import httpx
import pytest
import uvicorn
from pydantic import SecretStr
from starlette.testclient import TestClient

from banksman import ledger, signing
from banksman.client import AsyncClient, Client
from banksman.embedded import ports
from banksman.records import Person
from banksman.settings import GatewaySettings
from banksman_gateway import app, parts
from tests.conftest import VAULT_KEYS, Database
from tests.gateway.scenes import Site


@pytest.fixture
def served(database: Database, broker: str, link_key: str) -> Iterator[GatewaySettings]:
    """The gateway over real HTTP."""
    port = ports.free()
    settings = GatewaySettings(
        database_url=SecretStr(database.gateway),
        broker_url=SecretStr(broker),
        public_url=f"http://localhost:{port}",
        port=port,
        signing_key=SecretStr("k1:" + signing.base64url(bytes([1] * 32))),
        link_keys=SecretStr(link_key),
        vault_keys=SecretStr(VAULT_KEYS),
        notifier_token=SecretStr("the notifier's own token"),
        sweep_seconds=3600,
        redispatch_seconds=30,
        membership_seconds=3600,
        dwell_seconds=0,
        sealer_database_url=SecretStr(database.sealer),
        sealing_key=SecretStr("s1:" + signing.base64url(bytes([5] * 32))),
        seal_seconds=3600,
    )
    made = app.create(settings)
    config = uvicorn.Config(made, host="127.0.0.1", port=port, log_config=None, access_log=False)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        time.sleep(0.005)
    yield settings
    parts.of(made).pulse.end()
    server.should_exit = True
    thread.join()


@pytest.fixture
def site(
    served: GatewaySettings, gateway_pool: ledger.Pool, worker_pool: ledger.Pool, reviewers: tuple[Person, Person]
) -> Iterator[Site]:
    """A gateway that knows two reviewers and the agent `plain`."""
    with httpx.Client(base_url=served.public_url, trust_env=False) as http:
        found = Site(cast("TestClient", http), gateway_pool, worker_pool, *reviewers)
        found.announce("plain")
        yield found


class Blocking:
    """An `AsyncClient` whose methods are called from plain code."""

    def __init__(self, url: str, token: str) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._thread.start()
        self._client = AsyncClient(url, token)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._wait(self._client.close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def __getattr__(self, name: str) -> Callable[..., Any]:
        return lambda *args, **kwargs: self._wait(getattr(self._client, name)(*args, **kwargs))

    def events(self, run_id: str, **more: Any) -> list[Any]:
        async def gather() -> list[Any]:
            return [event async for event in self._client.events(run_id, **more)]

        return self._wait(gather())

    def batch_events(self, batch_id: str, **more: Any) -> list[Any]:
        async def gather() -> list[Any]:
            return [event async for event in self._client.batch_events(batch_id, **more)]

        return self._wait(gather())

    def _wait(self, awaitable: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(awaitable, self._loop).result(30)


Connect = Callable[[dict[str, str]], Any]


@pytest.fixture(params=["plain", "async"])
def connect(request: pytest.FixtureRequest, served: GatewaySettings) -> Iterator[Connect]:
    """Makes a client with the credential of these headers."""
    kind: type[Any] = Client if request.param == "plain" else Blocking
    with ExitStack() as stack:
        yield lambda headers: stack.enter_context(
            kind(served.public_url, headers["Authorization"].removeprefix("Bearer "))
        )
