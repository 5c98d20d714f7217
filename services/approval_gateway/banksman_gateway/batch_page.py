"""The pages of batches: which there are, how far one has come, whom it waits for, and a form to stop it.

An open page looks again by itself every few seconds, at the part that changes alone; looking keeps no session alive.
Without scripts, reloading it does the same.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from fastapi import APIRouter, Request, Response

from banksman import ids
from banksman.errors import NotSignedIn
from banksman.ids import BatchId
from banksman.ledger import Connection, keys, progress
from banksman.ledger import batches as rows
from banksman.records import Batch
from banksman.states import FINAL, RunStatus
from banksman_gateway import auth, batches, door, html, sessions
from banksman_gateway.forms import Posted
from banksman_gateway.parts import Here, Parts
from banksman_gateway.sessions import SignedIn

MOST = 20
"""How many batches a page lists: each is counted run by run."""

router = APIRouter(include_in_schema=False)


@router.get("/batches")
def show_batches(here: Here, session: SignedIn, before: str = "") -> Response:
    """Batches, newest first."""
    with door.transaction(here) as conn:
        found = rows.listed(
            conn,
            requester_id=auth.own_only(session.person),
            before=BatchId(ids.read("bat", before)) if before else None,
            limit=MOST + 1,
        )
    return html.page(
        "batches.html",
        **sessions.signed_in(here, session),
        batches=[(batch, _over(batch), sum(batch.runs.values())) for batch in found[:MOST]],
        older=ids.show("bat", found[MOST - 1].id) if len(found) > MOST else None,
    )


@router.get("/batches/{batch_id}")
def show_batch(batch_id: str, here: Here, session: SignedIn) -> Response:
    """One batch as it stands."""
    with door.transaction(here) as conn:
        batch = batches.seen(conn, session.person, batch_id)
        figures = _figures(here, conn, batch)
    may_steer = auth.may_steer(session.person, batch) and batch.cancelled_at is None
    return html.page(
        "batch.html",
        **sessions.signed_in(here, session),
        **figures,
        may_stop=may_steer and not _is_over(batch),
        may_retry=may_steer and any(batch.runs[status] for status in (RunStatus.FAILED, RunStatus.STUCK)),
    )


@router.get("/batches/{batch_id}/now")
def show_now(batch_id: str, request: Request, here: Here) -> Response:
    """The part of a batch's page that changes, for the page itself to read again."""
    held = sessions.held(request)
    with door.transaction(here) as conn:
        person = None if held is None else keys.lives(conn, held, idle=sessions.IDLE)
        if person is None:
            raise NotSignedIn("Sign in first.")
        figures = _figures(here, conn, batches.seen(conn, person, batch_id))
    return html.page("_batch.html", **figures)


@router.post("/batches/{batch_id}/cancel")
def cancel(batch_id: str, here: Here, form: Posted, session: SignedIn) -> Response:
    """Stop a batch, by the person in the session."""
    answer = _steer(batch_id, here, session, form, batches.mark)
    batches.finish_cancelling(here, BatchId(ids.read("bat", batch_id)))
    return answer


@router.post("/batches/{batch_id}/pause")
def pause(batch_id: str, here: Here, form: Posted, session: SignedIn) -> Response:
    """Let nothing of a batch start for now, by the person in the session."""
    return _steer(batch_id, here, session, form, batches.pause)


@router.post("/batches/{batch_id}/resume")
def resume(batch_id: str, here: Here, form: Posted, session: SignedIn) -> Response:
    """Let a paused batch go on, by the person in the session."""
    return _steer(batch_id, here, session, form, batches.resume)


@router.post("/batches/{batch_id}/retry")
def retry(batch_id: str, here: Here, form: Posted, session: SignedIn) -> Response:
    """Give what failed or is stuck another chance, by the person in the session."""
    return _steer(batch_id, here, session, form, batches.retry)


def _steer(
    batch_id: str, here: Here, session: SignedIn, form: Posted, move: Callable[[Connection, Batch, str], None]
) -> Response:
    form.must_be_of(here.link_keys, session.secret)
    with door.transaction(here) as conn:
        batch = batches.seen(conn, session.person, batch_id)
        auth.must_steer(session.person, batch)
        move(conn, batch, ids.show("per", session.person.id))
    return html.see(f"/batches/{batch_id}")


def _figures(here: Parts, conn: Connection, batch: Batch) -> dict[str, Any]:
    """What the changing part of a batch's page is filled with."""
    total, over = sum(batch.runs.values()), _over(batch)
    pace = progress.pace(conn, batch.id, window=batches.PACE)
    return {
        "batch": batch,
        "total": total,
        "over": over,
        "is_over": _is_over(batch),
        "pace": pace,
        "per_minute": pace.per_minute,
        "expected_at": pace.until(batch.left) if batch.left else None,
        "waiting": progress.waiting(conn, batch.id),
        "used": batches.used(here, conn, batch),
    }


def _over(batch: Batch) -> int:
    return sum(count for status, count in batch.runs.items() if status in FINAL)


def _is_over(batch: Batch) -> bool:
    return batch.finished_at is not None
