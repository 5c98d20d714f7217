"""The life of the gateway's own keys, and the files in which they live.

A signing key is `current` (the gateway signs with it), then `retired` (what it signed still counts), or `revoked` (what
it signed counts no more, and the gateway does not start with it). Of the link keys the first mints and all verify; a
revoked one is gone. A rotation makes a new key in front and keeps the old one, so nothing that waits is voided by it.
Of the keys of the vault the first seals and all open. Every service has them; one is given up once nothing is sealed
with it any more (`ledger.resealing`), and cannot be revoked before. `plain` stands among them while what was stored
without a key has to open, and is given up in the same way.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Literal

from banksman import files
from banksman.errors import ConfigurationError, Conflict, NotFound
from banksman.links import LinkKeys
from banksman.signing import KeyStatus, Signer, Verifier, base64url
from banksman.vault import PLAIN, Ring

Kind = Literal["signing", "link", "vault"]


@dataclass(frozen=True, slots=True)
class Keys:
    """The keys as the services' settings spell them."""

    signing_key: str = field(repr=False)
    verify_keys: str
    link_keys: str = field(repr=False)
    vault_keys: str = field(repr=False)

    @classmethod
    def make(cls) -> Keys:
        """A first key of each kind."""
        signer, text = _new_signer(())
        return cls(text, signer.public(), _new_link(()), new_vault_key(()))


def new_sealing_key() -> tuple[str, str]:
    """A key for the seal of the audit log, and the line by which anybody verifies what it signs."""
    seed = secrets.token_bytes(32)
    signer = Signer(_new_kid("s", ()), seed)
    return f"{signer.kid}:{base64url(seed)}", signer.public()


@dataclass(frozen=True, slots=True)
class Listed:
    """One key, without what is secret of it."""

    kid: str
    kind: Kind
    state: KeyStatus


def everything(keys: Keys) -> list[Listed]:
    """Every key, newest first: signing keys, then link keys, then those of the vault."""
    first_counts: tuple[tuple[Kind, Mapping[str, str]], ...] = (("link", _links(keys)), ("vault", _vault(keys)))
    return [
        *(Listed(kid, "signing", status) for kid, (status, _) in _verifying(keys).items()),
        *(
            Listed(kid, kind, "retired" if number else "current")
            for kind, found in first_counts
            for number, kid in enumerate(found)
        ),
    ]


def rotate(keys: Keys, kind: Kind) -> Keys:
    """A new key comes in front; the one that was there verifies on."""
    taken = [listed.kid for listed in everything(keys)]
    if kind == "link":
        return replace(keys, link_keys=f"{_new_link(taken)},{keys.link_keys}")
    if kind == "vault":
        return replace(keys, vault_keys=f"{new_vault_key(taken)},{keys.vault_keys or PLAIN}")
    signer, text = _new_signer(taken)
    older = {
        kid: ("retired" if status == "current" else status, public)
        for kid, (status, public) in _verifying(keys).items()
    }
    return replace(keys, signing_key=text, verify_keys=",".join([signer.public(), *_spelled(older)]))


def retire(keys: Keys, kid: str) -> Keys:
    """A key that does not sign or mint any more → retired; the one that does has to be rotated. A key of the vault →
    gone: the caller has made sure that nothing is sealed with it.
    """
    found = [listed for listed in everything(keys) if listed.kid == kid]
    if not found:
        raise _unknown(kid)
    if kid in (_signer(keys).kid, next(iter(_links(keys))), next(iter(_vault(keys)), None)):
        kinds = " and ".join(listed.kind for listed in found)
        raise Conflict(
            f"{kid} is the {kinds} key that is used now. `banksman keys rotate` makes another and retires it."
        )
    if any(listed.state == "revoked" for listed in found):
        raise Conflict(f"{kid} is revoked, for good.")
    if kid in _vault(keys):
        return replace(keys, vault_keys=_without(kid, _vault(keys)))
    known = _verifying(keys)
    if kid not in known:
        return keys
    return replace(keys, verify_keys=",".join(_spelled(known | {kid: ("retired", known[kid][1])})))


def revoke(keys: Keys, kid: str) -> Keys:
    """A key → revoked, for good; in place of the one that is used now a new one is made."""
    if kid not in [listed.kid for listed in everything(keys)]:
        raise _unknown(kid)
    if kid in _vault(keys):
        raise Conflict(
            f"What is sealed with {kid} could never be read again. `banksman keys rotate vault`, `banksman keys reseal`"
            f" and `banksman keys retire {kid}` put another key in its place."
        )
    if kid == _signer(keys).kid:
        keys = rotate(keys, "signing")
    if kid == next(iter(_links(keys))):
        keys = rotate(keys, "link")
    known = _verifying(keys)
    if kid in known:
        keys = replace(keys, verify_keys=",".join(_spelled(known | {kid: ("revoked", known[kid][1])})))
    return replace(keys, link_keys=_without(kid, _links(keys)))


@dataclass(frozen=True, slots=True)
class OfStack:
    """The `secrets.json` of a stack on this machine: one file, replaced in one step."""

    path: Path

    def read(self) -> Keys:
        """The keys, as the next `banksman up` takes them."""
        from banksman.embedded import keyring

        ring = keyring.load_or_make(self.path, data_exists=True)
        return Keys(ring.signing_key, ring.verify_keys, ring.link_keys, ring.vault_keys)

    def write(self, keys: Keys) -> None:
        """Keep these keys instead."""
        from banksman.embedded import keyring

        ring = keyring.load_or_make(self.path, data_exists=True)
        keyring.save(self.path, replace(ring, **asdict(keys)))

    def next_steps(self, before: Keys, after: Keys) -> Sequence[str]:
        """What is left to do for the change to count."""
        up = (self.path.parent / "stack.json").exists()
        first = "The stack that is up goes on with the keys that it started with. Stop it; then the" if up else "The"
        return [f"{first} next `banksman up` takes the change.", *_then_reseal(before, after)]


