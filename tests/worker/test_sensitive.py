"""Arguments that an author names as secret: said in what is approved, checked at the start, and in no log or event."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from pydantic_ai import Agent, Tool

from banksman import ledger
from banksman.errors import ConfigurationError, Ungateable
from banksman.ledger import audit
from banksman.states import RunStatus
from banksman_worker import agents, inventory
from banksman_worker.agents import Listed
from banksman_worker.scripted import Call, scripted_model
from tests.worker.conftest import SiteMaker

PIN = "open sesame please"


def log_in(user: str, pin: str) -> str:
    """Log in."""
    assert pin != "wrong"
    return f"{user} is in"


def an_agent(*names: str) -> Agent[Any, str]:
    metadata = {"banksman_sensitive": list(names)} if names else None
    return Agent(
        scripted_model(
            lambda _: Call("log_in", {"user": "ana", "pin": PIN}), lambda seen: seen.returns[-1].text, name="m"
        ),
        tools=[Tool(log_in, metadata=metadata)],
    )


@pytest.mark.parametrize(
    "listed",
    [Listed(an_agent("pin")), Listed(an_agent(), sensitive_args={"log_in": ["pin"]})],
    ids=["metadata", "listing"],
)
def test_what_is_approved_says_which_arguments_are_secret(site: SiteMaker, listed: Listed) -> None:
    here = site({"keeper": listed})
    run_id, [request] = here.waiting("keeper")

    ended = here.decide_all(run_id, "approve")

    action = json.loads(request.action)
    assert action["sensitive"] == ["pin"]
    assert action["arguments"]["pin"] == PIN
    assert (ended.status, ended.output) == (RunStatus.FINISHED, "ana is in")
    with ledger.transaction(here.gateway) as conn:
        assert all(PIN not in json.dumps(event.body) for event in audit.of_run(conn, run_id))


@pytest.mark.parametrize(
    ("names", "said"), [(["pim"], "has no argument 'pim'"), (["user", "pin.x.command"], "always has to be read")]
)
def test_a_misspelled_or_impossible_name_stops_the_start_up(names: list[str], said: str) -> None:
    loaded = agents.loaded("m:a", "keeper", Listed(an_agent(*names)))

    tools = asyncio.run(inventory.take(loaded))

    with pytest.raises(Ungateable, match=said):
        inventory.refuse(loaded, tools)


def test_one_name_in_place_of_a_list_is_refused() -> None:
    listed = Listed(an_agent(), sensitive_args={"log_in": "pin"})

    with pytest.raises(ConfigurationError, match="write a list"):
        agents.loaded("m:a", "keeper", listed)


def test_the_listing_tells_which_arguments_are_secret() -> None:
    loaded = agents.loaded("m:a", "keeper", Listed(an_agent("pin")))

    [tool] = asyncio.run(inventory.take(loaded))

    assert tool.sensitive == ["pin"]
