"""`keys reseal`: what is stored comes under the current key of the vault; and which key may be given up."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from banksman.cli import given, place, show
from banksman.errors import ConfigurationError, Conflict, NotGenuine

if TYPE_CHECKING:
    from banksman.digest import Json

_NAME = "banksman-reseal"
Resealed = Annotated[
    bool, typer.Option("--resealed", help="Of a key of the vault: `keys reseal` said that nothing is left under it.")
]


def reseal(*, as_json: given.Json = False) -> None:
    """Put everything that is stored under the current key of the vault, a few rows at a time, while the system runs.

    Run it as the database's owner (BANKSMAN_DATABASE_URL and BANKSMAN_VAULT_KEYS, as in secrets/migrate.env), once all
    services were restarted with the key. It can be stopped at any time, and goes on where it was. Exit code 3:
    something would not open, or a service still seals with another key.
    """
    from banksman import ledger, vault
    from banksman.ledger import audit, resealing
    from banksman.records import Event

    keys = place.vault_keys()
    kid = vault.Ring.read(keys).current
    if kid is None:
        raise ConfigurationError("There is no key to seal with: BANKSMAN_VAULT_KEYS is not set.")
    _must_be_up_with(kid)
    vault.use(keys)
    url, done = place.database_url(), 0
    refused: list[str] = []
    with ledger.once(url, name=_NAME) as conn:
        total = sum(resealing.waiting(conn, kid).values())
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("", total=total)
        for column in resealing.SEALED:
            progress.update(task, description=column.title)
            after, more = None, True
            while more:
                with ledger.once(url, name=_NAME) as conn:
                    after, part, wrong = resealing.step(conn, column, kid, after)
                done, more = done + part, after is not None
                refused += wrong
                progress.update(task, completed=done)
    with ledger.once(url, name=_NAME) as conn:
        left = resealing.waiting(conn, kid)
        if done:
            body: dict[str, Json] = {"key": kid, "values": done, "left": sum(left.values())}
            audit.append(conn, Event("owner", "vault.resealed", body=body))
    if as_json:
        show.as_json({"key": kid, "resealed": done, "left": left, "refused": refused})
    else:
        typer.echo(f"{done} values came under {kid}; {sum(left.values())} are not.")
    if refused:
        raise NotGenuine("\n".join([f"{len(refused)} values cannot be read, and stay as they are:", *refused]))
    if left:
        raise Conflict(
            f"Not everything is under {kid}: {', '.join(f'{count} of {name}' for name, count in left.items())}. They "
            "changed meanwhile: run this again. If it stays so, a service was not restarted with the key."
        )


def must_be_unused(kid: str) -> None:
    """Nothing, once no value is sealed with this key; a `Conflict` with what still is otherwise."""
    from banksman import ledger
    from banksman.ledger import resealing
    from banksman.vault import PLAIN

    if not place.has_database():
        raise ConfigurationError(
            f"Whether anything is still sealed with {kid} cannot be seen from here: BANKSMAN_DATABASE_URL is not set. "
            "Once `docker compose run --rm migrate banksman keys reseal` says that nothing is left, add --resealed."
        )
    with ledger.once(place.database_url(), name=_NAME) as conn:
        left = resealing.under(conn, None if kid == PLAIN else kid)
    how = "stored without a key" if kid == PLAIN else f"sealed with {kid}"
    if left:
        raise Conflict(
            f"Still {how}: {', '.join(f'{count} of {name}' for name, count in left.items())}. "
            "`banksman keys reseal` puts them under the current key."
        )


def _must_be_up_with(kid: str) -> None:
    path = place.stack_file()
    if path is None or json.loads(path.read_text()).get("vault_key", kid) == kid:
        return
    raise Conflict(f"The stack that is up does not know {kid} yet. Stop it, start it again, and then do this.")
