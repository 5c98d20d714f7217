"""Sees, in every test that runs a service or a command in this process, that each move is told in its transaction.

The ledger is the only code that writes, so its writers are all there is: each stands here with the events that may tell
of it, or with the reason why none does. `test_every_writer_is_told_of_or_says_why_not` finds the one that is forgotten.
"""

from __future__ import annotations

import ast
import functools
import importlib
import inspect
import re
from collections import defaultdict
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, cast

import psycopg
import pytest

from banksman import ledger
from banksman.ledger import audit
from banksman.records import Event

TOLD: Mapping[str, set[str]] = {
    "absences.declare": {"absence.declared"},
    "absences.end": {"absence.ended"},
    "aftermath.tell": {"run.cancelled", "run.cancel_asked", "execution.finished"},
    "agents.pause": {"agent.paused"},
    "agents.resume": {"agent.resumed"},
    "batches.create": {"batch.submitted"},
    "batches.load": {"batch.submitted"},
    "batches.mark": {"batch.cancelled"},
    "batches.pause": {"batch.paused"},
    "batches.resume": {"batch.resumed"},
    "decisions.settle": {"request.approved", "request.denied", "request.answered"},
    "endpoints.create": {"endpoint.added"},
    "endpoints.disable": {"endpoint.disabled"},
    "endpoints.enable": {"endpoint.enabled"},
    "endpoints.redeliver": {"endpoint.redelivered"},
    "endpoints.remove": {"endpoint.removed"},
    "endpoints.rotate": {"endpoint.rotated"},
    "executions.finish": {"execution.finished"},
    "executions.start": {"execution.started"},
    "families.send_out": {"run.delegated"},
    "grants.give": {"grant.given"},
    "grants.revoke": {"grant.revoked"},
    "grants.use": {"execution.started"},
    "keys.end_session": {"session.ended"},
    "keys.end_sessions": {
        *("session.ended", "session.ended_everywhere"),
        *("reviewer.changed", "reviewer.disabled", "reviewer.removed"),
    },
    "keys.open_session": {"session.started"},
    "keys.revoke": {"key.revoked"},
    "keys.store": {"key.made", "token.made"},
    "notices.bury": {"notice.dead"},
    "notices.sent": {"notice.sent"},
    "policies.append": {"policy.uploaded"},
    "preferences.put": {"preferences.changed"},
    "remarks.add": {"remark.added"},
    "remarks.tell": {"remark.added"},
    "requests.cancel_open": {"request.cancelled", "run.cancelled"},
    "requests.open_request": {"request.opened"},
    "requests.revise": {"request.revised"},
    "requests.supersede": {"request.superseded"},
    "rescue.bury_cancelled": {"run.cancelled"},
    "rescue.explain": {"run.stuck"},
    "rescue.give_up": {"run.failed"},
    "rescue.retry": {"run.retried"},
    "rescue.revive": {"run.retried", "batch.retried"},
    "restore.doubt": {"run.doubted"},
    "restore.end_grants": {"grant.revoked"},
    "restore.end_sessions": {"session.ended_everywhere"},
    "retention._remove": {"run.purged"},
    "erasure.erase": {"run.erased"},
    "runs.cancel": {"run.cancelled", "run.cancel_asked"},
    "runs.claim": {"run.started", "run.resumed"},
    "runs.create": {"run.submitted"},
    "runs.fail": {"run.failed"},
    "runs.finish": {"run.finished"},
    "runs.park": {"run.parked"},
    "runs.postpone": {"run.postponed"},
    "runs.release": {"run.released"},
    "runs.stop": {"run.cancelled"},
    "silence.expire": {"request.expired"},
    "silence.extend": {"request.extended"},
    "silence.renew": {"decision.renewed"},
    "silence.tell": {"request.escalated", "request.reminded", "request.extended", "request.revised"},
    "staff.disable": {"reviewer.disabled"},
    "staff.enable": {"reviewer.enabled"},
    "staff.mark_fresh": {"reviewer.added", "reviewer.changed", "reviewer.enabled"},
    "staff.remove": {"reviewer.removed"},
    "staff.upsert": {"reviewer.added", "reviewer.changed"},
    "telling.resend": {"notice.resent"},
    "telling.test": {"notice.tested"},
    "votes.cast": {"vote.cast", "request.approved", "request.denied", "request.answered"},
    "withdrawals.add": {"vote.withdrawn"},
}

