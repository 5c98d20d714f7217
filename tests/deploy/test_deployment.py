"""The secrets of a compose deployment: made once, complete, private, and fitting each other."""

from __future__ import annotations

import os
import re
from hashlib import sha256
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import yaml

from banksman import settings, signing
from banksman.deployment import write_deployment
from banksman.errors import ConfigurationError
from banksman.links import LinkKeys

COMPOSE = Path(__file__).parents[2] / "docker-compose.yml"


def deploy(folder: Path, email: str = "ada@example.org", url: str = "https://ok.example.org") -> list[Path]:
    return write_deployment(folder, admin_email=email, public_url=url)


def read(path: Path) -> dict[str, str]:
    lines = [line for line in path.read_text().splitlines() if not line.startswith("#")]
    return dict(line.split("=", 1) for line in lines)


def test_the_files_are_for_their_owner_alone(tmp_path: Path) -> None:
    written = deploy(tmp_path)

    assert len(written) == 7
    for path in written:
        assert path.stat().st_mode & 0o777 == 0o600
    assert (tmp_path / "secrets").stat().st_mode & 0o777 == 0o700


def test_a_second_call_changes_nothing(tmp_path: Path) -> None:
    before = {path: path.read_bytes() for path in deploy(tmp_path)}

    assert deploy(tmp_path, email="mallory@example.org") == []

    assert {path: path.read_bytes() for path in before} == before


def test_two_deployments_share_no_secret(tmp_path: Path) -> None:
    deploy(tmp_path / "one")
    deploy(tmp_path / "two")

    one, two = (
        {value for path in (tmp_path / name / "secrets").iterdir() for value in read(path).values()}
        for name in ("one", "two")
    )
    assert one & two == {
        *("banksman", "ada@example.org", "https://ok.example.org"),
        *("smtp://mail:1025", "Banksman <banksman@ok.example.org>"),
    }


def test_half_a_set_of_secrets_is_refused_by_name(tmp_path: Path) -> None:
    deploy(tmp_path)
    (tmp_path / "secrets" / "gateway.env").unlink()

    with pytest.raises(ConfigurationError, match=r"without gateway\.env"):
        deploy(tmp_path)

    assert not (tmp_path / "secrets" / "gateway.env").exists()


