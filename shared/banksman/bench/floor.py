"""The floor: two bare `agent.run` calls with a JSON round trip between them, in one process, without any of Banksman.

    python -m banksman.bench.floor --runs 200

Prints the CPU milliseconds of one approved run, as this process spent them after a warm-up.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import time

from pydantic import TypeAdapter
from pydantic_ai import DeferredToolRequests
from pydantic_ai.messages import ModelMessagesTypeAdapter

from banksman.bench.subject import agent, prompt

_WARM_UP = 20
_REQUESTS: TypeAdapter[DeferredToolRequests] = TypeAdapter(DeferredToolRequests)


async def approved_run() -> str:
    """One run from its prompt to its answer, approved in between."""
    first = await agent.run(prompt())
    assert isinstance(first.output, DeferredToolRequests)
    messages, waiting = first.all_messages_json(), _REQUESTS.dump_json(first.output)

    second = await agent.run(
        message_history=ModelMessagesTypeAdapter.validate_json(messages),
        deferred_tool_results=_REQUESTS.validate_json(waiting).build_results(approve_all=True),
    )
    assert isinstance(second.output, str)
    second.all_messages_json()
    return second.output


async def _measure(runs: int) -> float:
    for _ in range(_WARM_UP):
        await approved_run()
    before = time.process_time()
    for _ in range(runs):
        await approved_run()
    return (time.process_time() - before) / runs * 1000


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="banksman.bench.floor")
    parser.add_argument("--runs", type=int, default=200)
    cpu_ms = asyncio.run(_measure(parser.parse_args().runs))
    sys.stdout.write(json.dumps({"cpu_ms": cpu_ms}) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
