"""The JSON API as a program sees it: what can be asked, what comes back, and how problems become errors.

Every question is a generator that yields what to send and gets back the body, so that the plain and the async client
say the same thing in the same words. Answers are frozen, and take no offence at fields that a newer gateway adds.
"""

from __future__ import annotations

import gzip
import json
import time
import uuid
from collections.abc import Collection, Generator, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime
from typing import Any, Generic, Literal, TypeVar, cast
from urllib.parse import quote

from pydantic import ValidationError

from banksman import errors
from banksman.errors import BanksmanError, Gone, InvalidInput, NotFound, Unavailable
from banksman.shapes import (
    ENDS,
    Absence,
    Agent,
    Attempt,
    Batch,
    Delivery,
    Draft,
    Endpoint,
    Figures,
    File,
    Grant,
    Hearing,
    Json,
    Judged,
    Moment,
    Notice,
    Page,
    Policy,
    Receipt,
    Redelivered,
    Replay,
    Request,
    Resent,
    Revealed,
    Run,
    Shape,
    Token,
)

T = TypeVar("T")
S = TypeVar("S", bound=Shape)


@dataclass(frozen=True, slots=True)
class Ask:
    """One HTTP request to make. It may be sent again when its answer was lost only if that is `safe`."""

    method: str
    path: str
    params: Mapping[str, str] = field(default_factory=dict[str, str])
    body: Mapping[str, Json] | None = None
    lines: bytes | None = None
    """A body of one JSON value on each line, in place of `body`."""
    headers: Mapping[str, str] = field(default_factory=dict[str, str])

    @property
    def safe(self) -> bool:
        """Whether sending it twice does what sending it once does."""
        return self.method == "GET" or "Idempotency-Key" in self.headers


@dataclass(frozen=True, slots=True)
class Pause:
    """Time to let pass."""

    seconds: float


Steps = Generator[Ask | Pause, bytes, T]


def submit(
    agent: str,
    prompt: str,
    *,
    metadata: Mapping[str, Json] | None = None,
    tags: Sequence[str] = (),
    priority: int = 5,
    finish_by: datetime | None = None,
    requester: str | None = None,
    idempotency_key: str | None = None,
) -> Steps[Run]:
    """Submit a run. Under the same `idempotency_key` it is submitted once, however often this is called."""
    body: dict[str, Json] = {"agent": agent, "prompt": prompt, "priority": priority}
    if metadata:
        body["metadata"] = dict(metadata)
    if tags:
        body["tags"] = list(tags)
    if finish_by is not None:
        body["finish_by"] = finish_by.isoformat()
    if requester is not None:
        body["requester"] = requester
    return _one(Run, (yield _post("/v1/runs", body, idempotency_key)))


def run(run_id: str) -> Steps[Run]:
    """A run as it stands."""
    return _one(Run, (yield Ask("GET", f"/v1/runs/{_id(run_id)}")))


def runs(
    *,
    status: str | None = None,
    agent: str | None = None,
    batch_id: str | None = None,
    parent_id: str | None = None,
    limit: int = 50,
    cursor: str | None = None,
) -> Steps[Page[Run]]:
    """Runs, newest first."""
    params = _params(status=status, agent=agent, batch_id=batch_id, parent_id=parent_id, limit=limit, cursor=cursor)
    return _page(Run, (yield Ask("GET", "/v1/runs", params)))


def wait(run_id: str, *, timeout: float | None = None, until: Collection[str] = ENDS) -> Steps[Run]:
    """The run once its status is in `until` (by default: once it goes no further), or `TimeoutError`.

    A gateway that is away for a moment is waited for as well.
    """
    deadline = None if timeout is None else time.monotonic() + timeout
    pause = 0.05
    while True:
        try:
            found = yield from run(run_id)
            if found.status in until or found.over:
                return found
            state = found.status
        except Unavailable as error:
            state = str(error)
        left = None if deadline is None else deadline - time.monotonic()
        if left is not None and left <= 0:
            raise TimeoutError(f"Run {run_id} is not there after {timeout:g} s: {state}.")
        yield Pause(pause if left is None else min(pause, left))
        pause = min(pause * 1.3, 1.0)


