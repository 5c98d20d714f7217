"""The page of a run: what was asked, what came of it, each call's way, the conversation, the files. Reads only."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from fastapi import APIRouter, Response

from banksman import digest, ids, masks, vault
from banksman.digest import Json
from banksman.errors import InvalidInput
from banksman.ids import RequestId, RunId
from banksman.ledger import agents, executions, families, requests, runs, snapshots, views
from banksman.ledger.views import Happening
from banksman.records import Execution, Request, Run
from banksman.states import FINAL
from banksman_gateway import auth, door, html, run_files, sessions, transcript
from banksman_gateway.parts import Here
from banksman_gateway.runs import conversation
from banksman_gateway.sessions import SignedIn

MOST_BELOW = 200
"""So many of the runs that this one delegated, and they in turn, does a page show."""

router = APIRouter(include_in_schema=False)


@dataclass(frozen=True, slots=True)
class Asked:
    """One request of the run on its way: asked, then settled by somebody, then started and ended."""

    request: Request
    settled_by: str
    settled_at: datetime | None
    calls: Sequence[Execution]


@dataclass(frozen=True, slots=True)
class Branch:
    """A run that was delegated, and what it delegated itself."""

    run: Run
    children: list[Branch] = field(default_factory=list["Branch"])


@router.get("/runs/{run_id}")
def show_run(run_id: str, here: Here, session: SignedIn) -> Response:
    """One run, with everything that is kept of it."""
    wanted = RunId(ids.read("run", run_id))
    with door.transaction(here) as conn, vault.leniently():
        run = runs.get(conn, wanted)
        auth.must_see(session.person, run.requester_id, f"run {run_id}")
        asked = requests.of_run(conn, wanted)
        timeline = views.timeline(conn, wanted)
        called = executions.of_run(conn, wanted)
        kept = snapshots.load(conn, wanted)
        listed = agents.find(conn, run.agent)
        named = transcript.sensitive(listed)
        talk = conversation(kept)
        cover = masks.around(*map(_action, asked), *transcript.calls(talk, run.agent, named))
        files = run_files.read(conn, wanted, kept, cover)
        below = families.below(conn, wanted, limit=MOST_BELOW + 1)
    return html.page(
        "run.html",
        **sessions.signed_in(here, session),
        run=run,
        delegated=_tree(below[:MOST_BELOW]),
        many_below=len(below) > MOST_BELOW,
        paused=listed if listed and listed.paused_at and run.status not in FINAL else None,
        may_steer=auth.may_steer(session.person, run),
        prompt=cover.text(run.prompt),
        error=cover.text(run.error or ""),
        output=None if run.output is None else cover.text(_output(run.output)),
        asked=_ways(asked, timeline, called),
        steps=[line for line in timeline if not _is_told(line)],
        told=[line for line in timeline if _is_told(line)],
        results={
            (call.step, call.call_id, call.attempt): cover.text(_words(call.result)) for call in called if call.result
        },
        words=_WORDS,
        talk=transcript.read(talk, cover=cover, agent=run.agent, named=named),
        files=files,
        usage=_usage(run.usage),
    )


def _ways(asked: Sequence[Request], timeline: Sequence[Happening], called: Sequence[Execution]) -> Sequence[Asked]:
    ends: dict[RequestId, Happening] = {
        line.request_id: line for line in timeline if line.request_id is not None and line.what in _SETTLED
    }
    found: list[Asked] = []
    for request in asked:
        end = ends.get(request.id)
        calls = [call for call in called if call.request_id == request.id]
        found.append(Asked(request, "" if end is None else end.who, request.settled_at, calls))
    return found


_SETTLED = {"request.approved", "request.denied", "request.answered"}


def _is_told(line: Happening) -> bool:
    """Whether this is about a message to a reviewer."""
    return line.what.startswith(("notice.", "link.")) and line.what != "link.used"


def _tree(below: Sequence[tuple[int, Run]]) -> Sequence[Branch]:
    """Runs in the order of their tree → the tree."""
    top: list[Branch] = []
    above: list[Branch] = []
    for depth, run in below:
        branch = Branch(run)
        del above[depth - 1 :]
        (above[-1].children if above else top).append(branch)
        above.append(branch)
    return top


def _usage(usage: Mapping[str, Json]) -> Sequence[tuple[str, str]]:
    """What the run has used so far, in words, with whatever else the agent library counts."""
    left = dict(usage)
    found = [(words, _number(left.pop(name, 0))) for name, words in _COUNTED.items()]
    cost = left.pop("cost", None)
    unmeasured = left.pop("unmeasured_requests", 0)
    at_least = "at least " if unmeasured else ""
    price = "not known: the agent library has no price for its model"
    found.append(("Cost", price if cost is None else f"{at_least}{cost} USD, as the agent library reckons it"))
    if unmeasured:
        found.append(("Not measured", f"{_number(unmeasured)} of the requests to the model: there was more"))
    flat = {name: value for name, value in left.items() if not isinstance(value, dict)}
    return [*found, *((name.replace("_", " ").capitalize(), _number(value)) for name, value in flat.items())]


_COUNTED = {
    "requests": "Requests to the model",
    "input_tokens": "Tokens in",
    "output_tokens": "Tokens out",
    "tool_calls": "Tool calls",
}


def _number(value: Json) -> str:
    return f"{value:,}" if isinstance(value, int | float) else str(value)


def _words(result: bytes) -> str:
    """What a call returned: the value itself, where it is kept as one, else everything that is kept."""
    text = result.decode("utf-8", "replace")
    try:
        kept: Json = json.loads(text)
    except ValueError:
        return text
    match kept:
        case {"kind": "value", "value": str(words), **rest} if not rest:
            return words
        case {"kind": "value", "value": value, **rest} if not rest:
            return json.dumps(value, ensure_ascii=False, indent=2)
        case _:
            return text


def _action(request: Request) -> Mapping[str, Json]:
    try:
        return digest.parse(request.action, limit=4 * digest.MAX_BYTES)
    except InvalidInput:
        return {}


def _output(output: Json) -> str:
    if isinstance(output, str):
        return output
    return json.dumps(output, ensure_ascii=False, indent=2)


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
    "run.erased": "erased the content of the run",
    "run.stuck": "gave the run up after too many attempts",
    "request.opened": "asked for a decision",
    "request.revised": "edited what is asked",
    "request.revealed": "looked at a covered secret",
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
