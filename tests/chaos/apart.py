"""The story of two hosts and the link between them, cut for longer than a lease."""

from __future__ import annotations

import time
from dataclasses import dataclass

from tests.chaos.hosts import FarHost
from tests.chaos.site import Site, until


@dataclass(frozen=True, slots=True)
class Report:
    """How long it took: until the near host had taken over, and from the heal until all was as before."""

    taken_after: float
    stored_after: float
    well_after: float

    def line(self) -> str:
        """For people."""
        return (
            f"taken over {self.taken_after:.1f} s after the cut; after the heal, the result of the cut-off tool was"
            f" stored within {self.stored_after:.1f} s and the far host had a new run within {self.well_after:.1f} s"
        )


def story(site: Site, far: FarHost, *, lease: float, cut_for: float, within: float) -> Report:
    """A tool is under way on the far host and a run parked there waits, when the link is cut."""
    stamp = f"{time.time_ns():x}"
    busy, parked, later = (f"{word}-{stamp}" for word in ("busy", "parked", "later"))
    program, ana = site.program(), site.reviewer()
    quick = {"BANKSMAN_LEASE_SECONDS": f"{lease}"}
    hold = site.yard / f"hold-{busy}"
    hold.touch()
    far_pid = site.worker("far", host=far, settings=quick)
    in_a_tool, waiting = program.submit("payer", busy), program.submit("payer", parked)
    [asked_first], [asked_too] = ana.asked(in_a_tool["id"]), ana.asked(waiting["id"])
    ana.decide(asked_first, "approve")
    until(lambda: site.effects(busy), what="the effect")

    far.cut()
    cut_at = time.monotonic()
    near_pid = site.worker("near", settings=quick)
    ana.decide(asked_too, "approve")
    program.ended(waiting["id"])
    [doubt] = ana.asked(in_a_tool["id"])
    taken_after = time.monotonic() - cut_at
    assert doubt["kind"] == "outcome", doubt
    # On the far side the tool returns, and its result can be told to nobody.
    hold.unlink()
    time.sleep(max(0.0, cut_at + cut_for - time.monotonic()))
    far.heal()
    healed_at = time.monotonic()
    until(lambda: _stored(site, in_a_tool["id"]), within=within, what="the result from the far host")
    stored_after = time.monotonic() - healed_at
    ana.decide(doubt, "rerun")
    ended = program.ended(in_a_tool["id"])

    # Even under "rerun" the call did not run again: its result had come in meanwhile.
    assert [effect.pid for effect in site.effects(busy)] == [far_pid], site.effects(busy)
    assert [effect.pid for effect in site.effects(parked)] == [near_pid], site.effects(parked)
    assert f"pay of {busy} is done" in ended["output"]
    # The far host is a worker like any other again.
    site.kill("near")
    run = program.submit("payer", later)
    [request] = ana.asked(run["id"], within=within)
    well_after = time.monotonic() - healed_at
    ana.decide(request, "approve")
    program.ended(run["id"], within=within)
    assert [effect.pid for effect in site.effects(later)] == [far_pid], site.effects(later)
    site.kill("far")
    return Report(taken_after, stored_after, well_after)


def _stored(site: Site, run_id: str) -> bool:
    journal = "SELECT state FROM executions WHERE run_id = %s"
    return site.query(journal, run_id.removeprefix("run_")) == [("finished",)]
