"""The files a call refers to, and what each may hold when the call starts: part of what a person approves.

Who approves `sh backup.sh` approves the script they were shown. The script may also come from an earlier call of the
same turn that waits for approval too. Then either content is what was shown, the file as it is and the file as that
call would leave it, because whoever decides sees both calls; any other content is asked about again.
"""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import sha256
from posixpath import basename
from typing import cast

from banksman.digest import Json
from banksman.errors import InvalidInput
from banksman_worker.workspace import Workspace, normal

MAX_SHOWN = 64 * 1024
Hashes = list[str | None]
"""What a file may hold: SHA-256 in hex, or None for no file at all."""


class Operands:
    """The files of one run's workspace, as the calls of one turn refer to them and would change them."""

    def __init__(self, workspace: Workspace) -> None:
        self._workspace = workspace
        self._proposed: dict[str, list[bytes]] = {}

    def of(self, arguments: Mapping[str, Json]) -> dict[str, Json]:
        """The files that a call names, with what each may hold; a file that is not there and that no earlier call
        would write is no operand.
        """
        found: dict[str, Json] = {}
        for path in sorted(self._named(arguments)):
            hashes: Hashes = [self._hash(path), *(_hash_of(body) for body in self._proposed.get(path, [])[-1:])]
            if any(hashes):
                found[path] = cast("list[Json]", list(dict.fromkeys(hashes)))
        return found

    def now(self, recorded: Mapping[str, Json], arguments: Mapping[str, Json]) -> dict[str, Json]:
        """The operands of an approved call as they are now: as recorded, or where they changed, what is there. A file
        that the call names and that came into being since is one of them.
        """
        found: dict[str, Json] = {}
        for path in sorted({*recorded, *self._named(arguments)}):
            here = self._hash(path)
            if path in recorded:
                found[path] = recorded[path] if here in recorded[path] else [here]
            elif here is not None:
                found[path] = [here]
        return found

    def propose(self, tool: str, arguments: Mapping[str, Json]) -> None:
        """Remember what a file would hold once this call was approved."""
        path = arguments.get("path")
        target = _normal(path) if isinstance(path, str) else None
        if target is None:
            return
        match tool, arguments:
            case "write_file", {"content": str(content)}:
                self._proposed.setdefault(target, []).append(content.encode())
            case "edit_file", {"old_string": str(old), "new_string": str(new)}:
                times = -1 if arguments.get("replace_all") else 1
                before = self._content(target)
                if before is not None:
                    after = before.replace(old.encode(), new.encode(), times)
                    self._proposed.setdefault(target, []).append(after)
            case _:
                pass

    def shown(self, path: str) -> Json:
        """A file as its reviewer sees it: as earlier calls of the turn would leave it, and as it is (`before`)."""
        stored, proposed = self._stored(path), self._proposed.get(path)
        if proposed is None:
            return _readable(stored)
        return {**(_readable(proposed[-1]) or {}), "proposed": True, "before": _readable(stored)}

    def _named(self, arguments: Mapping[str, Json]) -> set[str]:
        """The paths that a call names: arguments that are paths, and in a command every file whose name occurs in it,
        because a shell has more ways to write a path than a parser of ours would know.
        """
        names = [
            value
            for name, value in arguments.items()
            if isinstance(value, str) and (name in ("path", "file_path") or value.startswith("/"))
        ]
        found = {path for path in map(_normal, names) if path is not None}
        command = arguments.get("command")
        if isinstance(command, str):
            found |= {path for path in (*self._workspace.manifest(), *self._proposed) if basename(path) in command}
        return found

    def _content(self, path: str) -> bytes | None:
        return self._proposed[path][-1] if path in self._proposed else self._stored(path)

    def _hash(self, path: str) -> str | None:
        body = self._stored(path)
        return None if body is None else _hash_of(body)

    def _stored(self, path: str) -> bytes | None:
        try:
            return self._workspace.read(path)
        except (OSError, InvalidInput):
            return None


def _readable(body: bytes | None) -> dict[str, Json] | None:
    """A content with its text, or its size alone when it is long or not text."""
    if body is None:
        return None
    text: str | None = None
    if len(body) <= MAX_SHOWN:
        try:
            text = body.decode()
        except UnicodeDecodeError:
            text = None
    return {"text": text, "size": len(body), "sha256": _hash_of(body)}


def _normal(name: str) -> str | None:
    try:
        return normal(name)
    except InvalidInput:
        return None


def _hash_of(body: bytes) -> str:
    return sha256(body).hexdigest()
