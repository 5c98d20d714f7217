"""Side by side: like calls as a table whose columns are only the arguments that differ, with the odd ones marked.

A row can be decided in the table only if the table shows all of it. What is too long for a cell, what refers to files
and what the renderer warns of is decided on its own page.
"""

from __future__ import annotations

import json
import re
import statistics
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import cast

from banksman import digest, letters, masks, render
from banksman.digest import Json
from banksman.ledger.groups import Member
from banksman.states import Kind, Tier

LONGEST = 200
"""How many characters of a value a cell shows; what is longer is read on the request's own page."""
_ENOUGH = 4
_MOST_ALIKE = 0.75


@dataclass(frozen=True, slots=True)
class Cell:
    """One value, visible; `odd` says why it stands out from the column."""

    text: str
    odd: str = ""


@dataclass(frozen=True, slots=True)
class Row:
    """One request: what differs, and why it cannot be decided here, if it cannot."""

    member: Member
    cells: Sequence[Cell]
    alone: str
    rendered: str
    """The hash of everything that is shown of it, for the vote."""

    @property
    def mark(self) -> str:
        """What its box carries: exactly what was shown."""
        return f"{self.member.revision}:{self.member.digest.hex()}:{self.rendered}"

    @property
    def odd(self) -> bool:
        """Whether anything in it stands out."""
        return any(cell.odd for cell in self.cells)


@dataclass(frozen=True, slots=True)
class Table:
    """Like calls, the odd ones marked."""

    agent: str
    tool: str
    columns: Sequence[str]
    common: Sequence[tuple[str, str]]
    rows: Sequence[Row]


def tables(members: Sequence[Member]) -> Sequence[Table]:
    """One table for each tool of each agent."""
    alike: dict[tuple[str, str], list[Member]] = {}
    for member in members:
        alike.setdefault((member.agent, member.tool), []).append(member)
    return [table(agent, tool, found) for (agent, tool), found in alike.items()]


def table(agent: str, tool: str, members: Sequence[Member]) -> Table:
    """The table of these requests, in their order."""
    actions = [digest.parse(member.action, limit=4 * digest.MAX_BYTES) for member in members]
    contexts = [digest.parse(member.context, limit=digest.MAX_CONTEXT_BYTES) for member in members]
    covered = [masks.of(action).value(action.get("arguments") or {}) for action in actions]
    arguments = [cast("Mapping[str, Json]", found) for found in covered]
    names = sorted({name for item in arguments for name in item})
    values = {name: [item.get(name) for item in arguments] for name in names}
    same = {
        name
        for name in names
        if all(name in item for item in arguments) and len({_dumped(value) for value in values[name]}) == 1
    }
    columns = [name for name in names if name not in same]
    odd = {name: _odd(values[name]) for name in columns}
    rows = [
        Row(
            member=member,
            cells=[Cell(_shown(arguments[place], name), odd[name][place]) for name in columns],
            alone=_alone(actions[place], contexts[place], arguments[place], member),
            rendered=render.of(actions[place], contexts[place]).hash.hex(),
        )
        for place, member in enumerate(members)
    ]
    common = [(letters.line(name), _shown(arguments[0], name)) for name in sorted(same)]
    return Table(agent, tool, [letters.line(name) for name in columns], common, rows)


def _alone(
    action: Mapping[str, Json], context: Mapping[str, Json], arguments: Mapping[str, Json], member: Member
) -> str:
    """Why a request is decided on its own page."""
    if member.tier is Tier.HIGH:
        return "is of tier high"
    if member.kind is not Kind.APPROVAL:
        return f"is of kind {member.kind}"
    if digest.of_action(action) != member.digest:
        return "does not match its own digest"
    if any(len(_visible(value)) > LONGEST for value in arguments.values()):
        return "is too long for this table"
    if action.get("operands"):
        return "refers to files"
    if render.of(action, context).warnings:
        return "has text that needs a closer look"
    return "is asked again" if context.get("why_again") else ""


def _shown(arguments: Mapping[str, Json], name: str) -> str:
    if name not in arguments:
        return "not given"
    text = _visible(arguments[name])
    if len(text) <= LONGEST:
        return text
    return f"{text[:60]} … {text[-60:]} ({len(text):,} characters: open it to read all)"


def _visible(value: Json) -> str:
    return letters.line(_dumped(value))


def _dumped(value: Json) -> str:
    return json.dumps(value, ensure_ascii=False, sort_keys=True)


def _odd(values: Sequence[Json]) -> Sequence[str]:
    """For each value why it stands out, or nothing."""
    if len(values) < _ENOUGH:
        return [""] * len(values)
    if all(isinstance(value, int | float) and not isinstance(value, bool) for value in values):
        return _far(cast("Sequence[float]", values))
    for what, feature in _FEATURES.items():
        found = [feature(value) if isinstance(value, str) else None for value in values]
        if (rare := _rare(found)) is not None:
            return [f"{what} differs from the others" if item in rare else "" for item in found]
    rare = _rare([_dumped(value) for value in values])
    return ["differs from the others" if rare and _dumped(value) in rare else "" for value in values]


def _far(values: Sequence[float]) -> Sequence[str]:
    """Numbers far from the middle, by the median absolute deviation (Iglewicz and Hoaglin 1993: 3.5 of them)."""
    middle = statistics.median(values)
    spread = statistics.median(abs(value - middle) for value in values)
    limit = max(3.5 * 1.4826 * spread, abs(middle) / 2)
    return [
        f"far {'above' if value > middle else 'below'} the middle of {middle:,g}" if abs(value - middle) > limit else ""
        for value in values
    ]


def _rare(found: Sequence[str | None]) -> set[str | None] | None:
    """What few of them are, where most are one thing; None where nothing is the rule."""
    counted = Counter(found)
    [(usual, times)] = counted.most_common(1)
    if usual is None or times < _MOST_ALIKE * len(found) or times == len(found):
        return None
    return set(counted) - {usual}


def _after_at(value: str) -> str | None:
    return value.rpartition("@")[2].casefold() if "@" in value else None


def _host(value: str) -> str | None:
    match = re.match(r"[a-z][a-z0-9+.-]*://([^/?#]*)", value, re.IGNORECASE)
    return match[1].casefold() if match else None


def _folder(value: str) -> str | None:
    return value.rpartition("/")[0] if value.startswith("/") else None


_FEATURES: Mapping[str, Callable[[str], str | None]] = {
    "its host": _host,
    "its domain": _after_at,
    "its folder": _folder,
}
