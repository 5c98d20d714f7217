"""A run's files, todos and uploads, kept in memory and known by the hash of each file's content.

One `Workspace` belongs to one run. It is handed to the agent with every segment
(`agent.run(..., workspace=workspace)`), so one agent object serves any number of runs at once and
none of them can see another's files. Every file tool of pydantic-deep reaches it through
`ctx.workspace`; so can an author's own tools.

It holds files only and offers no commands. That is on purpose: pydantic-deep's `grep` and `glob`
search with shell commands wherever a workspace runs commands, which would let two tools that
nobody has to approve read the worker's own disk. `execute` is a tool of ours (`execute.py`).

What survives the process is `manifest()` (path to SHA-256), the contents that the ledger does not
have yet (`changed_blobs`), and `state()`. `restore` builds the same workspace anywhere, and refuses
to build one with a hole in it.
"""

from __future__ import annotations

import posixpath
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from types import MappingProxyType
from typing import cast

from pydantic import JsonValue
from pydantic_ai.workspaces import FileEntry, SupportsFilesystem, WorkspaceBackend, WorkspaceRef

from banksman.errors import InvalidInput, NotFound

MAX_FILE_BYTES = 16 * 1024 * 1024
MAX_TOTAL_BYTES = 64 * 1024 * 1024
MAX_FILES = 5_000
_MAX_PATH = 1_024
_MAX_NAME = 255


@dataclass(frozen=True)
class Changes:
    """What happened to a workspace between two moments, as JSON-ready data."""

    written: Mapping[str, str]
    """Path to the SHA-256 of the new content, for files made or changed."""
    removed: Sequence[str]
    executable: Sequence[str] = ()
    """Which of the files that were written can be executed."""
    made: Sequence[str] = ()
    """Directories, as are the ones that went (`gone`)."""
    gone: Sequence[str] = ()

    def as_json(self) -> dict[str, JsonValue]:
        """What of it is not nothing, to be kept with a call's result."""
        found: dict[str, JsonValue] = {"written": dict(self.written)}
        found |= {name: list(getattr(self, name)) for name in ("removed", "executable", "made", "gone")}
        return {name: value for name, value in found.items() if value}

    @classmethod
    def from_json(cls, kept: Mapping[str, JsonValue]) -> Changes:
        """What `as_json` gave; nothing, where nothing was kept."""
        written = cast("Mapping[str, str]", kept.get("written") or {})
        return cls(written, *(_strings(kept.get(name)) for name in ("removed", "executable", "made", "gone")))


@dataclass(frozen=True)
class Mark:
    """How the files of a workspace stand at one moment."""

    files: Mapping[str, tuple[str, bool]]
    """Path to (SHA-256 of the content, executable)."""
    directories: frozenset[str]


@dataclass(frozen=True)
class _File:
    body: bytes
    hash: str
    executable: bool


