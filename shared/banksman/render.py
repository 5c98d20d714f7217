"""Shows an action to a person, from its stored bytes alone, so that nothing in it can hide or pose as something else.

It allows instead of forbidding: printable ASCII and line breaks stand as they are, and every other code point, seen or
unseen, stands as its number, `⟦U+202E⟧`. The brackets themselves are not ASCII, so no text can imitate that spelling,
and two different actions never look alike. Nothing is cut, and no Markdown, HTML, template or terminal code is
interpreted. Pages, terminals, the API's `rendered` and the hash kept with a vote all come from here.

`prose` is for words that are only read and never run (reasons, names, what the agent says): there letters of any
script stand, and what is invisible or reorders text is still spelled out.
"""

from __future__ import annotations

import difflib
import hashlib
import json
import re
import unicodedata
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, cast

from banksman.digest import Json

version = "1"

Form = Literal["command", "file", "diff", "text", "json", "value"]

_COMMANDS = frozenset({"command", "cmd", "code", "query", "script", "sql"})
_PATHS = ("path", "file_path")
_INLINE = 120
_PLAIN_KEY = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]*")
_NOT_PLAIN = re.compile(r"[^\n -~]")
_NUMBERED = re.compile(r"⟦U\+([0-9A-F]{4,6})⟧")
_HASH = b"banksman/render/v1\0"

# Default_Ignorable_Code_Point of Unicode 16, and the blanks that are not in it: seen by nobody.
_IGNORABLE = re.compile(
    "[\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u202a-\u202e\u2060-\u206f\u2800\u3164"
    "\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufff8\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e0fff]"
)
_TURNS = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


@dataclass(frozen=True, slots=True)
class Line:
    """One line as it is shown: its number, whether a change keeps, removes or adds it, and its visible text."""

    number: int
    mark: Literal[" ", "-", "+"]
    text: str


@dataclass(frozen=True, slots=True)
class Block:
    """One part of an action, whole: a command, a file, a change, a text, a JSON value."""

    form: Form
    label: str
    lines: Sequence[Line]
    summary: str
    reading: str | None = None
    """The same words in their own script, when there are letters that the exact form spells as numbers."""


def visible(value: str) -> str:
    """Exact text: printable ASCII and line breaks, every other code point as its number."""
    return _NOT_PLAIN.sub(lambda found: _number(found[0]), value)


def line(value: str) -> str:
    """Exact text on one line: a line break is a number too. For names, paths and ids."""
    return visible(value).replace("\n", _number("\n"))


def prose(value: str) -> str:
    """Words to be read: letters, marks and symbols of any script stand; the invisible is spelled as its number."""
    return "".join(letter if _is_seen(letter) else _number(letter) for letter in value)


def pieces(shown: str) -> Iterator[tuple[bool, str]]:
    """Shown text cut into (spelled as numbers?, text), for a page that sets the numbers apart."""
    at = 0
    for found in re.finditer(r"(?:⟦U\+[0-9A-F]{4,6}⟧)+", shown):
        if found.start() > at:
            yield False, shown[at : found.start()]
        yield True, found[0]
        at = found.end()
    if at < len(shown):
        yield False, shown[at:]


def blocks(action: Mapping[str, Json], context: Mapping[str, Json]) -> Sequence[Block]:
    """The action in full, part by part, in the order in which a reviewer reads it."""
    arguments = cast("Mapping[str, Json]", action.get("arguments") or {})
    found: list[Block] = []
    taken: set[str] = set()
    for shown, names in _special(str(action.get("tool", "")), arguments, context):
        found.append(shown)
        taken.update(names)
    found += [_argument(name, arguments[name]) for name in sorted(arguments) if name not in taken]
    operands = cast("Mapping[str, Json]", action.get("operands") or {})
    if operands:
        found.append(_json("(files that it refers to, by SHA-256)", operands))
        found += _operands(str(action.get("tool", "")), operands, context)
    if context.get("options"):
        found.append(_json("(answers to choose from)", context["options"]))
    return found


