"""An approved call starts whenever the last of its siblings is settled, however often that one's deadline moved on."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta

import psycopg
import pytest

from banksman import ledger
from banksman.ledger import audit, silence
from banksman.settings import GatewaySettings
from banksman.states import RunStatus
from banksman_gateway import app, decide
from banksman_gateway import silence as sweep
from banksman_gateway.parts import Parts
from tests.conftest import Database
from tests.gateway.conftest import gateway_settings
from tests.worker.conftest import Site, SiteMaker
from tests.worker.test_segment import a_site

__all__ = ["gateway_settings"]


@pytest.fixture
def gateway(gateway_settings: GatewaySettings) -> Iterator[Parts]:
    parts = app.build(gateway_settings)
    yield parts
    parts.wire.close()
    parts.pool.close()
    parts.probe.close()


def decided_long_ago(site: SiteMaker, monkeypatch: pytest.MonkeyPatch) -> Site:
    """A worker whose gateway's approvals have run out by the time they are given."""
    monkeypatch.setattr(decide, "START_GRACE", timedelta(days=-30))
    return a_site(site, ("pay", {"amount": 5}), ("pay", {"amount": 6}))


def test_a_call_whose_time_to_start_is_over_is_asked_again(site: SiteMaker, monkeypatch: pytest.MonkeyPatch) -> None:
    here = decided_long_ago(site, monkeypatch)
    run_id, [first, second] = here.waiting("payer")

    here.vote(first, "approve")
    here.vote(second, "deny")

    assert here.advance(run_id).status is RunStatus.WAITING
    assert here.effects == []


def test_an_extended_sibling_does_not_void_the_approval_beside_it(
    site: SiteMaker, gateway: Parts, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = decided_long_ago(site, monkeypatch)
    run_id, [first, second] = here.waiting("payer")
    here.vote(first, "approve")

    with psycopg.connect(database.owner) as conn:
        conn.execute("UPDATE requests SET expires_at = now(), due_at = now() WHERE state = 'open'")
    with ledger.transaction(gateway.pool) as conn:
        # As a requirement that extends: the length is frozen in it, so the move is called by hand here.
        moved = silence.extend(conn, second.id, timedelta(hours=1))
        assert moved is not None
        sweep.renew(conn, gateway, second, moved[0])
    here.vote(second, "deny")

    assert here.advance(run_id).status is RunStatus.FINISHED
    assert here.effects == [("pay", 5, "EUR")]
    with ledger.transaction(gateway.pool) as conn:
        assert "decision.renewed" in [event.action for event in audit.of_run(conn, run_id)]