class Workspace(WorkspaceBackend, SupportsFilesystem):
    """One run's files, todos and uploads."""

    def __init__(self, run_id: str) -> None:
        self.run_id = run_id
        self.todos: list[JsonValue] = []
        self.uploads: dict[str, JsonValue] = {}
        self._files: dict[str, _File] = {}
        self._directories: set[str] = set()
        self._total = 0

    # What is stored, and how it comes back.

    def manifest(self) -> dict[str, str]:
        """Every file's path and the SHA-256 of its content, in path order."""
        return {path: self._files[path].hash for path in sorted(self._files)}

    def changed_blobs(self, known: Iterable[str]) -> dict[str, bytes]:
        """The contents whose hashes are not among `known`, each once."""
        stored = frozenset(known)
        return {file.hash: file.body for file in self._files.values() if file.hash not in stored}

    def state(self) -> dict[str, JsonValue]:
        """What the manifest cannot say: todos, uploads, empty directories, executable files."""
        filled = {parent for path in self._files for parent in _parents(path)}
        return {
            "todos": list(self.todos),
            "uploads": dict(self.uploads),
            "directories": cast("JsonValue", sorted(self._directories - filled)),
            "executable": cast("JsonValue", [p for p in sorted(self._files) if self.executable(p)]),
        }

    @classmethod
    def restore(
        cls,
        run_id: str,
        manifest: Mapping[str, str],
        blobs: Mapping[str, bytes],
        state: Mapping[str, JsonValue] | None = None,
    ) -> Workspace:
        """The workspace as it was stored; a content that is missing or wrong is an error."""
        state = state or {}
        workspace = cls(run_id)
        executable = frozenset(_strings(state.get("executable")))
        for path, expected in manifest.items():
            body = blobs.get(expected)
            if body is None:
                raise NotFound(
                    f"The content of {path!r} of run {run_id} ({expected[:12]}…) is not stored, so"
                    " the run cannot go on: restore the blobs table from the same backup as the runs."
                )
            workspace.write(path, body, executable=path in executable)
            if workspace._files[path].hash != expected:
                raise NotFound(f"The stored content of {path!r} of run {run_id} is not what its manifest names.")
        for path in _strings(state.get("directories")):
            workspace.add_directory(path)
        todos, uploads = state.get("todos"), state.get("uploads")
        workspace.todos = list(todos) if isinstance(todos, list) else []
        workspace.uploads = dict(uploads) if isinstance(uploads, dict) else {}
        return workspace

    def mark(self) -> Mark:
        """How its files stand now, for `changes_since`."""
        files = {path: (file.hash, file.executable) for path, file in self._files.items()}
        return Mark(files, frozenset(self._directories))

    def changes_since(self, before: Mark) -> Changes:
        """What changed since the mark `before` was made."""
        now = self.mark()
        written = {path: now.files[path] for path in sorted(now.files) if before.files.get(path) != now.files[path]}
        return Changes(
            written={path: known for path, (known, _) in written.items()},
            removed=sorted(before.files.keys() - now.files),
            executable=[path for path, (_, executable) in written.items() if executable],
            made=sorted(now.directories - before.directories),
            gone=sorted(before.directories - now.directories),
        )

    def replay(self, changes: Changes, blobs: Mapping[str, bytes]) -> None:
        """Do recorded changes again, after a crash lost the memory that held them."""
        for path in changes.removed:
            self._files.pop(path, None)
        self._total = sum(len(file.body) for file in self._files.values())
        self._directories -= set(changes.gone)
        for path, expected in changes.written.items():
            if expected not in blobs:
                raise NotFound(f"The recorded content of {path!r} ({expected[:12]}…) is not stored.")
            self.write(path, blobs[expected], executable=path in changes.executable)
        for path in changes.made:
            self.add_directory(path)

    # Files, for code that has no event loop.

    def files(self) -> Mapping[str, bytes]:
        """Path to content, as it is now; later changes do not show in it."""
        return MappingProxyType({path: file.body for path, file in self._files.items()})

    def directories(self) -> frozenset[str]:
        """Every directory below the root, those that only hold files among them."""
        return frozenset(self._directories)

    def executable(self, path: str) -> bool:
        """Whether a command made the file at `path` executable."""
        return self._files[normal(path)].executable

    def read(self, path: str) -> bytes:
        path = normal(path)
        if path in self._files:
            return self._files[path].body
        if self._is_directory(path):
            raise IsADirectoryError(path)
        self._check_parents(path)
        raise FileNotFoundError(path)

    def write(self, path: str, body: bytes, *, executable: bool = False) -> None:
        """Store a file with its parent directories, within the limits of one run."""
        path = normal(path)
        if self._is_directory(path):
            raise IsADirectoryError(path)
        self._check_parents(path)
        old = self._files.get(path)
        total = self._total + len(body) - (len(old.body) if old else 0)
        check_limits(path, len(body), total=total, count=len(self._files) + (old is None))
        self._files[path] = _File(bytes(body), sha256(body).hexdigest(), executable)
        self._directories.update(_parents(path))
        self._total = total

    def delete(self, path: str) -> None:
        """Remove a file, or a directory and everything below it."""
        path = normal(path)
        if path == "/":
            raise ValueError("the workspace's root cannot be removed")
        if path not in self._files and path not in self._directories:
            self._check_parents(path)
            raise FileNotFoundError(path)
        below = path + "/"
        for stored in [p for p in self._files if p == path or p.startswith(below)]:
            self._total -= len(self._files.pop(stored).body)
        self._directories = {d for d in self._directories if d != path and not d.startswith(below)}

    def add_directory(self, path: str) -> None:
        """Make a directory and its parents; one that is there already is fine."""
        path = normal(path)
        if path in self._files:
            raise FileExistsError(path)
        self._check_parents(path)
        if path != "/":
            self._directories.update({path, *_parents(path)})

    # The protocol through which pydantic-ai's tools reach a workspace.

    @property
    def ref(self) -> WorkspaceRef:
        return WorkspaceRef(provider="banksman", id=self.run_id)

    async def working_dir(self) -> str:
        return "/"

    async def read_bytes(self, path: str) -> bytes:
        return self.read(path)

    async def write_bytes(self, path: str, data: bytes) -> None:
        old = self._files.get(normal(path))
        self.write(path, data, executable=old.executable if old else False)

    async def stat(self, path: str) -> FileEntry:
        path = normal(path)
        if self._is_directory(path):
            return FileEntry(name=posixpath.basename(path), path=path, is_dir=True, size=None)
        size = len(self.read(path))
        return FileEntry(name=posixpath.basename(path), path=path, is_dir=False, size=size)

    async def list_dir(self, path: str) -> Sequence[FileEntry]:
        path = normal(path)
        if not self._is_directory(path):
            self.read(path)
            raise NotADirectoryError(path)
        children = [p for p in (*self._files, *self._directories) if posixpath.dirname(p) == path]
        return [await self.stat(child) for child in sorted(children)]

    async def make_dir(self, path: str) -> None:
        self.add_directory(path)

    async def remove(self, path: str) -> None:
        self.delete(path)

    async def exists(self, path: str) -> bool:
        path = normal(path)
        return path in self._files or self._is_directory(path)

    async def realpath(self, path: str) -> str:
        return normal(path)

    def _is_directory(self, path: str) -> bool:
        return path == "/" or path in self._directories

    def _check_parents(self, path: str) -> None:
        for parent in _parents(path):
            if parent in self._files:
                raise NotADirectoryError(parent)


