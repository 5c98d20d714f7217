"""The data folder of a stack: private to its owner, held by one stack at a time, and remembering its ports."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path

from banksman import files
from banksman.embedded import ports
from banksman.errors import ConfigurationError


class AlreadyUp(ConfigurationError):
    """Another stack holds this data folder."""


def make_private(folder: Path) -> None:
    """A folder that only the caller may enter; one that belongs to somebody else is left alone."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        owner = folder.stat().st_uid
        if owner != os.geteuid():
            raise ConfigurationError(
                f"{folder} belongs to user {owner}, and you are user {os.geteuid()}. Run as its owner, or choose "
                "another BANKSMAN_DATA_DIR."
            )
        folder.chmod(0o700)
    except OSError as error:
        raise ConfigurationError(f"The data folder {folder} cannot be used: {error.strerror}.") from error


@contextmanager
def held(folder: Path) -> Generator[None]:
    """The folder's lock, for the length of the block; the system releases it however this process ends."""
    descriptor = os.open(folder / "lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.read(descriptor, 32).decode("ascii", "replace").strip() or "unknown"
            raise AlreadyUp(
                f"A stack is already up on {folder} (process {holder}); nothing was changed. Use that one, stop it, "
                "or choose another BANKSMAN_DATA_DIR."
            ) from None
        except OSError as error:
            raise ConfigurationError(f"{folder} cannot be locked: {error.strerror}.") from error
        os.truncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        yield
    finally:
        os.close(descriptor)


class Ports:
    """Chooses a port for each server: the one it had before, as long as that is free."""

    def __init__(self, path: Path, say: Callable[[str], None]) -> None:
        self._path = path
        self._say = say
        self._chosen: dict[str, int] = {}
        try:
            self._before: dict[str, int] = json.loads(path.read_text())
        except (OSError, ValueError):
            self._before = {}

    def gateway(self, wanted: int) -> int:
        """The port that was asked for, or nothing else; for 0 the one before, or a free one."""
        if wanted and not ports.is_free(wanted):
            raise ConfigurationError(
                f"Port {wanted} is in use by another program. Stop that, or choose another (0 takes a free one)."
            )
        port = self._chosen["gateway"] = wanted or self.of("gateway")
        if self._before.get("gateway", port) != port and not wanted:
            self._say(
                f"port {self._before['gateway']} is taken, so this is port {port}: links in earlier mails lead nowhere"
            )
        return port

    def of(self, name: str) -> int:
        """The port of one server."""
        before = self._before.get(name, 0)
        taken = set(self._chosen.values())
        port = before if before and before not in taken and ports.is_free(before) else ports.free()
        while port in taken:
            port = ports.free()
        self._chosen[name] = port
        return port

    def save(self) -> None:
        """Remembers this choice for the next start."""
        files.write_private(self._path, json.dumps({**self._before, **self._chosen}) + "\n")
