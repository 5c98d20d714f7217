"""Says for every tool of every listed agent what its gate would do: what `banksman check MODULE:ATTR` prints."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Literal, TextIO

from banksman import gates
from banksman.errors import ConfigurationError
from banksman.policy import Policy
from banksman.rules import Rules
from banksman.standing_policy import Standing
from banksman.states import Tier
from banksman_worker import agents, inventory

_COLUMNS = ("AGENT", "VERSION", "TOOL", "GATE", "TIER", "WHY")


@dataclass(frozen=True, slots=True)
class CheckRow:
    """One tool and its gate."""

    agent: str
    version: str
    tool: str
    verdict: Literal["allow", "deny", "ask", "depends"]
    tier: Tier | None
    rule: str
    why: str
    effects: str
    listed: bool
    """False for a toolset that could not be listed: all its tools are asked about."""


def rows(specs: Sequence[str], policy: Policy | None = None, rules: Rules | None = None) -> list[CheckRow]:
    """Every tool of every agent under these settings and rules, or the `ConfigurationError` of a worker."""
    loaded = agents.load(specs)
    return asyncio.run(_rows(loaded.values(), policy or Policy(), Standing(rules)))


def main(specs: Sequence[str], rules: Rules | None = None, out: TextIO | None = None, *, as_json: bool = False) -> int:
    """Print the rows; 1 and one sentence if a worker would refuse to start with these agents."""
    write = (out or sys.stdout).write
    try:
        found = rows(specs, rules=rules)
    except ConfigurationError as error:
        write((json.dumps({"refused": str(error)}) if as_json else str(error)) + "\n")
        return 1
    write(json.dumps([asdict(row) for row in found]) + "\n" if as_json else table(found))
    return 0


def table(found: Sequence[CheckRow]) -> str:
    """The rows as plain text, in columns."""
    lines = [_COLUMNS, *((r.agent, r.version, r.tool, r.verdict, r.tier or "-", r.why) for r in found)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(_COLUMNS) - 1)]
    return "".join(
        "  ".join([*(cell.ljust(width) for cell, width in zip(line, widths, strict=False)), line[-1]]) + "\n"
        for line in lines
    )


async def _rows(loaded: Iterable[agents.Loaded], policy: Policy, standing: Standing) -> list[CheckRow]:
    found: list[CheckRow] = []
    for agent in loaded:
        tools = await inventory.take(agent)
        inventory.refuse(agent, tools)
        found += [_row(agent, tool, policy, standing) for tool in tools]
    return found


def _row(agent: agents.Loaded, tool: inventory.Tool, policy: Policy, standing: Standing) -> CheckRow:
    judged, listed = tool.judgement(policy), tool.unlisted is None
    if tool.external:
        gate = gates.elsewhere(judged)
    else:
        gate = gates.of_tool(standing, agent.name, tool.name, judged, listed=listed)
    return CheckRow(
        agent=agent.name,
        version=agent.version,
        tool=tool.name,
        verdict=gate.verdict,
        tier=gate.tier,
        rule=gate.rule,
        why=f"{gate.in_words if gate.verdict == 'depends' else gate.rule}: {gate.because}",
        effects=tool.effects,
        listed=listed,
    )
