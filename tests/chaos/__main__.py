"""`make chaos`: workers killed in tools, plain and with a flushed broker; two hosts; then minutes of chaos.

Exit code 0 when nothing was lost, repeated or unapproved; 1 with the runs otherwise. The log of all services stays.
"""

from __future__ import annotations

import argparse
import random
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path

from banksman import logs
from tests.chaos import apart, hosts, journey, kills
from tests.chaos.site import Site

PARTS = ("kills", "hosts", "journey")


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="tests.chaos", description=__doc__)
    parser.add_argument("--minutes", type=float, default=2)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1_000_000))
    parser.add_argument("--only", choices=PARTS, action="append")
    chosen = parser.parse_args(arguments)
    logs.configure("chaos", level="warning")
    wanted = chosen.only or PARTS
    _say(f"seed {chosen.seed} (again: make chaos MINUTES={chosen.minutes:g} SEED={chosen.seed})")
    wrong: list[str] = []
    if "kills" in wanted:
        for flush in (False, True):
            wrong += _on_a_site("kills", {}, lambda site, flush=flush: _kills(site, chosen.seed, flush=flush))
    if "hosts" in wanted:
        wrong += _on_a_site("hosts", {}, _hosts)
    if "journey" in wanted:
        wrong += _on_a_site(
            "journey", journey.SETTINGS, lambda site: _journey(site, chosen.seed, minutes=chosen.minutes)
        )
    _say(f"{len(wrong)} things went wrong" if wrong else "nothing lost, nothing twice, nothing unapproved")
    return 1 if wrong else 0


def _kills(site: Site, seed: int, *, flush: bool) -> list[str]:
    site.gateway()
    site.notifier()
    site.worker("first")
    site.announced()
    site.kill("first")
    report = kills.run(site, runs=300, kills=20, seed=seed, flush=flush)
    _say(f"20 kills while 300 runs flow{', FLUSHALL in the middle' if flush else ''}:", *report.lines())
    return report.verdict.wrong


def _hosts(site: Site) -> list[str]:
    if why := hosts.missing():
        _say(f"SKIPPED, two hosts: {why}")
        return []
    site.gateway()
    site.worker("first")
    site.announced()
    site.kill("first")
    with hosts.FarHost(postgres=site.postgres.port, broker=site.valkey.port) as far:
        report = apart.story(site, far, lease=3, cut_for=20, within=60)
    _say("two hosts, the link cut for 20 s:", report.line())
    return []


def _journey(site: Site, seed: int, *, minutes: float) -> list[str]:
    with ExitStack() as stack:
        far = None
        if why := hosts.missing():
            _say(f"SKIPPED, a worker on another host: {why}")
        else:
            far = stack.enter_context(hosts.FarHost(postgres=site.postgres.port, broker=site.valkey.port))
        report = journey.run(site, minutes=minutes, seed=seed, say=_say, far=far)
    _say(f"{minutes:g} minutes of chaos:", *report.lines())
    return report.wrong


def _on_a_site(name: str, settings: dict[str, str], part: Callable[[Site], list[str]]) -> list[str]:
    """A part on servers of its own; its folder is kept when something went wrong."""
    folder = Path(tempfile.mkdtemp(prefix=f"banksman-chaos-{name}-"))
    try:
        with Site(folder / "site", durable=True, settings=settings) as site:
            wrong = [*part(site), *_log(site)]
    except AssertionError as error:
        wrong = [str(error)]
        _say(f"WRONG: {error}")
    if wrong:
        _say(f"the effect log and the services' own words are in {folder}")
    else:
        shutil.rmtree(folder)
    return wrong


def _log(site: Site) -> list[str]:
    """What is wrong with the audit log afterwards."""
    report = site.verified()
    _say(f"the audit log: {report.newest.size if report.newest else 0} events sealed, {len(report.findings)} findings")
    return [*map(str, report.findings), *([] if report.newest else ["Nothing of the audit log was sealed."])]


def _say(*lines: str) -> None:
    for line in lines:
        sys.stdout.write(f"{time.strftime('%H:%M:%S')} {line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
