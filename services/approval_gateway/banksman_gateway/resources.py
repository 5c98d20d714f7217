"""What the gateway's pages and endpoints work with, made once by `app.py` and kept as `app.state.resources`."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import Annotated, cast

from fastapi import Depends
from starlette.requests import HTTPConnection

from banksman.ledger import Pool
from banksman.links import LinkKeys
from banksman.settings import GatewaySettings
from banksman.signing import Signer
from banksman.wire import Wire


@dataclass(frozen=True, slots=True)
class Resources:
    """The process's pool, publisher and keys, with the settings they came from."""

    settings: GatewaySettings
    pool: Pool
    wire: Wire
    signer: Signer
    links: LinkKeys

    @property
    def hint(self) -> timedelta:
        """How long a wake-up may stay unanswered before the run is dispatched again."""
        return timedelta(seconds=self.settings.redispatch_seconds)


def of(connection: HTTPConnection) -> Resources:
    """The resources of the application that serves this request."""
    return cast("Resources", connection.app.state.resources)


Here = Annotated[Resources, Depends(of)]
"""An endpoint's resources."""
