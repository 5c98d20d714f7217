"""The page on which a person says that they are away, and who decides meanwhile."""

from __future__ import annotations

from datetime import UTC, datetime

from fastapi import APIRouter, Response

from banksman import ids, quorum
from banksman.errors import BanksmanError, Conflict, InvalidInput, NotAllowed
from banksman.ids import AbsenceId
from banksman.ledger import staff
from banksman_gateway import away, door, html, problems, sessions
from banksman_gateway.forms import Form, Posted
from banksman_gateway.parts import Here
from banksman_gateway.sessions import Session, SignedIn

router = APIRouter(include_in_schema=False)


@router.get("/away")
def show_away(here: Here, session: SignedIn) -> Response:
    """Who is or will be away, and a form to say so."""
    return _page(here, session)


@router.post("/away")
def declare(here: Here, form: Posted, session: SignedIn) -> Response:
    """The person in the session is away; times are UTC."""
    form.must_be_of(here.link_keys, session.secret)
    try:
        until_at = _moment(form, "until")
        from_at = _moment(form, "from") if form.text("from") else None
        with door.transaction(here) as conn:
            away.declare(conn, session.person, form.text("stand_in"), from_at=from_at, until_at=until_at)
    except (InvalidInput, Conflict, NotAllowed) as error:
        return _page(here, session, error=error)
    return html.see("/away")


@router.post("/away/{absence_id}/end")
def end(absence_id: str, here: Here, form: Posted, session: SignedIn) -> Response:
    """An absence ends now."""
    form.must_be_of(here.link_keys, session.secret)
    try:
        with door.transaction(here) as conn:
            away.end(conn, session.person, AbsenceId(ids.read("abs", absence_id)))
    except (Conflict, NotAllowed) as error:
        return _page(here, session, error=error)
    return html.see("/away")


def _page(here: Here, session: Session, *, error: BanksmanError | None = None) -> Response:
    problem = None if error is None else problems.of(error)
    with door.transaction(here) as conn:
        found = away.seen_by(conn, session.person)
        reviewers = [
            one
            for one in staff.everybody(conn)
            if one.id != session.person.id and quorum.REVIEWERS in quorum.standing(one)
        ]
    return html.page(
        "away.html",
        200 if problem is None else problem.status,
        **sessions.signed_in(here, session),
        absences=found,
        reviewers=reviewers,
        may_lend=quorum.REVIEWERS in quorum.standing(session.person),
        problem=problem,
    )


def _moment(form: Form, name: str) -> datetime:
    try:
        said = datetime.fromisoformat(form.text(name))
        return said.replace(tzinfo=UTC) if said.tzinfo is None else said.astimezone(UTC)
    except (ValueError, OverflowError):
        raise InvalidInput(f"Say {name} when as 2026-12-24 18:00, in UTC.") from None
