"""Workers killed at moments steered by tool executions, while runs flow; all are settled, none twice, none lost."""

from __future__ import annotations

import random
import time
from dataclasses import dataclass

from tests.chaos import agents, flow
from tests.chaos.site import Site, until


@dataclass(frozen=True, slots=True)
class Report:
    """What a journey of kills came to."""

    kills: int
    caught: int
    """Runs that were in the middle of a tool when their worker was killed."""
    runs: int
    seconds: float
    recovered: dict[str, list[float]]
    outcomes: dict[str, int]
    verdict: flow.Verdict

    def lines(self) -> list[str]:
        """For people."""
        found = self.verdict
        return [
            f"{self.runs} runs and {self.kills} kills in {self.seconds:.1f} s; {self.caught} runs caught in a tool",
            f"ended: {dict(found.states)}; lost {found.lost}, repeated {found.repeated}, unapproved {found.unapproved}",
            f"effects {found.effects}; unknown outcomes settled: {self.outcomes}",
            *(f"{kind}, to the next claim: {flow.spoken(times)}" for kind, times in sorted(self.recovered.items())),
            *(f"WRONG: {line}" for line in found.wrong),
        ]


def run(
    site: Site, *, runs: int, kills: int, seed: int, flush: bool = False, workers: int = 2, within: float = 120
) -> Report:
    """The journey, on a site with a gateway: again and again one worker dies, and another takes its place at once."""
    dice = random.Random(seed)
    ordered = flow.orders(runs, seed=seed, prefix=f"k{seed}{time.time_ns():x}")
    executions = sum(sum(order.expected().values()) for order in ordered)
    names = {f"worker-{number}": site.worker(f"worker-{number}") for number in range(workers)}
    program = flow.Program(site.program(), pace=1000, most=runs, supply=ordered)
    ana, ben = (site.reviewer(f"{name}@example.org") for name in ("ana", "ben"))
    # A killed process writes nothing more, so its log can be believed at once.
    persons = [
        flow.Person(who, site, program.orders, share=share, of=2, patience=0.0) for share, who in enumerate((ana, ben))
    ]
    tail, hits, began = flow.Tail(site), list[flow.Hit](), time.monotonic()
    tail.read()
    start = tail.begins
    for looping in (program, *persons):
        looping.start()
    try:
        for number in range(kills):
            # Spread over the flow: each kill waits for its share of the tools.
            due = start + executions * (number + 1) // (kills + 2)
            until(lambda due=due: flow.going_on(program, *persons) and tail.count() >= due, within=within, what="tools")
            pid = tail.next_begin(names.values(), within=10)
            time.sleep(dice.uniform(0, 2 * agents.HALF))
            name = next((name for name, number in names.items() if number == pid), "worker-0")
            at = time.time()
            killed = site.kill(name)
            hits.append(flow.Hit("kill", at, tail.caught(killed)))
            names[name] = site.worker(name)
            if flush and number == kills // 2:
                site.flush()
        until(
            lambda: program.is_done and not program.open(), within=within, what=f"the end of all runs ({kills} kills)"
        )
    except AssertionError as late:
        raise AssertionError(f"{late}; open: {list(program.open().values())}\n{site.said()[-4000:]}") from None
    finally:
        for looping in (program, *persons):
            looping.stop()
    verdict = flow.check(site, site.program(), program, persons)
    recovered = flow.recoveries(site.program(), program, hits)
    outcomes = {name: sum(person.outcomes[name] for person in persons) for name in ("happened", "rerun")}
    caught = sum(len(hit.words) for hit in hits)
    return Report(kills, caught, runs, time.monotonic() - began, recovered, outcomes, verdict)
