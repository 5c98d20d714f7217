"""`banksman up` as a process of its own: what it writes, what it repairs, and that it leaves nothing behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import psycopg
import pytest

from banksman.embedded import environment, keyring, ports, postgres, processes
from banksman.embedded.keyring import Keyring
from banksman.settings import GatewaySettings, NotifierSettings, Settings, WorkerSettings

NAMES = {"mail", "valkey", "postgres", "worker-1", "worker-2", "gateway", "notifier"}


class Up:
    """A stack on a data folder, started as a user would."""

    def __init__(self, data: Path, *arguments: str) -> None:
        self.data = data
        data.parent.mkdir(exist_ok=True)
        self.log = data.with_suffix(".log")
        with self.log.open("wb") as log:
            self.popen = subprocess.Popen(
                [sys.executable, "-m", "banksman.embedded.stack", "--data-dir", str(data), *arguments],
                cwd=data.parent,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def said(self) -> str:
        return self.log.read_text()

    @property
    def facts(self) -> dict[str, Any]:
        return json.loads((self.data / "stack.json").read_text())

    @property
    def pids(self) -> dict[str, int]:
        return self.facts["pids"]

    def ready(self) -> Up:
        # A killed stack leaves its stack.json until the next one starts.
        self.wait_for(lambda: "ready after" in self.said(), within=120)
        return self

    def wait_for(self, fact: Callable[[], bool], within: float = 30) -> None:
        deadline = time.monotonic() + within
        while not fact():
            late = time.monotonic() > deadline or self.popen.poll() is not None
            assert not late, f"it did not become true in time:\n{self.said()}"
            time.sleep(0.02)

    def end(self, sign: signal.Signals = signal.SIGTERM) -> int:
        self.popen.send_signal(sign)
        return self.popen.wait(60)


Start = Callable[..., Up]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Starts stacks on one data folder, and ends what a test has left of them."""
    started: list[Up] = []

    def one(*arguments: str) -> Up:
        started.append(Up(tmp_path / "data", *arguments))
        return started[-1]

    yield one
    for up in started:
        up.end()


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    up = Up(tmp_path_factory.mktemp("stack") / "data", "--workers", "2")
    try:
        yield up.ready()
    finally:
        up.end()


def test_stack_json_says_where_it_is_and_how_to_get_in(stack: Up) -> None:
    facts = stack.facts

    assert facts.keys() == {
        "gateway_url", "database_url", "broker_url", "maildir", "pids", "submit_key", "reviewers", "vault_key",
        "metrics_urls",
    }  # fmt: skip
    assert facts["gateway_url"].startswith("http://localhost:")
    assert facts["pids"].keys() == NAMES
    assert facts["metrics_urls"].keys() == NAMES - {"postgres", "valkey", "mail"}
    assert all(processes.identify(pid) for pid in facts["pids"].values())
    assert [r["email"] for r in facts["reviewers"]] == ["ana@example.org", "ben@example.org"]
    assert (stack.data / "stack.json").stat().st_mode & 0o777 == 0o600
    assert (stack.data / "secrets.json").stat().st_mode & 0o777 == 0o600
    assert stack.data.stat().st_mode & 0o777 == 0o700
    with psycopg.connect(facts["database_url"]) as conn:
        people = conn.execute("SELECT email, roles FROM people ORDER BY email").fetchall()
    assert people == [(f"{name}@example.org", ["operator", "reviewer"]) for name in ("ana", "ben")]


def test_each_service_finds_its_own_secrets_and_no_others(stack: Up) -> None:
    found = {
        name: dict(
            line.split("=", 1)
            for line in Path(f"/proc/{pid}/environ").read_text().split("\0")
            if line.startswith("BANKSMAN_")
        )
        for name, pid in stack.pids.items()
    }

    assert "BANKSMAN_SIGNING_KEY" in found.pop("gateway")
    everything = json.dumps(found)
    secrets = json.loads((stack.data / "secrets.json").read_text())
    for name in ("owner_password", "signing_key", "link_keys"):
        assert secrets[name] not in everything
    assert secrets["broker_password"] not in everything
    for kind in ("role_passwords", "broker_passwords"):
        assert secrets[kind]["notifier"] in json.dumps(found["notifier"])
        assert secrets[kind]["notifier"] not in json.dumps(found["worker-1"])
    assert found["postgres"] == found["valkey"] == {}


def test_a_second_up_says_so_and_harms_nothing(stack: Up) -> None:
    before = stack.facts

    said = subprocess.run(
        [sys.executable, "-m", "banksman.embedded.stack", "--data-dir", str(stack.data)],
        capture_output=True,
        text=True,
        timeout=30,
    )

    assert said.returncode == 2
    assert f"already up on {stack.data} (process {stack.popen.pid})" in said.stderr
    assert stack.facts == before
    assert all(processes.identify(pid) for pid in before["pids"].values())


@pytest.mark.parametrize("name", ["worker-1", "gateway", "notifier", "valkey", "mail", "postgres"])
def test_a_process_that_is_killed_is_replaced_and_stack_json_says_by_whom(stack: Up, name: str) -> None:
    before = stack.pids

    os.kill(before[name], signal.SIGKILL)
    stack.wait_for(lambda: stack.pids[name] != before[name])

    after = stack.pids
    assert {other: pid for other, pid in after.items() if other != name} == {
        other: pid for other, pid in before.items() if other != name
    }
    stack.wait_for(lambda: _answers(stack, name))


def _answers(stack: Up, name: str) -> bool:
    if name != "postgres":
        return processes.identify(stack.pids[name]) is not None
    try:
        psycopg.connect(stack.facts["database_url"]).close()
    except psycopg.OperationalError:
        return False
    return True


