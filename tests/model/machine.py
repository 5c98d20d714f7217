"""The moves: what people, programs, time and workers do, each made for real and expected by the model."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta
from typing import Any, TypeVar

from hypothesis import strategies as st
from hypothesis.stateful import initialize, precondition, rule
from pydantic_ai.exceptions import ApprovalRequired

from banksman import digest, ids, ledger
from banksman.errors import BanksmanError, Conflict, LostLease, NotGenuine
from banksman.ids import RequestId
from banksman.ledger import executions, requests, runs, staff
from banksman.records import Claim, NewRequest, Settled
from banksman.states import Kind, RequestState, Tier, Verdict
from banksman_gateway import decide, silence
from banksman_gateway import runs as gateway_runs
from banksman_worker import journal
from banksman_worker.gate import Cleared, Key, Resolved
from tests.gateway.scenes import asking
from tests.model import expected
from tests.model.promises import Attempt, Execution, Promises

HOUR = timedelta(hours=1)
"""Nothing becomes due by itself: the rules say when time passes."""
MOST_RUNS, MOST_ATTEMPTS = 3, 2
Asked = tuple[Kind, Tier, int]
WANTED = st.lists(
    st.sampled_from([
        (Kind.APPROVAL, Tier.LOW, 1),
        (Kind.APPROVAL, Tier.MEDIUM, 1),
        (Kind.APPROVAL, Tier.MEDIUM, 2),
        (Kind.APPROVAL, Tier.HIGH, 2),
        (Kind.QUESTION, Tier.MEDIUM, 1),
        (Kind.EXTERNAL, Tier.MEDIUM, 1),
    ]),
    min_size=1,
    max_size=3,
)  # fmt: skip
"""What a pause asks for: kind, tier, approvals."""
K = TypeVar("K")
V = TypeVar("V")


class Machine(Promises):
    """The rules."""

    @initialize(so_far=st.sampled_from(["nothing", "parked", "agreed", "started", "in doubt", "said"]))
    def begin(self, so_far: str) -> None:
        """A run comes so far without trouble, so that trouble finds it anywhere."""
        self.submit(who=4)
        steps = ["nothing", "parked", "agreed", "started", "in doubt", "said"].index(so_far)
        asked: list[Asked] = [(Kind.APPROVAL, Tier.MEDIUM, 1), (Kind.APPROVAL, Tier.LOW, 2)]
        if steps >= 1:
            self.carry_on(wanted=asked, starts=0, ends=False, parks=True)
        if steps >= 2:
            self.agree()
        if steps >= 3:
            self.carry_on(wanted=asked, starts=1, ends=False, parks=False)
        if steps >= 4:
            self.time_is_up_for_a_run(n=0)
            self.claim(n=0, old=False, wild=False)
            self.start(n=-1, which=0, wild=False)
            self.park(n=-1, wanted=asked[:1], wild=False)
        if steps >= 5:
            self.agree()

    # What people and programs do.

    @precondition(lambda self: len(self.open_runs()) < MOST_RUNS)
    @rule(who=st.sampled_from([4, 3]))
    def submit(self, who: int) -> None:
        person = self.people[who]
        asked = gateway_runs.Submission(agent="plain", prompt="Do it.")
        by = gateway_runs.Submitter(person.email, person.id, "test")
        with ledger.transaction(self.world.parts.pool) as conn:
            made = gateway_runs.submit(conn, asked, by, hint=HOUR)
        self.runs[made.id] = expected.Run(who)
        self.told[self.runs[made.id], "run.submitted"] += 1

    @precondition(lambda self: self.undecided())
    @rule(
        n=st.integers(0, 99),
        who=st.integers(0, 4),
        yes=st.sampled_from([True, True, False]),
        channel=st.sampled_from(["session", "session", "token"]),
        edits=st.sampled_from([False, False, False, True]),
        stale=st.sampled_from([False] * 9 + [True]),
        stops=st.sampled_from([False, False, True]),
        wild=st.sampled_from([False] * 4 + [True]),
    )
    def vote(
        self, n: int, who: int, yes: bool, channel: Any, edits: bool, stale: bool, stops: bool, wild: bool
    ) -> None:
        request_id, request = pick(n, self.requests, lambda item: item.state == "open" and not item.overdue, wild)
        if not wild:
            who = next((one for one in range(who, who + 5) if self.may_say(one % 5, request)), who) % 5
            channel = "session" if request.tier == "high" else channel
        edits = edits and yes and request.kind == "approval"
        verdict = {
            "approval": "approve" if yes else "deny",
            "outcome": ("happened" if stops else "rerun") if yes else "stop",
        }.get(request.kind, "answer" if yes else "deny")
        stops = stops and verdict == "deny"
        with ledger.transaction(self.world.parts.pool) as conn:
            shown = requests.get(conn, request_id)
        ballot = decide.Ballot(
            Verdict(verdict),
            shown.digest,
            shown.revision - stale,
            reason="Because.",
            arguments={"content": ids.new().hex} if edits else None,
            answer="So it is." if verdict in ("answer", "happened") else None,
            stop_run=stops,
        )
        said = "refused"
        if not stale:
            said = request.vote(who, verdict, channel, edits=edits, disabled=self.disabled)

        try:
            with ledger.transaction(self.world.parts.pool) as conn:
                voter = decide.Voter(channel, self.people[who])
                outcome = decide.vote(conn, request_id, voter, ballot, replace(self.world.parts.pen, hint=HOUR))
            came = "counted" if outcome.request.state is RequestState.OPEN else outcome.request.state.value
        except BanksmanError:
            came = "refused"

        assert came == said
        self.reach(said, *(["edited"] if edits and said != "refused" else []))
        if said == "refused":
            return
        if edits:
            self.told[request.run, "request.revised"] += 1
        self.told[request.run, "vote.cast" if said == "counted" else f"request.{said}"] += 1
        if said == "denied" and (stops or verdict == "stop"):
            self.stop(request.run)
            self.reach("stopped by a vote")
        self.wake(request.run)

    @precondition(lambda self: len(self.disabled) < 2 and any(item.said for item in self.requests.values()))
    @rule(who=st.integers(0, 4))
    def disable(self, who: int) -> None:
        self.disabled.add(who)
        with ledger.transaction(self.world.parts.pool) as conn:
            staff.disable(conn, self.people[who].id)

    @precondition(lambda self: len(self.open_runs()) == MOST_RUNS and len(self.runs) % MOST_RUNS == 0)
    @rule(n=st.integers(0, 9))
    def cancel(self, n: int) -> None:
        run_id, run = pick(n, self.runs, lambda item: item.status not in expected.FINAL, wild=n > 7)
        over = run.status in ("finished", "failed")
        try:
            with ledger.transaction(self.world.parts.pool) as conn:
                gateway_runs.cancel(conn, run_id, "test")
        except Conflict:
            assert over
        else:
            assert not over
            self.stop(run)

    @precondition(lambda self: any(run.status == "stuck" for run in self.runs.values()))
    @rule(n=st.integers(0, 9), wild=st.sampled_from([False, False, True]))
    def retry(self, n: int, wild: bool) -> None:
        run_id, run = pick(n, self.runs, lambda item: item.status == "stuck", wild)
        try:
            with ledger.transaction(self.world.parts.pool) as conn:
                gateway_runs.retry(conn, run_id, "test", hint=HOUR)
        except Conflict:
            assert run.status != "stuck"
        else:
            assert run.status == "stuck"
            run.attempts = 0
            run.goes("queued")
            self.told[run, "run.retried"] += 1
            self.reach("retried")

    @precondition(lambda self: any(run.status == "stuck" for run in self.runs.values()))
    @rule(n=st.integers(0, 9), wild=st.sampled_from([False, False, True]))
    def give_up(self, n: int, wild: bool) -> None:
        run_id, run = pick(n, self.runs, lambda item: item.status == "stuck", wild)
        try:
            with ledger.transaction(self.world.parts.pool) as conn:
                gateway_runs.give_up(conn, run_id, "test", who="Somebody", reason="No.")
        except Conflict:
            assert run.status != "stuck"
        else:
            assert run.status == "stuck"
            run.goes("failed")
            self.told[run, "run.failed"] += 1

    # What time does.

    @precondition(lambda self: any(run.status == "running" or run.attempts for run in self.live()))
    @rule(n=st.integers(0, 9))
    def time_is_up_for_a_run(self, n: int) -> None:
        run_id, run = pick(n, self.runs, lambda item: item.status in ("queued", "running"))
        self.world.owner.execute("UPDATE runs SET due_at = clock_timestamp() - interval '1 s' WHERE id = %s", (run_id,))
        run.due = True

    @precondition(lambda self: len(self.undecided()) > 1)
    @rule(n=st.integers(0, 9))
    def time_is_up_for_a_request(self, n: int) -> None:
        request_id, request = pick(n, self.requests, lambda item: item.state == "open")
        self.world.owner.execute("UPDATE requests SET expires_at = now(), due_at = now() WHERE id = %s", (request_id,))
        request.overdue = True

    @precondition(lambda self: any(item.state == "open" and item.overdue for item in self.requests.values()))
    @rule()
    def sweep(self) -> None:
        overdue = [item for item in self.requests.values() if item.state == "open" and item.overdue]
        assert silence.act(self.world.parts) == len(overdue)
        for item in overdue:
            item.state = "expired"
            self.told[item.run, "request.expired"] += 1
            self.reach("expired")
        for item in overdue:
            self.wake(item.run)

    @precondition(lambda self: any(run.due for run in self.runs.values()))
    @rule()
    def dispatch(self) -> None:
        self.world.dispatcher.look()
        for run in self.runs.values():
            if (came := run.dispatch(MOST_ATTEMPTS)) in ("stuck", "cancelled"):
                self.told[run, f"run.{came}"] += 1
                self.reach(came)

    # What workers do.

    @precondition(lambda self: any(run.status == "queued" or run.due for run in self.live()))
    @rule(n=st.integers(0, 9), old=st.sampled_from([False] * 5 + [True]), wild=st.sampled_from([False] * 3 + [True]))
    def claim(self, n: int, old: bool, wild: bool) -> None:
        run_id, run = pick(n, self.runs, lambda item: item.status == "queued" or item.due, wild)
        segment = run.segment - old
        won = run.claim(segment)
        with ledger.transaction(self.world.worker) as conn:
            claim = runs.claim(conn, run_id, segment, owner="w", lease=HOUR)
            assert (claim is not None) == won
            self.reach("claimed" if won else "not claimed")
            if claim is not None:
                assert claim.fence == run.fence
                settled = requests.settled(conn, run_id, segment) if segment else ()
                earlier = {(item.step, item.call_id): item for item in executions.of_run(conn, run_id)}
                self.attempts.append(Attempt(claim, run, settled, earlier))

    @precondition(lambda self: self.attempts and any(run.due for run in self.runs.values()))
    @rule(n=st.integers(0, 99))
    def beat(self, n: int) -> None:
        attempt = self.attempts[n % len(self.attempts)]
        claim, run = attempt.claim, attempt.run
        held = run.commits(claim.fence)
        with ledger.transaction(self.world.worker) as conn:
            granted = runs.beat(conn, {claim.run_id: claim.fence}, lease=HOUR)
        assert granted == ({claim.run_id: "stop" if run.stopping else "ours"} if held else {})

    @precondition(lambda self: self.attempts)
    @rule(n=st.integers(0, 99), wanted=WANTED, wild=st.sampled_from([False] * 3 + [True]))
    def park(self, n: int, wanted: list[Asked], wild: bool) -> None:
        attempt = self.an_attempt(n, wild)
        claim, run = attempt.claim, attempt.run
        opened = [
            (kind, tier, approvals, a_request(claim, kind, tier, approvals, (claim.segment + 1, f"c{number}")))
            for number, (kind, tier, approvals) in enumerate(wanted)
        ]
        replaced: list[RequestId] = []
        for key, (kind, replaces) in attempt.asks.items():
            opened.append((kind, Tier.MEDIUM, 1, a_request(claim, kind, Tier.MEDIUM, 1, key)))
            replaced += [] if replaces is None else [replaces]
        allowed = run.commits(claim.fence) and not run.stopping

        with suppress(LostLease), ledger.transaction(self.world.worker) as conn:
            parked = runs.park(conn, claim.run_id, claim.fence, version="1", usage={})
            assert parked == allowed
            self.reach("parked" if parked else "not parked")
            if not parked:
                raise LostLease("As a segment does.")
            requests.supersede(conn, replaced)
            for _, _, _, new in opened:
                requests.open_request(conn, claim.run_id, claim.segment, new)
        if allowed:
            run.goes("waiting")
            run.segment, run.attempts = run.segment + 1, 0
            for request_id in replaced:
                self.requests[request_id].state = "superseded"
            for kind, tier, approvals, new in opened:
                self.requests[new.id] = expected.Request(run, kind.value, tier.value, approvals)

    @precondition(lambda self: any(map(may_end, self.attempts)))
    @rule(n=st.integers(0, 99), end=st.sampled_from(["finish", "fail", "stop", "postpone", "release"]))
    def end(self, n: int, end: str) -> None:
        attempts = [attempt for attempt in self.attempts if may_end(attempt)]
        attempt = attempts[n % len(attempts)]
        claim, run = attempt.claim, attempt.run
        held, commits = run.held_by(claim.fence), run.commits(claim.fence)
        with ledger.transaction(self.world.worker) as conn:
            match end:
                case "finish":
                    assert runs.finish(conn, claim.run_id, claim.fence, output="", version="1", usage={}) == commits
                    self.reach("finished" if commits else "not finished")
                    if commits:
                        run.goes("finished")
                        run.segment += 1
                case "fail":
                    assert runs.fail(conn, claim.run_id, claim.fence, error="No.") == commits
                    run.goes("failed") if commits else None
                case "stop":
                    assert runs.stop(conn, claim.run_id, claim.fence) == (held and run.stopping)
                    run.goes("cancelled") if held and run.stopping else None
                case "postpone":
                    assert runs.postpone(conn, claim.run_id, claim.fence, error="No.", delay=HOUR, counted=True) == held
                    run.goes("queued") if held else None
                case _:
                    runs.release(conn, {claim.run_id: claim.fence})
                    if held:
                        run.goes("queued")
                        run.due, run.fence, run.attempts = True, run.fence + 1, max(0, run.attempts - 1)

    @precondition(lambda self: len(self.attempts) > 4)
    @rule()
    def crash(self) -> None:
        """The worker that has gone on for longest is heard of no more."""
        del self.attempts[0]

    @precondition(lambda self: any(run.status == "queued" for run in self.runs.values()))
    @rule(wanted=WANTED, starts=st.integers(0, 3), ends=st.booleans(), parks=st.booleans())
    def carry_on(self, wanted: list[Asked], starts: int, ends: bool, parks: bool) -> None:
        """A segment without any trouble, to its end or as far as its worker comes."""
        self.claim(n=[run.status for run in self.runs.values()].index("queued"), old=False, wild=True)
        attempt = self.attempts[-1]
        for which in range(starts):
            if which < len(attempt.calls):
                self.start(n=-1, which=which, wild=True)
            if ends and self.executions:
                self.finish_execution(n=-1, thief=False)
        if parks:
            self.park(n=-1, wanted=wanted, wild=True)

    @precondition(lambda self: self.undecided())
    @rule()
    def agree(self) -> None:
        """People say yes to all that one run waits for."""
        run = self.undecided()[-1].run
        for n, request in enumerate(self.requests.values()):
            for who in range(5):
                if request.run is run and request.state == "open" and not request.overdue and who != run.requester:
                    self.vote(n, who, True, "session", edits=False, stale=False, stops=False, wild=True)

    @precondition(lambda self: any(attempt.calls for attempt in self.attempts))
    @rule(n=st.integers(0, 99), which=st.integers(0, 9), wild=st.sampled_from([False] * 3 + [True]))
    def start(self, n: int, which: int, wild: bool) -> None:
        attempt = self.an_attempt(n, wild, lambda item: bool(item.calls))
        item = attempt.calls[which % len(attempt.calls)]
        key = (item.step, item.call_id)
        statement = None if item.decision is None else self.world.verifier.verify(item.decision.signed)
        cleared = Cleared(
            digest.of_action(digest.parse(item.action)), "unknown", {}, item.request_id,
            Resolved(item, statement),
        )  # fmt: skip
        book = journal.Journal(attempt, self.world.worker, self.world.verifier, never, set())  # pyright: ignore[reportArgumentType]
        comes = self.what_comes_of_starting(attempt, item)

        try:
            came = book._start(key, item.tool, cleared)  # pyright: ignore[reportPrivateUsage]
        except ApprovalRequired:
            came = {Kind.OUTCOME: "doubt", Kind.APPROVAL: "again"}[attempt.asks[key][0]]
        except LostLease:
            came = "lost"
        except NotGenuine:
            came = "forged"

        if isinstance(came, int):
            self.executions.append(Execution(attempt, key, came, item.request_id))
            self.told[attempt.run, "execution.started"] += 1
            came = "started"
        assert comes == (came if isinstance(came, str) else type(came).__name__)
        self.reach("started" if comes == "started" else f"start: {comes}")
        if comes == "started" and item.kind is Kind.OUTCOME:
            self.reach("run again")

    def what_comes_of_starting(self, attempt: Attempt, item: Settled) -> str:
        run, request = attempt.run, self.requests[item.request_id]
        earlier = [one for one in self.executions if (one.by.run, one.key) == (run, (item.step, item.call_id))]
        if earlier and earlier[-1].finished:
            return "_Replay"
        if earlier:
            said = item.kind is Kind.OUTCOME and item.decision is not None
            if said and item.state is RequestState.ANSWERED:
                return "_Told"
            if not said or earlier[-1].request == item.request_id:
                return "doubt"
        if item.decision is None or item.state is not RequestState.APPROVED:
            return "forged"
        stands = request.state == "approved" and not self.disabled & set(request.voters)
        if not run.commits(attempt.claim.fence) or run.stopping:
            return "lost"
        return "started" if stands else "again"

    @precondition(lambda self: self.executions)
    @rule(n=st.integers(0, 99), thief=st.sampled_from([False] * 4 + [True]))
    def finish_execution(self, n: int, thief: bool) -> None:
        execution = self.executions[n % len(self.executions)]
        claim = execution.by.claim
        step, call_id = execution.key
        with ledger.transaction(self.world.worker) as conn:
            written = executions.finish(
                conn, claim.run_id, claim.fence + thief, step=step, call_id=call_id, attempt=execution.attempt,
                outcome="returned", result=b"{}",
            )  # fmt: skip
        assert written == (not execution.finished and not thief)
        execution.finished = execution.finished or written
        if written:
            self.reach("ended" if execution.by.run.held_by(claim.fence) else "ended late")


def a_request(claim: Claim, kind: Kind, tier: Tier, approvals: int, key: Key) -> NewRequest:
    step, call_id = key
    new = asking(call_id, kind=kind, tier=tier, approvals=approvals)
    action = {**digest.parse(new.action), "run": ids.show("run", claim.run_id), "step": step}
    return replace(new, step=step, action=digest.canonical(action), digest=digest.of_action(action))


def may_commit(attempt: Attempt) -> bool:
    return attempt.run.commits(attempt.claim.fence) and not attempt.run.stopping


def may_end(attempt: Attempt) -> bool:
    """Runs are carried on for a while before one may end; who lost it may always try."""
    return attempt.run.segment > 0 or not attempt.run.commits(attempt.claim.fence)


def pick(n: int, found: dict[K, V], fits: Callable[[V], bool], wild: bool = False) -> tuple[K, V]:
    """One that fits, if there is one; wildly, or otherwise, any."""
    fitting = [(key, value) for key, value in found.items() if fits(value)]
    chosen = list(found.items()) if wild or not fitting else fitting
    return chosen[n % len(chosen)]


async def never(_: Callable[[], Any]) -> Any:
    """A journal's way to a thread, where the test is the thread."""
