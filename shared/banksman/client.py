"""The client for programs: `Client` and, for asyncio, `AsyncClient`, with the same methods.

    with Client("https://banksman.example.org", token) as banksman:
        run = banksman.submit("sysadmin", "Back up the database.")
        for request in banksman.requests(state="open", run_id=run.id):
            banksman.approve(request, reason="I looked at it.")
        print(banksman.wait(run.id).output)

What the gateway refuses is raised as an error of `banksman.errors`; a conflict says in `current` what came first. A
request whose answer was lost is sent again under the same key, so it happens once.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass
from functools import partial, wraps
from typing import Any, Concatenate, Generic, Literal, ParamSpec, Self, TypeVar
from urllib.parse import urlsplit

import httpx

from banksman import api
from banksman.api import Ask, Pause, Steps
from banksman.errors import BanksmanError, InvalidInput, Unavailable
from banksman.stream import Event, EventReader

P = ParamSpec("P")
T = TypeVar("T")

_PAUSES = (0.2, 0.8)
_PATIENCE = 40
_TIMEOUT = httpx.Timeout(30, connect=5)
_STREAM = httpx.Timeout(None, connect=5, read=60)
_LINES = httpx.Timeout(300, connect=5)
"""A large batch is answered once all of it is read."""


def _plainly(question: Callable[P, Steps[T]]) -> Callable[Concatenate[Client, P], T]:
    @wraps(question)
    def ask(self: Client, *args: P.args, **kwargs: P.kwargs) -> T:
        return self.drive(question(*args, **kwargs))

    return ask


def _awaiting(question: Callable[P, Steps[T]]) -> Callable[Concatenate[AsyncClient, P], Awaitable[T]]:
    @wraps(question)
    async def ask(self: AsyncClient, *args: P.args, **kwargs: P.kwargs) -> T:
        return await self.drive(question(*args, **kwargs))

    return ask


class Client:
    """Talks to a gateway over connections that are kept; safe to share between threads."""

    def __init__(self, url: str, token: str) -> None:
        self._http = httpx.Client(
            base_url=_checked(url), headers=_headers(token), timeout=_TIMEOUT, trust_env=not _is_local(url)
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let the connections go."""
        self._http.close()

    submit = _plainly(api.submit)
    run = _plainly(api.run)
    runs = _plainly(api.runs)
    wait = _plainly(api.wait)
    cancel = _plainly(api.cancel)
    retry = _plainly(api.retry)
    fail = _plainly(api.fail)
    messages = _plainly(api.messages)
    files = _plainly(api.files)
    file = _plainly(api.file)
    timeline = _plainly(api.timeline)
    submit_batch = _plainly(api.submit_batch)
    batch = _plainly(api.batch)
    cancel_batch = _plainly(api.cancel_batch)
    pause_batch = _plainly(api.pause_batch)
    resume_batch = _plainly(api.resume_batch)
    retry_batch = _plainly(api.retry_batch)
    agents = _plainly(api.agents)
    pause = _plainly(api.pause)
    resume = _plainly(api.resume)
    requests = _plainly(api.requests)
    request = _plainly(api.request)
    vote = _plainly(api.vote)
    approve = _plainly(api.approve)
    deny = _plainly(api.deny)
    answer = _plainly(api.answer)
    withdraw = _plainly(api.withdraw)
    remark = _plainly(api.remark)
    reveal = _plainly(api.reveal)
    look = _plainly(api.look)
    stop_looking = _plainly(api.stop_looking)
    absences = _plainly(api.absences)
    away = _plainly(api.away)
    end_absence = _plainly(api.end_absence)
    preferences = _plainly(api.preferences)
    prefer = _plainly(api.prefer)
    notices = _plainly(api.notices)
    notice = _plainly(api.notice)
    resend = _plainly(api.resend)
    send_test = _plainly(api.send_test)
    endpoints = _plainly(api.endpoints)
    add_endpoint = _plainly(api.add_endpoint)
    move_endpoint = _plainly(api.move_endpoint)
    deliveries = _plainly(api.deliveries)
    redeliver = _plainly(api.redeliver)
    insights = _plainly(api.insights)
    receipt = _plainly(api.receipt)
    policy = _plainly(api.policy)
    policy_versions = _plainly(api.policy_versions)
    upload_policy = _plainly(api.upload_policy)
    simulate = _plainly(api.simulate)
    replay = _plainly(api.replay)
    drafts = _plainly(api.drafts)
    grants = _plainly(api.grants)
    grant = _plainly(api.grant)
    revoke_grant = _plainly(api.revoke_grant)

    def events(self, run_id: str, *, after: str | None = None) -> Iterator[Event]:
        """What happens to a run as it happens, from the beginning or after a cursor, until it is over.

        A connection that breaks is opened again where it broke; after half a minute without any, `Unavailable`.
        """
        return self._follow(api.events_path(run_id), after)

    def batch_events(self, batch_id: str, *, after: str | None = None) -> Iterator[Event]:
        """What happens to a batch and its runs, in the same way."""
        return self._follow(api.batch_events_path(batch_id), after)

    def _follow(self, path: str, after: str | None) -> Iterator[Event]:
        reader, failures = EventReader(after), 0
        while True:
            reader.restart()
            try:
                with self._http.stream("GET", path, headers=_cursor(reader), timeout=_STREAM) as response:
                    if response.status_code == 204:
                        return
                    if response.status_code != 200:
                        raise api.problem(response.status_code, response.read())
                    for line in response.iter_lines():
                        failures = 0
                        event = reader.feed(line)
                        if event is not None and event.name == "over":
                            return
                        if event is not None:
                            yield event
            except (httpx.TransportError, Unavailable) as error:
                failures += 1
                if failures > _PATIENCE:
                    raise _away(self._http, error) from error
            time.sleep(_PAUSES[0] if failures < 5 else _PAUSES[1])

    def results(
        self, batch_id: str, *, form: Literal["ndjson", "csv"] = "ndjson", order: str = "line", after: str | None = None
    ) -> Iterator[bytes]:
        """The results of a batch as they come in, in pieces: together one JSON document on each line, or a CSV file."""
        params = _result_params(form, order, after)
        try:
            with self._http.stream("GET", api.results_path(batch_id), params=params, timeout=_STREAM) as response:
                if response.status_code != 200:
                    raise api.problem(response.status_code, response.read())
                yield from response.iter_bytes()
        except httpx.TransportError as error:
            raise _away(self._http, error) from error

    def drive(self, steps: Steps[T]) -> T:
        """Carry a question of `banksman.api` out."""
        step = _advance(partial(next, steps))
        while not isinstance(step, _Done):
            if isinstance(step, Pause):
                time.sleep(step.seconds)
                step = _advance(partial(steps.send, b""))
                continue
            try:
                body = self._send(step)
            except BanksmanError as error:
                step = _advance(partial(steps.throw, error))
            else:
                step = _advance(partial(steps.send, body))
        return step.value

    def _send(self, ask: Ask) -> bytes:
        for pause in (*_PAUSES, None):
            try:
                return _body(self._http.send(_build(self._http, ask)))
            except httpx.TransportError as error:
                if pause is None or not ask.safe:
                    raise _away(self._http, error) from error
            except Unavailable:
                if pause is None or not ask.safe:
                    raise
            time.sleep(pause)
        raise AssertionError


