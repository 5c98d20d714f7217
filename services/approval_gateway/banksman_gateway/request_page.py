"""The page of a request, and the forms on it: approve, deny, answer, say what happened.

A signed-in person decides in their session. Whoever comes by a mailed link, and is not signed in, sees what the link
is for, and at tier low may decide with the typed code of the same mail. The vote itself is cast by `decide`.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

from fastapi import APIRouter, Request, Response

from banksman import digest, ids, masks, render
from banksman.digest import Json
from banksman.errors import BanksmanError, Changed, Conflict, InvalidInput, NotAllowed, NotFound, NotSignedIn
from banksman.ids import NoticeId, RequestId
from banksman.ledger import Connection, lookings, notices, people, requests
from banksman.records import Notice, Person
from banksman.states import SETTLES, VERDICTS, Kind, RequestState, Tier, Verdict
from banksman_gateway import (
    auth,
    binding,
    card,
    decide,
    door,
    dwell,
    folds,
    html,
    link_page,
    looking,
    problems,
    remarks,
    watched,
    withdraw,
)
from banksman_gateway.card import Card
from banksman_gateway.decide import Ballot, Voter
from banksman_gateway.forms import Form, Posted
from banksman_gateway.parts import Here, Parts
from banksman_gateway.sessions import MaybeSignedIn, Session, SignedIn

PRESETS = ("Not needed.", "Wrong target.", "Too risky: ask again with less.", "Explain first why this is needed.")
"""Reasons for a denial, one click each; the agent reads them."""

router = APIRouter(include_in_schema=False)


@dataclass(frozen=True, slots=True)
class Reader:
    """Who looks at a request: a person in a session, or the reviewer whom a mailed link names."""

    person: Person
    secret: bytes
    notice: Notice | None = None

    @property
    def voter(self) -> Voter:
        """Who would vote, and the way they came."""
        return Voter(channel="session" if self.notice is None else "link", person=self.person)


@router.get("/requests/{request_id}")
def show(request_id: str, request: Request, here: Here, session: MaybeSignedIn) -> Response:
    """The request: what will happen, why it was held, who asks, and the forms to decide."""
    wanted = RequestId(ids.read("req", request_id))
    with door.transaction(here) as conn:
        reader = _reader(conn, request, here, session, wanted)
        return _page(conn, here, reader, wanted)


@router.post("/requests/{request_id}/vote")
def vote(request_id: str, request: Request, here: Here, form: Posted, session: MaybeSignedIn) -> Response:
    """One vote, from this page's forms."""
    wanted, began = RequestId(ids.read("req", request_id)), time.time()
    with door.transaction(here) as conn:
        reader = _reader(conn, request, here, session, wanted)
    form.must_be_of(here.link_keys, reader.secret)
    try:
        if reader.notice is not None:
            _must_know_code(here, reader.notice, wanted, form)
        with door.transaction(here) as conn:
            shown = card.read(conn, wanted, reader.person, reader.voter.channel, here.link_keys)
            ballot = _ballot(shown, form, by_link=reader.notice is not None)
            _must_have_read(here, reader, shown, ballot, form)
            outcome = decide.vote(conn, wanted, reader.voter, ballot, here.pen)
            if reader.notice is not None and not notices.use(conn, reader.notice.id):
                raise NotAllowed("This link has been used.")
    except BanksmanError as error:
        with door.transaction(here) as conn:
            return _page(conn, here, _again(conn, reader), wanted, error=error, form=form)
    if outcome.resume is not None:
        here.wire.run(outcome.resume)
    here.wire.deliver(outcome.told)
    here.wire.changed(run=outcome.request.run_id, request=wanted)
    watched.voted(outcome, reader.voter, ballot, began)
    return html.see(f"/requests/{ids.show('req', wanted)}")