def whole(form: Form, label: str, value: str) -> Block:
    """A text as a block of its own, every line of it."""
    parts = value.split("\n")
    ended = len(parts) > 1 and not parts[-1]
    if ended:
        parts.pop()
    lines = [Line(number, " ", visible(item)) for number, item in enumerate(parts, 1)]
    size = _count(len(value.encode("utf-8", "surrogatepass")), "byte")
    summary = f"{_count(len(lines), 'line')}, {size}{', ends with a line break' if ended else ''}"
    return Block(form, label, lines, summary, _reading(value))


def text(action: Mapping[str, Json], context: Mapping[str, Json]) -> str:
    """The action in full as plain text, for terminals and programs; what `hash` is taken over."""
    out = [f"tool: {line(str(action.get('tool', '')))}"]
    for block in blocks(action, context):
        if block.form == "value":
            out.append(f"{block.label}: {block.lines[0].text}")
            continue
        out.append(f"{block.label} ({block.form}, {block.summary})")
        out += [f"{item.number:>5} {item.mark}| {item.text}" for item in block.lines]
        if block.reading is not None:
            out.append("  in its own script, where look-alikes are possible:")
            out += [f"      > {words}" for words in block.reading.split("\n")]
    out += [f"warning: {warning}" for warning in suspicious(action, context)]
    return "\n".join(out) + "\n"


def hash(action: Mapping[str, Json], context: Mapping[str, Json]) -> bytes:  # noqa: A001  called as render.hash
    """What was shown, as a hash to keep with the vote; the renderer's version is part of it."""
    return hashlib.sha256(_HASH + version.encode() + b"\0" + text(action, context).encode()).digest()


def suspicious(action: Mapping[str, Json], context: Mapping[str, Json]) -> list[str]:
    """What a reviewer should know about the text itself: hidden or foreign characters, padding, long lines."""
    found: list[str] = []
    arguments = cast("Mapping[str, Json]", action.get("arguments") or {})
    for name, value in sorted(arguments.items()):
        label = _label(name)
        texts = [name, *_strings(value)]
        found += [f"{label}: {warning}" for warning in _letters("".join(texts))]
        found += [f"{label}: {warning}" for warning in _padding(texts)]
    missing = _not_in_file(arguments, context)
    return [*found, missing] if missing else found


def _special(
    tool: str, arguments: Mapping[str, Json], context: Mapping[str, Json]
) -> Iterator[tuple[Block, Sequence[str]]]:
    """Arguments that have a shape of their own: a whole file, a change to one, a command."""
    path_name = next((name for name in _PATHS if isinstance(arguments.get(name), str)), None)
    if path_name is not None and tool in {"write_file", "edit_file"}:
        path = cast("str", arguments[path_name])
        before = _file(context, path)
        yield _argument(path_name, path), [path_name]
        match arguments:
            case {"content": str(content)} if tool == "write_file":
                yield whole("file", "content", content), ["content"]
                if before is not None:
                    yield _diff("(what changes in the file as it is now)", before, content), []
            case {"old_string": str(old), "new_string": str(new)} if tool == "edit_file":
                yield _diff("old_string to new_string", old, new), ["old_string", "new_string"]
            case _:
                pass
    for name in sorted(_COMMANDS & arguments.keys()):
        if isinstance(arguments[name], str):
            yield whole("command", _label(name), arguments[name]), [name]


def _operands(tool: str, operands: Mapping[str, Json], context: Mapping[str, Json]) -> Iterator[Block]:
    """What stands in the files that a call refers to: a script that is run is read before it is approved."""
    files = cast("Mapping[str, Mapping[str, Json]]", context.get("files") or {})
    for path in () if tool in {"write_file", "edit_file"} else sorted(operands):
        hashes = cast("list[Json]", operands[path])
        found = files.get(path) or {}
        before = cast("Mapping[str, Json]", found.get("before") or {})
        proposed = "as it will be once the other call of this turn is approved"
        yield from _content(path, found, hashes, proposed if found.get("proposed") else "as it will be used")
        yield from _content(path, before, hashes, "as it is now, and stays if that call is denied")


