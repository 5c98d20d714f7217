"""Reads `banksman.toml`: the whole text is checked at once, and every error names the rule and the line.

    [[sensitive]]
    tool = "create_user"
    args = ["password"]

    [[rule]]
    name = "large refunds"
    tool = "issue_refund"
    when = 'amount(args.amount) > 100'
    then = "ask"
    tier = "high"
    groups = {finance = 1, security = 1}
    because = "Finance and security look at refunds above 100."

Nothing is guessed: an unknown key, a duration without a unit, a rule after one that matches everything are refused. A
text either becomes rules or an `InvalidInput` with one line for each thing that is wrong.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, field_validator, model_validator

from banksman import durations, masks, reach, toml_lines
from banksman.conditions import Condition
from banksman.errors import InvalidInput
from banksman.policy import ladder
from banksman.records import Person, Requirement, Rung
from banksman.rules import Names, Rule, Rules, Sensitive
from banksman.states import Tier

MAX_BYTES = 64 * 1024
MAX_RULES = 200
MAX_GROUPS = 6
LONGEST = timedelta(days=365)
_SHOWN = 20

_GROUP = re.compile(r"[A-Za-z0-9][A-Za-z0-9 _.-]{0,62}")
_PATTERN = re.compile(r"[A-Za-z0-9_.:/@*-]{1,200}")
_ARGUMENT = re.compile(r"[A-Za-z0-9_-]{1,100}(?:\.[A-Za-z0-9_-]{1,100}){0,5}")


def _duration(value: object) -> int:
    with suppress(InvalidInput):
        if isinstance(value, str):
            return int(durations.read(value, most=LONGEST).total_seconds())
    raise ValueError('is not a duration of a second to a year, like "24h", "90m" or "1d12h"')


def _silence(value: object) -> object:
    if value == "allow":
        raise ValueError('is never "allow": silence decides nothing. Use deny, stop or extend')
    return value


def _list(value: object) -> object:
    return [value] if isinstance(value, str) else value


def _groups(value: object) -> object:
    """A list means any of these; a table says how many of each."""
    if isinstance(value, list):
        return dict.fromkeys(value, 0) if all(isinstance(item, str) for item in value) else value  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType]
    return value


Seconds = Annotated[int, BeforeValidator(_duration)]
Patterns = Annotated[tuple[str, ...], BeforeValidator(_list), Field(min_length=1, max_length=50)]
Silence = Annotated[Literal["deny", "stop", "extend"], BeforeValidator(_silence)]
Groups = Annotated[
    dict[str, Annotated[int, Field(strict=True, ge=0, le=20)]], BeforeValidator(_groups), Field(max_length=MAX_GROUPS)
]


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class _Rung(_Table):
    after: Seconds
    groups: Annotated[tuple[str, ...], BeforeValidator(_list), Field(min_length=1, max_length=MAX_GROUPS)]

    @field_validator("groups")
    @classmethod
    def _are_names(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(map(_group, value))


class _Asking(_Table):
    """Who must agree, as a rule or `[default]` says it."""

    tier: Tier | None = None
    groups: Groups | None = None
    approvals: Annotated[int, Field(strict=True, ge=1, le=20)] | None = None
    expires_after: Seconds | None = None
    reminders: Annotated[tuple[Seconds, ...], Field(max_length=10)] | None = None
    escalation: Annotated[tuple[_Rung, ...], Field(max_length=6)] | None = None
    on_expiry: Silence | None = None

    @field_validator("groups")
    @classmethod
    def _are_names(cls, value: dict[str, int] | None) -> dict[str, int] | None:
        if value is not None:
            if not value:
                raise ValueError("names no group; leave it out, and every reviewer may vote")
            for name in value:
                _group(name)
        return value


class _Rule(_Asking):
    name: Annotated[str, Field(min_length=1, max_length=100)]
    agent: Patterns = ("*",)
    tool: Patterns = ("*",)
    when: Annotated[str, Field(min_length=1)] | None = None
    then: Literal["allow", "deny", "ask"]
    because: Annotated[str, Field(min_length=1, max_length=500)] | None = None

    @field_validator("name", "because")
    @classmethod
    def _is_a_line(cls, value: str | None) -> str | None:
        if value is not None and not value.isprintable():
            raise ValueError("holds a line break or an invisible character")
        return value

    @field_validator("agent", "tool")
    @classmethod
    def _are_patterns(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for pattern in value:
            if not _PATTERN.fullmatch(pattern):
                raise ValueError(f"has {pattern[:60]!r}, which is no name; of signs only * stands for others")
        return value

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.then != "ask":
            said = sorted(self.model_fields_set & set(_Asking.model_fields))
            if said:
                raise ValueError(f"has {', '.join(said)}, but a rule that does not ask needs nobody")
        if self.then == "allow" and not all(re.search(r"[A-Za-z0-9]", pattern) for pattern in self.tool):
            raise ValueError("allows, so its tool must be named: one that is only * would let every tool through")
        return self


class _Sensitive(_Table):
    """Which arguments are secret, and so are covered where they are shown."""

    agent: Patterns = ("*",)
    tool: Patterns
    args: Annotated[tuple[str, ...], BeforeValidator(_list), Field(min_length=1, max_length=50)]

    @field_validator("args")
    @classmethod
    def _are_paths(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for name in value:
            if not _ARGUMENT.fullmatch(name):
                raise ValueError(f"has {name[:60]!r}, which is no argument, nor one within another as user.password")
            if masks.is_code(name):
                raise ValueError(f"has {name!r}, which always has to be read: what runs cannot be secret as a whole")
        return value


class _File(_Table):
    default: _Asking | None = None
    sensitive: Annotated[tuple[_Sensitive, ...], Field(max_length=MAX_RULES)] = ()
    rule: Annotated[tuple[_Rule, ...], Field(max_length=MAX_RULES)] = ()


def read(text: str, file: str = "banksman.toml") -> Rules:
    """A policy's text → its rules; `InvalidInput` names the file, the rule and the line of all that is wrong."""
    values = _values(text, file)
    lines = toml_lines.find(text)
    try:
        found = _File.model_validate(values)
    except ValidationError as error:
        problems = [_problem(item) for item in error.errors(include_url=False, include_input=False)]
        raise _refusal(file, lines, values, problems) from None
    problems: list[tuple[toml_lines.Path, str]] = []
    default = _requirement(found.default or _Asking(), _Asking(), ("default",), problems)
    rules = [_rule(rule, found.default or _Asking(), number, lines, problems) for number, rule in enumerate(found.rule)]
    problems += _order(rules)
    if problems:
        raise _refusal(file, lines, values, problems)
    sensitive = tuple(Sensitive(Names.of(one.agent), Names.of(one.tool), one.args) for one in found.sensitive)
    return Rules(tuple(rules), default, text=text, names_default=found.default is not None, sensitive=sensitive)


