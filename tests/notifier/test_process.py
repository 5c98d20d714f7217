"""The notifier as a process: told by a message or not at all, whatever a message holds, until it is told to stop."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta

import pytest
import redis

from banksman import ledger
from banksman.embedded import ports
from banksman.wire import Hint, Wire, message
from tests.conftest import VAULT_KEYS, Database
from tests.notifier.conftest import TOKEN, AskFor, Catcher, Door


def settled(condition: Callable[[], bool], *, within: float = 15) -> bool:
    deadline = time.monotonic() + within
    while time.monotonic() < deadline:
        if condition():
            return True
        time.sleep(0.02)
    return False


@pytest.fixture
def environ(database: Database, broker: str, door: Door, catcher: Catcher) -> dict[str, str]:
    return {
        "PATH": os.environ["PATH"],
        "BANKSMAN_DATABASE_URL": database.notifier,
        "BANKSMAN_BROKER_URL": broker,
        "BANKSMAN_GATEWAY_URL": door.url,
        "BANKSMAN_NOTIFIER_TOKEN": TOKEN,
        "BANKSMAN_VAULT_KEYS": VAULT_KEYS,
        "BANKSMAN_SMTP_URL": f"smtp://127.0.0.1:{catcher.port}",
        "BANKSMAN_SWEEP_SECONDS": "3600",
    }


@contextmanager
def notifier(environ: Mapping[str, str]) -> Generator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [sys.executable, "-m", "banksman_notifier"],
        env=dict(environ),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        yield process
    finally:
        if process.poll() is None:
            process.kill()
        process.communicate()


def stop(process: subprocess.Popen[str]) -> str:
    process.send_signal(signal.SIGTERM)
    said, _ = process.communicate(timeout=15)
    assert process.returncode == 0, said
    return said


def test_a_message_is_enough(environ: dict[str, str], asked: AskFor, wire: Wire, catcher: Catcher) -> None:
    with notifier(environ) as process:
        wire.deliver(asked())

        assert settled(lambda: len(catcher.raw) == 2)
        said = stop(process)

    assert "ready" in said
    assert "superuser" not in said
    assert "celery@" not in said
    assert len(said.splitlines()) < 6, said


def test_what_is_not_a_list_of_ids_is_dropped_and_nothing_it_brings_is_called(
    environ: dict[str, str], asked: AskFor, wire: Wire, catcher: Catcher, broker: str
) -> None:
    until = datetime.now(UTC) + timedelta(seconds=30)
    bad: Sequence[list[object]] = ([], ["x"], [["x"]], [[1]], [["A" * 32]], [[], []], [{"a": 1}], [None])
    good = [["f" * 32]]
    messages = [message(Hint("deliver", arguments, until)) for arguments in (*bad, good)]
    follow_up = {"task": "deliver", "args": [["0" * 32]], "options": {"queue": "elsewhere"}}
    messages.append(
        messages[-1].replace('\\"callbacks\\": null', json.dumps(f'"callbacks": [{json.dumps(follow_up)}]')[1:-1])
    )
    messages.append(messages[0].replace('"deliver"', '"nobody_knows_this"'))
    with redis.Redis.from_url(broker) as client:
        client.lpush("approvals", *messages)

    with notifier(environ) as process:
        wire.deliver(asked())
        assert settled(lambda: len(catcher.raw) == 2)
        said = stop(process)

    assert said.count("A message was dropped.") == 10
    with redis.Redis.from_url(broker) as client:
        assert client.llen("elsewhere") == 0


def test_a_notice_that_no_message_announced_is_found(environ: dict[str, str], asked: AskFor, catcher: Catcher) -> None:
    asked()

    with notifier(environ | {"BANKSMAN_SWEEP_SECONDS": "0.05"}) as process:
        assert settled(lambda: len(catcher.raw) == 2)
        stop(process)


def test_mail_goes_out_while_the_broker_is_away_and_it_still_stops(
    environ: dict[str, str], asked: AskFor, catcher: Catcher
) -> None:
    asked()
    away = {"BANKSMAN_BROKER_URL": f"redis://127.0.0.1:{ports.free()}/0", "BANKSMAN_SWEEP_SECONDS": "0.05"}

    with notifier(environ | away) as process:
        assert settled(lambda: len(catcher.raw) == 2)
        stop(process)


def test_a_killed_notifiers_claims_are_taken_up_again(
    environ: dict[str, str], asked: AskFor, catcher: Catcher, door: Door, owner_pool: ledger.Pool
) -> None:
    asked()
    catcher.on_data = "451 not now"
    with notifier(environ | {"BANKSMAN_SWEEP_SECONDS": "0.05"}) as process:
        assert settled(lambda: len(door.asked) == 2)
        process.kill()
        process.wait()
    catcher.on_data = "250 OK"
    with ledger.transaction(owner_pool) as conn:  # the claim runs out, or the pause after a failure
        conn.execute("UPDATE notices SET due_at = clock_timestamp() WHERE state IN ('due', 'claimed')")

    with notifier(environ | {"BANKSMAN_SWEEP_SECONDS": "0.05"}) as process:
        assert settled(lambda: len(catcher.raw) == 2)
        stop(process)


def test_the_console_shows_a_copy(environ: dict[str, str], asked: AskFor, catcher: Catcher) -> None:
    asked()
    shown = {"BANKSMAN_CONSOLE": "true", "BANKSMAN_SWEEP_SECONDS": "0.05"}

    with notifier(environ | shown) as process:
        assert settled(lambda: len(catcher.raw) == 2)
        said = stop(process)

    assert said.count("write_file waits for your decision") == 2


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"BANKSMAN_SMTP_URL": "mail:25"}, "BANKSMAN_SMTP_URL"),
        ({"BANKSMAN_MAIL_FROM": "nobody"}, "BANKSMAN_MAIL_FROM"),
        ({"BANKSMAN_BROKER_URL": "amqp://x"}, "BANKSMAN_BROKER_URL"),
        ({"BANKSMAN_NOTIFIER_TOKEN": ""}, "BANKSMAN_NOTIFIER_TOKEN"),
    ],
)
def test_a_wrong_setting_stops_the_start_and_is_named(
    environ: dict[str, str], change: dict[str, str], named: str
) -> None:
    with notifier(environ | change) as process:
        said, _ = process.communicate(timeout=15)

    assert process.returncode == 2
    assert named in said
    assert "Traceback" not in said