def normal(path: str) -> str:
    """`path` as the workspace stores it: absolute, and without `.`, `..` or doubled slashes."""
    if not path:
        raise InvalidInput("A path in the workspace cannot be empty.")
    if "\0" in path:
        raise InvalidInput(f"The path {path!r} contains a NUL character.")
    parts: list[str] = []
    for part in path.split("/"):
        if part in ("", "."):
            continue
        if part != "..":
            parts.append(part)
        elif parts:
            parts.pop()
        else:
            raise InvalidInput(f"The path {path!r} climbs out of the workspace.")
    try:
        sizes = [len(part.encode()) for part in parts]
    except UnicodeEncodeError:
        raise InvalidInput(f"The path {path!r} is not valid Unicode.") from None
    if max(sizes, default=0) > _MAX_NAME or sum(sizes) + len(sizes) > _MAX_PATH:
        raise InvalidInput(
            f"The path {path[:60]!r}… is too long: at most {_MAX_NAME} bytes for each name and {_MAX_PATH} in all."
        )
    return "/" + "/".join(parts)


def check_limits(path: str, size: int, *, total: int, count: int) -> None:
    """Refuse what a run's workspace may not hold, saying which limit it is."""
    if size > MAX_FILE_BYTES:
        raise InvalidInput(f"{path} is {_mib(size)}; a file may have {_mib(MAX_FILE_BYTES)}.")
    if total > MAX_TOTAL_BYTES:
        raise InvalidInput(
            f"With {path} the workspace would hold {_mib(total)}; a run may keep {_mib(MAX_TOTAL_BYTES)}."
        )
    if count > MAX_FILES:
        raise InvalidInput(f"With {path} the workspace would hold more than {MAX_FILES:,} files.")


def _parents(path: str) -> list[str]:
    parents: list[str] = []
    while (path := posixpath.dirname(path)) != "/":
        parents.append(path)
    return parents


def _strings(value: JsonValue) -> list[str]:
    return [item for item in value if isinstance(item, str)] if isinstance(value, list) else []


def _mib(size: int) -> str:
    return f"{size / (1024 * 1024):.1f} MiB"
