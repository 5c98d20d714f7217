"""Pausing an agent from a terminal."""

from __future__ import annotations

import json

from banksman import ledger
from banksman.ledger import staff
from tests.cli.conftest import Banksman
from tests.gateway.scenes import Site


def test_an_agent_is_paused_listed_and_resumed(banksman: Banksman, site: Site) -> None:
    refused = banksman("pause", "plain")
    with ledger.transaction(site.gateway) as conn:
        staff.upsert(conn, site.ana.email, name="Ana", roles=["reviewer", "operator"])

    paused = banksman("pause", "plain")
    listed = banksman("agents")
    resumed = banksman("resume", "plain", "--json")

    assert refused.returncode == 5
    assert "is paused since" in paused.stdout
    assert "ana@example.org" in listed.stdout
    assert json.loads(resumed.stdout)["paused_at"] is None
    assert banksman("pause", "plane").returncode == 4