def read_path(path: Path) -> Rules:
    """The rules of a file."""
    try:
        raw = path.read_bytes()
        text = raw.decode()
    except UnicodeDecodeError:
        raise InvalidInput(f"{path} is not UTF-8.") from None
    except OSError as error:
        raise InvalidInput(f"{path} cannot be read: {error.strerror}.") from None
    return read(text, str(path))


def check_reach(rules: Rules, people: Sequence[Person], file: str = "banksman.toml") -> None:
    """`InvalidInput` names every rule whose requirement could not be met by the people there are but one."""
    asked = [(f"rule {rule.name!r}", rule.line, rule.requirement) for rule in rules.rules]
    if rules.names_default:
        asked.append(("[default]", None, rules.default))
    unmet = [
        f"{file}, {what}{f', line {line}' if line else ''}: nobody could ever meet {reach.in_words(requirement)}."
        " Besides whoever asked for the run there must be so many reviewers; see `banksman reviewers list`."
        for what, line, requirement in asked
        if requirement is not None and not reach.reachable(requirement, people)
    ]
    if unmet:
        raise InvalidInput("\n".join(unmet))


def _values(text: str, file: str) -> dict[str, Any]:
    if len(text.encode("utf-8", "surrogatepass")) > MAX_BYTES:
        raise InvalidInput(f"{file} is larger than {MAX_BYTES:,} bytes.")
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise InvalidInput(f"{file} is not TOML: {error}.") from None
    except (ValueError, RecursionError):
        raise InvalidInput(f"{file} is not TOML that can be read: a number is too long, or it is too deep.") from None


def _rule(
    given: _Rule,
    default: _Asking,
    number: int,
    lines: Mapping[toml_lines.Path, int],
    problems: list[tuple[toml_lines.Path, str]],
) -> Rule:
    path: toml_lines.Path = ("rule", number)
    condition = None
    if given.when is not None:
        try:
            condition = Condition(given.when)
        except ValueError as error:
            problems.append(((*path, "when"), f"`when` {error}"))
    because = given.because or f"The rule {given.name!r} says so."
    requirement = None
    if given.then == "ask":
        requirement = replace(_requirement(given, default, path, problems), rule=given.name, because=because)
    return Rule(
        name=given.name,
        agents=Names.of(given.agent),
        tools=Names.of(given.tool),
        condition=condition,
        then=given.then,
        because=because,
        requirement=requirement,
        line=toml_lines.line_of(lines, path),
    )


