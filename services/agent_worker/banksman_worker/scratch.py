"""The private directory a command runs in: made, filled from the workspace, and read back.

When the worker is root, commands run as `nobody`, and each with a group that no other command has
at that moment. The directory can be entered by that group alone, so one run's command can neither
read another run's files nor plant something where the worker is about to write. (Being one user,
commands could still stop each other.) The group is also how every process of a command is found.

What comes back is read without following a single link, since the command may have planted some:
each name is opened relative to its opened parent, and only regular files and directories that
belong to the command's own user are taken.

A directory is locked while in use. One that a killed worker left behind is emptied and used again.
"""

from __future__ import annotations

import fcntl
import os
import pwd
import secrets
import shutil
import stat
import tempfile
from collections.abc import Generator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from banksman.errors import BanksmanError, ConfigurationError, InvalidInput
from banksman_worker.workspace import check_limits, normal

_PREFIX = "banksman-execute-"
_GROUPS = range(61_100, 62_100)
"""Ids below those that systemd hands out, and within the 65,536 that rootless containers map."""


@dataclass(frozen=True)
class User:
    uid: int
    gid: int


@dataclass(frozen=True)
class Place:
    """Where a command runs, and as whom: None is the worker's own user."""

    root: Path
    user: User | None


@dataclass(frozen=True)
class Layout:
    """The files and directories of a workspace, as a command finds them."""

    files: Mapping[str, bytes]
    executable: frozenset[str]
    directories: frozenset[str]


@contextmanager
def private_directory() -> Generator[Place]:
    """An empty directory of mode 0700, removed at the end with all that is in it."""
    uid = _nobody() if os.geteuid() == 0 else None
    places = (tempfile.gettempdir(), "/tmp", "/var/tmp")  # noqa: S108  names are claimed with a lock
    parent = next((place for place in places if _usable(place, passable=uid is not None)), None)
    if parent is None:
        raise ConfigurationError(
            "No temporary directory can be entered by the user that commands run as: make every"
            f" directory above {tempfile.gettempdir()} passable (o+x), or set TMPDIR to another."
        )
    # The command's directory lies inside one of ours, so that it cannot put a link in its place.
    _remove_left(Path(parent).resolve())
    outer, gid, lock = _claim(Path(parent).resolve())
    try:
        root = outer / "workspace"
        root.mkdir(mode=0o700)
        if uid is not None:
            os.chown(root, uid, gid)
            os.chown(outer, 0, gid)
            outer.chmod(0o710)
        yield Place(root, None if uid is None else User(uid, gid))
    finally:
        _clear(outer)
        with suppress(OSError):
            outer.rmdir()
        os.close(lock)


def _nobody() -> int:
    try:
        return pwd.getpwnam("nobody").pw_uid
    except KeyError:
        raise ConfigurationError(
            "The worker runs as root and the machine has no user 'nobody' to run commands as:"
            " create it, or run the worker as an ordinary user."
        ) from None


def _claim(parent: Path) -> tuple[Path, int, int]:
    """A directory that nobody else uses now, the group that its number names, and its lock."""
    first = secrets.randbelow(len(_GROUPS))
    for gid in (*_GROUPS[first:], *_GROUPS[:first]):
        outer = parent / f"{_PREFIX}{os.geteuid()}-{gid}"
        with suppress(FileExistsError):
            outer.mkdir(mode=0o700)
        lock = _lock(outer)
        if lock is not None:
            _clear(outer)
            return outer, gid, lock
    raise BanksmanError(f"All {len(_GROUPS)} places for commands below {parent} are in use.")