@dataclass(frozen=True, slots=True)
class OfDeployment:
    """The `secrets` of a compose deployment: `worker.env` says what verifies, `gateway.env` what signs and mints.

    They are several files, so the workers' is written first: cut short after it, the gateway goes on with the key
    that it has, and the workers still know it. The keys of the vault stand in all of them, and those of the workers
    count.
    """

    folder: Path

    def read(self) -> Keys:
        """The keys, as the containers take them when they are made anew."""
        worker, gateway = (self._settings(name) for name in ("worker", "gateway"))
        try:
            return Keys(
                gateway["BANKSMAN_SIGNING_KEY"],
                worker["BANKSMAN_VERIFY_KEYS"],
                gateway["BANKSMAN_LINK_KEYS"],
                worker.get("BANKSMAN_VAULT_KEYS", ""),
            )
        except KeyError as missing:
            raise ConfigurationError(f"{self.folder} sets no {missing.args[0]}; bring back a copy of it.") from None

    def write(self, keys: Keys) -> None:
        """Keep these keys instead."""
        verify = {"BANKSMAN_VERIFY_KEYS": keys.verify_keys}
        sign = {"BANKSMAN_SIGNING_KEY": keys.signing_key, "BANKSMAN_LINK_KEYS": keys.link_keys}
        seal = {"BANKSMAN_VAULT_KEYS": keys.vault_keys}
        for name, values in (("worker", verify), ("gateway", verify | sign), ("notifier", {}), ("migrate", {})):
            path = self.folder / f"{name}.env"
            files.write_private(path, files.with_settings(path.read_text(), values | seal))

    def next_steps(self, before: Keys, after: Keys) -> Sequence[str]:
        """What is left to do for the change to count."""
        gateway = "docker compose up --detach --no-deps gateway"
        if before.vault_keys != after.vault_keys:
            return ["Now restart all services together: docker compose up --detach", *_then_reseal(before, after)]
        if before.verify_keys == after.verify_keys:
            return [f"Now restart the gateway: {gateway}"]
        return [
            "Now restart the workers, and the gateway after them: workers refuse what an unknown key signed.",
            "  docker compose up --detach --no-deps agent-worker   (with the --scale that you use)",
            f"  {gateway}",
        ]

    def _settings(self, name: str) -> Mapping[str, str]:
        path = self.folder / f"{name}.env"
        try:
            return files.settings_in(path.read_text())
        except OSError as error:
            raise ConfigurationError(f"{path} cannot be read: {error.strerror}.") from None


Store = OfStack | OfDeployment


def _signer(keys: Keys) -> Signer:
    return Signer.read(keys.signing_key)


def _verifying(keys: Keys) -> dict[str, tuple[KeyStatus, str]]:
    """Each signing key's state and public half; the one that signs is there even if the workers' list forgot it."""
    known = Verifier.read(keys.verify_keys).listed()
    kid, _, public = _signer(keys).public().split(":")
    return known if kid in known else {kid: ("current", public), **known}


def _links(keys: Keys) -> dict[str, str]:
    LinkKeys.read(keys.link_keys)
    pairs = (item.strip().partition(":") for item in keys.link_keys.split(",") if item.strip())
    return {kid: raw for kid, _, raw in pairs}


def _vault(keys: Keys) -> dict[str, str]:
    Ring.read(keys.vault_keys)
    pairs = (item.strip().partition(":") for item in keys.vault_keys.split(",") if item.strip())
    return {kid: raw for kid, _, raw in pairs}


def _without(kid: str, keys: Mapping[str, str]) -> str:
    return ",".join(f"{name}:{raw}" if raw else name for name, raw in keys.items() if name != kid)


def _then_reseal(before: Keys, after: Keys) -> Sequence[str]:
    if len(after.vault_keys) <= len(before.vault_keys):
        return []
    done = ["After that, `banksman keys reseal` puts everything that is stored under the new key."]
    if PLAIN in _vault(after):
        done.append(f"Then `banksman keys retire {PLAIN}` refuses whatever somebody puts there without a key.")
    return done


def _spelled(known: Mapping[str, tuple[str, str]]) -> list[str]:
    return [f"{kid}:{status}:{public}" for kid, (status, public) in known.items()]


def _new_signer(taken: Sequence[str]) -> tuple[Signer, str]:
    kid, seed = _new_kid("g", taken), secrets.token_bytes(32)
    return Signer(kid, seed), f"{kid}:{base64url(seed)}"


def _new_link(taken: Sequence[str]) -> str:
    return f"{_new_kid('l', taken)}:{base64url(secrets.token_bytes(32))}"


def new_vault_key(taken: Sequence[str]) -> str:
    """A key for BANKSMAN_VAULT_KEYS."""
    return f"{_new_kid('v', taken)}:{base64url(secrets.token_bytes(32))}"


def _new_kid(letter: str, taken: Sequence[str]) -> str:
    while (kid := f"{letter}{secrets.token_hex(3)}") in taken:
        continue
    return kid


def _unknown(kid: str) -> NotFound:
    return NotFound(f"There is no key {kid[:20]!r} that signs, mints links or seals.")
