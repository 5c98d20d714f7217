"""Settings: environment variables `BANKSMAN_*`, one class for each service, read once by the process's entry point."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import timedelta
from typing import Annotated, Any, Literal, Self, TypeVar
from urllib.parse import urlsplit

from pydantic import Field, SecretStr, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from banksman.errors import ConfigurationError
from banksman.states import Tier

Words = Annotated[tuple[str, ...], NoDecode]
Tiers = Annotated[Mapping[str, Tier], NoDecode]
Limits = Annotated[Mapping[str, int], NoDecode]


class Settings(BaseSettings):
    """What every service has."""

    model_config = SettingsConfigDict(env_prefix="BANKSMAN_", extra="ignore", frozen=True)

    log_format: Literal["console", "json"] = "console"
    log_level: Literal["debug", "info", "warning", "error"] = "info"

    @field_validator("*", mode="before")
    @classmethod
    def _split_words(cls, value: Any, info: Any) -> Any:
        field = cls.model_fields[info.field_name]
        if field.annotation == tuple[str, ...] and isinstance(value, str):
            return tuple(word for word in map(str.strip, value.split(",")) if word)
        return value


class LedgerSettings(Settings):
    """What every service that talks to PostgreSQL and the broker has."""

    database_url: SecretStr
    broker_url: SecretStr
    vault_keys: SecretStr = SecretStr("")

    @field_validator("database_url")
    @classmethod
    def _is_postgres(cls, value: SecretStr) -> SecretStr:
        return _with_scheme(value, "postgresql", "postgres", example="postgresql://user:password@host:5432/name")

    @field_validator("broker_url")
    @classmethod
    def _is_redis(cls, value: SecretStr) -> SecretStr:
        return _with_scheme(value, "redis", "rediss", example="redis://worker:password@host:6379/0")


class PolicySettings(LedgerSettings):
    """What holds where no rule says otherwise; `policy` names a file of rules, used while none were uploaded."""

    policy: str = ""
    allow_tools: Words = ()
    allow_writes_below: Words = ()
    tiers: Tiers = Field(default_factory=dict[str, Tier])
    deadline_hours: float = Field(default=72, gt=0)

    @field_validator("tiers", mode="before")
    @classmethod
    def _split_tiers(cls, value: Any) -> Any:
        if not isinstance(value, str):
            return value
        pairs = [pair.partition("=") for pair in map(str.strip, value.split(",")) if pair]
        tiers = {tool.strip(): tier.strip() for tool, _, tier in pairs}
        if len(tiers) < len(pairs) or not all(tiers) or not set(tiers.values()) <= {*Tier}:
            raise ValueError("is not a list like issue_refund=low,execute=high, each tool once")
        return tiers


class WorkerSettings(PolicySettings):
    """The agent worker's: it holds public keys only."""

    agents: Words = Field(min_length=1)
    verify_keys: str
    concurrency: int = Field(100, ge=1, le=1000)
    lease_seconds: float = Field(60, ge=1)
    redispatch_seconds: float = Field(30, ge=1)
    sweep_seconds: float = Field(1, gt=0)
    drain_seconds: float = Field(10, ge=0)
    cancel_seconds: float = Field(5, ge=0)
    step_seconds: float = Field(3600, ge=1)
    max_attempts: int = Field(5, ge=1)
    window: int = Field(200, ge=1)
    max_running: Limits = Field(default_factory=dict[str, int])
    health_port: int = Field(0, ge=0, le=65535)
    health_host: str = "127.0.0.1"
    demo_model: str = ""

    @field_validator("max_running", mode="before")
    @classmethod
    def _split_max_running(cls, value: Any) -> Any:
        return _limits(value, example="refunds=20,openai:gpt-4.1=50")

    @property
    def lease(self) -> timedelta:
        """How long a claim holds without a heartbeat."""
        return timedelta(seconds=self.lease_seconds)

    @property
    def cancel_grace(self) -> timedelta:
        """How long the tools of a cancelled run may take to end."""
        return timedelta(seconds=self.cancel_seconds)

    @property
    def redispatch(self) -> timedelta:
        """How long a wake-up may stay unanswered before the run is dispatched again."""
        return timedelta(seconds=self.redispatch_seconds)


