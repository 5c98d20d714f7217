"""Server-sent events, put together from the lines of a stream."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

Json = Any


@dataclass(frozen=True, slots=True)
class Event:
    """One server-sent event: its cursor, its name and its data."""

    id: str
    name: str
    data: Mapping[str, Json]


class EventReader:
    """Puts the lines of a stream together to events, and remembers where to go on after a break."""

    def __init__(self, after: str | None = None) -> None:
        self.last = after
        self.restart()

    def restart(self) -> None:
        """Forget what a broken connection had begun to say: it comes again after `last`."""
        self._id = self.last
        self._name = "message"
        self._data: list[str] = []

    def feed(self, line: str) -> Event | None:
        """The event that this line completes, if it does."""
        if line:
            name, _, value = line.partition(":")
            value = value.removeprefix(" ")
            match name:
                case "id":
                    self._id = value
                case "event":
                    self._name = value
                case "data":
                    self._data.append(value)
                case _:
                    pass
            return None
        self.last = self._id
        name, data, self._name, self._data = self._name, "\n".join(self._data), "message", []
        if not data:
            return None
        try:
            parsed: Json = json.loads(data)
        except ValueError:
            return None
        content = cast("dict[str, Json]", parsed) if isinstance(parsed, dict) else {"value": parsed}
        return Event(self.last or "", name, content)
