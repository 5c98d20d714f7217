"""A program that knows of Banksman what the API's documentation says, and nothing else: httpx and JSON."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import httpx

Shape: TypeAlias = dict[str, Any]

RUN = {
    "id", "agent", "status", "output", "error", "requester", "batch_id", "usage", "created_at", "finished_at"
}  # fmt: skip
REQUEST = {
    "id", "run_id", "kind", "state", "tool", "arguments", "rendered", "digest", "revision", "tier", "requirement",
    "expires_at", "decision", "siblings",
}  # fmt: skip
# A line for each question that is asked again and again helps nobody who reads a failure.
logging.getLogger("httpx").setLevel(logging.WARNING)

PROBLEM = {"type", "title", "status", "detail"}


class Outsider:
    """One credential on one gateway. Everything that comes back must have the shape that was promised."""

    def __init__(self, url: str, token: str) -> None:
        self.http = httpx.Client(
            base_url=url, headers={"Authorization": f"Bearer {token}"}, trust_env=False, timeout=30
        )

    def close(self) -> None:
        self.http.close()

    def submit(self, agent: str, prompt: str, **more: Any) -> Shape:
        """A new run."""
        answer = self.http.post("/v1/runs", json={"agent": agent, "prompt": prompt, **more})
        assert answer.status_code == 201, answer.text
        return shaped(answer.json(), RUN)

    def run(self, run_id: str) -> Shape:
        answer = self.http.get(f"/v1/runs/{run_id}")
        assert answer.status_code == 200, answer.text
        return shaped(answer.json(), RUN)

    def request(self, request_id: str) -> Shape:
        answer = self.http.get(f"/v1/requests/{request_id}")
        assert answer.status_code == 200, answer.text
        return shaped(answer.json(), REQUEST)

    def requests(self, run_id: str, **filters: Any) -> list[Shape]:
        """The requests of a run, in the order in which they were opened."""
        answer = self.http.get("/v1/requests", params={"run_id": run_id, **filters})
        assert answer.status_code == 200, answer.text
        page = shaped(answer.json(), {"items", "next_cursor"})
        return [shaped(item, REQUEST) for item in page["items"]]

    def files(self, run_id: str) -> dict[str, str]:
        """The run's files: path → text."""
        answer = self.http.get(f"/v1/runs/{run_id}/files")
        assert answer.status_code == 200, answer.text
        paths: list[str] = [item["path"] for item in answer.json()["items"]]
        return {path: self.http.get(f"/v1/runs/{run_id}/files{path}").text for path in paths}

    def vote(self, request: Mapping[str, Any], verdict: str, **more: Any) -> httpx.Response:
        """One vote on exactly what was read."""
        shown = {"digest": request["digest"], "revision": request["revision"]}
        body = {"verdict": verdict, **shown, **more}
        return self.http.post(f"/v1/requests/{request['id']}/votes", json=body)

    def decide(self, request: Mapping[str, Any], verdict: str, **more: Any) -> Shape:
        """A vote that must count; the request after it."""
        answer = self.vote(request, verdict, **more)
        assert answer.status_code == 200, answer.text
        return shaped(answer.json(), REQUEST)

    def asked(self, run_id: str, count: int = 1, *, within: float = 20) -> list[Shape]:
        """What the run waits for, once it waits."""

        def fact() -> list[Shape] | None:
            found = self.requests(run_id, state="open")
            return found if len(found) == count and self.run(run_id)["status"] == "waiting" else None

        return self._until(fact, run_id, within)

    def ended(self, run_id: str, status: str = "finished", *, within: float = 20) -> Shape:
        """The run, once it has come to this end."""

        def fact() -> Shape | None:
            run = self.run(run_id)
            wrong = run["status"] in {"finished", "failed", "cancelled", "stuck"} - {status}
            assert not wrong, f"{run['status']}: {run['error'] or run['output']}"
            return run if run["status"] == status else None

        return self._until(fact, run_id, within)

    def _until(self, fact: Callable[[], Any], run_id: str, within: float) -> Any:
        deadline = time.monotonic() + within
        while (found := fact()) is None:
            assert time.monotonic() < deadline, (
                f"{within:.0f} s were not enough for {self.run(run_id)}, which asks {self.requests(run_id)}"
            )
            time.sleep(0.02)
        return found


def shaped(value: Any, names: set[str]) -> Shape:
    """The object, which must have at least these names."""
    assert names <= value.keys(), names - value.keys()
    return value


def problem(answer: httpx.Response, status: int) -> Shape:
    """The body of a refusal (RFC 9457)."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    found = shaped(answer.json(), PROBLEM)
    assert found["status"] == status
    return found