def cancel(run_id: str) -> Steps[Run]:
    """Stop a run; one that is under way is stopped by its worker soon."""
    return _one(Run, (yield _post(f"/v1/runs/{_id(run_id)}/cancel", {}, None)))


def retry(run_id: str) -> Steps[Run]:
    """Give a stuck run another chance."""
    return _one(Run, (yield _post(f"/v1/runs/{_id(run_id)}/retry", {}, None)))


def fail(run_id: str, reason: str) -> Steps[Run]:
    """Give a stuck run up, saying why."""
    return _one(Run, (yield _post(f"/v1/runs/{_id(run_id)}/fail", {"reason": reason}, None)))


def messages(run_id: str) -> Steps[Sequence[Json]]:
    """The conversation so far, as pydantic-ai's messages."""
    return _items((yield Ask("GET", f"/v1/runs/{_id(run_id)}/messages")))


def files(run_id: str) -> Steps[Sequence[File]]:
    """The files of the run's workspace."""
    return _page(File, (yield Ask("GET", f"/v1/runs/{_id(run_id)}/files"))).items


def file(run_id: str, path: str) -> Steps[bytes]:
    """One file, byte for byte."""
    return (yield Ask("GET", f"/v1/runs/{_id(run_id)}/files/{quote(path.lstrip('/'))}"))


def timeline(run_id: str) -> Steps[Sequence[Moment]]:
    """Everything that happened to the run, in order."""
    return _page(Moment, (yield Ask("GET", f"/v1/runs/{_id(run_id)}/timeline"))).items


def submit_batch(
    runs: Iterable[Mapping[str, Json]] | bytes,
    *,
    name: str | None = None,
    skip_faulty: bool = False,
    idempotency_key: str | None = None,
) -> Steps[Batch]:
    """Submit many runs, each with at least `agent` and `prompt`; or the bytes of a file with one on each line. They are
    sent in gzip. A faulty one refuses all of them, unless such are to be skipped: then `errors` says which.
    """
    lines = runs if isinstance(runs, bytes) else b"".join(json.dumps(dict(run)).encode() + b"\n" for run in runs)
    headers = {
        "Idempotency-Key": idempotency_key or uuid.uuid4().hex,
        "Content-Type": "application/x-ndjson",
        "Content-Encoding": "gzip",
    }
    params = _params(name=name, on_error="skip" if skip_faulty else None)
    packed = gzip.compress(lines, compresslevel=3)
    return _one(Batch, (yield Ask("POST", "/v1/batches", params, lines=packed, headers=headers)))


def batch(batch_id: str) -> Steps[Batch]:
    """A batch as it stands."""
    return _one(Batch, (yield Ask("GET", f"/v1/batches/{_id(batch_id)}")))


def cancel_batch(batch_id: str) -> Steps[Batch]:
    """Stop a batch: no run of it starts from now on, and those under way are stopped by their workers soon."""
    return _one(Batch, (yield _post(f"/v1/batches/{_id(batch_id)}/cancel", {}, None)))


def pause_batch(batch_id: str) -> Steps[Batch]:
    """Let nothing of a batch start until it is resumed."""
    return _one(Batch, (yield _post(f"/v1/batches/{_id(batch_id)}/pause", {}, None)))


def resume_batch(batch_id: str) -> Steps[Batch]:
    """Let a paused batch go on."""
    return _one(Batch, (yield _post(f"/v1/batches/{_id(batch_id)}/resume", {}, None)))


def retry_batch(batch_id: str) -> Steps[Batch]:
    """Give what failed or is stuck in a batch another chance."""
    return _one(Batch, (yield _post(f"/v1/batches/{_id(batch_id)}/retry", {}, None)))


