"""Diffs: a change as the lines that go, come and stay, all of them."""

from __future__ import annotations

import difflib
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import cast

from banksman import blocks, letters
from banksman.blocks import Block, Line
from banksman.digest import Json


def diff(label: str, old: str, new: str) -> Block:
    """Old to new; where finding the smallest change would take long, all of the old and all of the new."""
    before, after = old.split("\n"), new.split("\n")
    lines: list[Line] = []
    for step, b1, b2, a1, a2 in _steps(before, after):
        if step == "equal":
            lines += [Line(number + 1, " ", letters.visible(after[number])) for number in range(a1, a2)]
        else:
            lines += [Line(number + 1, "-", letters.visible(before[number])) for number in range(b1, b2)]
            lines += [Line(number + 1, "+", letters.visible(after[number])) for number in range(a1, a2)]
    removed = sum(item.mark == "-" for item in lines)
    added = sum(item.mark == "+" for item in lines)
    kept = len(lines) - removed - added
    summary = f"{blocks.count(removed, 'line')} removed, {blocks.count(added, 'line')} added, {kept} kept"
    return Block("diff", label, lines, summary)


def changes(before: Mapping[str, Json], now: Mapping[str, Json]) -> Sequence[Block]:
    """What differs between a call as it was approved and as it is asked again: each as what is gone and what is new."""
    found = [
        diff(f"({words})", blocks.raw(before.get(name), indent=2), blocks.raw(now.get(name), indent=2))
        for name, words in _MAY_CHANGE.items()
        if name in before and blocks.dumped(before.get(name)) != blocks.dumped(now.get(name))
    ]
    paths: set[str] = {
        *cast("dict[str, Json]", before.get("files") or {}),
        *cast("dict[str, Json]", now.get("files") or {}),
    }
    for path in sorted(paths):
        old, new = file_of(before, path), file_of(now, path)
        if old != new:
            found.append(diff(f"(file {blocks.label(path)})", old or "", new or ""))
    return found


def edited(before: Mapping[str, Json], now: Mapping[str, Json]) -> Sequence[Block]:
    """What a person changed of a call's arguments, one by one: each as what is gone and what is new."""
    found: list[Block] = []
    for name in sorted({*before, *now}):
        old, new = (_lines(name, side) for side in (before, now))
        if old != new:
            both = all(isinstance(side.get(name), str) and "\n" in side[name] for side in (before, now))
            found.append(diff(blocks.label(name), *((before[name], now[name]) if both else (old, new))))
    return found


def _lines(name: str, arguments: Mapping[str, Json]) -> str:
    return blocks.raw(arguments[name], indent=2) if name in arguments else "(left out)"


_MAY_CHANGE = {
    "agent_version": "the agent's version",
    "arguments": "the arguments",
    "schema": "the tool's schema",
    "operands": "the files that it refers to, by SHA-256",
}


def _steps(before: Sequence[str], after: Sequence[str]) -> Sequence[tuple[str, int, int, int, int]]:
    if _small(before, after):
        return difflib.SequenceMatcher(None, before, after, autojunk=False).get_opcodes()
    same = 0
    while same < min(len(before), len(after)) and before[same] == after[same]:
        same += 1
    return [("equal", 0, same, 0, same), ("replace", same, len(before), same, len(after))]


def _small(before: Sequence[str], after: Sequence[str]) -> bool:
    """Whether finding the smallest change is worth it; past this, all of the old and all of the new are shown."""
    often = max(Counter(after).values())
    return len(before) * len(after) <= 250_000 and often <= 100


def file_of(context: Mapping[str, Json], path: str) -> str | None:
    """The text of a file as the worker saw it, where it was kept."""
    files = cast("Mapping[str, Mapping[str, Json]]", context.get("files") or {})
    found = files.get(path)
    content = found.get("text") if found else None
    return content if isinstance(content, str) else None
