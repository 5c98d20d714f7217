"""Caps as BANKSMAN_MAX_RUNNING names them: of one agent, or of all agents that use one model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from pydantic_ai.models import Model

from banksman import logs
from banksman.records import Cap
from banksman_worker.agents import Loaded

log = logs.get(__name__)


def of(limits: Mapping[str, int], loaded: Mapping[str, Loaded]) -> Sequence[Cap]:
    """The caps for these limits. A name that is neither an agent nor a model here may be another worker's agent."""
    models = {name: _model(agent) for name, agent in loaded.items()}
    caps: list[Cap] = []
    for name, most in sorted(limits.items()):
        agents = [agent for agent, model in models.items() if model == name and name not in loaded]
        if not agents and name not in loaded:
            log.warning("BANKSMAN_MAX_RUNNING names no agent or model of this worker.", name=name)
        caps.append(Cap(name, agents or [name], most))
    return caps


def _model(agent: Loaded) -> str:
    """The model as in `Agent('openai:gpt-4.1')`; nothing where it is not known."""
    model = agent.model or agent.agent.model
    if isinstance(model, Model):
        return f"{model.system}:{model.model_name}"
    return "" if model is None else str(model)
