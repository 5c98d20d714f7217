"""What is stored of a run, as whoever has claimed it reads it, in one transaction."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import cast

from banksman import ledger
from banksman.ledger import executions, families, requests, snapshots
from banksman.records import Child, Claim, Execution, Settled
from banksman_worker import conversation
from banksman_worker.conversation import Conversation


@dataclass(frozen=True, slots=True)
class Stored:
    """Nothing yet, where nobody has claimed the run before."""

    talk: Conversation = field(default_factory=Conversation)
    manifest: Mapping[str, str] = field(default_factory=dict[str, str])
    """The files of its workspace, each by the hash of its content."""
    blobs: Mapping[str, bytes] = field(default_factory=dict[str, bytes])
    children: Sequence[Child] = ()
    settled: Sequence[Settled] = ()
    """How everything came out that the run waited for before this segment."""
    earlier: Sequence[Execution] = ()
    """The calls of the step that is under way."""


def read(pool: ledger.Pool, claim: Claim) -> Stored:
    """The conversation, the files of its workspace, the journal, and what the run waited for."""
    if claim.fresh:
        return Stored()
    with ledger.transaction(pool) as conn:
        talk = conversation.fold(snapshots.load(conn, claim.run_id))
        manifest = cast("dict[str, str]", talk.state.get("workspace", {}))
        return Stored(
            talk,
            manifest,
            snapshots.blobs(conn, claim.run_id, set(manifest.values())),
            families.sent_out(conn, claim.run_id, claim.segment) if claim.delegated else (),
            requests.settled(conn, claim.run_id, claim.segment) if claim.segment else (),
            executions.of_run(conn, claim.run_id, step=conversation.step_of(talk.messages)),
        )