def results_path(batch_id: str) -> str:
    """Where a batch's results are streamed."""
    return f"/v1/batches/{_id(batch_id)}/results"


def agents() -> Steps[Sequence[Agent]]:
    """The agents that workers bring, and which of them are paused."""
    return _page(Agent, (yield Ask("GET", "/v1/agents"))).items


def pause(agent: str) -> Steps[Agent]:
    """Let no segment of this agent's runs start until it is resumed."""
    return _one(Agent, (yield _post(f"/v1/agents/{quote(agent, safe='')}/pause", {}, None)))


def resume(agent: str) -> Steps[Agent]:
    """Let a paused agent's runs start again."""
    return _one(Agent, (yield _post(f"/v1/agents/{quote(agent, safe='')}/resume", {}, None)))


def requests(
    *,
    state: str | None = None,
    run_id: str | None = None,
    kind: str | None = None,
    agent: str | None = None,
    batch_id: str | None = None,
    limit: int = 50,
    cursor: str | None = None,
) -> Steps[Page[Request]]:
    """Requests, oldest first."""
    params = _params(state=state, run_id=run_id, kind=kind, agent=agent, batch_id=batch_id, limit=limit, cursor=cursor)
    return _page(Request, (yield Ask("GET", "/v1/requests", params)))


def request(request_id: str) -> Steps[Request]:
    """A request as it stands, whole."""
    return _one(Request, (yield Ask("GET", f"/v1/requests/{_id(request_id)}")))


def vote(
    request: Request | str,
    verdict: str,
    *,
    reason: str | None = None,
    arguments: Mapping[str, Json] | None = None,
    arguments_exact: Mapping[str, Json] | None = None,
    answer: Json = None,
    digest: str | None = None,
    revision: int | None = None,
    stop_run: bool = False,
) -> Steps[Request]:
    """Vote on exactly what was seen: the digest and revision of the request that was read, unless given.

    `arguments` edits the call, as a merge patch; `arguments_exact` says all of them anew. A bare id is read first:
    then what is asked at that moment counts.
    """
    seen = (yield from _request(request)) if isinstance(request, str) else request
    body: dict[str, Json] = {"verdict": verdict, "digest": digest or seen.digest, "revision": revision or seen.revision}
    if reason is not None:
        body["reason"] = reason
    if arguments is not None:
        body["arguments"] = dict(arguments)
    if arguments_exact is not None:
        body["arguments_exact"] = dict(arguments_exact)
    if answer is not None:
        body["answer"] = answer
    if stop_run:
        body["stop_run"] = True
    return _one(Request, (yield _post(f"/v1/requests/{_id(seen.id)}/votes", body, None)))


def approve(
    request: Request | str, *, reason: str | None = None, arguments: Mapping[str, Json] | None = None
) -> Steps[Request]:
    """Agree to what was seen, or to it with changed arguments."""
    return (yield from vote(request, "approve", reason=reason, arguments=arguments))


def deny(request: Request | str, *, reason: str | None = None, stop_run: bool = False) -> Steps[Request]:
    """Refuse; the agent is told the reason and goes on, unless the run is to stop."""
    return (yield from vote(request, "deny", reason=reason, stop_run=stop_run))


def answer(request: Request | str, value: Json, *, reason: str | None = None) -> Steps[Request]:
    """Answer a question, or hand in work that was done elsewhere."""
    return (yield from vote(request, "answer", answer=value, reason=reason))


def withdraw(request: Request | str) -> Steps[Request]:
    """Take your vote back, as long as nobody has decided."""
    return _one(Request, (yield _post(f"{_at(request)}/withdraw", {}, None)))


def remark(request: Request | str, text: str) -> Steps[Request]:
    """Write below a request: ask whoever wants it, or answer. Only people read it."""
    return _one(Request, (yield _post(f"{_at(request)}/remarks", {"text": text}, None)))


