"""The conversation of a run as appended snapshots: what is stored is folded on load, and only what is new is written.

The agent library merges and rewrites the last messages of a history, so a snapshot says how many messages of the ones
before it stay, and brings the rest. The cost of a snapshot does not grow with the conversation.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pydantic import TypeAdapter
from pydantic_ai.messages import ModelMessage, ModelMessagesTypeAdapter, ModelResponse, ToolCallPart

from banksman.digest import Json
from banksman.records import Snapshot

_MESSAGE: TypeAdapter[ModelMessage] = TypeAdapter(ModelMessage)
_UNSETTLED = 2
"""So many messages at the end of a history may still be changed in place."""


@dataclass(slots=True)
class Conversation:
    """What is stored of a run's conversation and state, and how the next snapshot differs from it."""

    messages: list[ModelMessage] = field(default_factory=list[ModelMessage])
    state: Mapping[str, Json] = field(default_factory=dict[str, Json])
    segment: int = -1
    """The segment that wrote the newest snapshot."""
    next_seq: int = 0
    _dumps: list[bytes | None] = field(default_factory=list[bytes | None])

    def difference(
        self, messages: Sequence[ModelMessage], state: Mapping[str, Json], *, segment: int
    ) -> Snapshot | None:
        """The snapshot that brings what is stored to this; None when nothing changed."""
        settled = max(0, len(self.messages) - _UNSETTLED)
        kept = 0
        while kept < min(settled, len(messages)) and messages[kept] is self.messages[kept]:
            kept += 1
        dumps: list[bytes] = []
        for index in range(kept, len(messages)):
            body = _MESSAGE.dump_json(messages[index])
            if not dumps and index < len(self.messages) and body == self._dump(index):
                kept += 1
            else:
                dumps.append(body)
        if not dumps and kept == len(self.messages) and state == self.state:
            return None
        body = b"[" + b",".join(dumps) + b"]"
        return Snapshot(self.next_seq, segment, kept, body, json.dumps(state).encode())

    def lacks(self, state: Mapping[str, Json]) -> bool:
        """Whether more than what the model has used is not in the newest snapshot: files, or todos."""
        return {**self.state, "usage": None} != {**state, "usage": None}

    def keep(self, messages: Sequence[ModelMessage], state: Mapping[str, Json], *, segment: int) -> None:
        """What `difference` gave has been stored."""
        self.messages = list(messages)
        self._dumps = [None] * max(0, len(messages) - _UNSETTLED) + [
            _MESSAGE.dump_json(message) for message in messages[-_UNSETTLED:]
        ]
        self.state = state
        self.segment = segment
        self.next_seq += 1

    def _dump(self, index: int) -> bytes:
        known = self._dumps[index] if index < len(self._dumps) else None
        return _MESSAGE.dump_json(self.messages[index]) if known is None else known


def fold(snapshots: Sequence[Snapshot]) -> Conversation:
    """The conversation behind a run's snapshots, which come in order."""
    found = Conversation()
    for snapshot in snapshots:
        del found.messages[snapshot.kept :]
        found.messages.extend(ModelMessagesTypeAdapter.validate_json(snapshot.messages))
        found.segment = snapshot.segment
    if snapshots:
        last = snapshots[-1]
        found.state = json.loads(last.state)
        found.next_seq = last.seq + 1
    return found


def step_of(messages: Sequence[ModelMessage]) -> int:
    """Which response of the model is being acted on: requests get merged in a history, responses never."""
    return sum(isinstance(message, ModelResponse) for message in messages)


def proposed(messages: Sequence[ModelMessage], call_id: str) -> str:
    """The fingerprint of a call as the model itself made it, whatever it is to run with."""
    call = _call(messages, call_id)
    return "" if call is None else fingerprint(call)


def written(messages: Sequence[ModelMessage], call_id: str) -> dict[str, Any]:
    """The arguments of a call as the model itself wrote them."""
    call = _call(messages, call_id)
    return {} if call is None else call.args_as_dict()


def _call(messages: Sequence[ModelMessage], call_id: str) -> ToolCallPart | None:
    parts = (part for item in reversed(messages) if isinstance(item, ModelResponse) for part in item.parts)
    return next((p for p in parts if isinstance(p, ToolCallPart) and p.tool_call_id == call_id), None)


def fingerprint(call: ToolCallPart) -> str:
    """The SHA-256 of a call's tool and argument text, in hex."""
    text = call.args if isinstance(call.args, str) else json.dumps(call.args, sort_keys=True)
    return hashlib.sha256(f"{call.tool_name}\0{text}".encode("utf-8", "surrogatepass")).hexdigest()


def said(messages: Sequence[ModelMessage]) -> str:
    """The agent's own words in its last response: a claim, to be shown as one."""
    response = next((item for item in reversed(messages) if isinstance(item, ModelResponse)), None)
    parts = [] if response is None else [part.content for part in response.parts if part.part_kind == "text"]
    return "\n\n".join(part for part in parts if part)
