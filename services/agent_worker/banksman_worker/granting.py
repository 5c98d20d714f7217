"""Standing grants at the worker: which call one covers, and its use in the transaction that starts the call.

The grants are read every second beside the policy and verified with this worker's keys. One that fits a call which
policy asks about at tier low lets it through; the journal then counts the use, under the grant's row, and asks a person
after all if meanwhile the grant is used up, over or revoked, or its owner may not decide any more. A grant that would
have fitted and does not count is never passed over in silence: the request says why, and the audit log as well.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import timedelta

from banksman import ids, logs, quorum
from banksman.digest import Json
from banksman.errors import BanksmanError, NotFound
from banksman.grants import covers, fits, verified
from banksman.ids import GrantId
from banksman.ledger import Connection, audit, people
from banksman.ledger import grants as rows
from banksman.policy import Call, Judgement, Rules
from banksman.records import Event, Grant, StoredGrant
from banksman.signing import Signed, Verifier
from banksman.states import Tier

_REMEMBERED = 10_000

log = logs.get(__name__)


class Grantbook:
    """The rules, and above them the grants: what `policy.judge` asks where there may be any."""

    def __init__(self, rules: Rules, verifier: Verifier) -> None:
        self._rules, self._verifier = rules, verifier
        self._known: Mapping[tuple[str, str], Sequence[tuple[StoredGrant, Grant | None]]] = {}
        self._verified: dict[tuple[GrantId, Signed], Grant | None] = {}
        self._told: dict[tuple[GrantId, str, str], None] = {}
        self._events: list[Event] = []
        self._lock = threading.Lock()

    def judge(self, call: Call, otherwise: Judgement) -> Judgement:
        """What the rules say; a call that they ask about at tier low may be covered by a grant."""
        judged = self._rules.judge(call, otherwise)
        asked = judged.requirement
        if judged.verdict != "ask" or judged.unclear or asked is None or asked.tier is not Tier.LOW:
            return judged
        why = ""
        for stored, grant in self._known.get((call.agent, call.tool), ()):
            if grant is not None and not fits(grant, call):
                continue
            doubt = self._doubt(stored, grant, judged)
            if doubt is None and grant is not None:
                because = f"{grant.owner} has approved the same before, and lets it be made again ({_shown(stored)})."
                return replace(judged, verdict="allow", because=because, grant=grant)
            why = f" The standing grant {_shown(stored)} does not cover it: {doubt}."
            self._tell(stored, call, doubt or "")
        if not why:
            return judged
        because = judged.because + why
        return replace(judged, because=because, requirement=replace(asked, because=because))

    def refresh(self, conn: Connection) -> None:
        """Read the grants again, and write down which of them were refused."""
        found: dict[tuple[str, str], list[tuple[StoredGrant, Grant | None]]] = {}
        kept: dict[tuple[GrantId, Signed], Grant | None] = {}
        for stored in rows.recent(conn):
            key = (stored.id, stored.signed)
            kept[key] = self._verified[key] if key in self._verified else self._verify(stored)
            found.setdefault((stored.agent, stored.tool), []).append((stored, kept[key]))
        self._verified, self._known = kept, found
        # The lock is held for moments only: conversations wait for it.
        with self._lock:
            events = list(self._events)
        audit.append(conn, *events)
        with self._lock:
            del self._events[: len(events)]

    def _verify(self, stored: StoredGrant) -> Grant | None:
        try:
            return verified(stored, self._verifier)
        except BanksmanError as error:  # what it would cover is asked
            log.warning("A standing grant is refused.", grant=_shown(stored), why=str(error))
            return None

    def _doubt(self, stored: StoredGrant, grant: Grant | None, judged: Judgement) -> str | None:
        if grant is None:
            return "it is not genuine"
        if stored.revoked_at is not None:
            return "it was revoked"
        if stored.expired:
            return "its time is over"
        if stored.used >= grant.most:
            return f"it is used up ({stored.used} of {grant.most})"
        if judged.requirement is None or not covers(grant, judged.requirement):
            return "today's policy asks for more"
        return None

    def _tell(self, stored: StoredGrant, call: Call, why: str) -> None:
        """Once for each run: the same call is judged several times on its way."""
        key = (stored.id, call.run, why)
        with self._lock:
            if key in self._told:
                return
            self._told[key] = None
            if len(self._told) > _REMEMBERED:
                self._told.pop(next(iter(self._told)))
            body: dict[str, Json] = {"grant": _shown(stored), "tool": call.tool, "why": why}
            run = ids.RunId(ids.read("run", call.run)) if call.run else None
            self._events.append(Event("worker", "grant.refused", run, body=body))


def spend(conn: Connection, grant: Grant) -> str | None:
    """Use a grant once; why it does not count any more, or None when it did."""
    shown = ids.show("gra", grant.id)
    try:
        owner = people.get(conn, grant.owner_id)
    except NotFound:
        return f"The owner of the standing grant {shown} is gone."
    groups, at_once = quorum.standing(owner), timedelta()
    entitled = not groups.isdisjoint(quorum.audience(grant.requirement, at_once))
    if not entitled or not quorum.met(grant.requirement, [groups], at_once):
        return f"{grant.owner}, who gave the standing grant {shown}, may no longer decide this."
    if owner.email.casefold() == str(grant.bound["requester"]) or not rows.use(conn, grant):
        return f"The standing grant {shown} was used up, ran out or was revoked a moment ago."
    return None


def _shown(stored: StoredGrant) -> str:
    return ids.show("gra", stored.id)