def _requirement(
    given: _Asking, default: _Asking, path: toml_lines.Path, problems: list[tuple[toml_lines.Path, str]]
) -> Requirement:
    """What the rule says, else `[default]`, else what holds without a policy; what was inherited gives way."""
    tier = given.tier or default.tier or Tier.MEDIUM
    groups = given.groups or default.groups or {}
    least = max(2 if tier is Tier.HIGH else 1, sum(groups.values()))
    if given.approvals is not None and given.approvals < least:
        why = "tier high takes two people" if least == 2 and tier is Tier.HIGH else "the groups ask for more"
        problems.append(((*path, "approvals"), f"`approvals` must be at least {least}: {why}"))
    expires = given.expires_after or default.expires_after or Requirement().expires_after
    for name, moments in (
        ("reminders", given.reminders or ()),
        ("escalation", [rung.after for rung in given.escalation or ()]),
    ):
        if late := [moment for moment in moments if moment >= expires]:
            problems.append(((*path, name), f"`{name}` has one after {late[0]} s, when the request has expired"))
    plain = ladder(expires)
    reminders = given.reminders if given.reminders is not None else default.reminders
    rungs = given.escalation if given.escalation is not None else default.escalation
    return Requirement(
        tier=tier,
        approvals=max(least, given.approvals or default.approvals or 1),
        groups=groups,
        expires_after=expires,
        on_expiry=given.on_expiry or default.on_expiry or "deny",
        reminders=plain[0] if reminders is None else tuple(sorted({at for at in reminders if at < expires})),
        escalation=plain[1]
        if rungs is None
        else tuple(Rung(rung.after, rung.groups) for rung in sorted(rungs, key=_after) if rung.after < expires),
    )


def _after(rung: _Rung) -> int:
    return rung.after


def _group(name: str) -> str:
    if not _GROUP.fullmatch(name):
        raise ValueError(f"has {name[:60]!r}, which is no name of a group")
    return name


def _order(rules: Sequence[Rule]) -> Iterator[tuple[toml_lines.Path, str]]:
    """Two rules of one name, and rules that none of their calls can come to."""
    seen: dict[str, int] = {}
    for number, rule in enumerate(rules):
        if rule.name in seen:
            yield ("rule", number, "name"), f"the name {rule.name!r} is taken by rule {seen[rule.name] + 1}"
        seen.setdefault(rule.name, number)
        before = next((other for other in rules[:number] if _takes_all_of(other, rule)), None)
        if before is not None and _is_everything(before):
            yield ("rule", number), f"no call ever comes here: the rule {before.name!r} matches all of them"
        elif before is not None:
            yield (
                ("rule", number),
                f"no call ever comes here: the rule {before.name!r} matches all of its tools and agents",
            )


def _takes_all_of(earlier: Rule, later: Rule) -> bool:
    """Whether every call of the later rule's agents and tools ends at the earlier one.

    An `allow` passes over what hides in its arguments: a rule without a condition that catches just that is left alone.
    """
    if earlier.condition is not None or (earlier.then == "allow" and later.then != "allow" and later.condition is None):
        return False
    # A `*` of a pattern is matched by a `*` alone, so what matches the pattern matches all that it stands for.
    return all(map(earlier.tools.match, later.tools.patterns)) and all(map(earlier.agents.match, later.agents.patterns))


def _is_everything(rule: Rule) -> bool:
    return "*" in rule.agents.patterns and "*" in rule.tools.patterns


def _problem(item: Any) -> tuple[toml_lines.Path, str]:
    path: toml_lines.Path = tuple(item["loc"])
    key = next((part for part in reversed(path) if isinstance(part, str)), "")
    kind, said = item["type"], str(item["msg"]).removeprefix("Value error, ")
    if kind == "extra_forbidden":
        within = "escalation" if "escalation" in path[:-1] else str(path[0]) if len(path) > 1 else ""
        table = _KEYS.get(within, "[default], [[rule]] and [[sensitive]]")
        return path, f"`{key}` is not known here; there are {table}"
    if kind == "missing":
        return path, f"`{key}` is missing"
    if kind == "value_error":
        return path, said if len(path) == 2 and isinstance(path[1], int) else f"`{key}` {said}"
    return path, f"`{key}`: {said[:1].lower()}{said[1:]}"


_KEYS = {
    "rule": ", ".join(_Rule.model_fields),
    "default": ", ".join(_Asking.model_fields),
    "sensitive": ", ".join(_Sensitive.model_fields),
    "escalation": ", ".join(_Rung.model_fields),
}


def _refusal(
    file: str,
    lines: Mapping[toml_lines.Path, int],
    values: Mapping[str, Any],
    problems: Sequence[tuple[toml_lines.Path, str]],
) -> InvalidInput:
    said = [f"{file}{_place(path, lines, values)}: {text}." for path, text in problems[:_SHOWN]]
    if len(problems) > _SHOWN:
        said.append(f"… and {len(problems) - _SHOWN} more.")
    return InvalidInput("\n".join(said))


def _place(path: toml_lines.Path, lines: Mapping[toml_lines.Path, int], values: Mapping[str, Any]) -> str:
    line = toml_lines.line_of(lines, path)
    where = "" if line is None else f", line {line}"
    if len(path) > 1 and path[0] == "rule" and isinstance(path[1], int):
        name = _name_of(values, path[1])
        return f", rule {path[1] + 1}{f' {name!r}' if name else ''}{where}"
    if len(path) > 1 and path[0] == "sensitive" and isinstance(path[1], int):
        return f", [[sensitive]] {path[1] + 1}{where}"
    return f", [default]{where}" if path[:1] == ("default",) else where


def _name_of(values: Mapping[str, Any], number: int) -> str | None:
    try:
        name = values["rule"][number]["name"]
    except (KeyError, IndexError, TypeError):
        return None
    return name[:60] if isinstance(name, str) else None
