"""Two hosts in network namespaces, the link between them cut for longer than a lease: in the middle of a tool on the
far one, and while a run that it had parked waits.
"""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from tests.chaos import hosts
from tests.chaos.hosts import FarHost
from tests.chaos.site import Site, until

LEASE = 2
QUICK = {"BANKSMAN_LEASE_SECONDS": f"{LEASE}"}
WHY_NOT = hosts.missing()
pytestmark = pytest.mark.skipif(bool(WHY_NOT), reason=f"no second host can be made here: {WHY_NOT}")


@pytest.fixture
def far(servers: Site) -> Iterator[FarHost]:
    """The other host."""
    with FarHost(postgres=servers.postgres.port, broker=servers.valkey.port) as made:
        yield made


def test_the_link_is_cut_in_a_tool_and_in_a_wait_and_nothing_happens_twice_or_hangs(site: Site, far: FarHost) -> None:
    stamp = f"{time.time_ns():x}"
    busy, parked, later = (f"{word}-{stamp}" for word in ("busy", "parked", "later"))
    program, ana = site.program(), site.reviewer()
    hold = site.yard / f"hold-{busy}"
    hold.touch()
    far_pid = site.worker("far", host=far, settings=QUICK)
    in_a_tool, waiting = program.submit("payer", busy), program.submit("payer", parked)
    [asked_first], [asked_too] = ana.asked(in_a_tool["id"]), ana.asked(waiting["id"])
    ana.decide(asked_first, "approve")
    until(lambda: site.effects(busy), what="the effect")

    far.cut()
    cut_at = time.monotonic()
    near_pid = site.worker("near", settings=QUICK)
    ana.decide(asked_too, "approve")
    program.ended(waiting["id"])
    [doubt] = ana.asked(in_a_tool["id"])
    taken_after = time.monotonic() - cut_at
    # On the far side the tool returns, and its result can be told to nobody.
    hold.unlink()
    until(lambda: time.monotonic() - cut_at > 2 * LEASE, what="two leases")
    far.heal()
    until(lambda: _stored(site, in_a_tool["id"]), what="the result from the far host")
    ana.decide(doubt, "rerun")
    ended = program.ended(in_a_tool["id"])

    assert doubt["kind"] == "outcome"
    assert taken_after < 20
    # Even under "rerun" the call did not run again: its result had come in meanwhile.
    assert [(effect.word, effect.pid) for effect in site.effects(busy)] == [(busy, far_pid)]
    assert [effect.pid for effect in site.effects(parked)] == [near_pid]
    assert f"pay of {busy} is done" in ended["output"]
    # The far host is a worker like any other again.
    site.kill("near")
    run = program.submit("payer", later)
    [request] = ana.asked(run["id"], within=30)
    ana.decide(request, "approve")
    program.ended(run["id"], within=30)
    assert [effect.pid for effect in site.effects(later)] == [far_pid]


def _stored(site: Site, run_id: str) -> bool:
    journal = "SELECT state FROM executions WHERE run_id = %s"
    return site.query(journal, run_id.removeprefix("run_")) == [("finished",)]