def _lock(outer: Path) -> int | None:
    """The lock of one of our directories, or None when somebody else has it."""
    try:
        lock = os.open(outer, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except OSError:
        return None
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # It may have been removed, or have been somebody else's all along.
        ours = os.fstat(lock).st_uid == os.geteuid() and outer.samefile(f"/dev/fd/{lock}")
    except OSError:
        ours = False
    if not ours:
        os.close(lock)
    return lock if ours else None


def _remove_left(parent: Path) -> None:
    """Remove what workers left that were killed: files of their runs, which nobody else would clear away."""
    for outer in parent.glob(f"{_PREFIX}{os.geteuid()}-*"):
        lock = _lock(outer)
        if lock is not None:
            _clear(outer)
            with suppress(OSError):
                outer.rmdir()
            os.close(lock)


def _clear(outer: Path) -> None:
    """Empty `outer`, also of directories that the command made unwritable for us."""
    for place, names, _ in os.walk(outer):
        for name in names:
            path = Path(place, name)
            if not path.is_symlink():
                with suppress(OSError):
                    path.chmod(stat.S_IRWXU)
    shutil.rmtree(outer / "workspace", ignore_errors=True)


def _usable(place: str, *, passable: bool) -> bool:
    path = Path(place).resolve()
    if not path.is_dir() or not os.access(path, os.W_OK | os.X_OK):
        return False
    above = (path, *path.parents)
    return not passable or all(step.stat().st_mode & stat.S_IXOTH for step in above)


def fill(place: Place, layout: Layout) -> None:
    """Lay the files out below the root; a script that begins with `#!` may be run by name."""
    root, user = place.root, place.user
    for path in sorted(layout.directories):
        directory = root / path[1:]
        directory.mkdir(mode=0o700)
        if user is not None:
            os.chown(directory, user.uid, user.gid)
    for path, body in layout.files.items():
        runs = path in layout.executable or body.startswith(b"#!")
        try:
            handle = os.open(root / path[1:], os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        except FileExistsError:
            raise InvalidInput(
                f"{path} and another file differ only in ways this machine's disk does not keep"
                " apart (such as upper and lower case): rename one of them."
            ) from None
        with os.fdopen(handle, "wb") as file:
            file.write(body)
            os.fchmod(handle, 0o700 if runs else 0o600)
            if user is not None:
                os.fchown(handle, user.uid, user.gid)


@dataclass
class Left:
    """The regular files and directories found, and what was passed over."""

    files: dict[str, tuple[bytes, bool]] = field(default_factory=dict)
    directories: list[str] = field(default_factory=list)
    passed_over: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    error: BanksmanError | None = None
    total: int = 0

    def compare(self, before: Layout) -> tuple[dict[str, tuple[bytes, bool]], frozenset[str]]:
        """What was written and what was deleted, or the limit that was passed."""
        if self.error is not None:
            raise self.error
        written = {
            path: (body, runs)
            for path, (body, runs) in self.files.items()
            if before.files.get(path) != body or (runs != (path in before.executable) and not body.startswith(b"#!"))
        }
        unseen = tuple(self.passed_over)
        deleted = frozenset(
            path
            for path in before.files
            if path not in self.files and not any(path == other or path.startswith(other + "/") for other in unseen)
        )
        return written, deleted

    def pass_over(self, path: str, why: str) -> None:
        self.passed_over.append(path)
        if len(self.notes) < 10:
            self.notes.append(f"{path!r} was not kept: {why}.")
        elif len(self.notes) == 10:
            self.notes.append("More was not kept for reasons like these.")


def read_back(place: Place) -> Left:
    """Everything regular below the root, through no link; what was passed over is noted."""
    left = Left()
    place.root.chmod(stat.S_IRWXU)
    handle = os.open(place.root, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        _read_directory(handle, "", place.user, left)
    except BanksmanError as error:
        left.error = error
    finally:
        os.close(handle)
    return left


def _read_directory(directory: int, above: str, user: User | None, left: Left) -> None:
    for name in sorted(os.listdir(directory)):
        path = f"{above}/{name}"
        try:
            normal(path)
            kind = os.lstat(name, dir_fd=directory).st_mode
            if not (stat.S_ISREG(kind) or stat.S_ISDIR(kind)):
                left.pass_over(path, "it is a link" if stat.S_ISLNK(kind) else "it is not a file")
                continue
            handle = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=directory)
        except (OSError, InvalidInput) as error:
            left.pass_over(path, str(error))
            continue
        try:
            found = os.fstat(handle)
            if user is not None and found.st_uid != user.uid:
                left.pass_over(path, "it belongs to another user")
            elif stat.S_ISDIR(found.st_mode):
                left.directories.append(path)
                if path.count("/") > 64:
                    raise InvalidInput(f"{path[:60]}… lies more than 64 directories deep.")
                _read_directory(handle, path, user, left)
            elif stat.S_ISREG(found.st_mode):
                total = left.total + found.st_size
                check_limits(path, found.st_size, total=total, count=len(left.files) + 1)
                body = _read_all(handle, found.st_size)
                left.files[path] = (body, bool(found.st_mode & stat.S_IXUSR))
                left.total += len(body)
        finally:
            os.close(handle)


def _read_all(handle: int, size: int) -> bytes:
    """Up to `size` bytes: a file that still grows is not followed past what was checked."""
    parts: list[bytes] = []
    while size > 0 and (part := os.read(handle, min(size, 1 << 20))):
        parts.append(part)
        size -= len(part)
    return b"".join(parts)
