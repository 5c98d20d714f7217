"""Rules: a policy as an ordered list of them. The first one that matches a call says what becomes of it.

A rule names agents and tools (with `*`) and may have a condition. One whose condition cannot be worked out for a call
ends the search as well: the call is asked at the highest tier that can be reached, and the request says why. So
arguments that nobody foresaw never slip past a rule to a milder one below it. A rule that allows is passed over for a
call in whose arguments something hides: its author thought of what they can see.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from banksman import reach
from banksman.conditions import Condition, Scene, Unevaluable
from banksman.policy import Call, Judgement
from banksman.records import Person, Requirement
from banksman.states import Tier

Verdict = Literal["allow", "deny", "ask"]


@dataclass(frozen=True, slots=True)
class Names:
    """Names with `*`; a list of them matches what any of them does."""

    patterns: tuple[str, ...]
    _one: re.Pattern[str]

    @classmethod
    def of(cls, patterns: Sequence[str]) -> Names:
        """The names that these patterns match; `*` stands for any text, everything else for itself."""
        each = (".*".join(map(re.escape, pattern.split("*"))) for pattern in patterns)
        return cls(tuple(patterns), re.compile("|".join(f"(?:{one})" for one in each), re.DOTALL))

    def match(self, name: str) -> bool:
        """Whether it is one of these."""
        return self._one.fullmatch(name) is not None


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule as it was read. `requirement` is who must agree, for one that asks."""

    name: str
    agents: Names
    tools: Names
    condition: Condition | None
    then: Verdict
    because: str
    requirement: Requirement | None = None
    line: int | None = None


@dataclass(frozen=True, slots=True)
class Sensitive:
    """Arguments that are secret, of these tools of these agents."""

    agents: Names
    tools: Names
    args: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Rules:
    """A whole policy. `default` is who must agree where a call is asked and no rule says by whom."""

    rules: tuple[Rule, ...]
    default: Requirement
    version: str = "draft"
    text: str = ""
    names_default: bool = False
    """Whether the text has a `[default]`, which then comes before the environment's settings."""
    sensitive: tuple[Sensitive, ...] = ()

    def sensitive_args(self, agent: str, tool: str) -> Sequence[str]:
        """The arguments of a tool that are covered where they are shown."""
        matching = (one for one in self.sensitive if one.tools.match(tool) and one.agents.match(agent))
        return [name for one in matching for name in one.args]

    def judge(self, call: Call, otherwise: Judgement, people: Sequence[Person] = ()) -> Judgement:
        """What the first matching rule says, else what would be said without rules; under this policy's name."""
        scene = Scene(
            agent=call.agent,
            tool=call.tool,
            args=call.arguments,
            requester=call.requester,
            tags=call.tags,
            batch=call.batch,
            local=call.local,
        )
        for rule in self.rules:
            if not rule.tools.match(call.tool) or not rule.agents.match(call.agent):
                continue
            try:
                if rule.condition is not None and not rule.condition.holds(scene):
                    continue
            except Unevaluable as error:
                return self._unclear(rule, error, call, people)
            if rule.then == "allow" and call.hides:
                continue  # what comes below it is never milder
            return self._said(rule)
        if otherwise.requirement is None:
            return otherwise
        return replace(otherwise, requirement=self._by_default(otherwise.requirement))

    def _said(self, rule: Rule) -> Judgement:
        requirement = rule.requirement and replace(rule.requirement, policy=self.version)
        return Judgement(rule.then, rule.name, rule.because, requirement)

    def _by_default(self, without: Requirement) -> Requirement:
        if not self.names_default:
            return replace(without, policy=self.version)
        # BANKSMAN_TIERS may name single tools: what it puts at tier high stays there.
        base = reach.at_least(self.default, Tier.HIGH) if without.tier is Tier.HIGH else self.default
        return replace(base, policy=self.version, rule=without.rule, because=without.because)

    def _unclear(self, rule: Rule, error: Unevaluable, call: Call, people: Sequence[Person]) -> Judgement:
        because = (
            f"The rule {rule.name!r} cannot be worked out for this call: {error}. So it is asked at the highest tier."
        )
        base = replace(rule.requirement or self.default, policy=self.version, rule=rule.name, because=because)
        raised = reach.highest(base, people, call.requester)
        return Judgement("ask", rule.name, because, raised, unclear=True)
