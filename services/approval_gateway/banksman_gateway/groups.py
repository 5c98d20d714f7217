"""Groups: like requests decided together, each with its own vote: a table, a look before, a result for each row.

Nothing of tier high comes in here, and nothing that a table cannot show whole. A vote for many is many votes, each on
the digest that its row showed; one that changed meanwhile fails alone, and no rule or grant comes of any of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated
from urllib.parse import urlencode

from fastapi import APIRouter, Query, Response
from pydantic import BaseModel, StringConstraints

from banksman import ids
from banksman.errors import BanksmanError, InvalidInput, NotAllowed
from banksman.ledger import groups as rows
from banksman.records import Person
from banksman.states import Verdict
from banksman_gateway import auth, door, html, many_votes, problems, requests, sessions, side_by_side
from banksman_gateway.decide import Ballot, Outcome, Voter
from banksman_gateway.forms import Form, Posted
from banksman_gateway.parts import Here
from banksman_gateway.sessions import SignedIn
from banksman_gateway.side_by_side import Row, Table

MOST = 100
"""How many rows a table shows, and how many votes are sent at once."""

router = APIRouter(include_in_schema=False)

_PICK = "pick-"


class Which(BaseModel):
    """One group."""

    agent: Annotated[str, StringConstraints(max_length=200)]
    tool: Annotated[str, StringConstraints(max_length=200)]
    shape: Annotated[str, StringConstraints(pattern="^[0-9a-f]{16}$")]

    @property
    def query(self) -> str:
        """Its address after the path."""
        return urlencode(self.model_dump())


@router.get("/groups")
def show_groups(here: Here, session: SignedIn) -> Response:
    """Which like requests wait for this person, the most first."""
    if auth.own_only(session.person) is not None:
        return html.see("/runs")
    with door.transaction(here) as conn:
        found = rows.of_person(conn, session.person, limit=MOST)
    named = [(group, Which(agent=group.agent, tool=group.tool, shape=group.shape.hex())) for group in found]
    return html.page("groups.html", **sessions.signed_in(here, session), groups=named)


@router.get("/groups/table")
def show_table(which: Annotated[Which, Query()], here: Here, session: SignedIn) -> Response:
    """One group side by side."""
    found, more = _read(here, session.person, which)
    return html.page(
        "group.html", **sessions.signed_in(here, session), which=which, table=found, more=more, most=MOST, picked=()
    )


@router.post("/groups/table")
def look_again(which: Annotated[Which, Query()], here: Here, session: SignedIn, form: Posted) -> Response:
    """The chosen rows once more, with what is about to be said of them. Changes nothing."""
    form.must_be_of(here.link_keys, session.secret)
    found, _ = _read(here, session.person, which)
    chosen = _chosen(form, found)
    if not chosen:
        raise InvalidInput("Choose at least one row.")
    return html.page(
        "group_sure.html",
        **sessions.signed_in(here, session),
        which=which,
        table=found,
        chosen=chosen,
        verdict=_verdict(form),
        reason=form.text("reason"),
    )


@router.post("/groups/votes")
def vote(which: Annotated[Which, Query()], here: Here, session: SignedIn, form: Posted) -> Response:
    """A vote on each of the rows, and what became of each."""
    form.must_be_of(here.link_keys, session.secret)
    found, _ = _read(here, session.person, which)
    chosen = _chosen(form, found)
    if form.text("sure") != str(len(chosen)):
        raise InvalidInput("Say that you mean all of them: tick the box that counts them.")
    verdict, reason = _verdict(form), form.text("reason") or None
    voter = Voter("session", person=session.person)
    ballots = {
        row.member.id: Ballot(
            verdict, row.member.digest, row.member.revision, reason=reason, render_hash=bytes.fromhex(row.rendered)
        )
        for row in chosen
    }
    with door.transaction(here) as conn:
        outcomes = many_votes.cast(conn, voter, ballots, here.pen)
    done = [outcome for outcome in outcomes.values() if isinstance(outcome, Outcome)]
    requests.tell(here, *done)
    return html.page(
        "group_done.html",
        **sessions.signed_in(here, session),
        which=which,
        table=found,
        results=[(row, _said(outcomes[row.member.id])) for row in chosen],
        counted=len(done),
    )


def _read(here: Here, person: Person, which: Which) -> tuple[Table, bool]:
    if auth.own_only(person) is not None:
        raise NotAllowed("You are not a reviewer.")
    with door.transaction(here) as conn:
        found = rows.members(
            conn, person, agent=which.agent, tool=which.tool, shape=bytes.fromhex(which.shape), limit=MOST + 1
        )
    return side_by_side.table(found[:MOST]), len(found) > MOST


def _chosen(form: Form, found: Table) -> Sequence[Row]:
    """The rows that were ticked, as they were shown: one that is gone or has changed since is named."""
    shown = {ids.show("req", row.member.id): row for row in found.rows}
    chosen: list[Row] = []
    for name, value in form.fields.items():
        if not name.startswith(_PICK):
            continue
        row = shown.get(name.removeprefix(_PICK))
        if row is None or value != mark(row) or row.alone:
            raise InvalidInput(
                "A row that you chose has been decided or has changed since you saw it. Look at the table again."
            )
        chosen.append(row)
    return chosen


def mark(row: Row) -> str:
    """What a row's box carries: exactly what was shown."""
    return f"{row.member.revision}:{row.member.digest.hex()}:{row.rendered}"


def _verdict(form: Form) -> Verdict:
    said = form.text("verdict")
    if said not in (Verdict.APPROVE, Verdict.DENY):
        raise InvalidInput("Choose whether to approve or to deny.")
    return Verdict(said)


def _said(outcome: Outcome | BanksmanError) -> tuple[bool, str]:
    if isinstance(outcome, Outcome):
        return True, outcome.request.state.value
    return False, problems.of(outcome).detail
