"""Says for every tool of every listed agent what its gate would do: what `banksman check MODULE:ATTR` prints."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, TextIO

from banksman.errors import ConfigurationError
from banksman.policy import Policy
from banksman.states import Tier
from banksman_worker import agents, inventory

_COLUMNS = ("AGENT", "VERSION", "TOOL", "GATE", "TIER", "WHY")


@dataclass(frozen=True, slots=True)
class CheckRow:
    """One tool and its gate."""

    agent: str
    version: str
    tool: str
    verdict: Literal["allow", "deny", "ask"]
    tier: Tier | None
    rule: str
    why: str
    effects: str
    listed: bool
    """False for a toolset that could not be listed: all its tools are asked about."""


def rows(specs: Sequence[str], policy: Policy | None = None) -> list[CheckRow]:
    """Every tool of every agent, or the `ConfigurationError` that a worker would stop with."""
    loaded = agents.load(specs)
    return asyncio.run(_rows(loaded.values(), policy or Policy()))


def main(specs: Sequence[str], policy: Policy | None = None, out: TextIO | None = None) -> int:
    """Print the rows; 1 and one sentence if a worker would refuse to start with these agents."""
    write = (out or sys.stdout).write
    try:
        found = rows(specs, policy)
    except ConfigurationError as error:
        write(f"{error}\n")
        return 1
    write(table(found))
    return 0


def table(found: Sequence[CheckRow]) -> str:
    """The rows as plain text, in columns."""
    lines = [_COLUMNS, *((r.agent, r.version, r.tool, r.verdict, r.tier or "-", f"{r.rule}: {r.why}") for r in found)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(_COLUMNS) - 1)]
    return "".join(
        "  ".join([*(cell.ljust(width) for cell, width in zip(line, widths, strict=False)), line[-1]]) + "\n"
        for line in lines
    )


async def _rows(loaded: Iterable[agents.Loaded], policy: Policy) -> list[CheckRow]:
    found: list[CheckRow] = []
    for agent in loaded:
        tools = await inventory.take(agent)
        inventory.refuse(agent, tools)
        found += [_row(agent, tool, policy) for tool in tools]
    return found


def _row(agent: agents.Loaded, tool: inventory.Tool, policy: Policy) -> CheckRow:
    judged = tool.judgement(policy)
    return CheckRow(
        agent=agent.name,
        version=agent.version,
        tool=tool.name,
        verdict=judged.verdict,
        tier=None if judged.requirement is None else judged.requirement.tier,
        rule=judged.rule,
        why=judged.because,
        effects=tool.effects,
        listed=tool.unlisted is None,
    )
