"""`keys rotate sealing`: another key seals the audit log from now on, and the heads of the one before still verify.

A sealing key is never revoked by a command: the heads that it signed would count no more, and the gateway builds on no
such head. Each new head names the one before, so the heads of a retired key stand by those of the current one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from banksman import files
from banksman.errors import ConfigurationError
from banksman.key_life import OfDeployment, OfStack, Store, new_sealing_key
from banksman.signing import Signer, Verifier

_KEY, _VERIFY = "BANKSMAN_SEALING_KEY", "BANKSMAN_SEAL_VERIFY_KEYS"


def rotate(store: Store) -> tuple[str, str]:
    """A new key seals, the one before is retired; the names of both, new and old. The gateway takes it at its start."""
    return _of_stack(store.path) if isinstance(store, OfStack) else _of_deployment(store)


def listed(store: Store) -> Mapping[str, str]:
    """Each sealing key's state, as the next start of the gateway takes them."""
    key, verify = _kept(store)
    return {kid: state for kid, (state, _) in Verifier.read(verify or Signer.read(key).public()).listed().items()}


def after(key: str, verify: str) -> tuple[str, str, str]:
    """The next key, what verifies from then on, and the name of the key before."""
    signer = Signer.read(key, setting=_KEY)
    known = Verifier.read(verify or signer.public(), setting=_VERIFY).listed()
    made, public = new_sealing_key()
    older = (f"{kid}:{'retired' if state == 'current' else state}:{text}" for kid, (state, text) in known.items())
    return made, ",".join([public, *older]), signer.kid


def _of_stack(path: Path) -> tuple[str, str]:
    from banksman.embedded import keyring

    ring = keyring.load_or_make(path, data_exists=True)
    made, verify, old = after(ring.sealing_key, ring.seal_verify_keys)
    keyring.save(path, replace(ring, sealing_key=made, seal_verify_keys=verify))
    return made.partition(":")[0], old


def _of_deployment(store: OfDeployment) -> tuple[str, str]:
    made, verify, old = after(*_kept(store))
    # Whoever checks learns of the key before anything is sealed with it.
    for name, values in (("migrate", {_VERIFY: verify}), ("gateway", {_VERIFY: verify, _KEY: made})):
        path = store.folder / f"{name}.env"
        files.write_private(path, files.with_settings(path.read_text(), values))
    return made.partition(":")[0], old


def _kept(store: Store) -> tuple[str, str]:
    if isinstance(store, OfStack):
        from banksman.embedded import keyring

        ring = keyring.load_or_make(store.path, data_exists=True)
        return ring.sealing_key, ring.seal_verify_keys
    try:
        gateway, migrate = (
            files.settings_in((store.folder / f"{name}.env").read_text()) for name in ("gateway", "migrate")
        )
        return gateway[_KEY], migrate.get(_VERIFY, "")
    except (OSError, KeyError):
        raise ConfigurationError(f"{store.folder} has no key that seals: run `banksman init` once more.") from None