def test_an_existing_env_file_is_kept(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("BANKSMAN_PORT=9000\n")

    written = deploy(tmp_path)

    assert tmp_path / ".env" not in written
    assert (tmp_path / ".env").read_text() == "BANKSMAN_PORT=9000\n"


def test_the_worker_verifies_what_the_gateway_signs_and_cannot_sign(tmp_path: Path) -> None:
    deploy(tmp_path)
    worker, gateway = (read(tmp_path / "secrets" / f"{name}.env") for name in ("worker", "gateway"))

    signed = signing.Signer.read(gateway["BANKSMAN_SIGNING_KEY"]).sign({"verdict": "approve"})

    verifier = signing.Verifier.read(worker["BANKSMAN_VERIFY_KEYS"])
    assert verifier.verify(signed) == {"verdict": "approve"}
    assert gateway["BANKSMAN_SIGNING_KEY"].split(":")[1] not in "".join(worker.values())
    LinkKeys.read(gateway["BANKSMAN_LINK_KEYS"])


def test_each_service_signs_in_to_postgresql_with_the_password_it_was_given(tmp_path: Path) -> None:
    deploy(tmp_path)
    migrate = read(tmp_path / "secrets" / "migrate.env")

    for service in ("worker", "gateway", "notifier"):
        url = urlsplit(read(tmp_path / "secrets" / f"{service}.env")["BANKSMAN_DATABASE_URL"])
        assert url.username == f"banksman_{service}"
        assert url.password == migrate[f"BANKSMAN_{service.upper()}_PASSWORD"]
    owner = read(tmp_path / "secrets" / "postgres.env")["POSTGRES_PASSWORD"]
    assert urlsplit(migrate["BANKSMAN_DATABASE_URL"]).password == owner


def test_no_service_holds_what_only_another_needs(tmp_path: Path) -> None:
    deploy(tmp_path)
    held = {path.stem: set(read(path)) for path in (tmp_path / "secrets").iterdir()}

    assert [name for name in held if "BANKSMAN_SIGNING_KEY" in held[name]] == ["gateway"]
    assert [name for name in held if "BANKSMAN_LINK_KEYS" in held[name]] == ["gateway"]
    assert {name for name in held if "BANKSMAN_NOTIFIER_TOKEN" in held[name]} == {"gateway", "notifier"}


def test_the_broker_knows_each_services_password_by_its_hash(tmp_path: Path) -> None:
    deploy(tmp_path)
    broker = read(tmp_path / "secrets" / "valkey.env")

    for service in ("worker", "gateway", "notifier"):
        url = urlsplit(read(tmp_path / "secrets" / f"{service}.env")["BANKSMAN_BROKER_URL"])
        assert url.username == service
        assert sha256(str(url.password).encode()).hexdigest() == broker[f"VALKEY_{service.upper()}_SHA256"]


def test_a_deployment_with_one_password_for_all_of_the_broker_gets_one_for_each_service(tmp_path: Path) -> None:
    deploy(tmp_path)
    secrets = tmp_path / "secrets"
    (secrets / "valkey.env").write_text("# The broker's password.\nVALKEY_PASSWORD=one\n")
    for service in ("worker", "gateway", "notifier"):
        path = secrets / f"{service}.env"
        path.write_text(re.sub("redis://.*", "redis://:one@valkey:6379/0", path.read_text()) + "# mine\nMINE=1\n")
    before = {path.name: read(path) for path in secrets.iterdir()}

    changed = deploy(tmp_path)
    again = deploy(tmp_path)

    assert {path.name for path in changed} == {"worker.env", "gateway.env", "notifier.env", "valkey.env"}
    assert again == []
    urls = {urlsplit(read(secrets / f"{name}.env")["BANKSMAN_BROKER_URL"]).username for name in ("worker", "gateway")}
    assert urls == {"worker", "gateway"}
    for path in secrets.iterdir():
        assert path.stat().st_mode & 0o777 == 0o600
        if path.name != "valkey.env":
            rest = {name: value for name, value in before[path.name].items() if name != "BANKSMAN_BROKER_URL"}
            assert read(path).items() >= rest.items()
    assert "# mine\n" in (secrets / "worker.env").read_text()
    assert "VALKEY_PASSWORD" not in read(secrets / "valkey.env")


def test_the_first_administrator_reaches_the_migration(tmp_path: Path) -> None:
    deploy(tmp_path)

    assert read(tmp_path / "secrets" / "migrate.env")["BANKSMAN_ADMIN_EMAIL"] == "ada@example.org"


@pytest.mark.parametrize("email", ["", "ada", "ada@", "ada@example.org\nX=1", "ada@$HOME", "Ada <ada@example.org>"])
def test_a_malformed_address_writes_nothing(tmp_path: Path, email: str) -> None:
    with pytest.raises(ConfigurationError, match="not an e-mail address"):
        deploy(tmp_path, email=email)

    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "url",
    [
        "",
        "ok.example.org",
        "http://ok.example.org",
        "http://127.0.0.1:1",
        "ftp://x",
        "https://x\nY=1",
        "https://x:99999",
    ],
)
def test_a_public_url_that_cookies_cannot_be_safe_on_writes_nothing(tmp_path: Path, url: str) -> None:
    with pytest.raises(ConfigurationError, match=r"URL"):
        deploy(tmp_path, url=url)

    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("container", "kind"),
    [
        ("agent-worker", settings.WorkerSettings),
        ("gateway", settings.GatewaySettings),
        ("notifier", settings.NotifierSettings),
        ("migrate", settings.MigrateSettings),
    ],
)
def test_a_service_understands_every_setting_that_compose_gives_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, container: str, kind: type[settings.Settings]
) -> None:
    deploy(tmp_path)
    service = yaml.safe_load(COMPOSE.read_text())["services"][container]
    given = read(tmp_path / service["env_file"]) | service.get("environment", {})
    given = {key: re.sub(r"\$\{\w+:-(.*)\}", r"\1", value) for key, value in given.items()}
    for key in [key for key in os.environ if key.startswith("BANKSMAN_")]:
        monkeypatch.delenv(key)
    for key, value in given.items():
        monkeypatch.setenv(key, value)

    settings.read(kind)

    known = {f"BANKSMAN_{name.upper()}" for name in kind.model_fields}
    assert set(given) - known == set()


def test_trying_it_out_on_localhost_publishes_that_port(tmp_path: Path) -> None:
    deploy(tmp_path, url="http://localhost:9090")

    assert read(tmp_path / ".env") == {
        "BANKSMAN_BIND": "127.0.0.1",
        "BANKSMAN_PORT": "9090",
        "BANKSMAN_AGENTS": "banksman_sysadmin:agents",
    }
    gateway = read(tmp_path / "secrets" / "gateway.env")
    assert gateway["BANKSMAN_PUBLIC_URL"] == "http://localhost:9090"
