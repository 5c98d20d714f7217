"""Drafts: from so many like decisions in a row by one person, the rule that would have taken their place.

A draft is a text to look at, with what it would have said of the past. Nothing comes of it by itself: an administrator
reads it, changes it, and uploads it, or nobody does.

The rule is as narrow as what was decided: what was the same in every call must be the same, numbers stay between the
least and the largest, paths below the folder and addresses at the host that they shared. What it cannot bound it names
in a comment, and so what is covered: a bound would tell the secret.
"""

from __future__ import annotations

import json
import posixpath
import re
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import cast
from urllib.parse import urlsplit

from fastapi import APIRouter, Response

from banksman import digest, ids, masks, rule_file, spellings
from banksman.digest import Json
from banksman.errors import InvalidInput, NotAllowed
from banksman.ledger import Connection
from banksman.ledger import rehearsal as rows
from banksman.ledger.rehearsal import Past, Said
from banksman.policy import Call
from banksman.records import Person
from banksman.standing_policy import Standing
from banksman.states import RequestState
from banksman_gateway import door, policies, problems, rehearsal
from banksman_gateway.door import ToRead
from banksman_gateway.intake import StrictRoute
from banksman_gateway.parts import Parts
from banksman_gateway.shapes import Page, Shape

router = APIRouter(prefix="/v1/policy", tags=["policy"], route_class=StrictRoute, responses=problems.ALSO)

IN_A_ROW = 20
_LATELY = 400
_MOST = 3
_LONGEST = 100
_REPLAYED = 500
BACK = timedelta(days=30)
_PLAIN = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_WORDS = (
    "as break const continue else false for function if import in let loop namespace null package return true var void"
    " while"
)
_RESERVED = frozenset(re.findall(r"\w+", _WORDS))


@dataclass(frozen=True, slots=True)
class Streak:
    """Like decisions in a row: the same agent, tool and shape, and the same verdict."""

    agent: str
    tool: str
    state: RequestState
    decisions: Sequence[Said]


class Draft(Shape):
    """A drafted rule, and what it alone would have said of the calls that were asked in the last 30 days."""

    agent: str
    tool: str
    verdict: str
    decisions: int
    text: str
    examined: int
    matched: int
    disagreements: int
    examples: list[rehearsal.Difference]
    whole: bool
    """Whether that is all of the 30 days, and not the oldest part alone."""


def streaks(conn: Connection, person: Person) -> list[Streak]:
    """What this person has decided alike, at least so often, up to now."""
    found: dict[tuple[str, str, bytes], list[Said]] = {}
    over: set[tuple[str, str, bytes]] = set()
    for said in rows.decided_by(conn, person.id, limit=_LATELY):
        key = (said.agent, said.tool, said.shape)
        mine = found.setdefault(key, [])
        if not said.as_asked or (mine and mine[0].state is not said.state):
            over.add(key)
        if key not in over and len(mine) < _LONGEST:
            mine.append(said)
    return [Streak(key[0], key[1], row[0].state, row) for key, row in found.items() if len(row) >= IN_A_ROW][:_MOST]


def offered(conn: Connection, here: Parts, person: Person) -> list[tuple[Streak, str]]:
    """Streaks that the policy in force still asks about, each with the text of a rule."""
    found: list[tuple[Streak, str]] = []
    alike = streaks(conn, person)
    standing = policies.in_force(conn, here)[0] if alike else Standing()
    for streak in alike:
        past = rows.named(conn, [said.request_id for said in streak.decisions])
        read = [(one, call) for one in past if (call := rehearsal.past_call(one)) is not None]
        calls = [call for _, call in read]
        if not calls or rehearsal.judge(here, standing, calls[-1]).verdict != "ask":
            continue
        text = rule_for(streak, calls, {name for one, call in read for name in _covered(one, call)})
        if text is not None:
            found.append((streak, text))
    return found


def rehearsed(here: Parts, streak: Streak, text: str, since: ids.RequestId) -> Draft:
    """The draft with its replay."""
    alone = Standing(rule_file.read(text, "draft"))
    tally, cursor = rehearsal.over(here, alone, since, limit=_REPLAYED)
    verdict = "allow" if streak.state is RequestState.APPROVED else "deny"
    return Draft(
        agent=streak.agent,
        tool=streak.tool,
        verdict=verdict,
        decisions=len(streak.decisions),
        text=text,
        examined=tally.examined,
        matched=sum(count for rule, count in tally.rules.items() if rule.startswith("drafted: ")),
        disagreements=tally.disagreements,
        examples=tally.examples,
        whole=cursor is None,
    )


