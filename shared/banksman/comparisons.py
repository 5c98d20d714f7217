"""Comparisons that give no answer across kinds, where CEL would say that a list is not a text and let the call pass.

    args.to != "boss@example.org"        true of ["boss@example.org"], for CEL

CEL's orderings refuse such a pair by themselves; `==`, `!=` and `in` do not, and cannot be replaced once a text is
compiled. So it is rewritten before that: each of the three becomes a call of a function of ours, which raises
`Unclear`. Numbers are one kind, whole or not. Null is a kind too, so an argument that is null is compared with nothing;
only a `null` that the rule's author wrote stays with CEL, which answers for every kind.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import repeat
from typing import cast

from banksman.digest import Json
from banksman.spellings import Unclear

_RAW = "|".join(rf"{quote}.*?{quote}" for quote in ('"""', "'''", '"', "'"))
_ESCAPED = "|".join(rf"{quote}(?:\\.|[^\\])*?{quote}" for quote in ('"""', "'''", '"', "'"))
_TOKEN = re.compile(
    rf"(?P<remark>//[^\n]*)|(?P<text>[bB]?[rR](?:{_RAW})|[bB]?(?:{_ESCAPED}))|[A-Za-z_]\w*|[=!<>]=|&&|\|\||.", re.DOTALL
)
_OPENING = {"(": ")", "[": "]", "{": "}"}
_BETWEEN = frozenset(["&&", "||", "?", ":", ","])
_COMPARING = frozenset(["==", "!=", "<", "<=", ">", ">=", "in"])
_OURS = {"==": "is_same", "!=": "is_other", "in": "is_among"}


def guarded(text: str) -> str:
    """The same expression with our functions in place of `==`, `!=` and `in`. It must be an expression that compiles.

    A `ValueError` says that it compares twice in a row, as in `1 < a < 3`.
    """
    whole = _Group()
    groups = [whole]
    for found in _TOKEN.finditer(text):
        token = " " if found["remark"] else found[0]
        if token in _OPENING:
            groups.append(_Group(token))
        elif token in _BETWEEN:
            groups[-1].end(token)
        elif token in _COMPARING:
            groups[-1].compare(token)
        elif len(groups) > 1 and token == _OPENING[groups[-1].opening]:
            inner = groups.pop()
            inner.end(token)
            groups[-1].words.append(inner.opening + "".join(inner.done))
        else:
            groups[-1].words.append(token)
    whole.end("")
    return "".join(whole.done)


def bare(text: str) -> str:
    """The same expression with every text in it emptied, and without its remarks: nothing in them is code."""
    return _TOKEN.sub(lambda found: " " if found["remark"] else '""' if found["text"] else found[0], text)


def is_same(one: object, other: object) -> bool:
    """Whether two values of one kind are equal, and what they hold as well."""
    if _kind(one) is not _kind(other):
        raise Unclear("it compares values of different kinds")
    if isinstance(one, list):
        items, others = cast("list[Json]", one), cast("list[Json]", other)
        return len(items) == len(others) and all(map(is_same, items, others))
    if isinstance(one, dict):
        mine, its = cast("dict[str, Json]", one), cast("dict[str, Json]", other)
        return mine.keys() == its.keys() and all(is_same(mine[key], its[key]) for key in mine)
    return one == other


def is_other(one: object, other: object) -> bool:
    """Whether two values of one kind differ."""
    return not is_same(one, other)


def is_among(one: object, whole: object) -> bool:
    """Whether a list has such an item, or an object such a key; nulls in the list are passed over.

    One that is found counts, whatever else is in the list; one that is not, only if it could be compared with all.
    """
    if not isinstance(whole, (list, dict)):
        raise Unclear("it looks for something in what is neither a list nor an object")
    items = [item for item in cast("Iterable[Json]", whole) if item is not None or one is None]
    alike = [item for item in items if _kind(item) is _kind(one)]
    found = any(map(is_same, repeat(one), alike))
    if found or len(alike) == len(items):
        return found
    raise Unclear("it compares values of different kinds")


FUNCTIONS = {function.__name__: function for function in (is_same, is_other, is_among)}


def _kind(value: object) -> type:
    return float if type(value) is int else type(value)


@dataclass(slots=True)
class _Group:
    """What stands between two brackets, while it is read: `left` and `sign` of a comparison whose right side comes."""

    opening: str = ""
    done: list[str] = field(default_factory=list[str])
    words: list[str] = field(default_factory=list[str])
    left: str = ""
    sign: str = ""

    def compare(self, sign: str) -> None:
        if self.sign:
            raise ValueError("compares twice in a row; put && between two comparisons, or one of them in brackets")
        self.left, self.sign = self._side(), sign

    def end(self, token: str) -> None:
        side = self._side()
        if self.sign in _OURS and "null" not in (self.left.strip(), side.strip()):
            side = f"{_OURS[self.sign]}({self.left}, {side})"
        elif self.sign:
            side = f"{self.left}{self.sign}{side}"
        self.done += (side, token)
        self.left = self.sign = ""

    def _side(self) -> str:
        side = "".join(self.words)
        self.words = []
        return side
