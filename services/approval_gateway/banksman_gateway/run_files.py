"""The files of a run as people read them: each with what the run made of it, and what it changed, line by line."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from banksman import blocks, diffs
from banksman.digest import Json
from banksman.ids import RunId
from banksman.ledger import Connection, snapshots, views
from banksman.masks import Cover
from banksman.records import Snapshot

MOST_EACH = 256 * 1024
MOST_TOGETHER = 1024 * 1024
"""Bytes of a file, and of all files and what they were, that a page shows; of the others it shows the size."""

Fate = Literal["made", "changed", "untouched", "removed"]


@dataclass(frozen=True, slots=True)
class File:
    """One file: what became of it, its size now (what it was, where it is gone), and its text where that is shown."""

    path: str
    fate: Fate
    size: int
    versions: int
    """How many contents the run's snapshots know of it."""
    now: blocks.Block | None
    changes: Sequence[blocks.Block]
    """From what it was at first to what it is now."""


def read(conn: Connection, run_id: RunId, kept: Sequence[Snapshot], cover: Cover) -> Sequence[File]:
    """Every file that the run has or had, by path, under the run's cover. The first snapshot is what it was given."""
    manifests = [_manifest(snapshot) for snapshot in kept]
    if not manifests:
        return []
    given, now = manifests[0], manifests[-1]
    versions: dict[str, list[str]] = {}
    for manifest in manifests:
        for path, name in manifest.items():
            known = versions.setdefault(path, [])
            if not known or known[-1] != name:
                known.append(name)
    sizes = views.sizes(conn, run_id, {name for names in versions.values() for name in (names[0], names[-1])})
    texts = _texts(conn, run_id, versions, sizes)
    found: list[File] = []
    for path, names in sorted(versions.items()):
        old, new = texts.get(names[0]), texts.get(names[-1]) if path in now else ""
        fate: Fate = (
            "removed" if path not in now else "made" if path not in given else "changed" if names[1:] else "untouched"
        )
        differs = old is not None and new is not None and old != new
        found.append(
            File(
                path=path,
                fate=fate,
                size=sizes.get(names[-1], 0),
                versions=len(names),
                now=None if new is None or fate == "removed" else blocks.whole("file", path, cover.text(new)),
                changes=diffs.changes(_as_file(path, old, cover), _as_file(path, new, cover)) if differs else [],
            )
        )
    return found


def _as_file(path: str, text: str | None, cover: Cover) -> Mapping[str, Json]:
    return {"files": {path: {"text": None if text is None else cover.text(text)}}}


def _texts(
    conn: Connection, run_id: RunId, versions: Mapping[str, Sequence[str]], sizes: Mapping[str, int]
) -> Mapping[str, str]:
    """Content by its SHA-256 where it is text, and small enough beside those before it."""
    wanted: list[str] = []
    room = MOST_TOGETHER
    for _, names in sorted(versions.items()):
        for name in dict.fromkeys((names[-1], names[0])):
            size = sizes.get(name, MOST_EACH + 1)
            if name not in wanted and size <= min(MOST_EACH, room):
                wanted.append(name)
                room -= size
    found: dict[str, str] = {}
    for name, body in snapshots.blobs(conn, run_id, wanted).items():
        try:
            found[name] = body.decode()
        except UnicodeDecodeError:
            continue
    return found


def _manifest(snapshot: Snapshot) -> Mapping[str, str]:
    return json.loads(snapshot.state).get("workspace") or {}
