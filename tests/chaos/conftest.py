"""A site for the crash points: servers that nobody hurts, services that die."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.chaos.site import Site


@pytest.fixture(scope="session")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """One installation for all stories, with a gateway."""
    quick = {"BANKSMAN_LEASE_SECONDS": "1", "BANKSMAN_REDISPATCH_SECONDS": "1"}
    with Site(tmp_path_factory.mktemp("site") / "site", settings=quick) as made:
        made.gateway()
        made.worker()
        made.announced()
        made.kill("worker")
        yield made


@pytest.fixture
def site(servers: Site) -> Iterator[Site]:
    """The installation with nobody at work; whatever a story starts beside the gateway has ended after it."""
    yield servers
    assert servers.verified().findings == []
    for name in set(servers.services) - {"gateway"}:
        servers.kill(name)
    if "gateway" not in servers.services or not servers.lives("gateway"):
        servers.gateway()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Every story is a journey: `-m "not journey"` leaves them out."""
    for item in items:
        if "chaos" in item.path.parts:
            item.add_marker(pytest.mark.journey)
