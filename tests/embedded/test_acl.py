"""What each service may do on the broker, tried on a real server with the files of `deploy/valkey`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import redis
from redis.exceptions import AuthenticationError, NoPermissionError

from banksman.embedded import acl, valkey
from banksman.wire import APPROVALS, CHANGED, RESUME, START

SERVICES = ("worker", "gateway", "notifier")
MAY = {
    "worker": [
        "PING", f"LPUSH {START} m", f"LPUSH {RESUME} m", f"LPUSH {APPROVALS} m", f"BRPOP {RESUME} {START} 0.01",
        f"LLEN {START}", f"PUBLISH {CHANGED} x", "CLIENT SETINFO LIB-NAME x",
    ],
    "gateway": [
        "PING", f"LPUSH {START} m", f"LPUSH {RESUME} m m", f"LPUSH {APPROVALS} m", f"LLEN {APPROVALS}",
        f"PUBLISH {CHANGED} x", f"SUBSCRIBE {CHANGED}",
    ],
    "notifier": ["PING", f"BRPOP {APPROVALS} 0.01", f"LLEN {APPROVALS}", f"PUBLISH {CHANGED} x"],
}  # fmt: skip
MAY_NOT = {
    "worker": [
        f"BRPOP {APPROVALS} 0.01", f"SUBSCRIBE {CHANGED}", f"RPOP {START}", f"LRANGE {START} 0 -1", f"DEL {START}",
    ],
    "gateway": [
        f"BRPOP {START} 0.01", f"BRPOP {RESUME} 0.01", f"BRPOP {APPROVALS} 0.01", f"LRANGE {START} 0 -1",
        f"DEL {START}", f"RPUSH {START} m", f"LTRIM {START} 0 0",
    ],
    "notifier": [
        f"LPUSH {APPROVALS} m", f"LPUSH {START} m", f"LPUSH {RESUME} m", f"BRPOP {START} 0.01", f"BRPOP {RESUME} 0.01",
        f"SUBSCRIBE {CHANGED}",
    ],
    "health": ["GET x", f"LLEN {START}", f"PUBLISH {CHANGED} x", "INFO", "CLIENT SETINFO LIB-NAME x"],
}  # fmt: skip
NOBODY_MAY = [
    "FLUSHALL", "FLUSHDB", "KEYS *", "SCAN 0", "CONFIG GET *", "CONFIG SET dir /tmp", "DEBUG SLEEP 0", "MONITOR",
    "ACL LIST", "ACL WHOAMI", "ACL SETUSER worker allkeys", "ACL LOAD", "EVAL return 0", "EVALSHA 0 0",
    "SCRIPT LOAD x", "FUNCTION LIST", "MODULE LIST", "SHUTDOWN", "SAVE", "BGREWRITEAOF", "REPLICAOF 127.0.0.1 1",
    "CLIENT LIST", "CLIENT KILL TYPE normal", "CLIENT PAUSE 1", "CLIENT SETNAME x", "INFO", "SELECT 0", "SWAPDB 0 0",
    "SLOWLOG GET", "LATENCY DOCTOR", "MEMORY STATS", "COMMAND", "MIGRATE h 1 k 0 1",
    "SET x y", "GET x", "LPUSH elsewhere m", "LPUSH celery m", "BRPOP celery 0.01", "LLEN elsewhere",
    "SADD _kombu.binding.celery.pidbox x", "HSET unacked a b", f"RENAME {START} other", f"COPY {START} other",
    f"LMOVE {START} other LEFT LEFT", f"EXPIRE {START} 1", "XADD s * a b",
    "PUBLISH /0.celery.pidbox x", "PUBLISH elsewhere x", "SUBSCRIBE elsewhere", "SUBSCRIBE /0.celery.pidbox",
    "PSUBSCRIBE *", "SSUBSCRIBE x", "PUBSUB CHANNELS",
]  # fmt: skip


@pytest.fixture
def server(valkey_server: valkey.Valkey) -> Iterator[valkey.Valkey]:
    with redis.Redis.from_url(valkey_server.url()) as owner:
        owner.flushall()
        yield valkey_server
        owner.acl_log_reset()


def ask(client: Any, line: str) -> None:
    """One command on a connection of its own, so that nothing stays subscribed."""
    connection = client.connection_pool.make_connection()
    try:
        connection.connect()
        connection.send_command(*line.split())
        connection.read_response()
    finally:
        connection.disconnect()


def as_user(server: valkey.Valkey, name: str) -> Any:
    url = server.url(name) if name in SERVICES else server.url().replace("owner:", f"{name}:")
    return redis.Redis.from_url(url, protocol=2)


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_may_do_its_work(server: valkey.Valkey, name: str) -> None:
    with as_user(server, name) as client, redis.Redis.from_url(server.url()) as owner:
        for line in MAY[name]:
            ask(client, line)

        assert owner.acl_log() == []


@pytest.mark.parametrize("name", [*SERVICES, "health"])
def test_and_nothing_else(server: valkey.Valkey, name: str) -> None:
    allowed: list[str] = []
    with as_user(server, name) as client:
        for line in [*MAY_NOT[name], *NOBODY_MAY]:
            try:
                ask(client, line)
            except NoPermissionError:
                continue
            except redis.ResponseError as error:
                if "not allowed" in str(error):  # DEBUG and MODULE are off for everybody
                    continue
            allowed.append(line)

    assert allowed == []


def test_without_a_name_or_with_another_services_password_nobody_gets_in(server: valkey.Valkey) -> None:
    strangers = [
        f"redis://127.0.0.1:{server.port}/0",
        f"redis://:{server.password}@127.0.0.1:{server.port}/0",
        server.url("worker").replace("worker:", "gateway:"),
        server.url("notifier").replace("notifier:", "owner:"),
    ]

    for url in strangers:
        with redis.Redis.from_url(url) as stranger, pytest.raises(AuthenticationError):
            ask(stranger, "PING")


def test_who_looks_whether_it_is_well_needs_no_password(server: valkey.Valkey) -> None:
    with as_user(server, "health") as health:
        ask(health, "PING")


def test_a_value_too_long_to_be_ours_does_not_even_arrive(server: valkey.Valkey) -> None:
    with redis.Redis.from_url(server.url("gateway")) as client, pytest.raises(redis.RedisError):
        client.lpush(START, b"x" * (1024 * 1024 + 1))


def test_the_rights_name_no_password() -> None:
    passwords = {name: f"secret-of-{name}" for name in acl.SERVICES}

    text = acl.settings(passwords, owner="secret-of-owner")

    assert "secret-of" not in text
    assert "@sha256@" not in text
    assert text.count("#") >= 4
