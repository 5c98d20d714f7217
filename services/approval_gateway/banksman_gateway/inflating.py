"""Bodies sent with `Content-Encoding: gzip`, inflated as they arrive and never past a bound."""

from __future__ import annotations

import zlib
from collections.abc import Iterator

from starlette.exceptions import HTTPException

from banksman.errors import InvalidInput

_GZIP = 16 + zlib.MAX_WBITS
_AT_ONCE = 256 * 1024


class Plain:
    """A body that was sent as it is."""

    def feed(self, chunk: bytes) -> Iterator[bytes]:
        """What the next part of the body holds."""
        yield chunk

    def end(self) -> None:
        """The body is over."""


class Inflating:
    """A body of one or more gzip members after each other."""

    def __init__(self, most: int) -> None:
        self._left = most
        self._most = most
        self._member = zlib.decompressobj(_GZIP)
        self._begun = False

    def feed(self, chunk: bytes) -> Iterator[bytes]:
        """What the next part of the body inflates to, some at a time; 413 past the bound."""
        full = False  # then there may be more to come out, though nothing is left to go in
        while chunk or full:
            if self._member.eof:
                self._member = zlib.decompressobj(_GZIP)
            self._begun = True
            try:
                part = self._member.decompress(chunk, _AT_ONCE)
            except zlib.error as error:
                raise InvalidInput(f"The body is not gzip, as its Content-Encoding says: {error}.") from None
            self._left -= len(part)
            if self._left < 0:
                raise HTTPException(413, f"A body may inflate to {self._most:,} bytes.")
            full = len(part) == _AT_ONCE and not self._member.eof
            if part:
                yield part
            chunk = self._member.unused_data if self._member.eof else self._member.unconsumed_tail

    def end(self) -> None:
        """The body is over: `InvalidInput` if its last member is not."""
        if not self._begun or not self._member.eof:
            raise InvalidInput("The gzip body breaks off in the middle: send all of it.")


def of(encoding: str | None, *, most: int) -> Plain | Inflating:
    """How to read a body with this `Content-Encoding`; 415 for one that is not read here."""
    said = (encoding or "identity").strip().lower()
    if said == "identity":
        return Plain()
    if said in ("gzip", "x-gzip"):
        return Inflating(most)
    raise HTTPException(415, f"Content-Encoding {said[:50]!r} is not read here: send gzip, or the body as it is.")
