"""Heads written down where the database's owner cannot reach them: appended to a file, or sent to syslog.

One line of JSON for each head, as it was signed. A file is the better anchor: it is read back, so that every head gets
into it however often the gateway restarts, and a head that the file has and the database has not is noticed. A syslog
is never read back: a gateway that starts goes on with the newest head, whose root covers all before it.
"""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol, cast
from urllib.parse import urlsplit

from banksman.errors import ConfigurationError, InvalidInput
from banksman.sealing import heads
from banksman.signing import Signed

_NOTICE = 13 << 3 | 5
"""Facility 13, log audit, severity notice (RFC 5424, section 6.2.1)."""


class Anchor(Protocol):
    """Where heads go."""

    whole: bool
    """Whether it gets every head there ever was, or those from now on."""

    def last(self) -> Signed | None:
        """The last head that is known to be there."""
        ...

    def put(self, signed: Sequence[Signed]) -> None:
        """Add heads, in their order; an OSError says that it failed."""
        ...


def of_setting(text: str) -> Anchor | None:
    """The anchor that BANKSMAN_AUDIT_ANCHOR names: a file, `syslog:/dev/log` or `syslog://host:514`."""
    if not text:
        return None
    if not text.startswith("syslog:"):
        return File(Path(text))
    try:
        url = urlsplit(text)
        port = url.port or 514
    except ValueError:
        raise ConfigurationError(f"BANKSMAN_AUDIT_ANCHOR: {text[:100]!r} is no file and no syslog URL.") from None
    return Syslog((url.hostname, port) if url.hostname else url.path or "/dev/log")


class File:
    """A file that only grows; put it on another host's disk, or where only appending is allowed."""

    whole = True

    def __init__(self, path: Path) -> None:
        self._path = path

    def last(self) -> Signed | None:
        """The head of the last line."""
        try:
            with self._path.open("rb") as file:
                file.seek(max(0, file.seek(0, os.SEEK_END) - 65536))
                lines = file.read().splitlines(keepends=True)
        except FileNotFoundError:
            return None
        return self._head(lines[-1]) if lines else None

    def put(self, signed: Sequence[Signed]) -> None:
        """Append one line for each head, on the disk when this returns."""
        text = "".join(json.dumps(heads.to_json(head)) + "\n" for head in signed)
        handle = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o640)
        with os.fdopen(handle, "wb") as file:
            file.write(text.encode())
            file.flush()
            os.fsync(file.fileno())

    def _head(self, line: bytes) -> Signed:
        try:
            if line.endswith(b"\n"):
                return heads.from_json(json.loads(line))
        except (ValueError, RecursionError, InvalidInput):
            pass
        raise ConfigurationError(
            f"{self._path}: the last line is no signed head; its writing was cut short. Remove its last line, and "
            "anchoring goes on from the line before."
        )


class Syslog:
    """A syslog server, by UDP or a Unix socket, in messages of RFC 5424. Nothing says whether they arrived."""

    whole = False

    def __init__(self, address: str | tuple[str, int]) -> None:
        self._address = address
        self._last: Signed | None = None

    def last(self) -> Signed | None:
        """The head that was sent last by this process."""
        return self._last

    def put(self, signed: Sequence[Signed]) -> None:
        """Send one message for each head."""
        if isinstance(self._address, str):
            family, address = socket.AF_UNIX, self._address
        else:
            family, _, _, _, address = socket.getaddrinfo(*self._address, type=socket.SOCK_DGRAM)[0]
        with socket.socket(family, socket.SOCK_DGRAM) as line:
            for head in signed:
                line.sendto(_message(head), address)
        self._last = signed[-1]


def read(path: Path) -> Iterator[Signed]:
    """The heads of an anchor file, of a syslog with other programs' messages, or of what `/v1/audit/heads` answered."""
    some = False
    try:
        with path.open(encoding="utf-8", errors="surrogateescape") as file:
            for line in file:
                if not line.startswith("{") and '{"statement"' not in line:
                    continue
                found = json.loads(line[line.index("{") :])
                items: Any = found.get("items", [found])
                if not isinstance(items, list):
                    raise InvalidInput("This is no signed head, nor a list of them.")
                for item in cast("list[Any]", items):
                    some = True
                    yield heads.from_json(item)
    except OSError as error:
        raise ConfigurationError(f"{path} cannot be read: {error}.") from None
    except (ValueError, RecursionError):
        raise ConfigurationError(f"{path} has a line that is no signed head.") from None
    except InvalidInput as error:
        raise ConfigurationError(f"{path}: {error}") from None
    if not some:
        raise ConfigurationError(f"{path} has no signed head.")


def _message(head: Signed) -> bytes:
    now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    host = socket.gethostname().encode("ascii", "replace").decode()[:255] or "-"
    return f"<{_NOTICE}>1 {now} {host} banksman {os.getpid()} head - {json.dumps(heads.to_json(head))}".encode()
