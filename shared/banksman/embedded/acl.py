"""Who may do what on the broker: the files of `deploy/valkey`, one for each service, which compose uses too.

They are settings of the server's own, with the SHA-256 of a password left to be filled in. Beside the services there
is the `owner` of an embedded server, who may do everything; no service knows that password.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

from banksman.errors import ConfigurationError

SERVICES = ("worker", "gateway", "notifier")
OWNER = "owner"
_SHA256 = "@sha256@"


def settings(passwords: Mapping[str, str], *, owner: str) -> str:
    """The lines for the server's configuration, given each service's password."""
    lines = [_read("everybody"), f"user {OWNER} on #{sha256(owner)} ~* &* +@all\n"]
    lines += [_read(name).replace(_SHA256, sha256(passwords[name])) for name in SERVICES]
    return "".join(lines)


def sha256(password: str) -> str:
    """How an ACL file names a password."""
    return hashlib.sha256(password.encode()).hexdigest()


def _read(name: str) -> str:
    """A file of `deploy/valkey`: of the clone, or the copy that a wheel carries."""
    here = Path(__file__).resolve()
    for folder in (here.with_name("valkey_acl"), here.parents[3] / "deploy" / "valkey"):
        try:
            return (folder / f"{name}.acl").read_text()
        except FileNotFoundError:
            continue
    raise ConfigurationError(f"{name}.acl is not where this installation should have it; install banksman again.")