@router.post("/requests/{request_id}/{move}")
def around(request_id: str, move: str, here: Here, form: Posted, session: SignedIn) -> Response:
    """What people do around a vote, by the person in the session: `withdraw`, `looking`, `remarks`."""
    form.must_be_of(here.link_keys, session.secret)
    wanted, person = RequestId(ids.read("req", request_id)), session.person
    told: Sequence[NoticeId] = ()
    try:
        with door.transaction(here) as conn:
            request = requests.get(conn, wanted)
            auth.must_see(person, request.requester_id, f"request {request_id}")
            if move == "withdraw":
                withdraw.withdraw(conn, wanted, person, here.pen)
            elif move == "remarks":
                _, told = remarks.add(conn, wanted, person, form.text("text"))
            elif move == "looking" and form.text("look") == "no":
                lookings.stop(conn, wanted, person.id)
            elif move == "looking":
                looking.look(conn, wanted, person)
            else:
                raise NotFound("There is nothing here.")
    except (Conflict, InvalidInput, NotAllowed) as error:
        with door.transaction(here) as conn:
            return _page(conn, here, Reader(person, session.secret), wanted, error=error, form=form)
    here.wire.deliver(told)
    here.wire.changed(run=request.run_id, request=wanted)
    return html.see(f"/requests/{request_id}{'#remarks' if move == 'remarks' else ''}")


def _reader(conn: Connection, request: Request, here: Parts, session: Session | None, wanted: RequestId) -> Reader:
    """Who looks; a session comes before a link, so that a forwarded mail decides nothing in its addressee's name."""
    if session is not None:
        return Reader(session.person, session.secret)
    view = link_page.view_of(request, here, wanted)
    if view is None:
        raise NotSignedIn("Sign in to see this request.")
    notice = notices.get(conn, view.notice)
    person = people.get(conn, notice.person_id)
    if notice.request_id != wanted or person.disabled:
        raise NotSignedIn("Sign in to see this request.")
    return Reader(person, view.secret, notice)


def _again(conn: Connection, reader: Reader) -> Reader:
    """The same reader, with the link's tries and use as they stand now."""
    if reader.notice is None:
        return reader
    return Reader(reader.person, reader.secret, notices.get(conn, reader.notice.id))


def _page(
    conn: Connection,
    here: Parts,
    reader: Reader,
    wanted: RequestId,
    *,
    error: BanksmanError | None = None,
    form: Form | None = None,
) -> Response:
    shown = card.read(conn, wanted, reader.person, reader.voter.channel, here.link_keys)
    auth.must_see(reader.person, shown.request.requester_id, f"request {ids.show('req', wanted)}")
    problem = None if error is None else problems.of(error)
    values: dict[str, Any] = {
        "person": reader.person if reader.notice is None else None,
        "reader": reader.person,
        "notice": reader.notice,
        "form_token": here.link_keys.form_token(reader.secret),
        "card": shown,
        "verdicts": VERDICTS[shown.request.kind],
        "reason": "" if form is None else form.text("reason"),
        "answer": "" if form is None else form.text("answer"),
        "remark": "" if form is None else form.text("text"),
        "problem": problem,
        "tries": link_page.TRIES,
        "opened": dwell.stamp(here.link_keys, reader.secret, shown.request),
        "dwell": here.settings.dwell_seconds,
        "presets": PRESETS,
        "head": here.seal.head,
        "may_remark": remarks.may(shown.request, reader.person),
    }
    status = 200 if problem is None else problem.status
    if reader.notice is None:
        return html.page("request.html", status, **values)
    return html.page(_link_template(shown, reader.notice), status, **values)


def _link_template(shown: Card, notice: Notice) -> str:
    """What a link shows to somebody who is not signed in: no arguments but where the link itself may decide."""
    if notice.revision != shown.request.revision:
        return "link_changed.html"
    if shown.request.tier is not Tier.LOW or shown.request.overdue or not (notice.live or notice.used_at):
        return "link_sign_in.html"
    return "request.html"


