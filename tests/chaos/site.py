"""A whole Banksman for breaking: real PostgreSQL and Valkey, real services, each started, killed and frozen by itself.

Unlike `banksman up` nothing is brought back by itself: a journey says what dies and what comes back when.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self, TypeVar
from urllib.parse import urlsplit

import httpx
import psycopg
import redis
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, Envelope, Session

from banksman import ledger
from banksman.embedded import environment, keyring, ports, postgres, processes, seed, service, valkey
from banksman.embedded.environment import Addresses
from banksman.ledger import migrate
from banksman.sealing import check
from banksman.sealing.report import Report
from banksman.signing import Signer, Verifier
from tests.chaos.hosts import FarHost
from tests.chaos.launcher import Launch, Point
from tests.chaos.proxy import Proxy
from tests.journeys.outsider import Outsider

T = TypeVar("T")

ROOT = Path(__file__).parents[2]
AGENTS = "tests.chaos.agents:agents"


def until(fact: Callable[[], T | None], *, within: float = 20, what: str = "it") -> T:
    """The first true answer of `fact`; a failure that names it when there is none in time."""
    deadline = time.monotonic() + within
    while not (found := fact()):
        assert time.monotonic() < deadline, f"{what} did not come about within {within:.0f} s"
        time.sleep(0.01)
    return found


@dataclass(frozen=True, slots=True)
class Effect:
    """One line of the fake external system's log."""

    tool: str
    word: str
    at: float
    pid: int
    details: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Mark:
    """The beginning or the end of a tool's body: steers kills, proves nothing."""

    tool: str
    word: str
    what: str
    at: float
    pid: int


class Catcher:
    """A mail server that keeps every mail, byte for byte."""

    def __init__(self) -> None:
        self.raw: list[bytes] = []

    async def handle_DATA(self, _server: SMTP, _session: Session, envelope: Envelope) -> str:  # noqa: N802 - aiosmtpd's name
        self.raw.append(envelope.original_content or b"")
        return "250 OK"