def reveal(request: Request | str, fingerprint: str, reason: str) -> Steps[Revealed]:
    """One covered secret of a request that you may decide. The audit log says that you have seen it, and why."""
    return _one(Revealed, (yield _post(f"{_at(request)}/reveal", {"fingerprint": fingerprint, "reason": reason}, None)))


def look(request: Request | str) -> Steps[Request]:
    """Tell the others that you look at it, for two minutes."""
    return _one(Request, (yield _post(f"{_at(request)}/looking", {}, None)))


def stop_looking(request: Request | str) -> Steps[Request]:
    """Tell the others that you look no longer."""
    return _one(Request, (yield Ask("DELETE", f"{_at(request)}/looking")))


def absences() -> Steps[Sequence[Absence]]:
    """Who is or will be away: you, and those for whom you stand in."""
    return _page(Absence, (yield Ask("GET", "/v1/absences"))).items


def away(stand_in: str, until_at: datetime, *, from_at: datetime | None = None) -> Steps[Absence]:
    """You are away from then (or now) until then; your stand-in votes for your groups meanwhile."""
    body: dict[str, Json] = {"stand_in": stand_in, "until_at": until_at.isoformat()}
    if from_at is not None:
        body["from_at"] = from_at.isoformat()
    return _one(Absence, (yield _post("/v1/absences", body, None)))


def end_absence(absence_id: str) -> Steps[Absence]:
    """An absence ends now."""
    return _one(Absence, (yield Ask("DELETE", f"/v1/absences/{_id(absence_id)}")))


_request = request


def _at(request: Request | str) -> str:
    return f"/v1/requests/{_id(request if isinstance(request, str) else request.id)}"


def insights(since: str = "30d") -> Steps[Figures]:
    """How reviewers decide and what rules ask for, over a time such as 24h, 30d or 12w until now."""
    return _one(Figures, (yield Ask("GET", "/v1/insights", _params(since=since))))


def receipt(day: date | None = None, *, zone: str = "UTC") -> Steps[Receipt]:
    """What my votes of a day came to; of today when none is given, where the clocks show `zone`."""
    return _one(Receipt, (yield Ask("GET", "/v1/me/receipt", _params(day=day, zone=zone))))


def preferences() -> Steps[Hearing]:
    """How you hear of what waits for you."""
    return _one(Hearing, (yield Ask("GET", "/v1/me/preferences")))


def prefer(wanted: Mapping[str, Json]) -> Steps[Hearing]:
    """Hear of things in exactly this way; without `apprise`, its URLs stay as they are."""
    return _one(Hearing, (yield Ask("PUT", "/v1/me/preferences", body=dict(wanted))))


def notices(
    *, state: str | None = None, request_id: str | None = None, run_id: str | None = None, limit: int = 50,
    cursor: str | None = None,
) -> Steps[Page[Notice]]:  # fmt: skip
    """Who was told of what, newest first."""
    params = _params(state=state, request_id=request_id, run_id=run_id, limit=limit, cursor=cursor)
    return _page(Notice, (yield Ask("GET", "/v1/notices", params)))


def notice(notice_id: str) -> Steps[Notice]:
    """One message, and what became of it."""
    return _one(Notice, (yield Ask("GET", f"/v1/notices/{_id(notice_id)}")))


def resend(notice_id: str | None = None) -> Steps[Resent]:
    """Have a dead notice sent once more, or without an id the oldest 1,000 of them."""
    path = "/v1/notices/resend" if notice_id is None else f"/v1/notices/{_id(notice_id)}/resend"
    return _one(Resent, (yield _post(path, {}, None)))


def send_test(*, to: str | None = None, channel: str | None = None) -> Steps[Notice]:
    """Have a real message sent that says that it arrived."""
    body = {name: value for name, value in (("to", to), ("channel", channel)) if value is not None}
    return _one(Notice, (yield _post("/v1/notices/test", body, None)))


def endpoints() -> Steps[Sequence[Endpoint]]:
    """Where webhooks go."""
    return _page(Endpoint, (yield Ask("GET", "/v1/endpoints"))).items


