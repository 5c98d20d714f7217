"""Our Valkey launcher on real servers."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
import redis
from redis.backoff import NoBackoff
from redis.exceptions import AuthenticationError
from redis.retry import Retry

from banksman.embedded import ports, processes, valkey


def test_it_wants_its_password_which_no_process_list_shows(tmp_path: Path) -> None:
    with valkey.running(tmp_path / "v", durable=False) as server:
        with redis.Redis.from_url(server.url()) as client:
            info = client.info("server")
            assert isinstance(info, dict)
            assert client.config_get("maxmemory-policy") == {"maxmemory-policy": "noeviction"}
        with (
            redis.Redis(port=server.port, retry=Retry(NoBackoff(), 0)) as anonymous,
            pytest.raises(AuthenticationError),
        ):
            anonymous.ping()
        shown = processes.command_line(info["process_id"])

    assert "valkey-server" in shown
    assert server.password not in shown
    assert not ports.answers(server.port)


def test_what_was_written_is_there_after_a_kill_of_the_process(tmp_path: Path) -> None:
    with valkey.running(tmp_path / "v") as server, redis.Redis.from_url(server.url()) as client:
        client.set("kept", "yes")
        info = client.info("server")
        assert isinstance(info, dict)
        os.kill(info["process_id"], signal.SIGKILL)

    with valkey.running(tmp_path / "v", password=server.password) as again, redis.Redis.from_url(again.url()) as client:
        assert client.get("kept") == b"yes"


def test_a_stranger_on_the_port_is_not_taken_for_ours(tmp_path: Path) -> None:
    with valkey.running(tmp_path / "v", durable=False) as server:
        assert not server.ready(os.getpid())
