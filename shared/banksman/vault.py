"""`seal` and `open_sealed`: the one doorway through which content becomes bytes in PostgreSQL and comes back.

A sealed value is a version byte and a body. Version 0 is the body as it is. The row that a value belongs to is
part of every call, so that encryption bound to the row can arrive as version 1 without a migration.
"""

from __future__ import annotations

from uuid import UUID

from banksman.errors import NotGenuine

_PLAIN = b"\x00"

Row = tuple[str, *tuple[UUID | int | str, ...]]


def seal(body: bytes, row: Row) -> bytes:
    """Content → what is stored in `row`, named by column and key, as `("runs.prompt", run_id)`."""
    del row
    return _PLAIN + body


def open_sealed(stored: bytes, row: Row) -> bytes:
    """What is stored in `row` → content; an unknown version is refused."""
    if stored[:1] != _PLAIN:
        raise NotGenuine(f"{row[0]} of {row[1]} is sealed in a way this release cannot open.")
    return stored[1:]


def length(stored: int) -> int:
    """How many bytes of content a sealed value of `stored` bytes holds."""
    return stored - len(_PLAIN)