def test_nothing_is_lost_or_left_whether_it_is_stopped_or_killed(start: Start) -> None:
    # Killed: its children go with it, and the next start finds everything as it was.
    first = start().ready()
    facts, pids = first.facts, first.pids
    with psycopg.connect(facts["database_url"]) as conn:
        conn.execute("CREATE TABLE kept AS SELECT 1 AS one")
    first.popen.kill()
    first.popen.wait()
    if sys.platform == "linux":
        deadline = time.monotonic() + 15
        while any(processes.identify(pid) for pid in pids.values()):
            assert time.monotonic() < deadline
            time.sleep(0.05)

    # Stopped: as by Ctrl-C on a terminal.
    second = start().ready()
    again, pids = second.facts, second.pids
    with psycopg.connect(again["database_url"]) as conn:
        assert conn.execute("SELECT one FROM kept").fetchone() == (1,)
    code = second.end(signal.SIGINT)

    moved: dict[str, object] = {"pids": {}, "metrics_urls": {}}
    assert {**again, **moved} == {**facts, **moved}
    assert code == 0
    assert not any(processes.identify(pid) for pid in pids.values())
    assert not (second.data / "stack.json").exists()


def test_a_signal_in_the_middle_of_the_start_leaves_nothing(start: Start) -> None:
    up = start()
    up.wait_for(lambda: "valkey" in (up.said()))
    children = json.loads((up.data / "children.json").read_text())

    assert up.end(signal.SIGTERM) == 0
    assert not any(processes.identify(child["pid"]) for child in children.values())
    assert not (up.data / "stack.json").exists()


def test_agents_that_do_not_import_stop_the_start_and_are_named(start: Start) -> None:
    up = start("--agents", "no_such_module:agents")

    assert up.popen.wait(120) == 1
    said = up.said()
    assert "worker-1 ended with code" in said
    assert "no_such_module" in said


def test_a_port_that_is_taken_is_refused_by_number(start: Start, stack: Up) -> None:
    port = stack.facts["gateway_url"].rpartition(":")[2]

    up = start("--port", port)

    assert up.popen.wait(30) == 2
    assert f"Port {port} is in use" in up.said()


def test_data_without_their_secrets_are_not_touched(tmp_path: Path, start: Start) -> None:
    home = tmp_path / "data" / "postgres"
    home.parent.mkdir(mode=0o700)
    with postgres.running(home, durable=False):
        pass

    up = start()

    assert up.popen.wait(30) == 2
    assert "secrets.json is gone" in up.said()
    assert not (tmp_path / "data" / "secrets.json").exists()


def test_secrets_from_before_services_had_broker_passwords_are_completed_once(tmp_path: Path) -> None:
    path = tmp_path / "secrets.json"
    made = keyring.load_or_make(path, data_exists=False)
    older = {name: value for name, value in json.loads(path.read_text()).items() if name != "broker_passwords"}
    path.write_text(json.dumps(older))

    completed = [keyring.load_or_make(path, data_exists=True) for _ in range(2)]

    assert completed[0] == completed[1]
    assert completed[0].broker_passwords.keys() == made.broker_passwords.keys()
    assert replace(completed[0], broker_passwords=made.broker_passwords) == made


CALLER = {"PATH": "/bin", "OPENAI_API_KEY": "sk", "BANKSMAN_SIGNING_KEY": "mine", "BANKSMAN_ALLOW_TOOLS": "x", "X": "y"}


def test_only_the_worker_inherits_what_the_caller_has_and_none_the_callers_secrets() -> None:
    where = environment.Addresses(
        database_urls={"worker": "w", "gateway": "g", "notifier": "n", "sealer": "s"},
        broker_urls=dict.fromkeys(("worker", "gateway", "notifier"), "b"),
        gateway_port=1,
        gateway_url="u",
        smtp_port=2,
    )
    ring = Keyring.make()

    worker = environment.of_worker(CALLER, where, ring, agents="a:b", health_port=3)
    gateway = environment.of_gateway(CALLER, where, ring)
    notifier = environment.of_notifier(CALLER, where, ring, health_port=4)

    assert worker["OPENAI_API_KEY"] == "sk"
    assert worker["BANKSMAN_ALLOW_TOOLS"] == "x"
    assert "BANKSMAN_SIGNING_KEY" not in worker
    assert gateway["BANKSMAN_SIGNING_KEY"] == ring.signing_key
    assert {"X", "OPENAI_API_KEY"} & (gateway.keys() | notifier.keys()) == set()


@pytest.mark.parametrize(
    ("kind", "service"), [(WorkerSettings, "worker"), (GatewaySettings, "gateway"), (NotifierSettings, "notifier")]
)
def test_every_setting_of_a_service_is_either_the_stacks_or_the_callers(kind: type[Settings], service: str) -> None:
    where = environment.Addresses(
        database_urls=dict.fromkeys(("worker", "gateway", "notifier", "sealer"), "u"),
        broker_urls=dict.fromkeys(("worker", "gateway", "notifier"), "b"),
        gateway_port=ports.free(),
        gateway_url="u",
        smtp_port=2,
    )
    ring = Keyring.make()
    made: Mapping[str, Mapping[str, str]] = {
        "worker": environment.of_worker({}, where, ring, agents="a:b", health_port=3),
        "gateway": environment.of_gateway({}, where, ring),
        "notifier": environment.of_notifier({}, where, ring, health_port=4),
    }

    set_by_us = {name.removeprefix("BANKSMAN_") for name in made[service] if name.startswith("BANKSMAN_")}
    fields = {name.upper() for name in kind.model_fields}
    assert set_by_us | set(environment.TUNING[service]) == fields
