"""The whole product on one machine: servers, mail catcher and services, up together and down together.

    python -m banksman.embedded.stack --data-dir .banksman --agents acme.refunds:agents

Everything lives below one folder that only its owner may enter:

    lock            held while a stack is up, so that a second one cannot damage the first
    secrets.json    passwords, keys and tokens, made once
    ports.json      where things listened last, so that mailed links survive a restart
    children.json   what runs now, so that the next start can end what a killed one left
    stack.json      for people and programs: where it is and how to get in; there while it is ready
    postgres/  valkey/  mail/
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import IO
from urllib.parse import quote, urlsplit, urlunsplit

from banksman import files, vault
from banksman.embedded import acl, environment, folder, keyring, ports, postgres, valkey
from banksman.embedded.environment import Addresses
from banksman.embedded.keyring import ROLES, Keyring
from banksman.embedded.service import Service
from banksman.embedded.supervisor import Supervisor
from banksman.errors import BanksmanError, ConfigurationError

EXAMPLES = "banksman_sysadmin:agents,banksman_plain:agents"
_START_WITHIN = 120.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Options:
    """What the caller chooses. A URL stands for a server of the caller's own; port 0 takes a free one."""

    data_dir: Path
    workers: int = 1
    agents: str = EXAMPLES
    port: int = 0
    database_url: str | None = field(default=None, repr=False)
    broker_url: str | None = field(default=None, repr=False)


def up(options: Options, *, environ: Mapping[str, str] | None = None, out: IO[str] | None = None) -> None:
    """Nothing → up, until SIGINT or SIGTERM → nothing left running. An error while starting is raised after that."""
    if options.workers < 1:
        raise ConfigurationError("A stack needs at least one worker.")
    began = time.monotonic()
    data = options.data_dir.absolute()
    folder.make_private(data)
    with ExitStack() as stack:
        stack.enter_context(folder.held(data))
        (data / "stack.json").unlink(missing_ok=True)
        facts = _StackFile(data / "stack.json")
        supervisor = stack.enter_context(Supervisor(record=data / "children.json", on_change=facts.replaced, out=out))
        stack.callback(facts.remove)
        starting = _Starting(options, data, supervisor, dict(os.environ if environ is None else environ))
        content = starting.everything()
        if content is None:
            return
        facts.write(content)
        supervisor.say(f"ready after {time.monotonic() - began:.1f} s at {content['gateway_url']}")
        supervisor.say(f"how to get in: {data / 'stack.json'} (Ctrl-C stops everything)")
        supervisor.run()
        supervisor.say("stopping")