def _content(path: str, found: Mapping[str, Json], hashes: list[Json], note: str) -> Iterator[Block]:
    """One content that a file may have when the call starts, if it is text that can be shown."""
    content = found.get("text")
    if isinstance(content, str):
        if hashlib.sha256(content.encode("utf-8", "surrogatepass")).hexdigest() not in hashes:
            note = "is not what the approval would cover: something changed these rows"
        yield whole("file", f"(file {_label(path)} {note})", content)
    elif found:
        size = _count(int(found.get("size") or 0), "byte")
        yield whole("value", f"(file {_label(path)} {note})", f"NOT SHOWN: {size}, too long for this page or not text")


def _argument(name: str, value: Json) -> Block:
    label = _label(name)
    if isinstance(value, str) and ("\n" in value or len(value) > _INLINE):
        return whole("text", label, value)
    if isinstance(value, dict | list) and value:
        return _json(label, value)
    return Block("value", label, [Line(1, " ", _dumped(value))], "", _reading(value))


def _json(label: str, value: Json) -> Block:
    shown = _dumped(value, indent=2)
    lines = [Line(number, " ", item) for number, item in enumerate(shown.split("\n"), 1)]
    return Block("json", label, lines, _count(len(lines), "line"), None)


def _diff(label: str, old: str, new: str) -> Block:
    before, after = old.split("\n"), new.split("\n")
    lines: list[Line] = []
    for step, b1, b2, a1, a2 in _steps(before, after):
        if step == "equal":
            lines += [Line(number + 1, " ", visible(after[number])) for number in range(a1, a2)]
        else:
            lines += [Line(number + 1, "-", visible(before[number])) for number in range(b1, b2)]
            lines += [Line(number + 1, "+", visible(after[number])) for number in range(a1, a2)]
    removed = sum(item.mark == "-" for item in lines)
    added = sum(item.mark == "+" for item in lines)
    summary = f"{_count(removed, 'line')} removed, {_count(added, 'line')} added, {len(lines) - removed - added} kept"
    return Block("diff", label, lines, summary, None)


def changes(before: Mapping[str, Json], now: Mapping[str, Json]) -> Sequence[Block]:
    """What differs between a call as it was approved and as it is asked again: each as what is gone and what is new."""
    found = [
        _diff(f"({words})", _raw(before.get(name), indent=2), _raw(now.get(name), indent=2))
        for name, words in _MAY_CHANGE.items()
        if name in before and _dumped(before.get(name)) != _dumped(now.get(name))
    ]
    paths: set[str] = {
        *cast("dict[str, Json]", before.get("files") or {}),
        *cast("dict[str, Json]", now.get("files") or {}),
    }
    for path in sorted(paths):
        old, new = _file(before, path), _file(now, path)
        if old != new:
            found.append(_diff(f"(file {_label(path)})", old or "", new or ""))
    return found


def edited(before: Mapping[str, Json], now: Mapping[str, Json]) -> Sequence[Block]:
    """What a person changed of a call's arguments, one by one: each as what is gone and what is new."""
    found: list[Block] = []
    for name in sorted({*before, *now}):
        old, new = (_lines(name, side) for side in (before, now))
        if old != new:
            both = all(isinstance(side.get(name), str) and "\n" in side[name] for side in (before, now))
            found.append(_diff(_label(name), *((before[name], now[name]) if both else (old, new))))
    return found


def _lines(name: str, arguments: Mapping[str, Json]) -> str:
    return _raw(arguments[name], indent=2) if name in arguments else "(left out)"


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


def _file(context: Mapping[str, Json], path: str) -> str | None:
    files = cast("Mapping[str, Mapping[str, Json]]", context.get("files") or {})
    found = files.get(path)
    content = found.get("text") if found else None
    return content if isinstance(content, str) else None


