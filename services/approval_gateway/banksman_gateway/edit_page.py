"""Changing the arguments of a call: a field for each, or all of them as JSON, then what was and what would be.

Nothing is changed here. The last of these pages has the form of a vote that carries the whole edited call, and
`decide` makes of it the next revision.
"""

from __future__ import annotations

import json
from typing import Annotated

from fastapi import APIRouter, Query, Response

from banksman import diffs, digest, ids, masks, render
from banksman.digest import Json
from banksman.errors import BanksmanError, Changed, InvalidInput, NotAllowed
from banksman.ids import RequestId
from banksman.ledger import Connection, requests
from banksman.states import Kind
from banksman_gateway import card, door, edits, html, late, problems, request_page, sessions, widgets
from banksman_gateway.card import Card
from banksman_gateway.forms import Form, Posted
from banksman_gateway.parts import Here, Parts
from banksman_gateway.sessions import Session, SignedIn
from banksman_gateway.widgets import Widget

router = APIRouter(include_in_schema=False)


@router.get("/requests/{request_id}/edit")
def edit(
    request_id: str, here: Here, session: SignedIn, as_: Annotated[str, Query(alias="as", max_length=10)] = ""
) -> Response:
    """The arguments to change, a field for each, or as JSON; nothing is changed until the next page is confirmed."""
    with door.transaction(here) as conn:
        shown, fields = _editable(conn, here, session, RequestId(ids.read("req", request_id)))
    return _page(here, session, shown, None if as_ == "json" else fields, _text(shown))


@router.post("/requests/{request_id}/edit")
def confirm(request_id: str, here: Here, form: Posted, session: SignedIn) -> Response:
    """What was and what would be, side by side, before the edited call is approved. Changes nothing."""
    form.must_be_of(here.link_keys, session.secret)
    with door.transaction(here) as conn:
        shown, fields = _editable(conn, here, session, RequestId(ids.read("req", request_id)))
    text = form.fields.get("arguments", "")
    if "arguments" in form.fields:
        fields = None
    try:
        _must_be_current(here, shown, form)
        if fields is not None:
            fields = widgets.filled(fields, form)
        arguments = masks.restored(_said(text, fields), shown.action["arguments"], masks.names(shown.action))
        with door.transaction(here) as conn:
            edits.must_match_schema(conn, shown.request, arguments)
        edited = {**shown.action, "arguments": arguments}
        if digest.of_action(edited) == shown.request.digest:
            raise InvalidInput("Nothing was changed.")
    except Changed as error:
        # What was typed began from other arguments: sent again as it is, it would undo somebody else's edit.
        return _page(here, session, shown, fields, _text(shown), error=error)
    except BanksmanError as error:
        return _page(here, session, shown, fields, text, error=error)
    cover = masks.of(shown.action)
    return html.page(
        "confirm.html",
        **sessions.signed_in(here, session),
        card=shown,
        arguments=digest.canonical(
            masks.carried(arguments, shown.action["arguments"], masks.names(shown.action))
        ).decode(),
        rendering=render.of(edited, shown.context),
        changes=diffs.edited(cover.value(shown.action["arguments"]), cover.value(arguments)),
    )


def _must_be_current(here: Parts, shown: Card, form: Form) -> None:
    """Nothing, when the form was made for what is asked now; `Changed` otherwise."""
    revision, seen, _ = request_page.must_be_shown(shown, form)
    if (revision, seen) != (shown.request.revision, shown.request.digest):
        with door.transaction(here) as conn:
            raise late.changed(conn, shown.request, revision)


def _text(shown: Card) -> str:
    # Everything outside ASCII is written as \\uXXXX, so that nothing hides in the box.
    return json.dumps(masks.plain(masks.of(shown.action).value(shown.action["arguments"])), indent=2)


def _said(text: str, fields: list[Widget] | None) -> dict[str, Json]:
    said = request_page.arguments_in(text) if fields is None else widgets.arguments(fields)
    # Once through its canonical form, so that what is confirmed is what the next form carries: 1.0 is 1.
    return request_page.arguments_in(digest.canonical(digest.check(said, what="The edited arguments")).decode())


def _editable(conn: Connection, here: Parts, session: Session, wanted: RequestId) -> tuple[Card, list[Widget] | None]:
    """The request, and a field for each of its arguments where they fit into fields."""
    shown = card.read(conn, wanted, session.person, "session", here.link_keys)
    if shown.request.kind is not Kind.APPROVAL or not shown.open or not shown.genuine:
        raise NotAllowed("Only an open approval can be edited.")
    if shown.hindrance is not None:
        raise NotAllowed(shown.hindrance)
    schema = digest.parse(requests.schema(conn, shown.request.schema_hash), what="The tool's schema")
    covered = masks.plain(masks.of(shown.action).value(shown.action["arguments"]))
    return shown, widgets.of(schema, shown.action["arguments"], covered)


def _page(
    here: Parts,
    session: Session,
    shown: Card,
    fields: list[Widget] | None,
    text: str,
    *,
    error: BanksmanError | None = None,
) -> Response:
    problem = None if error is None else problems.of(error)
    return html.page(
        "edit.html",
        200 if problem is None else problem.status,
        **sessions.signed_in(here, session),
        card=shown,
        fields=fields,
        text=text,
        problem=problem,
    )
