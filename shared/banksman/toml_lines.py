"""Which line of a TOML text says what: `tomllib` reads values without their places, and people look for lines.

The text is scanned, not parsed: strings, comments and brackets are passed over, and what is left at the beginning of a
line is a header or a key. The values themselves always come from `tomllib`; a place that is not found is simply left
out, so a scan that errs costs a line number and nothing else.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

Path = tuple[str | int, ...]

_HEADER = re.compile(r"\s*(\[\[?)\s*([A-Za-z0-9_.\"' -]+?)\s*\]\]?")
_KEY = re.compile(r"\s*([A-Za-z0-9_.\"' -]+?)\s*=")
_PASSED = re.compile(r'"""(?:[^\\]|\\.)*?"""|\'\'\'.*?\'\'\'|"(?:[^"\\\n]|\\.)*"|\'[^\'\n]*\'|#[^\n]*', re.DOTALL)


def find(text: str) -> Mapping[Path, int]:
    """The line of every table and key, by its path: `("rule", 2, "tier")`."""
    found: dict[Path, int] = {}
    counts: dict[Path, int] = {}
    table: Path = ()
    depth = 0
    for number, line in enumerate(_without_content(text).split("\n"), 1):
        if depth == 0:
            header, key = _HEADER.match(line), _KEY.match(line)
            if header is not None:
                table = _table(header, counts)
                found.setdefault(table, number)
                continue
            if key is not None:
                found.setdefault((*table, *_names(key[1])), number)
        depth = max(0, depth + sum(line.count(c) for c in "[{") - sum(line.count(c) for c in "]}"))
    return found


def line_of(lines: Mapping[Path, int], path: Sequence[str | int]) -> int | None:
    """The line of what stands at a path, or of the closest thing around it."""
    wanted = tuple(path)
    while wanted:
        if wanted in lines:
            return lines[wanted]
        wanted = wanted[:-1]
    return None


def _without_content(text: str) -> str:
    """The same lines, with strings emptied (but for those that are keys) and comments gone."""

    def emptied(match: re.Match[str]) -> str:
        piece = match[0]
        if piece.startswith("#"):
            return ""
        if "\n" not in piece and re.match(r"\s*[=.\]]", match.string[match.end() :]):
            return piece
        return '""' + "\n" * piece.count("\n")

    return _PASSED.sub(emptied, text)


def _table(header: re.Match[str], counts: dict[Path, int]) -> Path:
    """The path of a table; each element of an array of tables is counted, and later headers mean the latest."""
    path: Path = ()
    names = _names(header[2])
    for place, name in enumerate(names):
        path = (*path, name)
        if place == len(names) - 1 and header[1] == "[[":
            counts[path] = counts.get(path, -1) + 1
        if path in counts:
            path = (*path, counts[path])
    return path


def _names(text: str) -> Path:
    return tuple(part.strip().strip("\"'") for part in text.split("."))