def _not_in_file(arguments: Mapping[str, Json], context: Mapping[str, Json]) -> str | None:
    match arguments:
        case {"path": str(path), "old_string": str(old), "new_string": str()}:
            before = _file(context, path)
        case _:
            return None
    if before is None or not old:
        return None
    times = before.count(old)
    if times == 1 or (times and arguments.get("replace_all")):
        return None
    if times:
        return f"The text to replace stands {times} times in the file, so the tool will refuse the change."
    return "The text to replace is not in the file as it was when this was asked."


def _letters(value: str) -> Iterator[str]:
    odd = Counter(_NOT_PLAIN.findall(value.replace("\t", "")))
    groups: dict[str, Counter[str]] = {}
    for letter, times in odd.items():
        groups.setdefault(_group(letter), Counter())[letter] = times
    for group in (_TURNING, _HIDDEN, _CONTROL, _FOREIGN):
        if found := groups.get(group):
            named = ", ".join(f"{_name(letter)} × {times}" for letter, times in found.most_common(4))
            more = f" and {len(found) - 4} others" if len(found) > 4 else ""
            yield f"{group}: {named}{more}."


_TURNING = "the direction of writing is changed, so that plain text would look different from what it is"
_HIDDEN = "there are characters that nobody can see"
_CONTROL = "there are characters that control a terminal and are not text"
_FOREIGN = "letters outside plain ASCII are shown by number, because look-alikes exist"


def _group(letter: str) -> str:
    if letter in _TURNS:
        return _TURNING
    if _is_seen(letter):
        return _FOREIGN
    return _CONTROL if unicodedata.category(letter) == "Cc" else _HIDDEN


def _padding(texts: Sequence[str]) -> Iterator[str]:
    if any(re.search(r"\n(?:[ \t\r]*\n){20}", value) for value in texts):
        yield "more than 20 empty lines in a row; look at what stands below them."
    if any(" " * 60 in value for value in texts):
        yield "more than 60 spaces in a row; look at what stands to their right."
    longest = max((len(part) for value in texts for part in value.split("\n")), default=0)
    if longest > 1000:
        yield f"a line of {longest:,} characters; it is wrapped, and its number stands only at its start."


def _strings(value: Json) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for key, item in cast("dict[str, Json]", value).items():
            yield key
            yield from _strings(item)
    elif isinstance(value, list):
        for item in cast("list[Json]", value):
            yield from _strings(item)


def _reading(value: Json) -> str | None:
    if not isinstance(value, str) or not any(ord(letter) > 127 and letter.isalpha() for letter in value):
        return None
    return prose(value)


def _is_seen(letter: str) -> bool:
    if letter in " \n" or "!" <= letter <= "~":
        return True
    return unicodedata.category(letter)[0] in "LMNPS" and letter not in "⟦⟧" and not _IGNORABLE.match(letter)


def _label(name: str) -> str:
    return name if _PLAIN_KEY.fullmatch(name) else _dumped(name)


def _dumped(value: Json, *, indent: int | None = None) -> str:
    return visible(_raw(value, indent=indent))


def _raw(value: Json, *, indent: int | None = None) -> str:
    return json.dumps(value, ensure_ascii=False, indent=indent, sort_keys=True)


def _number(letter: str) -> str:
    return f"⟦U+{ord(letter):04X}⟧"


def _name(letter: str) -> str:
    name = unicodedata.name(letter, "") or _CONTROL_NAMES.get(letter, "")
    return f"U+{ord(letter):04X} {name}".rstrip()


_CONTROL_NAMES = {
    "\t": "TAB",
    "\r": "CARRIAGE RETURN",
    "\b": "BACKSPACE",
    "\x1b": "ESCAPE",
    "\x7f": "DELETE",
    "\0": "NULL",
}


def _count(number: int, word: str) -> str:
    return f"{number:,} {word}{'' if number == 1 else 's'}"