@router.get("/drafts", response_model=Page[Draft])
def list_drafts(way: ToRead) -> Response:
    """Rules drafted from 20 like decisions in a row of yours, with their replays. Nothing comes of them by itself."""
    with way.enter() as (conn, caller):
        policies.must_read(caller)
        if caller.person is None:
            raise NotAllowed("Drafts come from a person's own decisions; a machine has none.")
        found = offered(conn, way.here, caller.person)
        since = rows.since(conn, BACK)
    shown = [rehearsed(way.here, streak, text, since) for streak, text in found]
    return door.respond(200, door.to_bytes(Page[Draft](items=shown)))


def rule_for(streak: Streak, calls: Sequence[Call], covered: Collection[str] = ()) -> str | None:
    """The text of the rule; None where the names in it are none that a rule can have. Nothing of the arguments that are
    `covered` stands in it.
    """
    approved = streak.state is RequestState.APPROVED
    word = "approve" if approved else "deny"
    bounds, loose = _bounds(calls, covered)
    unseen = sorted({name for call in calls for name in call.arguments if name in covered})
    lines = [
        f"# Drafted from {len(streak.decisions)} like decisions in a row.",
        *(f"# It does not look at {json.dumps(name)}, which differed from call to call." for name in loose),
        *(f"# It does not look at {json.dumps(masks.conceal(name))}, which is covered." for name in unseen),
        "[[rule]]",
        f"name = {_toml(f'drafted: {word} {streak.tool} of {streak.agent}')}",
        f"agent = {_toml(streak.agent)}",
        f"tool = {_toml(streak.tool)}",
        *([f"when = {_toml(' && '.join(bounds))}"] if bounds else []),
        f'then = "{"allow" if approved else "deny"}"',
        f"because = {_toml(f'People decided so {len(streak.decisions)} times in a row.')}",
    ]
    text = "\n".join(lines) + "\n"
    try:
        rule_file.read(text, "draft")
    except InvalidInput:
        return None
    return text


def _covered(past: Past, call: Call) -> Iterator[str]:
    """The arguments of a call in which something is covered, or that are named so."""
    action = digest.parse(past.action, limit=4 * digest.MAX_BYTES)
    sensitive = masks.names({**action, "agent": call.agent, "tool": call.tool})
    for name, value in call.arguments.items():
        cover = masks.Cover(sensitive)
        cover.text(name)
        cover.value(value, name)
        if cover.found or name in sensitive:
            yield name


def _bounds(calls: Sequence[Call], covered: Collection[str]) -> tuple[list[str], list[str]]:
    """Conditions that hold for all of these calls, and the arguments that none was found for."""
    found: list[str] = []
    loose: list[str] = []
    for name in sorted({name for call in calls for name in call.arguments if name not in covered}):
        values = [call.arguments.get(name) for call in calls]
        place = f"args.{name}" if _PLAIN.fullmatch(name) and name not in _RESERVED else f"args[{_cel(name)}]"
        bound = next(_bound(place, values, local=all(call.local for call in calls)), None)
        if bound is None:
            loose.append(name)
        else:
            found.append(bound)
    return found, loose


def _bound(place: str, values: Sequence[Json], *, local: bool) -> Iterator[str]:
    if len({digest.canonical(value) for value in values}) == 1:
        if isinstance(values[0], (str, bool, int, float)) and _is_printable(values[0]):
            yield f"{place} == {_cel(values[0])}"
        return
    try:
        amounts = [spellings.amount(value) for value in values]
        yield f"amount({place}) >= {_number(min(amounts))} && amount({place}) <= {_number(max(amounts))}"
    except spellings.Unclear:
        pass
    if not all(isinstance(value, str) and value.isprintable() for value in values):
        return
    texts = cast("Sequence[str]", values)
    if local and all(text.startswith("/") for text in texts):
        folder = posixpath.commonpath([posixpath.dirname(posixpath.normpath(text)) for text in texts])
        if folder != "/":
            yield f"path_within({place}, {_cel(folder)})"
    hosts = {_host(text) for text in texts}
    if len(hosts) == 1 and (host := hosts.pop()):
        yield f"host_within({place}, {_cel(host)})"


def _host(text: str) -> str | None:
    try:
        host = (urlsplit(text).hostname or "").removesuffix(".")
        return host if host and spellings.host_within(text, host) else None
    except ValueError:
        return None


def _is_printable(value: Json) -> bool:
    return not isinstance(value, str) or value.isprintable()


def _number(value: float) -> str:
    return str(int(value)) if value == int(value) else repr(value)


def _cel(value: Json) -> str:
    return json.dumps(value, ensure_ascii=False)


def _toml(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)
