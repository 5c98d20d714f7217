"""What all examples share: one database, the gateway's parts, a dispatcher."""

from __future__ import annotations

from collections.abc import Iterator

import psycopg
import pytest

from banksman import ledger
from banksman.ledger import agents
from banksman.settings import GatewaySettings
from banksman.signing import Verifier
from banksman_gateway import app
from banksman_worker.dispatch import Dispatcher
from tests.conftest import Database
from tests.gateway.conftest import gateway_settings
from tests.model.machine import HOUR, MOST_ATTEMPTS
from tests.model.promises import World

__all__ = ["gateway_settings"]


@pytest.fixture
def world(
    database: Database, gateway_settings: GatewaySettings, worker_pool: ledger.Pool, verifier: Verifier
) -> Iterator[World]:
    parts = app.build(gateway_settings)
    dispatcher = Dispatcher(
        worker_pool, parts.wire, interval=HOUR.total_seconds(), window=10_000, redispatch=HOUR,
        max_attempts=MOST_ATTEMPTS,
    )  # fmt: skip
    with ledger.transaction(worker_pool) as conn:
        agents.announce(conn, {"plain": ("1", {})})
    with psycopg.connect(database.owner, autocommit=True) as owner:
        yield World(parts, worker_pool, owner, dispatcher, verifier)
    parts.wire.close()
    parts.pool.close()
    parts.probe.close()
