"""Agents whose tools reach outside: a fake external system that keeps one line for everything it was made to do.

The effect log is the only thing that the checkers believe. A tool takes 50 ms, with its effect in the middle, so that a
`kill -9` that is steered by the beginnings of tools lands on either side of it. Beginnings and ends go into a second
file, which steers the kills and is no evidence. While a file `hold-WORD` exists, a tool that has taken effect does not
return.

A run's prompt is its own word, and every call of a run carries it.
"""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

from pydantic_ai import Agent

from banksman_worker.scripted import Call, Seen, scripted_model

HALF = 0.025
PRICE = 100


def outside(tool: str, word: str, details: dict[str, Any]) -> None:
    """The effect: one line, whole, at once."""
    _append("effects", {"tool": tool, "word": word, **details})


def _append(name: str, fact: dict[str, Any]) -> None:
    line = json.dumps({**fact, "pid": os.getpid(), "at": time.time()}) + "\n"
    path = Path(os.environ["CHAOS_YARD"]) / name
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    try:
        os.write(file, line.encode())
    finally:
        os.close(file)


def _act(tool: str, word: str, **details: Any) -> str:
    _append("tools", {"tool": tool, "word": word, "what": "begins"})
    time.sleep(HALF)
    outside(tool, word, details)
    time.sleep(HALF)
    while (Path(os.environ["CHAOS_YARD"]) / f"hold-{word}").exists():
        time.sleep(HALF)
    _append("tools", {"tool": tool, "word": word, "what": "ends"})
    return f"{tool} of {word} is done"


def pay(word: str, amount: int) -> str:
    """Pay an amount."""
    return _act("pay", word, amount=amount)


def ship(word: str) -> str:
    """Send the goods."""
    return _act("ship", word)


def enter(word: str) -> str:
    """Enter the order into the book, which needs nobody's approval here."""
    return _act("enter", word)


def stamp(word: str) -> str:
    """Put a stamp on the order; twice is as once."""
    return _act("stamp", word)


def _pay(seen: Seen) -> Call:
    return Call("pay", {"word": seen.prompt, "amount": PRICE})


def _ship(seen: Seen) -> Call:
    return Call("ship", {"word": seen.prompt})


def _both(seen: Seen) -> list[Call]:
    return [_pay(seen), _ship(seen)]


def _enter(seen: Seen) -> Call:
    return Call("enter", {"word": seen.prompt})


def _stamp(seen: Seen) -> Call:
    return Call("stamp", {"word": seen.prompt})


def _tell(seen: Seen) -> str:
    return "; ".join(f"{item.tool} {item.outcome}: {item.text}" for item in seen.returns)


def _agent(name: str, *steps: Any) -> Agent[None, str]:
    agent = Agent(scripted_model(*steps, _tell, name=name))
    agent.tool_plain(requires_approval=True)(pay)
    agent.tool_plain(requires_approval=True)(ship)
    agent.tool_plain()(enter)
    agent.tool_plain(requires_approval=True, metadata={"banksman": "idempotent"})(stamp)
    return agent


agents = {
    "payer": _agent("payer", _pay),
    "sequence": _agent("sequence", _pay, _ship),
    "turn": _agent("turn", _both),
    "bookkeeper": _agent("bookkeeper", _enter, _pay),
    "stamper": _agent("stamper", _stamp),
}

TOOLS = {
    "payer": ("pay",),
    "sequence": ("pay", "ship"),
    "turn": ("pay", "ship"),
    "bookkeeper": ("enter", "pay"),
    "stamper": ("stamp",),
}
"""What each agent's run does outside when everybody agrees."""
UNGATED = frozenset({"enter"})
MAY_REPEAT = frozenset({"stamp"})
