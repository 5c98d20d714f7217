"""A model provider on loopback that speaks OpenAI's wire protocols: it answers as told, and keeps what it was asked."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

JsonObject = dict[str, Any]


@dataclass(frozen=True)
class Turn:
    """What the model says next: words, and calls as (id, tool, argument text)."""

    words: str = ""
    calls: tuple[tuple[str, str, str], ...] = ()


@dataclass(frozen=True)
class Failure:
    """An answer that is no turn of the model."""

    status: int
    message: str


Answer = Callable[[JsonObject], Turn | Failure]


@dataclass
class Provider:
    """The stub: `answer` decides on each request's body."""

    answer: Answer
    url: str = ""
    asked: list[JsonObject] = field(default_factory=list[JsonObject])
    credentials: set[str] = field(default_factory=set[str])

    def script(self, *turns: Turn | Failure) -> None:
        """Answer with these in turn, and go on with the last."""
        left = list(turns)
        self.answer = lambda _: left.pop(0) if len(left) > 1 else left[0]

    def results(self) -> dict[str, str]:
        """What the last request said about each tool call, by the call's id, in either protocol."""
        body = self.asked[-1]
        chat = [m for m in body.get("messages", []) if m["role"] == "tool"]
        responses = [m for m in body.get("input", []) if m.get("type") == "function_call_output"]
        return {m["tool_call_id"]: m["content"] for m in chat} | {m["call_id"]: m["output"] for m in responses}


@contextmanager
def provider() -> Generator[Provider]:
    """A provider on a free port, until the block ends."""
    stub = Provider(lambda _: Failure(500, "The stub was told nothing."))

    class Handler(BaseHTTPRequestHandler):
        # HTTP/1.0 closes each connection: one kept alive would outlive the test's own event loop.

        def do_POST(self) -> None:
            length = int(self.headers["Content-Length"])
            body: JsonObject = json.loads(self.rfile.read(length))
            stub.asked.append(body)
            stub.credentials.add(self.headers["Authorization"])
            answer = stub.answer(body)
            if isinstance(answer, Failure):
                self._send(answer.status, {"error": {"message": answer.message, "code": None}})
            elif self.path == "/v1/chat/completions":
                self._send(200, _chat(body, answer))
            elif self.path == "/v1/responses":
                self._send(200, _response(body, answer))
            else:
                self._send(404, {"error": {"message": f"No such path: {self.path}"}})

        def _send(self, status: int, content: Mapping[str, Any]) -> None:
            raw = json.dumps(content).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(raw)))
            self.send_header("Retry-After-Ms", "1")  # the client's own retries need not be waited for
            self.end_headers()
            self.wfile.write(raw)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002  the base class's name
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    stub.url = f"http://127.0.0.1:{server.server_port}/v1"
    try:
        yield stub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _chat(body: JsonObject, turn: Turn) -> JsonObject:
    calls = [
        {"id": call_id, "type": "function", "function": {"name": tool, "arguments": text}}
        for call_id, tool, text in turn.calls
    ]
    message = {"role": "assistant", "content": turn.words or None, "refusal": None}
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1_790_000_000,
        "model": body["model"],
        "choices": [
            {
                "index": 0,
                "message": message | ({"tool_calls": calls} if calls else {}),
                "finish_reason": "tool_calls" if calls else "stop",
                "logprobs": None,
            }
        ],
        "usage": {"prompt_tokens": 20, "completion_tokens": 5, "total_tokens": 25},
    }


def _response(body: JsonObject, turn: Turn) -> JsonObject:
    text: JsonObject = {"type": "output_text", "text": turn.words, "annotations": []}
    words: JsonObject = {
        "type": "message",
        "id": "msg_1",
        "role": "assistant",
        "status": "completed",
        "content": [text],
    }
    calls = [
        {
            "type": "function_call",
            "id": f"fc_{call_id}",
            "call_id": call_id,
            "name": tool,
            "arguments": arguments,
            "status": "completed",
        }
        for call_id, tool, arguments in turn.calls
    ]
    return {
        "id": "resp_1",
        "object": "response",
        "created_at": 1_790_000_000,
        "status": "completed",
        "model": body["model"],
        "output": ([words] if turn.words else []) + calls,
        "parallel_tool_calls": True,
        "tool_choice": "auto",
        "tools": [],
        "usage": {
            "input_tokens": 20,
            "input_tokens_details": {"cached_tokens": 0},
            "output_tokens": 5,
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": 25,
        },
    }
