"""`banksman login`: a person's token for this machine, by the code that is mailed to them and typed in here."""

from __future__ import annotations

import getpass
import socket
import sys
from contextlib import suppress
from typing import TYPE_CHECKING, Annotated

import typer

from banksman.cli import place, show
from banksman.errors import InvalidInput, NotAllowed

if TYPE_CHECKING:
    from banksman.shapes import Token

_TRIES = 5


def login(
    url: Annotated[
        str | None,
        typer.Argument(
            help="The gateway's address; else that of BANKSMAN_URL, of the nearest stack or of the last login.",
            show_default=False,
        ),
    ] = None,
    *,
    email: Annotated[str, typer.Option(metavar="EMAIL", help="Your address.", show_default=False)] = "",
    token: Annotated[
        bool,
        typer.Option(
            "--token", help="Keep a token or an API key that you have: typed in, or read from standard input."
        ),
    ] = False,
) -> None:
    """Sign in with a code mailed to you, and keep a token for later commands; it reads and votes for 90 days."""
    gateway = url or place.gateway_url()
    if token:
        kept = _accepted(gateway)
        who = "The gateway accepts it."
    elif sys.stdin.isatty():
        made = _by_code(gateway, email)
        kept = made.token
        who = f"You are {show.prose(made.person)}, until {show.moment(made.expires_at)}."
    else:
        raise InvalidInput("The code is typed at a terminal. To keep a token that you have: `banksman login --token`.")
    typer.echo(f"{who} Kept in {place.keep_login(gateway, kept)}.")
    if stack := place.stack_file():
        show.complain(f"Here, commands still go to the stack of {stack} first.")


def _accepted(url: str) -> str:
    """A token or key, once the gateway has accepted it."""
    asked = getpass.getpass("Token: ") if sys.stdin.isatty() else sys.stdin.readline()
    if not (token := asked.strip()):
        raise InvalidInput("No token was given.")
    with place.Place(url, token, {}).submitter() as banksman, suppress(NotAllowed):  # known, though it may not read
        banksman.runs(limit=1)
    return token


def _by_code(url: str, email: str) -> Token:
    """Asks for the address and the code; a mistyped code is asked for again."""
    from banksman import api
    from banksman.client import Client

    name = f"banksman login on {socket.gethostname()}"
    with Client(url, "") as banksman:
        address = email or typer.prompt("Your e-mail address", err=True)
        attempt = banksman.drive(api.ask_for_code(address))
        show.complain(
            "If somebody here has this address, a code of 8 digits is on its way to it."
            " It counts for 10 minutes, in this terminal only."
        )
        for left in reversed(range(_TRIES)):
            code = typer.prompt("Code", err=True)
            try:
                return banksman.drive(api.redeem_code(attempt, code, name=name[:100]))
            except InvalidInput as error:
                if not left:
                    raise
                show.complain(str(error))
    raise AssertionError