def add_endpoint(url: str, *, events: Sequence[str] = ()) -> Steps[Endpoint]:
    """Send webhooks there from now on; its secret is told this once."""
    body: dict[str, Json] = {"url": url} | ({"events": list(events)} if events else {})
    return _one(Endpoint, (yield Ask("POST", "/v1/endpoints", body=body)))


def move_endpoint(endpoint_id: str, move: Literal["disable", "enable", "rotate", "remove"]) -> Steps[Endpoint]:
    """Disable, enable or remove an endpoint, or give it a new secret, which is told this once."""
    path = f"/v1/endpoints/{_id(endpoint_id)}/{move}"
    return _one(Endpoint, (yield Ask("POST", path, body={}) if move == "rotate" else _post(path, {}, None)))


def deliveries(
    endpoint_id: str, *, state: str | None = None, limit: int = 50, cursor: str | None = None
) -> Steps[Page[Delivery]]:
    """What was sent to an endpoint or is to be, newest first."""
    params = _params(state=state, limit=limit, cursor=cursor)
    return _page(Delivery, (yield Ask("GET", f"/v1/endpoints/{_id(endpoint_id)}/deliveries", params)))


def redeliver(endpoint_id: str, delivery_id: str | None = None) -> Steps[Redelivered]:
    """Have a webhook sent once more, or without an id all that were given up."""
    body = {} if delivery_id is None else {"delivery_id": delivery_id}
    return _one(Redelivered, (yield _post(f"/v1/endpoints/{_id(endpoint_id)}/redeliver", body, None)))


def ask_for_code(email: str) -> Steps[str]:
    """Have a code mailed to an address; the attempt that it must be sent back with. Needs no token."""
    body = yield Ask("POST", "/v1/tokens", body={"email": email})
    return _one(Attempt, body).attempt


def redeem_code(attempt: str, code: str, *, name: str) -> Steps[Token]:
    """The mailed code → a personal token, which is called `name` in lists. Needs no token."""
    typed = {"attempt": attempt, "code": code, "name": name}
    return _one(Token, (yield Ask("POST", "/v1/tokens/redeem", body=typed)))


def events_path(run_id: str) -> str:
    """Where a run's events are streamed."""
    return f"/v1/runs/{_id(run_id)}/events"


def batch_events_path(batch_id: str) -> str:
    """Where a batch's events are streamed."""
    return f"/v1/batches/{_id(batch_id)}/events"


def policy() -> Steps[Policy]:
    """The policy in force."""
    return _one(Policy, (yield Ask("GET", "/v1/policy")))


def policy_versions(*, limit: int = 20, cursor: str | None = None) -> Steps[Page[Policy]]:
    """Every version of the policy that was uploaded, newest first."""
    return _page(Policy, (yield Ask("GET", "/v1/policy/versions", _params(limit=limit, cursor=cursor))))


def upload_policy(text: str, *, after: int | None = None) -> Steps[Policy]:
    """Put a policy in force; `after` is the version that it was made from, where that matters."""
    body: dict[str, Json] = {"text": text} if after is None else {"text": text, "after": after}
    return _one(Policy, (yield _post("/v1/policy", body, None)))


def simulate(agent: str, tool: str, arguments: Mapping[str, Json], **more: Json) -> Steps[Judged]:
    """What the policy in force says of a call, or a candidate given as `policy`."""
    said = {name: value for name, value in more.items() if value is not None}
    body: dict[str, Json] = {"agent": agent, "tool": tool, "arguments": dict(arguments), **said}
    return _one(Judged, (yield _post("/v1/policy/simulate", body, None)))


def replay(*, since: str = "30d", policy: str | None = None, cursor: str | None = None) -> Steps[Replay]:
    """One page of what the policy in force, or a candidate, would have said of past requests."""
    asked = {"since": since, "policy": policy, "cursor": cursor}
    body: dict[str, Json] = {name: value for name, value in asked.items() if value is not None}
    return _one(Replay, (yield _post("/v1/policy/replay", body, None)))


