"""Receivers of webhooks, good and bad: each connection is handed to a function that answers with raw bytes."""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

from banksman.embedded import ports

Answer = Callable[[socket.socket], None]


@dataclass(frozen=True, slots=True)
class Posted:
    """One call as it arrived."""

    line: str
    headers: Mapping[str, str]
    body: bytes


@dataclass(slots=True)
class Receiver:
    """A server on this machine; `answer` may be changed at any time."""

    port: int
    answer: Answer
    posted: list[Posted] = field(default_factory=list[Posted])

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/hook"

    @property
    def free(self) -> frozenset[tuple[str, int | None]]:
        return frozenset({("127.0.0.1", self.port)})


def says(status: int, *, head: str = "", body: bytes = b"") -> Answer:
    """A plain answer."""

    def answer(line: socket.socket) -> None:
        length = "" if "content-length" in head.lower() else f"Content-Length: {len(body)}\r\n"
        line.sendall(f"HTTP/1.1 {status} Fine\r\n{length}{head}\r\n".encode() + body)

    return answer


@contextmanager
def receiver(answer: Answer, context: ssl.SSLContext | None = None) -> Generator[Receiver]:
    """A receiver that reads each call whole, and then answers as it is told."""
    listening = socket.create_server((ports.LOOPBACK, 0))
    made = Receiver(listening.getsockname()[1], answer)
    threads: list[threading.Thread] = []

    def serve(plain: socket.socket) -> None:
        with suppress(OSError), plain:
            line = context.wrap_socket(plain, server_side=True) if context else plain
            with line, line.makefile("rb") as stream:
                first = stream.readline().decode().strip()
                headers: dict[str, str] = {}
                while text := stream.readline().decode().strip():
                    name, _, value = text.partition(": ")
                    headers[name.lower()] = value
                made.posted.append(Posted(first, headers, stream.read(int(headers["content-length"]))))
                made.answer(line)

    def accept() -> None:
        while True:
            try:
                plain, _ = listening.accept()
            except OSError:
                return
            thread = threading.Thread(target=serve, args=(plain,), daemon=True)
            thread.start()
            threads.append(thread)

    accepting = threading.Thread(target=accept, daemon=True)
    accepting.start()
    try:
        yield made
    finally:
        with suppress(OSError):
            listening.shutdown(socket.SHUT_RDWR)
        listening.close()
        accepting.join(5)
        for thread in threads:
            thread.join(5)
