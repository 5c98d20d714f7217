"""The conversation of a run as people read it: who said what, in order, all of it text and nothing interpreted.

It reads the messages as the agent library stores them, without that library. What it does not know, it shows as JSON:
a part is never left out because its kind is new.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal, cast

from banksman import letters, masks
from banksman.digest import Json
from banksman.masks import Cover
from banksman.records import Agent

MOST = 1_000_000
"""So many characters of a conversation does a page show; the messages past that are counted."""

Voice = Literal["people", "agent", "tool", "system"]
Named = Mapping[str, Sequence[str]]
"""Of each tool the arguments that are secret."""

_LONG_LINES, _LONG = 30, 2_000
_LONG_INSTRUCTIONS = 300
_HEAD, _TAIL = 4, 8


@dataclass(frozen=True, slots=True)
class Part:
    """One part of a message: in whose voice, what it is, of which tool, and its text made visible."""

    voice: Voice
    what: str
    tool: str
    shown: str

    @property
    def lines(self) -> int:
        """How many lines it has."""
        return self.shown.count("\n") + 1

    @property
    def is_long(self) -> bool:
        """Whether it is folded, its size said in front."""
        return self.lines > _LONG_LINES or len(self.shown) > (_LONG_INSTRUCTIONS if self.voice == "system" else _LONG)


@dataclass(frozen=True, slots=True)
class Message:
    """One message: its place in the conversation, when it was said, and by which model, if by one."""

    number: int
    at: datetime | None
    model: str
    tokens: tuple[int, int] | None
    """Those that went into the model for it, and came out."""
    parts: Sequence[Part]


@dataclass(frozen=True, slots=True)
class Transcript:
    """A conversation, the middle of a long one apart; what is too much for a page is counted in `missing`."""

    head: Sequence[Message]
    folded: Sequence[Message]
    tail: Sequence[Message]
    missing: int

    @property
    def count(self) -> int:
        """How many messages the conversation has."""
        return len(self.head) + len(self.folded) + len(self.tail) + self.missing


def sensitive(listed: Agent | None) -> Named:
    """The arguments that the authors of an agent's tools name as secret, as its workers listed them."""
    return {} if listed is None else {name: tool.get("sensitive") or [] for name, tool in listed.tools.items()}


def calls(messages: Sequence[Json], agent: str, named: Named) -> Iterator[Mapping[str, Json]]:
    """Every call in a conversation, as an action: what is secret in it is secret in what is said too."""
    for message in map(_mapping, messages):
        parts = message.get("parts")
        for part in map(_mapping, cast("list[Json]", parts) if isinstance(parts, list) else []):
            if part.get("part_kind") == "tool-call":
                yield _call(part, agent, named)


def covered(messages: Sequence[Json], agent: str, named: Named) -> list[Json]:
    """Messages as they are stored, with their secrets covered, for programs."""
    cover = masks.around(*calls(messages, agent, named))
    return [_covered(message, cover, agent, named) for message in messages]


def _covered(value: Json, cover: Cover, agent: str, named: Named) -> Json:
    if not isinstance(value, dict):
        return masks.plain(cover.value(value))
    part = cast("dict[str, Json]", value)
    if isinstance(part.get("parts"), list):
        parts = [_covered(one, cover, agent, named) for one in cast("list[Json]", part["parts"])]
        rest = masks.plain(cover.value({name: item for name, item in part.items() if name != "parts"}))
        return {**rest, "parts": parts}
    found: dict[str, Json] = masks.plain(cover.value(part))
    if part.get("part_kind") == "tool-call":
        call = _call(part, agent, named)
        arguments = masks.plain(masks.of(call).value(call["arguments"]))
        text = isinstance(part.get("args"), str)
        found["args"] = json.dumps(arguments, ensure_ascii=False) if text and "" not in (arguments or {}) else arguments
    return found


def _call(part: Mapping[str, Json], agent: str, named: Named) -> Mapping[str, Json]:
    arguments, tool = part.get("args"), _text(part.get("tool_name"))
    if isinstance(arguments, str):
        try:
            arguments = json.loads(arguments)
        except ValueError:
            arguments = {"": arguments}
    return {"agent": agent, "tool": tool, "arguments": arguments, masks.SENSITIVE: list(named.get(tool, ()))}


