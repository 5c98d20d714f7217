"""Makes the gateway: builds what its endpoints work with, mounts them, and wraps all of it in the envelope."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from anyio import to_thread
from fastapi import FastAPI

from banksman import address_guard, ledger, masks, standing_policy, vault
from banksman.links import LinkKeys
from banksman.settings import GatewaySettings
from banksman.signing import Signer, Verifier
from banksman.wire import Wire
from banksman_gateway import (
    agents,
    agents_page,
    audit,
    audit_page,
    away,
    away_page,
    batch_lines,
    batch_page,
    batch_results,
    batches,
    drafts,
    edit_page,
    endpoints,
    grants,
    grants_page,
    groups,
    health,
    hearing,
    html,
    insights,
    insights_page,
    internal,
    keys,
    link_page,
    looking,
    notices,
    pages,
    people,
    people_page,
    personal_tokens,
    policies,
    policy_page,
    problems,
    receipts,
    rehearsal,
    remarks,
    request_page,
    requests,
    reveal,
    run_forms,
    run_page,
    runs,
    sign_in,
    triage,
)
from banksman_gateway.envelope import Envelope
from banksman_gateway.parts import Parts
from banksman_gateway.pulse import Pulse
from banksman_gateway.seal import Seal
from banksman_gateway.secrecy import Secrecy
from banksman_gateway.sweep import Sweep

POOL_SIZE = 16
"""Connections, and threads for endpoints: one more thread than connections would only wait for one."""


def create(settings: GatewaySettings) -> FastAPI:
    """The application; it connects when it starts and lets go when it stops."""
    here = build(settings)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncGenerator[None, None]:
        to_thread.current_default_thread_limiter().total_tokens = POOL_SIZE
        sweep = Sweep(here)
        here.pulse.start()
        sweep.start()
        here.seal.start()
        try:
            yield
        finally:
            sweep.close()
            here.seal.close()
            here.pulse.close()
            here.wire.close()
            here.pool.close()
            here.probe.close()

    app = FastAPI(
        title="Banksman",
        summary="Agents stop where a person must say yes, and then do exactly what was approved, once.",
        version="1",
        openapi_url="/v1/openapi.json",
        docs_url=None,
        redoc_url=None,
        lifespan=lifespan,
        redirect_slashes=False,
        telemetry={"tracing": False, "metrics": False, "logs": False},
    )
    app.state.parts = here
    app.state.metrics = health.registry(here)
    api = (
        health,
        runs,
        batches,
        agents,
        requests,
        insights,
        policies,
        rehearsal,
        drafts,
        grants,
        personal_tokens,
        people,
        keys,
        hearing,
        notices,
        endpoints,
        looking,
        remarks,
        reveal,
        away,
        audit,
        internal,
    )
    shown = (
        html,
        triage,
        groups,
        pages,
        run_page,
        run_forms,
        batch_page,
        agents_page,
        policy_page,
        grants_page,
        people_page,
        edit_page,
        request_page,
        link_page,
        receipts,
        sign_in,
        away_page,
        audit_page,
        insights_page,
    )
    app.include_router(reveal.page)  # before the page of a request, which takes any other move
    for module in (*api, *shown):
        app.include_router(module.router)
    for router in (batch_lines.router, batch_results.router, hearing.page):
        app.include_router(router)
    problems.install(app, page=html.problem_page)
    app.add_middleware(Envelope, settings=settings)
    return app


def build(settings: GatewaySettings) -> Parts:
    """The parts of one process. A wrong key or URL stops the start-up here."""
    broker_url = settings.broker_url.get_secret_value()
    address_guard.allowed(settings.webhook_allow)
    vault.use(settings.vault_keys.get_secret_value())
    signer = Signer.read(settings.signing_key.get_secret_value())
    verifier = Verifier.read(settings.verify_keys or signer.public())
    verifier.allow(signer)
    link_keys = LinkKeys.read(settings.link_keys.get_secret_value())
    masks.use(settings.link_keys.get_secret_value())
    file_rules = standing_policy.of_file(settings.policy)
    url = settings.database_url.get_secret_value()
    pool = ledger.open_pool(url, size=POOL_SIZE, name="banksman-gateway")
    return Parts(
        settings=settings,
        pool=pool,
        seal=Seal(settings, pool),
        signer=signer,
        link_keys=link_keys,
        wire=Wire(broker_url, expires=settings.redispatch_seconds),
        pulse=Pulse(broker_url),
        verifier=verifier,
        file_rules=file_rules,
        secrecy=Secrecy(verifier, file_rules),
        probe=ledger.open_pool(url, size=1, name="banksman-gateway-probe"),
    )
