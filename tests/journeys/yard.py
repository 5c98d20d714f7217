"""Agents for stories. What they do outside is a line in a file, so that a story can count what happened.

A line carries the run's own word (its prompt) and the process that wrote it. While `hold-WORD` exists in the yard,
the tool that has just written its line does not return: long enough to be killed in the middle.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

from pydantic_ai import Agent, Tool
from pydantic_ai.toolsets import FunctionToolset

from banksman_worker.deep import deep_agent
from banksman_worker.scripted import Call, Seen, Turn, scripted_model


def _write(name: str, word: str) -> None:
    path = Path(os.environ["JOURNEY_YARD"]) / name
    with path.open("a") as file:
        file.write(f"{word} {os.getpid()}\n")


def _held(word: str) -> None:
    hold = Path(os.environ["JOURNEY_YARD"]) / f"hold-{word}"
    while hold.exists():
        time.sleep(0.02)


def note(word: str) -> str:
    """Take a note, which does no harm."""
    _write("notes", word)
    return "noted"


def append(word: str) -> str:
    """Write a line into the book."""
    _write("lines", word)
    _held(word)
    return f"{word} is in the book"


def stamp(word: str) -> str:
    """Put a stamp on the book; twice is as once."""
    _write("stamps", word)
    _held(word)
    return f"{word} is stamped"


def _told(seen: Seen, tool: str) -> Turn:
    result = seen.last(tool)
    assert result is not None
    return f"Done: {result.text}" if result.outcome == "success" else f"Not done: {result.text}"


clerk = Agent(
    scripted_model(
        lambda seen: Call("note", {"word": seen.prompt}),
        lambda seen: Call("append", {"word": seen.prompt}),
        lambda seen: _told(seen, "append"),
        name="clerk",
    )
)
clerk.tool_plain(metadata={"banksman": "harmless"})(note)
clerk.tool_plain(requires_approval=True)(append)

stamper = Agent(
    scripted_model(lambda seen: Call("stamp", {"word": seen.prompt}), lambda seen: _told(seen, "stamp"), name="stamper")
)
stamper.tool_plain(metadata={"banksman": "idempotent"})(stamp)


_outside = FunctionToolset[object](id="outside")


@_outside.tool_plain(metadata={"banksman": "harmless"})
def whoami() -> str:
    """Say which process this is."""
    return str(os.getpid())


@_outside.tool_plain(requires_approval=True)
def sign_off(by: str) -> str:
    """Sign the plan."""
    return f"signed for {by} in process {os.getpid()}"


def _plan(seen: Seen) -> list[Call]:
    todos = [
        {"content": "Measure", "status": "completed", "active_form": "Measuring"},
        {"content": "Cut", "status": "pending", "active_form": "Cutting"},
    ]
    return [
        Call("whoami"),
        Call("write_file", {"path": "/workspace/plan.txt", "content": f"The plan of {seen.prompt}\n"}),
        Call("write_todos", {"todos": todos}),
    ]


def _said_everything(seen: Seen) -> str:
    return "\n".join(f"{item.tool}: {item.text}" for item in seen.returns)


planner = deep_agent(
    model=scripted_model(
        _plan,
        lambda seen: Call("sign_off", {"by": seen.prompt}),
        lambda _: [Call("read_file", {"path": "/workspace/plan.txt"}), Call("read_todos")],
        _said_everything,
        name="planner",
    ),
    toolsets=[_outside],
)


writer = deep_agent(
    model=scripted_model(
        lambda _: [
            Call("write_file", {"path": "/workspace/ok.txt", "content": "fine\n"}),
            Call("write_file", {"path": "/workspace/../etc/passwd", "content": "root::0:0\n"}),
        ],
        _said_everything,
        name="writer",
    ),
    interrupt_on={"write_file": True},
)


runner = deep_agent(
    model=scripted_model(
        lambda seen: Call("execute", {"command": seen.prompt, "timeout": 600}),
        lambda seen: _told(seen, "execute"),
        name="runner",
    )
)


def log_in(user: str, pin: str) -> str:
    """Log in somewhere."""
    _write("lines", user)
    return f"{user} is in with {pin}"


def break_down(pin: str) -> str:
    """Fail, saying too much."""
    raise RuntimeError(f"{pin} was not taken")


keeper = deep_agent(
    model=scripted_model(
        lambda seen: Call("write_file", {"path": "/workspace/pin.txt", "content": f"{seen.prompt}\n"}),
        lambda seen: Call("log_in", {"user": "ana", "pin": seen.prompt}),
        lambda seen: Call("break_down", {"pin": seen.prompt}) if "break" in seen.prompt else _told(seen, "log_in"),
        lambda seen: _told(seen, "break_down"),
        name="keeper",
    ),
    tools=[
        Tool(log_in, metadata={"banksman_sensitive": ["pin"]}),
        Tool(break_down, metadata={"banksman": "harmless", "banksman_sensitive": ["pin"]}),
    ],
)


agents = {"keeper": keeper, "clerk": clerk, "stamper": stamper, "planner": planner, "writer": writer, "runner": runner}
