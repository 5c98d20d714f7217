"""Gates: what the policy makes of a tool before any call of it is known.

A rule without a condition says the same of every call that comes to it. One with a condition may say otherwise of each,
and so may all the rules below it: then the gate depends on the call, and names them. Two things no gate says, since
they follow from a call's text alone: a text that could deceive raises the tier, and what hides is never allowed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from banksman.digest import Json
from banksman.policy import Call, Judgement
from banksman.records import Requirement
from banksman.rules import Rule
from banksman.standing_policy import Standing
from banksman.states import Tier


@dataclass(frozen=True, slots=True)
class Gate:
    """What becomes of a tool's calls, and by which rule; `in_words` says it in a line."""

    verdict: Literal["allow", "deny", "ask", "depends"]
    tier: Tier | None
    rule: str
    because: str
    in_words: str
    rules: Sequence[str] = ()
    """Those that may decide where it depends on the call, in the order in which they are tried."""

    def as_json(self) -> dict[str, Json]:
        """As it is shown beside a tool."""
        return {
            "verdict": self.verdict,
            "tier": None if self.tier is None else self.tier.value,
            "rule": self.rule,
            "because": self.because,
            "gate": self.in_words,
            "rules": list(self.rules),
        }


def of_tool(standing: Standing, agent: str, tool: str, otherwise: Judgement, *, listed: bool = True) -> Gate:
    """The gate of a tool; `otherwise` is what is said without rules. One not `listed` stands for tools of any name."""
    perhaps, certain = _candidates(standing, agent, tool, listed=listed)
    alone = standing.rules and replace(standing.rules, rules=() if certain is None else (certain,))
    judged = replace(standing, rules=alone).judge(Call(agent, tool, {}), otherwise)
    tier = None if judged.requirement is None else judged.requirement.tier
    said = _said(judged.verdict, tier)
    by = f"by rule {certain.name}" if certain is not None else f"({judged.rule})"
    if not perhaps:
        return Gate(judged.verdict, tier, judged.rule, judged.because, f"{said} {by}")
    names = [rule.name for rule in perhaps]
    each = ", ".join(
        f"{rule.name} ({_said(rule.then, rule.requirement and rule.requirement.tier)})" for rule in perhaps
    )
    plural = "s" if len(names) > 1 else ""
    return Gate(
        "depends",
        None,
        "",
        f"The first that matches a call decides: {each}; otherwise {said} {by}. {judged.because}",
        f"depends on the call: rule{plural} {', '.join(names)}",
        names,
    )


def announced(standing: Standing, agent: str, name: str, tool: Mapping[str, Json]) -> Gate:
    """The gate of a tool as a worker announced it, under the rules that stand now. What it left out is asked."""
    rule, because = str(tool.get("rule") or "unknown-effects"), str(tool.get("because") or "")
    if tool.get("verdict") in ("allow", "deny"):
        otherwise = Judgement(tool["verdict"], rule, because)
    else:
        tier = tool.get("tier")
        asked = Requirement(tier=Tier(tier)) if tier in {*Tier} else Requirement()
        otherwise = Judgement("ask", rule, because, asked)
    if tool.get("external"):
        return elsewhere(otherwise)
    return of_tool(standing, agent, name, otherwise, listed=tool.get("listed") is not False)


def elsewhere(otherwise: Judgement) -> Gate:
    """The gate of a tool that never runs here: no rule is asked about it."""
    return Gate(otherwise.verdict, None, otherwise.rule, otherwise.because, "answered from outside")


def _candidates(standing: Standing, agent: str, tool: str, *, listed: bool) -> tuple[Sequence[Rule], Rule | None]:
    """The rules that may decide a call of the tool, and the one behind them that decides every call left."""
    perhaps: list[Rule] = []
    if standing.rules is None or standing.doubt is not None:
        return perhaps, None
    for rule in standing.rules.rules:
        if not rule.agents.match(agent) or (listed and not rule.tools.match(tool)):
            continue
        if rule.condition is None and (listed or "*" in rule.tools.patterns):
            return perhaps, rule
        perhaps.append(rule)
    return perhaps, None


def _said(verdict: str, tier: Tier | None) -> str:
    if verdict == "ask":
        return "asked" if tier is None else f"tier {tier.value}"
    return {"allow": "allowed", "deny": "denied"}[verdict]
