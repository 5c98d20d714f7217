"""Nothing is written that no event tells of, unless somebody said why; and the watch over that sees."""

from __future__ import annotations

import importlib
from pathlib import Path

from banksman import ids, ledger
from banksman.ids import RunId
from banksman.ledger import runs
from banksman.records import NewRun
from tests import told
from tests.conftest import HINT


def test_every_writer_is_told_of_or_says_why_not() -> None:
    assert told.writers() == {*told.TOLD, *told.UNTOLD}
    assert told.TOLD.keys().isdisjoint(told.UNTOLD)


def test_a_move_without_its_event_is_seen(gateway_pool: ledger.Pool, watch: told.Watch) -> None:
    new = NewRun(RunId(ids.new()), "plain", "x", "ana@example.org", None)
    service = {"__name__": "banksman_gateway.somewhere", "runs": runs, "new": new, "hint": HINT}

    with ledger.transaction(gateway_pool) as conn:
        exec("runs.create(conn, new, hint=hint)", service | {"conn": conn})  # noqa: S102  as if a service did

    assert watch.untold == ["runs.create of banksman_gateway.somewhere, with no event"]
    watch.untold.clear()


def test_every_event_that_is_named_is_one_that_is_written() -> None:
    sources = "".join(
        path.read_text()
        for name in ("banksman", "banksman_gateway", "banksman_worker", "banksman_notifier")
        for path in Path(importlib.import_module(name).__file__ or "").parent.rglob("*.py")
    )

    assert {it for actions in told.TOLD.values() for it in actions if f'"{it}"' not in sources} == set()
