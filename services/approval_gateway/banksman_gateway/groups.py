"""Groups: requests decided together, each with its own vote: a table, a look before, a result for each row. Like ones
are found by themselves; any that were chosen in the inbox come as a table for each tool.

Nothing of tier high comes in here, and nothing that a table cannot show whole. A vote for many is many votes, each on
the digest that its row showed; one that changed meanwhile fails alone, and no rule or grant comes of any of it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Annotated
from urllib.parse import urlencode

from fastapi import APIRouter, Query, Response
from pydantic import BaseModel, Field, StringConstraints

from banksman import ids, vault
from banksman.errors import BanksmanError, InvalidInput, NotAllowed
from banksman.ids import RequestId
from banksman.ledger import groups as rows
from banksman.records import Person
from banksman.states import Verdict
from banksman_gateway import auth, door, html, many_votes, problems, requests, sessions, side_by_side
from banksman_gateway.decide import Ballot, Outcome, Voter
from banksman_gateway.forms import Form, Posted
from banksman_gateway.parts import Here, Parts
from banksman_gateway.sessions import Session, SignedIn
from banksman_gateway.side_by_side import Table

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


class Chosen(BaseModel):
    """Rows of the inbox, and what is to be said of them."""

    pick: Annotated[list[Annotated[str, StringConstraints(max_length=60)]], Field(max_length=MOST)] = []
    verdict: Annotated[str, StringConstraints(max_length=20)] = Verdict.APPROVE


@router.get("/groups")
def show_groups(here: Here, session: SignedIn) -> Response:
    """Which like requests wait for this person, the most first."""
    if auth.own_only(session.person) is not None:
        return html.see("/runs")
    with door.transaction(here) as conn, vault.leniently():
        found = rows.of_person(conn, session.person, limit=MOST)
    named = [(group, Which(agent=group.agent, tool=group.tool, shape=group.shape.hex())) for group in found]
    return html.page("groups.html", **sessions.signed_in(here, session), groups=named)


@router.get("/groups/table")
def show_table(which: Annotated[Which, Query()], here: Here, session: SignedIn) -> Response:
    """One group side by side."""
    found, more = _group(here, session.person, which)
    return html.page("group.html", **sessions.signed_in(here, session), which=which, table=found, more=more, most=MOST)


@router.post("/groups/table")
def look_again(which: Annotated[Which, Query()], here: Here, form: Posted, session: SignedIn) -> Response:
    """The rows that were ticked once more, with what is about to be said of them. Changes nothing."""
    form.must_be_of(here.link_keys, session.secret)
    found, _ = _group(here, session.person, which)
    [ticked], gone = _ticked(form, [found])
    if gone:
        raise InvalidInput(
            "A row that you chose has been decided or has changed since you saw it. Look at the table again."
        )
    return _sure(here, session, [ticked], _verdict(form.text("verdict")), back=f"/groups/table?{which.query}")


@router.get("/groups/chosen")
def show_chosen(chosen: Annotated[Chosen, Query()], here: Here, session: SignedIn) -> Response:
    """The rows that were chosen in the inbox, a table for each tool, and which of them are decided one by one."""
    picked = [RequestId(ids.read("req", text)) for text in dict.fromkeys(chosen.pick)]
    found = _named(here, session.person, picked)
    left_out = [(row.member.id, row.member.tool, row.alone) for one in found for row in one.rows if row.alone]
    mine = {row.member.id for one in found for row in one.rows}
    left_out += [(request_id, "", "waits for you no longer") for request_id in picked if request_id not in mine]
    tables = [replace(one, rows=[row for row in one.rows if not row.alone]) for one in found]
    return _sure(
        here, session, [one for one in tables if one.rows], _verdict(chosen.verdict), back="/", left_out=left_out
    )


@router.post("/groups/votes")
def vote(here: Here, form: Posted, session: SignedIn) -> Response:
    """A vote on each of the rows, and what became of each; one that changed since it was shown fails alone."""
    form.must_be_of(here.link_keys, session.secret)
    named = [RequestId(ids.read("req", name)) for name in _marks(form)]
    tables, gone = _ticked(form, _named(here, session.person, named))
    if form.text("sure") != str(len(named)):
        raise InvalidInput("Say that you mean all of them: tick the box that counts them.")
    verdict, reason = _verdict(form.text("verdict")), form.text("reason") or None
    voter = Voter("session", person=session.person)
    ballots = {
        row.member.id: Ballot(
            verdict, row.member.digest, row.member.revision, reason=reason, render_hash=bytes.fromhex(row.rendered)
        )
        for one in tables
        for row in one.rows
    }
    with door.transaction(here) as conn:
        outcomes = many_votes.cast(conn, voter, ballots, here.pen)
    done = [outcome for outcome in outcomes.values() if isinstance(outcome, Outcome)]
    requests.tell(here, *done)
    return html.page(
        "group_done.html",
        **sessions.signed_in(here, session),
        tables=tables,
        said={request_id: _said(outcome) for request_id, outcome in outcomes.items()},
        gone=gone,
        counted=len(done),
    )


def _sure(
    here: Parts,
    session: Session,
    tables: Sequence[Table],
    verdict: Verdict,
    *,
    back: str,
    left_out: Sequence[tuple[RequestId, str, str]] = (),
) -> Response:
    return html.page(
        "group_sure.html",
        **sessions.signed_in(here, session),
        tables=tables,
        count=sum(len(one.rows) for one in tables),
        verdict=verdict,
        back=back,
        left_out=left_out,
    )


def _group(here: Parts, person: Person, which: Which) -> tuple[Table, bool]:
    _must_review(person)
    shape = bytes.fromhex(which.shape)
    with door.transaction(here) as conn, vault.leniently():
        found = rows.members(conn, person, agent=which.agent, tool=which.tool, shape=shape, limit=MOST + 1)
    return side_by_side.table(which.agent, which.tool, found[:MOST]), len(found) > MOST


def _named(here: Parts, person: Person, request_ids: Sequence[RequestId]) -> Sequence[Table]:
    _must_review(person)
    with door.transaction(here) as conn, vault.leniently():
        return side_by_side.tables(rows.named(conn, person, request_ids))


def _must_review(person: Person) -> None:
    if auth.own_only(person) is not None:
        raise NotAllowed("You are not a reviewer.")


def _marks(form: Form) -> Mapping[str, str]:
    marks = {name.removeprefix(_PICK): value for name, value in form.fields.items() if name.startswith(_PICK)}
    if not marks:
        raise InvalidInput("Choose at least one row.")
    return marks


def _ticked(form: Form, found: Sequence[Table]) -> tuple[Sequence[Table], Sequence[RequestId]]:
    """These tables with the rows that were ticked, as they were shown; and those that are gone or have changed."""
    marks = _marks(form)
    shown = {ids.show("req", row.member.id): row for one in found for row in one.rows if not row.alone}
    good = {name for name, value in marks.items() if name in shown and value == shown[name].mark}
    gone = [RequestId(ids.read("req", name)) for name in marks if name not in good]
    return [
        replace(one, rows=[row for row in one.rows if ids.show("req", row.member.id) in good]) for one in found
    ], gone


def _verdict(said: str) -> Verdict:
    if said not in (Verdict.APPROVE, Verdict.DENY):
        raise InvalidInput("Choose whether to approve or to deny.")
    return Verdict(said)


def _said(outcome: Outcome | BanksmanError) -> tuple[bool, str]:
    if isinstance(outcome, Outcome):
        return True, outcome.request.state.value
    return False, problems.of(outcome).detail
