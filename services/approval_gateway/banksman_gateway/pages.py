"""The pages of runs. Reads only: whatever changes something has a form of its own elsewhere."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import cast

from fastapi import APIRouter, Response

from banksman import digest, ids, render
from banksman.digest import Json
from banksman.errors import InvalidInput, NotFound
from banksman.ids import RunId
from banksman.ledger import Connection, agents, lists, requests, runs, snapshots, views
from banksman.ledger.inbox import Item
from banksman.records import Run
from banksman.states import FINAL, RunStatus
from banksman_gateway import auth, door, html, sessions
from banksman_gateway.parts import Here
from banksman_gateway.sessions import SignedIn

MOST = 100
"""How many lines a list shows; past that it says so."""

_FILE_LIMIT = 256 * 1024
_GIST = 140

router = APIRouter(include_in_schema=False)


@router.get("/runs")
def show_runs(here: Here, session: SignedIn, before: str = "", status: str = "") -> Response:
    """Runs, newest first."""
    wanted = _status(status)
    with door.transaction(here) as conn:
        found = lists.of_runs(
            conn,
            status=wanted,
            requester_id=auth.own_only(session.person),
            before=RunId(ids.read("run", before)) if before else None,
            limit=MOST + 1,
        )
    return html.page(
        "runs.html",
        **sessions.signed_in(here, session),
        runs=found[:MOST],
        older=ids.show("run", found[MOST - 1].id) if len(found) > MOST else None,
        statuses=list(RunStatus),
        status=wanted,
    )


@router.get("/runs/{run_id}")
def show_run(run_id: str, here: Here, session: SignedIn) -> Response:
    """One run: what was asked, what came of it, everything that happened, its requests and its files."""
    wanted = RunId(ids.read("run", run_id))
    with door.transaction(here) as conn:
        run = runs.get(conn, wanted)
        own = auth.own_only(session.person)
        if own is not None and own != run.requester_id:
            raise NotFound(f"There is no run {run_id}.")
        asked = requests.of_run(conn, wanted)
        timeline = views.timeline(conn, wanted)
        files = _files(conn, run)
        children = lists.of_runs(conn, parent_id=wanted, limit=200)
        paused = None if run.status in FINAL else next((a for a in agents.paused(conn) if a.name == run.agent), None)
    return html.page(
        "run.html",
        **sessions.signed_in(here, session),
        run=run,
        children=children,
        paused=paused,
        may_steer=auth.may_steer(session.person, run),
        output=_output(run.output),
        requests=asked,
        timeline=timeline,
        words=_WORDS,
        files=files,
    )


def gist(item: Item) -> str:
    """One line of what a request is about, said to be cut where it is cut."""
    try:
        action = digest.parse(item.action, limit=4 * digest.MAX_BYTES)
    except InvalidInput:
        return ""
    arguments = cast("Mapping[str, Json]", action.get("arguments") or {})
    parts = [f"{render.line(name)}: {_short(value)}" for name, value in sorted(arguments.items(), key=_weight)]
    text = ", ".join(parts)
    return text if len(text) <= _GIST else text[:_GIST].rpartition(" ")[0] + " … (cut; open it to read all)"


def _weight(item: tuple[str, Json]) -> tuple[bool, str]:
    """What fits on a line first: a path says more than the size of a file."""
    return _is_long(item[1]), item[0]


def _is_long(value: Json) -> bool:
    return isinstance(value, str) and ("\n" in value or len(value) > 80)


def _short(value: Json) -> str:
    if _is_long(value):
        return render.whole("text", "", value).summary.partition(", ends")[0]
    return render.line(json.dumps(value, ensure_ascii=False))


def _files(conn: Connection, run: Run) -> Sequence[tuple[str, int, render.Block | None]]:
    """The workspace as of the last snapshot: path, size, and the text where it is one."""
    workspace = cast("Mapping[str, str]", views.state(conn, run.id).get("workspace") or {})
    bodies = snapshots.blobs(conn, run.id, set(workspace.values()))
    found: list[tuple[str, int, render.Block | None]] = []
    for path, name in sorted(workspace.items()):
        body = bodies.get(name, b"")
        found.append((path, len(body), _shown(path, body)))
    return found


def _shown(path: str, body: bytes) -> render.Block | None:
    try:
        content = body.decode() if len(body) <= _FILE_LIMIT else None
    except UnicodeDecodeError:
        content = None
    return None if content is None else render.whole("file", path, content)


def _output(output: Json) -> str | None:
    if output is None or isinstance(output, str):
        return output
    return json.dumps(output, ensure_ascii=False, indent=2)


def _status(text: str) -> RunStatus | None:
    try:
        return RunStatus(text) if text else None
    except ValueError:
        raise InvalidInput(f"{text[:20]!r} is not a status of runs.") from None


_WORDS = {
    "run.submitted": "submitted the run",
    "run.started": "started the run",
    "run.delegated": "delegated a task to",
    "run.parked": "parked the run until people decide",
    "run.resumed": "took the run up again",
    "run.finished": "finished the run",
    "run.failed": "could not go on",
    "run.cancel_asked": "asked for the run to stop",
    "run.cancelled": "cancelled the run",
    "run.retried": "gave the run another chance",
    "run.doubted": "restored the database: the run may have acted since",
    "run.stuck": "gave the run up after too many attempts",
    "request.opened": "asked for a decision",
    "request.revised": "edited what is asked",
    "request.approved": "approved",
    "request.denied": "denied",
    "request.answered": "answered",
    "request.expired": "let the deadline pass: nobody decided",
    "request.reminded": "reminded those who may decide",
    "request.escalated": "went up the ladder, because nobody decided: asked",
    "request.extended": "moved the deadline on, because nobody decided",
    "request.unreachable": "found that nobody, or too few, may decide",
    "request.reachable": "found that enough people may decide now",
    "decision.renewed": "signed the approval again with a later start, because the run waits for another request",
    "request.cancelled": "closed the request with the run",
    "vote.cast": "voted; more votes are needed",
    "vote.refused": "found a vote that was not cast here, and did not count it",
    "vote.withdrawn": "took a vote back",
    "withdrawal.refused": "found that somebody else wrote that a vote was taken back, and counted it",
    "remark.added": "wrote below the request",
    "decision.refused": "found a decision that cannot be verified, and did not use it",
    "execution.refused": "did not execute a call",
    "grant.given": "let the same call be made again",
    "grant.revoked": "revoked a standing grant",
    "grant.refused": "did not use a standing grant",
    "request.superseded": "took the request back, to ask again",
    "execution.started": "started the tool",
    "execution.finished": "finished the tool",
    "notice.queued": "wrote a message to a reviewer",
    "notice.sent": "sent the message",
    "link.opened": "opened the mailed link",
    "link.used": "decided by the mailed link",
}
