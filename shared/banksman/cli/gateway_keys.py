"""`keys rotate`, `retire` and `revoke` for the keys that the gateway signs and mints with, which live in files."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from enum import StrEnum
from functools import reduce
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from banksman.cli import given, show, vault_keys
from banksman.errors import ConfigurationError

if TYPE_CHECKING:
    from banksman.key_life import Keys, Store

Folder = Annotated[
    Path | None,
    typer.Option(
        metavar="FOLDER",
        help="Where the docker-compose.yml is whose secrets are meant; otherwise the nearest stack of this machine.",
        show_default=False,
    ),
]
Kid = Annotated[str, typer.Argument(metavar="KID", help="A key's name, as `keys list` shows it.")]


class Kind(StrEnum):
    """What a key is for."""

    SIGNING = "signing"
    LINK = "link"
    VAULT = "vault"
    SEALING = "sealing"


def rotate(
    kind: Annotated[
        Kind,
        typer.Argument(
            help="The key that signs decisions, mints mailed links, encrypts what is stored, or seals the log."
        ),
    ] = Kind.SIGNING,
    *,
    folder: Folder = None,
    as_json: given.Json = False,
) -> None:
    """Make a new key of the gateway's; what the old one signed or minted still counts."""
    from banksman import key_life

    if kind is Kind.SEALING:
        _rotate_sealing(must_find(folder), as_json=as_json)
        return
    wanted = kind.value
    change(lambda keys: key_life.rotate(keys, wanted), must_find(folder), as_json=as_json)


def _rotate_sealing(store: Store, *, as_json: bool) -> None:
    from banksman.key_life import OfDeployment
    from banksman.sealing import key_change

    made, old = key_change.rotate(store)
    if as_json:
        show.as_json(
            [{"id": kid, "kind": "sealing", "state": state} for kid, state in key_change.listed(store).items()]
        )
    else:
        typer.echo(f"{made} (sealing) is current.\n{old} (sealing) is retired.")
    if isinstance(store, OfDeployment):
        show.complain("Now restart the gateway: docker compose up --detach --no-deps gateway")
    else:
        show.complain("The next `banksman up` takes the change.")
    show.complain("Keep the new public key where you check the log: `banksman audit verify --keys`.")


def retire(
    kid: Kid, *, folder: Folder = None, resealed: vault_keys.Resealed = False, as_json: given.Json = False
) -> None:
    """Let a key verify only, or give up a key of the vault; the one that is used now has to be rotated instead."""
    from banksman import key_life

    store = must_find(folder)
    after = key_life.retire(store.read(), kid)
    if after.vault_keys != store.read().vault_keys and not resealed:
        vault_keys.must_be_unused(kid)
    change(lambda keys: key_life.retire(keys, kid), store, as_json=as_json)


def revoke(kids: Sequence[str], store: Store, *, as_json: bool) -> None:
    """Take all trust from keys; for those that are used now there are new ones."""
    from banksman import key_life

    change(lambda keys: reduce(key_life.revoke, kids, keys), store, as_json=as_json)
    show.complain(
        "What a revoked key signed and has not run is asked again. The links that it minted do not open any more."
    )


def change(move: Callable[[Keys], Keys], store: Store, *, as_json: bool) -> None:
    """Make the move, keep it, and say what became of each key and what is left to do."""
    from banksman import key_life

    before = store.read()
    after = move(before)
    if after != before:
        store.write(after)
    if as_json:
        show.as_json(facts(store))
    else:
        known, now = key_life.everything(before), key_life.everything(after)
        for listed in now:
            if listed not in known:
                typer.echo(f"{listed.kid} ({listed.kind}) is {listed.state}.")
        for listed in known:
            if (listed.kid, listed.kind) not in [(other.kid, other.kind) for other in now]:
                typer.echo(f"{listed.kid} ({listed.kind}) is gone.")
    if after == before:
        show.complain("It was so already; nothing was changed.")
        return
    for line in store.next_steps(before, after):
        show.complain(line)


def facts(store: Store) -> list[dict[str, str]]:
    """Every key of the gateway's, for lists."""
    from banksman import key_life

    return [
        {"id": listed.kid, "kind": listed.kind, "state": listed.state} for listed in key_life.everything(store.read())
    ]


def rows(store: Store) -> list[list[Any]]:
    """The same as lines of the table of `keys list`."""
    opens = {"signing": "signs decisions", "link": "mints links", "vault": "seals content"}
    return [
        [key["id"], key["kind"], "", "", opens[key["kind"]] if key["state"] == "current" else "", "", "", key["state"]]
        for key in facts(store)
    ]


def must_find(folder: Path | None) -> Store:
    """The files with the gateway's keys, or a `ConfigurationError`."""
    store = find(folder)
    if store is None:
        raise ConfigurationError(
            "The gateway's keys were not found: there is no .banksman/secrets.json here or above and no "
            "secrets/gateway.env here. Name the folder of docker-compose.yml with --folder, or set BANKSMAN_DATA_DIR."
        )
    return store


def find(folder: Path | None) -> Store | None:
    """The files with the gateway's keys: of the deployment that is named, of the nearest stack, or of the one here."""
    from banksman.key_life import OfDeployment, OfStack

    if folder is not None:
        return OfDeployment(folder / "secrets")
    chosen = os.environ.get("BANKSMAN_DATA_DIR")
    if chosen:
        path = Path(chosen) / "secrets.json"
        return OfStack(path) if path.is_file() else None
    here = Path.cwd()
    near = (level / ".banksman" / "secrets.json" for level in (here, *here.parents))
    stack = next((path for path in near if path.is_file()), None)
    deployment = here / "secrets"
    if not (deployment / "gateway.env").is_file():
        return None if stack is None else OfStack(stack)
    if stack is not None:
        raise ConfigurationError(
            f"Both {stack} and {deployment} hold keys of a gateway. Say which is meant: --folder {here}, or "
            f"BANKSMAN_DATA_DIR={stack.parent}."
        )
    return OfDeployment(deployment)
