"""The published OpenAPI document against the gateway: whatever is sent, no 5xx, and no answer that is not in it.

In one order of calls after another: what one call makes, the next one names. `make test` tries for less than a minute,
`make fuzz` (`SECONDS=600`) for longer.
"""

from __future__ import annotations

import json
import os
import time
from collections import Counter
from contextlib import suppress
from itertools import cycle
from typing import Any, cast

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, settings
from hypothesis.errors import Flaky, FlakyStrategyDefinition
from schemathesis import checks as generic
from schemathesis.core.failures import FailureGroup
from schemathesis.specs.openapi import checks as documented

from banksman.states import Kind
from tests.gateway.scenes import Site, asking

SECONDS = float(os.environ.get("FUZZ_SECONDS", "45"))
STEPS = 12
CHECKS: list[Any] = [
    generic.not_a_server_error,
    *(
        getattr(documented, f"{name}_conformance")
        for name in ("status_code", "content_type", "response_schema", "response_headers")
    ),
]


@cast("Any", schemathesis).serializer("application/x-ndjson")
def lines(_: Any, value: Any) -> bytes:
    """Many values, one on each line."""
    many = cast("list[Any]", value) if isinstance(value, list) else [value]
    return "\n".join(map(json.dumps, many)).encode()


@pytest.fixture
def bearers(site: Site) -> list[str]:
    """Who calls: an administrator who may everything, a reviewer, a machine, nobody; and something for them to find."""
    boss = site.a_person("boss@example.org", "admin", "reviewer", "operator", "auditor")
    site.a_waiting_run(asking())
    site.a_waiting_run(asking("c1", kind=Kind.QUESTION), asking("c2", kind=Kind.EXTERNAL))
    site.a_stuck_run()
    site.finish(site.a_run())
    key = site.key("runs:submit", "runs:submit-as", "runs:read", "runs:cancel", "requests:read", "requests:answer")
    headers = [site.token(boss), site.token(site.ana), key, {}]
    return [item.get("Authorization", "") for item in headers]


def running(site: Site) -> Any:
    """The gateway under test, which has started already: it is not to start again for each call."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "lifespan":
            await cast("Any", site.client.app)(scope, receive, send)
            return
        while True:
            said = (await receive())["type"]
            await send({"type": f"{said}.complete"})
            if said == "lifespan.shutdown":
                return

    return app


def test_no_call_breaks_the_gateway_or_is_answered_by_what_is_not_documented(
    site: Site, bearers: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    schema = schemathesis.openapi.from_asgi("/v1/openapi.json", running(site), headers={"Host": "localhost:8420"})
    calls: Counter[int] = Counter()
    called: set[str] = set()
    found: list[str] = []
    # Not by chance: Hypothesis begins each caller with the same seed.
    turns = cycle(bearers[n] for n in (0, 1, 0, 2, 0, 0, 3))

    class Caller(cast("type[Any]", schema.exclude(path_regex="/events$").as_state_machine())):
        """One caller, who does one thing after another."""

        def setup(self) -> None:
            self.bearer = next(turns)

        def get_call_kwargs(self, case: Any) -> dict[str, Any]:
            del case
            headers = {"Host": "localhost:8420"} | ({"Authorization": self.bearer} if self.bearer else {})
            return {"headers": headers}

        def validate_response(self, response: Any, case: Any, additional_checks: Any = None, **more: Any) -> None:
            del additional_checks, more
            calls[response.status_code] += 1
            called.add(f"{case.method} {case.path}")
            try:
                case.validate_response(response, checks=CHECKS)
            except FailureGroup as group:  # kept and not raised: there is no time to look for a shorter way to it
                found.append(f"{case.method} {case.path}: {group}")

    over = time.monotonic() + SECONDS
    while time.monotonic() < over and not found:
        # What a call may be followed by depends on what was answered, and the database remembers earlier callers.
        with suppress(Flaky, FlakyStrategyDefinition):
            Caller.run(
                settings=settings(
                    max_examples=6,
                    stateful_step_count=STEPS,
                    deadline=None,
                    database=None,
                    phases=(Phase.generate,),
                    suppress_health_check=[
                        HealthCheck.too_slow,
                        HealthCheck.filter_too_much,
                        HealthCheck.data_too_large,
                    ],
                )
            )

    assert found == []
    assert calls[200] + calls[201] > 0
    with capsys.disabled():
        print(f"\ncalls: {sum(calls.values())} on {len(called)} operations: {dict(sorted(calls.items()))}")  # noqa: T201
