"""The compose file as a team would run it, checked as far as a machine without a container engine can."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import cast

import pytest
import redis
import yaml
from redis.exceptions import NoPermissionError
from tests.journeys.stacks import until

from banksman.deployment import write_deployment
from banksman.embedded import ports, valkey
from banksman.files import settings_in

ROOT = Path(__file__).parents[2]
SERVICES = ("agent-worker", "gateway", "notifier")
SERVERS = ("postgres", "valkey", "mail")


@pytest.fixture(scope="module")
def compose() -> dict[str, dict[str, object]]:
    text = (ROOT / "docker-compose.yml").read_text()
    return cast("dict[str, dict[str, object]]", yaml.safe_load(text)["services"])


@pytest.fixture
def secrets(tmp_path: Path) -> Path:
    write_deployment(tmp_path, admin_email="ada@example.org", public_url="https://ok.example.org")
    return tmp_path / "secrets"


def test_the_file_is_valid_by_the_compose_specification() -> None:
    result = subprocess.run(
        [
            *(sys.executable, "-m", "check_jsonschema"),
            *("--builtin-schema", "vendor.compose-spec", "docker-compose.yml"),
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )

    assert result.returncode == 0, result.stdout + result.stderr


def test_it_names_every_part_of_the_stack(compose: dict[str, dict[str, object]]) -> None:
    assert set(compose) == {*SERVICES, *SERVERS, "migrate"}


@pytest.mark.parametrize("name", [*SERVICES, *SERVERS])
def test_whatever_stays_up_has_a_health_check(compose: dict[str, dict[str, object]], name: str) -> None:
    health = cast("dict[str, object]", compose[name]["healthcheck"])

    assert health["test"]
    assert {"interval", "timeout", "retries"} <= set(health)


def test_only_the_gateway_is_published_and_only_on_loopback(compose: dict[str, dict[str, object]]) -> None:
    published = {name: service["ports"] for name, service in compose.items() if "ports" in service}

    assert published == {"gateway": ["${BANKSMAN_BIND:-127.0.0.1}:${BANKSMAN_PORT:-8420}:8420"]}


def test_nothing_stands_in_the_way_of_scaling_the_worker(compose: dict[str, dict[str, object]]) -> None:
    for service in compose.values():
        assert "container_name" not in service
        assert "hostname" not in service

    assert "ports" not in compose["agent-worker"]
    assert seconds(compose["agent-worker"]["stop_grace_period"]) >= 60


def test_the_services_start_after_the_migration_and_the_broker(compose: dict[str, dict[str, object]]) -> None:
    for name in SERVICES:
        conditions = depends(compose[name])
        assert conditions["migrate"] == "service_completed_successfully"
        assert conditions["valkey"] == "service_healthy"

    assert depends(compose["migrate"]) == {"postgres": "service_healthy"}
    assert depends(compose["notifier"])["gateway"] == "service_healthy"


def test_databases_and_broker_have_no_way_out(compose: dict[str, dict[str, object]]) -> None:
    document = cast("dict[str, dict[str, object]]", yaml.safe_load((ROOT / "docker-compose.yml").read_text()))

    assert document["networks"]["inside"] == {"internal": True}
    for name in (*SERVERS, "migrate"):
        assert compose[name]["networks"] == ["inside"]


def test_the_services_run_without_privileges(compose: dict[str, dict[str, object]]) -> None:
    for name in (*SERVICES, "migrate"):
        assert compose[name]["read_only"] is True
        assert compose[name]["cap_drop"] == ["ALL"]
        assert compose[name]["security_opt"] == ["no-new-privileges:true"]


def test_each_container_is_given_its_own_secrets_and_no_other(
    compose: dict[str, dict[str, object]], secrets: Path
) -> None:
    given = {name: service.get("env_file") for name, service in compose.items()}

    assert given == {
        "postgres": "secrets/postgres.env",
        "valkey": "secrets/valkey.env",
        "mail": None,
        "migrate": "secrets/migrate.env",
        "agent-worker": "secrets/worker.env",
        "gateway": "secrets/gateway.env",
        "notifier": "secrets/notifier.env",
    }
    assert {f"secrets/{path.name}" for path in secrets.iterdir()} == set(given.values()) - {None}


def test_the_compose_file_itself_holds_no_secret(compose: dict[str, dict[str, object]]) -> None:
    for service in compose.values():
        environment = cast("dict[str, str]", service.get("environment", {}))
        assert not [key for key in environment if re.search("PASSWORD|TOKEN|KEY|DATABASE", key)]


def test_the_broker_starts_with_the_rights_of_deploy_and_lets_each_service_in(
    compose: dict[str, dict[str, object]], secrets: Path, tmp_path: Path
) -> None:
    server = valkey.at(tmp_path / "valkey", port=ports.free(), password="unused")
    server.prepare()
    shell, flags, script = cast("list[str]", compose["valkey"]["command"])
    assert "./deploy/valkey:/acl:ro" in cast("list[str]", compose["valkey"]["volumes"])
    place = f"--port {server.port} --bind 127.0.0.1 --dir {server.home}"
    script = script.replace("$$", "$").replace("/acl/", f"{ROOT}/deploy/valkey/")
    script = script.replace("valkey-server -", f"{server.binary} - {place}")

    env = settings_in((secrets / "valkey.env").read_text()) | {"PATH": "/usr/bin:/bin"}
    with subprocess.Popen([shell, flags, script], env=env, start_new_session=True) as process:
        try:
            for name in ("worker", "gateway", "notifier"):
                url = settings_in((secrets / f"{name}.env").read_text())["BANKSMAN_BROKER_URL"]
                with redis.Redis.from_url(url.replace("valkey:6379", f"127.0.0.1:{server.port}")) as client:
                    until(lambda client=client: answers(client), what="the broker")
                    with pytest.raises(NoPermissionError):
                        client.config_get("dir")
        finally:
            os.killpg(process.pid, signal.SIGTERM)


def test_the_broker_does_not_start_with_secrets_that_name_no_password_for_a_service(
    compose: dict[str, dict[str, object]],
) -> None:
    shell, flags, script = cast("list[str]", compose["valkey"]["command"])

    ended = subprocess.run(
        [shell, flags, script.replace("$$", "$").replace("/acl/", f"{ROOT}/deploy/valkey/")],
        env={"VALKEY_PASSWORD": "old", "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        timeout=10,
    )

    assert ended.returncode != 0
    assert "run banksman init once more" in ended.stderr


def test_every_image_in_the_file_is_a_target_of_the_dockerfile(compose: dict[str, dict[str, object]]) -> None:
    targets = set(re.findall(r"^FROM \S+ AS (\S+)$", (ROOT / "Dockerfile").read_text(), re.MULTILINE))

    for name in (*SERVICES, "migrate"):
        build = cast("dict[str, str]", compose[name]["build"])
        assert build["target"] in targets


@pytest.mark.parametrize("extra", ["worker", "gateway", "notifier"])
def test_an_image_installs_its_own_extra_from_the_lock_and_runs_without_root(extra: str) -> None:
    stages = (ROOT / "Dockerfile").read_text().split("\nFROM ")
    build = next(stage for stage in stages if f"AS build-{extra}\n" in stage)
    image = next(stage for stage in stages if stage.startswith(f"runtime AS {extra}\n"))
    runtime = next(stage for stage in stages if stage.startswith("base AS runtime\n"))

    installs = [line for line in build.splitlines() if line.startswith("RUN uv sync")]
    assert len(installs) == 2
    assert all("--frozen --no-dev" in line for line in installs)
    assert all(line.endswith(f"--extra {extra}") for line in installs)
    assert re.search(r"^USER 10001$", runtime, re.MULTILINE)
    assert "USER" not in image


def depends(service: dict[str, object]) -> dict[str, str]:
    conditions = cast("dict[str, dict[str, str]]", service["depends_on"])
    return {name: rule["condition"] for name, rule in conditions.items()}


def seconds(period: object) -> int:
    assert isinstance(period, str)
    return int(period.removesuffix("s"))


def answers(client: redis.Redis) -> bool:
    try:
        return bool(client.ping())
    except redis.ConnectionError:
        return False
