"""The secrets of a stack on one machine: made once, kept in `secrets.json` (0600), never in an environment file."""

from __future__ import annotations

import json
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Self

from banksman import files
from banksman.errors import ConfigurationError
from banksman.key_life import Keys, new_sealing_key, new_vault_key
from banksman.vault import PLAIN

ROLES = ("worker", "gateway", "notifier")
DATABASE_ROLES = (*ROLES, "sealer")


@dataclass(frozen=True, kw_only=True, slots=True)
class Credentials:
    """The texts of what lets people and programs in; the database holds their hashes only."""

    submit_key: str = ""
    reviewer_tokens: Mapping[str, str] = field(default_factory=dict[str, str])


@dataclass(frozen=True, kw_only=True, slots=True)
class Keyring:
    """Every secret of the stack; each process is given only its own."""

    owner_password: str
    role_passwords: Mapping[str, str]
    broker_password: str
    broker_passwords: Mapping[str, str]
    signing_key: str
    verify_keys: str
    link_keys: str
    vault_keys: str
    notifier_token: str
    sealing_key: str
    seal_verify_keys: str = ""
    """What the sealing key and those before it verify by; as long as there was one only, empty."""
    credentials: Credentials = Credentials()

    @classmethod
    def make(cls) -> Self:
        """A new set, from one throw of the dice."""
        keys = Keys.make()
        return cls(
            owner_password=secrets.token_urlsafe(32),
            role_passwords=_passwords(DATABASE_ROLES),
            broker_password=secrets.token_urlsafe(32),
            broker_passwords=_passwords(ROLES),
            signing_key=keys.signing_key,
            verify_keys=keys.verify_keys,
            link_keys=keys.link_keys,
            vault_keys=keys.vault_keys,
            notifier_token=secrets.token_urlsafe(32),
            sealing_key=new_sealing_key()[0],
        )


def load_or_make(path: Path, *, data_exists: bool) -> Keyring:
    """The kept secrets, or new ones for a new data folder; data without their secrets cannot be opened."""
    try:
        text = path.read_text()
    except FileNotFoundError:
        if data_exists:
            raise ConfigurationError(
                f"{path} is gone, and without its passwords and keys the data beside it cannot be used. Bring it "
                "back, or choose another BANKSMAN_DATA_DIR."
            ) from None
        made = Keyring.make()
        save(path, made)
        return made
    except OSError as error:
        raise ConfigurationError(f"{path} cannot be read: {error.strerror}.") from error
    try:
        found: dict[str, Any] = json.loads(text)
        before = json.dumps(found, sort_keys=True)
        # Broker and database take their passwords from here at each start, so who has none is given one.
        found.setdefault("broker_passwords", _passwords(ROLES))
        found.setdefault("sealing_key", new_sealing_key()[0])
        found["role_passwords"] = {**_passwords(DATABASE_ROLES), **found["role_passwords"]}
        # What was stored without a key of the vault opens until `banksman keys retire plain`.
        found.setdefault("vault_keys", f"{new_vault_key(())},{PLAIN}")
        completed = json.dumps(found, sort_keys=True) != before
        credentials = Credentials(**found.pop("credentials"))
        ring = Keyring(**found, credentials=credentials)
    except (ValueError, TypeError, KeyError):
        raise ConfigurationError(f"{path} is damaged: bring back a copy of it.") from None
    if completed:
        save(path, ring)
    return ring


def save(path: Path, keyring: Keyring) -> None:
    """Writes the secrets down, whole or not at all."""
    files.write_private(path, json.dumps(asdict(keyring), indent=2) + "\n")


def _passwords(roles: Sequence[str]) -> dict[str, str]:
    return {role: secrets.token_urlsafe(32) for role in roles}
