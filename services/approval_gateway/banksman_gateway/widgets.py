"""Widgets: the arguments of a call as fields of a form, each of the type that the tool's JSON schema says.

What a field holds keeps its type: an integer stays an integer, and "1" stays a string. Whatever a plain field cannot
hold without hiding or changing something (characters outside plain ASCII, values of several types, lists, objects) is
edited as JSON in a field of its own. A null, or an argument that is left out, is chosen beside the field.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, cast

from banksman import digest, letters
from banksman.digest import Json
from banksman.errors import InvalidInput
from banksman_gateway.forms import Form

MOST = 60
"""So many arguments have fields; a call with more is edited as JSON."""

State = Literal["value", "null", "absent"]
Kind = Literal["line", "text", "integer", "number", "boolean", "choice", "json"]

_NAME = re.compile(r"[A-Za-z0-9_.-]{1,100}", re.ASCII)
_PLAIN = re.compile(r"[\n -~]*", re.ASCII)
_LINE = 100
_TYPES: Mapping[str, type | tuple[type, ...]] = {"string": str, "integer": int, "number": (int, float), "boolean": bool}


@dataclass(frozen=True, slots=True)
class Widget:
    """One argument's field. `state` says whether its text counts, or it is null, or left out."""

    name: str
    kind: Kind
    text: str
    state: State
    states: Sequence[State]
    """Which states there are to choose from."""
    options: Sequence[str] = ()
    """Of a choice: its values as JSON."""
    described: str = ""

    @property
    def rows(self) -> int:
        """How high a field of several lines is."""
        return min(self.text.count("\n") + 2, 30)

    @property
    def label(self) -> str:
        """Its name, made visible."""
        return letters.line(self.name)


def of(
    schema: Mapping[str, Json], arguments: Mapping[str, Json], covered: Mapping[str, Json] | None = None
) -> list[Widget] | None:
    """A field for each argument that there is or may be; None where this call is better edited as JSON.

    `covered` are the same arguments with masks in them, which the fields hold: what is left as it is stays as it was.
    """
    secret = {name for name in arguments if covered is not None and covered.get(name) != arguments[name]}
    arguments = arguments if covered is None else covered
    properties = _mapping(schema.get("properties"))
    names = [*arguments, *(name for name in properties if name not in arguments)]
    if len(names) > MOST or not all(_NAME.fullmatch(name) for name in names):
        return None
    needed = _list(schema.get("required"))
    return [
        _widget(name, _resolved(schema, properties.get(name)), arguments, needed=name in needed, secret=name in secret)
        for name in names
    ]


def filled(widgets: Sequence[Widget], form: Form) -> list[Widget]:
    """The same fields, holding what somebody typed into them."""
    found: list[Widget] = []
    for one in widgets:
        state = form.fields.get(f"state-{one.name}", "value")
        if state not in one.states:
            raise InvalidInput(f"{one.label}: choose one of {', '.join(one.states)}.")
        state = cast("State", state)
        text = form.fields.get(f"arg-{one.name}", "false" if one.kind == "boolean" else "")
        found.append(Widget(one.name, one.kind, text, state, one.states, one.options, one.described))
    return found


def arguments(widgets: Sequence[Widget]) -> dict[str, Json]:
    """What the fields say together, or `InvalidInput` naming the field that cannot be read."""
    return {one.name: None if one.state == "null" else _value(one) for one in widgets if one.state != "absent"}


def _widget(name: str, schema: Mapping[str, Json], given: Mapping[str, Json], *, needed: bool, secret: bool) -> Widget:
    schema, nullable = _without_null(schema)
    value = given.get(name)
    state: State = "absent" if name not in given else "null" if value is None else "value"
    offered: dict[State, bool] = {
        "value": True,
        "null": nullable or state == "null",
        "absent": not needed or state == "absent",
    }
    states: list[State] = [one for one, there in offered.items() if there]
    described = schema.get("description")
    about = described if isinstance(described, str) else ""
    options = [_dumped(item) for item in _list(schema.get("enum")) if item is not None]
    kind = _kind(schema, options, value, secret=secret)
    if state != "value":
        text = "false" if kind == "boolean" else options[0] if kind == "choice" else ""
    else:
        text = cast("str", value) if kind in ("line", "text") else _dumped(value, indent=2 if kind == "json" else None)
    return Widget(name, kind, text, state, states, options, about)


def _kind(schema: Mapping[str, Json], options: Sequence[str], value: Json, *, secret: bool) -> Kind:
    """The plain field that can hold the value as it is, or JSON."""
    if options:
        return "choice" if value is None or _dumped(value) in options else "json"
    named = schema.get("type")
    wanted = _TYPES.get(named) if isinstance(named, str) else None
    if wanted is None or (value is not None and not isinstance(value, wanted)):
        return "json"
    if isinstance(value, bool) and named != "boolean":
        return "json"
    if named != "string":
        return cast("Kind", named)
    if not isinstance(value, str):
        return "line"
    if not _PLAIN.fullmatch(re.sub(letters.MASK, "", value) if secret else value):
        return "json"
    return "text" if "\n" in value or len(value) > _LINE else "line"


def _without_null(schema: Mapping[str, Json]) -> tuple[Mapping[str, Json], bool]:
    """The schema of what is not null, and whether null is a value too."""
    named = schema.get("type")
    if isinstance(named, list):
        rest = [one for one in cast("list[Json]", named) if one != "null"]
        return {**schema, "type": rest[0] if len(rest) == 1 else rest}, len(rest) < len(cast("list[Json]", named))
    several = _list(schema.get("anyOf"))
    rest = [one for one in several if _mapping(one).get("type") != "null"]
    if len(several) > len(rest) == 1:
        return {**schema, **_mapping(rest[0])}, True
    return schema, None in _list(schema.get("enum")) or len(several) > len(rest)


def _resolved(schema: Mapping[str, Json], part: Json) -> Mapping[str, Json]:
    """A part of the schema, where it only points to a definition beside it: that."""
    found = _mapping(part)
    where = found.get("$ref")
    if isinstance(where, str) and where.startswith("#/$defs/"):
        return {**_mapping(_mapping(schema.get("$defs")).get(where.removeprefix("#/$defs/"))), **found}
    return found


def _mapping(value: Json) -> Mapping[str, Json]:
    """A part of a schema that ought to be an object: nothing, where its author wrote something else."""
    return cast("Mapping[str, Json]", value) if isinstance(value, dict) else {}


def _list(value: Json) -> Sequence[Json]:
    return cast("list[Json]", value) if isinstance(value, list) else []


def _value(one: Widget) -> Json:
    if one.kind in ("line", "text"):
        return one.text
    text = one.text.strip()
    if one.kind == "boolean":
        return text == "true"
    if one.kind == "choice" and text not in one.options:
        raise InvalidInput(f"{one.label}: choose one of {', '.join(one.options)[:200]}.")
    if one.kind == "integer" and not re.fullmatch(r"-?[0-9]{1,17}", text, re.ASCII):
        raise InvalidInput(f"{one.label}: write a whole number, such as 12.")
    if one.kind == "number" and not re.fullmatch(r"-?[0-9]+(\.[0-9]+)?([eE][-+]?[0-9]+)?", text, re.ASCII):
        raise InvalidInput(f"{one.label}: write a number, such as 12 or 0.5.")
    return digest.parse(text, what=one.label)


def _dumped(value: Json, *, indent: int | None = None) -> str:
    # All outside ASCII is written as \uXXXX, so that nothing hides in a field.
    return json.dumps(value, indent=indent)
