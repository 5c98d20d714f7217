"""The journal: a tool call is written down before it starts and again once its result is known.

Promised: an approved action starts at most once, and a finished one is never repeated, whatever is killed when. The
check of the decision (signature, digest, time to start, voters in good standing), of the lease, and of “not yet
started” is one transaction with the insert of `started`; only then does the tool run. So of two workers that both
believe they hold a run, one starts the call and the other finds it started.

What can still go wrong, and what happens then. The worker dies between `started` and `finished`: nobody knows whether
the call happened, so the run waits in a request of kind `outcome` until a person says. The worker stands still between
the two for longer than its lease: when it goes on it does not call, for the same person may be looking already.
PostgreSQL is away when the tool returns: the result is kept and stored as soon as it is back, by the attempt that
started the call, even after its lease. A tool that only touches the run's own workspace is run again from the previous
snapshot, because the memory that held its effect died with the worker; one whose author declared it idempotent or
harmless is run again too.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic_ai import RunContext
from pydantic_ai.exceptions import ApprovalRequired, CallDeferred, ModelRetry, ToolFailed
from pydantic_core import to_jsonable_python

from banksman import digest, ids, ledger, logs
from banksman.digest import Json
from banksman.errors import LostLease, NotGenuine, Unavailable
from banksman.ledger import Connection, decisions, executions, runs, snapshots
from banksman.records import Event, Execution
from banksman.signing import Verifier
from banksman.states import Kind, RequestState
from banksman_worker import conversation, faults, granting, results
from banksman_worker.gate import Cleared, Gate, Key
from banksman_worker.lease import Lease

_LOST = "The approval no longer counts: its time to start has passed, or somebody who voted may no longer vote."

log = logs.get(__name__)


@dataclass(slots=True)
class Journal:
    """Writes the executions of one segment."""

    gate: Gate
    pool: ledger.Pool
    verifier: Verifier
    hop: Callable[[Callable[[], Any]], Awaitable[Any]]
    """Runs a blocking function beside the event loop."""
    lease: Lease
    """Ours or no longer; tools that have started are in its `in_flight`, for a worker that stops to wait for."""

    async def call(
        self, ctx: RunContext[Any], name: str, arguments: Mapping[str, Any], run: Callable[[], Awaitable[Any]]
    ) -> Any:
        """Run a tool once, or give back what it returned when it ran."""
        key = (conversation.step_of(ctx.messages), ctx.tool_call_id or "")
        cleared = self.gate.cleared.get(key)
        if cleared is None:
            raise NotGenuine(f"A call of {name} reached its tool without passing the gate. It was not executed.")
        if digest.canonical(to_jsonable_python(arguments)) != digest.canonical(cleared.arguments):
            raise NotGenuine(f"The arguments of {name} were changed after the gate had seen them. It was not executed.")
        if cleared.local:
            return await run()
        if self.lease.stopped is not None:
            raise LostLease(f"The run was stopped ({self.lease.stopped}) before {name} could start. It did not run.")
        task = asyncio.ensure_future(self._carry_out(ctx, key, name, cleared, run))
        self.lease.in_flight.add(task)
        task.add_done_callback(self.lease.in_flight.discard)
        # A cancelled segment must not lose the result of a tool that goes on in its thread.
        return await asyncio.shield(task)

    async def _carry_out(
        self, ctx: RunContext[Any], key: Key, name: str, cleared: Cleared, run: Callable[[], Awaitable[Any]]
    ) -> Any:
        found: int | _Replay | _Told = await self.hop(lambda: self._start(key, name, cleared))
        if isinstance(found, _Told):
            return found.text
        if isinstance(found, _Replay):
            try:
                return self._replay(found)
            except (ApprovalRequired, CallDeferred) as put_off:
                self._defer(ctx, key, put_off)
                raise
        if self.lease.over:  # frozen meanwhile, or cut off: a person may be looking already
            raise LostLease(f"The lease ran out between the record that {name} starts and its start. It did not run.")
        return await self._perform(ctx, key, found, cleared, run)

    def _start(self, key: Key, name: str, cleared: Cleared) -> int | _Replay | _Told:
        """Nothing → started, as the attempt of this number; or what an earlier attempt left."""
        claim = self.gate.claim
        with ledger.transaction(self.pool) as conn:
            # What the journal held was read with the claim; what was written since is met by the start itself.
            if key not in self.gate.earlier and cleared.grant is None and self._begin(conn, key, 1, name, cleared):
                return 1
            tried = [item for item in executions.of_run(conn, claim.run_id, step=key[0]) if item.call_id == key[1]]
            last = max(tried, key=lambda item: item.attempt, default=None)
            if last is not None and last.tool != name:
                raise NotGenuine(f"The journal has {last.tool} under the id of a call of {name}. It did not run.")
            settled = self._settle_doubt(conn, key, last, cleared)
            if settled is not None:
                return settled
            attempt = 1 if last is None else last.attempt + 1
            if cleared.grant is not None and (why := granting.spend(conn, cleared.grant)) is not None:
                raise self.gate.again(key, why)
            if self._begin(conn, key, attempt, name, cleared):
                return attempt
            if not runs.holds(conn, claim.run_id, claim.fence):
                raise LostLease(f"{ids.show('run', claim.run_id)} is held by another worker; {name} was not started.")
            log.warning("An approval no longer counts; the call is asked again.", tool=name)
            raise self.gate.again(key, _LOST)

    def _begin(self, conn: Connection, key: Key, attempt: int, name: str, cleared: Cleared) -> bool:
        """Nothing → started, if this attempt is the one to do it now."""
        voters, start_by = self._verify(conn, cleared)
        return executions.start(
            conn,
            self.gate.claim.run_id,
            self.gate.claim.fence,
            self._event("execution.started", key, attempt, cleared, tool=name),
            step=key[0],
            call_id=key[1],
            attempt=attempt,
            tool=name,
            digest=cleared.digest,
            request_id=cleared.request_id,
            grant_id=cleared.grant and cleared.grant.id,
            voters=voters,
            start_by=start_by,
        )

    def _event(self, action: str, key: Key, attempt: int, cleared: Cleared, **more: Json) -> Event:
        claim, body = self.gate.claim, {"step": key[0], "call": key[1], "attempt": attempt, **more}
        return Event(f"worker:{claim.fence}", action, claim.run_id, cleared.request_id, body)

    def _settle_doubt(
        self, conn: Connection, key: Key, last: Execution | None, cleared: Cleared
    ) -> _Replay | _Told | None:
        """What an earlier attempt leaves to do: nothing (None: start), its result, or a person's word for it."""
        if last is None or cleared.effects == "workspace" or results.may_go_on(last, cleared.effects):
            return None
        if last.state == "finished" and results.insisted(last) and last.request_id != cleared.request_id:
            return None  # its body asked for an approval, and a person has given one since
        if last.state == "finished":
            result: dict[str, Json] = json.loads(last.result or b"{}")
            names = set(results.changes_of(result).written.values())
            return _Replay(result, snapshots.blobs(conn, self.gate.claim.run_id, names))
        resolved = cleared.resolved
        if resolved is not None and resolved.settled.kind is Kind.OUTCOME and resolved.statement is not None:
            if resolved.settled.state is RequestState.ANSWERED:
                return _Told(results.happened(resolved.statement))
            if last.request_id != cleared.request_id:  # one rerun for each word of a person
                return None
        if cleared.effects in ("harmless", "idempotent"):
            return None
        raise self.gate.doubt(key)

    def _verify(self, conn: Connection, cleared: Cleared) -> tuple[dict[ids.PersonId, str], str | None]:
        """Who voted for the call, by which role, or lent to who did; and until when it may start: by the signed
        statement, read afresh.
        """
        if cleared.request_id is None:
            return {}, None
        decision = decisions.get(conn, cleared.request_id)
        if decision is None:
            raise NotGenuine("There is no decision for this call. It was not executed.")
        statement = self.verifier.verify(decision.signed)
        expected = {
            "request": ids.show("req", cleared.request_id),
            "run": ids.show("run", self.gate.claim.run_id),
            "digest": cleared.digest.hex(),
            "verdict": RequestState.APPROVED.value,
        }
        if any(statement.get(name) != value for name, value in expected.items()):
            raise NotGenuine("The signed decision is for another action. It was not executed.")
        said = {item["by"]: item["as"] for item in statement["voters"]}
        if len(said) < statement["requirement"]["approvals"]:
            raise NotGenuine("The signed decision has fewer voters than it requires. It was not executed.")
        said |= {absent: "reviewer" for item in statement["voters"] for absent in item["instead_of"]}
        return {ids.PersonId(ids.read("per", by)): role for by, role in said.items()}, statement["start_by"]

    async def _perform(
        self, ctx: RunContext[Any], key: Key, attempt: int, cleared: Cleared, run: Callable[[], Awaitable[Any]]
    ) -> Any:
        before = self.gate.workspace.mark()
        try:
            value = await run()
        except (ApprovalRequired, CallDeferred) as put_off:
            await self._finish(key, attempt, "deferred", results.put_off(put_off), cleared)
            self._defer(ctx, key, put_off)
            raise
        except ModelRetry as error:
            if cleared.effects == "unknown" and faults.gave_up(error):
                raise self.gate.doubt(key) from None
            await self._finish(key, attempt, "retry", {"kind": "retry", "value": error.message}, cleared)
            raise
        except ToolFailed as error:
            told = {"kind": "failed", "value": results.plain(error.message)}
            await self._finish(key, attempt, "failed", told, cleared)
            raise
        except Exception as error:
            text = f"{type(error).__name__}: {error}"
            await self._finish(key, attempt, "failed", {"kind": "error", "value": text}, cleared)
            raise
        statement = cleared.resolved.statement if cleared.resolved else None
        if statement is not None and statement["edited"]:
            value = results.with_note(value, statement["arguments"])
        result, value = results.store(value)
        result |= self.gate.workspace.changes_since(before).as_json()
        await self._finish(key, attempt, "returned", result, cleared)
        return value

    def _defer(self, ctx: RunContext[Any], key: Key, put_off: ApprovalRequired | CallDeferred) -> None:
        if isinstance(put_off, CallDeferred):
            self.gate.defer(ctx, key[1], put_off.metadata)
        else:
            self.gate.insist(ctx, key[1])

    async def _finish(self, key: Key, attempt: int, outcome: str, result: Mapping[str, Json], cleared: Cleared) -> None:
        """Started → finished, however long PostgreSQL is away."""
        claim, (step, call_id) = self.gate.claim, key
        stored = json.dumps(result).encode()
        names = set(results.changes_of(result).written.values())
        blobs = self.gate.workspace.changed_blobs(()) if names else {}
        blobs = {name: body for name, body in blobs.items() if name in names}

        def store() -> None:
            with ledger.transaction(self.pool) as conn:
                if blobs:
                    snapshots.keep_blobs(conn, claim.run_id, blobs)
                executions.finish(
                    conn,
                    claim.run_id,
                    claim.fence,
                    self._event("execution.finished", key, attempt, cleared, outcome=outcome),
                    step=step,
                    call_id=call_id,
                    attempt=attempt,
                    outcome=outcome,
                    result=stored,
                )

        delay = 0.2
        while True:
            try:
                await self.hop(store)
                return
            except Unavailable as error:
                log.warning("A finished tool's result cannot be stored yet.", error=str(error)[:200])
                await asyncio.sleep(delay)
                delay = min(delay * 2, 5.0)

    def _replay(self, found: _Replay) -> Any:
        """What the call gave when it ran, and its changes to the workspace once more."""
        self.gate.workspace.replay(results.changes_of(found.result), found.blobs)
        return results.give(found.result)


@dataclass(frozen=True, slots=True)
class _Replay:
    result: dict[str, Json]
    blobs: Mapping[str, bytes]


@dataclass(frozen=True, slots=True)
class _Told:
    text: str