def drafts() -> Steps[Page[Draft]]:
    """Rules drafted from 20 like decisions in a row of one's own."""
    return _page(Draft, (yield Ask("GET", "/v1/policy/drafts")))


def grants(*, live: bool = False, limit: int = 50, cursor: str | None = None) -> Steps[Page[Grant]]:
    """Standing grants, newest first; the live ones may let a call through still."""
    params = _params(live=True if live else None, limit=limit, cursor=cursor)
    return _page(Grant, (yield Ask("GET", "/v1/grants", params)))


def grant(request: Request | str, most: int, *, lasts: str = "8h", free: Sequence[str] = ()) -> Steps[Grant]:
    """Let an approved call of tier low be made again so often and so long; the arguments in `free` may differ."""
    request_id = request if isinstance(request, str) else request.id
    body: dict[str, Json] = {"request_id": request_id, "most": most, "lasts": lasts, "free": list(free)}
    return _one(Grant, (yield _post("/v1/grants", body, None)))


def revoke_grant(grant_id: str) -> Steps[Grant]:
    """Take a standing grant back at once."""
    return _one(Grant, (yield _post(f"/v1/grants/{_id(grant_id)}/revoke", {}, None)))


def problem(status: int, body: bytes) -> BanksmanError:
    """The error behind an answer that is not a success (RFC 9457)."""
    try:
        parsed: Json = json.loads(body)
    except ValueError:
        parsed = None
    found = cast("dict[str, Json]", parsed) if isinstance(parsed, dict) else {}
    kind = str(found.get("type", "")).rpartition(":")[2]
    detail = str(found.get("detail") or found.get("title") or f"The gateway answered {status}.")
    error = _KINDS.get(kind) or _STATUSES.get(status)
    if error is None:
        error = Unavailable if status in (502, 504) else InvalidInput if status < 500 else BanksmanError
    if issubclass(error, errors.Conflict):
        return error(detail, found.get("current") or {})
    return error(detail)


_KINDS: dict[str, type[BanksmanError]] = {
    "already-decided": errors.AlreadyDecided,
    "already-voted": errors.AlreadyVoted,
    "changed": errors.Changed,
    "not-genuine": errors.NotGenuine,
}
_STATUSES: dict[int, type[BanksmanError]] = {
    401: errors.NotSignedIn,
    403: errors.NotAllowed,
    404: NotFound,
    410: Gone,
    409: errors.Conflict,
    503: Unavailable,
}


def _id(text: str) -> str:
    if not text.isascii() or not text.replace("_", "").isalnum():
        raise InvalidInput(f"{text[:60]!r} is not an id.")
    return text


def _post(path: str, body: Mapping[str, Json], key: str | None) -> Ask:
    return Ask("POST", path, body=body, headers={"Idempotency-Key": key or uuid.uuid4().hex})


def _params(**values: object) -> dict[str, str]:
    return {name: str(value) for name, value in values.items() if value is not None}


def _one(kind: type[S], body: bytes) -> S:
    try:
        return kind.model_validate_json(body)
    except ValidationError as error:
        raise _strange(error) from error


def _page(kind: type[S], body: bytes) -> Page[S]:
    try:
        found = _Page[kind].model_validate_json(body)
    except ValidationError as error:
        raise _strange(error) from error
    return Page(tuple(found.items), found.next_cursor)


def _items(body: bytes) -> Sequence[Json]:
    try:
        return _Page[Any].model_validate_json(body).items
    except ValidationError as error:
        raise _strange(error) from error


class _Page(Shape, Generic[T]):
    items: Sequence[T]
    next_cursor: str | None = None


def _strange(error: ValidationError) -> BanksmanError:
    where = ", ".join(".".join(map(str, item["loc"])) for item in error.errors()[:5])
    return BanksmanError(f"The answer is not what a Banksman gateway says (see {where or 'its body'}).")
