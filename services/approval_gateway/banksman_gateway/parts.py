"""What the gateway's endpoints work with: built once in `app.create`, handed to each as an annotated dependency."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import timedelta
from typing import Annotated, cast

from fastapi import Depends, FastAPI, Request

from banksman import ledger
from banksman.ids import BatchId, KeyId
from banksman.ledger.progress import Used
from banksman.links import LinkKeys
from banksman.rules import Rules
from banksman.settings import GatewaySettings
from banksman.signing import Signer, Verifier
from banksman.wire import Wire
from banksman_gateway.decide import Pen
from banksman_gateway.pulse import Pulse
from banksman_gateway.seal import Seal
from banksman_gateway.secrecy import Secrecy


@dataclass(slots=True)
class Outage:
    """While PostgreSQL is away, one call a second waits for it and the others are told at once."""

    until: float = 0.0


@dataclass(frozen=True, slots=True)
class Parts:
    """The pool, the keys and the wire of this process."""

    settings: GatewaySettings
    pool: ledger.Pool
    probe: ledger.Pool
    """One connection to ask whether PostgreSQL answers, however busy the others are."""
    signer: Signer
    link_keys: LinkKeys
    wire: Wire
    pulse: Pulse
    seal: Seal
    verifier: Verifier
    """The public keys that the workers have, to see a policy as they do."""
    file_rules: Rules | None
    """The rules of BANKSMAN_POLICY, in force while none were uploaded."""
    secrecy: Secrecy
    """What the policy names as secret."""
    used: dict[KeyId, float] = field(default_factory=dict[KeyId, float])
    """When each credential was last noted as used, by the monotonic clock."""
    batches_used: dict[BatchId, tuple[float, Used]] = field(default_factory=dict["BatchId", "tuple[float, Used]"])
    """What large batches had used when it was last looked at, and when that was."""
    outage: Outage = field(default_factory=Outage)

    @property
    def pen(self) -> Pen:
        """What to decide with."""
        return Pen(self.signer, self.link_keys, self.hint)

    @property
    def hint(self) -> timedelta:
        """How long after a wake-up the dispatcher looks for itself."""
        return timedelta(seconds=self.settings.redispatch_seconds)


def of(app: FastAPI) -> Parts:
    """The parts of an application that `app.create` made."""
    return cast("Parts", app.state.parts)


async def _of_request(request: Request) -> Parts:
    return of(request.app)


Here = Annotated[Parts, Depends(_of_request)]
"""`parts: Here` in an endpoint's signature."""
