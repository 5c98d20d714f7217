"""Workers killed in the middle of tools while runs flow; `make chaos` does the same with 300 runs and 20 kills."""

from __future__ import annotations

from tests.chaos import kills
from tests.chaos.site import Site


def test_runs_flow_through_kills_and_a_flushed_broker_and_every_approved_action_happens_once(site: Site) -> None:
    report = kills.run(site, runs=40, kills=3, seed=1, flush=True)

    assert report.verdict.wrong == []
    assert report.verdict.states == {"finished": 40}
    assert report.caught >= 1
    assert sum(map(len, report.recovered.values())) == report.caught
