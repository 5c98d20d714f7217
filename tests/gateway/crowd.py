"""A crowd: thousands of runs that wait for people, made by the ledger's own moves, in two transactions."""

from __future__ import annotations

from collections.abc import Sequence

from banksman import ids, ledger
from banksman.ids import BatchId, RequestId, RunId
from banksman.ledger import audit, batches, requests
from banksman.records import Event, NewRequest, NewRun, Rung
from banksman.states import Kind, Tier
from tests.gateway.scenes import Site, asking, bound

TOOLS = ("write_file", "refund", "send_mail", "execute", "delete_record")
HOUR = 3600


def gather(site: Site, count: int) -> Sequence[RequestId]:
    """So many runs, each parked behind one request: of several tools, tiers, kinds, groups and deadlines."""
    batch, requesters = BatchId(ids.new()), ("carol@example.org", "dora@example.org", site.ana.email)
    made = [NewRun(RunId(ids.new()), "plain", "Do it.", requesters[n % len(requesters)]) for n in range(count)]
    opened = [_asked(number) for number in range(count)]
    with ledger.transaction(site.gateway) as conn:
        batches.create(conn, batch, name=None, requester="carol@example.org", requester_id=None)
        batches.load(conn, batch, made, actor="carol@example.org")
    with ledger.transaction(site.worker) as conn, conn.pipeline():
        for run, new in zip(made, opened, strict=True):
            requests.open_request(conn, run.id, 0, bound(new, run.id, []))
        audit.append(
            conn, *(Event("w", "request.opened", run.id, new.id) for run, new in zip(made, opened, strict=True))
        )
        # What `runs.claim` and `runs.park` do to each of them, at once.
        conn.execute(
            """
            UPDATE runs
            SET status = 'waiting', segment = 1, fence = 1, due_at = NULL, agent_version = '1'
            WHERE batch_id = %s
            """,
            (batch,),
        )
    return [new.id for new in opened]


def decide(site: Site, asked: Sequence[RequestId], *, at_once: int = 50) -> None:
    """Ana approves what she may of these, so many in a call."""
    token, reader = site.token(site.ana), site.key("requests:read")
    for start in range(0, len(asked), at_once):
        chosen = [ids.show("req", one) for one in asked[start : start + at_once]]
        shown = [site.client.get(f"/v1/requests/{one}", headers=reader).json() for one in chosen]
        votes = [{"request_id": one["id"], "verdict": "approve", "digest": one["digest"], "revision": one["revision"]}
                 for one in shown]  # fmt: skip
        answer = site.client.post("/v1/votes", json={"votes": votes}, headers=token)
        assert answer.status_code == 200, answer.text


def _asked(number: int) -> NewRequest:
    tool = TOOLS[number % len(TOOLS)]
    return asking(
        kind=Kind.OUTCOME if number % 50 == 0 else Kind.APPROVAL,
        tool=tool,
        arguments={"path": f"/out/{number}.txt", "content": f"line {number}\n" * 20},
        tier=(Tier.LOW, Tier.MEDIUM, Tier.HIGH)[number % 3],
        approvals=2 if number % 3 == 2 else 1,
        groups={"finance": 1} if number % 4 == 0 else {},
        expires_after=HOUR // 2 + number * 20,
        escalation=(Rung(0, ("admins",)),) if number % 20 == 0 else (Rung(2 * HOUR, ("admins",)),),
    )
