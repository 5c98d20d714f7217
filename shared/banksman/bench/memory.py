"""What runs that wait for people hold in memory: of each part, before and while so many are parked."""

from __future__ import annotations

import http.client
import json
import time
from collections.abc import Callable, Mapping, Sequence
from urllib.parse import urlsplit

from banksman.bench.cost import resident_mib
from banksman.bench.load import Way
from banksman.bench.subject import prompt
from banksman.errors import BanksmanError

_SETTLE_SECONDS = 3.0
_LAST = ("finished", "failed", "cancelled", "stuck")
"""Where a run stays."""


def while_parked(
    way: Way, pids: Mapping[str, int], counts: Sequence[int], tell: Callable[[int, int], None]
) -> dict[int, dict[str, float]]:
    """MiB of each part with none parked, and then with so many; they are left as they are."""
    found = {0: resident_mib(pids)}
    parked = 0
    for count in sorted(counts):
        _park(way, count - parked, lambda done, before=parked, total=count: tell(before + done, total))
        parked = count
        time.sleep(_SETTLE_SECONDS)
        found[count] = resident_mib(pids)
    return found


def _park(way: Way, count: int, tell: Callable[[int], None]) -> None:
    """Submit so many runs as one batch, and wait until each waits for a person."""
    until(way, submit(way, "bench", prompt(), count), "waiting", count, tell)


def until(way: Way, batch: str, status: str, count: int, tell: Callable[[int], None]) -> None:
    """Wait until so many runs of a batch are in a state."""
    with way.program() as program:
        while (states := program.ask("GET", f"/v1/batches/{batch}")["runs"])[status] < count:
            if lost := {name: many for name, many in states.items() if name in _LAST and name != status and many}:
                raise BanksmanError(f"{count} runs were to be {status}, and never will be together: {lost}.")
            tell(states[status])
            time.sleep(0.5)


def submit(way: Way, agent: str, asked: str, count: int) -> str:
    """So many equal runs as one batch, whose id comes back."""
    connection = http.client.HTTPConnection(urlsplit(way.url).netloc, timeout=120)
    line = json.dumps({"agent": agent, "prompt": asked}) + "\n"
    headers = {"Authorization": f"Bearer {way.submit_key}", "Content-Type": "application/x-ndjson"}
    try:
        connection.request("POST", "/v1/batches", line * count, headers)
        response = connection.getresponse()
        content = response.read()
    finally:
        connection.close()
    if response.status != 201:
        raise BanksmanError(f"POST /v1/batches answered {response.status}: {content[:500]!r}")
    return json.loads(content)["id"]
