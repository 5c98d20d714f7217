"""Shows an action to a person, from its stored bytes alone, so that nothing in it can hide or pose as something else.

Nothing is cut, and no Markdown, HTML, template or terminal code is interpreted; `letters` says what stands as it is,
and `masks` what is covered because it is secret.
Pages, terminals, the API's `rendered` and the hash kept with a vote all come from here.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import cast

from banksman import blocks as parts
from banksman import diffs, letters, masks, suspicion
from banksman.blocks import Block
from banksman.digest import Json
from banksman.masks import Cover, Secret

version = "4"

_COMMANDS = frozenset({"command", "cmd", "code", "query", "script", "sql"})
_PATHS = ("path", "file_path")
_HASH = b"banksman/render/v1\0"


@dataclass(frozen=True, slots=True)
class Rendering:
    """An action as a reviewer is shown it, part by part in the order of reading; secrets are covered."""

    tool: str
    blocks: Sequence[Block]
    secrets: Sequence[Secret]
    """What is covered in the blocks, each secret once."""
    warnings: Sequence[str]
    """What a reviewer should know about the text itself: hidden or foreign characters, padding, long lines."""

    @property
    def text(self) -> str:
        """The action in full as plain text, for terminals and programs; what `hash` is taken over."""
        out = [f"tool: {letters.line(self.tool)}"]
        for block in self.blocks:
            if block.form == "value":
                out.append(f"{block.label}: {block.lines[0].text}")
                continue
            out.append(f"{block.label} ({block.form}, {block.summary})")
            out += [f"{item.number:>5} {item.mark}| {item.text}" for item in block.lines]
            if block.reading is not None:
                out.append("  in its own script, where look-alikes are possible:")
                out += [f"      > {words}" for words in block.reading.split("\n")]
        out += [f"warning: {warning}" for warning in self.warnings]
        return "\n".join(out) + "\n"

    @property
    def hash(self) -> bytes:
        """What was shown, as a hash to keep with the vote; the renderer's version is part of it."""
        return hashlib.sha256(_HASH + version.encode() + b"\0" + self.text.encode()).digest()


def of(action: Mapping[str, Json], context: Mapping[str, Json]) -> Rendering:
    """The action in full."""
    cover = masks.of(action)
    blocks = _blocks(action, context, cover)
    return Rendering(str(action.get("tool", "")), blocks, list(cover.found.values()), _warnings(action, context))


def _blocks(action: Mapping[str, Json], context: Mapping[str, Json], cover: Cover) -> Sequence[Block]:
    arguments = cast("Mapping[str, Json]", cover.value(action.get("arguments") or {}))
    found: list[Block] = []
    taken: set[str] = set()
    for shown, names in _special(str(action.get("tool", "")), arguments, context, cover):
        found.append(shown)
        taken.update(names)
    found += [parts.of_argument(name, arguments[name]) for name in sorted(arguments) if name not in taken]
    operands = cast("Mapping[str, Json]", action.get("operands") or {})
    if operands:
        found.append(parts.of_json("(files that it refers to, by SHA-256)", cover.value(operands)))
        found += _operands(str(action.get("tool", "")), operands, context, cover)
    if context.get("options"):
        found.append(parts.of_json("(answers to choose from)", cover.value(context["options"])))
    return found


def _warnings(action: Mapping[str, Json], context: Mapping[str, Json]) -> list[str]:
    arguments = cast("Mapping[str, Json]", action.get("arguments") or {})
    found = [
        f"{parts.label(masks.Cover().text(name))}: {said}"
        for name in sorted(arguments)
        for said in suspicion.of(name, arguments[name])
    ]
    missing = _not_in_file(arguments, context)
    return [*found, missing] if missing else found


def _special(
    tool: str, arguments: Mapping[str, Json], context: Mapping[str, Json], cover: Cover
) -> Iterator[tuple[Block, Sequence[str]]]:
    """Arguments that have a shape of their own: a whole file, a change to one, a command."""
    path_name = next((name for name in _PATHS if isinstance(arguments.get(name), str)), None)
    if path_name is not None and tool in {"write_file", "edit_file"}:
        path = cast("str", arguments[path_name])
        before = diffs.file_of(context, path)
        before = None if before is None else cover.text(before, path)
        yield parts.of_argument(path_name, path), [path_name]
        match arguments:
            case {"content": str(content)} if tool == "write_file":
                yield parts.whole("file", "content", content), ["content"]
                if before is not None:
                    yield diffs.diff("(what changes in the file as it is now)", before, content), []
            case {"old_string": str(old), "new_string": str(new)} if tool == "edit_file":
                yield diffs.diff("old_string to new_string", old, new), ["old_string", "new_string"]
            case _:
                pass
    for name in sorted(_COMMANDS & arguments.keys()):
        if isinstance(arguments[name], str):
            yield parts.whole("command", parts.label(name), arguments[name]), [name]


def _operands(tool: str, operands: Mapping[str, Json], context: Mapping[str, Json], cover: Cover) -> Iterator[Block]:
    """What stands in the files that a call refers to: a script that is run is read before it is approved."""
    files = cast("Mapping[str, Mapping[str, Json]]", context.get("files") or {})
    for path in () if tool in {"write_file", "edit_file"} else sorted(operands):
        hashes = cast("list[Json]", operands[path])
        found = files.get(path) or {}
        before = cast("Mapping[str, Json]", found.get("before") or {})
        proposed = "as it will be once the other call of this turn is approved"
        yield from _content(path, found, hashes, proposed if found.get("proposed") else "as it will be used", cover)
        yield from _content(path, before, hashes, "as it is now, and stays if that call is denied", cover)


def _content(path: str, found: Mapping[str, Json], hashes: list[Json], note: str, cover: Cover) -> Iterator[Block]:
    """One content that a file may have when the call starts, if it is text that can be shown."""
    content = found.get("text")
    if isinstance(content, str):
        if hashlib.sha256(content.encode("utf-8", "surrogatepass")).hexdigest() not in hashes:
            note = "is not what the approval would cover: something changed these rows"
        yield parts.whole("file", f"(file {parts.label(cover.text(path))} {note})", cover.text(content, path))
    elif found:
        size = parts.count(int(found.get("size") or 0), "byte")
        yield parts.whole(
            "value",
            f"(file {parts.label(cover.text(path))} {note})",
            f"NOT SHOWN: {size}, too long for this page or not text",
        )


def _not_in_file(arguments: Mapping[str, Json], context: Mapping[str, Json]) -> str | None:
    match arguments:
        case {"path": str(path), "old_string": str(old), "new_string": str()}:
            before = diffs.file_of(context, path)
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
