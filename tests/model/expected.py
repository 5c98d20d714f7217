"""What must come of every move, in plain Python: runs, requests and votes as they are promised, without a database."""

from __future__ import annotations

from dataclasses import dataclass, field

SETTLES = {"approve": "approved", "rerun": "approved", "deny": "denied", "stop": "denied", "happened": "answered"}
SETTLES["answer"] = "answered"
FINAL = ("finished", "failed", "cancelled")


@dataclass(eq=False)
class Run:
    """A run; `due` says that its lease, or the time until it is looked for again, has passed."""

    requester: int
    status: str = "queued"
    segment: int = 0
    fence: int = 0
    attempts: int = 0
    due: bool = False
    stopping: bool = False

    def goes(self, status: str) -> None:
        self.status, self.due = status, False

    def held_by(self, fence: int) -> bool:
        return self.status == "running" and self.fence == fence

    def commits(self, fence: int) -> bool:
        return self.held_by(fence) and not self.due

    def claim(self, segment: int) -> bool:
        free = self.status == "queued" or (self.status == "running" and self.due)
        if won := free and segment == self.segment and not self.stopping:
            self.goes("running")
            self.fence, self.attempts = self.fence + 1, self.attempts + 1
        return won

    def dispatch(self, most: int) -> str:
        if self.due and self.status in ("queued", "running"):
            self.goes("cancelled" if self.stopping else "stuck" if self.attempts >= most else "queued")
            self.fence += 1
            return self.status
        return "left alone"


@dataclass
class Request:
    """A request; `said` is who said what on the revision of now."""

    run: Run
    kind: str
    tier: str
    approvals: int
    state: str = "open"
    revision: int = 1
    author: int | None = None
    overdue: bool = False
    said: dict[int, str] = field(default_factory=dict[int, str])
    voters: list[int] = field(default_factory=list[int])

    def vote(self, person: int, verdict: str, channel: str, *, edits: bool, disabled: set[int]) -> str:
        """`refused`, `counted`, or the state that the vote settles the request in."""
        own = person == self.run.requester and self.kind in ("approval", "outcome")
        if self.state != "open" or self.overdue or person in disabled or own:
            return "refused"
        if (self.tier == "high" and channel != "session") or (person in self.said and not edits):
            return "refused"
        if edits:
            self.revision, self.author, self.said = self.revision + 1, person, {}
        self.said[person] = verdict
        voided = {self.author} if self.tier == "high" else set[int]()
        self.voters = [who for who, what in self.said.items() if what == verdict and who not in disabled | voided]
        if SETTLES[verdict] == "approved" and len(self.voters) < self.approvals:
            return "counted"
        self.state = SETTLES[verdict]
        return self.state
