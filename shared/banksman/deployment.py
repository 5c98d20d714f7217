"""Writes the secrets of a compose deployment: one file for each container, each holding only its own.

All secrets appear together or not at all: they are made in a folder beside the final one, which is then
renamed. A deployment that exists keeps what it has, since a second set of passwords and keys would lock the
first one's data away; only the broker, which holds no data, may get new passwords.
"""

from __future__ import annotations

import hashlib
import os
import re
import secrets
import shutil
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urlsplit

from banksman import files
from banksman.errors import ConfigurationError
from banksman.key_life import Keys, new_sealing_key, new_vault_key
from banksman.vault import PLAIN

_EMAIL = re.compile(r"[A-Za-z0-9._%+-]{1,64}@[A-Za-z0-9-]+(\.[A-Za-z0-9-]+)*")
_URL = re.compile(r"https?://[A-Za-z0-9.:\[\]-]+(/[A-Za-z0-9._~/-]*)?")


def write_deployment(folder: Path, *, admin_email: str, public_url: str) -> list[Path]:
    """Nothing → `.env` and `secrets/*.env` under `folder`; returns what was written, nothing if all was there."""
    email, url = _email(admin_email), _public_url(public_url)
    written: list[Path] = []

    target = folder / "secrets"
    names = [f"{name}.env" for name in _FILES]
    if not target.exists():
        written += _write_all(target, {f"{k}.env": v for k, v in _secrets(email, url).items()})
    elif missing := [name for name in names if not (target / name).exists()]:
        raise ConfigurationError(
            f"{target} exists without {', '.join(missing)}. Bring the missing file back from where you keep "
            f"copies, or, if nothing was ever started with these secrets, move {target} away and run this again."
        )
    else:
        written += dict.fromkeys([*_one_broker_password_each(target), *_a_sealer(target), *_a_vault(target)])

    compose = folder / ".env"
    if not compose.exists():
        _write(compose, _compose_settings(url))
        written.append(compose)
    return written


_SERVICES = ("worker", "gateway", "notifier")
_FILES = ("postgres", "valkey", "migrate", *_SERVICES)


def _secrets(admin_email: str, public_url: str) -> dict[str, str]:
    """The content of each container's file, all from one throw of the dice."""
    owner, worker, gateway, notifier, sealer = (secrets.token_urlsafe(32) for _ in range(5))
    broker_urls, broker = _broker()
    keys = Keys.make()
    sealing_key, seal_verify_keys = new_sealing_key()
    vault = {"BANKSMAN_VAULT_KEYS": keys.vault_keys}
    notifier_token = secrets.token_urlsafe(32)

    def database_url(user: str, password: str) -> str:
        return f"postgresql://{user}:{password}@postgres:5432/banksman"

    return {
        "postgres": _lines(
            "PostgreSQL's owner. The services never see this password.",
            {"POSTGRES_USER": "banksman", "POSTGRES_DB": "banksman", "POSTGRES_PASSWORD": owner},
        ),
        "valkey": broker,
        "migrate": _lines(
            "For the one-shot migration: the owner's URL, and the passwords it gives to the services' roles.\n"
            "The keys of the vault are for `banksman keys reseal` and `banksman restore-check`.",
            {
                "BANKSMAN_DATABASE_URL": database_url("banksman", owner),
                "BANKSMAN_WORKER_PASSWORD": worker,
                "BANKSMAN_GATEWAY_PASSWORD": gateway,
                "BANKSMAN_NOTIFIER_PASSWORD": notifier,
                "BANKSMAN_SEALER_PASSWORD": sealer,
                "BANKSMAN_SEAL_VERIFY_KEYS": seal_verify_keys,
                "BANKSMAN_ADMIN_EMAIL": admin_email,
                **vault,
            },
        ),
        "worker": _lines(
            "The agent worker: it verifies decisions and can sign none.\n"
            "Your agents' own keys belong here too, for example OPENAI_API_KEY=...",
            {
                "BANKSMAN_DATABASE_URL": database_url("banksman_worker", worker),
                "BANKSMAN_BROKER_URL": broker_urls["worker"],
                "BANKSMAN_VERIFY_KEYS": keys.verify_keys,
                **vault,
            },
        ),
        "gateway": _lines(
            "The approval gateway: the only holder of the keys that sign decisions and heads. Keep a copy offline.",
            {
                "BANKSMAN_DATABASE_URL": database_url("banksman_gateway", gateway),
                "BANKSMAN_BROKER_URL": broker_urls["gateway"],
                "BANKSMAN_PUBLIC_URL": public_url,
                "BANKSMAN_SIGNING_KEY": keys.signing_key,
                "BANKSMAN_VERIFY_KEYS": keys.verify_keys,
                "BANKSMAN_LINK_KEYS": keys.link_keys,
                **vault,
                "BANKSMAN_NOTIFIER_TOKEN": notifier_token,
                "BANKSMAN_SEALER_DATABASE_URL": database_url("banksman_sealer", sealer),
                "BANKSMAN_SEALING_KEY": sealing_key,
            },
        ),
        "notifier": _lines(
            "The notifier. The mail goes to the catcher of the compose file until SMTP_URL names your own server:\n"
            "smtp://user:password@smtp.example.org:587",
            {
                "BANKSMAN_DATABASE_URL": database_url("banksman_notifier", notifier),
                "BANKSMAN_BROKER_URL": broker_urls["notifier"],
                "BANKSMAN_NOTIFIER_TOKEN": notifier_token,
                **vault,
                "BANKSMAN_SMTP_URL": "smtp://mail:1025",
                "BANKSMAN_MAIL_FROM": f"Banksman <banksman@{urlsplit(public_url).hostname}>",
            },
        ),
    }