class Site:
    """Everything of one installation. What is started within the `with` block has ended when the block has."""

    def __init__(self, folder: Path, *, durable: bool = False, settings: Mapping[str, str] | None = None) -> None:
        self.folder, self.yard = folder, folder / "yard"
        self.yard.mkdir(parents=True)
        self._settings = {
            "BANKSMAN_LEASE_SECONDS": "2",
            "BANKSMAN_SWEEP_SECONDS": "0.1",
            "BANKSMAN_REDISPATCH_SECONDS": "2",
            "BANKSMAN_ALLOW_TOOLS": "enter",
            "BANKSMAN_CONCURRENCY": "20",
            "BANKSMAN_GATHER_MEDIUM_MINUTES": "0",
            "BANKSMAN_GATHER_LOW_MINUTES": "0",
            "BANKSMAN_LOG_LEVEL": "warning",
            "BANKSMAN_SEAL_SECONDS": "1",
            **(settings or {}),
        }
        ring = keyring.Keyring.make()
        self.postgres = postgres.at(
            folder / "postgres", port=ports.free(), password=ring.owner_password, durable=durable
        )
        self.valkey = valkey.at(
            folder / "valkey",
            port=ports.free(),
            password=ring.broker_password,
            service_passwords=ring.broker_passwords,
            durable=durable,
        )
        self._ring, self._gateway_port = ring, ports.free()
        self._servers: dict[str, subprocess.Popen[bytes]] = {}
        self._said = folder / "services.log"
        self._catcher, self._mail_port = Catcher(), ports.free()
        self._closing = ExitStack()
        self._launching = threading.Lock()
        self.proxy = Proxy(self.valkey.port)
        self._outsiders: dict[str, Outsider] = {}
        self.services: dict[str, int] = {}

    def __enter__(self) -> Self:
        with ExitStack() as closing:
            closing.callback(self._end)
            self._launcher = subprocess.Popen(
                [sys.executable, "-m", "tests.chaos.launcher"],
                cwd=ROOT,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=False,
            )
            closing.callback(self._close_launcher)
            mail = Controller(self._catcher, hostname=ports.LOOPBACK, port=self._mail_port)
            mail.start()
            closing.callback(mail.stop)
            self.proxy.start()
            closing.callback(self.proxy.close)
            self.postgres.prepare()
            self.valkey.prepare()
            self.start_postgres()
            self.start_valkey()
            owner = self.postgres.url()
            roles = {f"banksman_{role}": word for role, word in self._ring.role_passwords.items()}
            migrate.migrate(owner, passwords=roles)
            self.credentials = seed.seed(owner, self._ring.credentials)
            said = self._launcher.stdout
            assert said is not None
            assert said.readline() == b"ready\n"
            self._closing = closing.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._closing.close()

    def verified(self) -> Report:
        """What `audit verify` says of this installation's log."""
        verifier = Verifier.read(Signer.read(self._ring.sealing_key).public())
        with ledger.once(self.postgres.url(), name="the-log-holds") as conn:
            conn.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
            return check.check(conn, verifier)

    # Servers.

    def start_postgres(self) -> None:
        """Start it, and wait until it answers."""
        self._spawn("postgres", self.postgres.service(), self.postgres.ready)

    def stop_postgres(self, sign: signal.Signals = signal.SIGINT) -> None:
        """SIGINT is PostgreSQL's fast stop, SIGQUIT the immediate one, which is a crash."""
        self._halt("postgres", sign)

    def start_valkey(self) -> None:
        """Start it, and wait until it answers."""
        self._spawn("valkey", self.valkey.service(), self.valkey.ready)

    def kill_valkey(self) -> None:
        """`kill -9`."""
        self._halt("valkey", signal.SIGKILL)

    def flush(self) -> None:
        """The broker forgets everything."""
        with redis.Redis.from_url(self.valkey.url()) as client:
            client.flushall()

    def server(self, name: str) -> int:
        """A server's process."""
        return self._servers[name].pid

    # Services.

    @property
    def url(self) -> str:
        return f"http://localhost:{self._gateway_port}"

    def worker(
        self,
        name: str = "worker",
        *,
        point: Point | None = None,
        host: FarHost | None = None,
        settings: Mapping[str, str] | None = None,
        values: Mapping[str, float] | None = None,
    ) -> int:
        """Start a worker, here or on another host; its process."""
        where = self._where()
        env = environment.of_worker({**os.environ, **self._settings}, where, self._ring, agents=AGENTS, health_port=0)
        env |= {"CHAOS_YARD": str(self.yard), **(settings or {})}
        if host is not None:
            env |= {
                "BANKSMAN_DATABASE_URL": _at(env["BANKSMAN_DATABASE_URL"], host.postgres),
                "BANKSMAN_BROKER_URL": _at(env["BANKSMAN_BROKER_URL"], host.broker),
            }
        return self._launch(name, "banksman_worker", env, point, netns=host.netns if host else "", values=values)

    def gateway(self, *, point: Point | None = None, wait: bool = True) -> int:
        """Start the gateway, and usually wait until it answers."""
        env = environment.of_gateway({**os.environ, **self._settings}, self._where(), self._ring)
        pid = self._launch("gateway", "banksman_gateway", env, point)
        if wait:
            until(self._gateway_answers, what="the gateway")
        return pid

    def notifier(self, *, point: Point | None = None, lease: float = 300) -> int:
        """Start the notifier. `lease` is how long its claim on a notice holds when it dies."""
        env = environment.of_notifier({**os.environ, **self._settings}, self._where(), self._ring, health_port=0)
        env["BANKSMAN_CLAIM_SECONDS"] = str(lease)
        return self._launch("notifier", "banksman_notifier", env, point)

    def kill(self, name: str) -> int:
        """`kill -9`, and wait until it is gone; the process that was."""
        pid = self.services.pop(name)
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        until(lambda: processes.identify(pid) is None, what=f"the end of {name}")
        return pid

    def stopped(self, name: str) -> int:
        """Waits until a service stands still at its point; its process."""
        until(self._mark(name).exists, what=f"{name} standing still at its point")
        self._mark(name).unlink()
        return self.services[name]

    def died(self, name: str, *, within: float = 20) -> None:
        """Waits until a service has died at its point, and nowhere else."""
        pid = self.services[name]
        try:
            until(lambda: processes.identify(pid) is None, within=within, what=f"the death of {name} at its point")
        except AssertionError as late:
            raise AssertionError(f"{late}\n{self.said()[-4000:]}") from None
        del self.services[name]
        mark = self._mark(name)
        assert mark.exists(), f"{name} died elsewhere:\n{self.said()[-4000:]}"
        mark.unlink()

    def lives(self, name: str) -> bool:
        return processes.identify(self.services[name]) is not None

    def announced(self) -> None:
        """Waits until a worker has brought its agents."""
        until(lambda: self.query("SELECT 1 FROM agents"), what="a worker's agents")

    def query(self, statement: str, *values: object) -> list[tuple[Any, ...]]:
        """What stands in the database: to wait for, never to judge by."""
        with psycopg.connect(self.postgres.url(), autocommit=True) as conn:
            return conn.execute(statement.encode(), values).fetchall()

    def said(self) -> str:
        """What the services have logged."""
        return self._said.read_text(errors="replace") if self._said.exists() else ""

    # People and programs.

    def program(self) -> Outsider:
        """A program that may submit and read."""
        return self._outsider(self.credentials.submit_key)

    def reviewer(self, email: str = "ana@example.org") -> Outsider:
        """A person's script."""
        return self._outsider(self.credentials.reviewer_tokens[email])

    def _outsider(self, token: str) -> Outsider:
        if token not in self._outsiders:
            self._outsiders[token] = Outsider(self.url, token)
            self._closing.callback(self._outsiders[token].close)
        return self._outsiders[token]

    # What is outside.

    def effects(self, word: str | None = None) -> list[Effect]:
        """What the fake external system was made to do."""
        found = [
            Effect(fact.pop("tool"), fact.pop("word"), fact.pop("at"), fact.pop("pid"), fact)
            for fact in self._lines("effects")
        ]
        return [effect for effect in found if word is None or effect.word == word]

    def marks(self) -> list[Mark]:
        """Beginnings and ends of tools."""
        return [Mark(**fact) for fact in self._lines("tools")]

    def mails(self) -> Sequence[bytes]:
        return self._catcher.raw

    def _lines(self, name: str) -> list[dict[str, Any]]:
        path = self.yard / name
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    def _where(self) -> Addresses:
        def as_role(role: str) -> str:
            return self.postgres.url(user=f"banksman_{role}", password=self._ring.role_passwords[role])

        return Addresses(
            database_urls={role: as_role(role) for role in keyring.DATABASE_ROLES},
            broker_urls={role: _at(self.valkey.url(role), self.proxy) for role in keyring.ROLES},
            gateway_port=self._gateway_port,
            gateway_url=self.url,
            smtp_port=self._mail_port,
        )

    def _mark(self, name: str) -> Path:
        return self.folder / f"{name}.died"

    def _launch(
        self,
        name: str,
        module: str,
        env: Mapping[str, str],
        point: Point | None,
        *,
        netns: str = "",
        values: Mapping[str, float] | None = None,
    ) -> int:
        launch = Launch(module, env, str(self._said), point, str(self._mark(name)), netns, values or {})
        ask, answer = self._launcher.stdin, self._launcher.stdout
        assert ask is not None
        assert answer is not None
        with self._launching:
            ask.write(launch.line())
            ask.flush()
            self.services[name] = int(answer.readline())
        return self.services[name]

    def _gateway_answers(self) -> bool:
        with suppress(httpx.HTTPError):
            return httpx.get(f"{self.url}/readyz", timeout=5, trust_env=False).status_code == 200
        return False

    def _spawn(self, name: str, what: service.Service, ready: Callable[[int], bool]) -> None:
        with (self.folder / f"{name}.log").open("ab") as log:
            popen = service.spawn(what, stdout=log)
        self._servers[name] = popen
        try:
            until(lambda: ready(popen.pid), within=60, what=name)
        except AssertionError as late:
            words = (self.folder / f"{name}.log").read_text(errors="replace")[-2000:]
            raise AssertionError(f"{late}:\n{words}") from None

    def _halt(self, name: str, sign: signal.Signals) -> None:
        popen = self._servers.pop(name)
        popen.send_signal(sign)
        popen.send_signal(signal.SIGCONT)
        popen.wait(30)
        if popen.stdin is not None:
            popen.stdin.close()

    def _close_launcher(self) -> None:
        for stream in (self._launcher.stdin, self._launcher.stdout):
            if stream is not None:
                stream.close()
        try:
            self._launcher.wait(60)
        except subprocess.TimeoutExpired:
            self._launcher.kill()  # and with it, by the kernel, whatever it started
            self._launcher.wait()

    def _end(self) -> None:
        """The servers go last."""
        for name in list(self._servers):
            self._halt(name, signal.SIGKILL if name == "valkey" else signal.SIGINT)


def _at(url: str, proxy: Proxy) -> str:
    """The same URL, by way of a proxy."""
    parts = urlsplit(url)
    user = parts.netloc.rpartition("@")[0]
    return parts._replace(netloc=f"{user}@{proxy.host}:{proxy.port}").geturl()
