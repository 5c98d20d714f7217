"""A gateway for each test, on a database and a broker of its own."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from pydantic import SecretStr
from starlette.testclient import TestClient

from banksman import ledger, signing
from banksman.records import Person
from banksman.settings import GatewaySettings
from banksman_gateway import app
from tests.conftest import VAULT_KEYS, Database
from tests.gateway.browser import Browser
from tests.gateway.scenes import NOTIFIER_TOKEN, Site


@pytest.fixture
def gateway_settings(database: Database, broker: str, link_key: str) -> GatewaySettings:
    """Settings of a gateway that never sweeps by itself."""
    return GatewaySettings(
        database_url=SecretStr(database.gateway),
        broker_url=SecretStr(broker),
        public_url="http://localhost:8420",
        signing_key=SecretStr("k1:" + signing.base64url(bytes([1] * 32))),
        link_keys=SecretStr(link_key),
        vault_keys=SecretStr(VAULT_KEYS),
        notifier_token=SecretStr(NOTIFIER_TOKEN),
        port=8420,
        sweep_seconds=3600,
        redispatch_seconds=30,
        membership_seconds=3600,
        dwell_seconds=0,
        sealer_database_url=SecretStr(database.sealer),
        sealing_key=SecretStr("s1:" + signing.base64url(bytes([5] * 32))),
        seal_seconds=3600,
        log_level="error",
    )


@pytest.fixture
def client(gateway_settings: GatewaySettings) -> Iterator[TestClient]:
    """The gateway, in this process."""
    with TestClient(app.create(gateway_settings), base_url="http://localhost:8420") as found:
        yield found


@pytest.fixture
def site(
    client: TestClient, gateway_pool: ledger.Pool, worker_pool: ledger.Pool, reviewers: tuple[Person, Person]
) -> Site:
    """A gateway that knows two reviewers and the agent `plain`."""
    found = Site(client, gateway_pool, worker_pool, *reviewers)
    found.announce("plain")
    return found


@pytest.fixture
def ana(site: Site) -> Browser:
    """Ana's browser, signed in."""
    browser = Browser(site)
    browser.sign_in(site.ana)
    return browser