_POST = "a message's way to one person: that it went, or never will, is told"
_HOOK = "a copy of an event on its way to a program"
_CODE = "a code that was asked for or typed; whom it lets in is told"
_CLOCK = "when a row is looked at next; what is done then is told"
_LOAD = "who may run next, not what was run"
_PART = "what a run remembers between two moves that are told"
_SEAL = "the seal itself"
UNTOLD: Mapping[str, str] = {
    "agents.announce": "what workers bring; each says so again and again",
    "agents.set_aside": _LOAD,
    "answers.forget": "answers that are kept for a repeated call",
    "answers.keep": "answers that are kept for a repeated call",
    "answers.reserve": "answers that are kept for a repeated call",
    "batches.press": _LOAD,
    "batches.sweep": "that each run of a cancelled batch was seen to, and told of",
    "caps.admit": _LOAD,
    "families.report": "a parent is woken by its child's end, which is told; that it resumes is told",
    "gathering.hold": _POST,
    "gathering.look": _POST,
    "gathering.route": _POST,
    "gathering.take": _POST,
    "gathering.tell": _POST,
    "insights.queue_receipts": _POST,
    "keys.session": "that a session was used just now",
    "keys.used": "that a key was used just now",
    "lookings.look": "a lease of two minutes that binds nobody",
    "lookings.stop": "a lease of two minutes that binds nobody",
    "migrate._apply": "its own table says it, and `schema.migrated`",
    "migrate._settle": "its own table says it, and the heads",
    "notices.claim": _POST,
    "notices.drop": _POST,
    "notices.postpone": _POST,
    "notices.seen": "a scanner opens links too",
    "notices.try_code": _CODE,
    "notices.use": _CODE,
    "outbox.claim": _HOOK,
    "outbox.failed": _HOOK,
    "outbox.purge": _HOOK,
    "outbox.put_back": _HOOK,
    "outbox.sent": _HOOK,
    "outbox.tail": _HOOK,
    "resealing._put": "the same content under another key; `vault.resealed` says how much",
    "erasure._forget_answers": "answers that are kept for a repeated call; the run's erasure is told",
    "retention.remove_of_requests": "what goes with runs, whose purging and erasing are told",
    "retention.remove_of_runs": "what goes with runs, whose purging and erasing are told",
    "retention.remove_messages": "codes, receipts and trials that went out long ago",
    "runs.beat": "a lease, every few seconds",
    "runs.dispatch": "a run is sent to the workers; that one takes it is told, and that it is stuck",
    "runs.wake": "a run may go on by what was decided, which is told; that it resumes is told",
    "seals.append": _SEAL,
    "seals.put_head": _SEAL,
    "sign_ins.ask": _CODE,
    "sign_ins.forget": _CODE,
    "sign_ins.grant": _CODE,
    "sign_ins.try_code": _CODE,
    "silence.look_again": _CLOCK,
    "silence.wait": _CLOCK,
    "snapshots.keep_blobs": _PART,
    "snapshots.save": _PART,
}

_WRITES = re.compile(r"\b(?:INSERT INTO|UPDATE|DELETE FROM|COPY|TRUNCATE|MERGE INTO)\b\s+(?!of\b)(?=[a-z_{(]|$)")


def writers() -> set[str]:
    """Every function of the ledger with a statement that writes."""
    found: set[str] = set()
    for path in Path(ledger.__file__).parent.glob("*.py"):
        for node in ast.parse(path.read_text()).body:
            if not isinstance(node, ast.FunctionDef):
                continue
            documentation = ast.get_docstring(node, clean=False)
            texts = (
                part.value
                for part in ast.walk(node)
                if isinstance(part, ast.Constant) and isinstance(part.value, str) and part.value != documentation
            )
            if any(_WRITES.search(text) for text in texts):
                found.add(f"{path.stem}.{node.name}")
    return found


class Watch:
    """Which moves this process committed that no event of their transaction tells."""

    def __init__(self) -> None:
        self.untold: list[str] = []
        self._moves: dict[int, list[str]] = defaultdict(list)
        self._events: dict[int, set[str]] = defaultdict(set)

    def install(self, patch: pytest.MonkeyPatch) -> None:
        """From now on."""
        for name in TOLD:
            file, _, function = name.partition(".")
            module = importlib.import_module(f"banksman.ledger.{file}")
            patch.setattr(module, function, self._watched(name, getattr(module, function)))
        append, tell, commit, rollback = (
            audit.append,
            audit.tell,
            psycopg.Connection.commit,
            psycopg.Connection.rollback,
        )

        def appended(conn: ledger.Connection, *events: Event) -> None:
            append(conn, *events)
            self._events[id(conn)].update(event.action for event in events)

        def moved(conn: ledger.Connection, move: Any, values: Mapping[str, object], *events: Event) -> Any:
            row = tell(conn, move, values, *events)
            if row is not None:
                self._events[id(conn)].update(event.action for event in events)
            return row

        def committed(conn: ledger.Connection) -> None:
            commit(conn)
            self._over(conn)

        def rolled_back(conn: ledger.Connection) -> None:
            self._moves.pop(id(conn), None)
            self._events.pop(id(conn), None)
            rollback(conn)

        patch.setattr(audit, "append", appended)
        patch.setattr(audit, "tell", moved)
        patch.setattr(psycopg.Connection, "commit", committed)
        patch.setattr(psycopg.Connection, "rollback", rolled_back)

    def _watched(self, name: str, move: Callable[..., Any]) -> Callable[..., Any]:
        says_nothing = move.__annotations__.get("return") in (None, "None")

        @functools.wraps(move)
        def watched(conn: ledger.Connection, *args: Any, **more: Any) -> Any:
            result = move(conn, *args, **more)
            if (says_nothing or _moved(result)) and (who := _service()):
                self._moves[id(conn)].append(f"{name} of {who}")
            return result

        return watched

    def _over(self, conn: ledger.Connection) -> None:
        events = self._events.pop(id(conn), set[str]())
        for move in self._moves.pop(id(conn), ()):
            if not events & TOLD[move.partition(" ")[0]]:
                self.untold.append(f"{move}, with {sorted(events) or 'no event'}")


def _moved(result: object) -> bool:
    """Whether a move says that it changed something: by a row, a count, or one of them among others."""
    return any(map(bool, cast("tuple[object, ...]", result))) if isinstance(result, tuple) else bool(result)


def _service() -> str | None:
    """The module of a service or a command that asked the ledger; None where a test did."""
    frame = inspect.currentframe()
    while frame is not None:
        name = frame.f_globals.get("__name__", "")
        if name != __name__ and not name.startswith(("banksman.ledger", "contextlib")):
            return name if name.startswith("banksman") else None
        frame = frame.f_back
    return None
