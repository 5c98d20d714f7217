"""The private directory a command runs in: made, filled from the workspace, and read back.

What comes back is read without following a single link, since the command may have planted some:
each name is opened relative to its opened parent, and only regular files and directories that
belong to the command's own user are taken.
"""

from __future__ import annotations

import os
import pwd
import shutil
import stat
import tempfile
from collections.abc import Generator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from banksman.errors import BanksmanError, ConfigurationError, InvalidInput
from banksman_worker.workspace import check_limits, normal


@dataclass(frozen=True)
class User:
    uid: int
    gid: int


def other_user() -> User | None:
    """The user to run commands as: nobody when we are root, ourselves (None) otherwise."""
    if os.geteuid() != 0:
        return None
    try:
        entry = pwd.getpwnam("nobody")
    except KeyError:
        raise ConfigurationError(
            "The worker runs as root and the machine has no user 'nobody' to run commands as:"
            " create it, or run the worker as an ordinary user."
        ) from None
    return User(entry.pw_uid, entry.pw_gid)


@dataclass(frozen=True)
class Layout:
    """The files and directories of a workspace, as a command finds them."""

    files: Mapping[str, bytes]
    executable: frozenset[str]
    directories: frozenset[str]


@contextmanager
def private_directory(user: User | None) -> Generator[Path]:
    """An empty directory of mode 0700 for `user`, removed at the end with all that is in it."""
    places = (tempfile.gettempdir(), "/tmp", "/var/tmp")  # noqa: S108  only made into by mkdtemp
    parent = next((place for place in places if _usable(place, user)), None)
    if parent is None:
        raise ConfigurationError(
            "No temporary directory can be entered by the user that commands run as: make every"
            f" directory above {tempfile.gettempdir()} passable (o+x), or set TMPDIR to another."
        )
    # Inside one of our own, so that the command cannot put a link in its directory's place.
    outer = Path(tempfile.mkdtemp(prefix="banksman-execute-", dir=parent)).resolve()
    try:
        root = outer / "workspace"
        root.mkdir(mode=0o700)
        if user is not None:
            outer.chmod(0o711)
            os.chown(root, user.uid, user.gid)
        yield root
    finally:
        _remove(outer)


def _remove(outer: Path) -> None:
    """Remove everything, also below directories that the command made unwritable for us."""
    for place, names, _ in os.walk(outer):
        for name in names:
            path = Path(place, name)
            if not path.is_symlink():
                with suppress(OSError):
                    path.chmod(stat.S_IRWXU)
    shutil.rmtree(outer, ignore_errors=True)


def _usable(place: str, user: User | None) -> bool:
    path = Path(place).resolve()
    if not path.is_dir() or not os.access(path, os.W_OK | os.X_OK):
        return False
    return user is None or all(step.stat().st_mode & stat.S_IXOTH for step in (path, *path.parents))


def fill(root: Path, layout: Layout, user: User | None) -> None:
    """Lay the files out below `root`; a script that begins with `#!` may be run by name."""
    for path in sorted(layout.directories):
        place = root / path[1:]
        place.mkdir(mode=0o700)
        if user is not None:
            os.chown(place, user.uid, user.gid)
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
            if before.files.get(path) != body
            or (runs != (path in before.executable) and not body.startswith(b"#!"))
        }
        unseen = tuple(self.passed_over)
        deleted = frozenset(
            path
            for path in before.files
            if path not in self.files
            and not any(path == other or path.startswith(other + "/") for other in unseen)
        )
        return written, deleted

    def pass_over(self, path: str, why: str) -> None:
        self.passed_over.append(path)
        if len(self.notes) < 10:
            self.notes.append(f"{path!r} was not kept: {why}.")
        elif len(self.notes) == 10:
            self.notes.append("More was not kept for reasons like these.")


def read_back(root: Path, user: User | None) -> Left:
    """Everything regular below `root`, through no link; what was passed over is noted."""
    left = Left()
    root.chmod(stat.S_IRWXU)
    handle = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        _read_directory(handle, "", user, left)
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
