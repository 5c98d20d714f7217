"""What each process of the stack finds in its environment: its own secrets, and nobody else's.

The worker inherits the caller's environment, since that is where the keys of model providers are, without any
`BANKSMAN_*` of the caller's but the settings that are the worker's to have. The gateway, the notifier and the
mail catcher start from next to nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from banksman.embedded.keyring import Keyring
from banksman.signing import Signer

_PLAIN = ("PATH", "HOME", "LANG", "LC_ALL", "LC_CTYPE", "TZ", "TMPDIR", "PYTHONPATH", "SSL_CERT_FILE", "SSL_CERT_DIR")
_LOGS = ("LOG_FORMAT", "LOG_LEVEL")
_POLICY = ("POLICY", "ALLOW_TOOLS", "ALLOW_WRITES_BELOW", "TIERS", "DEADLINE_HOURS")
# What the caller may set for each service; everything else is the stack's to say.
TUNING: Mapping[str, tuple[str, ...]] = {
    "worker": (
        *_LOGS,
        "CONCURRENCY",
        "LEASE_SECONDS",
        "REDISPATCH_SECONDS",
        "SWEEP_SECONDS",
        "CANCEL_SECONDS",
        "STEP_SECONDS",
        "DRAIN_SECONDS",
        "MAX_ATTEMPTS",
        "WINDOW",
        "MAX_RUNNING",
        *_POLICY,
        "DEMO_MODEL",
    ),
    "gateway": (
        *(*_LOGS, *_POLICY, "SWEEP_SECONDS", "REDISPATCH_SECONDS", "MEMBERSHIP_SECONDS", "WEBHOOK_ALLOW"),
        *("DWELL_SECONDS", "RECEIPT_HOUR", "MAX_OPEN", "SEAL_SECONDS", "AUDIT_ANCHOR"),
    ),
    "notifier": (
        *_LOGS,
        "SWEEP_SECONDS",
        "CLAIM_SECONDS",
        "MAX_ATTEMPTS",
        "SMTP_URL",
        "MAIL_FROM",
        "CONSOLE",
        "GATHER_MEDIUM_MINUTES",
        "GATHER_LOW_MINUTES",
        "WEBHOOK_ALLOW",
    ),
    "mail": _LOGS,
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Addresses:
    """Where everything listens. Database and broker have one URL for each service."""

    database_urls: Mapping[str, str] = field(repr=False)
    broker_urls: Mapping[str, str] = field(repr=False)
    gateway_port: int
    gateway_url: str
    smtp_port: int


def of_mail(caller: Mapping[str, str]) -> dict[str, str]:
    """The mail catcher's: no secret at all."""
    return _base(caller, "mail")


def of_worker(
    caller: Mapping[str, str], where: Addresses, keyring: Keyring, *, agents: str, health_port: int
) -> dict[str, str]:
    """A worker's: the caller's own, and of the keys that sign the public halves only."""
    inherited = {name: value for name, value in caller.items() if not name.startswith("BANKSMAN_")}
    # The supervisor replaces a worker at once, so on one machine its runs need not wait a minute for the next.
    return inherited | {"BANKSMAN_LEASE_SECONDS": "15"} | _base(caller, "worker") | {
        "BANKSMAN_DATABASE_URL": where.database_urls["worker"],
        "BANKSMAN_BROKER_URL": where.broker_urls["worker"],
        "BANKSMAN_AGENTS": agents,
        "BANKSMAN_VERIFY_KEYS": keyring.verify_keys,
        "BANKSMAN_VAULT_KEYS": keyring.vault_keys,
        "BANKSMAN_HEALTH_HOST": "127.0.0.1",
        "BANKSMAN_HEALTH_PORT": str(health_port),
    }  # fmt: skip


def of_gateway(caller: Mapping[str, str], where: Addresses, keyring: Keyring) -> dict[str, str]:
    """The gateway's: it alone signs and mints."""
    return (
        {"BANKSMAN_MEMBERSHIP_SECONDS": "0"}
        | _base(caller, "gateway")
        | {
            "BANKSMAN_DATABASE_URL": where.database_urls["gateway"],
            "BANKSMAN_BROKER_URL": where.broker_urls["gateway"],
            "BANKSMAN_PUBLIC_URL": where.gateway_url,
            "BANKSMAN_HOST": "127.0.0.1",
            "BANKSMAN_PORT": str(where.gateway_port),
            "BANKSMAN_SIGNING_KEY": keyring.signing_key,
            "BANKSMAN_VERIFY_KEYS": keyring.verify_keys,
            "BANKSMAN_LINK_KEYS": keyring.link_keys,
            "BANKSMAN_VAULT_KEYS": keyring.vault_keys,
            "BANKSMAN_NOTIFIER_TOKEN": keyring.notifier_token,
            "BANKSMAN_SEALER_DATABASE_URL": where.database_urls["sealer"],
            "BANKSMAN_SEALING_KEY": keyring.sealing_key,
            "BANKSMAN_SEAL_VERIFY_KEYS": keyring.seal_verify_keys or Signer.read(keyring.sealing_key).public(),
        }
    )


def of_notifier(caller: Mapping[str, str], where: Addresses, keyring: Keyring, *, health_port: int) -> dict[str, str]:
    """The notifier's: it holds no key of the gateway's, and mails to the catcher unless the caller names a server."""
    return {
        "BANKSMAN_SMTP_URL": f"smtp://127.0.0.1:{where.smtp_port}",
        **_base(caller, "notifier"),
        "BANKSMAN_DATABASE_URL": where.database_urls["notifier"],
        "BANKSMAN_BROKER_URL": where.broker_urls["notifier"],
        "BANKSMAN_GATEWAY_URL": f"http://127.0.0.1:{where.gateway_port}",
        "BANKSMAN_NOTIFIER_TOKEN": keyring.notifier_token,
        "BANKSMAN_VAULT_KEYS": keyring.vault_keys,
        "BANKSMAN_HEALTH_HOST": "127.0.0.1",
        "BANKSMAN_HEALTH_PORT": str(health_port),
    }


def _base(caller: Mapping[str, str], service: str) -> dict[str, str]:
    traces = [name for name in caller if name.startswith("OTEL_")]
    names = [*_PLAIN, *traces, *(f"BANKSMAN_{name}" for name in TUNING[service])]
    return {name: caller[name] for name in names if name in caller} | {"PYTHONUNBUFFERED": "1"}
