"""Folds: how a page draws a long block: its head and its tail, and between them a fold that says how much it holds.

All of it is on the page, the fold opens without a script, and whoever agrees says that they have read it too. JSON is
drawn as a tree, each object and list under the line that begins it, and a table in cells; no part of either is lost.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate, takewhile

from banksman import blocks
from banksman.blocks import Block, Line

LINES, CHARACTERS = 40, 4000
"""So much of a block is shown at once."""

_HEAD, _TAIL = (20, 2000), (10, 1000)


@dataclass(frozen=True, slots=True)
class Piece:
    """What is drawn in one go: a line or a part of one, a row of a table, or a JSON value with what it holds."""

    line: Line
    part: bool = False
    """Whether the line began in the piece before."""
    below: Sequence[Piece] = ()
    cells: Sequence[str] = ()

    @property
    def lines(self) -> int:
        """How many lines of the block it draws, a part counted as one."""
        return 1 + sum(item.lines for item in self.below)

    @property
    def characters(self) -> int:
        """How many characters of the block it draws."""
        return len(self.line.text) + sum(item.characters for item in self.below)


@dataclass(frozen=True, slots=True)
class Drawn:
    """A block as pieces; `between` is what is folded."""

    head: Sequence[Piece]
    between: Sequence[Piece] = ()
    tail: Sequence[Piece] = ()

    @property
    def lines(self) -> int:
        """How many lines are folded, whole or in part."""
        return sum(item.lines for item in self.between)

    @property
    def words(self) -> str:
        """How much is folded: “812 lines, 40,113 characters between”."""
        characters = sum(item.characters for item in self.between)
        return f"{blocks.count(self.lines, 'line')}, {blocks.count(characters, 'character')} between"


def drawn(block: Block) -> Drawn:
    """A block as its page draws it."""
    pieces = _pieces(block)
    if len(block.lines) <= LINES and sum(len(line.text) for line in block.lines) <= CHARACTERS:
        return Drawn(pieces)
    if block.form not in ("json", "table"):
        pieces = [part for piece in pieces for part in _parts(piece)]
    head = _fitting(pieces, *_HEAD)
    tail = len(pieces) - _fitting(pieces[head:][::-1], *_TAIL)
    return Drawn(_joined(pieces[:head]), _joined(pieces[head:tail]), _joined(pieces[tail:]))


def folded(shown: Sequence[Block]) -> int:
    """How many lines of these are folded: 0 where all of it is shown at once."""
    return sum(drawn(block).lines for block in shown)


def _pieces(block: Block) -> Sequence[Piece]:
    if block.form == "table":
        return [Piece(line, cells=row) for line, row in zip(block.lines[1:], block.rows[1:], strict=True)]
    if block.form != "json":
        return [Piece(line) for line in block.lines]
    [whole] = _tree(iter(block.lines))
    return [Piece(whole.line), *whole.below]


def _tree(lines: Iterator[Line]) -> Sequence[Piece]:
    """Lines of indented JSON: one that ends with a bracket holds those up to the one that closes it, which is last.

    No text ends so: it stands in quotes.
    """
    found: list[Piece] = []
    for line in lines:
        if line.text.endswith(("{", "[")):
            found.append(Piece(line, below=_tree(lines)))
        else:
            found.append(Piece(line))
            if line.text.lstrip().startswith(("}", "]")):
                break
    return found


_SOME = re.compile(r"(?:⟦[^⟧]*⟧|.){1,100}")


def _parts(piece: Piece) -> Iterator[Piece]:
    """A line in parts, so that the fold can begin within a long one; no spelled number is cut."""
    for place, text in enumerate(_SOME.findall(piece.line.text) or [""]):
        yield Piece(replace(piece.line, text=text), part=place > 0)


def _joined(pieces: Sequence[Piece]) -> Sequence[Piece]:
    """The parts of a line that stand together as one."""
    found: list[list[Piece]] = []
    for piece in pieces:
        if piece.part and found:
            found[-1].append(piece)
        else:
            found.append([piece])
    return [parts[0] if len(parts) == 1 else _one(parts) for parts in found]


def _one(parts: Sequence[Piece]) -> Piece:
    line = replace(parts[0].line, text="".join(part.line.text for part in parts))
    return replace(parts[0], line=line)


def _fitting(pieces: Sequence[Piece], lines: int, characters: int) -> int:
    """How many of the first of these fit."""
    begun = accumulate(item.lines - item.part for item in pieces)
    written = accumulate(item.characters for item in pieces)
    both = zip(begun, written, strict=True)
    return sum(1 for _ in takewhile(lambda now: now[0] <= lines and now[1] <= characters, both))