def _must_know_code(here: Parts, notice: Notice, wanted: RequestId, form: Form) -> None:
    """Nothing, when the typed code is the mail's. Each try is counted and committed before it is compared."""
    typed = form.fields.get("code", "")
    with door.transaction(here) as conn:
        shown = card.read(conn, wanted, None, "link", here.link_keys)
        if shown.request.tier is not Tier.LOW:
            raise NotAllowed("This cannot be decided from a mailed link. Sign in to decide.")
        if notice.revision != shown.request.revision:
            raise Changed("This was changed after your mail was sent. Sign in to see what is asked now.")
        if not shown.open:
            # `decide` says who settled it; a code typed too late is no guess.
            return
        if not link_page.is_code(typed, digits=binding.digits("request")):
            raise InvalidInput("Type the code of 6 digits from your mail.")
        counted = notices.try_code(conn, notice.id, tries=link_page.TRIES)
    if not counted:
        raise NotAllowed("This link's code was mistyped too often, or the link has been used. Sign in to decide.")
    if not link_page.code_holds(here, notice, typed):
        left = link_page.TRIES - notice.code_tries - 1
        raise NotAllowed(f"That is not the code in your mail. Tries left: {max(left, 0)}.")


def _ballot(shown: Card, form: Form, *, by_link: bool) -> Ballot:
    try:
        verdict = Verdict(form.text("verdict"))
    except ValueError:
        raise InvalidInput("Choose what to decide.") from None
    revision, seen_digest, rendered = must_be_shown(shown, form)
    arguments = None
    if "arguments" in form.fields:
        if by_link:
            raise NotAllowed("A mailed link decides on what is shown; to change it, sign in.")
        arguments = arguments_in(form.fields["arguments"])
        arguments = masks.restored(arguments, shown.action["arguments"], masks.names(shown.action))
        now = render.of({**shown.action, "arguments": arguments}, shown.context).hash
    else:
        now = shown.rendering.hash
    if rendered != now.hex() and (revision, seen_digest) == (shown.request.revision, shown.request.digest):
        raise Changed("This page would be drawn differently now. Read the request again.", {"changed": "rendering"})
    return Ballot(
        verdict=verdict,
        digest=seen_digest,
        revision=revision,
        reason=form.text("reason") or None,
        exact=arguments,
        answer=_answer(shown, verdict, form),
        stop_run=form.text("stop_run") == "yes",
        render_hash=now,
    )


def _must_have_read(here: Parts, reader: Reader, shown: Card, ballot: Ballot, form: Form) -> None:
    """For whoever agrees: the whole of it, and at tier high not in a moment. Saying no is always quick."""
    if not shown.open or SETTLES[ballot.verdict] is RequestState.DENIED:
        return
    high, blocks = shown.request.tier is Tier.HIGH, shown.rendering.blocks
    if ballot.exact is not None and digest.canonical(ballot.exact) != digest.canonical(shown.action["arguments"]):
        if high:
            return  # who edits at tier high does not count
        blocks = render.of({**shown.action, "arguments": ballot.exact}, shown.context).blocks
    if high:
        dwell.must_have_passed(
            here.link_keys, reader.secret, shown.request, form.text("opened"), seconds=here.settings.dwell_seconds
        )
    if (high or folds.folded(blocks)) and form.text("read") != "whole":
        raise InvalidInput("Tick the box that says that you have read all of it.")


def must_be_shown(shown: Card, form: Form) -> tuple[int, bytes, str]:
    """What the form says its reader was shown; `decide` compares it with what is asked."""
    if not shown.genuine:
        raise InvalidInput("The stored request does not match its own digest. Nothing can be decided on it.")
    try:
        return int(form.text("revision")), bytes.fromhex(form.text("digest")), form.text("rendered")
    except ValueError:
        raise InvalidInput("The form does not say which revision it was made for.") from None


def _answer(shown: Card, verdict: Verdict, form: Form) -> Json:
    text = form.text("answer")
    if verdict is Verdict.HAPPENED:
        return digest.check(text, what="The answer") or None
    if verdict is not Verdict.ANSWER:
        return None
    if "option" in form.fields:
        # By its number: what is covered in an option does not stand in the page.
        return {str(number): option for number, option in enumerate(shown.options)}.get(form.text("option"))
    if not text:
        raise InvalidInput("Write an answer first.")
    if shown.request.kind is Kind.EXTERNAL:
        return digest.parse(text, what="The answer")
    return digest.check(text, what="The answer")


def arguments_in(text: str) -> dict[str, Json]:
    """Edited arguments, from JSON."""
    arguments = digest.parse(text, what="The edited text")
    if not isinstance(arguments, dict):
        raise InvalidInput("The arguments must stay a JSON object: { … }.")
    return cast("dict[str, Json]", arguments)