def read(
    messages: Sequence[Json],
    *,
    cover: Cover | None = None,
    agent: str = "",
    named: Named | None = None,
    most: int = MOST,
) -> Transcript:
    """Messages as they are stored → as they are shown, the oldest first, secrets covered."""
    cover = cover or Cover()
    found: list[Message] = []
    length = 0
    instructions: Json = None
    for number, raw in enumerate(messages, 1):
        message = _mapping(raw)
        given = message.get("instructions")
        parts = [*([_part(cover, "system", "Instructions", given)] if given and given != instructions else [])]
        instructions = given or instructions
        known = isinstance(message.get("parts"), list)
        parts += _parts(message, cover, agent, named or {}) if known else [_other(cover, "message", raw)]
        length += sum(len(part.shown) for part in parts)
        if length > most:
            break
        found.append(Message(number, _at(message), _text(message.get("model_name")), _tokens(message), parts))
    missing = len(messages) - len(found)
    if len(found) <= _HEAD + _TAIL + 2:
        return Transcript(found, [], [], missing)
    return Transcript(found[:_HEAD], found[_HEAD:-_TAIL], found[-_TAIL:], missing)


def _parts(message: Mapping[str, Json], cover: Cover, agent: str, named: Named) -> Iterator[Part]:
    for raw in cast("list[Json]", message["parts"]):
        part = _mapping(raw)
        kind, content, tool = part.get("part_kind"), part.get("content"), _text(part.get("tool_name"))
        match kind:
            case "system-prompt":
                yield _part(cover, "system", "Instructions", content)
            case "user-prompt":
                yield _part(cover, "people", "Asked", content)
            case "text":
                yield _part(cover, "agent", "The agent says", content)
            case "thinking":
                yield _part(cover, "agent", "The agent thinks", content)
            case "tool-call":
                yield Part("agent", "The agent calls", tool, _exact(_call(part, agent, named)))
            case "tool-return":
                outcome = _text(part.get("outcome"))
                yield _part(cover, "tool", _RETURNED.get(outcome, f"The tool returned ({outcome})"), content, tool)
            case "retry-prompt" | "retry-feedback":
                yield _part(cover, "system", "Sent back to the agent, to try differently", content, tool)
            case _:
                yield _other(cover, _text(kind) or "part", raw)


_RETURNED = {
    "": "The tool returned",
    "success": "The tool returned",
    "denied": "Not done: it was denied",
    "failed": "The tool failed",
    "retried": "The tool asked for another try",
    "interrupted": "The tool was cut off",
}


def _part(cover: Cover, voice: Voice, what: str, content: Json, tool: str = "") -> Part:
    """Words to read: letters of any script stand, what is invisible stands as its number."""
    return Part(voice, what, tool, letters.prose(cover.text(_words(content)).replace("\r\n", "\n")))


def _other(cover: Cover, kind: str, raw: Json) -> Part:
    return Part("system", f"Something else ({kind})", "", letters.visible(_dumped(cover.value(raw))))


def _exact(action: Mapping[str, Json]) -> str:
    """A call's arguments, exactly: what runs is not prose."""
    match masks.of(action).value(action["arguments"]):
        case {"": str(words)}:
            return letters.visible(words)
        case None:
            return letters.visible(_dumped({}))
        case arguments:
            return letters.visible(_dumped(arguments))


def _words(content: Json) -> str:
    if isinstance(content, str):
        return content
    items = cast("list[Json]", content) if isinstance(content, list) else []
    if items and all(isinstance(item, str) for item in items):
        return "\n".join(items)
    return _dumped(content)


def _dumped(value: Json) -> str:
    return json.dumps(value, ensure_ascii=False, indent=2)


def _tokens(message: Mapping[str, Json]) -> tuple[int, int] | None:
    usage = _mapping(message.get("usage"))
    counts = usage.get("input_tokens"), usage.get("output_tokens")
    return (counts[0], counts[1]) if isinstance(counts[0], int) and isinstance(counts[1], int) and any(counts) else None


def _at(message: Mapping[str, Json]) -> datetime | None:
    times = [message.get("timestamp")]
    if isinstance(message.get("parts"), list):
        times += [_mapping(part).get("timestamp") for part in cast("list[Json]", message["parts"])]
    for text in times:
        try:
            found = datetime.fromisoformat(text) if isinstance(text, str) else None
        except ValueError:
            continue
        if found is not None:
            return found if found.tzinfo else found.replace(tzinfo=UTC)
    return None


def _mapping(value: Json) -> Mapping[str, Json]:
    return cast("Mapping[str, Json]", value) if isinstance(value, dict) else {}


def _text(value: Json) -> str:
    return value if isinstance(value, str) else ""
