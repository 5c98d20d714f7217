"""Two stacks for the stories: one that nobody hurts, and one whose processes are killed and come back."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from banksman import ledger
from banksman.sealing import anchors, check
from banksman.signing import Signer, Verifier
from tests.journeys.receiver import Receiver
from tests.journeys.stacks import Stack, until

SEALED = {"BANKSMAN_SEAL_SECONDS": "0.5"}
QUICK = {"BANKSMAN_LEASE_SECONDS": "2", "BANKSMAN_SWEEP_SECONDS": "0.2", "BANKSMAN_REDISPATCH_SECONDS": "2"}
"""So that a lost worker or message is noticed within the patience of a test."""


@pytest.fixture(scope="session")
def traces() -> Iterator[Receiver]:
    """Hears the traces of the calm stack."""
    with Receiver() as receiver:
        yield receiver


@pytest.fixture(scope="session")
def calm(tmp_path_factory: pytest.TempPathFactory, traces: Receiver) -> Iterator[Stack]:
    """A stack that is only used, and traced."""
    settings = {
        "BANKSMAN_ALLOW_WRITES_BELOW": "/workspace",
        "BANKSMAN_TIERS": "issue_refund=low,sign_off=high",
        "BANKSMAN_WEBHOOK_ALLOW": "127.0.0.1",
    } | SEALED
    data = tmp_path_factory.mktemp("calm") / "data"
    with Stack(data, settings=SEALED | settings | _anchor(data) | traces.settings) as stack:
        yield stack
        assert stack.refused() == []


@pytest.fixture(scope="session")
def rough(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """A stack with two workers. A story that hurts it leaves it as it was: everything up."""
    settings = SEALED | QUICK | {"BANKSMAN_ALLOW_WRITES_BELOW": "/workspace"}
    data = tmp_path_factory.mktemp("rough") / "data"
    with Stack(data, workers=2, settings=settings | _anchor(data)) as stack:
        yield stack
        assert stack.refused() == []


@pytest.fixture(autouse=True)
def the_log_holds(request: pytest.FixtureRequest) -> Iterator[None]:
    """After every story the audit log says what was sealed, and what was anchored."""
    yield
    for name in {"calm", "rough"} & set(request.fixturenames):
        stack: Stack = request.getfixturevalue(name)
        anchor = stack.data.with_name("heads.jsonl")
        until(anchor.exists, what="the first anchored head")
        kept = json.loads((stack.data / "secrets.json").read_text())
        verifier = Verifier.read(Signer.read(kept["sealing_key"]).public())
        anchored = list(anchors.read(anchor))
        with ledger.once(stack.facts["database_url"], name="the-log-holds") as conn:
            conn.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
            report = check.check(conn, verifier, anchored=anchored)
        assert report.findings == []
        assert report.anchored == len(anchored) > 0
        assert report.newest is not None


def _anchor(data: Path) -> dict[str, str]:
    return {"BANKSMAN_AUDIT_ANCHOR": str(data.with_name("heads.jsonl"))}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Every story is a journey: `-m "not journey"` leaves them out."""
    for item in items:
        if "journeys" in item.path.parts:
            item.add_marker(pytest.mark.journey)
