"""Blocks: the parts of an action as they are shown, each whole: a command, a file, a change, a text, a table, JSON.

Every text in a block is exact: what `letters.visible` lets stand, and numbers for all else. Only `reading` shows words
in their own script, beside the exact form.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, cast

from banksman import letters
from banksman.digest import Json

Form = Literal["command", "file", "diff", "text", "json", "table", "value"]

_INLINE = 120
_PLAIN_KEY = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]*")


@dataclass(frozen=True, slots=True)
class Line:
    """One line as it is shown: its number, whether a change keeps, removes or adds it, and its visible text."""

    number: int
    mark: Literal[" ", "-", "+"]
    text: str


@dataclass(frozen=True, slots=True)
class Block:
    """One part of an action, whole: a command, a file, a change, a text, a JSON value."""

    form: Form
    label: str
    lines: Sequence[Line]
    summary: str
    reading: str | None = None
    """The same words in their own script, when there are letters that the exact form spells as numbers."""
    rows: Sequence[Sequence[str]] = ()
    """The cells of a table, its column names first; `lines` has the same, aligned."""


def whole(form: Form, label: str, value: str) -> Block:
    """A text as a block of its own, every line of it."""
    parts = value.split("\n")
    ended = len(parts) > 1 and not parts[-1]
    if ended:
        parts.pop()
    lines = [Line(number, " ", letters.visible(item)) for number, item in enumerate(parts, 1)]
    size = count(len(value.encode("utf-8", "surrogatepass")), "byte")
    if "\udbff" in value:
        size = "secrets covered"
    summary = f"{count(len(lines), 'line')}, {size}{', ends with a line break' if ended else ''}"
    return Block(form, label, lines, summary, _reading(value))


def of_argument(name: str, value: Json) -> Block:
    """An argument by what its value is."""
    if isinstance(value, str) and ("\n" in value or len(value) > _INLINE):
        return whole("text", label(name), value)
    if isinstance(value, dict | list) and value:
        return _table(label(name), value) or of_json(label(name), value)
    return Block("value", label(name), [Line(1, " ", dumped(value))], "", _reading(value))


def of_json(words: str, value: Json) -> Block:
    """A JSON value, a line for each item."""
    lines = [Line(number, " ", item) for number, item in enumerate(dumped(value, indent=2).split("\n"), 1)]
    return Block("json", words, lines, count(len(lines), "line"))


def label(name: str) -> str:
    """A name that somebody else chose: as it is where it is plain, else as exact JSON."""
    return name if _PLAIN_KEY.fullmatch(name) else dumped(name)


def dumped(value: Json, *, indent: int | None = None) -> str:
    """JSON as exact text."""
    return letters.visible(raw(value, indent=indent))


def raw(value: Json, *, indent: int | None = None) -> str:
    """JSON in one order of keys, not yet fit to be shown."""
    return json.dumps(value, ensure_ascii=False, indent=indent, sort_keys=True)


def count(number: int, word: str) -> str:
    """“1 line”, “1,200 lines”."""
    return f"{number:,} {word}{'' if number == 1 else 's'}"


def _table(words: str, value: Json) -> Block | None:
    """Two or more flat objects with the same keys, a row for each; None where that is not what it is, or too wide."""
    found = [cast("dict[str, Json]", item) for item in cast("list[Json]", value) if isinstance(item, dict)]
    if not isinstance(value, list) or len(found) != len(cast("list[Json]", value)) or len(found) < 2:
        return None
    names = sorted(found[0])
    if not 1 <= len(names) <= _COLUMNS or any(sorted(item) != names for item in found):
        return None
    if any(isinstance(cell, dict | list) for item in found for cell in item.values()):
        return None
    rows = [[label(name) for name in names], *([dumped(item[name]) for name in names] for item in found)]
    widths = [max(len(row[place]) for row in rows) for place in range(len(names))]
    if max(widths) > _WIDEST:
        return None
    # No cell ends early: a name is plain or quoted, and so is a value that is no number or word of JSON.
    lines = [
        Line(number, " ", " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
        for number, row in enumerate(rows)
    ]
    return Block("table", words, lines, f"{count(len(found), 'row')}, {count(len(names), 'column')}", rows=rows)


_COLUMNS, _WIDEST = 8, 60


def _reading(value: Json) -> str | None:
    if not isinstance(value, str) or not any(ord(letter) > 127 and letter.isalpha() for letter in value):
        return None
    return letters.prose(value)
