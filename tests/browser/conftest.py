"""The pages in a real browser: Debian's Chromium, driven by Playwright, on a gateway that listens on loopback."""

from __future__ import annotations

import os
import shutil
import threading
import time
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass, field

import pytest
import uvicorn
from playwright.sync_api import Browser as Chromium
from playwright.sync_api import BrowserContext, Page, sync_playwright
from pydantic import SecretStr
from starlette.testclient import TestClient

from banksman import ids, ledger, signing
from banksman.embedded import ports
from banksman.ledger import audit
from banksman.records import Event, Person
from banksman.settings import GatewaySettings
from banksman_gateway import app, sessions
from tests.conftest import VAULT_KEYS, Database
from tests.gateway.scenes import Site

FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
WIDE, PHONE = (1400, 900), (360, 740)


# For one file: Playwright keeps an event loop and a greenlet in this thread, in which other files' tests would run.
@pytest.fixture(scope="module")
def chromium() -> Iterator[Chromium]:
    path = shutil.which("chromium")
    if path is None:
        why = "Debian's Chromium is not installed: apt-get install chromium"
        if os.environ.get("CI"):
            pytest.fail(why)
        pytest.skip(why)
    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=path, args=FLAGS)
        yield browser
        browser.close()


@dataclass(slots=True)
class Place:
    """A gateway that a browser reaches, and the factories of its rows."""

    url: str
    site: Site
    contexts: list[BrowserContext] = field(default_factory=list[BrowserContext])
    complaints: list[str] = field(default_factory=list[str])
    """What browsers complained about: errors of scripts, and what the content security policy stopped."""


@pytest.fixture
def dwell() -> float:
    """Seconds before anybody agrees at tier high."""
    return 0


@pytest.fixture
def place(
    dwell: float,
    database: Database,
    broker: str,
    link_key: str,
    gateway_pool: ledger.Pool,
    worker_pool: ledger.Pool,
    reviewers: tuple[Person, Person],
) -> Generator[Place]:
    port = ports.free()
    settings = GatewaySettings(
        database_url=SecretStr(database.gateway),
        broker_url=SecretStr(broker),
        public_url=f"http://localhost:{port}",
        signing_key=SecretStr("k1:" + signing.base64url(bytes([1] * 32))),
        link_keys=SecretStr(link_key),
        vault_keys=SecretStr(VAULT_KEYS),
        notifier_token=SecretStr("the notifier's own token"),
        port=port,
        sweep_seconds=3600,
        redispatch_seconds=30,
        membership_seconds=0,
        dwell_seconds=dwell,
        sealer_database_url=SecretStr(database.sealer),
        sealing_key=SecretStr("s1:" + signing.base64url(bytes([5] * 32))),
        seal_seconds=3600,
        log_level="error",
    )
    made = app.create(settings)
    server = uvicorn.Server(uvicorn.Config(made, host=ports.LOOPBACK, port=port, log_level="error", lifespan="on"))
    thread = threading.Thread(target=server.run)
    thread.start()
    deadline = time.monotonic() + 20
    while not server.started:
        assert time.monotonic() < deadline, "the gateway did not start"
        time.sleep(0.02)
    # Not entered: the server runs the application's lifespan, the client only makes rows through its routes.
    found = Site(TestClient(made, base_url=settings.public_url), gateway_pool, worker_pool, *reviewers)
    found.announce("plain")
    here = Place(settings.public_url, found)
    try:
        yield here
    finally:
        for context in here.contexts:
            context.close()
        server.should_exit = True
        server.force_exit = True
        thread.join(10)
    assert not here.complaints


OpenAs = Callable[..., Page]


@pytest.fixture
def open_as(chromium: Chromium, place: Place) -> OpenAs:
    """A page of somebody who is signed in; its complaints fail the test."""

    def open_page(
        person: Person, path: str = "/", *, size: tuple[int, int] = WIDE, script: bool = True, dark: bool = False
    ) -> Page:
        with ledger.transaction(place.site.gateway) as conn:
            cookie = sessions.start(conn, person.id)
            audit.append(conn, Event(ids.show("per", person.id), "session.started"))
        context = chromium.new_context(
            base_url=place.url,
            viewport={"width": size[0], "height": size[1]},
            java_script_enabled=script,
            color_scheme="dark" if dark else "light",
            reduced_motion="reduce",
        )
        context.set_default_timeout(10_000)
        context.add_cookies([{"name": "session", "value": cookie, "url": place.url}])
        place.contexts.append(context)
        page = context.new_page()
        page.on("pageerror", lambda error: place.complaints.append(str(error)))
        page.on(
            "console",
            lambda said: place.complaints.append(said.text) if "Content Security Policy" in said.text else None,
        )
        page.goto(path)
        return page

    return open_page
