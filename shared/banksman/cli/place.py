"""Where the gateway is and how to get in: this machine's nearest stack, else what the environment or a login says."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from banksman import files
from banksman.errors import ConfigurationError, InvalidInput

if TYPE_CHECKING:
    from banksman.client import Client

_NOWHERE = (
    "No Banksman was found: there is no .banksman/stack.json here or above, and BANKSMAN_URL and BANKSMAN_TOKEN are "
    "not set. Start one with `banksman up`, or go to one with `banksman login URL`."
)


@dataclass(frozen=True, slots=True)
class Place:
    """A gateway, with the credentials at hand: `key` submits, a person's token does everything else."""

    url: str
    key: str = field(repr=False)
    people: Mapping[str, str] = field(repr=False)
    stack: Mapping[str, Any] | None = None
    """The content of `stack.json`, on one's own machine."""

    def submitter(self) -> Client:
        """A client that submits and reads."""
        return _client(self.url, self.key)

    def person(self, email: str | None = None) -> Client:
        """A client that acts as a person: on one's own machine the first reviewer, unless another is named."""
        if email is None:
            return _client(self.url, next(iter(self.people.values()), self.key))
        if self.stack is None:
            raise InvalidInput(
                "--as chooses among the reviewers of a stack on this machine; here your token says who you are."
            )
        if email not in self.people:
            raise InvalidInput(f"{email!r} is none of this stack's reviewers: {', '.join(self.people)}.")
        return _client(self.url, self.people[email])

    def maildir(self) -> Path:
        """Where the mail is caught."""
        if self.stack is None:
            raise ConfigurationError("Mail is caught by a stack on this machine only, and there is none.")
        return Path(str(self.stack["maildir"]))


def find() -> Place:
    """The place that commands work with."""
    path = stack_file()
    if path is not None:
        return _of_stack(path)
    url, token = os.environ.get("BANKSMAN_URL"), os.environ.get("BANKSMAN_TOKEN")
    if url and token:
        return Place(url, token, {})
    if token:
        raise ConfigurationError(
            "BANKSMAN_URL is not set: say which gateway BANKSMAN_TOKEN is for. It is not sent to that of a kept login."
        )
    kept = _login()
    if not kept.get("url") or not kept.get("token"):
        missing = f"BANKSMAN_TOKEN is not set. Set it, or use `banksman login {url}`." if url else _NOWHERE
        raise ConfigurationError(missing)
    if url and url.rstrip("/") != kept["url"].rstrip("/"):
        raise ConfigurationError(
            f"BANKSMAN_TOKEN is not set, and the login that is kept is for {kept['url']}, not for {url}: its token is "
            f"not sent there. Set BANKSMAN_TOKEN, or use `banksman login {url}`."
        )
    return Place(kept["url"], kept["token"], {})


def gateway_url() -> str:
    """Where to sign in when nobody says: BANKSMAN_URL, else the nearest stack, else the place of the last login."""
    path = stack_file()
    url = os.environ.get("BANKSMAN_URL") or (_of_stack(path).url if path is not None else _login().get("url"))
    if not url:
        raise InvalidInput("Name the gateway: `banksman login https://banksman.example.org`.")
    return url


def database_url() -> str:
    """The database as its owner: of BANKSMAN_DATABASE_URL, as for `migrate`, else the nearest stack's."""
    url = os.environ.get("BANKSMAN_DATABASE_URL")
    if url:
        return url
    path = stack_file()
    if path is None:
        raise ConfigurationError(
            "BANKSMAN_DATABASE_URL is not set (the owner's, as for `banksman migrate`), and there is no "
            ".banksman/stack.json here or above."
        )
    return str(_read(path).get("database_url", ""))


def vault_keys() -> str:
    """The keys of the vault: of BANKSMAN_VAULT_KEYS where the database is named too, else the nearest stack's."""
    path = stack_file()
    if os.environ.get("BANKSMAN_DATABASE_URL") or path is None:
        return os.environ.get("BANKSMAN_VAULT_KEYS", "")
    return str(_read(path.with_name("secrets.json")).get("vault_keys", ""))


def membership() -> timedelta:
    """How long after somebody is given a role or group it does not count for what was open before.

    BANKSMAN_MEMBERSHIP_SECONDS, as for the gateway; nothing on a stack of one's own.
    """
    text = os.environ.get("BANKSMAN_MEMBERSHIP_SECONDS") or ("3600" if os.environ.get("BANKSMAN_DATABASE_URL") else "0")
    try:
        return timedelta(seconds=max(0.0, float(text)))
    except (ValueError, OverflowError):
        raise ConfigurationError("BANKSMAN_MEMBERSHIP_SECONDS is not a number of seconds.") from None


def has_database() -> bool:
    """Whether there is a database to be asked as its owner."""
    return bool(os.environ.get("BANKSMAN_DATABASE_URL")) or stack_file() is not None


def stack_file() -> Path | None:
    """The nearest `stack.json`: in BANKSMAN_DATA_DIR, else in `.banksman` here or in a folder above."""
    chosen = os.environ.get("BANKSMAN_DATA_DIR")
    if chosen:
        path = Path(chosen) / "stack.json"
        return path if path.is_file() else None
    here = Path.cwd()
    return next(
        (path for folder in (here, *here.parents) if (path := folder / ".banksman" / "stack.json").is_file()), None
    )


def data_dir() -> Path:
    """Where a stack of one's own keeps its data."""
    return Path(os.environ.get("BANKSMAN_DATA_DIR") or ".banksman").absolute()


def login_file() -> Path:
    """Where a login is kept."""
    base = os.environ.get("XDG_CONFIG_HOME") or str(Path.home() / ".config")
    return Path(base) / "banksman" / "login.json"


def keep_login(url: str, token: str) -> Path:
    """Keep a login for later commands, readable by its owner alone."""
    path = login_file()
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    files.write_private(path, json.dumps({"url": url, "token": token}))
    return path


def _of_stack(path: Path) -> Place:
    found = _read(path)
    try:
        return Place(
            url=found["gateway_url"],
            key=found["submit_key"],
            people={item["email"]: item["token"] for item in found["reviewers"]},
            stack=found,
        )
    except (KeyError, TypeError):
        raise ConfigurationError(f"{path} is not what `banksman up` writes; start the stack again.") from None


def _login() -> dict[str, str]:
    path = login_file()
    return {key: str(value) for key, value in _read(path).items()} if path.is_file() else {}


def _read(path: Path) -> dict[str, Any]:
    try:
        found: object = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise ConfigurationError(f"{path} cannot be read: {error}") from None
    return cast("dict[str, Any]", found) if isinstance(found, dict) else {}


def _client(url: str, token: str) -> Client:
    from banksman.client import Client

    return Client(url, token)
