"""Tells the audit log which keys this gateway goes by, whenever they are not those that were told last.

Keys live in files and settings, so whoever rotates, retires or revokes one leaves no row behind. The gateway that
starts with other keys says so: names, states and public halves, never a secret.
"""

from __future__ import annotations

import json

from banksman import ledger
from banksman.digest import Json
from banksman.ledger import audit, trail
from banksman.ledger.trail import Wanted
from banksman.records import Event
from banksman.settings import GatewaySettings
from banksman.signing import Verifier
from banksman_gateway.parts import Parts

ACTOR = "gateway"
ACTION = "keys.changed"


def tell(here: Parts) -> bool:
    """Write the event, unless the newest one says the same; whether it did."""
    body = known(here.settings, here.verifier, here.seal.verifier)
    with ledger.transaction(here.pool) as conn:
        last = trail.read(conn, Wanted(action=ACTION), cursor=None, newest_first=True, limit=1)
        if last and json.loads(last[0][-1]) == body:
            return False
        audit.append(conn, Event(ACTOR, ACTION, body=body))
    return True


def known(settings: GatewaySettings, signing: Verifier, sealing: Verifier | None) -> dict[str, Json]:
    """Each kind's keys: public halves with their states; of secret ones the names, the one in use first."""
    return {
        "signing": _public(signing),
        "sealing": {} if sealing is None else _public(sealing),
        "link": _names(settings.link_keys.get_secret_value()),
        "vault": _names(settings.vault_keys.get_secret_value()),
    }


def _public(verifier: Verifier) -> dict[str, Json]:
    return {kid: f"{state} {public}" for kid, (state, public) in verifier.listed().items()}


def _names(keys: str) -> list[Json]:
    return [item.partition(":")[0].strip() for item in keys.split(",") if item.strip()]
