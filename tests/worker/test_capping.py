"""Caps name an agent, or a model and so every agent of it."""

from __future__ import annotations

from pydantic_ai import Agent
from pydantic_ai.models.test import TestModel

from banksman.records import Cap
from banksman_worker import capping
from banksman_worker.agents import Loaded


def test_a_cap_is_of_one_agent_or_of_all_that_use_one_model() -> None:
    model = TestModel(model_name="small")
    loaded = {name: Loaded(name, Agent(model), "1", lambda _: None, frozenset()) for name in ("refunds", "mails")}

    caps = capping.of({"refunds": 3, "test:small": 8, "elsewhere": 2}, loaded)

    assert caps == [
        Cap("elsewhere", ["elsewhere"], 2),
        Cap("refunds", ["refunds"], 3),
        Cap("test:small", ["refunds", "mails"], 8),
    ]
