"""The webhook channel: one signed POST for each message, as Standard Webhooks has it.

A receiver is a stranger: it may be slow on purpose, answer without end, lie about lengths, or point us elsewhere. So a
call has ten seconds in all, however its bytes drip in; of the answer no more is read than its head, at most 16 KiB;
nothing is unpacked; a redirect is a failure. Where the connection goes, `address_guard` says, at each call anew.
"""

from __future__ import annotations

import hashlib
import hmac
import http.client
import io
import socket
import ssl
import time
from base64 import b64decode, b64encode
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from typing import cast

from banksman import address_guard
from banksman.address_guard import Blocked, Resolve
from banksman.errors import InvalidInput
from banksman_notifier.channels import ChannelError, Way

SECONDS = 10.0
MOST_BYTES = 16 * 1024
PREFIX = "whsec_"


@dataclass(frozen=True, slots=True)
class Call:
    """What is posted, and to where. `name` stays the same at each attempt: by it a receiver knows a repeat."""

    name: str
    url: str = field(repr=False)
    secrets: Sequence[str] = field(repr=False)
    body: bytes


class Gone(ChannelError):
    """The receiver says that it wants no more of these, ever."""


@dataclass(frozen=True, slots=True)
class Outside:
    """How the outside is reached: the operator's own hosts, the resolver, the authorities that are trusted."""

    free: frozenset[tuple[str, int | None]] = frozenset()
    resolve: Resolve | None = None
    trust: ssl.SSLContext | None = None


@contextmanager
def opened(outside: Outside) -> Generator[Way[Call]]:
    """Nothing is connected before the first call, and nothing is kept after one."""
    yield _Hook(outside)


def signature(secret: str, name: str, at: int, body: bytes) -> str:
    """The `v1` signature of one secret."""
    key = b64decode(secret.removeprefix(PREFIX))
    return "v1," + b64encode(hmac.digest(key, f"{name}.{at}.".encode() + body, hashlib.sha256)).decode()


@dataclass(frozen=True, slots=True)
class _Hook:
    outside: Outside

    def send(self, message: Call, /) -> None:
        until = time.monotonic() + SECONDS
        try:
            where = address_guard.target(message.url, self.outside.free)
            with address_guard.connect(where, until=until, resolve=self.outside.resolve) as plain:
                stream = self._dressed(plain, where, until)
                try:
                    status = _posted(stream, where, message, until)
                finally:
                    stream.close()
        except InvalidInput as error:
            raise ChannelError(str(error), retryable=False) from error
        except Blocked as error:
            raise ChannelError(str(error), retryable=True) from error
        except TimeoutError as error:
            raise ChannelError(f"The receiver did not answer within {SECONDS:g} s.", retryable=True) from error
        except (OSError, http.client.HTTPException, ValueError) as error:
            said = f"{type(error).__name__}: {error}"[:200]
            raise ChannelError(
                f"The receiver could not be reached, or made no sense: {said}", retryable=True
            ) from error
        if status == 410:
            raise Gone("The receiver answered 410: it wants no more of these.", retryable=False)
        if 300 <= status < 400:
            raise ChannelError(f"The receiver answered {status}, and redirects are not followed.", retryable=True)
        if not 200 <= status < 300:
            raise ChannelError(f"The receiver answered {status}.", retryable=True)

    def _dressed(self, plain: socket.socket, where: address_guard.Target, until: float) -> socket.socket:
        if not where.tls:
            return plain
        plain.settimeout(_left(until))
        return (self.outside.trust or _trust()).wrap_socket(plain, server_hostname=where.host)


def _posted(stream: socket.socket, where: address_guard.Target, call: Call, until: float) -> int:
    """The status that the receiver answers with."""
    at = int(time.time())
    signatures = " ".join(signature(secret, call.name, at, call.body) for secret in call.secrets)
    head = (
        f"POST {where.path} HTTP/1.1\r\nHost: {where.authority}\r\nUser-Agent: Banksman\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(call.body)}\r\n"
        f"Accept: */*\r\nAccept-Encoding: identity\r\nConnection: close\r\n"
        f"webhook-id: {call.name}\r\nwebhook-timestamp: {at}\r\nwebhook-signature: {signatures}\r\n\r\n"
    )
    stream.settimeout(_left(until))
    stream.sendall(head.encode("ascii") + call.body)
    answer = http.client.HTTPResponse(cast("socket.socket", _Bounded(stream, until)), method="POST")
    try:
        answer.begin()
        return answer.status
    finally:
        answer.close()


class _Bounded:
    """The answer's side of a socket: so many bytes and so much time in all, however many reads it takes."""

    def __init__(self, stream: socket.socket, until: float) -> None:
        self._stream = stream
        self._until = until

    def makefile(self, *_: object, **__: object) -> io.BufferedReader:
        return io.BufferedReader(_Reader(self._stream, self._until), 1024)


class _Reader(io.RawIOBase):
    def __init__(self, stream: socket.socket, until: float) -> None:
        self._stream = stream
        self._until = until
        self._left = MOST_BYTES

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview, /) -> int:  # pyright: ignore[reportIncompatibleMethodOverride]
        if not self._left:
            raise http.client.HTTPException(f"an answer whose head is longer than {MOST_BYTES} bytes")
        self._stream.settimeout(_left(self._until))
        read = self._stream.recv_into(buffer, min(len(buffer), self._left))
        self._left -= read
        return read


def _left(until: float) -> float:
    left = until - time.monotonic()
    if left <= 0:
        raise TimeoutError
    return left


@cache
def _trust() -> ssl.SSLContext:
    return ssl.create_default_context()