class _StackFile:
    """`stack.json`: written when the stack is ready, rewritten whenever a process is replaced."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._content: dict[str, object] | None = None

    def write(self, content: dict[str, object]) -> None:
        self._content = content
        files.write_private(self._path, json.dumps(content, indent=2) + "\n")

    def replaced(self, name: str, pid: int) -> None:
        if self._content is not None:
            pids = self._content["pids"]
            assert isinstance(pids, dict)
            self.write({**self._content, "pids": {**pids, name: pid}})

    def remove(self) -> None:
        self._content = None
        self._path.unlink(missing_ok=True)


class _Starting:
    """The steps from nothing to ready, in order; a signal between them ends it early."""

    def __init__(self, options: Options, data: Path, supervisor: Supervisor, environ: Mapping[str, str]) -> None:
        self._options = options
        self._data = data
        self._supervisor = supervisor
        self._environ = environ
        self._ports = folder.Ports(data / "ports.json", supervisor.say)
        self._health: dict[str, int] = {}
        self._waiting_for: dict[str, Callable[[], bool]] = {}

    def everything(self) -> dict[str, object] | None:
        """The content of `stack.json` once all is ready; None when a stop was asked for first."""
        gateway_port = self._ports.gateway(self._options.port)
        ring = keyring.load_or_make(
            self._data / "secrets.json", data_exists=(self._data / "postgres" / "data").exists()
        )
        smtp_port = self._mail()
        broker_urls = self._broker_urls(ring)
        owner_url = self._options.database_url or self._database(ring)
        self._ports.save()
        if not self._ready():
            return None
        ring = self._fill(owner_url, ring)
        where = Addresses(
            database_urls={role: _as_role(owner_url, role, word) for role, word in ring.role_passwords.items()},
            broker_urls=broker_urls,
            gateway_port=gateway_port,
            gateway_url=f"http://localhost:{gateway_port}",
            smtp_port=smtp_port,
        )
        self._services(where, ring)
        if not self._ready():
            return None
        return {
            "gateway_url": where.gateway_url,
            "database_url": owner_url,
            "broker_url": broker_urls[acl.OWNER],
            "maildir": str(self._data / "mail"),
            "pids": self._supervisor.pids(),
            "metrics_urls": self._metrics_urls(gateway_port),
            "vault_key": vault.Ring.read(ring.vault_keys).current,
            "submit_key": ring.credentials.submit_key,
            "reviewers": [
                {"email": email, "token": token} for email, token in ring.credentials.reviewer_tokens.items()
            ],
        }

    def _metrics_urls(self, gateway_port: int) -> dict[str, str]:
        """Where each process says its numbers, for Prometheus."""
        found = {"gateway": gateway_port, **self._health}
        return {name: f"http://127.0.0.1:{port}/metrics" for name, port in found.items()}

    def _mail(self) -> int:
        port = self._ports.of("mail")
        self._supervisor.start(
            _python(
                "mail",
                "banksman.embedded.mail",
                *("--port", str(port), "--maildir", str(self._data / "mail")),
                env=environment.of_mail(self._environ),
            )
        )
        self._waiting_for["mail"] = partial(ports.answers, port)
        return port

    def _broker_urls(self, ring: Keyring) -> Mapping[str, str]:
        """One URL for each service and one for the owner; a server of the caller's own has one for all."""
        names = (*ROLES, acl.OWNER)
        if self._options.broker_url:
            return dict.fromkeys(names, self._options.broker_url)
        server = valkey.at(
            self._data / "valkey",
            port=self._ports.of("valkey"),
            password=ring.broker_password,
            service_passwords=ring.broker_passwords,
        )
        server.prepare()
        self._supervisor.start(server.service())
        self._waiting_for["valkey"] = lambda: server.ready(self._supervisor.pids().get("valkey", 0))
        return {name: server.url(name) for name in names}

    def _database(self, ring: Keyring) -> str:
        server = postgres.at(self._data / "postgres", port=self._ports.of("postgres"), password=ring.owner_password)
        server.prepare()
        self._supervisor.start(server.service())
        self._waiting_for["postgres"] = lambda: server.ready(self._supervisor.pids().get("postgres", 0))
        return server.url()

    def _fill(self, owner_url: str, ring: Keyring) -> Keyring:
        """Schema, roles, people and keys; each step leaves alone what is there."""
        from banksman.embedded import seed
        from banksman.ledger import migrate

        roles = {f"banksman_{role}": password for role, password in ring.role_passwords.items()}
        for name in migrate.migrate(owner_url, passwords=roles):
            self._supervisor.say(f"applied {name}")
        seeded = replace(ring, credentials=seed.seed(owner_url, ring.credentials))
        if seeded != ring:
            keyring.save(self._data / "secrets.json", seeded)
        return seeded

    def _services(self, where: Addresses, ring: Keyring) -> None:
        services: list[Service] = []
        for number in range(1, self._options.workers + 1):
            health = self._health[f"worker-{number}"] = self._ports.of(f"worker-{number}")
            env = environment.of_worker(self._environ, where, ring, agents=self._options.agents, health_port=health)
            services.append(
                _python(
                    f"worker-{number}", "banksman_worker", env=env, user_code=True, stop_within=_drain_seconds(env) + 10
                )
            )
            self._waiting_for[f"worker-{number}"] = partial(_says_ok, health, "/healthz")
        env = environment.of_gateway(self._environ, where, ring)
        services.append(_python("gateway", "banksman_gateway", env=env))
        self._waiting_for["gateway"] = partial(_says_ok, where.gateway_port, "/readyz")
        health = self._health["notifier"] = self._ports.of("notifier")
        env = environment.of_notifier(self._environ, where, ring, health_port=health)
        services.append(_python("notifier", "banksman_notifier", env=env))
        self._waiting_for["notifier"] = partial(_says_ok, health, "/healthz")
        self._ports.save()
        self._supervisor.start(*services)

    def _ready(self) -> bool:
        """Waits until everything that was started answers."""

        def all_answer() -> bool:
            while self._waiting_for:
                name = next(iter(self._waiting_for))
                if not self._waiting_for[name]():
                    return False
                del self._waiting_for[name]
            return True

        if self._supervisor.watch(all_answer, within=_START_WITHIN):
            return True
        if self._supervisor.stopping:
            return False
        raise ConfigurationError(
            f"{', '.join(self._waiting_for)} did not become ready within {_START_WITHIN:.0f} s; see the lines above."
        )


def _python(
    name: str, module: str, *arguments: str, env: Mapping[str, str], user_code: bool = False, stop_within: float = 15.0
) -> Service:
    """One of our own processes. Only a worker finds the modules of the current folder: they are the user's agents."""
    safe_path = () if user_code else ("-P",)
    return Service(
        name=name,
        argv=[sys.executable, *safe_path, "-m", "banksman.embedded.child", module, *arguments],
        env=env,
        cwd=Path.cwd(),
        lifeline=True,
        stop_within=stop_within,
    )


def _drain_seconds(env: Mapping[str, str]) -> float:
    """How long a worker may take to hand its runs back; what is no number, the worker itself refuses."""
    try:
        return float(env.get("BANKSMAN_DRAIN_SECONDS", "10"))
    except ValueError:
        return 0.0


def _says_ok(port: int, path: str) -> bool:
    """Whether an HTTP server on this port answers 200."""
    connection = http.client.HTTPConnection(ports.LOOPBACK, port, timeout=2)
    try:
        connection.request("GET", path)
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def _as_role(owner_url: str, role: str, password: str) -> str:
    """The owner's URL with a service's role and password in place of the owner's."""
    url = urlsplit(owner_url)
    host = url.netloc.rpartition("@")[2]
    return urlunsplit(url._replace(netloc=f"banksman_{role}:{quote(password, safe='')}@{host}"))


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line: the exit code is 0 after an orderly stop, 2 when it cannot start as configured, else 1."""
    parser = argparse.ArgumentParser(prog="banksman.embedded.stack")
    parser.add_argument("--data-dir", type=Path, required=True)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--agents", default=os.environ.get("BANKSMAN_AGENTS", EXAMPLES))
    parser.add_argument("--port", type=int, default=0)
    chosen = parser.parse_args(arguments)
    try:
        up(
            Options(
                data_dir=chosen.data_dir,
                workers=chosen.workers,
                agents=chosen.agents,
                port=chosen.port,
                # These hold passwords, so they come through the environment and not on a command line.
                database_url=os.environ.get("BANKSMAN_DATABASE_URL"),
                broker_url=os.environ.get("BANKSMAN_BROKER_URL"),
            )
        )
    except BanksmanError as error:
        sys.stderr.write(f"banksman: {error}\n")
        return 2 if isinstance(error, ConfigurationError) else 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
