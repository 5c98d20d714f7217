"""What a worker process shares among its segments, and what is loaded of one of them."""

from __future__ import annotations

import asyncio
import concurrent.futures
import threading
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from pydantic import TypeAdapter
from pydantic_ai.usage import RunUsage

from banksman import ledger
from banksman.digest import Json
from banksman.policy import Policy
from banksman.records import Cap, Child, Claim
from banksman.signing import Verifier
from banksman.wire import Wire
from banksman_worker import deep
from banksman_worker.agents import Loaded
from banksman_worker.conversation import Conversation
from banksman_worker.gate import Gate, Key, Resolved
from banksman_worker.lease import Leases
from banksman_worker.workspace import Workspace

USAGE: TypeAdapter[RunUsage] = TypeAdapter(RunUsage)


@dataclass(frozen=True, slots=True)
class Worker:
    """What every segment of this process shares."""

    name: str
    pool: ledger.Pool
    wire: Wire
    loop: asyncio.AbstractEventLoop
    executor: concurrent.futures.Executor
    leases: Leases
    agents: Mapping[str, Loaded]
    policy: Policy
    verifier: Verifier
    lease: timedelta
    desk: threading.Semaphore
    """So many threads may claim, load or commit at once. More would only pull at the interpreter's one lock."""
    hint: timedelta
    """How long after a wake-up the dispatcher looks for itself."""
    cancel_grace: timedelta = timedelta(seconds=5)
    """How long the tools of a cancelled run may take to end before the run ends without knowing what became of them."""
    step_limit: timedelta = timedelta(hours=1)
    """How long one answer of a model, or the calls of one turn, may take before the attempt is given up."""
    caps: Sequence[Cap] = ()

    def hop(self, work: Callable[[], Any]) -> Awaitable[Any]:
        """Do blocking work beside the event loop."""
        return self.loop.run_in_executor(self.executor, work)


@dataclass(slots=True)
class Segment:
    """What was loaded of one claimed segment."""

    claim: Claim
    loaded: Loaded
    conversation: Conversation
    workspace: Workspace
    stored: set[str]
    resolved: Mapping[Key, Resolved]
    usage: RunUsage
    gate: Gate
    deps: Any
    children: Sequence[Child]

    @property
    def resuming(self) -> bool:
        """Whether the results that the run waited for have yet to be used."""
        return bool(self.resolved or self.children) and self.conversation.segment < self.claim.segment

    def state(self, usage: RunUsage | None = None) -> dict[str, Json]:
        """What a snapshot says beside the messages."""
        deep.keep(self.deps, self.workspace)
        return {"workspace": self.workspace.manifest(), **self.workspace.state(), "usage": counts(usage or self.usage)}


def counts(usage: RunUsage) -> dict[str, Json]:
    """Usage as it is stored: what is not nothing."""
    return USAGE.dump_python(usage, mode="json", exclude_defaults=True)
