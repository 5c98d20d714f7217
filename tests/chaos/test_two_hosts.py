"""Two hosts in network namespaces, the link between them cut for longer than a lease: in the middle of a tool on the
far one, and while a run that it had parked waits.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.chaos import apart, hosts
from tests.chaos.hosts import FarHost
from tests.chaos.site import Site

WHY_NOT = hosts.missing()
pytestmark = pytest.mark.skipif(bool(WHY_NOT), reason=f"no second host can be made here: {WHY_NOT}")


@pytest.fixture
def far(servers: Site) -> Iterator[FarHost]:
    """The other host."""
    with FarHost(postgres=servers.postgres.port, broker=servers.valkey.port) as made:
        yield made


def test_the_link_is_cut_in_a_tool_and_in_a_wait_and_nothing_happens_twice_or_hangs(site: Site, far: FarHost) -> None:
    report = apart.story(site, far, lease=2, cut_for=4, within=30)

    assert report.taken_after < 20
