"""The forms on a run's page: stop it, give it another chance, or give it up with a reason."""

from __future__ import annotations

from fastapi import APIRouter, Response

from banksman import ids, vault
from banksman.errors import InvalidInput, NotFound
from banksman.ids import RunId
from banksman.ledger import runs as rows
from banksman_gateway import auth, door, html, runs
from banksman_gateway.forms import Posted
from banksman_gateway.parts import Here
from banksman_gateway.sessions import SignedIn

router = APIRouter(include_in_schema=False)


@router.post("/runs/{run_id}/{move}")
def steer(run_id: str, move: str, here: Here, form: Posted, session: SignedIn) -> Response:
    """One move of a run, by the person in the session: `cancel`, `retry` or `fail`."""
    form.must_be_of(here.link_keys, session.secret)
    wanted, person = RunId(ids.read("run", run_id)), session.person
    actor = ids.show("per", person.id)
    segment: int | None = None
    with door.transaction(here) as conn:
        with vault.leniently():
            run = rows.get(conn, wanted)
        auth.must_see(person, run.requester_id, f"run {run_id}")
        auth.must_steer(person, run)
        if move == "cancel":
            runs.cancel(conn, wanted, actor)
        elif move == "retry":
            _, segment = runs.retry(conn, wanted, actor, hint=here.hint)
        elif move == "fail":
            reason = form.text("reason")
            if not 0 < len(reason) <= runs.MOST_REASON:
                raise InvalidInput(f"Say why, in at most {runs.MOST_REASON:,} characters.")
            runs.give_up(conn, wanted, actor, who=person.email, reason=reason)
        else:
            raise NotFound("There is nothing here.")
    if segment is not None:
        here.wire.run((wanted, segment))
    here.wire.changed(run=wanted)
    return html.see(f"/runs/{run_id}")