class AsyncClient:
    """The same for asyncio."""

    def __init__(self, url: str, token: str) -> None:
        self._http = httpx.AsyncClient(
            base_url=_checked(url), headers=_headers(token), timeout=_TIMEOUT, trust_env=not _is_local(url)
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Let the connections go."""
        await self._http.aclose()

    submit = _awaiting(api.submit)
    run = _awaiting(api.run)
    runs = _awaiting(api.runs)
    wait = _awaiting(api.wait)
    cancel = _awaiting(api.cancel)
    retry = _awaiting(api.retry)
    fail = _awaiting(api.fail)
    messages = _awaiting(api.messages)
    files = _awaiting(api.files)
    file = _awaiting(api.file)
    timeline = _awaiting(api.timeline)
    submit_batch = _awaiting(api.submit_batch)
    batch = _awaiting(api.batch)
    cancel_batch = _awaiting(api.cancel_batch)
    pause_batch = _awaiting(api.pause_batch)
    resume_batch = _awaiting(api.resume_batch)
    retry_batch = _awaiting(api.retry_batch)
    agents = _awaiting(api.agents)
    pause = _awaiting(api.pause)
    resume = _awaiting(api.resume)
    requests = _awaiting(api.requests)
    request = _awaiting(api.request)
    vote = _awaiting(api.vote)
    approve = _awaiting(api.approve)
    deny = _awaiting(api.deny)
    answer = _awaiting(api.answer)
    withdraw = _awaiting(api.withdraw)
    remark = _awaiting(api.remark)
    reveal = _awaiting(api.reveal)
    look = _awaiting(api.look)
    stop_looking = _awaiting(api.stop_looking)
    absences = _awaiting(api.absences)
    away = _awaiting(api.away)
    end_absence = _awaiting(api.end_absence)
    preferences = _awaiting(api.preferences)
    prefer = _awaiting(api.prefer)
    notices = _awaiting(api.notices)
    notice = _awaiting(api.notice)
    resend = _awaiting(api.resend)
    send_test = _awaiting(api.send_test)
    endpoints = _awaiting(api.endpoints)
    add_endpoint = _awaiting(api.add_endpoint)
    move_endpoint = _awaiting(api.move_endpoint)
    deliveries = _awaiting(api.deliveries)
    redeliver = _awaiting(api.redeliver)
    insights = _awaiting(api.insights)
    receipt = _awaiting(api.receipt)
    policy = _awaiting(api.policy)
    policy_versions = _awaiting(api.policy_versions)
    upload_policy = _awaiting(api.upload_policy)
    simulate = _awaiting(api.simulate)
    replay = _awaiting(api.replay)
    drafts = _awaiting(api.drafts)
    grants = _awaiting(api.grants)
    grant = _awaiting(api.grant)
    revoke_grant = _awaiting(api.revoke_grant)

    def events(self, run_id: str, *, after: str | None = None) -> AsyncIterator[Event]:
        """What happens to a run as it happens, from the beginning or after a cursor, until it is over.

        A connection that breaks is opened again where it broke; after half a minute without any, `Unavailable`.
        """
        return self._follow(api.events_path(run_id), after)

    def batch_events(self, batch_id: str, *, after: str | None = None) -> AsyncIterator[Event]:
        """What happens to a batch and its runs, in the same way."""
        return self._follow(api.batch_events_path(batch_id), after)

    async def _follow(self, path: str, after: str | None) -> AsyncIterator[Event]:
        reader, failures = EventReader(after), 0
        while True:
            reader.restart()
            try:
                async with self._http.stream("GET", path, headers=_cursor(reader), timeout=_STREAM) as response:
                    if response.status_code == 204:
                        return
                    if response.status_code != 200:
                        raise api.problem(response.status_code, await response.aread())
                    async for line in response.aiter_lines():
                        failures = 0
                        event = reader.feed(line)
                        if event is not None and event.name == "over":
                            return
                        if event is not None:
                            yield event
            except (httpx.TransportError, Unavailable) as error:
                failures += 1
                if failures > _PATIENCE:
                    raise _away(self._http, error) from error
            await asyncio.sleep(_PAUSES[0] if failures < 5 else _PAUSES[1])

    async def results(
        self, batch_id: str, *, form: Literal["ndjson", "csv"] = "ndjson", order: str = "line", after: str | None = None
    ) -> AsyncIterator[bytes]:
        """The results of a batch as they come in, in pieces: together one JSON document on each line, or a CSV file."""
        params = _result_params(form, order, after)
        try:
            async with self._http.stream("GET", api.results_path(batch_id), params=params, timeout=_STREAM) as response:
                if response.status_code != 200:
                    raise api.problem(response.status_code, await response.aread())
                async for piece in response.aiter_bytes():
                    yield piece
        except httpx.TransportError as error:
            raise _away(self._http, error) from error

    async def drive(self, steps: Steps[T]) -> T:
        """Carry a question of `banksman.api` out."""
        step = _advance(partial(next, steps))
        while not isinstance(step, _Done):
            if isinstance(step, Pause):
                await asyncio.sleep(step.seconds)
                step = _advance(partial(steps.send, b""))
                continue
            try:
                body = await self._send(step)
            except BanksmanError as error:
                step = _advance(partial(steps.throw, error))
            else:
                step = _advance(partial(steps.send, body))
        return step.value

    async def _send(self, ask: Ask) -> bytes:
        for pause in (*_PAUSES, None):
            try:
                return _body(await self._http.send(_build(self._http, ask)))
            except httpx.TransportError as error:
                if pause is None or not ask.safe:
                    raise _away(self._http, error) from error
            except Unavailable:
                if pause is None or not ask.safe:
                    raise
            await asyncio.sleep(pause)
        raise AssertionError


@dataclass(frozen=True, slots=True)
class _Done(Generic[T]):
    value: T


def _advance(move: Callable[[], Ask | Pause]) -> Ask | Pause | _Done[Any]:
    """The next step of a question, or its answer: `StopIteration` may not leave a coroutine."""
    try:
        return move()
    except StopIteration as done:
        return _Done(done.value)


def _build(http: httpx.Client | httpx.AsyncClient, ask: Ask) -> httpx.Request:
    try:
        return http.build_request(
            ask.method,
            ask.path,
            params=dict(ask.params),
            json=ask.body,
            content=ask.lines,
            headers=dict(ask.headers),
            timeout=_TIMEOUT if ask.lines is None else _LINES,
        )
    except ValueError as error:  # NaN, an infinity, a lone surrogate
        raise InvalidInput(f"What is to be sent holds a value that JSON does not have: {error}.") from None


def _body(response: httpx.Response) -> bytes:
    if response.is_success:
        return response.content
    raise api.problem(response.status_code, response.content)


def _result_params(form: str, order: str, after: str | None) -> dict[str, str]:
    return {"format": form, "order": order} | ({} if after is None else {"after": after})


def _cursor(reader: EventReader) -> dict[str, str]:
    accept = {"Accept": "text/event-stream"}
    return accept | ({"Last-Event-ID": reader.last} if reader.last else {})


def _headers(token: str) -> dict[str, str]:
    if not token.isascii() or not token.isprintable() or " " in token:
        raise InvalidInput("The token is not one: it holds characters that no token has.")
    accept = {"Accept": "application/json"}
    return accept | ({"Authorization": f"Bearer {token}"} if token else {})


def _checked(url: str) -> str:
    try:
        parts, _ = urlsplit(url), httpx.URL(url)
        good = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except (ValueError, httpx.InvalidURL):
        good = False
    if not good:
        raise InvalidInput(f"{url[:100]!r} is not the address of a gateway, like https://banksman.example.org.")
    return url


def _is_local(url: str) -> bool:
    # A proxy from the environment cannot reach this machine's own servers.
    return urlsplit(url).hostname in ("localhost", "127.0.0.1", "::1")


def _away(http: httpx.Client | httpx.AsyncClient, error: Exception) -> Unavailable:
    return Unavailable(f"The gateway at {http.base_url} cannot be reached: {error or type(error).__name__}")
