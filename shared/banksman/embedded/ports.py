"""Free TCP ports on the loopback address."""

from __future__ import annotations

import secrets
import socket

from banksman.errors import ConfigurationError

LOOPBACK = "127.0.0.1"


def is_free(port: int) -> bool:
    """Whether a server could listen on this port now."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
        except OSError:
            return False
    return True


def free() -> int:
    """A free port from below the range that outgoing connections take theirs from, so that it stays free."""
    for _ in range(200):
        if is_free(port := 20_000 + secrets.randbelow(12_000)):
            return port
    raise ConfigurationError(f"No free TCP port was found on {LOOPBACK} between 20000 and 32000.")


def answers(port: int) -> bool:
    """Whether somebody accepts connections on this port."""
    try:
        socket.create_connection((LOOPBACK, port), timeout=1).close()
    except OSError:
        return False
    return True