def _broker() -> tuple[dict[str, str], str]:
    """Each service's URL of the broker, with a password of its own, and the broker's file, which holds hashes only."""
    passwords = {name: secrets.token_urlsafe(32) for name in _SERVICES}
    hashes = {
        f"VALKEY_{name.upper()}_SHA256": hashlib.sha256(password.encode()).hexdigest()
        for name, password in passwords.items()
    }
    urls = {name: f"redis://{name}:{password}@valkey:6379/0" for name, password in passwords.items()}
    return urls, _lines("What the broker knows of the services' passwords: their SHA-256.", hashes)


def _one_broker_password_each(target: Path) -> list[Path]:
    """One password for all of the broker → one for each service, with rights of its own (deploy/valkey)."""
    if "VALKEY_PASSWORD" not in files.settings_in((target / "valkey.env").read_text()):
        return []
    urls, broker = _broker()
    changed = {
        target / f"{name}.env": files.with_settings(
            (target / f"{name}.env").read_text(), {"BANKSMAN_BROKER_URL": urls[name]}
        )
        for name in _SERVICES
    }
    # The broker's file comes last: should this be cut short, the next call finds the old one and does all of it again.
    changed[target / "valkey.env"] = broker
    for path, text in changed.items():
        files.write_private(path, text)
    return list(changed)


def _a_sealer(target: Path) -> list[Path]:
    """Nobody to seal the audit log → a role of its own in the database, and a key."""
    migrate, gateway = target / "migrate.env", target / "gateway.env"
    known = files.settings_in(migrate.read_text())
    if "BANKSMAN_SEALER_PASSWORD" in known:
        return []
    password, (key, verify) = secrets.token_urlsafe(32), new_sealing_key()
    url = urlsplit(known["BANKSMAN_DATABASE_URL"])
    host = url.netloc.rpartition("@")[2]
    sealer = url._replace(netloc=f"banksman_sealer:{password}@{host}").geturl()
    # What migrates comes last: should this be cut short, the next call finds it as it was and does all of it again.
    changed = {
        gateway: {"BANKSMAN_SEALER_DATABASE_URL": sealer, "BANKSMAN_SEALING_KEY": key},
        migrate: {"BANKSMAN_SEALER_PASSWORD": password, "BANKSMAN_SEAL_VERIFY_KEYS": verify},
    }
    for path, values in changed.items():
        files.write_private(path, files.with_settings(path.read_text(), values))
    return list(changed)


def _a_vault(target: Path) -> list[Path]:
    """No key of the vault → one for all who open what is stored, also what was stored without one. An empty setting
    stays: somebody chose that.
    """
    paths = [target / f"{name}.env" for name in (*_SERVICES, "migrate")]
    texts = {path: path.read_text() for path in paths}
    found = [files.settings_in(text).get("BANKSMAN_VAULT_KEYS") for text in texts.values()]
    missing = [path for path, keys in zip(paths, found, strict=True) if keys is None]
    # Should this be cut short, the next call goes on with the key that some have already.
    keys = next((keys for keys in found if keys is not None), f"{new_vault_key(())},{PLAIN}")
    for path in missing:
        files.write_private(path, files.with_settings(texts[path], {"BANKSMAN_VAULT_KEYS": keys}))
    return missing


def _compose_settings(public_url: str) -> str:
    """What docker-compose.yml itself reads; nothing in it is secret."""
    port = urlsplit(public_url).port if public_url.startswith("http://") else None
    return _lines(
        "Read by docker-compose.yml. The gateway is published on this address and port only;\n"
        "in front of anything but localhost, put a proxy that speaks https.\n"
        "BANKSMAN_AGENTS names your agents, MODULE:ATTRIBUTE; modules may lie in ./agents.",
        {
            "BANKSMAN_BIND": "127.0.0.1",
            "BANKSMAN_PORT": str(port or 8420),
            "BANKSMAN_AGENTS": "banksman_sysadmin:agents",
        },
    )


def _lines(comment: str, values: Mapping[str, str]) -> str:
    return "".join([*(f"# {line}\n" for line in comment.splitlines()), *(f"{k}={v}\n" for k, v in values.items())])


def _write_all(target: Path, files: Mapping[str, str]) -> list[Path]:
    """All files, in a folder that gets its name only once they are complete."""
    draft = target.with_name(f".{target.name}-{secrets.token_hex(4)}")
    draft.mkdir(mode=0o700, parents=True)
    try:
        for name, content in files.items():
            _write(draft / name, content)
        draft.rename(target)
    except OSError as error:
        shutil.rmtree(draft, ignore_errors=True)
        raise ConfigurationError(f"The secrets could not be written to {target}: {error}.") from error
    return [target / name for name in files]


def _write(path: Path, content: str) -> None:
    """A new file, readable by its owner alone from its first moment."""
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(content)


def _email(text: str) -> str:
    if not _EMAIL.fullmatch(text):
        raise ConfigurationError(f"{text[:100]!r} is not an e-mail address for the first administrator.")
    return text


def _public_url(text: str) -> str:
    """The address people use; http only for localhost, where a browser still treats it as secure."""
    try:
        url = urlsplit(text)
        local, _ = url.hostname == "localhost", url.port
    except ValueError:
        raise ConfigurationError(f"{text[:100]!r} is not a URL.") from None
    if not _URL.fullmatch(text) or (url.scheme == "http" and not local):
        raise ConfigurationError(
            f"{text[:100]!r} cannot be the public URL: it must be https://..., or http://localhost:PORT to try out."
        )
    return text.rstrip("/")
