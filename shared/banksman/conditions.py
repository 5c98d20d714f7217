"""Conditions: CEL expressions over a tool call, compiled when the policy is read and worked out for each call.

    args.amount > 100 && requester != "cron@example.org"

An expression sees `agent`, `tool`, `args`, `requester`, `tags` and `batch` (the batch's id, empty outside of one), and
may call `path_within`, `host_within` and `amount`. Whatever goes wrong in one (an argument that is not there, a number
compared with a text, an answer that is neither yes nor no, too much work) is `Unevaluable`, and then a person is asked.
Comparisons are ours (`comparisons`), because CEL's own find that ["x"] is not "x" and go on.

CEL always ends, but not always soon: the library copies a list for every element that `map` adds to it. Long lists
are therefore refused before the work and slow answers are thrown away after it, and no comprehension stands inside
another. The arguments are the model's to choose, so none of this may depend on them being kind.
"""

from __future__ import annotations

import logging
import re
import sys
import time
from collections.abc import Mapping, Sequence
from functools import cache
from types import ModuleType
from typing import TYPE_CHECKING, Any, cast

from banksman import comparisons, spellings
from banksman.digest import Json

if TYPE_CHECKING:
    import cel

MAX_LENGTH = 2000
MAX_ITEMS = 300
"""So long may a list or an object be that an expression walks through; the worst walk takes some 10 ms."""
MAX_SECONDS = 0.25

VARIABLES = ("agent", "tool", "args", "requester", "tags", "batch")
_OWN = {name: getattr(spellings, name) for name in ("path_within", "host_within", "amount")}
_GIVEN = frozenset(
    [*_OWN, "size", "contains", "startsWith", "endsWith", "matches", "int", "double", "string", "bool", "has"]
)
_WALK = re.compile(r"\.\s*(?:all|exists|exists_one|existsOne|map|filter)\s*\(\s*([A-Za-z_]\w*)\s*,")
_WORD = re.compile(r"[A-Za-z_]\w*")


class Unevaluable(Exception):
    """A condition that gives no answer for this call; the message says why, without the call's values."""


class Condition:
    """One expression, compiled once. A `ValueError` says in its message what is wrong with the text."""

    def __init__(self, text: str) -> None:
        self.text = text
        if len(text) > MAX_LENGTH:
            raise ValueError(f"is {len(text):,} characters long; {MAX_LENGTH:,} are allowed")
        if not text.replace("\n", " ").replace("\t", " ").isprintable():
            raise ValueError("holds an invisible character")
        plain = comparisons.bare(text)
        bound = set(_WALK.findall(plain))
        self._walks = bool(bound)
        _check_names(_compile(text).references(), bound)
        _check_walks(plain)
        self._program = _compile(comparisons.guarded(text))

    def holds(self, scene: Scene) -> bool:
        """Whether the expression is true of a call; `Unevaluable` when it is neither true nor false."""
        if self._walks and scene.is_long():
            raise Unevaluable(f"a list or an object of more than {MAX_ITEMS} items would have to be walked through")
        began = time.monotonic()
        try:
            answer: object = self._program.execute(scene.context())
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException as error:  # noqa: BLE001  also a panic of the library is no answer
            raise Unevaluable(_why(error)) from None
        if time.monotonic() - began > MAX_SECONDS:
            raise Unevaluable(f"it took longer than {MAX_SECONDS:g} s")
        if not isinstance(answer, bool):
            raise Unevaluable("it says neither yes nor no")
        return answer


class Scene:
    """A call as expressions see it. It is handed over to CEL once, by the first condition that asks."""

    def __init__(
        self,
        *,
        agent: str,
        tool: str,
        args: Mapping[str, Json],
        requester: str,
        tags: Sequence[str],
        batch: str,
        local: bool = False,
    ) -> None:
        self._variables = {
            "agent": agent,
            "tool": tool,
            "args": dict(args),
            "requester": requester,
            "tags": list(tags),
            "batch": batch,
        }
        # Of a tool of its author's own nobody here knows which links its paths lead through.
        self._functions = _OWN if local else {**_OWN, "path_within": _elsewhere}
        self._context: cel.Context | None = None
        self._long: bool | None = None

    def context(self) -> cel.Context:
        """What a program is executed in."""
        found = self._context
        if found is None:
            found = self._context = cast(
                "cel.Context",
                _library().Context(variables=self._variables, functions={**self._functions, **comparisons.FUNCTIONS}),
            )
        return found

    def is_long(self) -> bool:
        """Whether a list or an object in it has more items than may be walked through."""
        if self._long is None:
            self._long = _is_long(self._variables["args"]) or _is_long(self._variables["tags"])
        return self._long


def _elsewhere(path: Json, folder: Json) -> bool:
    del path, folder
    raise spellings.Unclear("path_within knows the run's own workspace, and this tool works elsewhere")


def _is_long(value: object) -> bool:
    if isinstance(value, dict):
        items = list(cast("dict[str, object]", value).values())
    elif isinstance(value, list):
        items = cast("list[object]", value)
    else:
        return False
    return len(items) > MAX_ITEMS or any(map(_is_long, items))


@cache
def _library() -> Any:
    # The package's own __init__ imports its command line and with it 25 MiB of terminal libraries; nothing here uses
    # them. The library logs what a function of ours fails with; we say it ourselves, where it belongs.
    sys.modules.setdefault("cel.cli", ModuleType("cel.cli"))
    import cel as library

    logging.getLogger("cel").disabled = True
    return library


def _compile(text: str) -> cel.Program:
    try:
        return _library().compile(text)
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # noqa: BLE001  a parser's failure of any kind, a panic too, is the text's
        said = str(error).partition("ERROR: ")[2] or str(error)
        said = said.partition("\n")[0].partition(" expecting {")[0].removeprefix("<input>:")
        raise ValueError(f"is not CEL: {said[:300]}") from None


def _check_names(references: Mapping[str, Sequence[str]], bound: set[str]) -> None:
    unknown = sorted(set(references["variables"]) - set(VARIABLES) - bound)
    if unknown:
        raise ValueError(f"names {unknown[0]!r}; it can see {', '.join(VARIABLES)}")
    if hidden := sorted(bound & {*VARIABLES, *_OWN}):
        raise ValueError(f"gives {hidden[0]!r} a second meaning")
    called = [name for name in references["functions"] if _WORD.fullmatch(name)]
    if strange := sorted(set(called) - _GIVEN):
        raise ValueError(f"calls {strange[0]!r}; it can call {', '.join(sorted(_GIVEN))}")


def _check_walks(plain: str) -> None:
    """No comprehension inside another: two of them multiply what one list costs."""
    starts = [match.end() for match in _WALK.finditer(plain)]
    for start in starts:
        depth, end = 1, start
        while end < len(plain) and depth:
            depth += {"(": 1, ")": -1}.get(plain[end], 0)
            end += 1
        if any(start < other < end for other in starts):
            raise ValueError("has one all, exists, map or filter inside another; write two rules instead")


def _why(error: BaseException) -> str:
    if isinstance(error, KeyError):
        return f"there is no {str(error.args[0])[:60]!r}" if error.args else "something is missing"
    text = str(error)
    if "Unclear: " in text:
        return text.partition("Unclear: ")[2].partition(". Check")[0]
    if "No such overload" in text:
        return "it compares or combines values of different kinds"
    return {"IndexError": "a list is shorter than that", "ZeroDivisionError": "it divides by nothing"}.get(
        type(error).__name__, "it fails"
    )