class GatewaySettings(PolicySettings):
    """The approval gateway's: it alone signs and mints. It judges by the same settings as the workers, to rehearse."""

    public_url: str
    host: str = "127.0.0.1"
    port: int = Field(8420, ge=0, le=65535)
    signing_key: SecretStr
    verify_keys: str = ""
    link_keys: SecretStr
    notifier_token: SecretStr = Field(min_length=16)
    sweep_seconds: float = Field(1, gt=0)
    redispatch_seconds: float = Field(5, ge=1)
    membership_seconds: float = Field(3600, ge=0, le=30 * 86400)
    webhook_allow: Words = ()
    dwell_seconds: float = Field(5, ge=0, le=300)
    receipt_hour: int | None = Field(default=17, ge=0, le=23)
    max_open: Limits = Field(default_factory=dict[str, int])
    sealer_database_url: SecretStr | None = None
    sealing_key: SecretStr | None = None
    seal_verify_keys: str = ""
    seal_seconds: float | None = Field(default=10, gt=0)
    audit_anchor: str = ""

    @field_validator("max_open", mode="before")
    @classmethod
    def _split_max_open(cls, value: Any) -> Any:
        return _limits(value, example="reviewers=500,security=50")

    @field_validator("receipt_hour", "seal_seconds", mode="before")
    @classmethod
    def _never(cls, value: Any) -> Any:
        return None if value == "never" else value

    @property
    def membership(self) -> timedelta:
        """How long a role or group that was given lately does not count for what was asked before."""
        return timedelta(seconds=self.membership_seconds)

    @model_validator(mode="after")
    def _is_safe(self) -> Self:
        url = urlsplit(self.public_url)
        if (url.scheme == "https" and url.hostname) or (url.scheme == "http" and url.hostname == "localhost"):
            return self
        raise ValueError("BANKSMAN_PUBLIC_URL must be https://…, or http://localhost:PORT on one's own machine.")

    @property
    def on_localhost(self) -> bool:
        """Whether cookies go without `Secure` and `__Host-`, which plain http does not carry."""
        return urlsplit(self.public_url).scheme == "http"


class NotifierSettings(LedgerSettings):
    """The notifier's: it holds no key, and asks the gateway for each link."""

    gateway_url: str
    notifier_token: SecretStr = Field(min_length=16)
    smtp_url: SecretStr = SecretStr("smtp://127.0.0.1:2525")
    mail_from: str = "Banksman <banksman@localhost>"
    console: bool = False
    health_port: int = Field(0, ge=0, le=65535)
    health_host: str = "127.0.0.1"
    sweep_seconds: float = Field(1, gt=0)
    claim_seconds: float = Field(300, ge=1)
    max_attempts: int = Field(8, ge=1)
    gather_medium_minutes: float = Field(10, ge=0, le=1440)
    gather_low_minutes: float = Field(60, ge=0, le=1440)
    webhook_allow: Words = ()


class MigrateSettings(Settings):
    """The owner's, for migrations, and for what is sealed anew or looked at after a restore."""

    database_url: SecretStr
    vault_keys: SecretStr = SecretStr("")
    worker_password: SecretStr | None = None
    gateway_password: SecretStr | None = None
    notifier_password: SecretStr | None = None
    sealer_password: SecretStr | None = None
    scaler_password: SecretStr | None = None
    keeper_password: SecretStr | None = None
    seal_verify_keys: str = ""
    admin_email: str = ""


S = TypeVar("S", bound=Settings)


def read(kind: type[S]) -> S:
    """The settings of this process, or a `ConfigurationError` that names every variable that is missing or wrong."""
    try:
        return kind()
    except ValidationError as error:
        lines = [f"  {_variable(item['loc'])}: {_say(item)}" for item in error.errors(include_input=False)]
        raise ConfigurationError("These settings stop the start-up:\n" + "\n".join(lines)) from None


def _variable(location: tuple[int | str, ...]) -> str:
    return f"BANKSMAN_{str(location[0]).upper()}" if location else "settings"


def _say(item: Any) -> str:
    return "is missing." if item["type"] == "missing" else str(item["msg"]).removeprefix("Value error, ")


def _limits(value: Any, *, example: str) -> Any:
    """`name=number, …` as a mapping; a name may hold anything but a comma."""
    if not isinstance(value, str):
        return value
    pairs = [pair.rpartition("=") for pair in map(str.strip, value.split(",")) if pair]
    limits = {name.strip(): number.strip() for name, _, number in pairs}
    if (
        len(limits) < len(pairs)
        or not all(limits)
        or not all(re.fullmatch("[1-9][0-9]{0,8}", n) for n in limits.values())
    ):
        raise ValueError(f"is not a list like {example}, each name once")
    return limits


def _with_scheme(value: SecretStr, *schemes: str, example: str) -> SecretStr:
    try:
        url = urlsplit(value.get_secret_value())
        well_formed = url.scheme in schemes and bool(url.hostname) and url.port != 0
    except ValueError:
        well_formed = False
    if not well_formed:
        raise ValueError(f"is not a URL like {example}")
    return value
